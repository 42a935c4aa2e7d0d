"""What a run may take: memory, whatever the image's size and however many files there are."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers import random_model, write_picture

from segcli.network import checkpoint
from segcli.options import Skip

MEASURED = """
import re, sys
from segcli.cli import main
try:
    main()
finally:  # as Linux counts it for this program alone; getrusage begins with what its parent held
    status = open("/proc/self/status").read()
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024, file=sys.stderr)
"""


HOLES = """
import sys, torch
torch.ones(2**22)  # freed, it lets glibc map only what is larger
from segcli.network.device import keep_freed_memory, map_large_blocks
if sys.argv[1] == "mapped":
    map_large_blocks()
else:
    keep_freed_memory()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
large, small = [], []
before = resident()
for _ in range(100):
    large.append(torch.ones(2**18))
    small.append(torch.ones(2**10))  # keeps what lies below it from being cut off
held = resident() - before
large.clear()
print(held, resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
@pytest.mark.parametrize(("how", "left"), [("mapped", 0.1), ("kept", 1.05)])
def test_what_a_start_frees_leaves_no_holes(how: str, left: float) -> None:
    """100 MB between blocks that stay: the system's again when freed, and the heap's once freed memory is kept."""
    found = subprocess.run([sys.executable, "-c", HOLES, how], capture_output=True, text=True, check=True)
    held, after = map(int, found.stdout.split())
    assert held >= 100e6
    assert left - 0.15 <= after / held <= left


def peak_of(folder: Path, *arguments: object) -> int:
    """The most bytes that the program has held."""
    result = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=300,
        check=True,
    )  # fmt: skip
    return int(result.stderr.splitlines()[-1])


@pytest.mark.parametrize(("skip", "depth"), [("concat", 3), ("none", 4)])
def test_memory_is_what_was_asked_for(tmp_path: Path, skip: Skip, depth: int) -> None:
    """Beside the program itself: what a tiny image takes. Without a limit it would be more than that."""
    checkpoint.save(random_model(width=32, depth=depth, skip=skip), tmp_path / "w.safetensors")
    write_picture(tmp_path / "tiny.png", np.zeros((32, 32, 3), np.uint8))
    noise = np.random.default_rng(0).integers(0, 255, (40, 8192, 3), np.uint8)
    tifffile.imwrite(tmp_path / "wide.tif", noise, photometric="rgb", tile=(256, 256))
    options = ("--weights", "w.safetensors", "--device", "cpu", "--overwrite")
    program = peak_of(tmp_path, "predict", "tiny.png", "--out", "out", *options)

    def beside(memory: str) -> float:
        return (peak_of(tmp_path, "predict", "wide.tif", "--out", "out", "--memory", memory, *options) - program) / 1e6

    assert beside("120MB") <= 1.2 * 120
    assert skip == "none" or 1.2 * 120 < beside("2GB") < 2000


@pytest.mark.parametrize("verb", ["colorize", "predict"])
def test_many_files_take_no_more_memory_than_few(tmp_path: Path, weights: Path, verb: str) -> None:
    """A few kilobytes each, to remember them by."""
    for n in range(400):
        write_picture(tmp_path / "many" / f"{n}.png", np.full((16, 16), n % 5, np.uint8))
        if n < 100:
            write_picture(tmp_path / "few" / f"{n}.png", np.full((16, 16), n % 5, np.uint8))
    more = ("--weights", weights, "--memory", "100MB") if verb == "predict" else ()
    few, many = (peak_of(tmp_path, verb, name, "--out", f"out_{name}", *more) for name in ("few", "many"))
    assert many - few < 9e6
    assert len(list((tmp_path / "out_many").glob("*.png"))) == 400
