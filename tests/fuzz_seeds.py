"""Small whole files of every kind that segcli reads and that can be made here, for `test_fuzz.py` to damage."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import rasterio
import tifffile
from helpers import SHARED, brightness_model
from numpy.typing import NDArray
from PIL import Image
from rasterio.shutil import copy
from rasterio.transform import from_origin

from segcli.classes import ClassTable
from segcli.network import checkpoint
from segcli.palettes import to_qml

HEIGHT, WIDTH = 48, 37
IMAGE_READERS = ("image", "mask", "stored")
LARGEST_BYTES = 300_000


@dataclass(frozen=True)
class Seed:
    """A file, the readers that it is for, the one that is opened in place of it, and all that belong to that."""

    path: Path
    readers: tuple[str, ...]
    opened: Path
    beside: tuple[Path, ...] = ()


def seeds(folder: Path) -> list[Seed]:
    """Those made in an empty folder, and those of the collections."""
    pixels = np.random.default_rng(5).integers(0, 250, (3, HEIGHT, WIDTH)).astype(np.uint8)
    made = [_tiffs, _stacks, _pictures, _rasters]
    images = [path for make in made for path in make(folder, pixels)]
    images += [_zipped(folder, next(path for path in images if path.suffix == ".png"))]
    plain = [*((path, IMAGE_READERS) for path in images), *_others(folder), *_collected()]
    return [*(Seed(path, readers, path) for path, readers in plain if path.name != "ENVI.img"), *_of_two(folder)]


def _written(path: Path, pixels: NDArray[np.generic], driver: str = "GTiff", **options: object) -> Path:
    """Through GDAL."""
    bands, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver=driver, height=height, width=width, count=bands, dtype=pixels.dtype.name,
        crs="EPSG:32633", transform=from_origin(5e5, 5e6, 10, 10), **options,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


def _tiffs(folder: Path, pixels: NDArray[np.uint8]) -> list[Path]:
    wide = pixels.astype(np.uint16) * 200
    found = [
        _written(folder / f"{name}.tif", pixels, compress=name)
        for name in ("none", "deflate", "lzw", "zstd", "packbits", "lzma", "webp", "lerc")
    ]
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    found += [
        _written(folder / "tiled.tif", pixels, compress="deflate", predictor=2, **tiled),
        _written(folder / "planes.tif", wide, interleave="band", **tiled),
        _written(folder / "jpeg.tif", pixels, compress="jpeg", photometric="YCbCr"),
        _written(folder / "big.tif", wide, BIGTIFF="YES", compress="lzw", nodata=0),
        _written(folder / "float.tif", pixels / np.float32(7), compress="deflate", predictor=3, nodata=np.nan),
        _written(folder / "one_bit.tif", pixels[:1] & 1, nbits=1, compress="ccittfax4"),
        _written(folder / "big_endian.tif", wide, ENDIANNESS="BIG"),
        _written(folder / "cloud.tif", np.tile(pixels, (1, 12, 14)), "COG", compress="deflate"),
    ]
    coloured = _written(folder / "palette.tif", pixels[:1] % 4, compress="lzw")
    with rasterio.open(coloured, "r+") as dataset:
        dataset.write_colormap(1, {n: (9 * n, 5 * n, 70, 255) for n in range(4)})
        dataset.update_tags(1, CLASS_0="sea", CLASS_1="land")
    masked = _written(folder / "masked.tif", pixels, compress="deflate")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(masked, "r+") as dataset:
        dataset.write_mask(pixels[0] > 99)
    return [*found, coloured, masked]


def _stacks(folder: Path, pixels: NDArray[np.uint8]) -> list[Path]:
    stack = np.stack([pixels, pixels[::-1]])  # (2, 3, row, col)
    calibration = {"axes": "TCYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
    tifffile.imwrite(folder / "stack.ome.tif", stack, ome=True, metadata=calibration, photometric="minisblack")
    tifffile.imwrite(folder / "imagej.tif", stack, imagej=True, metadata={"axes": "TCYX", "unit": "um"})
    tifffile.imwrite(folder / "shaped.tif", stack, photometric="minisblack", metadata={"axes": "TCYX"})
    tifffile.imwrite(folder / "jpegxl.tif", pixels[0], compression="jpegxl")
    with tifffile.TiffWriter(folder / "pages.tif") as file:
        for page in pixels:
            file.write(page, metadata=None, compression="zlib")
    with tifffile.TiffWriter(folder / "pyramid.tif") as file:
        whole = np.tile(pixels[0], (4, 4))
        file.write(whole, tile=(32, 32), metadata=None, subfiletype=0)
        file.write(whole[::2, ::2], tile=(32, 32), metadata=None, subfiletype=1)
    names = ("stack.ome.tif", "imagej.tif", "shaped.tif", "jpegxl.tif", "pages.tif", "pyramid.tif")
    return [folder / name for name in names]


def _pictures(folder: Path, pixels: NDArray[np.uint8]) -> list[Path]:
    seen = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    for name in ("rgb.png", "rgb.jpg", "rgb.webp", "rgb.bmp", "rgb.ppm", "grey16.png", "digits.pgm"):
        written = seen[..., 0].astype(np.uint16) * 200 if "16" in name else seen[..., 0] if "pgm" in name else seen
        options = [cv2.IMWRITE_PXM_BINARY, 0] if "pgm" in name else []
        assert cv2.imwrite(str(folder / name), written, options)
    indexed = Image.fromarray(seen[..., 0] % 4)
    indexed.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    indexed.save(folder / "indexed.png", transparency=0)
    indexed.save(folder / "runs.bmp")
    Image.fromarray(seen).save(folder / "progressive.jpg", progressive=True, exif=_turned())
    Image.fromarray(seen).save(folder / "turned.png", exif=_turned())
    return sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".webp", ".bmp", ".ppm", ".pgm"))


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    return exif


def _rasters(folder: Path, pixels: NDArray[np.uint8]) -> list[Path]:
    """Formats of which this GDAL may lack the driver."""
    wanted = {"JP2OpenJPEG": "jp2", "netCDF": "nc", "ENVI": "img", "HFA": "img", "NITF": "ntf"}
    with rasterio.Env() as environment:
        drivers = environment.drivers()
    found = [folder / f"{driver}.{ending}" for driver, ending in wanted.items() if driver in drivers]
    single = _written(folder / "single.tif", pixels[:1])
    for path in found:
        copy(single, path, driver=path.stem)  # netCDF, for one, GDAL writes no other way
    if "netCDF" in drivers:
        copy(single, folder / "hdf.nc", driver="netCDF", FORMAT="NC4")
        found.append(folder / "hdf.nc")
    vrt = folder / "over.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}"><VRTRasterBand dataType="Byte" band="1">'
        '<SimpleSource><SourceFilename relativeToVRT="1">none.tif</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="{WIDTH}" ySize="{HEIGHT}"/>'
        f'<DstRect xOff="0" yOff="0" xSize="{WIDTH}" ySize="{HEIGHT}"/></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    return [*found, vrt]


def _of_two(folder: Path) -> list[Seed]:
    """ENVI has its header in another file; a VRT is nothing without what it is over."""
    image, header, over, under = (folder / name for name in ("ENVI.img", "ENVI.hdr", "over.vrt", "none.tif"))
    return [
        Seed(image, IMAGE_READERS, image, (header,)), Seed(header, IMAGE_READERS, image, (image,)),
        Seed(over, IMAGE_READERS, over, (under,)), Seed(under, IMAGE_READERS, over, (over,)),
    ]  # fmt: skip


def _zipped(folder: Path, member: Path) -> Path:
    path = folder / "one.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(member, member.name)
    return path


def _others(folder: Path) -> list[tuple[Path, tuple[str, ...]]]:
    """Weights, tables and accounts."""
    table = ClassTable.from_indices([0, 1, 2])
    weights = folder / "w.safetensors"
    checkpoint.save(brightness_model(), weights)
    polygons = {"type": "FeatureCollection", "features": [
        {"type": "Feature", "properties": {"class": kind}, "geometry": {
            "type": "Polygon", "coordinates": [[[1, 1], [30 + n, 1], [30, 40], [1, 40], [1, 1]]]}}
        for n, kind in enumerate(("field", "none"))]}  # fmt: skip
    mark = [9, 9, "0" * 64]
    record = [{"run": {}, "key": "key"}, {"begun": ["a.png", "overlays/a.png"]},
              {"source": "a.png", "key": "key", "outputs": {"a.png": mark}, "of": {"in/a.png": mark}},
              {"begun": ["b.png"]}]  # fmt: skip
    texts: dict[str, tuple[str, str]] = {
        "c.json": ("classes", json.dumps(table.to_json())),
        "c.csv": ("classes", "index,name,color\n0,sea,#000000\n1,land,#00FF00\n"),
        "c.qml": ("classes", to_qml(table)),
        "c.clr": ("classes", "0 1 2 3 255 sea\n1 9 8 7 255 land\n"),
        "c.gpl": ("classes", "GIMP Palette\nName: a\n#\n  1 2 3 sea\n  9 8 7 land\n"),
        "tiles.json": ("tiles", json.dumps(_tiles())),
        "segcli.jsonl": ("record", "".join(json.dumps(line) + "\n" for line in record)),
        "report.json": ("report", json.dumps(_report())),
        "p.geojson": ("polygons", json.dumps(polygons)),
    }
    for name, (_, text) in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    found = [(folder / name, (reader,)) for name, (reader, _) in texts.items()]
    geopackage = folder / "p.gpkg"
    _to_geopackage(folder / "p.geojson", geopackage)
    return [*found, (geopackage, ("polygons",)), (weights, ("weights", "classes")),
            (folder / "palette.tif", ("meaning",)), (folder / "imagej.tif", ("meaning",))]  # fmt: skip


def _to_geopackage(source: Path, target: Path) -> None:
    import pyogrio.raw

    meta, _, shapes, columns = pyogrio.raw.read(source)
    pyogrio.raw.write(
        target, shapes, columns, list(meta["fields"]), geometry_type="Polygon", crs="EPSG:32633", driver="GPKG"
    )


def _tiles() -> dict[str, object]:
    """As `segcli tile` writes it."""
    records = [
        {"row": row, "col": col, "height": 16, "width": 16, "name": f"a_r{row}_c{col}.tif", "bytes": [9]}
        for row in (0, 16) for col in (0, 16)
    ]  # fmt: skip
    kind = {"bands": 1, "dtype": "uint8", "nodata": 0, "kinds": ["gray"], "colors": None, "names": [""], "scales": [1],
            "offsets": [0], "units": [""], "bits": None, "has_mask": False, "tags": {}, "band_tags": [{}]}  # fmt: skip
    scene = {"name": "a", "file": "a.tif", "changed": [9, 9], "height": 32, "width": 32, "crs": None,
             "transform": [10, 0, 5e5, 0, -10, 5e6], "gcps": [[0, 0, 1, 2, 0, "1", ""]], "gcps_crs": None,
             "rpcs": None, "calibration": {}, "stored": kind, "mask": None}  # fmt: skip
    options = {"size": 16, "overlap": 0, "edge": "shift"}
    return {"format": 1, "segcli": "0", "options": options, "classes": None,
            "sources": [scene | {"tiles": records, "left_out": []}]}  # fmt: skip


def _report() -> dict[str, object]:
    from segcli.measures.report import SCHEMA

    counted = [{"image": "a", "counts": [[0, 0, 4], [0, 1, 5]]}]
    return {"schema": SCHEMA, "classes": ["class 0", "class 1"], "per_image": counted}


def _collected() -> list[tuple[Path, tuple[str, ...]]]:
    """Small files of the collections beside the checkout, where there are any."""
    is_small: Callable[[Path], bool] = lambda path: path.is_file() and path.stat().st_size <= LARGEST_BYTES  # noqa: E731
    paths = [path for part in ("odd/good", "odd/bad", "real") for path in sorted((SHARED / part).rglob("*"))]
    return [(path, ("weights",) if "weights" in path.parts else IMAGE_READERS) for path in filter(is_small, paths)]
