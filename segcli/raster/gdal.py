"""How GDAL is set wherever segcli opens, reads or writes a file."""

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.windows import Window

CACHE_MB = 8
"""GDAL's cache of blocks, read and to be written: 5 % of the memory unless told otherwise. Rows are read and written
here in whole blocks, each once, so that a larger cache would only fill up. Said in the environment, which may say
otherwise already: what rasterio sets for a block of code counts no more after it, when files are being written."""

os.environ.setdefault("GDAL_CACHEMAX", str(CACHE_MB))


def _layout_of_proj(database: Path) -> tuple[int, int] | None:
    """Version of the layout of PROJ's database; None where it is none."""
    import sqlite3  # where the variables are set alone

    query = "SELECT value FROM metadata WHERE key LIKE 'DATABASE.LAYOUT.VERSION.M__OR' ORDER BY key"
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as file:
            major, minor = (int(value) for (value,) in file.execute(query))
    except (sqlite3.Error, ValueError, TypeError):
        return None
    return major, minor


def without_strange_proj() -> None:
    """Forget PROJ_DATA and PROJ_LIB where the data there are of another PROJ than rasterio's own, as QGIS and conda set
    them for theirs: reference systems would be lost without a word. Before GDAL looks at them. One of the same layout,
    with grids for shifts of datum, stays; of several folders, which rasterio takes for the name of one, the first."""
    needed = _layout_of_proj(Path(rasterio.__file__).with_name("proj_data") / "proj.db")
    if needed is None:  # rasterio was built without: the variable says where they are
        return
    for name in ("PROJ_DATA", "PROJ_LIB"):
        for folder in filter(None, os.environ.pop(name, "").split(os.pathsep)):
            layout = _layout_of_proj(Path(folder) / "proj.db")
            if layout is not None and layout[0] == needed[0] and layout[1] >= needed[1]:
                os.environ[name] = folder
                break


if "PROJ_DATA" in os.environ or "PROJ_LIB" in os.environ:
    without_strange_proj()

MAX_BANDS = 4096
"""A header that claims more is not believed: each takes its time, and a few bytes can claim 65 535."""

PATIENCE = {
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
}
"""With servers: seconds, and bytes a second. A run must not hang on one. The environment may say otherwise."""


def gdal() -> rasterio.Env:
    """The settings, as a context."""
    network = {name: value for name, value in PATIENCE.items() if name not in os.environ}
    return rasterio.Env(
        # GDAL's quick way through a PNG gives the rest of a truncated file as zeros, without a word.
        GDAL_PNG_WHOLE_IMAGE_OPTIM="NO",
        GDAL_ERROR_ON_LIBJPEG_WARNING="YES",  # it would give grey for what is damaged
        GDAL_VRT_ENABLE_PYTHON="NO",  # a file must not bring code with it
        GDAL_MAX_BAND_COUNT=MAX_BANDS,
        **network,
    )


def opened(path: Path | str, mode: str = "r", **profile: Any) -> Any:
    """`rasterio.open` in segcli's settings, silent about rasters that lie nowhere on earth: most pictures do not."""
    with deaf_to(NotGeoreferencedWarning), gdal():
        dataset = rasterio.open(path, mode, **profile)
        _ = dataset.transform  # asked for here, where the warning is not heard
    return dataset


def of_drivers(path: Path, drivers: Sequence[str]) -> Any:
    """The same for a raster of some formats alone; others are not looked at. RasterioError where it is of none."""
    with deaf_to(NotGeoreferencedWarning), gdal():
        return DatasetReader(str(path), driver=list(drivers))


def created(path: Path, **profile: Any) -> Any:
    """A new raster, to be described and then `settled` before pixels are written."""
    return opened(path, "w+", **profile)


def settled(dataset: Any) -> None:
    """Have GDAL write the head of a new GeoTIFF, which otherwise waits for the first block that is put out of the
    cache. Where another thread puts that out while this one closes the file, both write the head, and GDAL fails or
    hangs."""
    dataset.read(1, window=Window(0, 0, 1, 1))


@contextmanager
def without_sidecar(path: Path) -> Iterator[None]:
    """A block that writes `path`, without the .aux.xml that GDAL puts beside it for what the format does not keep. GDAL
    has an option for that, which would count for inputs that other threads open at that time, too."""
    try:
        yield
    finally:
        Path(f"{path}.aux.xml").unlink(missing_ok=True)


@contextmanager
def deaf_to(category: type[Warning]) -> Iterator[None]:
    """Without warnings of that kind. Python's filters belong to all threads, and several open files at once."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


def transform_of(dataset: Any) -> Affine | None:
    """From pixels to the reference system; None where the file says nothing. Some drivers that have none to give, as
    PNM's, leave what rasterio then returns as it lay in memory, and a warning is all that tells, but where there are
    control points or RPCs."""
    if dataset.driver == "PNM" and (dataset.gcps[0] or dataset.rpcs):
        return None
    this, heard = threading.get_ident(), []

    def hear(message: Warning | str, category: type[Warning], *others: Any) -> None:
        if issubclass(category, NotGeoreferencedWarning):
            heard.append(threading.get_ident())
        else:
            shown(message, category, *others)

    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("always", NotGeoreferencedWarning)
        shown, warnings.showwarning = warnings.showwarning, hear  # type: ignore[assignment]
        found = Affine.from_gdal(*dataset.read_transform())
    return None if this in heard or found.is_identity else found


_FILTERS = threading.Lock()


def _deaf(others: Any, is_ours: Callable[..., bool]) -> Callable[..., None]:
    """A hook of Python's that leaves out what is ours."""
    return lambda *found: None if is_ours(*found) else others(*found)


# rasterio takes GDAL's messages for UTF-8 when it logs them. One that repeats the bytes of a damaged file is not, and
# Python prints an error, and where it could not be raised; what matters of it is raised as GDAL's own all the same.
sys.unraisablehook = _deaf(sys.unraisablehook, lambda found: "rasterio" in str(found.object))
sys.excepthook = _deaf(sys.excepthook, lambda kind, _, trace: kind is UnicodeDecodeError and trace is None)


def alpha_is_mask(alpha: int, bands: int, dtype: str) -> bool:
    """Whether GDAL's mask follows the band `alpha`, counted from 0: the last of two or four, of 8 or 16 bits."""
    return (alpha + 1, bands) in ((2, 2), (4, 4)) and dtype in ("uint8", "uint16")
