"""Charts as SVG text that takes its ink from the page around it, so that it reads in light and in dark. matplotlib."""

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

INK = "#010203"
"""Stands for the page's own colour of text, and becomes it in the SVG."""

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"  # of Okabe and Ito (2008)
MOST_NUMBERS = 20
"""Classes up to which the cells of a confusion matrix have numbers."""

STYLE: Any = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "text.color": INK, "axes.edgecolor": INK,
    "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.facecolor": "none",
    "text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
}  # fmt: skip


def bars(names: Sequence[str], figures: Mapping[str, Sequence[float | None]], colors: Sequence[str]) -> str:
    """Groups of horizontal bars between 0 and 1, one for each name; an undefined figure has none."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(7, 0.6 + (0.16 * len(figures) + 0.12) * len(names))
        axes = figure.add_subplot()
        height = 0.8 / len(figures)
        for n, (label, values) in enumerate(figures.items()):
            places = [row + (n + 0.5) * height - 0.4 for row in range(len(names))]
            axes.barh(places, [value or 0 for value in values], height, label=label, color=colors[n])
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(0, 1)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return _svg(figure, "bars")


def matrix(values: NDArray[Any], names: Sequence[str], title: str) -> str:
    """A confusion matrix, true classes as rows; counts are coloured by their logarithm, shares by themselves."""
    shares = values.dtype.kind == "f"
    with matplotlib.rc_context(STYLE):
        side = 1.6 + 0.45 * max(2, min(len(names), 30))
        figure = _figure(side, side)
        axes = figure.add_subplot()
        shown = values if shares else np.log1p(values)
        axes.imshow(np.nan_to_num(shown), cmap="Blues", vmin=0, vmax=1 if shares else max(1.0, float(shown.max())))
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(title)
        if len(names) <= MOST_NUMBERS:
            highest = np.nan_to_num(shown).max() if shown.size else 1  # all are undefined where nothing is predicted
            for (row, col), value in np.ndenumerate(values):
                # On cells that are dark or light in both modes: not in the page's ink.
                color = "white" if np.nan_to_num(shown[row, col]) > 0.55 * highest else "#222222"
                axes.text(col, row, _short(value), ha="center", va="center", color=color, fontsize=7)
        return _svg(figure, title)


def _short(value: float) -> str:
    if isinstance(value, np.floating):
        return "" if math.isnan(value) else f"{value:.2f}"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return str(value)


def histogram(values: Sequence[float], label: str) -> str:
    """How a share is spread over images."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(7, 2.2)
        axes = figure.add_subplot()
        axes.hist(values, bins=[n / 40 for n in range(41)], color=BLUE)
        axes.set_xlim(0, 1)
        axes.set_xlabel(label)
        axes.set_ylabel("images")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure, label)


def reliability(bins: Sequence[Sequence[float | None]]) -> str:
    """Share that is right over confidence; the diagonal is perfect calibration."""
    known = [(confidence, share) for _, confidence, share in bins if confidence is not None and share is not None]
    with matplotlib.rc_context(STYLE):
        figure = _figure(3.2, 3.0)
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.7, linestyle=":")
        axes.plot(*zip(*known, strict=True), color=BLUE, marker="o", markersize=3)
        _square(axes, "highest probability", "share that is right")
        return _svg(figure, "reliability")


def curves(rows: Sequence[dict[str, Any]], colors: Sequence[str], kind: str) -> str:
    """Precision over recall (`kind` "pr"), or recall over false positive rate ("roc"), a line for each class."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(3.2, 3.0)
        axes = figure.add_subplot()
        for row, color in zip(rows, colors, strict=True):
            if row["curve"]:
                _, precision, recall, false = zip(*row["curve"], strict=True)
                along, up = (recall, precision) if kind == "pr" else (false, recall)
                axes.plot(along, up, color=color, label=row["class"], linewidth=1.2)
        labels = ("recall", "precision") if kind == "pr" else ("false positive rate", "recall")
        _square(axes, *labels)
        if len(rows) <= MOST_NUMBERS and any(row["curve"] for row in rows):
            # By hand: matplotlib leaves names out that begin with an underscore.
            axes.legend(axes.get_lines(), [row["class"] for row in rows if row["curve"]], fontsize=7)
        return _svg(figure, kind)


def _square(axes: Any, along: str, up: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(along)
    axes.set_ylabel(up)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure, salt: str) -> str:
    """The drawing alone, to stand inside a page; identifiers follow `salt`, so that a report is the same twice."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that its font lacks a letter: the browser's does not
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    own = re.sub(r"\W+", "_", salt)  # figure_1 would be in one page several times
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}_", drawing)
