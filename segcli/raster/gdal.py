"""How GDAL is set wherever segcli opens, reads or writes a file."""

import rasterio

CACHE_MB = 64
"""GDAL's cache of decoded blocks: 5 % of the memory unless told otherwise. Rows are read and written here in whole
blocks, each once, so that a larger cache would only fill up."""


def gdal() -> rasterio.Env:
    """The settings, as a context. GDAL takes the size of its cache from the first one that reads a block."""
    return rasterio.Env(
        GDAL_CACHEMAX=CACHE_MB,
        # GDAL's quick way through a PNG gives the rest of a truncated file as zeros, without a word.
        GDAL_PNG_WHOLE_IMAGE_OPTIM="NO",
    )
