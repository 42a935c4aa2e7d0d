import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
import torch
from helpers import write_picture
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from rasterio.transform import from_origin
from rasterio.warp import transform
from ready import Ready
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy import ndimage

from segcli.classes import ClassTable
from segcli.console import Console
from segcli.errors import BusyError, NothingDoneError, UsageError
from segcli.files import held
from segcli.network import checkpoint
from segcli.network.checkpoint import KEY_OF_STATE
from segcli.network.encoders import imagenet_weights
from segcli.network.normalise import Normalisation
from segcli.network.unet import NetworkConfig, UNet
from segcli.options import Augment, LossKind, TrainOptions
from segcli.raster.source import Source
from segcli.train import Kept, _prepared, run
from segcli.training import loop, sampling
from segcli.training.augmentation import ELASTIC_STEP, Crop, _interpolation, augment
from segcli.training.borders import border_weights, numbered, parted
from segcli.training.constants import normalisation
from segcli.training.findings import warnings
from segcli.training.interrupts import noticed
from segcli.training.labels import Labels, find_classes, without
from segcli.training.loop import learning_rate
from segcli.training.losses import Loss, class_weights
from segcli.training.pairs import Splits, find_pairs
from segcli.training.processes import Processes
from segcli.training.sampling import Crops, Reading
from segcli.training.state import Averaged, Progress
from segcli.training.survey import Survey, survey
from segcli.training.validation import Validation

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


def test_many_images_are_split_in_time_that_follows_their_number(tmp_path: Path) -> None:
    """Of 40 000 tiles it took 40 s: each was looked for in a list of those that are for validation."""
    seconds = []
    for count in (1_000, 32_000):
        lines = [f"images/{n:06}.png,masks/{n:06}.png" for n in range(count)]
        (tmp_path / "pairs.csv").write_text("\n".join(["image,mask", *lines]))
        attempts = []
        for _ in range(2):
            began = time.process_time()
            splits = find_pairs(tmp_path / "pairs.csv", 0.2, 0)
            attempts.append(time.process_time() - began)
        seconds.append(min(attempts))
        assert (len(splits.train), len(splits.val)) == (count * 8 // 10, count * 2 // 10)
    assert seconds[1] < 150 * seconds[0]  # for 32 times as many; their square is 1024


@pytest.mark.parametrize("masks", ["labels", "gt", "annotations"])
def test_other_names_for_the_folder_of_masks(tmp_path: Path, masks: str) -> None:
    blobs(tmp_path, 2)
    (tmp_path / "masks").rename(tmp_path / masks)
    assert find_pairs(tmp_path, 0.5, 0).train[0].mask.parent.name == masks


def test_what_is_wrong_with_a_data_set_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no images/ and no masks/"):
        find_pairs(tmp_path, 0.2, 0)
    blobs(tmp_path, 2)
    (tmp_path / "masks" / "01.png").rename(tmp_path / "masks" / "02.png")
    with pytest.raises(UsageError, match=r"masks has none for .*images/01\.png; .*images has none for .*masks/02\.png"):
        find_pairs(tmp_path, 0.2, 0)
    (tmp_path / "masks" / "02.png").unlink()
    (tmp_path / "images" / "01.png").unlink()
    with pytest.raises(UsageError, match="1 pair; expected at least 2"):
        looked_at(tmp_path)


def looked_at(data: Path, classes: tuple[int, ...] = (0, 1), val: float = 0.5) -> Survey:
    said: list[Exception] = []
    try:
        return survey(find_pairs(data, val, 0), Labels(ClassTable.from_indices(classes)), said.append)
    except UsageError as error:
        raise UsageError("", "; ".join(map(str, [*said, error]))) from error


def test_images_and_masks_that_do_not_fit(tmp_path: Path) -> None:
    """All of them are named, not the first alone."""
    blobs(tmp_path, 4)
    write_picture(tmp_path / "masks" / "01.png", np.zeros((9, 8), np.uint8))
    write_picture(tmp_path / "masks" / "02.png", np.full((48, 64), 7, np.uint8))
    (tmp_path / "images" / "03.png").write_bytes(b"no picture")
    with pytest.raises(UsageError) as caught:
        looked_at(tmp_path)
    text = str(caught.value)
    assert "01.png: 9 x 8 pixels (height x width); its image has 48 x 64" in text
    assert "02.png: values 7 (3072 pixels) are no class; expected 0, 1" in text
    assert "03.png" in text
    assert "3 of 4 pairs cannot be used" in text


def test_data_that_cannot_be_learnt_from_together(tmp_path: Path) -> None:
    blobs(tmp_path, 3)
    alone = Labels(ClassTable(ClassTable.from_indices([0, 1]).entries[:1]))
    for path in (tmp_path / "masks").iterdir():
        write_picture(path, np.zeros((48, 64), np.uint8))
    with pytest.raises(UsageError, match="one class alone"):
        survey(find_pairs(tmp_path, 0.5, 0), alone, lambda _: None)
    write_picture(tmp_path / "images" / "01.png", np.zeros((48, 64, 3), np.uint16))
    with pytest.raises(UsageError, match="dtypes differ"):
        looked_at(tmp_path)
    write_picture(tmp_path / "images" / "01.png", np.full((48, 64, 4), 200, np.uint8))
    assert looked_at(tmp_path).bands == 3  # alpha is none
    with rasterio.open(tmp_path / "images" / "01.tif", "w", driver="GTiff", count=5, height=48, width=64,
                       dtype="uint8", transform=from_origin(500, 900, 1, 1)) as file:  # fmt: skip
        file.write(np.zeros((5, 48, 64), np.uint8))
    (tmp_path / "images" / "01.png").unlink()
    with pytest.raises(UsageError, match=r"band counts differ: .* has 3, .*01\.tif has 5"):
        looked_at(tmp_path)


def test_masks_in_16_bits_and_in_colours(tmp_path: Path, rng: np.random.Generator) -> None:
    """Each kind gives the positions that 8-bit indices give."""
    indices = rng.choice(np.array([0, 3, 255], np.uint8), (20, 30))
    colors = {0: (0x3C, 0x10, 0x98), 3: (0xFE, 0xDD, 0x3A), 255: (0x9B, 0x9B, 0x9B)}
    rgb = np.zeros((20, 30, 3), np.uint8)
    for value, color in colors.items():
        rgb[indices == value] = color
    table = "index,name,color\n0,building,#3C1098\n3,vegetation,#FEDD3A\n255,unlabelled,#9B9B9B\n"
    (tmp_path / "classes.csv").write_text(table)
    write_pair(tmp_path, "a", np.zeros((20, 30, 3), np.uint8), indices)
    write_pair(tmp_path, "b", np.ones((20, 30, 3), np.uint8), indices.astype(np.uint16))
    write_pair(tmp_path, "c", np.full((20, 30, 3), 2, np.uint8), rgb)
    splits = find_pairs(tmp_path, 0.3, 0)
    labels = Labels(find_classes(tmp_path, None, splits.all))
    assert labels.classes.names == ("building", "vegetation")
    found = survey(splits, labels, lambda error: pytest.fail(str(error)))
    expected = [(indices == 0).sum(), (indices == 3).sum()]
    assert [fact.pixels.tolist() for fact in found.facts.values()] == [expected] * 3
    reading = Reading(labels, Normalisation("uint8", (0.0,) * 3, (1.0,) * 3))
    targets = [reading.window(pair, 0, 0, 20, 30)[1] for pair in splits.all]
    assert np.array_equal(targets[0], np.select([indices == 0, indices == 3], [0, 1], -1))
    assert np.array_equal(targets[0], targets[1])
    assert np.array_equal(targets[0], targets[2])
    rgb[0, 0] = (1, 2, 3)
    write_picture(tmp_path / "masks" / "c.png", rgb)
    with pytest.raises(
        UsageError, match=r"c\.png: values #010203 \(1 pixels\) are no class; expected #3C1098 building"
    ):
        survey_all = []
        try:
            survey(splits, labels, survey_all.append)
        except UsageError as error:
            raise UsageError("", f"{survey_all[0]}; {error}") from error
    (tmp_path / "classes.csv").unlink()
    (tmp_path / "masks" / "a.png").write_bytes((tmp_path / "masks" / "c.png").read_bytes())
    with pytest.raises(UsageError, match=r"nothing says which colour is which class; write .*classes\.csv"):
        find_classes(tmp_path, None, find_pairs(tmp_path, 0.3, 0).all)


def test_black_and_white_masks(tmp_path: Path) -> None:
    blobs(tmp_path, 2)
    for path in (tmp_path / "masks").iterdir():
        mask = cv2.imread(str(path), 0)
        write_picture(path, np.where(mask == 1, 255, 0).astype(np.uint8))
    classes = find_classes(tmp_path, None, find_pairs(tmp_path, 0.5, 0).all)
    assert (classes.indices.tolist(), classes.names, classes.ignore) == ([0, 255], ("background", "foreground"), None)


def test_classes_from_a_file_or_from_the_masks(tmp_path: Path) -> None:
    blobs(tmp_path, 2)
    pairs = find_pairs(tmp_path, 0.5, 0).train
    assert find_classes(tmp_path, None, pairs).indices.tolist() == [0, 1]
    table = {"classes": [{"index": 1, "name": "disc"}, {"index": 0, "name": "ground"}]}
    (tmp_path / "classes.json").write_text(json.dumps(table))
    assert find_classes(tmp_path, None, pairs).names == ("disc", "ground")


def test_pairs_from_a_table(tmp_path: Path) -> None:
    blobs(tmp_path / "all", 4)
    rows = [
        f"all/images/0{n}.png,all/masks/0{n}.png,{split}" for n, split in enumerate(["train", "val", "test", "train"])
    ]
    table = tmp_path / "pairs.csv"
    table.write_text("\n".join(["image,mask,split", *rows]))
    splits = find_pairs(table, 0.2, 0)
    assert [[pair.image.stem for pair in part] for part in (splits.train, splits.val)] == [["00", "03"], ["01"]]
    table.write_text(
        "\n".join(["image,mask,group", *(f"all/images/0{n}.png,all/masks/0{n}.png,g{n // 2}" for n in range(4))])
    )
    splits = find_pairs(table, 0.5, 0)
    assert [{pair.group for pair in part} for part in (splits.train, splits.val)] in (
        [{"g0"}, {"g1"}],
        [{"g1"}, {"g0"}],
    )
    for bad in ("a,b\n1,2\n", "image,mask,split\na.png,b.png,later\n", "image,mask\na.png,\n"):
        table.write_text(bad)
        with pytest.raises(UsageError, match=r"pairs\.csv"):
            find_pairs(table, 0.2, 0)


def test_groups_stay_together(tmp_path: Path) -> None:
    for scene in range(5):
        for part in range(scene + 1):
            write_pair(tmp_path, f"scene{scene}_{part}", np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8))
    for seed in range(6):
        splits = find_pairs(tmp_path, 0.3, seed, r"scene(\d)")
        sides = [{pair.group for pair in part} for part in (splits.train, splits.val)]
        assert not sides[0] & sides[1]
        assert sides[0] | sides[1] == set("01234")
        assert 1 <= len(splits.val) <= 9
    with pytest.raises(UsageError, match="finds nothing in its name"):
        find_pairs(tmp_path, 0.3, 0, "tile")
    with pytest.raises(UsageError, match="all pairs are of group 'scene'"):
        find_pairs(tmp_path, 0.3, 0, "scene")


