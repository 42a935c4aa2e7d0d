"""Colours: how they are written, and as many as one wants that differ also to colour-blind eyes. numpy only."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]
"""8-bit red, green, blue."""

# Okabe and Ito (2008), "Color Universal Design": told apart by colour-blind eyes.
OKABE_ITO: tuple[Color, ...] = (
    (0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115),
    (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip

# What eyes without one kind of cones see of linear RGB: Machado, Oliveira, Fernandes (2009), "A Physiologically-based
# Model for Simulation of Color Vision Deficiency", severity 1: protanopia, deuteranopia, tritanopia.
COLOR_BLIND = np.array(
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)

LIGHTNESS = (25.0, 95.0)
"""Of made-up colours, in CIELAB: they are to be seen on black and on white."""


def hex_color(color: Color) -> str:
    """#RRGGBB."""
    return "#{:02X}{:02X}{:02X}".format(*color)


def color_codes(pixels: NDArray[np.generic]) -> NDArray[np.int32]:
    """Red, green and blue of 8 bits, (3 or more, row, col), as one number 0xRRGGBB each; shape (row, col)."""
    red, green, blue = pixels[:3].astype(np.int32)
    return red << 16 | green << 8 | blue


def color_of(text: Any) -> Color:
    """The colour that is written #RRGGBB; ValueError where it is not."""
    if not isinstance(text, str) or not re.fullmatch("#[0-9a-fA-F]{6}", text):
        raise ValueError(f"a colour is written #RRGGBB, found {text!r:.20}")
    value = int(text[1:], 16)
    return value >> 16, value >> 8 & 255, value & 255


def distinct_colors(count: int) -> list[Color]:
    """`count` colours that differ, Okabe and Ito's eight, then each as far from those before as can be."""
    return list(OKABE_ITO[:count] if count <= len(OKABE_ITO) else _most_distinct(count))


def filled(colors: Sequence[Color | None], ignored: Color | None = None) -> list[Color]:
    """Colours of classes, with one for each that has none: that of its place, or else another that nobody has, nor
    pixels without a label."""
    taken, found = {*colors, ignored}, list[Color]()
    for color, default in zip(colors, distinct_colors(len(colors)), strict=True):
        if color is None and default in taken:
            default = next(other for other in distinct_colors(2 * len(colors) + 1) if other not in taken)
        found.append(color or default)
        taken.add(found[-1])
    return found


@cache
def _most_distinct(count: int) -> tuple[Color, ...]:
    """The greedy choice of Glasbey et al. (2007), "Colour displays for categorical images", for four kinds of eyes."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    free = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    seen = lab_seen(free)  # (eyes, color, 3)
    shown = (seen[0, :, 0] >= LIGHTNESS[0]) & (seen[0, :, 0] <= LIGHTNESS[1])
    free, seen = free[shown], seen[:, shown]
    chosen = list(OKABE_ITO)
    distance = np.min([_distance(seen, lab_seen(np.array([color]))) for color in chosen], axis=0)
    while len(chosen) < count:
        best = int(distance.argmax())
        chosen.append((int(free[best, 0]), int(free[best, 1]), int(free[best, 2])))
        distance = np.minimum(distance, _distance(seen, seen[:, best : best + 1]))
    return tuple(chosen)


def _distance(lab: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.float64]:
    """To the eyes that see the least of it."""
    return np.asarray(np.linalg.norm(lab - one, axis=-1).min(0), np.float64)


def lab_seen(colors: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """CIELAB (D65) of 8-bit colours, (color, 3), as usual and colour-blind eyes see them: (4, color, 3)."""
    values = np.asarray(colors, np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
    seen = np.concatenate([linear[None], np.clip(linear @ COLOR_BLIND.transpose(0, 2, 1), 0, 1)])
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = seen @ to_xyz.T / to_xyz.sum(1)
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


NUMBERS = 254
"""Colours of numbered objects, which are used again and again."""


def repeated(numbers: NDArray[np.number]) -> NDArray[np.uint8]:
    """The index of the colour of each object, by its number: 1 to 254, and 0 where there is none."""
    numbers = numbers.astype(np.int16) if numbers.dtype == np.int8 else numbers  # which cannot hold the 254
    return np.where(numbers > 0, (numbers - 1) % NUMBERS + 1, 0).astype(np.uint8)
