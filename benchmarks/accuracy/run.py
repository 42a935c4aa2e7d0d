"""From a data set to the lines of a table, with the tool's own commands and nothing else: train, predict, eval.

    python benchmarks/accuracy/run.py nuclei ../data/nuclei --out runs/nuclei
    python benchmarks/accuracy/run.py ablations ../data/nuclei --out runs/ablations --minutes 5
    python benchmarks/accuracy/run.py nuclei ../data/nuclei --out runs/shipped --measure nuclei --ways

The data set holds train/ and val/, each with images/ and masks/. Every figure is of val/, by `segcli predict` in
float32 with the weights as they are stored, and by `segcli eval`; the same part has chosen the epoch. `--minutes`
replaces the length of a recipe, `--more` goes to `segcli train` as it stands. What is trained already is measured only.
"""

import argparse
import csv
import json
import math
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2

SMALL = "--width 16 --depth 5 --precision bf16"
"""As many weights as width 32 and depth 4 have, 7.8 million, at a third of the time."""

QUICK = "--width 8 --precision bf16 --minutes 3 --up transpose --loss ce"
"""What a few minutes on a processor are enough for. Of an option that is given twice the second counts."""

CHANGES = {
    "base": "",
    "base, seed 1": "--seed 1",
    "base, seed 2": "--seed 2",
    "up: nearest": "--up nearest",
    "up: nearest, loss: cross entropy + Dice": "--up nearest --loss ce+dice",
    "up: bilinear": "--up bilinear",
    "up: unpool": "--up unpool",
    "up: bed of nails": "--up bed-of-nails",
    "skip: add": "--skip add",
    "skip: none": "--skip none",
    "padding: valid": "--padding valid",
    "encoder: ResNet-18": "--encoder resnet18 --no-pretrained",
    "encoder: MobileNetV3": "--encoder mobilenet_v3_large --no-pretrained",
    "encoder: EfficientNet-B0": "--encoder efficientnet_b0 --no-pretrained",
    "width 32, depth 4": "--width 32",
    "width 16, depth 5": "--width 16 --depth 5",
    "loss: Dice": "--loss dice",
    "loss: cross entropy + Dice": "--loss ce+dice",
    "loss: focal": "--loss focal",
    "loss: Lovasz": "--loss lovasz",
    "border weights": "--border-weight 10",
    "batches of 4": "--batch 4",
    "batches of 2": "--batch 2",
    "augmentation: none": "--augment none",
    "augmentation: full": "--augment full",
}
"""One change a run, or the two that won; two more seeds show how much is chance."""

FEW = "--precision fp32 --batch 2 --freeze-norms --border-weight 4 --border-gap 1"
"""Two crops a step are four times the steps for the same work; norms keep the statistics of larger batches."""

