"""segcli colorize: masks that people can read, and colours back to masks."""

from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from segcli import batch, forecast
from segcli.ahead import shared
from segcli.classes import ClassTable, check_colors
from segcli.coloring.comparing import draw_comparison
from segcli.coloring.drawing import draw, draw_palette
from segcli.coloring.indexing import draw_indices
from segcli.coloring.setting import LEGEND, Setting, partners
from segcli.console import Console, Progress
from segcli.errors import InputError, UsageError
from segcli.evaluation.meaning import Meaning, find_meaning
from segcli.evaluation.pairs import Pair
from segcli.files import read_steadily
from segcli.known_palettes import KNOWN, is_nameless
from segcli.machine import cores, resident_bytes
from segcli.manifest import opened, seen
from segcli.options import ColorizeOptions
from segcli.palettes import find_palette
from segcli.raster import endings
from segcli.raster.canvas import MOST_BYTES
from segcli.raster.images import Images, open_images
from segcli.raster.labels import written_table
from segcli.raster.names import Name
from segcli.raster.values import in_usual_colors

SMALL_PIXELS = 2**23
"""Masks of up to so many pixels are drawn several at once; larger ones keep all cores busy alone."""


PEAK_BYTES = 2e8
"""What a GeoTIFF takes while it is drawn, of any size."""


def run(options: ColorizeOptions, console: Console) -> int:
    """Draw every mask and return the exit code."""
    _check(options)
    suffix, beside = partial(_suffix, options), _beside(options)
    folder, jobs = batch.plan(options.inputs, options.out, suffix, options.recursive, beside)
    name = options.palette
    given, palettes = read_steadily([] if name is None or name in KNOWN else [Path(name)],
                                    lambda: None if name is None else find_palette(name))  # fmt: skip
    setting = _setting(options, folder, jobs, given, console)
    jobs = [replace(job, made_of=setting.sources_of(job)) for job in jobs]
    wanted = replace(options, palette="a file") if palettes else options
    batch.spare(jobs, chain(palettes, *(job.made_of or () for job in jobs)))
    jobs = batch.of_shard(jobs, folder, options.shard)
    if options.verify or options.dry_run:
        known = seen(folder, "colorize", wanted, palettes)
        if options.verify:
            return forecast.verify(jobs, known, console)
        return forecast.rehearse(jobs, known, options.overwrite, _cost, console)
    outcomes: dict[batch.Job, list[Path] | Exception] = {}
    at_once = options.jobs or cores()

    with (
        opened(folder, "colorize", wanted, palettes, folder == options.out, options.shard) as manifest,
        console.progress(len(jobs)) as progress,
    ):

        def prepare(job: batch.Job) -> Images:
            images = open_images(job.source, "image" if options.to_index else "mask")
            if options.compare:  # a picture of three, which lies nowhere
                return images
            try:
                for line in endings.lost_in(job.source, images, job.output, setting.encoding):
                    console.remark(line)
            except InputError:
                images.close()
                raise
            return images

        def alike(masks: Images) -> tuple[object, int]:
            pixels = sum(plane.grid.height * plane.grid.width for plane in masks.planes)
            return ("small", at_once) if pixels <= SMALL_PIXELS else (id(masks), 1)

        def work(group: list[tuple[batch.Job, Images]]) -> None:
            made = shared(
                lambda one: draw_one(one[0], one[1], setting, progress), group, len(group), stopping=setting.stop.set
            )
            with closing(made) as drawn:
                outcomes.update(zip((job for job, _ in group), drawn, strict=True))

        def finish(job: batch.Job, _: Images) -> list[Path]:
            outcome = outcomes.pop(job)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        steps = batch.Steps(prepare, alike, work, finish)
        report = batch.run(
            jobs, steps, console, manifest, options.overwrite, options.debug, options.on_error, progress=progress
        )
    console.say(f"{progress.megapixels:.2f} Mpx at {progress.speed()}")
    report.tell(console)
    return report.exit_code


