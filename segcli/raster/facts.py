"""What is known of a reader's file beside its pixels: GDAL's dataset, what its bands are, where it lies."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from xml.etree import ElementTree

from rasterio.enums import ColorInterp

from segcli.raster.contents import Contents
from segcli.raster.grid import Grid, grid_of
from segcli.raster.readers import DecodedReader, GdalReader, JoinedReader, Reader

Value = TypeVar("Value")


def dataset_of(reader: Reader) -> Any:
    """GDAL's dataset behind a reader, or one that says the same; None where there is none."""
    if isinstance(reader, JoinedReader):
        reader = reader.parts[0]
    return reader.dataset if isinstance(reader, GdalReader | DecodedReader) else None


def of_bands(reader: Reader, of_dataset: Callable[[Any], Sequence[Value]], unknown: Value) -> list[Value]:
    """What the datasets behind a reader, each of which has some of its bands, say of these; `unknown` where there is
    none."""
    parts = reader.parts if isinstance(reader, JoinedReader) else (reader,)
    found: list[Value] = []
    for part in parts:
        dataset = dataset_of(part)
        found += [unknown] * len(part.dtypes) if dataset is None else of_dataset(dataset)
    return found


def names_of(reader: Reader) -> list[str]:
    """Of the bands, as GDAL or OME has them; empty where the file does not say."""
    names = of_bands(reader, lambda dataset: [name or "" for name in dataset.descriptions], "")
    channels = _channels(dataset_of(reader)) if isinstance(reader, JoinedReader) and not any(names) else []
    return channels if len(channels) == len(names) else names


def _channels(dataset: Any) -> list[str]:
    """The names of OME's channels, if this is the first page of a file that has some."""
    text = "" if dataset is None else dataset.tags().get("TIFFTAG_IMAGEDESCRIPTION", "")
    if not text.rstrip("\0 \r\n\t").endswith("OME>"):
        return []
    pixels = ElementTree.fromstring(text).find("{*}Image/{*}Pixels")  # it was understood when the file was opened
    return [] if pixels is None else [channel.get("Name", "") for channel in pixels.findall("{*}Channel")]


def kinds_of(reader: Reader) -> list[ColorInterp]:
    """What each band is to be seen as."""
    if isinstance(reader, GdalReader | DecodedReader):
        return list(reader.dataset.colorinterp)
    count = len(reader.dtypes)
    if isinstance(reader, JoinedReader) or count not in (3, 4):
        return [ColorInterp.undefined] * count
    return [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha][:count]


def grid_of_reader(dataset: Any, contents: Contents, reader: Reader) -> Grid:
    """Where the pixels lie: of a pyramid level within the whole, of others as the file says."""
    if contents.whole is not None:
        return contents.whole.at(reader.height, reader.width)
    if dataset is None:
        return Grid(reader.height, reader.width, calibration=contents.calibration)
    return replace(grid_of(dataset, contents.calibration), height=reader.height, width=reader.width)
