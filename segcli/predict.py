"""segcli predict: images in, masks of class indices out."""

import gc
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from segcli import batch, forecast, outputs
from segcli.ahead import Flag, ahead, behind
from segcli.console import Console, Progress
from segcli.errors import InputError
from segcli.files import read_steadily
from segcli.forecast import Cost
from segcli.machine import cores, resident_bytes
from segcli.manifest import opened, seen
from segcli.network import checkpoint
from segcli.network.budget import Memory
from segcli.network.device import (
    choose_device,
    copied_back,
    is_out_of_memory,
    keep_all_bits_of_float32,
    keep_freed_memory,
    keep_kernels_for,
    map_large_blocks,
    out_of_memory_named,
    return_freed_memory,
)
from segcli.network.normalise import normalise
from segcli.network.plan import Panel, Plan
from segcli.network.scorer import Scorer, first_scorer, in_numbers_of
from segcli.options import Percentiles, PredictOptions
from segcli.products import Product
from segcli.raster import endings
from segcli.raster.bands import check_count, guess, match_images
from segcli.raster.contents import TURNED_BYTES
from segcli.raster.fit import EACH_BY_ITSELF, Range, check_dtypes, match_ranges, written
from segcli.raster.images import Images, open_images
from segcli.raster.levels import other_size
from segcli.raster.names import Name
from segcli.raster.rows import in_step
from segcli.raster.sink import BLOCK, Encoding, Sink
from segcli.raster.source import Source
from segcli.raster.stack_sink import PlaneSink, create_for
from segcli.validity import Valid, Validity, joined

SMALL_BYTES = 2**23
"""Images up to this size are read whole, and those of one height and width go through the network together."""

STRIPS_TO_TRIM = 64
"""Holes in the heap are given back after 1, 2, 4, 8, ... strips, which leave most of them, and then after each 64."""


@dataclass(frozen=True)
class Scan:
    """An open file, and how it fits the network: its bands, and the values that stand for the trained range, by
    image."""

    images: Images
    bands: tuple[int, ...]
    ranges: tuple[Range | None, ...]


@dataclass(frozen=True)
class Work:
    """One image on its way: where it comes from and where its products go. `share` is its part of a file."""

    source: Source
    value_range: Range | None
    bands: tuple[int, ...]
    sinks: tuple[Sink | PlaneSink, ...]
    share: float


@dataclass(frozen=True)
class Setting:
    """What is the same for all images of a run."""

    model: checkpoint.Model
    products: tuple[Product, ...]
    encoding: Encoding
    options: PredictOptions
    console: Console
    memory: Memory
    stopping: Flag = field(default_factory=Flag)

    def waiting(self, source: Source, bands: tuple[int, ...]) -> float:
        """Bytes for each column of an image that wait to be computed, and those that wait until a row of tiles is
        whole: as they are put together, and the last ones, which are fewer, on their way into the file."""
        sizes = (product.layout.bands * np.dtype(product.layout.dtype).itemsize for product in self.products)
        return source.column_bytes(bands) + 2.0 * min(BLOCK, source.grid.height) * sum(sizes)


