"""From masks as people have them to class positions: indices, colours, black and white. numpy only, besides reading."""

from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segcli.classes import IGNORE, ClassEntry, ClassTable
from segcli.colors import color_codes, hex_color
from segcli.errors import InputError, UsageError
from segcli.raster.burn import burnt, is_vector, kinds_in, table_of_kinds
from segcli.raster.images import open_images
from segcli.raster.labels import BINARY, check_labels, table_of, values_in, written_table
from segcli.raster.source import Source
from segcli.training.files import Files
from segcli.training.pairs import Pair
from segcli.validity import Valid

Positions = NDArray[np.int16]


@dataclass(frozen=True)
class Labels:
    """How masks are read: as indices, or as colours of the class table. What is `ignored` is no label, too."""

    classes: ClassTable
    ignored: tuple[ClassEntry, ...] = ()

    def open(self, pair: Pair, files: Files) -> AbstractContextManager[Source]:
        """The mask of a pair; polygons as they lie on the image."""
        if not is_vector(pair.mask):
            return files.open(pair.mask, "mask", pair.plane)
        with files.image(pair) as image:
            names = frozenset(text for entry in self.ignored for text in (entry.name, str(entry.index)) if text)
            return burnt(pair.mask, image.grid, self.classes, names)

    def hidden_by(self, mask: Source) -> int | None:
        """The nodata value of a mask of indices that may hide what is meant: 0, which is nearly always background, or
        the value of a class. None where it has another one, or where that value is known to be no label."""
        value = mask.nodata
        if value is None or mask.bands != 1 or value in (self.classes.ignore, *(entry.index for entry in self.ignored)):
            return None
        return int(value) if value == 0 or value in self.classes.indices else None

    def positions(self, path: object, pixels: NDArray[np.generic], valid: Valid = None) -> Positions:
        """Class positions, (row, col), -1 without a label or data, of pixels, (band, row, col): one band of indices or
        three of colours. InputError on a value that is no class."""
        found = self._by_color(pixels) if len(pixels) >= 3 else self._by_index(pixels[0])
        if valid is not None:
            found[~valid] = -1
        if (found == -2).any():
            remedy = "give --classes with all of them, or 255 where there is no label"
            if len(pixels) == 1 and pixels.max() > 255:
                remedy = "class indices are 0 to 255: renumber codes; numbers of objects belong in instances/"
            raise InputError(path, f"{self._foreign(pixels, found)} are no class", f"expected {self._expected(pixels)}",
                             remedy)  # fmt: skip
        return found

    def _by_index(self, values: NDArray[np.generic]) -> Positions:
        table = self.classes.positions()
        for entry in self.ignored:
            table[entry.index] = -1
        if values.dtype == np.uint8:
            return table[values]
        whole = np.asarray(values, np.int64)
        return np.where((whole >= 0) & (whole < 256), table[whole.clip(0, 255)], np.int16(-2))

    def _by_color(self, pixels: NDArray[np.generic]) -> Positions:
        """By exact colour."""
        codes = color_codes(pixels)
        known = np.array([_code(entry.color) for entry in self.classes.entries])
        order = np.argsort(known)
        place = np.searchsorted(known[order], codes).clip(max=len(known) - 1)
        found = np.where(known[order][place] == codes, order[place], -2).astype(np.int16)
        for color in (self.classes.ignore_color, *(entry.color for entry in self.ignored)):
            if color is not None:
                found[(found == -2) & (codes == _code(color))] = -1
        return found

    def _foreign(self, pixels: NDArray[np.generic], found: Positions) -> str:
        odd = color_codes(pixels)[found == -2] if len(pixels) >= 3 else pixels[0][found == -2]
        values, counts = np.unique(odd, return_counts=True)
        order = np.argsort(-counts)[:5]
        more = f" and {len(values) - 5} more" if len(values) > 5 else ""
        shown = [f"#{int(v):06X}" if len(pixels) >= 3 else str(v) for v in values[order]]
        return f"values {', '.join(f'{v} ({counts[n]} pixels)' for v, n in zip(shown, order, strict=True))}{more}"

    def _expected(self, pixels: NDArray[np.generic]) -> str:
        if len(pixels) >= 3:
            return ", ".join(f"{hex_color(entry.color)} {entry.name}" for entry in self.classes.entries[:12])
        return ", ".join(map(str, self.classes.indices.tolist()))


def _code(color: tuple[int, int, int]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def find_classes(data: Path, given: Path | None, pairs: tuple[Pair, ...]) -> ClassTable:
    """The class table: the given file, `classes.json` or `.csv` in `data` or beside the masks, or the values that occur
    in these.

    Masks and polygons that cannot be read are left for the survey to name. Raises UsageError where masks are colours
    and nothing says what these mean.
    """
    folder = data.parent if data.is_file() else data
    table = written_table(given, folder, above=0) or written_table(None, pairs[0].mask.parent, above=0)
    if table is not None:
        return table
    vectors = [pair.mask for pair in pairs if is_vector(pair.mask)]
    if len(vectors) == len(pairs):
        kinds: set[str] = set()
        for path in vectors:
            with suppress(InputError):
                kinds |= kinds_in(path)
        return table_of_kinds(sorted(kinds))
    if vectors:
        raise UsageError(vectors[0], "polygons beside masks of pixels", "nothing says which value is which class",
                         f"write {folder / 'classes.csv'} with the columns index,name,color")  # fmt: skip
    first, bands = next(((pair.mask, bands) for pair in pairs if (bands := _bands(pair.mask))), (folder, 0))
    if bands >= 3:
        raise UsageError(first, "a mask in colours", "nothing says which colour is which class",
                         f"write {folder / 'classes.csv'} with the columns index,name,color")  # fmt: skip
    values = values_in(pair.mask for pair in pairs)
    # Where there are none because some are no masks, whoever looks at each of them names these, whatever the classes.
    is_known = {*values} - {IGNORE} or all(_is_mask(pair.mask) for pair in pairs)
    return table_of(values, data) if is_known else BINARY


def _is_mask(path: Path) -> bool:
    with suppress(InputError), closing(open_images(path, "mask")) as masks:
        check_labels(masks.planes[0])
        return all(strip.pixels.size for strip in masks.planes[0].strips(512))
    return False


def _bands(path: Path) -> int:
    """0 where the mask cannot be read."""
    with suppress(InputError), closing(open_images(path, "mask")) as masks:
        return masks.planes[0].bands
    return 0


def without(classes: ClassTable, ignore: int | None) -> Labels:
    """The labels with a mask value left out that is, or is not, a class. UsageError where no class is left."""
    if ignore is None or ignore == classes.ignore:
        return Labels(classes)
    left = tuple(entry for entry in classes.entries if entry.index != ignore)
    if not left:
        raise UsageError("--ignore", f"{ignore} is the only class", "nothing is left to learn")
    ignored = [entry for entry in classes.entries if entry.index == ignore]
    ignored = ignored or [ClassEntry(ignore, "", classes.ignore_color or (255, 255, 255))]
    # What marks pixels without a label in masks that predict writes stays what it was.
    marks = classes.ignore
    if marks is None and all(entry.index != IGNORE for entry in left):
        marks = IGNORE
    return Labels(ClassTable(left, marks, classes.ignore_color), tuple(ignored))
