"""A VRT is a program of sorts: it may read any file, fetch, and compute. Here it is pixels of this machine, no more."""

import re
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from segcli.raster.behind import behind

VRT_BYTES = 2**26


def files_of(path: Path, head: bytes) -> list[Path] | None:
    """The files that a VRT reads, those of VRTs in it, too; an empty list where `path`, which begins with `head`, is no
    VRT. None where nobody can tell of a source: it is not there, or a Zarr, which is many files.

    Raises OSError or ParseError for what is refused.
    """
    found: dict[Path, None] = {}
    return list(found) if _walk(path, head, found, frozenset()) else None


def _walk(path: Path, head: bytes, found: dict[Path, None], above: frozenset[Path]) -> bool:
    """Whether all sources of what may be a VRT were found."""
    if _SERVERS.search(head):
        raise OSError(SERVER)
    if b"<VRTDataset" not in head and path.suffix.lower() != ".vrt":
        return True
    if path.stat().st_size > VRT_BYTES:
        raise OSError(f"a VRT of over {VRT_BYTES >> 20} MB")
    text = path.read_text(encoding="utf-8", errors="replace")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise OSError("a VRT that defines entities")
    root = ElementTree.fromstring(text)
    above |= {path.resolve()}
    folder = path.resolve().parent
    has_raw = any("rawrasterband" in _plain(element).get("subclass", "").lower() for element in root.iter())
    are_known = True
    for source in (element for element in root.iter() if str(element.tag).lower() in _NAMING):
        named = (source.text or "").strip()
        seen_from = str(folder) if _plain(source).get("relativetovrt") == "1" else ""
        is_name = str(source.tag).lower() != "argument"  # which may be a number
        there = _local(named, seen_from, is_name)
        place = (Path(seen_from, named) if there is None else there).resolve()
        if has_raw and not place.is_relative_to(folder):
            raise OSError(f"a VRT of raw bytes that names {named}, outside its folder")
        if place in above:
            raise OSError("a VRT over itself")
        if place.exists() and not (place.is_file() or place.is_dir()):
            raise OSError(f"a VRT over {named:.80}, which is no file")
        are_known &= not is_name or place.is_file()
        if place not in found and place.is_file():  # a mosaic names each of its files once for each band
            found[place] = None
            if _VIRTUAL.search(named):  # an archive, whose members may look like anything
                continue
            with place.open("rb") as file:
                are_known &= _walk(place, file.read(4096), found, above)
    return are_known


def _local(named: str, folder: str, is_name: bool) -> Path | None:
    """The file or the Zarr behind a source, seen from a folder; None where it is missing. OSError where it is none of
    this machine, or in an archive and not to be followed."""
    place = behind(named, folder)
    is_missing = place is None and ("://" in named or (is_name and _DRIVER.match(named) is not None))
    is_virtual = _VIRTUAL.search(named) is not None
    if is_missing or _SERVED.search(named) or (is_virtual and (place is None or _FETCHED.search(named))):
        raise OSError(f"a VRT over {named:.80}, which is not a file of this machine; fetch it, or name it itself")
    if is_virtual and place is not None:
        _check_member(named, place)
    return place


def _check_member(named: str, archive: Path) -> None:
    """OSError unless a member of an archive is nothing but pixels: what it may name in its turn nobody would see."""
    try:
        member = PurePosixPath(re.sub(r"[{}]", "", named.removeprefix("/vsizip/"))).relative_to(archive)
        with zipfile.ZipFile(archive) as opened:
            alike = [one for one in opened.infolist() if PurePosixPath(one.filename) == member]
            heads = [opened.open(one).read(4096) for one in alike]
    except (OSError, ValueError, LookupError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error):
        heads = []
    if not heads or any(head.lstrip(_BLANK)[:1] in (b"<", b"{") or b"<VRTDataset" in head for head in heads):
        raise OSError(f"a VRT over {named:.80}, which cannot be looked through in its archive; unpack it")


SERVER = "a description of a server, or an index of files elsewhere; name the server or the files themselves"

_SERVERS = re.compile(rb"<(GDAL_WMT?S|WCS_GDAL|WMT_MS_Capabilities|WMS_Capabilities|GDALTileIndexDataset)")

_NAMING = ("sourcefilename", "sourcedataset", "argument")
"""Elements of a VRT that name files, in small letters: GDAL does not tell them apart."""

_SERVED = re.compile(r'<|^(\w+:)*"?[a-z][a-z0-9+-]*://', re.IGNORECASE)
"""A description in place of a name, or an address, which a driver's name may precede. Addresses have no dot before
their colon, as the file of HDF5:a.h5://data has."""

_VIRTUAL = re.compile(r"(^|[^\w./-])/vsi", re.IGNORECASE)
_FETCHED = re.compile(r"/vsi(?!(zip|tar|gzip|7z|rar)/)", re.IGNORECASE)
_DRIVER = re.compile(r"[A-Za-z]\w+:")
_BLANK = b"\xef\xbb\xbf \t\r\n"


def _plain(element: Any) -> dict[str, str]:
    """Its attributes by names in small letters."""
    return {name.lower(): value for name, value in element.attrib.items()}
