"""segcli tile: rasters to tiles, and tiles back to rasters."""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock

import cv2

from segcli import batch, forecast, manifest
from segcli.console import Console, Progress
from segcli.counts import Report
from segcli.errors import InputError, UsageError, some
from segcli.files import destination, replacing
from segcli.joined import not_tiles, places, spare_sources
from segcli.machine import cores
from segcli.options import TileOptions
from segcli.raster.exact import create_exact, not_kept
from segcli.raster.faults import faults_of_writing
from segcli.tiling import joining, planning
from segcli.tiling.cutting import Work, cut, encode, pieces
from segcli.tiling.finding import find_manifest
from segcli.tiling.labelling import Labels, labelled
from segcli.tiling.ledger import Ledger
from segcli.tiling.manifest import CLASSES, Record
from segcli.tiling.planning import Target
from segcli.tiling.splits import SPLITS

PROBES = 4
"""Tiles of a raster that --dry-run encodes, to tell how large all will be and how long they will take."""

OF_CUTTING, OF_JOINING = ("masks", "split", "sample", "shard", "verify", "dry_run"), ("manifest",)
"""Options that have a part in one of both alone, and whoever gives them to the other expects something. How tiles are
cut and joined may stand in one file of options for both."""


def run(options: TileOptions, console: Console) -> int:
    """Cut every raster, or join every folder of tiles, and return the exit code."""
    check(options)
    cv2.setNumThreads(1)  # tiles are what is done at once
    return join(options, console) if options.join else cut_all(options, console)


def check(options: TileOptions) -> None:
    """UsageError where options do not go together."""
    is_whole = options.overlap < 1 or options.overlap == options.overlap_pixels
    if not (0 <= options.overlap_pixels < options.size and is_whole):
        raise UsageError(
            "--overlap", f"found {options.overlap:g}", f"expected 0 to {options.size - 1} pixels, or a share"
        )
    if options.shard is not None and options.overwrite and options.out is not None:
        raise UsageError("--overwrite", "given with --shard", "expected one of them: others may be at work there",
                         "start over by one run with --overwrite, or choose another --out")  # fmt: skip
    for name in OF_CUTTING if options.join else OF_JOINING:
        if getattr(options, name) != getattr(TileOptions, name):
            raise UsageError(
                f"--{name.replace('_', '-')}", "given with --join" if options.join else "given without --join"
            )
    if options.join and options.out is None:
        raise UsageError("--join", "given without --out", "expected a file, or a folder, for what comes of it")
    if options.masks is None and (options.attribute or options.classes or options.min_label):
        raise UsageError("--attribute, --classes and --min-label", "given without --masks", "expected labels, too")


def cut_all(options: TileOptions, console: Console) -> int:
    """Every raster to tiles; a bad one is named and the others are done."""
    targets = planning.find_targets(options)
    labels = planning.labels_of(targets, options)
    ledgers = planning.open_ledgers(targets, labels, options)
    targets = planning.dealt(targets, ledgers, options, console)
    if options.verify:
        states = ((target.source, target.source, target.folder, planning.why(target, ledgers[target.folder], labels))
                  for target in planning.shared_out(targets, options.shard))  # fmt: skip
        return forecast.tell_states(states, console)
    if options.dry_run:
        return show_plan(targets, labels, ledgers, options, console)
    with ExitStack() as accounts:
        for ledger in ledgers.values():
            accounts.callback(ledger.rest)
        return write_tiles(targets, labels, ledgers, options, console)


