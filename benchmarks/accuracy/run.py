"""From a data set to the line of a table, with the tool's own commands and nothing else: train, predict, eval.

    python benchmarks/accuracy/run.py nuclei ../data/nuclei --out runs/accuracy
    python benchmarks/accuracy/run.py ablations ../data/nuclei --out runs/ablations --minutes 20

The data set holds train/ and val/, each with images/ and masks/. Every figure is of val/, by `segcli predict` in
float32 with the weights as they are stored, and by `segcli eval`; the same part has chosen the epoch. `--minutes`
replaces the length of a recipe, `--more` goes to `segcli train` as it stands.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

RECIPES = {
    "nuclei": "--epochs 120 --crop 256 --batch 8 --augment full --loss ce+dice --border-weight 10 --half",
    "landcover": "--epochs 60 --crop 384 --batch 8 --augment full --loss ce+dice --class-weights auto --half",
    "membrane": "--epochs 300 --crop 384 --batch 4 --augment full --half",
    "camvid": "--epochs 300 --crop 352 --batch 8 --augment full --loss ce+dice --width 48 --depth 5",
}

ABLATIONS = {
    "as it comes": "",
    "up: nearest": "--up nearest",
    "up: bilinear": "--up bilinear",
    "up: unpool": "--up unpool",
    "up: bed of nails": "--up bed-of-nails",
    "skip: add": "--skip add",
    "skip: none": "--skip none",
    "padding: valid": "--padding valid",
    "encoder: ResNet-18": "--encoder resnet18 --no-pretrained",
    "encoder: ResNet-34": "--encoder resnet34 --no-pretrained",
    "encoder: MobileNetV3": "--encoder mobilenet_v3_large --no-pretrained",
    "encoder: EfficientNet-B0": "--encoder efficientnet_b0 --no-pretrained",
    "loss: Dice": "--loss dice",
    "loss: cross entropy + Dice": "--loss ce+dice",
    "loss: focal": "--loss focal",
    "loss: Lovasz": "--loss lovasz",
    "border weights": "--border-weight 10",
    "augmentation: none": "--augment none",
    "augmentation: full": "--augment full",
}

WAYS = {
    "rows, exact": "",
    "windows, a quarter over": "--stitch windows --window 256 --overlap 0.25",
    "windows, half over, Hann": "--stitch windows --window 256 --overlap 0.5 --weighting hann",
    "windows, turned and flipped": "--tta --window 256 --overlap 0.25",
}


def segcli(*arguments: object) -> float:
    """Run a command, show it, and give its seconds."""
    words = [sys.executable, "-m", "segcli", *map(str, arguments)]
    print("+ segcli", shlex.join(words[3:]), file=sys.stderr, flush=True)
    began = time.perf_counter()
    subprocess.run(words, check=True, stdout=sys.stderr)
    return time.perf_counter() - began


def measure(data: Path, weights: Path, out: Path, way: str = "") -> dict[str, float]:
    """The figures of eval on the validation part."""
    options = ("--weights", weights, "--precision", "fp32", "--recursive", *shlex.split(way))
    segcli("predict", data / "val" / "images", "--out", out / "masks", *options)
    table = ("--classes", data / "classes.json", "--recursive")
    segcli("eval", out / "masks", data / "val" / "masks", "--out", out / "report", *table)
    found = json.loads((out / "report" / "report.json").read_text())
    figures = {"mIoU": found["dataset"]["mean_iou"]["value"], "over images": found["mean_over_images"]["mean_iou"]}
    for entry in found["per_class"]:
        figures[entry["class"]] = entry["iou"]["value"]
        figures[f"{entry['class']} over images"] = entry["iou_mean_over_images"]
    if (data / "val" / "instances").is_dir():  # whether touching objects are kept apart
        more = ("--recursive", "--objects", "against-labels")
        segcli("eval", out / "masks", data / "val" / "instances", "--out", out / "objects", *more)
        objects = json.loads((out / "objects" / "report.json").read_text())["per_class"][1]["objects"]
        figures |= {"AP 50": objects["average_precision_50"]["value"], "PQ": objects["panoptic_quality"]["value"]}
    return figures


def line(name: str, figures: dict[str, float], seconds: float) -> str:
    cells = (f"{'-' if value is None else f'{value:.4f}'}" for value in figures.values())
    return "| " + " | ".join([name, *cells, f"{seconds:.0f}"]) + " |"


def head(figures: dict[str, float]) -> str:
    names = ["", *figures, "seconds of training"]
    return "| " + " | ".join(names) + " |\n|" + "---|" * len(names)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=[*RECIPES, "ablations"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--only", nargs="+", help="Of the ablations, these.")
    parser.add_argument("--more", default="", help="Further options of segcli train, in one text.")
    chosen = parser.parse_args()
    length = [] if chosen.minutes is None else ["--minutes", str(chosen.minutes)]
    is_one = chosen.what in RECIPES
    runs = {chosen.what: RECIPES[chosen.what]} if is_one else ABLATIONS
    rows: list[str] = []
    for name, options in runs.items():
        if chosen.only and not is_one and name not in chosen.only:
            continue
        out = chosen.out / "".join(letter if letter.isalnum() else "_" for letter in name)
        words = [*shlex.split(options), *length, *shlex.split(chosen.more), "--overwrite"]
        seconds = segcli("train", chosen.data, "--out", out, *words)
        ways = WAYS if is_one or name == "as it comes" else {"": ""}
        for way, how in ways.items():
            figures = measure(chosen.data, out / "best.safetensors", out / f"val_{list(ways).index(way)}", how)
            if not rows:
                rows.append(head(figures))
            rows.append(line(f"{name} {way}".strip(), figures, seconds))
            print("\n".join(rows[-2:] if len(rows) == 2 else rows[-1:]), flush=True)


if __name__ == "__main__":
    main()
