"""Data sets as people have them, and what training must not take for granted of them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
from helpers import brightness_model, write_picture
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from segcli.console import Console
from segcli.errors import NothingDoneError, UsageError
from segcli.network import checkpoint
from segcli.options import TrainOptions
from segcli.train import run
from segcli.training.borders import border_weights
from segcli.training.findings import warnings
from segcli.training.labels import find_classes, without
from segcli.training.losses import Loss
from segcli.training.pairs import find_pairs
from segcli.training.processes import Processes
from segcli.training.sampling import Reading
from segcli.training.start import seen_as
from segcli.training.survey import Survey, normalisation, survey


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
    with pytest.raises(NothingDoneError, match=r"\.tif: 1 band of float32; expected class indices"):
        looked_at(scenes)


def test_a_folder_that_is_a_raster_is_named(scenes: Path) -> None:
    (scenes / "z.zarr").mkdir()
    rows = [f"images/{name}.tif,masks/{name}.tif" for name in "abc"]
    (scenes / "pairs.csv").write_text("\n".join(["image,mask", *rows, "z.zarr,masks/d.tif"]))
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
    seen = Reading(labels, normalisation(found)).instances(pair, 0, 0, 40, 40)
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


def test_one_row_on_both_sides_is_said(scenes: Path) -> None:
    sides = ("a", "train"), ("b", "train"), ("c", "val"), ("b", "val")
    rows = [f"images/{name}.tif,masks/{name}.tif,{side}" for name, side in sides]
    (scenes / "pairs.csv").write_text("\n".join(["image,mask,split", *rows]))
    said = [line for line in warnings(looked_at(scenes / "pairs.csv")[0], ("0", "1")) if "the same image" in line]
    path = scenes / "images" / "b.tif"
    assert said == [f"the same image is in training and in validation: {path}, {path}"]


def test_tiles_and_what_tells_of_them(scenes: Path) -> None:
    (scenes / "masks" / "tiles.json").write_text(json.dumps({"segcli": "tiles"}))
    assert len(find_pairs(scenes, 0.5, 0).all) == 4


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
        seen_as(found, brightness_model())


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
