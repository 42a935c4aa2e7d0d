"""What a reviewer found in files that are read, and in tiles that are cut of them: what lies beside a TIFF,
descriptions that are not true of a tile, metadata that went without a word, raw rasters that are whole."""

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
from rasterio.transform import from_origin

from segcli.errors import InputError
from segcli.raster.images import open_images
from segcli.raster.origins import origins
from segcli.raster.sidecars import sidecars
from segcli.raster.source import Source
from segcli.raster.stored import Stored, lost, stored

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

Tile = Callable[..., int]
AUX = (
    "<PAMDataset><SRS>EPSG:32633</SRS><GeoTransform>500000,10,0,6000000,0,-10</GeoTransform>"
    '<PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'
)
DIALECTS: dict[str, dict[str, Any]] = {
    "plain": {"metadata": None},
    "shaped": {},
    "imagej": {"imagej": True},
    "jpegxl": {"metadata": None, "compression": "jpegxl"},
}


def write(path: Path, pixels: np.ndarray, **more: Any) -> Path:
    """(band, row, col), nowhere on earth."""
    count, height, width = pixels.shape
    profile: dict[str, Any] = {"driver": "GTiff", "count": count, "height": height, "width": width} | more
    with rasterio.open(path, "w", dtype=pixels.dtype.name, **profile) as file:
        file.write(pixels)
    return path


def pixels_of(path: Path, purpose: Any = "image") -> np.ndarray:
    with Source(path, purpose) as source:
        return source.window(0, 0, source.grid.height, source.grid.width)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_lies_beside_a_tiff_counts_whoever_wrote_it(tmp_path: Path, dialect: str) -> None:
    path = tmp_path / "a.tif"
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    tifffile.imwrite(path, pixels, **DIALECTS[dialect])
    (tmp_path / "a.tif.aux.xml").write_text(AUX)
    with Source(path) as source:
        assert (source.grid.crs.to_epsg(), source.nodata) == (32633, 7)
        assert source.grid.transform.to_gdal() == (500000, 10, 0, 6000000, 0, -10)
        assert (source.grid.height, source.grid.width) == (8, 8)
        found, valid = source.patch(0, 0, 8, 8)
    np.testing.assert_array_equal(found[0], pixels)
    np.testing.assert_array_equal(valid, pixels != 7)


def test_a_tile_of_one_has_the_place_and_the_nodata(tmp_path: Path, tile: Tile) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.arange(64, dtype=np.uint8).reshape(8, 8))
    (tmp_path / "a.tif.aux.xml").write_text(AUX)
    assert tile("a.tif", "--size", 4, "--out", "t") == 0
    with rasterio.open(tmp_path / "t" / "a_r00004_c00000.tif") as file:
        assert (file.crs.to_epsg(), file.nodata) == (32633, 7)
        assert file.transform.to_gdal() == (500000, 10, 0, 5999960, 0, -10)


@pytest.mark.parametrize("dialect", ["plain", "shaped", "imagej"])
def test_a_mask_beside_a_tiff_counts_whoever_wrote_it(tmp_path: Path, dialect: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((8, 8), 5, np.uint8), **DIALECTS[dialect])
    mask = np.zeros((1, 8, 8), np.uint8)
    mask[:, 4:] = 255
    write(tmp_path / "a.tif.msk", mask)
    with rasterio.open(tmp_path / "a.tif.msk", "r+") as file:
        file.update_tags(INTERNAL_MASK_FLAGS_1="2")
    with Source(tmp_path / "a.tif") as source:
        _, valid = source.patch(0, 0, 8, 8)
    np.testing.assert_array_equal(valid, mask[0] > 0)


def test_of_several_pages_none_is_taken_for_the_file(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.arange(128, dtype=np.uint8).reshape(2, 8, 8), photometric="minisblack")
    images = open_images(tmp_path / "a.tif")
    assert images.shape == (2,)
    np.testing.assert_array_equal(images.planes[1].window(0, 0, 1, 2), [[[64, 65]]])
    images.close()