def write_tiles(
    targets: list[Target], labels: Labels | None, ledgers: dict[Path, Ledger], options: TileOptions, console: Console
) -> int:
    """The tiles that are missing, of one raster after the other, and an account of them in each folder."""
    everything, targets = targets, planning.shared_out(targets, options.shard)
    if options.out is not None:
        hold(ledgers[options.out], labels, options)
    chosen = planning.sample(everything, labels, options, console)
    by_source = {target.source: target for target in targets}
    alone = Lock()  # GDAL writes masks while no other thread is at work, and the next raster is tried out for its own

    def prepare(job: batch.Job) -> Work:
        with alone:
            work = planning.open_work(by_source[job.source], labels, options)
        try:
            with alone:
                for line in planning.losses(work):
                    console.remark(line)
            if not ledgers[job.output].is_held:
                hold(ledgers[job.output], labels, options)
            if chosen is not None:
                if isinstance(sampled := chosen[job.source], InputError):
                    raise sampled
                work = replace(work, chosen=sampled)
            work = planning.make_room(work, ledgers[job.output], options.overwrite)
            if options.overwrite:  # else it is there since the folder is held
                write_classes(job.output, labels, options)
            return work
        except BaseException:
            planning.close(work)
            raise

    with console.progress(len(targets)) as progress:

        def cut_one(group: list[tuple[batch.Job, Work]]) -> None:
            for job, work in group:
                try:
                    with alone:
                        cut(work, ledgers[job.output], threads(options), counted(progress, len(work.tiles.places)))
                except MemoryError as error:
                    raise InputError(job.source, "out of memory", "", "free some, or give a smaller --size") from error
                finally:
                    planning.close(work)

        def finish(job: batch.Job, work: Work) -> list[Path]:
            planning.check_unchanged(work, job.source, labels)
            ledgers[job.output].finish(work.scene)
            if options.out is not None:
                return []
            ledgers[job.output].close()
            return [ledgers[job.output].account]

        jobs = [batch.Job(target.source, target.folder) for target in targets]
        steps = batch.Steps(prepare, lambda work: (id(work), 1), cut_one, finish)
        report = batch.run(jobs, steps, console, debug=options.debug, on_error=options.on_error, progress=progress)
    for ledger in ledgers.values():
        ledger.close()
        if options.out is not None and report.done:
            console.result(ledger.account)
    scenes = [ledgers[target.folder].known.scenes.get(target.name) for target in targets]
    records = [record for scene in scenes if scene is not None for record in scene.records.values()]
    console.say(summary(records, options.split or ()))
    if (
        labels is not None
        and records
        and not any(labelled(dict(record.pixels or {}), labels.unlabelled) for record in records)
    ):
        console.say(f"{options.masks}: nothing but background in any tile")
    console.say(f"{progress.megapixels:.2f} Mpx at {progress.speed()}")
    report.tell(console)
    return report.exit_code


def hold(ledger: Ledger, labels: Labels | None, options: TileOptions) -> None:
    """Make a folder this run's own, before anything is written there. What --overwrite is to replace stays until there
    is something to put in its place."""
    ledger.hold()
    if options.overwrite:
        ledger.keep_inputs()
    else:
        write_classes(ledger.folder, labels, options)


def threads(options: TileOptions) -> int:
    return options.jobs or cores()


def counted(progress: Progress, tiles: int) -> Callable[[int, int], None]:
    """Tells the progress of one raster of so many tiles."""
    return lambda done, pixels: progress.advance(done / tiles, pixels)


def write_classes(folder: Path, labels: Labels | None, options: TileOptions) -> None:
    """The class table beside images/ and masks/, where train looks for it. UsageError where another one is there."""
    if labels is None or labels.classes is None:
        return
    path, text = folder / CLASSES, json.dumps(labels.classes.to_json(), indent=1) + "\n"

    def found() -> str | None:
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None

    is_given = options.classes is not None and path.exists() and path.samefile(options.classes)
    if is_given or found() == text:
        return
    if found() is not None and not options.overwrite:
        raise UsageError(path, "another class table", "", "choose another --out or give --overwrite")
    try:
        with replacing(path, faults_of_writing) as part, faults_of_writing(path):
            part.write_text(text, encoding="utf-8")
    except InputError:  # a run that does another part of the work may have been at it
        if found() != text:
            raise


def summary(records: Sequence[Record], shares: Sequence[float]) -> str:
    """How many tiles there are, by split, and how many are left out for which reason."""
    splits = Counter(record.split for record in records if record.name is not None)
    reasons = Counter(record.why for record in records if record.name is None)
    parts = [f"tiles {splits.total()}"]
    parts += [f"{split} {splits[split]}" for split, _ in zip(SPLITS, shares, strict=False)]
    if reasons:
        listed = ", ".join(f"{count} {why}" for why, count in reasons.most_common())
        parts.append(f"left out {reasons.total()} ({listed})")
    return "  ".join(parts)


