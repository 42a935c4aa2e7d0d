"""segcli tile: what is in the tiles, which there are, and that a join gives the raster back."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
import shapely
from helpers import SHARED, write_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasterio.transform import from_origin
from rasterio.warp import transform_geom
from rasterio.windows import Window
from ready import Ready, Running

from segcli.files import PART
from segcli.raster.names import rasters_in
from segcli.raster.readers import GdalReader
from segcli.raster.source import Source
from segcli.raster.stored import lost, stored
from segcli.tiling import cutting

Tile = Callable[..., int]
Program = Callable[..., subprocess.CompletedProcess[str]]
PLACE: dict[str, Any] = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_300_000, 2, 2)}


def write_raster(path: Path, pixels: np.ndarray, valid: np.ndarray | None = None, **more: Any) -> Path:
    """(band, row, col) as a GeoTIFF; `kinds` and `colors` are said after it is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds, colors = more.pop("kinds", None), more.pop("colors", None)
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **(profile | PLACE | more)) as file:
        if kinds:
            file.colorinterp = kinds
        if colors:
            file.write_colormap(1, colors)
        if valid is not None:
            file.write_mask(valid)
        file.write(pixels)
    return path


def whole(path: Path) -> np.ndarray:
    with Source(path, "stored") as source:
        return source.patch(0, 0, source.grid.height, source.grid.width)[0]


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "tiles.json").read_text())
    return found


def tiles_of(folder: Path) -> list[dict[str, Any]]:
    return [tile for source in manifest(folder)["sources"] for tile in source["tiles"]]


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def noise(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """Any bits: NaN of all kinds among floats."""
    size = np.dtype(dtype).itemsize
    return np.random.default_rng(seed).integers(0, 256, (*shape[:-1], shape[-1] * size), np.uint8).view(dtype)


# Cutting


def test_a_geotiff_gives_geotiffs_with_their_own_place(tmp_path: Path, tile: Tile) -> None:
    pixels = noise((3, 700, 900), "uint16")
    write_raster(tmp_path / "big.tif", pixels, nodata=0, kinds=(ColorInterp.red, ColorInterp.green, ColorInterp.blue))
    assert tile("big.tif", "--overlap", 20, "--size", 300) == 0
    folder = tmp_path / "big_tiles"
    names = [f"big_r{row:05d}_c{col:05d}.tif" for row in (0, 280, 400) for col in (0, 280, 560, 600)]
    assert files_in(folder) == sorted([*names, "tiles.json"])
    for name in names:
        row, col = int(name[5:10]), int(name[12:17])
        with rasterio.open(folder / name) as file:
            assert np.array_equal(file.read(), pixels[:, row : row + 300, col : col + 300])
            assert (file.crs, file.nodata) == (rasterio.crs.CRS.from_epsg(32633), 0)
            assert file.transform == from_origin(500_000 + 2 * col, 5_300_000 - 2 * row, 2, 2)
            assert file.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    found = manifest(folder)
    assert found["format"] == 1
    assert (found["options"]["size"], found["options"]["overlap"], found["options"]["edge"]) == (300, 20, "shift")
    (source,) = found["sources"]
    assert (source["name"], source["file"], source["height"], source["width"]) == ("big", "../big.tif", 700, 900)
    assert source["transform"] == list(PLACE["transform"])[:6]
    assert rasterio.crs.CRS.from_wkt(source["crs"]) == rasterio.crs.CRS.from_epsg(32633)
    assert (source["stored"]["bands"], source["stored"]["dtype"], source["stored"]["nodata"]) == (3, "uint16", 0)
    assert [entry["name"] for entry in source["tiles"]] == names
    assert all(0.999 < entry["valid"] <= 1 for entry in source["tiles"])


KINDS: dict[str, dict[str, Any]] = {
    "plain": {"bands": 2},
    "nodata": {"bands": 3, "nodata": 7},
    "rgba": {"bands": 4, "photometric": "RGB", "alpha": "YES"},
    "bgr": {"bands": 3, "kinds": (ColorInterp.blue, ColorInterp.green, ColorInterp.red), "photometric": "MINISBLACK"},
    "masked": {"bands": 3, "mask": True},
    "many": {"bands": 11, "nodata": 0},
    "nan": {"bands": 1, "nodata": float("nan")},
    "palette": {"bands": 1, "colors": {n: (n, 255 - n, 7, 255) for n in range(256)}},
    "bits": {"bands": 1, "nbits": 1},
    "half": {"bands": 1, "nbits": 16},
}
ALL_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
              "float32", "float64", "complex64", "complex128")  # fmt: skip


def draw_raster(path: Path, kind: str, dtype: str, height: int, width: int, seed: int) -> Path:
    more = dict(KINDS[kind])
    pixels = noise((more.pop("bands"), height, width), dtype, seed)
    if kind == "bits":
        pixels &= 1
    if kind == "half":
        pixels = np.random.default_rng(seed).normal(size=pixels.shape).astype(np.float16).astype(np.float32)
    valid = np.random.default_rng(seed).random((height, width)) > 0.3 if more.pop("mask", False) else None
    return write_raster(path, pixels, valid, **more)


