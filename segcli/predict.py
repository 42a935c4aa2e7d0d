"""segcli predict: images in, masks of class indices out."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
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
from segcli.errors import NothingDoneError
from segcli.network import checkpoint
from segcli.network.device import choose_device, choose_precision, free_memory, is_out_of_memory, keep_freed_memory
from segcli.network.normalise import normalise
from segcli.network.plan import Panel, Plan
from segcli.network.scorer import Scorer, make_scorer
from segcli.options import PredictOptions
from segcli.raster.fit import match_bands, match_range
from segcli.raster.rows import Rows
from segcli.raster.sink import Layout, Sink, create, mask_layout
from segcli.raster.source import SUFFIXES, Source

SMALL_PIXELS = 2**20
"""Images up to this size are read whole, and those of one size go through the network together."""


def run(options: PredictOptions, console: Console) -> int:
    """Label every input and return the exit code."""
    device = choose_device(options.device)
    keep_freed_memory()
    path = checkpoint.find(options.weights)
    if options.weights is None:
        console.say(f"weights: {path.stem} (bundled; choose others with --weights)")
    model = checkpoint.load(path)
    scorer = make_scorer(model.network, device, choose_precision(options.precision, device), options, console.say)
    folder, jobs = batch.plan(options.inputs, options.out, output_suffix, SUFFIXES, options.recursive)
    manifest = batch.Manifest(folder)

    def prepare(job: batch.Job) -> Source:
        manifest.guard(job.output, options.overwrite)
        source = Source(job.source)
        match_bands(source, model.bands)
        if is_small(source):
            source.load()
        return source

    def alike(source: Source) -> tuple[object, int]:
        size = (source.grid.height, source.grid.width)
        return (size, scorer.together(*size)) if is_small(source) else (source.path, 1)

    with console.progress(len(jobs)) as progress:

        def work(group: list[tuple[batch.Job, Source]]) -> None:
            with ExitStack() as open_files:
                sources = [open_files.enter_context(source) for _, source in group]
                predict(sources, [job.output for job, _ in group], model, scorer, options, console, progress)
                for job, source in group:
                    manifest.add(job.source, job.output)
                    if options.overlay:
                        picture = folder / batch.OVERLAYS / job.output.relative_to(folder)
                        manifest.guard(picture, options.overwrite)
                        draw_overlay(source, job.output, picture, model.classes, options.alpha)
                        manifest.add(job.source, picture)
                    console.result(job.output)

        report = batch.run(jobs, prepare, alike, work, console, options.debug)
    console.say(f"{progress.megapixels:.2f} Mpx at {progress.speed()}")
    console.say(str(report))
    return report.exit_code


def predict(
    sources: list[Source], outputs: list[Path], model: checkpoint.Model, scorer: Scorer, options: PredictOptions,
    console: Console, progress: Progress,
) -> None:  # fmt: skip
    """Images of one size to masks, in pieces that fit the memory: smaller ones when it runs out, then on the CPU."""
    grid = sources[0].grid
    for device_scorer in scorer.with_fallback():
        budget = options.memory_bytes or free_memory(device_scorer.device) / 2
        for plan in device_scorer.plans(grid.height, grid.width, len(sources), budget):
            before = progress.state()
            try:
                flow(sources, outputs, model, device_scorer, plan, options, progress)
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                console.say(f"{sources[0].path}: out of memory on {device_scorer.device} with {plan}; trying less")
                progress.restore(before)
    raise NothingDoneError(sources[0].path, "out of memory even in the smallest pieces", "", "free memory")


def flow(
    sources: list[Source], outputs: list[Path], model: checkpoint.Model, scorer: Scorer, plan: Plan,
    options: PredictOptions, progress: Progress,
) -> None:  # fmt: skip
    """The river, from rows to rows. Reading runs ahead of the network in a thread, writing behind it in another."""
    height, width = sources[0].grid.height, sources[0].grid.width
    bands = [match_bands(source, model.bands) for source in sources]
    ranges = [match_range(source, model.normalisation.dtype, options.input_range) for source in sources]
    layout = mask_layout(model.classes)
    with ExitStack() as files:
        sinks = [files.enter_context(create(out, s.grid, layout)) for out, s in zip(outputs, sources, strict=True)]
        for panel in plan.panels(width):
            rows = ahead(read(sources, bands, plan.strip_height, panel))
            with closing(rows), behind(partial(write, sinks, panel)) as put:
                inputs = normalise(rows, model.normalisation, ranges, scorer.device, scorer.dtype)
                scores = scorer.scores(inputs, height)
                for strip in most_likely(scores, model.classes.indices, panel):
                    put(strip)
                    progress.advance(strip.pixels.size / (height * width), strip.pixels.size)


def read(
    sources: list[Source], bands: list[tuple[int, ...]], strip_height: int, panel: Panel
) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """Strips of all images together: (first_row, (image, band, row, col))."""
    columns = (panel.read_first, panel.read_end)
    files = [source.rows(strip_height, chosen, *columns) for source, chosen in zip(sources, bands, strict=True)]
    for strips in zip(*files, strict=True):
        yield strips[0].first_row, np.stack([strip.pixels for strip in strips])


def most_likely(strips: Iterable[tuple[int, Tensor]], indices: NDArray[np.uint8], panel: Panel) -> Iterator[Rows]:
    """The mask value of the class with the highest score, one byte a pixel: (image, row, col), the panel's columns."""
    columns = slice(panel.first - panel.read_first, panel.end - panel.read_first)
    for first_row, scores in strips:
        values = torch.from_numpy(indices).to(scores.device)
        yield Rows(first_row, values[scores[..., columns].argmax(1)].cpu().numpy())


def write(sinks: list[Sink], panel: Panel, strip: Rows) -> None:
    """Each image's rows to its file."""
    for sink, labels in zip(sinks, strip.pixels, strict=True):
        sink.write(strip.first_row, labels, panel.first)


def draw_overlay(source: Source, mask: Path, output: Path, classes: ClassTable, alpha: float) -> None:
    """The image with the classes of its finished mask in colour over it, as 8-bit RGB on the same grid."""
    colors = shown_colors(classes, alpha)
    low, high = source.value_range()
    strip_height = max(1, SMALL_PIXELS // source.grid.width)
    with Source(mask, "mask") as labels, create(output, source.grid, Layout(3, "uint8")) as sink:
        for (first_row, pixels), (_, indices) in zip(source.rows(strip_height), labels.rows(strip_height), strict=True):
            sink.write(first_row, blend(to_picture(pixels, low, high), indices[0], colors))


def is_small(source: Source) -> bool:
    return source.grid.height * source.grid.width <= SMALL_PIXELS


def output_suffix(source: Path) -> str:
    """The ending of a mask: TIFF stays TIFF (and keeps its place on earth), other pictures give PNG."""
    return ".tif" if source.suffix.lower() in (".tif", ".tiff") else ".png"
