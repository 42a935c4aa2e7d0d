"""Every output of predict, opened again with other libraries."""

import csv
import json
import math
import os
import signal
import time
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import tifffile
import torch
from helpers import brightness_model, write_picture
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasterio.transform import from_origin
from ready import Ready
from rio_cogeo.cogeo import cog_validate
from scipy import ndimage

from segcli import products
from segcli.classes import ClassEntry, ClassTable
from segcli.console import Console
from segcli.errors import InputError, UsageError
from segcli.network import checkpoint
from segcli.network.unet import NetworkConfig, UNet
from segcli.options import PredictOptions
from segcli.predict import run
from segcli.raster import measuring, vectors
from segcli.raster.ellipsoid import ellipsoid_of
from segcli.raster.images import open_images

UTM = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_300_000, 10, 10)}


def write_raster(path: Path, pixels: np.ndarray, **profile: object) -> Path:
    """(band, row, col) as a GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = pixels.shape
    size = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": pixels.dtype.name}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **(size | UTM | profile)) as file:
            file.write(pixels)
    return path


def predict(tmp_path: Path, weights: Path, *inputs: Path | str, **more: object) -> int:
    options = PredictOptions(inputs, tmp_path / "masks", (str(weights),), **more)  # type: ignore[arg-type]
    return run(options, Console(quiet=True))


@pytest.fixture
def scene(rng: np.random.Generator) -> np.ndarray:
    """(band, row, col), with a first band that is clearly light or dark."""
    pixels = rng.integers(0, 255, (3, 61, 83), np.uint8)
    pixels[0] = np.where(rng.random((61, 83)) > 0.5, 220, 30)
    return pixels


def labels_of(scene: np.ndarray) -> np.ndarray:
    return np.where(scene[0] > 127, 7, 2)


def test_a_mask_says_what_it_holds(tmp_path: Path, weights: Path, scene: np.ndarray) -> None:
    """Colours, names, statistics and no data, inside the file; nothing beside it."""
    turned = rasterio.Affine(8, 3, 500_000, 2, -9, 5_300_000)
    scan = write_raster(tmp_path / "a.tif", scene, transform=turned)
    assert predict(tmp_path, weights, scan) == 0
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["a.tif", "segcli.jsonl"]
    with rasterio.open(tmp_path / "masks" / "a.tif") as mask:
        assert (mask.crs.to_epsg(), mask.transform, mask.shape) == (32633, turned, scene.shape[1:])
        assert mask.nodata == 255
        assert mask.colormap(1)[7][:3] == (250, 200, 0)
        assert mask.descriptions == ("class",)
        tags = mask.tags(1)
        assert (tags["CLASS_2"], tags["CLASS_7"]) == ("dark", "light")
        found = mask.read(1)
        assert np.array_equal(found, labels_of(scene))
        assert float(tags["STATISTICS_MEAN"]) == pytest.approx(found.mean())
        assert float(tags["STATISTICS_STDDEV"]) == pytest.approx(found.std())
        assert (tags["STATISTICS_MINIMUM"], tags["STATISTICS_MAXIMUM"]) == ("2", "7")
        assert mask.compression.name == "deflate"


def test_control_points_and_rational_polynomials_come_along(tmp_path: Path, weights: Path, scene: np.ndarray) -> None:
    points = [GroundControlPoint(row, col, 10 + col, 50 - row) for row in (0, 60) for col in (0, 80)]
    first = write_raster(tmp_path / "gcps.tif", scene, crs=None, transform=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(first, "r+") as file:
            file.gcps = points, "EPSG:4326"
    second = write_raster(tmp_path / "rpcs.tif", scene, crs=None, transform=None)
    numbers = [float(n) for n in range(20)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(second, "r+") as file:
            file.rpcs = RPC(1.0, 2.0, 3.0, 4.0, numbers, numbers, 5.0, 6.0, 7.0, 8.0, numbers, numbers, 9.0, 10.0)
    assert predict(tmp_path, weights, first, second) == 0
    with rasterio.open(tmp_path / "masks" / "gcps.tif") as mask:
        found, crs = mask.gcps
        assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row, p.col, p.x, p.y) for p in points]
        assert crs.to_epsg() == 4326
    with rasterio.open(tmp_path / "masks" / "rpcs.tif") as mask:
        assert mask.rpcs.line_num_coeff == numbers
        assert mask.rpcs.height_off == 1.0


@pytest.mark.parametrize("compress", ["deflate", "zstd", "lzw", "packbits", "none"])
def test_compressions(tmp_path: Path, weights: Path, scene: np.ndarray, compress: str) -> None:
    scan = write_raster(tmp_path / "a.tif", scene)
    assert predict(tmp_path, weights, scan, compress=compress) == 0
    with rasterio.open(tmp_path / "masks" / "a.tif") as mask:
        assert (mask.compression.name if mask.compression else "none") == compress
        assert np.array_equal(mask.read(1), labels_of(scene))


def test_large_masks_have_overviews_of_the_most_frequent_class(
    tmp_path: Path, weights: Path, rng: np.random.Generator
) -> None:
    coarse = np.where(rng.random((280, 260)) > 0.5, 220, 30).astype(np.uint8)
    scan = write_raster(tmp_path / "a.tif", np.stack([coarse.repeat(4, 0).repeat(4, 1)] * 3))
    assert predict(tmp_path, weights, scan) == 0
    with rasterio.open(tmp_path / "masks" / "a.tif") as mask:
        assert mask.overviews(1) == [2, 4]
        assert mask.block_shapes == [(512, 512)]
    with rasterio.open(tmp_path / "masks" / "a.tif", overview_level=1) as small:
        assert np.array_equal(small.read(1), np.where(coarse > 127, 7, 2))


def test_cloud_optimised(tmp_path: Path, weights: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 255, (3, 1100, 1300), np.uint8)
    scan = write_raster(tmp_path / "a.tif", pixels, nodata=0)
    assert predict(tmp_path, weights, scan, format="cog", probabilities=True, overlay=True) == 0
    for name in ("a.tif", "probabilities/a.tif", "overlays/a.tif"):
        valid, errors, warnings = cog_validate(tmp_path / "masks" / name, strict=True, quiet=True)
        assert (valid, errors, warnings) == (True, [], []), name
    with rasterio.open(tmp_path / "masks" / "a.tif") as mask:
        assert mask.colormap(1)[7][:3] == (250, 200, 0)
        assert mask.nodata == 255
        assert mask.tags(1)["CLASS_7"] == "light"
        assert mask.crs.to_epsg() == 32633
    assert not list((tmp_path / "masks").rglob("*segcli-part*"))


def test_no_data_stays_no_data(tmp_path: Path, weights: Path, scene: np.ndarray) -> None:
    """By nodata, alpha, NaN and mask band; and zero is a value like others where nobody says otherwise."""
    scene[1:] = 9
    hole = np.zeros(scene.shape[1:], bool)
    hole[5:20, 10:30] = True
    marked = np.where(hole, 200, np.where(scene == 200, 201, scene)).astype(np.uint8)
    alpha = np.where(hole, 0, 1).astype(np.uint8)[None]  # a faint alpha is data
    nan = np.where(hole, np.nan, scene.astype(np.float32))
    files = [
        write_raster(tmp_path / "in" / "nodata.tif", marked, nodata=200),
        write_raster(tmp_path / "in" / "alpha.tif", np.concatenate([scene, alpha]), photometric="RGB", alpha="YES"),
        write_raster(tmp_path / "in" / "masked.tif", scene),
        write_raster(tmp_path / "in" / "zero.tif", np.where(hole, 0, scene)),
    ]
    with rasterio.open(files[2], "r+") as file:
        file.write_mask(~hole)
    assert predict(tmp_path, weights, tmp_path / "in") == 0
    assert predict(tmp_path, weights, write_raster(tmp_path / "nan.tif", nan), input_range=(0.0, 255.0)) == 0
    for path in (tmp_path / "masks").glob("*.tif"):
        with rasterio.open(path) as mask:
            found, valid = mask.read(1), mask.dataset_mask() > 0
        empty = hole if path.stem != "zero" else np.zeros_like(hole)
        assert np.array_equal(valid, ~empty), path
        assert (found[empty] == 255).all()
        assert np.array_equal(found[~hole], labels_of(scene)[~hole])


def test_no_data_reaches_nothing_beside_it(tmp_path: Path, rng: np.random.Generator) -> None:
    """-9999 beside a pixel would swamp it; what is not there must not matter, whatever number stands for it."""
    torch.manual_seed(3)
    known = brightness_model()
    network = UNet(NetworkConfig(3, 2, 4, 2)).eval()
    checkpoint.save(checkpoint.Model(network, known.normalisation, known.classes), tmp_path / "w.safetensors")
    pixels = rng.integers(0, 255, (3, 90, 70)).astype(np.float32)
    masks = []
    for n, value in enumerate((-9999.0, 1e30, math.nan, math.inf)):
        holed = pixels.copy()
        holed[:, 30:60, 20:] = value
        scan = write_raster(tmp_path / f"{n}.tif", holed, nodata=value)
        assert predict(tmp_path, tmp_path / "w.safetensors", scan, input_range=(0.0, 255.0)) == 0
        with rasterio.open(tmp_path / "masks" / f"{n}.tif") as mask:
            masks.append(mask.read(1))
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    assert (masks[0][30:60, 20:] == 255).all()
    assert set(np.unique(masks[0])) == {2, 7, 255}


def shares(scene: np.ndarray) -> np.ndarray:
    """What the model with a known answer gives by softmax, (class, row, col)."""
    light = np.maximum(0, (scene[0].astype(np.float64) - 127.5) / 127.5)
    scores = np.exp(np.stack([np.full_like(light, 1e-3), light]))
    return scores / scores.sum(0)


@pytest.mark.parametrize(("quantity", "tolerance"), [("uint8", 0.0021), ("float16", 1e-3), ("float32", 1e-6)])
def test_probabilities_and_confidence(
    tmp_path: Path, weights: Path, scene: np.ndarray, quantity: str, tolerance: float
) -> None:
    scene[0] = np.arange(61 * 83).reshape(61, 83) % 256
    scan = write_raster(tmp_path / "a.tif", scene, nodata=3)
    more = {"probabilities": True, "confidence": True, "quantity": quantity}
    assert predict(tmp_path, weights, scan, **more) == 0
    valid = ~(scene == 3).all(0)
    wanted = shares(scene)
    with rasterio.open(tmp_path / "masks" / "probabilities" / "a.tif") as file:
        assert (file.crs.to_epsg(), file.shape, file.descriptions) == (32633, (61, 83), ("dark", "light"))
        assert file.dtypes[0] == ("uint8" if quantity == "uint8" else "float32")
        assert np.array_equal(file.dataset_mask() > 0, valid)
        stored = file.read()
        for n in range(2):
            tags, kept = file.tags(n + 1), stored[n][valid].astype(np.float64)
            assert float(tags["STATISTICS_MEAN"]) == pytest.approx(kept.mean())
            assert float(tags["STATISTICS_STDDEV"]) == pytest.approx(kept.std(), rel=1e-3)
            assert float(tags["STATISTICS_MINIMUM"]) == pytest.approx(kept.min())
            assert float(tags["STATISTICS_MAXIMUM"]) == pytest.approx(kept.max())
            assert float(tags["STATISTICS_VALID_PERCENT"]) == pytest.approx(100 * valid.mean(), abs=0.01)
        found = stored * file.scales[0]
        assert np.abs(found - wanted)[:, valid].max() <= tolerance
    with rasterio.open(tmp_path / "masks" / "confidence" / "a.tif") as file:
        top, entropy = file.read() * file.scales[0]
        assert np.abs(top - wanted.max(0))[valid].max() <= tolerance
        expected = -(wanted * np.log(wanted)).sum(0) / math.log(2)
        assert np.abs(entropy - expected)[valid].max() <= tolerance
        assert file.descriptions == ("top probability", "entropy")


def test_quantised_probabilities_leave_255_free() -> None:
    classes = ClassTable((ClassEntry(0, "a", (0, 0, 0)), ClassEntry(1, "b", (1, 1, 1))))
    scores = torch.tensor([[-100.0, 100.0], [100.0, -100.0]]).reshape(1, 2, 1, 2)
    assert products.probabilities(classes, "uint8").make(scores).tolist() == [[[[0, 250]], [[250, 0]]]]
    single = products.confidence("uint8").make(torch.zeros(1, 1, 1, 1))
    assert single.ravel().tolist() == [250, 0]


def polygons_of(path: Path) -> tuple[list[dict[str, object]], list[shapely.Polygon], str | None]:
    meta, _, geometry, columns = pyogrio.raw.read(path)
    rows = [dict(zip(meta["fields"], values, strict=True)) for values in zip(*columns, strict=True)]
    return rows, list(shapely.from_wkb(geometry)), meta["crs"]


@pytest.mark.parametrize("chosen", ["gpkg", "geojson", "fgb"])
def test_polygons_are_the_sets_of_pixels(
    tmp_path: Path, weights: Path, rng: np.random.Generator, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against scipy's labels: area, mean confidence and number; over the borders of strips and batches."""
    monkeypatch.setattr("segcli.raster.vectors.BATCH", 7)
    monkeypatch.setattr("segcli.raster.objects.STRIP_PIXELS", 83 * 5)
    scene = np.full((3, 61, 83), 30, np.uint8)
    blobs = ndimage.gaussian_filter(rng.random((61, 83)), 2) > 0.5
    scene[0] = np.where(blobs, 128 + rng.integers(1, 120, (61, 83)), scene[0])
    scan = write_raster(tmp_path / "a.tif", scene)
    assert predict(tmp_path, weights, scan, polygons=chosen, quantity="float32") == 0
    assert not (tmp_path / "masks" / "confidence").exists()
    rows, shapes, crs = polygons_of(tmp_path / "masks" / "polygons" / f"a.{chosen}")
    assert crs == ("EPSG:4326" if chosen == "geojson" else "EPSG:32633")
    top = shares(scene).max(0)
    found, expected = [], []
    for name, inside in (("light", blobs), ("dark", ~blobs)):
        sets, count = ndimage.label(inside)  # by edges
        for n in range(1, count + 1):
            expected.append((name, float((sets == n).sum()) * 100, round(float(top[sets == n].mean()), 3)))
    for row in rows:
        found.append((row["name"], row["area"], round(float(row["confidence"]), 3)))  # type: ignore[arg-type]
    assert sorted(n for n, _, _ in found) == sorted(n for n, _, _ in expected)
    np.testing.assert_allclose(sorted(a for _, a, _ in found), sorted(a for _, a, _ in expected))  # type: ignore[type-var]
    np.testing.assert_allclose(sorted(c for _, _, c in found), sorted(c for _, _, c in expected), atol=2e-3)
    if chosen != "geojson":
        for row, shape in zip(rows, shapes, strict=True):
            assert shape.is_valid
            assert shape.area == pytest.approx(row["area"])
            assert shape.length == pytest.approx(row["perimeter"])
    else:
        assert all(12 < shape.centroid.x < 18 and 47 < shape.centroid.y < 48.5 for shape in shapes)


