"""Verdicts of a comparison against all swaps by hand, and how often two equal models are told apart."""

from itertools import product

import numpy as np
import pytest

from segcli.measures import confusion as c
from segcli.measures.comparison import compared
from segcli.measures.permutation import EXACT, fewest_images, p_value, swapped


def counts_of(rng: np.random.Generator, images: int, accuracy: float = 0.9) -> dict[str, c.Totals]:
    """Images of two classes, 10 000 pixels each, whose accuracy varies."""
    errors = np.rint((1 - accuracy + 0.02 * rng.standard_normal(images)) * 5000).astype(np.int64)
    return {f"{n}": c.Totals.of(np.array([[6667 - e, e], [e, 3333 - e]])) for n, e in enumerate(errors)}


def verdict(ours: dict[str, c.Totals], theirs: dict[str, c.Totals]) -> str:
    found = compared(ours, theirs, ("ground", "disc"), "skip", 0.95)
    return next(row["verdict"] for row in found["figures"] if row["figure"] == "mean_iou")


@pytest.mark.parametrize("images", [1, 3, 6])
def test_the_p_value_is_that_of_all_swaps(rng: np.random.Generator, images: int) -> None:
    ours, theirs = rng.integers(0, 50, (2, images, 3, 2))
    totals = c.Totals(np.stack([ours, theirs]))
    by_hand = []
    for swap in product((0, 1), repeat=images):
        sides = [totals.counts[np.array(swap) ^ side, np.arange(images)].sum(0) for side in (0, 1)]
        by_hand.append(float(c.pixel_accuracy(c.Totals(sides[0])) - c.pixel_accuracy(c.Totals(sides[1]))))
    one, other = (c.pixel_accuracy(c.Totals(side)) for side in swapped(ours, theirs))
    assert sorted(one - other) == pytest.approx(sorted(by_hand))
    assert one[0] - other[0] == by_hand[0]
    expected = np.mean([abs(d) >= abs(by_hand[0]) - 1e-12 for d in by_hand])
    assert p_value(one - other) == pytest.approx(expected)


def test_random_swaps_come_near_all_of_them(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = rng.normal([[0.3], [0.0]], 1, (2, EXACT))

    def found() -> float:
        one, other = swapped(ours, theirs)
        assert one[0] - other[0] == pytest.approx((ours - theirs).sum())
        return p_value(one - other)

    exact = found()
    monkeypatch.setattr("segcli.measures.permutation.EXACT", EXACT - 1)
    assert found() == pytest.approx(exact, abs=0.04)


def test_chance_is_no_verdict(rng: np.random.Generator) -> None:
    """Two equally good models differ in about one comparison of twenty, and never on five images or fewer; of a better
    one six images can tell."""
    for images, most in ((2, 0), (5, 0), (8, 9)):
        told = [verdict(counts_of(rng, images), counts_of(rng, images)) for _ in range(80)]
        assert sum(word in ("better", "worse") for word in told) <= most, images
    worse, better = counts_of(rng, 6, 0.8), counts_of(rng, 6, 0.95)
    assert (verdict(better, worse), verdict(worse, better), verdict(worse, worse)) == ("better", "worse", "same")
    assert fewest_images(0.05) == 6


def test_a_figure_that_is_undefined_is_no_verdict() -> None:
    """A class that one of the two predicts on one image, and that is not in the truth."""
    ours = {f"{n}": c.Totals.of(np.array([[9, int(n == 0)], [0, 0]])) for n in range(8)}
    theirs = {f"{n}": c.Totals.of(np.array([[9, 0], [0, 0]])) for n in range(8)}
    rows = {row["figure"]: row for row in compared(ours, theirs, ("ground", "disc"), "skip", 0.95)["figures"]}
    assert (rows["iou disc"]["verdict"], rows["iou disc"]["p_value"]) == ("unsure", None)
