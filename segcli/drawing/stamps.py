"""Small pictures that are laid onto a large one: legends and scale bars. matplotlib draws their text, in any script
that its font has."""

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segcli.colors import Color

TEXT_SHARE, TEXT_PIXELS = 1 / 40, (11, 64)
"""Height of text: its part of the picture's shorter side, and its limits in pixels."""

PAPER, INK = 255, 20
PAPER_ALPHA = 225

BAR_SHARE = 0.2
"""A scale bar takes at most so much of the picture's width."""


class Stamp(NamedTuple):
    """A picture, (red green blue alpha, row, col), and where its first pixel lies on the large one."""

    row: int
    col: int
    pixels: NDArray[np.uint8]


class Line(NamedTuple):
    """Of a legend."""

    name: str
    color: Color
    share: float


def text_pixels(height: int, width: int) -> int:
    """The height of text on a picture of so many pixels."""
    return round(min(max(min(height, width) * TEXT_SHARE, TEXT_PIXELS[0]), TEXT_PIXELS[1]))


def legend(lines: Sequence[Line], pixels: int) -> NDArray[np.uint8]:
    """A box with a line for each class: colour, name, share of the area; text about `pixels` high."""
    gap = max(2, pixels // 2)
    names = [written(line.name, pixels) for line in lines]
    shares = [written(_percent(line.share), pixels) for line in lines]
    height = max((len(text) for text in (*names, *shares)), default=pixels)
    columns = [2 * height, max((t.shape[1] for t in names), default=0), max((t.shape[1] for t in shares), default=0)]
    box = _paper(len(lines) * (height + gap) + gap, sum(columns) + 4 * gap)
    for n, line in enumerate(lines):
        row, col = gap + n * (height + gap), gap
        box[:, row : row + height, col : col + columns[0]] = np.array([*line.color, 255], np.uint8)[:, None, None]
        _write(box, names[n], row, col + columns[0] + gap)
        _write(box, shares[n], row, box.shape[2] - gap - shares[n].shape[1])
    return box


def scale_bar(pixel_m: float, width: int, pixels: int) -> NDArray[np.uint8]:
    """A bar of a round length, at most a fifth of a picture of `width` pixels that are `pixel_m` metres wide each."""
    length = round_length(pixel_m * width * BAR_SHARE)
    bar = max(1, round(length / pixel_m))
    text = written(length_text(length), pixels)
    gap, thick = max(2, pixels // 2), max(2, pixels // 4)
    box = _paper(len(text) + thick + 3 * gap, max(bar, text.shape[1]) + 2 * gap)
    _write(box, text, gap, (box.shape[2] - text.shape[1]) // 2)
    left = (box.shape[2] - bar) // 2
    box[:3, -gap - thick : -gap, left : left + bar] = INK
    box[3, -gap - thick : -gap, left : left + bar] = 255
    return box


def title(text: str, height: int, width: int) -> NDArray[np.uint8]:
    """A line of text in the middle of a strip of paper."""
    box = np.full((4, height, width), PAPER, np.uint8)
    letters = written(text, round(height * 0.55))[:height, :width]
    _write(box, letters, (height - letters.shape[0]) // 2, (width - letters.shape[1]) // 2)
    return box


def round_length(most: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above `most`."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (5, 2, 1) if step * power <= most * (1 + 1e-9))


def length_text(metres: float) -> str:
    """In the unit that needs the fewest digits."""
    size, unit = unit_of_length(metres)
    return f"{metres / size:.6g} {unit}"


def unit_of_length(metres: float) -> tuple[float, str]:
    """The unit in which that is at least 1, and how many metres it has."""
    units = ((1e3, "km"), (1.0, "m"), (1e-2, "cm"), (1e-3, "mm"), (1e-6, "µm"))
    return next((pair for pair in units if metres >= pair[0] * (1 - 1e-9)), (1e-9, "nm"))


def stamp(first_row: int, picture: NDArray[np.uint8], stamps: Sequence[Stamp]) -> None:
    """Lay stamps onto rows of a picture, (3 or 4, row, col), in place; one that is transparent becomes opaque there."""
    end_row = first_row + picture.shape[1]
    for row, col, pixels in stamps:
        top, bottom = max(first_row, row), min(end_row, row + pixels.shape[1])
        if top >= bottom:
            continue
        place = picture[:, top - first_row : bottom - first_row, col : col + pixels.shape[2]]
        part = pixels[:, top - row : bottom - row, : place.shape[2]].astype(np.float32)
        over = part[3] / 255
        under = (place[3].astype(np.float32) / 255 if len(place) == 4 else 1) * (1 - over)
        total = np.maximum(over + under, 1e-6)
        place[:3] = np.rint((part[:3] * over + place[:3] * under) / total)
        if len(place) == 4:
            place[3] = np.rint(255 * (over + under))


ONE_AT_A_TIME = Lock()
"""matplotlib is not made for several threads."""


@lru_cache(512)
def written(text: str, pixels: int) -> NDArray[np.uint8]:
    """How much ink lies where in a line of text about `pixels` high: (row, col), 255 is all."""
    # What would break the line is a space; letters that the font has not are boxes, and need no warning.
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    with ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return _written(line, pixels)


def _written(text: str, pixels: int) -> NDArray[np.uint8]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.transforms import IdentityTransform

    figure = Figure(dpi=72)
    canvas: Any = FigureCanvasAgg(figure)  # of which matplotlib does not say the types
    letters = figure.text(0, 0, text or " ", fontsize=pixels, parse_math=False, transform=IdentityTransform())
    # All lines are as high as one with the tallest letters, so that they stand on one height.
    tall = figure.text(0, 0, "Åg", fontsize=pixels, parse_math=False, transform=IdentityTransform())
    size, line = (part.get_window_extent(canvas.get_renderer()) for part in (letters, tall))
    tall.remove()
    figure.set_size_inches((math.ceil(size.width) + 2) / 72, (math.ceil(line.height) + 2) / 72)
    letters.set_position((1 - size.x0, 1 - line.y0))
    canvas.draw()
    return np.asarray(255 - np.asarray(canvas.buffer_rgba())[..., 0], np.uint8)


def _paper(height: int, width: int) -> NDArray[np.uint8]:
    box = np.full((4, height, width), PAPER, np.uint8)
    box[3] = PAPER_ALPHA
    return box


def _write(box: NDArray[np.uint8], ink: NDArray[np.uint8], row: int, col: int) -> None:
    place = box[:, row : row + ink.shape[0], col : col + ink.shape[1]]
    share = ink[: place.shape[1], : place.shape[2]].astype(np.float32) / 255
    place[:3] = np.rint(place[:3] * (1 - share) + INK * share)
    place[3] = np.rint(place[3] + (255 - place[3]) * share)


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"