RECIPES: dict[str, dict[str, str]] = {
    "nuclei": {
        "nuclei": f"{SMALL} --half --epochs 45 --augment full --border-weight 10",
        "nuclei again": "--weights {out}/nuclei/run/best.safetensors --precision bf16 --half --epochs 9"
        " --learning-rate 0.0003 --augment full --border-weight 10 --border-gap 1",
        "nuclei in few": f"--weights {{out}}/nuclei_again/run/best.safetensors {FEW} --minutes 25 --augment full"
        " --learning-rate 0.0003",
        "nuclei in light": f"--weights {{out}}/nuclei_in_few/run/best.safetensors {FEW} --minutes 105 --augment light"
        " --learning-rate 0.0005 --seed 2",
        "nuclei in all sizes": f"--weights {{out}}/nuclei_in_light/run/best.safetensors {FEW} --minutes 110"
        " --augment geometric --learning-rate 0.0005 --seed 3",
        "nuclei in all sizes again": f"--weights {{out}}/nuclei_in_all_sizes/run/best.safetensors {FEW} --minutes 112"
        " --augment geometric --learning-rate 0.0005 --seed 5 --half",
        "nuclei in any light": f"--weights {{out}}/nuclei_in_all_sizes_again/run/best.safetensors {FEW} --minutes 65"
        " --precision bf16 --augment geometric --keep-values --input-range 0.1%,99.9% --learning-rate 0.0005 --seed 11"
        " --half",
    },
    "landcover": {
        "landcover": f"{SMALL} --half --minutes 30 --crop 384 --batch 4 --augment full --up transpose",
        "landcover again": "--weights {out}/landcover/run/best.safetensors --precision fp32 --half --minutes 100"
        " --crop 256 --batch 4 --augment full",
        "landcover in few": "--weights {out}/landcover_again/run/best.safetensors --precision bf16 --minutes 110"
        " --crop 384 --batch 2 --freeze-norms --augment full --learning-rate 0.0008 --seed 3",
        "landcover in its light": "--weights {out}/landcover_in_few/run/best.safetensors --precision bf16 --minutes 58"
        " --crop 384 --batch 2 --freeze-norms --augment geometric --keep-values --learning-rate 0.0003 --seed 7 --half",
    },
    "membrane": {
        "no weights": f"{SMALL} --epochs 120 --batch 2 --augment full --up transpose --loss ce",
        "border weights": f"{SMALL} --epochs 120 --batch 2 --augment full --border-weight 10 --up transpose --loss ce",
    },
    "camvid": {
        "camvid": f"{SMALL} --epochs 60 --crop 352 --batch 8 --augment full --upright",
        "camvid again": "--weights {out}/camvid/run/best.safetensors --precision bf16 --epochs 50 --crop 352 --batch 2"
        " --learning-rate 0.0007 --augment light --upright",
    },
    "camvid-large": {  # for a GPU; not measured
        "camvid": "--epochs 300 --width 48 --depth 5 --crop 352 --batch 8 --augment full --upright",
        "camvid again": "--weights {out}/camvid/run/best.safetensors --epochs 100 --crop 352 --batch 2"
        " --learning-rate 0.0007 --augment light --upright",
    },
    "ablations": {name: f"{QUICK} {options}" for name, options in CHANGES.items()},
}

WAYS = {
    "rows, exact": "",
    "windows, a quarter over": "--stitch windows --window 256 --overlap 0.25",
    "windows, half over, Hann": "--stitch windows --window 256 --overlap 0.5 --weighting hann",
    "rows, turned and flipped": "--tta",
    "windows, turned and flipped": "--tta --stitch windows --window 256 --overlap 0.25",
}

OBJECTS = {
    "nuclei": ("instances", "against-labels", "nucleus"),
    "ablations": ("instances", "against-labels", "nucleus"),
    "membrane": ("masks", "components", "cell"),
}
"""Where objects are counted, too: the folder with the true ones, of what kind these are, the class that is meant."""


def segcli(*arguments: object) -> None:
    """Run a command, and show it."""
    words = [sys.executable, "-m", "segcli", *map(str, arguments)]
    print("+ segcli", shlex.join(words[3:]), file=sys.stderr, flush=True)
    subprocess.run(words, check=True, stdout=sys.stderr)


def evaluated(predicted: Path, truth: Path, out: Path, *options: object) -> dict:
    segcli("eval", predicted, truth, "--out", out, "--recursive", *options)
    return json.loads((out / "report.json").read_text())


def figures_of(masks: Path, data: Path, out: Path, what: str) -> dict[str, float]:
    """The figures of eval on the validation part."""
    table = ("--classes", data / "classes.json")
    found = evaluated(masks, data / "val" / "masks", out / "report", *table)
    figures = {"mIoU": found["dataset"]["mean_iou"]["value"], "over images": found["mean_over_images"]["mean_iou"]}
    for entry in found["per_class"]:
        figures[entry["class"]] = entry["iou"]["value"]
        figures[f"{entry['class']} over images"] = entry["iou_mean_over_images"]
    if what in OBJECTS:  # whether what touches is kept apart
        folder, kind, name = OBJECTS[what]
        more = table if kind == "components" else ()
        found = evaluated(masks, data / "val" / folder, out / "objects", "--objects", kind, *more)
        # Of labels there is one class of objects, the one after the background.
        which = 1 if kind == "against-labels" else [entry["class"] for entry in found["per_class"]].index(name)
        objects = found["per_class"][which]["objects"]
        figures |= {"AP 50": objects["average_precision_50"]["value"], "PQ": objects["panoptic_quality"]["value"]}
    return figures


