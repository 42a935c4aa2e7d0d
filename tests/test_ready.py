"""That a stand-in for the program ends as the program does, and the program with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import write_picture
from ready import Ready

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc says who is there")


def those_in(folder: Path) -> set[int]:
    """Processes that work in a folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.add(int(process.name))
        except OSError:  # it has ended, or is somebody else's
            pass
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("to_program", [False, True])
def test_a_stand_in_and_its_program_end_together(
    tmp_path: Path, ready: Ready, number: signal.Signals, to_program: bool
) -> None:
    for n in range(200):
        write_picture(tmp_path / "masks" / f"{n:03}.png", np.full((300, 300), n % 5, np.uint8))
    process = ready.popen(("colorize", "masks", "--out", "out"), tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/*.png")) and time.monotonic() < deadline:
        time.sleep(0.005)
    (program,) = those_in(tmp_path) - {process.pid}
    os.kill(program if to_program else process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number], said
    assert "Traceback" not in said
    while those_in(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not those_in(tmp_path)
    assert 0 < len(list(tmp_path.glob("out/*.png"))) < 200


def test_a_signal_that_comes_at_once_is_handed_on(tmp_path: Path, ready: Ready) -> None:
    """Before the program is there, or at any moment of its beginning: it is never what ends the stand-in alone."""
    write_picture(tmp_path / "masks" / "a.png", np.zeros((9, 9), np.uint8))
    for pause in (0.0, 0.01, 0.02, 0.04, 0.08):
        process = ready.popen(("colorize", "masks", "--out", "out"), tmp_path, stderr=subprocess.DEVNULL)
        time.sleep(pause)
        process.terminate()
        assert process.wait(60) in (0, 143, -signal.SIGTERM)
        deadline = time.monotonic() + 20
        while those_in(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert not those_in(tmp_path)
