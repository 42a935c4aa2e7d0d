"""What training makes small. Scores (image, class, row, col), targets (image, row, col), negative without a label."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from segcli.options import LossKind

FOCUS = 2.0
"""Gamma of the focal loss, as its authors chose it."""

MOST_WEIGHT = 10.0
"""Of a class, and the inverse of the least."""

Total = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes; the same tensor where there is one."""


@dataclass(frozen=True)
class Loss:
    """One of the losses; weights by class, (class,), or None, on the scores' device; `smoothing` of labels, for the
    cross entropy."""

    kind: LossKind
    class_weights: Tensor | None = None
    smoothing: float = 0.0

    def __call__(
        self, scores: Tensor, targets: Tensor, weights: Tensor | None = None, total: Total = lambda x: x
    ) -> Tensor:
        """Over all labelled pixels of a batch, of all processes; 0, not NaN, where it has none."""
        # A plane for each class: over classes that lie side by side a softmax takes twice as long.
        scores = scores.to(torch.float32, memory_format=torch.contiguous_format)
        if self.kind == "ce":
            return self._cross_entropy(scores, targets, weights, total)
        if self.kind == "dice":
            return dice_loss(scores, targets, total)
        if self.kind == "ce+dice":
            return self._cross_entropy(scores, targets, weights, total) + dice_loss(scores, targets, total)
        if self.kind == "ce+lovasz":
            return self._cross_entropy(scores, targets, weights, total) + lovasz_softmax(scores, targets)
        if self.kind == "focal":
            return focal_loss(scores, targets, self.class_weights, weights, total)
        return lovasz_softmax(scores, targets)

    def _cross_entropy(self, scores: Tensor, targets: Tensor, weights: Tensor | None, total: Total) -> Tensor:
        by_class = self.class_weights
        loss = functional.cross_entropy(
            scores, targets, by_class, ignore_index=-1, reduction="none", label_smoothing=self.smoothing
        )
        return _weighted_mean(loss, targets, by_class, weights, total)


def _weighted_mean(
    loss: Tensor, targets: Tensor, by_class: Tensor | None, weights: Tensor | None, total: Total
) -> Tensor:
    """Of a loss that is 0 without a label and has the weights of classes in it already."""
    counted = (targets >= 0).float()
    if by_class is not None:
        counted = counted * by_class[targets.clamp(min=0)]
    if weights is not None:
        loss, counted = loss * weights, counted * weights
    number = total(counted.sum())  # smoothed labels have a loss where all pixels are of classes without weight
    return total(loss.sum()) / number.clamp(min=1e-6) * (number > 0)


def dice_loss(scores: Tensor, targets: Tensor, total: Total = lambda x: x) -> Tensor:
    """1 - mean Dice over the classes that occur, with shares for labels (Milletari et al., 2016, "V-Net")."""
    labelled = targets >= 0
    shares = scores.softmax(1) * labelled[:, None]
    # Compared: a byte for each, where one_hot has eight, of which products are made in float32 anyway.
    truth = targets[:, None] == torch.arange(scores.shape[1], device=scores.device)[:, None, None]
    axes = (0, 2, 3)
    counts = truth.sum(axes).float()
    hits = total((shares * truth).sum(axes))
    sizes = total(shares.sum(axes) + counts)
    there = total(counts) > 0
    dice = 2 * hits / sizes.clamp(min=1e-6)
    return ((1 - dice) * there).sum() / there.sum().clamp(min=1)


def focal_loss(
    scores: Tensor, targets: Tensor, by_class: Tensor | None = None, weights: Tensor | None = None,
    total: Total = lambda x: x,
) -> Tensor:  # fmt: skip
    """Mean of -(1 - p)^2 log p (Lin et al., 2017, "Focal Loss for Dense Object Detection")."""
    logs = scores.log_softmax(1).gather(1, targets.clamp(min=0)[:, None])[:, 0]
    loss = -((1 - logs.exp()) ** FOCUS) * logs * (targets >= 0)
    if by_class is not None:
        loss = loss * by_class[targets.clamp(min=0)]
    return _weighted_mean(loss, targets, by_class, weights, total)


def lovasz_softmax(scores: Tensor, targets: Tensor) -> Tensor:
    """The Lovasz extension of 1 - IoU, mean over the classes that occur (Berman, Triki and Blaschko, 2018).

    Over the pixels of one process: it sorts them, and no sum over processes stands for that.
    """
    labelled = targets >= 0
    losses = []
    for n, share in enumerate(scores.softmax(1).unbind(1)):  # at once: a plane's gradient by itself is a whole one
        is_class = targets == n
        if is_class.any():
            errors = torch.where(is_class, 1 - share, share) * labelled  # those of 0 count for nothing
            losses.append((errors * _lovasz_gradient(errors.detach(), is_class)).sum())
    return torch.stack(losses).mean() if losses else scores.sum() * 0


def _lovasz_gradient(errors: Tensor, is_class: Tensor) -> Tensor:
    """By how much the extension grows with the error of each pixel, as `errors`: by the step of the IoU loss when that
    pixel is wrong, too, where those of larger errors are (algorithm 1 of the paper, in the pixels' own order)."""
    flat = errors.reshape(-1)
    is_here = flat.device.type == "cpu"  # where NumPy sorts several numbers at a time, in a fifth of the time
    order = torch.from_numpy(np.argsort(-flat.numpy())) if is_here else flat.argsort(descending=True)
    truth = is_class.reshape(-1)[order]
    size = truth.sum()
    jaccard = 1 - (size - truth.cumsum(0)) / (size + (~truth).cumsum(0))
    steps = torch.cat([jaccard[:1], jaccard.diff()])
    return torch.empty_like(flat).scatter_(0, order, steps).view_as(errors)


def class_weights(pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights by class from counts of pixels, (image, class): median frequency balancing (Eigen and Fergus, 2015).

    The frequency of a class is its share in the images that hold it; the median one has weight 1. Bounded.
    """
    where = pixels > 0
    total = (where * pixels.sum(1, keepdims=True)).sum(0)
    frequency = np.divide(pixels.sum(0), total, out=np.full(pixels.shape[1], np.nan), where=total > 0)
    weights = np.nanmedian(frequency) / frequency
    return np.nan_to_num(weights, nan=1.0).clip(1 / MOST_WEIGHT, MOST_WEIGHT)
