"""Convolutions, and transposed ones, whose weights are laid out once. Knows torch and oneDNN, nothing of rows."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from segcli.network.device import large_blocks_mapped


def convolution(conv: nn.Conv2d, padding: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """What `conv` does to (image, channel, row, col), padded with so many rows and columns of zeros on either side.

    On the CPU oneDNN lays out the weights anew in every call of torch's, for its multiplications: a fifth of the time
    of a strip of one row with 512 channels, and as much memory as the weights take. Here that is done once.
    """
    weight, bias, stride, dilation, groups = conv.weight, conv.bias, conv.stride, conv.dilation, conv.groups

    def plain(block: Tensor) -> Tensor:
        return functional.conv2d(block, weight, bias, stride, padding, dilation, groups)

    if not _lays_out(weight):
        return plain
    reorder = torch.ops.mkldnn._reorder_convolution_weight

    def lay(dense: Tensor, shape: list[int]) -> Tensor:
        return reorder(dense, padding, stride, dilation, groups, shape)

    extents = [d * (k - 1) + 1 for d, k in zip(dilation, conv.kernel_size, strict=True)]
    laid_out = _laid_out(_Laying(lay, Tensor.to_dense), weight.detach(), conv.in_channels, extents)
    offsets = None if bias is None else bias.detach()
    call = torch.ops.mkldnn._convolution_pointwise

    def packed(block: Tensor) -> Tensor:
        return call(block, laid_out(block), offsets, padding, stride, dilation, groups, "none", [], "")

    return packed


def transposed(conv: nn.ConvTranspose2d) -> Callable[[Tensor, tuple[int, int]], Tensor]:
    """What `conv` does to (image, channel, row, col), padded along columns only, with so many rows and columns more at
    the end, fewer than the stride.

    On the CPU its weights are laid out once, too, where kernels lie beside each other, as in the U-Net's.
    """
    weight, bias, stride, dilation, groups = conv.weight, conv.bias, conv.stride, conv.dilation, conv.groups
    padding = (0, int(conv.padding[1]))

    def plain(block: Tensor, extra: tuple[int, int]) -> Tensor:
        return functional.conv_transpose2d(block, weight, bias, stride, padding, extra, groups, dilation)

    beside = conv.kernel_size == stride and dilation == (1, 1) and padding == conv.output_padding == (0, 0)
    # In groups, the weights as they are taken up again are wrong on some processors with AVX-512; no network has any.
    if not beside or groups > 1 or not _lays_out(weight):
        return plain
    reorder = torch.ops.mkldnn._reorder_convolution_transpose_weight

    def lay(dense: Tensor, shape: list[int]) -> Tensor:
        return reorder(dense, padding, (0, 0), stride, dilation, groups, shape)

    def take_up(laid: Tensor) -> Tensor:  # oneDNN has outputs before inputs
        return laid.to_dense().transpose(0, 1)

    laid_out = _laid_out(_Laying(lay, take_up), weight.detach(), conv.in_channels, [1, 1])
    offsets = None if bias is None else bias.detach()
    call = torch.ops.mkldnn._convolution_transpose_pointwise

    def packed(block: Tensor, extra: tuple[int, int]) -> Tensor:
        return call(block, laid_out(block), offsets, padding, extra, stride, dilation, groups, "none", [], "")

    return packed


USUAL = ((1, 16), (2, 32), (2, 128), (16, 4096), (32, 128))
"""Rows and columns of what a convolution gives, at one depth or another. Of 42 layers of 3 to 1024 channels, all 30
whose order depends on the shape on a processor with AVX2 alone showed it among these five."""


@dataclass(frozen=True)
class _Laying:
    """How weights are laid out for a shape of blocks, and taken up again as they were."""

    lay: Callable[[Tensor, list[int]], Tensor]
    take_up: Callable[[Tensor], Tensor]


def _laid_out(laying: _Laying, dense: Tensor, channels: int, extents: list[int]) -> Callable[[Tensor], Tensor]:
    """The weights for a block, in the order in which oneDNN multiplies blocks of its shape.

    On some processors, those without AVX-512 above all, the order depends on the shape. Weights in another order give
    the same numbers, but are put in order in every call, which takes up to thirty times as long as the multiplications.
    """
    shapes = ([1, channels, rows + extents[0] - 1, cols + extents[1] - 1] for rows, cols in USUAL)
    first = laying.lay(dense, next(shapes))
    if any(_order(laying.lay(dense, shape)) != _order(first) for shape in shapes):
        return _ByShape(laying, first).weights
    return lambda block: first


def _order(laid_out: Tensor) -> bytes:
    return bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(laid_out).numpy())


KNOWN_SHAPES = 256
"""Shapes of blocks whose order is remembered, for each convolution; an image has ten or so."""


class _ByShape:
    """Weights in the order for the last block, out of which they are put into that for the next one where it is
    another: there is no second copy. Strips of an image have one shape, but for a few."""

    def __init__(self, laying: _Laying, laid_out: Tensor) -> None:
        self._laying, self._now = laying, laid_out
        self._order: bytes | None = _order(laid_out)
        self._known: dict[torch.Size, bytes] = {}  # the order for each shape

    def weights(self, block: Tensor) -> Tensor:
        if self._order is None or self._known.get(block.shape) != self._order:
            if self._order is not None:
                self._now, self._order = self._laying.take_up(self._now), None  # one copy is given back before another
            with large_blocks_mapped():
                self._now = self._laying.lay(self._now, list(block.shape))
            self._order = _order(self._now)
            if len(self._known) == KNOWN_SHAPES:  # images of ever other sizes
                self._known.clear()
            self._known[block.shape] = self._order
        return self._now


OPERATORS = (
    "_reorder_convolution_weight", "_convolution_pointwise",
    "_reorder_convolution_transpose_weight", "_convolution_transpose_pointwise", "_is_mkldnn_bf16_supported",
    "_get_mkldnn_serialized_md",
)  # fmt: skip


def _lays_out(weight: Tensor) -> bool:
    """Whether torch has oneDNN here, and the operators that its own compiler uses for this."""
    mkldnn = torch.backends.mkldnn
    if weight.device.type != "cpu" or not (mkldnn.is_available() and mkldnn.enabled):  # type: ignore[no-untyped-call]
        return False
    if not all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
