"""From counts of images to the figures of a report, and from figures to JSON and CSV. numpy only."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.measures import confusion as c
from segcli.measures import objects as o
from segcli.measures.bootstrap import interval, resampled
from segcli.measures.boundaries import boundary_iou, f_score
from segcli.measures.calibration import ScoreCounts
from segcli.measures.confusion import Figures, Matrix, Totals
from segcli.measures.objects import ObjectCounts
from segcli.options import Absent, Unpredicted

SCHEMA = 2
"""Number of report.json's format; see docs/eval.md."""

PER_CLASS: dict[str, Callable[[Totals], Figures]] = {
    "iou": c.intersection_over_union,
    "dice": c.dice,
    "precision": c.precision,
    "recall": c.recall,
}


def overall_figures(absent: Absent) -> dict[str, Callable[[Totals], Figures]]:
    """Figures of all classes together, by name."""

    def mean_of(figure: Callable[[Totals], Figures], totals: Totals) -> Figures:
        return c.mean_over_classes(figure, totals, absent)

    means = {f"mean_{name}": partial(mean_of, figure) for name, figure in PER_CLASS.items()}
    return means | {
        "pixel_accuracy": c.pixel_accuracy,
        "frequency_weighted_iou": c.frequency_weighted_iou,
        "cohens_kappa": c.cohens_kappa,
        "matthews_correlation": c.matthews_correlation,
    }


Entries = NDArray[np.int64]
"""The cells of a confusion matrix that are not zero, (cell, 3): true class, predicted class, pixels."""


@dataclass(frozen=True)
class ImageCounts:
    """One pair: its name, its confusion matrix without the zeros (see `entries_of`) and its totals, pixels that have a
    true class and none predicted (missed ones in the totals, where they are to count); by class what was asked for:
    counts of boundaries (class, 6), Hausdorff 95 and average surface distance (class, 2), counts of objects (class,
    COLUMNS); pixels of the truth without a label; and of the true and the predicted mask the class whose value it
    declares as no data, where pixels were lost by it. Of many classes an image shows a few, so that a hundred thousand
    images fit in memory."""

    name: str
    entries: Entries
    totals: Totals
    unpredicted: int = 0
    boundaries: Figures | None = None
    distances: Figures | None = None
    objects: ObjectCounts | None = None
    unlabelled: int = 0
    marked: tuple[str, str] = ("", "")


def report(
    images: Sequence[ImageCounts], names: Sequence[str], absent: Absent = "skip", confidence: float = 0.95,
    unpredicted: Unpredicted = "skip",
) -> dict[str, Any]:  # fmt: skip
    """All figures, ready for JSON: `dataset` of all pixels together, `mean_over_images` of images one by one.

    Undefined figures are None. Intervals are by bootstrap over images.
    """
    totals = stacked(images)
    total, drawn = totals.sum(), Totals(resampled(totals.counts))
    wanted = overall_figures(absent)
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "absent_classes": absent,
        "unpredicted": unpredicted,
        "confidence": confidence,
        "images": len(images),
        "pixels": int(total.pixels),
        "failed": [],
        "unpredicted_pixels": sum(image.unpredicted for image in images),
        "unlabelled_pixels": sum(image.unlabelled for image in images),
        "classes": list(names),
        "confusion_matrix": dense(np.concatenate([image.entries for image in images]), len(names)).tolist(),
        "dataset": {name: _with_interval(figure(total), figure(drawn), confidence) for name, figure in wanted.items()},
        "mean_over_images": {name: _mean(figure(totals)) for name, figure in wanted.items()},
        "per_class": _by_class(totals, drawn, names, confidence),
        "per_image": [_of_image(image, len(names), unpredicted) for image in images],
    }
    if images[0].boundaries is not None:
        counts = np.stack([image.boundaries for image in images if image.boundaries is not None])
        sums = resampled(counts)
        for n, row in enumerate(found["per_class"]):
            for name, figure in BOUNDARIES.items():
                row[name] = _with_interval(figure(counts.sum(0)[n]), figure(sums[:, n]), confidence)
    if images[0].distances is not None:
        distances = np.stack([image.distances for image in images if image.distances is not None])
        for n, row in enumerate(found["per_class"]):
            row |= _of_distances(distances[:, n], confidence)
    if images[0].objects is not None:
        counts = np.stack([image.objects for image in images if image.objects is not None])
        rows = _of_objects(counts, confidence)
        for row, of_class in zip(found["per_class"], rows, strict=True):
            row["objects"] = of_class
        found["objects"] = _mean_of_objects([row for row in rows if row is not None])
    return found


