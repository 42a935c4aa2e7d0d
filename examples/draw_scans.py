"""Draws the scans in examples/scans: fluorescent nuclei and stained tissue, as a microscope might show them.

    python examples/draw_scans.py examples/scans

Everything is drawn from a fixed seed; no real data is used. Needs numpy and OpenCV.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


def scatter(rng: np.random.Generator, side: int, count: int, distance: float) -> list[tuple[float, float]]:
    """Up to `count` points in a square, no two closer than `distance`."""
    points: list[tuple[float, float]] = []
    for _ in range(count * 20):
        row, col = rng.uniform(0, side, 2)
        if all((row - r) ** 2 + (col - c) ** 2 > distance**2 for r, c in points):
            points.append((row, col))
        if len(points) == count:
            break
    return points


def nucleus(rng: np.random.Generator, side: int, row: float, col: float, radius: float) -> NDArray[np.uint8]:
    """One slightly bumpy ellipse, 255 inside and 0 outside."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    bumps = 1 + 0.05 * np.cos(3 * angles + rng.uniform(0, 6)) + 0.04 * np.cos(2 * angles + rng.uniform(0, 6))
    stretch, turn = rng.uniform(0.75, 1), rng.uniform(0, np.pi)
    x, y = radius * bumps * np.cos(angles), radius * bumps * stretch * np.sin(angles)
    outline = np.stack([col + x * np.cos(turn) - y * np.sin(turn), row + x * np.sin(turn) + y * np.cos(turn)], 1)
    canvas = np.zeros((side, side), np.uint8)
    cv2.fillPoly(canvas, [np.rint(outline).astype(np.int32)], 255)
    return canvas


def texture(rng: np.random.Generator, side: int, grain: float) -> NDArray[np.float32]:
    """Smooth noise with mean 0 and deviation 1."""
    noise = cv2.GaussianBlur(rng.standard_normal((side, side)).astype(np.float32), (0, 0), grain)
    return (noise - noise.mean()) / noise.std()


def fluorescence(rng: np.random.Generator, side: int, radius: float, count: int) -> NDArray[np.float32]:
    """Bright nuclei on dark ground, values in 0..1."""
    image = 0.04 + 0.01 * texture(rng, side, 40)
    for row, col in scatter(rng, side, count, 2.1 * radius):
        inside = cv2.GaussianBlur(nucleus(rng, side, row, col, radius * rng.uniform(0.8, 1.1)), (0, 0), 1.2) / 255
        image += inside * rng.uniform(0.25, 0.6) * (1 + 0.12 * texture(rng, side, 3))
    image += 0.008 * rng.standard_normal((side, side))
    return np.clip(image, 0, 1).astype(np.float32)


def stained(rng: np.random.Generator, side: int, radius: float, count: int) -> NDArray[np.uint8]:
    """Violet nuclei in pink tissue, (row, col, blue-green-red) as OpenCV writes it."""
    image = np.array([205, 165, 215], np.float32) + 9 * texture(rng, side, 6)[..., None]
    image += 6 * texture(rng, side, 25)[..., None] * np.array([0.4, 1, 0.6], np.float32)
    for row, col in scatter(rng, side, count, 2.2 * radius):
        inside = cv2.GaussianBlur(nucleus(rng, side, row, col, radius * rng.uniform(0.8, 1.2)), (0, 0), 1) / 255
        dye = np.array([150, 75, 110], np.float32) + 10 * texture(rng, side, 2)[..., None]
        image += inside[..., None] * 0.85 * (dye - image)
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    eight_bit = np.rint(255 * fluorescence(rng, 384, 13, 70)).astype(np.uint8)
    cv2.imwrite(str(folder / "dapi_8bit.png"), eight_bit)
    twelve_bit = np.rint(4095 * fluorescence(rng, 320, 16, 40)).astype(np.uint16)  # as 12-bit cameras store it
    cv2.imwrite(str(folder / "dapi_12bit.tif"), twelve_bit)
    cv2.imwrite(str(folder / "tissue.jpg"), stained(rng, 352, 11, 60), [cv2.IMWRITE_JPEG_QUALITY, 92])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples/scans"))
