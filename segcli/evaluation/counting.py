"""What is counted of one pair of masks, strip by strip, side by side; neither is ever in memory whole."""

from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segcli.ahead import ahead
from segcli.classes import ClassTable
from segcli.errors import InputError
from segcli.evaluation.meaning import Meaning
from segcli.evaluation.objects import ObjectMatcher
from segcli.evaluation.outlines import Outlines
from segcli.evaluation.pairs import Pair
from segcli.evaluation.scores import count_scores
from segcli.evaluation.values import NUMBERS, as_values, whole_numbers
from segcli.measures.calibration import Packed
from segcli.measures.confusion import Matrix, Totals, count_values
from segcli.measures.report import ImageCounts, entries_of
from segcli.options import EvalOptions
from segcli.raster.align import aligned, difference
from segcli.raster.images import Images, check_alike, open_images
from segcli.raster.labels import check_indices, table_in
from segcli.raster.rows import Strip, in_step
from segcli.raster.source import Source
from segcli.validity import both, written_out


def compare(pair: Pair, meaning: Meaning, options: EvalOptions) -> tuple[ImageCounts, Packed | None]:
    """Count one pair, row by row; images of a stack together.

    Raises InputError where the grids differ or a value is no class.
    """
    with ExitStack() as files:
        planes, meaning = side_by_side(files, pair, meaning, options)
        counts = Counts(meaning, options, *planes[0])
        for true, found in planes:
            sides = zip((true, found), (options.is_numbered, options.objects == "labels"), strict=True)
            strips = ahead(in_step(*(whole_numbers(side, is_numbered) for side, is_numbered in sides)))
            with closing(strips):  # read in a thread, counted here
                for one, other in strips:
                    counts.add(one, other)
            counts.end_image()
            if len(planes) > 1:  # of which there may be more than files can be open
                true.rest()
                found.rest()
        image = counts.of_pair(pair)
    scores = count_scores(pair, meaning, options.align).packed() if pair.scores is not None else None
    return image, scores


def side_by_side(
    files: ExitStack, pair: Pair, meaning: Meaning, options: EvalOptions
) -> tuple[list[tuple[Source, Source]], Meaning]:
    """True and predicted mask on one grid, open until `files` ends; several of them where the files are stacks. And
    what the values of this pair mean."""
    true_images = _planes(files, pair.truth, options.is_numbered, options, meaning)
    predicted = _planes(files, pair.predicted, options.objects == "labels", options, meaning)
    if meaning.by_name:
        meaning = meaning.of_truth(pair.truth, table_in(pair.truth, true_images))
        meaning = meaning.of_prediction(pair.predicted, table_in(pair.predicted, predicted))
    check_alike(pair.predicted, predicted, pair.truth, true_images)
    truth, given = true_images.planes, predicted.planes
    planes = []
    for true, found in zip(truth, given, strict=True):
        unlike = difference(found, true)
        if unlike is not None and not options.align:
            raise InputError(pair.predicted, *unlike, "--align resamples it where both lie on earth")
        planes.append((true, found if unlike is None else aligned(found, true.grid)))
    return planes, meaning


def _planes(files: ExitStack, path: Path, is_numbered: bool, options: EvalOptions, meaning: Meaning) -> Images:
    images = open_images(path, "mask")
    files.callback(images.close)
    if is_numbered and (table := table_in(path, images)) is not None:
        raise InputError(path, f"a mask of classes ({', '.join(table.names[:6])})",
                         f"--objects {options.objects} expects numbers of objects here",
                         "take what predict --objects wrote, or another --objects")  # fmt: skip
    for plane in images.planes:
        if not is_numbered:
            if plane.bands == 1 and np.dtype(plane.dtype).kind in "ui" and plane.dtype != "uint8":
                if not meaning.is_given:  # numbers of objects would be taken for classes
                    raise InputError(path, f"1 band of {plane.dtype}", "expected class indices, uint8", f"{NUMBERS}; "
                                     "if these are classes, give --classes")  # fmt: skip
                continue
            check_indices(plane)
        elif plane.bands != 1 or np.dtype(plane.dtype).kind not in "uif":
            found = f"{plane.bands} bands of {plane.dtype}"
            raise InputError(path, found, f"--objects {options.objects} expects one band of whole numbers")
    return images


