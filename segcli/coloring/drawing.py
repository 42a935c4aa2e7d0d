"""A mask in colours: alone, over its image, or as it is with a colour table."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segcli.ahead import ahead, behind
from segcli.batch import Job
from segcli.classes import ClassTable
from segcli.coloring.setting import LEGEND, Setting, shown_values
from segcli.drawing.lookup import color_table
from segcli.drawing.overlay import over_picture
from segcli.drawing.stamps import Line, Stamp, legend, scale_bar, text_pixels
from segcli.errors import InputError
from segcli.files import replacing
from segcli.options import Axes, Band
from segcli.palettes import to_qml
from segcli.pictures import ALONE, OVER, STRIP_PIXELS, Pictures, Style, painted, pictured, strip_height
from segcli.raster.align import is_elsewhere
from segcli.raster.bands import no_band
from segcli.raster.faults import faults_of_writing
from segcli.raster.grid import Grid
from segcli.raster.images import Images, check_alike, open_under
from segcli.raster.names import Name
from segcli.raster.sink import Sink, create, empty_value, mask_layout
from segcli.raster.source import Source
from segcli.raster.stack_sink import PlaneSink, create_for
from segcli.raster.stretch import Limits, shown_bands, stretch_together
from segcli.raster.values import MaskValues, values_of

Advance = Callable[[float, int], None]
"""Is told the share of a file that is done, and its pixels."""


def draw(job: Job, masks: Images, setting: Setting, advance: Advance) -> list[Path]:
    """The mask, or each mask of a stack, in colours; gives the files that were written."""
    options = setting.options
    values = values_of(job.source, masks, setting.given, lambda: setting.is_black_and_white)
    if values.numbers and options.classes is not None:
        raise InputError(job.source, "taken for numbers of objects", "--classes chooses among classes",
                         "give their --palette, or leave --classes out")  # fmt: skip
    shown = shown_values(options.classes, values.classes, job.source)
    path = setting.image_of(job)
    if values.numbers and options.legend != "none":
        setting.console.remark(f"{job.source}: numbers of objects; no legend. If they are classes, give --palette")
    table = color_table(values.classes, shown) if path is None else over_picture(values.classes, shown)
    if values.numbers:
        table[3, 0] = 0
    total, all_fit = np.zeros(256, np.int64), True
    with ExitStack() as files:
        images = None if path is None else open_partner(files, path, masks, job.source, options.axes)
        shown_as = [] if images is None else limits_of(images, options.bands)
        layout = ALONE if images is None else OVER
        made = create_for(masks, job.output, layout, setting.encoding, ome=True)
        for n, sink in enumerate(files.enter_context(made)):
            mask = masks.planes[n]
            is_listed = options.legend != "none" and not values.numbers
            counts = values.counts(mask) if is_listed else np.zeros_like(total)
            total += counts
            box = _legend(values, shown, counts, mask.grid) if options.legend == "picture" else None
            stamps, fits = place_stamps(job.source, mask.grid, box, setting)
            all_fit &= fits
            style = Style(table, options.alpha, options.contours, stamps, values.numbers)
            height = strip_height(mask, options.contours)
            image = None if images is None else pictured(images[n], shown_as[n][0], height, shown_as[n][1])
            strips = values.rows(mask, height)
            write(sink, painted(strips, style, image), mask.grid, 1 / len(masks.planes), advance)
    if options.legend == "none" or (options.legend == "picture" and all_fit):
        return [job.output]
    box = _legend(values, shown, total, masks.planes[0].grid)
    return [job.output] if box is None else [job.output, write_legend(job.output, box)]


def draw_palette(job: Job, masks: Images, setting: Setting, advance: Advance) -> list[Path]:
    """The same indices with a colour table; beside a GeoTIFF a style for QGIS, with the classes' names."""
    values = values_of(job.source, masks, setting.given, lambda: setting.is_black_and_white)
    if values.numbers:
        raise InputError(job.source, f"{masks.planes[0].dtype}, taken for numbers of objects", "expected classes",
                         "give their --palette, or leave --palette-only out")  # fmt: skip
    shown = shown_values(setting.options.classes, values.classes, job.source)
    classes = values.classes
    if values.is_made_up:  # then only what occurs is a class
        found = np.flatnonzero(sum((values.counts(mask) for mask in masks.planes), np.zeros(256, np.int64)))
        shown = frozenset(found.tolist()) if shown is None else shown & set(found.tolist())
    if shown is not None and any(entry.index in shown for entry in classes.entries):
        classes = replace(classes, entries=tuple(entry for entry in classes.entries if entry.index in shown))
    nodata = masks.planes[0].nodata
    empty = int(nodata) if nodata is not None and nodata in range(256) else empty_value(values.classes)
    layout = replace(mask_layout(classes), nodata=empty)
    with create_for(masks, job.output, layout, setting.encoding, ome=True) as sinks:
        for mask, sink in zip(masks.planes, sinks, strict=True):
            strips = values.rows(mask, strip_height(mask), empty)
            rows = ((row, indices[None].astype(np.uint8, copy=False)) for row, indices in strips)
            write(sink, rows, mask.grid, 1 / len(masks.planes), advance)
    if job.output.suffix != ".tif" or masks.in_pages:
        return [job.output]
    style = job.output.with_suffix(".qml")
    with replacing(style, faults_of_writing) as part:
        part.write_text(to_qml(classes), encoding="utf-8")
    return [job.output, style]


