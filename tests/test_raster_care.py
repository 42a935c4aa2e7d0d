"""Rasters that were read wrongly once: data where there are none, the wrong image of a file, what lies where."""

import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from helpers import SHARED, few_open_files, write_picture
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from test_products import predict, write_stack

from segcli.colorize import run as colorize
from segcli.console import Console
from segcli.errors import InputError
from segcli.inputs import named
from segcli.options import ColorizeOptions
from segcli.raster import trial
from segcli.raster.images import open_images
from segcli.raster.names import rasters_in
from segcli.raster.origins import origins
from segcli.raster.source import Source
from segcli.raster.stored import stored
from segcli.raster.tiffs import structure

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

Tile = Callable[..., int]
PLACE = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_300_000, 2, 2)}


def valid_in(path: Path, purpose: Any = "image") -> np.ndarray:
    with Source(path, purpose) as source:
        pixels, valid = source.patch(0, 0, source.grid.height, source.grid.width)
        return np.ones(pixels.shape[1:], bool) if valid is None else valid


def write_bands(path: Path, pixels: np.ndarray, kinds: list[ColorInterp], nodata: float | None) -> Path:
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype, nodata=nodata,
        photometric="RGB", alpha="UNSPECIFIED",
    ) as file:  # fmt: skip
        file.write(pixels)
        file.colorinterp = kinds
    return path


RGB = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]


@pytest.mark.parametrize("purpose", ["image", "stored"])
def test_nodata_of_red_green_blue_and_infrared_is_that_of_all_bands(tmp_path: Path, purpose: str) -> None:
    """Water, black in the near infrared alone, is data."""
    pixels = np.full((4, 4, 5), 100, np.uint8)
    pixels[3, 0] = 0
    pixels[:, 1, :2] = 0
    path = write_bands(tmp_path / "a.tif", pixels, [*RGB, ColorInterp.undefined], 0)
    assert np.array_equal(valid_in(path, purpose), (pixels != 0).any(axis=0))


def test_alpha_beside_a_nodata_value_says_where_there_are_data(tmp_path: Path) -> None:
    """GDAL follows one of the two, the value. A TIFF made by rasterio drops the alpha that it is told of too late."""
    pixels = np.full((4, 4, 5), 100, np.uint8)
    pixels[3] = 255  # opaque
    pixels[3, 0] = 0
    pixels[:3, 1, 1] = 255
    for bands, nodata in ((4, 255), (2, 255)):
        path = tmp_path / f"{bands}.tif"
        picked = pixels[[0, 1, 2, 3] if bands == 4 else [0, 3]]
        tifffile.imwrite(
            path, np.moveaxis(picked, 0, -1), photometric="rgb" if bands == 4 else "minisblack", metadata=None,
            planarconfig="contig", extrasamples=["unassalpha"], extratags=[(42113, 2, 0, str(nodata), True)],
        )  # fmt: skip
        with rasterio.open(path) as file:
            assert file.nodata == nodata
            assert file.colorinterp[-1] == ColorInterp.alpha
        expected = picked[-1] > 0
        expected[1, 1] = False
        assert np.array_equal(valid_in(path), expected)


def test_the_slide_of_a_leica_scanner_is_not_its_macro_picture(tmp_path: Path, rng: np.random.Generator) -> None:
    """Its file begins with the macro picture."""
    macro, slide = (rng.integers(0, 255, (side, side, 3), np.uint8) for side in (64, 256))
    image = (
        '<image><pixels sizeX="{n}" sizeY="{n}"><dimension sizeX="{n}" sizeY="{n}" r="0" ifd="{ifd}"/></pixels>'
        '<view sizeX="{n}" sizeY="{n}" offsetX="0" offsetY="0"/></image>'
    )
    images = image.format(n=64, ifd=0) + image.format(n=256, ifd=1)
    head = '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
    text = f'{head}<collection name="a" uuid="b" sizeX="256" sizeY="256">{images}</collection></scn>'
    path = tmp_path / "a.scn"
    with tifffile.TiffWriter(path) as file:
        common: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
        file.write(macro, description=text, resolution=(100, 100), resolutionunit="CENTIMETER", **common)
        file.write(slide, resolution=(20_000, 20_000), resolutionunit="CENTIMETER", **common)
    with tifffile.TiffFile(path) as found:
        assert "scn" in found.flags
    images_found = open_images(path)
    (plane,) = images_found.planes
    assert np.array_equal(plane.window(0, 0, 256, 256), np.moveaxis(slide, -1, 0))
    assert plane.grid.calibration["X"] == pytest.approx(0.5)
    images_found.close()


