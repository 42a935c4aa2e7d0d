"""What damaged files have led to, each kind once; `test_fuzz.py` looks for more."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from helpers import SHARED
from rasterio.shutil import copy
from test_hostile import PIXELS, SHORT, grey, polygon, tiff

from segcli.classes import ClassTable
from segcli.errors import InputError, UsageError
from segcli.evaluation.files import read_report
from segcli.raster import netcdf, trial
from segcli.raster.burn import kinds_in, table_of_kinds
from segcli.raster.contents import open_contents
from segcli.raster.images import open_images
from segcli.raster.source import Source


def as_netcdf(path: Path, kind: str, pixels: np.ndarray) -> Path:
    """One band, in a classic format."""
    source = path.with_suffix(".tif")
    with rasterio.open(
        source, "w", driver="GTiff", height=pixels.shape[0], width=pixels.shape[1], count=1, dtype=pixels.dtype,
        crs="EPSG:32633", transform=rasterio.transform.from_origin(5e5, 5e6, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(pixels, 1)
    copy(source, path, driver="netCDF", FORMAT=kind)
    return path


@pytest.mark.parametrize("kind", ["NC", "NC2"])
def test_a_netcdf_that_ends_anywhere_in_its_header_is_refused(tmp_path: Path, kind: str) -> None:
    """The library reads on behind its end: it falls, or runs for ever."""
    whole = as_netcdf(tmp_path / "a.nc", kind, np.ones((6, 5), np.uint8))
    netcdf.check_header(whole)
    data = whole.read_bytes()
    cut = tmp_path / "cut.nc"
    header = data.rindex(b"grid_mapping")  # one of the last things in it
    for end in range(4, header, 3):
        cut.write_bytes(data[:end])
        with pytest.raises(OSError, match="ends inside its header"):
            netcdf.check_header(cut)
    for name in (cut, f'NETCDF:"{cut}":Band1'):
        with pytest.raises(InputError, match="ends inside its header"):
            open_contents(name)
    cut.write_bytes(data[:8] + b"\0\0\0\x0e" + data[12:])
    with pytest.raises(OSError, match="14 in place of 10"):
        netcdf.check_header(cut)


@pytest.mark.parametrize("kind", ["NC", "NC2"])
def test_a_netcdf_without_all_its_data_is_refused(tmp_path: Path, kind: str) -> None:
    """The library gives zeros for them; or, where the header claims millions of records, a band for each."""
    data = as_netcdf(tmp_path / "whole.nc", kind, np.ones((60, 50), np.int16)).read_bytes()
    for missing in (4, 1000, 5000):
        (tmp_path / "cut.nc").write_bytes(data[:-missing])
        with pytest.raises(InputError, match=rf"a netCDF of {len(data) - missing} bytes whose header claims"):
            open_contents(tmp_path / "cut.nc")
    with open_images(tmp_path / "whole.nc").planes[0] as source:
        assert source.patch(0, 0, 60, 50)[0].sum() == 3000


def test_records_of_a_netcdf_are_counted(tmp_path: Path) -> None:
    """A variable of 3 int16 for each record, alone and beside one of 4 bytes; how many there are is in the header."""
    dims = struct.pack(">II", 10, 2) + struct.pack(">I4sI", 4, b"time", 0) + struct.pack(">I4sI", 1, b"x\0\0\0", 3)
    gone = struct.pack(">II", 0, 0)

    def written(records: int, both: bool) -> Path:
        short, whole = (b"a", 3, 8, [0, 1]), (b"b", 4, 4, [0])
        chosen = [short, whole] if both else [short]
        begin = 4 + 4 + len(dims) + 8 + 8 + sum(8 + 4 + 4 * len(v[3]) + 8 + 12 for v in chosen)
        variables = struct.pack(">II", 11, len(chosen))
        for n, (name, kind, size, places) in enumerate(chosen):
            variables += struct.pack(">I4sI", 1, name, len(places)) + struct.pack(f">{len(places)}I", *places)
            variables += gone + struct.pack(">III", kind, size, begin + 8 * n)
        record = 12 if both else 6
        path = tmp_path / "a.nc"
        head = b"CDF\x01" + struct.pack(">I", records) + dims + gone + variables
        assert len(head) == begin
        path.write_bytes(head + bytes(5 * record))
        return path

    for both in (False, True):
        netcdf.check_header(written(5, both))
        netcdf.check_header(written(2**32 - 1, both))  # not known yet
        with pytest.raises(OSError, match="header claims"):
            netcdf.check_header(written(6, both))


def test_what_a_library_does_not_come_back_from_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 is opened in a process of its own first, which may hang or fall."""
    path = tmp_path / "a.h5"
    path.write_bytes(trial.HDF5 + bytes(100))
    with pytest.raises(InputError, match="not recognized"):  # which GDAL says itself
        open_contents(path)
    monkeypatch.setattr(trial, "SECONDS", 0.5)
    for program, reason in (("while True: pass", "did not open it in 0.5 s"), ("import os; os.abort()", "signal 6")):
        monkeypatch.setattr(trial, "PROGRAM", program)
        trial._why_not.cache_clear()
        for name in (path, f'HDF5:"{path}"://data'):
            with pytest.raises(InputError, match=rf"a\.h5.*{reason}"):
                open_contents(name)
    (tmp_path / "b.h5").write_bytes(bytes(512) + trial.HDF5)
    with pytest.raises(InputError, match="signal 6"):
        open_contents(tmp_path / "b.h5")


