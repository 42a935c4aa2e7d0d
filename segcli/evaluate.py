"""segcli eval: predicted masks beside true ones, figures out."""

import math
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, nullcontext
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any

import cv2

from segcli.classes import ClassTable
from segcli.console import Console
from segcli.errors import InputError, NothingDoneError, SegcliError, UsageError
from segcli.evaluation.counting import compare
from segcli.evaluation.files import own_folder, read_report, write_report
from segcli.evaluation.meaning import LABEL_MAP, Meaning, find_meaning, meaning_of_numbers
from segcli.evaluation.pairs import Pair, find_pairs
from segcli.evaluation.remarks import remarks
from segcli.evaluation.tables import all_tables
from segcli.machine import cores
from segcli.measures.calibration import Packed, ScoreCounts
from segcli.measures.comparison import compared
from segcli.measures.confusion import Totals
from segcli.measures.report import ImageCounts, by_group, of_scores, report
from segcli.options import EvalOptions
from segcli.palettes import read_classes
from segcli.raster.labels import written_table

MISSED = 4
"""Exit code where a bar that was asked for is missed."""

DEAF_SECONDS = 10.0
"""After so long an interrupted process is killed: it is in a library's function over a whole image."""

MANY_PAIRS, MANY_BYTES = 64, 2**25
"""From so many on, or so much to read, starting processes pays."""

Counted = tuple[ImageCounts, Packed | None]


def run(options: EvalOptions, console: Console) -> int:
    """Compare all pairs, report, and return the exit code."""
    if options.objects == "labels" and options.classes is not None:
        raise UsageError("--classes", "with --objects labels", "maps of object numbers have no classes")
    pairs = find_pairs(options)
    if options.is_numbered and any(pair.scores is not None for pair in pairs):
        where = "--scores" if options.scores is not None else f"{options.predicted}, column scores"
        raise UsageError(where, f"with --objects {options.objects}", "maps of object numbers have no classes to score")
    with nullcontext() if options.out is None else own_folder(options.out):
        return _run(options, pairs, console)


def _run(options: EvalOptions, pairs: list[Pair], console: Console) -> int:
    """The same of these pairs, with the folder for the report at hand."""
    meaning = _meaning(options, pairs)
    for line in meaning.notes:
        console.say(line)
    if options.objects is not None and len(meaning.classes.entries) == 256:
        raise UsageError("--objects", "256 classes", "expected at most 255")
    classes = meaning.classes
    for name, _ in options.min_iou:
        if name not in classes.names:
            raise UsageError("--min-iou", f"no class {name!r}", f"expected one of {', '.join(classes.names)}")
    other = read_report(options.compare, classes, options.unpredicted) if options.compare is not None else None
    if other is not None and not other.keys() & {pair.name for pair in pairs}:
        raise UsageError(options.compare or "", "has none of these images", "expected a report of the same images")
    done: list[tuple[Pair, ImageCounts]] = []
    failures: list[dict[str, str]] = []
    scores = ScoreCounts(len(classes.entries))
    with console.progress(len(pairs)) as progress, closing(count_all(pairs, meaning, options)) as counted:
        for pair, result in zip(pairs, counted, strict=True):
            if isinstance(result, InputError):
                console.fail(result)
                failures.append({"image": pair.name, "reason": str(result)})
                console.record({"image": pair.name, "status": "failed", "reason": str(result)})
                continue
            image, of_image = result
            done.append((pair, image))
            if of_image is not None:
                scores.merge(of_image)
            progress.advance(1, int(image.totals.pixels))
    if not done:
        raise NothingDoneError(options.predicted, "no pair could be compared", "", "see the lines above")
    found = figures([image for _, image in done], scores, classes, options, other) | {"failed": failures}
    faults = []
    if options.out is not None:  # first, because a reader of the tables may go away
        faults = write_report(options.out, found, done, meaning, options)
    for title, head, rows in all_tables(found, brief=True):
        console.table(title, head, rows)
    for entry in found["per_image"]:
        console.record(entry | {"status": "done"})
    console.record({part: found[part] for part in ("dataset", "mean_over_images")})
    if options.out is not None:
        console.result(options.out / "report.json")
    for fault in faults:
        console.say(f"{fault}; report.html is without its picture")
    for line in remarks(found, done, classes, options):
        console.say(line)
    if other is not None and "comparison" not in found:
        console.say(f"{options.compare}: has none of the images that could be compared")
    missed = missed_bars(found, options)
    for line in missed:
        console.say(line)
    console.say(f"done {len(done)}  failed {len(failures)}")
    return 1 if failures else MISSED if missed else 0


def _meaning(options: EvalOptions, pairs: list[Pair]) -> Meaning:
    """By the class table that is given, or that lies beside the truth, else by the masks."""
    if options.objects == "labels":
        return Meaning.of(LABEL_MAP)
    if options.is_numbered:  # a table beside the truth speaks of other masks than these
        return meaning_of_numbers(None if options.classes is None else read_classes(options.classes), pairs)
    folder = options.truth if options.truth is not None and options.truth.is_dir() else pairs[0].truth.parent
    return find_meaning(written_table(options.classes, folder), pairs)


