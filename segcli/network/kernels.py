"""Convolutions, and transposed ones, whose weights are laid out once. Knows torch and oneDNN, nothing of rows."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolution(conv: nn.Conv2d, padding: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """What `conv` does to (image, channel, row, col), padded with so many rows and columns of zeros on either side.

    On the CPU oneDNN lays out the weights anew in every call of torch's, for its multiplications: a fifth of the time
    of a strip of one row with 512 channels, and as much memory as the weights take. Here that is done once.
    """
    weight, bias, stride, dilation, groups = conv.weight, conv.bias, conv.stride, conv.dilation, conv.groups

    def plain(block: Tensor) -> Tensor:
        return functional.conv2d(block, weight, bias, stride, padding, dilation, groups)

    # Of 1 x 1 there is little to lay out, and at low strips the layout is the wrong one: up to 14 times as long.
    if max(conv.kernel_size) == 1 or not _lays_out(weight):
        return plain
    # For the choice of a layout; images of other sizes work as well.
    rows, cols = (least + d * (k - 1) for least, d, k in zip((16, 512), dilation, conv.kernel_size, strict=True))
    room = [1, conv.in_channels, rows, cols]
    laid_out = torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), padding, stride, dilation, groups, room)
    offsets = None if bias is None else bias.detach()
    call = torch.ops.mkldnn._convolution_pointwise

    def packed(block: Tensor) -> Tensor:
        return call(block, laid_out, offsets, padding, stride, dilation, groups, "none", [], "")

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
    if not beside or not _lays_out(weight):
        return plain
    room = [1, conv.in_channels, 16, 512]
    reorder = torch.ops.mkldnn._reorder_convolution_transpose_weight
    laid_out = reorder(weight.detach(), padding, (0, 0), stride, dilation, groups, room)
    offsets = None if bias is None else bias.detach()
    call = torch.ops.mkldnn._convolution_transpose_pointwise

    def packed(block: Tensor, extra: tuple[int, int]) -> Tensor:
        return call(block, laid_out, offsets, padding, extra, stride, dilation, groups, "none", [], "")

    return packed


OPERATORS = (
    "_reorder_convolution_weight", "_convolution_pointwise",
    "_reorder_convolution_transpose_weight", "_convolution_transpose_pointwise", "_is_mkldnn_bf16_supported",
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
