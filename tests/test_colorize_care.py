"""Masks and options of colorize that are easy to get wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import tifffile
from helpers import brightness_model, write_picture
from PIL import Image
from ready import Ready

from segcli import files
from segcli.colorize import run
from segcli.colors import OKABE_ITO
from segcli.console import Console
from segcli.drawing.overlay import to_picture
from segcli.errors import UsageError
from segcli.network import checkpoint
from segcli.options import ColorizeOptions, PredictOptions
from segcli.palettes import read_classes
from segcli.predict import run as predict
from segcli.raster.labels import embedded_table
from segcli.raster.names import parse


def colorize(tmp_path: Path, *inputs: Path | str, out: Path | None = None, **more: object) -> int:
    options = ColorizeOptions(inputs, out or tmp_path / "out", **more)  # type: ignore[arg-type]
    return run(options, Console(quiet=False))


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_nothing_that_is_read_is_overwritten(tmp_path: Path) -> None:
    """Not even with --overwrite: the images and the truth cannot be had again."""
    write_picture(tmp_path / "masks" / "a.png", np.ones((9, 9), np.uint8))
    scan = write_picture(tmp_path / "scans" / "a.png", np.zeros((9, 9, 3), np.uint8))
    before = scan.read_bytes()
    for option in ("over", "compare"):
        with pytest.raises(UsageError, match=r"a\.png: is an input, and would be overwritten; choose another --out"):
            colorize(tmp_path, tmp_path / "masks", out=tmp_path / "scans", overwrite=True, **{option: scan.parent})
    tifffile.imwrite(tmp_path / "masks" / "b.tif", np.ones((9, 9), np.uint8))
    style = tmp_path / "b.qml"
    style.write_text('<qgis><paletteEntry value="1" color="#010203" label="one"/></qgis>')
    with pytest.raises(UsageError, match=r"b\.qml: is an input"):
        colorize(tmp_path, tmp_path / "masks" / "b.tif", out=tmp_path / "b.tif", overwrite=True, palette_only=True,
                 palette=str(style))  # fmt: skip
    assert scan.read_bytes() == before
    assert sorted(path.name for path in scan.parent.iterdir()) == ["a.png"]


def test_styles_are_only_beside_geotiffs(tmp_path: Path) -> None:
    write_picture(tmp_path / "masks" / "a.png", np.ones((9, 9), np.uint8))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.qml").write_text("mine")
    assert colorize(tmp_path, tmp_path / "masks", palette_only=True) == 0
    assert (tmp_path / "out" / "a.qml").read_text() == "mine"


def test_styles_of_pictures_do_not_stand_in_one_another_s_way(tmp_path: Path) -> None:
    """a.png has none, so that a.tif may have a.qml."""
    write_picture(tmp_path / "masks" / "a.png", np.ones((9, 9), np.uint8))
    tifffile.imwrite(tmp_path / "masks" / "a.tif", np.ones((9, 9), np.uint8))
    assert colorize(tmp_path, tmp_path / "masks", palette_only=True) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "a.qml", "a.tif", "segcli.jsonl"]


def test_bands_are_chosen_beside_the_truth_too(tmp_path: Path) -> None:
    write_picture(tmp_path / "masks" / "a.png", np.zeros((40, 60), np.uint8))
    write_picture(tmp_path / "truth" / "a.png", np.zeros((40, 60), np.uint8))
    scan = np.stack([np.full((40, 60), value, np.uint8) for value in (10, 20, 30)], -1)
    write_picture(tmp_path / "scans" / "a.png", scan)
    options = {"over": tmp_path / "scans", "alpha": 0.0, "compare": tmp_path / "truth"}
    assert colorize(tmp_path, tmp_path / "masks", bands=(3, 2, 1), **options) == 0
    assert pixels_of(tmp_path / "out" / "a.png")[-1, 5].tolist() == [30, 20, 10]


def test_a_value_means_the_same_in_every_mask_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Masks of 0 and 255 are black and white if no mask beside them says that 255 is no label."""
    white = write_picture(tmp_path / "masks" / "a.png", np.array([[0, 255]], np.uint8))
    assert colorize(tmp_path, tmp_path / "masks") == 0
    assert pixels_of(tmp_path / "out" / "a.png")[0].tolist() == [[0, 0, 0], [230, 159, 0]]
    assert "masks of 0 and 255 alone: 255 is drawn as foreground" in capsys.readouterr().err
    write_picture(tmp_path / "masks" / "b.png", np.array([[0, 1, 255]], np.uint8))
    assert colorize(tmp_path, tmp_path / "masks", overwrite=True) == 0
    assert pixels_of(tmp_path / "out" / "a.png")[0, :, 3].tolist() == [255, 0]
    assert pixels_of(tmp_path / "out" / "b.png")[0, :, 3].tolist() == [255, 255, 0]
    # One that says itself what its values mean does not speak for others.
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "classes.json").write_text('{"classes": [{"index": 1, "name": "one"}], "ignore": 0}')
    named = write_picture(tmp_path / "named" / "n.png", np.array([[0, 1]], np.uint8))
    assert colorize(tmp_path, named, white, out=tmp_path / "both") == 0
    assert pixels_of(tmp_path / "both" / "a.png")[0].tolist() == [[0, 0, 0], [230, 159, 0]]


