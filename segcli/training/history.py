"""What a training looked like, epoch by epoch, as a table and a picture."""

import csv
import math
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from segcli.classes import ClassTable
from segcli.files import replacing
from segcli.measures.confusion import Totals, intersection_over_union
from segcli.raster.faults import faults_of_writing
from segcli.training.folder import CURVES, HISTORY
from segcli.training.loop import Training
from segcli.training.state import Progress

CURVES_EVERY = 20.0
"""Seconds between two pictures of a history, each of which takes up to one: epochs may be shorter than that."""


def row_of(
    training: Training, progress: Progress, matrix: np.ndarray, classes: ClassTable, speed: float
) -> dict[str, Any]:
    """The figures of the epoch that has come to its end, with its confusion matrix over the validation part.

    IoU is of the classes that are in the validation truth, and `mean_iou` their mean; of others nothing is known. Their
    IoU would be 0 / 0, or 0 from the first pixel that is wrongly predicted as one, so that such a pixel, and no better
    or worse prediction, would decide by how many classes the mean is divided, which epoch is best, and when it ends.
    What is wrongly predicted as one of them counts against the class that it is of.
    """
    totals = Totals.of(matrix)
    iou = np.where(totals.true > 0, intersection_over_union(totals), np.nan)
    return {
        "epoch": progress.epoch + 1,
        "loss": progress.loss / max(1, progress.seen),
        "mean_iou": _number(float(np.nanmean(iou))) if totals.pixels else None,
        "iou": {name: _number(value) for name, value in zip(classes.names, iou, strict=True)},
        "learning_rate": training.optimiser.param_groups[0]["lr"],  # of the last step
        "crops_per_second": round(speed, 2),
        "seconds": round(progress.seconds, 3),
    }


def write_history(history: list[dict[str, Any]], names: tuple[str, ...], out: Path) -> None:
    """history.csv, a line an epoch."""
    fields = ["epoch", "loss", "mean_iou", "learning_rate", "crops_per_second", "seconds"]
    with replacing(out / HISTORY) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*fields[:3], *(f"iou {name}" for name in names), *fields[3:]])
        for row in history:
            cells = [*(row[field] for field in fields[:3]), *(row["iou"][name] for name in names)]
            writer.writerow([*cells, *(row[field] for field in fields[3:])])


class Picture:
    """curves.png, the picture of a history: drawn now and then, since that takes as long as a short epoch."""

    def __init__(self, out: Path) -> None:
        self._path, self._epochs, self._drawn = out / CURVES, 0, -math.inf

    def draw(self, history: list[dict[str, Any]], at_once: bool = False) -> None:
        """Where it does not show all epochs yet, and was not drawn within the last `CURVES_EVERY` seconds, or
        `at_once`."""
        if len(history) == self._epochs or not (at_once or monotonic() - self._drawn >= CURVES_EVERY):
            return
        from segcli.drawing.curves import curves  # here, because matplotlib takes its time

        with faults_of_writing(self._path), replacing(self._path) as part:
            part.write_bytes(curves(history))
        self._epochs, self._drawn = len(history), monotonic()


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)  # JSON has no NaN
