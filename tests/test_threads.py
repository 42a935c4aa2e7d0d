"""Files of several threads: what GDAL shares between them must not reach from one into another."""

import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import tifffile
from rasterio._env import get_gdal_config

from segcli.console import Console
from segcli.options import PredictOptions
from segcli.predict import run
from segcli.raster import gdal as gdal_settings
from segcli.raster.exact import create_exact, write_whole
from segcli.raster.gdal import created, gdal
from segcli.raster.grid import Grid
from segcli.raster.sink import Layout, Sink, create
from segcli.raster.stored import Stored

WRITE = """
import sys
import numpy as np
from pathlib import Path
from segcli.raster.grid import Grid
from segcli.raster.sink import Layout, create
rows = np.random.default_rng(0).integers(0, 3, (512, 8192), np.uint8)
resident = lambda key: int(Path("/proc/self/status").read_text().split(key + ":")[1].split()[0]) / 1024
before = resident("VmRSS")
with create(Path(sys.argv[1]), Grid(20 * 512, 8192), Layout(1, "uint8")) as sink:
    for n in range(20):
        sink.write(512 * n, rows)
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_blocks_are_not_kept_longer_than_they_are_needed(tmp_path: Path) -> None:
    """GDAL by itself keeps what was written until it takes 5 % of the memory."""
    environment = {name: value for name, value in os.environ.items() if name != "GDAL_CACHEMAX"}
    result = subprocess.run(
        [sys.executable, "-c", WRITE, str(tmp_path / "a.tif")],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(result.stdout) < 50  # MB, of an image of 80


def test_the_environment_says_how_much_gdal_keeps() -> None:
    """More than a few bytes, which would put every block out at once: decoded again, and written early."""
    kept = int(os.environ["GDAL_CACHEMAX"]) << 20  # said in MB
    with gdal():
        assert get_gdal_config("GDAL_CACHEMAX") == kept > 1 << 20
    assert get_gdal_config("GDAL_CACHEMAX") == kept


@pytest.mark.parametrize("kind", ["labels", "as stored"])
def test_a_head_is_written_before_pixels(tmp_path: Path, kind: str) -> None:
    """Left to the first block that goes out of GDAL's cache, it would be written by two threads at once where one
    puts out a block of the file that another closes: an error, a hang or a crash, once in some ten thousand files."""
    path, grid = tmp_path / "a.tif", Grid(40, 40)
    like = Stored(1, "uint8", None, ("gray",), None, ("",), (1.0,), (0.0,), ("",), None, False, {}, ({},))
    made: AbstractContextManager[Sink] | AbstractContextManager[object]
    made = create(path, grid, Layout(1, "uint8")) if kind == "labels" else create_exact(path, grid, like, "DEFLATE")
    with made as sink:
        (part,) = tmp_path.iterdir()
        with tifffile.TiffFile(part) as file:
            assert file.pages[0].shape == (40, 40)
        sink.write(0, np.ones((1, 40, 40), np.uint8), *([None] if kind == "as stored" else []))  # type: ignore[attr-defined]
    assert (tifffile.imread(path) == 1).all()


def test_jobs_are_the_threads_that_compress(tmp_path: Path, weights: Path, rng: np.random.Generator) -> None:
    """As many as are asked for, and no byte depends on it."""
    pixels = rng.integers(0, 256, (700, 900, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.tif"), pixels)
    made: dict[int, bytes] = {}
    for jobs in (1, 3):
        options = PredictOptions((tmp_path / "a.tif",), tmp_path / f"out{jobs}", (str(weights),), jobs=jobs)
        with mock.patch("segcli.raster.sink.created", side_effect=created) as create_file:
            assert run(options, Console(quiet=True)) == 0
        assert create_file.call_args.kwargs["num_threads"] == jobs
        made[jobs] = (tmp_path / f"out{jobs}" / "a.tif").read_bytes()
    assert made[1] == made[3]


def test_no_option_of_one_file_counts_for_others() -> None:
    """rasterio sets options in the main thread for all threads. Without its sidecars GDAL takes a raster that has one
    for another: no place on earth, no scale."""
    for path in Path(gdal_settings.__file__).parents[1].rglob("*.py"):
        assert "PAM_ENABLED" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("ending", [".tif", ".png"])
def test_no_sidecar_is_left(tmp_path: Path, ending: str) -> None:
    """Of statistics, which neither format has a place for."""
    path, grid = tmp_path / f"a{ending}", Grid(40, 40)
    tags = {"STATISTICS_MEAN": "1"}
    like = Stored(1, "uint8", 3, ("gray",), None, ("",), (1.0,), (0.0,), ("",), None, False, {}, (tags,))
    write_whole(path, path, np.ones((1, 40, 40), np.uint8), None, grid, like, "DEFLATE")
    with create(tmp_path / f"b{ending}", grid, Layout(1, "uint8", class_names={1: "x"})) as sink:
        sink.write(0, np.ones((1, 40, 40), np.uint8))
    assert sorted(found.name for found in tmp_path.iterdir()) == [f"a{ending}", f"b{ending}"]
