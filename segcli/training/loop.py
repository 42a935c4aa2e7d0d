"""The training loop: batches in, better weights out, a figure of the validation part after each epoch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from segcli.ahead import ahead
from segcli.errors import NothingDoneError
from segcli.measures.confusion import confusion_matrix, intersection_over_union, mean_iou
from segcli.network.checkpoint import Model
from segcli.options import TrainOptions
from segcli.training.pairs import Pair
from segcli.training.sampling import Crops, read_pair

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises to its full value."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to; `iou` by class, NaN for a class that is not in the validation part."""

    number: int
    loss: float
    mean_iou: float
    iou: tuple[float, ...]
    learning_rate: float
    images_per_second: float
    seconds: float


def fit(
    model: Model, crops: Crops, val: tuple[Pair, ...], options: TrainOptions, device: torch.device
) -> Iterator[Epoch]:
    """Train `model.network` in place, yielding after each epoch, with the network as it was validated."""
    network = model.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    half = training_dtype(options.precision, device)
    steps = max(1, len(crops.order(0)) // options.batch)
    began = monotonic()
    for epoch in range(options.epochs):
        network.train()
        epoch_began, total, images_seen = monotonic(), 0.0, 0
        for step, (images, targets) in enumerate(ahead(crops.batches(epoch, options.batch))):
            rate = learning_rate(epoch * steps + step, options.epochs * steps, options.learning_rate)
            for group in optimiser.param_groups:
                group["lr"] = rate
            images = images.to(device, memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                scores = network(images)
            loss = labelled_cross_entropy(scores.float(), targets.to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.item() * len(images)
            images_seen += len(images)
        if not math.isfinite(total):
            raise NothingDoneError(
                crops.pairs[0].image.parent, f"loss is {total} in epoch {epoch + 1}", "", "lower --learning-rate"
            )
        speed = images_seen / (monotonic() - epoch_began)
        matrix = validate(model, val, device, half)
        iou = tuple(float(value) for value in intersection_over_union(matrix))
        yield Epoch(epoch + 1, total / images_seen, mean_iou(matrix), iou, rate, speed, monotonic() - began)


def labelled_cross_entropy(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over labelled pixels; 0, not NaN, where a batch has none.

    `scores` (image, class, row, col), `targets` (image, row, col), negative without a label.
    """
    total = functional.cross_entropy(scores, targets, ignore_index=-1, reduction="sum")
    return total / (targets >= 0).sum().clamp(min=1)


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Linear warm-up, then a half cosine to zero (Loshchilov and Hutter 2017, without restarts)."""
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return highest * (step + 1) / warm_up
    return highest * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2


def training_dtype(precision: str, device: torch.device) -> bool:
    """Whether to train in bfloat16: asked for, or automatic on a GPU that has it."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bf16"


def validate(model: Model, val: tuple[Pair, ...], device: torch.device, half: bool) -> NDArray[np.int64]:
    """The confusion matrix over all validation images, each predicted whole."""
    count = len(model.classes.entries)
    matrix = np.zeros((count, count), np.int64)
    model.network.eval()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        for image, target in ahead(_whole_pairs(model, val)):
            batch = image.to(device, memory_format=torch.channels_last)
            predicted = model.network(batch)[0].argmax(0).cpu().numpy()
            matrix += confusion_matrix(target, predicted, count)
    return matrix


def _whole_pairs(model: Model, pairs: tuple[Pair, ...]) -> Iterator[tuple[torch.Tensor, NDArray[np.int16]]]:
    for pair in pairs:
        with_all = 2**31 - 1  # read_pair cuts the window at the image's borders
        image, target = read_pair(pair, 0, 0, with_all, with_all, model.classes, model.normalisation)
        yield torch.from_numpy(image)[None], target
