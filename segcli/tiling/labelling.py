"""Labels that are cut beside images: which belong to which, what their values mean, and how often each occurs."""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.classes import IGNORE, ClassTable
from segcli.colors import color_codes, hex_color
from segcli.errors import InputError, NothingDoneError, UsageError, some
from segcli.matching import match, one_each
from segcli.raster.burn import VECTORS, burnt, is_vector, kinds_in, table_of_kinds
from segcli.raster.grid import Grid
from segcli.raster.labels import check_labels, count_bytes, embedded_table, table_of, values_in, written_table
from segcli.raster.names import SUFFIXES, Name, is_folder
from segcli.raster.sink import empty_value, mask_layout
from segcli.raster.source import Source
from segcli.raster.stored import Stored, stored, stored_as
from segcli.validity import Valid

Counts = dict[str, int]


@dataclass(frozen=True)
class Labels:
    """The file of labels of each raster, the classes where something says which they are, and what the values mean,
    where that was asked for: these classes, else what the values themselves tell."""

    files: dict[Name, Path]
    classes: ClassTable | None
    meaning: ClassTable | None
    attribute: str | None = None

    @cached_property
    def ignored(self) -> frozenset[str]:
        """Values that stand for no label; as colours, too, where the masks hold these."""
        if self.meaning is None:
            return frozenset({str(IGNORE)})
        found = map(str, np.flatnonzero(self.meaning.positions() == -1).tolist())
        color = self.meaning.ignore_color
        return frozenset(found) | (set() if color is None else {hex_color(color)})

    @cached_property
    def unlabelled(self) -> frozenset[str]:
        """The same and background."""
        if self.meaning is None:
            return self.ignored | {"0", "#000000"}
        backgrounds = (entry for entry in self.meaning.entries if entry.is_background)
        return self.ignored.union(*({str(entry.index), hex_color(entry.color)} for entry in backgrounds))

    def open(self, source: Name, grid: Grid) -> tuple[Source, Stored]:
        """As stored; polygons as they lie on the grid, in the colours of the classes."""
        path = self.files[source]
        if is_vector(path):
            assert self.classes is not None
            return burnt(path, grid, self.classes, attribute=self.attribute), stored_as(mask_layout(self.classes))
        mask = Source(path, "stored")
        try:
            check_labels(mask)
            return mask, stored(mask)
        except BaseException:
            mask.close()
            raise

    def empty(self, like: Stored) -> Any:
        """What a mask holds where there is no raster: its nodata, else what marks no label."""
        if like.nodata is not None or like.dtype != "uint8" or like.bands > 1:
            return like.empty
        if self.classes is not None:
            return np.uint8(empty_value(self.classes) or 0)
        return np.uint8(255 if self.meaning is None else self.meaning.ignore or 0)


def find_labels(
    sources: dict[Name, str], place: Path, attribute: str | None, given: Path | None, wants_meaning: bool
) -> Labels:
    """Of rasters, with their names: a file for all of them, or those in a folder of the same names.

    Values are looked for in the masks only where `wants_meaning`, and nothing says what they mean. UsageError where a
    raster has no labels.
    """
    if not place.exists():
        raise UsageError(place, "no such file or folder", "--masks expects labels: a raster, polygons, or a folder")
    files = _in_folder(sources, place) if is_folder(place) else _one_for_all(sources, place)
    folder = place if is_folder(place) else place.parent
    table = written_table(given, folder)
    vectors = sorted({path for path in files.values() if is_vector(path)})
    if table is None and vectors:
        if len(vectors) < len({*files.values()}):
            raise UsageError(folder, "polygons beside masks of pixels", "nothing says which value is which class",
                             "give --classes")  # fmt: skip
        table = table_of_kinds(sorted(_kinds(vectors, attribute)))
    if table is None:
        table = embedded_table(next(iter(files.values())))
    meaning = table
    if table is None and wants_meaning:
        with suppress(NothingDoneError):  # colours, numbers of objects, codes: what they mean is not to be seen
            meaning = table_of(values_in(files.values()), folder)
    return Labels(files, table, meaning, attribute)


def _kinds(vectors: list[Path], attribute: str | None) -> set[str]:
    """What polygons are in any of the files. UsageError where one cannot be read: its classes would be missing, and all
    others numbered otherwise than with them."""
    kinds: set[str] = set()
    faults: list[InputError] = []
    for path in vectors:
        try:
            kinds |= kinds_in(path, attribute)
        except InputError as error:
            faults.append(error)
    if faults:
        others = f"; so are {len(faults) - 1} more files of polygons" if len(faults) > 1 else ""
        raise UsageError(faults[0].subject, f"{faults[0].reason}{others}", "all say together which classes there are",
                         "mend them, or give --classes")  # fmt: skip
    return kinds


def _in_folder(sources: dict[Name, str], place: Path) -> dict[Name, Path]:
    found = one_each(place, True, SUFFIXES | VECTORS)
    ours: dict[str, Path] = {}
    for source, name in sources.items():
        if name in ours:
            raise UsageError(place, f"{ours[name]} and {source} have one name", "--masks expects one raster for each",
                             "run them apart, each with its own --masks")  # fmt: skip
        ours[name] = Path(str(source))
    by_path = {Path(str(source)): source for source in sources}
    pairs = match(ours, found)
    if pairs.left:
        raise UsageError(place, f"has none for {some(pairs.left)}", "--masks expects labels of the rasters' names")
    return {by_path[image]: mask for _, image, mask in pairs.pairs}


def _one_for_all(sources: dict[Name, str], place: Path) -> dict[Name, Path]:
    if len(sources) > 1 and not is_vector(place):
        raise UsageError(place, f"one raster for {len(sources)} images", "--masks expects a folder, or polygons")
    return dict.fromkeys(sources, place)


def counts(pixels: NDArray[Any], valid: Valid) -> Counts:
    """How many pixels hold each value, or colour (#RRGGBB), where there are data; pixels are (band, row, col)."""
    values = color_codes(pixels) if len(pixels) >= 3 else pixels[0]
    if values.dtype == np.uint8:
        found = count_bytes(values, valid)
        return {str(value): int(found[value]) for value in np.flatnonzero(found)}
    which, often = np.unique(values if valid is None else values[valid], return_counts=True)
    words = [f"#{value:06X}" if len(pixels) >= 3 else str(value) for value in which.tolist()]
    return dict(zip(words, often.tolist(), strict=True))


def labelled(found: Counts, unlabelled: frozenset[str]) -> int:
    """Pixels with a label."""
    return sum(pixels for value, pixels in found.items() if value not in unlabelled)