def test_small_polygons_can_be_left_out_and_corners_cut(tmp_path: Path, weights: Path) -> None:
    scene = np.full((3, 60, 60), 30, np.uint8)
    scene[0, 5:8, 5:8] = 220
    scene[0, 20:50, 20:50] = np.where(np.add.outer(range(30), range(30)) < 45, 220, 30)
    scan = write_raster(tmp_path / "a.tif", scene)
    assert predict(tmp_path, weights, scan, polygons="gpkg", min_area=1000.0, simplify=10.0) == 0
    rows, shapes, _ = polygons_of(tmp_path / "masks" / "polygons" / "a.gpkg")
    assert sorted(str(row["name"]) for row in rows) == ["dark", "light"]
    light = next(shape for row, shape in zip(rows, shapes, strict=True) if row["name"] == "light")
    assert len(light.exterior.coords) < 12


def test_areas_of_degrees_are_square_metres(tmp_path: Path, weights: Path) -> None:
    """A square degree at 60 degrees north: 6 206 million square metres (by the formula of the ellipsoid)."""
    scene = np.full((3, 40, 40), 30, np.uint8)
    scene[0, 10:20, 10:20] = 220
    place = {"crs": "EPSG:4326", "transform": from_origin(9, 62, 0.1, 0.1)}
    assert predict(tmp_path, weights, write_raster(tmp_path / "a.tif", scene, **place), polygons="gpkg") == 0
    rows, _, _ = polygons_of(tmp_path / "masks" / "polygons" / "a.gpkg")
    area = next(float(row["area"]) for row in rows if row["name"] == "light")  # type: ignore[arg-type]
    # Spherical: R^2 * dlon * (sin 61 - sin 60); the ellipsoid differs by less than 0.6 %.
    sphere = 6_371_007.2**2 * math.radians(1) * (math.sin(math.radians(61)) - math.sin(math.radians(60)))
    assert area == pytest.approx(sphere, rel=0.006)