def test_what_is_odd_about_data_is_said(tmp_path: Path) -> None:
    for side in ("train", "val"):
        blobs(tmp_path / side, 2, seed=3)  # the same images on both sides
    write_pair(tmp_path / "train", "flat", np.full((9, 9, 3), 5, np.uint8), np.full((9, 9), 255, np.uint8))
    found = looked_at(tmp_path, (0, 1, 4))
    said = list(warnings(found, ("ground", "disc", "ghost")))
    assert any("flat.png: constant" in line for line in said)
    assert any("flat.png: not one labelled pixel" in line for line in said)
    assert any("class ghost is in no training mask" in line for line in said)
    assert sum("the same image is in training and in validation" in line for line in said) == 2


def test_tiles_of_one_scene_on_both_sides_are_said(tmp_path: Path, rng: np.random.Generator) -> None:
    for scene in "ab":
        for n in range(4):
            write_pair(tmp_path / "names", f"{scene}_{n:03}", rng.integers(0, 9, (8, 8), np.uint8),
                       rng.integers(0, 2, (8, 8), np.uint8))  # fmt: skip
    found = looked_at(tmp_path / "names")
    assert any("parts of a are in training and in validation" in line for line in warnings(found, ("0", "1")))
    kept = survey(find_pairs(tmp_path / "names", 0.5, 0, "^."), Labels(ClassTable.from_indices([0, 1])), lambda _: None)
    assert not any("parts of" in line for line in warnings(kept, ("0", "1")))
    (tmp_path / "earth" / "images").mkdir(parents=True)
    (tmp_path / "earth" / "masks").mkdir()
    for n, left in enumerate((0, 80, 4000, 9000)):  # the first two lie side by side
        for kind in ("images", "masks"):
            with rasterio.open(
                tmp_path / "earth" / kind / f"{'pqrs'[n]}.tif", "w", driver="GTiff", count=1, height=8, width=8,
                dtype="uint8", crs="EPSG:32633", transform=from_origin(500_000 + left, 5_300_000, 10, 10),
            ) as file:  # fmt: skip
                file.write(rng.integers(0, 2, (8, 8), np.uint8), 1)
    pairs = {pair.image.stem: pair for pair in find_pairs(tmp_path / "earth", 0.5, 0).all}
    for val, touching in (("qs", True), ("rs", False)):
        splits = Splits(tuple(pairs[n] for n in "pqrs" if n not in val), tuple(pairs[n] for n in val))
        lines = list(warnings(survey(splits, Labels(ClassTable.from_indices([0, 1])), lambda _: None), ("0", "1")))
        assert any("touch training images on earth" in line for line in lines) == touching


def write_place(folder: Path, name: str, crs: str, left: float, top: float, mask: np.ndarray) -> None:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        with rasterio.open(folder / kind / f"{name}.tif", "w", driver="GTiff", count=1, height=mask.shape[0],
                           width=mask.shape[1], dtype="uint8", crs=crs,
                           transform=from_origin(left, top, 10, 10)) as file:  # fmt: skip
            file.write(mask if kind == "masks" else mask * 9 + len(name), 1)


def test_places_on_earth_are_compared_across_reference_systems(tmp_path: Path, rng: np.random.Generator) -> None:
    """12 E, 48 N in two zones is one place; the same numbers in two zones are two. Who splits alone is not told to use
    --group-by."""
    places = {
        "same": (transform("EPSG:4326", "EPSG:32632", [12], [48]), transform("EPSG:4326", "EPSG:32633", [12], [48])),
        "numbers": (([500_000], [5_300_000]), ([500_000], [5_300_000])),
        "pacific": (transform("EPSG:4326", "EPSG:32660", [180], [2]), transform("EPSG:4326", "EPSG:32601", [180], [2])),
    }
    for name, (one, two) in places.items():
        zones = ("EPSG:32660", "EPSG:32601") if name == "pacific" else ("EPSG:32632", "EPSG:32633")
        for side, crs, (x, y) in zip(("train", "val"), zones, (one, two), strict=True):
            mask = rng.integers(0, 2, (8, 8), np.uint8)
            write_place(tmp_path / name / side, side, crs, x[0], y[0], mask)
        said = " ".join(warnings(looked_at(tmp_path / name), ("0", "1")))
        assert ("touch training images on earth" in said) == (name != "numbers")
        assert ("keep the parts of a scene on one side" in said) == (name != "numbers")
        assert "--group-by" not in said


def test_normalisation_is_mean_and_deviation_over_all_pixels(tmp_path: Path, rng: np.random.Generator) -> None:
    images = [rng.integers(0, 255, (9, 7, 3), np.uint8), rng.integers(0, 90, (5, 5, 3), np.uint8)]
    grey = rng.integers(0, 255, (6, 6), np.uint8)
    for n, image in enumerate([*images, grey]):
        write_pair(tmp_path, str(n), image, rng.integers(0, 2, image.shape[:2], np.uint8))
    pairs = find_pairs(tmp_path, 0.3, 0).all
    found = survey(Splits(pairs, pairs[:1]), Labels(ClassTable.from_indices([0, 1])), lambda _: None)
    assert (found.dtype, found.bands) == ("uint8", 3)
    values = np.concatenate([*[image.reshape(-1, 3) for image in images], np.repeat(grey.reshape(-1, 1), 3, 1)])
    constants = normalisation(found)
    assert constants.mean == pytest.approx(values.mean(0))
    assert constants.deviation == pytest.approx(values.std(0))


