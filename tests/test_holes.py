"""Bands without data where others of the same pixel have some: nodata in whole numbers is what NaN is in floats."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers import random_model
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from segcli.console import Console
from segcli.errors import UsageError
from segcli.network import checkpoint
from segcli.network.normalise import Normalisation
from segcli.options import PredictOptions, Stitch
from segcli.predict import run
from segcli.raster.fit import highest_of
from segcli.raster.source import Source
from segcli.training.constants import normalisation as normalisation_of
from segcli.training.labels import find_classes, without
from segcli.training.pairs import find_pairs
from segcli.training.sampling import Reading
from segcli.training.survey import survey

NODATA = {"uint8": 255, "uint16": 65535, "int16": -9999, "int32": -9999, "float32": -9999}


def write(path: Path, pixels: np.ndarray, nodata: float | None = None, **more: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype, nodata=nodata,
        crs="EPSG:32633", transform=from_origin(500_000, 900, 1, 1), **{"photometric": "MINISBLACK"} | more,
    ) as file:  # fmt: skip
        file.write(pixels)
    return path


def two_ways(folder: Path, dtype: str, rng: np.random.Generator, bands: int = 4, side: int = 96) -> tuple[Path, Path]:
    """One image with holes, where its nodata value stands or NaN: of one band on the left, of some pixels anywhere,
    of all bands on top."""
    pixels = rng.integers(1, 201, (bands, side, side)).astype(np.float32)
    holes = rng.random(pixels.shape) < 0.05
    holes[1, :, : side // 3] = True
    holes[:, : side // 4] = True
    given = np.where(holes, NODATA[dtype], pixels).astype(dtype)
    blocks = {"tiled": True, "blockxsize": 32, "blockysize": 32}
    return (
        write(folder / f"{dtype}.tif", given, NODATA[dtype], **blocks),
        write(folder / "nan.tif", np.where(holes, np.float32(np.nan), pixels), **blocks),
    )


def seen(path: Path, bands: tuple[int, ...], loaded: bool) -> tuple[np.ndarray, np.ndarray]:
    with Source(path) as source:
        if loaded:
            source.load()
        strips = list(source.strips(40, bands, 8, 90))
        valid = [np.ones(strip.pixels.shape[1:], bool) if strip.valid is None else strip.valid for strip in strips]
        pixels, known = np.concatenate([strip.pixels for strip in strips], axis=1), np.concatenate(valid)
        patch = source.patch(0, 8, source.grid.height, 82, bands)
        assert np.array_equal(patch[1], known)
        assert np.array_equal(patch[0][:, known], pixels[:, known], equal_nan=True)
    return np.where(known, pixels, 0).astype(np.float32), known


@pytest.mark.parametrize("dtype", NODATA)
def test_nodata_of_a_band_is_nan(tmp_path: Path, dtype: str, rng: np.random.Generator) -> None:
    given, nan = two_ways(tmp_path, dtype, rng)
    for bands in ((0, 1, 2, 3), (1,), (3, 1), (2, 2, 0)):
        for loaded in (False, True):
            (one, known), (other, also) = seen(given, bands, loaded), seen(nan, bands, loaded)
            assert np.array_equal(known, also)
            assert np.array_equal(one, other, equal_nan=True)
    with Source(given) as one, Source(nan) as other:
        assert highest_of(one, (0, 1, 2, 3)) == highest_of(other, (0, 1, 2, 3)) == 200


def test_bands_that_agree_stay_whole_numbers(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(1, 200, (3, 50, 40)).astype(np.uint16)
    pixels[:, :20, :20] = 65535
    with Source(write(tmp_path / "a.tif", pixels, 65535, blockysize=10)) as source:
        for _, strip, valid in source.strips(10):
            assert strip.dtype == np.uint16
            assert valid is None or not valid[:, :20].any()
        assert source.column_bytes((0, 1, 2)) == 2 * 3 * 10 * 4  # there might be floats
    with Source(write(tmp_path / "b.tif", pixels, blockysize=10)) as source:
        assert source.column_bytes((0, 1, 2)) == 2 * 3 * 10 * 2


def test_masks_and_dark_colours_are_as_they_were(tmp_path: Path) -> None:
    """Black in red alone is a dark pixel, and a label is one as a whole."""
    pixels = np.full((3, 8, 8), 7, np.uint8)
    pixels[0, :, :4], pixels[:, :2] = 0, 0
    scan = write(tmp_path / "a.tif", pixels, 0, photometric="RGB")
    for path, purpose in ((scan, "image"), (scan, "mask"), (scan, "stored")):
        with Source(path, purpose) as source:
            found, valid = source.patch(0, 0, 8, 8)
            assert found.dtype == np.uint8
            assert np.array_equal(found, pixels)
            assert np.array_equal(valid, np.arange(64).reshape(8, 8) >= 16)
    wide = write(tmp_path / "b.tif", pixels.astype(np.uint16), 0)
    for purpose in ("mask", "stored"):
        with Source(wide, purpose) as source:
            assert source.patch(0, 0, 8, 8)[0].dtype == np.uint16


def weights(path: Path) -> str:
    model = random_model(width=4, depth=2)
    constants = Normalisation("uint8", (90.0,) * 3, (60.0,) * 3)
    checkpoint.save(checkpoint.Model(model.network, constants, model.classes), path)
    return str(path)


@pytest.mark.parametrize(("dtype", "stitch"), [("uint16", "stream"), ("int16", "windows")])
def test_predict_takes_both_alike(tmp_path: Path, dtype: str, stitch: Stitch, rng: np.random.Generator) -> None:
    model, paths = weights(tmp_path / "w.safetensors"), two_ways(tmp_path / "in", dtype, rng, side=64)
    for bands in ((1, 2, 3), (2, 2, 2)):
        options = PredictOptions(
            paths, tmp_path / str(bands[0]), (model,), bands=bands, input_range=(0, 255), stitch=stitch, window=32,
            probabilities=True, quantity="float32",
        )  # fmt: skip
        assert run(options, Console(quiet=True)) == 0
        masks, scores = [], []
        for path in paths:
            with rasterio.open(options.out / path.name) as mask:
                masks.append(mask.read(1))
            with rasterio.open(options.out / "probabilities" / path.name) as file:
                scores.append(file.read())
        assert np.array_equal(*masks)
        assert np.array_equal(*scores, equal_nan=True)
        assert (masks[0][:16] == 255).all()
        assert (masks[0][:, :21] == 255).all() == (bands == (2, 2, 2))


def test_one_empty_value_does_not_set_the_range(tmp_path: Path) -> None:
    pixels = np.full((3, 40, 40), 4000, np.uint16)
    whole = write(tmp_path / "whole.tif", pixels, 65535)
    pixels[1, 20, 20] = 65535
    for path in (whole, write(tmp_path / "hole.tif", pixels, 65535)):
        with Source(path) as source:
            assert highest_of(source, (0, 1, 2)) == 4000


@pytest.mark.parametrize("dtype", NODATA)
def test_training_takes_both_alike(tmp_path: Path, dtype: str, rng: np.random.Generator) -> None:
    found = {}
    for number in range(2):
        images = two_ways(tmp_path, dtype, rng)
        mask = rng.integers(0, 2, (1, 96, 96)).astype(np.uint8)
        for path in images:
            kind = tmp_path / path.stem
            (kind / "images").mkdir(parents=True, exist_ok=True)
            path.rename(kind / "images" / f"{number}.tif")
            write(kind / "masks" / f"{number}.tif", mask)
    for kind in (dtype, "nan"):
        splits = find_pairs(tmp_path / kind, 0.5, 0)
        labels = without(find_classes(tmp_path / kind, None, splits.all), None)
        seen = survey(splits, labels, lambda error: pytest.fail(str(error)))
        constants = normalisation_of(seen)
        reading = Reading(labels, Normalisation(constants.dtype, (90.0,) * 4, (60.0,) * 4))
        windows = [reading.window(pair, 10, 20, 60, 70) for pair in splits.all]
        found[kind] = seen, constants, windows, splits
    (one, constants, windows, splits), (other, also, same, others) = found[dtype], found["nan"]
    for n in range(2):
        fact, like = one.facts[splits.all[n]], other.facts[others.all[n]]
        assert np.array_equal(fact.sums, like.sums)
        assert (fact.low, fact.high) == (like.low, like.high) == (1, 200)
        assert np.array_equal(fact.pixels, like.pixels)
        for given, nan in zip(windows[n], same[n], strict=True):
            assert np.array_equal(given, nan)
        assert (windows[n][0][1, :, :12] == 0).all()
    if dtype != "uint8":  # whose mean and deviation are of all values
        assert constants.mean == also.mean
        assert constants.deviation == also.deviation
    assert np.allclose(constants.mean, 100, atol=4)
    assert np.allclose(constants.deviation, 58, atol=4)


def test_a_band_that_is_empty_throughout_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(1, 200, (2, 40, 40)).astype(np.int16)
    pixels[1] = -9999
    for name in "ab":
        write(tmp_path / "images" / f"{name}.tif", pixels, -9999)
        write(tmp_path / "masks" / f"{name}.tif", rng.integers(0, 2, (1, 40, 40)).astype(np.uint8))
    splits = find_pairs(tmp_path, 0.5, 0)
    labels = without(find_classes(tmp_path, None, splits.all), None)
    seen = survey(splits, labels, lambda error: pytest.fail(str(error)))
    with pytest.raises(UsageError, match="images: no training image has data in band 2; expected some in each"):
        normalisation_of(seen)


def test_overlays_and_alpha(tmp_path: Path, rng: np.random.Generator) -> None:
    """Alpha counts beside nodata, which is each band's own."""
    pixels = rng.integers(1, 200, (5, 20, 20)).astype(np.uint16)
    pixels[1, :, :5] = 0
    pixels[4, :, 15:] = 0
    path = write(tmp_path / "a.tif", pixels, 0)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.gray, *[ColorInterp.undefined] * 3, ColorInterp.alpha]
    with Source(path) as source:
        found, valid = source.patch(0, 0, 20, 20)
        assert np.isnan(found[1, :, :5]).all()
        assert np.array_equal(valid, np.broadcast_to(np.arange(20) < 15, (20, 20)))
        assert source.patch(0, 0, 20, 20, (1,))[1][:, 5:15].all()
        assert not source.patch(0, 0, 20, 20, (1,))[1][:, :5].any()