def show_plan(
    targets: list[Target], labels: Labels | None, ledgers: dict[Path, Ledger], options: TileOptions, console: Console
) -> int:
    """What a run would write, from a few tiles of each raster; nothing is written but to a scratch folder."""
    targets = planning.shared_out(targets, options.shard)
    rows, report, total = [], Report(len(targets)), [0, 0.0, 0.0]
    for target in targets:
        ledger = ledgers[target.folder]
        why = "--overwrite" if options.overwrite else planning.why(target, ledger, labels)
        if why is None:
            report.up_to_date += 1
            console.record({"source": str(target.source), "status": "up to date", "outputs": [str(target.folder)]})
            continue
        try:
            with planning.opened(target, labels, options) as work:
                planning.may_begin(work, work.names(), ledger, options.overwrite)
                for line in planning.losses(work):
                    console.remark(line)
                found = estimate(work, threads(options))
        except InputError as error:
            report.failures.append(str(error))
            console.fail(error)
            console.record({"source": str(target.source), "status": "would fail", "reason": str(error)})
            continue
        report.done += 1
        grid, plan = work.scene.grid, work.plan().values()
        left_out = sum(bool(record.why) for record in plan)
        size = f"{grid.width} x {grid.height}"
        console.record({"source": str(target.source), "status": "to do", "outputs": [str(target.folder)],
                        "pixels": grid.width * grid.height, "tiles": found[0], "left_out": left_out,
                        "bytes": round(found[1]), "seconds": round(found[2], 3)})  # fmt: skip
        rows.append(
            [str(target.source), size, str(found[0]), str(left_out), f"{found[1] / 1e6:.1f}", f"{found[2]:.1f}"]
        )
        total = [one + other for one, other in zip(total, found, strict=True)]
    if rows:
        console.table("Plan", ["raster", "pixels", "tiles", "left out", "about MB", "about s"], rows)
    least = "" if not (options.min_valid or options.min_label) else "at most "
    tiles = int(total[0]) if options.sample is None else min(options.sample, int(total[0]))
    share = tiles / total[0] if total[0] else 0
    console.say(
        f"{least}{tiles} tiles, about {share * total[1] / 1e6:.1f} MB and {share * total[2]:.1f} s; not written"
    )
    console.count_remarks()
    console.say(f"to do {len(rows)}  up to date {report.up_to_date}  would fail {len(report.failures)}")
    return report.exit_code


def estimate(work: Work, jobs: int) -> tuple[int, float, float]:
    """How many tiles, bytes and seconds, from the middle row of tiles and a few tiles of it."""
    planned = {place: record for place, record in work.plan().items() if not record.why}
    if not planned:
        return 0, 0.0, 0.0
    rows = sorted({n for n, _ in planned})
    middle = [place for place in planned if place[0] == rows[len(rows) // 2]]
    probes = {place: planned[place] for place in middle[:: max(1, len(middle) // PROBES)][:PROBES]}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, closing(pieces(work, work.layers, probes)) as found:
        parts = list(found)
        read = time.monotonic() - began
        size = 0
        for piece in parts:
            paths = [Path(folder) / f"{n}{work.rules.ending}" for n in range(len(work.layers))]
            size += sum(encode(piece, work, paths, paths))
    spent = time.monotonic() - began - read
    each = len(planned) / len(probes)
    # Reading is one thread more, as long as there are cores.
    at_once = min(jobs + 1, cores())
    return len(planned), each * size, (read * len(work.tiles.rows) + spent * each) / at_once


def join(options: TileOptions, console: Console) -> int:
    """Every folder of tiles to rasters; folders of one manifest hold tiles of the same ones."""
    groups: dict[Path, list[Path]] = {}
    for folder in map(Path, options.inputs):
        groups.setdefault(find_manifest(folder, options.manifest), []).append(folder)
    without = partial(not_tiles, options)
    found = [job for path, folders in groups.items()
             for job in joining.find_jobs(folders, path, options.merge, options.allow_missing, without)]  # fmt: skip
    folder, jobs = places(found, options)
    spare_sources(folder, jobs, options)

    alone = Lock()  # as in write_tiles

    def prepare(job: batch.Job) -> joining.Job:
        work = jobs[job]
        if isinstance(work, InputError):
            raise work
        with alone:
            said = list(joining.said_of(work, job.output))
            words = not_kept(job.output, work.scene.grid, work.like, job.output.suffix.lower(), in_rows=True)
        for line in said:
            console.remark(line)
        if words:
            console.remark(f"{job.output}: cannot keep {'; '.join(words)}")
        return work

    with (
        manifest.opened(folder, "tile", options, alone=folder == options.out) as record,
        console.progress(len(jobs)) as progress,
    ):

        def join_one(group: list[tuple[batch.Job, joining.Job]]) -> None:
            for job, work in group:
                with alone, create_exact(job.output, work.scene.grid, work.like, options.compress.upper()) as sink:
                    elsewhere = joining.join(work, sink, threads(options), progress.advance)
                if elsewhere:
                    named = f"{len(elsewhere)} files say that they lie elsewhere on earth than their tiles"
                    console.say(f"{destination(job.output)}: {named}: {some(elsewhere)}")

        def finish(job: batch.Job, _: joining.Job) -> list[Path]:
            return [job.output]

        steps = batch.Steps(prepare, lambda work: (id(work), 1), join_one, finish)
        report = batch.run(
            list(jobs), steps, console, record, options.overwrite, options.debug, options.on_error, progress=progress
        )
    console.say(f"{progress.megapixels:.2f} Mpx at {progress.speed()}")
    report.tell(console)
    return report.exit_code
