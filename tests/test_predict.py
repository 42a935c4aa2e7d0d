"""segcli predict, as a function and as the installed program. The model's answer is known: light is 7, dark is 2."""

import gc
import os
import re
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import torch
from helpers import brightness_model, random_model, write_picture
from PIL import Image
from rasterio.transform import from_origin

from segcli.classes import ClassTable
from segcli.cli.texts import size_in_bytes
from segcli.console import Console
from segcli.errors import InputError, NothingDoneError, UsageError
from segcli.network import checkpoint
from segcli.network.blend import Windows
from segcli.network.budget import Memory
from segcli.network.device import choose_precision, is_out_of_memory
from segcli.network.normalise import Normalisation, normalise, scaling
from segcli.network.plan import Plan
from segcli.network.scorer import Scorer, first_scorer, make_scorer
from segcli.network.stream import RowStream, Stream
from segcli.network.unet import NetworkConfig, UNet
from segcli.options import Percentiles, PredictOptions
from segcli.outputs import encoding, wanted_products
from segcli.predict import Setting, flow, run
from segcli.raster.fit import percentiles
from segcli.raster.images import open_images
from segcli.raster.source import Source

CPU = torch.device("cpu")
Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def scan(rng: np.random.Generator) -> np.ndarray:
    """(row, col, RGB) with a red band that is clearly light or dark."""
    pixels = rng.integers(0, 255, (37, 53, 3), np.uint8)
    pixels[:, :, 0] = np.where(rng.random((37, 53)) > 0.5, 220, 30)
    return pixels


def expected(scan: np.ndarray) -> np.ndarray:
    return np.where(scan[:, :, 0] > 127, 7, 2)


def mask_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def predict(tmp_path: Path, weights: Path, *inputs: Path, **more: object) -> int:
    options = PredictOptions(inputs, tmp_path / "masks", (str(weights),), **more)  # type: ignore[arg-type]
    return run(options, Console(quiet=True))


def test_rgb_rgba_grey_and_16_bit(tmp_path: Path, weights: Path, scan: np.ndarray) -> None:
    alpha = np.random.default_rng(1).integers(1, 255, (37, 53, 1), np.uint8)
    red, wide = scan[:, :, 0], scan.astype(np.uint16)
    files = {
        "rgb.png": scan,
        "rgb_tiff.tif": scan,
        "rgba.png": np.concatenate([scan, alpha], axis=2),
        "grey.png": red,
        "wide.png": wide * 257,
        "wide_12bit.tif": wide[:, :, 0] * 16,
        "jpeg.jpg": np.repeat(red[:, :, None], 3, axis=2),
    }
    for name, pixels in files.items():
        write_picture(tmp_path / "scans" / name, pixels)
    assert predict(tmp_path, weights, tmp_path / "scans") == 0
    for name in files:
        mask = mask_of(tmp_path / "masks" / Path(name).with_suffix(".tif" if name.endswith("tif") else ".png"))
        assert mask.dtype == np.uint8
        agreement = (mask == expected(scan)).mean()
        assert agreement == 1 if name != "jpeg.jpg" else agreement > 0.95, name


def test_input_range_is_what_it_says(tmp_path: Path, weights: Path) -> None:
    values = np.array([[1000, 1400, 1600, 2000]], np.uint16)
    write_picture(tmp_path / "a.png", values)
    assert predict(tmp_path, weights, tmp_path / "a.png", input_range=(1000.0, 2000.0)) == 0
    assert mask_of(tmp_path / "masks" / "a.png").tolist() == [[2, 2, 7, 7]]


def test_percentiles_of_each_image_are_its_range(tmp_path: Path, weights: Path, rng: np.random.Generator) -> None:
    """As the two values by hand, of floats, too; of one value nothing is bright. A second run has nothing to do."""
    scenes = {
        "dim": rng.integers(0, 9, (40, 50), np.uint16),
        "floats": rng.normal(-2, 0.01, (40, 50)).astype(np.float32),
        "blank": np.full((40, 50), 777, np.uint16),
        "huge": np.full((40, 50), 1e20, np.float32),
        "spot": np.zeros((40, 50), np.float32),
    }
    scenes["spot"][7:9, 7:9] = 0.01  # both percentiles are 0
    scenes["floats"][3, 3] = np.nan
    more = {"input_range": Percentiles(2, 98)}
    (tmp_path / "scans").mkdir()
    for name, scene in scenes.items():
        tifffile.imwrite(tmp_path / "scans" / f"{name}.tif", scene, photometric="minisblack")
    assert predict(tmp_path, weights, tmp_path / "scans", **more) == 0
    for name in ("dim", "floats"):
        low, high = np.nanpercentile(scenes[name].astype(np.float64), (2, 98))
        file = tmp_path / "scans" / f"{name}.tif"
        assert predict(tmp_path / "by hand", weights, file, input_range=(float(low), float(high))) == 0
        found = mask_of(tmp_path / "masks" / f"{name}.tif")
        assert np.array_equal(found, mask_of(tmp_path / "by hand" / "masks" / f"{name}.tif"))
        assert (found == 7).mean() == pytest.approx(0.5, abs=0.1)
    assert set(np.unique(mask_of(tmp_path / "masks" / "blank.tif"))) == {2}
    assert set(np.unique(mask_of(tmp_path / "masks" / "huge.tif"))) == {2}
    assert np.array_equal(mask_of(tmp_path / "masks" / "spot.tif") == 7, scenes["spot"] > 0)
    options = PredictOptions((tmp_path / "scans",), tmp_path / "masks", (str(weights),), **more)  # type: ignore[arg-type]
    assert run(replace(options, verify=True), Console(quiet=True)) == 0
    assert run(replace(options, verify=True, input_range=Percentiles(1, 98)), Console(quiet=True)) == 1