def test_polygons_of_an_image_without_any(tmp_path: Path, scene: np.ndarray) -> None:
    model = brightness_model()
    table = ClassTable((ClassEntry(2, "background", (0, 0, 0)), ClassEntry(7, "light", (9, 9, 9))))
    dark = checkpoint.Model(model.network, model.normalisation, table)
    checkpoint.save(dark, tmp_path / "w.safetensors")
    scan = write_picture(tmp_path / "a.png", np.full((20, 20, 3), 5, np.uint8))
    for chosen in ("gpkg", "geojson", "fgb"):
        assert predict(tmp_path, tmp_path / "w.safetensors", scan, polygons=chosen) == 0
        assert polygons_of(tmp_path / "masks" / "polygons" / f"a.{chosen}")[0] == []


def write_stack(path: Path, planes: np.ndarray, axes: str, **more: object) -> Path:
    tifffile.imwrite(path, planes, photometric="minisblack", metadata={"axes": axes}, **more)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(("name", "kind"), [("a.ome.tif", "ome"), ("a.tif", "imagej"), ("b.tif", "shaped")])
def test_stacks_come_back_as_stacks(
    tmp_path: Path, weights: Path, rng: np.random.Generator, name: str, kind: str
) -> None:
    axes = "TZCYX"
    planes = np.where(rng.random((2, 4, 3, 31, 45)) > 0.5, 220, 30).astype(np.uint8)
    scan = write_stack(tmp_path / name, planes, axes, ome=kind == "ome", imagej=kind == "imagej")
    assert predict(tmp_path, weights, scan, probabilities=True) == 0
    with tifffile.TiffFile(tmp_path / "masks" / name) as file:
        assert file.series[0].axes == "TZYX"
        assert kind in file.flags
        found = file.series[0].asarray()
        text = str(file.ome_metadata) + str(file.imagej_metadata) + str(file.shaped_metadata)
        assert "light" in text
    assert np.array_equal(found, np.where(planes[:, :, 0] > 127, 7, 2))
    with tifffile.TiffFile(tmp_path / "masks" / "probabilities" / name) as file:
        assert file.series[0].axes == "TZCYX"
        assert file.series[0].shape == (2, 4, 2, 31, 45)
    assert not list((tmp_path / "masks").rglob("*segcli-part*"))


