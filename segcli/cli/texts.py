"""What stands behind an option, from text. UsageError names the option, what was found and what was expected."""

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from segcli.errors import UsageError
from segcli.options import Axes, Band, BoundaryUnit, Percentiles, is_plain
from segcli.shard import Shard

BAND = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^",]*?))\s*(,|\Z)')
"""A number or a name, in quotes or not, and what follows it."""


def width(text: str | None) -> tuple[float, BoundaryUnit] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m|um|[\u00b5\u03bc]m|)", text)  # the micro sign, and the letter mu
    if not found or float(found[1]) == 0:
        expected = "expected pixels, such as 2, metres, such as 5m, or micrometres, such as 0.5um"
        raise UsageError("--boundary", f"found {text!r}", expected)
    if found[2] in ("", "m"):
        return float(found[1]), "metres" if found[2] else "pixels"
    return float(found[1]) / 1e6, "metres"


def class_bars(found: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Of the command line one each; from the environment names may come in pieces, because blanks part them there."""
    bars, parts = [], []
    for part in found:
        parts.append(part)
        if "=" in part:
            bars.append(class_bar(" ".join(parts)))
            parts = []
    return (*bars, *map(class_bar, parts))


def class_bar(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    try:
        bar = float(value)
    except ValueError:
        bar = math.nan
    if not name or not 0 <= bar <= 1:
        raise UsageError("--min-iou", f"found {text!r}", "expected CLASS=VALUE, such as road=0.7")
    return name, bar


def bands(text: str | None) -> tuple[Band, ...] | None:
    """Numbers from 1 on, and names; those with a comma, or without a letter, stand in quotes, as in CSV."""
    if text is None:
        return None
    found: list[Band] = []
    at, end = 0, ","
    while end:
        part = BAND.match(text, at)
        quoted, plain, end = ("", "", "") if part is None else part.groups()
        if plain and re.fullmatch("[1-9][0-9]{0,8}", plain):
            found.append(int(plain))
        elif name := (quoted or "").strip().replace('""', '"') or (plain if plain and is_plain(plain) else ""):
            found.append(name)
        else:
            raise UsageError(
                "--bands", f"found {text!r}", "expected numbers from 1 on, such as 4,3,2, or names of bands"
            )
        at = part.end() if part is not None else at
    return tuple(found)


def axes(text: str | None) -> Axes | None:
    try:
        return None if text is None else Axes.parse(text)
    except ValueError:
        raise UsageError("--axes", f"found {text!r}", "expected T, Z and C, each once, the slowest first, "
                         "and how many where files do not say it, such as C, TZ or ZC3") from None  # fmt: skip


def names(text: str | None) -> tuple[str, ...] | None:
    """What stands between commas."""
    if text is None:
        return None
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise UsageError("--classes", f"found {text!r}", "expected values or names, such as 1,3 or road,water")
    return found


def value_range(option: str, text: str | None) -> tuple[float, float] | Percentiles | None:
    """Two values, or two percentiles, of all bands or of each."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    per_band = len(parts) == 3 and parts[2] == "per-band"
    parts = parts[:2] if per_band else parts
    are_shares = all(part.endswith("%") for part in parts)
    try:
        low, high = (float(part.removesuffix("%") if are_shares else part) for part in parts)
    except ValueError:
        raise UsageError(
            option, f"found {text!r}", "expected two numbers, LOW,HIGH, or two percentiles, 0%,100%"
        ) from None
    if not (low < high and math.isfinite(high - low)):
        raise UsageError(option, f"found {text!r}", "expected LOW below HIGH")
    if per_band and not are_shares:
        raise UsageError(option, f"found {text!r}", "per-band goes with percentiles, 1%,99%,per-band")
    try:
        return Percentiles(low, high, per_band) if are_shares else (low, high)
    except ValueError:
        raise UsageError(option, f"found {text!r}", "expected percentiles from 0% to 100%") from None


def percentiles(option: str, text: str | None) -> Percentiles | Literal["none"] | None:
    """Two percentiles, of all bands or of each; or none."""
    if text == "none":
        return "none"
    with suppress(UsageError):
        found = value_range(option, text)
        if not isinstance(found, tuple):
            return found
    raise UsageError(option, f"found {text!r}", "expected two percentiles, 1%,99% or 1%,99%,per-band",
                     "values as they are need none: the data's mean and deviation are found")  # fmt: skip


def size_in_bytes(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if not found or float(found[1]) == 0:
        raise UsageError(option, f"found {text!r}", "expected a size such as 800MB, 1.5GB or 2GiB")
    return round(float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2].upper() or " "))


def pattern(option: str, text: str | None) -> str | None:
    """A regular expression that can be compiled."""
    try:
        re.compile(text or "")
    except re.error as error:
        raise UsageError(option, f"found {text!r}", f"expected a regular expression: {error}") from None
    return text


def shard(text: str | None) -> Shard | None:
    """I/N: the I-th of N parts."""
    found = _part_of("--shard", text, "2/8")
    return None if found is None else Shard(*found)


def fold(text: str | None) -> tuple[int, int] | None:
    """I/N: the I-th of N folds."""
    found = _part_of("--fold", text, "2/5")
    if found == (1, 1):
        raise UsageError("--fold", "found '1/1'", "expected two folds at least, such as 2/5")
    return found


def _part_of(option: str, text: str | None, example: str) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(option, f"found {text!r}", f"expected I/N, I from 1 to N, such as {example}")
    return int(found[1]), int(found[2])


def class_weights(text: str) -> Literal["none", "auto"] | tuple[float, ...]:
    """none, auto, or numbers from 0 on."""
    if text in ("none", "auto"):
        return "none" if text == "none" else "auto"
    try:
        weights = tuple(map(float, text.split(",")))
    except ValueError:
        weights = (math.nan,)
    if not all(0 <= weight < math.inf for weight in weights):
        raise UsageError("--class-weights", f"found {text!r}", "expected none, auto, or numbers such as 1,2,0.5")
    return weights


def shares(option: str, text: str | None) -> tuple[float, ...] | None:
    """Two or three numbers that make up 1."""
    if text is None:
        return None
    try:
        found = tuple(map(float, text.split("/")))
    except ValueError:
        found = ()
    if len(found) not in (2, 3) or any(not 0 <= share < 1 for share in found) or abs(sum(found) - 1) > 1e-6:
        raise UsageError(option, f"found {text!r}", "expected shares that make up 1, such as 0.8/0.1/0.1")
    return found
