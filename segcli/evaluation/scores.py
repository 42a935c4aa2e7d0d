"""Probabilities beside the truth, strip by strip."""

from pathlib import Path

import numpy as np

from segcli.classes import ClassTable
from segcli.errors import InputError
from segcli.evaluation.meaning import Meaning
from segcli.evaluation.pairs import Pair
from segcli.measures.calibration import ScoreCounts, levels
from segcli.raster.source import Source
from segcli.validity import both, written_out

PIXELS = 2**21
"""Are counted at once."""


def count_scores(pair: Pair, meaning: Meaning) -> ScoreCounts:
    """Count the probabilities of one image. InputError where they do not fit the truth or the classes."""
    assert pair.scores is not None
    counts = ScoreCounts(len(meaning.classes.entries))
    with Source(pair.truth, "mask") as truth, Source(pair.scores, "mask") as scores:
        if (truth.grid.height, truth.grid.width) != (scores.grid.height, scores.grid.width):
            raise InputError(
                pair.scores, f"{scores.grid.width} x {scores.grid.height} pixels",
                f"{pair.truth} has {truth.grid.width} x {truth.grid.height}",
            )  # fmt: skip
        bands = bands_of_classes(pair.scores, scores, meaning.classes)
        scale = np.array([scores.scales[band] for band in bands])
        height = max(1, min(512, PIXELS // truth.grid.width))
        for true, found in zip(truth.strips(height), scores.strips(height, bands), strict=True):
            places = meaning.true[true.pixels[0]]
            known = (places >= 0) & written_out(both(true.valid, found.valid), places.shape)
            counts.add(places[known], _steps(pair.scores, found.pixels[:, known], scale))
    return counts


def _steps(path: Path, stored: np.ndarray, scale: np.ndarray) -> np.ndarray:
    if stored.dtype == np.uint8:
        return levels(np.arange(256) * scale[:, None])[np.arange(len(stored))[:, None], stored]
    values = stored * scale[:, None]
    if values.size and (values.min() < -1e-3 or values.max() > 1.001):
        raise InputError(path, f"values from {values.min():g} to {values.max():g}", "expected probabilities, 0 to 1")
    return levels(values)


def bands_of_classes(path: Path, scores: Source, classes: ClassTable) -> list[int]:
    """The band of each class: by the bands' names where they are the classes', else in order."""
    names = scores.band_names
    if set(classes.names) <= set(names):
        return [names.index(name) for name in classes.names]
    if scores.bands != len(classes.entries):
        raise InputError(path, f"{scores.bands} bands", f"expected one for each of {len(classes.entries)} classes")
    return list(range(scores.bands))