def draw_one(job: batch.Job, masks: Images, setting: Setting, progress: Progress) -> list[Path] | Exception:
    """Draw the masks of a file in the way that is asked for; gives the files that were written, or what went wrong."""
    options = setting.options
    way = draw_indices if options.to_index else draw_palette if options.palette_only else (
        draw_comparison if options.compare else draw)  # fmt: skip

    def advance(share: float, pixels: int) -> None:
        if setting.stop.is_set:
            raise KeyboardInterrupt
        progress.advance(share, pixels)

    try:
        return way(job, masks, setting, advance)
    except Exception as error:  # the others go on; it is said when this one's turn comes
        return error
    finally:
        masks.close()


def _cost(job: batch.Job) -> forecast.Cost:
    """By figures of one machine (benchmarks/README.md): files are the most of it."""
    images = open_images(job.source, "image")
    pixels = 0
    for plane in images.planes:
        with plane:
            pixels += plane.grid.height * plane.grid.width
    second = 1e-7 if job.output.suffix == ".tif" else 2e-8
    peak = resident_bytes() + (min(4 * pixels, MOST_BYTES) if job.output.suffix == ".png" else PEAK_BYTES)
    return forecast.Cost(pixels, len(images.planes), pixels * second, peak)


def _check(options: ColorizeOptions) -> None:
    """UsageError where options exclude each other."""
    given = {
        "--over": options.over, "--contours": options.contours, "--legend": options.legend != "none",
        "--scale-bar": options.scale_bar, "--compare": options.compare, "--classes": options.classes,
        "--palette-only": options.palette_only,
    }  # fmt: skip
    excluded = {
        "--to-index": (options.to_index, list(given)),
        "--palette-only": (options.palette_only, ["--over", "--contours", "--legend", "--scale-bar", "--compare"]),
        "--compare": (options.compare, ["--contours", "--scale-bar"]),
    }
    if options.compare and options.legend == "picture":
        raise UsageError("--legend picture", "with --compare", "expected --legend file")
    for name, (is_given, others) in excluded.items():
        for other in others:
            if is_given and given[other]:
                raise UsageError(other, f"with {name}", "expected one of them")
    for name, is_idle in (("--tolerance", options.tolerance and not options.to_index),
                          ("--bands", options.bands and not options.over),
                          ("--axes", options.axes and not options.over)):  # fmt: skip
        if is_idle:
            raise UsageError(name, f"without {'--to-index' if name == '--tolerance' else '--over'}", "it does nothing")
    if options.bands and len(options.bands) not in (1, 3):
        raise UsageError("--bands", f"{len(options.bands)} bands", "expected one, or three for red, green and blue")


def _suffix(options: ColorizeOptions, mask: Name) -> str:
    """Comparisons lie nowhere on earth: they are pictures."""
    return endings.suffix("png" if options.compare and options.format == "auto" else options.format, mask)


def _beside(options: ColorizeOptions) -> list[batch.Beside]:
    found: list[batch.Beside] = []
    if options.palette_only:
        found.append(batch.Beside(ending=".qml", of=".tif"))
    if options.legend != "none":
        found.append(batch.Beside(ending=LEGEND))
    return found


def _setting(
    options: ColorizeOptions, folder: Path, jobs: list[batch.Job], given: ClassTable | None, console: Console
) -> Setting:
    images = partners("--over", options.over, jobs, folder)
    truths = partners("--compare", options.compare, jobs, folder)
    meaning: Meaning | None = None
    pairs = [Pair(str(mask), mask, found[0]) for mask, found in truths.items()
             if isinstance(mask, Path) and len(found) == 1]  # fmt: skip
    if pairs:
        table = given if given is not None and not is_nameless(given) else written_table(None, pairs[0].truth.parent)
        meaning = find_meaning(table, pairs, "--palette")
        if given is not None and table is not given:  # it is colours alone
            colors = {entry.index: entry.color for entry in given.entries}
            shown = tuple(replace(e, color=colors.get(e.index, e.color)) for e in meaning.classes.entries)
            meaning = replace(meaning, classes=replace(meaning.classes, entries=shown))
        elif meaning.is_by_value:  # or what lies beside it tomorrow would change the colours
            meaning = replace(meaning, classes=in_usual_colors(meaning.classes))
        for line in meaning.notes:
            console.say(line)
    if options.to_index and given is not None:
        check_colors(given.entries, f"--palette {options.palette}", given.ignore_color)
    return Setting(options, tuple(job.source for job in jobs), given, images, truths, meaning, console)
