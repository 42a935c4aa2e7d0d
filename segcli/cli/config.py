"""Options from a TOML file, in place of those that are neither on the command line nor in the environment."""

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from segcli.errors import UsageError
from segcli.options import bands_text

CONFIG_BYTES = 2**20
NOT_IN_FILES = frozenset({"config", "help", "debug"})


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take over the options of the file: those of the table of this verb, and those outside of tables that it has.

    Raises UsageError where the file is none, or where a key is no option, with the nearest one.
    """
    if path is None or context.resilient_parsing:
        return path
    try:
        with path.open("rb") as file:
            text = file.read(CONFIG_BYTES + 1)
        if len(text) > CONFIG_BYTES:
            raise ValueError(f"more than {CONFIG_BYTES >> 20} MB")
        found = tomllib.loads(text.decode())
    except OSError as error:
        raise UsageError("--config", f"{path}: {error.strerror}", "expected a TOML file") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(path, f"no TOML: {error}", 'expected lines such as memory = "2GB"') from error
    verbs = context.parent.command.commands if context.parent is not None else {}  # type: ignore[attr-defined]
    options = {verb: _options(command.params) for verb, command in verbs.items()}
    ours = str(context.command.name)
    wanted: dict[str, Any] = {}
    for key, value in found.items():
        if isinstance(value, dict):
            if "debug" in value:
                raise UsageError(path, f"[{key}] debug", f"expected it as --debug, or SEGCLI_{key.upper()}_DEBUG=1")
            _check(path, f"table [{key}]", key, options, "no verb of segcli")
            for option in value:
                _check(path, f"[{key}] {option}", option, options[key], f"no option of {key}")
        elif key == "debug":
            raise UsageError(path, key, f"expected it as --debug, or SEGCLI_{ours.upper()}_DEBUG=1")
        else:
            _check(path, key, key, {name for names in options.values() for name in names}, "no option")
            if _plain(key) in options[ours]:
                wanted[_plain(key)] = value
    wanted |= {_plain(key): value for key, value in found.get(ours, {}).items()}
    for key, value in wanted.items():
        if value in ("", []) or (isinstance(value, list) and "" in value):  # a path would become the current folder
            raise UsageError(path, f"{key}: an empty {'list' if value == [] else 'text'}", "expected a value",
                             "leave it out for what is so by itself")  # fmt: skip
    for key, value in wanted.items():  # a list would count as true where there is something in it
        if options[ours][key].is_flag and not isinstance(value, bool):
            raise UsageError(path, f"{key}: {value!r}", "expected true or false")
        if isinstance(value, bool) and not options[ours][key].is_flag:  # Python would count it as 1 or 0
            raise UsageError(path, f"{key}: {str(value).lower()}", "expected a number or a text", "leave it out, or "
                             "comment it out, for what is so by itself")  # fmt: skip
    context.default_map = {
        options[ours][key].name: _list(value) if options[ours][key].multiple else _text(_plain(key), value)
        for key, value in wanted.items()
    }
    return path


def _options(parameters: Iterable[Any]) -> dict[str, Any]:
    """The parameter behind each long option, by its name without dashes before it."""
    return {
        text[2:]: parameter
        for parameter in parameters
        if parameter.param_type_name == "option"
        for text in parameter.opts
        if text.startswith("--") and text[2:] not in NOT_IN_FILES
    }


def _plain(key: str) -> str:
    return key.replace("_", "-")


def _check(path: Path, shown: str, key: str, known: Iterable[str], wrong: str) -> None:
    names = sorted(known)
    if _plain(key) not in names:
        near = difflib.get_close_matches(_plain(key), names, 1, 0.0)
        raise UsageError(path, f"{shown}: {wrong}", f"did you mean {near[0]!r}?")


def _list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _text(key: str, value: Any) -> Any:
    """As the command line has it: lists are written with commas, in them names of bands in quotes if need be."""
    if not isinstance(value, list):
        return value
    if key == "bands" and all(isinstance(part, int | str) for part in value):
        return ",".join(part if str(part).isdecimal() else bands_text([part]) for part in map(str, value))
    return ",".join(map(str, value))
