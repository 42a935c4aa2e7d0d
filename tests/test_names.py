"""What users may name: archives, URLs, data sets inside files, folders that are images."""

import socket
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers import SHARED, write_picture
from rasterio.errors import NotGeoreferencedWarning
from test_products import labels_of, predict, write_raster

from segcli import batch
from segcli.errors import InputError
from segcli.raster import endings
from segcli.raster.images import open_images
from segcli.raster.names import gdal_name, is_folder, parse, relative_name
from segcli.raster.source import Source


@pytest.fixture
def scene(rng: np.random.Generator) -> np.ndarray:
    pixels = rng.integers(0, 255, (3, 61, 83), np.uint8)
    pixels[0] = np.where(rng.random((61, 83)) > 0.5, 220, 30)
    return pixels


@pytest.mark.parametrize(
    ("text", "kept", "name"),
    [
        ("scans/a.tif", False, "a.tif"),
        ("https://host/data/b.tif?signature=1#x", True, "b.tif"),
        ("s3://bucket/folder/c.tif", True, "c.tif"),
        ("/vsicurl/https://host/d.tif", True, "d.tif"),
        ("/vsizip/a.zip/inside/e.tif", True, "e.tif"),
        ('NETCDF:"data/f.nc":red', True, "f_red.nc"),
        ('HDF5:"g.h5"://group/data', True, "g_group_data.h5"),
        ("GTIFF_DIR:2:h.tif", True, "h_2.tif"),
    ],
)
def test_names(text: str, kept: bool, name: str) -> None:
    found = parse(text)
    assert isinstance(found, str) == kept
    assert relative_name(found) == Path(name)
    assert not is_folder(found)


def test_a_file_whose_name_looks_like_a_data_set_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(tmp_path / "AB:1.png", np.zeros((2, 2), np.uint8))
    monkeypatch.chdir(tmp_path)
    assert parse("AB:1.png") == Path("AB:1.png")


def test_an_archive_with_one_raster(tmp_path: Path, weights: Path, scene: np.ndarray) -> None:
    scan = write_raster(tmp_path / "a.tif", scene)
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.write(scan, "deep/in/a.tif")
        archive.writestr("readme.txt", "text")
    assert predict(tmp_path, weights, tmp_path / "one.zip") == 0
    with rasterio.open(tmp_path / "masks" / "one.tif") as mask:
        assert np.array_equal(mask.read(1), labels_of(scene))
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.write(scan, "a.tif")
        archive.write(scan, "b.tif")
    with pytest.raises(InputError, match=r"holds a\.tif, b\.tif; expected one raster; name one: /vsizip/"):
        gdal_name(tmp_path / "two.zip")
    assert predict(tmp_path, weights, f"/vsizip/{tmp_path}/two.zip/b.tif") == 0
    assert (tmp_path / "masks" / "b.tif").exists()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Files of `tmp_path` by HTTP, from a process of its own: GDAL waits without letting Python go on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as running:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        running.terminate()


def test_an_image_by_its_url(tmp_path: Path, weights: Path, scene: np.ndarray, server: str) -> None:
    write_raster(tmp_path / "far.tif", scene)
    assert predict(tmp_path, weights, f"{server}/far.tif") == 0
    with rasterio.open(tmp_path / "masks" / "far.tif") as mask:
        assert np.array_equal(mask.read(1), labels_of(scene))
        assert mask.crs.to_epsg() == 32633
    assert predict(tmp_path, weights, f"{server}/missing.tif") == 1


def test_outputs_of_names_do_not_clash(tmp_path: Path) -> None:
    inputs = [parse('NETCDF:"a.nc":red'), parse('NETCDF:"a.nc":green'), Path("a.png")]
    _, jobs = batch.plan(inputs, tmp_path, partial(endings.suffix, "auto"), False)
    assert [job.output.name for job in jobs] == ["a_red.tif", "a_green.tif", "a.png"]


