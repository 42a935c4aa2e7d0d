"""How the bands of an image are called."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from rasterio.enums import ColorInterp

from segcli.band_names import plain
from segcli.errors import some
from segcli.options import bands_text

NO_COLORS = frozenset({ColorInterp.undefined, ColorInterp.gray, ColorInterp.palette, ColorInterp.alpha})

MADE_UP = frozenset({ColorInterp.red, ColorInterp.green, ColorInterp.blue})
"""Of three or four bands of bytes, whatever they show."""

SHOWN = 12
"""Names in a message."""


@dataclass(frozen=True)
class Called:
    """By band: the names that the file gives, empty where it gives none, and the colours that it shows."""

    names: tuple[str, ...]
    kinds: tuple[ColorInterp, ...]

    @property
    def has_names(self) -> bool:
        return any(self.names)

    @property
    def says_what_they_are(self) -> bool:
        """Whether the file itself says which band is which: by names, or by colours that GDAL makes up for none."""
        return self.has_names or any(kind not in NO_COLORS | MADE_UP for kind in self.kinds)

    def places(self, name: str) -> list[int]:
        """The bands, from 0, called so, in small letters or large ones; those of that colour where none has a name:
        GDAL makes up colours for three bands of bytes, whatever they are called."""
        return self._places.get(plain(name), [])

    def has_each_once(self, names: Iterable[str]) -> bool:
        """Whether one band, and no second one, is called by each of these."""
        return all(len(self.places(name)) == 1 for name in names)

    def each(self, bands: Iterable[int]) -> list[str]:
        """The names of these bands, from 0, each once, or their numbers, from 1."""
        return [self._said[band] or str(band + 1) for band in dict.fromkeys(bands)]

    def __str__(self) -> str:
        """For people."""
        said = [bands_text([name]) for name in self._said if name]  # as --bands takes them
        return f"called {some(said, SHOWN)}" if said else "without names"

    @property
    def _said(self) -> tuple[str, ...]:
        if self.has_names:
            return self.names
        return tuple("" if kind in NO_COLORS else kind.name for kind in self.kinds)

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for n, name in enumerate(self._said):
            if name.strip():
                found.setdefault(plain(name), []).append(n)
        return found