def test_16_bit_images_are_normalised_without_their_outliers(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    image = rng.normal(3000, 100, (2, 90, 90)).astype(np.uint16)
    image[:, 3, 3:20] = 65535
    image[:, :10] = 0  # no data
    for n in range(2):
        with rasterio.open(tmp_path / "images" / f"{n}.tif", "w", driver="GTiff", count=2, height=90, width=90,
                           dtype="uint16", nodata=0, transform=from_origin(500, 900, 1, 1)) as file:  # fmt: skip
            file.write(image)
        write_picture(tmp_path / "masks" / f"{n}.png", rng.integers(0, 2, (90, 90), np.uint8))
    constants = normalisation(looked_at(tmp_path))
    assert constants.mean == pytest.approx((3000, 3000), abs=10)
    assert constants.deviation == pytest.approx((100, 100), rel=0.1)
    pair = find_pairs(tmp_path, 0.5, 0).train[0]
    pixels, target = Reading(Labels(ClassTable.from_indices([0, 1])), constants).window(pair, 0, 0, 90, 90)
    assert (pixels[:, :10] == 0).all()
    assert (target[:10] == -1).all()
    assert (target[10:] >= 0).all()


def test_a_constant_band_does_not_divide_by_zero(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in "ab":
        write_pair(tmp_path, name, np.full((4, 4), 9, np.uint8), rng.integers(0, 2, (4, 4), np.uint8))
    constants = normalisation(looked_at(tmp_path))
    assert (constants.mean, constants.deviation) == ((9.0,), (1.0,))


@pytest.fixture
def found(tmp_path: Path) -> Survey:
    """One image as large as four crops, one smaller than a crop; band 0 of the image is its mask."""
    rng = np.random.default_rng(2)
    for name, shape in (("large", (40, 40)), ("small", (11, 25))):
        mask = rng.integers(0, 2, shape).astype(np.uint8)
        write_pair(tmp_path, name, mask, mask)
    pairs = find_pairs(tmp_path, 0.5, 0).all
    ordered = tuple(sorted(pairs, key=lambda pair: pair.image.name))
    return survey(Splits(ordered, ordered[:1]), Labels(ClassTable.from_indices([0, 1])), lambda _: None)


def crops_of(found: Survey, cache: int = 2**20, **more: object) -> Crops:
    identity = Normalisation("uint8", (0.0,), (1.0,))
    return Crops(found, Reading(Labels(ClassTable.from_indices([0, 1])), identity, cache_bytes=cache), 20, 5, **more)  # type: ignore[arg-type]


def test_an_epoch_covers_each_image_about_once(found: Survey) -> None:
    crops = crops_of(found)
    assert sorted(crops.order(0)) == [0, 0, 0, 0, 1]
    assert crops.order(0).tolist() == crops.order(0).tolist()
    assert any(crops.order(0).tolist() != crops.order(epoch).tolist() for epoch in range(1, 6))
    with closing(crops.batches(0, 4)) as batches:
        batch = next(batches)
    assert (batch.images.shape, batch.targets.shape) == ((4, 1, 20, 20), (4, 20, 20))
    assert [len(batch.images) for batch in crops.batches(0, 2)] == [2, 2]
    assert [len(batch.images) for batch in crops.batches(0, 9)] == [5]


def test_batches_are_the_same_by_threads_from_the_middle_and_in_parts(found: Survey) -> None:
    crops, uncached = crops_of(found), crops_of(found, cache=0)
    whole = list(crops.batches(2, 2))
    for others in (crops.batches(2, 2, workers=3), uncached.batches(2, 2)):
        assert all(torch.equal(one.images, other.images) for one, other in zip(whole, others, strict=True))
    (last,) = crops.batches(2, 2, first_step=1)
    assert torch.equal(last.targets, whole[1].targets)
    parts = [list(crops.batches(2, 2, part=(rank, 2))) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([parts[0][step].images, parts[1][step].images]), batch.images)


def test_image_and_target_stay_together(found: Survey) -> None:
    crops = crops_of(found)
    for number in range(20):
        crop = crops.crop(number % 2, 3, number)
        known = crop.target >= 0
        # Contrast and brightness change both values, and by the same amounts everywhere.
        dark, light = crop.image[0][known & (crop.target == 0)], crop.image[0][known & (crop.target == 1)]
        assert np.ptp(dark) < 1e-6
        assert np.ptp(light) < 1e-6
        assert light[0] - dark[0] > 0.7
        assert known.mean() == (1 if number % 2 == 0 else 11 / 20)
    assert np.array_equal(crops.crop(0, 3, 1).image, crops.crop(0, 3, 1).image)
    assert not np.array_equal(crops.crop(0, 3, 1).image, crops.crop(0, 4, 1).image)


def test_crops_bring_the_image_around_them(found: Survey, tmp_path: Path) -> None:
    """12 pixels on each side, from the image where it has them and mirrored elsewhere; labels of the crop alone."""
    crops = crops_of(found, context=12, augment="none")
    pixels = cv2.imread(str(tmp_path / "images" / "large.png"), cv2.IMREAD_UNCHANGED).astype(np.float32)
    around = np.pad(pixels, 12, "symmetric")
    for number in range(10):
        _, row, col = crops._place(0, np.random.default_rng((5, 1, number)))
        crop = crops.crop(0, 1, number)
        assert (crop.image.shape, crop.target.shape) == ((1, 44, 44), (20, 20))
        assert np.array_equal(crop.image[0, 12:32, 12:32], crop.target)
        inside = slice(max(0, row - 12), row + 32), slice(max(0, col - 12), col + 32)
        cut = slice(max(0, 12 - row), 12 - row + 40), slice(max(0, 12 - col), 12 - col + 40)
        assert np.array_equal(crop.image[0][cut], pixels[inside])
        if min(row, col) >= 1 and max(row, col) <= 19:
            assert np.array_equal(crop.image[0], around[row : row + 44, col : col + 44])


def test_without_padding_it_learns_and_predicts_in_rows(tmp_path: Path, segcli: Program) -> None:
    blobs(tmp_path / "data", 6)
    result = segcli("train", "data", "--out", "run", "--padding", "valid", "--width", 8, "--depth", 2, "--crop", 32,
                    "--epochs", 12, "--batch", 4, "--learning-rate", 0.01)  # fmt: skip
    assert result.returncode == 0, result.stderr
    model = checkpoint.load(tmp_path / "run" / "best.safetensors")
    assert model.network.config.padding == "valid"
    assert model.training["validation"]["mean_iou"] > 0.8
    result = segcli(
        "predict", "data/images", "--out", "masks", "--weights", "run/best.safetensors", "--stitch", "stream"
    )
    assert result.returncode == 0, result.stderr
    pixels = cv2.imread(str(tmp_path / "data" / "images" / "03.png"))[:, :, ::-1].transpose(2, 0, 1)
    mean, deviation = (
        np.array(part)[:, None, None] for part in (model.normalisation.mean, model.normalisation.deviation)
    )
    with torch.inference_mode():
        scores = model.network(torch.from_numpy((pixels - mean) / deviation).float()[None])[0]
    top = scores.topk(2, dim=0).values
    clear = (top[0] - top[1] > 1e-3).numpy()
    with Image.open(tmp_path / "masks" / "03.png") as picture:
        mask = np.asarray(picture)
    assert np.array_equal(mask[clear], scores.argmax(0).numpy()[clear])
    assert clear.mean() > 0.99
    result = segcli("train", "data", "--out", "no", "--padding", "valid", "--encoder", "resnet18")
    assert (result.returncode, "--padding valid: resnet18 pads" in result.stderr) == (2, True), result.stderr


def test_half_precision_and_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 on the CPU learns as float32 does; --compile trains what the compiler gives back."""
    blobs(tmp_path / "data", 4)
    options = TrainOptions(tmp_path / "data", tmp_path / "a", width=8, depth=1, epochs=6, crop=32, batch=2,
                           learning_rate=0.01, device="cpu")  # fmt: skip
    compiled: list[object] = []
    seen: list[torch.dtype] = []

    def compiler(network: UNet) -> object:
        compiled.append(network)

        def forward(images: torch.Tensor, with_context: bool) -> torch.Tensor:
            scores = network(images, with_context)
            seen.append(scores.dtype)
            return scores

        return forward

    monkeypatch.setattr(torch, "compile", compiler)
    runs = [options, dataclasses.replace(options, out=tmp_path / "b", precision="bf16", compile=True)]
    for each in runs:
        assert run(each, Console(quiet=True)) == 0
    assert len(compiled) == 1
    assert set(seen) == {torch.bfloat16}
    full, half = (checkpoint.load(each.out / "best.safetensors") for each in runs if each.out)
    histories = [history_of(tmp_path / name / "history.csv") for name in "ab"]
    differences = [float(row["loss"]) - float(other["loss"]) for row, other in zip(*histories, strict=True)]
    assert 0 < max(map(abs, differences)) < 0.05
    assert half.training["validation"]["mean_iou"] == pytest.approx(full.training["validation"]["mean_iou"], abs=0.05)
    assert all(weights.dtype == torch.float32 for weights in half.network.parameters())


def test_rare_classes_are_sought(tmp_path: Path) -> None:
    """One image in ten holds a small disc: with balance about a quarter of the crops show it."""
    for n in range(10):
        mask = np.zeros((256, 256), np.uint8)
        if n == 3:
            mask[200:210, 30:40] = 1
        write_pair(tmp_path, str(n), mask, mask)
    pairs = find_pairs(tmp_path, 0.1, 0).all
    found = survey(Splits(pairs, pairs[:1]), Labels(ClassTable.from_indices([0, 1])), lambda _: None)
    reading = Reading(Labels(ClassTable.from_indices([0, 1])), Normalisation("uint8", (0.0,), (1.0,)))
    for size in (32, 64, 100):
        shares = []
        for balance in (False, True):
            crops = Crops(found, reading, size, 0, "none", balance=balance)
            shares.append(np.mean([(crops.crop(n % 10, 0, n).target == 1).any() for n in range(400)]))
        assert shares[0] < 0.07
        assert 0.18 < shares[1] < 0.4, size


def test_all_eight_symmetries_occur() -> None:
    image = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    rng = np.random.default_rng(0)
    crop = Crop(image, image[0].astype(np.int16), image[0].astype(np.int32))
    changed = [augment(crop, rng, "light") for _ in range(200)]
    assert len({tuple(one.target.ravel()) for one in changed}) == 8
    assert all(np.array_equal(one.target, one.objects) for one in changed)
    assert augment(crop, rng, "none") is crop


def test_what_is_upright_stays_so() -> None:
    """The sky is above in every crop, and both sides come left."""
    rng = np.random.default_rng(0)
    sky = np.zeros((64, 64), np.int16)
    sky[32:] = 1  # the ground
    sky[40:, :20] = 2  # a house on its left
    crop = Crop(sky[None].astype(np.float32), sky)
    for level in ("light", "geometric", "full"):
        moved = [augment(crop, rng, level, upright=True) for _ in range(60)]
        assert all(one.target[:20].mean() < 0.2 and (one.target[-20:] > 0).mean() > 0.8 for one in moved), level
        assert {(one.target[-4:, :8] == 2).mean() > 0.5 for one in moved} == {False, True}, level
        turned_over = [augment(crop, rng, level) for _ in range(60)]
        assert any(one.target[:20].mean() > 0.8 for one in turned_over), level


def test_values_that_measure_something_are_moved_alone() -> None:
    """No value appears that lies not between those of the crop, and a plane stays what it was."""
    rng = np.random.default_rng(0)
    image = np.stack([rng.normal(0, 1, (48, 48)), np.full((48, 48), 0.7)]).astype(np.float32)
    crop = Crop(image, (image[0] > 0).astype(np.int16))
    for _ in range(30):
        light = augment(crop, rng, "light", keep_values=True)
        np.testing.assert_array_equal(np.sort(light.image.reshape(2, -1)), np.sort(image.reshape(2, -1)))
        warped = augment(crop, rng, "geometric", keep_values=True).image
        assert image[0].min() <= warped[0].min() < warped[0].max() <= image[0].max()
        np.testing.assert_allclose(warped[1], 0.7, rtol=1e-6)
    assert any(augment(crop, rng, "light").image[1, 0, 0] != image[1, 0, 0] for _ in range(3))


def test_options_of_crops_reach_the_crops(found: Survey) -> None:
    chosen = {"augment": "geometric", "upright": True, "keep_values": True, "balance": True, "border_weight": 3.0}
    chosen |= {"border_gap": 1, "seed": 7}
    options = TrainOptions(Path(), width=2, depth=1, crop=32, **chosen)  # type: ignore[arg-type]
    reading = Reading(Labels(ClassTable.from_indices([0, 1])), Normalisation("uint8", (0.0,), (1.0,)))
    network = UNet(NetworkConfig(1, 2, 2, 1))
    crops = _prepared(network, options, found, reading, None, Processes(), torch.device("cpu")).crops
    assert {name: getattr(crops, name) for name in chosen} == chosen


def test_full_augmentation_changes_colours_and_keeps_grey() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((32, 32), np.int16)
    colours = np.ones((3, 32, 32), np.float32) * np.array([1, 0, -1], np.float32)[:, None, None]
    spread = [np.ptp(augment(Crop(colours, mask), rng, "full").image.mean((1, 2))) for _ in range(60)]
    assert min(spread) < 1.4
    assert max(spread) > 2.6
    light = [augment(Crop(colours, mask), rng, "light").image.mean((1, 2)) for _ in range(60)]
    assert all(1.49 < np.ptp(one) < 2.51 for one in light)


def test_geometric_augmentation_moves_pixels_and_leaves_their_colours_apart() -> None:
    """Bands that are one another's negative stay so but for contrast and brightness, which all bands share."""
    rng = np.random.default_rng(0)
    half = np.where(np.arange(32) < 16, 1, -1).astype(np.float32) * np.ones((32, 1), np.float32)
    crop = Crop(np.stack([half, -half, np.zeros_like(half)]), (half > 0).astype(np.int16))
    changed = [augment(crop, rng, "geometric") for _ in range(60)]
    for one in changed:
        brightness = one.image[2]
        assert np.ptp(brightness) < 1e-6
        np.testing.assert_allclose(one.image[0] - brightness, brightness - one.image[1], atol=1e-5)
    straight = [np.ptp(one.target, 0).any() == 0 or np.ptp(one.target, 1).any() == 0 for one in changed]
    assert 0.1 < np.mean(straight) < 0.6  # as many are left unwarped


@pytest.mark.parametrize("level", ["geometric", "full"])
def test_augmentation_moves_labels_with_the_image(level: Augment) -> None:
    """Of a picture whose labels are its brightness, also after turning, scaling and deforming."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:96, :96]
    mask = (((rows - 40) ** 2 + (cols - 55) ** 2) < 25**2).astype(np.int16)
    crop = Crop(np.stack([mask, -mask]).astype(np.float32), mask)
    moved = [augment(crop, rng, level) for _ in range(40)]
    for one in moved:
        assert one.image.shape == (2, 96, 96)
        assert one.image.dtype == np.float32
        inside, outside = ndimage.binary_erosion(one.target == 1, iterations=3), one.target == 0
        outside = ndimage.binary_erosion(outside, iterations=3)
        if inside.any() and outside.any():
            assert np.median(one.image[0][inside]) - np.median(one.image[0][outside]) > 0.5
            assert np.median(one.image[1][outside]) - np.median(one.image[1][inside]) > 0.5
    areas = [(one.target == 1).mean() for one in moved]
    assert min(areas) < 0.7 * mask.mean()
    assert max(areas) > 1.3 * mask.mean()


SCORES = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randint(0, 3, (2, 6, 5), generator=torch.Generator().manual_seed(1))
TARGETS[:, :2] = -1


def test_cross_entropy_counts_labelled_pixels_only() -> None:
    expected = torch.nn.functional.cross_entropy(SCORES[:, :, 2:], TARGETS[:, 2:])
    assert torch.isclose(Loss("ce")(SCORES, TARGETS), expected)
    weights = torch.tensor([1.0, 2.0, 5.0])
    expected = torch.nn.functional.cross_entropy(SCORES, TARGETS, weights, ignore_index=-1, label_smoothing=0)
    assert torch.isclose(Loss("ce", weights)(SCORES, TARGETS), expected)
    expected = torch.nn.functional.cross_entropy(SCORES, TARGETS, ignore_index=-1, label_smoothing=0.1)
    assert torch.isclose(Loss("ce", None, 0.1)(SCORES, TARGETS), expected)
    twice = torch.cat([SCORES, SCORES[:1]]), torch.cat([TARGETS, TARGETS[:1]])
    pixel = torch.ones(TARGETS.shape)
    pixel[0] = 2  # counts the first image twice
    assert torch.isclose(Loss("ce")(SCORES, TARGETS, pixel), Loss("ce")(*twice))


@pytest.mark.parametrize("kind", ["ce", "dice", "ce+dice", "focal", "lovasz", "ce+lovasz"])
def test_losses(kind: str) -> None:
    """Least for what is right, larger the more is wrong, 0 without labels, and a gradient that leads down."""
    loss = Loss(kind)  # type: ignore[arg-type]
    right = 20 * torch.nn.functional.one_hot(TARGETS.clamp(min=0), 3).movedim(-1, 1).float()
    assert loss(right, TARGETS) < 1e-3
    assert loss(right, TARGETS) < loss(SCORES, TARGETS) < loss(-right, TARGETS)
    assert loss(SCORES, torch.full_like(TARGETS, -1)) == 0
    scores = SCORES.clone().requires_grad_()
    first = loss(scores, TARGETS)
    first.backward()
    assert scores.grad is not None
    assert (scores.grad[:, :, :2] == 0).all()  # without a label
    assert loss(scores - 0.5 * scores.grad, TARGETS) < first


def test_dice_focal_and_lovasz_by_hand() -> None:
    scores, targets = SCORES[:, :, 2:], TARGETS[:, 2:]
    shares = scores.softmax(1).movedim(1, -1).reshape(-1, 3).numpy()
    truth = np.eye(3)[targets.reshape(-1).numpy()]
    dice = 2 * (shares * truth).sum(0) / (shares + truth).sum(0)
    assert float(Loss("dice")(SCORES, TARGETS)) == pytest.approx(1 - dice.mean(), abs=1e-6)
    right = (shares * truth).sum(1)
    assert float(Loss("focal")(SCORES, TARGETS)) == pytest.approx(
        (-((1 - right) ** 2) * np.log(right)).mean(), abs=1e-6
    )
    # Where shares are 0 or 1, the Lovasz extension is the IoU loss itself.
    hard = torch.nn.functional.one_hot(scores.argmax(1), 3).movedim(-1, 1).float() * 200
    found = np.eye(3)[scores.argmax(1).reshape(-1).numpy()]
    iou = (found * truth).sum(0) / np.maximum(found, truth).sum(0)
    assert float(Loss("lovasz")(hard, targets)) == pytest.approx(1 - iou.mean(), abs=1e-5)


def plain_dice(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """As in the paper, pixel by pixel, with a one for each true class."""
    labelled = (targets >= 0).reshape(-1)
    shares = scores.movedim(1, -1).reshape(-1, scores.shape[1])[labelled].softmax(1)
    truth = torch.nn.functional.one_hot(targets.reshape(-1)[labelled], scores.shape[1]).float()
    there = truth.sum(0) > 0
    return (1 - 2 * (shares * truth).sum(0) / (shares + truth).sum(0))[there].mean()


def plain_lovasz(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """As in the paper: the errors of a class sorted, each times the step of the loss of all sets of the worst ones."""
    labelled = (targets >= 0).reshape(-1)
    shares = scores.movedim(1, -1).reshape(-1, scores.shape[1])[labelled].softmax(1)
    truth = targets.reshape(-1)[labelled]
    losses = []
    for n in truth.unique().tolist():
        is_class = truth == n
        errors, order = (is_class.float() - shares[:, n]).abs().sort(descending=True)
        wrong = [order[: count + 1] for count in range(len(order))]
        union = [is_class.sum() + (~is_class[worst]).sum() for worst in wrong]
        loss = [1 - (is_class.sum() - is_class[worst].sum()) / all_ for worst, all_ in zip(wrong, union, strict=True)]
        losses.append(sum(error * step for error, step in zip(errors, np.diff(loss, prepend=0), strict=True)))
    return torch.stack(losses).mean()  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "plain"), [("dice", plain_dice), ("lovasz", plain_lovasz)])
@given(
    classes=st.integers(2, 6), labels=st.lists(st.integers(-1, 5), min_size=2, max_size=2), seed=st.integers(0, 99),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]), half=st.booleans(),
)  # fmt: skip
def test_losses_of_regions_are_what_their_papers_say_however_scores_lie(
    kind: LossKind, plain: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], classes: int, labels: list[int],
    seed: int, layout: torch.memory_format, half: bool,
) -> None:  # fmt: skip
    """In value and gradient, of classes that occur, without labels, in both layouts and precisions."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, classes, 9, 11, generator=random).to(memory_format=layout)
    scores = scores.bfloat16() if half else scores
    few = torch.tensor([min(label, classes - 1) for label in (*labels, 0)])
    targets = few[torch.randint(0, 3, (2, 9, 11), generator=random)]
    one, other = scores.clone().requires_grad_(), scores.clone().float().requires_grad_()
    fast, slow = Loss(kind)(one, targets), plain(other, targets)
    assert fast.item() == pytest.approx(slow.item(), abs=1e-6)
    fast.backward()
    slow.backward()
    assert one.grad is not None and other.grad is not None
    if not (half and kind == "lovasz"):  # numbers so short are often the same, and of equal errors any may be first
        assert torch.allclose(one.grad.float(), other.grad, atol=1e-6, rtol=2**-8 if half else 1e-4)


@pytest.mark.parametrize("other", ["dice", "lovasz"])
def test_weights_of_pixels_and_smoothing_are_for_the_cross_entropy_of_two_losses(other: LossKind) -> None:
    pixel = torch.rand(TARGETS.shape, generator=torch.Generator().manual_seed(0))
    by_class = torch.tensor([1.0, 3.0, 2.0])
    both = Loss(f"ce+{other}", by_class, 0.1)  # type: ignore[arg-type]
    apart = Loss("ce", by_class, 0.1)(SCORES, TARGETS, pixel) + Loss(other)(SCORES, TARGETS)
    assert torch.equal(both(SCORES, TARGETS, pixel), apart)


def test_class_weights_balance_by_the_median() -> None:
    pixels = np.array([[90, 10, 0], [80, 0, 20], [100, 0, 0]])
    # Shares in the images that hold the class: 270 / 300, 10 / 100, 20 / 100.
    assert class_weights(pixels) == pytest.approx([0.2 / 0.9, 2.0, 1.0])
    assert class_weights(np.array([[10**6, 1, 0]]))[1] == 10


def test_border_weights_are_those_of_the_paper(rng: np.random.Generator) -> None:
    """Equation 2, with the distance to every object measured."""
    numbers = np.zeros((50, 60), np.int32)
    for n in range(1, 9):
        row, col = rng.integers(3, 44), rng.integers(3, 54)
        numbers[row : row + 6, col : col + 5] = n * 7
    found = border_weights(numbers, 10)
    distances = np.sort([ndimage.distance_transform_edt(numbers != n) for n in np.unique(numbers[numbers > 0])], axis=0)
    expected = 10 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * 25)) * (numbers == 0)
    np.testing.assert_allclose(found, expected, atol=10 * np.exp(-8))
    assert found.max() > 1
    assert (border_weights(np.zeros((5, 5), np.uint8), 10) == 0).all()


