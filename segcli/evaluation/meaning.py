"""Which class each value of a true and of a predicted mask stands for."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segcli.classes import ClassEntry, ClassTable
from segcli.evaluation.pairs import Pair
from segcli.options import EvalOptions
from segcli.raster.labels import BINARY, embedded_table, table_of, values_in, written_table

LABEL_MAP = ClassTable((ClassEntry(0, "background", (0, 0, 0)), ClassEntry(1, "object", (230, 159, 0))), None)
"""What a map of object numbers says of classes."""


@dataclass(frozen=True)
class Meaning:
    """The classes, and the position of each value among them in either mask, (256,): -1 no label, -2 no class."""

    classes: ClassTable
    true: NDArray[np.int16]
    predicted: NDArray[np.int16]

    @classmethod
    def of(cls, classes: ClassTable) -> "Meaning":
        return cls(classes, classes.positions(), classes.positions())


def find_meaning(options: EvalOptions, pairs: list[Pair]) -> Meaning:
    """The given table, `classes.json` beside the truth, what the masks say themselves, or the values in them.

    A truth of 0 and 255 alone is black and white; a prediction of 0 and one other value then means the same.
    """
    if options.objects == "labels":
        return Meaning.of(LABEL_MAP)
    first = pairs[0]
    folder = options.truth if options.truth is not None and options.truth.is_dir() else first.truth.parent
    table = written_table(options.classes, [folder, folder.parent]) or embedded_table(first.truth)
    if table is not None:
        return Meaning.of(table)
    true = values_in(pair.truth for pair in pairs)
    predicted_table = embedded_table(first.predicted)
    if true == [0, 255]:
        return _black_and_white(predicted_table, [pair.predicted for pair in pairs])
    if predicted_table is not None:
        return Meaning.of(predicted_table)
    predicted = values_in(pair.predicted for pair in pairs)
    return Meaning.of(table_of(sorted({*true, *predicted} - {255}), first.truth))


def _black_and_white(predicted: ClassTable | None, paths: list[Path]) -> Meaning:
    found = [entry.index for entry in predicted.entries] if predicted is not None else values_in(paths)
    others = [value for value in found if value != 0]
    if len(others) > 1 or others == [255]:
        return Meaning.of(BINARY)
    positions = BINARY.positions()
    if others:
        positions[[255, others[0]]] = -1, 1
    classes = BINARY
    if predicted is not None and len(predicted.entries) == 2:  # its names say more
        names = {entry.index: entry for entry in predicted.entries}
        black, white = names[0], names[others[0]]
        classes = ClassTable((black, ClassEntry(255, white.name, white.color)), None)
    return Meaning(classes, BINARY.positions(), positions)
