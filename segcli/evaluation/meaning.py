"""Which class each value of a true and of a predicted mask stands for."""

from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segcli.classes import ClassEntry, ClassTable
from segcli.errors import InputError, NothingDoneError, UsageError
from segcli.evaluation.pairs import Pair
from segcli.raster.images import open_images
from segcli.raster.labels import BINARY, check_indices, table_in, table_of, values_in
from segcli.raster.values import are_black_and_white

LABEL_MAP = ClassTable((ClassEntry(0, "background", (0, 0, 0)), ClassEntry(1, "object", (230, 159, 0))), None)
"""What a map of object numbers says of classes."""


@dataclass(frozen=True)
class Meaning:
    """The classes, and the position of each value among them in either mask, (256,): -1 no label, -2 no class.

    `notes` are lines for people on what was concluded. With `by_name` a prediction that names its classes is read by
    them; others are read as the first one is, which names them as `first` does. With `of_objects` all of its classes
    but the background are one. `truth` is what true masks name themselves, where nothing else says it.
    `is_given`: a table says the classes; `is_by_value`: nothing does but the values that occur.
    """

    classes: ClassTable
    true: NDArray[np.int16]
    predicted: NDArray[np.int16]
    notes: tuple[str, ...] = ()
    by_name: bool = False
    first: ClassTable | None = None
    of_objects: bool = False
    truth: ClassTable | None = None
    is_given: bool = False
    is_by_value: bool = False

    @classmethod
    def of(cls, classes: ClassTable) -> "Meaning":
        return cls(classes, classes.positions(), classes.positions())

    def of_truth(self, path: Path, named: ClassTable | None) -> "Meaning":
        """For one true mask, which names its classes so. InputError where they are other ones than the first's."""
        if self.truth is None or named is None or _values(named) == _values(self.truth):
            return self
        true = _read_by_name(self.classes, named)
        if true is None:
            raise InputError(path, f"its classes are {', '.join(named.names[:6])}",
                             f"expected {', '.join(self.classes.names)}", "compare it by itself")  # fmt: skip
        return replace(self, true=true)

    def of_prediction(self, path: Path, named: ClassTable | None) -> "Meaning":
        """For one prediction, which names its classes so. InputError where they are other ones than the first's."""
        if not self.by_name or named is None:
            return self
        if self.of_objects:
            return replace(self, predicted=_object_values(named))
        predicted = _read_by_name(self.classes, named)
        if predicted is not None:
            return replace(self, predicted=predicted)
        if self.first is not None and _values(self.first) == _values(named):
            return self
        if other := _named_otherwise(self.classes, named):
            raise InputError(path, f"its classes are named otherwise: {other}",
                             f"expected {', '.join(self.classes.names)}", "compare it by itself")  # fmt: skip
        return replace(self, predicted=self.classes.positions())


def find_meaning(table: ClassTable | None, pairs: list[Pair], option: str = "--classes") -> Meaning:
    """By the table that is given, else by what the masks say themselves, or by the values in them.

    Predictions that name the same classes with other values are read by name. Errors tell to use `option`.
    """
    first = pairs[0]
    truth = None if table is not None else _named(pair.truth for pair in pairs)
    table, named = table or truth, _named(pair.predicted for pair in pairs)
    if table is not None:
        found = _of_table(table, named)
        if named is None and _are_white(table, pairs):
            # As no prediction only where the truth has it, too.
            if 255 not in values_in(pair.truth for pair in pairs):
                raise _white_error(table, pairs)
            note = "predictions hold 0 and 255 alone; 255 is taken for no prediction"
            found = replace(found, notes=(*found.notes, note))
        return replace(found, by_name=True, first=named, truth=truth, is_given=truth is None)
    true = values_in(pair.truth for pair in pairs)
    if named is not None:
        is_white = true == [0, 255]
        values = [entry.index for entry in named.entries]
        found = _black_and_white(true, values, named, first, option) if is_white else Meaning.of(named)
        return replace(found, by_name=True, first=named)
    predicted = values_in(pair.predicted for pair in pairs)
    both = sorted({*true, *predicted})
    is_white = 255 in predicted and 255 not in true and set(predicted) <= {0, 255} and 0 in both and len(both) <= 3
    if true == [0, 255] or is_white:
        return _black_and_white(true, predicted, None, first, option)
    # Where the truth has 255 beside its classes it is no label, but for predictions that may be black and white.
    if 255 in predicted and (255 not in true or set(predicted) == {0, 255}):
        raise UsageError(first.predicted.parent, "predictions hold 255", "it may be a class or stand for no label",
                         f"say with {option}")  # fmt: skip
    classes = [value for value in both if value != 255]
    if not classes:
        _check_opens(first)
    return replace(Meaning.of(table_of(classes, first.truth)), is_by_value=True)


def _check_opens(pair: Pair) -> None:
    """NothingDoneError where there are no values because the files are no masks, or are not there."""
    for path in (pair.truth, pair.predicted):
        try:
            with closing(open_images(path, "mask")) as images:
                check_indices(images.planes[0])
        except InputError as error:
            raise NothingDoneError(error.subject, error.reason) from error


