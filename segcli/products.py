"""What is made of the scores of a strip, and how it is stored: the mask, and what users may ask for beside it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from segcli.classes import ClassTable
from segcli.options import Quantity
from segcli.raster.sink import Layout, empty_value, mask_layout

STEPS = 250
"""Probabilities as bytes count in 250ths, so that 255 is free for pixels without data."""

PROBABILITIES, CONFIDENCE = "probabilities", "confidence"
"""Folders inside the output folder."""


@dataclass(frozen=True)
class Product:
    """One output: `make` takes scores, (image, class, row, col), and gives (image, band, row, col) on their device.

    `folder` is its place inside the output folder, None for the mask. `empty` is what pixels without data hold.
    """

    folder: str | None
    layout: Layout
    make: Callable[[Tensor], Tensor]
    empty: float | None


def mask(classes: ClassTable) -> Product:
    """The value of the class with the highest score, one byte a pixel."""
    indices = torch.from_numpy(classes.indices)

    @cache
    def on(device: torch.device) -> Tensor:  # once: a copy waits for all that the device has to do
        return indices.to(device)

    def make(scores: Tensor) -> Tensor:
        return on(scores.device)[scores.argmax(1, keepdim=True)]

    return Product(None, mask_layout(classes), make, empty_value(classes))


def probabilities(classes: ClassTable, quantity: Quantity) -> Product:
    """The share of every class by softmax, a band each."""
    stored = _stored(quantity, classes.names)
    return Product(PROBABILITIES, stored, lambda scores: _as(quantity, _softmax(scores)), stored.nodata)


def confidence(quantity: Quantity) -> Product:
    """The probability of the class that was taken, and the entropy of all of them as a share of the largest possible.

    Entropy after Shannon (1948): -sum p log p over log of the number of classes; 0 is certain, 1 is a guess.
    """
    stored = _stored(quantity, ("top probability", "entropy"))

    def make(scores: Tensor) -> Tensor:
        shares = _softmax(scores)
        entropy = -torch.special.xlogy(shares, shares).sum(1) / math.log(max(2, shares.shape[1]))
        return _as(quantity, torch.stack([shares.amax(1), entropy.clamp(0, 1)], 1))

    return Product(CONFIDENCE, stored, make, stored.nodata)


def _softmax(scores: Tensor) -> Tensor:
    return scores.float().softmax(1)


def _stored(quantity: Quantity, names: tuple[str, ...]) -> Layout:
    if quantity == "uint8":
        return Layout(len(names), "uint8", None, 255, names, 1 / STEPS, statistics=True, overviews="average")
    return Layout(
        len(names), "float32", None, math.nan, names, half=quantity == "float16", statistics=True, overviews="average"
    )


def _as(quantity: Quantity, values: Tensor) -> Tensor:
    if quantity == "uint8":
        return values.mul(STEPS).round_().to(torch.uint8)
    return values.half().float() if quantity == "float16" else values