def test_wide_masks_are_numbers_however_few_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few, many = np.array([[0, 1, 3]], np.uint16), np.array([[0, 300, 3]], np.uint16)
    (tmp_path / "masks").mkdir()
    tifffile.imwrite(tmp_path / "masks" / "few.tif", few)
    tifffile.imwrite(tmp_path / "masks" / "many.tif", many)
    assert colorize(tmp_path, tmp_path / "masks", legend="file") == 0
    for name in ("few", "many"):
        found = tifffile.imread(tmp_path / "out" / f"{name}.tif")
        assert found[0, :, 3].tolist() == [0, 255, 255]
        assert tuple(found[0, 2, :3]) == OKABE_ITO[3]
    assert "few.tif: numbers of objects; no legend. If they are classes, give --palette" in capsys.readouterr().err
    assert colorize(tmp_path, tmp_path / "masks" / "few.tif", palette="glasbey", legend="file", overwrite=True) == 0
    assert (tmp_path / "out" / "few.legend.png").exists()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint32, np.int64])
def test_outlines_part_objects_whose_colours_are_one(tmp_path: Path, dtype: type[np.integer]) -> None:
    numbers = np.ones((20, 30), dtype)
    numbers[:, 15:] = 255  # the colour of 1 again
    if dtype != np.uint16:
        numbers[:, 15:] = 1 + 254 * 70_000
    with rasterio.open(
        tmp_path / "n.tif", "w", "GTiff", 30, 20, 1, crs="EPSG:32633", transform=rasterio.Affine(1, 0, 0, 0, -1, 20),
        dtype=dtype,
    ) as file:  # fmt: skip
        file.write(numbers, 1)
    assert colorize(tmp_path, tmp_path / "n.tif", contours=1) == 0
    with rasterio.open(tmp_path / "out" / "n.tif") as file:
        opaque = file.read(4)[5] == 255
    assert np.flatnonzero(opaque).tolist() == [14, 15]


def test_a_scale_bar_makes_room_for_the_legend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "classes.json").write_text(json.dumps({"classes": [{"index": 1, "name": "a long name of a class"}]}))
    (tmp_path / "masks").mkdir()
    for name, height in (("high", 300), ("low", 40)):
        mask = np.ones((height, 290), np.uint8)
        profile = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 0, 0, -1, height)}
        with rasterio.open(
            tmp_path / "masks" / f"{name}.tif", "w", "GTiff", 290, height, 1, dtype="uint8", **profile
        ) as f:
            f.write(mask, 1)
    only_legend, both = tmp_path / "legend", tmp_path / "both"
    assert colorize(tmp_path, tmp_path / "masks", legend="picture", out=only_legend) == 0
    assert colorize(tmp_path, tmp_path / "masks", legend="picture", scale_bar=True, out=both) == 0
    with rasterio.open(only_legend / "high.tif") as one, rasterio.open(both / "high.tif") as two:
        one, two = one.read(), two.read()
    drawn = np.flatnonzero((one[:3] != one[:3, :1, :1]).any((0, 2)))
    assert np.array_equal(one[:, drawn[0] :], two[:, drawn[0] :])  # the legend is as it was
    assert (one != two).any()
    assert "low.tif: too small for a scale bar" in capsys.readouterr().err


