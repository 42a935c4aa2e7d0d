"""From counts of images to the figures of a report, and from figures to JSON and CSV. numpy only."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from segcli.measures import confusion as c
from segcli.measures.bootstrap import interval, resampled
from segcli.measures.boundaries import BoundaryCounts
from segcli.measures.confusion import Figures, Matrix
from segcli.options import Absent

SCHEMA = 1
"""Number of report.json's format; see docs/report.md."""

PER_CLASS: dict[str, Callable[[Matrix], Figures]] = {
    "iou": c.intersection_over_union,
    "dice": c.dice,
    "precision": c.precision,
    "recall": c.recall,
}


def overall_figures(absent: Absent) -> dict[str, Callable[[Matrix], Figures]]:
    """Figures of a matrix as a whole, by name."""

    def mean_of(figure: Callable[[Matrix], Figures], matrix: Matrix) -> Figures:
        return c.mean_over_classes(figure(matrix), absent)

    means = {f"mean_{name}": partial(mean_of, figure) for name, figure in PER_CLASS.items()}
    return means | {
        "pixel_accuracy": c.pixel_accuracy,
        "frequency_weighted_iou": c.frequency_weighted_iou,
        "cohens_kappa": c.cohens_kappa,
        "matthews_correlation": c.matthews_correlation,
    }


@dataclass(frozen=True)
class ImageCounts:
    """One pair: its name, its confusion matrix, and pixels that have a true class and none predicted."""

    name: str
    matrix: Matrix
    unpredicted: int = 0
    boundaries: tuple[BoundaryCounts, ...] = ()  # by class, where they were asked for


def report(
    images: Sequence[ImageCounts], names: Sequence[str], absent: Absent = "skip", confidence: float = 0.95
) -> dict[str, Any]:
    """All figures, ready for JSON: `dataset` of all pixels together, `mean_over_images` of images one by one.

    Undefined figures are None. Intervals are by bootstrap over images.
    """
    matrices = np.stack([image.matrix for image in images])
    total, drawn = matrices.sum(0), resampled(matrices)
    wanted = overall_figures(absent)
    return {
        "schema": SCHEMA,
        "absent_classes": absent,
        "confidence": confidence,
        "images": len(images),
        "pixels": int(total.sum()),
        "unpredicted_pixels": sum(image.unpredicted for image in images),
        "classes": list(names),
        "confusion_matrix": total.tolist(),
        "dataset": {name: _with_interval(figure(total), figure(drawn), confidence) for name, figure in wanted.items()},
        "mean_over_images": {name: _mean(figure(matrices)) for name, figure in wanted.items()},
        "per_class": _by_class(images, matrices, drawn, names, confidence),
    }


def _by_class(
    images: Sequence[ImageCounts], matrices: Matrix, drawn: Figures, names: Sequence[str], confidence: float
) -> list[dict[str, Any]]:
    total = matrices.sum(0)
    of_all = {name: figure(total) for name, figure in PER_CLASS.items()}
    of_draws = {name: figure(drawn) for name, figure in PER_CLASS.items()}
    of_images = {name: figure(matrices) for name, figure in PER_CLASS.items()}
    rows = []
    for n, class_name in enumerate(names):
        row: dict[str, Any] = {"class": class_name}
        row |= {"true_pixels": int(total[n].sum()), "predicted_pixels": int(total[:, n].sum())}
        for name in PER_CLASS:
            row[name] = _with_interval(of_all[name][n], of_draws[name][:, n], confidence)
            row[f"{name}_mean_over_images"] = _mean(of_images[name][:, n])
        if images[0].boundaries:
            total_counts = sum((image.boundaries[n] for image in images), BoundaryCounts())
            row["boundary_iou"] = _number(total_counts.boundary_iou)
            row["boundary_f_score"] = _number(total_counts.f_score)
        rows.append(row)
    return rows


def _with_interval(value: Any, draws: Figures, confidence: float) -> dict[str, float | None]:
    low, high = interval(draws, confidence)
    return {"value": _number(value), "low": _number(low), "high": _number(high)}


def _mean(values: Figures) -> float | None:
    """Over the images in which the figure is defined."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _number(value: Any) -> float | None:
    return None if math.isnan(float(value)) else float(value)


def per_image_rows(images: Sequence[ImageCounts], names: Sequence[str], absent: Absent) -> list[dict[str, Any]]:
    """A row an image: pixels, overall figures, and the IoU of each class."""
    rows = []
    for image in images:
        matrix = image.matrix
        row: dict[str, Any] = {"image": image.name, "pixels": int(matrix.sum()), "unpredicted": image.unpredicted}
        row |= {name: _number(figure(matrix)) for name, figure in overall_figures(absent).items()}
        row |= {f"iou {name}": _number(iou) for name, iou in zip(names, PER_CLASS["iou"](matrix), strict=True)}
        rows.append(row)
    return rows


def per_class_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The report's classes with intervals as columns."""
    rows = []
    for entry in found["per_class"]:
        row: dict[str, Any] = {}
        for key, value in entry.items():
            if isinstance(value, dict):
                row |= {key: value["value"], f"{key}_low": value["low"], f"{key}_high": value["high"]}
            else:
                row[key] = value
        rows.append(row)
    return rows


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of the same keys; undefined figures are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
