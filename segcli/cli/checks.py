"""What is looked at in a command line before its verb starts: names that are empty, a log that would go into data, and
variables that no option has."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segcli.errors import UsageError, tell

DATA = frozenset({
    ".csv", ".fgb", ".geojson", ".gpkg", ".html", ".json", ".jsonl", ".safetensors", ".toml", ".vrt", ".zip"
})  # fmt: skip
"""Endings of other files than rasters that segcli reads or writes."""

LOOKED_AT = 4096
"""Bytes of a file, which has a NUL among them if it is no text."""


def check_empty(parameters: list[Any], said: Mapping[str, Any]) -> None:
    """UsageError where an option or an input was `said` to be an empty text: an unset variable of a script, where a
    path would become the current folder."""
    for parameter in parameters:
        value = said.get(parameter.name)
        if value == "" or (isinstance(value, list | tuple) and "" in value):
            is_option = parameter.param_type_name == "option"
            subject = parameter.opts[0] if is_option else parameter.metavar or str(parameter.name).upper()
            raise UsageError(subject, "an empty text", "expected a value",
                             "is a variable of a script not set? . is the current folder")  # fmt: skip


def check_log(log: Path | None, values: Mapping[str, Any]) -> None:
    """UsageError where messages would be appended to what is no log: another file of this command line, a raster, a
    table, or what is no text."""
    from segcli.raster.names import SUFFIXES

    if log is None:
        return
    if log.suffix.lower() in SUFFIXES | DATA:
        raise UsageError("--log-file", f"{log}, a name that ends in {log.suffix}", "expected one of a text file, "
                         "such as night.log")  # fmt: skip
    for name, value in values.items():
        others = value if isinstance(value, list | tuple) else [value]
        if name != "log_file" and any(isinstance(other, str | Path) and _are_same(log, other) for other in others):
            raise UsageError("--log-file", f"{log} is read, too", "expected another file")
    try:
        is_text = not log.is_file() or b"\0" not in _beginning(log)
    except OSError:  # it may be writable all the same
        return
    if not is_text:
        raise UsageError("--log-file", f"{log} is no text", "expected a file of messages, or none of that name")


def check_images(inputs: list[str]) -> None:
    """UsageError where weights are among the images: of a pattern after --weights the shell makes several words, of
    which the first alone belongs to it."""
    for name in inputs:
        if name.lower().endswith(".safetensors"):
            raise UsageError(name, "weights among the images", "expected images",
                             "give --weights before each file of weights, or a pattern in quotes")  # fmt: skip


def _are_same(one: Path, other: str | Path) -> bool:
    try:
        return one.is_file() and one.samefile(other)
    except (OSError, ValueError):
        return False


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LOOKED_AT)


def tell_unknown_variables(verb: str, verbs: Mapping[str, Any]) -> None:
    """A line for each variable that looks like one of this verb's options and is none: another version may know it."""
    names = {of: [f"SEGCLI_{of}_{one.name}".upper() for one in command.params] for of, command in verbs.items()}
    known = {"SEGCLI_CONFIG", *(name for of_verb in names.values() for name in of_verb)}
    for name in sorted(name for name in os.environ if name.startswith("SEGCLI_") and name not in known):
        cutoff = 0.0 if name.startswith(f"SEGCLI_{verb.upper()}_") else 0.9  # else it may be anybody's
        for near in difflib.get_close_matches(name, [*names[verb], "SEGCLI_CONFIG"], 1, cutoff):
            tell(f"{name} in the environment is no option of {verb}; did you mean {near}?")
