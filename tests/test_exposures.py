"""Networks that learn from, and label, images brought to percentiles of their own values."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from helpers import brightness_model, write_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from segcli import predict
from segcli.classes import ClassTable
from segcli.cli import texts
from segcli.console import Console
from segcli.errors import NothingDoneError, UsageError
from segcli.measures.confusion import confusion_matrix
from segcli.network import checkpoint
from segcli.network.normalise import AROUND, Normalisation, normalise
from segcli.options import Percentiles, PredictOptions, TrainOptions
from segcli.raster.fit import ends_of, percentiles
from segcli.raster.images import open_images
from segcli.raster.source import Source
from segcli.train import run
from segcli.training.constants import brought_to_its_own, normalisation, ranges
from segcli.training.findings import as_record
from segcli.training.labels import Labels
from segcli.training.pairs import Splits, find_pairs
from segcli.training.sampling import Crops, Reading
from segcli.training.survey import Survey, survey

QUIET = Console(quiet=True)
MOST = Percentiles(1, 99)
OF_EACH = Percentiles(0.5, 99.5, per_band=True)
LIGHTS = ((1, 0), (20, 900), (0.25, 3), (7, 4000))
"""Gain and black level of each image."""


def write_scenes(folder: Path, dtypes: tuple[str, ...] = ("uint16",), bands: int = 3, count: int = 4) -> Path:
    """Dark ground with bright squares, each image in a light of its own; a mask says where the squares are."""
    rng = np.random.default_rng(5)
    for n in range(count):
        mask = np.zeros((48, 40), np.uint8)
        for row, col in rng.integers(0, 32, (3, 2)):
            mask[row : row + 9, col : col + 9] = 1
        gain, black = LIGHTS[n % len(LIGHTS)] if dtypes[n % len(dtypes)] != "uint8" else (1, 0)
        scene = rng.integers(20, 80, (bands, 48, 40)) + 150 * mask
        scene = (scene * gain + black).astype(dtypes[n % len(dtypes)])
        (folder / "images").mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / "images" / f"{n}.tif", scene if bands > 1 else scene[0],
                         photometric="minisblack", planarconfig="separate" if bands > 1 else None)  # fmt: skip
        write_picture(folder / "masks" / f"{n}.png", mask)
    return folder


def looked_at(data: Path, *, with_ranges: bool = True) -> Survey:
    labels = Labels(ClassTable.from_indices([0, 1]))
    return survey(find_pairs(data, 0.25, 0), labels, lambda _: None, with_ranges=with_ranges)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0%,100%", Percentiles(0, 100)), (" 0.5% , 99.5% , per-band", OF_EACH)],
)
def test_percentiles_on_the_command_line(text: str, expected: Percentiles) -> None:
    assert texts.percentiles("--input-range", text) == texts.value_range("--input-range", text) == expected
    assert texts.percentiles("--input-range", str(expected)) == expected
    assert texts.percentiles("--input-range", None) is None
    assert texts.percentiles("--input-range", "none") == "none"


@pytest.mark.parametrize(
    ("text", "said"),
    [("0,100", "two percentiles, 1%,99% or"), ("0,100,per-band", "two percentiles"),
     ("1%,99%,each", "two percentiles"), ("1%,101%", "two percentiles"), ("99%,1%", "two percentiles")],
)  # fmt: skip
def test_what_are_no_percentiles(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        texts.percentiles("--input-range", text)


def test_values_are_not_of_each_band() -> None:
    with pytest.raises(UsageError, match="per-band goes with percentiles"):
        texts.value_range("--input-range", "0,100,per-band")


def test_each_band_has_percentiles_of_its_own(tmp_path: Path, rng: np.random.Generator) -> None:
    """In the order in which the network sees the bands, and of those alone."""
    scene = rng.normal(0, 1, (4, 60, 50)) * np.array([1, 10, 100, 1000])[:, None, None]
    scene = scene.astype(np.float32)
    scene[1, 3] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", scene, photometric="minisblack", planarconfig="separate")
    with closing(open_images(tmp_path / "a.tif", "image")) as images:
        low, high = percentiles(images.planes, (2, 0, 1), OF_EACH)
        expected = np.nanpercentile(scene[[2, 0, 1]].reshape(3, -1).astype(np.float64), (0.5, 99.5), axis=1)
        assert np.allclose([low, high], expected, rtol=1e-5)
        assert percentiles(images.planes, (1, 1), OF_EACH) == ((low[2],) * 2, (high[2],) * 2)


@pytest.mark.parametrize(("rows", "most", "sampled"), [(8, 3, 2**20), (8, 3, 500), (16, 64, 700), (7, 2, 9)])
def test_of_large_images_a_grid_is_looked_at(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, rows: int, most: int, sampled: int
) -> None:
    """In strips that are spread over all of it, which alone are read, and the same whether the file is loaded."""
    for name, value in (("ROWS", rows), ("MOST_STRIPS", most), ("SAMPLED", sampled)):
        monkeypatch.setattr(f"segcli.raster.fit.{name}", value)
    scene = rng.integers(0, 60_000, (2, 100, 70), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", scene, photometric="minisblack", planarconfig="separate", rowsperstrip=1)
    every = int(np.ceil(100 / rows / most))
    step = int(np.ceil(np.sqrt(100 * 70 / every / sampled)))
    seen = [row for first in range(0, 100, rows * every) for row in range(first, min(first + rows, 100))]
    expected = scene[:, [row for row in seen if row % step == 0], ::step].reshape(2, -1)
    with Source(tmp_path / "a.tif") as image:
        read: list[int] = []
        whole = image.patch
        monkeypatch.setattr(image, "patch", lambda row, *more: read.append(row) or whole(row, *more))
        low, high = percentiles([image], (0, 1), OF_EACH)
        image.load()
        assert percentiles([image], (0, 1), OF_EACH) == (low, high)
    assert np.allclose([low, high], np.percentile(expected, (0.5, 99.5), axis=1))
    assert (len(read) > 0) == (every > 1)


def write_weights(path: Path, wanted: Percentiles) -> Path:
    """Class 7 where the first band is above the middle of its image's range."""
    model = brightness_model()
    checkpoint.save(replace(model, normalisation=Normalisation("uint8", (0.5,) * 3, (0.5,) * 3, wanted)), path)
    return path