@pytest.mark.parametrize("axes", ["YX", "TYX", "TCYX"])
def test_positions_of_a_stage_come_back_as_images_each(
    tmp_path: Path, weights: Path, rng: np.random.Generator, axes: str
) -> None:
    inner = (31, 45) if axes == "YX" else (4, 31, 45) if axes == "TYX" else (4, 3, 31, 45)
    positions = np.where(rng.random((3, *inner)) > 0.5, 220, 30).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for name, position in zip(("A1", "B2", ""), positions, strict=True):
            said = {"axes": axes, "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "Name": name}
            file.write(position, photometric="minisblack", metadata=said)
    assert predict(tmp_path, weights, tmp_path / "a.ome.tif", probabilities=True, objects=True) == 0
    for table in ("a.ome.csv", "a.ome.counts.csv"):
        lines = csv.DictReader((tmp_path / "masks" / "objects" / table).read_text().splitlines())
        assert {(line["I"], line["image"]) for line in lines} == {("0", "A1"), ("1", "B2"), ("2", "")}
    seen = positions[:, :, 0] if "C" in axes else positions
    outer = axes.replace("C", "")
    with tifffile.TiffFile(tmp_path / "masks" / "a.ome.tif") as file:
        assert [series.axes for series in file.series] == [outer] * 3
        assert [series.kind for series in file.series] == ["ome"] * 3
        assert str(file.ome_metadata).count('PhysicalSizeX="0.5"') == 3
        assert all(f'Name="{name}"' in str(file.ome_metadata) for name in ("A1", "B2"))
        for series, position in zip(file.series, seen, strict=True):
            assert np.array_equal(series.asarray(), np.where(position > 127, 7, 2))
    with tifffile.TiffFile(tmp_path / "masks" / "probabilities" / "a.ome.tif") as file:
        assert [series.axes for series in file.series] == [outer.replace("YX", "CYX")] * 3
    before = (tmp_path / "masks" / "a.ome.tif").read_bytes()
    assert predict(tmp_path, weights, tmp_path / "a.ome.tif", overwrite=True) == 0
    assert (tmp_path / "masks" / "a.ome.tif").read_bytes() == before  # no number is drawn for it
    with closing(open_images(tmp_path / "masks" / "a.ome.tif")) as images:  # and are read as they were written
        assert (images.axes, images.shape) == (f"I{outer[:-2]}", (3, *inner[: len(outer) - 2]))


@pytest.mark.parametrize("ome", [True, False])
def test_floats_of_stacks_need_no_other_package(tmp_path: Path, weights: Path, ome: bool) -> None:
    """tifffile's predictor of floats would; and OME knows no half ones, which is said before the work."""
    name = "a.ome.tif" if ome else "a.tif"
    planes = np.full((2, 3, 31, 45), 220, np.uint8)
    scan = write_stack(tmp_path / name, planes, "ZCYX", ome=ome)
    assert predict(tmp_path, weights, scan, confidence=True, quantity="float32") == 0
    with tifffile.TiffFile(tmp_path / "masks" / "confidence" / name) as file:
        assert {page.predictor for page in file.pages} == {1}  # type: ignore[union-attr]
        assert file.series[0].dtype == np.float32
    more = {"confidence": True, "quantity": "float16", "overwrite": True}
    assert predict(tmp_path, weights, scan, **more) == (1 if ome else 0)


def test_steps_are_kept_where_imagej_cannot_hold_the_values(tmp_path: Path, weights: Path) -> None:
    """Half floats: it is tifffile's own stack then, with ImageJ's names for what no tag of TIFF has."""
    said = {"axes": "TZYX", "unit": "um", "spacing": 1.5, "finterval": 20.0}
    tifffile.imwrite(tmp_path / "a.tif", np.full((2, 3, 31, 45), 220, np.uint8), imagej=True, resolution=(4, 2),
                     metadata=said)  # fmt: skip
    for quantity in ("float16", "float32"):
        out = tmp_path / "masks" / "confidence" / "a.tif"
        assert predict(tmp_path, weights, tmp_path / "a.tif", confidence=True, quantity=quantity, overwrite=True) == 0
        with tifffile.TiffFile(out) as file:
            assert (file.is_imagej, file.is_shaped) == ((False, True) if quantity == "float16" else (True, False))
        with closing(open_images(out)) as images:
            steps = images.planes[0].grid.calibration
            assert (images.axes, steps) == ("TZ", pytest.approx({"X": 0.25, "Y": 0.5, "Z": 1.5, "T": 20.0}))


@pytest.mark.parametrize("quantity", ["float16", "float32"])
def test_no_size_of_a_pixel_is_made_up(tmp_path: Path, weights: Path, quantity: str) -> None:
    """Where the distance of planes alone is known."""
    said = {"axes": "ZYX", "spacing": 2.5, "unit": "pixel", "zunit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", np.full((3, 31, 45), 220, np.uint8), imagej=True, metadata=said)
    assert predict(tmp_path, weights, tmp_path / "a.tif", confidence=True, quantity=quantity) == 0
    for path in (tmp_path / "a.tif", tmp_path / "masks" / "a.tif", tmp_path / "masks" / "confidence" / "a.tif"):
        with closing(open_images(path)) as images:
            assert images.planes[0].grid.calibration == {"Z": 2.5}, path


@pytest.mark.parametrize(("said", "expected"), [
    ({"spacing": 1.5, "unit": "um"}, {"X": 0.5, "Y": 0.25, "Z": 1.5}),
    ({"spacing": 1.5}, {"X": 0.5, "Y": 0.25}),  # of what, nobody knows
    ({"spacing": 1.5, "zunit": "um"}, {"X": 0.5, "Y": 0.25, "Z": 1.5}),
    ({"spacing": 2, "unit": "nm", "finterval": 3, "tunit": "min"}, {"X": 0.5, "Y": 0.25, "Z": 0.002, "T": 180.0}),
])  # fmt: skip
def test_steps_that_users_of_tifffile_write(tmp_path: Path, said: dict[str, Any], expected: dict[str, float]) -> None:
    """Sizes of pixels are the tags', which have a unit of their own."""
    tags = {"photometric": "minisblack", "resolution": (20000, 40000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 31, 45), np.uint8), metadata={"axes": "ZYX"} | said, **tags)
    with closing(open_images(tmp_path / "a.tif")) as images:
        assert images.planes[0].grid.calibration == pytest.approx(expected)


