"""A process that reads what it is told: `test_fuzz.py` names a reader and a file a line on standard input, and hears in
a line what came of it. It has bounded memory; the caller watches the time, and that it lives."""

import faulthandler
import io
import json
import os
import resource
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from segcli.classes import ClassEntry, ClassTable
from segcli.errors import InputError, NothingDoneError, UsageError
from segcli.evaluation.files import read_report
from segcli.manifest import Manifest
from segcli.network import checkpoint
from segcli.palettes import read_classes
from segcli.raster import trial
from segcli.raster.burn import burnt, kinds_in
from segcli.raster.grid import Grid
from segcli.raster.images import open_images
from segcli.raster.labels import embedded_table
from segcli.raster.source import Purpose
from segcli.raster.stored import stored
from segcli.tiling import manifest as tiles

MEMORY = 4 << 30
ENOUGH_BYTES = 2**26
"""A file may well claim more than it holds and be read for long; after so many bytes it has shown its faults."""

STRIP_HEIGHT = 64


def read_images(path: Path, purpose: Purpose) -> None:
    """All that verbs ask of a file."""
    images = open_images(path, purpose)
    read = 0
    for plane in images.planes:
        with plane:
            if purpose == "stored":
                stored(plane).to_json()
            plane.grid.pixel_size_m()
            plane.grid.middle_pixel_m()
            for strip in plane.strips(STRIP_HEIGHT):
                read += strip.pixels.nbytes
                if read > ENOUGH_BYTES:
                    break
    for plane in images.planes:
        plane.close()


def read_record(path: Path) -> None:
    """A record is believed as far as it can be; what it says of files must not lead out of its folder."""
    with path.open("rb") as file:
        record = Manifest(path, "key", io.BytesIO(file.read()))
    record.why("a.png", path.parent / "a.png", [path])
    record.guard(path.parent / "none.png")
    record.remove_leftovers()


def read_polygons(path: Path) -> None:
    table = ClassTable((ClassEntry(0, "none", (0, 0, 0)), ClassEntry(1, "field", (9, 9, 9))))
    kinds_in(path)
    with burnt(path, Grid(64, 64), table) as source:
        for _ in source.strips(STRIP_HEIGHT):
            pass


READERS: dict[str, Callable[[Path], object]] = {
    "image": lambda path: read_images(path, "image"),
    "mask": lambda path: read_images(path, "mask"),
    "stored": lambda path: read_images(path, "stored"),
    "meaning": embedded_table,
    "weights": checkpoint.load,
    "classes": read_classes,
    "tiles": tiles.read,
    "record": read_record,
    "report": lambda path: read_report(path, ClassTable.from_indices([0, 1]), "skip"),
    "polygons": read_polygons,
}


def answer(reader: str, path: Path) -> dict[str, str]:
    """`read`, `refused` with the line that says so, or `fault` with an error that no reader may let out."""
    try:
        READERS[reader](path)
    except (InputError, UsageError, NothingDoneError) as error:
        if len(str(error).splitlines()) != 1:
            return {"fault": f"more than a line: {error}"}
        return {"refused": str(error)}
    except Exception as error:  # whatever it is, it is what is looked for
        where = "".join(traceback.format_exception(error)[-6:])
        return {"fault": f"{type(error).__name__}: {error}", "where": where}
    return {"read": str(path)}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    warnings.simplefilter("ignore")  # a library that warns where it should fail is heard by its result
    torch.set_num_threads(1)
    trial.SECONDS = 10.0  # as is done for a hang, sooner
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is heard as noise, not as an answer
    print(json.dumps({"ready": sorted(READERS)}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(answer(asked["reader"], Path(asked["path"]))), file=answers, flush=True)


if __name__ == "__main__":
    main()