def masks(folder: Path, weights: Path, files: list[Path], **more: object) -> list[np.ndarray]:
    options = PredictOptions(tuple(files), folder, (str(weights),), **more)  # type: ignore[arg-type]
    assert predict.run(options, QUIET) == 0
    return [tifffile.imread(folder / f"{path.stem}.tif") for path in files]


@settings(max_examples=5, deadline=None)
@given(
    seed=st.integers(0, 999), gains=st.tuples(*[st.sampled_from([0.125, 1, 2, 64])] * 3),
    blacks=st.tuples(*[st.sampled_from([0, 8, 512])] * 3), dtype=st.sampled_from(["uint16", "int32", "float32"]),
)  # fmt: skip
def test_light_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, seed: int, gains: tuple[float, ...], blacks: tuple[int, ...], dtype: str
) -> None:
    """Gain and black level of a file, or of each band of it, and its type: the mask is the same to the pixel."""
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("light")
    scene = rng.integers(0, 29, (3, 33, 47)) * 8
    scene[:, 0, 0], scene[:, 0, 1] = 0, 30 * 8  # no value lies in the middle, where rounding would decide
    gain, black = (np.array(figures)[:, None, None] for figures in (gains, blacks))
    files = [folder / "plain.tif", folder / "alike.tif", folder / "each.tif"]
    for file, pixels in zip(files, (scene, scene * gains[0] + blacks[0], scene * gain + black), strict=True):
        kind = np.uint8 if file is files[0] else dtype
        tifffile.imwrite(file, pixels.astype(kind), photometric="minisblack", planarconfig="separate")
    keep = scene[0] != 15 * 8
    of_all = masks(folder / "all", write_weights(folder / "all.safetensors", Percentiles(0, 100)), files[:2])
    of_each = masks(folder / "each", write_weights(folder / "each.safetensors", Percentiles(0, 100, True)), files)
    expected = np.where(scene[0] > 15 * 8, 7, 2)
    for found in (*of_all, *of_each):
        assert np.array_equal(found[keep], expected[keep])


