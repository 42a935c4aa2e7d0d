"""Whether the header of a classic netCDF file is whole. The library reads on behind the end of one that is not, in
whatever lies in memory there, for ever or until it falls.

Source: "The NetCDF Classic Format Specification" (Unidata), and its CDF-5. netCDF 4 is HDF5, of which nothing is known
here.
"""

import struct
from pathlib import Path

VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
"""By the number of a type."""

DIMENSIONS, VARIABLES, ATTRIBUTES = 10, 11, 12
HEADER_BYTES = 2**26


class BrokenNetcdfError(OSError):
    """The header cannot be one."""


def check_header(path: Path) -> None:
    """BrokenNetcdfError where the file is a classic netCDF whose header is cut off or damaged; OSError."""
    with path.open("rb") as file:
        head = file.read(4)
        if head[:3] == b"CDF" and head[3:] in (b"\x01", b"\x02", b"\x05"):
            _Header(file.read(HEADER_BYTES), head[3]).walk()


class _Header:
    """The bytes behind the magic number, and how far they are read."""

    def __init__(self, data: bytes, version: int) -> None:
        self._data, self._at = data, 0
        self._count_bytes = 8 if version == 5 else 4
        self._place_bytes = 4 if version == 1 else 8

    def walk(self) -> None:
        """From the number of records to the last variable."""
        self._skip(self._count_bytes)
        for _ in range(self._list(DIMENSIONS)):
            self._name()
            self._skip(self._count_bytes)
        self._attributes()
        for _ in range(self._list(VARIABLES)):
            self._name()
            self._skip(self._count_bytes * self._count())
            self._attributes()
            self._skip(4 + self._count_bytes + self._place_bytes)

    def _attributes(self) -> None:
        for _ in range(self._list(ATTRIBUTES)):
            self._name()
            kind = self._number(4)
            if kind not in VALUE_BYTES:
                raise BrokenNetcdfError(f"a netCDF whose header names type {kind}")
            self._skip(self._count() * VALUE_BYTES[kind])

    def _list(self, tag: int) -> int:
        """How many there are in the list that begins here."""
        found, count = self._number(4), self._count()
        if found != tag and (found, count) != (0, 0):
            raise BrokenNetcdfError(f"a netCDF whose header has {found} in place of {tag}")
        return count

    def _name(self) -> None:
        self._skip(self._count())

    def _count(self) -> int:
        return self._number(self._count_bytes)

    def _number(self, size: int) -> int:
        at = self._at
        self._skip(size)
        return int(struct.unpack_from(">Q" if size == 8 else ">I", self._data, at)[0])

    def _skip(self, size: int) -> None:
        """To the next multiple of four."""
        self._at += size + -size % 4
        if self._at > len(self._data):
            raise BrokenNetcdfError("a netCDF that ends inside its header")
