"""Draws what the bundled weights can do and what they cannot: generated images above, the masks over them below.

    python examples/draw_cases.py nuclei examples/nuclei_cases.jpg
    python examples/draw_cases.py landcover examples/landcover_cases.jpg

Everything is drawn from a fixed seed; no real data is used. Needs numpy and OpenCV, and segcli installed.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from draw_scans import fluorescence, nucleus, scatter, stained, texture
from numpy.typing import NDArray

SIDE, GAP = 256, 6

Picture = NDArray[np.uint8]  # (row, col, blue-green-red)


def grey(image: NDArray[np.float32]) -> Picture:
    return cv2.cvtColor(np.rint(255 * image).astype(np.uint8), cv2.COLOR_GRAY2BGR)


def touching(rng: np.random.Generator) -> Picture:
    """Pairs and triples of bright nuclei with a faint line between them."""
    image = 0.04 + 0.01 * texture(rng, SIDE, 40)
    for row, col in scatter(rng, SIDE, 14, 52):
        turn = rng.uniform(0, np.pi)
        for step in (-1, 1):
            place = row + step * 12 * np.sin(turn), col + step * 12 * np.cos(turn)
            inside = cv2.GaussianBlur(nucleus(rng, SIDE, *place, 13), (0, 0), 1.2) / 255
            image = np.maximum(image, inside * rng.uniform(0.3, 0.6) * (1 + 0.1 * texture(rng, SIDE, 3)))
    return grey(np.clip(image + 0.008 * rng.standard_normal((SIDE, SIDE)), 0, 1))


def ringed(rng: np.random.Generator) -> Picture:
    """As phase contrast shows cells: grey, with bright rings."""
    image = 0.5 + 0.03 * texture(rng, SIDE, 8)
    for row, col in scatter(rng, SIDE, 18, 46):
        inside = nucleus(rng, SIDE, row, col, 18)
        ring = cv2.dilate(inside, np.ones((5, 5))) - cv2.erode(inside, np.ones((3, 3)))
        image += 0.3 * cv2.GaussianBlur(ring, (0, 0), 1) / 255 - 0.06 * cv2.GaussianBlur(inside, (0, 0), 2) / 255
    return grey(np.clip(image + 0.02 * rng.standard_normal((SIDE, SIDE)), 0, 1))


def nuclei() -> dict[str, Picture]:
    rng = np.random.default_rng(11)
    return {
        "1_apart": grey(fluorescence(rng, SIDE, 13, 40)),
        "2_stained": stained(rng, SIDE, 11, 40),
        "3_touching": touching(rng),
        "4_tiny": grey(fluorescence(rng, SIDE, 3.5, 200)),
        "5_huge": grey(fluorescence(rng, SIDE, 80, 5)),
        "6_phase_contrast": ringed(rng),
    }


def ground(rng: np.random.Generator, color: tuple[int, int, int], rough: float) -> NDArray[np.float32]:
    """Sand, grass or water from above: a colour, with structure at two scales."""
    image = np.empty((SIDE, SIDE, 3), np.float32)
    image[:] = color
    return image + rough * (texture(rng, SIDE, 2) + texture(rng, SIDE, 14))[..., None]


def paint(image: NDArray[np.float32], where: Picture, with_what: NDArray[np.float32] | tuple[int, int, int]) -> None:
    share = cv2.GaussianBlur(where, (0, 0), 0.8)[..., None] / np.float32(255)
    image += share * (np.asarray(with_what, np.float32) - image)


def patch(rng: np.random.Generator, level: float) -> Picture:
    """A part of the image with a smooth outline: where smooth noise is above `level`."""
    return np.where(texture(rng, SIDE, 30) > level, 255, 0).astype(np.uint8)


SAND, ASPHALT, WATER, LEAVES, GRASS = (205, 208, 215), (82, 80, 80), (38, 34, 30), (62, 82, 68), (88, 118, 104)


def town(rng: np.random.Generator, roof: tuple[int, int, int], trees: bool) -> NDArray[np.float32]:
    """Sand, two roads that cross, houses with shadows in rows along them, trees between."""
    image = ground(rng, SAND, 5)
    if trees:
        paint(image, patch(rng, 0.7), ground(rng, LEAVES, 9))
    street = np.zeros((SIDE, SIDE), np.uint8)
    cv2.line(street, (0, 120), (SIDE, 136), 255, 16)
    cv2.line(street, (118, 0), (136, SIDE), 255, 10)
    paint(image, street, ground(rng, ASPHALT, 4))
    for row in (12, 44, 76, 150, 182, 214):
        for col in (8, 36, 64, 88, 150, 178, 206, 230):
            height, width = rng.integers(12, 19, 2)
            corner = np.array([col, row]) + rng.integers(0, 5, 2)
            for shift, color in ((4, (50, 50, 52)), (0, roof)):
                house = np.zeros((SIDE, SIDE), np.uint8)
                cv2.rectangle(house, tuple(map(int, corner + shift)),
                              tuple(map(int, corner + shift + (width, height))), 255, -1)  # fmt: skip
                paint(image, house, np.array(color, np.float32) + rng.normal(0, 10))
    return image


def coast(rng: np.random.Generator) -> NDArray[np.float32]:
    image = ground(rng, SAND, 5)
    shore = (np.mgrid[:SIDE, :SIDE][1] + 12 * texture(rng, SIDE, 25) > 130).astype(np.uint8) * 255
    paint(image, shore, ground(rng, WATER, 2))
    street = np.zeros((SIDE, SIDE), np.uint8)
    cv2.line(street, (40, 0), (60, SIDE), 255, 14)
    paint(image, street, ground(rng, ASPHALT, 4))
    return image


def park(rng: np.random.Generator) -> NDArray[np.float32]:
    image = ground(rng, GRASS, 6)
    paint(image, patch(rng, 0.5), ground(rng, LEAVES, 10))
    paint(image, patch(rng, 1.2), ground(rng, WATER, 2))
    return image


def landcover() -> dict[str, Picture]:
    rng = np.random.default_rng(5)
    scenes = {
        "1_coast": coast(rng),
        "2_town": town(rng, (240, 238, 238), False),
        "3_gardens": town(rng, (225, 215, 222), True),
        "4_park": park(rng),
        "5_roofs_like_sand": town(rng, SAND, False),
        "6_haze": 0.25 * town(rng, (120, 120, 125), False) + 180,
    }
    return {name: np.clip(scene + rng.normal(0, 2, scene.shape), 0, 255).astype(np.uint8)
            for name, scene in scenes.items()}  # fmt: skip


def main(weights: str, out: Path) -> None:
    cases = {"nuclei": nuclei, "landcover": landcover}[Path(weights).stem]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        for case, image in cases.items():
            cv2.imwrite(str(folder / "images" / f"{case}.png"), image)
        words = ["predict", folder / "images", "--out", folder / "masks", "--weights", weights, "--overlay"]
        subprocess.run([sys.executable, "-m", "segcli", *map(str, words), "--quiet"], check=True)
        columns = []
        for case, image in cases.items():
            (overlay,) = (folder / "masks" / "overlays").glob(f"{case}*")
            below = cv2.imread(str(overlay), cv2.IMREAD_COLOR)
            columns += [np.concatenate([image, np.full((GAP, SIDE, 3), 255, np.uint8), below])]
            columns += [np.full((2 * SIDE + GAP, GAP, 3), 255, np.uint8)]
    cv2.imwrite(str(out), np.concatenate(columns[:-1], axis=1), [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