def test_values_may_be_said_instead(tmp_path: Path, rng: np.random.Generator) -> None:
    """What stands for the two ends: of a tile, for example, those of its scene; other percentiles, too."""
    scene = rng.integers(100, 900, (3, 40, 50)).astype(np.uint16)
    scene[:, 0, 0] = 60_000
    tifffile.imwrite(tmp_path / "a.tif", scene, photometric="minisblack", planarconfig="separate")
    weights = write_weights(tmp_path / "w.safetensors", Percentiles(0, 100))
    (mask,) = masks(tmp_path / "bright", weights, [tmp_path / "a.tif"])
    assert (mask == 7).sum() == 1  # one spot has all the range
    (mask,) = masks(tmp_path / "said", weights, [tmp_path / "a.tif"], input_range=(100.0, 901.0))
    assert np.array_equal(mask == 7, scene[0] > 500)
    (mask,) = masks(tmp_path / "shares", weights, [tmp_path / "a.tif"], input_range=Percentiles(0, 99))
    assert (mask == 7).mean() == pytest.approx(0.5, abs=0.05)


def test_tiles_of_one_scene_are_noticed(tmp_path: Path, segcli: Callable[..., Any], rng: np.random.Generator) -> None:
    tifffile.imwrite(tmp_path / "a.tif", rng.integers(0, 255, (64, 64, 3), np.uint8), photometric="rgb")
    assert segcli("tile", "a.tif", "--size", "32", "--out", "tiles").returncode == 0
    weights = write_weights(tmp_path / "w.safetensors", MOST)
    done = segcli("predict", "tiles", "--out", "own", "--weights", weights)
    assert done.returncode == 0
    assert "tiles: tiles have percentiles of their own each" in done.stderr.replace("\n", " ")
    for more in (("tiles", "--input-range", "0,255"), ("a.tif",)):
        done = segcli("predict", *more, "--out", f"masks_{len(more)}", "--weights", weights)
        assert (done.returncode, "of their own" in done.stderr) == (0, False)


@pytest.mark.parametrize("wanted", [MOST, OF_EACH])
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("types", [("uint16", "float32", "uint8"), ("uint8",)])
def test_training_sees_what_predict_sees(
    tmp_path: Path, wanted: Percentiles, bands: int, types: tuple[str, ...]
) -> None:
    """To the bit; with a mean of 0 and a deviation of 1 over the training images, whatever their types and light."""
    data = write_scenes(tmp_path / "data", types, bands)
    found = looked_at(data)
    ends = ranges(found, wanted)
    constants = normalisation(found, wanted, ends)
    reading = Reading(Labels(ClassTable.from_indices([0, 1])), constants, ranges=ends)
    learnt = []
    for pair in found.splits.all:
        seen, _ = reading.window(pair, 0, 0, 48, 40)
        with Source(pair.image) as image:
            shown = percentiles([image], range(bands), wanted)
            (strip,) = normalise([(0, image.patch(0, 0, 48, 40)[0][None], None)], constants, [shown],
                                 torch.device("cpu"))  # fmt: skip
        assert np.array_equal(strip.values[0].numpy(), seen)
        if pair in found.splits.train:
            learnt.append(seen)
    values = np.stack(learnt).swapaxes(0, 1).reshape(bands, -1)
    assert values.mean(1) == pytest.approx(0, abs=0.02)  # constants are of values cut at percentiles
    assert values.std(1) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("wanted", [MOST, OF_EACH])
@pytest.mark.parametrize("holes", [False, True])
def test_a_crop_by_itself_is_as_a_file_of_it(tmp_path: Path, wanted: Percentiles, holes: bool) -> None:
    data = write_scenes(tmp_path / "data", ("float32",))
    found = looked_at(data)
    ends = ranges(found, wanted)
    constants = normalisation(found, wanted, ends)
    reading = Reading(Labels(ClassTable.from_indices([0, 1])), constants, ranges=ends)
    for pair in found.splits.all:
        seen, _ = reading.window(pair, 8, 4, 30, 30)
        void = None
        part = tifffile.imread(pair.image)[:, 8:38, 4:34]
        if holes:
            void = np.zeros((1, 30, 30), bool)
            void[:, :5] = True
            part = np.where(void, np.float32(np.nan), part)
        tifffile.imwrite(tmp_path / "part.tif", part, photometric="minisblack", planarconfig="separate")
        with Source(tmp_path / "part.tif") as image:
            alone = percentiles([image], range(3), wanted)
        (strip,) = normalise([(0, part[None], None)], constants, [alone], torch.device("cpu"))
        inside = (seen > constants.cut()[0].max()) & (seen < constants.cut()[1].min())  # what was cut is lost
        assert inside.mean() > 0.99
        by_itself = brought_to_its_own(seen, void, constants)
        np.testing.assert_allclose(by_itself[inside], strip.values[0].numpy()[inside], atol=2e-4)


