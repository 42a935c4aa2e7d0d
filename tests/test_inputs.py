"""Names as they come from a shell."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import write_picture

from segcli.errors import NothingDoneError, UsageError
from segcli.inputs import named

ODD = ("a b.png", "a,b.png", "ü.png", "[1].png", "-x.png", "$(rm).png", "line\nbreak.png", "'q'.png")


def test_patterns_that_the_shell_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.png", "a.tif", "deep/c.png", "deep/er/d.png", "x[1].png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert named(["*.png"]) == (Path("a.png"), Path("b.png"), Path("x[1].png"))
    assert named(["**/*.png"])[-2:] == (Path("deep/er/d.png"), Path("x[1].png"))
    assert named(["x[1].png", "?.tif"]) == (Path("x[1].png"), Path("a.tif"))  # there is a file of that very name
    assert named([str(tmp_path / "deep" / "*.png")]) == (tmp_path / "deep" / "c.png",)
    assert named(["https://x.y/a.tif?b=*"]) == ("https://x.y/a.tif?b=*",)
    with pytest.raises(NothingDoneError, match=r"\*\.jpg: matches no file"):
        named(["a.png", "*.jpg"])


def test_names_on_standard_input() -> None:
    lines = io.BytesIO(b"a b.png\r\n\n*.png\n\xff.png\nNETCDF:a.nc:red\n")
    assert named(["first", "-", "last"], stdin=lines) == (
        Path("first"), Path("a b.png"), Path("*.png"), Path("\udcff.png"), "NETCDF:a.nc:red", Path("last"),
    )  # fmt: skip
    assert named(["-"], null=True, stdin=io.BytesIO(b"a\nb\0c\0")) == (Path("a\nb"), Path("c"))
    with pytest.raises(NothingDoneError, match="no names came on standard input"):
        named(["-"], stdin=io.BytesIO(b"\n"))
    with pytest.raises(UsageError, match="-0: without -"):
        named(["a"], null=True)


@pytest.mark.parametrize("verb", ["predict", "colorize"])
def test_odd_names_go_through(segcli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, weights: Path,
                              verb: str) -> None:  # fmt: skip
    """By name, by standard input, and by folder: the same outputs."""
    for name in ODD:
        write_picture(tmp_path / "in" / "plain.png", np.zeros((9, 9) if verb == "colorize" else (9, 9, 3), np.uint8))
        (tmp_path / "in" / "plain.png").rename(tmp_path / "in" / name)
    more = ["--weights", str(weights)] if verb == "predict" else []
    result = segcli(verb, "in", "--out", "a", *more)
    assert result.returncode == 0, result.stderr
    result = segcli(verb, *(f"in/{name}" for name in ODD), "--out", "b", *more)
    assert result.returncode == 0, result.stderr
    (tmp_path / "names").write_bytes(b"\0".join(f"in/{name}".encode() for name in ODD))
    command = f"{sys.executable} -m segcli {verb} - -0 --out c {' '.join(more)} < names"
    result = subprocess.run(["bash", "-c", command], cwd=tmp_path,
                            capture_output=True, text=True, check=False)  # fmt: skip
    assert result.returncode == 0, result.stderr
    for folder in "abc":
        assert {path.name for path in (tmp_path / folder).iterdir()} == {*ODD, "segcli.jsonl"}
    if verb == "predict":  # SQLite opens no file with a newline in its name
        assert segcli(verb, "in", "--out", "d", "--polygons", "gpkg", *more).returncode == 0
        assert {path.stem for path in (tmp_path / "d" / "polygons").iterdir()} == {Path(name).stem for name in ODD}
