"""The report as tables for people."""

from typing import Any

from segcli.drawing.stamps import unit_of_length

PER_CLASS = {
    "IoU": "iou", "Dice": "dice", "precision": "precision", "recall": "recall", "true pixels": "true_pixels",
}  # fmt: skip
OUTLINES = {
    "boundary IoU": "boundary_iou", "boundary F": "boundary_f_score",
    "Hausdorff 95": "hausdorff_95_mean_over_images", "surface distance": "surface_distance_mean_over_images",
}  # fmt: skip
DISTANCES = ("hausdorff_95_mean_over_images", "surface_distance_mean_over_images")
OBJECTS = {
    "true": "true", "predicted": "predicted", "AP at 0.5": "average_precision_50", "mean AP": "mean_average_precision",
    "precision": "object_precision", "recall": "object_recall", "PQ": "panoptic_quality",
    "SQ": "segmentation_quality", "RQ": "recognition_quality",
}  # fmt: skip
SCORES = {
    "average precision": "average_precision", "ROC area": "roc_auc", "best threshold": "best_threshold",
    "Dice there": "dice_at_best_threshold",
}  # fmt: skip
MAIN = ("iou", "panoptic_quality")
"""Figures of classes that keep their interval where there is little room."""

GROUPS = {"images": "images", "pixels": "pixels", "mIoU": "mean_iou", "accuracy": "pixel_accuracy"}


Table = tuple[str, list[str], list[list[str]]]
"""Title, head and rows."""


def all_tables(found: dict[str, Any], brief: bool = False) -> list[Table]:
    """Classes, the whole, and what else was asked for; with intervals for every figure unless `brief`."""
    dataset, mean = found["dataset"], found["mean_over_images"]
    rows = [[name.replace("_", " "), written(dataset[name]), written(mean[name])] for name in dataset]
    tables = [
        _table("all pixels together", "class", PER_CLASS, found["per_class"], brief),
        (_counted(found), ["figure", "all pixels together", "mean over images"], rows),
    ]
    if any(field in found["per_class"][0] for field in OUTLINES.values()):
        tables.append(_outlines(found, brief))
    objects = [row["objects"] | {"class": row["class"]} for row in found["per_class"] if row.get("objects")]
    if objects:
        if len(objects) > 1:
            objects.append({"class": "mean", "true": None, "predicted": None, **found["objects"]})
        tables.append(_table("objects", "class", OBJECTS, objects, brief))
    if "scores" in found:
        scores = found["scores"]
        error = written(scores["expected_calibration_error"])
        tables.append(_table(f"scores, expected calibration error {error}", "class", SCORES, scores["per_class"]))
    if "groups" in found:
        ious = {f"IoU {name}": f"IoU {name}" for name in found["classes"]}
        rows_of = [row | {f"IoU {name}": iou for name, iou in row["iou"].items()} for row in found["groups"]]
        tables.append(_table("groups", "group", GROUPS | ious, rows_of))
    if "comparison" in found:
        tables.append(_compared(found["comparison"]))
        changed = found["comparison"]["most_improved"], found["comparison"]["most_worsened"]
        rows = [[name, written(change, sign=True)] for part in changed for name, change in part[:5]]
        if rows:
            tables.append(("images that changed most", ["image", "mean IoU"], rows))
    return tables


def _counted(found: dict[str, Any]) -> str:
    """How many images, and whether pixels were left out for want of a label or a prediction."""
    unlabelled, lost = found["unlabelled_pixels"], found["unpredicted_pixels"]
    is_counted = found["unpredicted"] == "wrong"
    labelled = found["pixels"] if is_counted else lost + found["pixels"]
    parts = [f"{found['images']} image{'s' * (found['images'] != 1)}"]
    if found.get("failed"):
        parts.append(f"{len(found['failed'])} more failed")
    if unlabelled:
        parts.append(f"{unlabelled} pixels ({unlabelled / (unlabelled + labelled):.1%}) without a label left out")
    if lost:
        what = "counted as wrong" if is_counted else "left out"
        parts.append(f"{lost} pixels ({lost / labelled:.1%}) without a prediction {what}")
    return ", ".join(parts)


def _table(title: str, first: str, columns: dict[str, str], rows: list[dict[str, Any]], brief: bool = False) -> Table:
    """Columns by title, of those that the rows have."""
    known = {name: field for name, field in columns.items() if any(field in row for row in rows)}

    def cell(row: dict[str, Any], field: str) -> str:
        figure = row[field]
        if brief and isinstance(figure, dict) and field not in MAIN:
            figure = figure["value"]
        return written(figure)

    return title, [first, *known], [[row[first], *(cell(row, field) for field in known.values())] for row in rows]


def _outlines(found: dict[str, Any], brief: bool) -> Table:
    """Distances in metres are shown in the unit that suits the largest: of cells they are millionths."""
    rows, unit = found["per_class"], found.get("distance_unit", "")
    if unit == "metres":
        known = [row[field]["value"] for row in rows for field in DISTANCES if row[field]["value"]]
        size, unit = unit_of_length(max(known, default=1.0))
        rows = [row | {field: _divided(row[field], size) for field in DISTANCES} for row in rows]
    return _table(f"outlines, distances in {unit}" if unit else "outlines", "class", OUTLINES, rows, brief)


def _divided(figure: dict[str, float | None], size: float) -> dict[str, float | None]:
    return {part: None if value is None else value / size for part, value in figure.items()}


def _compared(comparison: dict[str, Any]) -> Table:
    rows = [
        [
            row["figure"].replace("_", " "), written(row["other"]), written(row["value"]),
            written({"value": row["difference"], "low": row["low"], "high": row["high"]}, sign=True), row["verdict"],
        ]
        for row in comparison["figures"]
    ]  # fmt: skip
    images, fewest = comparison["images"], comparison["fewest_images"]
    few = f", and better or worse takes {fewest} at least" if images < fewest else ""
    return f"compared on {images} images{few}", ["figure", "before", "now", "difference", "verdict"], rows


def written(figure: Any, sign: bool = False) -> str:
    """A figure for people: four digits, with its interval if it has one; a dash where it is undefined."""
    value, low, high = figure, None, None
    if isinstance(figure, dict):
        value, low, high = figure["value"], figure.get("low"), figure.get("high")
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    text = f"{value:+.4f}" if sign else f"{value:.4f}"
    return text if low is None or high is None else f"{text} ({low:.4f} to {high:.4f})"