@given(
    values=arrays(np.int64, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 30)),
    kind=st.sampled_from([("uint8", 0), ("int16", 0), ("int16", -9), ("uint32", 2**21), ("uint64", 2**60),
                          ("float32", 0.5), ("float64", -20)]),
)  # fmt: skip
def test_objects_are_numbered_as_sorting_does(values: np.ndarray, kind: tuple[str, float]) -> None:
    """By the table and without it, as of negative, fractional or very large numbers, which is the slow way."""
    dtype, shift = kind
    instances = np.where(values > 0, values * 3 + np.array(shift).astype(dtype), 0).astype(dtype)
    ranks = {value: n for n, value in enumerate(np.unique(instances[instances > 0]).tolist(), start=1)}
    assert np.array_equal(numbered(instances), [[ranks.get(value, 0) for value in row] for row in instances.tolist()])


@pytest.mark.parametrize("side", [16, 33, 100, 256, 403])
def test_deformation_is_that_of_splines_in_two_dimensions(rng: np.random.Generator, side: int) -> None:
    """By the matrix for each side, and by scipy's zoom of the grid."""
    points = 3 + side // ELASTIC_STEP
    shifts = rng.normal(0, 6, (points, points))
    whole = ndimage.zoom(shifts, side / points, order=3, grid_mode=True, mode="nearest")[:side, :side]
    matrix = _interpolation(side, points)
    np.testing.assert_allclose(matrix @ shifts @ matrix.T, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_objects_that_touch_are_parted(rng: np.random.Generator, dtype: type[np.generic]) -> None:
    numbers = np.repeat(np.repeat(rng.integers(0, 4, (9, 8)), 3, 0), 3, 1).astype(dtype)
    if dtype is np.uint64:  # more than a float tells apart
        numbers[numbers > 0] += 2**60
    wide, narrow = parted(numbers, 2), parted(numbers, 1)
    for row, col in np.ndindex(numbers.shape):
        near = numbers[max(0, row - 1) : row + 2, max(0, col - 1) : col + 2]
        is_alone = not {*near.ravel().tolist()} - {0, int(numbers[row, col])}
        assert wide[row, col] == (numbers[row, col] if is_alone else 0)
        assert narrow[row, col] in (wide[row, col], numbers[row, col])
    for found in (wide, narrow):  # what is left of one object touches no other
        places = [
            ndimage.binary_dilation(found == n, np.ones((3, 3))) & (found != n) & (found > 0)
            for n in np.unique(numbers[numbers > 0])
        ]
        assert not np.any(places)
    assert np.array_equal(parted(numbers, 0), numbers)
    half = np.repeat(np.array([[5, 6]], dtype), 4, 1).repeat(9, 0)
    lost = [np.count_nonzero(parted(half, gap) == 0) for gap in (0, 1, 2)]
    assert lost == [0, 9, 18]  # of a straight border one side, or both


def test_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [learning_rate(step / 100, 0.1) for step in range(101)]
    assert max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) == 5
    assert 0 < rates[0] < 0.01
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[100] == pytest.approx(0)


