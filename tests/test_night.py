"""A night's batch: what is stopped, killed and begun again ends as if nothing had been."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import write_picture
from PIL import Image
from ready import Ready

from segcli.manifest import opened
from segcli.options import ColorizeOptions

Program = Callable[..., subprocess.CompletedProcess[str]]
KILLS = 50


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the record, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "segcli.jsonl")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def masks(folder: Path, count: int, size: int) -> None:
    rng = np.random.default_rng(0)
    for n in range(count):
        small = rng.integers(0, 5, (size // 8, size // 8)).astype(np.uint8)
        write_picture(folder / f"{n:03}.png", small.repeat(8, 0).repeat(8, 1))


def test_kills_at_any_moment_leave_what_an_unbroken_run_leaves(tmp_path: Path, segcli: Program, ready: Ready) -> None:
    """Fifty SIGKILLs, each followed by a run that goes on; between them some outputs are lost."""
    masks(tmp_path / "masks", 40, 256)
    chance = random.Random(0)
    arguments = ("colorize", "masks", "--legend", "file", "--out")
    assert segcli(*arguments, "unbroken").returncode == 0
    wanted = contents(tmp_path / "unbroken")
    assert len(wanted) == 80
    began = time.monotonic()
    assert segcli("--version").returncode == 0
    start = time.monotonic() - began
    killed_at_work = 0
    for _ in range(KILLS):
        with Path(os.devnull).open("r+b") as nowhere:
            process = ready.start((*arguments, "out"), tmp_path, nowhere.fileno(), nowhere.fileno())
        time.sleep(start + chance.uniform(0.02, 0.25))
        process.kill()
        process.wait()
        there = contents(tmp_path / "out") if (tmp_path / "out").exists() else {}
        hidden = {name for name in there if any(part.startswith(".") for part in Path(name).parts)}
        assert all(there[name] == wanted[name] for name in there.keys() - hidden)
        killed_at_work += len(there) - len(hidden) < len(wanted)
        whole = sorted(there.keys() - hidden)
        for name in chance.sample(whole, len(whole) // 3):
            (tmp_path / "out" / name).unlink(missing_ok=True)
    assert killed_at_work > KILLS / 3
    result = segcli(*arguments, "out")
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "out") == wanted
    result = segcli(*arguments, "out")
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr.splitlines()[-1] == "done 0  up to date 40  failed 0"


@pytest.mark.parametrize(("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"),
                                                      (signal.SIGTERM, 143, "ended by SIGTERM")])  # fmt: skip
@pytest.mark.parametrize("verb", ["predict", "colorize"])
def test_a_signal_drops_the_running_file_and_keeps_the_finished(
    tmp_path: Path, segcli: Program, ready: Ready, weights: Path, verb: str, number: int, code: int, word: str
) -> None:
    count = 40 if verb == "predict" else 60
    masks(tmp_path / "in", count, 384 if verb == "predict" else 1024)
    more = ["--weights", weights] if verb == "predict" else []
    process = ready.popen(
        (verb, "in", "--out", "out", *more), tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    first = process.stdout.readline().strip()  # one is done; others are on their way
    assert first.startswith("out/")
    process.send_signal(number)
    rest, said = process.communicate(timeout=60)
    assert (process.returncode, word in said.splitlines()[-1]) == (code, True), said
    there = contents(tmp_path / "out")
    assert set(rest.split()) | {first} <= {f"out/{name}" for name in there}
    assert 0 < len(there) < count
    assert not [name for name in there if name.startswith(".")]
    for name in there:
        Image.open(tmp_path / "out" / name).load()
    result = segcli(verb, "in", "--out", "out", *more)
    assert result.returncode == 0, result.stderr
    assert len(contents(tmp_path / "out")) == count
    known = int(result.stderr.splitlines()[-1].split("up to date ")[1].split()[0])
    # What was whole, but not yet in the record, is done again: at most what is drawn at once.
    assert len(there) - (os.cpu_count() or 1) <= known <= len(there)


def test_only_what_is_missing_or_stale_is_done(tmp_path: Path, segcli: Program, weights: Path) -> None:
    masks(tmp_path / "scans", 4, 64)
    arguments = ("predict", "scans", "--out", "out", "--weights", weights)
    assert segcli(*arguments).returncode == 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    (tmp_path / "out" / "000.png").unlink()
    write_picture(tmp_path / "scans" / "001.png", np.full((64, 64), 9, np.uint8))
    result = segcli(*arguments)
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.split()) == ["out/000.png", "out/001.png"]
    assert result.stderr.splitlines()[-1] == "done 2  up to date 2  failed 0"
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    assert [name for name in sorted(after) if after[name] != before[name]] == ["000.png", "001.png"]
    result = segcli(*arguments, "--confidence")  # other options
    assert result.stderr.splitlines()[-1] == "done 4  up to date 0  failed 0"
    result = segcli(*arguments, "--confidence", "--overwrite")
    assert result.stderr.splitlines()[-1] == "done 4  up to date 0  failed 0"
    (tmp_path / "scans" / "002.png").write_bytes(b"broken")
    result = segcli(*arguments, "--confidence")
    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, "done 0  up to date 3  failed 1")
    last = json.loads((tmp_path / "out" / "segcli.jsonl").read_text().splitlines()[-1])
    assert (last["failed"], Path(last["source"]).name) == ("002.png", "002.png")


def test_two_runs_on_one_folder_at_once(tmp_path: Path, segcli: Program, weights: Path) -> None:
    masks(tmp_path / "scans", 2, 64)
    arguments = ("predict", "scans", "--out", "out", "--weights", weights)
    with opened(tmp_path / "out", "predict", ColorizeOptions((), tmp_path / "out")):  # as the other run holds it
        result = segcli(*arguments)
        assert result.returncode == 5
        assert result.stderr.splitlines()[-1].startswith("segcli: out: another run of segcli writes there; ")
        # One file with a name of its own may go into a folder where others are written.
        assert segcli("predict", "scans/000.png", "--out", "out/mine.png", "--weights", weights).returncode == 0
    assert segcli(*arguments).returncode == 0


@pytest.mark.parametrize("interrupts", [1, 2])
def test_ctrl_c_does_not_wait_for_the_highest_value_of_a_scene(tmp_path: Path, weights: Path, interrupts: int) -> None:
    """Of 16 bits: it is found in one pass over the file, ahead in a thread."""
    write_picture(tmp_path / "a.tif", np.zeros((16_000, 1200), np.uint16))
    program = (
        "import sys, time; from segcli.raster import source; from segcli.cli import main\n"
        "strips = source.Source.strips\n"
        "def slow(*given):\n"
        "    for strip in strips(*given):\n"
        "        print('at it', flush=True); time.sleep(0.5); yield strip\n"
        "source.Source.strips = slow\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "predict", "a.tif", "--out", "out", "--weights", str(weights)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "at it\n"
    for _ in range(interrupts):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    seen, said = process.communicate(timeout=60)
    assert (process.returncode, said.splitlines()[-1]) == (130, "segcli: interrupted"), said
    assert len(seen.splitlines()) < 10  # of 63