def write_jxl(path: Path, pixels: np.ndarray, **tags: Any) -> Path:
    """(band, row, col) in a compression that GDAL as it comes does not read, with GeoTIFF's tags and nodata 0."""
    said = [
        (33550, "d", 3, (2.0, 2.0, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 500_000.0, 5_300_000.0, 0.0), True),
        (34735, "H", 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633), True),
        (42113, "s", 2, "0", True),
    ]  # fmt: skip
    tifffile.imwrite(
        path, np.moveaxis(pixels, 0, -1), tile=(16, 16), compression="jpegxl", compressionargs={"lossless": True},
        metadata=None, planarconfig="contig", extratags=said, **tags,
    )  # fmt: skip
    return path


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_what_gdal_cannot_decode_keeps_its_place_its_bands_and_what_is_no_data(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    pixels = rng.integers(1, 255, (4, 33, 40), np.uint8)
    pixels[:, 2, 3] = 0
    pixels[3, 5] = 0
    path = write_jxl(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unspecified"])
    with Source(path) as source:
        assert (source.bands, source.begins_with_rgb, source.nodata) == (4, True, 0)
        assert source.grid.transform == PLACE["transform"]
        assert source.grid.crs.to_epsg() == 32633
        assert (source.grid.height, source.grid.width) == (33, 40)
        found, valid = source.patch(0, 0, 33, 40)
        assert np.array_equal(found, pixels)
        assert valid is not None
        assert np.array_equal(np.argwhere(~valid), [[2, 3]])
    six = write_jxl(tmp_path / "b.tif", pixels[[0, 1, 2, 3, 0, 1]], photometric="minisblack")
    with Source(six) as source, Source(six, "stored") as whole:
        assert (source.bands, whole.bands) == (6, 6)
        assert stored(whole).nodata == 0
    alpha = write_jxl(tmp_path / "c.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    with Source(alpha) as source:
        assert source.bands == 3
        valid = source.patch(0, 0, 33, 40)[1]
        assert valid is not None
        assert np.array_equal(valid, pixels[3] > 0)


def test_alpha_of_a_film_s_first_picture_says_where_there_are_data(tmp_path: Path) -> None:
    pixels = np.full((8, 8, 4), 200, np.uint8)
    pixels[:4, :, 3] = 0
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True, exact=True)
    assert np.array_equal(valid_in(tmp_path / "a.webp"), pixels[..., 3] > 0)


def test_a_stack_of_sixteen_bits_of_more_planes_than_files_may_be_open(
    tmp_path: Path, weights: Path, rng: np.random.Generator
) -> None:
    """Their highest value is looked for in all of them first."""
    planes = rng.integers(0, 4096, (300, 130, 140), np.uint16)
    scan = write_stack(tmp_path / "a.ome.tif", planes, "ZYX", ome=True)
    with few_open_files():
        assert predict(tmp_path, weights, scan) == 0
        mask = tmp_path / "masks" / "a.ome.tif"
        assert colorize(ColorizeOptions((mask,), tmp_path / "pictures"), Console()) == 0


def test_nothing_beside_the_user_s_files_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rasterio.py").write_text("open('was_here', 'w')\n")
    (tmp_path / "a.h5").write_bytes(trial.HDF5)
    monkeypatch.chdir(tmp_path)
    trial.check_opens("a.h5", tmp_path / "a.h5")
    assert not (tmp_path / "was_here").exists()


def test_a_camera_raw_is_not_its_thumbnail(tmp_path: Path, rng: np.random.Generator) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        small, large = (rng.integers(0, 255, (side, side, 3), np.uint8) for side in (16, 64))
        file.write(small, photometric="rgb", subifds=1, subfiletype=1, metadata=None)
        file.write(large, photometric="rgb", metadata=None)
    with pytest.raises(InputError, match="a thumbnail, and its image lies in SubIFDs; develop it"):
        Source(tmp_path / "a.tif")


def test_a_photograph_in_an_archive_is_seen_upright(tmp_path: Path, rng: np.random.Generator) -> None:
    exif = Image.Exif()
    exif[274] = 6
    grey = Image.fromarray(rng.integers(0, 255, (20, 30), np.uint8))
    grey.save(tmp_path / "a.jpg", exif=exif, quality=95)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.jpg", "a.jpg")
    with Source(tmp_path / "a.jpg") as plain, Source(tmp_path / "a.zip") as packed:
        assert (packed.grid.height, packed.grid.width) == (30, 20)
        assert np.array_equal(packed.window(0, 0, 30, 20), plain.window(0, 0, 30, 20))


def test_a_slide_of_one_level_has_the_pixel_size_that_is_asked_for(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path, rng.integers(0, 255, (2, 32, 32), np.uint8), photometric="minisblack",
        metadata={"axes": "ZYX", "PhysicalSizeX": 0.499, "PhysicalSizeXUnit": "µm"}, ome=True,
    )  # fmt: skip
    open_images(path, mpp=0.5).close()
    with pytest.raises(InputError, match=r"levels of 0\.499 micrometres a pixel; none is near 2"):
        open_images(path, mpp=2)
    with pytest.raises(InputError, match="pyramid levels 0 to 0; no level 1"):
        open_images(path, level=1)
    slide = SHARED / "real" / "CMU-1-Small-Region.svs"
    if slide.exists():
        open_images(slide, mpp=0.5).close()


def test_channels_of_a_slide_have_its_pyramid(tmp_path: Path, rng: np.random.Generator) -> None:
    """As scanners of fluorescence write it: a page a channel, a thumbnail, then smaller pages of every channel."""
    path, channels = tmp_path / "a.qptiff", rng.integers(0, 255, (3, 256, 192), np.uint8)
    common = {"software": "PerkinElmer-QPI", "metadata": None}
    thumbnail = rng.integers(0, 255, (50, 40, 3), np.uint8)
    with tifffile.TiffWriter(path) as file:
        for channel in channels:
            file.write(channel, tile=(64, 64), resolution=(20000, 20000), resolutionunit="CENTIMETER", **common)
        file.write(thumbnail, photometric="rgb", **common)
        for step in (2, 4):
            for channel in channels:
                file.write(channel[::step, ::step], tile=(64, 64), subfiletype=1, **common)
        file.write(thumbnail, photometric="rgb", **common)
    for level in range(3):
        with closing(open_images(path, level=level)) as images:
            (plane,) = images.planes
            smaller = channels[:, :: 2**level, :: 2**level]
            assert np.array_equal(plane.window(0, 0, *smaller.shape[1:]), smaller)
            assert plane.grid.calibration == pytest.approx({"X": 0.5 * 2**level, "Y": 0.5 * 2**level})
    with pytest.raises(InputError, match="pyramid levels 0 to 2; no level 3"):
        open_images(path, level=3)
    with closing(open_images(path, mpp=2)) as images:
        assert images.planes[0].grid.width == 48


def test_stacks_of_tifffile_have_their_pyramid_and_pixel_size(tmp_path: Path, rng: np.random.Generator) -> None:
    path, stack = tmp_path / "a.tif", rng.integers(0, 255, (5, 64, 96), np.uint8)
    common = {"tile": (16, 16), "photometric": "minisblack"}
    with tifffile.TiffWriter(path) as file:
        file.write(stack, subifds=1, resolution=(20000, 20000), resolutionunit="CENTIMETER", **common)
        file.write(stack[:, ::2, ::2], subfiletype=1, **common)
    for level, step in ((0, 1), (1, 2)):
        with closing(open_images(path, level=level)) as images:
            assert len(images.planes) == 5
            for plane, pixels in zip(images.planes, stack[:, ::step, ::step], strict=True):
                assert np.array_equal(plane.window(0, 0, *pixels.shape)[0], pixels)
                assert plane.grid.calibration == pytest.approx({"X": 0.5 * step, "Y": 0.5 * step})


def test_names_of_data_sets_are_no_patterns() -> None:
    texts = ["/vsizip/a.zip/b[1].tif", 'NETCDF:"a[1].nc":x']
    assert named(texts) == tuple(texts)


def test_hidden_folders_are_not_searched(tmp_path: Path) -> None:
    for name in ("a/b.png", "a/.checkpoints/b-1.png", ".Trash/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_picture(tmp_path / name, np.zeros((4, 4), np.uint8))
    assert rasters_in(tmp_path, recursive=True) == [tmp_path / "a" / "b.png"]


def test_channels_within_a_page_of_a_microscope_are_its_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeiss's files say C of what lies within a page; nothing here writes such a file."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((5, 8, 9, 2), np.uint8), photometric="minisblack", planarconfig="contig")
    read = vars(tifffile.TiffFile)["series"].func

    def renamed(self: tifffile.TiffFile) -> list[Any]:
        (series,) = read(self)
        facts = {"shape": series.shape, "size": series.size, "pages": series.pages}
        return [SimpleNamespace(axes="ZYXC", levels=[SimpleNamespace(**facts)], **facts)]

    monkeypatch.setattr(tifffile.TiffFile, "series", property(renamed))
    found = structure(path)
    assert found is not None
    assert (found.axes, found.shape, len(found.levels[0])) == ("Z", (5,), 5)


@pytest.mark.parametrize(
    "text",
    [
        "<WCS_GDAL><ServiceURL>http://127.0.0.1:1/</ServiceURL><CoverageName>a</CoverageName></WCS_GDAL>",
        "<GDALTileIndexDataset><IndexDataset>a.gpkg</IndexDataset></GDALTileIndexDataset>",
        "<GDAL_WMTS><GetCapabilitiesUrl>http://127.0.0.1:1/</GetCapabilitiesUrl></GDAL_WMTS>",
    ],
)
def test_descriptions_of_servers_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.tif").write_text(text)
    with pytest.raises(InputError, match="a description of a server, or an index of files elsewhere"):
        Source(tmp_path / "a.tif")


def test_headers_of_both_namings_are_asked(tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    for path in (image, tmp_path / "a.img.hdr", tmp_path / "a.ige"):
        path.touch()
    assert origins(image) == (image, tmp_path / "a.ige", tmp_path / "a.img.hdr")


VRT = (
    '<VRTDataset rasterXSize="60" rasterYSize="50"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    '<SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>'
    "</VRTDataset>"
)


def write_one(path: Path, value: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", count=1, height=50, width=60, dtype="uint8", **PLACE) as file:
        file.write(np.full((50, 60), value, np.uint8), 1)
    return path


def test_tiles_that_a_mosaic_of_them_reads_are_not_removed(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    write_one(tmp_path / "a.tif", 1)
    assert tile("a.tif", "--size", 30, "--out", "t") == 0
    (tmp_path / "m.vrt").write_text(VRT.format("t/a_r00000_c00000.tif"))
    assert tile("m.vrt", "--size", 20, "--out", "t", "--overwrite") == 2
    assert "t/a_r00000_c00000.tif: is an input, and would be removed" in capsys.readouterr().err
    assert len(list((tmp_path / "t").glob("*.tif"))) == 4


@pytest.mark.parametrize("kind", ["vrt", "archive", "zarr"])
def test_tiles_of_what_is_read_from_other_files_follow_these(
    tmp_path: Path, tile: Tile, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(value: int) -> str:
        write_one(tmp_path / "b" / "a.tif", value)
        if kind == "vrt":
            (tmp_path / "m.vrt").write_text(VRT.format("b/a.tif"))
            return "m.vrt"
        if kind == "archive":
            with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
                archive.write(tmp_path / "b" / "a.tif", "a.tif")
            return f"/vsizip/{tmp_path}/z.zip/a.tif"
        with rasterio.open(tmp_path / "b" / "a.tif") as file, rasterio.open(
            tmp_path / "z.zarr", "w", driver="Zarr", count=1, height=50, width=60, dtype="uint8"
        ) as store:  # fmt: skip
            store.write(file.read())
        return "z.zarr"

    try:
        name = make(1)
    except rasterio.errors.RasterioError as error:
        pytest.skip(f"GDAL does not write {kind} here: {error}")
    assert tile(name, "--size", 30, "--out", "t") == 0
    assert tile(name, "--size", 30, "--out", "t", "--verify") == 0
    make(2)
    assert tile(name, "--size", 30, "--out", "t", "--verify") == 1
    assert "source changed" in capsys.readouterr().out


def test_planes_that_gdal_cannot_decode_are_more_than_files_may_be_open(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    pytest.importorskip("imagecodecs")
    path, planes = tmp_path / "a.tif", rng.integers(0, 255, (140, 12, 16), np.uint8)
    tifffile.imwrite(path, planes, photometric="minisblack", metadata={"axes": "ZYX"}, compression="jpeg2000",
                     compressionargs={"level": 0})  # fmt: skip
    with few_open_files(), closing(open_images(path)) as images:
        found = [np.concatenate([strip.pixels[0] for strip in plane.strips(5)]) for plane in images.planes]
    assert np.array_equal(found, planes)


def test_overviews_and_masks_of_an_older_output_go_with_it(tmp_path: Path, weights: Path) -> None:
    """As QGIS builds them in files of their own: zoomed out the old mask would be shown."""
    scan = write_picture(tmp_path / "a.tif", np.full((300, 300, 3), 220, np.uint8))
    assert predict(tmp_path, weights, scan) == 0
    mask = tmp_path / "masks" / "a.tif"
    beside = [Path(f"{mask}{ending}") for ending in (".ovr", ".msk")]
    for path in beside:
        path.write_bytes(mask.read_bytes())
    assert predict(tmp_path, weights, scan) == 0  # nothing to do
    assert all(path.exists() for path in beside)
    write_picture(tmp_path / "a.tif", np.full((300, 300, 3), 20, np.uint8))
    assert predict(tmp_path, weights, scan) == 0
    assert not any(path.exists() for path in beside)


def test_overviews_in_a_file_of_their_own_are_a_source_where_a_level_is_asked_for(
    tmp_path: Path, weights: Path
) -> None:
    scan = tmp_path / "a.tif"
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 2, 2)}
    with rasterio.open(scan, "w", "GTiff", 200, 160, 3, dtype="uint8", **place) as file:
        file.write(np.full((3, 160, 200), 220, np.uint8))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(scan, "r+") as file:
        file.build_overviews([2])
    outside = Path(f"{scan}.ovr")
    assert outside.exists()
    level, whole = {"level": 1}, {"level": None}
    assert predict(tmp_path, weights, scan, **level) == 0
    assert predict(tmp_path, weights, scan, verify=True, **level) == 0
    assert predict(tmp_path / "whole", weights, scan, **whole) == 0
    with rasterio.open(outside, "r+") as file:
        file.write(np.full((3, 80, 100), 20, np.uint8))
    assert predict(tmp_path, weights, scan, verify=True, **level) == 1
    assert predict(tmp_path / "whole", weights, scan, verify=True, **whole) == 0  # which nobody reads there
    assert predict(tmp_path, weights, scan, **level) == 0
    with rasterio.open(tmp_path / "masks" / "a.tif") as file:
        assert set(np.unique(file.read(1))) == {2}


@pytest.mark.parametrize("variable", ["PROJ_LIB", "PROJ_DATA"])
@pytest.mark.parametrize("kind", ["nothing", "another layout", "the same", "several"])
def test_data_of_another_proj_do_not_take_reference_systems_away(
    tmp_path: Path, weights: Path, segcli: Callable[..., Any], variable: str, kind: str
) -> None:
    """As QGIS, conda and PostGIS set the variable for their own programs."""
    own = Path(rasterio.__file__).with_name("proj_data") / "proj.db"
    if not own.exists():
        pytest.skip("rasterio has no data of its own here")
    (tmp_path / "proj").mkdir()
    if kind != "nothing":
        shutil.copy(own, tmp_path / "proj")
    if kind == "another layout":
        with closing(sqlite3.connect(tmp_path / "proj" / "proj.db")) as file:
            file.execute("UPDATE metadata SET value = '3' WHERE key = 'DATABASE.LAYOUT.VERSION.MINOR'")
            file.commit()
    with rasterio.open(tmp_path / "a.tif", "w", "GTiff", 60, 50, 3, dtype="uint8", crs="EPSG:3857",
                       transform=from_origin(1e6, 6e6, 10, 10)) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(0, 255, (3, 50, 60), np.uint8))
    value = f"{tmp_path / 'grids'}:{tmp_path / 'proj'}" if kind == "several" else str(tmp_path / "proj")
    result = segcli("predict", "a.tif", "--out", "masks", "--weights", weights, **{variable: value})
    assert result.returncode == 0, result.stderr
    with rasterio.open(tmp_path / "masks" / "a.tif") as file:
        assert file.crs == rasterio.crs.CRS.from_epsg(3857)