def test_averaged_weights_follow_and_settle() -> None:
    network = torch.nn.BatchNorm1d(1)
    averaged = Averaged(network, 0.9)
    for step in range(200):
        network.weight.data.fill_(1 + (step % 2))
        network.num_batches_tracked.fill_(step)
        averaged.update(network, step)
    assert averaged.tensors["weight"].item() == pytest.approx(1.5, abs=0.06)
    assert averaged.tensors["num_batches_tracked"].item() == 199


def history_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


SMALL = ("--width", 2, "--depth", 1, "--crop", 32, "--batch", 2)


def test_weights_that_run_away_are_said(tmp_path: Path, segcli: Program) -> None:
    blobs(tmp_path / "data", 3)
    result = segcli("train", "data", *SMALL, "--norm", "none", "--epochs", 2, "--clip", 0, "--learning-rate", 1e30)
    assert result.returncode == 3
    assert "lower --learning-rate" in result.stderr
    assert "Traceback" not in result.stderr


def test_check_looks_and_stops(tmp_path: Path, segcli: Program, refused: Callable[..., str]) -> None:
    blobs(tmp_path / "data", 6)
    result = segcli("train", "data", "--check")
    assert result.returncode == 0
    assert "class 1" in result.stdout
    assert not (tmp_path / "runs").exists()
    (tmp_path / "data" / "images" / "02.png").write_bytes(b"x")
    assert "02.png" in refused("train", "data", "--check")
    assert not (tmp_path / "runs").exists()
    for folder, text in (("nowhere", "no such file or folder"), (".", "no images/ and no masks/ in it")):
        assert text in refused("train", folder)


def test_a_run_leaves_all_that_one_asks_for_later(tmp_path: Path, segcli: Program) -> None:
    blobs(tmp_path / "data", 6)
    result = segcli("train", "data", *SMALL, "--epochs", 2, "--json", "--loss", "ce+dice", "--class-weights", "auto",
                    "--augment", "full", "--balance", "--dropout", 0.1, "--label-smoothing", 0.05)  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line.get("epoch") for line in lines[:2]] == [1, 2]
    assert lines[2]["best"] == "runs/data/best.safetensors"
    out = tmp_path / "runs" / "data"
    assert sorted(path.name for path in out.iterdir()) == [
        "best.safetensors", "curves.png", "history.csv", "last.safetensors", "options.json", "validation",
    ]  # fmt: skip
    assert json.loads((out / "options.json").read_text())["loss"] == "ce+dice"
    assert cv2.imread(str(out / "curves.png")).shape[2] == 3
    report = json.loads((out / "validation" / "report.json").read_text())
    assert report["dataset"]["mean_iou"]["value"] == pytest.approx(lines[2]["mean_iou"])
    # The same by the program's own verbs.
    result = segcli("eval", out / "validation" / "masks", out / "validation" / "truth", "--out", "again")
    assert result.returncode == 0, result.stderr
    again = json.loads((tmp_path / "again" / "report.json").read_text())
    assert again["confusion_matrix"] == report["confusion_matrix"]
    assert again["classes"] == report["classes"]


def test_a_stopped_training_goes_on_as_if_nothing_had_been(
    tmp_path: Path, segcli: Program, ready: Ready, refused: Callable[..., str]
) -> None:
    """By SIGTERM in the middle of an epoch, and by a kill: the same history, the same weights."""
    blobs(tmp_path / "data", 6)
    options = [*SMALL, "--batch", 1, "--epochs", 9, "--dropout", 0.2, "--augment", "full"]
    assert segcli("train", "data", "--out", "whole", *options).returncode == 0
    for way in (signal.SIGTERM, signal.SIGKILL):
        out = tmp_path / f"stopped{way}"
        said, its = os.pipe()
        with os.fdopen(said) as lines, Path(os.devnull).open("wb") as nowhere:
            running = ready.start(("train", "data", "--out", out.name, *options), tmp_path, nowhere.fileno(), its)
            os.close(its)
            for line in lines:
                if line.startswith("epoch 2"):
                    running.send(way)
                    break
            rest = lines.read()
        assert running.wait() == {signal.SIGTERM: 143, signal.SIGKILL: -9}[way], rest
        assert (out / "last.safetensors").exists()
        assert len(history_of(out / "history.csv")) < 9
        other = refused("train", "data", "--out", out.name, *options, "--learning-rate", 0.1, "--resume")
        assert "begun with --learning-rate 0.001; now with --learning-rate 0.1" in other
        result = segcli("train", "data", "--out", out.name, *options, "--resume")
        assert result.returncode == 0, result.stderr
        histories = [history_of(tmp_path / name / "history.csv") for name in ("whole", out.name)]
        for one, again in zip(*histories, strict=True):
            for field in one.keys() - {"seconds", "crops_per_second"}:
                assert one[field] == again[field], (way, field)
        states = [
            checkpoint.load(tmp_path / name / "best.safetensors").network.state_dict() for name in ("whole", out.name)
        ]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert "no such file" in refused("train", "data", "--out", "new", *options, "--resume")
    more = [*options[:-5], 10, *options[-4:]]  # one epoch more than a training that came to its end
    assert more[more.index("--epochs") + 1] == 10
    result = segcli("train", "data", "--out", "whole", *more, "--resume")
    assert result.returncode == 0, result.stderr
    assert [row["epoch"] for row in history_of(tmp_path / "whole" / "history.csv")] == [str(n + 1) for n in range(10)]
    (tmp_path / "data" / "classes.csv").write_text("index,name\n1,disc\n0,ground\n")
    assert "begun with classes " in refused("train", "data", "--out", "whole", *more, "--resume")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a short training leaves."""
    folder = tmp_path_factory.mktemp("trained")
    blobs(folder / "data", 4)
    options = TrainOptions(folder / "data", folder / "run", width=4, depth=1, crop=32, epochs=1, device="cpu")
    assert run(options, Console(quiet=True)) == 0
    return folder / "run"


@pytest.mark.parametrize(
    "changed",
    [{"epoch": "x"}, {"epoch": -3}, {"best": None}, {"history": [5]}, {"history": [{"epoch": "<x>"}]}, {"more": 1}],
)  # fmt: skip
def test_a_state_that_is_none_is_refused(
    tmp_path: Path, refused: Callable[..., str], changed: dict[str, object], trained: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    state = tmp_path / "run" / "last.safetensors"
    with safe_open(state, "pt") as file:
        metadata = file.metadata()
    found = json.loads(metadata[KEY_OF_STATE])
    found["progress"] |= changed
    save_file(load_file(state), state, {KEY_OF_STATE: json.dumps(found)})
    blobs(tmp_path / "data", 4)
    said = refused("train", "data", "--out", "run", *SMALL, "--epochs", 1, "--resume")
    assert "last.safetensors: cannot be resumed: " in said


def test_data_behind_a_vrt_are_not_changed_on_the_way(tmp_path: Path, refused: Callable[..., str]) -> None:
    """Nor those that lie elsewhere now: what is learnt counts, and not the files that are named."""
    blobs(tmp_path / "data", 4)
    for path in sorted((tmp_path / "data" / "masks").iterdir()):
        path.rename(tmp_path / path.name)
        (path.with_suffix(".vrt")).write_text(
            '<VRTDataset rasterXSize="64" rasterYSize="48"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
            f"<SourceFilename>{tmp_path / path.name}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
        )
    rows = [f"data/images/{n:02}.png,data/masks/{n:02}.vrt" for n in range(4)]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,mask", *rows]))
    (tmp_path / "classes.csv").write_text("index,name\n0,ground\n1,disc\n")
    options = TrainOptions(tmp_path / "pairs.csv", tmp_path / "run", width=4, depth=1, crop=32, epochs=1, device="cpu")
    assert run(options, Console(quiet=True)) == 0
    shutil.copy(tmp_path / "00.png", tmp_path / "same.png")
    (tmp_path / "same.png").rename(tmp_path / "00.png")
    assert run(dataclasses.replace(options, resume=True, epochs=2), Console(quiet=True)) == 0
    mask = cv2.imread(str(tmp_path / "00.png"), 0)
    cv2.imwrite(str(tmp_path / "00.png"), np.where(mask < 2, 1 - mask, mask))
    with pytest.raises(UsageError, match="begun with data "):
        run(dataclasses.replace(options, resume=True, epochs=3), Console(quiet=True))


def test_the_first_signal_is_noted_and_the_second_ends_the_program() -> None:
    with noticed() as interrupt:
        assert not interrupt
        signal.raise_signal(signal.SIGINT)
        assert interrupt
        assert interrupt.exit_code == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_training_ends_early(tmp_path: Path, segcli: Program) -> None:
    blobs(tmp_path / "data", 6)
    result = segcli("train", "data", "--out", "a", *SMALL, "--epochs", 40, "--patience", 2, "--learning-rate", 1e-12)
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "a" / "history.csv").read_text().splitlines()) < 12
    result = segcli("train", "data", "--out", "b", *SMALL, "--minutes", 0.05)
    assert result.returncode == 0, result.stderr
    last = history_of(tmp_path / "b" / "history.csv")[-1]
    assert float(last["seconds"]) >= 3.0
    assert 0 < float(last["learning_rate"]) < 5e-4  # of the last step, after which the images were validated on


@pytest.mark.parametrize("turned", [False, True])
def test_large_validation_images_go_through_in_rows(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, turned: bool
) -> None:
    """The same matrix as in one pass, with pixels that have no data; of photographs that are turned, too."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for name in "ab":
        pixels = rng.integers(0, 3, (150, 70), np.uint8) * 100
        if turned:
            exif = Image.Exif()
            exif[274] = 2 if name == "a" else 6
            stored = pixels[:, ::-1] if name == "a" else np.rot90(pixels)
            Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "images" / f"{name}.png", exif=exif)
        else:
            with rasterio.open(tmp_path / "images" / f"{name}.tif", "w", driver="GTiff", count=1, height=150, width=70,
                               dtype="uint8", nodata=0, transform=from_origin(500, 900, 1, 1)) as file:  # fmt: skip
                file.write(pixels, 1)
        write_picture(tmp_path / "masks" / f"{name}.png", rng.integers(0, 2, (150, 70), np.uint8))
    found = looked_at(tmp_path)
    torch.manual_seed(0)
    network = UNet(NetworkConfig(1, 2, 4, 2)).eval()
    reading = Reading(Labels(ClassTable.from_indices([0, 1])), normalisation(found))
    said: list[str] = []
    validation = Validation(reading, found.facts, torch.device("cpu"), half=False, say=said.append)
    whole = validation.of(network).matrix(found.splits.all)
    monkeypatch.setattr("segcli.training.validation.WHOLE_PIXELS", 0)
    monkeypatch.setattr("segcli.training.validation.STRIP_HEIGHT", 16)
    assert np.array_equal(validation.of(network).matrix(found.splits.all), whole)
    assert whole.sum() == 2 * 150 * 70 if turned else 0 < whole.sum() < 2 * 150 * 70
    assert not said


