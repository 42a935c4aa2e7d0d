"""segmentation-models-pytorch's U-Net (ResNet-34, no pretraining) trained as `segcli train` trains its own: the same
crops in the same order, the same loss, optimiser, schedule, averaging and choice of the epoch, for the same minutes.

    python benchmarks/accuracy/peer.py ../data/landcover --out runs/peer --minutes 30 --like runs/landcover/options.json

What is written are masks of val/images, which `segcli eval` measures as it measures segcli's own.
"""

import argparse
import json
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import nn

from segcli.measures.confusion import confusion_matrix, mean_iou
from segcli.network.device import choose_device, gpu_has_bfloat16, keep_freed_memory
from segcli.options import TrainOptions
from segcli.training.constants import normalisation
from segcli.training.labels import Labels, find_classes
from segcli.training.loop import learning_rate
from segcli.training.losses import Loss, class_weights
from segcli.training.pairs import Pair, find_pairs
from segcli.training.sampling import Crops, Reading
from segcli.training.state import Averaged
from segcli.training.survey import survey

STRIDE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--like", type=Path, required=True, help="options.json of segcli's training.")
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args()
    like = json.loads(chosen.like.read_text())
    device = choose_device(chosen.device)
    keep_freed_memory()
    splits = find_pairs(chosen.data, like["val"], like.get("split_seed", like["seed"]), like["group_by"])
    labels = Labels(find_classes(chosen.data, None, splits.all))
    found = survey(splits, labels, print, like.get("bands"))
    facts = found.facts
    names = labels.classes.names
    reading = Reading(labels, normalisation(found), found.chosen)
    crops = Crops(found, reading, like["crop"], like["seed"], like["augment"],
                  like["upright"], like.get("keep_values", False), like["balance"], like["border_weight"],
                  like.get("border_gap", TrainOptions.border_gap))  # fmt: skip
    by_class = None
    if like["class_weights"] == "auto":
        weights = class_weights(np.stack([facts[pair].pixels for pair in splits.train]))
        by_class = torch.tensor(weights.tolist(), device=device)
    loss = Loss(like["loss"], by_class, like["label_smoothing"])
    torch.manual_seed(like["seed"])
    network = smp.Unet("resnet34", encoder_weights=None, in_channels=found.bands, classes=len(names))
    network = network.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=like["learning_rate"], weight_decay=like["weight_decay"])
    averaged = Averaged(network, like["ema"])
    shown = smp.Unet("resnet34", encoder_weights=None, in_channels=found.bands, classes=len(names)).to(device).eval()
    half = like["precision"] == "bf16" or (like["precision"] == "auto" and gpu_has_bfloat16(device))
    autocast = {"device_type": device.type, "dtype": torch.bfloat16, "enabled": half}
    print(f"{sum(weights.numel() for weights in network.parameters()) / 1e6:.1f} million weights")

    began, step, epoch, best = time.monotonic(), 0, 0, -1.0
    while (share := (time.monotonic() - began) / (60 * chosen.minutes)) < 1:
        network.train()
        with closing(crops.batches(epoch, like["batch"], workers=torch.get_num_threads())) as batches:
            for batch in batches:
                share = min(1.0, (time.monotonic() - began) / (60 * chosen.minutes))
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(share, like["learning_rate"])
                with torch.autocast(**autocast):
                    scores = network(batch.images.to(device, memory_format=torch.channels_last))
                weights = None if batch.weights is None else batch.weights.to(device)
                value = loss(scores, batch.targets.to(device), weights)
                optimiser.zero_grad(set_to_none=True)
                value.backward()
                nn.utils.clip_grad_norm_(network.parameters(), like["clip"])
                optimiser.step()
                averaged.update(network, step)
                step += 1
                if share == 1:
                    break
        epoch += 1
        shown.load_state_dict(averaged.tensors)
        matrix = np.zeros((len(names), len(names)), np.int64)
        with torch.autocast(**autocast):
            masks = {pair: predicted(shown, reading, pair, facts[pair].height, facts[pair].width, device)
                     for pair in splits.val}  # fmt: skip
        for pair, mask in masks.items():
            true = reading.target(pair, 0, 0, *mask.shape)
            matrix += confusion_matrix(true, mask, len(names))
        figure = mean_iou(matrix)
        print(f"epoch {epoch}  step {step}  mIoU {figure:.4f}  {time.monotonic() - began:.0f} s", flush=True)
        if figure > best:
            best = figure
            kept = {name: tensor.clone() for name, tensor in averaged.tensors.items()}
    shown.load_state_dict(kept)
    chosen.out.mkdir(parents=True, exist_ok=True)
    values = np.array([entry.index for entry in labels.classes.entries], np.uint8)
    for pair in splits.val:  # in float32, as segcli's are
        mask = predicted(shown, reading, pair, facts[pair].height, facts[pair].width, device)
        cv2.imwrite(str(chosen.out / f"{pair.image.stem}.png"), values[mask])
    print(chosen.out)


@torch.inference_mode()
def predicted(
    network: nn.Module, reading: Reading, pair: Pair, height: int, width: int, device: torch.device
) -> np.ndarray:
    """Class positions of the whole image, (row, col), in one pass; mirrored to what the strides divide."""
    image, _ = reading.window(pair, 0, 0, height, width)
    image = np.pad(image, ((0, 0), (0, -height % STRIDE), (0, -width % STRIDE)), "symmetric")
    batch = torch.from_numpy(image)[None].to(device, memory_format=torch.channels_last)
    return network(batch)[0, :, :height, :width].argmax(0).cpu().numpy()


if __name__ == "__main__":
    main()