def run(options: PredictOptions, console: Console) -> int:
    """Label every input and return the exit code."""
    device = choose_device(options.device)
    paths = checkpoint.find_all(options.weights)
    map_large_blocks()
    keep_all_bits_of_float32()
    options, dtype = in_numbers_of(device, options, console.say)
    if not options.weights:
        console.say(f"weights: {paths[0].stem} (bundled; choose others with --weights)")
    models, files = read_steadily(paths, partial(checkpoint.load_all, paths, options.axes is not None))
    model = models[0]
    check_count(options.bands, model.bands, model.learnt)
    ranged = options.input_range or model.normalisation.percentiles
    options = replace(options, input_range=ranged, axes=options.axes or model.axes)
    keep_kernels_for(nn.ModuleList(one.network for one in models))
    outputs.check(options, console.say)
    suffix = partial(endings.suffix, options.format)
    folder, jobs = batch.plan(options.inputs, options.out, suffix, options.recursive, outputs.beside(options))
    jobs = batch.of_shard(outputs.with_overviews(jobs, options), folder, options.shard)
    if options.verify:
        return forecast.verify(jobs, seen(folder, "predict", options, files), console)
    products, encoding = outputs.wanted_products(model.classes, options), outputs.encoding(options)
    # On the CPU the network needs all cores itself.
    readers = options.jobs or (1 if device.type == "cpu" else min(4, cores()))
    gc.freeze()  # what is there by now, much of it torch's own, is not looked through below
    scorer = first_scorer(models, device, dtype, options, console.say)
    for one in models if scorer.device.type == "cpu" else ():
        one.network.to("meta")  # the scorer has weights of its own; a second copy is one too many
    gc.collect()  # traces of the network refer to themselves, and hold weights
    gc.unfreeze()
    return_freed_memory()  # of which there were several copies on the way
    keep_freed_memory()
    always = scorer.always if scorer.device.type == "cpu" else 0.0  # a full GPU has no room to find out
    memory = Memory.of(options.memory_bytes, always, scorer.device, scorer.networks)
    setting = Setting(model, products, encoding, options, console, memory)
    if options.dry_run:
        known = seen(folder, "predict", options, files)
        with out_of_memory_named(scorer.device, "free some there, or choose another --device"):
            return forecast.rehearse(jobs, known, options.overwrite, costs(setting, scorer), console)

    def alike(scan: Scan) -> tuple[object, int]:
        first = scan.images.planes[0]
        size = (first.grid.height, first.grid.width)
        return (size, scorer.together(*size)) if first.is_loaded and not scan.images.axes else (id(scan), 1)

    with (
        opened(folder, "predict", options, files, folder == options.out, options.shard) as manifest,
        console.progress(len(jobs)) as progress,
    ):

        def work(group: list[tuple[batch.Job, Scan]]) -> None:
            places = [(scan, outputs.places(job, setting.products, options)) for job, scan in group]
            predict(places, setting, scorer, progress)

        def finish(job: batch.Job, scan: Scan) -> list[Path]:
            with ExitStack() as open_files:
                for plane in scan.images.planes:
                    open_files.callback(plane.close)
                written = outputs.add_drawings(job, scan.images, scan.bands, model.classes, setting.products, options)
            return [job.output, *written]

        steps = batch.Steps(partial(open_scan, setting), alike, work, finish, setting.stopping)
        report = batch.run(
            jobs, steps, console, manifest, options.overwrite, options.debug, options.on_error, readers, progress
        )
    console.say(f"{progress.megapixels:.2f} Mpx at {progress.speed()}")
    report.tell(console)
    return report.exit_code


def costs(setting: Setting, scorer: Scorer) -> Callable[[batch.Job], Cost]:
    """What a file will cost, by its size and by how long an image of noise takes."""
    model, budget = setting.model, setting.memory.budget
    trained = model.normalisation

    def trial(pixels: NDArray[np.generic]) -> None:
        inputs = normalise([(0, pixels[None], None)], trained, [None], scorer.device, scorer.dtype)
        for _, scores in scorer.way.scores(inputs, pixels.shape[1]):
            scores.cpu()  # waits for a GPU

    is_here, resident = scorer.device.type == "cpu", resident_bytes()
    side = forecast.TRIAL if is_here else 2 * forecast.TRIAL  # to fill a GPU
    second = forecast.seconds_per_pixel(trial, model.bands, trained.dtype, side) * side**2
    second /= scorer.pixels_of(side, side)

    def cost(job: batch.Job) -> Cost:
        images = open_images(job.source, "image", setting.options.level, setting.options.mpp, setting.options.axes)
        pixels, computed, pieces, needed = 0, 0, 0, 0.0
        with closing(images):
            bands = fit(job.source, images, job.output, setting)
            for plane in images.planes:
                height, width = plane.grid.height, plane.grid.width
                plan = next(iter(scorer.plans(height, width, 1, budget, setting.waiting(plane, bands))))
                panels = plan.panels(width)
                pixels, pieces = pixels + height * width, pieces + len(panels)
                computed += sum(scorer.pixels_of(height, panel.read_end - panel.read_first) for panel in panels)
                needed = max(needed, plan.needed if math.isfinite(plan.needed) else 0.0)
        return Cost(pixels, pieces, computed * second, resident + needed * is_here)  # of this machine's memory

    return cost


