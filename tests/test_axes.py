"""--axes: what the pages of a stack are, where the file does not say it, or says it wrongly."""

import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from helpers import brightness_model, few_open_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy import ndimage

from segcli import train
from segcli.colorize import run as colorize
from segcli.console import Console
from segcli.errors import InputError, NothingDoneError, UsageError
from segcli.evaluate import run as evaluate
from segcli.network import checkpoint
from segcli.options import Axes, ColorizeOptions, EvalOptions, Percentiles, PredictOptions, TrainOptions
from segcli.predict import run as predict
from segcli.raster.images import Images, open_images

QUIET = Console(quiet=True)


@pytest.mark.parametrize("text", ["C", "ZC3", "TZ", "T5Z", "T2Z3C4"])
def test_letters_and_numbers(text: str) -> None:
    assert str(Axes.parse(text)) == str(Axes.parse(text.lower() + "yx")) == text


@pytest.mark.parametrize("text", ["", "YX", "Q", "CC", "ZC0", "3C", "Z,C", "C3.5", "XY", "Z C"])
def test_other_text_is_an_error(refused: Callable[..., str], text: str) -> None:
    with pytest.raises(ValueError, match="axes"):
        Axes.parse(text)
    said = refused("predict", "a.tif", "--out", "b", f"--axes={text}")
    assert f"segcli: --axes: {'found' if text else 'an empty text'}" in said


def pages(path: Path, pixels: np.ndarray) -> Path:
    """(page, row, col), as programs write them that know of no axes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        for page in pixels:
            file.write(page, metadata=None, photometric="minisblack", contiguous=False)
    return path


def pixels_of(path: Path, axes: str | None) -> tuple[Images, np.ndarray]:
    """(plane, band, row, col)."""
    with closing(open_images(path, axes=None if axes is None else Axes.parse(axes))) as images:
        grid = images.planes[0].grid
        return images, np.stack([plane.window(0, 0, grid.height, grid.width) for plane in images.planes])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_pages_are_taken_as_numpy_would(tmp_path: Path, data: st.DataObject) -> None:
    letters = "".join(data.draw(st.permutations("TZC"))[: data.draw(st.integers(1, 3))])
    shape = tuple(data.draw(st.integers(1, 4)) for _ in letters)
    unsaid = data.draw(st.sampled_from([*letters, ""]))
    text = "".join(f"{letter}{'' if letter == unsaid else n}" for letter, n in zip(letters, shape, strict=True))
    written = np.random.default_rng(0).integers(0, 255, (*shape, 9, 7), np.uint8)
    is_shaped = data.draw(st.booleans())
    if is_shaped:  # tifffile notes numpy's shape
        tifffile.imwrite(tmp_path / "a.tif", written, photometric="minisblack")
        text = data.draw(st.sampled_from([text, letters]))
    else:
        pages(tmp_path / "a.tif", written.reshape(-1, 9, 7))
    images, found = pixels_of(tmp_path / "a.tif", text)
    as_planes = np.moveaxis(written, letters.index("C"), -3) if "C" in letters else written[..., None, :, :]
    if np.prod(shape) > 1:
        assert np.array_equal(found, as_planes.reshape(-1, *as_planes.shape[-3:]))
        lengths = dict(zip(letters, shape, strict=True))
        assert images.axes == "".join(letter for letter in letters if letter != "C" and lengths[letter] > 1)
        assert images.shape == tuple(lengths[letter] for letter in images.axes)


def test_what_says_itself_what_it_is_can_be_corrected(tmp_path: Path, rng: np.random.Generator) -> None:
    """ImageJ calls all pages depths where nobody tells it of channels. Images with bands of their own stay."""
    written = rng.integers(0, 255, (6, 20, 24), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", written, imagej=True, metadata={"axes": "ZYX"})
    assert pixels_of(tmp_path / "a.tif", None)[0].axes == "Z"
    images, found = pixels_of(tmp_path / "a.tif", "C")
    assert (images.axes, found.shape) == ("", (1, 6, 20, 24))
    assert np.array_equal(found[0], written)
    with closing(open_images(tmp_path / "a.tif", axes=Axes.parse("C", for_nameless=True))) as images:
        assert images.axes == "Z"
    colors = rng.integers(0, 255, (2, 20, 24, 3), np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", colors, photometric="rgb")
    tifffile.imwrite(tmp_path / "c.tif", written[0])
    for name, shape in (("b", (2, 3, 20, 24)), ("c", (1, 1, 20, 24))):
        assert pixels_of(tmp_path / f"{name}.tif", "C")[1].shape == shape


def test_pages_that_do_not_come_out_even_are_named(tmp_path: Path) -> None:
    path = pages(tmp_path / "a.tif", np.zeros((7, 9, 8), np.uint8))
    for text, message in (
        ("ZC3", "7 pages; --axes ZC3 expects a multiple of 3"),
        ("C6", "7 pages; --axes C6 expects 6"),
        ("ZC", "7 pages; --axes ZC does not say how many there are along each axis; say it, such as --axes ZC3"),
    ):
        with pytest.raises(InputError) as error:
            pixels_of(path, text)
        assert str(error.value) == f"{path}: {message}"
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        for side in (8, 9):
            file.write(np.zeros((side, side), np.uint8), metadata=None, contiguous=False)
    with pytest.raises(InputError, match=r"b\.tif: pages of different sizes stand for bands of one image; --axes C"):
        pixels_of(tmp_path / "b.tif", "C")


def cells(rng: np.random.Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks (..., row, col), and images (..., band, row, col) that are bright there in band 1 of 3."""
    masks = (ndimage.gaussian_filter(rng.random(shape), (*(0,) * (len(shape) - 2), 2, 2)) > 0.5).astype(np.uint8)
    images = rng.integers(0, 90, (*shape[:-2], 3, *shape[-2:]), np.uint8)
    images[..., 1, :, :] += masks * 120
    return masks, images