def trained(data: Path, out: Path, options: list[str]) -> tuple[Path | str, float]:
    """The best weights, and the seconds that training took."""
    if not (out / "validation" / "report.json").exists():
        resume = ["--resume"] if (out / "last.safetensors").exists() else []
        segcli("train", data, "--out", out, *options, *resume)
    with (out / "history.csv").open(newline="") as file:
        seconds = float(list(csv.DictReader(file))[-1]["seconds"])
    return out / "best.safetensors", seconds


def measured(data: Path, weights: Path | str, out: Path, what: str, way: str = "") -> dict[str, float]:
    options = ("--weights", weights, "--precision", "fp32", "--recursive", *shlex.split(way))
    segcli("predict", data / "val" / "images", "--out", out / "masks", *options)
    return figures_of(out / "masks", data, out, what)


def with_cells(data: Path, out: Path) -> Path:
    """The set, with a number for each piece of the class 0 in instances/: what a border weight needs."""
    for split in ("train", "val"):
        for folder in ("images", "masks"):
            shutil.copytree(data / split / folder, out / split / folder, dirs_exist_ok=True)
        (out / split / "instances").mkdir(exist_ok=True)
        for path in sorted((data / split / "masks").iterdir()):
            _, numbers = cv2.connectedComponents((cv2.imread(str(path), cv2.IMREAD_UNCHANGED) == 0).astype("uint8"))
            cv2.imwrite(str(out / split / "instances" / path.name), numbers.astype("uint16"))
    shutil.copy(data / "classes.json", out)
    return out


def line(name: str, figures: dict[str, float], seconds: float) -> str:
    cells = (f"{'-' if value is None else f'{value:.4f}'}" for value in figures.values())
    return "| " + " | ".join([name, *cells, f"{seconds:.0f}"]) + " |"


def head(figures: dict[str, float]) -> str:
    names = ["", *figures, "seconds of training"]
    return "| " + " | ".join(names) + " |\n|" + "---|" * len(names)


def matrix(report: Path) -> str:
    """Where the true pixels of each class went, in percent."""
    found = json.loads(report.read_text())
    names = [entry["class"] for entry in found["per_class"]]
    rows = [f"| {' | '.join(['true', *names])} |", "|" + "---|" * (len(names) + 1)]
    for name, counts in zip(names, found["confusion_matrix"], strict=True):
        cells = (f"{100 * count / max(1, sum(counts)):.1f}" for count in counts)
        rows.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=RECIPES)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--only", nargs="+", help="Of the runs, these.")
    parser.add_argument("--ways", action="store_true", help="Measure the first run in windows and turned, too.")
    parser.add_argument("--measure", help="Train nothing: measure these weights, a file or a name.")
    parser.add_argument("--more", default="", help="Further options of segcli train, in one text.")
    chosen = parser.parse_args()
    data = with_cells(chosen.data, chosen.out / "data") if chosen.what == "membrane" else chosen.data
    length = [] if chosen.minutes is None else ["--minutes", str(chosen.minutes)]
    rows: list[str] = []
    runs = RECIPES[chosen.what] if chosen.measure is None else {chosen.measure: ""}
    for name, options in runs.items():
        if chosen.only and name not in chosen.only:
            continue
        out = chosen.out / "".join(letter if letter.isalnum() else "_" for letter in name)
        words = shlex.split(options.replace("{out}", shlex.quote(str(chosen.out))))
        if chosen.measure is None:
            weights, seconds = trained(data, out / "run", [*words, *length, *shlex.split(chosen.more)])
        else:
            weights, seconds = chosen.measure, math.nan
        for number, (way, how) in enumerate(WAYS.items() if chosen.ways and not rows else [("", "")]):
            figures = measured(data, weights, out / f"val_{number}", chosen.what, how)
            rows += [] if rows else [head(figures)]
            rows.append(line(f"{name} {way}".strip(), figures, seconds))
            print("\n".join(rows[-2:] if len(rows) == 2 else rows[-1:]), flush=True)
        if chosen.what in ("landcover", "camvid", "camvid-large"):
            print(matrix(out / "val_0" / "report" / "report.json"))


if __name__ == "__main__":
    main()