def open_scan(setting: Setting, job: batch.Job) -> Scan:
    """The file, if it fits the network and its mask; small images are read at once, and their file closed."""
    path = job.source
    options, dtype = setting.options, setting.model.normalisation.needed_dtype
    images = open_images(path, "image", options.level, options.mpp, options.axes)
    try:
        bands = fit(path, images, job.output, setting)
        for plane in images.planes:
            if plane.size_bytes <= SMALL_BYTES // len(images.planes):
                plane.load()
        ranges = match_ranges(
            images.planes, bands, dtype, options.input_range, lambda: setting.stopping.is_set, images.volumes
        )
        if isinstance(options.input_range, Percentiles) and ranges[0] is not None:
            more = f", and others for {count - 1} more" if (count := len(set(images.volumes))) > 1 else ""
            setting.console.detail(f"{path}: {written(ranges[0])}{more}")
            if images.are_pages:
                setting.console.remark(f"{path}: {EACH_BY_ITSELF}")
        return Scan(images, bands, ranges)
    except BaseException:
        images.close()
        raise


def fit(path: Name, images: Images, output: Path, setting: Setting) -> tuple[int, ...]:
    """The bands that the network sees of a file that fits it, and says what its mask cannot hold of it."""
    first = images.planes[0]
    model, chosen = setting.model, setting.options.bands
    bands = match_images(images.planes, model.bands, chosen, model.learnt, model.called)
    if first.called.says_what_they_are:
        setting.console.detail(f"{path}: bands {', '.join(first.called.each(bands))}")
    check_dtypes(images.planes, bands, model.normalisation.needed_dtype, setting.options.input_range)
    if taken := guess(first, bands, chosen, model.learnt, model.called):
        setting.console.remark(f"{path}: {taken}")
    odd = other_size(path, first.grid.middle_pixel_m(), model.mpp)
    for line in (*odd, *outputs.cannot_hold(path, images, output, setting.options)):
        setting.console.remark(line)
    return bands


def predict(scans: list[tuple[Scan, tuple[Path, ...]]], setting: Setting, scorer: Scorer, progress: Progress) -> None:
    """Files to products, images of one size together. With each scan comes a file for each product, in their order."""
    with ExitStack() as files:
        works = [work for scan, places in scans for work in open_sinks(files, scan, places, setting)]
        for size, alike in groupby(works, lambda work: (work.source.grid.height, work.source.grid.width)):
            waiting, together = list(alike), scorer.together(*size)
            for first in range(0, len(waiting), together):
                group = waiting[first : first + together]
                score(group, setting, scorer, progress)


def open_sinks(files: ExitStack, scan: Scan, places: tuple[Path, ...], setting: Setting) -> list[Work]:
    """A sink for each product of each image; the files are there when the block of `files` ends well."""
    images = scan.images
    by_product = [
        files.enter_context(create_for(images, output, product.layout, setting.encoding, ome=True))
        for product, output in zip(setting.products, places, strict=True)
    ]
    return [
        Work(plane, scan.ranges[n], scan.bands, tuple(sinks[n] for sinks in by_product), 1 / len(images.planes))
        for n, plane in enumerate(images.planes)
    ]