def test_a_process_takes_its_share_of_every_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two, whose sums are its own: there is no other."""
    blobs(tmp_path, 12)
    found = looked_at(tmp_path)
    reading = Reading(Labels(ClassTable.from_indices([0, 1])), normalisation(found))
    monkeypatch.setattr("torch.distributed.all_reduce", lambda _: None)
    monkeypatch.setattr(Processes, "together", lambda _, network, *__: network)
    options = TrainOptions(tmp_path, width=2, depth=1, crop=32, batch=4)
    network = UNet(NetworkConfig(3, 2, 2, 1))
    training = _prepared(network, options, found, reading, None, Processes(1, 2), torch.device("cpu"))
    shares, of_old = [], Crops.batches

    def noted(crops: Crops, epoch: int, batch: int, step: int, part: tuple[int, int], workers: int) -> Any:
        shares.append(part)
        return of_old(crops, epoch, batch, step, part, workers)

    monkeypatch.setattr(Crops, "batches", noted)
    progress = Progress()
    assert loop.train_epoch(training, progress, lambda: False)
    assert shares == [(1, 2)]
    assert progress.seen == 4 * progress.step > 4  # of both


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_draws_again_what_it_would_have_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """Dropout of a training that was stopped, in any process; what one draws the others do not."""
    blobs(tmp_path, 8)
    found = looked_at(tmp_path)
    reading = Reading(Labels(ClassTable.from_indices([0, 1])), normalisation(found))
    monkeypatch.setattr("torch.distributed.all_reduce", lambda _: None)
    monkeypatch.setattr("torch.distributed.broadcast", lambda *_: None)
    monkeypatch.setattr(Processes, "together", lambda _, network, *__: network)
    options = TrainOptions(tmp_path, width=2, depth=1, crop=32, batch=2, dropout=0.5)

    def trained(stops: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network = UNet(NetworkConfig(3, 2, 2, 1, dropout=0.5))
        training = _prepared(network, options, found, reading, None, Processes(rank, 2), torch.device("cpu"))
        progress = Progress()
        if stops:
            assert not loop.train_epoch(training, progress, lambda: True)
            assert progress.step == 1
            torch.manual_seed(99)
        assert loop.train_epoch(training, progress, lambda: False)
        assert progress.step > 2
        return network.state_dict()

    whole, stopped = trained(False), trained(True)
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_no_two_steps_draw_the_same() -> None:
    drawn = set()
    for seed, step, rank in product((0, 1), (0, 1, 2), (0, 1)):
        loop.seed_step(seed, step, rank)
        drawn.add(float(torch.rand(())))
    assert len(drawn) == 12


@pytest.mark.slow
def test_two_processes_learn_as_one(tmp_path: Path, segcli: Program) -> None:
    """By torchrun on the CPU: the same losses as one process with the same global batch."""
    blobs(tmp_path / "data", 8)
    options = ["--width", 4, "--depth", 2, "--norm", "none", "--crop", 32, "--batch", 4, "--epochs", 3,
               "--loss", "ce+dice", "--class-weights", "1,3"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    several = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517"]
    command = [*several, "-m", "segcli", "train", "data", "--out", "two", *map(str, options), "--debug"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert segcli("train", "data", "--out", "one", *options).returncode == 0
    histories = [history_of(tmp_path / name / "history.csv") for name in ("one", "two")]
    for one, two in zip(*histories, strict=True):
        assert float(one["loss"]) == pytest.approx(float(two["loss"]), rel=1e-4)
        assert float(one["mean_iou"]) == pytest.approx(float(two["mean_iou"]), abs=1e-3)


@pytest.mark.slow
def test_figures_of_two_processes_are_those_of_the_weights_that_are_kept(tmp_path: Path) -> None:
    """Norms see other crops in each process; what is measured is what the first one stores."""
    blobs(tmp_path / "data", 8)
    options = ["--epochs", 2, "--width", 2, "--depth", 1, "--crop", 16, "--batch", 2, "--augment", "full", "--ema", 0]
    several = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29518"]
    (tmp_path / "traced.py").write_text(
        "import atexit, os\nfrom pathlib import Path\nfrom segcli.cli import main\n"
        "names = lambda: [path.read_text().strip() for path in Path('/proc/self/task').glob('*/comm')]\n"
        "note = lambda: Path('threads' + os.environ['RANK']).write_text(str(names()))\n"
        "atexit.register(note)\n"
        "main()\n"
    )
    command = [*several, "traced.py", "train", "data", "--out", "run", *map(str, options), "--debug"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    for rank in range(2):  # a thread that is still there may want an interpreter that has ended, which is an abort
        assert "gloo" not in (tmp_path / f"threads{rank}").read_text()
    found = json.loads((tmp_path / "run" / "validation" / "report.json").read_text())
    best = max(float(row["mean_iou"]) for row in history_of(tmp_path / "run" / "history.csv"))
    assert found["dataset"]["mean_iou"]["value"] == pytest.approx(best, abs=1e-9)


def test_encoders_of_torchvision(tmp_path: Path, segcli: Program, refused: Callable[..., str]) -> None:
    """Trained without ImageNet weights, and used by predict without a word about what they are."""
    blobs(tmp_path / "data", 4)
    result = segcli("train", "data", "--out", "run", "--encoder", "resnet18", "--no-pretrained", "--up", "nearest",
                    "--width", 4, "--crop", 64, "--epochs", 1, "--batch", 2)  # fmt: skip
    assert result.returncode == 0, result.stderr
    result = segcli("predict", "data/images", "--out", "masks", "--weights", "run/best.safetensors")
    assert result.returncode == 0, result.stderr
    assert "does not stream" not in result.stderr
    network = checkpoint.load(tmp_path / "run" / "best.safetensors").network
    assert (network.config.encoder, network.config.depth) == ("resnet18", 5)
    random = ("--encoder", "resnet18", "--no-pretrained")
    for more, text in ((("--freeze", 2), "--freeze: nothing is pretrained"),
                       ((*random, "--freeze", 2), "--freeze: nothing is pretrained"),
                       ((*random, "--depth", 3), "--depth: resnet18 halves 5 times"),
                       (("--encoder", "resnet18", "--up", "unpool"), "--up unpool"),
                       (("--border-weight", 10), "no instances/"),
                       (("--freeze-norms",), "--freeze-norms: no weights to take them from"),
                       (("--border-gap", 1), "--border-gap: goes with --border-weight")):  # fmt: skip
        assert text in refused("train", "data", "--out", "none", "--width", 4, *more)
    assert not (tmp_path / "none").exists()


def test_without_a_network_imagenet_weights_are_missed_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(NothingDoneError, match=r"resnet18: .*could not be fetched.*--no-pretrained"):
        imagenet_weights("resnet18")


def test_a_full_disk_leaves_the_weights_that_were_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second training fills the disk up with its first weights: one line, and the old ones as they were."""
    blobs(tmp_path / "data", 4)
    options = TrainOptions(tmp_path / "data", tmp_path / "out", width=2, depth=1, epochs=1, crop=32, batch=2)
    assert run(options, Console(quiet=True)) == 0
    before = (tmp_path / "out" / "best.safetensors").read_bytes()

    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    for place, name in (("checkpoint", "best"), ("state", "last")):
        with monkeypatch.context() as patch:
            module = "segcli.network.checkpoint" if place == "checkpoint" else "segcli.training.state"
            patch.setattr(f"{module}.to_bytes", full)
            with pytest.raises(NothingDoneError, match=rf"{name}\.safetensors: cannot be written: No space left"):
                run(dataclasses.replace(options, overwrite=True, seed=1), Console(quiet=True))
        if name == "best":
            assert (tmp_path / "out" / "best.safetensors").read_bytes() == before
        checkpoint.load(tmp_path / "out" / "best.safetensors")
        assert not list((tmp_path / "out").glob(".*"))


def test_what_is_ignored_is_no_label_in_any_kind_of_mask(tmp_path: Path, rng: np.random.Generator) -> None:
    """--ignore 2, with 255 as before: indices, colours, masks with nodata of their own, 16 bits."""
    indices = rng.choice(np.array([0, 1, 2, 255], np.uint8), (20, 30))
    (tmp_path / "classes.csv").write_text("index,name,color\n0,a,#000001\n1,b,#000002\n2,clutter,#0000FF\n")
    colors = np.zeros((20, 30, 3), np.uint8)
    colors[..., 2] = np.select([indices == 0, indices == 1, indices == 2], [1, 2, 255], 1)
    for name, mask in (("a", indices), ("b", np.where(indices == 255, 0, indices).astype(np.uint16)), ("c", colors)):
        write_pair(tmp_path, name, np.full((20, 30, 3), ord(name), np.uint8), mask)
    with rasterio.open(tmp_path / "masks" / "d.tif", "w", driver="GTiff", count=1, height=20, width=30, dtype="uint8",
                       nodata=99, transform=from_origin(500, 900, 1, 1)) as file:  # fmt: skip
        file.write(np.where(indices == 255, 99, indices).astype(np.uint8), 1)
    write_picture(tmp_path / "images" / "d.png", np.full((20, 30, 3), 9, np.uint8))
    splits = find_pairs(tmp_path, 0.3, 0)
    labels = without(find_classes(tmp_path, None, splits.all), 2)
    assert (labels.classes.names, labels.classes.ignore) == (("a", "b"), 255)
    found = survey(splits, labels, lambda error: pytest.fail(str(error)))
    counts = {pair.image.stem: fact.pixels.tolist() for pair, fact in found.facts.items()}
    zero, one, none = ((indices == value).sum() for value in (0, 1, 255))
    assert counts == {"a": [zero, one], "b": [zero + none, one], "c": [zero + none, one], "d": [zero, one]}
    with pytest.raises(UsageError, match="is the only class"):
        without(ClassTable.from_indices([4]), 4)
    (tmp_path / "classes.csv").unlink()
    sixteen = [pair for pair in splits.all if pair.image.stem == "b"]
    assert find_classes(tmp_path, None, tuple(sixteen)).indices.tolist() == [0, 1, 2]


