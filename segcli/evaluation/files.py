"""The report on disk: JSON, CSV and a page; and a report that was written before."""

import json
import tempfile
from pathlib import Path
from typing import Any

from segcli.classes import ClassTable
from segcli.errors import NothingDoneError, UsageError
from segcli.evaluation.meaning import Meaning
from segcli.evaluation.pairs import Pair
from segcli.files import replacing
from segcli.measures.confusion import Totals
from segcli.measures.report import SCHEMA, ImageCounts, per_class_rows, per_image_rows, to_csv, totals_in
from segcli.options import EvalOptions, Unpredicted
from segcli.raster.faults import faults_of_writing

PAGE = "report.html"


def write_report(
    folder: Path, found: dict[str, Any], done: list[tuple[Pair, ImageCounts]], meaning: Meaning, options: EvalOptions
) -> None:
    """report.json, per_class.csv, per_image.csv and report.html, each whole or not at all."""
    from segcli.evaluation.page import page  # here, because matplotlib takes its time

    write_texts(folder, found, [image for _, image in done], meaning.classes, options)
    with replacing(folder / PAGE, faults_of_writing) as part, faults_of_writing(folder / PAGE):
        part.write_text(page(found, done, meaning, options), encoding="utf-8", errors="replace")


def make_folder(folder: Path) -> None:
    """NothingDoneError where the report could not be written: before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise NothingDoneError(
            folder, f"cannot be written: {error.strerror}", "expected a folder for the report", "choose another --out"
        ) from error


def write_texts(
    folder: Path, found: dict[str, Any], images: list[ImageCounts], classes: ClassTable, options: EvalOptions
) -> None:
    """What programs read."""
    texts = {
        "report.json": json.dumps(found, indent=1) + "\n",
        "per_class.csv": to_csv(per_class_rows(found)),
        "per_image.csv": to_csv(per_image_rows(images, classes.names, options.absent)),
    }
    for name, text in texts.items():
        with replacing(folder / name, faults_of_writing) as part, faults_of_writing(folder / name):
            part.write_text(text, encoding="utf-8")


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