def score(works: list[Work], setting: Setting, scorer: Scorer, progress: Progress) -> None:
    """Images of one size, in pieces that fit the memory: smaller ones when it runs out, then on the CPU."""
    grid, name, console = works[0].source.grid, works[0].source.path, setting.console
    for work in works:
        if work.source.is_turned and not work.source.is_loaded and work.source.size_bytes <= TURNED_BYTES * work.share:
            work.source.load()  # not when it is opened, ahead of its turn, as others may be
    waiting = max(setting.waiting(work.source, work.bands) for work in works)
    for device_scorer in scorer.with_fallback(console.say):
        size = grid.height, grid.width, len(works)
        setting.memory.move(device_scorer.device, device_scorer.always, device_scorer.networks)
        for plan in device_scorer.plans_within(*size, setting.memory.budget, waiting):
            if more := setting.memory.exceeded(plan):
                less = ", or a smaller --window," if device_scorer.always else ""
                console.say(f"{name}: {more}; narrower weights{less} would take less")
            before = progress.state()
            try:
                flow(works, setting, device_scorer, plan, progress)
                return
            except Exception as error:
                progress.restore(before)
                if not is_out_of_memory(error):
                    raise
                console.say(f"{name}: out of memory on {device_scorer.device} with {plan}; trying less")
                setting.memory.run_out(plan)
                for sink in (sink for work in works for sink in work.sinks):
                    sink.restart()
    raise InputError(name, "out of memory even in the smallest pieces", "", "free memory, or use narrower weights")


def flow(works: list[Work], setting: Setting, scorer: Scorer, plan: Plan, progress: Progress) -> None:
    """The river, from rows to rows. Reading runs ahead of the network in a thread, writing behind it in another."""
    height, width, name = works[0].source.grid.height, works[0].source.grid.width, works[0].source.path
    ranges = [work.value_range for work in works]
    is_tall = height >= STRIPS_TO_TRIM * plan.strip_height
    for panel in plan.panels(width):
        on_their_way = Validity()
        rows = ahead(read(works, plan.strip_height, panel))
        with closing(rows), behind(partial(write, works, setting.products, panel)) as put:
            inputs = normalise(
                on_their_way.noted(rows), setting.model.normalisation, ranges, scorer.device, scorer.dtype
            )
            scores = scorer.scores(inputs, height, name)
            for number, (first_row, made) in enumerate(copied_back(make(scores, setting.products, panel)), start=1):
                count, columns = made[0].shape[2:]
                if is_tall and (number % STRIPS_TO_TRIM == 0 or number.bit_count() == 1):
                    return_freed_memory()
                put((first_row, made, on_their_way.take(count)))
                progress.advance(works[0].share * len(works) * count * columns / (height * width), made[0].size)
        if panel.end < width:
            return_freed_memory()


def read(works: list[Work], strip_height: int, panel: Panel) -> Iterator[tuple[int, NDArray[np.generic], Valid]]:
    """Strips of all images together: the first row, (image, band, row, col), and where there are data."""
    files = [work.source.strips(strip_height, work.bands, panel.read_first, panel.read_end) for work in works]
    for strips in in_step(*files):
        shape = (1, *strips[0].pixels.shape[1:])
        valid = joined([(None if strip.valid is None else strip.valid[None], shape) for strip in strips], axis=0)
        yield strips[0].first_row, np.stack([strip.pixels for strip in strips]), valid


def make(
    strips: Iterable[tuple[int, Tensor]], wanted: tuple[Product, ...], panel: Panel
) -> Iterator[tuple[int, list[Tensor]]]:
    """Every product of each strip of scores, (image, band, row, col), of the panel's own columns."""
    for first_row, scores in strips:
        yield first_row, [product.make(scores[..., panel.own]) for product in wanted]


def write(
    works: list[Work], wanted: tuple[Product, ...], panel: Panel,
    strip: tuple[int, list[NDArray[np.generic]], Valid],
) -> None:  # fmt: skip
    """Each image's rows to its files, and what stands for no data where there are none."""
    first_row, made, valid = strip
    for number, (product, values) in enumerate(zip(wanted, made, strict=True)):
        for n, work in enumerate(works):
            pixels = values[n]
            if valid is not None and not valid[n, :, panel.own].all():
                if product.empty is None:
                    raise InputError(work.source.path, "pixels without data, and all 256 values are classes")
                pixels = np.where(valid[n, :, panel.own], pixels, np.asarray(product.empty, pixels.dtype))
            work.sinks[number].write(first_row, pixels, panel.first)