def test_partners_that_are_missing_or_too_many_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        write_picture(tmp_path / "masks" / f"{name}.png", np.zeros((40, 60), np.uint8))
    write_picture(tmp_path / "other" / "a.png", np.zeros((40, 60), np.uint8))
    write_picture(tmp_path / "other" / "b.png", np.zeros((40, 60), np.uint8))
    write_picture(tmp_path / "other" / "b.bmp", np.zeros((40, 60), np.uint8))
    for option, kind in (("over", "image"), ("compare", "true mask")):
        assert colorize(tmp_path, tmp_path / "masks", out=tmp_path / option, **{option: tmp_path / "other"}) == 1
        said = capsys.readouterr().err
        assert f"c.png: no {kind} of that name in {tmp_path / 'other'}" in said
        assert f"b.png: several {kind}s of that name: {tmp_path / 'other' / 'b.bmp'}, " in said
        assert [path.name for path in (tmp_path / option).glob("*.png")] == ["a.png"]
    (tmp_path / "empty").mkdir()
    assert colorize(tmp_path, tmp_path / "masks", compare=tmp_path / "empty") == 1
    assert "a.png: no true mask of that name in" in capsys.readouterr().err
    place = parse(f"/vsizip/{tmp_path}/masks.zip/a.png")
    subprocess.run([sys.executable, "-m", "zipfile", "-c", "masks.zip", "masks/a.png"], cwd=tmp_path, check=True)
    assert colorize(tmp_path, place, compare=tmp_path / "other" / "a.png") == 1
    assert "expected one to compare" in capsys.readouterr().err


def test_what_stands_for_no_label_in_compared_masks(tmp_path: Path) -> None:
    """255 does, whatever the table's own index for it is, as in masks that are drawn alone."""
    (tmp_path / "classes.json").write_text(json.dumps({"classes": [{"index": 1, "name": "a"}], "ignore": 0}))
    write_picture(tmp_path / "masks" / "a.png", np.array([[1, 255, 0]], np.uint8).repeat(40, 0).repeat(20, 1))
    write_picture(tmp_path / "truth" / "a.png", np.ones((40, 60), np.uint8))
    assert colorize(tmp_path, tmp_path / "masks", compare=tmp_path / "truth") == 0
    assert pixels_of(tmp_path / "out" / "a.png")[-1, [5, 25, 45], 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "[" * 100_000),
        ("a.json", '{"classes": [{"index": 1, "name": "a", "color": "red"}]}'),
        ("a.csv", "index,name,r,g,b\n1,a,1e999,0,0\n"),
        ("a.csv", 'index,name\n1,"' + "a" * 200_000 + '"\n'),
        ("a.clr", "1 inf 0 0\n"),
        ("a.qml", "<qgis>" * 1000),
        ("a.gpl", "GIMP Palette\n1 2\n"),
    ],
)
def test_palettes_that_are_none(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="not a class table"):
        read_classes(tmp_path / name)


def test_json_with_a_byte_order_mark(tmp_path: Path) -> None:
    text = json.dumps({"classes": [{"index": 1, "name": "Straße"}]})
    (tmp_path / "a.json").write_text(text, encoding="utf-8-sig")
    assert read_classes(tmp_path / "a.json").names == ("Straße",)


@pytest.mark.parametrize("ignore", [255, 9])
@pytest.mark.parametrize("kind", ["ome", "imagej", "plain"])
def test_stacks_keep_the_names_and_colours_of_their_classes(
    tmp_path: Path, kind: str, ignore: int, rng: np.random.Generator
) -> None:
    (tmp_path / "in").mkdir()
    classes = [{"index": 1, "name": "a & <b>", "color": "#010203"}, {"index": 7, "name": "ü", "color": "#C80064"}]
    (tmp_path / "in" / "classes.json").write_text(json.dumps({"classes": classes, "ignore": ignore}))
    mask = rng.choice(np.array([1, 7, ignore], np.uint8), (5, 20, 30))
    place = tmp_path / "in" / ("m.ome.tif" if kind == "ome" else "m.tif")
    options = {"ome": {"ome": True}, "imagej": {"imagej": True}, "plain": {}}[kind]
    tifffile.imwrite(place, mask, metadata={"axes": "ZYX"}, **options)
    assert colorize(tmp_path, place, palette_only=True) == 0
    made = tmp_path / "out" / place.name
    found = embedded_table(made)
    assert found is not None
    assert [(e.index, e.name, e.color) for e in found.entries] == [(1, "a & <b>", (1, 2, 3)), (7, "ü", (200, 0, 100))]
    assert np.array_equal(tifffile.imread(made), mask)
    assert colorize(tmp_path, made, out=tmp_path / "drawn") == 0  # far from the table
    drawn = tifffile.imread(tmp_path / "drawn" / made.name)
    assert (drawn[mask == 7] == [200, 0, 100, 255]).all()
    assert (drawn[mask == ignore, 3] == 0).all()
    assert found.ignore == ignore


