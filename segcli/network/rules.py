"""Which row operator does what an operator of the network does. Each rule takes the layer apart into its kernel along
columns, which torch computes, and its geometry along rows, which `operators` knows; NoRuleError says why there is none.
There are rules for more layers than the networks here have now, so that a new one streams without a new rule.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from segcli.network.crop import Crop
from segcli.network.encoders import Pixelwise
from segcli.network.joins import Join, Trim, concatenate
from segcli.network.kernels import convolution, transposed
from segcli.network.operators import (
    Geometry,
    Interpolate,
    Operator,
    Pointwise,
    Reach,
    Spread,
    Window,
    interpolate_reach,
    repeat_reach,
    same_reach,
    whole,
)
from segcli.network.ups import FirstMax

Make = Callable[[], Operator]


class Rule(NamedTuple):
    """How to make the operator for an image, and how far it reaches along columns."""

    make: Make
    columns: Reach = same_reach


@dataclass(frozen=True)
class Convolve:
    """What a convolution gives for a block that is padded along rows; or the room alone that it takes."""

    compute: Callable[[Tensor], Tensor]
    channels: int
    rows: Geometry
    columns: Geometry

    def __call__(self, block: Tensor) -> Tensor:
        return self.compute(block)

    def room(self, block: Tensor) -> Tensor:
        """Of the size of what it gives, holding anything: enough to count bytes by, for which weights do not matter."""
        images, _, rows, width = block.shape
        columns = self.columns.windows(width + self.columns.before + self.columns.after)
        return block.new_empty((images, self.rows.windows(rows), columns, self.channels)).permute(0, 3, 1, 2)


# Activations and the like: one value in, one value out, nothing else looked at.
VALUE_MODULES: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
    nn.Softplus, nn.Softsign, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.LogSigmoid, nn.Threshold,
)  # fmt: skip
VALUE_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    torch.relu, torch.sigmoid, torch.tanh, functional.relu, functional.relu6, functional.leaky_relu, functional.elu,
    functional.gelu, functional.silu, functional.mish, functional.sigmoid, functional.tanh, functional.softplus,
    functional.hardswish, functional.hardsigmoid, functional.hardtanh,
)  # fmt: skip
VALUE_METHODS = ("relu", "sigmoid", "tanh", "contiguous")
NOTHING_MODULES = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout)
DROPOUTS = (functional.dropout, functional.dropout2d)
CONCATENATIONS = (torch.cat, torch.concat)
FUNCTIONS = (functional.interpolate, functional.max_pool2d, functional.avg_pool2d)


RELU = Rule(partial(Pointwise, torch.relu_))
"""ReLU in place."""


class NoRuleError(Exception):
    """Why an operator does not stream."""


def module_rule(module: nn.Module, inplace: bool) -> Rule | None:
    """The rule of a layer; None where it does nothing in eval mode. `inplace` allows to overwrite its input."""
    if isinstance(module, NOTHING_MODULES):
        return None
    if isinstance(module, nn.Conv2d):
        return _convolution(module)
    if isinstance(module, nn.ConvTranspose2d):
        return _transposed(module)
    if isinstance(module, nn.ReLU) and inplace:
        return RELU
    if isinstance(module, VALUE_MODULES):
        if getattr(module, "inplace", False):
            module = copy.copy(module)
            module.inplace = False  # type: ignore[assignment]  # the rows may be views of what others keep
        return Rule(partial(Pointwise, module))
    if isinstance(module, Pixelwise) or (isinstance(module, nn.BatchNorm2d) and module.track_running_stats):
        return Rule(partial(Pointwise, module))
    if isinstance(module, nn.MaxPool2d):
        return _max_pool(module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
    if isinstance(module, nn.AvgPool2d):
        return _average_pool(
            module.kernel_size, module.stride, module.padding, module.ceil_mode, module.count_include_pad,
            module.divisor_override,
        )  # fmt: skip
    if isinstance(module, FirstMax):
        return Rule(partial(Join, lambda parts: module(whole(parts[0]), whole(parts[1])), 2))
    if isinstance(module, Crop):
        return _crop(module.pixels)
    if isinstance(module, nn.Upsample):
        return _upsampling(module.size, module.scale_factor, module.mode, module.align_corners)
    if isinstance(module, nn.modules.pooling._AdaptiveAvgPoolNd | nn.modules.pooling._AdaptiveMaxPoolNd):
        raise NoRuleError(f"{type(module).__name__} looks at the whole image")
    if isinstance(module, nn.modules.instancenorm._InstanceNorm | nn.GroupNorm | nn.BatchNorm2d):
        raise NoRuleError(f"{type(module).__name__} takes its statistics from the whole image")
    raise NoRuleError(f"no rule for {type(module).__name__}")


def is_dropout(target: Any) -> bool:
    """Whether a function is one that does nothing in eval mode; torchvision's own is known without loading it."""
    return target in DROPOUTS or getattr(target, "__module__", None) == "torchvision.ops.stochastic_depth"


