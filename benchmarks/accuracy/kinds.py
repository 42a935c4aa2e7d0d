"""What weights for nuclei come to on each kind of image: fluorescence, grey on bright ground, and stained tissue.

    python benchmarks/accuracy/kinds.py ../data/nuclei --out runs/kinds --weights nuclei

Of the validation images, told apart by their pixels alone: in colour, or grey with a median below 128 or not. Figures
by `segcli predict` in float32 and `segcli eval`. Needs numpy and OpenCV.
"""

import argparse
import shutil
from pathlib import Path

import cv2
import numpy as np
from run import evaluated, segcli

KINDS = ("fluorescence", "bright", "stained")


def kind_of(path: Path) -> str:
    image = cv2.imread(str(path))  # blue, green, red
    if (image.max(2) != image.min(2)).any():
        return "stained"
    return "bright" if np.median(image) >= 128 else "fluorescence"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", default="nuclei")
    chosen = parser.parse_args()
    masks = chosen.out / "masks"
    segcli(
        "predict", chosen.data / "val" / "images", "--out", masks, "--weights", chosen.weights, "--precision", "fp32"
    )
    learnt = [kind_of(path) for path in (chosen.data / "train" / "images").iterdir()]
    paths = sorted((chosen.data / "val" / "images").iterdir())
    columns = ("kind", "images to learn from", "images", "nuclei", "IoU", "mean over images", "AP 50", "PQ")
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for kind in KINDS:
        names = [f"{path.stem}.png" for path in paths if kind_of(path) == kind]
        folder = chosen.out / kind
        for what, source in (("predicted", masks), ("masks", chosen.data / "val"), ("instances", chosen.data / "val")):
            (folder / what).mkdir(parents=True, exist_ok=True)
            for name in names:
                shutil.copy(source / name if what == "predicted" else source / what / name, folder / what / name)
        table = ("--classes", chosen.data / "classes.json")
        pixels = evaluated(folder / "predicted", folder / "masks", folder / "report", *table)["per_class"][1]
        found = evaluated(
            folder / "predicted", folder / "instances", folder / "objects", "--objects", "against-labels"
        )["per_class"][1]["objects"]
        figures = (
            pixels["iou"]["value"], pixels["iou_mean_over_images"], found["average_precision_50"]["value"],
            found["panoptic_quality"]["value"],
        )  # fmt: skip
        cells = (kind, learnt.count(kind), len(names), found["true"], *(f"{figure:.3f}" for figure in figures))
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