class Counts:
    """All that is asked for: values, outlines and objects."""

    def __init__(self, meaning: Meaning, options: EvalOptions, truth: Source, prediction: Source) -> None:
        count = len(meaning.classes.entries)
        self._meaning = meaning
        self._options = options
        self._labels = options.is_numbered, options.objects == "labels"
        self._values, self._lost = np.zeros((256, 256), np.int64), np.zeros(256, np.int64)
        self._void = 0  # pixels of the truth without data
        predicted = meaning.predicted.copy()
        if meaning.of_objects:  # 0 stands for no label, too
            predicted[1:][predicted[1:] == 0] = -1
        sides = (truth, meaning.true), (prediction, predicted)
        self._marked = [class_of_nodata(source, positions, meaning.classes, is_numbered)
                        for (source, positions), is_numbered in zip(sides, self._labels, strict=True)]  # fmt: skip
        width = _in_pixels(truth, prediction, *options.boundary) if options.boundary is not None else None
        steps = _steps(truth, prediction, options.distances) if options.distances is not None else None
        self._outlines = Outlines(count, width, steps) if width is not None or steps is not None else None
        counted = [not entry.is_background for entry in meaning.classes.entries]
        self._objects = ObjectMatcher(counted, self._labels) if options.objects is not None else None

    def add(self, true: Strip, found: Strip) -> None:
        """The next rows of both."""
        numbers = true.pixels[0], found.pixels[0]
        one, other = map(as_values, numbers, self._labels)
        valid = both(true.valid, found.valid)
        if valid is None:
            self._values += count_values(one, other)
        else:
            known = written_out(true.valid, one.shape)
            self._void += known.size - int(known.sum())
            self._lost += np.bincount(one[known & ~valid], minlength=256)
            self._values += count_values(one[valid], other[valid])
        if self._outlines is None and self._objects is None:
            return
        places = self._meaning.true[one], self._meaning.predicted[other]
        predicted = (places[1] >= 0) & written_out(found.valid, one.shape)
        labelled = (places[0] >= 0) & written_out(true.valid, one.shape)
        if self._options.unpredicted == "skip":  # what has no data in the prediction is nothing in the truth either
            labelled &= predicted
        if self._outlines is not None:
            self._outlines.add(places[0], np.where(predicted, places[1], np.int16(-1)), labelled)
        if self._objects is not None:
            sides = [part if is_numbered else place
                     for part, is_numbered, place in zip(numbers, self._labels, places, strict=True)]  # fmt: skip
            self._objects.add(sides[0], sides[1], labelled, predicted)

    def end_image(self) -> None:
        """The next rows are another image's of the stack."""
        for part in (self._outlines, self._objects):
            if part is not None:
                part.end_image()

    def of_pair(self, pair: Pair) -> ImageCounts:
        """All that was counted. InputError where a value is no class."""
        is_wrong = self._options.unpredicted == "wrong"
        matrix, missed = by_class(pair, self._values, self._lost, self._meaning, is_wrong)
        unpredicted = int(missed.sum())
        unlabelled = self._meaning.true == -1
        without = int(self._values[unlabelled].sum() + self._lost[unlabelled].sum()) + self._void
        truth, prediction = self._marked
        marked = (truth if self._void else "", prediction if self._lost.any() else "")
        if unpredicted and not matrix.any() and not is_wrong:
            raise InputError(pair.predicted, "nothing in common with the truth",
                             f"expected predictions for {unpredicted} pixels with a true class")  # fmt: skip
        boundaries = self._outlines.boundaries if self._outlines is not None else None
        distances = self._outlines.distances if self._outlines is not None else None
        objects = self._objects.counts if self._objects is not None else None
        counts = entries_of(matrix), Totals.of(matrix, missed if is_wrong else 0)
        return ImageCounts(pair.name, *counts, unpredicted, boundaries, distances, objects, without, marked)


def class_of_nodata(source: Source, positions: NDArray[np.int16], classes: ClassTable, is_numbered: bool) -> str:
    """The class whose value the mask also declares as no data, so that its pixels are lost; nothing where there is
    none. Of numbers that is what lies between the objects, 0: another one may well be spared for no label."""
    value = source.nodata
    if value is None or value not in range(1 if is_numbered else 256) or positions[int(value)] < 0:
        return ""
    return classes.names[positions[int(value)]]


def by_class(
    pair: Pair, values: Matrix, lost: NDArray[np.int64], meaning: Meaning, is_lost_wrong: bool
) -> tuple[Matrix, Matrix]:
    """Counts of values as a confusion matrix, and by true class, (class,), pixels without a predicted one.

    `lost` counts the true values of pixels where the prediction has no data. InputError on values that are no class,
    among these where they are to count.
    """
    seen = values.sum(1) + lost if is_lost_wrong else values.sum(1)
    tables = (seen, meaning.true, pair.truth), (values.sum(0), meaning.predicted, pair.predicted)
    for counts, positions, path in tables:
        foreign = np.flatnonzero((counts > 0) & (positions == -2))
        if foreign.size:
            listed = ", ".join(f"{value} ({counts[value]} pixels)" for value in foreign[:5])
            raise InputError(path, f"values that are no class: {listed}", "expected those of the class table",
                             "give --classes, or mark pixels without a label")  # fmt: skip
    count = np.arange(len(meaning.classes.entries))
    rows, columns = meaning.true == count[:, None], meaning.predicted == count[:, None]  # (class, value)
    matrix = rows.astype(np.int64) @ values @ columns.T.astype(np.int64)
    return matrix, rows.astype(np.int64) @ (values.sum(1) + lost) - matrix.sum(1)


def _steps(truth: Source, prediction: Source, unit: str) -> tuple[float, float]:
    """Height and width of a pixel in the unit, as one of the masks says; InputError where they are asked for in metres
    and neither does, or both and not the same."""
    if unit == "pixels":
        return 1.0, 1.0
    sizes = [size for mask in (truth, prediction) if (size := mask.grid.pixel_size_m()) is not None]
    if len(sizes) == 2 and any(abs(one - other) > MOST_UNLIKE * other for one, other in zip(*sizes, strict=True)):
        found, expected = (f"pixels of {down:g} x {across:g} m" for down, across in sizes)
        raise InputError(truth.path, found, f"{prediction.path} has {expected}", "correct one, or give pixels")
    if sizes:
        return sizes[0]
    raise InputError(truth.path, "its pixels have no size in metres", "metres were asked for", "give pixels")


MOST_UNLIKE = 0.01
"""Of sizes of pixels that are the same but for their last digits."""


def _in_pixels(truth: Source, prediction: Source, width: float, unit: str) -> float:
    down, across = _steps(truth, prediction, unit)
    if abs(down - across) > MOST_UNLIKE * across:
        raise InputError(truth.path, f"pixels of {down:g} x {across:g}", "--boundary in metres needs square ones",
                         "give pixels, or use --distances metres")  # fmt: skip
    return width / across
