"""The skeleton of a TIFF file, read with suspicion: its pages (image file directories, IFDs) and a few of their tags.

GDAL and tifffile follow what a header says; a list of pages that loops, or 65 535 bands in 300 bytes, keeps them busy
for minutes. This looks first. EXIF, which pictures of other formats carry, is a TIFF structure as well.
Source: "TIFF Revision 6.0" (Adobe, 1992), and libtiff's page on BigTIFF.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from segcli.raster.gdal import MAX_BANDS

MAX_PAGES = 100_000
MAX_TAGS = 4096
EXIF_BYTES = 2**18
REDUCED, MASK = 1, 4
"""Bits of NewSubfileType: a smaller version of another page, a transparency mask."""

WIDTH, HEIGHT, COMPRESSION, SUBFILE, ORIENTATION, SAMPLES, SUBIFDS = 256, 257, 259, 254, 274, 277, 330
_SIZES = {1: "B", 3: "H", 4: "I", 16: "Q"}


class BrokenTiffError(ValueError):
    """The file cannot be what its header says."""


@dataclass(frozen=True)
class Page:
    """One IFD: where it lies, its size in pixels, and what it is to the others."""

    offset: int
    height: int
    width: int
    samples: int
    kind: int  # NewSubfileType
    orientation: int  # 1 to 8
    compression: int
    has_more_below: bool = False  # SubIFDs

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def is_image(self) -> bool:
        """No thumbnail, no pyramid level, no mask."""
        return not self.kind & (REDUCED | MASK)


def pages(path: Path) -> list[Page] | None:
    """The pages of a TIFF or BigTIFF in order; None where the file is neither. Raises BrokenTiffError, OSError."""
    with path.open("rb") as file:
        return _pages(file)


def page_at(path: Path, offset: int) -> Page:
    """The page at `offset` of a TIFF, in the list or below another page. Raises BrokenTiffError, OSError."""
    with path.open("rb") as file:
        start = _header(file)
        if start is None:
            raise BrokenTiffError("no TIFF")
        return _page(file, offset, *start[1:])[0]


def _header(file: BinaryIO) -> tuple[int, str, bool] | None:
    """Where the first page lies, the order of bytes for struct, and whether it is a BigTIFF; None for other formats."""
    header = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(header[:2])
    if order is None or len(header) < 8:
        return None
    (version,) = struct.unpack(order + "H", header[2:4])
    if version == 42:
        return struct.unpack(order + "I", header[4:8])[0], order, False
    if version == 43 and len(header) == 16:
        return struct.unpack(order + "Q", header[8:16])[0], order, True
    return None


def _pages(file: BinaryIO) -> list[Page] | None:
    start = _header(file)
    if start is None:
        return None
    offset, order, big = start
    found: list[Page] = []
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise BrokenTiffError(f"its list of pages loops after page {len(found)}")
        if len(found) >= MAX_PAGES:
            raise BrokenTiffError(f"more than {MAX_PAGES} pages")
        seen.add(offset)
        page, offset = _page(file, offset, order, big)
        found.append(page)
    if not found:
        raise BrokenTiffError("a TIFF without a page")
    return found


def _page(file: BinaryIO, offset: int, order: str, big: bool) -> tuple[Page, int]:
    """The page at `offset`, and the offset of the next one."""
    counted, entry_size = ("Q", 20) if big else ("H", 12)
    file.seek(offset)
    head = file.read(struct.calcsize(counted))
    if len(head) < struct.calcsize(counted):
        raise BrokenTiffError(f"it ends before the page at byte {offset}")
    (count,) = struct.unpack(order + counted, head)
    if count > MAX_TAGS:
        raise BrokenTiffError(f"{count} tags in the page at byte {offset}")
    body = file.read(count * entry_size + (8 if big else 4))
    if len(body) < count * entry_size:
        raise BrokenTiffError(f"it ends inside the page at byte {offset}")
    tags: dict[int, int] = {}
    has_more_below = False
    for n in range(count):
        entry = body[n * entry_size : (n + 1) * entry_size]
        tag, kind = struct.unpack(order + "HH", entry[:4])
        has_more_below |= tag == SUBIFDS
        if code := _SIZES.get(kind):
            (tags[tag],) = struct.unpack_from(order + code, entry, 12 if big else 8)
    if tags.get(SAMPLES, 1) > MAX_BANDS:
        raise BrokenTiffError(f"{tags[SAMPLES]} bands in the page at byte {offset}")
    tail = body[count * entry_size :]
    following = struct.unpack(order + ("Q" if big else "I"), tail)[0] if len(tail) == (8 if big else 4) else 0
    orientation = tags.get(ORIENTATION, 1)
    page = Page(
        offset, tags.get(HEIGHT, 0), tags.get(WIDTH, 0), tags.get(SAMPLES, 1), tags.get(SUBFILE, 0),
        orientation if 1 <= orientation <= 8 else 1, tags.get(COMPRESSION, 1), has_more_below,
    )  # fmt: skip
    return page, following


def exif_orientation(path: Path) -> int:
    """How a JPEG, PNG or WebP is to be turned to stand upright, 1 to 8 as EXIF counts; 1 where it does not say."""
    with path.open("rb") as file:
        head = file.read(EXIF_BYTES)
    block = b""
    if head[:2] == b"\xff\xd8":
        block = _jpeg_exif(head)
    elif head[:8] == b"\x89PNG\r\n\x1a\n":
        block = _chunk(path, 8, b"eXIf", ">", name_first=False)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        block = _chunk(path, 12, b"EXIF", "<", name_first=True)
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    try:
        (first,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, first)
        for n in range(min(count, MAX_TAGS)):
            tag, _, _, value = struct.unpack_from(order + "HHIH", block, first + 2 + 12 * n)
            if tag == ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def jpeg_is_blank(path: Path) -> bool:
    """Whether the coded pixels of a JPEG are zero bytes and nothing else, as a broken disk or download leaves them.

    No decoder minds: they give one even grey. A true image ends in bits of 1, even one of a single colour.
    """
    with path.open("rb") as file:
        at = 2
        while True:
            file.seek(at)
            marker = file.read(4)
            if len(marker) < 4 or marker[0] != 0xFF:
                return False
            at += 2 + int.from_bytes(marker[2:], "big")
            if marker[1] == 0xDA:
                break
        file.seek(at)
        coded = file.read(2**16)
    end = coded.rfind(b"\xff\xd9")
    coded = coded if end < 0 else coded[:end]
    return len(coded) >= 16 and not any(coded)


def _jpeg_exif(head: bytes) -> bytes:
    """The APP1 segment that holds EXIF."""
    at = 2
    while at + 4 <= len(head) and head[at] == 0xFF and head[at + 1] != 0xDA:
        (size,) = struct.unpack_from(">H", head, at + 2)
        if head[at + 1] == 0xE1 and head[at + 4 : at + 10] == b"Exif\0\0":
            return head[at + 4 : at + 2 + size]
        at += 2 + size
    return b""


def _chunk(path: Path, at: int, name: bytes, order: str, name_first: bool) -> bytes:
    """The contents of the first chunk of that name; PNG has the size first and a checksum behind, RIFF even sizes.

    Only the heads of chunks are read: EXIF may come after all the pixels.
    """
    with path.open("rb") as file:
        while True:
            file.seek(at)
            head = file.read(8)
            if len(head) < 8:
                return b""
            (size,) = struct.unpack_from(order + "I", head, 4 * name_first)
            if head[4 * (not name_first) :][:4] == name:
                return file.read(min(size, EXIF_BYTES))
            at += 8 + (size + size % 2 if name_first else size + 4)
