"""Grey TIFFs in which 0 is white, by their tag (MinIsWhite): the picture is the negative of what is stored."""

import json
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.shutil
import tifffile
from rasterio.enums import Resampling

from segcli.raster.exact import not_kept, write_whole
from segcli.raster.gdal import opened
from segcli.raster.images import open_images
from segcli.raster.labels import BINARY
from segcli.raster.source import Purpose, Source
from segcli.raster.stored import Stored, stored
from segcli.raster.values import are_black_and_white, values_of


def planes(path: Path, purpose: Purpose = "image", **way: Any) -> list[np.ndarray]:
    """(band, row, col) of every image."""
    with closing(open_images(path, purpose, **way)) as images:
        return [np.concatenate([strip.pixels for strip in plane.strips(16)], axis=1) for plane in images.planes]


def stored_numbers(rng: np.random.Generator, dtype: str, *shape: int) -> np.ndarray:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize(
    ("dtype", "compression"),
    [*((kind, None) for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32")), ("uint16", "jpegxl")],
)
def test_numbers_are_counted_from_the_other_end_of_their_type(
    tmp_path: Path, rng: np.random.Generator, dtype: str, compression: str | None
) -> None:
    """Below 0 begins the dark half. As a mask, or as stored, they are the numbers."""
    if compression is not None:
        pytest.importorskip("imagecodecs")
    pixels, path = stored_numbers(rng, dtype, 30, 40), tmp_path / "a.tif"
    more = {"compressionargs": {"lossless": True}} if compression else {}
    tifffile.imwrite(path, pixels, photometric="miniswhite", metadata=None, compression=compression, **more)
    (found,) = planes(path)
    assert found.dtype == pixels.dtype
    assert np.array_equal(found[0], ~pixels)
    for purpose in ("mask", "stored"):
        assert np.array_equal(planes(path, purpose)[0][0], pixels)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 10, 12, 14])
def test_few_bits_have_their_own_end(tmp_path: Path, bits: int) -> None:
    pixels = np.arange(2**bits).astype(np.uint8 if bits < 8 else np.uint16)[None]
    path, kind = tmp_path / "a.tif", "uint8" if bits < 8 else "uint16"
    profile = {"driver": "GTiff", "width": 2**bits, "height": 1, "count": 1, "dtype": kind, "nbits": bits}
    with opened(path, "w", photometric="MINISWHITE", **profile) as file:
        file.write(pixels, 1)
    expected = pixels[:, ::-1].astype(np.int64)
    assert np.array_equal(planes(path)[0][0], expected * 255 // (2**bits - 1) if bits < 8 else expected)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_floats_have_no_end_to_be_counted_from(tmp_path: Path, rng: np.random.Generator, dtype: str) -> None:
    pixels = rng.random((30, 40)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite", metadata=None)
    assert np.array_equal(planes(tmp_path / "a.tif")[0][0], pixels)


def test_channels_are_negatives_as_their_pages_are_and_alpha_is_none(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels, path = stored_numbers(rng, "uint16", 3, 30, 40), tmp_path / "a.tif"
    for name, axes in (("a.tif", "CYX"), ("a.ome.tif", "CYX"), ("z.tif", "ZYX")):
        tifffile.imwrite(tmp_path / name, pixels, photometric="miniswhite", metadata={"axes": axes})
        assert np.array_equal(np.concatenate(planes(tmp_path / name)), ~pixels)
    tifffile.imwrite(path, pixels, photometric="miniswhite", planarconfig="separate", metadata=None)
    assert np.array_equal(planes(path)[0], ~pixels)
    alpha = np.moveaxis(pixels[:2], 0, -1)
    tifffile.imwrite(path, alpha, photometric="miniswhite", extrasamples=["unassalpha"], metadata=None)
    assert np.array_equal(planes(path)[0], ~pixels[:1])
    with Source(path) as source:
        _, valid = source.patch(0, 0, 30, 40)
    assert valid is None or np.array_equal(valid, pixels[1] > 0)


def test_planes_of_imagej_behind_one_page_are_negatives(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels, path = stored_numbers(rng, "uint16", 3, 30, 40), tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="miniswhite", imagej=True, metadata={"axes": "ZYX"}, truncate=True)
    assert np.array_equal(np.concatenate(planes(path)), ~pixels)


def test_overviews_copies_and_vrts_are_negatives_too(tmp_path: Path, rng: np.random.Generator) -> None:
    """GDAL does not say it of them, and has the palette that it made up of the file."""
    pixels, path = stored_numbers(rng, "uint16", 256, 300), tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="miniswhite", metadata=None, tile=(64, 64))
    with opened(path, "r+") as file:
        file.build_overviews([2], Resampling.nearest)
    assert np.array_equal(planes(path, level=1)[0][0], ~pixels[::2, ::2])
    for name, driver in (("a.vrt", "VRT"), ("b.tif", "GTiff")):
        with warnings.catch_warnings(action="ignore"):
            rasterio.shutil.copy(path, tmp_path / name, driver=driver)
        assert np.array_equal(planes(tmp_path / name)[0][0], ~pixels)


def test_a_mask_of_black_and_white_stays_one(tmp_path: Path) -> None:
    """ImageJ's, in which 255 is what was found, and is shown black."""
    path = tmp_path / "a.tif"
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 5:9] = 255
    tifffile.imwrite(path, mask, photometric="miniswhite", imagej=True)
    with closing(open_images(path, "mask")) as images:
        found = values_of(path, images, None, lambda: are_black_and_white([path]))
        assert found.classes == BINARY
        assert [value for value, count in enumerate(found.counts(images.planes[0])) if count] == [0, 255]


def test_a_palette_of_greys_that_is_no_negative_has_its_colours(tmp_path: Path) -> None:
    colors = np.tile(np.arange(255, -1, -1, dtype=np.uint16) * 257, (3, 1))
    colors[:, 7] = 0
    values, path = np.arange(256, dtype=np.uint8).reshape(16, 16), tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="palette", colormap=colors, metadata=None)
    assert np.array_equal(planes(path)[0][0], np.where(values == 7, 0, 255 - values))


@pytest.mark.parametrize("way", ["uint8", "uint16", "int16", "uint32", "channels", "one page of channels", "stack"])
def test_what_is_cut_of_a_negative_is_one(tmp_path: Path, rng: np.random.Generator, way: str) -> None:
    """With the same numbers in it."""
    pixels = stored_numbers(rng, way if "int" in way else "uint16", 3, 30, 40)
    path, tile, tags = tmp_path / "a.tif", tmp_path / "tile.tif", {"photometric": "miniswhite"}
    if way == "channels":
        tifffile.imwrite(path, pixels, metadata={"axes": "CYX"}, **tags)
    elif way == "stack":
        tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": "ZYX"}, truncate=True, **tags)
    elif way == "one page of channels":
        tifffile.imwrite(path, pixels, planarconfig="separate", metadata=None, **tags)
    else:
        tifffile.imwrite(path, pixels[0], metadata=None, **tags)
    with closing(open_images(path, "stored")) as images:
        source = images.planes[0]
        like = Stored.from_json(json.loads(json.dumps(stored(source).to_json())))
        whole = source.window(0, 0, 30, 40)
        write_whole(tile, tile, whole, None, source.grid, like, "DEFLATE")
        assert {*not_kept(path, source.grid, like, ".tif")} <= {"the colour interpretation undefined"}
    assert np.array_equal(planes(tile, "stored")[0], whole)
    assert np.array_equal(planes(tile)[0], planes(path)[0])
    assert np.array_equal(planes(tile)[0], ~whole)
