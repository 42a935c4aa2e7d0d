"""The weights that come with segcli: what the card says, and what they can do."""

from pathlib import Path

import numpy as np
import pytest
from helpers import SHARED
from PIL import Image

from segcli.console import Console
from segcli.files import sha256_of
from segcli.measures.confusion import confusion_matrix, mean_iou
from segcli.network import checkpoint
from segcli.options import PredictOptions
from segcli.predict import run

CARDS = (Path(__file__).parents[1] / "weights" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["nuclei", "landcover"])
def test_bundled_weights_are_the_ones_on_the_card(name: str) -> None:
    path = checkpoint.bundled()[name]
    assert path == checkpoint.find(name)
    assert path.stat().st_size <= 16_000_000
    assert sha256_of(path) in CARDS
    model = checkpoint.load(path)
    assert model.training["validation"]["mean_iou"] > 0
    assert checkpoint.find(None) == checkpoint.bundled()["nuclei"]


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "data").exists(), reason="the data sets are not beside the checkout")
@pytest.mark.parametrize(("name", "classes", "bar"), [("nuclei", 2, 0.92), ("landcover", 5, 0.56)])
def test_they_do_on_the_validation_part_what_the_card_says(tmp_path: Path, name: str, classes: int, bar: float) -> None:
    val = SHARED / "data" / name / "val"
    images = sorted((val / "images").iterdir())[::3]  # the card has the figure of all of them
    assert run(PredictOptions(tuple(images), tmp_path, (name,)), Console(quiet=True)) == 0
    total = np.zeros((classes, classes), np.int64)
    for path in sorted(tmp_path.glob("*.png")):
        with Image.open(val / "masks" / path.name) as expected, Image.open(path) as predicted:
            known = np.asarray(expected).astype(np.int16)
            total += confusion_matrix(np.where(known == 255, -1, known), np.asarray(predicted), classes)
    assert mean_iou(total) >= bar
