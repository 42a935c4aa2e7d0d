"""How large pixels are by a TIFF's metadata, as `Grid` has it: micrometres along X, Y and Z, seconds along T.

What cannot be understood is unknown: an odd number or unit is no reason not to read the pixels.
"""

import json
import math
import re
import unicodedata
from typing import Any
from xml.etree import ElementTree

import tifffile

LENGTHS = {
    "pm": 1e-6, "å": 1e-4, "nm": 1e-3, "um": 1.0, "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6, "km": 1e9, "in": 25400.0,
    "angstrom": 1e-4, "nanometer": 1e-3, "micron": 1.0, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4,
    "decimeter": 1e5, "meter": 1e6, "kilometer": 1e9, "picometer": 1e-6, "inch": 25400.0, "foot": 304800.0,
}  # fmt: skip
TIMES = {
    "ns": 1e-9, "us": 1e-6, "ms": 1e-3, "msec": 1e-3, "s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0,
    "h": 3600.0, "hr": 3600.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0, "millisecond": 1e-3, "microsecond": 1e-6,
    "nanosecond": 1e-9,
}  # fmt: skip
"""Micrometres and seconds, by names in small letters, in the singular and with u for micro."""

CASED = frozenset({"m", "mm", "pm", "ms", "s", "h", "d"})
"""Symbols that would be others in capitals, such as those of mega and peta."""

RESOLUTION_UNITS = {3: 1e4, 4: 1e3, 5: 1.0}
"""Micrometres, by TIFF's tag; 4 and 5 are DNG's. Per inch is how to print: 72 dpi mean nothing."""


def resolution(page: tifffile.TiffPage) -> dict[str, float]:
    """By the resolution tags of any TIFF."""
    factor = _resolution_unit(page)
    return _steps(page, factor, factor)


def slide(page: tifffile.TiffPage, description: str) -> dict[str, float]:
    """Of a slide whose largest image is `page`: by the description, if it is Aperio's, else by resolution tags."""
    for part in description.split("|"):
        name, _, value = part.partition("=")
        if name.strip() == "MPP" and (size := _number(value)) is not None:
            return {"X": size, "Y": size}
    return resolution(page)


def imagej(page: tifffile.TiffPage, data: dict[str, Any]) -> dict[str, float]:
    """By ImageJ's metadata, which name the unit of the resolution tags; where they do not, the tags do."""
    x = _unit(data["unit"], LENGTHS) if "unit" in data else _resolution_unit(page)
    y, z = (_unit(data[name], LENGTHS) if name in data else x for name in ("yunit", "zunit"))
    found = _steps(page, x, y)
    spacing = _number(str(data.get("spacing", "")).lstrip("-"))  # ImageJ, too, takes a negative one for its size
    interval, seconds = _number(str(data.get("finterval", ""))), _unit(data.get("tunit", "s"), TIMES)
    if z is not None and spacing is not None:
        found["Z"] = z * spacing
    if seconds is not None and interval is not None:
        found["T"] = seconds * interval
    return found


def shaped(page: tifffile.TiffPage) -> dict[str, float]:
    """X and Y by the tags, Z and T by metadata of tifffile's own, where these have ImageJ's names, and Z a unit."""
    try:
        data = json.loads(page.description)
    except (ValueError, RecursionError):  # of a microscope, or of tifffile's first years
        data = None
    if not isinstance(data, dict):
        return resolution(page)
    found = {axis: size for axis, size in imagej(page, data).items() if axis in "ZT"} | resolution(page)
    if not {"unit", "zunit"} & data.keys():
        found.pop("Z", None)
    return found


def step(axis: str, size: float, unit: str) -> float | None:
    """Of a step along X, Y, Z or T in a unit that is named; None where size or unit is unknown."""
    factor = _unit(unit, TIMES if axis == "T" else LENGTHS)
    return factor * size if factor is not None and 0 < size < math.inf else None


def ome(pixels: ElementTree.Element) -> dict[str, float]:
    """Of an image, by OME metadata."""
    names = {axis: (f"PhysicalSize{axis}", LENGTHS, "um") for axis in "XYZ"} | {"T": ("TimeIncrement", TIMES, "s")}
    found = {}
    for axis, (name, units, default) in names.items():
        factor, size = _unit(pixels.get(f"{name}Unit", default), units), _number(pixels.get(name, ""))
        if factor is not None and size is not None:
            found[axis] = factor * size
    return found


def is_level(size: tuple[int, int], whole: tuple[int, int]) -> bool:
    """Whether an image of that (height, width) may be the whole one in larger pixels, rounded to whole ones."""
    (height, width), (whole_height, whole_width) = size, whole
    across, down = whole_width / width, whole_height / height
    return abs(across - down) <= max(across / width, down / height) + 0.01 * across


def _unit(name: object, known: dict[str, float]) -> float | None:
    """What one such unit is; None where that is unknown. ImageJ writes signs beyond ASCII as \\u and four digits."""
    text = re.sub(r"\\u([0-9A-Fa-f]{4})", lambda match: chr(int(match[1], 16)), str(name)).strip()
    # So that the sign for micro and the Greek letter are one, and those for angstrom.
    text = unicodedata.normalize("NFKC", text).replace("\N{GREEK SMALL LETTER MU}", "u")
    small = text.casefold().replace("metre", "meter")
    if small in CASED and text != small:
        return None
    singular = small.removesuffix("es") if small == "inches" else small.removesuffix("s")
    return known.get(small, known.get(singular) if len(singular) > 2 else None)


def _number(text: str) -> float | None:
    """A size; None where there is none: programs that do not know it say 0 or nothing. Some write decimal commas."""
    try:
        number = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return number if 0 < number < math.inf else None


def _resolution_unit(page: tifffile.TiffPage) -> float | None:
    unit = page.resolutionunit
    return RESOLUTION_UNITS.get(int(unit)) if isinstance(unit, int) else None


def _steps(page: tifffile.TiffPage, x: float | None, y: float | None) -> dict[str, float]:
    """By the resolution tags, in units of so many micrometres."""
    found = {}
    for axis, unit_um in (("X", x), ("Y", y)):
        tag = page.tags.get(f"{axis}Resolution")
        if unit_um is not None and tag is not None and _is_ratio(tag.value):
            found[axis] = unit_um * tag.value[1] / tag.value[0]
    return found


def _is_ratio(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(n, int) and n > 0 for n in value)
