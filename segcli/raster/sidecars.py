"""Which files beside a raster or a vector file say what it means: who asks whether it has changed must ask of them, and
what is written must come with its own and not with those of an older file."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from segcli.files import part_of, replacing

_OF_SHAPEFILES = (".dbf", ".shx", ".prj", ".cpg")
_OF_RASTERS = (".wld", ".hdr", ".prj")


def aux_of(path: Path) -> Path:
    """Where GDAL puts what the format cannot hold, such as some reference systems, and looks for it."""
    return Path(f"{path}.aux.xml")


@contextmanager
def replacing_both(path: Path, faults: Callable[[Path], AbstractContextManager[None]]) -> Iterator[Path]:
    """As `files.replacing`, with the .aux.xml that GDAL has put beside the temporary file; an older one goes."""
    aux = aux_of(part_of(path))
    try:
        with replacing(path, faults) as part:
            aux.unlink(missing_ok=True)  # by a kill
            yield part
        with faults(path):
            if aux.exists():
                aux.replace(aux_of(path))
            else:
                aux_of(path).unlink(missing_ok=True)
    finally:
        aux.unlink(missing_ok=True)


def sidecars(path: Path) -> tuple[Path, ...]:
    """Those that exist: attributes and reference system of a shapefile; header, world file (.tfw, .tifw, .wld) and
    reference system of a raster; .aux.xml and .msk of any. Overviews (.ovr) are none: they repeat what is there."""
    ending = path.suffix.lower()
    if ending == ".shp":
        endings = _OF_SHAPEFILES
    else:
        letters = ending[1:]
        world = (f".{letters[0]}{letters[-1]}w", f".{letters}w") if letters else ()
        endings = (*_OF_RASTERS, *world)
    cased = [case for one in endings for case in (one, one.upper()) if case != path.suffix]
    named = [path.with_suffix(one) for one in cased] if path.name else []
    return tuple(found for found in (*named, aux_of(path), Path(f"{path}.msk")) if found.is_file())
