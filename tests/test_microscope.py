"""What outputs of microscope images say of their pixels: scale, no data, names of bands, and how large a pixel is."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import tifffile
from helpers import brightness_model
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segcli import evaluate
from segcli.console import Console
from segcli.network import checkpoint
from segcli.options import EvalOptions, PredictOptions, TrainOptions
from segcli.predict import run
from segcli.raster.images import open_images
from segcli.raster.pyramid import halved
from segcli.raster.source import Source
from segcli.train import run as train_on

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

PIXEL = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}


def predict(tmp_path: Path, weights: Path, *inputs: Path, **more: Any) -> int:
    return run(PredictOptions(inputs, tmp_path / "masks", (str(weights),), **more), Console())


def blobs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Bright and dim ones, (..., row, col), uint8."""
    light = ndimage.gaussian_filter(rng.random(shape), (*(0,) * (len(shape) - 2), 2, 2)) > 0.5
    return np.where(light, 130 + rng.integers(0, 120, shape), 30).astype(np.uint8)


def features_of(path: Path) -> list[Any]:
    return [(one["properties"], one["geometry"]) for one in json.loads(path.read_text())["features"]]


def write_ome(path: Path, pixels: np.ndarray, axes: str, **more: Any) -> Path:
    tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata={"axes": axes, **more})
    return path


def test_an_ome_image_has_polygons_and_scores_as_any_other(
    tmp_path: Path, weights: Path, rng: np.random.Generator
) -> None:
    """Its probabilities and its confidence have a page for each band, of which each says its scale."""
    scene = blobs(rng, 3, 61, 83)
    ome = write_ome(tmp_path / "a.ome.tif", scene, "CYX")
    plain = tmp_path / "b.tif"
    tifffile.imwrite(plain, scene.transpose(1, 2, 0), photometric="rgb", metadata=None)
    more = {"probabilities": True, "confidence": True, "polygons": "geojson"}
    assert predict(tmp_path, weights, ome, plain, **more) == 0
    masks = tmp_path / "masks"
    found = features_of(masks / "polygons" / "a.ome.geojson")
    assert found == features_of(masks / "polygons" / "b.geojson")
    assert all(0.5 <= values["confidence"] <= 1 for values, _ in found)
    for folder in ("probabilities", "confidence"):
        with Source(masks / folder / ome.name, "mask") as one, Source(masks / folder / plain.name, "mask") as other:
            assert one.scales == other.scales == (0.004, 0.004)
            assert one.band_names == other.band_names
            assert one.nodata == other.nodata == 255
    reports = []
    for name in (ome.name, plain.name):
        given = EvalOptions(masks / name, masks / plain.name, tmp_path / "r", scores=masks / "probabilities" / name)
        assert evaluate.run(given, Console(quiet=True)) == 0
        reports.append(json.loads((tmp_path / "r" / "report.json").read_text())["scores"])
    assert reports[0] == reports[1]
    assert reports[0]["expected_calibration_error"] < 0.5


@pytest.mark.parametrize("is_named", [True, False])
def test_channels_of_an_ome_image_have_their_names(tmp_path: Path, is_named: bool) -> None:
    path = tmp_path / "a.ome.tif"
    names = {"Channel": {"Name": ["light", "dark"]}} if is_named else {}
    write_ome(path, np.zeros((2, 20, 24), np.uint16), "CYX", **names)
    with Source(path) as source:
        assert source.band_names == (("light", "dark") if is_named else ("", ""))
        assert source.scales == (1.0, 1.0)


@pytest.mark.parametrize("quantity", ["uint8", "float32"])
def test_stacks_of_scores_say_what_a_value_means(
    tmp_path: Path, weights: Path, rng: np.random.Generator, quantity: Any
) -> None:
    planes = blobs(rng, 2, 1, 31, 45).repeat(3, axis=1)
    kinds = {"a.ome.tif": "ome", "a.tif": "imagej", "b.tif": "shaped"}
    for name, kind in kinds.items():
        more = {"ome": kind == "ome", "imagej": kind == "imagej"}
        tifffile.imwrite(tmp_path / name, planes, photometric="minisblack", metadata={"axes": "ZCYX"}, **more)
    assert predict(tmp_path, weights, *(tmp_path / name for name in kinds), probabilities=True, quantity=quantity) == 0
    scale = 0.004 if quantity == "uint8" else 1.0
    for name, kind in kinds.items():
        path = tmp_path / "masks" / "probabilities" / name
        with closing(open_images(path, "mask")) as images:
            for plane in images.planes:
                assert plane.scales == (scale, scale)
                assert plane.nodata == 255 if quantity == "uint8" else np.isnan(plane.nodata or 0)
                np.testing.assert_allclose((plane.window(0, 0, 31, 45) * scale).sum(0), 1, atol=0.005)
        with tifffile.TiffFile(path) as file:
            assert kind in file.flags
            assert file.series[0].axes == "ZCYX"
            said = {"ome": file.ome_metadata, "imagej": file.imagej_metadata, "shaped": file.shaped_metadata}[kind]
            for word in ("dark", "light", *(["0.004"] if quantity == "uint8" else [])):
                assert word in str(said)
        with rasterio.open(path) as page:
            assert page.scales == (scale,)
        with first_image(tmp_path / "masks" / name) as mask:
            assert mask.nodata == 255