@pytest.mark.parametrize("more", [{}, {"input_range": Percentiles(1, 99)}], ids=["as they are", "percentiles"])
def test_train_and_predict_take_pages_for_bands(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str], more: dict[str, Percentiles]
) -> None:
    """The twin has the bands in one page, as everybody finds them. Weights remember what pages were."""
    for part, count in (("train", 4), ("val", 2)):
        for n in range(count):
            masks, images = cells(rng, 40, 48)
            pages(tmp_path / "pages" / part / "images" / f"{n}.tif", images)
            for kind in ("pages", "bands"):
                pages(tmp_path / kind / part / "masks" / f"{n}.tif", masks[None])
            (tmp_path / "bands" / part / "images").mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(tmp_path / "bands" / part / "images" / f"{n}.tif", images.transpose(1, 2, 0),
                             photometric="rgb", metadata=None)  # fmt: skip
    for kind, axes in (("pages", Axes.parse("C")), ("bands", None)):
        options = TrainOptions(tmp_path / kind, tmp_path / f"of_{kind}", axes=axes, width=2, depth=1, epochs=2, crop=32,
                               batch=2, augment="full", **more)  # fmt: skip
        assert train.run(options, QUIET) == 0
    one, other = (load_file(tmp_path / f"of_{kind}" / "best.safetensors") for kind in ("pages", "bands"))
    assert all(torch.equal(one[name], other[name]) for name in other)
    weights = str(tmp_path / "of_pages" / "best.safetensors")
    assert checkpoint.load(Path(weights)).axes == Axes.parse("C", for_nameless=True)
    for kind in ("pages", "bands"):
        scans = (tmp_path / kind / "val" / "images",)
        assert predict(PredictOptions(scans, tmp_path / f"masks_{kind}", (weights,)), Console()) == 0
    assert "pages along C: pages without axes are taken so; --axes says otherwise\n" in capsys.readouterr().err
    for n in range(2):
        found = [tifffile.imread(tmp_path / f"masks_{kind}" / f"{n}.tif") for kind in ("pages", "bands")]
        assert found[0].shape == (40, 48)
        assert np.array_equal(*found)
    going_on = TrainOptions(tmp_path / "pages", tmp_path / "on", weights=Path(weights), epochs=1, crop=32)
    assert train.run(going_on, QUIET) == 0
    assert checkpoint.load(tmp_path / "on" / "best.safetensors").axes == Axes.parse("C", for_nameless=True)


