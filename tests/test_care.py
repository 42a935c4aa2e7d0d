"""Data that must not be lost, files that are not what they say, and systems that are full."""

import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
import rasterio
import tifffile
from helpers import brightness_model, few_open_files, write_picture
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import from_origin
from rasterio.windows import Window
from test_products import labels_of, polygons_of, predict, write_raster, write_stack

from segcli import files, tile
from segcli.console import Console
from segcli.errors import InputError, NothingDoneError
from segcli.network import checkpoint
from segcli.options import PredictOptions, TileOptions
from segcli.predict import run
from segcli.raster.bands import match_bands
from segcli.raster.fit import match_ranges
from segcli.raster.grid import Grid
from segcli.raster.images import open_images
from segcli.raster.names import rasters_in
from segcli.raster.sidecars import sidecars
from segcli.raster.sink import Encoding, Layout, create
from segcli.raster.source import Source
from segcli.raster.stack_sink import create_stack

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def scene(rng: np.random.Generator) -> np.ndarray:
    pixels = rng.integers(0, 255, (3, 61, 83), np.uint8)
    pixels[0] = np.where(rng.random((61, 83)) > 0.5, 220, 30)
    return pixels


def test_polygons_leave_confidence_files_alone(tmp_path: Path, weights: Path, scene: np.ndarray) -> None:
    scan = write_raster(tmp_path / "a.tif", scene)
    precious = tmp_path / "masks" / "confidence" / "a.tif"
    precious.parent.mkdir(parents=True)
    precious.write_bytes(b"precious")
    assert predict(tmp_path, weights, scan, polygons="gpkg") == 0
    assert precious.read_bytes() == b"precious"
    names = sorted(path.name for path in (tmp_path / "masks" / "polygons").iterdir())
    assert names == ["a.gpkg"]


