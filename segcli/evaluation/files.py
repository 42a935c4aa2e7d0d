"""The report on disk: JSON, CSV and a page; and a report that was written before."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from segcli.classes import ClassTable
from segcli.errors import NothingDoneError, UsageError
from segcli.evaluation.meaning import Meaning
from segcli.evaluation.pairs import Pair
from segcli.files import held, part_of, replacing, restored
from segcli.measures.confusion import Totals
from segcli.measures.report import SCHEMA, ImageCounts, per_class_rows, per_image_rows, to_csv, totals_in
from segcli.options import EvalOptions, Unpredicted
from segcli.raster.faults import faults_of_writing
from segcli.raster.zarrs import check_outside

PAGE, REPORT, CLASSES, IMAGES = NAMES = "report.html", "report.json", "per_class.csv", "per_image.csv"


def write_report(
    folder: Path, found: dict[str, Any], done: list[tuple[Pair, ImageCounts]], meaning: Meaning, options: EvalOptions
) -> list[str]:
    """report.json, per_class.csv, per_image.csv and report.html: all of one run, or none. Returns what is wrong with
    images that the page was to show: no figure is of them."""
    from segcli.evaluation.page import page  # here, because matplotlib takes its time

    html, faults = page(found, done, meaning, options)
    texts = {
        REPORT: json.dumps(found, indent=1) + "\n",
        CLASSES: to_csv(per_class_rows(found)),
        IMAGES: to_csv(per_image_rows([image for _, image in done], meaning.classes.names, options.absent)),
        PAGE: html,
    }
    with ExitStack() as parts:  # which come into place when all are written
        for name in texts:
            parts.enter_context(restored(folder / name, part_of(folder / f"{name}.old")))
        for name, text in texts.items():
            part = parts.enter_context(replacing(folder / name, faults_of_writing))
            with faults_of_writing(folder / name), part.open("w", encoding="utf-8", errors="replace") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())  # some disks say only now that they are full
    return faults


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """The folder of the report, made if need be, for this run alone: before the work, not after it.

    Raises NothingDoneError where the report could not be written, BusyError where another run writes there, UsageError
    in a Zarr.
    """
    check_outside(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise NothingDoneError(
            folder, f"cannot be written: {error.strerror}", "expected a folder for the report", "choose another --out"
        ) from error
    with held(folder):
        yield


def read_report(path: Path, classes: ClassTable, unpredicted: Unpredicted) -> dict[str, Totals]:
    """The images of another run's report.json. UsageError where it is none, of other classes, or otherwise counted."""
    place = path / "report.json" if path.is_dir() else path
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        if found["schema"] != SCHEMA:
            raise UsageError(place, f"schema {found['schema']}", f"expected {SCHEMA}", "run eval again")
        names = list(found["classes"])
        totals = totals_in(found)
        counted = found.get("unpredicted", "skip")
    except OSError as error:
        raise UsageError(place, error.strerror or str(error), "expected the report.json of another run") from error
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise UsageError(place, f"no report: {error}", "expected the report.json of another run") from error
    if names != list(classes.names):
        raise UsageError(place, f"classes {', '.join(map(str, names))}", f"expected {', '.join(classes.names)}")
    if counted != unpredicted:
        raise UsageError(place, f"made with --unpredicted {counted}", f"expected {unpredicted}", "run both alike")
    return totals
