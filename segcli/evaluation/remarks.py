"""Lines on what readers of the figures may overlook, and what makes them look better than they are."""

from typing import Any

from segcli.classes import ClassTable
from segcli.evaluation.pairs import Pair
from segcli.measures.report import ImageCounts
from segcli.options import EvalOptions

MUCH = 0.1
"""Of the pixels with a true class; where so many have no prediction, a bar says little."""


def remarks(
    found: dict[str, Any], done: list[tuple[Pair, ImageCounts]], classes: ClassTable, options: EvalOptions
) -> list[str]:
    """On a report and the pairs in it; a line for each kind, however many pairs it is about."""
    lines = [
        one_class_alone(found), marked_class(done, 0), marked_class(done, 1), much_left_out(found, options),
        other_truth(found, options),
        objects_of_first(classes, options),
    ]  # fmt: skip
    return [line for line in lines if line]


def one_class_alone(found: dict[str, Any]) -> str:
    """A line where truth that has a label is all of one class, and a class may be taken for no label; else nothing.
    Where pixels have no prediction nobody knows: they may be in no figure, the true ones either."""
    true = [row["class"] for row in found["per_class"] if row["true_pixels"]]
    if len(true) != 1 or not found["unlabelled_pixels"] or found["unpredicted_pixels"]:
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


def much_left_out(found: dict[str, Any], options: EvalOptions) -> str:
    """A line where bars are asked for, and a prediction meets them by leaving out what it does not know."""
    if options.unpredicted == "wrong" or (options.min_miou is None and not options.min_iou):
        return ""
    share = found["unpredicted_pixels"] / (found["unpredicted_pixels"] + found["pixels"])
    if share < MUCH:
        return ""
    return f"{share:.1%} of the true pixels have no prediction and are in no figure; --unpredicted wrong counts them"


def other_truth(found: dict[str, Any], options: EvalOptions) -> str:
    """A line where the report that this one is compared with counted other true pixels."""
    comparison = found.get("comparison")
    if comparison is None or not comparison["other_truth"]:
        return ""
    names = comparison["other_truth"]
    return (f"{options.compare}: other numbers of true pixels in {len(names)} of {comparison['images']} images, the "
            f"first {names[0]}; the truth is another one, or other pixels have a prediction")  # fmt: skip


def objects_of_first(classes: ClassTable, options: EvalOptions) -> str:
    """A line where objects are counted of a class that may be what lies between them: index 0, by another name. It may
    as well be a class like others, such as water, and then they would be missed without a word."""
    first = [entry.name for entry in classes.entries if entry.index == 0]
    if options.objects != "components" or not first or any(entry.is_background for entry in classes.entries):
        return ""
    return f"objects of {first[0]} are counted, too; if it lies between the others, name it background"
