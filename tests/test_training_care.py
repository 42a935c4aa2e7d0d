"""Data sets as people have them, and what training must not take for granted of them."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
from helpers import brightness_model, write_picture
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from segcli.classes import ClassTable
from segcli.console import Console
from segcli.errors import InputError, UsageError
from segcli.files import sha256_of
from segcli.network import checkpoint
from segcli.network.normalise import Normalisation
from segcli.options import Augment, PredictOptions, TrainOptions
from segcli.predict import run as predict
from segcli.raster.bands import match_bands
from segcli.raster.source import Source
from segcli.train import run
from segcli.training.borders import border_weights
from segcli.training.constants import _percentiles, normalisation
from segcli.training.findings import as_record, tables, warnings
from segcli.training.history import row_of
from segcli.training.labels import find_classes, without
from segcli.training.losses import Loss
from segcli.training.pairs import Pair, _split, find_pairs, left_out
from segcli.training.processes import Processes
from segcli.training.sampling import Crops, Reading
from segcli.training.start import seen_as
from segcli.training.state import Progress
from segcli.training.survey import Survey, survey


def write_scene(path: Path, pixels: np.ndarray, left: float = 500_000, **more: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = pixels[None] if pixels.ndim == 2 else pixels
    shape = {"count": bands.shape[0], "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    place = {"crs": "EPSG:32633", "transform": from_origin(left, 900, 1, 1)}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place, **more) as file:
        file.write(bands)
    return path


def looked_at(data: Path, ignore: int | None = None) -> tuple[Survey, list[str]]:
    splits, said = find_pairs(data, 0.5, 0), []
    labels = without(find_classes(data, None, splits.all), ignore)
    try:
        return survey(splits, labels, lambda error: said.append(str(error))), said
    except UsageError as error:
        raise UsageError("", "; ".join([*said, str(error)])) from error


@pytest.fixture
def scenes(tmp_path: Path, rng: np.random.Generator) -> Path:
    for name in "abcd":
        write_scene(tmp_path / "images" / f"{name}.tif", rng.integers(0, 255, (40, 40), np.uint8))
        write_scene(tmp_path / "masks" / f"{name}.tif", rng.integers(0, 2, (40, 40), np.uint8))
    return tmp_path


def test_a_mask_of_another_place_is_refused(scenes: Path, rng: np.random.Generator) -> None:
    assert not looked_at(scenes)[1]
    write_scene(scenes / "masks" / "b.tif", rng.integers(0, 2, (40, 40), np.uint8), left=590_000)
    with pytest.raises(UsageError, match=r"masks/b\.tif: lies elsewhere than its image"):
        looked_at(scenes)


def test_masks_of_floats_are_named_where_no_class_is_found(scenes: Path, rng: np.random.Generator) -> None:
    """As QGIS writes what its raster calculator gives."""
    for name in "abcd":
        write_scene(scenes / "masks" / f"{name}.tif", rng.integers(0, 2, (40, 40)).astype(np.float32))
    with pytest.raises(UsageError, match="4 of 4 pairs cannot be used") as found:
        looked_at(scenes)
    for name in "abcd":
        assert f"{name}.tif: 1 band of float32; expected class indices" in str(found.value)


def test_masks_that_are_none_are_named_beside_empty_ones(scenes: Path, rng: np.random.Generator) -> None:
    for name in "ab":
        write_scene(scenes / "masks" / f"{name}.tif", rng.integers(0, 2, (40, 40)).astype(np.float32))
    for name in "cd":
        write_scene(scenes / "masks" / f"{name}.tif", np.full((40, 40), 255, np.uint8))
    with pytest.raises(UsageError, match="2 of 4 pairs cannot be used") as found:
        looked_at(scenes)
    assert all(f"{name}.tif: 1 band of float32" in str(found.value) for name in "ab")


def test_values_that_float32_cannot_count_in_are_named(scenes: Path, rng: np.random.Generator) -> None:
    """As what is no data is stored where nobody marked it."""
    for name in "abcd":
        pixels = rng.normal(size=(40, 40)).astype(np.float32)
        pixels[30:] = -3.4e38
        write_scene(scenes / "images" / f"{name}.tif", pixels)
    options = TrainOptions(scenes, scenes / "run", width=2, depth=1, crop=32, epochs=1)
    with pytest.raises(UsageError, match=r"\.tif: values from -3.4e\+38 to .*mark what is no data"):
        run(options, Console(quiet=True))


@pytest.mark.parametrize("part", ["train", "val"])
def test_256_classes_want_validation_images_without_gaps(scenes: Path, part: str) -> None:
    """Their masks have no value for what has no label."""
    table = [f"{n},c{n}" for n in range(256)]
    (scenes / "classes.csv").write_text("\n".join(["index,name", *table]))
    for n, name in enumerate("abcd"):
        write_scene(scenes / "masks" / f"{name}.tif", np.full((40, 40), n, np.uint8))
    pixels = np.full((40, 40), 9, np.uint8)
    pixels[:3] = 0
    write_scene(scenes / "images" / "a.tif", pixels, nodata=0)
    rows = [f"images/{name}.tif,masks/{name}.tif,{part if name == 'a' else other}"
            for name, other in zip("abcd", ("", "train", "val", "train"), strict=True)]  # fmt: skip
    (scenes / "pairs.csv").write_text("\n".join(["image,mask,split", *rows]))
    if part == "train":
        looked_at(scenes / "pairs.csv")
        return
    with pytest.raises(UsageError, match=r"a\.tif: pixels without data or label, and all 256 values are classes"):
        looked_at(scenes / "pairs.csv")


def test_a_folder_that_is_no_raster_is_named(scenes: Path) -> None:
    (scenes / "z").mkdir()
    rows = [f"images/{name}.tif,masks/{name}.tif" for name in "abc"]
    (scenes / "pairs.csv").write_text("\n".join(["image,mask", *rows, "z,masks/d.tif"]))
    splits = find_pairs(scenes / "pairs.csv", 0.5, 0)
    said: list[str] = []
    labels = without(find_classes(scenes / "pairs.csv", None, tuple(p for p in splits.all if p.image.is_file())), None)
    with pytest.raises(UsageError, match="1 of 4 pairs"):
        survey(splits, labels, lambda error: said.append(str(error)))
    assert [line.split(": ")[1].split(";")[0] for line in said] == ["a folder"]


def test_bytes_are_not_sampled(scenes: Path) -> None:
    """They are normalised by sums; of hundreds of thousands of tiles samples would not fit."""
    found, _ = looked_at(scenes)
    assert {fact.sample.size for fact in found.facts.values()} == {0}
    for path in (scenes / "images").iterdir():
        with rasterio.open(path) as file:
            pixels = file.read(1)
        write_scene(path, pixels.astype(np.uint16))
    found, _ = looked_at(scenes)
    assert {fact.sample.size for fact in found.facts.values()} == {1600}


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_numbers_below_0_and_nodata_are_no_objects(scenes: Path, dtype: type[np.generic]) -> None:
    numbers = np.zeros((40, 40), dtype)
    numbers[5:15, 5:15], numbers[5:15, 16:26] = 1, 2
    expected = border_weights(numbers.astype(np.int32), 10.0)
    assert expected.max() > 1
    for name in "abcd":
        odd = numbers.copy()
        odd[0, :3], odd[39] = -1, 9000
        write_scene(scenes / "instances" / f"{name}.tif", odd, nodata=9000)
    found, _ = looked_at(scenes)
    pair = found.splits.train[0]
    labels = without(find_classes(scenes, None, found.splits.all), None)
    seen = Reading(labels, normalisation(found)).objects(pair, 0, 0, 40, 40)
    assert np.array_equal(seen, numbers)
    assert np.array_equal(border_weights(seen, 10.0), expected)


def test_polygons_of_a_class_that_is_ignored_by_its_number(scenes: Path) -> None:
    squares = [shapely.box(500_000 + 10 * n, 870, 500_008 + 10 * n, 890) for n in range(3)]
    for name in "abcd":
        (scenes / "masks" / f"{name}.tif").unlink()
        pyogrio.raw.write(
            scenes / "masks" / f"{name}.gpkg", np.array([shapely.to_wkb(shape) for shape in squares], object),
            [np.array(["0", "1", "3"], object)], ["class"], geometry_type="Polygon", crs="EPSG:32633", driver="GPKG",
        )  # fmt: skip
    assert not any("polygons" in line for line in warnings(looked_at(scenes)[0], ("0", "1", "3")))
    every = sum(fact.pixels.sum() for fact in looked_at(scenes)[0].facts.values())
    found, _ = looked_at(scenes, ignore=3)
    assert every - sum(fact.pixels.sum() for fact in found.facts.values()) == 4 * 8 * 20


def test_a_folder_for_each_sample(tmp_path: Path) -> None:
    """Images of one name: it is their folders that tell them apart, and by which they are grouped."""
    rows = []
    for folder in ("a1", "a2", "b1", "b2", "b3"):
        for name in ("image", "mask"):
            write_picture(tmp_path / folder / f"{name}.png", np.zeros((4, 4), np.uint8))
        rows.append(f"{folder}/image.png,{folder}/mask.png")
    (tmp_path / "pairs.csv").write_text("\n".join(["image,mask", *rows]))
    splits = find_pairs(tmp_path / "pairs.csv", 0.4, 0)
    assert (len(splits.train), len(splits.val)) == (3, 2)
    splits = find_pairs(tmp_path / "pairs.csv", 0.4, 0, "/([ab])[0-9]/")
    assert {frozenset(pair.group for pair in part) for part in (splits.train, splits.val)} == {
        frozenset("a"),
        frozenset("b"),
    }


@pytest.mark.parametrize("seed", range(6))
def test_one_large_group_is_not_what_validates(tmp_path: Path, seed: int) -> None:
    for n in range(20):
        for kind in ("images", "masks"):
            write_picture(tmp_path / kind / f"{'large' if n < 18 else 'small'}_{n}.png", np.zeros((4, 4), np.uint8))
    assert len(find_pairs(tmp_path, 0.2, seed, "large|small").val) == 2


def test_polygons_that_lie_elsewhere_are_said(scenes: Path) -> None:
    for name in "abcd":
        (scenes / "masks" / f"{name}.tif").unlink()
        left = 500_000 if name != "b" else 505_000
        square = shapely.to_wkb(shapely.box(left, 870, left + 9, 890))
        pyogrio.raw.write(
            scenes / "masks" / f"{name}.gpkg", np.array([square], object),
            [np.array(["wheat"], object)], ["class"], geometry_type="Polygon", crs="EPSG:32633", driver="GPKG",
        )  # fmt: skip
    said = [line for line in warnings(looked_at(scenes)[0], ("", "wheat")) if "polygons" in line]
    assert len(said) == 1
    assert said[0].endswith(f"none of its 1 polygons lies on {scenes / 'images' / 'b.tif'}")


def test_a_class_that_no_validation_mask_has_decides_nothing() -> None:
    """One pixel that is wrongly predicted as it would else divide the mean by one class more."""
    training = SimpleNamespace(optimiser=SimpleNamespace(param_groups=[{"lr": 0.5}]))
    classes = ClassTable.from_indices([0, 1, 2])
    without_it, with_it = np.diag([90, 10, 0]), np.array([[89, 0, 1], [0, 10, 0], [0, 0, 0]])
    for matrix, iou in ((without_it, [1, 1, None]), (with_it, [89 / 90, 1, None])):
        row = row_of(training, Progress(seen=1), matrix, classes, 1.0)  # type: ignore[arg-type]
        assert [*row["iou"].values()] == iou
        assert row["learning_rate"] == 0.5
        assert row["mean_iou"] == pytest.approx((iou[0] + iou[1]) / 2)


def test_a_class_that_nodata_hides_is_said(scenes: Path, rng: np.random.Generator) -> None:
    """GeoTIFF masks often say that 0 is nodata, and background is not learnt, then."""
    pixels = {name: rng.integers(0, 3, (40, 40), np.uint8) for name in "abcd"}
    for name in "abcd":
        write_scene(scenes / "masks" / f"{name}.tif", pixels[name], nodata=0)
    hidden = sum(int((mask == 0).sum()) for mask in pixels.values())
    found, _ = looked_at(scenes)
    said = [line for line in warnings(found, ("class 1", "class 2")) if "nodata" in line]
    assert len(said) == 1
    assert f"nodata is 0, as in 3 more, so that {hidden} pixels have no label" in said[0]
    assert "-unsetnodata), else say --ignore 0" in said[0]
    record = as_record(found, ("class 1", "class 2"))["unlabelled"]
    assert [record[side]["images"] for side in ("train", "val")] == [2, 2]
    assert 1600 * (record["train"]["share"] + record["val"]["share"]) * 2 == pytest.approx(hidden)
    _, (_, _, lines) = tables(found, ("class 1", "class 2"))
    assert lines[-1][0] == "without a label, of all"
    assert not any("nodata" in line for line in warnings(looked_at(scenes, ignore=0)[0], ("class 1", "class 2")))
    (scenes / "classes.csv").write_text("index,name\n0,unlabelled\n1,wheat\n2,maize\n")
    assert not any("nodata" in line for line in warnings(looked_at(scenes)[0], ("wheat", "maize")))
    (scenes / "classes.csv").write_text("index,name\n0,ground\n1,wheat\n2,maize\n")
    for name in "abcd":
        write_scene(scenes / "masks" / f"{name}.tif", pixels[name], nodata=2)
    said = list(warnings(looked_at(scenes)[0], ("ground", "wheat", "maize")))
    assert any("nodata is 2, as in 3 more" in line for line in said)
    for name in "abcd":
        write_scene(scenes / "masks" / f"{name}.tif", pixels[name], nodata=255)
    found, _ = looked_at(scenes)
    assert not any("nodata" in line for line in warnings(found, ("ground", "wheat", "maize")))
    assert as_record(found, ("ground", "wheat", "maize"))["unlabelled"]["train"] == {"share": 0.0, "images": 0}


def test_one_row_on_both_sides_is_said(scenes: Path) -> None:
    sides = ("a", "train"), ("b", "train"), ("c", "val"), ("b", "val")
    rows = [f"images/{name}.tif,masks/{name}.tif,{side}" for name, side in sides]
    (scenes / "pairs.csv").write_text("\n".join(["image,mask,split", *rows]))
    said = [line for line in warnings(looked_at(scenes / "pairs.csv")[0], ("0", "1")) if "the same image" in line]
    path = scenes / "images" / "b.tif"
    assert said == [f"the same image is in training and in validation: {path}, {path}"]


def test_one_picture_in_two_formats_is_the_same(scenes: Path) -> None:
    with rasterio.open(scenes / "images" / "a.tif") as file:
        pixels = file.read(1)
    write_scene(scenes / "images" / "c.tif", pixels, compress="deflate", predictor=2)
    write_picture(scenes / "images" / "e.png", pixels)
    sides = ("a", "train"), ("c", "val")
    rows = [f"images/{name}.tif,masks/{name}.tif,{side}" for name, side in sides]
    rows.append("images/e.png,masks/b.tif,val")
    (scenes / "pairs.csv").write_text("\n".join(["image,mask,split", *rows]))
    found, _ = looked_at(scenes / "pairs.csv")
    assert len({sha256_of(pair.image) for pair in found.facts}) == 3
    (said,) = [line for line in warnings(found, ("0", "1")) if "the same image" in line]
    assert all(name in said for name in ("a.tif", "c.tif", "e.png"))


def test_so_is_one_with_holes_in_blocks_of_another_height(scenes: Path) -> None:
    """Which decide how many of its rows are read as floats."""
    pixels = np.full((2, 80, 40), 100, np.uint16)
    pixels[1, 66, :9], pixels[:, :5] = 65535, 65535
    for name, height in (("a", 16), ("c", 7)):
        write_scene(scenes / "images" / f"{name}.tif", pixels, nodata=65535, blockysize=height)
        write_scene(scenes / "masks" / f"{name}.tif", np.arange(3200).reshape(80, 40).astype(np.uint8) % 2)
    rows = ["images/a.tif,masks/a.tif,train", "images/c.tif,masks/c.tif,val"]
    (scenes / "pairs.csv").write_text("\n".join(["image,mask,split", *rows]))
    assert any("the same image" in line for line in warnings(looked_at(scenes / "pairs.csv")[0], ("0", "1")))


def test_a_group_on_both_sides_is_said(scenes: Path) -> None:
    """Where the table has a split of its own, nobody has kept its groups together."""
    sides = ("a", "train", "p1"), ("b", "train", "p2"), ("c", "val", "p2"), ("d", "val", "p3")
    rows = [f"images/{name}.tif,masks/{name}.tif,{side},{group}" for name, side, group in sides]
    (scenes / "pairs.csv").write_text("\n".join(["image,mask,split,group", *rows]))
    said = list(warnings(looked_at(scenes / "pairs.csv")[0], ("0", "1")))
    assert any("group p2 is in training and in validation; keep the parts" in line for line in said)
    (scenes / "pairs.csv").write_text("\n".join(["image,mask,split,group", *rows]).replace("val,p2", "val,p4"))
    assert not any("group" in line for line in warnings(looked_at(scenes / "pairs.csv")[0], ("0", "1")))


@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=25), count=st.integers(2, 25), seed=st.integers(0, 9),
)  # fmt: skip
def test_each_pair_is_validated_on_in_one_fold(sizes: list[int], count: int, seed: int) -> None:
    """Groups stay whole, and no fold is larger than another by more than the largest group."""
    pairs = [
        Pair(Path(f"{g}_{n}.png"), Path("m.png"), group=str(g)) for g, size in enumerate(sizes) for n in range(size)
    ]
    if count > len(sizes):
        with pytest.raises(UsageError, match=f"--fold: {count} folds; d has {len(sizes)} images or groups"):
            _split(Path("d"), pairs, 0.2, seed, (1, count))
        return
    folds = [_split(Path("d"), pairs, 0.2, seed, (number, count)) for number in range(1, count + 1)]
    assert sorted(str(pair.image) for fold in folds for pair in fold.val) == sorted(str(pair.image) for pair in pairs)
    for fold in folds:
        assert {pair.group for pair in fold.val}.isdisjoint(pair.group for pair in fold.train)
        assert set(fold.train) | set(fold.val) == set(pairs)
    lengths = [len(fold.val) for fold in folds]
    assert min(lengths) > 0 and max(lengths) - min(lengths) <= max(sizes)
    again = _split(Path("d"), pairs[::-1], 0.2, seed, (1, count))
    assert again == folds[0]


def test_folds_of_single_images_are_as_large_as_each_other(tmp_path: Path, refused: Callable[..., str]) -> None:
    lines = [f"images/{n}.png,masks/{n}.png" for n in range(23)]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,mask", *lines]))
    folds = [find_pairs(tmp_path / "pairs.csv", 0.2, 0, fold=(n, 5)) for n in range(1, 6)]
    assert [len(fold.val) for fold in folds] == [5, 5, 5, 4, 4]
    assert find_pairs(tmp_path / "pairs.csv", 0.2, 1, fold=(1, 5)) != folds[0]  # --split-seed deals anew
    assert "--val: with --fold" in refused("train", "pairs.csv", "--fold", "1/5", "--val", "0.3")
    for text in ("0/5", "6/5", "1/1", "a", "1/5/2"):
        assert f"--fold: found '{text}'" in refused("train", "pairs.csv", "--fold", text)
    split = ["image,mask,split", "a.png,a.png,train", "b.png,b.png,val"]
    (tmp_path / "pairs.csv").write_text("\n".join(split))
    assert "--fold: pairs.csv says itself" in refused("train", "pairs.csv", "--fold", "1/2")


@pytest.mark.parametrize("level", get_args(Augment))
def test_pixels_without_data_are_the_mean_whatever_the_light(scenes: Path, level: Augment) -> None:
    """Predicting, the network sees 0 there, and not what brightness and contrast make of that."""
    for name in "abcd":
        pixels = np.full((2, 40, 40), 100, np.float32)
        pixels[:, :, 20:], pixels[1, :10, :20] = -9999, np.nan
        write_scene(scenes / "images" / f"{name}.tif", pixels, nodata=-9999)
    found, _ = looked_at(scenes)
    labels = without(find_classes(scenes, None, found.splits.all), None)
    crops = Crops(found, Reading(labels, Normalisation("float32", (60.0,) * 2, (10.0,) * 2)), 48, 0, level)
    for n in range(6):
        image, target = (crop := crops.crop(0, 0, n)).image, crop.target
        assert not image[:, image[0] == 0].any()
        assert 0.1 < np.mean(image[0] == 0) < 0.9
        assert np.mean(image[1] == 0) > np.mean(image[0] == 0)
        assert np.all(target[image[0] == 0] == -1)
        assert image[0].max() > 2.0
    fact = found.facts[found.splits.train[0]]
    image, _ = crops.reading.window(found.splits.train[0], 0, 0, fact.height, fact.width)
    assert set(np.unique(image)) == {0.0, 4.0}


def test_a_second_stage_validates_on_the_images_of_the_first(scenes: Path, refused: Callable[..., str]) -> None:
    first = options_of(scenes, val=0.25)
    splits = [find_pairs(scenes, 0.25, dataclasses.replace(first, seed=n).split_seed) for n in range(5)]
    assert all(split == splits[0] for split in splits)
    assert any(find_pairs(scenes, 0.25, n) != splits[0] for n in range(1, 5))
    rows = [f"images/{name}.tif,masks/{name}.tif,{side}" for name, side in (("a", "train"), ("b", "val"))]
    (scenes / "pairs.csv").write_text("\n".join(["image,mask,split", *rows]))
    assert "--split-seed: pairs.csv says itself" in refused("train", "pairs.csv", "--split-seed", 1, "--check")


def test_val_beside_images_and_masks_is_used(scenes: Path) -> None:
    """And what lies where nobody looks is named."""
    for kind in ("images", "masks"):
        (scenes / "valid" / kind).mkdir(parents=True)
        (scenes / kind / "d.tif").rename(scenes / "valid" / kind / "d.tif")
    splits = find_pairs(scenes, 0.25, 0)
    assert splits.is_given
    assert [[pair.image.stem for pair in part] for part in (splits.train, splits.val)] == [["a", "b", "c"], ["d"]]
    assert not list(left_out(scenes))
    for kind in ("images", "masks"):
        (scenes / kind / "north").mkdir()
        (scenes / kind / "c.tif").rename(scenes / kind / "north" / "c.tif")
    (scenes / "images" / "notes").mkdir()
    (said,) = left_out(scenes)
    assert said.startswith(f"{scenes / 'images'}: what is in its folders north is not read; move it up")
    for name in "ab":
        (scenes / "images" / f"{name}.tif").rename(scenes / f"{name}.tif")
    with pytest.raises(UsageError, match="no images, but in its folders north; folders in it are not read; move it up"):
        find_pairs(scenes, 0.25, 0)
    (scenes / "a.tif").rename(scenes / "images" / "a.tif")
    for kind in ("images", "masks"):
        (scenes / "train" / kind).mkdir(parents=True)
        (scenes / kind / "north" / "c.tif").rename(scenes / "train" / kind / "c.tif")
    assert list(left_out(scenes)) == [f"{scenes / 'images'}: not read, because {scenes / 'train'} is there"]


def test_numbers_of_objects_alone_are_no_masks(scenes: Path) -> None:
    (scenes / "masks").rename(scenes / "instances")
    with pytest.raises(UsageError, match=r"no masks/ in it; .*instances/ holds numbers of objects; make masks/ of it"):
        find_pairs(scenes, 0.25, 0)


def test_tiles_and_what_tells_of_them(scenes: Path) -> None:
    (scenes / "masks" / "tiles.json").write_text(json.dumps({"segcli": "tiles"}))
    assert len(find_pairs(scenes, 0.5, 0).all) == 4


def test_numbers_of_objects_are_whole(scenes: Path, rng: np.random.Generator) -> None:
    numbers = rng.integers(0, 4, (40, 40)).astype(np.float32)
    numbers[0, 0] = np.nan
    for name in "abcd":
        write_scene(scenes / "instances" / f"{name}.tif", numbers)
    assert not looked_at(scenes)[1]
    numbers[39, 3] = 0.25
    write_scene(scenes / "instances" / "b.tif", numbers)
    with pytest.raises(UsageError, match=r"instances/b\.tif: 0\.25 among its values; expected whole numbers"):
        looked_at(scenes)


def test_numbers_of_objects_that_contradict_the_masks_are_noticed(tmp_path: Path, rng: np.random.Generator) -> None:
    """Gaps between objects of another image, or of none, would be drawn for hours without a word."""
    masks = [np.zeros((64, 90), np.uint8) for _ in range(4)]
    for n, mask in enumerate(masks):
        mask[10 + 10 * n : 18 + 10 * n, 5:70] = 1
        mask[60:] = 255
        write_scene(tmp_path / "images" / f"{n}.tif", rng.integers(0, 255, (3, 64, 90), np.uint8))
        write_scene(tmp_path / "masks" / f"{n}.tif", mask)
    table = {"classes": [{"index": 0, "name": "background"}, {"index": 1, "name": "cell"}]}

    def said(order: tuple[int, ...], without: int | None = None, **classes: object) -> list[str]:
        (tmp_path / "classes.json").write_text(json.dumps(table | classes))
        for n, other in enumerate(order):
            numbers = (masks[other] == 1) * rng.integers(1, 9, masks[other].shape)
            write_scene(tmp_path / "instances" / f"{n}.tif", (numbers * (n != without)).astype(np.uint16))
        found = looked_at(tmp_path)[0]
        for pair in found.splits.all:  # by all pixels at once
            n = int(pair.image.stem)
            is_object, truth = (masks[order[n]] == 1) & (n != without), masks[n]
            assert found.facts[pair].objects == ((is_object & (truth != 255)).sum(), (is_object & (truth == 0)).sum(),
                                                 (~is_object & (truth == 1)).sum())  # fmt: skip
        lines = warnings(found, tuple(entry["name"] for entry in json.loads(json.dumps(table | classes))["classes"]))
        return [line.replace(f"{tmp_path}/", "") for line in lines if "objects" in line]

    assert said((0, 1, 2, 3)) == []
    [line] = said((1, 0, 2, 3))
    assert re.sub("[01].tif", "N.tif", line) == (
        "instances/N.tif: 100% of the pixels of its objects are background by masks/N.tif, as in 1 more; are these "
        "the objects of that mask?"
    )
    lines = said((0, 1, 2, 3), without=2)
    assert lines == ["instances/2.tif: 100% of the foreground belong to no object by masks/2.tif; are these the "
                     "objects of that mask?"]  # fmt: skip
    three = {"classes": [*table["classes"], {"index": 2, "name": "debris"}]}
    assert said((0, 1, 2, 3), without=2, **three) == []  # debris has no objects, and may be all there is
    none = {"classes": [{"index": 1, "name": "cell"}, {"index": 3, "name": "other"}], "ignore": 0}  # no background
    write_scene(tmp_path / "masks" / "1.tif", np.where(masks[1] == 255, np.uint8(3), masks[1]))
    (tmp_path / "classes.json").write_text(json.dumps(none))
    assert all(fact.objects == (0, 0, 0) for fact in looked_at(tmp_path)[0].facts.values())


def test_codes_above_255_are_said_to_be_no_indices(scenes: Path, rng: np.random.Generator) -> None:
    for name in "abcd":
        codes = np.array([111, 112, 311], np.uint16)[rng.integers(0, 3, (40, 40))]
        write_scene(scenes / "masks" / f"{name}.tif", codes)
    with pytest.raises(
        UsageError, match=r"values 311 \(\d+ pixels\) are no class.*indices are 0 to 255: renumber codes"
    ):
        looked_at(scenes)


def test_samples_of_16_bits_count_by_the_area_that_they_stand_for(tmp_path: Path, rng: np.random.Generator) -> None:
    """A large image is sampled at every eighth pixel of each eighth row, a small one everywhere."""
    for name, side, level in (("large", 1024, 1000), ("small1", 128, 3000), ("small2", 128, 3000)):
        for side_of_split in ("train", "val"):
            image = rng.normal(level, 50, (side, side)).astype(np.uint16)
            write_scene(tmp_path / side_of_split / "images" / f"{name}.tif", image)
            mask = np.zeros((side, side), np.uint8)
            mask[:9] = 1
            write_scene(tmp_path / side_of_split / "masks" / f"{name}.tif", mask)
    found, _ = looked_at(tmp_path)
    constants = normalisation(found)
    share = 2 * 128**2 / (1024**2 + 2 * 128**2)
    assert constants.mean[0] == pytest.approx(1000 + 2000 * share, rel=0.01)
    assert constants.deviation[0] == pytest.approx(np.sqrt(50**2 + share * (1 - share) * 2000**2), rel=0.03)
    values = rng.normal(0, 1, (2, 501)).astype(np.float32)  # where all weigh the same, it is what numpy gives
    for band in values:
        assert _percentiles(band, np.full(501, 7)) == pytest.approx(_percentiles(band, None), abs=1e-6)


def test_samples_of_many_images_are_no_more_than_those_of_some(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1000 tiles of 250 x 250 pixels with four bands of 16 bits took 3.3 GB, and 10 000 ten times that."""
    monkeypatch.setattr("segcli.training.survey.MOST_SAMPLED", 2000, raising=False)
    for n in range(10):
        side = 40 if n < 8 else 160
        write_scene(tmp_path / "images" / f"{n}.tif", rng.normal(1000 * (1 + n // 8), 50, (side, side)).astype("u2"))
        write_scene(tmp_path / "masks" / f"{n}.tif", rng.integers(0, 2, (side, side), np.uint8))
    found, _ = looked_at(tmp_path)
    assert sum(fact.sample.shape[1] for fact in found.facts.values()) < 4 * 2000
    learnt = np.concatenate([np.full(found.facts[pair].pixels.sum(), 1000 * (1 + (int(pair.image.stem) >= 8)))
                             for pair in found.splits.train])  # fmt: skip
    constants = normalisation(found)
    assert constants.mean[0] == pytest.approx(learnt.mean(), rel=0.02)
    assert constants.deviation[0] == pytest.approx(np.hypot(learnt.std(), 50), rel=0.1)


def test_weights_of_classes_are_said_and_kept(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(options_of(scenes, class_weights="auto"), Console()) == 0
    kept = json.loads((scenes / "out" / "options.json").read_text())
    assert kept["class_weights"] == "auto"
    assert set(kept["weights_by_class"]) == {"class 0", "class 1"}
    said = " ".join(capsys.readouterr().err.split())
    assert f"weights of classes: class 0 {kept['weights_by_class']['class 0']:.3g}, class 1 " in said


def options_of(scenes: Path, **more: object) -> TrainOptions:
    chosen = {"width": 2, "depth": 1, "crop": 32, "batch": 2, "epochs": 1, **more}
    return TrainOptions(scenes, scenes / "out", **chosen)  # type: ignore[arg-type]


def test_other_weights_of_the_same_name_are_noticed_when_resuming(scenes: Path) -> None:
    """Each training's are called best.safetensors, and they bring their constants along."""
    assert run(options_of(scenes), Console(quiet=True)) == 0
    (scenes / "one").mkdir()
    first = (scenes / "out" / "best.safetensors").rename(scenes / "one" / "best.safetensors")
    model = checkpoint.load(first)
    constants = dataclasses.replace(model.normalisation, mean=(model.normalisation.mean[0] + 50,))
    (scenes / "two").mkdir()
    checkpoint.save(dataclasses.replace(model, normalisation=constants), scenes / "two" / "best.safetensors")
    (scenes / "out" / "last.safetensors").unlink()
    assert run(options_of(scenes, weights=first), Console(quiet=True)) == 0
    again = options_of(scenes, weights=scenes / "two" / "best.safetensors", resume=True, epochs=2)
    with pytest.raises(UsageError, match="begun with normalisation "):
        run(again, Console(quiet=True))
    assert run(dataclasses.replace(again, weights=first), Console(quiet=True)) == 0


def test_every_image_is_to_fit_the_weights(scenes: Path, rng: np.random.Generator) -> None:
    """Of those with as many bands one may say that the first three are colours, and another not."""
    for n, name in enumerate("abcd"):
        pixels = rng.integers(0, 255, (4, 40, 40), np.uint8)
        write_scene(scenes / "images" / f"{name}.tif", pixels, photometric="MINISBLACK" if n == 2 else "RGB")
        with rasterio.open(scenes / "images" / f"{name}.tif", "r+") as file:
            colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue] if n != 2 else [ColorInterp.undefined] * 3
            file.colorinterp = [*colors, ColorInterp.undefined]
    found, said = looked_at(scenes)
    assert not said
    with pytest.raises(UsageError, match=r"c\.tif: 4 bands; the weights expect 3"):
        seen_as(found, brightness_model(), None)


def test_pixels_of_classes_without_weight_alone_have_no_loss() -> None:
    scores, targets = torch.randn(1, 2, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long)
    for smoothing in (0.0, 0.1):
        assert Loss("ce", torch.tensor([0.0, 1.0]), smoothing)(scores, targets) == 0
    targets[0, 0] = 1
    assert Loss("ce", torch.tensor([0.0, 1.0]), 0.1)(scores, targets) > 0


def test_clocks_of_several_processes_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own; what they make of them is one number, which sets the rate of all."""
    monkeypatch.setattr(Processes, "sum", lambda self, counts: counts + np.array([3_000_000]))
    assert Processes(0, 2).mean(1.0) == 2.0
    monkeypatch.undo()
    assert Processes().mean(1.23456789) == 1.23456789


def test_training_on_chosen_bands_is_training_on_files_of_them(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weight for weight; labels count where a chosen band has data, whatever others have. Later nothing is guessed."""
    mask = np.kron(rng.integers(0, 2, (2, 12, 12)), np.ones((4, 4), int)).astype(np.uint8)
    for n in range(4):
        scene = rng.integers(0, 90, (5, 48, 48)).astype(np.uint16) + 100 * np.uint16(mask[n % 2])
        scene[4, :, :9] = 0  # a hole in one that is chosen
        scene[[1, 3, 4], 10:20, 30:] = 0  # and nothing in any of these
        for folder, bands in (("all", scene), ("cut", scene[[3, 1, 4]])):
            write_scene(tmp_path / folder / "images" / f"{n}.tif", bands, nodata=0)
            write_scene(tmp_path / folder / "masks" / f"{n}.tif", mask[n % 2])
    monkeypatch.setattr("segcli.training.validation.WHOLE_PIXELS", 1)  # in rows, as large images are
    options = TrainOptions(tmp_path / "all", tmp_path / "a", width=2, depth=1, crop=32, batch=2, epochs=2, val=0.5)
    for out, more in ((tmp_path / "a", {"bands": (4, 2, 5)}), (tmp_path / "b", {"data": tmp_path / "cut"})):
        assert run(dataclasses.replace(options, out=out, **more), Console(quiet=True)) == 0  # type: ignore[arg-type]
    one, other = (checkpoint.load(tmp_path / name / "best.safetensors") for name in "ab")
    assert one.normalisation == other.normalisation
    assert (one.learnt, other.learnt) == ((4, 2, 5), None)
    for name, tensor in one.network.state_dict().items():
        torch.testing.assert_close(tensor, other.network.state_dict()[name], rtol=0, atol=0)

    weights = str(tmp_path / "a" / "best.safetensors")
    whole = PredictOptions((tmp_path / "all" / "images" / "0.tif",), tmp_path / "whole.tif", (weights,))
    capsys.readouterr()
    assert predict(whole, Console()) == 1
    said = capsys.readouterr().err
    assert "5 bands; the weights learnt from bands 4,2,5 of such files; give --bands 4,2,5, or those that" in said
    assert predict(dataclasses.replace(whole, bands=(4, 2, 5)), Console(quiet=True)) == 0
    cut = dataclasses.replace(whole, inputs=(tmp_path / "cut" / "images" / "0.tif",), out=tmp_path / "cut.tif")
    assert predict(cut, Console(quiet=True)) == 0
    with rasterio.open(whole.out) as seen, rasterio.open(cut.out) as expected:
        assert np.array_equal(seen.read(), expected.read())

    again = dataclasses.replace(options, out=tmp_path / "c", epochs=1, weights=Path(weights))
    with pytest.raises(
        UsageError, match=r"5 bands; the weights learnt from bands 4,2,5 .*; 3 more do not fit; without"
    ):
        run(again, Console(quiet=True))
    assert run(dataclasses.replace(again, bands=(4, 2, 5)), Console(quiet=True)) == 0
    with pytest.raises(UsageError, match="--bands names 2 bands; the weights expect 3 or 1"):
        run(dataclasses.replace(again, out=tmp_path / "f", bands=(4, 2)), Console(quiet=True))
    assert run(dataclasses.replace(again, out=tmp_path / "d", data=tmp_path / "cut"), Console(quiet=True)) == 0
    with pytest.raises(UsageError, match="4 of 4 pairs cannot be used"):
        run(dataclasses.replace(options, out=tmp_path / "e", bands=(6, 1)), Console(quiet=True))
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("count", "chosen"), [(3, (3, 2, 1)), (4, (4, 1, 2)), (3, (2,)), (3, (1, 2, 3)), (4, (1, 2, 3))]
)
def test_bands_that_may_be_other_ones_than_those_learnt_from_are_refused(
    tmp_path: Path, rng: np.random.Generator, count: int, chosen: tuple[int, ...]
) -> None:
    """Colours and near infrared would else be taken in the file's order, without a word."""
    scan = write_scene(tmp_path / "a.tif", rng.integers(0, 255, (count, 20, 20), np.uint8), photometric="RGB")
    with Source(scan) as image:
        assert image.bands == count
        if chosen == (1, 2, 3):
            assert match_bands(image, 3, None, chosen) == (0, 1, 2)
        else:
            text = ",".join(map(str, chosen))
            with pytest.raises(InputError, match=f"learnt from bands {text} of such files; give --bands {text}, or"):
                match_bands(image, 3, None, chosen)
        assert match_bands(image, 3, (2, 1, 3), chosen) == (1, 0, 2)
    with Source(write_scene(tmp_path / "b.tif", rng.integers(0, 255, (20, 20), np.uint8))) as grey:
        if chosen == (2,):
            assert match_bands(grey, 3, None, chosen) == (0, 0, 0)  # it has no second one
        assert match_bands(grey, 3, None, (1,)) == (0, 0, 0)


def test_an_empty_band_is_named_as_the_file_has_it(tmp_path: Path, rng: np.random.Generator) -> None:
    scene = rng.integers(1, 90, (4, 48, 48)).astype(np.uint16)
    scene[3] = 0
    for n in range(4):
        write_scene(tmp_path / "images" / f"{n}.tif", scene + np.uint16(n) * (scene > 0), nodata=0)
        write_scene(tmp_path / "masks" / f"{n}.tif", rng.integers(0, 2, (48, 48)).astype(np.uint8))
    options = TrainOptions(tmp_path, tmp_path / "out", width=2, depth=1, crop=32, batch=2, epochs=1, bands=(4, 2))
    with pytest.raises(UsageError, match="no training image has data in band 4; expected"):
        run(options, Console(quiet=True))