def test_volumes_of_channels(tmp_path: Path, rng: np.random.Generator) -> None:
    """Depths with channels in turn, and masks that are stacks of the depths."""
    for n in range(3):
        masks, images = cells(rng, 4, 40, 48)
        pages(tmp_path / "data" / "images" / f"{n}.tif", images.reshape(-1, 40, 48))
        pages(tmp_path / "data" / "masks" / f"{n}.tif", masks)
    options = TrainOptions(tmp_path / "data", tmp_path / "run", axes=Axes.parse("ZC3"), width=2, depth=1, epochs=1,
                           crop=32)  # fmt: skip
    assert train.run(options, QUIET) == 0
    weights = tmp_path / "run" / "best.safetensors"
    assert str(checkpoint.load(weights).axes) == "ZC3"
    deeper = pages(tmp_path / "scans" / "a.tif", cells(rng, 5, 40, 48)[1].reshape(-1, 40, 48))
    assert predict(PredictOptions((deeper,), tmp_path / "masks", (str(weights),)), QUIET) == 0
    with tifffile.TiffFile(tmp_path / "masks" / "a.tif") as file:
        assert (file.series[0].axes, file.series[0].shape) == ("ZYX", (5, 40, 48))


def test_a_run_with_other_axes_does_it_again(
    tmp_path: Path, rng: np.random.Generator, segcli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """And what earlier versions made without is up to date."""
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    scan = pages(tmp_path / "a.tif", rng.integers(0, 255, (3, 20, 24), np.uint8))
    command = ("predict", scan, "--out", tmp_path / "out", "--weights", tmp_path / "w.safetensors")
    for more, done, count in (((), 1, 3), (("--axes", "C"), 1, 1), (("--axes", "cyx"), 0, 1)):
        found = segcli(*command, *more)
        assert f"done {done}  up to date {1 - done}  failed 0" in found.stderr
        with tifffile.TiffFile(tmp_path / "out" / "a.tif") as file:
            assert len(file.series[0].pages) == count
    record = (tmp_path / "out" / "segcli.jsonl").read_text().splitlines()[0]
    assert '"axes"' not in record


def test_images_beside_masks(tmp_path: Path, rng: np.random.Generator) -> None:
    """In colorize --over and in the report of eval, as they are seen where the bands are in one page."""
    masks, images = cells(rng, 40, 48)
    pages(tmp_path / "pages" / "a.tif", images)
    (tmp_path / "bands").mkdir()
    tifffile.imwrite(tmp_path / "bands" / "a.tif", images.transpose(1, 2, 0), photometric="rgb", metadata=None)
    pages(tmp_path / "masks" / "a.tif", masks[None])
    colors, reports = [], []
    for kind, axes in (("pages", Axes.parse("C")), ("bands", None)):
        over = ColorizeOptions((tmp_path / "masks" / "a.tif",), tmp_path / f"over_{kind}", over=tmp_path / kind,
                               axes=axes, bands=(1, 2, 3))  # fmt: skip
        assert colorize(over, QUIET) == 0
        colors.append(tifffile.imread(tmp_path / f"over_{kind}" / "a.tif"))
        options = EvalOptions(tmp_path / "masks", tmp_path / "masks", tmp_path / f"report_{kind}",
                              images=tmp_path / kind, axes=axes)  # fmt: skip
        assert evaluate(options, QUIET) == 0
        reports.append(re.findall("base64,([^\"']+)", (tmp_path / f"report_{kind}" / "report.html").read_text()))
    assert np.array_equal(*colors)
    assert len(reports[0]) == len(reports[1]) >= 4
    alone = Axes.parse("C")
    with pytest.raises(UsageError, match="without --images; it does nothing"):
        evaluate(EvalOptions(tmp_path / "masks", tmp_path / "masks", axes=alone), QUIET)
    with pytest.raises(UsageError, match="without --over; it does nothing"):
        colorize(ColorizeOptions((tmp_path / "masks" / "a.tif",), tmp_path / "x", axes=alone), QUIET)


def test_an_image_that_the_report_cannot_show_is_named(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures are of the masks alone and stand; why a picture is missing says the page, and a line."""
    masks, images = cells(rng, 40, 48)
    pages(tmp_path / "masks" / "a.tif", masks[None])
    pages(tmp_path / "masks" / "b.tif", masks[None])
    shutil.copytree(tmp_path / "masks", tmp_path / "truth")
    pages(tmp_path / "scans" / "a.tif", images)
    pages(tmp_path / "scans" / "b.tif", images[:, :30])
    (tmp_path / "scans" / "c.tif").write_bytes(b"none")

    def said(out: str, axes: str | None) -> tuple[str, int]:
        options = EvalOptions(tmp_path / "masks", tmp_path / "truth", tmp_path / out, images=tmp_path / "scans",
                              axes=None if axes is None else Axes.parse(axes))  # fmt: skip
        capsys.readouterr()
        assert evaluate(options, Console()) == 0
        text = (tmp_path / out / "report.html").read_text()
        return capsys.readouterr().err.replace(f"{tmp_path}/", ""), text.count('alt="image of')

    lines, pictures = said("r", "C2")
    assert "scans/a.tif: 3 pages; --axes C2 expects 2; report.html is without its picture" in lines, lines
    assert pictures == 0
    assert "scans/a.tif: 3 pages" in (tmp_path / "r" / "report.html").read_text()
    lines, pictures = said("s", "C")
    assert "scans/b.tif: 30 x 48 pixels; the masks have 40 x 48; give the image that they are of; report" in lines
    assert "a.tif" not in lines
    assert pictures == 1
    shutil.copy(tmp_path / "scans" / "c.tif", tmp_path / "scans" / "b.tif")
    lines, pictures = said("t", None)
    assert "scans/b.tif: " in lines
    assert pictures == 1


def test_depths_of_one_volume_share_their_percentiles(tmp_path: Path, rng: np.random.Generator) -> None:
    """As where ImageJ says that they are depths; a dark one stays dark."""
    volume = rng.integers(100, 200, (3, 40, 48), np.uint8)
    volume[1] //= 4
    pages(tmp_path / "a.tif", volume)
    tifffile.imwrite(tmp_path / "b.tif", volume, imagej=True, metadata={"axes": "ZYX"})
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    masks = []
    for name, axes in (("a", Axes.parse("Z")), ("b", None), ("a", None)):
        options = PredictOptions((tmp_path / f"{name}.tif",), tmp_path / "masks", (str(tmp_path / "w.safetensors"),),
                                 axes=axes, input_range=Percentiles(0, 100), overwrite=True)  # fmt: skip
        assert predict(options, QUIET) == 0
        masks.append(tifffile.imread(tmp_path / "masks" / f"{name}.tif"))
    assert np.array_equal(masks[0], masks[1])
    assert (masks[0][1] == 2).all()
    assert not np.array_equal(masks[0], masks[2])


def test_weights_do_not_change_what_says_itself_what_it_is(tmp_path: Path, rng: np.random.Generator) -> None:
    """Positions of a stage are called I in OME, as mere pages are."""
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for n in range(3):
            file.write(rng.integers(0, 255, (20, 24), np.uint8), metadata={"axes": "YX", "Name": f"pos{n}"})
    with closing(open_images(tmp_path / "a.ome.tif", axes=Axes.parse("C", for_nameless=True))) as images:
        assert (images.axes, len(images.planes), images.names) == ("I", 3, ("pos0", "pos1", "pos2"))
    assert pixels_of(tmp_path / "a.ome.tif", "C")[1].shape == (1, 3, 20, 24)


@pytest.mark.parametrize(("axes", "kept"), [("CZ4", "C3Z"), ("C3Z", "C3Z"), ("ZC3", "ZC3"), ("C", "C"), ("TZ", "None")])
def test_what_weights_keep_of_axes(tmp_path: Path, rng: np.random.Generator, axes: str, kept: str) -> None:
    """The number of bands, which all files have; others have more depths. They can read what they learnt from."""
    for n in range(2):
        masks, images = cells(rng, 4, 40, 48)
        images = images.swapaxes(0, 1) if axes[0] == "C" and len(axes) > 1 else images
        stack = images if axes != "C" else images[0]
        masks = masks if axes != "C" else masks[:1]
        if axes == "TZ":
            stack, masks = stack[:, 0].reshape(2, 2, 40, 48), masks.reshape(2, 2, 40, 48)
        for kind, pixels in (("images", stack), ("masks", masks)):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(tmp_path / "data" / kind / f"{n}.tif", pixels, photometric="minisblack")
    options = TrainOptions(tmp_path / "data", tmp_path / "run", axes=Axes.parse(axes), width=2, depth=1, epochs=1,
                           crop=32)  # fmt: skip
    assert train.run(options, QUIET) == 0
    weights = tmp_path / "run" / "best.safetensors"
    assert str(checkpoint.load(weights).axes) == kept
    assert predict(PredictOptions((tmp_path / "data" / "images",), tmp_path / "out", (str(weights),)), QUIET) == 0


def test_channels_that_are_none_can_be_taken_apart(tmp_path: Path, rng: np.random.Generator) -> None:
    """Programs also write depths as channels."""
    written = rng.integers(0, 255, (6, 20, 24), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", written, imagej=True, metadata={"axes": "CYX"})
    assert pixels_of(tmp_path / "a.tif", "C")[1].shape == (1, 6, 20, 24)
    with closing(open_images(tmp_path / "a.tif", axes=Axes.parse("ZC3", for_nameless=True))) as images:
        assert (len(images.planes), images.planes[0].bands) == (1, 6)  # weights do not
    for text, axes, shape in (("Z", "Z", (6, 1)), ("ZC3", "Z", (2, 3)), ("TZ2", "TZ", (6, 1))):
        images, found = pixels_of(tmp_path / "a.tif", text)
        assert (images.axes, found.shape[:2]) == (axes, shape)
        assert np.array_equal(found.reshape(6, 20, 24), written)
    tifffile.imwrite(tmp_path / "b.tif", written.reshape(3, 2, 20, 24), imagej=True, metadata={"axes": "ZCYX"})
    assert pixels_of(tmp_path / "b.tif", "ZC2")[1].shape == (3, 2, 20, 24)
    with pytest.raises(InputError, match="3 images of several pages each, which are its channels; --axes T leaves no"):
        pixels_of(tmp_path / "b.tif", "T")


def test_pages_of_several_bands_are_no_bands(tmp_path: Path, rng: np.random.Generator) -> None:
    """Alpha would become one, which it is not."""
    grey, alpha = rng.integers(0, 255, (20, 24), np.uint8), rng.integers(0, 255, (20, 24, 2), np.uint8)
    for name, second in (("mixed", [grey, alpha]), ("alpha", [alpha, alpha])):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as file:
            for page in second:
                extra = {"extrasamples": ["unassalpha"], "planarconfig": "contig"} if page.ndim == 3 else {}
                file.write(page, metadata=None, photometric="minisblack", contiguous=False, **extra)
    for name, found in (("mixed", "1 and of 2"), ("alpha", "2")):
        with pytest.raises(InputError, match=f"pages of {found} bands; --axes C takes pages of one band for bands"):
            pixels_of(tmp_path / f"{name}.tif", "C")


def test_what_is_known_of_pages_stays_known(tmp_path: Path, rng: np.random.Generator) -> None:
    """How large pixels are, and how the channel of a film is called that is taken for a volume."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for _ in range(3):
            file.write(rng.integers(0, 255, (20, 24), np.uint8), metadata=None, contiguous=False,
                       resolution=(20_000, 20_000), resolutionunit="CENTIMETER")  # fmt: skip
    images, _ = pixels_of(tmp_path / "a.tif", "C")
    assert images.planes[0].grid.calibration == {"X": 0.5, "Y": 0.5}
    names = {"axes": "TYX", "Channel": {"Name": ["DAPI"]}}
    tifffile.imwrite(tmp_path / "b.ome.tif", rng.integers(0, 255, (3, 20, 24), np.uint8), metadata=names)
    images, _ = pixels_of(tmp_path / "b.ome.tif", "Z")
    assert (images.axes, images.planes[0].band_names) == ("Z", ("DAPI",))


def test_more_pages_than_files_may_be_open(tmp_path: Path, rng: np.random.Generator) -> None:
    written = rng.integers(0, 255, (300, 8, 9), np.uint8)
    pages(tmp_path / "a.tif", written)
    with few_open_files():
        assert np.array_equal(pixels_of(tmp_path / "a.tif", "C")[1][0], written)


def test_several_weights_beside_axes_that_are_said(tmp_path: Path, rng: np.random.Generator) -> None:
    model = brightness_model()
    checkpoint.save(model, tmp_path / "one.safetensors")
    checkpoint.save(replace(model, axes=Axes.parse("C", for_nameless=True)), tmp_path / "two.safetensors")
    scan = pages(tmp_path / "a.tif", rng.integers(0, 255, (3, 20, 24), np.uint8))
    both = tuple(str(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    with pytest.raises(NothingDoneError, match="pages of its files C; expected as these say"):
        predict(PredictOptions((scan,), tmp_path / "masks", both), QUIET)
    assert predict(PredictOptions((scan,), tmp_path / "masks", both, axes=Axes.parse("C")), QUIET) == 0
    assert tifffile.imread(tmp_path / "masks" / "a.tif").shape == (20, 24)
