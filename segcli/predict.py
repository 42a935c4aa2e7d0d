"""segcli predict: images in, masks of class indices out."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segcli import batch
from segcli.classes import ClassTable
from segcli.console import Console, Progress
from segcli.drawing.overlay import blend, shown_colors, to_picture
from segcli.network import checkpoint
from segcli.network.checkpoint import Model
from segcli.network.device import choose_device, keep_freed_memory
from segcli.network.normalise import normalise
from segcli.network.whole import whole_pass
from segcli.options import PredictOptions
from segcli.raster.fit import match_bands, match_range
from segcli.raster.rows import Rows
from segcli.raster.sink import Layout, create, mask_layout
from segcli.raster.source import SUFFIXES, Source

STRIP_HEIGHT = 256


def run(options: PredictOptions, console: Console) -> int:
    """Label every input and return the exit code."""
    device = choose_device(options.device)
    keep_freed_memory()
    path = checkpoint.find(options.weights)
    if options.weights is None:
        console.say(f"weights: {path.stem} (bundled; choose others with --weights)")
    model = checkpoint.load(path)
    model.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    folder, jobs = batch.plan(options.inputs, options.out, output_suffix, SUFFIXES, options.recursive)
    manifest = batch.Manifest(folder)
    with console.progress(len(jobs)) as progress:

        def work(job: batch.Job) -> None:
            manifest.guard(job.output, options.overwrite)
            with Source(job.source) as source:
                predict(source, job.output, model, device, options, progress)
                manifest.add(job.source, job.output)
                if options.overlay:
                    picture = folder / batch.OVERLAYS / job.output.relative_to(folder)
                    manifest.guard(picture, options.overwrite)
                    draw_overlay(source, job.output, picture, model.classes, options.alpha)
                    manifest.add(job.source, picture)
            console.result(job.output)

        report = batch.run(jobs, work, console, options.debug)
    console.say(f"{progress.megapixels:.2f} Mpx at {progress.speed()}")
    console.say(str(report))
    return report.exit_code


def predict(
    source: Source, output: Path, model: Model, device: torch.device, options: PredictOptions, progress: Progress
) -> None:
    """One image to one mask: the river, from rows to rows."""
    bands = match_bands(source, model.bands)
    value_range = match_range(source, model.normalisation.dtype, options.input_range)
    with create(output, source.grid, mask_layout(model.classes)) as sink:
        rows = source.rows(STRIP_HEIGHT, bands)
        inputs = normalise(rows, model.normalisation, device, value_range)
        scores = whole_pass(model.network, inputs)
        for first_row, labels in most_likely(scores, model.classes.indices):
            sink.write(first_row, labels)
            progress.advance(len(labels) / source.grid.height, labels.size)


def most_likely(strips: Iterable[tuple[int, Tensor]], indices: NDArray[np.uint8]) -> Iterator[Rows]:
    """The mask value of the class with the highest score: (1, class, row, col) -> (row, col), one byte a pixel."""
    for first_row, scores in strips:
        values = torch.from_numpy(indices).to(scores.device)
        yield Rows(first_row, values[scores[0].argmax(0)].cpu().numpy())


def draw_overlay(source: Source, mask: Path, output: Path, classes: ClassTable, alpha: float) -> None:
    """The image with the classes of its finished mask in colour over it, as 8-bit RGB on the same grid."""
    colors = shown_colors(classes, alpha)
    low, high = source.value_range()
    with Source(mask, "mask") as labels, create(output, source.grid, Layout(3, "uint8")) as sink:
        for (first_row, pixels), (_, indices) in zip(source.rows(STRIP_HEIGHT), labels.rows(STRIP_HEIGHT), strict=True):
            sink.write(first_row, blend(to_picture(pixels, low, high), indices[0], colors))


def output_suffix(source: Path) -> str:
    """The ending of a mask: TIFF stays TIFF (and keeps its place on earth), other pictures give PNG."""
    return ".tif" if source.suffix.lower() in (".tif", ".tiff") else ".png"
