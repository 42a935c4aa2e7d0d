"""segcli predict beside the bare network, the machine's floor, and the peers as their users run them.

    pip install '.[bench]'
    python benchmarks/predict.py --size 4096

Every way runs in a process of its own, in turn, `--repeats` times; the table has the best time of each and the ratio to
segcli's. The weights are as training begins (He et al., 2015), which keeps activations alive in all layers; the image
is smooth noise. segcli is timed end to end: a GeoTIFF is read from the disk and a mask is written to it; the others get
the image in memory and give scores, which is in their favour (geo-inference, which only goes from file to file, apart).
The bare forward pass keeps freed memory as segcli does; the peers run as their users run them. The columns:

    s/Mpx        seconds per million pixels
    ratio        that over segcli's
    memory       highest resident memory of the process above what it had with the network loaded, the image
                 included where it is held, in MB
    difference   largest difference of a score from the pass over the whole image, over the largest, on 2048 x 2048
    labels       share of labels that differ from that pass
    seams        how much more scores jump between neighbouring pixels across the way's seams than elsewhere (1 = none)
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import rasterio
import torch
from torch import Tensor

from segcli.classes import ClassTable
from segcli.console import Console
from segcli.network import checkpoint
from segcli.network.device import keep_freed_memory
from segcli.network.normalise import Normalisation, normalise
from segcli.network.scorer import make_scorer
from segcli.network.unet import NetworkConfig, UNet
from segcli.options import PredictOptions
from segcli.predict import run

PARITY = 2048
CPU = torch.device("cpu")
Network = Callable[[Tensor], Tensor]
Way = Callable[[Path, str, bool], dict[str, float]]
Input = TypeVar("Input")
MASK = "mask.tif"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--weights", help="A file or a name (default: a U-Net of width 32 and depth 4, fresh).")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--parity", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    if options.way:
        print(json.dumps(WAYS[options.way](options.folder, options.weights, options.parity)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "image.tif", options.size)
        draw(folder / "parity.tif", PARITY)
        options.weights = options.weights or fresh(folder / "fresh.safetensors")
        compare(folder, options)


def fresh(path: Path) -> str:
    """A file with the network that the bars are set for."""
    torch.manual_seed(0)
    network = UNet(NetworkConfig(3, 2, 32, 4)).eval()
    constants = Normalisation("uint8", (90.0,) * 3, (60.0,) * 3)
    checkpoint.save(checkpoint.Model(network, constants, ClassTable.from_indices([0, 1])), path)
    return str(path)


def draw(path: Path, size: int) -> None:
    """A picture with structure at every scale, as a tiled, deflated RGB GeoTIFF."""
    rng = np.random.default_rng(size)
    image = np.zeros((size, size, 3), np.float32)
    for cells in (8, 64, 256, size // 4):
        noise = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    profile = {"driver": "GTiff", "height": size, "width": size, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "DEFLATE"}
    profile |= {"crs": "EPSG:32632", "transform": rasterio.transform.from_origin(500_000, 5_000_000, 1, 1)}
    with rasterio.open(path, "w", **profile) as file:
        # No 0, which geo-inference takes for nodata in an 8-bit file that names none: 255 in its mask.
        file.write(np.clip(90 + 40 * image, 1, 255).astype(np.uint8).transpose(2, 0, 1))


def compare(folder: Path, options: argparse.Namespace) -> None:
    results: dict[str, list[dict[str, float]]] = {way: [] for way in options.ways}
    for repeat in range(options.repeats + 1):
        for way in options.ways:
            command = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--weights", options.weights]
            command += ["--threads", str(options.threads), *(["--parity"] if repeat == 0 else [])]
            child = subprocess.run(command, capture_output=True, text=True, check=False)
            if child.returncode != 0:
                print(f"{way}: {child.stderr.strip().splitlines()[-1:]}", file=sys.stderr, flush=True)
            elif repeat > 0:
                results[way].append(json.loads(child.stdout.splitlines()[-1]))
                print(f"{way}: {results[way][-1]}", file=sys.stderr, flush=True)
    model = checkpoint.load(checkpoint.find(options.weights))
    print(f"image {options.size} x {options.size} x 3, {options.threads} threads, torch {torch.__version__}")
    floor = flops_per_pixel(model) / matrix_rate() * 1e6
    print(f"{'way':34}  s/Mpx   ratio  memory  difference  labels   seams")
    ours = best(results.get("segcli", []))
    expected = load_scores(folder, "whole image")
    for way, runs in results.items():
        if not runs:
            print(f"{way:34}  did not run")
            continue
        seconds = best(runs)
        memory = min(run["memory"] for run in runs) / 1e6
        line = f"{way:34} {seconds:6.2f} {seconds / ours:7.2f} {memory:7.0f}"
        print(line + parity(folder, way, expected, int(runs[0].get("step", 512))))
    print(f"{'floor: FLOPs / matrix-product rate':34} {floor:6.2f} {floor / ours:7.2f}")


def best(runs: list[dict[str, float]]) -> float:
    return min((run["seconds_per_mpx"] for run in runs), default=float("nan"))


def parity(folder: Path, way: str, expected: np.ndarray | None, step: int) -> str:
    """The last three columns, from the scores, or from the mask where there is no more."""
    mask = folder / f"{way}.mask.npy"
    if expected is None or not (mask.exists() or (folder / f"{way}.npy").exists()):
        return ""
    found = load_scores(folder, way)
    labels = np.load(mask) if found is None else found.argmax(0)
    differing = f"{100 * (labels != expected.argmax(0)).mean():6.2f} %"
    if found is None:
        return f"  {'-':>10} {differing}       -"
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    margin = found[-1] - found[0]
    jumps = np.abs(np.diff(margin, axis=1)).mean(0)
    at_seams = jumps[step - 1 :: step].mean() / np.delete(jumps, slice(step - 1, None, step)).mean()
    return f"  {difference:10.1e} {differing} {at_seams:7.2f}"


def load_scores(folder: Path, way: str) -> np.ndarray | None:
    path = folder / f"{way}.npy"
    return np.load(path) if path.exists() else None


def flops_per_pixel(model: checkpoint.Model) -> float:
    """Multiplications and additions of all convolutions, two for each weight and output pixel."""
    from torch.utils.flop_counter import FlopCounterMode

    side = 16 * model.network.config.total_stride
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.network(torch.zeros(1, model.bands, side, side))
    return counter.get_total_flops() / side**2


def matrix_rate() -> float:
    """FLOP per second of a large float32 matrix product, the best of five."""
    a, b = torch.randn(4096, 4096), torch.randn(4096, 4096)
    times = []
    for _ in range(6):
        began = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - began)
    return 2 * 4096**3 / min(times[1:])


# The ways. Each is called in a process of its own, once with the image to be timed and once with the parity image, of
# which it leaves the scores.


def segcli(folder: Path, weights: str, parity: bool) -> dict[str, float]:
    if not parity:
        job = PredictOptions((folder / "image.tif",), folder / MASK, weights, overwrite=True)
        checkpoint.load(checkpoint.find(weights))
        return measured(folder, lambda: None, lambda _: run(job, Console(quiet=True)))
    model = checkpoint.load(checkpoint.find(weights))
    scorer = make_scorer(model.network, CPU, torch.float32, PredictOptions((), Path()), print)
    with rasterio.open(folder / "parity.tif") as file:
        pixels = file.read()[None]
    strips = ((row, pixels[:, :, row : row + 32], None) for row in range(0, PARITY, 32))
    parts = [s[0] for _, s in scorer.scores(normalise(strips, model.normalisation, [None], CPU), PARITY)]
    np.save(folder / "segcli.npy", torch.cat(parts, 1).numpy())
    return {}


def bare(tile: int) -> Way:
    """The network alone, over and over on tiles in memory: no overlap, no files, nothing put together."""

    def way(folder: Path, weights: str, parity: bool) -> dict[str, float]:
        if parity:
            return {}
        keep_freed_memory()  # as segcli does, so that only the way differs
        network, load = loaded(folder, weights, "image.tif")

        def tiles() -> list[Tensor]:
            image = load()
            parts = [image[..., r : r + tile, c : c + tile] for r, c in corners(image.shape[2], tile)]
            return [part.contiguous(memory_format=torch.channels_last) for part in parts[: max(1, 2**23 // tile**2)]]

        def work(parts: list[Tensor]) -> float:
            for part in parts:
                network(part)
            return sum(part.shape[2] * part.shape[3] for part in parts)

        return measured(folder, tiles, work)

    return way


def whole(folder: Path, weights: str, parity: bool) -> dict[str, float]:
    """The reference, and only on the parity image: a large one does not fit."""
    network, load = loaded(folder, weights, "parity.tif")
    if parity:
        np.save(folder / "whole image.npy", network(load())[0].numpy())
        return {}

    def work(image: Tensor) -> float:
        network(image)
        return PARITY**2

    return measured(folder, load, work)


def in_memory(name: str, step: int, infer: Callable[[Tensor, Network], Tensor]) -> Way:
    """A way that takes the whole image as a tensor and gives the scores of all of it."""

    def way(folder: Path, weights: str, parity: bool) -> dict[str, float]:
        network, load = loaded(folder, weights, "parity.tif" if parity else "image.tif")
        if parity:
            np.save(folder / f"{name}.npy", infer(load(), network)[0].numpy())
            return {}
        return measured(folder, load, lambda image: infer(image, network).argmax(1) is None) | {"step": step}

    return way


def plain_tiles(image: Tensor, network: Network) -> Tensor:
    rows = [
        torch.cat([network(image[..., row : row + 512, col : col + 512]) for col in range(0, image.shape[3], 512)], 3)
        for row in range(0, image.shape[2], 512)
    ]
    return torch.cat(rows, 2)


def monai(overlap: float, mode: str) -> Callable[[Tensor, Network], Tensor]:
    def infer(image: Tensor, network: Network) -> Tensor:
        from monai.inferers import sliding_window_inference

        return sliding_window_inference(image, (512, 512), 1, network, overlap=overlap, mode=mode)

    return infer


def geo_inference(folder: Path, weights: str, parity: bool) -> dict[str, float]:
    from geo_inference.geo_inference import GeoInference

    model = checkpoint.load(checkpoint.find(weights))
    mean, deviation = torch.tensor(model.normalisation.mean), torch.tensor(model.normalisation.deviation)

    class Normalised(torch.nn.Module):
        """It feeds values as the file has them, and takes class probabilities."""

        def __init__(self) -> None:
            super().__init__()
            self.network = model.network

        def forward(self, x: Tensor) -> Tensor:
            return self.network((x - mean[:, None, None]) / deviation[:, None, None]).softmax(1)

    with torch.no_grad():
        traced = torch.jit.trace(Normalised().eval(), torch.zeros(1, 3, 1024, 1024))
    traced.save(folder / "traced.pt")
    classes = len(model.classes.entries)
    infer = GeoInference(str(folder / "traced.pt"), str(folder / "geo"), device="cpu", num_classes=classes)
    if not parity:
        image = str(folder / "image.tif")
        return measured(folder, lambda: None, lambda _: infer(image, patch_size=1024, workers=1) is None)
    for old in (folder / "geo").glob("*.tif"):
        old.unlink()
    infer(str(folder / "parity.tif"), patch_size=1024, workers=1)
    with rasterio.open(next((folder / "geo").glob("*.tif"))) as file:
        np.save(folder / "geo-inference, 50 % Hann.mask.npy", file.read(1))
    return {}


def loaded(folder: Path, weights: str, name: str) -> tuple[Network, Callable[[], Tensor]]:
    """The network as it stands in the checkpoint, and a function that reads and normalises the image."""
    torch.inference_mode().__enter__()
    model = checkpoint.load(checkpoint.find(weights))

    def load() -> Tensor:
        with rasterio.open(folder / name) as file:
            ((_, image, _),) = normalise([(0, file.read()[None], None)], model.normalisation, [None], CPU)
        return image

    return model.network.to(memory_format=torch.channels_last), load


def corners(size: int, tile: int) -> Iterator[tuple[int, int]]:
    return ((row, col) for row in range(0, size - tile + 1, tile) for col in range(0, size - tile + 1, tile))


def measured(folder: Path, load: Callable[[], Input], work: Callable[[Input], float | None]) -> dict[str, float]:
    """Time of `work`, which gives the number of pixels where it is not the image's; memory of `load` and `work`."""
    reset_peak()
    before = status("VmRSS")
    image = load()
    began = time.perf_counter()
    pixels = work(image)
    seconds = time.perf_counter() - began
    if not pixels:
        with rasterio.open(folder / "image.tif") as file:
            pixels = file.width * file.height
    return {"seconds_per_mpx": seconds / pixels * 1e6, "memory": status("VmHWM") - before}


def reset_peak() -> None:
    """Let the kernel forget the highest resident memory so far (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def status(key: str) -> float:
    """Bytes, from /proc; where there is no /proc, the highest resident memory."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return float(lines[key].split()[0]) * 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


WAYS: dict[str, Way] = {
    "whole image": whole,
    "segcli": segcli,
    "bare forward, tiles of 256": bare(256),
    "bare forward, tiles of 512": bare(512),
    "bare forward, tiles of 1024": bare(1024),
    "bare forward, tiles of 2048": bare(2048),
    "tiles of 512, no overlap": in_memory("tiles of 512, no overlap", 512, plain_tiles),
    "MONAI, overlap 0.25, constant": in_memory("MONAI, overlap 0.25, constant", 384, monai(0.25, "constant")),
    "MONAI, overlap 0.5, gaussian": in_memory("MONAI, overlap 0.5, gaussian", 256, monai(0.5, "gaussian")),
    "geo-inference, 50 % Hann": geo_inference,
}

if __name__ == "__main__":
    main()
