"""segcli predict beside the bare network, the machine's floor, and the peers as their users run them.

    pip install '.[bench]'
    python benchmarks/predict.py --size 4096
    python benchmarks/predict.py --size 20000 --device cuda --compress NONE

Every way runs in a process of its own, in turn, `--repeats` times; the table has the best time of each and the ratio to
segcli's. The weights are as training begins (He et al., 2015), which keeps activations alive in all layers; the image
is smooth noise. segcli is timed end to end: a GeoTIFF is read from the disk and a mask is written to it; the others get
the image in memory and give scores, which is in their favour (geo-inference, which only goes from file to file, apart).
The bare forward pass keeps freed memory as segcli does; the peers run as their users run them. The columns:

    s/Mpx        seconds per million pixels
    ratio        that over segcli's
    memory       highest resident memory of the process above what it had with the network loaded, the image
                 included where it is held, in MB; with `--device cuda` of the GPU instead
    difference   largest difference of a score from the pass over the whole image, over the largest, on 2048 x 2048
    labels       share of labels that differ from that pass
    seams        how much more scores jump between neighbouring pixels across the way's seams than elsewhere (1 = none)
    busy         with `--device cuda`, share of the time that nvidia-smi calls the GPU busy, seen twice a second
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
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
from segcli.network.device import choose_device, choose_precision, keep_all_bits_of_float32, keep_freed_memory
from segcli.network.normalise import Normalisation, normalise
from segcli.network.scorer import make_scorer
from segcli.network.unet import NetworkConfig, UNet
from segcli.options import PredictOptions
from segcli.predict import run

PARITY = 2048
CPU = torch.device("cpu")
MASK = "mask.tif"


@dataclass(frozen=True)
class Case:
    """What a way is to do: the images lie in `folder`; with `parity` it leaves its scores of the smaller one there."""

    folder: Path
    weights: str
    parity: bool
    device: torch.device
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        return choose_precision(self.precision, self.device)


Network = Callable[[Tensor], Tensor]
Way = Callable[[Case], dict[str, float]]
Input = TypeVar("Input")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--weights", help="A file or a name (default: a U-Net of width 32 and depth 4, fresh).")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compress", default="DEFLATE", help="Of the image, as GDAL calls it.")
    parser.add_argument("--ways", nargs="*", default=[way for way in WAYS if way not in RARE])
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--parity", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    if options.way:
        device = choose_device(options.device)
        keep_all_bits_of_float32()  # of all ways the same
        case = Case(options.folder, options.weights, options.parity, device, options.precision)
        print(json.dumps(WAYS[options.way](case)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "image.tif", options.size, options.compress)
        draw(folder / "parity.tif", PARITY, options.compress)
        options.weights = options.weights or fresh(folder / "fresh.safetensors")
        compare(folder, options)


def fresh(path: Path) -> str:
    """A file with the network that the bars are set for."""
    torch.manual_seed(0)
    network = UNet(NetworkConfig(3, 2, 32, 4)).eval()
    constants = Normalisation("uint8", (90.0,) * 3, (60.0,) * 3)
    checkpoint.save(checkpoint.Model(network, constants, ClassTable.from_indices([0, 1])), path)
    return str(path)


def draw(path: Path, size: int, compress: str) -> None:
    """A picture with structure at every scale, as a tiled RGB GeoTIFF."""
    rng = np.random.default_rng(size)
    image = np.zeros((size, size, 3), np.float32)
    for cells in (8, 64, 256, size // 4):
        noise = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    profile = {"driver": "GTiff", "height": size, "width": size, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": compress}
    profile |= {"crs": "EPSG:32632", "transform": rasterio.transform.from_origin(500_000, 5_000_000, 1, 1)}
    with rasterio.open(path, "w", **profile) as file:
        # No 0, which geo-inference takes for nodata in an 8-bit file that names none: 255 in its mask.
        file.write(np.clip(90 + 40 * image, 1, 255).astype(np.uint8).transpose(2, 0, 1))


def compare(folder: Path, options: argparse.Namespace) -> None:
    results: dict[str, list[dict[str, float]]] = {way: [] for way in options.ways}
    for repeat in range(options.repeats + 1):
        for way in options.ways:
            command = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--weights", options.weights]
            command += ["--threads", str(options.threads), "--device", options.device, "--precision", options.precision]
            command += ["--parity"] if repeat == 0 else []
            child = subprocess.run(command, capture_output=True, text=True, check=False)
            if child.returncode != 0:
                print(f"{way}: {child.stderr.strip().splitlines()[-1:]}", file=sys.stderr, flush=True)
            elif repeat > 0:
                results[way].append(json.loads(child.stdout.splitlines()[-1]))
                print(f"{way}: {results[way][-1]}", file=sys.stderr, flush=True)
    model = checkpoint.load(checkpoint.find(options.weights))
    device = choose_device(options.device)
    dtype = choose_precision(options.precision, device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{options.threads} threads"
    print(f"image {options.size} x {options.size} x 3, {options.compress}, {where}, {dtype}, torch {torch.__version__}")
    floors = {
        "floor: FLOPs / matrix-product rate": flops_per_pixel(model) / matrix_rate(device, dtype) * 1e6,
        "floor: bytes / copy bandwidth": numbers_per_pixel(model) * dtype.itemsize / copy_rate(device) * 1e6,
    }
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
        line += parity(folder, way, expected, int(runs[0].get("step", 512)))
        print(line + (f"  busy {100 * runs[0]['busy']:.0f} %" if "busy" in runs[0] else ""))
    for name, floor in floors.items():
        print(f"{name:34} {floor:6.2f} {floor / ours:7.2f}")


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


def numbers_per_pixel(model: checkpoint.Model) -> float:
    """How many numbers convolutions and poolings read and write, all else done on the way."""
    side = 16 * model.network.config.total_stride
    counts: list[int] = []
    kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.MaxPool2d)
    for module in (module for module in model.network.modules() if isinstance(module, kinds)):
        module.register_forward_hook(lambda _, inputs, output: counts.append(inputs[0].numel() + output.numel()))
    with torch.inference_mode():
        model.network(torch.zeros(1, model.bands, side, side))
    return sum(counts) / side**2


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of a large matrix product."""
    size = 4096 if device.type == "cpu" else 16384
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in "ab")
    return 2 * size**3 / shortest(lambda: torch.mm(a, b), device)


