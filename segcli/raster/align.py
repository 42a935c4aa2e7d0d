"""One raster on the grid of another."""

from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from segcli.errors import InputError
from segcli.raster.contents import EXPECTED, Contents, faults_of
from segcli.raster.gdal import gdal
from segcli.raster.grid import Grid
from segcli.raster.readers import GdalReader
from segcli.raster.source import Source


def aligned(source: Source, grid: Grid) -> Source:
    """A mask on another grid, by nearest neighbour; what lies outside it is no data. `source` must stay open.

    Raises InputError where one of the two does not lie on earth.
    """
    reader = source.reader
    if not isinstance(reader, GdalReader) or source.grid.crs is None or grid.crs is None or grid.transform is None:
        raise InputError(source.path, "no place on earth, or none of the truth", "--align needs both")
    with faults_of(source.path, EXPECTED):
        return Source(source.path, "mask", Contents((WarpedReader(reader, grid),)))


class WarpedReader(GdalReader):
    """Another dataset seen on a grid."""

    def __init__(self, other: GdalReader, grid: Grid) -> None:
        with gdal():
            self._dataset = WarpedVRT(
                other.dataset, crs=grid.crs, transform=grid.transform, height=grid.height, width=grid.width,
                resampling=Resampling.nearest, add_alpha=other.dataset.nodata is None,
            )  # fmt: skip
        self._look()
