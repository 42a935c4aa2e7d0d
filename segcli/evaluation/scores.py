"""Probabilities beside the truth, strip by strip."""

from contextlib import closing
from pathlib import Path

import numpy as np

from segcli.classes import ClassTable
from segcli.errors import InputError
from segcli.evaluation.meaning import Meaning
from segcli.evaluation.pairs import Pair
from segcli.evaluation.values import whole_numbers
from segcli.measures.calibration import ScoreCounts, levels
from segcli.raster.align import aligned, difference
from segcli.raster.images import check_alike, open_images
from segcli.raster.rows import in_step
from segcli.raster.source import Source
from segcli.validity import both, written_out

VALUES = 2**23
"""Are counted at once, of all classes together."""


def count_scores(pair: Pair, meaning: Meaning, align: bool) -> ScoreCounts:
    """Count the probabilities of one image, or of all of a stack. InputError where they do not fit the truth or the
    classes."""
    assert pair.scores is not None
    counts = ScoreCounts(len(meaning.classes.entries))
    with closing(open_images(pair.truth, "mask")) as truths, closing(open_images(pair.scores, "mask")) as all_scores:
        check_alike(pair.scores, all_scores, pair.truth, truths)
        for truth, scores in zip(truths.planes, all_scores.planes, strict=True):
            _add(counts, pair.scores, truth, scores, meaning, align)
    return counts


def _add(counts: ScoreCounts, path: Path, truth: Source, given: Source, meaning: Meaning, align: bool) -> None:
    """Those of one image."""
    bands = bands_of_classes(path, given, meaning.classes)
    scale, offset = (np.array([known[band] for band in bands])[:, None] for known in (given.scales, given.offsets))
    unlike = difference(given, truth)
    if unlike is not None and not align:
        raise InputError(path, *unlike, "--align resamples them where both lie on earth")
    scores = given if unlike is None else aligned(given, truth.grid)
    height = max(1, min(512, VALUES // (truth.grid.width * len(bands))))
    for true, found in in_step(whole_numbers(truth, False, height), scores.strips(height, bands)):
        places = meaning.true[true.pixels[0]]
        known = (places >= 0) & written_out(both(true.valid, found.valid), places.shape)
        if found.pixels.dtype.kind == "f":
            known &= np.isfinite(found.pixels).all(0)
        counts.add(places[known], _steps(path, found.pixels[:, known], scale, offset))


def _steps(path: Path, stored: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Values (class, pixel), stored as whole steps of a scale or as they are, as levels."""
    ends = np.stack([stored.min(1), stored.max(1)], axis=1) * scale + offset if stored.size else np.zeros((1, 2))
    low, high = float(ends.min()), float(ends.max())
    if low < -1e-3 or high > 1.001:
        raise InputError(path, f"values from {low:g} to {high:g}", "expected probabilities, 0 to 1",
                         "or bytes with a scale, as segcli predict --probabilities writes them")  # fmt: skip
    if stored.dtype == np.uint8:
        return levels(np.arange(256) * scale + offset)[np.arange(len(stored))[:, None], stored]
    return levels(stored * scale + offset)


def bands_of_classes(path: Path, scores: Source, classes: ClassTable) -> list[int]:
    """The band of each class: by the bands' names where they have some, else in order."""
    names = [name.casefold() for name in scores.band_names]
    wanted = [name.casefold() for name in classes.names]
    if any(names):
        missing = sorted(set(wanted) - set(names))
        if missing or len(set(names)) < len(names):
            raise InputError(path, f"bands named {', '.join(scores.band_names)}",
                             f"expected the classes {', '.join(classes.names)}")  # fmt: skip
        return [names.index(name) for name in wanted]
    if scores.bands != len(wanted):
        raise InputError(path, f"{scores.bands} bands", f"expected one for each of {len(wanted)} classes")
    return list(range(scores.bands))