def copy_rate(device: torch.device) -> float:
    """Bytes per second that a large copy reads and writes."""
    source = torch.ones(2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / shortest(lambda: target.copy_(source), device)


def shortest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the best of five, after one more."""
    times = []
    for _ in range(6):
        began = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# The ways. Each is called in a process of its own, once with the image to be timed and once with the parity image, of
# which it leaves the scores.


def segcli(case: Case) -> dict[str, float]:
    if not case.parity:
        return end_to_end(case)
    model = checkpoint.load(checkpoint.find(case.weights))
    scorer = make_scorer(model.network, case.device, case.dtype, PredictOptions((), Path()), print)
    with rasterio.open(case.folder / "parity.tif") as file:
        pixels = file.read()[None]
    strips = ((row, pixels[:, :, row : row + 32], None) for row in range(0, PARITY, 32))
    inputs = normalise(strips, model.normalisation, [None], case.device, case.dtype)
    parts = [scores[0].float().cpu() for _, scores in scorer.scores(inputs, PARITY)]
    np.save(case.folder / "segcli.npy", torch.cat(parts, 1).numpy())
    return {}


def end_to_end(case: Case, **options: object) -> dict[str, float]:
    """From file to file."""
    source, where = (case.folder / "image.tif",), {"device": str(case.device), "precision": case.precision}
    job = PredictOptions(source, case.folder / MASK, (case.weights,), overwrite=True, **where, **options)
    network = [checkpoint.load(checkpoint.find(case.weights))]  # as the other ways have it when they begin
    return measured(case, network.clear, lambda _: run(job, Console(quiet=True)))


def eight_views(**options: object) -> Way:
    """With the mean over the symmetries of the image."""
    return lambda case: {} if case.parity else end_to_end(case, tta=True, **options)


def bare(tile: int) -> Way:
    """The network alone, over and over on tiles in memory: no overlap, no files, nothing put together."""

    def way(case: Case) -> dict[str, float]:
        if case.parity:
            return {}
        keep_freed_memory()  # as segcli does, so that only the way differs
        network, load = loaded(case, "image.tif")
        rounds = 1 if case.device.type == "cpu" else 16

        def tiles() -> list[Tensor]:
            image = load()
            if image.shape[2] < tile:  # nothing would be done, in no time
                raise ValueError(f"the image is smaller than a tile of {tile}")
            parts = [image[..., r : r + tile, c : c + tile] for r, c in corners(image.shape[2], tile)]
            parts = [part.contiguous(memory_format=torch.channels_last) for part in parts[: max(1, 2**23 // tile**2)]]
            parts = [part.to(case.device, case.dtype) for part in parts]
            if case.device.type != "cpu":
                network(parts[0])  # the first time of a size is spent on choosing kernels
            return parts

        def work(parts: list[Tensor]) -> float:
            for part in rounds * parts:
                network(part)
            return rounds * sum(part.shape[2] * part.shape[3] for part in parts)

        return measured(case, tiles, work)

    return way


def whole(case: Case) -> dict[str, float]:
    """The reference, on the CPU in float32, and only on the parity image: a large one does not fit."""
    network, load = loaded(replace(case, device=CPU, precision="fp32"), "parity.tif")
    if case.parity:
        np.save(case.folder / "whole image.npy", network(load())[0].numpy())
        return {}

    def work(image: Tensor) -> float:
        network(image)
        return PARITY**2

    return measured(case, load, work)


def in_memory(name: str, step: int, infer: Callable[[Tensor, Network, Case], Tensor]) -> Way:
    """A way that takes the whole image as a tensor and gives the scores of all of it."""

    def way(case: Case) -> dict[str, float]:
        network, load = loaded(case, "parity.tif" if case.parity else "image.tif")
        if case.parity:
            np.save(case.folder / f"{name}.npy", infer(load(), network, case)[0].float().cpu().numpy())
            return {}
        return measured(case, load, lambda image: infer(image, network, case).argmax(1) is None) | {"step": step}

    return way


def plain_tiles(image: Tensor, network: Network, case: Case) -> Tensor:
    def scores(row: int, col: int) -> Tensor:
        return network(image[..., row : row + 512, col : col + 512].to(case.device, case.dtype)).to(image.device)

    rows = [
        torch.cat([scores(row, col) for col in range(0, image.shape[3], 512)], 3)
        for row in range(0, image.shape[2], 512)
    ]
    return torch.cat(rows, 2)


def monai(overlap: float, mode: str) -> Callable[[Tensor, Network, Case], Tensor]:
    def infer(image: Tensor, network: Network, case: Case) -> Tensor:
        from monai.inferers import sliding_window_inference

        places = {} if case.device.type == "cpu" else {"sw_device": case.device, "device": CPU}
        image = image.to(case.dtype)
        return sliding_window_inference(image, (512, 512), 1, network, overlap=overlap, mode=mode, **places)

    return infer


def gdal_alone(case: Case) -> dict[str, float]:
    """No network: the image read in rows of blocks, and its first band written as a mask would be, all threads."""
    if case.parity:
        return {}

    def work(_: None) -> None:
        many = {"NUM_THREADS": "ALL_CPUS"}
        with rasterio.open(case.folder / "image.tif", **many) as source:
            profile = source.profile | {"count": 1, "photometric": "MINISBLACK", "compress": "DEFLATE"}
            with rasterio.open(case.folder / "copy.tif", "w", **profile, **many) as target:
                for row in range(0, source.height, 512):
                    place = rasterio.windows.Window(0, row, source.width, min(512, source.height - row))
                    target.write(source.read(window=place)[:1], window=place)

    return measured(case, lambda: None, work)


def geo_inference(case: Case) -> dict[str, float]:
    from geo_inference.geo_inference import GeoInference

    model, folder = checkpoint.load(checkpoint.find(case.weights)), case.folder
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
    infer = GeoInference(str(folder / "traced.pt"), str(folder / "geo"), device=case.device.type, num_classes=classes)
    if not case.parity:
        image = str(folder / "image.tif")
        return measured(case, lambda: None, lambda _: infer(image, patch_size=1024, workers=1) is None)
    for old in (folder / "geo").glob("*.tif"):
        old.unlink()
    infer(str(folder / "parity.tif"), patch_size=1024, workers=1)
    with rasterio.open(next((folder / "geo").glob("*.tif"))) as file:
        np.save(folder / "geo-inference, 50 % Hann.mask.npy", file.read(1))
    return {}


def loaded(case: Case, name: str) -> tuple[Network, Callable[[], Tensor]]:
    """The network as it stands in the checkpoint, on its device, and a function that reads and normalises the image."""
    torch.inference_mode().__enter__()
    model = checkpoint.load(checkpoint.find(case.weights))

    def load() -> Tensor:
        with rasterio.open(case.folder / name) as file:
            ((_, image, _),) = normalise([(0, file.read()[None], None)], model.normalisation, [None], CPU)
        return image

    network = model.network.to(memory_format=torch.channels_last)
    return network.to(case.device, case.dtype), load


def corners(size: int, tile: int) -> Iterator[tuple[int, int]]:
    return ((row, col) for row in range(0, size - tile + 1, tile) for col in range(0, size - tile + 1, tile))


def measured(case: Case, load: Callable[[], Input], work: Callable[[Input], float | None]) -> dict[str, float]:
    """Time of `work`, which gives the number of pixels where it is not the image's; memory of `load` and `work`."""
    on_gpu = case.device.type == "cuda"
    reset_peak()
    before = status("VmRSS")
    image = load()
    wait_for(case.device)
    with watched() if on_gpu else nullcontext([]) as shares:
        began = time.perf_counter()
        pixels = work(image)
        wait_for(case.device)
        seconds = time.perf_counter() - began
    if not pixels:
        with rasterio.open(case.folder / "image.tif") as file:
            pixels = file.width * file.height
    memory = float(torch.cuda.max_memory_reserved(case.device)) if on_gpu else status("VmHWM") - before
    busy = {"busy": sum(shares) / len(shares)} if shares else {}
    return {"seconds_per_mpx": seconds / pixels * 1e6, "memory": memory, **busy}


@contextmanager
def watched() -> Iterator[list[float]]:
    """A list of how busy the GPU is, which grows twice a second while the block runs."""
    shares: list[float] = []
    ended = threading.Event()

    def look() -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not ended.wait(0.5):
            child = subprocess.run(command, capture_output=True, text=True, check=False)
            if child.returncode == 0:
                shares.append(float(child.stdout.split()[0]) / 100)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield shares
    finally:
        ended.set()
        thread.join()


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
    "segcli --tta": eight_views(),
    "segcli --tta --stitch windows": eight_views(stitch="windows"),
    "bare forward, tiles of 256": bare(256),
    "bare forward, tiles of 512": bare(512),
    "bare forward, tiles of 1024": bare(1024),
    "bare forward, tiles of 2048": bare(2048),
    "bare forward, tiles of 4096": bare(4096),
    "GDAL alone, reading and writing": gdal_alone,
    "tiles of 512, no overlap": in_memory("tiles of 512, no overlap", 512, plain_tiles),
    "MONAI, overlap 0.25, constant": in_memory("MONAI, overlap 0.25, constant", 384, monai(0.25, "constant")),
    "MONAI, overlap 0.5, gaussian": in_memory("MONAI, overlap 0.5, gaussian", 256, monai(0.5, "gaussian")),
    "geo-inference, 50 % Hann": geo_inference,
}

RARE = ("bare forward, tiles of 4096", "segcli --tta", "segcli --tta --stitch windows")
"""What takes the memory of a large GPU, or many times as long: only if asked for."""

if __name__ == "__main__":
    main()
