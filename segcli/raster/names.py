"""What users may name as an image, and what GDAL calls it: paths, archives, URLs, buckets, data sets inside a file."""

import os
import re
import zipfile
from pathlib import Path

from segcli.errors import InputError, NothingDoneError
from segcli.raster.zarrs import ENDING, holds_images, images_in, is_torn, is_zarr

Name = Path | str
"""A file or folder of this machine as a Path; whatever else GDAL opens (a URL, /vsizip/..., NETCDF:...) as text."""

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".pgm", ".ppm", ".pbm", ".pnm"})
RASTERS = frozenset({
    ".tif", ".tiff", ".jp2", ".j2k", ".img", ".ntf", ".nitf", ".hgt", ".svs", ".ndpi", ".scn", ".bif", ".qptiff",
    ".lsm", ENDING,
})  # fmt: skip
SUFFIXES = PICTURES | RASTERS
"""What a folder is searched for, in lower case. Other formats are to be named: a VRT repeats other files' pixels, and a
netCDF, or a Zarr that is not OME's, may hold anything."""

FILES = SUFFIXES | {
    ".asc", ".avif", ".csv", ".dcm", ".fgb", ".geojson", ".geotiff", ".gif", ".gpkg", ".gtiff", ".gz", ".h5", ".hdf",
    ".heic", ".html", ".jpe", ".json", ".jpx", ".jxl", ".kml", ".kmz", ".mrc", ".nc", ".nd2", ".nii", ".npy", ".npz",
    ".parquet", ".pdf", ".ply", ".shp", ".sqlite", ".svg", ".txt", ".vrt", ".xml", ".zip",
}  # fmt: skip
"""Endings of files that people may want as outputs, whether they can have them or not."""

# os.path.isfile and its like are used here, not Path's, which raise where a folder above may not be entered or where a
# name is too long: one such name among many is for later to tell.

_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_]+:")
_DATA_SET = re.compile(r'(?P<driver>[A-Za-z][A-Za-z0-9_]+):(?P<file>"[^"]*"|[^:]*)(?::(?P<inside>.*))?')


def parse(text: str) -> Name:
    """An input as it stands on the command line."""
    path = Path(text)
    if "://" in text or text.startswith("/vsi") or (_PREFIX.match(text) and not os.path.exists(text)):  # noqa: PTH110
        return text
    return path


def gdal_name(name: Name) -> Name:
    """What to hand to GDAL: an archive's one raster by its name in the archive. InputError where there is not one."""
    if isinstance(name, str) or name.suffix.lower() != ".zip" or not os.path.isfile(name):  # noqa: PTH113
        return name
    try:
        with zipfile.ZipFile(name) as archive:  # it is only listed: GDAL reads members in place, nothing is unpacked
            members = [info.filename for info in archive.infolist() if not info.is_dir()]
    except zipfile.BadZipFile as error:
        raise InputError(name, f"no zip archive: {error}", "expected a raster, or an archive with one") from error
    rasters = [
        member
        for member in members
        if Path(member).suffix.lower() in SUFFIXES and not Path(member).name.startswith("._")  # as macOS adds
    ]
    if len(rasters) != 1 or ".." in Path(rasters[0]).parts or Path(rasters[0]).is_absolute():
        found = ", ".join(rasters[:5]) or "no raster"
        raise InputError(name, f"holds {found}", "expected one raster", f"name one: /vsizip/{name}/MEMBER")
    return f"/vsizip/{name}/{rasters[0]}"


def is_file_name(out: Path) -> bool:
    """Whether an output that is not there yet is named as a file. By an ending that files have: 2024.05.01 and
    night.run are folders, whether one input goes there or a thousand."""
    return out.suffix.lower() in FILES and not os.path.isdir(out)  # noqa: PTH112


def rasters_in(folder: Path, recursive: bool = False, suffixes: frozenset[str] = SUFFIXES) -> list[Path]:
    """The files in a folder whose endings are among `suffixes`, sorted; hidden ones, and what is in hidden
    folders, are none of the user's data. Links to folders are followed, but not to one that they lie in. An OME-Zarr is
    a folder that counts as a file, and one that holds several, such as a plate, gives them all.

    NothingDoneError where a folder cannot be listed: nobody would miss what is in it.
    """
    found: list[Path] = []
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while waiting:
        place, above = waiting.pop()
        try:
            if is_zarr(place) or is_torn(place):
                inside_zarr = _of_zarr(place) if ENDING in suffixes else []
                found += [image for image in inside_zarr if image != folder]
                continue
            if not recursive and place != folder:
                continue
            status = os.stat(place)  # noqa: PTH116
            inside = above | {(status.st_dev, status.st_ino)}
            if len(inside) == len(above):  # a link that leads back
                continue
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name[0] == ".":
                        continue
                    if (recursive or entry.name.lower().endswith(ENDING)) and _leads_to_folder(entry):
                        waiting.append((place / entry.name, inside))
                    elif Path(entry.name).suffix.lower() in suffixes and not _is_folder(entry):
                        found.append(place / entry.name)
        except OSError as error:
            raise NothingDoneError(place, f"cannot be listed: {error.strerror}", "", "give permission") from error
    return sorted(found)


def _of_zarr(place: Path) -> list[Path]:
    """Its images; itself where it has lost its metadata, so that it is named."""
    return [place] if is_torn(place) else images_in(place)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is surely none of the files; a link that leads nowhere is one that cannot be read, and is named."""
    try:
        return not entry.is_file() and (entry.is_dir() or not entry.is_symlink())
    except OSError:  # a link to itself
        return False


def is_folder(name: Name) -> bool:
    """Whether it is to be searched for images; a Zarr is a folder, but an image, unless it holds images each a Zarr."""
    if not isinstance(name, Path) or not os.path.isdir(name):  # noqa: PTH112
        return False
    return not is_torn(name) and (not is_zarr(name) or holds_images(name))


def is_one(path: Path) -> bool:
    """Whether it is one raster: a file, or a Zarr."""
    return os.path.isfile(path) or (os.path.isdir(path) and not is_folder(path))  # noqa: PTH112, PTH113


def is_stream(name: Name) -> bool:
    """Whether it is a pipe, a socket or a device, which may never end, nor begin."""
    is_other = isinstance(name, Path) and os.path.exists(name)  # noqa: PTH110
    return is_other and not os.path.isfile(name) and not os.path.isdir(name)  # noqa: PTH112, PTH113


def relative_name(name: Name) -> Path:
    """Where the output of an input that was named goes below the output folder: its name without folders."""
    if isinstance(name, Path):
        return Path(name.name if name.name not in ("", "..") else name.resolve().name)
    text = name.split("?")[0].split("#")[0]
    file, inside = text, ""
    if "://" not in text.split('"')[0] and (found := _DATA_SET.fullmatch(text)):
        file, inside = found["file"].strip('"'), found["inside"] or ""
        if found["driver"].upper() == "GTIFF_DIR":  # the page comes first there
            file, inside = inside.rsplit(":", 1)[-1], file
    stem = Path(file).name
    suffix = re.sub(r"[^\w.-]+", "_", inside).strip("_")
    return Path(f"{Path(stem).stem}_{suffix}{Path(stem).suffix}" if suffix else stem)


def path_below(folder: Path, path: Path) -> Path:
    """The path of a raster in a folder, seen from there; a Zarr that holds it counts as a folder, without the ending,
    so that what is made of it does not get into it."""
    inside = path.relative_to(folder)
    parents = (part.removesuffix(ENDING) if part != ENDING else part for part in inside.parts[:-1])
    return Path(*parents, inside.name)