def test_only_classes_that_occur_are_in_a_palette_of_made_up_ones(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[2, 9, 255]], np.uint8))
    assert colorize(tmp_path, tmp_path / "a.tif", palette_only=True) == 0
    assert [entry.index for entry in read_classes(tmp_path / "out" / "a.qml").entries] == [2, 9]


def test_there_and_back_with_pixels_without_a_label(tmp_path: Path, rng: np.random.Generator) -> None:
    for suffix in (".png", ".tif"):
        mask = rng.choice(np.array([0, 1, 2, 255], np.uint8), (40, 50))
        source = tmp_path / f"m{suffix}"
        cv2.imwrite(str(source), mask)
        assert colorize(tmp_path, source, palette="okabe-ito") == 0
        drawn = tmp_path / "out" / source.name
        assert colorize(tmp_path, drawn, palette="okabe-ito", to_index=True, out=tmp_path / "back") == 0
        assert np.array_equal(pixels_of(tmp_path / "back" / source.name), mask)


def test_a_photograph_with_holes_counts_no_hole_as_a_colour(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = np.zeros((4, 5, 4), np.uint8)
    picture[..., :3] = (9, 9, 9)  # no class, and transparent
    picture[0] = (0, 0, 0, 255)
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "classes.json").write_text('{"classes": [{"index": 0, "name": "a", "color": "#000000"}]}')
    assert colorize(tmp_path, tmp_path / "a.png", to_index=True) == 0
    assert pixels_of(tmp_path / "out" / "a.png")[:2, 0].tolist() == [0, 255]
    picture[1, :, 3] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert colorize(tmp_path, tmp_path / "a.png", to_index=True) == 1
    assert "#090909 (5 pixels); expected those of the palette; choose another --palette, or a --tolerance; 16" in (
        capsys.readouterr().err
    )


def test_large_numbers_are_stretched_without_loss() -> None:
    low, high = np.array([2.0**31]), np.array([2.0**31 + 255])
    pixels = (np.arange(256, dtype=np.uint32) + 2**31).reshape(1, 16, 16)
    assert np.array_equal(to_picture(pixels, low, high)[0].ravel(), np.arange(256))
    odd = np.array([[[np.nan, np.inf, -np.inf, 1e300]]])
    assert to_picture(odd, np.array([0.0]), np.array([1.0]))[0, 0].tolist() == [0, 255, 0, 255]


def test_what_is_lost_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with rasterio.open(tmp_path / "a.tif", "w", "GTiff", 9, 9, 1, dtype="uint8", crs="EPSG:32633",
                       transform=rasterio.Affine(1, 0, 5, 0, -1, 9)) as file:  # fmt: skip
        file.write(np.ones((1, 9, 9), np.uint8))
    assert colorize(tmp_path, tmp_path / "a.tif", format="png") == 0
    assert "a.tif: PNG cannot hold where it lies on earth" in capsys.readouterr().err
    assert colorize(tmp_path, tmp_path / "a.tif", compare=tmp_path / "a.tif", out=tmp_path / "compared") == 0
    assert "lies on earth" not in capsys.readouterr().err  # a comparison is a picture, whatever its format
    tifffile.imwrite(tmp_path / "s.tif", np.ones((5, 9, 9), np.uint8), imagej=True, metadata={"axes": "ZYX"})
    assert colorize(tmp_path, tmp_path / "s.tif", compress="zstd") == 0
    assert "s.tif: a stack; --format and --compress do not apply" in capsys.readouterr().err
    assert colorize(tmp_path, tmp_path / "s.tif", format="png") == 1
    assert "s.tif: a stack; PNG cannot hold it; choose --format tif" in capsys.readouterr().err
    tifffile.imwrite(tmp_path / "f.tif", np.ones((9, 9), np.float32))
    assert colorize(tmp_path, tmp_path / "f.tif") == 1
    said = capsys.readouterr().err
    assert "f.tif: 1 band of float32; expected a mask: one band of whole numbers" in said
    assert "--to-index" not in said


