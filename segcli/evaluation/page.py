"""The report as one page that opens offline: charts, tables and pictures are inside it."""

import base64
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

import segcli
from segcli.classes import ClassTable
from segcli.colors import hex_color
from segcli.drawing import charts
from segcli.drawing.overlay import to_picture
from segcli.errors import InputError
from segcli.evaluation.counting import side_by_side
from segcli.evaluation.meaning import Meaning
from segcli.evaluation.pairs import Pair
from segcli.evaluation.tables import all_tables, written
from segcli.evaluation.values import as_values
from segcli.measures.confusion import intersection_over_union, mean_over_classes
from segcli.measures.report import ImageCounts
from segcli.options import Absent, EvalOptions
from segcli.raster.images import Images, open_under
from segcli.raster.stretch import cut, shown_bands
from segcli.raster.thumbnail import thumbnail
from segcli.validity import both, written_out

SHOWN = 4
"""Worst and best images, so many of each."""

SIDE = 360
"""Of a picture, at most, in pixels."""

WRONG, RIGHT = (213, 94, 0), (128, 128, 128)

ABSENT: dict[Absent, str] = {"skip": "is left out of means", "one": "counts 1 in means", "zero": "counts 0 in means"}


def page(
    found: dict[str, Any], done: list[tuple[Pair, ImageCounts]], meaning: Meaning, options: EvalOptions
) -> tuple[str, list[str]]:
    """The whole page, as HTML, and what is wrong with images of `--images` that it was to show."""
    template = Path(charts.__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    classes = meaning.classes
    figures = [_mean_iou(image, options.absent) for _, image in done]
    pictures = _pictures(done, figures, meaning, options)
    text = Environment(autoescape=True, undefined=StrictUndefined).from_string(template).render(
        title=f"{options.predicted} against {options.truth}" if options.truth else f"Pairs of {options.predicted}",
        found=found,
        absent=ABSENT[options.absent],
        tables=[{"title": title, "head": head, "rows": rows} for title, head, rows in all_tables(found)],
        colors=[(entry.name, hex_color(entry.color)) for entry in classes.entries],
        charts=_charts(found, figures, classes),
        pictures=pictures,
        made=_made(options),
    )  # fmt: skip
    return text, [shown["fault"] for shown in pictures if shown["fault"]]


def _mean_iou(image: ImageCounts, absent: Absent) -> float:
    return float(mean_over_classes(intersection_over_union, image.totals, absent))


def _charts(found: dict[str, Any], figures: list[float], classes: ClassTable) -> dict[str, Markup | None]:
    names, counts = found["classes"], np.array(found["confusion_matrix"])
    rows = found["per_class"]
    bars = {label: [row[key]["value"] for row in rows] for label, key in (("IoU", "iou"), ("Dice", "dice"))}
    bars |= {key: [row[key]["value"] for row in rows] for key in ("precision", "recall")}
    with np.errstate(invalid="ignore"):
        # True pixels without a prediction are in no column, but those that count as wrong are in the class.
        by_row = counts / np.array([[row["true_pixels"]] for row in rows])
        by_column = counts / counts.sum(0, keepdims=True)
    colors = [charts.BLUE, charts.GREEN, charts.ORANGE, "#CC79A7"]
    drawn: dict[str, str | None] = {
        "bars": charts.bars(names, bars, colors),
        "counts": charts.matrix(counts, names, "pixels"),
        "by_row": charts.matrix(by_row, names, "share of the true class"),
        "by_column": charts.matrix(by_column, names, "share of the predicted class"),
        "spread": charts.histogram([f for f in figures if not np.isnan(f)], "mean IoU") if len(figures) > 1 else None,
        "reliability": None, "pr": None, "roc": None,
    }  # fmt: skip
    if "scores" in found:
        lines = [hex_color(entry.color) if sum(entry.color) else charts.INK for entry in classes.entries]
        drawn["reliability"] = charts.reliability(found["scores"]["reliability"])
        drawn |= {kind: charts.curves(found["scores"]["per_class"], lines, kind) for kind in ("pr", "roc")}
    # Names of classes are escaped by matplotlib, which writes XML.
    return {name: None if svg is None else Markup(svg) for name, svg in drawn.items()}


def _pictures(
    done: list[tuple[Pair, ImageCounts]], figures: list[float], meaning: Meaning, options: EvalOptions
) -> list[dict[str, Any]]:
    """The worst images, then the best, each as pictures side by side."""
    order = [n for n in np.argsort(figures, kind="stable") if not np.isnan(figures[n])]
    chosen = order if len(order) <= 2 * SHOWN else [*order[:SHOWN], *order[-SHOWN:]]
    shown = []
    with ExitStack() as files:
        opened = cache(lambda path, size: _opened(files, path, size, options))  # of a stack many may be shown
        for n in chosen:
            pair = done[n][0]
            pictures, count, fault = _picture_row(pair, opened, meaning, options)
            name = pair.name if count == 1 else f"{pair.name}, the first of {count} images"
            shown.append({"name": name, "figure": written(figures[n]), "pictures": pictures, "fault": fault})
    return shown


def _opened(files: ExitStack, path: Path, size: tuple[int, int], options: EvalOptions) -> Images | InputError:
    """The images under masks of that height and width, or why they cannot be read: masks can be shown all the same."""
    try:
        images = open_under(path, size, options.axes)
    except InputError as error:
        return error
    files.callback(images.close)
    return images


def _picture_row(
    pair: Pair, opened: Callable[[Path, tuple[int, int]], Images | InputError], meaning: Meaning, options: EvalOptions
) -> tuple[list[tuple[str, str]], int, str]:
    """The pictures of one pair, of a stack its first image; how many images it has; and why that of the image is
    missing where one was to be shown, else nothing."""
    row: list[tuple[str, str]] = []
    fault = ""
    with ExitStack() as files:
        masks, meaning = side_by_side(files, pair, meaning, options)
        true, predicted = masks[0]
        (one, one_valid), (other, other_valid) = thumbnail(true, SIDE), thumbnail(predicted, SIDE)
        size = true.grid.height, true.grid.width
    try:
        if pair.image is not None:
            images = opened(pair.image, size)
            if isinstance(images, InputError):
                raise images
            row.append(("image", _picture(pair, images, len(masks), size)))
    except InputError as found:
        fault = str(found)
    one, other = as_values(one[0], options.is_numbered), as_values(other[0], options.objects == "labels")
    places = meaning.true[one], meaning.predicted[other]
    colors = np.array([entry.color for entry in meaning.classes.entries], np.uint8)
    for label, place, valid in (("truth", places[0], one_valid), ("prediction", places[1], other_valid)):
        row.append((label, _png(colors[place.clip(0)], both(valid, place >= 0))))
    is_true, is_found = both(one_valid, places[0] >= 0), both(other_valid, places[1] >= 0)
    is_right = written_out(both(is_found, places[0] == places[1]), places[0].shape)
    error = np.where(is_right[..., None], np.array(RIGHT, np.uint8), np.array(WRONG, np.uint8))
    row.append(("errors", _png(error, is_true if options.unpredicted == "wrong" else both(is_true, is_found))))
    return row, len(masks), fault


def _picture(pair: Pair, images: Images, count: int, size: tuple[int, int]) -> str:
    """The image of a pair; InputError where it is not that of masks of so many images and this height and width."""
    if pair.plane + count > len(images.planes):
        raise InputError(str(pair.image), f"{len(images.planes)} images", f"the masks have {pair.plane + count}",
                         "give --axes" if count > 1 else "")  # fmt: skip
    source = images.planes[pair.plane]
    if (source.grid.height, source.grid.width) != size:
        raise InputError(str(pair.image), f"{source.grid.height} x {source.grid.width} pixels",
                         f"the masks have {size[0]} x {size[1]}", "give the image that they are of")  # fmt: skip
    pixels, known = thumbnail(source, SIDE, shown_bands(source))
    picture = to_picture(pixels, *cut(pixels, known, source.dtype))
    return _png(picture.transpose(1, 2, 0), known)


def _png(pixels: NDArray[np.uint8], valid: NDArray[np.bool_] | None) -> str:
    """(row, col, RGB) as a data URL, transparent where nothing is known."""
    alpha = written_out(valid, pixels.shape[:2]).astype(np.uint8) * 255
    _, data = cv2.imencode(".png", np.dstack([pixels[..., ::-1], alpha]))
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _made(options: EvalOptions) -> str:
    given = {key: value for key, value in asdict(options).items() if value != getattr(EvalOptions, key, None)}
    return f"segcli {segcli.__version__}\n{json.dumps(given, default=str, indent=1)}"
