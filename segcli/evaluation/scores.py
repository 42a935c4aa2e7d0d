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
    scale = np.array([given.scales[band] for band in bands])
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
        counts.add(places[known], _steps(path, found.pixels[:, known], scale))


def _steps(path: Path, stored: np.ndarray, scale: np.ndarray) -> np.ndarray:
    if stored.size and (stored.min() < -1e-3 or stored.max() * scale.max() > 1.001):
        low, high = stored.min() * scale.min(), stored.max() * scale.max()
        raise InputError(path, f"values from {low:g} to {high:g}", "expected probabilities, 0 to 1",
                         "or bytes with a scale, as segcli predict --probabilities writes them")  # fmt: skip
    if stored.dtype == np.uint8:
        return levels(np.arange(256) * scale[:, None])[np.arange(len(stored))[:, None], stored]
    return levels(stored * scale[:, None])


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
