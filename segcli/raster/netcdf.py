"""Whether a classic netCDF file holds what its header says. The library reads on behind the end of a header that is cut
off, in whatever lies in memory there, for ever or until it falls; data that are cut off it takes for zeros.

Source: "The NetCDF Classic Format Specification" (Unidata), and its CDF-5. netCDF 4 is HDF5, of which nothing is known
here.
"""

import math
import struct
from pathlib import Path

VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
"""By the number of a type."""

DIMENSIONS, VARIABLES, ATTRIBUTES = 10, 11, 12
HEADER_BYTES = 2**26
MOST_DIMENSIONS = 1024
"""As in the library."""


class BrokenNetcdfError(OSError):
    """The header cannot be one, or not of this file."""


def check_header(path: Path) -> None:
    """BrokenNetcdfError where the file is a classic netCDF that is cut off or whose header is damaged; OSError."""
    with path.open("rb") as file:
        head = file.read(4)
        if head[:3] == b"CDF" and head[3:] in (b"\x01", b"\x02", b"\x05"):
            needed = _Header(file.read(HEADER_BYTES), head[3]).walk()
            found = path.stat().st_size
            if found < needed:
                raise BrokenNetcdfError(f"a netCDF of {found} bytes whose header claims {needed}")


class _Header:
    """The bytes behind the magic number, and how far they are read."""

    def __init__(self, data: bytes, version: int) -> None:
        self._data, self._at = data, 0
        self._count_bytes = 8 if version == 5 else 4
        self._place_bytes = 4 if version == 1 else 8

    def walk(self) -> int:
        """From the number of records to the last variable; gives the bytes up to the end of the last one's data."""
        records = self._count()
        if records == 2 ** (8 * self._count_bytes) - 1:
            records = 0  # whoever writes them does not know yet
        lengths = []
        for _ in range(self._list(DIMENSIONS)):
            self._name()
            lengths.append(self._count())
        self._attributes()
        fixed, recorded = [0], []  # ends; beginnings and sizes of the first record
        for _ in range(self._list(VARIABLES)):
            self._name()
            count = self._count()
            if count > MOST_DIMENSIONS:
                raise BrokenNetcdfError(f"a netCDF whose header claims {count} dimensions for one variable")
            places = [self._count() for _ in range(count)]
            if any(place >= len(lengths) for place in places):
                raise BrokenNetcdfError(f"a netCDF whose header names dimensions {places} of {len(lengths)}")
            self._attributes()
            kind = self._kind()
            self._skip(self._count_bytes)
            begin = self._number(self._place_bytes)
            shape = [lengths[place] for place in places]
            size = math.prod(shape[shape[:1] == [0] :]) * VALUE_BYTES[kind]
            if shape[:1] == [0]:  # the dimension without an end
                recorded.append((begin, size))
            else:
                fixed.append(begin + size)
        sizes = [size for _, size in recorded]
        record = sizes[0] if len(sizes) == 1 else sum(size + -size % 4 for size in sizes)
        ends = [begin + record * (records - 1) + size for begin, size in recorded] if records else []
        return max(fixed + ends)

    def _attributes(self) -> None:
        for _ in range(self._list(ATTRIBUTES)):
            self._name()
            kind = self._kind()
            self._skip(self._count() * VALUE_BYTES[kind])

    def _kind(self) -> int:
        kind = self._number(4)
        if kind not in VALUE_BYTES:
            raise BrokenNetcdfError(f"a netCDF whose header names type {kind}")
        return kind

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
