"""The validation part as files that people look at: masks, truth, and the report of `eval` on them."""

import re
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import groupby
from pathlib import Path

import numpy as np

from segcli.classes import ClassTable
from segcli.evaluation.counting import compare
from segcli.evaluation.files import NAMES, write_report
from segcli.evaluation.meaning import Meaning
from segcli.evaluation.pairs import Pair as Compared
from segcli.measures.report import report
from segcli.options import EvalOptions
from segcli.raster.grid import Grid
from segcli.raster.sink import Layout, Sink, create, empty_value, mask_layout
from segcli.raster.stack_sink import PlaneSink, create_stack
from segcli.training.pairs import Pair
from segcli.training.validation import Predicted


def write_validation(folder: Path, predicted: Predicted, pairs: tuple[Pair, ...], classes: ClassTable) -> None:
    """FOLDER/masks, FOLDER/truth, and the report of the one against the other. Images of a stack are a stack there, and
    count as one image: they are too much alike for the spread over images to mean anything."""
    nothing = empty_value(classes)
    values = np.append(classes.indices, np.uint8(0 if nothing is None else nothing))  # -1 takes the last
    layout = mask_layout(classes)
    compared = []
    stacks = groupby(pairs, lambda pair: pair.image if pair.plane is not None else id(pair))
    for number, group in enumerate(list(images) for _, images in stacks):
        first = group[0]
        name = f"{number:04}_{first.image.stem}"
        mask, truth = (folder / kind / f"{name}.tif" for kind in ("masks", "truth"))
        grids = [_grid(pair, predicted) for pair in group]
        with ExitStack() as files:
            found, true = (_sinks(files, path, grids, layout, first.plane is not None) for path in (mask, truth))
            for pair, of_found, of_true in zip(group, found, true, strict=True):
                for strip in predicted.strips(pair):
                    of_found.write(strip.first_row, values[strip.predicted])
                    of_true.write(strip.first_row, values[strip.true])
        compared.append(Compared(name, mask, truth, image=first.image, plane=first.plane or 0))
    _remove_others(folder, {pair.predicted.name for pair in compared})
    options = EvalOptions(folder / "masks", folder / "truth", folder, axes=predicted.setting.reading.files.axes)
    meaning = Meaning.of(classes)
    done = [(pair, compare(pair, meaning, options)[0]) for pair in compared]
    write_report(folder, report([image for _, image in done], classes.names), done, meaning, options)


def _grid(pair: Pair, predicted: Predicted) -> Grid:
    with predicted.setting.reading.files.image(pair) as image:
        return image.grid


def _sinks(
    files: ExitStack, path: Path, grids: list[Grid], layout: Layout, is_stack: bool
) -> Sequence[Sink | PlaneSink]:
    """A sink for each grid."""
    if is_stack:
        return files.enter_context(create_stack(path, grids, layout, "I", (len(grids),), "tiff"))
    return [files.enter_context(create(path, grids[0], layout))]


def remove_validation(folder: Path) -> None:
    """What `write_validation` wrote there, and nothing else."""
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)
    _remove_others(folder, set())
    for place in (folder / "masks", folder / "truth", folder):
        with suppress(OSError):  # somebody has put more into it, or it is not there
            place.rmdir()


def _remove_others(folder: Path, names: set[str]) -> None:
    """Masks and truth of an earlier training: beside the new ones nobody could tell them apart."""
    for place in (folder / "masks", folder / "truth"):
        for path in place.iterdir() if place.is_dir() and not place.is_symlink() else ():  # a link leads to others'
            own = _OWN.fullmatch(path.name)
            if own and own[1] not in names:
                path.unlink()


_OWN = re.compile(r"(\d{4,}_.*\.tif)(\.aux\.xml)?")
"""Names that are given here, with what GDAL writes beside them for viewers."""
