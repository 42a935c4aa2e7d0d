"""What is known of a reader's file beside its pixels: GDAL's dataset, what its bands are, where it lies."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags

from segcli.raster.contents import Contents
from segcli.raster.grid import Grid, grid_of
from segcli.raster.readers import ArrayReader, DecodedReader, GdalReader, JoinedReader, Reader
from segcli.raster.tables import negative_bits

MOST_BITS = 64
"""Of a number, where its type alone says how many it has."""

Value = TypeVar("Value")

RED_GREEN_BLUE = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]


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
        if isinstance(reader, JoinedReader):
            reader.spare(part)
    return found


def names_of(reader: Reader) -> list[str]:
    """Of the bands, as GDAL has them; empty where the file does not say."""
    return of_bands(reader, lambda dataset: [name or "" for name in dataset.descriptions], "")


def palette_of(dataset: Any) -> dict[int, tuple[int, int, int, int]] | None:
    """Colours by value, where the first band has a table of them."""
    if dataset.colorinterp[:1] != (ColorInterp.palette,):
        return None
    try:
        return dict(dataset.colormap(1))
    except ValueError:  # it has none, whatever it says
        return None


def kinds_of(reader: Reader) -> list[ColorInterp]:
    """What each band is to be seen as."""
    if isinstance(reader, GdalReader | DecodedReader):
        kinds = list(reader.dataset.colorinterp)
        # GDAL makes up a palette for negatives, of 256 greys, and believes formats that have none of their own.
        if kinds[:1] == [ColorInterp.palette]:
            palette = palette_of(reader.dataset)
            if palette is None or _negative_bits(reader, palette) is not None:
                kinds[0] = ColorInterp.gray
        return kinds
    count = len(reader.dtypes)
    if isinstance(reader, JoinedReader) or count not in (3, 4):
        return [ColorInterp.undefined] * count
    return [*RED_GREEN_BLUE, ColorInterp.alpha][:count]


def masked_by_band(reader: Reader) -> bool:
    """Whether each of several bands says by itself where it has no data, as nodata values do, and is to be believed.

    Colours of 8 bits are not: they reach the ends of their range, where nodata lies, and what is black in one colour
    alone is a dark pixel."""
    dataset, kinds = dataset_of(reader), kinds_of(reader)
    count = len(kinds) - kinds.count(ColorInterp.alpha)
    is_colored = reader.dtypes[0] == "uint8" and (count == 3 or kinds[:3] == RED_GREEN_BLUE)
    if dataset is None or is_colored or count < 2:
        return False
    together = {MaskFlags.all_valid, MaskFlags.per_dataset}
    return any(together.isdisjoint(flags) for flags in dataset.mask_flag_enums)


def blacks_of(reader: Reader) -> list[int | None]:
    """By band, the stored number that is black where TIFF's WhiteIsZero makes a negative of it; None elsewhere.

    All bits of a number set, which is -1 where it has a sign: the largest, or the smallest turned round. Floats have no
    such number, and alpha is none.
    """
    if isinstance(reader, JoinedReader):
        blacks: list[int | None] = []
        for part in reader.parts:
            blacks += blacks_of(part)
            reader.spare(part)
        return blacks
    bits = _negative_bits(reader)
    return [
        None if bits is None or kind == ColorInterp.alpha else _black(dtype, bits)
        for dtype, kind in zip(reader.dtypes, kinds_of(reader), strict=True)
    ]


def _black(dtype: str, bits: int) -> int | None:
    if dtype.startswith("uint"):
        return min(2**bits - 1, np.iinfo(dtype).max)
    return -1 if dtype.startswith("int") else None


def _negative_bits(reader: Reader, palette: dict[int, tuple[int, int, int, int]] | None = None) -> int | None:
    """How many bits the numbers of a negative have at most; None where they are no negative. Its `palette`, where that
    is known already."""
    if isinstance(reader, ArrayReader):
        return MOST_BITS if reader.white_is_zero else None
    if not isinstance(reader, GdalReader | DecodedReader) or not reader.dataset.count:
        return None
    dataset = reader.dataset
    if dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        if isinstance(reader, DecodedReader):
            return reader.bits
        return int(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", MOST_BITS))
    palette = palette or palette_of(dataset)
    return None if palette is None else negative_bits(palette)


def grid_of_reader(dataset: Any, contents: Contents, reader: Reader) -> Grid:
    """Where the pixels lie: of a pyramid level within the whole, of others as the file says."""
    if contents.whole is not None:
        return contents.whole.at(reader.height, reader.width)
    if dataset is None:
        return Grid(reader.height, reader.width, calibration=contents.calibration)
    return replace(grid_of(dataset, contents.calibration), height=reader.height, width=reader.width)