def first_image(path: Path) -> Source:
    """The first image of a stack."""
    return open_images(path, "mask").planes[0]


def write_imagej(path: Path, pixels: np.ndarray) -> None:
    tifffile.imwrite(path, pixels, imagej=True, resolution=(2, 4), metadata={"unit": "um"})


def write_tags(path: Path, pixels: np.ndarray) -> None:
    tifffile.imwrite(path, pixels, resolution=(20000, 40000), resolutionunit="CENTIMETER", metadata=None)


def write_stack(path: Path, pixels: np.ndarray) -> None:
    said = {"axes": "ZYX"}
    both = np.stack([pixels, pixels])
    tifffile.imwrite(path, both, resolution=(20000, 40000), resolutionunit="CENTIMETER", metadata=said)


@pytest.mark.parametrize("chosen", ["auto", "cog"])
def test_the_size_of_a_pixel_is_in_the_mask(tmp_path: Path, weights: Path, chosen: Any) -> None:
    scans = []
    for write in (write_imagej, write_tags, write_stack):
        scans.append(tmp_path / f"{write.__name__}.tif")
        write(scans[-1], np.full((40, 50), 200, np.uint8))
    assert predict(tmp_path, weights, *scans, probabilities=True, overlay=True, format=chosen) == 0
    found = sorted((tmp_path / "masks").rglob("*.tif"))
    assert len(found) == 3 + 3 + 3
    for path in found:
        with first_image(path) as source:
            assert source.grid.calibration == pytest.approx({"X": 0.5, "Y": 0.25})