SCN = (
    '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
    '<collection sizeX="9" sizeY="9">{}</collection></scn>'
)
SCN_IMAGE = (
    '<image><pixels sizeX="{n}" sizeY="{n}"><dimension sizeX="{n}" sizeY="{n}" r="0" ifd="{ifd}"/></pixels>'
    '<view sizeX="{n}" sizeY="{n}" offsetX="0" offsetY="0"/></image>'
)


def write_scn(path: Path, slide: np.ndarray) -> None:
    """As Leica's scanners: the macro picture comes first."""
    images = SCN_IMAGE.format(n=32, ifd=0) + SCN_IMAGE.format(n=len(slide), ifd=1)
    with tifffile.TiffWriter(path) as file:
        for pixels in (slide[:32, :32], slide):
            file.write(
                pixels, description=SCN.format(images), photometric="rgb", tile=(64, 64),
                metadata=None, resolution=(20000, 20000), resolutionunit="CENTIMETER",
            )  # fmt: skip


def write_svs(path: Path, slide: np.ndarray) -> None:
    size = f"{slide.shape[1]}x{slide.shape[0]}"
    said = f"Aperio Image Library v11.2.1 \r\n{size} [0,0 {size}] (64x64) JPEG/RGB Q=30|AppMag = 20|MPP = 0.5"
    tifffile.imwrite(path, slide, description=said, photometric="rgb", tile=(64, 64), metadata=None)


def write_ome(path: Path, slide: np.ndarray) -> None:
    said = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, slide, photometric="rgb", metadata=said, ome=True)


def write_imagej(path: Path, slide: np.ndarray) -> None:
    tifffile.imwrite(path, slide[..., 0], imagej=True, resolution=(2, 2), metadata={"unit": "um"})


def write_shaped(path: Path, slide: np.ndarray) -> None:
    tifffile.imwrite(path, slide[..., 0], resolution=(20000, 20000), resolutionunit="CENTIMETER")


@pytest.mark.parametrize("write_one", [write_scn, write_svs, write_ome, write_imagej, write_shaped])
def test_what_counts_the_whole_file_is_not_said_of_its_tiles(
    tmp_path: Path, rng: np.random.Generator, tile: Tile, write_one: Callable[[Path, np.ndarray], None]
) -> None:
    """The size of a pixel, which it says too, is."""
    slide = rng.integers(0, 255, (128, 128, 3), np.uint8)
    write_one(tmp_path / "a.tif", slide)
    assert tile("a.tif", "--size", 64, "--out", "t", "--format", "tif") == 0
    path = tmp_path / "t" / "a_r00064_c00000.tif"
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.description == ""
    with Source(path) as source:
        assert source.grid.calibration == pytest.approx({"X": 0.5, "Y": 0.5})
        np.testing.assert_array_equal(source.window(0, 0, 64, 64)[0], slide[64:, :64, 0])


def test_other_descriptions_stay(tmp_path: Path, tile: Tile) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8), description="Field 7, ripe", metadata=None)
    assert tile("a.tif", "--size", 4, "--out", "t", "--format", "tif") == 0
    with rasterio.open(tmp_path / "t" / "a_r00000_c00000.tif") as file:
        assert file.tags()["TIFFTAG_IMAGEDESCRIPTION"] == "Field 7, ripe"