@pytest.mark.parametrize("step", [0, 1e-7, 1e-3])
def test_a_crop_of_one_value_is_dark(step: float) -> None:
    """All of it is as the lowest value, also where rounding makes two of one; what differs fills the range."""
    constants = Normalisation("uint16", (0.25,), (0.5,), Percentiles(0, 100))
    image = np.full((1, 8, 8), 0.7, np.float32)
    image[0, :4] += np.float32(step)
    values = brought_to_its_own(image, None, constants) * 0.5 + 0.25
    assert np.isfinite(values).all()
    assert values[0, 4:] == pytest.approx(0, abs=1e-6)
    assert (values[0, :4] == pytest.approx(1, abs=1e-3)) == (step == 1e-3)
    void = np.ones((1, 8, 8), bool)
    assert (brought_to_its_own(image, void, constants) == 0).all()


def test_every_other_crop_is_by_itself(tmp_path: Path) -> None:
    """Where images have ranges of their own, and nowhere else. Of a crop that shows nothing noise fills the range."""
    data = tmp_path / "data"
    rng = np.random.default_rng(1)
    for n in range(2):
        scene = rng.integers(100, 104, (64, 64)).astype(np.uint16)
        scene[:3, :3] = 60_000
        (data / "images").mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(data / "images" / f"{n}.tif", scene, photometric="minisblack")
        write_picture(data / "masks" / f"{n}.png", np.pad(np.ones((3, 3), np.uint8), ((0, 61), (0, 61))))
    found, wanted = looked_at(data), Percentiles(0, 100)
    ends = ranges(found, wanted)
    for given_ends in (ends, {}):
        constants = normalisation(found, wanted if given_ends else None, given_ends)
        reading = Reading(Labels(ClassTable.from_indices([0, 1])), constants, ranges=given_ends)
        crops = Crops(found, reading, 16, 0, "none")
        images = [crops.crop(0, 0, number) for number in range(200)]
        spread = np.array([np.ptp(crop.image) for crop in images if not (crop.target == 1).any()])
        by_itself = spread * constants.deviation[0] > (0.9 if given_ends else 59_000)
        assert by_itself.mean() == pytest.approx(0.5 if given_ends else 0, abs=0.1)


def test_an_image_without_a_band_s_data_is_no_measure(tmp_path: Path) -> None:
    """Where the sample of a band meets no data the sums count, in the range, too."""
    data = write_scenes(tmp_path / "data", ("float32",), 1, count=2)
    for n in range(2):
        scene = np.full((48, 40), np.nan, np.float32)
        scene[1, 1], scene[1, 2] = 1000, 3000
        tifffile.imwrite(data / "images" / f"{n}.tif", scene, photometric="minisblack")
    found = looked_at(data)
    without = replace(found, facts={pair: replace(fact, sample=np.empty((1, 0), np.float32))
                                    for pair, fact in found.facts.items()})  # fmt: skip
    wanted = Percentiles(0, 100)
    constants = normalisation(without, wanted, ranges(found, wanted))
    assert (constants.mean, constants.deviation) == (pytest.approx((0.5,)), pytest.approx((0.5,)))


def trained(data: Path, out: Path, **more: object) -> TrainOptions:
    options = {"width": 4, "depth": 1, "crop": 32, "batch": 2, "epochs": 3, "val": 0.25} | more
    return TrainOptions(data, out, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [False, True])
def test_train_keeps_what_predict_is_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: bool) -> None:
    """Images of three types and four lights: validation in training counts what the masks of predict hold."""
    if rows:
        monkeypatch.setattr("segcli.training.validation.WHOLE_PIXELS", 0)
    data = write_scenes(tmp_path / "data", ("uint16", "float32", "uint8"), count=8)
    assert run(trained(data, tmp_path / "run", epochs=6, learning_rate=0.02, ema=0.0, input_range=OF_EACH), QUIET) == 0
    best = tmp_path / "run" / "best.safetensors"
    model = checkpoint.load(best)
    assert model.normalisation.percentiles == OF_EACH
    val = find_pairs(data, 0.25, 0).val
    found = masks(tmp_path / "masks", best, [pair.image for pair in val])
    true = [(data / "masks" / f"{pair.image.stem}.png") for pair in val]
    matrix = sum(
        confusion_matrix(tifffile_or_png(path).astype(np.int64), mask.astype(np.int64), 2)
        for path, mask in zip(true, found, strict=True)
    )
    report = json.loads((tmp_path / "run" / "validation" / "report.json").read_text())
    assert np.array_equal(matrix, report["confusion_matrix"])
    assert report["dataset"]["mean_iou"]["value"] > 0.8


