"""Reading and writing through segcli beside plain rasterio, without a network.

    python benchmarks/raster.py --size 20000

One uint8 RGB GeoTIFF, 512 x 512 tiles, deflate. Each way copies it, block row by block row, in a process of its own, in
turn; the table has the best time of each and the ratio to rasterio's. The plain way gives GDAL the same number of
threads, reads a row of blocks at once and writes it. Memory is the highest resident one of the process.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from segcli.ahead import ahead, behind
from segcli.raster.sink import Layout, create
from segcli.raster.source import Source

THREADS = 2


def draw(path: Path, size: int) -> None:
    """Smooth noise, which deflate shrinks about as much as it does aerial photographs."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "height": size, "width": size, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "DEFLATE", "num_threads": THREADS}
    profile |= {"crs": "EPSG:32632", "transform": rasterio.transform.from_origin(500_000, 5_000_000, 1, 1)}
    tile = np.clip(rng.normal(120, 6, (3, 512, size + 512)).cumsum(2) % 255, 0, 255).astype(np.uint8)
    with rasterio.open(path, "w", **profile) as file:
        for row in range(0, size, 512):
            shift = row // 512 % 512
            rows = min(512, size - row)
            file.write(tile[:, :rows, shift : shift + size], window=Window(0, row, size, rows))


def plain(source: Path, target: Path) -> None:
    more = {"num_threads": THREADS, "predictor": 2}
    with (
        rasterio.Env(GDAL_NUM_THREADS=THREADS),
        rasterio.open(source, num_threads=THREADS) as file,
        rasterio.open(target, "w", **(file.profile | more)) as out,
    ):
        for row in range(0, file.height, 512):
            window = Window(0, row, file.width, min(512, file.height - row))
            out.write(file.read(window=window), window=window)


def segcli(source: Path, target: Path) -> None:
    with (
        Source(source) as file,
        create(target, file.grid, Layout(3, "uint8", is_rgb=True)) as sink,
        behind(lambda rows: sink.write(*rows)) as put,
    ):
        for rows in ahead(file.rows(512)):
            put(rows)


WAYS: dict[str, Callable[[Path, Path], None]] = {"rasterio": plain, "segcli": segcli}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        way, source, target = options.way
        began = time.perf_counter()
        WAYS[way](Path(source), Path(target))
        print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "image.tif"
        draw(source, options.size)
        print(f"{options.size} x {options.size} x 3, {source.stat().st_size / 1e6:.0f} MB, {THREADS} threads")
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(options.repeats):
            for way, results in found.items():
                command = [sys.executable, __file__, "--way", way, str(source), f"{name}/{way}.tif"]
                answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                results.append((float(answer[0]), float(answer[1])))
        with rasterio.open(f"{name}/rasterio.tif") as one, rasterio.open(f"{name}/segcli.tif") as other:
            window = Window(options.size // 3, options.size // 3, 2000, 2000)
            assert np.array_equal(one.read(window=window), other.read(window=window))
        floor = min(seconds for seconds, _ in found["rasterio"])
        print(f"{'way':10} {'s':>7} {'ratio':>6} {'memory, MB':>11}")
        for way, results in found.items():
            seconds = min(seconds for seconds, _ in results)
            print(f"{way:10} {seconds:7.1f} {seconds / floor:6.2f} {max(m for _, m in results) / 1e6:11.0f}")


if __name__ == "__main__":
    main()
