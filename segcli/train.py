"""segcli train: from a folder of images and masks to weights."""

import csv
import hashlib
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import segcli
from segcli.console import Console
from segcli.errors import NothingDoneError, UsageError
from segcli.files import replacing
from segcli.network import checkpoint
from segcli.network.device import choose_device, keep_freed_memory
from segcli.network.unet import NetworkConfig, UNet
from segcli.options import TrainOptions
from segcli.training.loop import Epoch, fit
from segcli.training.pairs import Splits, find_classes, find_pairs
from segcli.training.sampling import Crops
from segcli.training.survey import measure_normalisation, survey


def run(options: TrainOptions, console: Console) -> int:
    """Train, keep the best weights by validation mIoU in OUT/best.safetensors, and return the exit code."""
    out = options.out or Path("runs") / options.data.resolve().name
    best_path = out / "best.safetensors"
    if best_path.exists() and not options.overwrite:
        raise UsageError(best_path, "exists", "nothing is overwritten", "choose another --out or give --overwrite")
    if options.crop < 2 << options.depth:
        raise UsageError(
            "--crop", f"{options.crop} pixels", f"depth {options.depth} needs {2 << options.depth} or more"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NothingDoneError(
            out, error.strerror or str(error), "expected a folder for weights and history"
        ) from error
    device = choose_device(options.device)
    keep_freed_memory()
    splits = find_pairs(options.data, options.val, options.seed)
    found = survey(splits.train + splits.val)
    classes = find_classes(options.data, options.classes, splits.train + splits.val)
    normalisation = measure_normalisation(splits.train, found.dtype, found.bands)

    torch.manual_seed(options.seed)
    network = UNet(
        NetworkConfig(found.bands, len(classes.entries), options.width, options.depth, options.norm, options.dropout)
    )
    record: dict[str, Any] = {"options": _plain(asdict(options)), "data": digest(splits), "segcli": segcli.__version__}
    model = checkpoint.Model(network, normalisation, classes, training=record)
    count = len(splits.train)
    crops = Crops(
        splits.train, found.heights[:count], found.widths[:count], options.crop, classes, normalisation, options.seed
    )
    console.say(
        f"{len(splits.train)} training and {len(splits.val)} validation images, "
        f"{found.bands} bands, classes {', '.join(classes.names)}, on {device}"
    )

    history: list[Epoch] = []
    best = -1.0
    for epoch in fit(model, crops, splits.val, options, device):
        history.append(epoch)
        write_history(history, classes.names, out / "history.csv")
        mark = ""
        if epoch.mean_iou > best or epoch.number == 1:
            best, mark = epoch.mean_iou, "  best"
            figures = {
                "epoch": epoch.number,
                "mean_iou": _number(epoch.mean_iou),
                "iou": {name: _number(value) for name, value in zip(classes.names, epoch.iou, strict=True)},
            }
            record["validation"], record["seconds"] = figures, round(epoch.seconds)
            checkpoint.save(model, best_path, options.half)
        by_class = "  ".join(f"{name} {value:.3f}" for name, value in zip(classes.names, epoch.iou, strict=True))
        console.say(
            f"epoch {epoch.number}/{options.epochs}  loss {epoch.loss:.4f}  mIoU {epoch.mean_iou:.4f}  {by_class}  "
            f"{epoch.images_per_second:.1f} crops/s  {epoch.seconds:.0f} s{mark}"
        )
    console.result(best_path)
    console.say(f"best mIoU {best:.4f}")
    return 0


def write_history(history: list[Epoch], names: tuple[str, ...], path: Path) -> None:
    """One line an epoch."""
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "loss", "mean_iou", *(f"iou {name}" for name in names), "learning_rate", "seconds"])
        for epoch in history:
            writer.writerow(
                [epoch.number, epoch.loss, epoch.mean_iou, *epoch.iou, epoch.learning_rate, round(epoch.seconds, 3)]
            )


def digest(splits: Splits) -> dict[str, Any]:
    """What the weights were trained on: counts, and one SHA-256 over the bytes of every file, in order."""
    total = hashlib.sha256()
    for pair in splits.train + splits.val:
        for path in (pair.image, pair.mask):
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return {"train": len(splits.train), "val": len(splits.val), "sha256": total.hexdigest()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON has no NaN


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Options for the record: of paths the name alone, since weights travel and where they were made is private."""
    return {key: value.name if isinstance(value, Path) else value for key, value in values.items()}