def test_pages_of_different_sizes(tmp_path: Path, weights: Path, rng: np.random.Generator) -> None:
    pages = [np.where(rng.random(size) > 0.5, 220, 30).astype(np.uint8) for size in ((40, 50), (25, 31), (40, 50))]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in pages:
            file.write(page, photometric="minisblack", contiguous=False, metadata=None)
    assert predict(tmp_path, weights, tmp_path / "a.tif") == 0
    with tifffile.TiffFile(tmp_path / "masks" / "a.tif") as file:
        assert len(file.pages) == 3
        for page, mask in zip(pages, file.pages, strict=True):
            assert np.array_equal(mask.asarray(), np.where(page > 127, 7, 2))


def test_the_level_that_was_asked_for(tmp_path: Path, weights: Path, rng: np.random.Generator) -> None:
    """By number and by micrometres: OME pyramids, and overviews of a COG whose pixels are 10 m."""
    levels = [np.where(rng.random((n, n)) > 0.5, 220, 30).astype(np.uint8) for n in (256, 128, 64)]
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        size = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm"}
        for n, level in enumerate(levels):
            more = {"subifds": 2, "metadata": {"axes": "YX", **size}} if n == 0 else {"subfiletype": 1}
            file.write(level, photometric="minisblack", tile=(64, 64), **more)  # type: ignore[arg-type]
    ways = ({}, {"level": 1}, {"mpp": 1.0}, {"level": 2})
    for way, level in zip(ways, (0, 1, 2, 2), strict=True):
        assert predict(tmp_path, weights, tmp_path / "a.ome.tif", **way) == 0
        with tifffile.TiffFile(tmp_path / "masks" / "a.ome.tif") as file:
            assert np.array_equal(file.series[0].asarray(), np.where(levels[level] > 127, 7, 2))
    assert predict(tmp_path, weights, tmp_path / "a.ome.tif", level=3) == 1
    assert predict(tmp_path, weights, tmp_path / "a.ome.tif", mpp=7.0) == 1
    fine = np.where(rng.random((1, 600, 600)) > 0.5, 220, 30).astype(np.uint8)
    scan = write_raster(tmp_path / "cog.tif", fine)
    with rasterio.open(scan, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
    for way in ({"level": 1}, {"mpp": 20e6}):
        assert predict(tmp_path, weights, scan, **way) == 0
        with rasterio.open(tmp_path / "masks" / "cog.tif") as mask:
            assert mask.shape == (300, 300)
            assert mask.transform.a == 20
            assert np.array_equal(mask.read(1), np.where(fine[0, ::2, ::2] > 127, 7, 2))


@pytest.mark.parametrize("degrees", [0, 60, 90])
def test_the_size_of_turned_pixels_is_their_side(tmp_path: Path, degrees: float) -> None:
    """On a raster that was rotated, a step to the right is not along x."""
    turned = rasterio.Affine.translation(500_000, 5_000_000) @ rasterio.Affine.rotation(degrees)
    scan = write_raster(tmp_path / "a.tif", np.zeros((1, 600, 600), np.uint8), transform=turned @ turned.scale(10, -10))
    with rasterio.open(scan, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
    for mpp, width in ((10e6, 600), (20e6, 300)):
        with closing(open_images(scan, mpp=mpp)) as images:
            assert images.planes[0].grid.width == width


def test_small_polygons_far_from_the_origin_keep_their_digits() -> None:
    corner = np.array([512_345.0, 5_234_567.0])
    ring = corner + np.array([[0, 0], [0.03, 0], [0.03, 0.02], [0, 0.02], [0, 0]])
    area, perimeter = measuring.in_plane([ring])
    assert area == pytest.approx(6e-4, rel=1e-5)
    assert perimeter == pytest.approx(0.1, rel=1e-5)


def test_areas_are_those_of_the_body_that_a_raster_lies_on() -> None:
    """A degree at the equator of Mars, a sphere here: between two parallels R^2 (sin b - sin a) times the angle."""
    mars = CRS.from_wkt('GEOGCS["Mars 2000",DATUM["D_Mars_2000",SPHEROID["Mars_2000",3396190,0]],'
                        'PRIMEM["Reference_Meridian",0],UNIT["Degree",0.0174532925199433]]')  # fmt: skip
    ring = np.array([[0.0, 0.0], [1, 0], [1, 1], [0, 1], [0, 0]])
    area, perimeter = measuring.in_degrees([ring], ellipsoid_of(mars))
    assert area == pytest.approx(3_396_190**2 * np.radians(1) * np.sin(np.radians(1)), rel=1e-9)
    assert perimeter == pytest.approx(3_396_190 * np.radians(3 + np.cos(np.radians(1))), rel=1e-9)
    vectors.check_on_earth("a.tif", CRS.from_epsg(32633))
    with pytest.raises(InputError, match=r"a\.tif: lies on a body of 3396 km radius; GeoJSON is of the earth"):
        vectors.check_on_earth("a.tif", mars)


def test_options_without_a_part_are_refused(tmp_path: Path, weights: Path, scene: np.ndarray) -> None:
    scan = write_raster(tmp_path / "a.tif", scene)
    for option, value in (
        ("min_area", 3.0),
        ("alpha", 0.3),
        ("simplify", 1.0),
        ("quantity", "float32"),
        ("min_pixels", 5),
    ):
        with pytest.raises(UsageError, match=f"--{option.replace('_', '-')}: without --"):
            predict(tmp_path, weights, scan, **{option: value})
    assert not (tmp_path / "masks").exists()


def test_bands_in_the_order_that_was_asked_for(tmp_path: Path, weights: Path, scene: np.ndarray) -> None:
    many = np.concatenate([scene[1:], np.zeros((2, 61, 83), np.uint8), scene[:1]])
    scan = write_raster(tmp_path / "a.tif", many)
    assert predict(tmp_path, weights, scan) == 1
    assert predict(tmp_path, weights, scan, bands=(5, 1, 2), overlay=True) == 0
    with rasterio.open(tmp_path / "masks" / "a.tif") as mask:
        assert np.array_equal(mask.read(1), labels_of(scene))
    with rasterio.open(tmp_path / "masks" / "overlays" / "a.tif") as over:
        clear = over.read()[:, labels_of(scene) == 2]
    shown = predict(tmp_path, weights, write_raster(tmp_path / "b.tif", scene), overlay=True)
    with rasterio.open(tmp_path / "masks" / "overlays" / "b.tif") as over:
        assert (shown, np.array_equal(clear, over.read()[:, labels_of(scene) == 2])) == (0, True)
    assert predict(tmp_path, weights, scan, bands=(6, 1, 2)) == 1
    with pytest.raises(UsageError, match="names 2 bands; the weights expect 3 or 1"):
        predict(tmp_path, weights, scan, bands=(5, 1))


def test_a_photograph_is_seen_upright(tmp_path: Path, weights: Path, rng: np.random.Generator) -> None:
    """As viewers show it, and so is its mask."""
    upright = np.where(rng.random((48, 64, 1)) > 0.5, 230, 20).astype(np.uint8).repeat(3, 2)
    exif = Image.Exif()
    exif[274] = 6
    for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.rot90(upright).copy()).save(path, exif=exif, quality=98, lossless=True)
        assert predict(tmp_path, weights, path) == 0
        (mask,) = (tmp_path / "masks").glob("a.*")
        with Image.open(mask) as shown:
            found = np.asarray(shown)
        assert found.shape == (48, 64), name
        assert (found == np.where(upright[:, :, 0] > 127, 7, 2)).mean() > 0.98, name
        mask.unlink()


def test_that_png_cannot_hold_a_place_is_said(
    tmp_path: Path, weights: Path, scene: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = write_raster(tmp_path / "a.tif", scene)
    options = PredictOptions((scan,), tmp_path / "masks", (str(weights),), format="png")
    assert run(options, Console()) == 0
    assert "PNG cannot hold where it lies on earth" in capsys.readouterr().err
    with Image.open(tmp_path / "masks" / "a.png") as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), labels_of(scene))


