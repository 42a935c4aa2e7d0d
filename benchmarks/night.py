"""Many small files: how long until the first is done, what each costs, and how memory grows with their number.

    python benchmarks/night.py --counts 10000 100000 [--verb colorize]

Masks of 32 x 32 pixels in one folder. A second run finds all of them up to date.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np


def fill(folder: Path, count: int) -> None:
    """So many files with other names and the same contents."""
    folder.mkdir()
    done, data = cv2.imencode(".png", np.random.default_rng(0).integers(0, 5, (32, 32), np.uint8))
    assert done
    for n in range(count):
        (folder / f"{n:07}.png").write_bytes(data.tobytes())


def run(folder: Path, more: list[str]) -> tuple[float, float, int]:
    """Seconds to the first line on stdout (or to the end), seconds in all, peak of the memory in bytes."""
    began = time.perf_counter()
    program = [sys.executable, "-c", MEASURED, *more, "--out", "out"]
    process = subprocess.Popen(program, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    first = time.perf_counter() - began
    _, said = process.communicate()
    return first, time.perf_counter() - began, int(said.splitlines()[-1])


MEASURED = """
import re, sys
from segcli.cli import main
try:
    main()
finally:  # as Linux counts it for this program alone; getrusage begins with what its parent held
    status = open("/proc/self/status").read()
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024, file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--arguments", nargs="+", default=["colorize", "masks"])
    chosen = parser.parse_args()
    heads = ("files", "first after s", "s per 10 000", "ms a file", "peak MB", "again s", "MB")
    print("".join(f"{head:>15}" for head in heads))
    start = None
    for count in [1, *chosen.counts]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            fill(folder / "masks", count)
            first, whole, peak = run(folder, chosen.arguments)
            again = run(folder, chosen.arguments)
        start = first if start is None else start
        pause, each = (first - start) / count * 10_000 if count > 1 else 0.0, (whole - first) / count * 1000
        row = (f"{count}", f"{first:.2f}", f"{pause:.2f}", f"{each:.2f}", f"{peak / 1e6:.0f}")
        print("".join(f"{cell:>15}" for cell in (*row, f"{again[1]:.2f}", f"{again[2] / 1e6:.0f}")), flush=True)


if __name__ == "__main__":
    main()
