"""The folder of a training: its options, and what an earlier one left there, which is never mixed with a new one."""

import json
from pathlib import Path
from typing import Any

from segcli.files import replacing
from segcli.training.report import remove_validation

BEST, LAST, OPTIONS = "best.safetensors", "last.safetensors", "options.json"
HISTORY, CURVES, VALIDATION = "history.csv", "curves.png", "validation"


def begin(out: Path, noted: dict[str, Any], resume: bool) -> None:
    """Take away what --resume would go on with instead of this training. The rest of an earlier one stays as it is: it
    would be lost if this one came to nothing, and nobody could tell the two apart."""
    if not resume:
        (out / LAST).unlink(missing_ok=True)
    if resume or not (out / BEST).exists():
        note_options(out, noted)


def leave_no_other(out: Path, noted: dict[str, Any], with_weights: bool) -> None:
    """Remove what is left of an earlier training, `with_weights` where there are none of this one, and note the options
    of this one; once it has a state or weights, and before it has more than that."""
    for name in (*((BEST,) if with_weights else ()), HISTORY, CURVES):
        (out / name).unlink(missing_ok=True)
    remove_validation(out / VALIDATION)
    note_options(out, noted)


def note_options(out: Path, noted: dict[str, Any]) -> None:
    text = json.dumps(noted, default=str, indent=1)
    with replacing(out / OPTIONS) as part:
        part.write_text(text + "\n", encoding="utf-8")