@pytest.mark.parametrize("size", [4, 600])
def test_metadata_of_other_domains_are_kept_or_named(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    write(tmp_path / "a.tif", np.zeros((2, 2 * size, size), np.uint8))
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.update_tags(ns="SENSOR", SUN="33")
        file.update_tags(2, ns="FILTER", WIDTH="5")
    assert tile("a.tif", "--size", size, "--out", "t") == 0
    assert "cannot keep" not in capsys.readouterr().err
    with rasterio.open(tmp_path / "t" / f"a_r{size:05}_c00000.tif") as file:
        assert (file.tags(ns="SENSOR"), file.tags(2, ns="FILTER")) == ({"SUN": "33"}, {"WIDTH": "5"})
    assert tile("t", "--join", "--out", "whole.tif") == 0
    with rasterio.open(tmp_path / "whole.tif") as file:
        assert (file.tags(ns="SENSOR"), file.tags(2, ns="FILTER")) == ({"SUN": "33"}, {"WIDTH": "5"})


def test_metadata_that_gdal_writes_beside_a_file_are_named(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.tif", np.zeros((1, 8, 8), np.uint8))
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.update_tags(ns="IMD", cloud="5")
    assert tile("a.tif", "--size", 4, "--out", "t") == 0
    assert "cannot keep metadata of IMD" in capsys.readouterr().err
    assert not list((tmp_path / "t").glob("*.IMD"))


def test_accounts_have_domains_and_nodata_by_band_and_older_ones_do_not() -> None:
    like = Stored(1, "uint8", kinds=("gray",), band_nodata=(0, math.nan), domains=({"SENSOR": {"SUN": "33"}}, {}))
    values = json.loads(json.dumps(like.to_json(), allow_nan=False))
    found = Stored.from_json(values)
    assert found.domains == like.domains
    np.testing.assert_array_equal(found.band_nodata, like.band_nodata)
    del values["domains"], values["band_nodata"]
    assert Stored.from_json(values) == Stored(1, "uint8", kinds=("gray",))
    with pytest.raises((TypeError, ValueError)):
        Stored.from_json({**values, "domains": [{"SENSOR": 1}]})


VRT = '<VRTDataset rasterXSize="8" rasterYSize="8">{}</VRTDataset>'
BAND = (
    '<VRTRasterBand dataType="{dtype}" band="{band}">{said}<SimpleSource><SourceFilename relativeToVRT="1">a.tif'
    "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
)


def test_nodata_that_differs_by_band_is_named(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.tif", np.zeros((1, 8, 8), np.uint8))
    bands = [
        BAND.format(dtype="Byte", band=n, said=f"<NoDataValue>{value}</NoDataValue>") for n, value in ((1, 0), (2, 20))
    ]
    (tmp_path / "b.vrt").write_text(VRT.format("".join(bands)))
    assert tile("b.vrt", "--size", 4, "--out", "t") == 0
    assert "that nodata differs by band" in capsys.readouterr().err
    assert json.loads((tmp_path / "t" / "tiles.json").read_text())["sources"][0]["stored"]["band_nodata"] == [0, 20]
    same = (tmp_path / "b.vrt").read_text().replace(">20<", ">0<")
    (tmp_path / "c.vrt").write_text(same)
    with Source(tmp_path / "c.vrt", "stored") as source:
        assert not lost(stored(source), stored(source))


def test_ome_metadata_in_another_file_are_asked_for(tmp_path: Path) -> None:
    said = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:a"><BinaryOnly MetadataFile="x.companion.ome" UUID="urn:uuid:c"/></OME>'
    )
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for n in range(3):
            file.write(np.zeros((8, 8), np.uint8), description=said if n == 0 else None, metadata=None)
    with pytest.raises(InputError, match=r"x\.companion\.ome; convert it to an OME-TIFF with its own metadata"):
        open_images(tmp_path / "a.ome.tif")


COLORS = (
    "<ColorInterp>Palette</ColorInterp><ColorTable>"
    '<Entry c1="1" c2="2" c3="3" c4="0"/><Entry c1="255" c2="0" c3="9" c4="255"/></ColorTable>'
)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_values_without_a_colour_are_black(tmp_path: Path, dtype: str) -> None:
    """Neither a fault nor, of negative ones, another's colour; as a mask they stay what they are."""
    values = np.zeros((1, 8, 8), dtype)
    values[0, 0, :4] = {"int16": (1, -1, -32768, 32767), "uint16": (1, 260, 65535, 2), "uint8": (1, 255, 2, 3)}[dtype]
    write(tmp_path / "a.tif", values)
    kind = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16"}[dtype]
    (tmp_path / "p.vrt").write_text(VRT.format(BAND.format(dtype=kind, band=1, said=COLORS)))
    with Source(tmp_path / "p.vrt") as source:
        pixels, valid = source.patch(0, 0, 1, 5)
    assert pixels[:, 0].T.tolist() == [[255, 0, 9], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 2, 3]]
    assert valid is not None and valid.tolist() == [[True, True, True, True, False]]
    np.testing.assert_array_equal(pixels_of(tmp_path / "p.vrt", "mask"), values)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_a_palette_of_16_bits_is_cut_into_tiffs(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str], dtype: str
) -> None:
    """A TIFF has none of signed numbers, which is said."""
    values = np.arange(64, dtype=dtype).reshape(1, 8, 8) * 30
    write(tmp_path / "a.tif", values)
    kind = {"uint16": "UInt16", "int16": "Int16"}[dtype]
    opaque = COLORS.replace('c4="0"', 'c4="255"')
    (tmp_path / "p.vrt").write_text(VRT.format(BAND.format(dtype=kind, band=1, said=opaque)))
    assert tile("p.vrt", "--size", 8, "--out", "t") == 0
    assert ("the palette" in capsys.readouterr().err) == (dtype == "int16")
    np.testing.assert_array_equal(pixels_of(tmp_path / "t" / "p_r00000_c00000.tif", "stored"), values)
    if dtype == "uint16":
        with rasterio.open(tmp_path / "t" / "p_r00000_c00000.tif") as file:
            assert file.colormap(1)[1] == (255, 0, 9, 255)
    assert tile("p.vrt", "--size", 8, "--out", "png", "--format", "png") != 0
    assert "choose TIFF" in capsys.readouterr().err


