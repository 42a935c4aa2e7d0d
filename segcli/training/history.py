"""What a training looked like, epoch by epoch, as a table and a picture."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from segcli.classes import ClassTable
from segcli.files import replacing
from segcli.measures.confusion import Totals, intersection_over_union, mean_iou
from segcli.training.loop import Training, learning_rate
from segcli.training.state import Progress


def row_of(
    training: Training, progress: Progress, matrix: np.ndarray, classes: ClassTable, speed: float
) -> dict[str, Any]:
    """The figures of the epoch that has come to its end, with its confusion matrix over the validation part."""
    iou = intersection_over_union(Totals.of(matrix))
    return {
        "epoch": progress.epoch + 1,
        "loss": progress.loss / max(1, progress.seen),
        "mean_iou": _number(mean_iou(matrix)),
        "iou": {name: _number(value) for name, value in zip(classes.names, iou, strict=True)},
        "learning_rate": learning_rate(training.share_done(progress), training.options.learning_rate),
        "crops_per_second": round(speed, 2),
        "seconds": round(progress.seconds, 3),
    }


def write_history(history: list[dict[str, Any]], names: tuple[str, ...], out: Path) -> None:
    """history.csv, a line an epoch, and its picture."""
    fields = ["epoch", "loss", "mean_iou", "learning_rate", "crops_per_second", "seconds"]
    with replacing(out / "history.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*fields[:3], *(f"iou {name}" for name in names), *fields[3:]])
        for row in history:
            cells = [*(row[field] for field in fields[:3]), *(row["iou"][name] for name in names)]
            writer.writerow([*cells, *(row[field] for field in fields[3:])])
    from segcli.drawing.curves import curves  # here, because matplotlib takes its time

    with replacing(out / "curves.png") as part:
        part.write_bytes(curves(history))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)  # JSON has no NaN