def _named(paths: Iterable[Path]) -> ClassTable | None:
    """The classes that the first mask that can be opened names itself."""
    for path in paths:
        with suppress(InputError), closing(open_images(path, "mask")) as images:
            return table_in(path, images)
    return None


def meaning_of_numbers(table: ClassTable | None, pairs: list[Pair]) -> Meaning:
    """Of true masks that hold a number for each object beside predicted ones of classes: by the `table` alone, or by
    what the predictions say themselves, else 0 is background and the rest objects, 255 if there is nothing else."""
    meaning = replace(Meaning.of(LABEL_MAP), of_objects=True)
    if table is not None:
        if _are_white(table, pairs):
            raise _white_error(table, pairs)
        return replace(meaning, predicted=_object_values(table))
    named = _named(pair.predicted for pair in pairs)
    if named is None and are_black_and_white(pair.predicted for pair in pairs):
        named = BINARY
    others = np.ones(256, np.int16)
    others[[0, 255]] = 0
    return replace(meaning, predicted=others if named is None else _object_values(named), by_name=True)


def _are_white(table: ClassTable, pairs: list[Pair]) -> bool:
    """Whether predictions are black and white, and the table knows no white: all that they found would be passed over
    as no prediction."""
    has_others = any(0 < entry.index < 255 for entry in table.entries)
    is_known = any(entry.index == 255 for entry in table.entries)
    return has_others and not is_known and are_black_and_white((pair.predicted for pair in pairs), table_in)


def _white_error(table: ClassTable, pairs: list[Pair]) -> UsageError:
    where = pairs[0].predicted if len(pairs) == 1 else pairs[0].predicted.parent
    known = ", ".join(f"{entry.index} {entry.name}" for entry in table.entries[:6])
    return UsageError(where, "predictions hold 0 and 255 alone, and 255 is no class",
                      f"expected {known}", "write the index for white; or, if it is no prediction, mark it as nodata "
                      "(gdal_edit.py -a_nodata 255)")  # fmt: skip


def _object_values(table: ClassTable) -> NDArray[np.int16]:
    """What each value of a mask of classes says of objects: 0 none (no label is none), 1 one, -2 no class."""
    places = table.positions()
    objects = np.where(places >= 0, np.int16(1), np.where(places == -1, np.int16(0), places))
    if table.background is not None:
        objects[places == table.background] = 0
    elif places[0] == -2:  # a table of objects alone
        objects[0] = 0
    return objects


def _of_table(table: ClassTable, named: ClassTable | None) -> Meaning:
    """Of predictions that may name their classes beside a table for the truth."""
    meaning = Meaning.of(table)
    if named is None:
        return meaning
    predicted = _read_by_name(table, named)
    if predicted is not None:
        return replace(meaning, predicted=predicted)
    other = _named_otherwise(table, named)
    if not other:
        return meaning
    return replace(meaning, notes=(f"predictions name their classes otherwise ({other}); they are compared by value",))


def _read_by_name(table: ClassTable, named: ClassTable) -> NDArray[np.int16] | None:
    """The position in `table` of each value of a mask with the classes `named`; None where names differ."""
    if set(named.names) != set(table.names):
        return None
    values = {entry.name: entry.index for entry in named.entries}
    positions = named.positions()
    for place, name in enumerate(table.names):
        positions[values[name]] = place
    return positions


def _named_otherwise(table: ClassTable, named: ClassTable) -> str:
    """The first values that have other names than in `table`, for people; nothing where there are none."""
    names = _values(table)
    other = [f"{e.index} {e.name}, not {names[e.index]}" for e in named.entries if names.get(e.index, e.name) != e.name]
    return "; ".join(other[:3])


def _values(table: ClassTable) -> dict[int, str]:
    return {entry.index: entry.name for entry in table.entries}


def _black_and_white(
    true: list[int], predicted: list[int], named: ClassTable | None, first: Pair, option: str
) -> Meaning:
    """Of masks with 0 and one other value on each side, 255 on one of them at least."""
    sides = []
    for path, values in ((first.truth, true), (first.predicted, predicted)):
        others = [value for value in values if value != 0]
        if 255 in others and len(others) > 1:
            others.remove(255)  # no label
        if len(others) > 1:
            raise UsageError(path.parent, f"values {', '.join(map(str, values[:6]))} beside masks of 0 and 255", "",
                             f"say with {option} what they mean")  # fmt: skip
        sides.append(others[0] if others else 255)
    names = ("background", "foreground")
    if named is not None and len(named.entries) == 2:  # its names say more
        names = (named.entries[0].name, named.entries[1].name)
    classes = ClassTable(
        tuple(ClassEntry(e.index, name, e.color) for e, name in zip(BINARY.entries, names, strict=True)), None
    )
    tables = []
    for value in sides:
        positions = np.full(256, -2, np.int16)
        positions[[255, 0, value]] = -1, 0, 1
        tables.append(positions)
    return Meaning(classes, tables[0], tables[1])
