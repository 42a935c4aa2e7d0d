"""Which files beside a raster or a vector file say what it means: who asks whether it has changed must ask of them, and
what is written must come with its own and not with those of an older file."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from segcli.files import destination, move, part_of, replacing, restored
from segcli.raster.faults import faults_of_writing
from segcli.raster.names import Name

_OF_SHAPEFILES = (".dbf", ".shx", ".prj", ".cpg")
_OF_RASTERS = (".wld", ".hdr", ".prj", ".tab", ".rpb", "_rpc.txt")
_AFTER_ALL = (".aux.xml", ".msk", ".hdr")  # scene.img.hdr: ENVI's other way

AUX = ".aux.xml"

OTHERS = (".ovr", ".msk")
"""Overviews and a mask, where some program has put them into files beside a raster."""

_OF_PLACES = (b"<GeoTransform>", b"<SRS", b"<GCPList", b'domain="RPC"')
"""What begins where an .aux.xml says where a raster lies; programs that look at one leave statistics alone there."""

_OF_VALUES = {b"<CategoryNames": "category names", b"<GDALRasterAttributeTable": "raster attribute table"}

_READ = 2**24
"""Bytes of it that are looked at."""


def aux_of(path: Path) -> Path:
    """Where GDAL puts what the format cannot hold, such as some reference systems, and looks for it."""
    return Path(f"{path}{AUX}")


def remove_others(path: Path) -> None:
    """Overviews and masks that some program has put beside a file, which are those of an older one once it is replaced:
    what is written here has its own inside."""
    for ending in OTHERS:
        with suppress(OSError):
            Path(f"{path}{ending}").unlink()


def remove_aux(path: Path) -> None:
    """That of a file, if there is one; where there can be none, such as of a name that fills a file system's room for
    names, it is none either."""
    with suppress(OSError):
        aux_of(path).unlink()


@contextmanager
def replacing_both(path: Path, faults: Callable[[Path], AbstractContextManager[None]]) -> Iterator[Path]:
    """As `files.replacing`, with the .aux.xml that GDAL has put beside the temporary file; an older one goes."""
    part = part_of(path)
    remove_aux(part)  # by a kill
    try:
        with replacing(path, faults):
            yield part
        with faults(path):
            if os.path.exists(aux_of(part)):  # noqa: PTH110  # Path's raises for names too long
                aux_of(part).replace(aux_of(path))
            else:
                remove_aux(path)
            remove_others(path)
    finally:
        remove_aux(part)


def placed(waiting: Sequence[Path], root: Path) -> list[Path]:
    """Whole files that waited, under their names below `root`, each with the .aux.xml beside it; older ones go.

    All or none: raises InputError where one cannot have its name, NothingDoneError where no other file could have one
    either, and then what was there before is there.
    """
    places = [destination(path) for path in waiting]
    with ExitStack() as before:
        for part, path in zip(waiting, places, strict=True):
            with faults_of_writing(path, root):
                # Where they wait, a run that is killed leaves nothing that the next one does not remove.
                before.enter_context(restored(aux_of(path), Path(f"{aux_of(part)}.old")))
                before.enter_context(restored(path, Path(f"{part}.old")))
                if os.path.exists(aux_of(part)):  # noqa: PTH110
                    move(aux_of(part), aux_of(path))
                else:
                    remove_aux(path)
                move(part, path)
    for path in places:
        remove_others(path)
    return places


def sidecars(path: Path) -> tuple[Path, ...]:
    """Those that exist: attributes and reference system of a shapefile; header, world file (.tfw, .tifw, .wld),
    reference system, MapInfo's control points (.tab) and rational polynomials (.rpb, _rpc.txt) of a raster, and .ige,
    where ERDAS keeps large ones' pixels; .aux.xml, .msk and .img.hdr of any.
    Overviews (.ovr) are none: they repeat what is there (see `overviews`)."""
    ending = path.suffix.lower()
    if ending == ".shp":
        return _there(path, _OF_SHAPEFILES, _AFTER_ALL)
    return _there(path, (*_OF_RASTERS, *_of_the_world(ending), *((".ige",) if ending == ".img" else ())), _AFTER_ALL)


def overviews(files: Iterable[Path]) -> tuple[Path, ...]:
    """Those that lie in files beside these, for who reads a level of a pyramid."""
    return tuple(path for file in files if (path := Path(f"{file}.ovr")).is_file())


def has_place(path: Path) -> bool:
    """Whether a file beside a picture says where it lies: a world file, MapInfo's, or an .aux.xml that says so."""
    for found in _there(path, (".wld", ".tab", *_of_the_world(path.suffix.lower())), (".aux.xml",)):
        if found != aux_of(path) or any(word in _text(found) for word in _OF_PLACES):
            return True
    return False


def tables_beside(path: Name) -> list[str]:
    """What an .aux.xml says of the values of a raster, which is not among its tags."""
    text = _text(aux_of(path)) if isinstance(path, Path) else b""
    return [name for word, name in _OF_VALUES.items() if word in text]


def _text(path: Path) -> bytes:
    """Nothing where there is none."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(_READ)
    return b""


def _of_the_world(ending: str) -> tuple[str, ...]:
    letters = ending[1:]
    return (f".{letters[0]}{letters[-1]}w", f".{letters}w") if letters else ()


def _there(path: Path, endings: tuple[str, ...], after_all: tuple[str, ...]) -> tuple[Path, ...]:
    """Those files that exist of names with these endings in the place of the path's, and after it."""
    cased = [case for one in endings for case in (one, one.upper()) if case != path.suffix]
    # As text, since it is asked of each of 100 000 files before anything begins; a Path's way raises, too, where the
    # name is too long.
    whole = str(path)
    bare = whole.removesuffix(path.suffix)
    named = [bare + one for one in cased] if path.name else []
    return tuple(Path(name) for name in (*named, *(whole + one for one in after_all)) if os.path.isfile(name))  # noqa: PTH113
