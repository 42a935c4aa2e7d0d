"""How GDAL is set wherever segcli opens, reads or writes a file."""

import threading
import warnings
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning

CACHE_MB = 16
"""GDAL's cache of decoded blocks: 5 % of the memory unless told otherwise. Rows are read and written here in whole
blocks, each once, so that a larger cache would only fill up."""


def gdal() -> rasterio.Env:
    """The settings, as a context. GDAL takes the size of its cache from the first one that reads a block."""
    return rasterio.Env(
        GDAL_CACHEMAX=CACHE_MB,
        # GDAL's quick way through a PNG gives the rest of a truncated file as zeros, without a word.
        GDAL_PNG_WHOLE_IMAGE_OPTIM="NO",
        GDAL_ERROR_ON_LIBJPEG_WARNING="YES",  # it would give grey for what is damaged
        GDAL_VRT_ENABLE_PYTHON="NO",  # a file must not bring code with it
    )


def opened(path: Path | str, mode: str = "r", **profile: Any) -> Any:
    """`rasterio.open` in segcli's settings, silent about rasters that lie nowhere on earth: most pictures do not."""
    # Python's warning filters belong to all threads; readers and writers open files at the same time.
    with _FILTERS, warnings.catch_warnings(), gdal():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = rasterio.open(path, mode, **profile)
        _ = dataset.transform  # asked for here, where the warning is not heard
    return dataset


_FILTERS = threading.Lock()