@pytest.mark.parametrize("over", [False, True])
def test_each_image_of_a_stack_is_compared_with_its_truth(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str], over: bool
) -> None:
    """The slow twin is each image compared as a file of its own."""
    found, true = rng.integers(0, 3, (2, 3, 40, 60), np.uint8)
    scans = rng.integers(0, 255, (3, 40, 60), np.uint8)
    for kind, stack in (("masks", found), ("truth", true), ("scans", scans)):
        (tmp_path / kind).mkdir()
        tifffile.imwrite(tmp_path / kind / "s.tif", stack, imagej=True, metadata={"axes": "ZYX"})
        for n, plane in enumerate(stack):
            write_picture(tmp_path / f"{kind}_apart" / f"{n}.png", plane)
    more = {"over": tmp_path / "scans"} if over else {}
    assert colorize(tmp_path, tmp_path / "masks", compare=tmp_path / "truth", legend="file", format="tif", **more) == 0
    more = {"over": tmp_path / "scans_apart"} if over else {}
    apart = {"compare": tmp_path / "truth_apart", "out": tmp_path / "apart"}
    assert colorize(tmp_path, tmp_path / "masks_apart", **apart, **more) == 0
    pictures = tifffile.imread(tmp_path / "out" / "s.tif")
    expected = np.stack([pixels_of(tmp_path / "apart" / f"{n}.png") for n in range(3)])
    assert np.array_equal(np.moveaxis(pictures, 1, -1) if pictures.shape[1] in (3, 4) else pictures, expected)
    assert (tmp_path / "out" / "s.legend.png").exists()
    capsys.readouterr()
    assert colorize(tmp_path, tmp_path / "masks", compare=tmp_path / "truth", out=tmp_path / "png") == 1
    assert "s.tif: a stack; a PNG holds one comparison; choose --format tif" in capsys.readouterr().err
    tifffile.imwrite(tmp_path / "truth" / "s.tif", true[:2], imagej=True, metadata={"axes": "ZYX"})
    assert colorize(tmp_path, tmp_path / "masks", compare=tmp_path / "truth", format="tif", out=tmp_path / "few") == 1
    assert "s.tif: 3 images (Z 3); " in capsys.readouterr().err


def test_the_output_of_a_folder_is_a_folder(tmp_path: Path) -> None:
    write_picture(tmp_path / "masks" / "a.png", np.ones((9, 9), np.uint8))
    (tmp_path / "taken").write_text("mine")
    for out in ("one.png", "taken"):
        with pytest.raises(UsageError, match=f"{out}: a file; expected a folder for the outputs"):
            colorize(tmp_path, tmp_path / "masks", out=tmp_path / out)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_drawing_in_its_middle(tmp_path: Path, ready: Ready, sent: signal.Signals, code: int) -> None:
    height, width = 6000, 4000
    with rasterio.open(
        tmp_path / "m.tif", "w", "GTiff", width, height, 1, dtype="uint8", tiled=True, compress="deflate",
        crs="EPSG:32633", transform=rasterio.Affine(1, 0, 0, 0, -1, height),
    ) as file:  # fmt: skip
        for row in range(0, height, 1000):
            noise = np.random.default_rng(row).integers(0, 9, (1, 1000, width), np.uint8)
            file.write(noise, window=rasterio.windows.Window(0, row, width, 1000))
    process = ready.popen(("colorize", "m.tif", "--out", "out", "--contours", 3), tmp_path, stderr=subprocess.PIPE)
    part = files.part_of(files.stage_of(tmp_path / "out", "m.tif") / "m.tif")
    while process.poll() is None and not (part.exists() and part.stat().st_size):
        time.sleep(0.01)
    process.send_signal(sent)
    process.communicate(timeout=120)
    assert process.returncode == code
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["segcli.jsonl"]


def test_the_partner_of_a_named_output_has_the_name_of_the_mask(tmp_path: Path) -> None:
    """Not that of the output: two scans are there, one of each name."""
    mask = write_picture(tmp_path / "masks" / "a.png", np.zeros((9, 9), np.uint8))
    for name, blue in (("a", 250), ("b", 10)):
        write_picture(tmp_path / "scans" / f"{name}.png", np.full((9, 9, 3), (0, 0, blue), np.uint8))
    for name in ("b.png", "other.png"):
        out = tmp_path / "out" / name
        assert colorize(tmp_path, mask, out=out, over=tmp_path / "scans") == 0
        assert pixels_of(out)[4, 4, 2] > 100


