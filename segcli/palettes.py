"""Class tables in the formats that people have them in: JSON, CSV, QGIS's .qml and .clr, GIMP's .gpl, and in weights.
Knows text, no rasters.
"""

import csv
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from segcli.classes import IGNORE, MOST_CLASSES, ClassEntry, ClassTable, table_text
from segcli.colors import Color, color_of, filled, hex_color
from segcli.errors import UsageError
from segcli.known_palettes import KNOWN


def read_classes(path: Path) -> ClassTable:
    """The table in a file, by its ending. UsageError where it is none."""
    readers = {".csv": _csv, ".qml": _qml, ".clr": _clr, ".txt": _clr, ".gpl": _gpl}
    if path.suffix.lower() == ".safetensors":
        return _of_weights(path)
    read = readers.get(path.suffix.lower())
    if read is None:
        return ClassTable.read(path)
    try:
        found = read(table_text(path))
        if len(found) > MOST_CLASSES:
            raise ValueError(f"{len(found)} classes, expected at most {MOST_CLASSES}")
        classes = [row for row in found if not _UNLABELLED.fullmatch(row[1])]
        none = [row for row in found if _UNLABELLED.fullmatch(row[1])]
        said = [row for row in none if row[0] != IGNORE] or none[:1]  # 255 is no label without being said
        if len(said) > 1:
            first, second = (f"{index} {name}" for index, name, _ in said[:2])
            raise ValueError(f"{first} and {second} both stand for no label, and one value can; give the other the "
                             "name of a class, which train --ignore leaves out")  # fmt: skip
        unlabelled = said[0] if said else None
        ignore = unlabelled[0] if unlabelled is not None else None if any(row[0] == 255 for row in classes) else 255
        colors = filled([color for _, _, color in classes], None if unlabelled is None else unlabelled[2])
        entries = [ClassEntry(index, name, color) for (index, name, _), color in zip(classes, colors, strict=True)]
        return ClassTable(tuple(entries), ignore, unlabelled[2] if unlabelled is not None else None)
    except OSError as error:
        raise UsageError(path, error.strerror or "cannot be read", "expected a class table") from error
    except (ValueError, KeyError, OverflowError, csv.Error, ElementTree.ParseError) as error:
        raise UsageError(path, f"not a class table: {error}", _EXPECTED[path.suffix.lower()]) from error


_UNLABELLED = re.compile(r"(un|no[ _-]?)label(l?ed)?|ignored?|void|unknown|no[ _-]?data", re.IGNORECASE)
"""Names of what is no class, but stands for pixels without a label."""

_EXPECTED = {
    ".csv": "expected the columns index, name, color (#RRGGBB) or r, g, b",
    ".qml": "expected a QGIS style of palette entries",
    ".clr": "expected lines of value red green blue",
    ".txt": "expected lines of value red green blue",
    ".gpl": "expected a GIMP palette: lines of red green blue name",
}
Rows = list[tuple[int, str, Color | None]]


_HEAD = 2**12
"""Characters of a table's first line in which the delimiter is looked for: what does it takes ever longer."""


def _csv(text: str) -> Rows:
    head = text.partition("\n")[0][:_HEAD]
    # Of what the sniffer finds the delimiter alone: by a head without quotes it takes doubled ones for two.
    split = csv.Sniffer().sniff(head, ",;\t").delimiter if re.search("[,;\t]", head) else ","
    read = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=split))  # a name may have a line in it
    if more := next((row[None] for row in read if any(row.get(None, ()))), None):
        raise ValueError(f"more cells than columns: {', '.join(more)}; a name with {split!r} in it wants quotes")
    rows = [{(key or "").strip().lower(): (value or "").strip() for key, value in row.items() if isinstance(value, str)}
            for row in read]  # fmt: skip
    rows = [row for row in rows if any(row.values())]  # spreadsheets leave empty ones
    if not rows:
        raise ValueError("no rows")
    numbers = next((name for name in ("index", "value", "id", "code") if name in rows[0]), None)
    others = rows[0].keys() - {"", "name", "color", "colour", "r", "g", "b", "red", "green", "blue"}
    if numbers is None and others:  # one of them may be the number, and the row's is another
        raise ValueError(f"the columns {', '.join(filter(None, rows[0]))}")
    found: Rows = []
    seen: list[str] = []
    for number, row in enumerate(rows):
        color = row.get("color") or row.get("colour") or ""
        parts = [row.get(name) or row.get(name[0], "") for name in ("red", "green", "blue")]
        seen += parts if all(parts) and not color else []
        rgb = color_of(f"#{color.removeprefix('#')}") if color else _rgb(parts) if all(parts) else None
        found.append((number if numbers is None else _whole(row[numbers]), row["name"], rgb))
    if "1.0" in seen and {*map(float, seen)} <= {0.0, 1.0}:
        raise ValueError("colours from 0 to 1, where parts of a colour in 0..255 are expected")
    return found


