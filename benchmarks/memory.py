"""Whether the peak memory of segcli predict depends on the height of the image.

    python benchmarks/memory.py --width 8192 --heights 10000 100000

Runs the installed program on images of one width and several heights, with a narrow network to save time, and prints
the highest resident memory of each run and its ratio to the first one's (1 means that memory follows the width alone).
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from segcli.classes import ClassTable
from segcli.network import checkpoint
from segcli.network.normalise import Normalisation
from segcli.network.unet import NetworkConfig, UNet
from segcli.raster.grid import Grid
from segcli.raster.sink import Layout, create

STRIP = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=8192)
    parser.add_argument("--heights", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--network-width", type=int, default=2)
    parser.add_argument("--memory", help="passed on to predict")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        network = UNet(NetworkConfig(3, 2, options.network_width, 4)).eval()
        constants = Normalisation("uint8", (127.0,) * 3, (60.0,) * 3)
        model = checkpoint.Model(network, constants, ClassTable.from_indices([0, 1]))
        checkpoint.save(model, folder / "narrow.safetensors")
        print(f"{'rows':>8} {'Mpx':>8} {'peak memory, MB':>16} {'ratio':>6}")
        first = 0.0
        for height in options.heights:
            draw(folder / "image.tif", height, options.width)
            peak = peak_of(folder, options.memory)
            first = first or peak
            print(f"{height:8} {height * options.width / 1e6:8.0f} {peak / 1e6:16.0f} {peak / first:6.3f}", flush=True)


def draw(path: Path, height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    block = rng.integers(0, 8, (3, STRIP, width), np.uint8) * 30
    with create(path, Grid(height, width), Layout(3, "uint8")) as sink:
        for row in range(0, height, STRIP):
            sink.write(row, block[:, : min(STRIP, height - row)])


def peak_of(folder: Path, memory: str | None) -> float:
    """Highest resident memory, in bytes, of one run in a process of its own."""
    arguments = ["predict", str(folder / "image.tif"), "--out", str(folder / "mask.tif"), "--overwrite"]
    arguments += ["--weights", str(folder / "narrow.safetensors"), *(["--memory", memory] if memory else [])]
    # A process in between, because the kernel keeps one highest figure for all children of a process.
    script = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'segcli', *sys.argv[1:]], check=True, stdout=sys.stderr)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    found = subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True, text=True)
    return int(found.stdout) * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
