"""Whether reading keeps the network waiting, and how a step compares with segmentation-models-pytorch's U-Net.

    python benchmarks/train.py --data ../shared/data/nuclei --steps 40

The table has seconds a step for the same steps: crops made as `train` makes them; the same batches already in memory;
and a plain loop over these with smp's U-Net, its encoder's and decoder's width set so that it needs as many
multiplications. The ratio that matters is the first to the second (bar 1.1).
"""

import argparse
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segcli.network.device import choose_device, keep_freed_memory
from segcli.network.unet import NetworkConfig, UNet
from segcli.training.constants import normalisation
from segcli.training.labels import Labels, find_classes
from segcli.training.losses import Loss
from segcli.training.pairs import find_pairs
from segcli.training.sampling import Batch, Crops, Reading
from segcli.training.survey import survey


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--augment", choices=["none", "light", "full"], default="full")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = choose_device(options.device)
    keep_freed_memory()
    splits = find_pairs(options.data, 0.2, 0)
    labels = Labels(find_classes(options.data, None, splits.all))
    found = survey(splits, labels, print)
    crops = Crops(found, Reading(labels, normalisation(found)), options.crop, 0, options.augment)
    torch.manual_seed(0)
    network = UNet(NetworkConfig(found.bands, len(labels.classes.entries), options.width))
    with closing(crops.batches(0, options.batch)) as batches:
        held = [batch for batch, _ in zip(batches, range(options.steps), strict=False)]
    step = stepper(network, device)
    for batch in held[:3]:  # warm up
        step(batch)
    rows = []
    for _ in range(2):  # in turn, because the machine is shared
        with closing(crops.batches(1, options.batch, workers=torch.get_num_threads())) as batches:
            rows.append(
                ("segcli, crops from files", timed(step, (b for b, _ in zip(batches, held, strict=False)), len(held)))
            )
        rows.append(("segcli, batches in memory", timed(step, held, len(held))))
    try:
        peer = smp_of_the_same_cost(network, options.crop)
    except ImportError as error:
        print(f"segmentation-models-pytorch: {error}")
    else:
        other = stepper(peer, device)
        for batch in held[:3]:
            other(batch)
        rows += [("smp's U-Net, batches in memory", timed(other, held, len(held))) for _ in range(2)]
    best: dict[str, float] = {}
    for name, seconds in rows:
        best[name] = min(seconds, best.get(name, seconds))
    floor = best["segcli, batches in memory"]
    print(f"{len(held)} steps of {options.batch} x {options.crop}, width {options.width}, {options.augment}, {device}")
    print(f"{'way':36} {'s a step':>9} {'ratio':>6}")
    for name, seconds in best.items():
        print(f"{name:36} {seconds:9.3f} {seconds / floor:6.2f}")


def stepper(network: nn.Module, device: torch.device) -> Callable[[Batch], None]:
    network = network.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW([w for w in network.parameters() if w.requires_grad], lr=1e-4, fused=True)
    loss = Loss("ce")

    def step(batch: Batch) -> None:
        images = batch.images.to(device, memory_format=torch.channels_last)
        value = loss(network(images), batch.targets.to(device))
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()

    return step


def timed(step: Callable[[Batch], None], batches: Iterable[Batch], count: int) -> float:
    began = time.perf_counter()
    for batch in batches:
        step(batch)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / count


def smp_of_the_same_cost(network: UNet, crop: int) -> nn.Module:
    """smp's U-Net with a ResNet-34, its decoder widened until it needs as many multiplications as `network`."""
    import segmentation_models_pytorch as smp

    image = torch.zeros(1, network.config.bands, crop, crop)
    wanted = flops(network, image)
    best: tuple[float, nn.Module] | None = None
    for width in range(4, 129, 4):
        decoder = tuple(width << level for level in range(4, -1, -1))
        peer = smp.Unet("resnet34", encoder_weights=None, in_channels=network.config.bands,
                        classes=network.config.classes, decoder_channels=decoder)  # fmt: skip
        distance = abs(flops(peer, image) / wanted - 1)
        if best is None or distance < best[0]:
            best = distance, peer
        else:
            break
    assert best is not None
    print(f"smp's U-Net needs {flops(best[1], image) / wanted:.2f} x the multiplications")
    return best[1]


def flops(network: nn.Module, image: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(image)
    return counter.get_total_flops()


if __name__ == "__main__":
    main()
