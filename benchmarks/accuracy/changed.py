"""How weights take images that are larger, smaller, blurred, noisy, darker or brighter than those they learnt from.

    python benchmarks/accuracy/changed.py ../data/nuclei --out runs/changed --weights nuclei runs/mine/best.safetensors

Of every third validation image, changed, the IoU of the last class over all pixels, by `segcli predict` in float32 and
`segcli eval`. Needs numpy and OpenCV.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SCALES = {"0.6 times as large": 0.6, "0.75": 0.75, "1.5": 1.5, "2": 2.0}
LIGHT = {"dimmed to 0.6": (0.6, 0), "dimmed to 0.3": (0.3, 0), "1.5 times as bright": (1.5, 0), "raised by 25": (1, 25)}
"""By what values are multiplied, and what is added."""

CHANGES = ("as they are", *SCALES, "blurred", "noisy", *LIGHT)


def changed(image: NDArray[np.uint8], how: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    if how in SCALES:
        smooth = cv2.INTER_AREA if SCALES[how] < 1 else cv2.INTER_CUBIC
        return cv2.resize(image, None, fx=SCALES[how], fy=SCALES[how], interpolation=smooth)
    if how == "blurred":
        return cv2.GaussianBlur(image, (0, 0), 1.5)
    if how == "noisy":
        return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    if how in LIGHT:
        times, more = LIGHT[how]
        return np.clip(image * times + more, 0, 255).astype(np.uint8)
    return image


def prepared(data: Path, folder: Path, how: str) -> None:
    """Images and masks, changed alike; light changes the images alone."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for path in sorted((data / "val" / "images").iterdir())[::3]:
        name = f"{path.stem}.png"
        cv2.imwrite(str(folder / "images" / name), changed(cv2.imread(str(path)), how, rng))
        mask = cv2.imread(str(data / "val" / "masks" / name), cv2.IMREAD_UNCHANGED)
        scale = SCALES.get(how, 1.0)
        mask = cv2.resize(mask, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / "masks" / name), mask)


def segcli(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "segcli", *map(str, words), "--quiet"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", required=True)
    parser.add_argument("--only", nargs="+", choices=CHANGES, default=CHANGES)
    chosen = parser.parse_args()
    print("| |", " | ".join(chosen.weights), "|")
    for how in chosen.only:
        folder = chosen.out / "".join(letter if letter.isalnum() else "_" for letter in how)
        prepared(chosen.data, folder, how)
        cells = []
        for number, weights in enumerate(chosen.weights):
            masks, report = folder / f"found_{number}", folder / f"report_{number}"
            segcli("predict", folder / "images", "--out", masks, "--weights", weights, "--precision", "fp32")
            segcli("eval", masks, folder / "masks", "--out", report, "--classes", chosen.data / "classes.json")
            found = json.loads((report / "report.json").read_text())
            cells.append(f"{found['per_class'][-1]['iou']['value']:.3f}")
        print(f"| {how} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