@pytest.mark.skipif(not SHARED.exists(), reason="the collections are not beside the checkout")
def test_whole_headers_of_netcdf_are_passed() -> None:
    for path in sorted((SHARED / "odd" / "good").rglob("*.nc")):
        netcdf.check_header(path)


def test_a_page_behind_the_first_with_65281_bands(tmp_path: Path) -> None:
    second = grey(8, 8, 64) | {277: (SHORT, 65281)}
    data = tiff(grey(8, 8, 64), bytes(64), following=PIXELS + 64) + tiff(second)[8:PIXELS]
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match="65281 bands in the page at byte"):
        open_images(tmp_path / "a.tif")


def test_raw_bytes_with_65535_bands(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(bytes(65535))
    (tmp_path / "a.hdr").write_text("ENVI\nsamples = 1\nlines = 1\nbands = 65535\ndata type = 1\ninterleave = bsq\n")
    with pytest.raises(InputError):
        Source(tmp_path / "a.img")


def test_a_million_images_of_no_bytes_behind_one_page(tmp_path: Path) -> None:
    text = b"ImageJ=1.53t\nimages=1000000\nslices=1000000\n\0"
    (tmp_path / "a.tif").write_bytes(tiff(grey(8, 8, 64) | {258: (SHORT, 0), 270: text}, bytes(64)))
    with pytest.raises(InputError, match="count 1000000 images"):
        open_images(tmp_path / "a.tif")


def test_a_block_of_4_gb_that_another_decoder_is_asked_for(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8), compression="jpegxl")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages.first.tags["StripByteCounts"].overwrite(2**32 - 1, dtype="I")
    with pytest.raises(InputError, match="ends inside a block"):
        open_images(tmp_path / "a.tif")


def test_few_bytes_that_claim_much_and_large_files_that_are_nearly_empty(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(grey(2**16, 2**15, 0, 8)))
    with pytest.raises(InputError, match="claim 2 GB of pixels"):
        open_images(tmp_path / "a.tif")
    sparse = {"tiled": True, "blockxsize": 512, "blockysize": 512, "SPARSE_OK": True, "compress": "deflate"}
    with rasterio.open(
        tmp_path / "b.tif", "w", driver="GTiff", height=65536, width=65536, count=1, dtype="uint8", nodata=0,
        crs="EPSG:32633", transform=rasterio.transform.from_origin(5e5, 5e6, 10, 10), **sparse,
    ) as dataset:  # fmt: skip
        dataset.write(np.ones((1, 512, 512), np.uint8), window=rasterio.windows.Window(0, 0, 512, 512))
    with Source(tmp_path / "b.tif") as source:
        assert source.window(0, 510, 1, 4).tolist() == [[[1, 1, 0, 0]]]


def test_rings_that_are_open_and_classes_without_end(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text(polygon("[0, 0]").replace(", [0, 0]]", ", [9, 9]]"))
    with pytest.raises(InputError, match="expected polygons"):
        kinds_in(tmp_path / "a.geojson")
    with pytest.raises(UsageError, match="300 classes"):
        table_of_kinds([f"class {n}" for n in range(300)])
    assert table_of_kinds(["²", "7"]).names == ("background", "class 7", "²")


@pytest.mark.parametrize("text", ["[" * 10**5, json.dumps({"schema": 2, "classes": ["a"], "per_image": [
    {"image": "a", "counts": [[0, 0, 10**30]]}]})])  # fmt: skip
def test_reports_of_depth_and_of_huge_numbers(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UsageError, match="no report"):
        read_report(tmp_path, ClassTable.from_indices([0]), "skip")


def test_what_gdal_repeats_of_a_file_is_not_printed_as_an_error_of_python(tmp_path: Path) -> None:
    """rasterio cannot log a message that is not UTF-8, such as one with a damaged name in it."""
    code = (
        "import segcli.raster.gdal, sys; sys.excepthook(UnicodeDecodeError, UnicodeDecodeError('utf-8', b'', 0, 1, ''),"
        " None); print('heard', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "heard\n"


def test_stacks_of_imagej_are_still_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 6, 7), np.uint16), imagej=True, metadata={"axes": "ZYX"})
    assert len(open_images(tmp_path / "a.tif").planes) == 4