def test_raw_rasters_that_are_packed_are_whole(tmp_path: Path) -> None:
    values = np.arange(4096, dtype=np.uint8).reshape(64, 64)
    with gzip.open(tmp_path / "v.img", "wb") as file:
        file.write(values.tobytes())
    header = (
        "ENVI\nsamples = 64\nlines = 64\nbands = 1\nheader offset = 0\nfile type = ENVI Standard\ndata type = 1\n"
        "interleave = bsq\nbyte order = 0\n"
    )
    (tmp_path / "v.hdr").write_text(header + "file compression = 1\n")
    np.testing.assert_array_equal(pixels_of(tmp_path / "v.img")[0], values)
    (tmp_path / "v.hdr").write_text(header + "file compression = 0\n")
    with pytest.raises(InputError, match="its pixels alone are 4096"):
        Source(tmp_path / "v.img")


def test_raw_rasters_of_bits_are_refused(tmp_path: Path) -> None:
    """GDAL takes each byte for a pixel, and gives zeros behind the end of the file."""
    (tmp_path / "e.bil").write_bytes(bytes(range(256)) * 2)
    header = "BYTEORDER I\nLAYOUT BIL\nNROWS 64\nNCOLS 64\nNBANDS 1\nNBITS 1\nBANDROWBYTES 8\nTOTALROWBYTES 8\n"
    (tmp_path / "e.hdr").write_text(header)
    with rasterio.open(tmp_path / "e.bil") as file:
        assert file.read(1)[0, :4].tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match="512 bytes, and its pixels alone are 4096"):
        Source(tmp_path / "e.bil")


def test_raw_rasters_with_a_file_for_each_band_are_whole(tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.integers(0, 255, (2, 8, 8), np.uint8)
    write(tmp_path / "m.hdr", values, driver="MFF")
    np.testing.assert_array_equal(pixels_of(tmp_path / "m.hdr"), values)
    (tmp_path / "m.b01").write_bytes(bytes(63))
    with pytest.raises(InputError, match="127 bytes, and its pixels alone are 128"):
        Source(tmp_path / "m.hdr")


@pytest.mark.parametrize("name", ["a_RPC.TXT", "a_rpc.txt", "a.RPB", "a.rpb", "a.tab", "a.TAB"])
def test_what_says_where_a_raster_lies_is_part_of_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.tif").touch()
    (tmp_path / name).touch()
    assert sidecars(tmp_path / "a.tif") == (tmp_path / name,)


@pytest.mark.parametrize("suffix", [".pgm", ".ppm"])
def test_a_picture_that_says_nothing_of_places_has_none(tmp_path: Path, suffix: str) -> None:
    """GDAL's driver leaves the transform as it lay in memory."""
    shape = (12, 14) if suffix == ".pgm" else (12, 14, 3)
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), np.zeros(shape, np.uint8))
    for _ in range(20):
        with Source(path) as source:
            assert source.grid.transform is None
            assert not source.grid.is_georeferenced
    gcps = "".join(f'<GCP Id="" Pixel="{x}" Line="{y}" X="{x}" Y="{y}"/>' for x, y in ((0, 0), (9, 0), (0, 9)))
    aux = Path(f"{path}.aux.xml")
    aux.write_text(f'<PAMDataset><GCPList Projection="EPSG:4326">{gcps}</GCPList></PAMDataset>')
    with Source(path) as source:
        assert (source.grid.transform, len(source.grid.gcps)) == (None, 3)
    aux.unlink()
    path.with_suffix(".wld").write_text("2\n0\n0\n-2\n101\n99\n")
    with Source(path) as source:
        assert source.grid.transform == from_origin(100, 100, 2, 2)