def test_that_png_cannot_hold_the_size_of_a_pixel_is_said(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tags(tmp_path / "a.tif", np.full((40, 50), 200, np.uint8))
    assert predict(tmp_path, weights, tmp_path / "a.tif", format="png") == 0
    assert "PNG cannot hold the size of its pixels; --format tif keeps it" in capsys.readouterr().err
    assert b"RESOLUTION" not in (tmp_path / "masks" / "a.png").read_bytes()


@pytest.mark.parametrize("chosen", ["geojson", "gpkg"])
def test_polygons_of_a_level_lie_on_the_whole(
    tmp_path: Path, rng: np.random.Generator, chosen: str, weights: Path
) -> None:
    """And say how large they are, in pixels of it and in micrometres."""
    whole = np.full((200, 240), 30, np.uint8)
    whole[40:80, 80:160] = 220
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        file.write(whole, subifds=1, tile=(64, 64), photometric="minisblack", metadata={"axes": "YX", **PIXEL})
        file.write(whole[::4, ::4], subfiletype=1, tile=(64, 64), photometric="minisblack")
    assert predict(tmp_path, weights, tmp_path / "a.ome.tif", polygons=chosen, level=1) == 0
    meta, _, shapes, columns = pyogrio.raw.read(tmp_path / "masks" / "polygons" / f"a.ome.{chosen}")
    rows = [dict(zip(meta["fields"], values, strict=True)) for values in zip(*columns, strict=True)]
    light = next(n for n, row in enumerate(rows) if row["name"] == "light")
    assert shapely.from_wkb(shapes[light]).bounds == (80, 40, 160, 80)
    assert (rows[light]["area"], rows[light]["perimeter"]) == (80 * 40, 2 * (80 + 40))
    assert rows[light]["area_um2"] == pytest.approx(80 * 0.5 * 40 * 0.25)
    assert rows[light]["perimeter_um"] == pytest.approx(2 * (80 * 0.5 + 40 * 0.25))


def test_polygons_that_fail_cost_no_mask(
    tmp_path: Path, weights: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was there before stays."""
    scan = write_ome(tmp_path / "a.ome.tif", blobs(rng, 61, 83), "YX")
    assert predict(tmp_path, weights, scan) == 0
    mask = tmp_path / "masks" / "a.ome.tif"
    before = mask.read_bytes()
    monkeypatch.setattr("segcli.outputs.write_polygons", lambda *_: 1 / 0)
    assert predict(tmp_path, weights, scan, polygons="geojson") == 1
    assert mask.read_bytes() == before
    left = [path for path in (tmp_path / "masks").rglob("*") if path.is_file()]
    assert sorted(path.name for path in left) == ["a.ome.tif", "segcli.jsonl"]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bands=st.integers(1, 2), height=st.integers(1, 9), width=st.integers(1, 9))
def test_a_smaller_version_has_what_most_of_four_pixels_are(seed: int, bands: int, height: int, width: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 3, (bands, height, width), np.uint8)
    by_majority, by_first = halved(pixels, True), halved(pixels, False)
    assert by_majority.shape == by_first.shape == (bands, -(-height // 2), -(-width // 2))
    for band, row, col in np.ndindex(by_majority.shape):
        four = [
            int(pixels[band, min(2 * row + down, height - 1), min(2 * col + across, width - 1)])
            for down in (0, 1) for across in (0, 1)
        ]  # fmt: skip
        most = max(map(four.count, four))
        assert by_majority[band, row, col] == next(value for value in four if four.count(value) == most)
        assert by_first[band, row, col] == four[0]


@pytest.mark.parametrize("axes", ["YX", "TYX"])
def test_large_ome_masks_have_smaller_versions(
    tmp_path: Path, weights: Path, rng: np.random.Generator, axes: str
) -> None:
    """Of every image of every position, in the scores as well; nothing of the work is left."""
    scene = blobs(rng, 1030, 1501)
    planes = scene if axes == "YX" else np.stack([scene, scene[::-1]])
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for position in (planes, planes[..., ::-1]):
            file.write(position, photometric="minisblack", metadata={"axes": axes})
    assert predict(tmp_path, weights, tmp_path / "a.ome.tif", confidence=True) == 0
    sizes = [(1030, 1501), (515, 751), (258, 376)]
    for folder, bands in (("masks", ()), ("masks/confidence", (2,))):
        with tifffile.TiffFile(tmp_path / folder / "a.ome.tif") as file:
            for series in file.series:
                leading = (*planes.shape[:-2], *bands)
                assert [level.shape for level in series.levels] == [(*leading, *size) for size in sizes]
                whole, half, _ = (level.asarray().reshape(-1, *level.shape[-2:]) for level in series.levels)
                assert np.array_equal(half, halved(whole, by_majority=not bands))
    with rasterio.open(tmp_path / "masks" / "a.ome.tif") as file:
        assert file.overviews(1) == [2, 4]
    names = {path.name for path in (tmp_path / "masks").rglob("*") if path.is_file()}
    assert names == {"a.ome.tif", "segcli.jsonl"}


def test_what_belongs_to_an_earlier_mask_is_named(
    tmp_path: Path, weights: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the mask is another one, not where it is the same without them."""
    scan = tmp_path / "a.tif"
    tifffile.imwrite(scan, blobs(rng, 40, 50))
    assert predict(tmp_path, weights, scan, objects=True, polygons="geojson") == 0
    assert predict(tmp_path, weights, scan, polygons="geojson") == 0
    tifffile.imwrite(scan, blobs(rng, 40, 50))
    assert "earlier" not in capsys.readouterr().err
    assert predict(tmp_path, weights, scan, polygons="geojson") == 0
    left = [tmp_path / "masks" / "objects" / f"a{ending}" for ending in (".tif", ".csv", ".counts.csv")]
    assert f"{', '.join(map(str, left))}: of an earlier a.tif; remove or make it again\n" in capsys.readouterr().err
    assert all(path.exists() for path in left)
    others = brightness_model()
    others.network.head.bias.data[1] += 0.3  # all is light
    checkpoint.save(others, tmp_path / "others.safetensors")
    assert predict(tmp_path, tmp_path / "others.safetensors", scan, objects=True) == 0  # all anew
    left[1].write_text("mine")
    capsys.readouterr()
    for named in ("others.safetensors", weights):
        assert predict(tmp_path, tmp_path / named, scan) == 0
        said = capsys.readouterr().err
        assert (f"{left[0]}, {left[2]}" in said) == (named == weights)
        assert str(left[1]) not in said  # the user's own by now


def test_channels_are_no_colours_without_a_word(
    tmp_path: Path, weights: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for weights that learnt from channels, and for those that are chosen."""
    channels = rng.integers(0, 255, (3, 40, 50), np.uint8)
    write_ome_channels(tmp_path / "a.ome.tif", channels)
    said = "a.ome.tif: its 3 channels (DAPI, GFP, TRITC) are taken for red, green and blue; --bands 1 takes one"
    for more, is_said in (({}, True), ({"bands": (1, 2, 3)}, False), ({"bands": (2,)}, False)):
        assert predict(tmp_path, weights, tmp_path / "a.ome.tif", overwrite=True, **more) == 0
        assert (said in capsys.readouterr().err) == is_said
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for n in range(3):
        write_ome_channels(tmp_path / "data" / "images" / f"{n}.ome.tif", channels)
        cv2.imwrite(str(tmp_path / "data" / "masks" / f"{n}.ome.png"), (channels[0] > 127).astype(np.uint8))
    train = TrainOptions(tmp_path / "data", tmp_path / "run", epochs=1, width=2, depth=1, crop=32)
    assert train_on(train, Console(quiet=True)) == 0
    assert checkpoint.load(tmp_path / "run" / "best.safetensors").learnt == (1, 2, 3)
    assert predict(tmp_path, tmp_path / "run" / "best.safetensors", tmp_path / "a.ome.tif", overwrite=True) == 0
    assert "channels" not in capsys.readouterr().err


def test_many_files_of_channels_are_not_named_one_by_one(
    tmp_path: Path, weights: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = [tmp_path / f"{n}.ome.tif" for n in range(5)]
    for path in scans:
        write_ome_channels(path, rng.integers(0, 255, (3, 20, 30), np.uint8))
    for more in ({}, {"dry_run": True, "overwrite": True}):
        assert predict(tmp_path, weights, *scans, **more) == 0
        said = capsys.readouterr().err
        assert said.count("are taken for red, green and blue") == 4
        assert "\n2 more files: its 3 channels (DAPI, GFP, TRITC) are taken for red" in said


def write_ome_channels(path: Path, channels: np.ndarray) -> None:
    write_ome(path, channels, "CYX", Channel={"Name": ["DAPI", "GFP", "TRITC"]}, **PIXEL)


def write_imagej_channels(path: Path, channels: np.ndarray) -> None:
    tifffile.imwrite(path, channels, imagej=True, resolution=(2, 4), metadata={"axes": "CYX", "unit": "um"})


def write_imagej_behind_one_page(path: Path, channels: np.ndarray) -> None:
    said = f"ImageJ=1.54f\nimages={len(channels)}\nchannels={len(channels)}\nhyperstack=true\nunit=um\n"
    tifffile.imwrite(path, channels[0], description=said, metadata=None, resolution=(2, 4))
    with path.open("ab") as file:
        file.write(channels[1:].tobytes())


@pytest.mark.parametrize(
    "write_one", [write_ome_channels, write_imagej_channels, write_imagej_behind_one_page], ids=lambda one: one.__name__
)
def test_tiles_of_channels_are_no_colours(
    tmp_path: Path, rng: np.random.Generator, tile: Callable[..., int], write_one: Callable[[Path, np.ndarray], None]
) -> None:
    """Three channels in pages of their own go into TIFF, with the size of a pixel and OME's names, and come back."""
    channels = rng.integers(0, 60000, (3, 40, 64)).astype("<u2")
    write_one(tmp_path / "a.tif", channels)
    assert tile("a.tif", "--size", 32, "--edge", "keep", "--out", "t") == 0
    names = [path.name for path in sorted((tmp_path / "t").glob("a_*"))]
    assert names == [f"a_r{row:05}_c{col:05}.tif" for row in (0, 32) for col in (0, 32)]
    assert tile("t", "--join", "--out", "again.tif") == 0
    for path, expected in ((tmp_path / "t" / names[1], channels[:, :32, 32:]), (tmp_path / "again.tif", channels)):
        with Source(path) as source:
            assert source.grid.calibration == pytest.approx({"X": 0.5, "Y": 0.25})
            assert not source.begins_with_rgb
            assert source.band_names == (("DAPI", "GFP", "TRITC") if write_one is write_ome_channels else ("",) * 3)
            found = source.window(0, 0, source.grid.height, source.grid.width)
        np.testing.assert_array_equal(found, expected)


def test_tiles_of_scores_keep_their_scale(
    tmp_path: Path, weights: Path, rng: np.random.Generator, tile: Callable[..., int]
) -> None:
    """As they have it where they lie in one page."""
    scan = write_ome(tmp_path / "a.ome.tif", blobs(rng, 40, 64), "YX")
    assert predict(tmp_path, weights, scan, probabilities=True) == 0
    assert tile("masks/probabilities/a.ome.tif", "--size", 32, "--edge", "keep", "--out", "t") == 0
    with Source(tmp_path / "t" / "a.ome_r00000_c00000.tif", "mask") as source:
        assert (source.scales, source.band_names, source.nodata) == ((0.004, 0.004), ("dark", "light"), 255)
