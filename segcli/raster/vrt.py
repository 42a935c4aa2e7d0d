"""A VRT is a program of sorts: it may read any file, fetch, and compute. Here it is pixels of this machine, no more."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

VRT_BYTES = 2**26


def files_of(path: Path, head: bytes) -> list[Path]:
    """The files that a VRT reads, those of VRTs in it, too; none where `path`, which begins with `head`, is no VRT.

    Raises OSError or ParseError for what is refused.
    """
    found: dict[Path, None] = {}
    _walk(path, head, found, frozenset())
    return list(found)


def _walk(path: Path, head: bytes, found: dict[Path, None], above: frozenset[Path]) -> None:
    if _SERVERS.search(head):
        raise OSError(SERVER)
    if b"<VRTDataset" not in head and path.suffix.lower() != ".vrt":
        return
    if path.stat().st_size > VRT_BYTES:
        raise OSError(f"a VRT of over {VRT_BYTES >> 20} MB")
    text = path.read_text(encoding="utf-8", errors="replace")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise OSError("a VRT that defines entities")
    root = ElementTree.fromstring(text)
    above |= {path.resolve()}
    folder = path.resolve().parent
    has_raw = any("rawrasterband" in _plain(element).get("subclass", "").lower() for element in root.iter())
    for source in (element for element in root.iter() if str(element.tag).lower() in _NAMING):
        named = (source.text or "").strip()
        if _ELSEWHERE.search(named):
            raise OSError(f"a VRT over {named:.80}, which is not a file of this machine; fetch it, or name it itself")
        place = (folder / named if _plain(source).get("relativetovrt") == "1" else Path(named)).resolve()
        if has_raw and not place.is_relative_to(folder):
            raise OSError(f"a VRT of raw bytes that names {named}, outside its folder")
        if place in above:
            raise OSError("a VRT over itself")
        if place not in found and place.is_file():  # a mosaic names each of its files once for each band
            found[place] = None
            with place.open("rb") as file:
                _walk(place, file.read(4096), found, above)


SERVER = "a description of a server, or an index of files elsewhere; name the server or the files themselves"

_SERVERS = re.compile(rb"<(GDAL_WMT?S|WCS_GDAL|WMT_MS_Capabilities|WMS_Capabilities|GDALTileIndexDataset)")

_NAMING = ("sourcefilename", "sourcedataset", "argument")
"""Elements of a VRT that name files, in small letters: GDAL does not tell them apart."""

_ELSEWHERE = re.compile(r"://|<|(^|[^\w./-])/vsi", re.IGNORECASE)


def _plain(element: Any) -> dict[str, str]:
    """Its attributes by names in small letters."""
    return {name.lower(): value for name, value in element.attrib.items()}