def test_compared_values_have_their_colours_whatever_else_is_there(tmp_path: Path) -> None:
    """A mask that comes later, with other values, makes no picture of before wrong."""
    write_picture(tmp_path / "masks" / "a.png", np.array([[0, 2, 5]], np.uint8).repeat(30, 0).repeat(20, 1))
    write_picture(tmp_path / "truth" / "a.png", np.array([[0, 5, 2]], np.uint8).repeat(30, 0).repeat(20, 1))
    assert colorize(tmp_path, tmp_path / "masks", compare=tmp_path / "truth") == 0
    first = pixels_of(tmp_path / "out" / "a.png")
    for name in ("masks", "truth"):
        write_picture(tmp_path / name / "b.png", np.array([[0, 1, 3]], np.uint8).repeat(30, 0).repeat(20, 1))
    assert colorize(tmp_path, tmp_path / "masks", compare=tmp_path / "truth", out=tmp_path / "again") == 0
    assert np.array_equal(pixels_of(tmp_path / "again" / "a.png"), first)
    assert colorize(tmp_path, tmp_path / "masks", out=tmp_path / "plain") == 0
    plain = pixels_of(tmp_path / "plain" / "a.png")
    assert [tuple(first[-5, col][:3]) for col in (30, 50)] == [tuple(plain[-5, col][:3]) for col in (30, 50)]


def test_folders_count_by_what_is_in_them_not_by_how_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "masks" / "a.png", np.ones((9, 9), np.uint8))
    write_picture(tmp_path / "scans" / "a.png", np.zeros((9, 9, 3), np.uint8))
    (tmp_path / "p.csv").write_text("index,name,color\n0,ground,#000000\n1,tree,#00FF00\n")
    assert colorize(tmp_path, Path("masks"), over=Path("scans"), palette="p.csv") == 0
    for over, palette in ((Path("scans"), "./p.csv"), (tmp_path / "scans", str(tmp_path / "p.csv"))):
        assert colorize(tmp_path, tmp_path / "masks", over=over, palette=palette, verify=True) == 0
    capsys.readouterr()
    assert colorize(tmp_path, Path("masks"), palette="p.csv", verify=True) == 1
    assert colorize(tmp_path, Path("masks"), over=Path("scans"), palette="voc", verify=True) == 1
    (tmp_path / "p.csv").write_text("index,name,color\n0,ground,#000000\n1,tree,#00FE00\n")
    assert colorize(tmp_path, Path("masks"), over=Path("scans"), palette="p.csv", verify=True) == 1


