"""The class table: which index means what, in which colour. Knows JSON and numpy; no files but its own, no torch."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.colors import Color, color_of, distinct_colors, filled, hex_color
from segcli.errors import UsageError

TABLE_BYTES = 2**22
"""A table that is larger is none."""

MOST_CLASSES = 256

IGNORE = 255
"""The index that marks pixels without a label, unless a class table says otherwise."""


@dataclass(frozen=True)
class ClassEntry:
    """One class: the value in a mask, its name, its colour as 8-bit RGB."""

    index: int
    name: str
    color: Color

    @property
    def is_background(self) -> bool:
        """Whether it is what lies between objects: named so, or index 0 without a name of its own."""
        return self.name.lower() in ("background", "class 0")


@dataclass(frozen=True)
class ClassTable:
    """The classes of a mask, by position in the network's output; `ignore` marks pixels without a label, which have
    `ignore_color` in masks that are colours."""

    entries: tuple[ClassEntry, ...]
    ignore: int | None = IGNORE
    ignore_color: Color | None = None

    def __post_init__(self) -> None:
        indices = [entry.index for entry in self.entries]
        if not indices:
            raise ValueError("a class table needs at least one class")
        if len(set(indices)) != len(indices):
            raise ValueError(f"class indices repeat: {indices}")
        if len(set(self.names)) != len(indices):
            raise ValueError(f"class names repeat: {', '.join(self.names)}")
        if any(not 0 <= index <= 255 for index in indices):
            raise ValueError(f"class indices must lie in 0..255: {indices}")
        if self.ignore is not None and not 0 <= self.ignore <= 255:
            raise ValueError(f"{self.ignore} stands for no label, and masks hold 0 to 255")
        if self.ignore in indices:
            raise ValueError(f"index {self.ignore} is a class and the ignore index at once")
        if any(not 0 <= part <= 255 for entry in self.entries for part in entry.color):
            raise ValueError("colours are three numbers in 0..255")
        for name in self.names:
            check_name(name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self.entries)

    @property
    def background(self) -> int | None:
        """The position of what lies between objects: the class of that name, else index 0; None where there is none."""
        named = [place for place, entry in enumerate(self.entries) if entry.is_background]
        zero = [place for place, entry in enumerate(self.entries) if entry.index == 0]
        return next(iter(named + zero), None)

    @property
    def indices(self) -> NDArray[np.uint8]:
        """The mask value of each class, by position; shape (classes,)."""
        return np.array([entry.index for entry in self.entries], np.uint8)

    def palette(self) -> NDArray[np.uint8]:
        """Colours by mask value, black where there is no class; shape (256, 3)."""
        colors = np.zeros((256, 3), np.uint8)
        for entry in self.entries:
            colors[entry.index] = entry.color
        return colors

    def positions(self) -> NDArray[np.int16]:
        """Position in the table by mask value, -1 for no label and -2 for a foreign value; shape (256,). No label is
        the ignore index, and 255 unless it is a class, because it is none to most programs."""
        table = np.full(256, -2, np.int16)
        table[IGNORE] = -1
        if self.ignore is not None:
            table[self.ignore] = -1
        table[self.indices] = np.arange(len(self.entries))
        return table

    def to_json(self) -> dict[str, Any]:
        classes = [{"index": e.index, "name": e.name, "color": hex_color(e.color)} for e in self.entries]
        color = {"ignore_color": hex_color(self.ignore_color)} if self.ignore_color is not None else {}
        return {"classes": classes, "ignore": self.ignore, **color}

    @classmethod
    def from_json(cls, data: Any) -> "ClassTable":
        """The table from what `to_json` gives; a missing colour is filled in. Raises ValueError on anything odd."""
        if not isinstance(data, dict) or not isinstance(data.get("classes"), list) or not data["classes"]:
            raise ValueError('expected {"classes": [{"index": 0, "name": "...", "color": "#RRGGBB"}, ...]}')
        if len(data["classes"]) > MOST_CLASSES:  # colours for a million take for ever
            raise ValueError(f"{len(data['classes'])} classes, expected at most {MOST_CLASSES}")
        found = [_entry(item) for item in data["classes"]]
        color = data.get("ignore_color")
        ignored = None if color is None else color_of(color)
        colors = filled([color for _, _, color in found], ignored)
        entries = tuple(ClassEntry(index, name, color) for (index, name, _), color in zip(found, colors, strict=True))
        ignore = data.get("ignore", None if any(entry.index == IGNORE for entry in entries) else IGNORE)
        if not (ignore is None or (type(ignore) is int and 0 <= ignore <= 255)):
            raise ValueError(f'"ignore" must be null or lie in 0..255, found {ignore!r}')
        return cls(entries, ignore, ignored)

    @classmethod
    def read(cls, path: Path) -> "ClassTable":
        """The table in a JSON file; UsageError where it is none."""
        try:
            return cls.from_json(json.loads(table_text(path)))
        except OSError as error:
            raise UsageError(path, error.strerror or "cannot be read", "a class table in JSON") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(path, f"not a class table: {error}") from error

    @classmethod
    def from_indices(cls, indices: Sequence[int]) -> "ClassTable":
        """A table with made-up names and colours for the given mask values."""
        colors = distinct_colors(len(indices))
        return cls(tuple(ClassEntry(i, f"class {i}", color) for i, color in zip(indices, colors, strict=True)))


_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What no XML may hold, nor be drawn, among the characters of a name."""


def table_text(path: Path) -> str:
    """What a file holds that is no larger than a table. Raises OSError, and ValueError where it is none, whatever the
    system says of its size: a pipe has none, and a device no end."""
    with path.open("rb") as file:
        read = file.read(TABLE_BYTES + 1)
    if len(read) > TABLE_BYTES:
        raise ValueError(f"more than {TABLE_BYTES >> 20} MB")
    return read.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")  # as files of text are read


def check_name(name: str) -> None:
    """ValueError where a class's name has characters that styles, charts and reports cannot."""
    if found := _NO_TEXT.search(name):
        raise ValueError(f"a name with the control character {found[0]!a}: {name!a:.80}")


def _entry(item: Any) -> tuple[int, str, Color | None]:
    if not isinstance(item, dict) or type(item.get("index")) is not int or not isinstance(item.get("name"), str):
        raise ValueError(f'each class needs an "index" (a number) and a "name" (a text), found {item!r:.80}')
    return item["index"], item["name"], color_of(item["color"]) if "color" in item else None


def check_colors(entries: Iterable[ClassEntry], place: object, ignored: Color | None = None) -> None:
    """UsageError where two classes have one colour, or a class that of pixels without a label, so that masks in colours
    cannot tell them apart."""
    seen: dict[Color, str] = {} if ignored is None else {ignored: "what has no label"}
    for entry in entries:
        if entry.color in seen:
            raise UsageError(place, f"{seen[entry.color]} and {entry.name} are both {hex_color(entry.color)}",
                             "expected each class in a colour of its own")  # fmt: skip
        seen[entry.color] = entry.name