def tifffile_or_png(path: Path) -> np.ndarray:
    with Source(path, "mask") as source:
        return source.patch(0, 0, source.grid.height, source.grid.width)[0][0]


def test_types_may_differ_with_percentiles_alone(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", ("uint16", "float32"))
    with pytest.raises(UsageError, match=r"dtypes differ: .*or give --input-range 1%,99%"):
        looked_at(data, with_ranges=False)
    found = looked_at(data)
    assert found.dtype in ("uint16", "float32")
    seen = {part["split"]: part for part in as_record(found, ("0", "1"))["data"]}
    assert (seen["train"]["dtype"], len(found.splits.train)) == ("float32, uint16", 3)


def test_weights_say_what_a_second_training_does(tmp_path: Path, refused: Callable[..., str]) -> None:
    """It goes on with their percentiles and their constants, or with others that are asked for, and new constants."""
    data, other = write_scenes(tmp_path / "data"), write_scenes(tmp_path / "other", ("float32",))
    assert run(trained(data, tmp_path / "a", epochs=1, input_range=MOST), QUIET) == 0
    first = tmp_path / "a" / "best.safetensors"
    assert run(trained(other, tmp_path / "b", epochs=1, weights=first), QUIET) == 0
    assert run(trained(other, tmp_path / "c", epochs=1, weights=first, input_range=OF_EACH), QUIET) == 0
    one, two, three = (checkpoint.load(tmp_path / name / "best.safetensors").normalisation for name in "abc")
    assert two == one
    assert (three.percentiles, three.dtype) == (OF_EACH, "float32")
    assert three.mean != one.mean
    assert run(trained(data, tmp_path / "d", epochs=1), QUIET) == 0
    plain = tmp_path / "d" / "best.safetensors"
    assert run(trained(data, tmp_path / "e", epochs=1, weights=plain, input_range=MOST), QUIET) == 0
    constants = checkpoint.load(tmp_path / "e" / "best.safetensors").normalisation
    assert constants == checkpoint.load(first).normalisation != checkpoint.load(plain).normalisation
    assert run(trained(data, tmp_path / "f", epochs=1, weights=first, input_range="none"), QUIET) == 0
    assert checkpoint.load(tmp_path / "f" / "best.safetensors").normalisation == checkpoint.load(plain).normalisation


def test_a_training_goes_on_with_its_own_percentiles_alone(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data")
    options = trained(data, tmp_path / "run", epochs=1, input_range=MOST)
    assert run(options, QUIET) == 0
    assert run(replace(options, epochs=2, resume=True), QUIET) == 0
    with pytest.raises(
        UsageError, match=r"begun with --input-range 1%,99%; now with --input-range 0\.5%,99\.5%,per-band"
    ):
        run(replace(options, epochs=3, resume=True, input_range=OF_EACH), QUIET)


def change_header(path: Path, key: str, change: Callable[[dict[str, Any]], object]) -> None:
    """The JSON text in the metadata of a safetensors file."""
    written = path.read_bytes()
    size = int.from_bytes(written[:8], "little")
    header = json.loads(written[8 : 8 + size])
    record = json.loads(header["__metadata__"][key])
    change(record)
    header["__metadata__"][key] = json.dumps(record)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + written[8 + size :])


@pytest.mark.parametrize(
    "shares",
    [{"low": 5, "high": 2}, {"low": "a", "high": 2}, {"lowest": 1}, [1, 99], 7, 0, {}, None,
     {"low": 1, "high": 2, "per_band": "no"}],
)  # fmt: skip
def test_weights_with_odd_percentiles_are_no_weights(tmp_path: Path, shares: object) -> None:
    path = write_weights(tmp_path / "w.safetensors", MOST)

    def change(record: dict[str, Any]) -> None:
        assert record["format"] == 2  # who reads only the first would take values as they are
        assert record["normalisation"]["percentiles"] == {"low": 1, "high": 99, "per_band": False}
        record["normalisation"]["percentiles"] = shares

    change_header(path, "segcli", change)
    with pytest.raises(NothingDoneError, match="expected weights"):
        checkpoint.load(path)


def test_ends_are_those_of_the_bands_that_are_chosen(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", count=2)
    pairs = find_pairs(data, 0.5, 0)
    for pair in pairs.all:  # each band in a light of its own
        scene = tifffile.imread(pair.image) * np.array([1, 2, 5], np.uint16)[:, None, None]
        tifffile.imwrite(pair.image, scene, photometric="minisblack", planarconfig="separate")
    labels = Labels(ClassTable.from_indices([0, 1]))
    found = survey(Splits(pairs.train, pairs.val), labels, lambda _: None, (3, 1), with_ranges=True)
    ends = ranges(found, Percentiles(0, 100, per_band=True))
    for pair in pairs.all:
        scene = tifffile.imread(pair.image)
        assert ends[pair] == (tuple(scene[[2, 0]].min((1, 2))), tuple(scene[[2, 0]].max((1, 2))))


@pytest.mark.parametrize("wanted", [MOST, OF_EACH])
@pytest.mark.parametrize(
    ("dtype", "hot"), [("uint16", 65535), ("int32", -(2**31)), ("float32", 1e30), ("float32", -3.4e38)]
)
def test_a_few_hot_pixels_spoil_nothing(tmp_path: Path, wanted: Percentiles, dtype: str, hot: float) -> None:
    """More of them in one band than the percentiles of all leave out: constants are much the same, and no input is
    further away than one range."""
    data = write_scenes(tmp_path / "data", (dtype,))
    plain = looked_at(data)
    usual = normalisation(plain, wanted, ranges(plain, wanted))
    for path in (data / "images").iterdir():
        scene = tifffile.imread(path)
        scene[2, 3:4, :] = hot  # a 48th of the band
        tifffile.imwrite(path, scene, photometric="minisblack", planarconfig="separate")
    found = looked_at(data)
    ends = ranges(found, wanted)
    constants = normalisation(found, wanted, ends)
    if not wanted.per_band:  # of each band by itself the hot ones are an end
        assert np.allclose(constants.mean, usual.mean, atol=0.05)
        assert (np.array(constants.deviation) / usual.deviation < 1.6).all()  # thousands, if they were not cut
    reading = Reading(Labels(ClassTable.from_indices([0, 1])), constants, ranges=ends)
    for pair in found.splits.all:
        seen, _ = reading.window(pair, 0, 0, 48, 40)
        with Source(pair.image) as image:
            pixels = image.patch(0, 0, 48, 40)[0][None]
            (strip,) = normalise([(0, pixels, None)], constants, [ends[pair]], torch.device("cpu"))
        assert np.array_equal(strip.values[0].numpy(), seen)
        low, high = ((np.array(end) - constants.mean) / constants.deviation for end in AROUND)
        assert ((seen >= low[:, None, None] - 1e-5) & (seen <= high[:, None, None] + 1e-5)).all()


def test_a_training_of_old_goes_on(tmp_path: Path) -> None:
    """What was noted before there were percentiles says nothing of them."""
    data = write_scenes(tmp_path / "data")
    options = trained(data, tmp_path / "run", epochs=1)
    assert run(options, QUIET) == 0
    path = tmp_path / "run" / "last.safetensors"
    change_header(path, "segcli-training", lambda state: state["record"].pop("input_range"))
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["segcli-training"])["record"]
    assert set(record["normalisation"]) == {"dtype", "mean", "deviation"}
    assert run(replace(options, epochs=2, resume=True), QUIET) == 0
    with pytest.raises(UsageError, match=r"begun without --input-range; now with --input-range 1%,99%"):
        run(replace(options, epochs=3, resume=True, input_range=MOST), QUIET)


def test_a_fold_is_resumed_as_that_fold(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data")
    options = trained(data, tmp_path / "run", epochs=1, val=0.2, fold=(1, 2))
    assert run(options, QUIET) == 0
    assert run(replace(options, epochs=2, resume=True), QUIET) == 0
    with pytest.raises(UsageError, match="begun with --fold 1/2; now with --fold 2/2"):
        run(replace(options, epochs=3, resume=True, fold=(2, 2)), QUIET)


def test_ends_of_narrow_types(rng: np.random.Generator) -> None:
    """Between two values of a type there may be more than it holds."""
    assert ends_of(np.array([-128] * 99 + [127], np.int8), MOST) == pytest.approx((-128, -125.45))
    low, high = ends_of(np.array([-3e38] * 99 + [3e38], np.float32), MOST)
    assert low == pytest.approx(-3e38) and np.isfinite(high)
