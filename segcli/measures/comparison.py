"""What got better and what got worse between two reports of the same images. numpy only."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from segcli.measures.bootstrap import interval, resampled
from segcli.measures.confusion import Figures, Totals, intersection_over_union
from segcli.measures.permutation import fewest_images, p_value, swapped
from segcli.measures.report import overall_figures
from segcli.options import Absent

LISTED = 10
"""Images that are named as the most changed."""

Both = tuple[Totals, Totals]
"""Ours and theirs."""


def compared(
    ours: Mapping[str, Totals], theirs: Mapping[str, Totals], names: Sequence[str], absent: Absent, confidence: float
) -> dict[str, Any]:
    """Figures of the images that are in both, with the difference, ours less theirs, its interval and a verdict.

    The interval is of a paired bootstrap: both are computed of the same drawn images, so what is hard for both cancels
    out. The verdict is of a permutation test, because the interval is too narrow where there are few images.
    """
    shared = sorted(ours.keys() & theirs.keys())
    one, other = (Totals(np.stack([side[name].counts for name in shared])) for side in (ours, theirs))
    sums = one.sum(), other.sum()
    drawn = Totals(resampled(one.counts)), Totals(resampled(other.counts))  # the same draws, by their seed
    swaps = swapped(one.counts, other.counts)
    swaps_of_both = Totals(swaps[0]), Totals(swaps[1])
    figures: dict[str, Callable[[Totals], Figures]] = dict(overall_figures(absent))
    rows = []
    for name, figure in figures.items():
        values = float(figure(sums[0])), float(figure(sums[1]))
        rows.append(_row(name, values, _change(figure, drawn), _change(figure, swaps_of_both), confidence))
    iou = intersection_over_union
    ious, of_draws, of_swaps = (iou(sums[0]), iou(sums[1])), _change(iou, drawn), _change(iou, swaps_of_both)
    for n, name in enumerate(names):
        values = float(ious[0][n]), float(ious[1][n])
        rows.append(_row(f"iou {name}", values, of_draws[:, n], of_swaps[:, n], confidence))
    change = figures["mean_iou"](one) - figures["mean_iou"](other)
    order = [n for n in np.argsort(change) if not np.isnan(change[n]) and change[n] != 0]
    worse = [n for n in order if change[n] < 0][:LISTED]
    better = [n for n in order[::-1] if change[n] > 0][:LISTED]
    return {
        "images": len(shared),
        "fewest_images": fewest_images(1 - confidence),
        "other_truth": [shared[n] for n in np.flatnonzero((one.true != other.true).any(-1))],
        "figures": rows,
        "most_improved": [[shared[n], float(change[n])] for n in better],
        "most_worsened": [[shared[n], float(change[n])] for n in worse],
    }


def _change(figure: Callable[[Totals], Figures], sides: Both) -> Figures:
    return figure(sides[0]) - figure(sides[1])


def _row(
    name: str, values: tuple[float, float], of_draws: Figures, of_swaps: Figures, confidence: float
) -> dict[str, Any]:
    """Of one figure, from ours and theirs, and from the differences by draw and by swap."""
    ours, theirs = values
    low, high = interval(of_draws, confidence)
    chance = p_value(of_swaps)
    verdict = "unsure"
    if ours == theirs or (np.isnan(ours) and np.isnan(theirs)):
        verdict = "same"
    elif chance <= 1 - confidence:
        verdict = "better" if ours > theirs else "worse"
    numbers = {
        "value": ours, "other": theirs, "difference": ours - theirs,
        "low": float(low), "high": float(high), "p_value": chance,
    }  # fmt: skip
    shown = {key: None if np.isnan(value) else value for key, value in numbers.items()}
    return {"figure": name, **shown, "verdict": verdict}
