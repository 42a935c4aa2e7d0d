"""How weights take images that are larger, smaller, blurred, noisy, darker or brighter than those they learnt from.

    python benchmarks/accuracy/changed.py ../data/nuclei --out runs/changed --weights nuclei runs/mine/best.safetensors

Of every third validation image, changed, the IoU of the last class over all pixels, by `segcli predict` in float32 and
`segcli eval`. Of windows where that class is not, cut from all validation images, the share of their pixels that is
called so. Needs numpy and OpenCV.
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

EMPTY, SIDE, STEP = "called so where there is none", 160, 32
"""Windows of so many pixels, of which an image gives the last one that has only background, by steps of so many."""

CHANGES = ("as they are", *SCALES, "blurred", "noisy", *LIGHT, EMPTY)


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


def empty(data: Path, folder: Path) -> None:
    """Images and masks of what has nothing in it, as tiles of a scene may have."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for path in sorted((data / "val" / "images").iterdir()):
        mask = cv2.imread(str(data / "val" / "masks" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        places = ((row, col) for row in range(0, mask.shape[0] - SIDE + 1, STEP)
                  for col in range(0, mask.shape[1] - SIDE + 1, STEP))  # fmt: skip
        free = [(row, col) for row, col in places if not mask[row : row + SIDE, col : col + SIDE].any()]
        for row, col in free[-1:]:
            window = slice(row, row + SIDE), slice(col, col + SIDE)
            cv2.imwrite(str(folder / "images" / f"{path.stem}.png"), cv2.imread(str(path))[window])
            cv2.imwrite(str(folder / "masks" / f"{path.stem}.png"), mask[window])


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
        if how == EMPTY:
            empty(chosen.data, folder)
        else:
            prepared(chosen.data, folder, how)
        cells = []
        for number, weights in enumerate(chosen.weights):
            masks, report = folder / f"found_{number}", folder / f"report_{number}"
            segcli("predict", folder / "images", "--out", masks, "--weights", weights, "--precision", "fp32")
            segcli("eval", masks, folder / "masks", "--out", report, "--classes", chosen.data / "classes.json")
            found = json.loads((report / "report.json").read_text())
            matrix = np.array(found["confusion_matrix"])
            iou, called = found["per_class"][-1]["iou"]["value"], matrix[:, -1].sum() / matrix.sum()
            cells.append(f"{called:.2%}" if how == EMPTY else f"{iou:.3f}")
        print(f"| {how} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