def _of_image(image: ImageCounts, classes: int, unpredicted: Unpredicted) -> dict[str, Any]:
    """What another run needs to compare itself with."""
    row: dict[str, Any] = {"image": image.name, "counts": image.entries.tolist()}
    if unpredicted == "wrong":
        row["unpredicted"] = (image.totals.true - dense(image.entries, classes).sum(1)).tolist()
    return row


def totals_in(found: dict[str, Any]) -> dict[str, Totals]:
    """The totals of each image that a report lists. ValueError, KeyError or TypeError on what is none."""
    count = len(found["classes"])
    totals = {}
    for entry in found["per_image"]:
        missed = np.array(entry.get("unpredicted", [0] * count))
        if missed.shape != (count,) or missed.dtype != np.int64 or missed.min() < 0:
            raise ValueError("unpredicted pixels that are not a number for each class")
        totals[str(entry["image"])] = Totals.of(dense(read_entries(entry["counts"], count), count), missed)
    return totals


BOUNDARIES: dict[str, Callable[[Figures], Figures]] = {"boundary_iou": boundary_iou, "boundary_f_score": f_score}


def _of_distances(distances: Figures, confidence: float) -> dict[str, Any]:
    """Means over the images, (image, 2), that have outlines on both sides, with intervals."""
    known = ~np.isnan(distances[:, 0])
    drawn = resampled(np.concatenate([np.where(known[:, None], distances, 0), known[:, None]], axis=1))
    with np.errstate(invalid="ignore"):
        means = drawn[:, :2] / drawn[:, 2:]
    row: dict[str, Any] = {}
    for n, name in enumerate(("hausdorff_95", "surface_distance")):
        value = distances[known, n].mean() if known.any() else np.nan
        row[f"{name}_mean_over_images"] = _with_interval(value, means[:, n], confidence)
    return row | {"images_with_both_outlines": int(known.sum())}