@pytest.mark.parametrize(
    ("dtype", "text"),
    [("uint16", "in percentiles; the weights expect uint16, not uint8"),
     ("float32", "--input-range; the weights expect floats as they are")],
)  # fmt: skip
def test_percentiles_are_for_weights_of_8_bits(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str], dtype: str, text: str
) -> None:
    """Of others nobody knows how much of their type's range training saw."""
    model = replace(brightness_model(), normalisation=Normalisation(dtype, (500.0,) * 3, (100.0,) * 3))
    checkpoint.save(model, tmp_path / "w.safetensors")
    tifffile.imwrite(tmp_path / "a.tif", rng.integers(0, 900, (40, 50)).astype(dtype), photometric="minisblack")
    options = PredictOptions((tmp_path / "a.tif",), tmp_path / "masks", (str(tmp_path / "w.safetensors"),),
                             input_range=Percentiles(0, 100))  # fmt: skip
    assert run(options, Console()) == 1
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("sampled", [2**20, 900, 1])
def test_percentiles_are_of_all_data_of_a_file(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, sampled: int
) -> None:
    """Of the images of a stack together, in the bands that are seen; of large ones of a regular grid."""
    monkeypatch.setattr("segcli.raster.fit.SAMPLED", sampled)
    stack = rng.integers(1, 60_000, (3, 90, 70), np.uint16)
    stack[1, :40] = 0
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"})
    step = {2**20: 1, 900: 5, 1: 138}[sampled]
    with closing(open_images(tmp_path / "a.tif", "image")) as images:
        found = percentiles(images.planes, (0, 0, 0), Percentiles(1, 99))
    assert found == pytest.approx(tuple(np.percentile(stack[:, ::step, ::step], (1, 99))))
    scene = rng.normal(0, 1, (4, 90, 70)).astype(np.float32)
    scene[:, 5:9] = np.nan
    with rasterio.open(tmp_path / "b.tif", "w", "GTiff", 70, 90, 4, "EPSG:32632",
                       from_origin(5e5, 5e6, 1, 1), "float32") as file:  # fmt: skip
        file.write(scene)
    step = {2**20: 1, 900: 3, 1: 80}[sampled]
    with closing(open_images(tmp_path / "b.tif", "image")) as images:
        found = percentiles(images.planes, (3, 1), Percentiles(5, 95))
    assert found == pytest.approx(tuple(np.nanpercentile(scene[[1, 3], ::step, ::step], (5, 95))), rel=1e-6)
    scene[:] = np.nan
    with rasterio.open(tmp_path / "b.tif", "r+") as file:
        file.write(scene)
    with closing(open_images(tmp_path / "b.tif", "image")) as images:
        assert percentiles(images.planes, (0,), Percentiles(5, 95)) == (0, 1)