def write_palette(path: Path, indices: np.ndarray, nodata: float | None) -> np.ndarray:
    """A raster with a palette beside it, of five colours; gives the colours of its pixels, (band, row, col)."""
    colors = [(40 * n, 255 - 40 * n, 10 * n) for n in range(5)]
    entries = "".join(f'<Entry c1="{r}" c2="{g}" c3="{b}" c4="255"/>' for r, g, b in colors)
    with rasterio.open(path, "w", "GTiff", *indices.shape[::-1], 1, dtype=indices.dtype, nodata=nodata,
                       crs="EPSG:32633", transform=from_origin(500, 900, 10, 10)) as file:  # fmt: skip
        file.write(indices, 1)
    Path(f"{path}.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><ColorInterp>Palette</ColorInterp>'
        f"<ColorTable>{entries}</ColorTable></PAMRasterBand></PAMDataset>"
    )
    known = np.array([*colors, (0, 0, 0)], np.uint8)
    is_one = (indices >= 0) & (indices < 5) & (indices == np.floor(indices))
    return known[np.where(is_one, indices, 5).astype(int)].transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("dtype", "odd"),
    [("uint8", 200), ("int16", -9999), ("uint16", 65535), ("int32", -(2**31)), ("int32", 99_999), ("uint32", 2**32 - 1),
     ("float32", -9999.0), ("float64", 1.5)],
)  # fmt: skip
def test_a_palette_shows_numbers_of_any_type(tmp_path: Path, dtype: str, odd: float) -> None:
    """GDAL lets any band have one, ENVI's classifications among others."""
    indices = (np.add.outer(np.arange(20), np.arange(30)) % 5).astype(dtype)
    indices[:4, :6] = odd
    for nodata in (None, odd):
        expected = write_palette(tmp_path / "a.tif", indices, nodata)
        with Source(tmp_path / "a.tif") as source:
            pixels, valid = source.patch(0, 0, 20, 30)
        assert np.array_equal(pixels, expected)
        assert valid is None if nodata is None else np.array_equal(valid, indices != odd)


def test_a_palette_without_colours_is_grey(tmp_path: Path) -> None:
    pixels = np.arange(200, dtype=np.uint8).reshape(10, 20)
    write_palette(tmp_path / "a.tif", pixels, None)
    Path(f"{tmp_path / 'a.tif'}.aux.xml").unlink()
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="20" rasterYSize="10"><VRTRasterBand dataType="Byte" band="1"><ColorInterp>Palette'
        '</ColorInterp><SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    for purpose in ("image", "mask", "stored"):
        with Source(tmp_path / "a.vrt", purpose) as source:  # type: ignore[arg-type]
            assert np.array_equal(source.patch(0, 0, 10, 20)[0][0], pixels)
            if purpose == "stored":
                assert stored(source).kinds == ("gray",)


