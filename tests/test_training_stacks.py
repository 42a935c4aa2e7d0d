"""Stacks as training data: each image of one is as a file of its own, and all of them stay on one side of the split."""

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import torch
from helpers import few_open_files
from safetensors.torch import load_file
from scipy import ndimage

from segcli import train
from segcli.classes import ClassTable
from segcli.console import Console
from segcli.errors import InputError, UsageError
from segcli.evaluation import page
from segcli.network import checkpoint
from segcli.network.normalise import Normalisation
from segcli.options import Percentiles, PredictOptions, TrainOptions
from segcli.predict import run as predict
from segcli.raster.fit import match_ranges
from segcli.raster.images import open_images
from segcli.training import files
from segcli.training.constants import normalisation, ranges
from segcli.training.findings import warnings
from segcli.training.labels import Labels
from segcli.training.pairs import Splits, find_pairs
from segcli.training.sampling import Reading
from segcli.training.survey import Survey, _Look, survey

Program = Callable[..., subprocess.CompletedProcess[str]]

QUIET = Console(quiet=True)
TWO = Labels(ClassTable.from_indices([0, 1]))


def cells(rng: np.random.Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (..., row, col) and masks of what is bright in them, each image in another light."""
    masks = (ndimage.gaussian_filter(rng.random(shape), (*(0,) * (len(shape) - 2), 2, 2)) > 0.5).astype(np.uint8)
    light = rng.integers(60, 180, shape[:-2])[..., None, None]
    return (masks * light + rng.integers(0, 60, shape)).astype(np.uint8), masks


def write(folder: Path, name: str, images: np.ndarray, masks: np.ndarray, axes: str = "TYX") -> None:
    for kind, pixels in (("images", images), ("masks", masks)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / kind / f"{name}.tif", pixels, imagej=True, metadata={"axes": axes})


def write_apart(folder: Path, name: str, images: np.ndarray, masks: np.ndarray) -> None:
    for kind, pixels in (("images", images), ("masks", masks)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for n, plane in enumerate(pixels):
            tifffile.imwrite(folder / kind / f"{name}_{n:02}.tif", plane, metadata=None)


def looked_at(splits: Splits, **more: Any) -> tuple[Survey | None, list[str]]:
    said: list[str] = []
    try:
        return survey(splits, TWO, lambda error: said.append(str(error)), **more), said
    except UsageError as error:
        return None, [*said, str(error)]


def history(out: Path) -> list[dict[str, str]]:
    with (out / "history.csv").open(newline="") as file:
        timed = ("seconds", "crops_per_second")
        return [{key: value for key, value in row.items() if key not in timed} for row in csv.DictReader(file)]


@pytest.mark.parametrize("more", [{}, {"input_range": Percentiles(1, 99)}], ids=["as they are", "percentiles"])
def test_a_stack_is_learnt_from_as_its_images_are_as_files(
    tmp_path: Path, rng: np.random.Generator, more: dict[str, Any]
) -> None:
    """The slow twin of stacks: each time of a film saved by itself gives the same weights to the last bit."""
    for part, count in (("train", 5), ("val", 3)):
        images, masks = cells(rng, count, 40, 48)
        write(tmp_path / "stacks" / part, "film", images, masks)
        write_apart(tmp_path / "files" / part, "film", images, masks)
    for kind in ("stacks", "files"):
        options = TrainOptions(tmp_path / kind, tmp_path / f"of_{kind}", width=2, depth=1, epochs=2, crop=32, batch=2,
                               augment="full", **more)  # fmt: skip
        assert train.run(options, QUIET) == 0
    assert history(tmp_path / "of_stacks") == history(tmp_path / "of_files")
    one, other = (load_file(tmp_path / f"of_{kind}" / "best.safetensors") for kind in ("stacks", "files"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    masks_of = sorted(path.name for path in (tmp_path / "of_stacks" / "validation" / "masks").glob("*.tif"))
    assert masks_of == ["0000_film.tif"]
    reports = [json.loads((tmp_path / f"of_{kind}" / "validation" / "report.json").read_text())
               for kind in ("stacks", "files")]  # fmt: skip
    assert [report["images"] for report in reports] == [1, 3]  # too much alike for an interval over images
    assert reports[0]["confusion_matrix"] == reports[1]["confusion_matrix"]
    predicted = tmp_path / "masks"
    weights = str(tmp_path / "of_stacks" / "best.safetensors")
    assert predict(PredictOptions((tmp_path / "stacks" / "val" / "images",), predicted, (weights,)), QUIET) == 0
    with closing(open_images(predicted / "film.tif", "mask")) as found:
        assert len(found.planes) == 3


def test_all_images_of_a_stack_stay_on_one_side(tmp_path: Path, rng: np.random.Generator) -> None:
    for n in range(5):
        write(tmp_path, f"film{n}", *cells(rng, 4, 20, 24))
    found, said = looked_at(find_pairs(tmp_path, 0.4, 0))
    assert not said
    assert found is not None
    sides = [{pair.image for pair in part} for part in (found.splits.train, found.splits.val)]
    assert (len(sides[0]), len(sides[1])) == (3, 2)
    assert not sides[0] & sides[1]
    assert [pair.plane for pair in found.splits.val] == [0, 1, 2, 3] * 2
    assert len({fact.content for fact in found.facts.values()}) == 20  # each was looked at by itself
    assert not list(warnings(found, ("0", "1")))


@pytest.mark.parametrize(
    ("share", "fold", "expected"),
    [(0.2, None, [8, 9]), (0.01, None, [9]), (0.9, None, list(range(1, 10))), (0.2, (1, 3), [0, 1, 2]),
     (0.2, (3, 3), [6, 7, 8, 9]), (0.2, (10, 10), [9])],
)  # fmt: skip
def test_of_a_stack_alone_images_that_follow_each_other_are_validated_on(
    tmp_path: Path, rng: np.random.Generator, share: float, fold: tuple[int, int] | None, expected: list[int]
) -> None:
    write(tmp_path, "volume", *cells(rng, 10, 20, 24), axes="ZYX")
    found, said = looked_at(find_pairs(tmp_path, share, 0, fold=fold))
    assert not said
    assert found is not None
    assert [pair.plane for pair in found.splits.val] == expected
    assert sorted(pair.plane for pair in found.splits.all if pair.plane is not None) == list(range(10))
    (line,) = warnings(found, ("0", "1"))
    assert f"volume.tif: {len(expected)} of its 10 images are for validation" in line


def test_one_image_alone_cannot_be_split(tmp_path: Path, rng: np.random.Generator) -> None:
    write_apart(tmp_path / "one", "a", *cells(rng, 1, 20, 24))
    found, said = looked_at(find_pairs(tmp_path / "one", 0.2, 0))
    assert found is None
    assert said == [f"{tmp_path / 'one' / 'images' / 'a_00.tif'}: 1 pair; expected at least 2, to train on some and "
                    "validate on others"]  # fmt: skip
    write(tmp_path / "few", "a", *cells(rng, 3, 20, 24))
    assert "4 folds; " in str(looked_at(find_pairs(tmp_path / "few", 0.2, 0, fold=(1, 4)))[1])


def test_what_belongs_to_a_stack_is_a_stack_in_its_order(tmp_path: Path, rng: np.random.Generator) -> None:
    images, masks = cells(rng, 4, 3, 20, 24)
    write(tmp_path, "whole", images, masks, "TZYX")
    write(tmp_path, "fewer", images, masks, "TZYX")
    tifffile.imwrite(tmp_path / "masks" / "fewer.tif", masks[:3], imagej=True, metadata={"axes": "TZYX"})
    write(tmp_path, "turned", images, masks, "TZYX")
    tifffile.imwrite(tmp_path / "masks" / "turned.tif", masks.swapaxes(0, 1), imagej=True, metadata={"axes": "TZYX"})
    write(tmp_path, "single", images, masks, "TZYX")
    tifffile.imwrite(tmp_path / "masks" / "single.tif", masks[0, 0], metadata=None)
    write(tmp_path, "shaped", images, masks, "TZYX")
    tifffile.imwrite(tmp_path / "masks" / "shaped.tif", masks.swapaxes(0, 1), photometric="minisblack")
    write(tmp_path, "drawn", images, masks, "TZYX")
    (tmp_path / "masks" / "drawn.tif").unlink()
    (tmp_path / "masks" / "drawn.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    write(tmp_path, "odd", images, masks, "TZYX")
    masks[2, 1, 5, 5] = 9
    tifffile.imwrite(tmp_path / "masks" / "odd.tif", masks, imagej=True, metadata={"axes": "TZYX"})
    write_apart(tmp_path, "alone", images[0, :1], masks[0, :1])
    tifffile.imwrite(tmp_path / "masks" / "alone_00.tif", masks[0], imagej=True, metadata={"axes": "ZYX"})
    found, said = looked_at(find_pairs(tmp_path, 0.3, 0))
    assert found is None
    lines = {Path(line.split(":")[0].split(", ")[0]).name: line for line in said}
    assert lines["fewer.tif"].endswith("9 images (T 3 x Z 3); "
                                       f"{tmp_path / 'images' / 'fewer.tif'} has 12 images (T 4 x Z 3); "
                                       "expected as many")  # fmt: skip
    assert "12 images (T 3 x Z 4); " in lines["turned.tif"]
    assert lines["turned.tif"].endswith("has 12 images (T 4 x Z 3); save the images in one order")
    assert lines["single.tif"].endswith("has 12 images (T 4 x Z 3); expected as many")
    assert "12 images (3 x 4); " in lines["shaped.tif"]
    assert "polygons; its image has 12 images" in lines["drawn.geojson"]
    assert "odd.tif, image 8: values 9 (1 pixels) are no class" in lines["odd.tif"]
    assert "a stack of 3 images; expected one image" in lines["alone_00.tif"]
    assert said[-1].startswith("7 of 8 pairs cannot be used")


def test_blank_images_of_stacks_are_told_in_a_line_and_are_no_copies(tmp_path: Path, rng: np.random.Generator) -> None:
    for part in ("train", "val"):
        images, masks = cells(rng, 6, 20, 24)
        images[[0, 1, 5]], masks[[0, 1, 5]] = 0, 0
        write(tmp_path / part, "volume", images, masks, "ZYX")
    found, _ = looked_at(find_pairs(tmp_path, 0.2, 0))
    assert found is not None
    lines = list(warnings(found, ("0", "1")))
    assert lines == [f"{tmp_path / part / 'images' / 'volume.tif'}, image 1 and 2 more: constant, or no data at all"
                     for part in ("train", "val")]  # fmt: skip
    images, masks = cells(rng, 2, 20, 24)
    for part in ("train", "val"):
        write(tmp_path / "copied" / part, part, images, masks)
    found, _ = looked_at(find_pairs(tmp_path / "copied", 0.2, 0))
    assert found is not None
    lines = list(warnings(found, ("0", "1")))
    (line,) = lines
    assert "the same image is in training and in validation: " in line
    assert "train.tif, image 1, " in line
    assert line.endswith("val.tif, image 1, and 1 more of these")


def test_percentiles_are_those_that_predict_takes(tmp_path: Path, rng: np.random.Generator) -> None:
    """Of all depths of a volume together, of each time by itself."""
    images, masks = cells(rng, 3, 4, 20, 24)
    write(tmp_path, "film", images, masks, "TZYX")
    wanted = Percentiles(1, 99)
    found, _ = looked_at(find_pairs(tmp_path, 0.2, 0), with_ranges=True)
    assert found is not None
    with closing(open_images(tmp_path / "images" / "film.tif")) as film:
        expected = match_ranges(film.planes, (0,), None, wanted, volumes=film.volumes)
    ends = ranges(found, wanted)
    assert [ends[pair] for pair in sorted(found.splits.all, key=lambda pair: pair.plane or 0)] == list(expected)
    assert len(set(expected)) == 3


@pytest.mark.parametrize("most", [1, 4096])
def test_windows_are_the_same_whatever_is_kept_in_memory(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """By several threads at once, of which two may want one file."""
    monkeypatch.setattr(files, "MOST_IMAGES", most)
    pixels = {f"film{n}": cells(rng, 5, 30, 36) for n in range(3)}
    for name, (images, masks) in pixels.items():
        write(tmp_path, name, images, masks)
    found, _ = looked_at(find_pairs(tmp_path, 0.4, 0))
    assert found is not None
    readings = [Reading(TWO, Normalisation("uint8", (0.0,), (1.0,)), cache_bytes=kept) for kept in (0, 4000, 2**20)]
    with ThreadPoolExecutor(6) as pool:
        for reading in readings:
            jobs = [(pair, pool.submit(reading.window, pair, 3, 5, 20, 24)) for pair in found.splits.all * 3]
            for pair, job in jobs:
                image, target = job.result()
                images, masks = pixels[pair.image.stem]
                assert pair.plane is not None
                assert np.array_equal(image[0], images[pair.plane, 3:23, 5:29])
                assert np.array_equal(target, masks[pair.plane, 3:23, 5:29])


def test_numbers_of_objects_may_be_stacks(tmp_path: Path, rng: np.random.Generator) -> None:
    for n in range(3):
        images, masks = cells(rng, 2, 40, 48)
        write(tmp_path / "data", f"film{n}", images, masks)
        numbers = np.stack([ndimage.label(mask)[0] for mask in masks]).astype(np.uint16)
        (tmp_path / "data" / "instances").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "data" / "instances" / f"film{n}.tif", numbers)
    options = TrainOptions(tmp_path / "data", tmp_path / "out", width=2, depth=1, epochs=1, crop=32, batch=2,
                           border_weight=5, workers=3)  # fmt: skip
    assert train.run(options, QUIET) == 0
    tifffile.imwrite(tmp_path / "data" / "instances" / "film1.tif", numbers[:1])
    found, said = looked_at(find_pairs(tmp_path / "data", 0.3, 0))
    assert found is None
    assert "film1.tif: 1 image; " in said[0]
    assert said[0].endswith("film1.tif has 2 images (T 2); expected as many")


def test_channels_of_a_volume_are_bands_by_name(tmp_path: Path, rng: np.random.Generator) -> None:
    """OME's, in two files in two orders: learnt by name they are the same bands."""
    order = (("DAPI", "GFP"), ("GFP", "DAPI"))
    for name, channels in zip("ab", order, strict=True):
        images, masks = cells(rng, 3, 24, 28)
        other = np.full_like(images, 7)
        planes = [images if channel == "DAPI" else other for channel in channels]
        for kind in ("images", "masks"):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(tmp_path / "data" / "images" / f"{name}.ome.tif", np.stack(planes, axis=1), ome=True,
                         photometric="minisblack", metadata={"axes": "ZCYX", "Channel": {"Name": list(channels)}}
                         )  # fmt: skip
        tifffile.imwrite(tmp_path / "data" / "masks" / f"{name}.ome.tif", masks, ome=True, metadata={"axes": "ZYX"})
    options = TrainOptions(tmp_path / "data", tmp_path / "out", bands=("DAPI",), width=2, depth=1, epochs=1, crop=32)
    assert train.run(options, QUIET) == 0
    found, _ = looked_at(find_pairs(tmp_path / "data", 0.5, 0), chosen=("DAPI",))
    assert found is not None
    assert {fact.names for fact in found.facts.values()} == {("DAPI",)}
    assert all(fact.high > 50 for fact in found.facts.values())


def test_a_training_on_stacks_goes_on(tmp_path: Path, rng: np.random.Generator) -> None:
    write(tmp_path / "data", "film", *cells(rng, 6, 40, 48))
    whole = TrainOptions(tmp_path / "data", tmp_path / "whole", width=2, depth=1, epochs=2, crop=32, batch=2)
    assert train.run(whole, QUIET) == 0
    for more in ({"epochs": 1}, {"epochs": 2, "resume": True}):
        options = TrainOptions(**{**vars(whole), "out": tmp_path / "parts", **more})
        assert train.run(options, QUIET) == 0
    # Each epoch's rate follows from how long the whole is.
    assert [row["epoch"] for row in history(tmp_path / "parts")] == ["1", "2"]
    write(tmp_path / "data", "film", *cells(rng, 6, 40, 48))
    with pytest.raises(UsageError, match="data"):
        train.run(TrainOptions(**{**vars(whole), "out": tmp_path / "parts", "resume": True, "epochs": 3}), QUIET)


def test_the_report_shows_the_image_that_is_meant(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, masks = cells(rng, 4, 40, 48)
    write(tmp_path / "data", "film", images, masks)
    drawn: list[np.ndarray] = []
    whole: Callable[..., Any] = page.to_picture

    def noted(pixels: np.ndarray, *rest: Any) -> Any:
        drawn.append(pixels)
        return whole(pixels, *rest)

    monkeypatch.setattr(page, "to_picture", noted)
    options = TrainOptions(tmp_path / "data", tmp_path / "out", width=2, depth=1, epochs=1, crop=32, val=0.25)
    assert train.run(options, QUIET) == 0
    (pixels,) = drawn
    assert np.array_equal(pixels[0], images[3])
    text = (tmp_path / "out" / "validation" / "report.html").read_text()
    assert "0000_film, the first of" not in text
    assert train.run(replace(options, out=tmp_path / "two", val=0.5), QUIET) == 0
    assert np.array_equal(drawn[1][0], images[2])
    assert "0000_film, the first of 2 images" in (tmp_path / "two" / "validation" / "report.html").read_text()


def test_whole_volumes_of_a_stack_alone_are_validated_on(tmp_path: Path, rng: np.random.Generator) -> None:
    images, masks = cells(rng, 3, 4, 20, 24)
    write(tmp_path, "film", images, masks, "TZYX")
    expected = {(0.2, None): range(8, 12), (0.9, None): range(4, 12), (0.2, (1, 3)): range(4), (0.2, (1, 4)): range(3)}
    for (share, fold), planes in expected.items():
        found, _ = looked_at(find_pairs(tmp_path, share, 0, fold=fold))
        assert found is not None
        assert [pair.plane for pair in found.splits.val] == list(planes)
        assert len(found.splits.all) == 12
    for kind, pixels in (("images", images), ("masks", masks)):
        tifffile.imwrite(tmp_path / kind / "film.tif", pixels.swapaxes(0, 1), photometric="minisblack",
                         metadata={"axes": "ZTYX"})  # fmt: skip
    found, _ = looked_at(find_pairs(tmp_path, 0.2, 0))
    assert found is not None
    assert [pair.plane for pair in found.splits.val] == [2, 5, 8, 11]


def test_labels_and_numbers_of_objects_may_be_one_stack(tmp_path: Path, rng: np.random.Generator) -> None:
    lines = ["image,mask,instances"]
    for n in range(3):
        write(tmp_path, f"film{n}", *cells(rng, 2, 40, 48))
        lines.append(f"images/film{n}.tif,masks/film{n}.tif,masks/film{n}.tif")
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    options = TrainOptions(tmp_path / "pairs.csv", tmp_path / "out", width=2, depth=1, epochs=1, crop=32, batch=2,
                           border_weight=5, workers=2)  # fmt: skip
    assert train.run(options, QUIET) == 0


def test_grey_stacks_among_colours(tmp_path: Path, rng: np.random.Generator) -> None:
    for n in range(3):
        images, masks = cells(rng, 2, 40, 48)
        write(tmp_path / "data", f"film{n}", images, masks)
    colours = np.stack([images, images // 2, images // 3], axis=-1)
    tifffile.imwrite(tmp_path / "data" / "images" / "film2.tif", colours, photometric="rgb", metadata={"axes": "TYXS"})
    options = TrainOptions(tmp_path / "data", tmp_path / "out", width=2, depth=1, epochs=1, crop=32, batch=2)
    assert train.run(options, QUIET) == 0
    two = np.stack([images, images], axis=1)
    tifffile.imwrite(tmp_path / "data" / "images" / "film2.tif", two, imagej=True, metadata={"axes": "TCYX"})
    _, said = looked_at(find_pairs(tmp_path / "data", 0.3, 0))
    assert "band counts differ: " in said[-1]
    assert "film2.tif has 2" in said[-1]


def test_constants_are_those_of_the_images_as_files(tmp_path: Path, rng: np.random.Generator) -> None:
    """Of 16 bits, whose outliers are looked for in samples: as many of each image, however many are in a file."""
    images, masks = cells(rng, 40, 140, 150)
    images = images.astype(np.uint16) * 17
    write(tmp_path / "stack", "film", images, masks)
    write_apart(tmp_path / "apart", "film", images, masks)
    figures = []
    for kind in ("stack", "apart"):
        found, _ = looked_at(find_pairs(tmp_path / kind, 0.1, 0))
        assert found is not None
        figures.append(normalisation(replace(found, splits=replace(found.splits, train=found.splits.all))))
    assert figures[0].mean == pytest.approx(figures[1].mean, rel=1e-9)
    assert figures[0].deviation == pytest.approx(figures[1].deviation, rel=1e-9)


def test_a_look_ends_when_it_is_told_to(tmp_path: Path, rng: np.random.Generator) -> None:
    """In the middle of a stack, or of one image: a signal does not wait for the rest of it."""
    write(tmp_path, "film", *cells(rng, 30, 40, 48))
    (pair,) = find_pairs(tmp_path, 0.2, 0).all
    look = _Look(TWO, files.Files(), None, 1000, False)
    look.stop.set()
    with pytest.raises(KeyboardInterrupt):
        look.at_pair(pair)


def test_many_stacks_behind_one_page_are_not_many_open_files(tmp_path: Path, rng: np.random.Generator) -> None:
    """As ImageJ writes more than 4 GB: pixels that are mapped from a file keep it open."""
    for n in range(3):
        images, masks = cells(rng, 100, 20, 24)
        write(tmp_path / "data", f"film{n}", images, masks)
        tifffile.imwrite(tmp_path / "data" / "images" / f"film{n}.tif", images, imagej=True, truncate=True,
                         metadata={"axes": "TYX"})  # fmt: skip
    options = TrainOptions(tmp_path / "data", tmp_path / "out", width=2, depth=1, epochs=1, crop=16, batch=8)
    with few_open_files():
        assert train.run(options, QUIET) == 0


def test_a_stack_that_has_become_shorter_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    write(tmp_path, "film", *cells(rng, 3, 20, 24))
    found, _ = looked_at(find_pairs(tmp_path, 0.4, 0))
    assert found is not None
    write(tmp_path, "film", *cells(rng, 2, 20, 24))
    reading = Reading(TWO, Normalisation("uint8", (0.0,), (1.0,)))
    with pytest.raises(InputError, match=r"film.tif: 2 images \(T 2\); it had image 3 when it was looked at first"):
        reading.window(found.splits.val[0], 0, 0, 5, 5)


def test_black_and_white_masks_among_others_are_noticed(tmp_path: Path, rng: np.random.Generator) -> None:
    for n in range(3):
        images, masks = cells(rng, 2, 20, 24)
        write(tmp_path, f"film{n}", images, masks * (255 if n == 1 else 1))
    found, _ = looked_at(find_pairs(tmp_path, 0.3, 0))
    assert found is not None
    (line,) = warnings(found, ("0", "1"))
    assert "film1.tif, image 1: no class but one, and 255, which is no label, as in 1 more" in line


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_level_of_slides_is_learnt_from_polygons_drawn_on_the_whole(
    tmp_path: Path, rng: np.random.Generator, segcli: Program
) -> None:
    """As QuPath writes them; the weights say which size of pixels they know."""
    size = {"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25,
            "PhysicalSizeYUnit": "µm"}  # fmt: skip
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for n in range(4):
        whole = rng.integers(0, 60, (200, 240), np.uint8)
        whole[40 : 80 + 4 * n, 80:160] += 150
        with tifffile.TiffWriter(tmp_path / "data" / "images" / f"{n}.ome.tif") as file:
            file.write(whole, subifds=1, tile=(64, 64), photometric="minisblack", metadata=size)
            file.write(whole[::2, ::2], subfiletype=1, tile=(64, 64), photometric="minisblack")
        corners = [[80, 40], [160, 40], [160, 80 + 4 * n], [80, 80 + 4 * n], [80, 40]]
        feature = {"type": "Feature", "properties": {"classification": {"name": "light", "color": [1, 2, 3]}},
                   "geometry": {"type": "Polygon", "coordinates": [corners]}}  # fmt: skip
        text = json.dumps({"type": "FeatureCollection", "features": [feature]})
        (tmp_path / "data" / "masks" / f"{n}.geojson").write_text(text)
    for level in (("--mpp", "0.5"), ("--level", "1")):
        checked = segcli("train", "data", *level, "--check", "--json")
        assert checked.returncode == 0, checked.stderr
        for row in json.loads(checked.stdout)["data"]:
            assert (row["heights"], row["widths"]) == ([100, 100], [120, 120])
    small = ("--epochs", 2, "--width", 2, "--depth", 1, "--crop", 32)
    done = segcli("train", "data", "--mpp", "0.5", *small, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(tmp_path / "run" / "best.safetensors").mpp == 0.5
    with rasterio.open(next((tmp_path / "run" / "validation" / "truth").iterdir())) as truth:
        mask = truth.read(1)
    assert mask.shape == (100, 120)
    rows, columns = np.nonzero(mask)
    assert (columns.min(), columns.max() + 1, rows.min()) == (40, 80, 20)
    scan = next((tmp_path / "data" / "images").iterdir())
    line = "pixels of 0.25 um, and the weights learnt from 0.5 um; --mpp 0.5 looks for these"
    for level, is_odd in (((), True), (("--mpp", "0.5"), False)):
        done = segcli("predict", scan, "--weights", "run/best.safetensors", *level, "--out", f"masks{len(level)}")
        assert done.returncode == 0, done.stderr
        assert (line in done.stderr) is is_odd
    assert segcli("train", "data", "--mpp", "0.5", "--level", 1, "--check").returncode == 2
    # Pictures of that level lie under its masks.
    assert "<figcaption>image" in (tmp_path / "run" / "validation" / "report.html").read_text()
    (tmp_path / "truth").mkdir()
    shutil.copy(next((tmp_path / "masks2").glob("*.tif")), tmp_path / "truth")
    done = segcli("eval", "masks2", "truth", "--images", "data/images", "--out", "report")
    assert (done.returncode, "without its picture" in done.stderr) == (0, False), done.stderr
    done = segcli("colorize", "masks2", "--over", "data/images", "--out", "over")
    assert done.returncode == 0, done.stderr
    assert tifffile.imread(next((tmp_path / "over").glob("*.tif"))).shape == (100, 120, 3)
