"""Lines on what readers of the figures may overlook, and what makes them look better than they are."""

from typing import Any

from segcli.evaluation.pairs import Pair
from segcli.measures.report import ImageCounts


def remarks(found: dict[str, Any], done: list[tuple[Pair, ImageCounts]]) -> list[str]:
    """On a report and the pairs in it; a line for each kind, however many pairs it is about."""
    lines = [one_class_alone(found), marked_class(done, 0), marked_class(done, 1)]
    return [line for line in lines if line]


def one_class_alone(found: dict[str, Any]) -> str:
    """A line where truth that has a label is all of one class, and a class may be taken for no label; else nothing."""
    true = [row["class"] for row in found["per_class"] if row["true_pixels"]]
    if len(true) != 1 or not found["unlabelled_pixels"]:
        return ""
    without = f"{found['unlabelled_pixels']} of them"
    return (f"all true pixels are {true[0]}, or have a value that stands for no label ({without}); if that is a "
            "class, write it as its index in the class table, and not as nodata")  # fmt: skip


def marked_class(done: list[tuple[Pair, ImageCounts]], side: int) -> str:
    """A line where masks, the true ones (0) or the predicted ones (1), declare the value of a class as no data."""
    marked = [(pair, image.marked[side]) for pair, image in done if image.marked[side]]
    if not marked:
        return ""
    pair, name = marked[0]
    more = f" and {len(marked) - 1} more" if len(marked) > 1 else ""
    path, left_out = (pair.truth, "no label") if side == 0 else (pair.predicted, "no prediction")
    return (f"{path}{more}: nodata is the value of {name}, and its pixels are left out as {left_out}; if they are "
            f"{name}, take the mark away (gdal_edit.py -unsetnodata)")  # fmt: skip
