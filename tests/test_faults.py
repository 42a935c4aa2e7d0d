"""Disks that are full, folders that are closed, files that come and go: one clear line, the right code, nothing half
written."""

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers import write_picture
from rasterio._err import CPLE_AppDefinedError
from ready import Ready

from segcli.errors import InputError
from segcli.raster.faults import faults_of_writing

Program = Callable[..., subprocess.CompletedProcess[str]]
LIMIT = 100_000


@pytest.fixture
def cramped(tmp_path: Path, ready: Ready) -> Program:
    """The program where no file can be larger than `LIMIT`, which libraries see as a disk that takes no more."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        process = ready.popen(
            arguments, tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT)),
        )  # fmt: skip
        said = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, *said)

    return run


@pytest.fixture
def noise(tmp_path: Path, rng: np.random.Generator) -> Path:
    for name in ("a", "b"):
        write_picture(tmp_path / "in" / f"{name}.png", rng.integers(0, 5, (600, 700), np.uint8))
    tifffile.imwrite(tmp_path / "in" / "t.tif", rng.integers(0, 5, (600, 700), np.uint8), tile=(128, 128))
    return tmp_path / "in"


@pytest.mark.parametrize(
    "command", ["colorize in/a.png", "colorize in/t.tif", "colorize in --palette-only", "tile in/t.tif --size 512",
                "predict in/t.tif --compress none --probabilities"]
)  # fmt: skip
def test_a_file_that_cannot_be_written_to_its_end(
    tmp_path: Path, noise: Path, cramped: Program, weights: Path, command: str
) -> None:
    verb, *rest = command.split()
    more = ("--weights", weights) if verb == "predict" else ()
    result = cramped(verb, *rest, "--out", "out", *more)
    assert result.returncode in (1, 3)  # 3 where it is known that no other file will do better
    ours = [line for line in result.stderr.splitlines() if line.startswith("segcli: ")]
    assert len(ours) == result.stderr.count("cannot be written") - result.stderr.count("\nfailed: ") >= 1
    for line in result.stderr.splitlines():  # and no words of libraries in between
        assert line.startswith(("segcli: out/", "failed: out/", "done ")) or "Mpx" in line or "tiles" in line
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in left if path.name.startswith(".")]
    assert all(path.suffix == ".jsonl" for path in left if path.stat().st_size > LIMIT // 2 or verb != "tile")


def test_a_folder_that_is_a_file(tmp_path: Path, noise: Path, segcli: Program, weights: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    for verb, more in (("colorize", ()), ("predict", ("--weights", weights))):
        result = segcli(verb, "in", "--out", "taken/out", *more)
        assert result.returncode == 3
        assert result.stderr.count("segcli: ") == 1
        assert "Not a directory" in result.stderr
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_what_is_forbidden(tmp_path: Path, noise: Path, segcli: Program) -> None:
    (noise / "a.png").chmod(0)
    result = segcli("colorize", "in", "--out", "out")
    assert result.returncode == 1
    assert "in/a.png: Permission denied" in result.stderr
    (tmp_path / "closed").mkdir(mode=0o500)
    result = segcli("colorize", "in", "--out", "closed")
    assert result.returncode == 3
    assert "closed/segcli.jsonl: cannot be opened: Permission denied" in result.stderr


def test_a_source_that_has_gone(tmp_path: Path, noise: Path, segcli: Program) -> None:
    result = segcli("colorize", "in/a.png", "in/gone.png", "in/b.png", "--out", "out")
    assert result.returncode == 1
    assert "segcli: in/gone.png: no such file" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png", "b.png"]


def test_a_source_that_goes_while_others_are_done(tmp_path: Path, ready: Ready) -> None:
    """It was there when the run was planned."""
    for n in range(300):
        write_picture(tmp_path / "many" / f"{n:03}.png", np.full((64, 64), n % 5, np.uint8))
    last = tmp_path / "many" / "299.png"
    process = ready.popen(
        ("colorize", "many", "--out", "out"), tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (tmp_path / "out" / "000.png").exists():
        time.sleep(0.005)
    last.unlink()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    first = next(line for line in said.splitlines() if line.startswith("segcli: "))  # on a slow machine after progress
    assert first.startswith("segcli: many/299.png: ")
    assert len(list((tmp_path / "out").glob("*.png"))) == 299


def test_masks_on_another_file_system(tmp_path: Path, noise: Path, segcli: Program) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev or not os.access(elsewhere, os.W_OK):
        pytest.skip("no other file system")
    out = elsewhere / f"segcli-{os.getpid()}"
    try:
        assert segcli("colorize", "in", "--out", out).returncode == 0
        assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png", "segcli.jsonl", "t.tif"]
    finally:
        shutil.rmtree(out, ignore_errors=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("command", ["colorize in --out out", "colorize in --out out --json", "eval in in --out out"])
def test_a_log_of_results_that_takes_no_more(tmp_path: Path, noise: Path, command: str) -> None:
    if command.startswith("colorize"):
        (noise / "0.png").write_bytes(b"broken")  # comes first
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "segcli", *command.split()], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE,
            text=True, timeout=300, check=False,
        )  # fmt: skip
    assert result.returncode == 3
    assert "segcli: standard output: No space left on device; files that are done stay\n" in result.stderr
    assert "fault" not in result.stderr
    if command.startswith("colorize"):
        of_json = "done 0  up to date 0  failed 1  left 3"  # the line that says that the first one failed is lost, too
        counts = of_json if "--json" in command else "done 1  up to date 0  failed 1  left 2"
        assert counts in result.stderr.splitlines()
        assert "failed: in/0.png" in result.stderr or "--json" in command
        return
    done = [path for path in (tmp_path / "out").iterdir() if path.suffix != ".jsonl"]
    assert done
    assert not [path for path in done if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("more", "code"),
    [("2>&-", 1), (">&-", 1), ("<&- >&- 2>&-", 1), ("2>/dev/full", 1), ("--quiet 2>/dev/full", 1), ("--none 2>&-", 2)],
)
def test_streams_that_are_closed_or_full_stop_nothing(tmp_path: Path, more: str, code: int) -> None:
    """A cron job may have none; the work is worth more than what is said of it, and the exit code stays."""
    for name in "ab":
        write_picture(tmp_path / "masks" / f"{name}.png", np.ones((9, 9), np.uint8))
    (tmp_path / "masks" / "c.png").write_bytes(b"broken")
    command = f"{sys.executable} -m segcli colorize masks --out out {more}"
    result = subprocess.run(["bash", "-c", command], cwd=tmp_path, check=False, timeout=60)
    assert result.returncode == code
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == (["a.png", "b.png"] if code == 1 else [])


def test_names_that_are_no_text_go_through_as_they_are(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.pgm"
    with open(name, "wb") as file:  # noqa: PTH123
        file.write(b"P2\n2 2\n255\n1 2 3 1\n")
    command = [sys.executable, "-m", "segcli", "colorize", name, "--out", "out"]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=60, env=strict)
    assert (result.returncode, result.stdout) == (0, b"out/caf\xe9.png\n")


def test_what_gdal_raises_itself_is_said_of_the_file(tmp_path: Path) -> None:
    """rasterio's copying gives its errors as they are, which are none of rasterio's own."""
    said = pytest.raises(InputError, match=r"a\.tif: cannot be written: TIFFWriteDirectory")
    with said, faults_of_writing(tmp_path / "a.tif"):
        raise CPLE_AppDefinedError(3, 1, "TIFFWriteDirectory")