def count_all(pairs: list[Pair], meaning: Meaning, options: EvalOptions) -> Generator[Counted | InputError, None, None]:
    """Each pair's counts, or what is wrong with it, in order; by several processes where it pays."""
    jobs = min(options.jobs or _useful_jobs(pairs), len(pairs))
    if jobs == 1:
        yield from map(partial(_attempt, meaning=meaning, options=options), pairs)
        return
    attempt = partial(_attempt_alone, meaning=meaning, options=options)
    context = multiprocessing.get_context("spawn")  # a fork would take locks of GDAL's threads with it
    before = multiprocessing.active_children()
    with ProcessPoolExecutor(jobs, context, _quiet_worker) as pool:
        try:
            yield from pool.map(attempt, pairs, chunksize=max(1, min(16, len(pairs) // (4 * jobs))))
        except BrokenProcessPool as error:
            raise NothingDoneError(
                options.predicted, "a process was ended by the system", "", "--jobs 1 needs less memory"
            ) from error
        except BaseException:  # Ctrl-C, SIGTERM: each would do a dozen pairs more
            pool.shutdown(wait=False, cancel_futures=True)
            _interrupt([process for process in multiprocessing.active_children() if process not in before])
            raise


def _interrupt(workers: list[BaseProcess]) -> None:
    """End what processes are at, and wait for them. They are not killed, or one that says what it found would be cut
    off in the middle, and who listens would wait for ever; but for one that does not hear for long."""
    deadline = time.monotonic() + DEAF_SECONDS
    while any(worker.is_alive() for worker in workers):
        for worker in workers:
            if time.monotonic() < deadline:
                worker.terminate()  # what is at work on a pair leaves it; others do not mind
            else:
                worker.kill()
        time.sleep(0.02)


def _attempt_alone(pair: Pair, meaning: Meaning, options: EvalOptions) -> Counted | InputError:
    """As `_attempt`, in a process that may be interrupted meanwhile."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _attempt(pair, meaning, options)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _attempt(pair: Pair, meaning: Meaning, options: EvalOptions) -> Counted | InputError:
    try:
        return compare(pair, meaning, options)
    except InputError as error:
        return error
    except Exception as error:  # one pair must not take the night's run with it
        if options.debug or isinstance(error, SegcliError):
            raise
        return InputError(pair.predicted, f"{type(error).__name__}: {error}", "", "run with --debug to see where")


def _quiet_worker() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the parent ends them
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)


def _end_with_parent() -> None:
    """When it is killed there is nobody to end this process, which would wait for ever with the parent's stdout open,
    and with it all that a pipeline has after it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _useful_jobs(pairs: list[Pair]) -> int:
    size = sum(pair.truth.stat().st_size for pair in pairs if pair.truth.exists())
    return cores() if len(pairs) >= MANY_PAIRS or size >= MANY_BYTES else 1


def figures(
    images: list[ImageCounts], scores: ScoreCounts, classes: ClassTable, options: EvalOptions,
    other: dict[str, Totals] | None,
) -> dict[str, Any]:  # fmt: skip
    """The report, with the parts that were asked for."""
    found = report(images, classes.names, options.absent, unpredicted=options.unpredicted)
    if found["pixels"] == 0:
        raise NothingDoneError(options.truth or options.predicted, "not one pixel has a true and a predicted class")
    if options.distances is not None:
        found["distance_unit"] = options.distances
    if options.scores is not None or scores.right.any() or scores.wrong.any():
        found["scores"] = of_scores(scores, classes.names)
    if options.group_by is not None:
        groups = [_group(options.group_by, image.name) for image in images]
        found["groups"] = by_group(images, classes.names, options.absent, groups)
    if other is not None:
        ours = {image.name: image.totals for image in images}
        if ours.keys() & other.keys():
            found["comparison"] = compared(ours, other, classes.names, options.absent, found["confidence"])
    return found


def _group(pattern: str, name: str) -> str:
    """What the pattern's first group finds in the name, or the whole of it; no find is a group of its own."""
    found = re.search(pattern, name)
    if found is None:
        return "(no group)"
    return found[1] or "" if found.re.groups else found[0]


def missed_bars(found: dict[str, Any], options: EvalOptions) -> list[str]:
    """A line for each bar that was asked for and is missed; a figure that is undefined misses."""
    bars = []
    if options.min_miou is not None:
        bars.append(("mIoU", found["dataset"]["mean_iou"]["value"], options.min_miou))
    of_class = {entry["class"]: entry["iou"]["value"] for entry in found["per_class"]}
    bars += [(f"IoU of {name}", of_class[name], bar) for name, bar in options.min_iou]
    return [
        f"{name} {'undefined' if value is None else _below(value, bar)} is under {bar}"
        for name, value, bar in bars
        if value is None or _is_missed(value, bar)
    ]


def _is_missed(value: float, bar: float) -> bool:
    """Whether a figure is lower: by more than the last bits of a sum over classes."""
    return value < bar and not math.isclose(value, bar, rel_tol=1e-12)


def _below(value: float, bar: float) -> str:
    """A missed figure in four digits, or as many as show that it is lower."""
    return next(text for digits in range(4, 18) if float(text := f"{value:.{digits}f}") < bar)
