"""How it behaves in the hands of a shell, a scheduler and a script: names, variables, signals, limits."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import write_picture

from segcli.files import held
from segcli.inputs import named
from segcli.matching import match
from segcli.raster.names import rasters_in
from segcli.training.interrupts import noticed

Refused = Callable[..., str]


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Two masks."""
    for name in ("a", "b"):
        write_picture(tmp_path / "masks" / f"{name}.png", np.array([[0, 1, 2]], np.uint8).repeat(9, 0))
    return tmp_path / "masks"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["colorize", "masks", "--out", ""], "--out"),
        (["colorize", "masks", "--out="], "--out"),
        (["colorize", "masks", "-qo", ""], "--out"),
        (["colorize", "masks", "", "--out", "out"], "MASK..."),
        (["predict", "", "--out", "out"], "INPUT..."),
        (["eval", "masks", ""], "TRUTH"),
        (["eval", "masks", "masks", "--out", ""], "--out"),
        (["train", ""], "DATA"),
        (["train", "data", "--out", ""], "--out"),
        (["tile", "masks", "--out", ""], "--out"),
        (["tile", "masks", "--masks", ""], "--masks"),
    ],
)
def test_an_empty_name_is_not_the_current_folder(
    masks: Path, refused: Refused, arguments: list[str], named: str
) -> None:
    """As `--out "$OUT"` has it where OUT is not set."""
    before = sorted(masks.parent.rglob("*"))
    assert refused(*arguments).startswith(f"segcli: {named}: an empty text; expected a value; ")
    assert sorted(masks.parent.rglob("*")) == before


def test_an_empty_name_in_a_file_or_the_environment(
    masks: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("night.toml").write_text('[colorize]\nout = ""\n')
    assert "night.toml: out: an empty text" in refused("colorize", "masks", "--config", "night.toml")
    monkeypatch.setenv("SEGCLI_COLORIZE_OUT", "")  # as shells count it: not set
    assert "Missing option '--out'" in refused("colorize", "masks")


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("masks/a.png", "a name that ends in .png"),
        ("out/segcli.jsonl", "a name that ends in .jsonl"),
        ("table", "table is read, too"),
        ("data", "data is no text"),
    ],
)
def test_a_log_does_not_go_into_data(masks: Path, refused: Refused, log: str, said: str) -> None:
    Path("table").write_text("0 a\n1 b\n2 c\n")
    Path("data").write_bytes(b"BM\0\0")
    before = {path: path.read_bytes() for path in masks.parent.rglob("*") if path.is_file()}
    options = ["--out", "out", "--palette", "table", "--log-file", log]
    assert refused("colorize", "masks", *options).startswith(f"segcli: --log-file: {log}") is (log != said)
    assert said in refused("colorize", "masks", *options)
    assert {path: path.read_bytes() for path in masks.parent.rglob("*") if path.is_file()} == before


