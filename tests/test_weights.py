"""The weights that come with segcli: what the card says, and what they can do."""

from pathlib import Path

import numpy as np
import pytest
from helpers import SHARED
from PIL import Image

from segcli.console import Console
from segcli.files import sha256_of
from segcli.measures.confusion import confusion_matrix, intersection_over_union
from segcli.network import checkpoint
from segcli.options import PredictOptions
from segcli.predict import run

CARDS = (Path(__file__).parents[1] / "weights" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["nuclei"])
def test_bundled_weights_are_the_ones_on_the_card(name: str) -> None:
    path = checkpoint.bundled()[name]
    assert path == checkpoint.find(name)
    assert path.stat().st_size <= 16_000_000
    assert sha256_of(path) in CARDS
    model = checkpoint.load(path)
    assert model.training["validation"]["mean_iou"] > 0
    assert checkpoint.find(None) == checkpoint.bundled()["nuclei"]


def mean_and_total_iou(masks: Path, truth: Path) -> tuple[float, float]:
    """IoU of class 1: mean over the images, and of all pixels together."""
    total, each = np.zeros((2, 2), np.int64), []
    for path in (truth / mask.name for mask in sorted(masks.glob("*.png"))):
        with Image.open(path) as expected, Image.open(masks / path.name) as predicted:
            matrix = confusion_matrix(np.asarray(expected).astype(np.int16), np.asarray(predicted), 2)
        each.append(intersection_over_union(matrix)[1])
        total += matrix
    return float(np.nanmean(each)), float(intersection_over_union(total)[1])


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "data" / "nuclei").exists(), reason="the nuclei data set is not beside the checkout")
def test_nuclei_on_the_validation_part(tmp_path: Path) -> None:
    val = SHARED / "data" / "nuclei" / "val"
    images = sorted((val / "images").iterdir())[::3]  # the card has the figure of all of them
    assert run(PredictOptions(tuple(images), tmp_path), Console(quiet=True)) == 0
    _, total = mean_and_total_iou(tmp_path, val / "masks")
    assert total >= 0.80