def test_pictures_keep_the_names_of_images(tmp_path: Path, rng: np.random.Generator) -> None:
    """Which well is which nobody could tell otherwise."""
    with tifffile.TiffWriter(tmp_path / "m.ome.tif", ome=True) as file:
        for n in range(2):
            mask = rng.integers(0, 3, (3, 40, 50), np.uint8)
            file.write(mask, photometric="minisblack", metadata={"axes": "ZYX", "Name": f"well A{n}"})
    for name, options in {"colors": {}, "palette": {"palette_only": True}}.items():
        assert colorize(tmp_path, tmp_path / "m.ome.tif", out=tmp_path / name, **options) == 0
        with tifffile.TiffFile(tmp_path / name / "m.ome.tif") as file:
            assert [series.name for series in file.series] == ["well A0", "well A1"]


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32", "infinite", "alpha"])
def test_no_data_is_black_under_a_mask(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    """Whatever stands there in the file, which is white or grey in many."""
    values = rng.integers(40, 200, (60, 70), np.uint8)
    (tmp_path / "scans").mkdir()
    if kind == "alpha":
        picture = np.dstack([values, values, values, np.full_like(values, 255)])
        picture[20:30, 20:30] = (240, 240, 240, 0)
        write_picture(tmp_path / "scans" / "a.png", picture)
    else:
        dtype = "float32" if kind == "infinite" else kind
        nothing = {"uint8": 255, "uint16": 65535, "int16": 32767, "float32": 99999, "infinite": np.inf}[kind]
        pixels = values.astype(dtype)
        pixels[20:30, 20:30] = nothing
        more = {} if kind == "infinite" else {"nodata": nothing}
        more |= {"transform": rasterio.transform.from_origin(0, 60, 1, 1), "crs": "EPSG:32633"}
        with rasterio.open(
            tmp_path / "scans" / "a.tif", "w", driver="GTiff", count=1, height=60, width=70, dtype=dtype, **more
        ) as file:
            file.write(pixels, 1)
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    options = PredictOptions((tmp_path / "scans",), tmp_path / "masks", (str(tmp_path / "w.safetensors"),),
                             input_range=(0.0, 255.0), overlay=True)  # fmt: skip
    assert predict(options, Console(quiet=True)) == 0
    assert colorize(tmp_path, tmp_path / "masks", over=tmp_path / "scans") == 0
    name = "a.png" if kind == "alpha" else "a.tif"
    for path in (tmp_path / "masks" / "overlays" / name, tmp_path / "out" / name):
        picture = pixels_of(path)
        assert (picture[20:30, 20:30, :3] == 0).all(), path
        assert (picture[:20, :, :3].sum(2) > 0).all(), path
    assert (pixels_of(tmp_path / "masks" / name)[20:30, 20:30] == 255).all()


def test_a_changed_class_table_beside_the_masks_makes_pictures_stale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = write_picture(tmp_path / "data" / "masks" / "a.png", np.ones((9, 9), np.uint8))
    table = tmp_path / "data" / "classes.csv"
    for place, color in ((table, "#FF0000"), (table, "#00FF00"), (mask.parent / "classes.csv", "#0000FF")):
        place.write_text(f"index,name,color\n0,ground,#000000\n1,tree,{color}\n")
        assert colorize(tmp_path, mask.parent, out=tmp_path / "out", verify=True) == 1
        assert colorize(tmp_path, mask.parent, out=tmp_path / "out") == 0
        assert "done 1  up to date 0" in capsys.readouterr().err
        red, green, blue = pixels_of(tmp_path / "out" / "a.png")[4, 4]
        assert color == f"#{red:02X}{green:02X}{blue:02X}"
    assert colorize(tmp_path, mask.parent, out=tmp_path / "out", verify=True) == 0


def test_what_is_read_twice_for_one_picture_is_recorded_once(tmp_path: Path) -> None:
    """As the masks themselves, given as the truth; it was done again each time."""
    mask = write_picture(tmp_path / "masks" / "a.png", np.ones((9, 9), np.uint8))
    assert colorize(tmp_path, mask.parent, out=tmp_path / "both", compare=mask.parent) == 0
    assert colorize(tmp_path, mask.parent, out=tmp_path / "both", compare=mask.parent, verify=True) == 0


def test_a_changed_class_table_beside_the_truth_makes_comparisons_stale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask, truth = (write_picture(tmp_path / name / "a.png", np.ones((9, 9), np.uint8)) for name in ("masks", "truth"))
    for color in ("#FF0000", "#00FF00"):
        (truth.parent / "classes.csv").write_text(f"index,name,color\n0,ground,#000000\n1,tree,{color}\n")
        assert colorize(tmp_path, mask.parent, out=tmp_path / "both", compare=truth.parent) == 0
        assert "done 1  up to date 0" in capsys.readouterr().err


def test_links_to_nowhere_and_names_too_long_are_named_and_the_rest_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = tmp_path / "masks"
    good = write_picture(masks / "a.png", np.ones((9, 9), np.uint8))
    (masks / "itself.png").symlink_to("itself.png")
    (masks / "gone.tif").symlink_to("nowhere.tif")
    (masks / "notes").symlink_to("notes")
    (masks / "again").symlink_to(".")
    os.mkfifo(masks / "pipe.png")
    assert colorize(tmp_path, masks, recursive=True) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1] == "done 1  up to date 0  failed 2"
    assert "itself.png: no such file" in said
    assert "gone.tif: no such file" in said
    long = masks / f"{'x' * 300}.png"
    assert colorize(tmp_path, parse(str(good)), parse(str(long)), out=tmp_path / "named") == 1
    assert "done 1  up to date 0  failed 1" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
