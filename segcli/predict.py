"""segcli predict: images in, masks of class indices out."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segcli import batch
from segcli.ahead import ahead, behind
from segcli.classes import ClassTable
from segcli.console import Console, Progress
from segcli.drawing.overlay import blend, shown_colors, to_picture
from segcli.errors import InputError
from segcli.network import checkpoint
from segcli.network.device import (
    choose_device,
    choose_precision,
    copied_back,
    free_memory,
    is_out_of_memory,
    keep_freed_memory,
)
from segcli.network.normalise import normalise
from segcli.network.plan import Panel, Plan
from segcli.network.scorer import Scorer, make_scorer
from segcli.options import PredictOptions
from segcli.raster.fit import match_bands, match_range
from segcli.raster.names import SUFFIXES
from segcli.raster.rows import Rows
from segcli.raster.sink import Layout, Sink, create, mask_layout
from segcli.raster.source import Source

SMALL_BYTES = 2**23
"""Images up to this size are read whole, and those of one height and width go through the network together."""


@dataclass(frozen=True)
class Scan:
    """An open image, and how it fits the network: its bands, and the values that stand for the trained range."""

    source: Source
    bands: tuple[int, ...]
    value_range: tuple[float, float] | None


@dataclass
class Memory:
    """Bytes that the network may use; less once it has run out."""

    budget: float


def run(options: PredictOptions, console: Console) -> int:
    """Label every input and return the exit code."""
    device = choose_device(options.device)
    path = checkpoint.find(options.weights)
    if options.weights is None:
        console.say(f"weights: {path.stem} (bundled; choose others with --weights)")
    model = checkpoint.load(path)
    beside = batch.OVERLAYS if options.overlay else None
    folder, jobs = batch.plan(options.inputs, options.out, output_suffix, SUFFIXES, options.recursive, beside)
    manifest = batch.Manifest(folder)
    memory = Memory(options.memory_bytes or free_memory(device) / 2)
    keep_freed_memory()
    scorer = make_scorer(model.network, device, choose_precision(options.precision, device), options, console.say)
    if device.type == "cpu":
        model.network.to("meta")  # the scorer has weights of its own; a second copy is one too many
    gc.collect()  # traces of the network refer to themselves, and hold weights

    def overlay_of(job: batch.Job) -> Path:
        return folder / batch.OVERLAYS / job.output.relative_to(folder)

    def prepare(job: batch.Job) -> Scan:
        for output in (job.output, *([overlay_of(job)] if options.overlay else [])):
            manifest.guard(output, options.overwrite)
        return open_scan(job.source, model, options.input_range)

    def alike(scan: Scan) -> tuple[object, int]:
        grid = scan.source.grid
        together = scorer.together(grid.height, grid.width)
        return ((grid.height, grid.width), together) if scan.source.is_loaded else (scan.source.path, 1)

    with console.progress(len(jobs)) as progress:

        def work(group: list[tuple[batch.Job, Scan]]) -> None:
            predict(
                [scan for _, scan in group], [job.output for job, _ in group], model, scorer, memory, console, progress
            )

        def finish(job: batch.Job, scan: Scan) -> None:
            with scan.source as source:
                manifest.add(job.source, job.output)
                if options.overlay:
                    draw_overlay(source, job.output, overlay_of(job), model.classes, options.alpha)
                    manifest.add(job.source, overlay_of(job))
            console.result(job.output)

        report = batch.run(jobs, prepare, alike, work, finish, console, options.debug)
    console.say(f"{progress.megapixels:.2f} Mpx at {progress.speed()}")
    console.say(str(report))
    return report.exit_code


def open_scan(path: Path, model: checkpoint.Model, given_range: tuple[float, float] | None) -> Scan:
    """The image, if it fits the network; a small one is read at once, and its file closed."""
    source = Source(path)
    try:
        bands = match_bands(source, model.bands)
        if source.size_bytes <= SMALL_BYTES:
            source.load()
        return Scan(source, bands, match_range(source, bands, model.normalisation.dtype, given_range))
    except BaseException:
        source.close()
        raise


def predict(
    scans: list[Scan], outputs: list[Path], model: checkpoint.Model, scorer: Scorer, memory: Memory, console: Console,
    progress: Progress,
) -> None:  # fmt: skip
    """Images of one size to masks, in pieces that fit the memory: smaller ones when it runs out, then on the CPU."""
    grid, name = scans[0].source.grid, scans[0].source.path
    for device_scorer in scorer.with_fallback(console.say):
        for plan in device_scorer.plans(grid.height, grid.width, len(scans), memory.budget):
            before = progress.state()
            try:
                flow(scans, outputs, model, device_scorer, plan, progress)
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                console.say(f"{name}: out of memory on {device_scorer.device} with {plan}; trying less")
                memory.budget = min(memory.budget, 0.99 * plan.needed)  # for the images that follow, too
                progress.restore(before)
    raise InputError(name, "out of memory even in the smallest pieces", "", "free memory, or use narrower weights")


def flow(
    scans: list[Scan], outputs: list[Path], model: checkpoint.Model, scorer: Scorer, plan: Plan, progress: Progress
) -> None:
    """The river, from rows to rows. Reading runs ahead of the network in a thread, writing behind it in another."""
    height, width = scans[0].source.grid.height, scans[0].source.grid.width
    ranges = [scan.value_range for scan in scans]
    layout = mask_layout(model.classes)
    with ExitStack() as files:
        sinks = [
            files.enter_context(create(output, scan.source.grid, layout))
            for output, scan in zip(outputs, scans, strict=True)
        ]
        for panel in plan.panels(width):
            rows = ahead(read(scans, plan.strip_height, panel))
            with closing(rows), behind(partial(write, sinks, panel)) as put:
                inputs = normalise(rows, model.normalisation, ranges, scorer.device, scorer.dtype)
                scores = scorer.scores(inputs, height)
                labels = most_likely(scores, model.classes.indices, panel)
                for first_row, pixels in copied_back(labels):
                    put(Rows(first_row, pixels))
                    progress.advance(pixels.size / (height * width), pixels.size)


def read(scans: list[Scan], strip_height: int, panel: Panel) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """Strips of all images together: (first_row, (image, band, row, col))."""
    files = [scan.source.rows(strip_height, scan.bands, panel.read_first, panel.read_end) for scan in scans]
    for strips in zip(*files, strict=True):
        yield strips[0].first_row, np.stack([strip.pixels for strip in strips])


def most_likely(
    strips: Iterable[tuple[int, Tensor]], indices: NDArray[np.uint8], panel: Panel
) -> Iterator[tuple[int, Tensor]]:
    """The mask value of the class with the highest score, one byte a pixel: (image, row, col), the panel's columns."""
    columns = slice(panel.first - panel.read_first, panel.end - panel.read_first)
    for first_row, scores in strips:
        values = torch.from_numpy(indices).to(scores.device)
        yield first_row, values[scores[..., columns].argmax(1)]


def write(sinks: list[Sink], panel: Panel, strip: Rows) -> None:
    """Each image's rows to its file."""
    for sink, labels in zip(sinks, strip.pixels, strict=True):
        sink.write(strip.first_row, labels, panel.first)


def draw_overlay(source: Source, mask: Path, output: Path, classes: ClassTable, alpha: float) -> None:
    """The image with the classes of its finished mask in colour over it, as 8-bit RGB on the same grid."""
    colors = shown_colors(classes, alpha)
    low, high = source.value_range()
    strip_height = max(1, 2**20 // source.grid.width)
    with Source(mask, "mask") as labels, create(output, source.grid, Layout(3, "uint8")) as sink:
        for (first_row, pixels), (_, indices) in zip(source.rows(strip_height), labels.rows(strip_height), strict=True):
            sink.write(first_row, blend(to_picture(pixels, low, high), indices[0], colors))


def output_suffix(source: Path) -> str:
    """The ending of a mask: TIFF stays TIFF (and keeps its place on earth), other pictures give PNG."""
    return ".tif" if source.suffix.lower() in (".tif", ".tiff") else ".png"
