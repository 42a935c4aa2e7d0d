"""Ways from a level of the network up to the one above: half the channels or so, twice the rows and columns.

All of them look at a few neighbours alone, so that they stream.
"""

import torch
from torch import Tensor, nn

from segcli.options import Up


class FirstMax(nn.Module):
    """Values put where features are largest: of each 2x2 window of `phases`, (image, 4 channel, row, col), the first
    largest gets the value (image, channel, row, col), the others 0; as `phases`."""

    def forward(self, phases: Tensor, values: Tensor) -> Tensor:
        image, channels, rows, columns = values.shape
        windows = phases.reshape(image, channels, 4, rows, columns)
        here = windows.argmax(2, keepdim=True) == torch.arange(4, device=values.device).view(1, 1, 4, 1, 1)
        return (here * values[:, :, None]).reshape(image, 4 * channels, rows, columns)


class Unpool(nn.Module):
    """Max unpooling (Noh, Hong and Han, 2015): each value goes where the pooled feature came from, the rest is 0.

    As max_unpool2d with the positions of max_pool2d, but without positions that count the whole image.
    """

    def __init__(self, deep: int, shallow: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(deep, shallow, 1)
        corners = torch.eye(4).view(4, 1, 2, 2).repeat(shallow, 1, 1, 1)
        self.phases = _fixed(nn.Conv2d(shallow, 4 * shallow, 2, 2, groups=shallow, bias=False), corners)
        self.first_max = FirstMax()
        self.place = _fixed(nn.ConvTranspose2d(4 * shallow, shallow, 2, 2, groups=shallow, bias=False), corners)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        return self.place(self.first_max(self.phases(features), self.reduce(x)))


def make_up(kind: Up, deep: int, shallow: int) -> nn.Module:
    """One step up, from `deep` channels to `shallow`."""
    if kind == "transpose":
        return nn.ConvTranspose2d(deep, shallow, 2, stride=2)
    if kind == "unpool":
        return Unpool(deep, shallow)
    # Before the step, where it is a quarter of the work: it commutes with all of these.
    reduce = nn.Conv2d(deep, shallow, 1)
    if kind == "bed-of-nails":
        corner = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).expand(shallow, 1, 2, 2)
        return nn.Sequential(
            reduce, _fixed(nn.ConvTranspose2d(shallow, shallow, 2, 2, groups=shallow, bias=False), corner)
        )
    return nn.Sequential(reduce, nn.Upsample(scale_factor=2, mode=kind))


def _fixed(layer: nn.Module, weight: Tensor) -> nn.Module:
    """A layer that is not learnt."""
    layer.weight = nn.Parameter(weight.clone().to(layer.weight.device), requires_grad=False)  # type: ignore[arg-type]
    return layer