def test_names_in_geojson_are_json(tmp_path: Path, weights: Path, scene: np.ndarray) -> None:
    assert predict(tmp_path, weights, write_raster(tmp_path / "a.tif", scene), polygons="geojson") == 0
    data = json.loads((tmp_path / "masks" / "polygons" / "a.geojson").read_text())
    assert data["type"] == "FeatureCollection"
    assert {f["properties"]["name"] for f in data["features"]} == {"dark", "light"}


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("a.tif", "scratch"), ("a.tif", "rows"),  # which has no other part at its end
        ("a.png", "scratch"), ("a.png", "rows"), ("a.png", "end"),
        ("a.ome.tif", "scratch"), ("a.ome.tif", "rows"), ("a.ome.tif", "end"),
    ],
)  # fmt: skip
def test_a_kill_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, rng: np.random.Generator, ready: Ready, name: str, moment: str
) -> None:
    """SIGKILL while a mask is written again: the old one is whole, and the next run removes what was left."""
    model = brightness_model(depth=3)
    checkpoint.save(model, tmp_path / "w.safetensors")
    pixels = np.where(rng.random((300, 3000)) > 0.5, 220, 30).astype(np.uint8)
    if name == "a.ome.tif":
        write_stack(tmp_path / name, np.stack([pixels] * 3), "ZYX", ome=True)
    else:
        write_picture(tmp_path / name, pixels)
    masks = tmp_path / "masks"
    old = masks / name
    masks.mkdir()
    expected = np.where(pixels > 127, 7, 2)

    def found() -> np.ndarray:
        return tifffile.imread(old) if name.endswith("tif") else np.asarray(Image.open(old))

    command = ["predict", tmp_path / name, "--out", masks, "--overwrite", "--weights", tmp_path / "w.safetensors"]
    for _ in range(5):  # on a busy machine the moment may be over before it is seen
        old.write_bytes(b"old")
        with Path(os.devnull).open("w") as nowhere:
            running = ready.start(command, tmp_path, nowhere.fileno(), nowhere.fileno())
        begun, is_there = time.monotonic(), False
        while not (is_there or running.has_ended() or time.monotonic() - begun > 60):
            parts = list(masks.glob(".*segcli-part/*"))
            size = max((part.stat().st_size for part in parts if part.exists()), default=0)
            is_there = bool({"scratch": parts, "rows": size > 5000, "end": len(parts) > 1}[moment])
            time.sleep(0 if is_there else 0.002)
        running.kill()
        if running.wait() == -signal.SIGKILL and is_there:
            break
    else:
        pytest.fail("never killed at that moment")
    assert old.read_bytes() == b"old" or (found() == expected).all()
    for path in masks.iterdir():
        assert path == old or path.name.startswith(".") or path.name == "segcli.jsonl"
    assert ready.run(command, tmp_path).returncode == 0
    assert sorted(path.name for path in masks.iterdir()) == sorted([name, "segcli.jsonl"])
    assert (found() == expected).all()