def test_a_column_split_may_be_half_filled(tmp_path: Path) -> None:
    blobs(tmp_path / "all", 4)
    rows = [f"all/images/0{n}.png,all/masks/0{n}.png,{'valid' if n == 2 else ''}" for n in range(4)]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,mask,split", *rows]))
    splits = find_pairs(tmp_path / "pairs.csv", 0.2, 0)
    assert [[pair.image.stem for pair in part] for part in (splits.train, splits.val)] == [["00", "01", "03"], ["02"]]
    for side in ("train", "valid"):
        blobs(tmp_path / "folders" / side, 1)
    assert len(find_pairs(tmp_path / "folders", 0.2, 0).val) == 1


@pytest.mark.parametrize(("gap", "order"), [(1, (0, 1)), (2, (0, 1)), (2, (1, 0))])
def test_border_weights_of_a_crop_are_those_of_the_whole(
    tmp_path: Path, rng: np.random.Generator, gap: int, order: tuple[int, int]
) -> None:
    """And the gap between objects is background, wherever that stands in the class table."""
    numbers = np.zeros((120, 110), np.uint16)
    for n in range(1, 60):
        row, col = rng.integers(0, 112), rng.integers(0, 102)
        numbers[row : row + 7, col : col + 6] = n
    write_pair(tmp_path, "a", rng.integers(0, 9, numbers.shape, np.uint8), (numbers > 0).astype(np.uint8))
    write_pair(tmp_path, "b", rng.integers(0, 9, numbers.shape, np.uint8), (numbers > 0).astype(np.uint8))
    for name in "ab":
        write_picture(tmp_path / "instances" / f"{name}.png", numbers)
    found = looked_at(tmp_path)
    apart = parted(numbers, gap)
    assert np.count_nonzero(apart != numbers) > 0
    whole = 1 + border_weights(apart, 10)
    reading = Reading(Labels(ClassTable.from_indices(order)), Normalisation("uint8", (0.0,), (1.0,)))
    crops = Crops(found, reading, 40, 0, "none", border_weight=10, border_gap=gap)
    for number in range(12):
        crop = crops.crop(0, 0, number)
        inside = crop.target == order.index(1)
        places = [(row, col) for row in range(81) for col in range(71)
                  if np.array_equal((apart > 0)[row : row + 40, col : col + 40], inside)]  # fmt: skip
        row, col = places[0]
        np.testing.assert_allclose(crop.weights, whole[row : row + 40, col : col + 40], atol=10 * np.exp(-8))


@pytest.mark.parametrize("gap", [1, 2])
def test_objects_are_apart_after_augmentation(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, gap: int
) -> None:
    """Whatever turned, scaled and deformed them; a gap of one pixel that is warped itself has holes."""
    numbers = np.kron(np.arange(1, 101).reshape(10, 10), np.ones((12, 12))).astype(np.uint16)
    for name in "ab":
        write_pair(tmp_path, name, rng.integers(0, 9, numbers.shape, np.uint8), np.ones(numbers.shape, np.uint8))
        write_picture(tmp_path / "instances" / f"{name}.png", numbers)
    found = looked_at(tmp_path)
    augmented: list[Crop] = []

    def kept(crop: Crop, *how: Any) -> Crop:
        augmented.append(augment(crop, *how))
        return augmented[-1]

    monkeypatch.setattr(sampling, "augment", kept)
    reading = Reading(Labels(ClassTable.from_indices([0, 1])), Normalisation("uint8", (0.0,), (1.0,)))
    crops = Crops(found, reading, 64, 0, "geometric", border_weight=10, border_gap=gap)
    of_all = []
    for number in range(20):
        crop = crops.crop(0, 0, number)
        inner = (slice(sampling.SIGHT, sampling.SIGHT + 64),) * 2
        objects = augmented[-1].objects
        assert objects is not None and crop.weights is not None and crop.image.shape == (1, 64, 64)
        seen = np.where(crop.target == 1, objects[inner], 0)
        for one, other in ((seen[1:], seen[:-1]), (seen[:, 1:], seen[:, :-1]),
                           (seen[1:, 1:], seen[:-1, :-1]), (seen[1:, :-1], seen[:-1, 1:])):  # fmt: skip
            assert ((one == other) | (one == 0) | (other == 0)).all()
        between = (crop.target == 0) & (objects[inner] > 0)
        assert (crop.weights[crop.target == 1] == 1).all()
        assert (crop.weights[between] > 5).all()
        of_all.append(between.mean())
    assert 0.03 * gap < np.mean(of_all) < 0.2 * gap


def test_options_that_do_nothing_or_do_not_fit_are_refused(tmp_path: Path) -> None:
    blobs(tmp_path / "data", 4)
    options = TrainOptions(tmp_path / "data", tmp_path / "out", width=2, depth=1, crop=32)
    for more, text in (
        ({"loss": "dice", "class_weights": (1.0, 2.0)}, "--class-weights: has no part in --loss dice"),
        ({"loss": "focal", "label_smoothing": 0.1}, "--label-smoothing: has no part"),
        ({"class_weights": (1.0, 2.0, 3.0)}, "3 weights; expected 2"),
        ({"encoder": "resnet18", "pretrained": False, "depth": 5}, "depth 5 needs 64"),
        ({"upright": True, "augment": "none"}, "--upright: with --augment none"),
        ({"keep_values": True, "augment": "none"}, "--keep-values: with --augment none"),
        ({"keep_values": True, "augment": "full"}, "--keep-values: with --augment full.*geometric or light"),
        ({"resume": True, "overwrite": True}, "--resume: with --overwrite"),
    ):
        with pytest.raises(UsageError, match=text):
            run(dataclasses.replace(options, **more), Console(quiet=True))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    for path in (tmp_path / "data" / "masks").iterdir():
        if path.stem == find_pairs(tmp_path / "data", 0.2, 0).val[0].image.stem:
            write_picture(path, np.full((48, 64), 255, np.uint8))
    with pytest.raises(UsageError, match="not one labelled pixel in the validation masks"):
        run(options, Console(quiet=True))


def test_a_frozen_encoder_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs(tmp_path / "data", 4)
    states = []
    saved = Kept.state

    def note(kept: Kept, training: object, progress: object) -> None:
        states.append({n: t.clone() for n, t in training.network.encoder.state_dict().items()})  # type: ignore[attr-defined]
        saved(kept, training, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(Kept, "state", note)
    options = TrainOptions(tmp_path / "data", tmp_path / "first", width=2, crop=64, batch=2, epochs=1,
                           encoder="resnet18", pretrained=False)  # fmt: skip
    assert run(options, Console(quiet=True)) == 0
    states.clear()
    options = TrainOptions(tmp_path / "data", tmp_path / "out", weights=tmp_path / "first" / "best.safetensors",
                           crop=64, batch=2, epochs=3, freeze=2)  # fmt: skip
    assert run(options, Console(quiet=True)) == 0
    first, second, third = states[-3:]  # of each epoch; one more is kept before the first weights are
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(second["body.conv1.weight"], third["body.conv1.weight"])


def test_a_signal_is_heard_where_an_epoch_is_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs(tmp_path / "data", 4)
    saved = Kept.state

    def interrupted(kept: Kept, training: object, progress: Progress) -> None:
        if progress.epoch == 2:
            signal.raise_signal(signal.SIGTERM)
        saved(kept, training, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(Kept, "state", interrupted)
    options = TrainOptions(tmp_path / "data", tmp_path / "out", width=2, depth=1, crop=32, batch=50, epochs=9)
    assert run(options, Console(quiet=True)) == 143
    assert len(history_of(tmp_path / "out" / "history.csv")) == 2


def small(tmp_path: Path, **more: object) -> TrainOptions:
    """Options of a training of a second or two on `tmp_path`/data, into `tmp_path`/out."""
    chosen = {"width": 2, "depth": 1, "crop": 32, "batch": 2, "epochs": 1, **more}
    return TrainOptions(tmp_path / "data", tmp_path / "out", **chosen)  # type: ignore[arg-type]


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, spoil: bool = False) -> None:
    """Have a training get SIGTERM in that step, from 1, as Ctrl-C would do it; `spoil` makes the loss NaN there."""
    whole = loop._step
    taken: list[int] = []

    def counted(*arguments: object) -> torch.Tensor:
        taken.append(1)
        loss = whole(*arguments)  # type: ignore[arg-type]
        if len(taken) == step:
            signal.raise_signal(signal.SIGTERM)
        return loss * torch.nan if spoil and len(taken) == step else loss

    monkeypatch.setattr(loop, "_step", counted)


def test_weights_of_classes_are_the_same_when_it_is_resumed(tmp_path: Path) -> None:
    blobs(tmp_path / "data", 4)
    options = small(tmp_path, class_weights=(1.0, 2.0))
    assert run(options, Console(quiet=True)) == 0
    assert run(dataclasses.replace(options, epochs=2, resume=True), Console(quiet=True)) == 0
    with pytest.raises(UsageError, match=r"begun with --class-weights 1\.0,2\.0; now with --class-weights 1\.0,3\.0"):
        run(dataclasses.replace(options, class_weights=(1.0, 3.0), resume=True), Console(quiet=True))


def test_a_training_that_was_stopped_in_its_first_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not begun anew without being asked, is not changed by a --resume that is refused, and comes to its end
    whatever --minutes says then."""
    blobs(tmp_path / "data", 6)
    options = small(tmp_path, batch=1)
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        assert run(options, Console(quiet=True)) == 143
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["last.safetensors", "options.json"]
    with pytest.raises(UsageError, match=r"last\.safetensors: exists; nothing is overwritten"):
        run(options, Console(quiet=True))
    assert run(dataclasses.replace(options, check=True), Console(quiet=True)) == 0
    before = (out / "options.json").read_bytes()
    with pytest.raises(UsageError, match=r"begun with --learning-rate 0\.001; now with --learning-rate 0\.5"):
        run(dataclasses.replace(options, learning_rate=0.5, resume=True), Console(quiet=True))
    assert (out / "options.json").read_bytes() == before
    assert run(dataclasses.replace(options, minutes=1e-6, resume=True), Console(quiet=True)) == 0
    assert (out / "best.safetensors").exists()


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    blobs(tmp_path / "data", 4)
    (tmp_path / "out").mkdir()
    with held(tmp_path / "out"):
        with pytest.raises(BusyError, match="another run of segcli writes there"):
            run(small(tmp_path), Console(quiet=True))
        assert run(small(tmp_path, check=True), Console(quiet=True)) == 0
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("what", ["loss", "weights"])
def test_weights_that_run_away_do_not_replace_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Also where it is stopped right after, or where only the last step made them NaN."""
    blobs(tmp_path / "data", 6)
    options = small(tmp_path, batch=1)
    assert run(options, Console(quiet=True)) == 0
    files = [tmp_path / "out" / f"{name}.safetensors" for name in ("best", "last")]
    before = [path.read_bytes() for path in files]
    if what == "loss":
        stop_at(monkeypatch, 2, spoil=True)
    else:
        whole = loop._step

        def spoilt(training: loop.Training, *batch: torch.Tensor) -> torch.Tensor:
            whole(training, *batch)
            with torch.no_grad():
                training.network.head.bias[0] = torch.inf
            return torch.zeros(())  # the loss of a step is of the weights before it

        monkeypatch.setattr(loop, "_step", spoilt)
    with pytest.raises(NothingDoneError, match=r"in epoch 2; the weights saved before are as they were; lower"):
        run(dataclasses.replace(options, epochs=2, resume=True), Console(quiet=True))
    assert [path.read_bytes() for path in files] == before


def test_nothing_of_an_earlier_training_stays_beside_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs(tmp_path / "data", 6)
    assert run(small(tmp_path, val=0.5), Console(quiet=True)) == 0
    out = tmp_path / "out"
    masks = out / "validation" / "masks"
    (masks / "0002_x.tif.aux.xml").write_text("by a viewer")
    (masks / "notes.txt").write_text("mine")
    seen: list[bool] = []
    whole = loop._step

    def looking(*arguments: object) -> torch.Tensor:
        seen.append((out / "last.safetensors").exists())
        return whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "_step", looking)
    assert len(list(masks.glob("*.tif"))) == 3
    assert run(small(tmp_path, val=0.2, split_seed=1, overwrite=True), Console(quiet=True)) == 0
    assert not any(seen)  # a kill then, and --resume would go on with the old one
    (pair,) = find_pairs(tmp_path / "data", 0.2, 1).val
    assert sorted(path.name for path in masks.iterdir()) == [f"0000_{pair.image.stem}.tif", "notes.txt"]
    assert len(list((out / "validation" / "truth").iterdir())) == 1