@pytest.mark.parametrize(
    "suffix", [".jp2", ".webp", ".bmp", ".pgm", ".ppm", ".png", ".jpg", ".img", ".vrt", ".envi", ".ntf"]
)
def test_formats(tmp_path: Path, weights: Path, scene: np.ndarray, suffix: str) -> None:
    scan = write_raster(tmp_path / "a.tif", scene)
    drivers = {".jp2": "JP2OpenJPEG", ".webp": "WEBP", ".bmp": "BMP", ".pgm": "PNM", ".ppm": "PNM", ".png": "PNG"}
    drivers |= {".jpg": "JPEG", ".img": "HFA", ".vrt": "VRT", ".envi": "ENVI", ".ntf": "NITF"}
    more = {".jp2": {"REVERSIBLE": "YES", "QUALITY": "100"}, ".webp": {"LOSSLESS": "YES"}, ".jpg": {"QUALITY": "100"}}
    path = tmp_path / "in" / f"a{suffix}"
    path.parent.mkdir()
    source = scan
    if suffix == ".pgm":
        source = write_raster(tmp_path / "grey.tif", scene[:1])
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        rasterio.shutil.copy(source, path, driver=drivers[suffix], **more.get(suffix, {}))
    assert predict(tmp_path, weights, path) == 0
    picture = suffix in (".webp", ".bmp", ".pgm", ".ppm", ".png", ".jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        mask = rasterio.open(tmp_path / "masks" / ("a.png" if picture else "a.tif"))
    with mask:
        agreement = (mask.read(1) == labels_of(scene)).mean()
        assert agreement == 1 if suffix != ".jpg" else agreement > 0.8  # JPEG halves colours
        if not picture:
            assert mask.crs.to_epsg() == 32633


REAL = SHARED / "real"


@pytest.mark.skipif(not REAL.exists(), reason="the real files are not beside the checkout")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_real_files() -> None:
    """Slides, a stack, netCDF, JPEG 2000: the right image, of the right size, in the right number."""
    slide = open_images(REAL / "CMU-1-Small-Region.svs")
    (plane,) = slide.planes
    assert (plane.grid.height, plane.grid.width, plane.bands, plane.grid.calibration["X"]) == (2967, 2220, 3, 0.499)
    with rasterio.open(REAL / "CMU-1-Small-Region.svs") as file:
        window = rasterio.windows.Window(1000, 900, 300, 200)
        assert np.array_equal(plane.window(900, 1000, 200, 300), file.read(window=window))
    plane.close()
    fluorescence = REAL / "test3-DAPI-2-(387).ndpi"
    for level, size in enumerate(((4864, 3968), (2432, 1984), (1216, 992), (608, 496))):
        (plane,) = open_images(fluorescence, level=level).planes
        assert (plane.grid.height, plane.grid.width) == size
        assert plane.grid.calibration["X"] == pytest.approx(0.228175 * 2**level, rel=1e-3)
        plane.close()
    (plane,) = open_images(fluorescence, mpp=0.9).planes
    assert plane.grid.width == 992
    plane.close()
    stack = open_images(REAL / "4D-series.ome.tiff")
    assert (stack.axes, stack.shape, len(stack.planes)) == ("TZ", (7, 5), 35)
    import tifffile

    pixels = tifffile.imread(REAL / "4D-series.ome.tiff")
    for n in (0, 17, 34):
        assert np.array_equal(stack.planes[n].window(0, 0, 167, 439)[0], pixels.reshape(35, 167, 439)[n])
    for plane in stack.planes:
        plane.close()
    with pytest.raises(InputError, match=r"data sets; expected one; name one: netcdf:"):
        open_images(REAL / "RGB.nc")
    with Source(f"NETCDF:{REAL}/RGB.nc:Band1") as one, Source(REAL / "RGB.byte.tif") as other:
        assert np.array_equal(one.window(0, 0, 718, 791)[0], other.window(0, 0, 718, 791)[0])
    with Source(REAL / "landsat8" / "stack.vrt") as source:
        assert (source.bands, source.dtype) == (6, "uint16")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("driver", ["Zarr", "netCDF"])
def test_data_sets_of_several_dimensions(tmp_path: Path, weights: Path, scene: np.ndarray, driver: str) -> None:
    """A Zarr is a folder, and one image; of a netCDF a variable is named."""
    scan = write_raster(tmp_path / "a.tif", scene[:1])
    path = tmp_path / ("a.zarr" if driver == "Zarr" else "a.nc")
    try:
        rasterio.shutil.copy(scan, path, driver=driver)
    except rasterio.errors.RasterioError as error:
        pytest.skip(f"this GDAL cannot write {driver}: {error}")
    name = path if driver == "Zarr" else parse(f'NETCDF:"{path}":Band1')
    assert predict(tmp_path, weights, name) == 0
    with rasterio.open(tmp_path / "masks" / ("a.tif" if driver == "Zarr" else "a_Band1.tif")) as mask:
        assert np.array_equal(mask.read(1), labels_of(scene))
        assert mask.crs.to_epsg() == 32633