@pytest.mark.parametrize(("axes", "together"), [("TYX", False), ("ZYX", True), ("QYX", False), ("CYX", True)])
def test_images_of_a_stack_have_percentiles_of_their_own(
    tmp_path: Path, weights: Path, axes: str, together: bool
) -> None:
    """As if each were a file, so that one that is dim is not lost; but not depths of one volume, nor channels."""
    frame = np.zeros((30, 40), np.uint16)
    frame[5:9, 5:9] = 1000
    stack = np.stack([400 + frame, 20_000 + frame // 2])
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", metadata={"axes": axes})
    bands = (1,) if "C" in axes else None
    options = PredictOptions((tmp_path / "a.tif",), tmp_path / "masks", (str(weights),),
                             input_range=Percentiles(0, 100), bands=bands)  # fmt: skip
    assert run(options, Console()) == 0
    found = tifffile.imread(tmp_path / "masks" / "a.tif").reshape(-1, 30, 40)
    expected = [frame > 0] * 2
    if axes == "ZYX":
        expected = [np.zeros_like(frame, bool), np.ones_like(frame, bool)]
    assert np.array_equal(found == 7, np.stack(expected[: len(found)]))


def test_a_mask_lies_where_its_scene_lies(tmp_path: Path, weights: Path, scan: np.ndarray) -> None:
    transform = from_origin(600_000, 5_500_000, 0.5, 0.5)
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", height=37, width=53, count=3, dtype="uint8",
        crs="EPSG:32632", transform=transform, photometric="RGB",
    ) as dataset:  # fmt: skip
        dataset.write(scan.transpose(2, 0, 1))
    assert predict(tmp_path, weights, tmp_path / "scene.tif") == 0
    with rasterio.open(tmp_path / "masks" / "scene.tif") as mask:
        assert (mask.crs.to_epsg(), mask.transform, mask.dtypes) == (32632, transform, ("uint8",))
        assert np.array_equal(mask.read(1), expected(scan))
        assert mask.colormap(1)[7] == (250, 200, 0, 255)


def test_the_mask_is_the_whole_pass(tmp_path: Path, rng: np.random.Generator) -> None:
    """With a random network, against the network called by hand."""
    torch.manual_seed(5)
    network = UNet(NetworkConfig(3, 4, width=6, depth=3)).eval()
    classes = ClassTable.from_indices([0, 1, 2, 9])
    model = checkpoint.Model(network, Normalisation("uint8", (100.0, 90.0, 80.0), (50.0, 60.0, 70.0)), classes)
    checkpoint.save(model, tmp_path / "w.safetensors")
    pixels = rng.integers(0, 255, (61, 45, 3), np.uint8)
    assert predict(tmp_path, tmp_path / "w.safetensors", write_picture(tmp_path / "a.png", pixels)) == 0
    image = (torch.from_numpy(pixels).permute(2, 0, 1).double() - torch.tensor([100, 90, 80])[:, None, None]) / (
        torch.tensor([50, 60, 70])[:, None, None]
    )
    with torch.no_grad():
        scores = network.double()(image[None])[0]
    labels = np.array([0, 1, 2, 9])[scores.argmax(0).numpy()]
    top = scores.topk(2, dim=0).values
    clear = ((top[0] - top[1]) > 1e-4).numpy()
    mask = mask_of(tmp_path / "masks" / "a.png")
    assert np.array_equal(mask[clear], labels[clear])
    assert clear.mean() > 0.99
    assert len(np.unique(mask)) > 1


def test_overlays_show_the_picture_through_the_colours(tmp_path: Path, weights: Path, scan: np.ndarray) -> None:
    write_picture(tmp_path / "a.png", scan)
    assert predict(tmp_path, weights, tmp_path / "a.png", overlay=True, alpha=0.25) == 0
    colors = np.where(expected(scan)[:, :, None] == 7, [250, 200, 0], [0, 0, 90])
    drawn = mask_of(tmp_path / "masks" / "overlays" / "a.png")
    assert np.abs(drawn - (0.75 * scan + 0.25 * colors)).max() <= 0.51


def test_normalising_is_the_formula() -> None:
    pixels = np.array([[[0, 10]], [[4, 8]]], np.uint16)
    constants = Normalisation("uint8", (1.0, 2.0), (4.0, 0.5))
    ((first, values, empty),) = normalise([(3, np.stack([pixels] * 2), None)], constants, [(0.0, 510.0), None], CPU)
    assert first == 3
    assert not empty
    assert values.tolist() == [[[[-0.25, 1.0]], [[0.0, 4.0]]], [[[-0.25, 2.25]], [[4.0, 12.0]]]]
    assert scaling((-1.0, 1.0), (0.0, 255.0)) == (127.5, 127.5)


def test_the_program_does_the_good_ones_and_names_the_bad(
    segcli: Program, tmp_path: Path, weights: Path, scan: np.ndarray
) -> None:
    for name in ("a.png", "z.tif"):
        write_picture(tmp_path / "scans" / name, scan)
    (tmp_path / "scans" / "broken.png").write_bytes((tmp_path / "scans" / "a.png").read_bytes()[:900])
    write_picture(tmp_path / "scans" / "two.png", scan[:, :, 0])
    with rasterio.open(
        tmp_path / "scans" / "five.tif", "w", driver="GTiff", height=3, width=3, count=5, dtype="uint8",
        transform=from_origin(5, 5, 2, 2),
    ) as dataset:  # fmt: skip
        dataset.write(np.zeros((5, 3, 3), np.uint8))
    result = segcli("predict", "scans", "--out", "masks", "--weights", weights)
    assert result.returncode == 1
    assert result.stdout.split() == ["masks/a.png", "masks/two.png", "masks/z.tif"]
    lines = result.stderr.splitlines()
    assert [line for line in lines if line.startswith("segcli: scans/broken.png: ")]
    five = "segcli: scans/five.tif: 5 bands; the weights expect 3 or 1 (grey); choose with --bands, or other weights"
    assert five in lines
    assert lines[-1] == "done 3  up to date 0  failed 2"
    assert "Traceback" not in result.stderr
    assert np.array_equal(mask_of(tmp_path / "masks" / "a.png"), expected(scan))
    assert np.array_equal(mask_of(tmp_path / "masks" / "z.tif"), expected(scan))
    assert not (tmp_path / "masks" / "broken.png").exists()
    # A second run may replace what the first one wrote, and nothing else.
    (tmp_path / "masks" / "two.png").write_bytes(b"mine")
    result = segcli("predict", "scans/two.png", "scans/a.png", "-o", "masks", "-w", weights, "-q")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("segcli: masks/two.png: exists, and is not as segcli wrote it")
    assert (tmp_path / "masks" / "two.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["predict"], 2, "INPUT"),
        (["predict", "a.png"], 2, "--out"),
        (["predict", "a.png", "--out", "m", "--weigths", "x"], 2, "--weights"),
        (["predict", "a.png", "--out", "m", "--input-range", "5"], 2, "LOW,HIGH"),
        (["predict", "a.png", "--out", "m", "--input-range", "5,4"], 2, "LOW below HIGH"),
        (["predict", "a.png", "--out", "m", "--input-range", "5,99%"], 2, "two numbers, LOW,HIGH, or two percentiles"),
        (["predict", "a.png", "--out", "m", "--input-range", "1%,101%"], 2, "percentiles from 0% to 100%"),
        (["predict", "a.png", "--out", "m", "--input-range", "9%,nan%"], 2, "LOW below HIGH"),
        (["predict", "a.png", "--out", "m", "--device", "abacus"], 2, "cuda:N"),
        (["predict", "a.png", "--out", "m", "--weights", "none"], 3, "no bundled weights"),
        (["predict", "empty", "--out", "m"], 3, "no images"),
        (["predict", "missing.png", "--out", "m"], 1, "missing.png"),
        (["nosuchverb"], 2, "nosuchverb"),
    ],
)
def test_wrong_usage_is_one_line_and_the_right_code(
    refused: Callable[..., str], tmp_path: Path, weights: Path, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    if arguments[0] == "predict" and "--weights" not in arguments:
        arguments = [*arguments, "--weights", str(weights)]
    said = refused(*arguments, code=code)
    errors = [line for line in said.splitlines() if line.startswith("segcli: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert [path.name for path in tmp_path.glob("m/*")] == (["segcli.jsonl"] if code == 1 else [])


@pytest.fixture
def random_weights(tmp_path: Path) -> Path:
    checkpoint.save(random_model(), tmp_path / "random.safetensors")
    return tmp_path / "random.safetensors"


def test_little_memory_means_panels_and_the_same_mask(
    tmp_path: Path, random_weights: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = write_picture(tmp_path / "wide.tif", rng.integers(0, 255, (70, 3000, 3), np.uint8))
    cut: list[Plan] = []
    monkeypatch.setattr("segcli.predict.flow", lambda *given: (cut.append(given[3]), flow(*given)))
    masks = []
    for memory in (None, 4_000_000):
        assert predict(tmp_path, random_weights, scan, memory_bytes=memory, overwrite=True) == 0
        masks.append(mask_of(tmp_path / "masks" / "wide.tif"))
    assert [len(plan.panels(3000)) for plan in cut] == [1, 3]
    assert np.array_equal(*masks)
    assert len(np.unique(masks[0])) == 3


@pytest.mark.parametrize("stitch", ["stream", "windows"])
def test_too_little_memory_is_said_once(
    tmp_path: Path, random_weights: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str], stitch: str
) -> None:
    for name in "ab":
        write_picture(tmp_path / "in" / f"{name}.png", rng.integers(0, 255, (40, 600, 3), np.uint8))
    more = {"device": "cpu", "stitch": stitch, "overwrite": True}
    for memory, lines in ((1_000_000, 1), (900_000_000, 0), (None, 0)):
        options = PredictOptions(
            (tmp_path / "in",), tmp_path / "m", (str(random_weights),), memory_bytes=memory, **more
        )
        assert run(options, Console()) == 0
        said = [line for line in capsys.readouterr().err.splitlines() if "--memory" in line]
        assert len(said) == lines
        assert all(line.startswith(f"{tmp_path / 'in' / 'a.png'}: takes about") for line in said)
        assert all(("--window" in line) == (stitch == "windows") for line in said)


def test_rows_of_blocks_that_are_read_count_for_the_memory(
    tmp_path: Path, random_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same pixels in high blocks and in low ones."""
    pieces = []
    for rows in (256, 2):
        scan = tmp_path / f"{rows}.tif"
        black = np.zeros((256, 12_000, 3), np.uint8)
        tifffile.imwrite(scan, black, photometric="rgb", rowsperstrip=rows, compression="zlib")
        with Source(scan) as source:
            assert source.column_bytes((0, 1, 2)) == 2 * 3 * rows
            assert source.column_bytes((1, 1)) == 2 * rows
            source.load()
            assert source.column_bytes((0, 1, 2)) == 0
        options = PredictOptions((scan,), tmp_path / "m", (str(random_weights),), memory_bytes=40_000_000, dry_run=True)
        assert run(options, Console()) == 0
        found = re.search(r"(\d+) pieces", capsys.readouterr().out)
        pieces.append(int(found[1]) if found else 1)
    assert pieces[0] > pieces[1]


def test_out_of_memory_makes_smaller_pieces_says_so_and_changes_nothing(
    tmp_path: Path, random_weights: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    scan = write_picture(tmp_path / "wide.tif", rng.integers(0, 255, (300, 4000, 3), np.uint8))
    options = PredictOptions((scan,), tmp_path / "masks", (str(random_weights),), overwrite=True)
    assert run(options, Console()) == 0
    expected = mask_of(tmp_path / "masks" / "wide.tif")
    push, begin = RowStream.push, RowStream.__init__
    flows: weakref.WeakSet[RowStream] = weakref.WeakSet()
    alive: list[int] = []

    def noted(self: RowStream, *given: object) -> None:
        begin(self, *given)  # type: ignore[arg-type]
        flows.add(self)

    def starved(self: RowStream, rows: torch.Tensor, last: bool) -> Iterator[torch.Tensor]:
        alive.append(len(flows))
        if rows.shape[3] > 1500 or (rows.shape[3] > 100 and rows.shape[2] > 16):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return push(self, rows, last)

    monkeypatch.setattr(RowStream, "__init__", noted)
    monkeypatch.setattr(RowStream, "push", starved)
    capsys.readouterr()
    gc.disable()
    try:
        assert run(options, Console()) == 0
    finally:
        gc.enable()
    assert max(alive) == 1  # what failed is gone before less is tried
    said = [line for line in capsys.readouterr().err.splitlines() if "out of memory" in line]
    assert len(said) == len(set(said)) >= 2
    assert "strips of" in said[0]
    assert np.array_equal(mask_of(tmp_path / "masks" / "wide.tif"), expected)
    monkeypatch.setattr("segcli.predict.flow", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
    assert run(options, Console()) == 1
    assert "out of memory even in the smallest pieces" in capsys.readouterr().err
    assert np.array_equal(mask_of(tmp_path / "masks" / "wide.tif"), expected)


def test_a_photograph_that_is_turned_is_read_whole_when_it_is_its_turn(
    tmp_path: Path, random_weights: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not ahead, where several may wait; and not at all above a size, which changes nothing."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for n in range(3):
        picture = Image.fromarray(rng.integers(0, 255, (150, 90, 3), np.uint8))
        (tmp_path / "scans").mkdir(exist_ok=True)
        picture.save(tmp_path / "scans" / f"{n}.tif", exif=exif)
    load, threads = Source.load, []

    def noted(self: Source) -> None:
        threads.append(threading.current_thread() is threading.main_thread())
        load(self)

    monkeypatch.setattr(Source, "load", noted)
    monkeypatch.setattr("segcli.predict.SMALL_BYTES", 0)
    masks = []
    for most in (2**30, 0):
        monkeypatch.setattr("segcli.predict.TURNED_BYTES", most)
        assert predict(tmp_path, random_weights, tmp_path / "scans", overwrite=True) == 0
        masks.append(np.stack([mask_of(tmp_path / "masks" / f"{n}.tif") for n in range(3)]))
        assert threads == [True] * 3
    assert masks[0].shape == (3, 90, 150)
    assert np.array_equal(*masks)


def test_what_fails_half_way_does_not_count_as_done(
    tmp_path: Path, random_weights: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "height": 2000, "width": 1500, "count": 3, "dtype": "uint8", "tiled": True}
    with rasterio.open(scan, "w", **profile, transform=from_origin(5, 5, 2, 2)) as file:
        file.write(rng.integers(0, 255, (3, 2000, 1500), np.uint8))
    with scan.open("r+b") as file:
        file.truncate(scan.stat().st_size * 3 // 4)
    assert run(PredictOptions((scan,), tmp_path / "masks", (str(random_weights),)), Console()) == 1
    assert "0.00 Mpx" in capsys.readouterr().err


def test_what_ran_out_of_memory_once_is_not_tried_again(
    tmp_path: Path, random_weights: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name in "abc":
        write_picture(tmp_path / "scans" / f"{name}.tif", rng.integers(0, 255, (300, 2500, 3), np.uint8))

    def starved(*given: object) -> None:
        if given[3].strip_height > 8:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory")
        flow(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("segcli.predict.flow", starved)
    options = PredictOptions((tmp_path / "scans",), tmp_path / "masks", (str(random_weights),))
    assert run(options, Console()) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "out of memory" in line]
    assert len(said) == len(set(said)) > 0
    assert all("a.tif" in line for line in said)


def test_a_file_that_does_not_fit_among_others_of_its_size(tmp_path: Path, weights: Path, scan: np.ndarray) -> None:
    write_picture(tmp_path / "scans" / "a.tif", scan)
    write_picture(tmp_path / "scans" / "b.tif", scan.astype(np.float32))
    write_picture(tmp_path / "scans" / "c.tif", scan)
    assert predict(tmp_path, weights, tmp_path / "scans") == 1
    for name in "ac":
        assert np.array_equal(mask_of(tmp_path / "masks" / f"{name}.tif"), expected(scan))


def test_many_files_many_of_them_bad_and_few_descriptors(tmp_path: Path, weights: Path) -> None:
    for n in range(150):
        write_picture(tmp_path / "scans" / f"{n:03}.png", np.zeros((8, 8, 3), np.uint8))
        with rasterio.open(
            tmp_path / "scans" / f"x{n:03}.tif", "w", driver="GTiff", height=8, width=8, count=5, dtype="uint8",
            transform=from_origin(5, 5, 2, 2),
        ) as file:  # fmt: skip
            file.write(np.zeros((5, 8, 8), np.uint8))
    write_picture(tmp_path / "scans" / "z.png", np.zeros((9, 9, 3), np.uint8))
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)); from segcli.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, "predict", "scans", "-o", "m", "-w", str(weights)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.stderr.splitlines()[-1] == "done 151  up to date 0  failed 150"
    assert result.returncode == 1


def test_a_reader_that_goes_away_ends_the_run_quietly(tmp_path: Path, weights: Path, scan: np.ndarray) -> None:
    for n in range(5):
        write_picture(tmp_path / "scans" / f"{n}.png", scan[: 20 + n])
    command = f"'{sys.executable}' -m segcli predict scans -o m -w '{weights}' | head -n 1"
    result = subprocess.run(
        ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    first, code = result.stdout.splitlines()
    assert first == "m/0.png"
    assert code in ("141", "0")  # 0 where all was written before head had gone
    assert "Traceback" not in result.stderr
    assert "failed 5" not in result.stderr


def test_the_device_falls_back_to_the_cpu_and_says_so(tmp_path: Path, random_weights: Path) -> None:
    model = checkpoint.load(random_weights)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    for stitch in ("stream", "windows"):
        options = PredictOptions((), tmp_path, stitch=stitch)  # type: ignore[arg-type]
        scorer = make_scorer(model.network, torch.device("meta"), torch.bfloat16, options, print)
        said: list[str] = []
        scorers = list(scorer.with_fallback(said.append))
        assert [s.device.type for s in scorers] == ["meta", "cpu"]
        assert scorers[1].dtype == torch.float32
        assert said == ["out of memory on meta; going on on the CPU, in float32"]
    # The half precision of the device has not reached the weights that the CPU gets.
    assert all(torch.equal(before[name], tensor) for name, tensor in model.network.state_dict().items())


def test_a_dry_run_names_what_would_fail_for_its_type(
    tmp_path: Path, random_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, dtype in (("a", np.uint8), ("b", np.int16)):
        write_picture(tmp_path / "scans" / f"{name}.tif", np.zeros((40, 50), dtype))
    options = PredictOptions((tmp_path / "scans",), tmp_path / "masks", (str(random_weights),), dry_run=True)
    assert run(options, Console()) == 1
    said = capsys.readouterr().err
    assert "b.tif: int16; the weights expect uint8" in said
    assert said.splitlines()[-1] == "to do 1  up to date 0  would fail 1"


def test_a_dry_run_on_a_full_device_says_so(
    tmp_path: Path, random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "a.tif", np.zeros((40, 50), np.uint8))
    monkeypatch.setattr(
        Stream, "scores", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory"))
    )
    options = PredictOptions((tmp_path / "a.tif",), tmp_path / "masks", (str(random_weights),), dry_run=True)
    with pytest.raises(NothingDoneError, match="out of memory; free some there, or choose another --device"):
        run(options, Console())


def test_low_images_wait_for_no_more_rows_than_they_have(tmp_path: Path, random_weights: Path) -> None:
    model = checkpoint.load(random_weights)
    options = PredictOptions((), tmp_path)
    products = wanted_products(model.classes, options)
    memory = Memory.of(None, 0.0, torch.device("cpu"))
    setting = Setting(model, products, encoding(options), options, Console(), memory)
    waits = []
    for height in (64, 4096):
        write_picture(tmp_path / f"{height}.tif", np.zeros((height, 50), np.uint8))
        with Source(tmp_path / f"{height}.tif") as source:
            waits.append(setting.waiting(source, (0,)) - source.column_bytes((0,)))
    assert waits == [2 * 64, 2 * 512]


def test_a_full_device_is_left_for_the_rest_of_a_run(
    tmp_path: Path, random_weights: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Its memory has run out, that of the CPU has not."""
    for name in "abc":
        write_picture(tmp_path / "scans" / f"{name}.tif", rng.integers(0, 255, (600, 2500, 3), np.uint8))
    made, ways = [], []

    def first(models: list[checkpoint.Model], device: torch.device, dtype: torch.dtype, *more: object) -> Scorer:
        return replace(make_scorer(models[0].network, device, dtype, *more), device=torch.device("meta"))  # type: ignore[arg-type]

    def counted(*given: object) -> Scorer:
        made.append(given[1])
        return make_scorer(*given)  # type: ignore[arg-type]

    def starved(*given: object) -> None:
        if given[2].device.type != "cpu":  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory")
        ways.append(given[3])
        flow(*given)  # type: ignore[arg-type]

    options = PredictOptions((tmp_path / "scans",), tmp_path / "masks", (str(random_weights),))
    monkeypatch.setattr("segcli.predict.flow", lambda *given: (ways.append(given[3]), flow(*given)))
    assert run(replace(options, out=tmp_path / "cpu"), Console()) == 0
    alone = ways.copy()
    ways.clear()
    monkeypatch.setattr("segcli.predict.flow", starved)
    monkeypatch.setattr("segcli.predict.first_scorer", first)
    monkeypatch.setattr("segcli.network.scorer.make_scorer", counted)
    capsys.readouterr()
    assert run(options, Console()) == 0
    assert made == [torch.device("cpu")]
    assert ways == alone
    said = [line for line in capsys.readouterr().err.splitlines() if "out of memory" in line]
    assert len(said) == len(set(said))
    assert all("a.tif" in line for line in said[:-1])
    assert said[-1] == "out of memory on meta; going on on the CPU, in float32"


def test_a_device_without_room_for_weights_or_for_counting_leads_to_the_cpu(
    tmp_path: Path, random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = checkpoint.load(random_weights)
    options, said = PredictOptions((), tmp_path), []

    def full(network: UNet, device: torch.device, *more: object) -> Scorer:
        if device.type != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make_scorer(network, device, *more)  # type: ignore[arg-type]

    monkeypatch.setattr("segcli.network.scorer.make_scorer", full)
    scorer = first_scorer([model], torch.device("meta"), torch.bfloat16, options, said.append)
    assert (scorer.device.type, scorer.dtype) == ("cpu", torch.float32)
    assert said == ["out of memory on meta; going on on the CPU, in float32"]
    assert list(scorer.plans_within(99, 99, 1, 1e9))
    monkeypatch.setattr(Stream, "plans", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
    assert list(scorer.plans_within(99, 99, 1, 1e9)) == []
    monkeypatch.setattr(Stream, "plans", lambda *_: (_ for _ in ()).throw(RuntimeError("a fault")))
    with pytest.raises(RuntimeError, match="a fault"):
        list(scorer.plans_within(99, 99, 1, 1e9))
    in_windows = replace(options, stitch="windows")
    windows = make_scorer(model.network, torch.device("cpu"), torch.float32, in_windows, said.append)
    monkeypatch.setattr(Windows, "bytes_of", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
    assert windows.always == 0
    assert list(windows.plans_within(99, 99, 1, 1e9)) == []


def test_windows_that_were_rounded_are_told(tmp_path: Path, random_weights: Path) -> None:
    """To the network's stride; an overlap may be less than was asked for, or none."""
    network, said = checkpoint.load(random_weights).network, []
    stride = network.config.total_stride
    for window, overlap, told in ((16 * stride, 0.25, None), (stride + 1, 0.25, (stride, stride)),
                                  (2 * stride, 0.9, (2 * stride, stride))):  # fmt: skip
        options = PredictOptions((), tmp_path, stitch="windows", window=window, overlap=overlap)
        make_scorer(network, torch.device("cpu"), torch.float32, options, said.append)
        expected = [] if told is None else [f"windows of {told[0]} pixels every {told[1]}: multiples of {stride}"]
        assert [line.partition(",")[0] for line in said] == expected
        said.clear()


def test_small_images_of_one_size_go_through_together(
    tmp_path: Path, random_weights: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(7):
        size = (40, 30) if n != 3 else (40, 31)
        dtype, scale = (np.uint16, 257) if n == 5 else (np.uint8, 1)
        pixels = rng.integers(0, 255, (*size, 3), np.uint8).astype(dtype) * dtype(scale)
        write_picture(tmp_path / "scans" / f"{n}.png", pixels)
    groups: list[int] = []
    monkeypatch.setattr("segcli.predict.flow", lambda *given: (groups.append(len(given[0])), flow(*given)))
    assert predict(tmp_path, random_weights, tmp_path / "scans") == 0
    assert groups == [3, 1, 3]
    together = [mask_of(tmp_path / "masks" / f"{n}.png") for n in range(7)]
    for n in range(7):
        assert predict(tmp_path, random_weights, tmp_path / "scans" / f"{n}.png", overwrite=True) == 0
        # Kernels may sum in another order for another number of images.
        assert (mask_of(tmp_path / "masks" / f"{n}.png") == together[n]).mean() > 0.999
    assert groups[3:] == [1] * 7


def test_windows_and_augmentation(tmp_path: Path, weights: Path, scan: np.ndarray) -> None:
    """The known model looks at single pixels, so every way must give the same mask."""
    write_picture(tmp_path / "a.png", scan)
    in_windows: dict[str, object] = {"stitch": "windows"}
    ways = (in_windows, {"tta": True}, in_windows | {"tta": True}, in_windows | {"weighting": "hann", "overlap": 0.5})
    for way in ways:
        assert predict(tmp_path, weights, tmp_path / "a.png", window=16, **way) == 0
        assert np.array_equal(mask_of(tmp_path / "masks" / "a.png"), expected(scan))


def scores_of(tmp_path: Path, weights: Path, scan: np.ndarray, **more: object) -> np.ndarray:
    """(row, col, class), all bits of the probabilities."""
    chosen = {"probabilities": True, "quantity": "float32", "overwrite": True} | more
    assert predict(tmp_path, weights, write_picture(tmp_path / "a.png", scan), **chosen) == 0
    return tifffile.imread(tmp_path / "masks" / "probabilities" / "a.tif")


def test_windows_and_augmentation_of_a_network_that_sees_more_than_a_pixel(
    tmp_path: Path, random_weights: Path, rng: np.random.Generator
) -> None:
    """Each way is another one, and close to the whole pass; --tta, to the mean of those of the eight symmetries,
    which it is where it streams."""
    scan = rng.integers(0, 255, (96, 128, 3), np.uint8)
    scores = partial(scores_of, tmp_path, random_weights, window=64, overlap=0.5)
    gaussian, hann, tta = (scores(scan, stitch="windows", **way) for way in ({}, {"weighting": "hann"}, {"tta": True}))
    rows = scores(scan, tta=True)
    for one, other in combinations((gaussian, hann, tta, rows), 2):
        assert abs(one - other).max() > 0.01
    streamed = []
    for turns in range(4):
        streamed.append(np.rot90(scores(np.rot90(scan, turns)), -turns))
        streamed.append(np.rot90(scores(np.rot90(scan[:, ::-1], turns)), -turns)[:, ::-1])
    mean = np.exp(np.mean(np.log(streamed), 0))  # that of what goes into the softmax
    wholes = {
        "gaussian": (gaussian, streamed[0]),
        "hann": (hann, streamed[0]),
        "tta": (tta, mean / mean.sum(2)[..., None]),
    }
    for way, (found, whole) in wholes.items():
        assert abs(found - whole).mean() < 0.01, way
    np.testing.assert_allclose(rows, wholes["tta"][1], atol=1e-5)


def test_a_network_that_does_not_stream_goes_through_windows(
    tmp_path: Path, weights: Path, scan: np.ndarray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Global(UNet):
        def scores(self, x: torch.Tensor) -> torch.Tensor:
            return super().scores(x) + 0 * torch.nn.functional.adaptive_avg_pool2d(x, 1)[:, :1]

    monkeypatch.setattr(checkpoint, "UNet", Global)
    write_picture(tmp_path / "a.png", scan)
    options = PredictOptions((tmp_path / "a.png",), tmp_path / "masks", (str(weights),))
    assert run(options, Console()) == 0
    assert "does not stream (adaptive_avg_pool2d" in capsys.readouterr().err
    assert np.array_equal(mask_of(tmp_path / "masks" / "a.png"), expected(scan))
    with pytest.raises(UsageError, match="does not stream: adaptive_avg_pool2d"):
        predict(tmp_path, weights, tmp_path / "a.png", stitch="stream")


def test_half_precision_on_the_cpu_is_close(
    tmp_path: Path, weights: Path, random_weights: Path, scan: np.ndarray
) -> None:
    write_picture(tmp_path / "a.png", scan)
    assert predict(tmp_path, weights, tmp_path / "a.png", precision="bf16") == 0
    assert np.array_equal(mask_of(tmp_path / "masks" / "a.png"), expected(scan))
    half, full = (scores_of(tmp_path, random_weights, scan, precision=name) for name in ("bf16", "fp32"))
    assert 0 < abs(half - full).max() < 0.05


@pytest.mark.parametrize(
    ("known", "precision", "said"),
    [
        ({"avx2": True, "avx512_bf16": False}, "bf16", True), ({"avx2": True, "avx512_bf16": True}, "bf16", False),
        ({"avx2": True, "amx_bf16": True}, "bf16", False), ({"avx2": True, "avx512_bf16": True}, "fp16", True),
        ({"avx2": True, "amx_fp16": True}, "fp16", False), ({"avx2": True}, "fp32", False),
        ({"avx2": True}, "auto", False), ({"neon": True}, "bf16", False), ({}, "bf16", False),
    ],
)  # fmt: skip
def test_a_precision_that_the_processor_has_to_imitate_is_named(
    tmp_path: Path, weights: Path, scan: np.ndarray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
    known: dict[str, bool], precision: str, said: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    write_picture(tmp_path / "a.png", scan[:64, :64])
    options = PredictOptions(
        (tmp_path / "a.png",), tmp_path / "masks", (str(weights),), precision=precision, device="cpu"
    )
    assert run(options, Console()) == 0
    assert (f"has to imitate {precision}" in capsys.readouterr().err) == said


@pytest.mark.parametrize(("capability", "dtype"), [((9, 0), torch.bfloat16), ((7, 5), torch.float32)])
def test_bfloat16_is_for_gpus_that_have_it(
    capability: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the device that is meant: there may be an older one beside it."""
    device = torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "get_device_capability", {device: capability}.__getitem__)
    assert choose_precision("auto", device) == dtype
    assert choose_precision("auto", torch.device("cpu")) == torch.float32


def test_float32_is_not_rounded_on_a_gpu(tmp_path: Path, weights: Path, scan: np.ndarray) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    scan_path = write_picture(tmp_path / "a.png", scan[:64, :64])
    assert predict(tmp_path, weights, scan_path, precision="fp32", device="cpu") == 0
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("CUDA out of memory. Tried to allocate 20.00 MiB", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("GET was unable to find an engine to execute this computation", True),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_what_says_that_memory_ran_out(text: str, is_one: bool) -> None:
    assert is_out_of_memory(RuntimeError(text)) == is_one
    assert is_out_of_memory(torch.OutOfMemoryError(text))
    assert not is_out_of_memory(ValueError(text))


def test_masks_of_a_gpu_in_bfloat16_are_not_those_of_a_cpu(
    tmp_path: Path, weights: Path, scan: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which takes float32 by itself: a run there has them to do."""
    picture = write_picture(tmp_path / "a.png", scan[:32, :32])

    def is_up_to_date(**more: object) -> bool:
        assert predict(tmp_path, weights, picture, device="cpu", **more) == 0
        return predict(tmp_path, weights, picture, device="cpu", verify=True, **more) == 0

    monkeypatch.setattr("segcli.network.scorer.choose_precision", lambda name, _: torch.bfloat16)
    assert is_up_to_date()
    monkeypatch.undo()
    assert predict(tmp_path, weights, picture, device="cpu", verify=True) == 1
    assert predict(tmp_path, weights, picture, device="cpu", verify=True, precision="bf16") == 0
    assert is_up_to_date()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_gives_the_cpu_s_mask(tmp_path: Path, random_weights: Path, rng: np.random.Generator) -> None:
    scan = write_picture(tmp_path / "a.tif", rng.integers(0, 255, (900, 1300, 3), np.uint8))
    masks = []
    for device in ("cpu", "cuda"):
        # In strips: several are under way at once.
        assert (
            predict(tmp_path, random_weights, scan, device=device, precision="fp32", memory_bytes=20e6, overwrite=True)
            == 0
        )
        masks.append(mask_of(tmp_path / "masks" / "a.tif"))
    assert (masks[0] == masks[1]).mean() > 0.999


@pytest.mark.parametrize(("text", "size"), [("800MB", 8e8), ("1.5 GB", 1.5e9), ("2GiB", 2**31), ("1024", 1024)])
def test_sizes(text: str, size: float) -> None:
    assert size_in_bytes("--memory", text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "5 parsecs"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="--memory"):
        size_in_bytes("--memory", text)


def test_weights_that_are_replaced_while_they_are_loaded(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a training beside it: what is recorded is what the masks were made with."""
    picture = write_picture(tmp_path / "scan.png", rng.integers(0, 256, (20, 30, 3), np.uint8))
    first, path, second = (tmp_path / f"{name}.safetensors" for name in ("first", "w", "second"))
    model = brightness_model()
    checkpoint.save(model, first)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.neg_()
    checkpoint.save(model, second)
    shutil.copy(first, path)
    load_all, loads = checkpoint.load_all, []

    def replaced_meanwhile(*arguments: Any) -> list[checkpoint.Model]:
        found = load_all(*arguments)
        loads.append(found)
        if len(loads) == 1:
            shutil.copy(second, tmp_path / "part")
            (tmp_path / "part").replace(path)
        return found

    monkeypatch.setattr(checkpoint, "load_all", replaced_meanwhile)
    assert predict(tmp_path, path, picture) == 0
    assert len(loads) == 2
    made = (tmp_path / "masks" / "scan.png").read_bytes()
    assert predict(tmp_path, path, picture, verify=True) == 0
    shutil.rmtree(tmp_path / "masks")
    assert predict(tmp_path, second, picture) == 0
    assert (tmp_path / "masks" / "scan.png").read_bytes() == made

    def replaced_each_time(*arguments: Any) -> list[checkpoint.Model]:
        loads.append([])
        os.utime(path, ns=(1, len(loads)))
        return load_all(*arguments)

    monkeypatch.setattr(checkpoint, "load_all", replaced_each_time)
    with pytest.raises(InputError, match=r"w\.safetensors: changed while it was read"):
        predict(tmp_path, path, picture)