def function_rule(node: fx.Node) -> Rule | None:
    """The same for functions, with the arguments where these have them."""

    def arguments(*names: str, **defaults: Any) -> list[Any]:
        given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
        return [given.get(name, defaults.get(name)) for name in names]

    if is_dropout(node.target):
        before = ("p",) if node.target in DROPOUTS else ("p", "mode")
        if arguments(*before, "training", training=True)[-1]:
            raise NoRuleError("it drops in eval mode, too: training=True")
        return None
    if node.target is functional.interpolate:
        return _upsampling(*arguments("size", "scale_factor", "mode", "align_corners", mode="nearest"))
    if node.target is functional.max_pool2d:
        order = ["kernel_size", "stride", "padding", "dilation", "ceil_mode"]
        return _max_pool(*arguments(*order, padding=0, dilation=1, ceil_mode=False))
    order = ["kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"]
    return _average_pool(*arguments(*order, padding=0, ceil_mode=False, count_include_pad=True))


def concatenation_rule(node: fx.Node) -> Rule:
    """Of torch.cat: along the channels only."""
    axis = node.kwargs.get("dim", node.kwargs.get("axis", node.args[1] if len(node.args) > 1 else 0))
    if axis not in (1, -3):
        raise NoRuleError(f"no rule for concatenation along axis {axis}")
    return Rule(partial(Join, concatenate, len(concatenated(node))))


def concatenated(node: fx.Node) -> list[Any]:
    """What torch.cat is given."""
    return list(node.args[0] if node.args else node.kwargs["tensors"])  # type: ignore[arg-type]


def _crop(pixels: int) -> Rule:
    def columns(first: int, last: int) -> tuple[int, int]:
        return first + pixels, last + pixels

    return Rule(partial(Trim, pixels), columns)


def _pair(value: Any) -> tuple[Any, Any]:
    return (value, value) if not isinstance(value, tuple | list) else (value[0], value[-1])


def _convolution(conv: nn.Conv2d) -> Rule:
    if conv.padding_mode != "zeros":
        raise NoRuleError(f"no rule for padding mode {conv.padding_mode}")
    left, right, top, bottom = conv._reversed_padding_repeated_twice
    rows, columns = (
        Geometry(conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1, conv.stride[axis], before, after)
        for axis, before, after in ((0, top, bottom), (1, left, right))
    )
    if max(top, bottom) >= rows.extent:
        raise NoRuleError("its padding is as large as its kernel: rows made of padding alone")
    evenly = convolution(conv, (0, left if left == right else 0))

    def compute(block: Tensor) -> Tensor:
        return evenly(block if left == right else functional.pad(block, (left, right)))

    convolve = Convolve(compute, conv.out_channels, rows, columns)
    if rows.extent == 1 and rows.stride == 1:
        return Rule(partial(Pointwise, convolve), columns.window_reach)
    return Rule(partial(Window, convolve, rows), columns.window_reach)


def _transposed(conv: nn.ConvTranspose2d) -> Rule:
    padding, extra_at_end = _pair(conv.padding), _pair(conv.output_padding)
    rows, columns = (
        Geometry(
            conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1,
            conv.stride[axis],
            padding[axis],
            padding[axis] - extra_at_end[axis],
        )
        for axis in (0, 1)
    )
    spread = transposed(conv)
    most = max(conv.stride[0], conv.dilation[0]) - 1

    def convolve(block: Tensor, extra: int) -> Tensor:
        # Rows below the last contribution hold the bias alone; torch gives fewer of them than the stride.
        return spread(block, (min(extra, most), extra_at_end[1]))

    return Rule(partial(Spread, convolve, rows), columns.spread_reach)


def _max_pool(size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Rule:
    if ceil_mode:
        raise NoRuleError("no rule for ceil_mode")
    size, step, pad, spread = map(_pair, (size, stride or size, padding, dilation))
    rows, columns = (Geometry(spread[axis] * (size[axis] - 1) + 1, step[axis], pad[axis], pad[axis]) for axis in (0, 1))

    def pool(block: Tensor) -> Tensor:
        return functional.max_pool2d(block, size, step, (0, pad[1]), spread)

    return Rule(partial(Window, pool, rows, float("-inf")), columns.window_reach)


def _average_pool(
    size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool, divisor: int | None
) -> Rule:
    size, step, pad = map(_pair, (size, stride or size, padding))
    if ceil_mode or (not count_include_pad and pad != (0, 0)):
        raise NoRuleError("no rule for ceil_mode, nor for padding that is not counted")
    rows, columns = (Geometry(size[axis], step[axis], pad[axis], pad[axis]) for axis in (0, 1))

    def pool(block: Tensor) -> Tensor:
        return functional.avg_pool2d(block, size, step, (0, pad[1]), divisor_override=divisor)

    return Rule(partial(Window, pool, rows), columns.window_reach)


def _upsampling(size: Any, scale_factor: Any, mode: str, align_corners: bool | None) -> Rule:
    if size is not None or scale_factor is None:
        raise NoRuleError("upsampling to a given size looks at the whole image; give a scale factor")
    if align_corners:
        raise NoRuleError("align_corners=True makes every row depend on the height of the whole image")
    scales = _pair(scale_factor)
    if any(scale != int(scale) for scale in scales):
        raise NoRuleError(f"no rule for upsampling by {scale_factor}")
    factors, (scale_rows, scale_cols) = tuple(map(float, scales)), map(int, scales)

    def upsample(block: Tensor) -> Tensor:
        return functional.interpolate(block, scale_factor=factors, mode=mode)

    if mode in ("nearest", "nearest-exact"):
        return Rule(partial(Pointwise, upsample), partial(repeat_reach, scale_cols))
    if mode == "bilinear":
        return Rule(partial(Interpolate, upsample, scale_rows), partial(interpolate_reach, scale_cols))
    raise NoRuleError(f"no rule for {mode} upsampling")
