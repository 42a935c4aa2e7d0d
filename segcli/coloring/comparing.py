"""A mask, the true one, and where they agree, side by side in one picture."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segcli.batch import Job
from segcli.classes import ClassTable
from segcli.coloring.drawing import (
    Advance,
    check_size,
    legend_lines,
    limits_of,
    open_partner,
    write,
    write_legend,
)  # fmt: skip
from segcli.coloring.setting import Setting, shown_values
from segcli.drawing.agreement import KINDS, TRUE_NEGATIVE, agreement
from segcli.drawing.lookup import color_table, look_up
from segcli.drawing.overlay import blend, over_picture
from segcli.drawing.stamps import legend, text_pixels, title
from segcli.errors import InputError
from segcli.evaluation.meaning import Meaning
from segcli.pictures import ALONE, OVER, Pictures, pictured, strip_height
from segcli.raster.align import difference
from segcli.raster.grid import Grid
from segcli.raster.images import Images, check_alike, open_images
from segcli.raster.labels import check_indices, embedded_table, table_in
from segcli.raster.rows import in_step
from segcli.raster.source import Source
from segcli.raster.stack_sink import create_for
from segcli.validity import both

NOTHING = 255
"""The position of pixels without a label."""

TITLES = ("mask", "truth", "agreement")


class Compared(NamedTuple):
    """Rows of class positions, (row, col), as predicted and true, and of which kind each pixel is."""

    first_row: int
    predicted: NDArray[np.uint8]
    true: NDArray[np.uint8]
    kinds: NDArray[np.uint8]


@dataclass(frozen=True)
class Comparison:
    """Two masks of one size, what their values mean, and the positions of the classes that are looked at."""

    predicted: Source
    truth: Source
    meaning: Meaning
    positive: frozenset[int]

    def rows(self, height: int) -> Iterator[Compared]:
        """InputError, at the end, where a value is no class."""
        foreign = [np.zeros(256, bool), np.zeros(256, bool)]
        strips = in_step(self.predicted.strips(height), self.truth.strips(height))
        for found, true in strips:
            valid = both(found.valid, true.valid)
            sides = []
            for strip, table, seen in zip(
                (found, true), (self.meaning.predicted, self.meaning.true), foreign, strict=True
            ):
                places = table[strip.pixels[0]]
                if valid is not None:
                    places[~valid] = -1
                seen[strip.pixels[0][places == -2]] = True
                sides.append(places)
            kinds = agreement(sides[1], sides[0], self.positive)
            positions = [np.where(side < 0, NOTHING, side).astype(np.uint8) for side in sides]
            yield Compared(found.first_row, positions[0], positions[1], kinds)
        for source, seen in zip((self.predicted, self.truth), foreign, strict=True):
            if seen.any():
                listed = ", ".join(map(str, np.flatnonzero(seen)[:5]))
                raise InputError(source.path, f"values that are no class: {listed}",
                                 "expected those of the class table", "give --palette")  # fmt: skip

    def counts(self) -> NDArray[np.int64]:
        """Pixels of each kind."""
        return sum(
            (np.bincount(strip.kinds.ravel(), minlength=256) for strip in self.rows(strip_height(self.predicted))),
            np.zeros(256, np.int64),
        )


@dataclass(frozen=True)
class Panels:
    """How the three pictures are laid out: a line of titles above, gaps between, colours by position and by kind."""

    height: int
    width: int
    header: int
    gap: int
    classes: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    alpha: float
    bands: int

    @classmethod
    def of(cls, grid: Grid, classes: NDArray[np.uint8], kinds: NDArray[np.uint8], alpha: float, bands: int) -> "Panels":
        """Of masks of this size."""
        pixels = text_pixels(grid.height, grid.width)
        return cls(grid.height, grid.width, 2 * pixels, max(4, pixels // 2), classes, kinds, alpha, bands)

    @property
    def grid(self) -> Grid:
        """Of the whole picture, which lies nowhere."""
        return Grid(self.height + self.header, 3 * self.width + 2 * self.gap)

    def rows(self, compared: Iterable[Compared], image: Pictures | None) -> Pictures:
        """The whole picture from the top; with an image behind each of the three."""
        titles = [title(text, self.header, self.width)[: self.bands] for text in TITLES]
        yield 0, self._beside(titles)
        for strip in compared:
            colors = [look_up(strip.predicted, self.classes), look_up(strip.true, self.classes)]
            colors.append(look_up(strip.kinds, self.kinds))
            if image is not None:
                _, picture = next(image)
                colors = [blend(picture, part, self.alpha) for part in colors]
            yield self.header + strip.first_row, self._beside(colors)

    def _beside(self, parts: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        gap = np.full((self.bands, parts[0].shape[1], self.gap), 255 if self.bands == 3 else 0, np.uint8)
        return np.concatenate([parts[0], gap, parts[1], gap, parts[2]], axis=2)


def draw_comparison(job: Job, masks: Images, setting: Setting, advance: Advance) -> list[Path]:
    """The three pictures, of each mask of a stack, and the legend of the third where it is asked for; gives the files
    that were written."""
    options, path, true_path, meaning = setting.options, setting.image_of(job), setting.truth_of(job), setting.meaning
    assert meaning is not None  # there is one where a mask has a truth
    if masks.in_pages and job.output.suffix == ".png":
        raise InputError(job.source, "a stack", "a PNG holds one comparison", "choose --format tif")
    meaning = meaning.of_truth(true_path, embedded_table(true_path))
    meaning = meaning.of_prediction(Path(job.source), table_in(job.source, masks))
    classes = ClassTable(tuple(replace(entry, index=n) for n, entry in enumerate(meaning.classes.entries)), None)
    shown = shown_values(options.classes, meaning.classes, job.source)
    places = None if shown is None else frozenset(n for n, e in enumerate(meaning.classes.entries) if e.index in shown)
    positive = places or frozenset(e.index for e in classes.entries if not e.is_background)
    over = frozenset(e.index for e in KINDS.entries if e.index != TRUE_NEGATIVE)
    colors = (color_table(classes, places), color_table(KINDS, None)) if path is None else (
        over_picture(classes, places), color_table(KINDS, over))  # fmt: skip
    total = np.zeros(256, np.int64)
    with ExitStack() as files:
        truths = open_images(true_path, "mask")
        files.callback(truths.close)
        check_alike(job.source, masks, true_path, truths)
        images = None if path is None else open_partner(files, path, masks, job.source, options.axes)
        shown_as = [] if images is None else limits_of(images, options.bands)
        panels = [Panels.of(mask.grid, *colors, options.alpha, 4 if path is None else 3) for mask in masks.planes]
        grids, layout = [panel.grid for panel in panels], ALONE if path is None else OVER
        made = create_for(masks, job.output, layout, setting.encoding, ome=True, grids=grids)
        for n, sink in enumerate(files.enter_context(made)):
            mask, truth = masks.planes[n], truths.planes[n]
            _check(mask, truth, len(classes.entries))
            comparison, height = Comparison(mask, truth, meaning, positive), strip_height(mask)
            behind = None if images is None else pictured(images[n], shown_as[n][0], height, shown_as[n][1])
            rows = panels[n].rows(comparison.rows(height), behind)
            write(sink, rows, grids[n], 1 / len(masks.planes), advance)
            total += comparison.counts() if options.legend != "none" else 0
    if options.legend == "none":
        return [job.output]
    box = legend(list(legend_lines(KINDS, None, total)), panels[0].header // 2)
    return [job.output, write_legend(job.output, box)]


def _check(mask: Source, truth: Source, classes: int) -> None:
    for source in (mask, truth):
        check_indices(source)
    check_size(mask, truth)
    if (unlike := difference(mask, truth)) is not None:
        raise InputError(mask.path, *unlike, "warp one of them (gdalwarp)")
    if classes > NOTHING:
        raise InputError(mask.path, f"{classes} classes", f"expected at most {NOTHING}")