def test_polygons_lie_where_the_image_lies_whatever_the_mask_can_hold(
    tmp_path: Path, weights: Path, scene: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = write_raster(tmp_path / "a.tif", scene)
    assert predict(tmp_path, weights, scan, polygons="gpkg", format="png") == 0
    _, shapes, crs = polygons_of(tmp_path / "masks" / "polygons" / "a.gpkg")
    assert crs == "EPSG:32633"
    assert min(shape.bounds[0] for shape in shapes) == 500_000
    assert max(shape.bounds[3] for shape in shapes) == 5_300_000
    points = [GroundControlPoint(row, col, 10 + col, 50 - row) for row in (0, 60) for col in (0, 80)]
    placed = write_raster(tmp_path / "b.tif", scene, crs=None, transform=None)
    with rasterio.open(placed, "r+") as file:
        file.gcps = points, "EPSG:4326"
    options = PredictOptions((placed,), tmp_path / "masks", (str(weights),), polygons="gpkg")
    assert run(options, Console()) == 0
    assert "its polygons are in columns and rows\n" in capsys.readouterr().err
    assert run(replace(options, min_area=1), Console()) == 0
    assert "its polygons are in columns and rows, and --min-area counts pixels\n" in capsys.readouterr().err
    _, shapes, _ = polygons_of(tmp_path / "masks" / "polygons" / "b.gpkg")
    assert max(shape.bounds[2] for shape in shapes) == 83


def test_areas_of_feet_are_square_metres(tmp_path: Path, weights: Path) -> None:
    scene = np.full((3, 20, 20), 30, np.uint8)
    scene[0, 5:10, 5:10] = 220
    place = from_origin(980_000, 200_000, 10, 10)
    feet = write_raster(tmp_path / "a.tif", scene, crs="EPSG:2263", transform=place)  # US survey feet
    assert predict(tmp_path, weights, feet, polygons="gpkg") == 0
    rows, _, _ = polygons_of(tmp_path / "masks" / "polygons" / "a.gpkg")
    area = next(float(row["area"]) for row in rows if row["name"] == "light")  # type: ignore[arg-type]
    assert area == pytest.approx(2500 * 0.3048006**2, rel=1e-6)


def test_levels_of_every_kind_of_place(tmp_path: Path, weights: Path, rng: np.random.Generator) -> None:
    """No place at all, control points, polynomials: what GDAL says of overviews is not what it says of the file."""
    pixels = rng.integers(0, 255, (3, 600, 400), np.uint8)
    numbers = [float(n) for n in range(20)]
    for name in ("none", "gcps", "rpcs"):
        path = write_raster(tmp_path / f"{name}.tif", pixels, crs=None, transform=None)
        with rasterio.open(path, "r+") as file:
            if name == "gcps":
                file.gcps = [GroundControlPoint(100, 200, 5, 6), GroundControlPoint(0, 0, 1, 2)], "EPSG:4326"
            if name == "rpcs":
                file.rpcs = RPC(1.0, 2, 3, 4, numbers, numbers, 300.0, 320.0, 7, 8, numbers, numbers, 200.0, 220.0)
            file.build_overviews([2], rasterio.enums.Resampling.nearest)
        assert predict(tmp_path, weights, path, level=1) == 0
        with rasterio.open(tmp_path / "masks" / f"{name}.tif") as mask:
            assert mask.shape == (300, 200)
            assert mask.transform.is_identity
            points, _ = mask.gcps
            found = [(p.row, p.col, p.x, p.y) for p in points]
            assert found == ([(50, 100, 5, 6), (0, 0, 1, 2)] if name == "gcps" else [])
            assert (mask.rpcs is not None) == (name == "rpcs")
            if mask.rpcs is not None:
                rpcs = mask.rpcs
                found = (rpcs.line_off, rpcs.line_scale, rpcs.samp_off, rpcs.samp_scale)
                assert found == (149.75, 160, 99.75, 110)  # as GDAL has it of an overview


ROTATED_POLE = "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +R=6371229 +no_defs"


def write_vrt(path: Path, base: Path, place: str) -> Path:
    """A VRT over a raster of three bands of 50 x 40, which lies elsewhere."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{n}"><SimpleSource><SourceFilename relativeToVRT="1">{base.name}'
        f"</SourceFilename><SourceBand>{n}</SourceBand></SimpleSource></VRTRasterBand>"
        for n in (1, 2, 3)
    )
    path.write_text(f'<VRTDataset rasterXSize="50" rasterYSize="40">{place}{bands}</VRTDataset>')
    return path


@pytest.mark.parametrize("cog", [False, True])
def test_a_reference_system_that_geotiff_cannot_hold_lies_beside_it(tmp_path: Path, cog: bool) -> None:
    """As GDAL reads it, in an .aux.xml that goes when the next mask needs none; what fails leaves none."""
    path, layout, encoding = tmp_path / "a.tif", Layout(1, "uint8"), Encoding(cog=cog)
    rotated = Grid(40, 50, CRS.from_string(ROTATED_POLE), from_origin(5, 5, 0.1, 0.1))
    pixels = np.ones((1, 40, 50), np.uint8)
    with create(path, rotated, layout, encoding) as sink:
        sink.write(0, pixels)
    with rasterio.open(path) as file:
        assert file.crs == rotated.crs
        assert "39.25" in file.crs.to_wkt(version="WKT2_2019")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.tif", "a.tif.aux.xml"]
    with create_stack(path, [rotated] * 2, layout, "Z", (2,), "tiff") as sinks:
        for plane in sinks:
            plane.write(0, pixels)
    assert [found.name for found in tmp_path.iterdir()] == ["a.tif"]
    with create(path, replace(rotated, crs=CRS.from_epsg(4326)), layout, encoding) as sink:
        sink.write(0, pixels)
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == 4326
    with pytest.raises(ValueError, match="columns came"), create(path, rotated, layout, encoding):
        pass
    assert [found.name for found in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_names_may_be_as_long_as_file_systems_have_them(tmp_path: Path, ending: str) -> None:
    """Those of parts of them, and of files beside them, need not fit."""
    path = tmp_path / f"{'a' * 251}.{ending}"
    with create(path, Grid(4, 5), Layout(1, "uint8"), Encoding(cog=True)) as sink:
        sink.write(0, np.ones((1, 4, 5), np.uint8))
    assert list(tmp_path.iterdir()) == [path]
    assert sidecars(path) == ()


def test_polygons_and_joins_on_a_rotated_pole_leave_nothing_hidden(
    tmp_path: Path, weights: Path, scene: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_raster(tmp_path / "base.tif", scene[:, :40, :50])
    wkt = escape(CRS.from_string(ROTATED_POLE).to_wkt(version="WKT2_2019"))
    place = f"<SRS>{wkt}</SRS><GeoTransform>5,0.1,0,5,0,-0.1</GeoTransform>"
    source = write_vrt(tmp_path / "a.vrt", base, place)
    assert predict(tmp_path, weights, source, polygons="geojson") == 0
    assert tile.run(TileOptions((source,), tmp_path / "t", size=32), Console(quiet=True)) == 0
    capsys.readouterr()
    assert tile.run(TileOptions((tmp_path / "t",), tmp_path / "j.tif", join=True), Console()) == 0
    assert "where it lies" not in capsys.readouterr().err
    for made in (tmp_path / "masks" / "a.tif", tmp_path / "j.tif"):
        with rasterio.open(made) as file:
            assert "39.25" in file.crs.to_wkt(version="WKT2_2019")
    assert not [path for path in tmp_path.rglob("*.aux.xml") if path.name[0] == "."]


def test_a_transform_counts_more_than_control_points(tmp_path: Path, weights: Path, scene: np.ndarray) -> None:
    """A VRT may have both; GeoTIFF has one of them."""
    base = write_raster(tmp_path / "base.tif", scene[:, :40, :50])
    points = '<GCP Id="1" Pixel="0" Line="0" X="1" Y="2"/><GCP Id="2" Pixel="50" Line="40" X="3" Y="4"/>'
    place = "<SRS>EPSG:32633</SRS><GeoTransform>5e5,10,0,5e6,0,-10</GeoTransform>"
    source = write_vrt(tmp_path / "a.vrt", base, f'{place}<GCPList Projection="EPSG:32633">{points}</GCPList>')
    assert predict(tmp_path, weights, source) == 0
    with rasterio.open(tmp_path / "masks" / "a.tif") as mask:
        assert mask.transform == rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)


def test_a_level_of_a_turned_picture_is_turned(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((600, 400), np.uint8), extratags=[(274, 3, 1, 6, True)], metadata=None)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2], rasterio.enums.Resampling.nearest)
    for level, size in ((None, (400, 600)), (1, (200, 300))):
        (plane,) = open_images(path, level=level).planes
        assert (plane.grid.height, plane.grid.width) == size
        plane.close()


def test_the_bits_of_a_camera_are_those_of_the_whole_stack(tmp_path: Path) -> None:
    planes = np.full((2, 9, 9), 900, np.uint16)
    planes[1, 0, 0] = 60_000
    images = open_images(write_stack(tmp_path / "a.tif", planes, "ZYX", imagej=True))
    ranges = match_ranges(images.planes, (0,), "uint8", None)
    assert ranges == ((0.0, 65535.0),) * 2


def test_no_page_is_left_out_without_a_word(tmp_path: Path, weights: Path) -> None:
    pages = [np.full((20, 30), 20 + 100 * n, np.uint8) for n in range(3)]
    with tifffile.TiffWriter(tmp_path / "written.tif") as file:
        for page in pages:
            file.write(page)
    images = open_images(tmp_path / "written.tif")
    assert [int(plane.window(0, 0, 1, 1)[0, 0, 0]) for plane in images.planes] == [20, 120, 220]
    tifffile.imwrite(tmp_path / "behind.tif", np.stack(pages), truncate=True, photometric="minisblack")
    with pytest.raises(InputError, match="values behind one page"):
        open_images(tmp_path / "behind.tif")
    with tifffile.TiffWriter(tmp_path / "two.ome.tif") as file:
        file.write(np.stack(pages), metadata={"axes": "ZYX"}, photometric="minisblack")
        file.write(np.stack(pages[:2]), metadata={"axes": "ZYX"}, photometric="minisblack")
    with pytest.raises(InputError, match="2 OME images in one file"):
        open_images(tmp_path / "two.ome.tif")
    with zipfile.ZipFile(tmp_path / "stack.zip", "w") as archive:
        archive.write(tmp_path / "written.tif", "written.tif")
    with pytest.raises(InputError, match="holds 3 data sets; expected one"):
        open_images(tmp_path / "stack.zip")


def test_a_stack_is_no_png(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = write_stack(tmp_path / "a.tif", np.zeros((3, 20, 20), np.uint8), "ZYX", imagej=True)
    assert predict(tmp_path, weights, scan, format="png") == 1
    assert "a stack; PNG cannot hold it; choose --format tif" in capsys.readouterr().err
    assert not (tmp_path / "masks" / "a.png").exists()


def test_stacks_keep_their_calibration(tmp_path: Path, weights: Path) -> None:
    planes = np.zeros((2, 3, 20, 24), np.uint8)
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2.0, "TimeIncrement": 30.0}
    units = {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm", "PhysicalSizeZUnit": "µm", "TimeIncrementUnit": "s"}
    ome = tmp_path / "a.ome.tif"
    tifffile.imwrite(ome, planes, metadata={"axes": "TZYX", **sizes, **units})
    single = tmp_path / "b.ome.tif"
    tifffile.imwrite(single, planes[0, 0], metadata={"axes": "YX", **sizes, **units})
    imagej = tmp_path / "c.tif"
    more = {"axes": "TZYX", "unit": "um", "spacing": 2.0, "finterval": 30.0}
    tifffile.imwrite(imagej, planes, imagej=True, resolution=(2, 4), metadata=more)
    assert predict(tmp_path, weights, ome, single, imagej) == 0
    for path in (ome, single):
        with tifffile.TiffFile(tmp_path / "masks" / path.name) as file:
            text = file.ome_metadata or ""
            for name, value in sizes.items():
                if name[-1] != "Z" or path == ome:
                    assert f'{name}="{value}"' in text, (path, name)
    with tifffile.TiffFile(tmp_path / "masks" / "c.tif") as file:
        data = file.imagej_metadata or {}
        assert (data["unit"], data["spacing"], data["finterval"]) == ("um", 2.0, 30.0)
        assert file.pages.first.tags["XResolution"].value == (2, 1)
        assert file.pages.first.tags["YResolution"].value == (4, 1)


@pytest.mark.parametrize("size", [64, 300])
@pytest.mark.parametrize("suffix", [".pgm", ".ppm", ".img", ".map"])
def test_truncated_raw_pixels_are_refused(tmp_path: Path, rng: np.random.Generator, suffix: str, size: int) -> None:
    whole = write_raster(
        tmp_path / "a.tif", rng.integers(1, 255, (3 if suffix in (".img", ".ppm") else 1, size, size), np.uint8)
    )
    driver = {".img": "ENVI", ".map": "PCRaster"}.get(suffix, "PNM")
    path = tmp_path / f"b{suffix}"
    rasterio.shutil.copy(whole, path, driver=driver)
    with Source(path) as source:
        source.load()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=path.name), Source(path) as source:
        source.load()


@pytest.mark.parametrize("options", [{}, {"INTERLEAVING": "PIXEL"}, {"INTERLEAVING": "TILED"}])
def test_truncated_pcidsk_is_refused(tmp_path: Path, rng: np.random.Generator, options: dict[str, str]) -> None:
    """And a whole one is not, though its header counts room that was never written."""
    path, pixels = tmp_path / "a.pix", rng.integers(1, 255, (3, 200, 300), np.uint8)
    write_raster(path, pixels, driver="PCIDSK", **options)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
    with Source(path, "stored") as source:
        assert np.array_equal(source.window(0, 0, 200, 300), pixels)
    if "TILED" in options.values():
        return
    write_raster(path, pixels, driver="PCIDSK", **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    with pytest.raises(InputError, match=r"a\.pix: \d+ bytes, and its pixels alone are"):
        Source(path)


def test_a_stack_of_more_planes_than_files_may_be_open(tmp_path: Path, weights: Path, rng: np.random.Generator) -> None:
    planes = rng.integers(0, 255, (300, 8, 9), np.uint8)
    scan = write_stack(tmp_path / "a.ome.tif", planes, "ZYX", ome=True)
    with few_open_files():
        assert predict(tmp_path, weights, scan) == 0
    assert np.array_equal(tifffile.imread(tmp_path / "masks" / "a.ome.tif"), np.where(planes > 127, 7, 2))


def test_a_huge_turned_picture_is_not_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=40_000, width=40_000, dtype="uint8", sparse_ok=True, tiled=True,
        blockxsize=512, blockysize=512,
    ) as file:  # fmt: skip
        file.write(np.full((1, 5, 6), 9, np.uint8), window=Window(39_984, 995, 6, 5))
    assert path.stat().st_size < 10**6
    # GDAL writes no Orientation (274): it takes the place of SamplesPerPixel (277), which is 1 by itself.
    of_samples, turned = (struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in ((277, 1), (274, 3)))
    assert path.read_bytes().count(of_samples) == 1
    path.write_bytes(path.read_bytes().replace(of_samples, turned))
    tracemalloc.start()
    with Source(path) as source:
        assert source.is_turned
        assert np.array_equal(source.window(39_000, 10, 5, 6), np.full((1, 5, 6), 9))
    assert tracemalloc.get_traced_memory()[1] < 2**24  # of 1.6 GB
    tracemalloc.stop()


@pytest.mark.parametrize("broken", ["sizes", "ifd", "imagej", "webp", "vrt"])
def test_metadata_that_make_no_sense_are_one_line(tmp_path: Path, broken: str) -> None:
    path = tmp_path / ("a.tif" if broken not in ("webp", "vrt") else f"a.{broken}")
    planes = np.zeros((2, 8, 8), np.uint8)
    if broken in ("sizes", "ifd"):
        write_stack(path, planes, "ZYX", ome=True)
        old, new = (b'SizeC="1"', b'SizeC="x"') if broken == "sizes" else (b'IFD="0"', b'IFD="9"')
        assert old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new))
    elif broken == "imagej":
        write_stack(path, planes, "ZYX", imagej=True)
        path.write_bytes(path.read_bytes().replace(b"images=2", b"images=x"))
    elif broken == "webp":
        path.write_bytes(b"RIFF\x08\0\0\0WEBPVP8X")
    else:
        one = write_raster(tmp_path / "one.tif", np.zeros((1, 8, 8), np.uint8))
        other = write_raster(tmp_path / "other.tif", np.zeros((1, 8, 8), np.uint16))
        bands = "".join(
            f'<VRTRasterBand dataType="{kind}" band="{n}"><SimpleSource><SourceFilename relativeToVRT="1">{p.name}'
            f"</SourceFilename></SimpleSource></VRTRasterBand>"
            for n, (kind, p) in enumerate((("Byte", one), ("UInt16", other)), 1)
        )
        path.write_text(f'<VRTDataset rasterXSize="8" rasterYSize="8">{bands}</VRTDataset>')
    with pytest.raises(InputError, match=path.name) as caught, Source(path) as source:
        source.load()
        source.window(0, 0, 8, 8)
    assert "expected" in str(caught.value)


def test_band_numbers_are_the_file_s(tmp_path: Path, rng: np.random.Generator) -> None:
    """Red, green, blue, alpha, near infrared."""
    pixels = rng.integers(1, 255, (5, 20, 20), np.uint8)
    path = write_raster(tmp_path / "a.tif", pixels, photometric="RGB")
    with rasterio.open(path, "r+") as file:
        kinds = rasterio.enums.ColorInterp
        file.colorinterp = [kinds.red, kinds.green, kinds.blue, kinds.alpha, kinds.undefined]
    with Source(path) as source:
        chosen = match_bands(source, 3, (5, 2, 3))
        assert np.array_equal(source.window(0, 0, 20, 20, chosen), pixels[[4, 1, 2]])
        with pytest.raises(InputError, match="band 4 is alpha"):
            match_bands(source, 3, (4, 2, 3))
        with pytest.raises(InputError, match="band 6 is alpha, or not there"):
            match_bands(source, 3, (6, 2, 3))


def test_alpha_may_come_first(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(1, 255, (4, 20, 20), np.uint8)
    pixels[0, :5] = 0
    path = write_raster(tmp_path / "a.tif", pixels)
    with rasterio.open(path, "r+") as file:
        kinds = rasterio.enums.ColorInterp
        file.colorinterp = [kinds.alpha, kinds.red, kinds.green, kinds.blue]
    with Source(path) as source:
        (strip,) = source.strips(20)
        assert np.array_equal(strip.pixels, pixels[1:])
        assert strip.valid is not None
        assert np.array_equal(strip.valid, pixels[0] > 0)


def test_archives_as_macos_makes_them(tmp_path: Path, scene: np.ndarray) -> None:
    scan = write_raster(tmp_path / "a.tif", scene)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(scan, "a.tif")
        archive.writestr("__MACOSX/._a.tif", b"resource fork")
    with Source(tmp_path / "a.zip") as source:
        assert np.array_equal(source.window(0, 0, 61, 83), scene)


def test_what_killed_runs_left_is_removed_by_runs_with_other_options(
    tmp_path: Path, weights: Path, scene: np.ndarray
) -> None:
    scan, masks = write_raster(tmp_path / "a.tif", scene), tmp_path / "masks"
    waiting = files.stage_of(masks, "a.tif")
    (waiting / "polygons").mkdir(parents=True)
    for left in ("a.tif", ".a.tif.segcli-part", "..a.tif.segcli-part.segcli-part", ".a.tif.segcli-part.ovr.tmp",
                 "polygons/.a.gpkg.segcli-part.gpkg-journal"):  # fmt: skip
        (waiting / left).write_bytes(b"left")
    (masks / ".b.tif.segcli-part").write_bytes(b"another's")
    assert predict(tmp_path, weights, scan) == 0
    assert [path.name for path in masks.rglob("*segcli-part*")] == [".b.tif.segcli-part"]


def test_a_vrt_cannot_hide_what_it_reads(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"root" * 16)
    folder = tmp_path / "in"
    folder.mkdir()
    raw = (
        '<VRTDataset rasterXSize="4" rasterYSize="4">'
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
        f"<SourceFilename>{secret}</SourceFilename></VRTRasterBand></VRTDataset>"
    )
    (folder / "commented.tif").write_text(f"<!-- {'x' * 500} -->" + raw)
    (folder / "inner.vrt").write_text(raw)
    (folder / "outer.vrt").write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">inner.vrt</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    (folder / "server.tif").write_text("<GDAL_WMS><Service name='TMS'></Service></GDAL_WMS>")
    for name in ("commented.tif", "inner.vrt", "outer.vrt", "server.tif"):
        with pytest.raises(InputError, match=r"outside its folder|description of a server"), Source(folder / name):
            pass


@pytest.mark.parametrize("way", ["overviews", "cog", "stack"])
@pytest.mark.parametrize("missing", [1, 500, 5000])
def test_a_disk_that_fills_up_at_the_end(tmp_path: Path, way: str, missing: int) -> None:
    """A limit just under the size of the whole file: nothing is left, and it is said."""
    script = f"""
import resource, signal, sys
from pathlib import Path
import numpy as np
from segcli.errors import SegcliError
from segcli.raster.grid import Grid
from segcli.raster.sink import Encoding, Layout, create
from segcli.raster.stack_sink import create_stack
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
labels = np.random.default_rng(0).integers(0, 200, (1100, 1200), np.uint8)
grid, layout = Grid(1100, 1200), Layout(1, "uint8", overviews="mode")
def write(path):
    if "{way}" == "stack":
        with create_stack(path, [grid, grid], layout, "Z", (2,), "ome") as sinks:
            for sink in sinks:
                sink.write(0, labels)
    else:
        with create(path, grid, layout, Encoding(cog="{way}" == "cog")) as sink:
            sink.write(0, labels)
write(Path("whole.tif"))
room = Path("whole.tif").stat().st_size - {missing}
Path("whole.tif").unlink()
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
try:
    write(Path("mask.tif"))
except SegcliError as error:
    sys.exit(f"refused: {{error}}")
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "refused: mask.tif: cannot be written" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_png_keeps_the_names_of_the_classes(tmp_path: Path, weights: Path, scene: np.ndarray) -> None:
    scan = write_picture(tmp_path / "a.png", scene.transpose(1, 2, 0))
    assert predict(tmp_path, weights, scan) == 0
    with Image.open(tmp_path / "masks" / "a.png") as mask:
        assert mask.info["CLASS_7"] == "light"
        assert np.array_equal(np.asarray(mask), labels_of(scene))


def test_numbers_in_digits_are_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_text("P2\n# labels\n3 2\n15\n0 1 2\n3 15 7\n")
    with Source(tmp_path / "a.pgm", "mask") as source:
        assert source.window(0, 0, 2, 3).tolist() == [[[0, 1, 2], [3, 15, 7]]]
    (tmp_path / "b.ppm").write_text("P3 2 1 1000\n1 2 3  4 5 1000")
    with Source(tmp_path / "b.ppm") as source:
        assert source.dtype == "uint16"
        assert source.window(0, 0, 1, 2).tolist() == [[[1, 4]], [[2, 5]], [[3, 1000]]]
    for text in ("P2\n3 2\n15\n0 1 2\n3 15\n", "P2\n60000 60000\n255\n1", "P2\nx", "P2 2 1 255 1 x"):
        (tmp_path / "c.pgm").write_text(text)
        with pytest.raises(InputError, match=r"c\.pgm"), Source(tmp_path / "c.pgm"):
            pass


def test_transparent_colours_are_no_data(tmp_path: Path) -> None:
    indices = np.arange(16, dtype=np.uint8).reshape(4, 4)
    picture = Image.new("P", (4, 4))
    picture.putdata(indices.ravel().tolist())
    picture.putpalette([n for value in range(16) for n in (value * 10, 5, 200)])
    picture.save(tmp_path / "a.png", transparency=bytes([0, 255, 0, 128]))
    for purpose in ("image", "mask"):
        with Source(tmp_path / "a.png", purpose) as source:  # type: ignore[arg-type]
            (strip,) = source.strips(4)
        assert strip.valid is not None
        assert np.flatnonzero(~strip.valid.ravel()).tolist() == [0, 2]


def test_products_of_an_image_are_all_there_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the last moments, when the first of them has its name already."""
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    write_picture(tmp_path / "a.png", np.full((20, 20, 3), 90, np.uint8))
    options = PredictOptions(
        (tmp_path / "a.png",), tmp_path / "out", (str(tmp_path / "w.safetensors"),), confidence=True
    )
    whole = files.replacing

    @contextmanager
    def failing(path: Path, *more: object) -> Iterator[Path]:
        with whole(path, *more) as part:  # type: ignore[arg-type]
            yield part
            if files.destination(path).parent.name == "out" and path.suffix == ".png":
                raise OSError(28, "No space left on device")

    monkeypatch.setattr("segcli.raster.sidecars.replacing", failing)
    assert run(options, Console(quiet=True)) == 1
    assert not list((tmp_path / "out").rglob("a.*"))
    monkeypatch.undo()
    assert run(options, Console(quiet=True)) == 0
    assert len(list((tmp_path / "out").rglob("a.*"))) == 2


def test_a_folder_that_cannot_be_listed_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root nothing is locked, so the system's answer is played."""
    (tmp_path / "a" / "locked").mkdir(parents=True)
    (tmp_path / "a" / "b.png").touch()
    (tmp_path / "a" / ".hidden.png").touch()
    assert [path.name for path in rasters_in(tmp_path / "a", recursive=True)] == ["b.png"]
    listed = os.scandir

    def refused(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(NothingDoneError, match="locked: cannot be listed: Permission denied"):
        rasters_in(tmp_path / "a", recursive=True)
