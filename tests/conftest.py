"""What tests share: a small checkpoint, and the installed program as a process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Several workers share the cores: torch in one takes no more than its share, nor do the programs that it starts. Each
# has the environment of the process that started it, which read this file too, and took more.
SHARE = max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
THREADS = min(int(os.environ.get("OMP_NUM_THREADS", "2")), SHARE)
os.environ["OMP_NUM_THREADS"] = str(THREADS)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from helpers import brightness_model  # noqa: E402
from ready import Ready  # noqa: E402

from segcli.cli import main  # noqa: E402
from segcli.network import checkpoint  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    torch.set_num_threads(THREADS)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def ready() -> Iterator[Ready]:
    """The program, ready to start."""
    found = Ready()
    yield found
    found.close()


@pytest.fixture
def segcli(tmp_path: Path, ready: Ready) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the program in `tmp_path`, as a shell would; started anew where libraries look at the environment."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        if all(name.startswith("SEGCLI_") or name in ("COLUMNS", "TERM") for name in environment):
            return ready.run(arguments, tmp_path, environment)
        return subprocess.run(
            [sys.executable, "-m", "segcli", *map(str, arguments)],
            cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of `brightness_model` for three bands of uint8."""
    path = tmp_path_factory.mktemp("weights") / "brightness.safetensors"
    checkpoint.save(brightness_model(), path)
    return path


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the program says against a command line that it refuses, with `code`; in this process, which has torch."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, code: int = 2) -> str:
        monkeypatch.setattr(sys, "argv", ["segcli", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == code, said
        return said

    return run


@pytest.fixture
def tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`segcli tile`, in this process: its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["segcli", "tile", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return run