def _qml(text: str) -> Rows:
    if "<!DOCTYPE qgis PUBLIC" in text:  # QGIS writes this one line, which names no entities
        text = text.split("]>", 1)[-1] if "]>" in text[:500] else re.sub(r"<!DOCTYPE[^>\[]*>", "", text, count=1)
    if "<!ENTITY" in text or "<!DOCTYPE" in text:
        raise ValueError("it defines entities")
    root = ElementTree.fromstring(text)
    entries = [*root.iter("paletteEntry")] or [*root.iter("item")]
    return [(_whole(e.attrib["value"]), e.get("label") or f"class {e.attrib['value']}", color_of(e.attrib["color"]))
            for e in entries]  # fmt: skip


def _clr(text: str) -> Rows:
    lines: list[list[str]] = []  # value, red, green, blue, and the rest
    for line in map(str.strip, text.splitlines()):
        if line and not line.startswith("#") and not line.upper().startswith("INTERPOLATION"):
            # QGIS writes commas, and names may have some, too.
            lines.append(re.split(r"\s*,\s*" if "," in line.split()[0] else r"\s+", line, maxsplit=4))
    alpha = re.compile(r"(\d{1,3})(?:[\s,]+(.*))?")
    rest = [line[4] if len(line) > 4 else "" for line in lines]
    numbers = [alpha.fullmatch(text) for text in rest]
    if all(found and int(found[1]) <= 255 for found in numbers):  # a number in one name alone is no alpha
        rest = [found[2] or "" for text in rest if (found := alpha.fullmatch(text))]
    return [(_whole(line[0]), name or f"class {line[0]}", _rgb(line[1:4]))
            for line, name in zip(lines, rest, strict=True)]  # fmt: skip


def _gpl(text: str) -> Rows:
    lines = text.splitlines()
    if not lines or lines[0].strip() != "GIMP Palette":
        raise ValueError("it does not begin with GIMP Palette")
    found: Rows = []
    taken = {"", "Untitled"}
    for line in lines[1:]:
        if re.match(r"\s*\d", line):
            red, green, blue, *name = line.split(maxsplit=3)
            label = name[0].strip() if name else ""
            index = len(found)
            found.append((index, f"class {index}" if label in taken else label, _rgb([red, green, blue])))
            taken.add(found[-1][1])
    return found


def _of_weights(path: Path) -> ClassTable:
    """Of a checkpoint, of which only the header is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            record = json.loads((file.metadata() or {})["segcli"])
        return ClassTable.from_json(record)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(path, f"no class table: {error}", "expected weights that segcli train wrote") from error


def find_palette(text: str) -> ClassTable:
    """The palette of that name, or in that file."""
    if text in KNOWN:
        return KNOWN[text]()
    path = Path(text)
    if not path.exists():
        raise UsageError(
            "--palette", f"no palette {text!r}, and no such file", f"expected a file, or {', '.join(KNOWN)}"
        )
    return read_classes(path)


def to_qml(classes: ClassTable) -> str:
    """A style for QGIS, which takes it for a raster of the same name: each value's colour and name."""
    entries = "".join(
        f'<paletteEntry value="{entry.index}" color="{hex_color(entry.color).lower()}" alpha="255" '
        f"label={quoteattr(entry.name)}/>"
        for entry in classes.entries
    )
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        '<qgis version="3.0" styleCategories="Symbology"><pipe>'
        '<rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">'
        f"<rasterTransparency/><colorPalette>{entries}</colorPalette></rasterrenderer></pipe></qgis>\n"
    )


def _rgb(parts: list[str]) -> Color:
    red, green, blue = map(_whole, parts)
    return red, green, blue


def _whole(text: str) -> int:
    """ValueError where it is no whole number: colours from 0 to 1, or bounds of a style that has no classes. 1.0 is
    one, as programs write numbers of a column in which a cell is empty."""
    number = float(text)
    if not number.is_integer():
        raise ValueError(f"{text} where a whole number is expected, a class or a part of a colour in 0..255")
    return int(number)
