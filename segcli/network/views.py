"""A network that looks at an image in several of its eight symmetries, and takes the mean of what it says
("test-time augmentation").

An image that is turned for a network with kernels as they are, and whose scores are turned back, has the scores of the
image as it is for a network whose kernels are turned back: convolutions, pooling and ways up of the U-Net's own kind
stand at the same places from either side. So nothing needs to be turned but kernels, and what comes out is one
network, which streams in rows as any other does: no windows, no seams, eight times the work. That kernels may be
turned in place of images is the ground of group convolutions (Cohen and Welling, 2016, "Group Equivariant
Convolutional Networks").
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from segcli.network.ensemble import Network, mean
from segcli.network.tracing import NotStreamableError, fold, sharing_weights
from segcli.network.unet import UNet


class View(NamedTuple):
    """An image by `turns` quarter turns to the left, then mirrored left to right if `flip` says so."""

    turns: int
    flip: bool

    def of(self, image: Tensor) -> Tensor:
        """(..., row, col) as it is seen."""
        seen = image.rot90(self.turns, (-2, -1))
        return seen.flip(-1) if self.flip else seen

    def back(self, seen: Tensor) -> Tensor:
        """(..., row, col) as it was."""
        return (seen.flip(-1) if self.flip else seen).rot90(-self.turns, (-2, -1))


Views = tuple[View, ...]

AS_IT_IS: Views = (View(0, False),)
MIRRORED: Views = (View(0, False), View(0, True))
EIGHT: Views = tuple(View(turns, flip) for turns in range(4) for flip in (False, True))


def views_for(tta: bool, upright: bool) -> Views:
    """Those of `--tta`; where images have an up, a network knows none that are turned."""
    return AS_IT_IS if not tta else MIRRORED if upright else EIGHT


class MeanOverViews(nn.Module):
    """The mean of a network's scores over `views` of an image in the network's `frame`.

    `networks` are the network with other kernels, one for each view: as many times the weights. Raises
    NotStreamableError for encoders of torchvision's, whose strides count from the first row and column: from the other
    side they find other pixels.
    """

    def __init__(self, network: Network, views: Views) -> None:
        super().__init__()
        encoders = {part.config.encoder for part in network.modules() if isinstance(part, UNet)} - {"plain"}
        if encoders:
            raise NotStreamableError([f"{encoders.pop()}, whose strides find other pixels in an image turned"])
        folded = fold(network, "scores")  # once, not in each view
        self.networks = nn.ModuleList(turned(folded, view) for view in views)

    def scores(self, x: Tensor) -> Tensor:
        """As UNet.scores."""
        return mean(network(x) for network in self.networks)


def turned(network: GraphModule, view: View) -> GraphModule:
    """What scores an image as `network` scores the view of it, turned back; it shares all weights but kernels.

    The sides of the image are those of a `frame`, so that pooling finds the same pixels together from either side.
    """
    copy = sharing_weights(network)
    for module in copy.modules() if view != AS_IT_IS[0] else ():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.kernel_size != (1, 1):
            kernels = view.back(module.weight).contiguous(memory_format=torch.channels_last)
            module.weight = nn.Parameter(kernels, requires_grad=False)
    return copy
