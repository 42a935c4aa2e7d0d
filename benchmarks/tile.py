"""Cutting a large GeoTIFF into tiles with segcli, beside a plain loop of rasterio windows, patchify and tiler.

    python benchmarks/tile.py --size 20000

One uint8 RGB GeoTIFF to tiles of 512 x 512. The loop is what gdal_retile does: open the source, read a window, write a
file with its own transform, next. Both write the same compression. patchify and tiler work on arrays, so the raster
must fit into memory: they get one of --small pixels a side, read whole by rasterio, and their tiles are written in the
same loop. Each way runs in a process of its own, in turn; the table has the best time of each and the ratio to that of
segcli.
"""

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

TILE = 512
PREDICTOR = {"deflate": 2, "none": 1}


def draw(path: Path, size: int, is_tiled: bool) -> None:
    """Smooth noise, which deflate shrinks about as much as it does aerial photographs."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "height": size, "width": size, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    profile |= {"compress": "DEFLATE", "num_threads": 2, "crs": "EPSG:32632"}
    profile |= {"transform": rasterio.transform.from_origin(500_000, 5_000_000, 1, 1)}
    if is_tiled:
        profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512}
    rows = np.clip(rng.normal(120, 6, (3, 512, size + 512)).cumsum(2) % 255, 0, 255).astype(np.uint8)
    with rasterio.open(path, "w", **profile) as file:
        for row in range(0, size, 512):
            shift, count = row // 512 % 512, min(512, size - row)
            file.write(rows[:, :count, shift : shift + size], window=Window(0, row, size, count))


def write(path: Path, pixels: np.ndarray, file: rasterio.DatasetReader, row: int, col: int, compress: str) -> None:
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "photometric": "RGB", "compress": compress}
    profile |= {"height": pixels.shape[1], "width": pixels.shape[2], "predictor": PREDICTOR[compress], "crs": file.crs}
    profile["transform"] = file.window_transform(Window(col, row, TILE, TILE))
    with rasterio.open(path, "w", **profile) as out:
        out.write(pixels)


def loop(source: Path, folder: Path, compress: str) -> None:
    with rasterio.open(source) as file:
        for row in range(0, file.height, TILE):
            for col in range(0, file.width, TILE):
                window = Window(col, row, min(TILE, file.width - col), min(TILE, file.height - row))
                write(folder / f"{row}_{col}.tif", file.read(window=window), file, row, col, compress)


def segcli(source: Path, folder: Path, compress: str) -> None:
    from segcli.console import Console
    from segcli.options import TileOptions
    from segcli.tile import run

    chosen = "none" if compress == "none" else "deflate"
    assert run(TileOptions((source,), folder, edge="keep", compress=chosen), Console(quiet=True)) == 0


def in_memory(tiles: Callable[[np.ndarray], Iterator[np.ndarray]]) -> Callable[[Path, Path, str], None]:
    def way(source: Path, folder: Path, compress: str) -> None:
        with rasterio.open(source) as file:
            pixels = np.ascontiguousarray(file.read().transpose(1, 2, 0))
            for n, tile in enumerate(tiles(pixels)):
                write(folder / f"{n}.tif", tile.transpose(2, 0, 1), file, 0, 0, compress)

    return way


def patchify(pixels: np.ndarray) -> Iterator[np.ndarray]:
    from patchify import patchify as patches

    yield from patches(pixels, (TILE, TILE, 3), step=TILE).reshape(-1, TILE, TILE, 3)


def tiler(pixels: np.ndarray) -> Iterator[np.ndarray]:
    from tiler import Tiler

    for _, tile in Tiler(data_shape=pixels.shape, tile_shape=(TILE, TILE, 3), channel_dimension=2)(pixels):
        yield tile


WAYS: dict[str, Callable[[Path, Path, str], None]] = {
    "segcli": segcli, "rasterio": loop, "patchify": in_memory(patchify), "tiler": in_memory(tiler),
}  # fmt: skip


def highest_memory() -> float:
    """Of this process in bytes; getrusage would count its parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024.0 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def measured(way: str, source: Path, folder: Path, compress: str) -> tuple[float, float]:
    command = [sys.executable, __file__, "--way", way, str(source), str(folder), compress]
    folder.mkdir()
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    shutil.rmtree(folder)
    return float(answer[0]), float(answer[1])


def compare(title: str, ways: list[str], source: Path, compress: str, repeats: int) -> None:
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, results in found.items():
            results.append(measured(way, source, source.parent / "tiles", compress))
    floor = min(seconds for seconds, _ in found["segcli"])
    print(f"\n{title}, {source.stat().st_size / 1e6:.0f} MB, tiles {compress}")
    print(f"{'way':10} {'s':>7} {'ratio':>6} {'memory, MB':>11}")
    for way, results in found.items():
        seconds = min(seconds for seconds, _ in results)
        print(f"{way:10} {seconds:7.1f} {seconds / floor:6.2f} {max(m for _, m in results) / 1e6:11.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--small", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--compress", choices=["deflate", "none"], nargs="+", default=["deflate"])
    parser.add_argument("--way", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        way, source, folder, compress = options.way
        began = time.perf_counter()
        WAYS[way](Path(source), Path(folder), compress)
        print(time.perf_counter() - began, highest_memory())
        return
    peers = [name for name in ("patchify", "tiler") if importlib.util.find_spec(name) is not None]
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "image.tif"
        for is_tiled in (True, False):
            draw(source, options.size, is_tiled)
            shape = f"{options.size} x {options.size} x 3 in {'blocks of 512' if is_tiled else 'strips of rows'}"
            for compress in options.compress:
                compare(shape, ["segcli", "rasterio"], source, compress, options.repeats)
        draw(source, options.small, True)
        small = f"{options.small} x {options.small} x 3"
        compare(small, ["segcli", "rasterio", *peers], source, "deflate", options.repeats)
        if len(peers) < 2:
            print("patchify or tiler is not installed: left out")


if __name__ == "__main__":
    main()
