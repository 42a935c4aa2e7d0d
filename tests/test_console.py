import io
import sys
from pathlib import Path

import pytest

from segcli import console
from segcli.console import Console
from segcli.errors import InputError


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Console().progress(2) as progress:
        progress.advance(0.5, 3_000_000)
        progress.advance(0.5, 1_000_000)
    shown = capsys.readouterr()
    assert "1/2 images" in shown.err
    assert "Mpx/s" in shown.err
    assert shown.out == ""
    assert (progress.images, progress.megapixels) == (1, 4)


def test_a_table_that_grows_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Console().growing_table(["epoch", "loss"]) as add:
        add(["1", "0.5"], "9 s left")
        once = capsys.readouterr().err
        add(["2", "0.25"], "4 s left")
    assert all(text in once for text in ("epoch", "loss", "0.5", "9 s left"))
    shown = capsys.readouterr()
    assert all(text in shown.err for text in ("0.5", "0.25", "4 s left"))
    assert "9 s left" not in shown.err  # the table is drawn anew
    assert shown.out == ""


def test_a_line_now_and_then_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with Console().progress(4) as progress:
        progress.advance(1, 1_000_000)
        assert capsys.readouterr().err == ""  # not before its time
        monkeypatch.setattr(console, "INTERVAL_S", 0.0)
        progress.advance(1, 1_000_000)
    line = capsys.readouterr().err
    assert line.startswith("2.0 of 4 images")
    assert "s left" in line


def test_what_is_not_to_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "INTERVAL_S", 0.0)
    with Console().progress(1000) as progress:
        for _ in range(900):
            progress.leave_out()
        assert capsys.readouterr().err == ""  # nobody knows how long they take
        progress.advance(1, 1)
    assert capsys.readouterr().err.startswith("1.0 of 100 images")


def test_quiet_keeps_errors(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = Console(quiet=True)
    quiet.say("hello")
    quiet.result(Path("a"))
    with quiet.progress(1) as progress:
        progress.advance(1, 1)
    quiet.fail(InputError("a.tif", "found\nthis", "expected that"))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "segcli: a.tif: found\\nthis; expected that\n"


def test_what_is_begun_again_is_counted_once() -> None:
    with Console(quiet=True).progress(2) as progress:
        before = progress.state()
        progress.advance(0.7, 10)
        progress.restore(before)
        progress.advance(1, 10)
    assert (progress.images, progress.megapixels) == (1, 1e-5)


@pytest.mark.parametrize("verbose", [False, True])
def test_what_is_said_of_many_files_is_counted(
    tmp_path: Path, verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first ones are shown, and how many more there were; the log, and --verbose, have all of them."""
    many = Console(verbose=verbose, log_file=tmp_path / "log")
    for n in range(6):
        many.remark(f"{n}.tif: cannot keep: x")
        if n < 4:
            many.remark(f"{n}.tif: a stack")
    many.remark("0.tif: alone")
    many.count_remarks()
    many.count_remarks()  # once is enough
    said = capsys.readouterr().err.splitlines()
    every = [f"{n}.tif: cannot keep: x" for n in range(6)]
    assert [line for line in said if line.endswith("cannot keep: x")] == (
        every if verbose else [*every[:3], "3 more files: cannot keep: x"]
    )
    assert ("1 more file: a stack" in said) == (not verbose)
    assert "0.tif: alone" in said
    assert len(said) == (11 if verbose else 9)
    assert many._log is not None
    many._log.close()
    log = (tmp_path / "log").read_text()
    assert all(log.count(line) == 1 for line in every)


def test_nothing_is_counted_of_a_quiet_run(capsys: pytest.CaptureFixture[str]) -> None:
    many = Console(quiet=True)
    for n in range(9):
        many.remark(f"{n}: a stack")
    many.count_remarks()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("encoding", "line"), [("ascii", "+-"), ("utf-8", "\u250f")])
def test_tables_are_drawn_of_what_the_stream_has(monkeypatch: pytest.MonkeyPatch, encoding: str, line: str) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    Console().table("figures", ["class", "IoU"], [["a", "0.5"]])
    assert line in written.getvalue().decode(encoding)