def _mean_of_objects(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Of each figure the mean over the classes in which it is defined."""
    return {name: _mean(np.array([row[name]["value"] for row in rows], np.float64)) for name in o.FIGURES}


def stacked(images: Sequence[ImageCounts]) -> Totals:
    """The totals of the images, (image, 3, class)."""
    return Totals(np.stack([image.totals.counts for image in images]))


def entries_of(matrix: Matrix) -> Entries:
    """The cells of a matrix that are not zero."""
    true, predicted = np.nonzero(matrix)
    return np.stack([true, predicted, matrix[true, predicted]], axis=-1)


def read_entries(listed: Any, classes: int) -> Entries:
    """Such cells as a report lists them. ValueError on what is none."""
    entries = np.array(listed or np.zeros((0, 3), np.int64))
    if entries.ndim != 2 or entries.shape[1] != 3 or entries.dtype != np.int64:
        raise ValueError("counts that are not true class, predicted class, pixels")
    if entries.size and (entries.min() < 0 or entries[:, :2].max() >= classes):
        raise ValueError(f"counts that are negative, or of more than {classes} classes")
    return entries


def dense(entries: Entries, classes: int) -> Matrix:
    """The matrix of such cells; those that stand there several times, as of several images, are added."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (entries[:, 0], entries[:, 1]), entries[:, 2])
    return matrix


def _by_class(totals: Totals, drawn: Totals, names: Sequence[str], confidence: float) -> list[dict[str, Any]]:
    total = totals.sum()
    of_all = {name: figure(total) for name, figure in PER_CLASS.items()}
    of_draws = {name: figure(drawn) for name, figure in PER_CLASS.items()}
    of_images = {name: figure(totals) for name, figure in PER_CLASS.items()}
    rows = []
    for n, class_name in enumerate(names):
        row: dict[str, Any] = {"class": class_name}
        row |= {"true_pixels": int(total.true[n]), "predicted_pixels": int(total.predicted[n])}
        for name in PER_CLASS:
            row[name] = _with_interval(of_all[name][n], of_draws[name][:, n], confidence)
            row[f"{name}_mean_over_images"] = _mean(of_images[name][:, n])
        rows.append(row)
    return rows


def _of_objects(counts: ObjectCounts, confidence: float) -> list[dict[str, Any] | None]:
    """Figures of each class, from (image, class, ...); None for one without objects on either side."""
    total, drawn = counts.sum(0), resampled(counts)
    errors = counts[..., o.PREDICTED] - counts[..., o.TRUE]  # (image, class)
    rows: list[dict[str, Any] | None] = []
    for n in range(counts.shape[1]):
        true, predicted = (int(total[n, column]) for column in (o.TRUE, o.PREDICTED))
        row: dict[str, Any] = {"true": true, "predicted": predicted, "count_error": predicted - true}
        row["mean_absolute_count_error"] = float(np.abs(errors[:, n]).mean())
        for name, figure in o.FIGURES.items():
            row[name] = _with_interval(figure(total[n]), figure(drawn[:, n]), confidence)
            row[f"{name}_mean_over_images"] = _mean(figure(counts[:, n]))
        rows.append(row if true or predicted else None)
    return rows


def of_scores(counts: ScoreCounts, names: Sequence[str]) -> dict[str, Any]:
    """Calibration of the highest probability, and each class against the others."""
    rows = []
    for n, name in enumerate(names):
        curves = counts.curves(n)
        threshold, f1 = curves.best_threshold()
        rows.append(
            {
                "class": name,
                "average_precision": _number(curves.average_precision),
                "roc_auc": _number(curves.roc_auc),
                "best_threshold": _number(threshold),
                "dice_at_best_threshold": _number(f1),
                "curve": [[round(value, 6) for value in point] for point in curves.sampled()],
            }
        )
    bins = [[n, _number(confidence), _number(share)] for n, confidence, share in counts.reliability()]
    return {
        "expected_calibration_error": _number(counts.expected_calibration_error()),
        "reliability": bins,
        "per_class": rows,
    }


def by_group(images: Sequence[ImageCounts], names: Sequence[str], absent: Absent, groups: Sequence[str]) -> list[Any]:
    """Figures of each group of images, in the order of their names; `groups` has one for each image."""
    members: dict[str, list[ImageCounts]] = {}
    for image, group in zip(images, groups, strict=True):
        members.setdefault(group, []).append(image)
    order = sorted(members)
    totals = Totals(np.stack([stacked(members[group]).sum().counts for group in order]))
    overall = {name: figure(totals) for name, figure in overall_figures(absent).items()}
    ious, pixels = PER_CLASS["iou"](totals), totals.pixels.tolist()
    rows = []
    for place, group in enumerate(order):
        row: dict[str, Any] = {"group": group, "images": len(members[group]), "pixels": pixels[place]}
        row |= {name: _number(values[place]) for name, values in overall.items()}
        row["iou"] = {name: _number(iou) for name, iou in zip(names, ious[place], strict=True)}
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
    totals = stacked(images)
    overall = {name: figure(totals) for name, figure in overall_figures(absent).items()}
    ious, pixels = PER_CLASS["iou"](totals), totals.pixels.tolist()
    rows = []
    for place, image in enumerate(images):
        row: dict[str, Any] = {"image": image.name, "pixels": pixels[place], "unpredicted": image.unpredicted}
        row |= {name: _number(values[place]) for name, values in overall.items()}
        for n, name in enumerate(names):
            row[f"iou {name}"] = _number(ious[place, n])
            if image.boundaries is not None:
                row |= {f"{key.replace('_', ' ')} {name}": _number(of(image.boundaries[n])) for key, of in
                        BOUNDARIES.items()}  # fmt: skip
            if image.distances is not None:
                row[f"hausdorff 95 {name}"], row[f"surface distance {name}"] = map(_number, image.distances[n])
            if image.objects is not None:
                row[f"true objects {name}"], row[f"predicted objects {name}"] = map(int, image.objects[n, :2])
                row[f"panoptic quality {name}"] = _number(o.panoptic_quality(image.objects[n]))
        rows.append(row)
    return rows


def per_class_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The report's classes with intervals as columns."""
    return [_flat(entry) for entry in found["per_class"]]


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in entry.items():
        if key == "objects":
            row |= {f"objects_{name}": figure for name, figure in _flat(value or {}).items()}
        elif isinstance(value, dict):
            row |= {key: value["value"], f"{key}_low": value["low"], f"{key}_high": value["high"]}
        else:
            row[key] = value
    return row


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """A column for every key that a row has; undefined figures are empty."""
    text = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
