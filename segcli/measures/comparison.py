"""What got better and what got worse between two reports of the same images. numpy only."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from segcli.measures.bootstrap import interval, resampled
from segcli.measures.confusion import Figures, Totals, intersection_over_union
from segcli.measures.report import overall_figures
from segcli.options import Absent

LISTED = 10
"""Images that are named as the most changed."""


def compared(
    ours: Mapping[str, Totals], theirs: Mapping[str, Totals], names: Sequence[str], absent: Absent, confidence: float
) -> dict[str, Any]:
    """Figures of the images that are in both, with the difference, ours less theirs, and its interval.

    By a paired bootstrap: both are computed of the same drawn images, so what is hard for both cancels out.
    """
    shared = sorted(ours.keys() & theirs.keys())
    one, other = (Totals(np.stack([side[name].counts for name in shared])) for side in (ours, theirs))
    drawn = Totals(resampled(one.counts)), Totals(resampled(other.counts))  # the same draws, by their seed
    figures: dict[str, Callable[[Totals], Figures]] = dict(overall_figures(absent))
    rows = [_row(name, figure, (one, other), drawn, confidence) for name, figure in figures.items()]
    ious = [_row("", intersection_over_union, (one, other), drawn, confidence, n) for n in range(len(names))]
    rows += [row | {"figure": f"iou {name}"} for name, row in zip(names, ious, strict=True)]
    change = figures["mean_iou"](one) - figures["mean_iou"](other)
    order = [n for n in np.argsort(change) if not np.isnan(change[n]) and change[n] != 0]
    worse = [n for n in order if change[n] < 0][:LISTED]
    better = [n for n in order[::-1] if change[n] > 0][:LISTED]
    return {
        "images": len(shared),
        "figures": rows,
        "most_improved": [[shared[n], float(change[n])] for n in better],
        "most_worsened": [[shared[n], float(change[n])] for n in worse],
    }


def _row(
    name: str, figure: Callable[[Totals], Figures], images: tuple[Totals, Totals], drawn: tuple[Totals, Totals],
    confidence: float, n: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    def of(totals: Totals) -> Figures:
        return figure(totals) if n is None else figure(totals)[..., n]

    ours, theirs = (of(side.sum()) for side in images)
    low, high = interval(of(drawn[0]) - of(drawn[1]), confidence)
    is_same = ours == theirs or (np.isnan(ours) and np.isnan(theirs))
    verdict = "better" if low > 0 else "worse" if high < 0 else "same" if is_same else "unsure"
    row: dict[str, Any] = {"figure": name}
    numbers = {"value": ours, "other": theirs, "difference": ours - theirs, "low": low, "high": high}
    return (
        row | {key: None if np.isnan(value) else float(value) for key, value in numbers.items()} | {"verdict": verdict}
    )
