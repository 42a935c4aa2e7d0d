"""What a training looked like, epoch by epoch, as a table and a picture."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from segcli.classes import ClassTable
from segcli.files import replacing
from segcli.measures.confusion import Totals, intersection_over_union
from segcli.training.loop import Training
from segcli.training.state import Progress


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
    with replacing(out / "history.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*fields[:3], *(f"iou {name}" for name in names), *fields[3:]])
        for row in history:
            cells = [*(row[field] for field in fields[:3]), *(row["iou"][name] for name in names)]
            writer.writerow([*cells, *(row[field] for field in fields[3:])])


def draw_history(history: list[dict[str, Any]], out: Path) -> None:
    """curves.png, its picture."""
    from segcli.drawing.curves import curves  # here, because matplotlib takes its time

    with replacing(out / "curves.png") as part:
        part.write_bytes(curves(history))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)  # JSON has no NaN