def dtype_for(kind: str, dtype: str) -> str:
    return {"palette": "uint8", "bits": "uint8", "half": "float32", "nan": "float32", "masked": "uint16"}.get(
        kind, dtype
    )


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(KINDS)), st.sampled_from(ALL_DTYPES), st.integers(1, 75), st.integers(1, 75),
    st.integers(1, 40), st.data(), st.sampled_from(["shift", "pad", "keep", "drop"]),
    st.sampled_from(["auto", "cut", "average"]), st.integers(1, 3),
)  # fmt: skip
def test_tile_then_join_is_the_source(
    tmp_path: Path, tile: Tile, kind: str, dtype: str, height: int, width: int, size: int, data: st.DataObject,
    edge: str, merge: str, jobs: int,
) -> None:  # fmt: skip
    """To the last bit, with all that the file says, whatever the kind, dtype, edge, overlap and way to join; a border
    that was dropped is no data."""
    size = max(size, max(height, width) // 12, 3)
    step = max(size // 4, max(height, width) // 12, 1)  # a pixel is in up to five tiles a side
    overlap = data.draw(st.integers(0, max(0, size - step)))
    dtype = dtype_for(kind, dtype)
    shutil.rmtree(tmp_path / "tiles", ignore_errors=True)
    path = draw_raster(tmp_path / "a.tif", kind, dtype, height, width, height * 100 + width)
    code = tile(path, "-o", "tiles", "--size", size, "--overlap", overlap, "--edge", edge, "-j", jobs, "-q")
    if edge == "drop" and size > min(height, width):
        assert code == 1
        return
    assert code == 0
    if dtype in ("int64", "uint64") and merge == "average":
        merge = "cut"
    assert tile("tiles", "--join", "-o", "b.tif", "--merge", merge, "-q", "-j", jobs, "--overwrite") == 0
    with Source(path, "stored") as one, Source(tmp_path / "b.tif", "stored") as other:
        assert one.grid == other.grid
        expected, known = one.patch(0, 0, height, width)
        found, valid = other.patch(0, 0, height, width)
        assert found.dtype == expected.dtype
        steps = [(length - size) // (size - overlap) * (size - overlap) + size for length in (height, width)]
        rows, cols = steps if edge == "drop" else (height, width)
        assert found[:, :rows, :cols].tobytes() == expected[:, :rows, :cols].tobytes()
        known, valid = (np.ones((height, width), bool) if part is None else part for part in (known, valid))
        assert np.array_equal(valid[:rows, :cols], known[:rows, :cols])
        if (rows, cols) == (height, width):
            assert stored(one).to_json() == stored(other).to_json()
        else:
            assert not lost(stored(one), stored(other)) or not stored(one).can_be_empty
            empty = stored(one).empty
            for border in (found[:, rows:], found[:, :, cols:]):
                assert border.tobytes() == np.full_like(border, empty).tobytes()
            if stored(one).can_be_empty:
                assert not valid[rows:].any()
                assert not valid[:, cols:].any()


def test_pictures_give_pictures(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    """PNG keeps what a picture has; what it cannot hold goes into TIFF, or is said, or refused."""
    write_picture(tmp_path / "in" / "rgb.png", noise((40, 50, 3)))
    write_picture(tmp_path / "in" / "rgba.png", noise((40, 50, 4), "uint16"))
    cv2.imwrite(str(tmp_path / "in" / "photo.jpg"), noise((40, 50, 3)))
    cv2.imwrite(str(tmp_path / "in" / "float.tif"), noise((40, 50), "uint8").astype(np.float32))
    assert tile("in", "--size", 32, "--out", "out", "--edge", "keep") == 0
    names = files_in(tmp_path / "out")
    for stem, ending in (("rgb", "png"), ("rgba", "png"), ("photo", "png"), ("float", "tif")):
        assert sum(name.startswith(f"{stem}_r") and name.endswith(ending) for name in names) == 4
    assert np.array_equal(
        whole(tmp_path / "out" / "rgba_r00032_c00032.png"), whole(tmp_path / "in" / "rgba.png")[:, 32:, 32:]
    )
    assert tile("out", "--join", "--out", "again") == 0
    for name in ("rgb.png", "rgba.png"):
        assert np.array_equal(whole(tmp_path / "again" / name), whole(tmp_path / "in" / name))
    assert tile("in/rgb.png", "--size", 32, "--edge", "drop", "--out", "part") == 0
    capsys.readouterr()
    assert tile("part", "--join", "--out", "part.png") == 0
    assert "part.png: cannot keep the mask" in lines(capsys)
    assert not [name for name in files_in(tmp_path) if name.startswith(".")]
    assert tile("in/float.tif", "--format", "png", "--out", "no") == 1
    assert "float.tif: 1 bands of float32; PNG cannot hold them" in capsys.readouterr().err
    write_raster(tmp_path / "geo.tif", noise((3, 40, 50)), np.ones((40, 50), bool))
    assert tile("geo.tif", "--format", "png", "--size", 32, "--edge", "pad") == 0
    said = capsys.readouterr().err
    assert "PNG tiles cannot keep where it lies on earth" in said
    assert "the mask" in said
    assert tile("geo_tiles", "--join", "-o", "geo2.tif") == 0
    with rasterio.open(tmp_path / "geo2.tif") as file:  # from tiles.json
        assert file.transform == PLACE["transform"]


def test_padding_is_no_data(tmp_path: Path, tile: Tile) -> None:
    write_raster(tmp_path / "nodata.tif", noise((2, 40, 40)) | 1, nodata=0)
    write_raster(tmp_path / "none.tif", noise((2, 40, 40)))
    write_picture(tmp_path / "picture.png", noise((40, 40, 3)))
    write_picture(tmp_path / "small.png", noise((5, 6, 3)))
    assert tile("nodata.tif", "none.tif", "picture.png", "small.png", "--size", 32, "--edge", "pad") == 0
    for stem, ending in (("nodata", "tif"), ("none", "tif"), ("picture", "tif")):
        path = tmp_path / f"{stem}_tiles" / f"{stem}_r00032_c00000.{ending}"
        with Source(path, "image") as source:
            pixels, valid = source.patch(0, 0, 32, 32)
        assert valid is not None
        assert valid[:8].all()
        assert not valid[8:].any()
        assert not pixels[:, 8:].any()
    shares = {entry["name"]: entry["valid"] for entry in tiles_of(tmp_path / "none_tiles")}
    assert shares["none_r00032_c00032.tif"] == 1 / 16
    assert whole(tmp_path / "small_tiles" / "small_r00000_c00000.tif").shape == (3, 32, 32)


def test_control_points_and_polynomials_move_with_the_tile(tmp_path: Path, tile: Tile) -> None:
    points = [GroundControlPoint(row, col, 10 + col / 100, 50 - row / 100) for row in (0, 60) for col in (0, 70)]
    more = {"gcps": points, "crs": "EPSG:4326", "transform": None}
    write_raster(tmp_path / "gcps.tif", noise((1, 60, 70)), **more)
    ones = [1.0] * 20
    rpcs = RPC(0, 1, 50.0, 1.0, ones, ones, 40.0, 100.0, 10.0, 1.0, ones, ones, 30.0, 90.0)
    path = write_raster(tmp_path / "rpcs.tif", noise((1, 60, 70)), transform=None, crs=None, rpcs=rpcs)
    assert tile("gcps.tif", path, "--size", 32) == 0
    with rasterio.open(tmp_path / "gcps_tiles" / "gcps_r00028_c00032.tif") as file:
        assert [(p.row, p.col, p.x, p.y) for p in file.gcps[0]] == [(p.row - 28, p.col - 32, p.x, p.y) for p in points]
    with rasterio.open(tmp_path / "rpcs_tiles" / "rpcs_r00028_c00032.tif") as file:
        assert (file.rpcs.line_off, file.rpcs.samp_off, file.rpcs.line_scale) == (12, -2, 100)
    assert tile("gcps_tiles", "rpcs_tiles", "--join", "--out", "again") == 0
    for name in ("gcps", "rpcs"):
        with Source(tmp_path / f"{name}.tif") as one, Source(tmp_path / "again" / f"{name}.tif") as other:
            assert [(p.row, p.col, p.x, p.y) for p in one.grid.gcps] == [
                (p.row, p.col, p.x, p.y) for p in other.grid.gcps
            ]
            assert one.grid.rpcs == other.grid.rpcs


def test_names_scales_and_classes_come_along(tmp_path: Path, tile: Tile) -> None:
    path = write_raster(tmp_path / "a.tif", noise((2, 40, 40), "int16"), nodata=-1)
    with rasterio.open(path, "r+") as file:
        file.descriptions, file.scales, file.offsets, file.units = ("red", "nir"), (0.5, 2.0), (1.0, 3.0), ("m", "K")
        file.update_tags(SENSOR="x")
        file.update_tags(1, CLASS_1="road")
    assert tile(path, "--size", 32) == 0
    with rasterio.open(tmp_path / "a_tiles" / "a_r00008_c00008.tif") as file:
        assert (file.descriptions, file.scales, file.offsets) == (("red", "nir"), (0.5, 2.0), (1.0, 3.0))
        assert (file.units, file.tags()["SENSOR"], file.tags(1)["CLASS_1"]) == (("m", "K"), "x", "road")


def test_a_photograph_is_cut_as_it_is_seen(tmp_path: Path, tile: Tile) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(noise((40, 64, 3))).save(tmp_path / "turned.jpg", exif=exif)
    assert tile("turned.jpg", "--size", 40, "--edge", "keep") == 0
    seen = whole(tmp_path / "turned.jpg")
    assert seen.shape == (3, 64, 40)
    assert np.array_equal(whole(tmp_path / "turned_tiles" / "turned_r00040_c00000.png"), seen[:, 40:])


def test_rows_are_decoded_once_and_memory_does_not_follow_the_height(
    tmp_path: Path, tile: Tile, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    peaks = []
    for height in (640, 6400):
        path = write_raster(tmp_path / f"h{height}.tif", noise((3, 64, 600)).repeat(height // 64, axis=1), **blocks)
        decoded = np.zeros((height // 64, 10), int)
        read = GdalReader.read

        def counting(self: Any, bands: Any, row: int, col: int, height: int, width: int) -> Any:
            if self.height > 128:
                decoded[row // 64 : -(-(row + height) // 64), col // 64 : -(-(col + width) // 64)] += 1  # noqa: B023
            return read(self, bands, row, col, height, width)  # noqa: B023

        monkeypatch.setattr(GdalReader, "read", counting)
        tracemalloc.start()
        assert tile(path, "--size", 128, "--overlap", 24, "-q") == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        assert (decoded == 1).all()
    assert peaks[1] < peaks[0] + 1.5e6  # the records of 310 tiles; the pixels are 11 MB


def test_several_threads_encode(tmp_path: Path, tile: Tile, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raster(tmp_path / "a.tif", noise((3, 600, 600)))
    threads: set[int] = set()
    write = cutting.write_whole

    def noting(*arguments: Any) -> None:
        threads.add(threading.get_ident())
        write(*arguments)

    monkeypatch.setattr(cutting, "write_whole", noting)
    for jobs in (1, 3):
        threads.clear()
        assert tile("a.tif", "--size", 64, "--jobs", jobs, "--overwrite", "-q") == 0
        assert len(threads) == jobs


def test_joining_needs_a_row_of_tiles(tmp_path: Path, tile: Tile) -> None:
    peaks = []
    for height in (800, 2400):
        path = write_raster(tmp_path / f"h{height}.tif", noise((1, 8, 600), "float32").repeat(height // 8, axis=1))
        assert tile(path, "--size", 128, "--overlap", 24, "-q") == 0
        tracemalloc.start()
        assert tile(f"h{height}_tiles", "--join", "-o", f"j{height}.tif", "-q") == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1e6, peaks  # the pixels are 5.8 MB


# Labels


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    """An image of 480 x 640 and its labels: ground, and two kinds of discs."""
    labels = np.zeros((480, 640), np.uint8)
    rng = np.random.default_rng(3)
    for n in range(60):
        cv2.circle(labels, tuple(map(int, rng.integers(0, (640, 480)))), 18, 1 + n % 2, -1)
    image = (60 + 70 * labels + rng.integers(0, 30, (3, 480, 640))).astype(np.uint8)
    photometric = {"photometric": "RGB"}
    write_raster(tmp_path / "labels.tif", labels[None], colors={0: (0, 0, 0), 1: (250, 0, 0), 2: (0, 0, 250)})
    return write_raster(tmp_path / "scene.tif", image, **photometric), tmp_path / "labels.tif"


def test_labels_are_cut_alongside_and_trained_on(
    tmp_path: Path, tile: Tile, scene: tuple[Path, Path], segcli: Program
) -> None:
    image, labels = scene
    table = {"classes": [{"index": n, "name": name} for n, name in enumerate(("ground", "pond", "roof"))]}
    (tmp_path / "classes.json").write_text(json.dumps(table))
    assert tile(image, "--masks", labels, "--size", 128, "--overlap", 8, "--out", "data", "--edge", "pad") == 0
    names = {kind: files_in(tmp_path / "data" / kind) for kind in ("images", "masks")}
    assert names["images"] == names["masks"]
    assert len(names["images"]) == 4 * 6
    name = "scene_r00360_c00600.tif"
    mask = whole(tmp_path / "data" / "masks" / name)[0]
    assert np.array_equal(mask[:120, :40], whole(labels)[0, 360:, 600:])
    assert (mask[120:] == 255).all()  # padding is no label
    assert (mask[:, 40:] == 255).all()
    entry = next(entry for entry in tiles_of(tmp_path / "data") if entry["name"].endswith(name))
    values, often = np.unique(whole(labels)[0, 360:, 600:], return_counts=True)
    assert entry["pixels"] == {str(value): count for value, count in zip(values, often, strict=True)}
    assert json.loads((tmp_path / "data" / "classes.json").read_text())["classes"][1]["name"] == "pond"
    assert segcli("train", "data", "--check").returncode == 0
    result = segcli("train", "data", "--out", "run", "--epochs", 1, "--width", 4, "--depth", 2, "--crop", 64)
    assert result.returncode == 0, result.stderr
    assert tile("data/masks", "--join", "--out", "again.tif") == 0
    assert np.array_equal(whole(tmp_path / "again.tif"), whole(labels))


@pytest.mark.parametrize("ending", [".gpkg", ".geojson"])
def test_polygons_of_another_reference_system_are_burnt(tmp_path: Path, tile: Tile, ending: str) -> None:
    import pyogrio.raw

    write_raster(tmp_path / "scene.tif", noise((3, 100, 120)))
    boxes = [(shapely.box(10, 10, 40, 60), "pond"), (shapely.box(50, 20, 110, 90), "roof")]
    to_metres = [500_000, 5_300_000]
    shapes = []
    for box, _ in boxes:
        metres = shapely.transform(box, lambda xy: np.array(to_metres) + xy * np.array([2, -2]))
        shapes.append(
            shapely.geometry.shape(transform_geom("EPSG:32633", "EPSG:4326", shapely.geometry.mapping(metres)))
        )
    columns = [np.array([kind for _, kind in boxes], object), np.array(["x", "x"], object)]
    pyogrio.raw.write(
        tmp_path / f"polygons{ending}", np.array([shapely.to_wkb(shape) for shape in shapes], object), columns,
        ["Covering", "class"], geometry_type="Polygon", crs="EPSG:4326",
        driver={".gpkg": "GPKG", ".geojson": "GeoJSON"}[ending],
    )  # fmt: skip
    masks = ("--masks", f"polygons{ending}", "--attribute", "Covering")
    assert tile("scene.tif", *masks, "--size", 50, "--out", "data") == 0
    expected = np.zeros((100, 120), np.uint8)
    expected[10:60, 10:40] = 1
    expected[20:90, 50:110] = 2
    for entry in tiles_of(tmp_path / "data"):
        row, col = entry["row"], entry["col"]
        found = whole(tmp_path / "data" / entry["mask"])[0]
        assert (found != expected[row : row + 50, col : col + 50]).mean() < 0.01  # an edge may fall beside it
        with rasterio.open(tmp_path / "data" / entry["mask"]) as file:
            assert file.tags(1)["CLASS_2"] == "roof"
            assert file.transform == from_origin(500_000 + 2 * col, 5_300_000 - 2 * row, 2, 2)
    table = json.loads((tmp_path / "data" / "classes.json").read_text())
    assert [entry["name"] for entry in table["classes"]] == ["background", "pond", "roof"]
    assert tile("scene.tif", "--masks", f"polygons{ending}", "--attribute", "Kind", "--out", "no") == 2


def test_a_folder_of_labels_is_matched_by_name(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(3):
        write_picture(tmp_path / "in" / f"{n}.png", noise((40, 40, 3), seed=n))
        write_picture(tmp_path / "labels" / f"{n}_mask.png", noise((40, 40), seed=n) % 3)
    write_picture(tmp_path / "labels" / "other.png", noise((9, 9)))
    assert tile("in", "--masks", "labels", "--size", 32, "--out", "data") == 0
    for n in range(3):
        name = f"{n}_r00008_c00008.png"
        assert np.array_equal(
            whole(tmp_path / "data" / "masks" / name)[0], whole(tmp_path / "labels" / f"{n}_mask.png")[0, 8:, 8:]
        )
        assert (tmp_path / "data" / "images" / name).exists()
    write_picture(tmp_path / "in" / "deep" / "0.png", noise((40, 40, 3)))
    write_picture(tmp_path / "labels" / "deep" / "0.png", np.full((40, 40), 7, np.uint8))
    assert tile("in", "--masks", "labels", "--recursive", "--out", "deep") == 0
    assert {entry["name"]: len(entry["pixels"]) for entry in tiles_of(tmp_path / "deep")}[
        "images/deep_0_r00000_c00000.png"
    ] == 1
    (tmp_path / "labels" / "1_mask.png").unlink()
    capsys.readouterr()
    assert tile("in", "--masks", "labels", "--out", "no") == 2
    assert "labels: has none for in/1.png" in lines(capsys)[-1]
    write_picture(tmp_path / "labels" / "1.png", noise((41, 40)) % 3)
    assert tile("in", "--masks", "labels", "--size", 32, "--out", "some") == 1
    said = lines(capsys)
    assert any("labels/1.png: 40 x 41 pixels on another grid; in/1.png has 40 x 40" in line for line in said)
    assert said[-1] == "done 2  up to date 0  failed 1"
    assert tile("in", "--masks", "labels/0_mask.png", "--out", "no") == 2
    assert tile("in/0.png", "--masks", "in/1.png", "--out", "no2") == 0  # colours are labels, too
    assert "#" in next(iter(tiles_of(tmp_path / "no2")[0]["pixels"]))


# Which tiles there are


def test_empty_tiles_are_left_out_and_counted(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str], scene: tuple[Path, Path]
) -> None:
    pixels = whole(scene[0])
    pixels[:, :, :128] = 0
    write_raster(scene[0], pixels, nodata=0)
    labels = whole(scene[1])
    labels[:, 200:] = 0
    write_raster(scene[1], labels)
    assert tile(*scene[:1], "--masks", scene[1], "--size", 64, "--min-valid", 0.5, "--min-label", 0.1, "-o", "d") == 0
    (source,) = manifest(tmp_path / "d")["sources"]
    assert len(source["tiles"]) + len(source["left_out"]) == 80
    for entry in (*source["tiles"], *source["left_out"]):
        place = (slice(entry["row"], entry["row"] + 64), slice(entry["col"], entry["col"] + 64))
        share = (labels[0][place] > 0).mean()
        empty = not pixels[:, *place].any(axis=0).mean() >= 0.5
        assert entry.get("why", "") == ("min-valid" if empty else "min-label" if share < 0.1 else "")
    reasons = [entry["why"] for entry in source["left_out"]]
    listed = f"{reasons.count('min-label')} min-label, {reasons.count('min-valid')} min-valid"
    assert f"tiles {len(source['tiles'])}  left out {len(reasons)} ({listed})" in lines(capsys)
    assert len(files_in(tmp_path / "d" / "images")) == len(source["tiles"])
    capsys.readouterr()
    assert tile("d", "--join", "-o", "again.tif") == 0
    assert f"again.tif: {len(reasons)} tiles were left out when they were cut; no data there" in lines(capsys)


def test_0_and_255_alone_are_black_and_white(tmp_path: Path, tile: Tile) -> None:
    write_picture(tmp_path / "a.png", noise((64, 64, 3)))
    labels = np.zeros((64, 64), np.uint8)
    labels[:20, :20] = 255
    write_picture(tmp_path / "m.png", labels)
    assert tile("a.png", "--masks", "m.png", "--size", 32, "--min-label", 0.1, "--out", "d") == 0
    assert [entry["name"] for entry in tiles_of(tmp_path / "d")] == ["images/a_r00000_c00000.png"]


@pytest.mark.parametrize("ignore", [255, 11, None])
def test_255_is_no_label_unless_it_is_a_class(tmp_path: Path, tile: Tile, ignore: int | None) -> None:
    """As to train and eval, whatever else a table says."""
    write_picture(tmp_path / "a.png", noise((64, 64, 3)))
    labels = np.full((64, 64), 255, np.uint8)
    labels[:, :32], labels[40:, :] = 1, 0
    write_picture(tmp_path / "m.png", labels)
    classes = [{"index": 0, "name": "road"}, {"index": 1, "name": "roof"}]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": classes, "ignore": ignore}))
    cut = ("a.png", "--masks", "m.png", "--size", 32)
    assert tile(*cut, "--min-label", 0.5, "--out", "d") == 0
    assert [(entry["row"], entry["col"]) for entry in tiles_of(tmp_path / "d")] == [(0, 0), (32, 0), (32, 32)]


@pytest.mark.parametrize(("edge", "overlap"), [("shift", 0), ("keep", 16), ("pad", 24)])
def test_splits_do_not_touch(tmp_path: Path, tile: Tile, scene: tuple[Path, Path], edge: str, overlap: int) -> None:
    chosen = ("--size", 48, "--overlap", overlap, "--edge", edge, "--split", "0.7/0.2/0.1")
    assert tile(scene[0], "--masks", scene[1], *chosen, "--out", "d") == 0
    tiles = tiles_of(tmp_path / "d")
    assert {entry["split"] for entry in tiles} == {"train", "val", "test"}
    for one in tiles:
        assert one["name"].startswith(f"{one['split']}/images/")
        assert one["mask"].startswith(f"{one['split']}/masks/")
        for other in tiles:
            if one["split"] != other["split"]:
                apart = max(abs(one["row"] - other["row"]), abs(one["col"] - other["col"]))
                assert apart > 48
    assert files_in(tmp_path / "d" / "val" / "images") == files_in(tmp_path / "d" / "val" / "masks")


def test_splits_are_trained_on(tmp_path: Path, tile: Tile, scene: tuple[Path, Path], segcli: Program) -> None:
    assert tile(scene[0], "--masks", scene[1], "--size", 48, "--split", "0.7/0.3", "--out", "d") == 0
    result = segcli("train", "d", "--check")
    assert result.returncode == 0, result.stderr
    for bad in ("0.7", "0.7/0.2", "1/0", "a/b", "0.5/0.3/0.1/0.1"):
        assert tile(scene[0], "--split", bad, "--out", "no") == 2


def test_a_sample_is_balanced_and_the_same_for_a_seed(tmp_path: Path, tile: Tile, scene: tuple[Path, Path]) -> None:
    labels = np.zeros((1, 480, 640), np.uint8)
    labels[0, :96, :96] = 1  # in 9 of 300 tiles
    write_raster(scene[1], labels)
    chosen = ("--masks", scene[1], "--size", 32, "--sample", 12)
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert tile(scene[0], *chosen, "--seed", seed, "--out", folder) == 0
    a, b, c = ([entry["name"] for entry in tiles_of(tmp_path / name)] for name in "abc")
    assert a == b != c
    assert len(a) == 12
    assert sum("1" in entry["pixels"] for entry in tiles_of(tmp_path / "a")) == 6
    assert tile(scene[0], "--size", 64, "--sample", 5, "--out", "plain") == 0
    assert len(tiles_of(tmp_path / "plain")) == 5


def test_a_dry_run_writes_nothing(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    write_raster(tmp_path / "a.tif", noise((3, 700, 900)))
    write_raster(tmp_path / "b.tif", noise((3, 256, 256)))
    before = files_in(tmp_path)
    assert tile("a.tif", "b.tif", "--size", 256, "--dry-run") == 0
    assert files_in(tmp_path) == before
    out, said = capsys.readouterr()
    assert "900 x 700" in out
    assert said.splitlines()[-2].startswith("13 tiles, about ")
    assert tile("a.tif", "b.tif", "--size", 256, "--out", "d") == 0
    real = sum((tmp_path / "d" / entry["name"]).stat().st_size for entry in tiles_of(tmp_path / "d"))
    planned = float(said.split("about ")[1].split(" MB")[0]) * 1e6
    assert planned == pytest.approx(real, rel=0.05)


# Many inputs, and runs that end early


def test_folders_below_folders_and_one_bad_file(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    write_picture(tmp_path / "in" / "a.png", noise((40, 40, 3)))
    write_picture(tmp_path / "in" / "deep" / "a.png", noise((40, 40, 3), seed=1))
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    assert tile("in", "--recursive", "--size", 32, "--out", "in/out") == 1
    out, said = capsys.readouterr()
    assert out.splitlines() == ["in/out/tiles.json"]
    assert said.splitlines()[-1] == "done 2  up to date 0  failed 1"
    assert sum(line.startswith("segcli: in/bad.png: ") for line in said.splitlines()) == 1
    names = {entry["name"][:-18] for entry in tiles_of(tmp_path / "in" / "out")}
    assert names == {"a", "deep_a"}
    (tmp_path / "in" / "bad.png").unlink()
    assert tile("in", "--recursive", "--size", 32) == 0  # beside each; tiles are no inputs
    assert capsys.readouterr().out.splitlines() == ["in/a_tiles/tiles.json", "in/deep/a_tiles/tiles.json"]
    assert tile("in", "--recursive", "--size", 32) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "done 2  up to date 0  failed 0"
    shutil.copy(tmp_path / "in" / "a.png", tmp_path / "in" / "a.tif")
    assert tile("in/a.png", "in/a.tif", "--out", "clash") == 2
    assert tile("nothing.tif", "--out", "none") == 1
    (tmp_path / "empty").mkdir()
    assert tile("empty", "--out", "none") == 3


def test_a_second_run_does_what_is_missing(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    write_raster(tmp_path / "a.tif", noise((3, 200, 200)))
    assert tile("a.tif", "--size", 64) == 0
    folder = tmp_path / "a_tiles"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    gone = folder / "a_r00064_c00000.tif"
    expected = whole(gone)
    gone.unlink()
    assert tile("a.tif", "--size", 64) == 0
    assert np.array_equal(whole(gone), expected)
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed == {gone.name, "tiles.json"}
    capsys.readouterr()
    assert tile("a.tif", "--size", 32) == 2
    assert lines(capsys) == [
        "segcli: a_tiles: holds tiles of other options: size 64, now 32; choose another --out, "
        "or --overwrite to start over"
    ]
    (folder / "mine.tif").write_text("mine")
    assert tile("a.tif", "--size", 32, "--overwrite") == 0
    assert len(files_in(folder)) == 49 + 2
    assert (folder / "mine.tif").read_text() == "mine"
    write_raster(tmp_path / "a.tif", noise((3, 210, 200)))
    capsys.readouterr()
    assert tile("a.tif", "--size", 32) == 1
    assert "was changed since its tiles" in capsys.readouterr().err


def test_what_segcli_did_not_write_is_not_replaced(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raster(tmp_path / "a.tif", noise((3, 70, 70)))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a_r00000_c00000.tif").write_text("mine")
    assert tile("a.tif", "--size", 64, "--out", "d") == 1
    assert "d/a_r00000_c00000.tif: exists, and segcli did not write it" in capsys.readouterr().err
    assert (tmp_path / "d" / "a_r00000_c00000.tif").read_text() == "mine"
    assert tile("a.tif", "--size", 64, "--out", "d", "--overwrite") == 0
    (tmp_path / "b.tif").write_text("mine")
    assert tile("d", "--join", "--out", "b.tif") == 1
    assert (tmp_path / "b.tif").read_text() == "mine"


def test_what_lies_beside_the_name_of_a_tile_is_not_taken_for_its_own(tmp_path: Path, tile: Tile) -> None:
    """Of a tile that is there it is left, of one that comes it goes."""
    scene = noise((3, 70, 140))
    write_raster(tmp_path / "a.tif", scene)
    (tmp_path / "d").mkdir()
    name, other = (tmp_path / "d" / f"a_r00000_c000{place}.tif" for place in ("00", "64"))

    def hide(path: Path) -> None:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
            write_raster(tmp_path / "x.tif", noise((3, 64, 64)))
            with rasterio.open(tmp_path / "x.tif", "r+") as file:
                file.write_mask(np.zeros((64, 64), bool))
        (tmp_path / "x.tif.msk").rename(f"{path}.msk")

    hide(name)
    arguments = ("a.tif", "--size", 64, "--out", "d")
    assert tile(*arguments) == 0
    hide(other)
    assert tile(*arguments) == 0
    assert (Path(f"{name}.msk").exists(), Path(f"{other}.msk").exists()) == (False, True)
    assert tile(*arguments, "--overwrite") == 0
    assert not list((tmp_path / "d").glob("*.msk"))
    with rasterio.open(other) as file:
        assert file.dataset_mask().all()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_leaves_whole_tiles_and_goes_on(
    tmp_path: Path, tile: Tile, ready: Ready, how: signal.Signals
) -> None:
    write_raster(tmp_path / "a.tif", noise((3, 1200, 1200)))
    folder = tmp_path / "a_tiles"

    def begin(*arguments: object) -> Running:
        with Path(os.devnull).open("w") as nowhere:
            return ready.start(("tile", *arguments, "-j", 1), tmp_path, nowhere.fileno(), nowhere.fileno())

    running = begin("a.tif", "--size", 100)
    while len(list(folder.glob("a_*.tif"))) < 20 and not running.has_ended():
        time.sleep(0.005)
    running.send(how)
    code = running.wait(60)
    assert code == {signal.SIGKILL: -9, signal.SIGINT: 130}[how]
    there = {path.name: path.stat().st_mtime_ns for path in folder.glob("a_*.tif")}
    assert 20 <= len(there) < 144
    for name in there:
        assert whole(folder / name).shape == (3, 100, 100)
    if how == signal.SIGINT:
        assert not list(folder.glob(f".*{PART}*"))
    assert not (folder / "tiles.json").exists()
    assert tile("a_tiles", "--join", "-o", "no.tif") == 2  # not finished
    assert tile("a.tif", "--size", 100, "-q") == 0
    assert len(files_in(folder)) == 145
    assert all((folder / name).stat().st_mtime_ns == changed for name, changed in there.items())
    running = begin("a_tiles", "--join", "-o", "j.tif")
    while not list(tmp_path.glob(f".*{PART}/.j.tif*{PART}")) and not running.has_ended():
        time.sleep(0.005)
    running.send(how)
    assert running.wait(60) == code
    assert not (tmp_path / "j.tif").exists()
    assert how == signal.SIGKILL or not list(tmp_path.glob(f".*{PART}*"))
    assert tile("a_tiles", "--join", "-o", "j.tif", "-q") == 0
    assert np.array_equal(whole(tmp_path / "j.tif"), whole(tmp_path / "a.tif"))
    assert not list(tmp_path.glob(f".*{PART}*"))


# Joining what others made of tiles


@pytest.fixture
def cut_scene(tmp_path: Path, tile: Tile, scene: tuple[Path, Path]) -> Path:
    assert tile(scene[0], "--size", 128, "--overlap", 32) == 0
    return tmp_path / "scene_tiles"


def test_masks_of_any_program_are_cut_in_the_middle(tmp_path: Path, tile: Tile, cut_scene: Path) -> None:
    """Each tile's mask is its own number: the border between two lies in the middle of what they share."""
    for n, entry in enumerate(tiles_of(cut_scene)):
        stem = Path(entry["name"]).stem
        write_picture(tmp_path / "out" / "deep" / f"{stem}_pred.png", np.full((128, 128), n, np.uint8))
    assert tile("out", "--join", "--manifest", cut_scene, "--out", "mask.tif") == 0
    with rasterio.open(tmp_path / "mask.tif") as file:
        assert (file.count, file.dtypes[0], file.transform) == (1, "uint8", PLACE["transform"])
        found = file.read(1)
    starts = [0, 96, 192, 288, 384, 480, 512]
    cuts = [112, 208, 304, 400, 496, (512 + 608) // 2]
    assert np.array_equal(np.flatnonzero(np.diff(found[0].astype(int))) + 1, cuts)
    assert len(np.unique(found)) == len(starts) * 5
    assert found[479, 639] == found.max() == 34
    assert tile("out", "--join", "--manifest", cut_scene / "tiles.json", "--merge", "average", "--out", "m.tif") == 0
    with rasterio.open(tmp_path / "m.tif") as file:
        row = file.read(1)[0, :300].astype(int)
    assert (np.diff(row) >= 0).all()
    assert row[0] == 0


def test_scores_are_averaged_with_smooth_weights(tmp_path: Path, tile: Tile, cut_scene: Path) -> None:
    """Against the plain way: sums of weighted scores over sums of weights, of the whole raster."""
    total, weight = np.zeros((5, 480, 640)), np.zeros((480, 640))
    bell = np.sin(np.pi * (np.arange(128) + 0.5) / 128) ** 2
    rng = np.random.default_rng(0)
    for entry in tiles_of(cut_scene):
        scores = rng.random((5, 128, 128)).astype(np.float32)
        scores[:, :9, :9] = np.nan  # what one tile does not know another may
        write_raster(tmp_path / "scores" / entry["name"], scores, transform=from_origin(5, 5, 1, 1), crs=None)
        place = (slice(entry["row"], entry["row"] + 128), slice(entry["col"], entry["col"] + 128))
        known = np.isfinite(scores[0])
        weight[place] += np.outer(bell, bell) * known
        total[:, *place] += np.nan_to_num(scores) * np.outer(bell, bell)
    assert tile("scores", "--join", "--manifest", cut_scene, "--out", "scores.tif") == 0
    found = whole(tmp_path / "scores.tif")
    assert found.dtype == np.float32
    known = weight > 0
    np.testing.assert_allclose(found[:, known], (total / np.where(known, weight, 1))[:, known], rtol=1e-5, atol=3e-7)
    assert np.isnan(found[:, ~known]).all()
    with rasterio.open(tmp_path / "scores.tif") as file:
        assert file.transform == PLACE["transform"]


def test_scores_in_bytes_are_averaged_where_they_have_a_scale(tmp_path: Path, tile: Tile, cut_scene: Path) -> None:
    for n, entry in enumerate(tiles_of(cut_scene)):
        path = write_raster(tmp_path / "p" / entry["name"], np.full((2, 128, 128), 10 * (n % 2), np.uint8), nodata=255)
        with rasterio.open(path, "r+") as file:
            file.scales = (0.004, 0.004)
    assert tile("p", "--join", "--manifest", cut_scene, "--out", "p.tif") == 0
    assert {*np.unique(whole(tmp_path / "p.tif"))} == {*range(11)}
    assert tile("p", "--join", "--manifest", cut_scene, "--out", "p.tif", "--merge", "cut") == 0
    assert {*np.unique(whole(tmp_path / "p.tif"))} == {0, 10}


def test_missing_and_foreign_tiles_are_named(
    tmp_path: Path, tile: Tile, cut_scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = whole(tmp_path / "scene.tif")
    (cut_scene / "scene_r00096_c00096.tif").unlink()
    capsys.readouterr()
    assert tile(cut_scene, "--join", "--out", "b.tif") == 1
    said = lines(capsys)
    assert said[0].startswith("segcli: scene: 1 of 35 tiles are missing: scene_r00096_c00096; --allow-missing")
    assert not (tmp_path / "b.tif").exists()
    assert tile(cut_scene, "--join", "--out", "b.tif", "--allow-missing") == 0
    assert "b.tif: 1 tiles were missing; no data there" in lines(capsys)
    with rasterio.open(tmp_path / "b.tif") as file:
        found, valid = file.read(), file.dataset_mask() > 0
    # Neighbours have the 32 pixels that they share with it, but for what only two missing corners would have had.
    hole = np.zeros((480, 640), bool)
    hole[128:192, 128:192] = True
    assert np.array_equal(~valid, hole)
    assert np.array_equal(found[:, ~hole], expected[:, ~hole])
    assert not found[:, hole].any()
    write_picture(cut_scene / "other.png", noise((128, 128)))
    assert tile(cut_scene, "--join", "--out", "b.tif", "--allow-missing") == 2
    assert "scene_tiles/other.png: no tile of tiles.json" in lines(capsys)[-1]
    (cut_scene / "other.png").unlink()
    write_raster(cut_scene / "scene_r00096_c00096.tif", noise((3, 100, 128)))
    assert tile(cut_scene, "--join", "--out", "c.tif") == 1
    assert "scene_r00096_c00096.tif: 128 x 100 pixels; its tile has 128 x 128" in capsys.readouterr().err
    write_raster(cut_scene / "scene_r00096_c00096.tif", noise((2, 128, 128)))
    assert tile(cut_scene, "--join", "--out", "c.tif") == 1
    assert "2 bands of uint8; the other tiles have 3 of uint8" in capsys.readouterr().err
    (cut_scene / "scene_r00096_c00096.tif").write_bytes(b"broken")
    assert tile(cut_scene, "--join", "--out", "c.tif") == 1
    assert "scene_r00096_c00096.tif: " in capsys.readouterr().err
    assert not [path for path in files_in(tmp_path) if path.startswith((".c", "c."))]


def test_segcli_s_own_masks_of_tiles_come_back(tmp_path: Path, tile: Tile, cut_scene: Path, weights: Path,
                                               segcli: Program) -> None:  # fmt: skip
    assert segcli("predict", cut_scene, "--out", "masks", "--weights", weights).returncode == 0
    assert segcli("predict", "scene.tif", "--out", "mask.tif", "--weights", weights).returncode == 0
    (tmp_path / "masks" / "segcli.jsonl").unlink()
    assert tile("masks", "--join", "--manifest", cut_scene, "--out", "joined.tif") == 0
    with rasterio.open(tmp_path / "joined.tif") as one, rasterio.open(tmp_path / "mask.tif") as other:
        assert np.array_equal(one.read(), other.read())  # the weights look at a pixel at a time
        assert one.colormap(1) == other.colormap(1)
        assert (one.nodata, one.tags(1)["CLASS_7"]) == (255, "light")


def test_usage(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    write_raster(tmp_path / "a.tif", noise((3, 70, 70)))
    assert tile("a.tif", "--size", 16) == 0
    for words, *wrong in (
        ("--overlap: found 512", "a.tif", "--overlap", 512), ("--overlap: found 3.5", "a.tif", "--overlap", 3.5),
        ("given without --masks", "a.tif", "--min-label", 0.1), ("given without --masks", "a.tif", "--attribute", "x"),
        ("given without --join", "a.tif", "--manifest", "a_tiles"), ("given without --out", "a_tiles", "--join"),
        ("--sample: given with --join", "a_tiles", "--join", "-o", "b.tif", "--sample", 3),
        ("b.jpg: wrong ending", "a_tiles", "--join", "-o", "b.jpg"),
        ("a.tif: no such folder", "a.tif", "--join", "-o", "b.tif"),
        ("none.tif: no such file", "a.tif", "--masks", "none.tif"), ("no tiles.json", ".", "--join", "-o", "b.tif"),
        ("'round' is not one of", "a.tif", "--edge", "round"),
    ):  # fmt: skip
        capsys.readouterr()
        assert tile(*wrong) == 2, wrong
        said = lines(capsys)
        assert len(said) == 1, said
        assert words in said[0], said
    assert tile("a.tif", "--overlap", 0.25, "--size", 16, "--out", "b") == 0
    assert manifest(tmp_path / "b")["options"]["overlap"] == 4


def test_a_stack_is_refused_by_name(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "s.tif", noise((5, 40, 40)), imagej=True, metadata={"axes": "ZYX"})
    assert tile("s.tif") == 1
    assert "s.tif: a stack of 5 images" in capsys.readouterr().err


@pytest.mark.skipif(not (SHARED / "odd").exists(), reason="the odd files are no part of the project")
def test_odd_files_come_back_or_are_named(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever can be read as stored is given back; nothing but a named error ends a file."""
    stems: dict[str, list[Path]] = {}
    for path in rasters_in(SHARED / "odd" / "good", recursive=True):
        stems.setdefault(path.stem, []).append(path)
    came_back = 0
    for n in range(max(map(len, stems.values()))):  # files of one stem cannot go into one folder
        paths = [those[n] for those in stems.values() if len(those) > n]
        assert tile(*paths, "--size", 56, "--overlap", 3, "--out", f"tiles{n}") in (0, 1)
        assert "--debug" not in capsys.readouterr().err
        assert tile(f"tiles{n}", "--join", "--out", f"again{n}") == 0
        assert "--debug" not in capsys.readouterr().err
        again = {path.stem: path for path in (tmp_path / f"again{n}").iterdir()}
        for source in manifest(tmp_path / f"tiles{n}")["sources"]:
            expected = whole(tmp_path / f"tiles{n}" / source["file"])
            assert whole(again[source["name"]]).tobytes() == expected.tobytes(), source["file"]
            came_back += 1
    assert came_back > 50


def test_nothing_is_georeferenced_by_mistake(tmp_path: Path, tile: Tile) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), noise((40, 40), "uint8").astype(np.float32))
    assert tile("a.tif", "--size", 32) == 0
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(tmp_path / "a_tiles" / "a_r00008_c00008.tif") as file:
        assert file.transform.is_identity
        assert file.read(window=Window(0, 0, 1, 1)).shape == (1, 1, 1)