def test_labels_count_where_the_image_has_data(tmp_path: Path, rng: np.random.Generator) -> None:
    """Validation labels that lie where there is no data are none: said before training, not after it."""
    for side, empty in (("train", 2), ("val", 8)):
        mask = rng.integers(0, 2, (8, 8), np.uint8)
        write_place(tmp_path / "data" / side, side, "EPSG:32633", 0, 0, mask)
        with rasterio.open(tmp_path / "data" / side / "images" / f"{side}.tif", "r+") as file:
            pixels = np.arange(1, 65, dtype=np.uint8).reshape(8, 8)
            pixels[:empty] = 0
            file.nodata = 0
            file.write(pixels, 1)
    with pytest.raises(UsageError, match="not one labelled pixel in the validation masks"):
        run(small(tmp_path), Console(quiet=True))
    splits = find_pairs(tmp_path / "data", 0.5, 0)
    found = survey(dataclasses.replace(splits, val=splits.train), Labels(ClassTable.from_indices([0, 1])), pytest.fail)
    (fact,) = found.facts.values()
    assert fact.pixels.sum() == 48
    with rasterio.open(splits.train[0].mask) as file:
        assert fact.pixels[1] == file.read(1)[2:].sum()


def test_white_that_is_taken_for_no_label_is_said(tmp_path: Path) -> None:
    """Masks of 0 and 255 beside a table of 0 and 1: all that is left would be background."""
    blobs(tmp_path / "data", 4)
    for path in (tmp_path / "data" / "masks").iterdir():
        mask = cv2.imread(str(path), 0)
        write_picture(path, np.where(mask == 1, 255, 0).astype(np.uint8))
    table = {"classes": [{"index": 0, "name": "ground"}, {"index": 1, "name": "disc"}]}
    (tmp_path / "data" / "classes.json").write_text(json.dumps(table))
    with pytest.raises(UsageError, match=r"no class but ground, and \d+ pixels of 255.* has 0 ground, 1 disc; if 255"):
        run(small(tmp_path), Console(quiet=True))
    table = {"classes": [{"index": 0, "name": "ground"}, {"index": 255, "name": "disc"}], "ignore": None}
    (tmp_path / "data" / "classes.json").write_text(json.dumps(table))
    assert run(small(tmp_path, check=True), Console(quiet=True)) == 0


def test_classes_of_one_colour_are_refused_where_masks_are_colours(tmp_path: Path) -> None:
    blobs(tmp_path / "data", 4)
    table = "index,name,color\n0,ground,#000001\n1,disc,#000001\n"
    (tmp_path / "data" / "classes.csv").write_text(table)
    assert run(small(tmp_path, check=True), Console(quiet=True)) == 0  # as indices they are told apart
    for path in (tmp_path / "data" / "masks").iterdir():
        colors = np.zeros((48, 64, 3), np.uint8)
        colors[..., 2] = 1
        write_picture(path, colors)
    with pytest.raises(UsageError, match=r"ground and disc are both #000001"):
        run(small(tmp_path, check=True), Console(quiet=True))


def test_a_split_that_the_data_have_is_not_made_anew(tmp_path: Path, refused: Callable[..., str]) -> None:
    for side in ("train", "val"):
        blobs(tmp_path / "data" / side, 2)
    rows = [f"data/{side}/images/00.png,data/{side}/masks/00.png,{side}" for side in ("train", "val")]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,mask,split", *rows]))
    for data in ("data", "pairs.csv"):
        assert f"--group-by: {data} says itself" in refused("train", data, "--group-by", "^.", "--check")
        assert f"--val: {data} says itself" in refused("train", data, "--val", 0.4, "--check")


def test_a_class_table_may_lie_beside_the_masks(tmp_path: Path) -> None:
    blobs(tmp_path, 2)
    table = {"classes": [{"index": 0, "name": "ground"}, {"index": 1, "name": "disc"}]}
    (tmp_path / "masks" / "classes.json").write_text(json.dumps(table))
    splits = find_pairs(tmp_path, 0.5, 0)
    assert len(splits.all) == 2
    assert find_classes(tmp_path, None, splits.all).names == ("ground", "disc")


def test_instances_may_be_there_for_some_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blobs(tmp_path / "data", 4)
    mask = cv2.imread(str(tmp_path / "data" / "masks" / "02.png"), 0)
    write_picture(tmp_path / "data" / "instances" / "02.png", (ndimage.label(mask == 1)[0]).astype(np.uint8))
    pairs = find_pairs(tmp_path / "data", 0.25, 0).all
    assert sorted(pair.image.stem for pair in pairs if pair.instances) == ["02"]
    seed = next(n for n in range(9) if find_pairs(tmp_path / "data", 0.25, n).val[0].instances is None)
    assert run(small(tmp_path, val=0.25, split_seed=seed, border_weight=5.0), Console()) == 0
    assert "instances/ has 1 of 3 training images; the others have no borders" in capsys.readouterr().err


def test_a_check_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for side in ("train", "val"):
        blobs(tmp_path / "data" / side, 2, seed=3)
    assert run(small(tmp_path, check=True), Console(as_json=True)) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["data"][0] == {
        "split": "train", "images": 2, "heights": [48, 48], "widths": [64, 64], "megapixels": 2 * 48 * 64 / 1e6,
        "bands": 3, "dtype": "uint8",
    }  # fmt: skip
    assert [row["class"] for row in record["labelled"]] == ["class 0", "class 1"]
    assert sum(row["val"]["share"] for row in record["labelled"]) == pytest.approx(1)
    assert "the same image is in training and in validation" in record["warnings"][0]


def test_steps_are_counted_without_shuffling(found: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = crops_of(found)
    monkeypatch.setattr(Crops, "order", lambda *_: pytest.fail("shuffled"))
    assert [crops.steps(batch) for batch in (1, 2, 9)] == [5, 2, 1]


def test_threads_that_meet_one_file_share_its_place_in_memory(found: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread decodes it whole, another reads its own window; the cache is charged once."""
    pair = next(pair for pair in found.splits.train if pair.image.stem == "large")
    reading = Reading(
        Labels(ClassTable.from_indices([0, 1])), Normalisation("uint8", (0.0,), (1.0,)), cache_bytes=2 * 1600
    )
    whole = Source.patch
    asked: list[tuple[int, int]] = []

    def patch(source: Source, row: int, col: int, height: int, width: int, *more: object) -> object:
        asked.append((height, width))
        if len(asked) == 1:  # another thread comes while this one decodes
            assert reading.target(pair, 3, 4, 5, 6).shape == (5, 6)
        return whole(source, row, col, height, width, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Source, "patch", patch)
    one = reading.target(pair, 3, 4, 5, 6)
    assert asked == [(40, 40), (5, 6)]
    assert np.array_equal(reading.target(pair, 3, 4, 5, 6), one)
    reading.window(pair, 0, 0, 5, 6)  # the image has room beside it, because the mask took its share once
    assert asked == [(40, 40), (5, 6), (40, 40)]


def test_255_is_no_label_beside_another_value_for_that(tmp_path: Path) -> None:
    """As `colorize` and `eval` have it: a table whose value for no label is 0, masks with a border of 255."""
    blobs(tmp_path / "data", 4)
    for path in (tmp_path / "data" / "masks").iterdir():
        mask = cv2.imread(str(path), 0)
        write_picture(path, np.where(mask == 255, 255, mask + 1).astype(np.uint8))
    (tmp_path / "data" / "classes.csv").write_text("index,name\n0,void\n1,ground\n2,disc\n")
    assert run(small(tmp_path), Console(quiet=True)) == 0