def test_a_name_in_a_locked_folder_is_named_and_the_rest_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_picture(tmp_path / "a.png", np.ones((9, 9), np.uint8))
    hidden = write_picture(tmp_path / "locked" / "b.png", np.ones((9, 9), np.uint8))
    hidden.parent.chmod(0)
    try:
        assert colorize(tmp_path, parse(str(good)), parse(str(hidden))) == 1
    finally:
        hidden.parent.chmod(0o700)
    assert "done 1  up to date 0  failed 1" in capsys.readouterr().err


def test_a_second_run_does_not_take_its_outputs_for_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither where they lie among the inputs, nor where a pattern finds them in a folder below."""
    write_picture(tmp_path / "beside" / "j.bmp", np.ones((9, 9), np.uint8))
    scan = write_picture(tmp_path / "above" / "a.png", np.ones((9, 9), np.uint8))
    for inputs, out in (
        ([tmp_path / "beside"], tmp_path / "beside"),
        ([scan, tmp_path / "above" / "out" / "a.png"], tmp_path / "above" / "out"),
    ):
        given = inputs[:1]
        for line in ("done 1  up to date 0  failed 0", "done 0  up to date 1  failed 0"):
            assert colorize(tmp_path, *given, out=out) == 0
            assert capsys.readouterr().err.splitlines()[-1] == line
            given = inputs


def write_scan(path: Path, whole: np.ndarray) -> None:
    """A raster, and beside it an overview of half the size."""
    path.parent.mkdir(exist_ok=True)
    place = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(500, 900, 1, 1)}
    with rasterio.open(path, "w", "GTiff", *whole.shape[::-1], 1, dtype="uint8", **place) as file:
        file.write(whole, 1)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as file:
        file.build_overviews([2])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_picture_over_an_overview_is_drawn_again_when_that_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mask was made of that level."""
    write_scan(tmp_path / "scans" / "a.tif", np.full((64, 80), 90, np.uint8))
    (tmp_path / "masks").mkdir()
    with rasterio.open(tmp_path / "masks" / "a.tif", "w", "GTiff", 40, 32, 1, dtype="uint8", crs="EPSG:32633",
                       transform=rasterio.transform.from_origin(500, 900, 2, 2), nodata=255) as file:  # fmt: skip
        file.write(np.full((32, 40), 255, np.uint8), 1)
    for value in (200, 60):
        with rasterio.open(tmp_path / "scans" / "a.tif.ovr", "r+") as file:
            file.write(np.full((1, *file.shape), value, np.uint8))
        assert colorize(tmp_path, tmp_path / "masks", over=tmp_path / "scans", palette="glasbey") == 0
        assert "done 1" in capsys.readouterr().err
        with rasterio.open(tmp_path / "out" / "a.tif") as file:
            assert (file.shape, np.unique(file.read()).tolist()) == ((32, 40), [value])


def test_half_of_a_jpeg_is_no_level_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """GDAL reads smaller versions of any JPEG: a mask of half the size is of another picture."""
    write_picture(tmp_path / "masks" / "a.png", np.ones((32, 40), np.uint8))
    write_picture(tmp_path / "scans" / "a.jpg", np.zeros((64, 80, 3), np.uint8))
    assert colorize(tmp_path, tmp_path / "masks", over=tmp_path / "scans") == 1
    assert "expected the same size" in capsys.readouterr().err


def test_a_colour_that_somebody_chose_is_to_be_named_not_taken_for_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tolerance would make a class of what has no label."""
    picture = np.zeros((20, 20, 3), np.uint8)
    picture[:, 10:] = 155
    write_picture(tmp_path / "a.png", picture)
    table = tmp_path / "palette.json"
    classes = [{"index": 0, "name": "sea", "color": "#000000"}, {"index": 1, "name": "road", "color": "#FFFFFF"}]
    table.write_text(json.dumps({"classes": classes}))
    assert colorize(tmp_path, tmp_path / "a.png", to_index=True, palette=str(table)) == 1
    said = capsys.readouterr().err
    assert "#9B9B9B (200 pixels); expected those of the palette; name it in the palette" in said
    assert "tolerance" not in said
    table.write_text(json.dumps({"classes": classes, "ignore_color": "#9B9B9B"}))
    assert colorize(tmp_path, tmp_path / "a.png", to_index=True, palette=str(table)) == 0
    assert np.unique(pixels_of(tmp_path / "out" / "a.png")).tolist() == [0, 255]
