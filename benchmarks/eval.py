"""The confusion matrix of two masks: segcli beside scikit-learn and torchmetrics, in memory and from files.

    python benchmarks/eval.py --size 8000

One core for every way. The table has megapixels per second, the best of three, and the ratio to segcli's.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from segcli.classes import ClassTable
from segcli.evaluation.counting import compare
from segcli.evaluation.meaning import Meaning
from segcli.evaluation.pairs import Pair
from segcli.measures.confusion import count_values
from segcli.measures.report import dense
from segcli.options import EvalOptions

CLASSES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    truth, predicted = masks(options.size)
    mpx = truth.size / 1e6
    expected = count_values(truth, predicted)[:CLASSES, :CLASSES]

    def by_scikit_learn() -> np.ndarray:
        from sklearn.metrics import confusion_matrix

        return confusion_matrix(truth.ravel(), predicted.ravel(), labels=range(CLASSES))

    def by_torchmetrics() -> np.ndarray:
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        given = torch.from_numpy(predicted).ravel(), torch.from_numpy(truth).ravel()
        return multiclass_confusion_matrix(*given, CLASSES).numpy()

    print(f"{options.size} x {options.size}, {CLASSES} classes, one core")
    ways = {
        "segcli": lambda: count_values(truth, predicted)[:CLASSES, :CLASSES],
        "scikit-learn": by_scikit_learn,
        "torchmetrics": by_torchmetrics,
    }
    table("in memory", ways, mpx, expected)
    with tempfile.TemporaryDirectory() as name:
        pair = Pair("a", write(Path(name, "p.tif"), predicted), write(Path(name, "t.tif"), truth))
        meaning = Meaning.of(ClassTable.from_indices(range(CLASSES)))
        settings = EvalOptions(pair.predicted, pair.truth)

        def by_gdal_alone() -> np.ndarray:
            with rasterio.open(pair.truth) as one, rasterio.open(pair.predicted) as other:
                for row in range(0, options.size, 512):
                    window = Window(0, row, options.size, min(512, options.size - row))
                    one.read(1, window=window)
                    other.read(1, window=window)
            return expected

        def by_segcli() -> np.ndarray:
            return dense(compare(pair, meaning, settings)[0].entries, CLASSES)

        files = {"segcli": by_segcli, "GDAL reads, no more": by_gdal_alone}
        table("from GeoTIFFs (512 x 512, deflate)", files, mpx, expected)


def masks(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Regions of five classes, and the same with 5 % of the pixels drawn anew."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, CLASSES, (size // 20 + 1, size // 20 + 1), np.uint8)
    truth = coarse.repeat(20, 0).repeat(20, 1)[:size, :size].copy()
    anew = rng.random((size, size), np.float32) < 0.05
    return truth, np.where(anew, rng.integers(0, CLASSES, (size, size), np.uint8), truth)


def write(path: Path, mask: np.ndarray) -> Path:
    profile = {"driver": "GTiff", "count": 1, "height": mask.shape[0], "width": mask.shape[1], "dtype": "uint8"}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "DEFLATE"}
    profile |= {"transform": rasterio.transform.from_origin(500, 900, 2, 2)}
    with rasterio.open(path, "w", **profile) as file:
        file.write(mask, 1)
    return path


def table(title: str, ways: dict[str, Callable[[], np.ndarray]], mpx: float, expected: np.ndarray) -> None:
    print(f"{title:36} {'Mpx/s':>8} {'ratio':>6}")
    ours = 0.0
    for way, work in ways.items():
        times = []
        try:
            for _ in range(3):
                began = time.perf_counter()
                found = work()
                times.append(time.perf_counter() - began)
        except ImportError as error:
            print(f"{way:36} {error}")
            continue
        assert np.array_equal(found, expected), way
        speed = mpx / min(times)
        ours = ours or speed
        print(f"{way:36} {speed:8.0f} {speed / ours:6.2f}")


if __name__ == "__main__":
    main()
