import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_picture
from safetensors import safe_open

from segcli.classes import ClassTable
from segcli.console import Console
from segcli.errors import InputError, UsageError
from segcli.network import checkpoint
from segcli.network.normalise import Normalisation
from segcli.options import TrainOptions
from segcli.train import run
from segcli.training.augmentation import augment
from segcli.training.loop import labelled_cross_entropy, learning_rate
from segcli.training.pairs import find_classes, find_pairs
from segcli.training.sampling import Crops, read_pair
from segcli.training.survey import measure_normalisation, survey

Program = Callable[..., subprocess.CompletedProcess[str]]


def write_pair(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    write_picture(folder / "images" / f"{name}.png", image)
    write_picture(folder / "masks" / f"{name}.png", mask)


def blobs(folder: Path, count: int, seed: int = 0) -> None:
    """Noisy pictures of bright discs, and where the discs are; value 255 (no label) along the left border."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:48, :64]
    for n in range(count):
        mask = np.zeros((48, 64), np.uint8)
        for _ in range(4):
            row, col, radius = rng.uniform(0, 48), rng.uniform(0, 64), rng.uniform(4, 9)
            mask[(rows - row) ** 2 + (cols - col) ** 2 < radius**2] = 1
        image = np.clip(60 + 90 * mask[..., None] + rng.normal(0, 25, (48, 64, 3)), 0, 255).astype(np.uint8)
        mask[:, 0] = 255
        write_pair(folder, f"{n:02}", image, mask)


def test_it_learns_what_can_be_learnt(segcli: Program, tmp_path: Path) -> None:
    """Discs under noise, from 12 images in 8 epochs: at least 0.9 mIoU on 4 that were left out."""
    blobs(tmp_path / "data", 16)
    result = segcli(
        "train", "data", "--out", "runs/a", "--width", 8, "--depth", 2, "--crop", 48, "--batch", 2, "--epochs", 8,
        "--val", 0.25, "--learning-rate", 0.005,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["runs/a/best.safetensors"]
    with (tmp_path / "runs" / "a" / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    best = max(history, key=lambda row: float(row["mean_iou"]))
    assert len(history) == 8
    assert float(best["mean_iou"]) >= 0.9
    with safe_open(tmp_path / "runs" / "a" / "best.safetensors", framework="pt") as file:
        record = json.loads(file.metadata()["segcli"])["training"]
    assert record["validation"]["epoch"] == int(best["epoch"])
    assert record["validation"]["mean_iou"] == pytest.approx(float(best["mean_iou"]))
    assert (record["data"]["train"], record["data"]["val"]) == (12, 4)
    assert record["options"]["width"] == 8
    assert str(tmp_path) not in json.dumps(record)
    # What was trained is what predict uses.
    held_out = find_pairs(tmp_path / "data", 0.25, 0).val[0]
    result = segcli("predict", held_out.image, "--out", "mask.png", "--weights", "runs/a/best.safetensors")
    assert result.returncode == 0, result.stderr
    # Weights that are there are not lost to a second run.
    result = segcli("train", "data", "--out", "runs/a", "--epochs", 1)
    assert result.returncode == 2
    assert "best.safetensors: exists" in result.stderr


def test_one_seed_one_result(tmp_path: Path) -> None:
    blobs(tmp_path / "data", 4)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run(
            TrainOptions(tmp_path / "data", tmp_path / name, width=2, depth=1, epochs=1, crop=32, batch=2, seed=seed),
            Console(quiet=True),
        )
    states = [checkpoint.load(tmp_path / name / "best.safetensors").network.state_dict() for name in "abc"]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_given_and_made_splits(tmp_path: Path) -> None:
    blobs(tmp_path / "whole", 10)
    splits = find_pairs(tmp_path / "whole", 0.3, seed=1)
    assert (len(splits.train), len(splits.val)) == (7, 3)
    assert not {p.image for p in splits.train} & {p.image for p in splits.val}
    assert find_pairs(tmp_path / "whole", 0.3, seed=1) == splits
    assert find_pairs(tmp_path / "whole", 0.3, seed=2) != splits
    blobs(tmp_path / "given" / "train", 3)
    blobs(tmp_path / "given" / "val", 1)
    splits = find_pairs(tmp_path / "given", 0.3, seed=1)
    assert (len(splits.train), len(splits.val)) == (3, 1)


@pytest.mark.parametrize("masks", ["labels", "gt", "annotations"])
def test_other_names_for_the_folder_of_masks(tmp_path: Path, masks: str) -> None:
    blobs(tmp_path, 2)
    (tmp_path / "masks").rename(tmp_path / masks)
    assert find_pairs(tmp_path, 0.5, 0).train[0].mask.parent.name == masks


def test_what_is_wrong_with_a_data_set_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no images/ and masks/"):
        find_pairs(tmp_path, 0.2, 0)
    blobs(tmp_path, 2)
    (tmp_path / "masks" / "01.png").rename(tmp_path / "masks" / "02.png")
    with pytest.raises(UsageError, match=r"without a partner: .*images/01\.png, .*masks/02\.png"):
        find_pairs(tmp_path, 0.2, 0)
    (tmp_path / "masks" / "02.png").unlink()
    (tmp_path / "images" / "01.png").unlink()
    with pytest.raises(UsageError, match="1 pairs; expected at least 2"):
        find_pairs(tmp_path, 0.2, 0)


def test_images_and_masks_that_do_not_fit(tmp_path: Path) -> None:
    blobs(tmp_path, 2)
    write_picture(tmp_path / "masks" / "01.png", np.zeros((9, 8), np.uint8))
    splits = find_pairs(tmp_path, 0.5, 0)
    with pytest.raises(InputError, match=r"01\.png: 9 x 8 pixels .*; its image has 48 x 64"):
        survey(splits.train + splits.val)
    write_picture(tmp_path / "masks" / "01.png", np.zeros((48, 64), np.uint16))
    with pytest.raises(InputError, match=r"01\.png: 1 bands of uint16; expected one band"):
        survey(splits.train + splits.val)
    write_pair(tmp_path, "01", np.zeros((48, 64, 3), np.uint16), np.zeros((48, 64), np.uint8))
    with pytest.raises(UsageError, match="dtypes differ"):
        survey(splits.train + splits.val)


def test_a_value_that_is_no_class_is_named(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.zeros((4, 4), np.uint8), np.full((4, 4), 7, np.uint8))
    pair = find_pairs_of_one(tmp_path)
    with pytest.raises(InputError, match=r"a\.png: values \[7\] are no class; expected \[0, 1\]"):
        read_pair(pair, 0, 0, 4, 4, ClassTable.from_indices([0, 1]), Normalisation("uint8", (0.0,), (1.0,)))


def find_pairs_of_one(folder: Path) -> object:
    from segcli.training.pairs import Pair

    return Pair(folder / "images" / "a.png", folder / "masks" / "a.png")


def test_classes_from_a_file_or_from_the_masks(tmp_path: Path) -> None:
    blobs(tmp_path, 2)
    pairs = find_pairs(tmp_path, 0.5, 0).train
    assert find_classes(tmp_path, None, pairs).indices.tolist() == [0, 1]
    table = {"classes": [{"index": 1, "name": "disc"}, {"index": 0, "name": "ground"}]}
    (tmp_path / "classes.json").write_text(json.dumps(table))
    assert find_classes(tmp_path, None, pairs).names == ("disc", "ground")


def test_normalisation_is_mean_and_deviation_over_all_pixels(tmp_path: Path, rng: np.random.Generator) -> None:
    images = [rng.integers(0, 255, (9, 7, 3), np.uint8), rng.integers(0, 90, (5, 5, 3), np.uint8)]
    grey = rng.integers(0, 255, (6, 6), np.uint8)
    for n, image in enumerate([*images, grey]):
        write_pair(tmp_path, str(n), image, np.zeros(image.shape[:2], np.uint8))
    splits = find_pairs(tmp_path, 0.3, 0)
    pairs = tuple(sorted(splits.train + splits.val, key=lambda pair: pair.image.name))
    found = survey(pairs)
    assert (found.dtype, found.bands, found.heights, found.widths) == ("uint8", 3, (9, 5, 6), (7, 5, 6))
    values = np.concatenate([*[image.reshape(-1, 3) for image in images], np.repeat(grey.reshape(-1, 1), 3, 1)])
    constants = measure_normalisation(pairs, "uint8", 3)
    assert constants.mean == pytest.approx(values.mean(0))
    assert constants.deviation == pytest.approx(values.std(0))


def test_a_constant_band_does_not_divide_by_zero(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.full((4, 4), 9, np.uint8), np.zeros((4, 4), np.uint8))
    constants = measure_normalisation((find_pairs_of_one(tmp_path),), "uint8", 1)  # type: ignore[arg-type]
    assert (constants.mean, constants.deviation) == ((9.0,), (1.0,))


@pytest.fixture
def crops(tmp_path: Path) -> Crops:
    """One image as large as four crops, one smaller than a crop; band 0 of the image is its mask."""
    rng = np.random.default_rng(2)
    for name, shape in (("large", (40, 40)), ("small", (11, 25))):
        mask = rng.integers(0, 2, shape).astype(np.uint8)
        write_pair(tmp_path, name, mask, mask)
    pairs = find_pairs(tmp_path, 0.5, 0)
    ordered = tuple(sorted(pairs.train + pairs.val, key=lambda pair: pair.image.name))
    identity = Normalisation("uint8", (0.0,), (1.0,))
    return Crops(ordered, (40, 11), (40, 25), 20, ClassTable.from_indices([0, 1]), identity, seed=5)


def test_an_epoch_covers_each_image_about_once(crops: Crops) -> None:
    assert sorted(crops.order(0)) == [0, 0, 0, 0, 1]
    assert crops.order(0).tolist() == crops.order(0).tolist()
    assert any(crops.order(0).tolist() != crops.order(epoch).tolist() for epoch in range(1, 6))
    images, targets = next(crops.batches(0, 4))
    assert (images.shape, targets.shape) == ((4, 1, 20, 20), (4, 20, 20))
    assert [len(images) for images, _ in crops.batches(0, 2)] == [2, 2]
    assert [len(images) for images, _ in crops.batches(0, 9)] == [5]


def test_image_and_target_stay_together(crops: Crops) -> None:
    for number in range(20):
        image, target = crops.crop(number % 2, 3, number)
        known = target >= 0
        # Contrast and brightness change both values, and by the same amounts everywhere.
        dark, light = image[0][known & (target == 0)], image[0][known & (target == 1)]
        assert np.ptp(dark) < 1e-6
        assert np.ptp(light) < 1e-6
        assert light[0] - dark[0] > 0.7
        assert known.mean() == (1 if number % 2 == 0 else 11 / 20)
    assert np.array_equal(crops.crop(0, 3, 1)[0], crops.crop(0, 3, 1)[0])
    assert not np.array_equal(crops.crop(0, 3, 1)[0], crops.crop(0, 4, 1)[0])


def test_all_eight_symmetries_occur() -> None:
    image = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    rng = np.random.default_rng(0)
    orders = {tuple(augment(image, image[0].astype(np.int16), rng)[1].ravel()) for _ in range(200)}
    assert len(orders) == 8


def test_loss_counts_labelled_pixels_only() -> None:
    scores = torch.randn(2, 3, 4, 4)
    targets = torch.randint(0, 3, (2, 4, 4))
    targets[:, :2] = -1
    expected = torch.nn.functional.cross_entropy(scores[:, :, 2:], targets[:, 2:])
    assert torch.isclose(labelled_cross_entropy(scores, targets), expected)
    assert labelled_cross_entropy(scores, torch.full((2, 4, 4), -1)) == 0


def test_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [learning_rate(step, 100, 0.1) for step in range(101)]
    assert max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) == 4
    assert rates[0] == pytest.approx(0.02)
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[100] == pytest.approx(0)


def test_weights_that_run_away_are_said(tmp_path: Path, segcli: Program) -> None:
    blobs(tmp_path / "data", 3)
    small = ("--width", 2, "--depth", 1, "--norm", "none", "--crop", 32, "--epochs", 2, "--batch", 1)
    result = segcli("train", "data", *small, "--learning-rate", 1e30)
    assert result.returncode == 3
    assert "--learning-rate" in result.stderr
    assert "Traceback" not in result.stderr
