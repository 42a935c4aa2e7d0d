"""Several networks that learnt the same task, such as those of the folds of a cross-validation, as one: the mean of
their scores. It streams as they do, so that many networks make no more seams than one.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from segcli.network.frame import frame
from segcli.network.normalise import Normalisation
from segcli.network.unet import UNet


class Ensemble(nn.Module):
    """The mean of the scores of U-Nets that may have other widths, ways up, skips and norms, but frame images alike.

    Inputs are normalised as the first one wants them; what makes them those of another one is done before it. Pixels
    without data, which every network sees as its mean, have the first one's.
    """

    def __init__(self, networks: Sequence[UNet], constants: Sequence[Normalisation]) -> None:
        super().__init__()
        self.config = networks[0].config
        self.networks = nn.ModuleList(networks)
        self.inputs = nn.ModuleList(_between(constants[0], of_another) for of_another in constants)

    def forward(self, image: Tensor) -> Tensor:
        """As UNet.forward."""
        height, width = image.shape[-2:]
        return self.scores(frame(image, self.config.total_stride, self.config.context))[..., :height, :width]

    def scores(self, x: Tensor) -> Tensor:
        """As UNet.scores."""
        pairs = zip(self.networks, self.inputs, strict=True)
        return mean(network.scores(change(x)) for network, change in pairs)  # type: ignore[operator]


def mean(scores: Iterable[Tensor]) -> Tensor:
    """Of what several networks say, each added as it comes."""
    total: Tensor | None = None
    count = 0
    for one in scores:
        total, count = (one if total is None else total + one), count + 1
    assert total is not None
    return total * (1 / count)


class Scaled(nn.Module):
    """Each band times a factor, and more by a summand; both (1, band, 1, 1)."""

    factor: Tensor
    summand: Tensor

    def __init__(self, factor: Tensor, summand: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor)
        self.register_buffer("summand", summand)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.summand


def _between(first: Normalisation, other: Normalisation) -> nn.Module:
    """From inputs by the constants of the one to those by the constants of the other."""
    if (first.mean, first.deviation) == (other.mean, other.deviation):
        return nn.Identity()
    was, wanted = (
        [
            torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)
            for values in (constants.mean, constants.deviation)
        ]
        for constants in (first, other)
    )
    return Scaled((was[1] / wanted[1]).float(), ((was[0] - wanted[0]) / wanted[1]).float())


Network = UNet | Ensemble
"""What scores an image: both have `config` (of the bands, the classes, and the frame), `forward` and `scores`."""
