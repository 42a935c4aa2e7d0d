"""Which row operator does what an operator of the network does. Each rule takes the layer apart into its kernel along
columns, which torch computes, and its geometry along rows, which `operators` knows; NoRuleError says why there is none.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from segcli.network.operators import (
    Geometry,
    Interpolate,
    Join,
    Operator,
    Pointwise,
    Repeat,
    Spread,
    Window,
    concatenate,
)

Make = Callable[[], Operator]

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
NOTHING_FUNCTIONS = (functional.dropout, functional.dropout2d)
CONCATENATIONS = (torch.cat, torch.concat)
FUNCTIONS = (functional.interpolate, functional.max_pool2d, functional.avg_pool2d)


RELU = partial(Pointwise, torch.relu_)
"""ReLU in place."""


class NoRuleError(Exception):
    """Why an operator does not stream."""


def _pair(value: Any) -> tuple[Any, Any]:
    return (value, value) if not isinstance(value, tuple | list) else (value[0], value[1])


def module_rule(module: nn.Module, inplace: bool) -> Make | None:
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
            module.inplace = False  # type: ignore[assignment]  # others may still read what would be overwritten
        return partial(Pointwise, module)
    if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
        return partial(Pointwise, module)
    if isinstance(module, nn.MaxPool2d):
        return _max_pool(module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
    if isinstance(module, nn.AvgPool2d):
        return _average_pool(
            module.kernel_size, module.stride, module.padding, module.ceil_mode, module.count_include_pad,
            module.divisor_override,
        )  # fmt: skip
    if isinstance(module, nn.Upsample):
        return _upsampling(module.size, module.scale_factor, module.mode, module.align_corners)
    if isinstance(module, nn.modules.pooling._AdaptiveAvgPoolNd | nn.modules.pooling._AdaptiveMaxPoolNd):
        raise NoRuleError(f"{type(module).__name__} looks at the whole image")
    if isinstance(module, nn.modules.instancenorm._InstanceNorm | nn.GroupNorm | nn.BatchNorm2d):
        raise NoRuleError(f"{type(module).__name__} takes its statistics from the whole image")
    raise NoRuleError(f"no rule for {type(module).__name__}")


def _convolution(conv: nn.Conv2d) -> Make:
    if conv.padding_mode != "zeros":
        raise NoRuleError(f"no rule for padding mode {conv.padding_mode}")
    left, right, top, bottom = conv._reversed_padding_repeated_twice
    extent = conv.dilation[0] * (conv.kernel_size[0] - 1) + 1
    if max(top, bottom) >= extent:
        raise NoRuleError("its padding is as large as its kernel: rows made of padding alone")
    weight, bias, stride, dilation, groups = conv.weight, conv.bias, conv.stride, conv.dilation, conv.groups

    def convolve(rows: Tensor) -> Tensor:
        if left != right:
            rows = functional.pad(rows, (left, right))
        padding = (0, left if left == right else 0)
        return functional.conv2d(rows, weight, bias, stride, padding, dilation, groups)

    if extent == 1 and stride[0] == 1:
        return partial(Pointwise, convolve)
    return partial(Window, convolve, Geometry(extent, stride[0], top, bottom))


def _transposed(conv: nn.ConvTranspose2d) -> Make:
    (top, left), (extra_rows, extra_cols) = _pair(conv.padding), _pair(conv.output_padding)
    extent = conv.dilation[0] * (conv.kernel_size[0] - 1) + 1
    weight, bias, stride, dilation, groups = conv.weight, conv.bias, conv.stride, conv.dilation, conv.groups

    def convolve(rows: Tensor, extra: int) -> Tensor:
        # Rows below the last contribution hold the bias alone; torch gives fewer of them than the stride.
        given = min(extra, max(stride[0], dilation[0]) - 1)
        return functional.conv_transpose2d(rows, weight, bias, stride, (0, left), (given, extra_cols), groups, dilation)

    return partial(Spread, convolve, Geometry(extent, stride[0], top, top - extra_rows))


def _max_pool(size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Make:
    if ceil_mode:
        raise NoRuleError("no rule for ceil_mode")
    (height, width), (step, step_cols), (pad, pad_cols), (spread, spread_cols) = map(
        _pair, (size, stride or size, padding, dilation)
    )

    def pool(rows: Tensor) -> Tensor:
        return functional.max_pool2d(rows, (height, width), (step, step_cols), (0, pad_cols), (spread, spread_cols))

    return partial(Window, pool, Geometry(spread * (height - 1) + 1, step, pad, pad), float("-inf"))


def _average_pool(
    size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool, divisor: int | None
) -> Make:
    if ceil_mode or (not count_include_pad and _pair(padding) != (0, 0)):
        raise NoRuleError("no rule for ceil_mode, nor for padding that is not counted")
    (height, width), (step, step_cols), (pad, pad_cols) = map(_pair, (size, stride or size, padding))

    def pool(rows: Tensor) -> Tensor:
        return functional.avg_pool2d(rows, (height, width), (step, step_cols), (0, pad_cols), divisor_override=divisor)

    return partial(Window, pool, Geometry(height, step, pad, pad))


def _upsampling(size: Any, scale_factor: Any, mode: str, align_corners: bool | None) -> Make:
    if size is not None or scale_factor is None:
        raise NoRuleError("upsampling to a given size looks at the whole image; give a scale factor")
    scale_rows, scale_cols = _pair(scale_factor)
    if scale_rows != int(scale_rows) or scale_cols != int(scale_cols):
        raise NoRuleError(f"no rule for upsampling by {scale_factor}")
    factors = (float(scale_rows), float(scale_cols))
    if mode in ("nearest", "nearest-exact"):
        return partial(
            Repeat, lambda rows: functional.interpolate(rows, scale_factor=factors, mode=mode), int(scale_rows)
        )
    if mode == "bilinear" and not align_corners:
        return partial(
            Interpolate,
            lambda rows: functional.interpolate(rows, scale_factor=factors, mode=mode, align_corners=False),
            int(scale_rows),
        )
    if align_corners:
        raise NoRuleError("align_corners=True makes every row depend on the height of the whole image")
    raise NoRuleError(f"no rule for {mode} upsampling")


def function_rule(node: fx.Node) -> Make:
    """The same as the modules, with the arguments where the functions have them."""

    def arguments(*names: str, **defaults: Any) -> list[Any]:
        given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
        return [given.get(name, defaults.get(name)) for name in names]

    if node.target is functional.interpolate:
        return _upsampling(*arguments("size", "scale_factor", "mode", "align_corners", mode="nearest"))
    if node.target is functional.max_pool2d:
        return _max_pool(
            *arguments(
                "kernel_size", "stride", "padding", "dilation", "ceil_mode", padding=0, dilation=1, ceil_mode=False
            )
        )
    return _average_pool(
        *arguments(
            "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override",
            padding=0, ceil_mode=False, count_include_pad=True,
        )
    )  # fmt: skip


def concatenation_rule(node: fx.Node) -> Make:
    given = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    if given not in (1, -3):
        raise NoRuleError(f"no rule for concatenation along axis {given}")
    return partial(Join, concatenate, len(node.args[0]))  # type: ignore[arg-type]
