"""Which predicted mask belongs to which true one, and what else there is of an image: probabilities, the image."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from segcli.errors import NothingDoneError, UsageError, some
from segcli.manifest import companions
from segcli.matching import match, match_folders, named
from segcli.options import EvalOptions
from segcli.raster.burn import is_vector
from segcli.raster.names import is_folder, is_one, is_stream, rasters_in


@dataclass(frozen=True)
class Pair:
    """A predicted mask and the true one; the name is for the report. Of an image that is a stack one is shown, the
    `plane`, from 0."""

    name: str
    predicted: Path
    truth: Path
    scores: Path | None = None
    image: Path | None = None
    plane: int = 0


BURN = "make masks of polygons first, by segcli tile --masks or gdal_rasterize"
ALIKE = "name them alike, or give a CSV file with the columns predicted,truth"


def find_pairs(options: EvalOptions) -> list[Pair]:
    """Two files, two folders matched by name, or a table with the columns predicted and truth.

    Raises UsageError with what has no partner, NothingDoneError where nothing has one.
    """
    predicted, truth = options.predicted, options.truth
    if options.axes is not None and options.images is None:
        raise UsageError("--axes", "without --images", "it does nothing")
    for path in () if truth is None else (predicted, truth):
        if is_stream(path):
            raise UsageError(path, "a pipe or a device", "expected a mask", "write what comes of it to a file first")
    if truth is None:
        if not predicted.is_file():
            kind = "a folder" if predicted.is_dir() else "no such file"
            raise UsageError(
                predicted, f"{kind}, and no true masks", "expected PREDICTED TRUTH, or a CSV file of pairs"
            )
        pairs = list(_table(predicted))
    elif is_one(predicted) and is_one(truth):
        for path in (predicted, truth):
            if is_vector(path):
                raise UsageError(path, "polygons", "expected a mask", BURN)
        pairs = [Pair(truth.stem, predicted, truth)]
    elif is_folder(predicted) and is_folder(truth):
        pairs = [
            Pair(*entry)
            for entry in match_folders(
                predicted, truth, options.recursive, without=companions(predicted) | companions(truth)
            )
        ]
        if not pairs:
            polygons = any(is_vector(path) for path in truth.iterdir())
            raise NothingDoneError(predicted, f"no mask has the name of one in {truth}", "",
                                   BURN if polygons else ALIKE)  # fmt: skip
    else:
        missing = next((path for path in (predicted, truth) if not path.exists()), predicted)
        raise UsageError(missing, "no such file or folder" if not missing.exists() else "a file beside a folder",
                         "expected two masks, two folders, or a table of pairs")  # fmt: skip
    if options.scores is not None:
        pairs = [replace(pair, scores=path) for pair, path in _beside("--scores", pairs, options.scores, options)]
    if options.images is not None:
        pairs = [replace(pair, image=path) for pair, path in _beside("--images", pairs, options.images, options)]
    return pairs


def _beside(option: str, pairs: list[Pair], place: Path, options: EvalOptions) -> Iterator[tuple[Pair, Path]]:
    """Each pair with its file in a folder; UsageError where one has none."""
    if is_one(place) and len(pairs) == 1:
        yield pairs[0], place
        return
    if not place.is_dir():
        raise UsageError(place, "no such folder", f"{option} expects files with the names of the masks")
    files = named(rasters_in(place, options.recursive), place)
    names = {pair.predicted.stem if options.truth is None else pair.name: pair.predicted for pair in pairs}
    found = {path: other for _, path, other in match(names, {name: paths[0] for name, paths in files.items()}).pairs}
    alike = {paths[0]: paths for paths in files.values() if len(paths) > 1}
    for pair in pairs:
        if pair.predicted not in found:
            raise UsageError(pair.predicted, f"no file of its name in {place}", f"{option} expects one for each mask")
        if found[pair.predicted] in alike:
            listed = some([path.name for path in alike[found[pair.predicted]]])
            raise UsageError(place, f"{listed} for {pair.predicted}", f"{option} expects one file for each mask")
        yield pair, found[pair.predicted]


def _table(path: Path) -> Iterator[Pair]:
    """Pairs from a CSV file; relative paths are relative to it."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(path, f"cannot be read: {error}", "expected TRUTH, or a CSV file of pairs") from error
    if not rows or not {"predicted", "truth"} <= rows[0].keys():
        raise UsageError(path, "no table of pairs", "expected the columns predicted and truth")
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        if not row["predicted"] or not row["truth"]:
            raise UsageError(path, f"line {number} lacks one of the two", "expected a predicted and a true mask")
        scores, image = (path.parent / row[name] if row.get(name) else None for name in ("scores", "image"))
        name = row.get("name") or Path(row["truth"]).with_suffix("").as_posix()
        if name in seen:
            raise UsageError(path, f"line {number}: a second pair of the name {name}", "expected one pair a name",
                             "give a column name")  # fmt: skip
        seen.add(name)
        yield Pair(name, path.parent / row["predicted"], path.parent / row["truth"], scores, image)
