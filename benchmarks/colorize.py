"""Class indices to colours: the look-up beside other libraries', and whole files beside OpenCV's and rasterio's way.

    python benchmarks/colorize.py --size 8192

One mask of eight classes in patches, on one core in memory; then from PNG to PNG and from GeoTIFF to GeoTIFF, on two.
Ways take turns; the tables have the best time of each, nanoseconds a pixel, and the ratio to the first line.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import matplotlib.colors
import numpy as np
import rasterio
import torch
from torchvision.utils import draw_segmentation_masks

from segcli.classes import ClassTable
from segcli.colorize import run
from segcli.colors import distinct_colors
from segcli.console import Console
from segcli.drawing.lookup import color_table, look_up
from segcli.drawing.overlay import blend, over_picture
from segcli.options import ColorizeOptions

CLASSES = 8


def patches(size: int) -> np.ndarray:
    """Smooth noise for each class; the largest wins."""
    rng = np.random.default_rng(0)
    best, mask = np.full((size, size), -np.inf, np.float32), np.zeros((size, size), np.uint8)
    for n in range(CLASSES):
        noise = rng.normal(size=(size // 64 + 1, size // 64 + 1)).astype(np.float32)
        noise = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
        mask[noise > best] = n
        best = np.maximum(best, noise)
    return mask


def compare(title: str, pixels: int, ways: dict[str, Callable[[], object]], repeats: int) -> None:
    """Time the ways in turn and print a table."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - began)
    print(f"\n{title}\n{'':44} {'ns a pixel':>10} {'ratio':>7}")
    first = next(iter(best.values()))
    for name, seconds in best.items():
        print(f"{name:44} {1e9 * seconds / pixels:10.2f} {seconds / first:7.2f}")


def in_memory(mask: np.ndarray, repeats: int) -> None:
    classes = ClassTable.from_indices(list(range(CLASSES)))
    table, over = color_table(classes), over_picture(classes)
    rgba = np.ascontiguousarray(table.T)
    colors = matplotlib.colors.ListedColormap(rgba[:CLASSES, :3] / 255)
    three = np.ascontiguousarray(rgba[None, :, 2::-1])
    strip = 64  # rows at a time, as in files

    def ours() -> None:
        for row in range(0, len(mask), strip):
            look_up(mask[row : row + strip], table)

    compare(f"look-up of {mask.size / 1e6:.0f} Mpx in memory, one core", mask.size, {
        "segcli, red green blue alpha": ours,
        "cv2.LUT, blue green red": lambda: cv2.LUT(cv2.merge([mask] * 3), three),
        "numpy, red green blue alpha": lambda: rgba[mask],
        "matplotlib.colors.ListedColormap": lambda: colors(mask, bytes=True),
    }, repeats)  # fmt: skip
    side = min(len(mask), 2048)
    part = np.ascontiguousarray(mask[:side, :side])
    picture = np.random.default_rng(0).integers(0, 255, (3, side, side), np.uint8)
    tensors = torch.from_numpy(picture), torch.from_numpy(part[None] == np.arange(1, CLASSES)[:, None, None])
    names = [tuple(map(int, color)) for color in rgba[1:CLASSES, :3]]
    compare(f"over an image, {part.size / 1e6:.0f} Mpx in memory, one core", part.size, {
        "segcli": lambda: [blend(picture[:, row : row + strip], look_up(part[row : row + strip], over), 0.5)
                           for row in range(0, side, strip)],
        "torchvision.utils.draw_segmentation_masks": lambda: draw_segmentation_masks(*tensors, 0.5, names),
    }, repeats)  # fmt: skip


def from_files(folder: Path, mask: np.ndarray, repeats: int) -> None:
    three = np.array(distinct_colors(CLASSES), np.uint8)[None, :, ::-1]
    three = np.concatenate([three, np.zeros((1, 256 - CLASSES, 3), np.uint8)], axis=1)
    cv2.imwrite(str(folder / "a.png"), mask)
    place = {"crs": "EPSG:32632", "transform": rasterio.transform.from_origin(500_000, 5_000_000, 1, 1)}
    profile = {
        "driver": "GTiff",
        "height": len(mask),
        "width": mask.shape[1],
        "count": 1,
        "dtype": "uint8",
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "DEFLATE",
        "num_threads": 2,
    } | place
    with rasterio.open(folder / "a.tif", "w", **profile) as file:
        file.write(mask, 1)

    def opencv(name: str = "a.png") -> None:
        found = cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(folder / "b.png"), cv2.LUT(cv2.merge([found] * 3), three))

    def plain() -> None:
        with rasterio.open(folder / "a.tif", num_threads=2) as file:
            found = file.read(1)
        colors = cv2.LUT(cv2.merge([found] * 3), three)[..., ::-1]
        alpha = np.full((1, *found.shape), 255, np.uint8)
        more = {"count": 4, "photometric": "RGB", "alpha": "YES", "predictor": 2}
        with rasterio.open(folder / "b.tif", "w", **profile | more) as file:
            file.write(np.concatenate([colors.transpose(2, 0, 1), alpha]))
            file.build_overviews([2, 4, 8, 16], rasterio.enums.Resampling.mode)

    def ours(name: str) -> Callable[[], object]:
        return lambda: run(ColorizeOptions((folder / name,), folder / "out", overwrite=True), Console(quiet=True))

    compare(f"PNG to PNG, {mask.size / 1e6:.0f} Mpx", mask.size, {
        "cv2.imread, cv2.LUT, cv2.imwrite": opencv, "segcli colorize": ours("a.png")}, repeats)  # fmt: skip
    side = len(mask) // 4
    (folder / "many").mkdir()
    for n in range(16):
        row, col = side * (n // 4), side * (n % 4)
        cv2.imwrite(str(folder / "many" / f"{n}.png"), mask[row : row + side, col : col + side])
    compare(f"16 PNGs of {side * side / 1e6:.0f} Mpx", mask.size, {
        "cv2.imread, cv2.LUT, cv2.imwrite": lambda: [opencv(f"many/{n}.png") for n in range(16)],
        "segcli colorize": ours("many")}, repeats)  # fmt: skip
    compare(f"GeoTIFF to GeoTIFF with alpha and overviews, {mask.size / 1e6:.0f} Mpx", mask.size, {
        "rasterio, cv2.LUT, rasterio": plain, "segcli colorize": ours("a.tif")}, repeats)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    mask = patches(options.size)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    in_memory(mask, options.repeats)
    cv2.setNumThreads(2)
    with tempfile.TemporaryDirectory() as name:
        from_files(Path(name), mask, options.repeats)


if __name__ == "__main__":
    main()