@pytest.mark.parametrize("driver", ["ERS", "RRASTER", "PDS4", "MFF"])
def test_a_header_counts_with_the_file_that_its_pixels_are_in(tmp_path: Path, driver: str) -> None:
    with rasterio.open(tmp_path / "a.tif", "w", "GTiff", 40, 30, 1, dtype="uint8", crs="EPSG:32633",
                       transform=from_origin(500, 900, 10, 10)) as file:  # fmt: skip
        file.write(np.full((30, 40), 9, np.uint8), 1)
    header = tmp_path / "b" / f"a{ {'ERS': '.ers', 'RRASTER': '.grd', 'PDS4': '.xml', 'MFF': '.hdr'}[driver] }"
    header.parent.mkdir()
    rasterio.shutil.copy(tmp_path / "a.tif", header, driver=driver)
    found = origins(header)
    assert found is not None
    large = [path for path in header.parent.iterdir() if path.stat().st_size >= 30 * 40 and path != header]
    assert large
    assert set(large) <= set(found)


@pytest.mark.parametrize("compression", ["jpegxl", "jpeg2000", "png"])
@pytest.mark.parametrize("nodata", [None, 7])
def test_blocks_that_are_not_there_hold_nothing(tmp_path: Path, compression: str, nodata: int | None) -> None:
    """Of TIFFs that tifffile decodes, as of others."""
    pixels = np.random.default_rng(0).integers(10, 255, (64, 64, 3), np.uint8)
    tags = [] if nodata is None else [(42113, 2, 0, str(nodata), True)]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, tile=(32, 32), metadata=None, extratags=tags, compression=compression,
                     photometric="rgb")  # fmt: skip
    with tifffile.TiffFile(path) as file:
        found = [file.pages[0].tags[code] for code in (324, 325)]  # type: ignore[union-attr]
        places = [(tag.valueoffset, {3: 2, 4: 4, 16: 8}[int(tag.dtype)]) for tag in found]
    data = bytearray(path.read_bytes())
    for place, size in places:
        data[place + size : place + 2 * size] = bytes(size)  # the second block
    path.write_bytes(data)
    with Source(path) as source:
        read, valid = source.patch(0, 0, 64, 64)
    assert (read[:, :32, 32:] == (nodata or 0)).all()
    assert (read[:, 32:] > 7).all()
    assert valid is None if nodata is None else not valid[:32, 32:].any()


def test_a_palette_comes_through_a_decoder(tmp_path: Path) -> None:
    colors = np.zeros((3, 256), np.uint16)
    colors[0], colors[1], colors[2] = np.arange(256) * 257, np.arange(256)[::-1] * 257, 100 * 257
    indices = np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8)
    for compression in ("deflate", "png"):
        tifffile.imwrite(tmp_path / "a.tif", indices, photometric="palette", colormap=colors, compression=compression,
                         metadata=None)  # fmt: skip
        with Source(tmp_path / "a.tif") as source:
            assert np.array_equal(source.patch(0, 0, 40, 50)[0], (colors >> 8).astype(np.uint8)[:, indices])
        with Source(tmp_path / "a.tif", "mask") as source:
            assert np.array_equal(source.patch(0, 0, 40, 50)[0][0], indices)


def test_tiles_of_a_reference_system_that_geotiff_changes_are_joined(tmp_path: Path, tile: Tile) -> None:
    """The sphere of planetary data, of which GDAL's GeoTIFF makes an ellipsoid."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8)
    with rasterio.open(tmp_path / "a.tif", "w", "GTiff", 50, 40, 1, dtype="uint8", crs="EPSG:32633",
                       transform=from_origin(500, 900, 10, 10)) as file:  # fmt: skip
        file.write(pixels, 1)
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "b.cub", driver="ISIS3")
    assert tile("b.cub", "--size", 32, "--out", "t") == 0
    assert tile("t", "--join", "--out", "joined.tif") == 0
    with rasterio.open(tmp_path / "joined.tif") as file:
        assert np.array_equal(file.read(1), pixels)
        assert file.transform == from_origin(500, 900, 10, 10)


def test_a_world_file_that_nobody_reads_is_told(tmp_path: Path, segcli: Callable[..., Any]) -> None:
    (tmp_path / "a.pgm").write_text("P2\n3 2\n15\n0 1 2\n3 15 7\n")
    (tmp_path / "a.wld").write_text("2\n0\n0\n-2\n101\n99\n")
    result = segcli("predict", "a.pgm", "--out", "m")
    assert result.returncode == 0
    assert "a.pgm: what lies beside it says where it lies, and is not read of this kind of picture" in result.stderr
