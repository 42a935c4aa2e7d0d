"""The folder of a training: its options, and what an earlier one left there, which is never mixed with a new one."""

import json
from dataclasses import asdict
from pathlib import Path

import segcli
from segcli.files import replacing
from segcli.options import TrainOptions
from segcli.training.report import remove_validation

BEST, LAST, OPTIONS = "best.safetensors", "last.safetensors", "options.json"
HISTORY, CURVES, VALIDATION = "history.csv", "curves.png", "validation"


def begin(out: Path, options: TrainOptions) -> None:
    """Take away what --resume would go on with instead of this training. The rest of an earlier one stays as it is: it
    would be lost if this one came to nothing, and nobody could tell the two apart."""
    if not options.resume:
        (out / LAST).unlink(missing_ok=True)
    if options.resume or not (out / BEST).exists():
        note_options(out, options)


def leave_no_other(out: Path, options: TrainOptions, with_weights: bool) -> None:
    """Remove what is left of an earlier training, `with_weights` where there are none of this one, and note the options
    of this one; once it has a state or weights, and before it has more than that."""
    for name in (*((BEST,) if with_weights else ()), HISTORY, CURVES):
        (out / name).unlink(missing_ok=True)
    remove_validation(out / VALIDATION)
    note_options(out, options)


def note_options(out: Path, options: TrainOptions) -> None:
    text = json.dumps({"segcli": segcli.__version__, **asdict(options)}, default=str, indent=1)
    with replacing(out / OPTIONS) as part:
        part.write_text(text + "\n", encoding="utf-8")
