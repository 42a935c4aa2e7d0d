"""Files of several threads: what GDAL shares between them must not reach from one into another."""

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
from segcli.raster.gdal import CACHE_BYTES, created, gdal
from segcli.raster.grid import Grid
from segcli.raster.sink import Layout, Sink, create
from segcli.raster.stored import Stored


def test_blocks_are_kept_as_long_as_they_are_needed() -> None:
    """A cache of a few bytes would put every block out at once: decoded again at the next read, and written early."""
    with gdal():
        assert get_gdal_config("GDAL_CACHEMAX") == CACHE_BYTES > 1 << 20


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
        options = PredictOptions((tmp_path / "a.tif",), tmp_path / f"out{jobs}", weights, jobs=jobs, quiet=True)
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