def write(sink: Sink | PlaneSink, rows: Pictures, grid: Grid, share: float, advance: Advance) -> None:
    """Rows to a sink; they are made ahead of the encoder, which works in a thread of its own."""

    def put(item: tuple[int, NDArray[np.uint8]]) -> None:
        sink.write(*item)

    if grid.height * grid.width <= STRIP_PIXELS:  # one strip: there is nothing to do meanwhile
        for first_row, pixels in rows:
            put((first_row, pixels))
            advance(share * pixels.shape[1] / grid.height, pixels[0].size)
        return
    with closing(ahead(rows)) as made, behind(put) as hand_over:
        for first_row, pixels in made:
            hand_over((first_row, pixels))
            advance(share * pixels.shape[1] / grid.height, pixels[0].size)


def place_stamps(
    path: Name, grid: Grid, box: NDArray[np.uint8] | None, setting: Setting
) -> tuple[tuple[Stamp, ...], bool]:
    """The legend at the lower right and the scale bar at the lower left; and whether the legend fits."""
    pixels = text_pixels(grid.height, grid.width)
    margin = max(2, pixels // 2)
    stamps: list[Stamp] = []
    fits = True
    if box is not None:
        row, col = grid.height - box.shape[1] - margin, grid.width - box.shape[2] - margin
        if min(row, col) >= 0:
            stamps.append(Stamp(row, col, box))
        else:
            fits = False
            setting.console.remark(f"{path}: too small for a legend, which goes into a file of its own")
    if setting.options.scale_bar:
        size = grid.middle_pixel_m()
        bar = None if size is None else scale_bar(size, grid.width, pixels)
        if bar is None:
            setting.console.remark(f"{path}: the size of its pixels is not known; no scale bar")
        else:
            # Above the legend where the picture is too narrow for both side by side.
            is_narrow = bool(stamps) and 2 * margin + bar.shape[2] > stamps[0].col
            row = (stamps[0].row if is_narrow else grid.height) - bar.shape[1] - margin
            if row < margin or bar.shape[2] + 2 * margin > grid.width:
                setting.console.remark(f"{path}: too small for a scale bar")
            else:
                stamps.append(Stamp(row, margin, bar))
    return tuple(stamps), fits


def legend_lines(classes: ClassTable, shown: frozenset[int] | None, counts: NDArray[np.int64]) -> Iterator[Line]:
    """Classes that are shown and occur, with their share of all pixels that have a class."""
    total = max(1, int(counts[classes.indices].sum()))
    for entry in classes.entries:
        if counts[entry.index] and (shown is None or entry.index in shown):
            yield Line(entry.name, entry.color, int(counts[entry.index]) / total)


def write_legend(output: Path, box: NDArray[np.uint8]) -> Path:
    """A legend as a picture of its own, beside the output."""
    path = output.with_suffix(LEGEND)
    with create(path, Grid(*box.shape[1:]), ALONE) as sink:
        sink.write(0, box)
    return path


def _legend(
    values: MaskValues, shown: frozenset[int] | None, counts: NDArray[np.int64], grid: Grid
) -> NDArray[np.uint8] | None:
    lines = [] if values.numbers else list(legend_lines(values.classes, shown, counts))
    return legend(lines, text_pixels(grid.height, grid.width)) if lines else None


def open_partner(files: ExitStack, path: Path, masks: Images, mask: Name, axes: Axes | None) -> tuple[Source, ...]:
    """The images to draw over, of the same sizes as the masks. InputError where they are not."""
    grid = masks.planes[0].grid
    images = open_under(path, (grid.height, grid.width), axes)
    for plane in images.planes:
        files.callback(plane.close)
    check_alike(mask, masks, path, images)
    for image, plane in zip(images.planes, masks.planes, strict=True):
        check_size(plane, image)
        if is_elsewhere(plane.grid, image.grid):
            raise InputError(
                mask, f"does not lie where {path} does", "expected one place", "warp one of them (gdalwarp)"
            )
    return images.planes


def limits_of(images: Sequence[Source], wanted: tuple[Band, ...] | None) -> list[tuple[tuple[int, ...], Limits]]:
    """Of each image the bands that are shown, and what is black and white in them: the same for all of a stack, in
    which a dark one stays dark."""
    bands = [bands_of(image, wanted) for image in images]
    if len(set(bands)) > 1:
        return [(of, stretch_together([image], of)[0]) for image, of in zip(images, bands, strict=True)]
    return list(zip(bands, stretch_together(images, bands[0]), strict=True))


def check_size(mask: Source, other: Source) -> None:
    """InputError unless both have as many rows and columns."""
    one, two = ((source.grid.width, source.grid.height) for source in (mask, other))
    if one != two:
        raise InputError(mask.path, f"{one[0]} x {one[1]} pixels, {other.path} has {two[0]} x {two[1]}",
                         "expected the same size")  # fmt: skip


def bands_of(image: Source, wanted: tuple[Band, ...] | None) -> tuple[int, ...]:
    """The bands that are shown: those that are wanted, or red, green and blue. InputError where one is missing."""
    if wanted is None:
        return shown_bands(image)
    found = [(band, image.band_of(band)) for band in wanted]
    if missing := [band for band, place in found if place is None]:
        raise no_band(image, missing[0])
    return tuple(place for _, place in found if place is not None)
