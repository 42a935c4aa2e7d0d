"""What tests call: a model with a known answer, and small files."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch

from segcli.classes import ClassEntry, ClassTable
from segcli.network import checkpoint
from segcli.network.normalise import Normalisation
from segcli.network.unet import NetworkConfig, UNet
from segcli.options import Skip

SHARED = Path(__file__).parents[2] / "shared"
"""Data sets and awkward files that are no part of the project; tests that use them skip without them."""


@contextmanager
def few_open_files(most: int = 128) -> Iterator[None]:
    """A block in which this process may have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def brightness_model(bands: int = 3, dtype: str = "uint8", depth: int = 2) -> checkpoint.Model:
    """A U-Net with random features but a known answer: class 7 where band 0 is above half its range, else class 2.

    Only the first encoder level's first channel and the skip connection carry anything to the head.
    """
    torch.manual_seed(0)
    network = UNet(NetworkConfig(bands, 2, width=4, depth=depth, norm="none"))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.zero_()
            channel = {"encoder.0.0.weight": 0, "encoder.0.2.weight": 0}.get(name)
            if channel is not None or name in (f"decoder.{depth - 1}.0.weight", f"decoder.{depth - 1}.2.weight"):
                parameter[0, 0, 1, 1] = 1  # pass channel 0 through unchanged (ReLU keeps what is positive)
        network.head.weight[1, 0] = 1
        network.head.bias[0] = 1e-3
    half = float(np.iinfo(dtype).max) / 2
    classes = ClassTable((ClassEntry(2, "dark", (0, 0, 90)), ClassEntry(7, "light", (250, 200, 0))))
    return checkpoint.Model(network.eval(), Normalisation(dtype, (half,) * bands, (half,) * bands), classes)


def random_model(classes: int = 3, width: int = 4, depth: int = 3, skip: Skip = "concat") -> checkpoint.Model:
    """A U-Net as it is before training."""
    torch.manual_seed(2)
    network = UNet(NetworkConfig(3, classes, width, depth, skip=skip)).eval()
    table = ClassTable.from_indices(range(classes))
    return checkpoint.Model(network, Normalisation("uint8", (127.0,) * 3, (60.0,) * 3), table)


def write_picture(path: Path, pixels: np.ndarray) -> Path:
    """(row, col) or (row, col, channel in RGB or RGBA order), through OpenCV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.ndim == 3:
        pixels = pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    assert cv2.imwrite(str(path), pixels)
    return path
