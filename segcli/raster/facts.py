"""What is known of a reader's file beside its pixels: GDAL's dataset, what its bands are, where it lies."""

from dataclasses import replace
from typing import Any

from rasterio.enums import ColorInterp, MaskFlags

from segcli.raster.contents import Contents
from segcli.raster.grid import Grid, grid_of
from segcli.raster.readers import DecodedReader, GdalReader, JoinedReader, Reader

RED_GREEN_BLUE = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]


def dataset_of(reader: Reader) -> Any:
    """GDAL's dataset behind a reader, or one that says the same; None where there is none."""
    if isinstance(reader, JoinedReader):
        reader = reader.parts[0]
    return reader.dataset if isinstance(reader, GdalReader | DecodedReader) else None


def kinds_of(reader: Reader) -> list[ColorInterp]:
    """What each band is to be seen as."""
    if isinstance(reader, GdalReader | DecodedReader):
        return list(reader.dataset.colorinterp)
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


def grid_of_reader(dataset: Any, contents: Contents, reader: Reader) -> Grid:
    """Where the pixels lie: of a pyramid level within the whole, of others as the file says."""
    if contents.whole is not None:
        return contents.whole.at(reader.height, reader.width)
    if dataset is None:
        return Grid(reader.height, reader.width, calibration=contents.calibration)
    return replace(grid_of(dataset, contents.calibration), height=reader.height, width=reader.width)
