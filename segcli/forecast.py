"""What a run would do, said and not done: --dry-run and --verify."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from segcli.batch import Job, due
from segcli.console import Console
from segcli.errors import InputError, SegcliError
from segcli.manifest import Manifest
from segcli.raster.names import Name


@dataclass(frozen=True)
class Cost:
    """Of one file, by estimate: its pixels, the pieces it goes in, seconds, and bytes at the peak."""

    pixels: int
    pieces: int
    seconds: float
    peak_bytes: float

    def __str__(self) -> str:
        pieces = f"{self.pieces} pieces, " if self.pieces > 1 else ""
        return f"{self.pixels / 1e6:.2f} Mpx, {pieces}about {duration(self.seconds)}, {self.peak_bytes / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    """As people say it."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def rehearse(
    jobs: Sequence[Job], manifest: Manifest, overwrite: bool, look: Callable[[Job], Cost], console: Console
) -> int:
    """Say of each file what would become of it and what that costs; gives the exit code. Files are opened, not read."""
    costs, up_to_date, failed = [], 0, 0
    for job in jobs:
        try:
            why = due(job, manifest, overwrite)
            if why is None:
                up_to_date += 1
                console.detail(f"{job.output}: up to date")
                console.record({"source": str(job.source), "status": "up to date", "outputs": [str(job.output)]})
                continue
            cost = look(job)
        except SegcliError as error:
            failed += 1
            console.fail(error)
            console.record({"source": str(job.source), "status": "would fail", "reason": str(error)})
            continue
        costs.append(cost)
        console.answer(f"{job.output}: {why}, {cost}")
        console.record({"source": str(job.source), "status": "to do", "outputs": [str(job.output)], "why": why,
                        "pixels": cost.pixels, "pieces": cost.pieces, "seconds": round(cost.seconds, 3),
                        "bytes": round(cost.peak_bytes)})  # fmt: skip
    pixels, seconds = sum(cost.pixels for cost in costs), sum(cost.seconds for cost in costs)
    if costs:
        peak = max(cost.peak_bytes for cost in costs)
        console.say(
            f"{pixels / 1e6:.2f} Mpx, about {duration(seconds)}, at the peak {peak / 1e6:.0f} MB; nothing was done"
        )
    console.count_remarks()
    console.say(f"to do {len(costs)}  up to date {up_to_date}  would fail {failed}")
    return 1 if failed else 0


def verify(jobs: Sequence[Job], manifest: Manifest, console: Console) -> int:
    """Name what is missing or stale by the records of all runs in the folder; gives the exit code, 1 if anything is."""
    return tell_states(((job.output, job.source, job.output, _state(job, manifest)) for job in jobs), console)


def _state(job: Job, manifest: Manifest) -> str | None:
    """Why a job is to be done, or why it cannot be; None if it is up to date."""
    try:
        return due(job, manifest, overwrite=False)
    except InputError as error:
        return error.reason if error.subject in map(str, (job.source, job.output)) else str(error)


def tell_states(states: Iterable[tuple[object, Name, Path, str | None]], console: Console) -> int:
    """Of each job what it is to be called by, its source, its output, and why that is to be made, None if it is up to
    date; gives the exit code."""
    up_to_date = bad = 0
    for subject, source, output, why in states:
        if why is None:
            up_to_date += 1
        else:
            bad += 1
            console.answer(f"{subject}: {why}")
        console.record({"source": str(source), "status": why or "up to date", "outputs": [str(output)]})
    console.say(f"up to date {up_to_date}  missing or stale {bad}")
    return 1 if bad else 0


def seconds_per_pixel(work: Callable[[np.ndarray], None], bands: int, dtype: str, side: int) -> float:
    """How long `work` takes with a noisy image (band, row, col), by the pixel: the second of two goes."""
    pixels = np.random.default_rng(0).integers(0, 255, (bands, side, side)).astype(dtype)
    work(pixels)
    began = perf_counter()
    work(pixels)
    return (perf_counter() - began) / side**2


TRIAL = 512
"""Side of the image that tells how fast this machine is."""
