"""Stacks beside stacks, in eval and colorize: which image belongs to which, and what is said of all of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers import brightness_model, write_picture
from hypothesis import given
from hypothesis import strategies as st

from segcli.colorize import run as colorize
from segcli.console import Console
from segcli.evaluate import run as evaluate
from segcli.matching import match
from segcli.network import checkpoint
from segcli.options import ColorizeOptions, EvalOptions, Percentiles, PredictOptions
from segcli.predict import run as predict
from segcli.raster.images import Images, check_alike, stack_alike

QUIET = Console(quiet=True)


def stack(axes: str, *shape: int) -> Images:
    return Images((None,) * int(np.prod(shape)), axes, shape)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (stack("TZ", 4, 3), stack("TZ", 4, 3), True),
        (stack("TZ", 4, 3), stack("TZ", 3, 4), False),
        (stack("TZ", 4, 4), stack("ZT", 4, 4), False),
        (stack("TZ", 4, 3), stack("QQ", 4, 3), True),
        (stack("TZ", 4, 3), stack("QQ", 3, 4), False),  # numpy's shape says as much
        (stack("TZ", 4, 3), stack("I", 12), True),  # mere pages
        (stack("TZ", 4, 3), stack("Z", 12), False),
        (stack("TZ", 4, 1), stack("T", 4), True),
        (stack("T", 4), stack("Z", 4), True),  # which programs mix up
        (stack("T", 4), stack("T", 5), False),
        (stack("IZ", 2, 3), stack("QZ", 2, 3), True),
        (stack("", *()), stack("Z", 1), True),
    ],
)
def test_which_stacks_belong_together(one: Images, other: Images, expected: bool) -> None:
    assert stack_alike(one, other) == stack_alike(other, one) == expected


def test_a_number_is_no_order() -> None:
    """What is to be done is said where something can be done."""
    said = []
    for other in (stack("Z", 4), stack("ZT", 3, 4)):
        try:
            check_alike("a.tif", stack("TZ", 4, 3), "b.tif", other)
        except Exception as error:
            said.append(str(error))
    assert said == ["a.tif: 12 images (T 4 x Z 3); b.tif has 4 images (Z 4); expected as many",
                    "a.tif: 12 images (T 4 x Z 3); b.tif has 12 images (Z 3 x T 4); save the images in one order"
                    ]  # fmt: skip


def write(path: Path, pixels: np.ndarray, axes: str, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": axes, **more})
    return path


def test_masks_lie_over_images_of_their_own_order_alone(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = write(tmp_path / "m.tif", rng.integers(0, 2, (4, 3, 20, 24), np.uint8), "TZYX")
    scans = rng.integers(0, 255, (4, 3, 20, 24), np.uint8)
    same = write(tmp_path / "same.tif", scans, "TZYX")
    turned = write(tmp_path / "turned.tif", scans.swapaxes(0, 1), "TZYX")
    assert colorize(ColorizeOptions((masks,), tmp_path / "a", over=same), QUIET) == 0
    assert colorize(ColorizeOptions((masks,), tmp_path / "b", over=turned), Console()) == 1
    assert "m.tif: 12 images (T 4 x Z 3); " in capsys.readouterr().err


def test_an_empty_image_of_a_stack_stays_dark_under_its_mask(tmp_path: Path, rng: np.random.Generator) -> None:
    """As in the overlays of predict: stretched by itself its noise would be as bright as anything."""
    scans = rng.integers(100, 4000, (3, 40, 50)).astype(np.uint16)
    scans[0] = rng.integers(90, 110, (40, 50))
    masks = write(tmp_path / "m.tif", np.zeros((3, 40, 50), np.uint8), "ZYX")
    over = write(tmp_path / "s.tif", scans, "ZYX")
    for n, more in enumerate(({}, {"compare": masks, "format": "tif"})):
        assert colorize(ColorizeOptions((masks,), tmp_path / str(n), over=over, alpha=0.0, **more), QUIET) == 0
        pictures = tifffile.imread(tmp_path / str(n) / "m.tif")
        pictures = np.moveaxis(pictures, 1, -1) if pictures.shape[1] == 3 else pictures
        means = [float(picture[-20:, :40].mean()) for picture in pictures]
        assert means[0] < 15
        assert min(means[1:]) > 90


def test_scores_of_stacks_count_as_those_of_their_images(tmp_path: Path, rng: np.random.Generator) -> None:
    """What predict writes of a stack, against the truth of it; the twin is each image by itself."""
    checkpoint.save(brightness_model(1), tmp_path / "w.safetensors")
    scans = rng.integers(0, 255, (3, 40, 50), np.uint8)
    truth = np.where(rng.random(scans.shape) < 0.9, np.where(scans > 127, 7, 2), 2).astype(np.uint8)
    write(tmp_path / "scans" / "s.tif", scans, "ZYX")
    write(tmp_path / "truth" / "s.tif", truth, "ZYX")
    for n in range(3):
        write_picture(tmp_path / "scans_apart" / f"{n}.png", scans[n])
        write_picture(tmp_path / "truth_apart" / f"{n}.png", truth[n])
    (tmp_path / "classes.csv").write_text("index,name,color\n2,dark,#00005a\n7,light,#fac800\n")
    found = []
    for suffix in ("", "_apart"):
        out = tmp_path / f"masks{suffix}"
        options = PredictOptions((tmp_path / f"scans{suffix}",), out, (str(tmp_path / "w.safetensors"),),
                                 probabilities=True)  # fmt: skip
        assert predict(options, QUIET) == 0
        report = tmp_path / f"report{suffix}"
        compared = EvalOptions(out, tmp_path / f"truth{suffix}", report, scores=out / "probabilities",
                               classes=tmp_path / "classes.csv")  # fmt: skip
        assert evaluate(compared, QUIET) == 0
        found.append(json.loads((report / "report.json").read_text())["scores"])
    assert found[0] == found[1]
    assert found[0]["expected_calibration_error"] is not None


def test_the_size_of_a_pixel_may_be_said_by_either_mask(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 2, (2, 30, 40), np.uint8)
    tifffile.imwrite(tmp_path / "sized.tif", pixels, imagej=True, resolution=(4, 4),
                     metadata={"axes": "ZYX", "unit": "um"})  # fmt: skip
    write(tmp_path / "bare.tif", np.roll(pixels, 3, axis=2), "ZYX")
    figures = []
    for one, other in (("sized", "bare"), ("bare", "sized")):
        options = EvalOptions(tmp_path / f"{one}.tif", tmp_path / f"{other}.tif", tmp_path / one,
                              distances="metres", boundary=(0.5e-6, "metres"))  # fmt: skip
        assert evaluate(options, QUIET) == 0
        report = json.loads((tmp_path / one / "report.json").read_text())
        figures.append(report["per_class"][1])
    assert figures[0]["iou"]["value"] == figures[1]["iou"]["value"]


@given(st.sampled_from(["a", "b.c", "d"]), st.sampled_from(["", ".ome", ".OME"]), st.sampled_from(["", ".ome"]),
       st.sampled_from(["", "_mask", "-gt"]))  # fmt: skip
def test_ome_belongs_to_the_ending(name: str, left: str, right: str, word: str) -> None:
    others = {"z": Path("z.tif"), "y": Path("y.tif")}
    found = match({f"{name}{left}": Path("image"), **others}, {f"{name}{word}{right}": Path("mask"), **others})
    assert (Path("image"), Path("mask")) in {pair[1:] for pair in found.pairs}


def test_two_files_of_one_name_but_for_ome_stay_apart() -> None:
    both = {"a": Path("a.tif"), "a.ome": Path("a.ome.tif")}
    assert {pair[1:] for pair in match(both, both).pairs} == {(path, path) for path in both.values()}
    assert not match(both, {"a_mask": Path("m.tif")}).pairs


def test_images_of_another_size_are_not_shown_beside_masks(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in "ab":
        write_picture(tmp_path / "masks" / f"{name}.png", rng.integers(0, 2, (30, 40), np.uint8))
        write_picture(tmp_path / "truth" / f"{name}.png", rng.integers(0, 2, (30, 40), np.uint8))
    write_picture(tmp_path / "scans" / "a.png", rng.integers(0, 255, (30, 40, 3), np.uint8))
    counts = []
    for width in (40, 41):
        write_picture(tmp_path / "scans" / "b.png", rng.integers(0, 255, (30, width, 3), np.uint8))
        options = EvalOptions(tmp_path / "masks", tmp_path / "truth", tmp_path / "report", images=tmp_path / "scans")
        assert evaluate(options, QUIET) == 0
        counts.append((tmp_path / "report" / "report.html").read_text().count("data:image/png"))
    assert counts[1] == counts[0] - 1


def test_pages_without_axes_are_told_to_be_images_of_their_own(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(brightness_model(1), tmp_path / "w.safetensors")
    pixels = rng.integers(0, 255, (3, 20, 24), np.uint8)
    write(tmp_path / "named.tif", pixels, "ZYX")
    with tifffile.TiffWriter(tmp_path / "pages.tif") as file:
        for page in pixels:
            file.write(page, metadata=None, contiguous=False)
    paths = (tmp_path / "named.tif", tmp_path / "pages.tif")
    options = PredictOptions(paths, tmp_path / "m", (str(tmp_path / "w.safetensors"),),
                             input_range=Percentiles(1, 99))  # fmt: skip
    assert predict(options, Console()) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "percentiles" in line]
    assert line.startswith(f"{tmp_path / 'pages.tif'}: pages without axes, each brought to percentiles of its own")
    plain = PredictOptions(paths, tmp_path / "n", (str(tmp_path / "w.safetensors"),))
    assert predict(plain, Console()) == 0
    assert "percentiles" not in capsys.readouterr().err
