"""Which files beside a raster or a vector file say what it means: who asks whether it has changed must ask of them."""

from pathlib import Path

_OF_SHAPEFILES = (".dbf", ".shx", ".prj", ".cpg")
_OF_RASTERS = (".wld", ".hdr", ".prj")


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
    return tuple(
        found for found in (*named, *(Path(f"{path}{more}") for more in (".aux.xml", ".msk"))) if found.is_file()
    )