def test_a_variable_that_no_option_has_is_told(masks: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGCLI_COLORIZE_LEGNED", "file")
    monkeypatch.setenv("SEGCLI_COLORISE_ALPHA", "0.25")
    monkeypatch.setenv("SEGCLI_PREDICT_MEMROY", "1GB")  # that verb will tell
    monkeypatch.setenv("SEGCLI_HOME", "/opt/segcli")  # of somebody else
    assert refused("colorize", "masks", "--out", "out", code=0).splitlines()[:2] == [
        "SEGCLI_COLORISE_ALPHA in the environment is no option of colorize; did you mean SEGCLI_COLORIZE_ALPHA?",
        "SEGCLI_COLORIZE_LEGNED in the environment is no option of colorize; did you mean SEGCLI_COLORIZE_LEGEND?",
    ]
    assert refused("colorize", "masks", "--out", "out", "--quiet", code=0) == ""


def test_folders_that_are_linked_are_searched(masks: Path, refused: Refused) -> None:
    """As find -L does: not one that a link lies in, and not the outputs."""
    for link, target in (("masks/more", "../elsewhere"), ("masks/self", "."), ("masks/lost", "nowhere")):
        Path(link).symlink_to(target)
    write_picture(Path("elsewhere/deep/c.png"), np.ones((9, 9), np.uint8))
    Path("elsewhere/back").symlink_to("../masks")
    found = [path.relative_to(masks).as_posix() for path in rasters_in(masks, recursive=True)]
    assert found == ["a.png", "b.png", "more/deep/c.png"]
    assert rasters_in(masks) == [masks / "a.png", masks / "b.png"]
    Path("masks/made").symlink_to("../out")
    for _ in range(2):
        refused("colorize", "masks", "--recursive", "--out", "out", code=0)
    made = sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*.png"))
    assert made == ["a.png", "b.png", "more/deep/c.png"]


def test_a_pipe_is_no_image(masks: Path, refused: Refused) -> None:
    """Its end may never come, nor its beginning."""
    os.mkfifo("pipe.png")
    os.mkfifo("masks/c.png")  # in a folder nobody has named it
    said = refused("colorize", "pipe.png", "masks", "/dev/null", "--out", "out", code=1)
    assert "segcli: pipe.png: a pipe or a device; expected an image; write what comes of it to a file first" in said
    assert "segcli: /dev/null: a pipe or a device" in said
    assert said.endswith("done 2  up to date 0  failed 2\n")
    assert "pipe.png: a pipe or a device" in refused("eval", "pipe.png", "masks/a.png", code=2)


def test_a_file_that_is_named_twice_is_done_once(masks: Path, refused: Refused) -> None:
    Path("link").symlink_to("masks")
    Path("masks/c.png").symlink_to("a.png")
    twice = ["masks/b.png", "masks/a.png", "masks/c.png", masks / "a.png", "link/b.png", "./masks/a.png"]
    assert refused("colorize", *twice, "--out", "out", code=0).endswith("done 3  up to date 0  failed 0\n")
    assert named(["masks", str(masks), "https://a/b.tif", "."]) == (Path("masks"), "https://a/b.tif", Path())


def test_accents_are_matched_however_they_are_written(tmp_path: Path) -> None:
    """As one letter, or as macOS has them, as two; but not where both are there."""
    one, two = "f\u00fcnf", "fu\u0308nf"
    pairs = match({one: Path("a"), "b": Path("b")}, {two: Path("c"), "b": Path("d")}).pairs
    assert pairs == (("b", Path("b"), Path("d")), (one, Path("a"), Path("c")))
    assert match({two: Path("a")}, {f"{one}_mask": Path("c")}).pairs == ((one, Path("a"), Path("c")),)
    both = match({one: Path("a"), two: Path("b")}, {two: Path("c")})
    assert (both.pairs, both.left) == (((two, Path("b"), Path("c")),), (Path("a"),))
    unsure = match({"\u212b": Path("a"), "A\u030a": Path("b")}, {"\u00c5": Path("c")})
    assert (unsure.pairs, len(unsure.left)) == ((), 2)


def test_reports_of_two_runs_are_not_mixed(masks: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run is refused meanwhile, and a disk that is full at the end leaves the report that was there."""
    command = ("eval", "masks", "masks", "--out", "report")
    Path("report").mkdir()
    with held(Path("report")):
        assert "report: another run of segcli writes there" in refused(*command, code=5)
    refused(*command, code=0)
    before = {path.name: path.read_bytes() for path in Path("report").iterdir()}
    assert before.keys() == {"report.html", "report.json", "per_class.csv", "per_image.csv"}
    write_picture(masks / "b.png", np.zeros((9, 9), np.uint8))
    whole, calls = os.fsync, []

    def full(file: int) -> None:
        calls.append(file)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        whole(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "report.html: cannot be written: No space left" in refused(*command, code=3)
    assert {path.name: path.read_bytes() for path in Path("report").iterdir()} == before
    Path("report/report.json").unlink()
    Path("report/report.json").mkdir()  # which no file can replace: the others have their names by then
    assert "report.json: cannot be written: Is a directory" in refused(*command, code=1)
    assert {path.name: path.read_bytes() for path in Path("report").iterdir() if path.is_file()} == {
        name: text for name, text in before.items() if name != "report.json"
    }


@pytest.mark.parametrize(
    "error", [MemoryError(), ImportError("libtorch_cpu.so: failed to map segment from shared object")]
)
def test_a_lack_of_memory_is_no_fault(
    masks: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def run(*_: object) -> int:
        raise error

    monkeypatch.setattr("segcli.colorize.run", run)
    monkeypatch.setattr("resource.getrlimit", lambda _: (2500 * 2**20, -1))
    said = refused("colorize", "masks", "--out", "out", code=3)
    assert said.startswith("segcli: out of memory (")
    assert said.endswith(
        "; ulimit -v allows 2500 MiB of addresses, of which PyTorch takes several thousand: raise it\n"
    )


# Signals, to a program that does nothing but wait.

SCRIPT = """
import time
from segcli import cli
from segcli.cli import shared

def wait():
    while True:
        try:
            print("waits", flush=True)
            time.sleep(60)
        except BaseException:
            if not {deaf}:
                raise

shared.DEAF_SECONDS = 1
cli.app = lambda **_: shared.end_with(wait)
cli.main()
"""


def waiting(deaf: bool, **more: Any) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT.format(deaf=deaf)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, **more)  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGHUP, 129, "ended by SIGHUP"),
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "ended by SIGTERM"),
    ],
)
@pytest.mark.parametrize("deaf", [False, True])
def test_a_signal_ends_it_in_any_case(number: int, code: int, said: str, deaf: bool) -> None:
    """Also what is in a file that gives nothing back."""
    with waiting(deaf) as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, f"segcli: {'did not end by itself within 1 s' if deaf else said}\n")


def test_a_terminal_may_go_where_nohup_says_so() -> None:
    with waiting(False, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        assert process.wait(60) == 143


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_training_hears_what_is_not_kept_from_it(number: signal.Signals, code: int) -> None:
    """The terminal that has gone, but for nohup; Ctrl-C, but for what a script has put behind it."""
    before = signal.signal(number, signal.default_int_handler)
    try:
        with noticed() as interrupt:
            signal.raise_signal(number)
            assert interrupt.exit_code == code
        signal.signal(number, signal.SIG_IGN)
        with noticed() as interrupt:
            signal.raise_signal(number)
            assert not interrupt
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_names_are_bytes_whatever_stdout_can_say(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", np.ones((9, 9), np.uint8))
    (tmp_path / "a.png").rename(tmp_path / "ü.png")
    command = [sys.executable, "-m", "segcli", "colorize", "ü.png", "no_ü.png", "--out", "out"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=60,
                            env=os.environ | {"PYTHONIOENCODING": "ascii"})  # fmt: skip
    assert (result.returncode, result.stdout) == (1, "out/ü.png\n".encode())
    assert result.stderr.startswith(b"segcli: no_\\xfc.png: no such file")
