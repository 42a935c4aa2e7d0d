"""Masks as pictures, and pictures back to masks."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import tifffile
from helpers import SHARED, brightness_model, write_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import from_origin
from scipy import ndimage

from segcli.classes import ClassEntry, ClassTable
from segcli.colorize import run
from segcli.colors import OKABE_ITO, distinct_colors, lab_seen
from segcli.console import Console
from segcli.drawing.agreement import agreement
from segcli.drawing.contours import outlined
from segcli.drawing.indexing import ColorIndex
from segcli.drawing.lookup import color_table, look_up
from segcli.drawing.stamps import Stamp, length_text, round_length, stamp, written
from segcli.errors import NothingDoneError, UsageError
from segcli.known_palettes import KNOWN
from segcli.network import checkpoint
from segcli.options import ColorizeOptions
from segcli.palettes import find_palette, read_classes, to_qml
from segcli.raster import canvas
from segcli.raster.grid import Grid
from segcli.raster.labels import embedded_table
from segcli.raster.sink import create, mask_layout
from segcli.raster.source import Source

Program = Callable[..., subprocess.CompletedProcess[str]]
TABLE = {
    "classes": [
        {"index": 0, "name": "background", "color": "#000000"},
        {"index": 1, "name": "Straße", "color": "#0A141E"},
        {"index": 3, "name": "pond", "color": "#C80064"},
    ]
}
COLORS = {0: (0, 0, 0), 1: (10, 20, 30), 3: (200, 0, 100)}


def colorize(tmp_path: Path, *inputs: Path, out: Path | None = None, **more: object) -> int:
    options = ColorizeOptions(inputs, out or tmp_path / "out", **more)  # type: ignore[arg-type]
    return run(options, Console(quiet=True))


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def expected(mask: np.ndarray) -> np.ndarray:
    """RGBA, written out."""
    picture = np.zeros((*mask.shape, 4), np.uint8)
    for value, color in COLORS.items():
        picture[mask == value] = (*color, 255)
    return picture


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "classes.json").write_text(json.dumps(TABLE))
    return tmp_path / "classes.json"


@pytest.fixture
def mask(tmp_path: Path, table: Path, rng: np.random.Generator) -> np.ndarray:
    pixels = rng.choice(np.array([0, 1, 3, 255], np.uint8), (37, 53))
    write_picture(tmp_path / "masks" / "a.png", pixels)
    return pixels


def write_tif(path: Path, pixels: np.ndarray, **more: object) -> Path:
    bands = pixels if pixels.ndim == 3 else pixels[None]
    place = {"crs": "EPSG:32632", "transform": from_origin(600_000, 5_500_000, 0.5, 0.5)} | more
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2],
                       dtype=bands.dtype, **place) as file:  # fmt: skip
        file.write(bands)
    return path


def test_pictures_are_in_the_colours_of_the_table(tmp_path: Path, mask: np.ndarray) -> None:
    """Transparent where there is no label; without any such pixel a picture has no alpha."""
    write_picture(tmp_path / "masks" / "whole.png", np.minimum(mask, 1))
    assert colorize(tmp_path, tmp_path / "masks") == 0
    assert np.array_equal(pixels_of(tmp_path / "out" / "a.png"), expected(mask))
    whole = pixels_of(tmp_path / "out" / "whole.png")
    assert np.array_equal(whole, expected(np.minimum(mask, 1))[..., :3])


def test_large_pictures_are_encoded_by_gdal_alike(
    tmp_path: Path, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segcli.raster.sink.MOST_BYTES", 100)
    monkeypatch.setattr(canvas.Canvas, "png", lambda _: pytest.fail("in memory"))
    write_picture(tmp_path / "masks" / "whole.png", np.minimum(mask, 1))
    assert colorize(tmp_path, tmp_path / "masks") == 0
    assert np.array_equal(pixels_of(tmp_path / "out" / "a.png"), expected(mask))
    assert np.array_equal(pixels_of(tmp_path / "out" / "whole.png"), expected(np.minimum(mask, 1))[..., :3])
    assert canvas.MOST_BYTES > 100
    assert not list((tmp_path / "out").glob(".*"))


def test_georeferenced_masks_stay_where_they_are(tmp_path: Path, mask: np.ndarray) -> None:
    write_tif(tmp_path / "masks" / "b.tif", mask, nodata=3)
    assert colorize(tmp_path, tmp_path / "masks" / "b.tif") == 0
    with rasterio.open(tmp_path / "out" / "b.tif") as file:
        assert (file.crs.to_epsg(), file.transform[0], file.count) == (32632, 0.5, 4)
        assert [kind.name for kind in file.colorinterp] == ["red", "green", "blue", "alpha"]
        wanted = expected(mask)
        wanted[mask == 3] = 0  # no data here, whatever the table says
        found = file.read().transpose(1, 2, 0)
    assert np.array_equal(found[..., 3], wanted[..., 3])
    assert np.array_equal(found[wanted[..., 3] > 0], wanted[wanted[..., 3] > 0])


@pytest.mark.parametrize("nodata", [None, 255, 0])
def test_a_palette_leaves_the_indices(tmp_path: Path, mask: np.ndarray, nodata: int | None) -> None:
    write_tif(tmp_path / "masks" / "b.tif", mask, nodata=nodata)
    assert colorize(tmp_path, tmp_path / "masks" / "b.tif", palette_only=True) == 0
    with rasterio.open(tmp_path / "out" / "b.tif") as file:
        assert np.array_equal(file.read(1), mask)
        assert {value: file.colormap(1)[value][:3] for value in COLORS if value != nodata} == {
            value: color for value, color in COLORS.items() if value != nodata
        }
        assert file.tags(1)["CLASS_1"] == "Straße"
        assert file.nodata == (255 if nodata is None else nodata)
    style = read_classes(tmp_path / "out" / "b.qml")
    assert [(entry.index, entry.name, entry.color) for entry in style.entries] == [
        (0, "background", (0, 0, 0)), (1, "Straße", (10, 20, 30)), (3, "pond", (200, 0, 100)),
    ]  # fmt: skip
    assert colorize(tmp_path, tmp_path / "masks" / "a.png", palette_only=True) == 0
    with Image.open(tmp_path / "out" / "a.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), mask)


def test_stacks_stay_stacks(tmp_path: Path, table: Path, rng: np.random.Generator) -> None:
    stack = rng.choice(np.array([0, 1, 3], np.uint8), (4, 2, 21, 30))
    for name, more in (("o.ome.tif", {"ome": True, "metadata": {"axes": "TZYX", "PhysicalSizeX": 0.5}}),
                       ("i.tif", {"imagej": True, "metadata": {"axes": "TZYX"}})):  # fmt: skip
        tifffile.imwrite(tmp_path / "masks" / name, stack, **more) if (tmp_path / "masks").exists() else (
            (tmp_path / "masks").mkdir(), tifffile.imwrite(tmp_path / "masks" / name, stack, **more))  # fmt: skip
        assert colorize(tmp_path, tmp_path / "masks" / name) == 0
        with tifffile.TiffFile(tmp_path / "out" / name) as file:
            series = file.series[0]
            assert (series.axes, series.shape) == ("TZYXS", (4, 2, 21, 30, 4))
            found = series.asarray()
            assert (file.is_ome, file.is_imagej) == (name[0] == "o", name[0] == "i")
        assert np.array_equal(found, np.stack([[expected(plane) for plane in time] for time in stack]))
    assert colorize(tmp_path, tmp_path / "masks" / "i.tif", palette_only=True, overwrite=True) == 0
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "i.tif"), stack)
    assert colorize(tmp_path, tmp_path / "masks" / "i.tif", format="png", out=tmp_path / "png") == 1


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_over_an_image_by_the_formula(tmp_path: Path, mask: np.ndarray, rng: np.random.Generator, alpha: float) -> None:
    scan = rng.integers(0, 256, (37, 53, 3), np.uint8)
    write_picture(tmp_path / "scans" / "a.png", scan)
    assert colorize(tmp_path, tmp_path / "masks", over=tmp_path / "scans", alpha=alpha) == 0
    found = pixels_of(tmp_path / "out" / "a.png")
    colors = expected(mask)
    strength = alpha * np.isin(mask, [1, 3])[..., None]  # not the background, nor what has no label
    assert np.abs(found - (scan * (1 - strength) + colors[..., :3] * strength)).max() <= 0.5001


def test_images_of_other_kinds_are_stretched(tmp_path: Path, table: Path, rng: np.random.Generator) -> None:
    """16 bits and floats, by the percentiles of the whole image, band by band; nodata counts for nothing."""
    mask = np.zeros((60, 70), np.uint8)
    image = rng.integers(0, 4000, (4, 60, 70)).astype(np.uint16)
    image[1] //= 10
    image[:, :5] = 60_000
    for name, pixels, nodata in (("u", image, 60_000), ("f", np.where(image == 60_000, np.nan, image / 7.0), np.nan)):
        write_tif(tmp_path / "masks" / f"{name}.tif", mask)
        write_tif(
            tmp_path / "scans" / f"{name}.tif", pixels.astype(np.float32) if name == "f" else pixels, nodata=nodata
        )
    assert colorize(tmp_path, tmp_path / "masks", over=tmp_path / "scans", bands=(4, 2, 1)) == 0
    for name in "uf":
        with rasterio.open(tmp_path / "out" / f"{name}.tif") as file:
            found = file.read().astype(float)
            assert file.colorinterp[0].name == "red"
        for band, source in zip(found[:, 5:], image[[3, 1, 0], 5:].astype(float), strict=True):
            low, high = np.percentile(source, [2, 98])
            assert np.abs(band - np.clip((source - low) * 255 / (high - low), 0, 255)).max() <= 0.6
    assert colorize(tmp_path, tmp_path / "masks", over=tmp_path / "scans", bands=(9,), overwrite=True) == 1


def test_what_does_not_fit_is_named_and_the_rest_done(
    tmp_path: Path, mask: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "bc":
        write_picture(tmp_path / "masks" / f"{name}.png", mask)
    write_picture(tmp_path / "masks" / "d.png", np.full((5, 5), 77, np.uint8))
    write_picture(tmp_path / "masks" / "e.png", np.zeros((5, 5, 3), np.uint8))
    write_picture(tmp_path / "scans" / "a.png", np.zeros((37, 53, 3), np.uint8))
    write_picture(tmp_path / "scans" / "b_image.png", np.zeros((37, 53, 3), np.uint8))
    write_picture(tmp_path / "scans" / "c.png", np.zeros((37, 50, 3), np.uint8))
    for name in "de":
        write_picture(tmp_path / "scans" / f"{name}.png", np.zeros((5, 5), np.uint8))
    assert colorize(tmp_path, tmp_path / "masks", over=tmp_path / "scans") == 1
    said = capsys.readouterr().err
    assert "b.png: no image of that name in" in said
    assert "c.png: 53 x 37 pixels, " in said
    assert "has 50 x 37; expected the same size" in said
    assert "d.png: values that are no class: 77 (25 pixels)" in said
    assert "e.png: 3 bands of uint8; expected a mask" in said
    assert [path.name for path in sorted((tmp_path / "out").glob("*.png"))] == ["a.png"]
    with pytest.raises(UsageError, match="no such file or folder"):
        colorize(tmp_path, tmp_path / "masks", over=tmp_path / "none")
    with pytest.raises(UsageError, match="one file for 5 masks"):
        colorize(tmp_path, tmp_path / "masks", over=tmp_path / "scans" / "a.png")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.integers(0, 9), st.integers(0, 999))
def test_outlines_are_where_another_index_is_near(height: int, cols: int, width: int, more: int, seed: int) -> None:
    """Strip by strip as brute force over every neighbour."""
    mask = np.random.default_rng(seed).integers(0, 2, (height, cols)).astype(np.uint8)
    mask = np.repeat(np.repeat(mask, 3, 0), 3, 1)[:height, :cols]
    strip = width + more
    strips = ((row, mask[row : row + strip]) for row in range(0, height, strip))
    found = list(outlined(strips, width))
    differs = np.zeros((height, cols), bool)
    for down in range(-width, width + 1):
        for across in range(-width, width + 1):
            rows = np.clip(np.arange(height) + down, 0, height - 1)
            columns = np.clip(np.arange(cols) + across, 0, cols - 1)
            differs |= mask[rows][:, columns] != mask
    assert np.array_equal(np.concatenate([part.outline for part in found]), differs)
    assert np.array_equal(np.concatenate([part.indices for part in found]), mask)


def test_contours_in_place_of_areas(tmp_path: Path, table: Path) -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[5:25, 10:30] = 3
    write_picture(tmp_path / "masks" / "a.png", mask)
    scan = np.full((30, 40, 3), 90, np.uint8)
    write_picture(tmp_path / "scans" / "a.png", scan)
    inner = ndimage.binary_erosion(mask > 0, np.ones((3, 3)), iterations=2)
    assert colorize(tmp_path, tmp_path / "masks", over=tmp_path / "scans", contours=2) == 0
    wanted = np.where(((mask > 0) & ~inner)[..., None], np.array(COLORS[3], np.uint8), scan)
    assert np.array_equal(pixels_of(tmp_path / "out" / "a.png"), wanted)
    assert colorize(tmp_path, tmp_path / "masks", contours=2, classes=("pond",), out=tmp_path / "alone") == 0
    found = pixels_of(tmp_path / "alone" / "a.png")
    assert np.array_equal(found[..., 3] > 0, (mask > 0) & ~inner)


def test_only_some_classes(tmp_path: Path, mask: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    for wanted in (("1",), ("Straße",)):
        assert colorize(tmp_path, tmp_path / "masks", classes=wanted, overwrite=True) == 0
        found = pixels_of(tmp_path / "out" / "a.png")
        assert np.array_equal(found[..., 3] > 0, mask == 1)
    assert colorize(tmp_path, tmp_path / "masks", classes=("2", "lake"), overwrite=True) == 1
    assert "a.png: has no class 2, lake; expected of 0 background, 1 Straße, 3 pond" in capsys.readouterr().err


def test_where_colours_come_from(tmp_path: Path, table: Path) -> None:
    """The palette that is given, what the mask says itself, the table beside it, its palette, made-up ones."""
    mask = np.array([[0, 1, 3]], np.uint8)
    write_picture(tmp_path / "masks" / "a.png", mask)
    classes = ClassTable((ClassEntry(0, "a", (1, 1, 1)), ClassEntry(1, "b", (2, 2, 2)), ClassEntry(3, "c", (3, 3, 3))))
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    assert [entry.name for entry in find_palette(str(tmp_path / "w.safetensors")).entries] == ["dark", "light"]
    (tmp_path / "p.gpl").write_text(
        "GIMP Palette\nName: x\n#\n  9   9   9\tUntitled\n  8 8 8 eight\n7 7 7\n6 6 6 six\n"
    )
    assert [(e.index, e.name, e.color[0]) for e in find_palette(str(tmp_path / "p.gpl")).entries] == [
        (0, "class 0", 9), (1, "eight", 8), (2, "class 2", 7), (3, "six", 6)]  # fmt: skip

    def colors(name: str, **more: object) -> list[tuple[int, ...]]:
        assert colorize(tmp_path, tmp_path / "masks" / name, overwrite=True, **more) == 0
        return [tuple(map(int, color)) for color in pixels_of(tmp_path / "out" / name)[0]]

    assert colors("a.png", palette=str(tmp_path / "p.gpl")) == [(9, 9, 9), (8, 8, 8), (6, 6, 6)]
    assert colors("a.png", palette="okabe-ito") == [OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[3]]
    assert colors("a.png") == list(COLORS.values())
    with Image.fromarray(mask, "P") as picture:
        picture.putpalette([5, 5, 5, 6, 6, 6, 0, 0, 0, 7, 7, 7])
        picture.save(tmp_path / "masks" / "p.png")
    table.unlink()
    assert colors("p.png") == [(5, 5, 5), (6, 6, 6), (7, 7, 7)]
    assert colors("a.png") == [OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[3]]
    write_picture(tmp_path / "masks" / "bw.png", np.array([[0, 255, 0]], np.uint8))
    assert colors("bw.png") == [(0, 0, 0), (230, 159, 0), (0, 0, 0)]
    with pytest.raises(UsageError, match="no palette 'pascal', and no such file; expected a file, or voc, "):
        find_palette("pascal")
    named = tmp_path / "named.json"
    named.write_text(json.dumps(classes.to_json()))
    assert colors("a.png", palette=str(named)) == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]


def test_numbers_of_objects_have_colours_that_repeat(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 254], [255, 508, 65_535]], np.uint16)
    tifffile.imwrite(tmp_path / "n.tif", numbers)
    assert colorize(tmp_path, tmp_path / "n.tif", legend="file") == 0
    found = tifffile.imread(tmp_path / "out" / "n.tif")
    assert found[0, 0, 3] == 0
    assert (found[..., 3].ravel()[1:] == 255).all()
    assert np.array_equal(found[0, 1], found[1, 0])  # 1 and 255
    assert np.array_equal(found[0, 2], found[1, 1])  # 254 and 508
    assert not np.array_equal(found[0, 1], found[0, 2])
    assert colorize(tmp_path, tmp_path / "n.tif", palette_only=True, overwrite=True) == 1
    small = np.array([[0, 1, 3]], np.int32)
    tifffile.imwrite(tmp_path / "s.tif", small)
    assert colorize(tmp_path, tmp_path / "s.tif") == 0
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "s.tif")[0, :, :3], [OKABE_ITO[n] for n in (0, 1, 3)])


def test_legends_name_what_is_there(tmp_path: Path, table: Path) -> None:
    mask = np.zeros((400, 500), np.uint8)
    mask[:100] = 1
    mask[:, :100] = 255
    write_picture(tmp_path / "masks" / "a.png", mask)
    plain, drawn = tmp_path / "plain", tmp_path / "drawn"
    assert colorize(tmp_path, tmp_path / "masks", out=plain, legend="file") == 0
    assert colorize(tmp_path, tmp_path / "masks", out=drawn, legend="picture") == 0
    box, picture = pixels_of(plain / "a.legend.png"), pixels_of(drawn / "a.png")
    assert sorted(path.name for path in drawn.glob("*.png")) == ["a.png"]
    without, margin = pixels_of(plain / "a.png"), 5
    corner = (slice(-margin - box.shape[0], -margin), slice(-margin - box.shape[1], -margin))
    changed = (picture != without).any(2)
    assert changed[corner].mean() > 0.9
    changed[corner] = False
    assert not changed.any()
    # A swatch for background and one for the street, none for the pond, which is nowhere.
    opaque = [tuple(color) for color in box.reshape(-1, 4)[box.reshape(-1, 4)[:, 3] == 255]]
    assert (10, 20, 30, 255) in opaque
    assert (0, 0, 0, 255) in opaque
    assert (200, 0, 100, 255) not in opaque
    # Its shares: 100 of 400 rows, of what has a label.
    line = next(row for row in range(len(box)) if (box[row] == (10, 20, 30, 255)).all(1).any())
    ink = 255 - box[line : line + 14, :, 0].astype(int)
    for text in ("25.0 %",):
        letters = written(text, 11)
        scores = cv2.matchTemplate(ink.astype(np.uint8), letters[2:-2], cv2.TM_CCOEFF_NORMED)
        assert scores.max() > 0.9
    tiny = write_picture(tmp_path / "tiny" / "t.png", np.zeros((9, 9), np.uint8))
    assert colorize(tmp_path, tiny, legend="picture") == 0
    assert (tmp_path / "out" / "t.legend.png").exists()


def test_letters_beyond_ascii_are_drawn() -> None:
    assert not np.array_equal(written("Straße", 20), written("Strase", 20))
    assert written("$x_1$", 20).shape[1] > written("x1", 20).shape[1] * 1.5  # no formulas
    assert written("", 20).max() == 0


def test_scale_bars_have_the_length_they_say(tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.ones((500, 1000), np.uint8)
    cases = [
        ("utm", {}, 200),  # 0.5 m a pixel on the map, 0.50014 on the ground: 100 m
        ("feet", {"crs": "EPSG:2263", "transform": from_origin(980_000, 200_000, 1, 1)}, None),
        ("degrees", {"crs": "EPSG:4326", "transform": from_origin(10, 60.025, 1e-4, 1e-4)}, None),
        ("mercator", {"crs": "EPSG:3857", "transform": from_origin(1_113_194, 8_399_737, 10, 10)}, None),
    ]
    for name, more, length in cases:
        path = write_tif(tmp_path / "masks" / f"{name}.tif", mask, **more)
        assert colorize(tmp_path, path, scale_bar=True) == 0
        with rasterio.open(tmp_path / "out" / f"{name}.tif") as file:
            pixels = file.read(1)
        ink = (pixels == 20).sum(1)
        bar = int(ink.max())
        assert ink.argmax() > 450  # at the foot
        assert (pixels[:, 300:] == 10).all()
        if length is not None:
            assert bar == length
        else:
            real = {"feet": 0.3048, "degrees": 1e-4 * 111_195 * np.cos(np.radians(60)), "mercator": 10 * 0.5}[name]
            # Near a round length the ground decides, which is no sphere.
            near = {round_length(real * 1000 * 0.2 * factor) for factor in (0.99, 1.01)}
            assert any(bar * real == pytest.approx(metres, rel=0.02) for metres in near)
    write_picture(tmp_path / "masks" / "none.png", mask)
    assert run(ColorizeOptions((tmp_path / "masks" / "none.png",), tmp_path / "out", scale_bar=True), Console()) == 0
    assert "the size of its pixels is not known; no scale bar" in capsys.readouterr().err
    tifffile.imwrite(tmp_path / "cells.ome.tif", mask, ome=True, metadata={"axes": "YX", "PhysicalSizeX": 0.25,
                     "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"})  # fmt: skip
    assert colorize(tmp_path, tmp_path / "cells.ome.tif", scale_bar=True) == 0
    found = tifffile.imread(tmp_path / "out" / "cells.ome.tif")
    assert (found[..., 0] == 20).sum(1).max() == 200  # 50 µm
    assert Grid(10, 10).middle_pixel_m() is None


def test_lengths_are_round_and_written_short() -> None:
    assert [round_length(most) for most in (1, 1.99, 2, 4.9, 5, 9.9, 0.07, 0.00002)] == [
        1, 1, 2, 2, 5, 5, 0.05, pytest.approx(2e-5)]  # fmt: skip
    lengths = (5000, 1000, 500, 1, 0.5, 0.02, 0.005, 5e-5, 2e-7)
    assert list(map(length_text, lengths)) == [
        "5 km", "1 km", "500 m", "1 m", "50 cm", "2 cm", "5 mm", "50 µm", "200 nm"]  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 20), st.integers(0, 20), st.sampled_from([3, 4]), st.integers(0, 99))
def test_stamps_are_the_same_in_strips(strip: int, row: int, col: int, bands: int, seed: int) -> None:
    """As the formula of Porter and Duff (1984) for over, pixel by pixel."""
    rng = np.random.default_rng(seed)
    picture, top = rng.integers(0, 256, (bands, 30, 30), np.uint8), rng.integers(0, 256, (4, 8, 9), np.uint8)
    strips = [picture[:, first : first + strip].copy() for first in range(0, 30, strip)]
    for n, part in enumerate(strips):
        stamp(n * strip, part, [Stamp(row, col, top)])
    wanted = picture.astype(float)
    place = wanted[:, row : row + 8, col : col + 9]
    over, under = top[3] / 255.0, (place[3] / 255.0 if bands == 4 else 1.0) * (1 - top[3] / 255.0)
    place[:3] = (top[:3] * over + place[:3] * under) / np.maximum(over + under, 1e-6)
    if bands == 4:
        place[3] = 255 * (over + under)
    assert np.abs(np.concatenate(strips, 1) - wanted).max() <= 0.51


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(0, 99))
def test_agreement_by_hand(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, found = rng.integers(-2, classes, (2, 50, 4)).astype(np.int16)
    positive = set(rng.choice(classes, rng.integers(1, classes + 1), replace=False).tolist())
    kinds = agreement(true, found, positive)
    for t, p, kind in zip(true.ravel().tolist(), found.ravel().tolist(), kinds.ravel().tolist(), strict=True):
        if min(t, p) < 0:
            wanted = 5
        elif t in positive:
            wanted = (1 if t == p else 4) if p in positive else 3
        else:
            wanted = 2 if p in positive else 0
        assert kind == wanted


def test_mask_truth_and_agreement_side_by_side(tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = np.array([[0, 1, 1, 3, 0, 1]], np.uint8).repeat(40, 0).repeat(10, 1)
    true = np.array([[0, 1, 0, 1, 3, 255]], np.uint8).repeat(40, 0).repeat(10, 1)
    write_picture(tmp_path / "masks" / "a.png", found)
    write_picture(tmp_path / "truth" / "a_gt.png", true)
    assert colorize(tmp_path, tmp_path / "masks", compare=tmp_path / "truth", legend="file") == 0
    picture = pixels_of(tmp_path / "out" / "a.png")
    header, gap = picture.shape[0] - 40, (picture.shape[1] - 180) // 2
    panels = [picture[header:, n * (60 + gap) : n * (60 + gap) + 60] for n in range(3)]
    assert np.array_equal(panels[0], expected(found))
    assert np.array_equal(panels[1], expected(true))
    kinds = [tuple(panels[2][0, 10 * n + 5]) for n in range(6)]
    green, red, blue, pink = (0, 158, 115, 255), (213, 94, 0, 255), (86, 180, 233, 255), (204, 121, 167, 255)
    assert kinds == [(40, 40, 40, 255), green, red, pink, blue, (0, 0, 0, 0)]
    assert (picture[:header, ..., 0] < 128).any()  # titles
    assert (tmp_path / "out" / "a.legend.png").exists()
    options = {"compare": tmp_path / "truth", "classes": ("1",), "out": tmp_path / "one"}
    assert colorize(tmp_path, tmp_path / "masks", **options) == 0
    picture = pixels_of(tmp_path / "one" / "a.png")
    one = [tuple(picture[header + 5, 2 * (60 + gap) + 10 * n + 5]) for n in range(6)]
    assert one == [(40, 40, 40, 255), green, red, blue, (40, 40, 40, 255), (0, 0, 0, 0)]
    scan = np.full((40, 60, 3), 100, np.uint8)
    write_picture(tmp_path / "scans" / "a.png", scan)
    options = {"compare": tmp_path / "truth", "over": tmp_path / "scans", "alpha": 1.0, "out": tmp_path / "over"}
    assert colorize(tmp_path, tmp_path / "masks", **options) == 0
    picture = pixels_of(tmp_path / "over" / "a.png")
    assert picture.shape[2] == 3
    assert [tuple(picture[header, 2 * (60 + gap) + 10 * n + 5]) for n in range(6)] == [
        (100, 100, 100), green[:3], red[:3], pink[:3], blue[:3], (100, 100, 100)]  # fmt: skip
    write_picture(tmp_path / "truth" / "a_gt.png", true[:, :50])
    assert colorize(tmp_path, tmp_path / "masks", compare=tmp_path / "truth", overwrite=True) == 1
    assert "60 x 40 pixels, " in capsys.readouterr().err
    write_picture(tmp_path / "truth" / "a_gt.png", np.full((40, 60), 9, np.uint8))
    assert colorize(tmp_path, tmp_path / "masks", compare=tmp_path / "truth", overwrite=True) == 1
    assert "a_gt.png: values that are no class: 9" in capsys.readouterr().err


def test_each_compared_mask_is_read_by_its_own_names(tmp_path: Path) -> None:
    """Programs number classes as they like; segcli's masks say which is which."""
    entries = {name: ClassEntry(0, name, (9 * n, 0, 0)) for n, name in enumerate(("ground", "water", "road"))}
    truth = np.full((40, 40), 1, np.uint8)
    for name, order in (("a", ("ground", "water", "road")), ("b", ("ground", "road", "water"))):
        table = ClassTable(tuple(replace(entries[kind], index=n) for n, kind in enumerate(order)), None)
        with create(tmp_path / "masks" / f"{name}.tif", Grid(40, 40), mask_layout(table)) as sink:
            sink.write(0, np.full((40, 40), order.index("water"), np.uint8))
        write_picture(tmp_path / "truth" / f"{name}.png", truth)
    classes = [{"index": n, "name": name} for n, name in enumerate(entries)]
    (tmp_path / "truth" / "classes.json").write_text(json.dumps({"classes": classes}))
    assert colorize(tmp_path, tmp_path / "masks", compare=tmp_path / "truth") == 0
    for name in "ab":
        assert tuple(pixels_of(tmp_path / "out" / f"{name}.png")[-5, -5][:3]) == (0, 158, 115), name


def test_a_palette_of_colours_is_no_table_of_what_is_compared(tmp_path: Path) -> None:
    """Classes, and what stands for no label, are those beside the truth; colours are the palette's."""
    classes = [{"index": 1, "name": "water"}, {"index": 2, "name": "road"}]
    found, true = (np.array([row], np.uint8).repeat(40, 0).repeat(10, 1) for row in ([0, 1, 2, 1], [0, 1, 2, 0]))
    write_picture(tmp_path / "masks" / "a.png", found)
    write_picture(tmp_path / "truth" / "a.png", true)
    (tmp_path / "truth" / "classes.json").write_text(json.dumps({"classes": classes, "ignore": 0}))
    kinds = []
    for palette in (None, "okabe-ito", "tab20"):
        options = {"compare": tmp_path / "truth", "palette": palette, "out": tmp_path / str(palette)}
        assert colorize(tmp_path, tmp_path / "masks", **options) == 0
        picture = pixels_of(tmp_path / str(palette) / "a.png")
        kinds.append([tuple(picture[-5, 10 * n - 5 - 40 + picture.shape[1]]) for n in range(1, 5)])
    assert kinds[0] == kinds[1] == kinds[2]
    assert (kinds[0][0][3], kinds[0][3][3]) == (0, 0)
    color = tuple(pixels_of(tmp_path / "okabe-ito" / "a.png")[-5, 15][:3])
    assert color == OKABE_ITO[1]


def test_masks_of_one_stem_have_one_partner(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif"):
        write_picture(tmp_path / "masks" / name, np.ones((9, 9), np.uint8))
    write_picture(tmp_path / "scans" / "a.jpg", np.zeros((9, 9, 3), np.uint8))
    assert colorize(tmp_path, tmp_path / "masks", over=tmp_path / "scans") == 0
    assert {path.name for path in (tmp_path / "out").glob("a.*")} == {"a.png", "a.tif"}


def test_black_and_white_truth_is_compared_by_meaning(tmp_path: Path) -> None:
    write_picture(tmp_path / "masks" / "a.png", np.array([[0, 1, 1, 0]], np.uint8).repeat(30, 0).repeat(30, 1))
    write_picture(tmp_path / "truth" / "a.png", np.array([[0, 255, 0, 255]], np.uint8).repeat(30, 0).repeat(30, 1))
    assert colorize(tmp_path, tmp_path / "masks", compare=tmp_path / "truth") == 0
    picture = pixels_of(tmp_path / "out" / "a.png")
    kinds = [tuple(picture[-5, -120 + 30 * n + 9][:3]) for n in range(4)]
    assert kinds == [(40, 40, 40), (0, 158, 115), (213, 94, 0), (86, 180, 233)]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["voc", "cityscapes", "camvid", "tab20", "glasbey"]), st.integers(0, 999))
def test_there_and_back_again(name: str, seed: int) -> None:
    table = KNOWN[name]()
    values = table.indices
    mask = np.random.default_rng(seed).choice(values, (20, 30))
    colors = look_up(mask, color_table(table))
    index = ColorIndex(table)
    assert np.array_equal(index.indices(colors[:3]), mask)
    assert not index.foreign


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_back_to_indices_from_files(tmp_path: Path, mask: np.ndarray, suffix: str) -> None:
    source = tmp_path / "masks" / "a.png"
    if suffix == ".tif":
        source = write_tif(tmp_path / "masks" / "b.tif", mask)
    assert colorize(tmp_path, source) == 0
    pictures = tmp_path / "out" / source.name
    assert (
        colorize(tmp_path, pictures, to_index=True, palette=str(tmp_path / "classes.json"), out=tmp_path / "back") == 0
    )
    with Source(tmp_path / "back" / source.name, "mask") as back:
        assert back.grid.is_georeferenced == (suffix == ".tif")
        assert np.array_equal(back.window(0, 0, 37, 53)[0], mask)  # with 255 where it is transparent
    found = embedded_table(tmp_path / "back" / source.name)
    assert found is not None
    assert found.names == ("background", "Straße", "pond")


def test_colours_in_no_class_are_listed(tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = np.zeros((10, 12, 3), np.uint8)
    picture[:, 4:8] = (10, 20, 30)
    picture[:2] = (10, 22, 30)
    picture[0, :3] = (250, 250, 250)
    write_picture(tmp_path / "masks" / "a.png", picture)
    assert colorize(tmp_path, tmp_path / "masks", to_index=True) == 1
    said = capsys.readouterr().err
    assert "a.png: colours in no class: #0A161E (21 pixels), #FAFAFA (3 pixels); expected those of the palette" in said
    assert not (tmp_path / "out" / "a.png").exists()
    assert colorize(tmp_path, tmp_path / "masks", to_index=True, tolerance=2.0) == 1
    assert "colours in no class: #FAFAFA (3 pixels)" in capsys.readouterr().err
    picture[0, :3] = 0
    write_picture(tmp_path / "masks" / "a.png", picture)
    assert colorize(tmp_path, tmp_path / "masks", to_index=True, tolerance=1.9) == 1
    assert colorize(tmp_path, tmp_path / "masks", to_index=True, tolerance=2.0) == 0
    found = pixels_of(tmp_path / "out" / "a.png")
    assert np.array_equal(found == 1, (picture[..., 0] == 10))


def test_a_jpeg_of_a_mask_comes_back_by_nearest_colours(tmp_path: Path, table: Path) -> None:
    mask = np.zeros((64, 96), np.uint8)
    mask[:, 32:64], mask[:, 64:] = 1, 3
    picture = expected(mask)[..., :3]
    cv2.imwrite(str(tmp_path / "a.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert colorize(tmp_path, tmp_path / "a.jpg", to_index=True) == 1
    assert colorize(tmp_path, tmp_path / "a.jpg", to_index=True, tolerance=60) == 0
    assert (pixels_of(tmp_path / "out" / "a.png") == mask).mean() > 0.99


def test_what_is_no_mask_in_colours_is_refused(tmp_path: Path, table: Path, rng: np.random.Generator,
                                               capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    write_picture(tmp_path / "p" / "photo.png", rng.integers(0, 256, (600, 600, 3), np.uint8))
    write_picture(tmp_path / "p" / "grey.png", np.zeros((5, 5), np.uint8))
    assert colorize(tmp_path, tmp_path / "p", to_index=True) == 1
    said = capsys.readouterr().err
    assert "photo.png: over 100000 colours in no class" in said
    assert "grey.png: 1 band of uint8; expected red, green and blue" in said
    with pytest.raises(UsageError, match="--palette ade20k: road and skyscraper are both #8C8C8C"):
        colorize(tmp_path, tmp_path / "p" / "photo.png", to_index=True, palette="ade20k")
    table.unlink()
    assert colorize(tmp_path, tmp_path / "p" / "photo.png", to_index=True) == 1
    assert "nothing says which colour is which class; give --palette" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"to_index": True, "over": Path("x")}, "--over: with --to-index"),
        ({"palette_only": True, "contours": 2}, "--contours: with --palette-only"),
        ({"compare": Path("x"), "scale_bar": True}, "--scale-bar: with --compare"),
        ({"compare": Path("x"), "legend": "picture"}, "--legend picture: with --compare; expected --legend file"),
        ({"tolerance": 3.0}, "--tolerance: without --to-index"),
        ({"bands": (1,)}, "--bands: without --over"),
        ({"bands": (1, 2), "over": Path("x")}, "--bands: 2 bands; expected one, or three"),
    ],
)
def test_options_that_exclude_each_other(tmp_path: Path, more: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        colorize(tmp_path, tmp_path, **more)


def test_known_palettes_are_those_that_are_published() -> None:
    voc = KNOWN["voc"]()
    assert (voc.entries[15].name, voc.entries[15].color, voc.entries[20].color) == (
        "person",
        (192, 128, 128),
        (0, 64, 128),
    )
    assert [KNOWN["cityscapes"]().entries[n].color for n in (0, 13, 18)] == [(128, 64, 128), (0, 0, 142), (119, 11, 32)]
    ade = KNOWN["ade20k"]()
    assert [(e.index, e.name, e.color) for e in (ade.entries[0], ade.entries[-1])] == [
        (1, "wall", (120, 120, 120)), (150, "flag", (92, 0, 255))]  # fmt: skip
    assert [len(KNOWN[name]().entries) for name in KNOWN] == [21, 19, 11, 150, 8, 20, 254]
    import matplotlib as mpl

    tableau = [tuple(round(255 * part) for part in color) for color in mpl.colormaps["tab20"].colors]
    assert [entry.color for entry in KNOWN["tab20"]().entries] == tableau
    if (SHARED / "data" / "camvid").exists():
        ours, given = KNOWN["camvid"](), ClassTable.read(SHARED / "data" / "camvid" / "classes.json")
        assert [(e.index, e.color) for e in ours.entries] == [(e.index, e.color) for e in given.entries]


def test_made_up_colours_differ_to_all_eyes() -> None:
    """CIELAB distance to usual eyes and to those without one kind of cones; matplotlib's tab20 falls to 1.2."""

    def least(count: int) -> float:
        seen = lab_seen(np.array(distinct_colors(count)))
        apart = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1)
        return float(apart[:, ~np.eye(count, dtype=bool)].min())

    assert [least(count) > bar for count, bar in ((8, 16), (20, 16), (32, 12), (64, 8), (254, 3.9))] == [True] * 5
    assert distinct_colors(30)[:20] == distinct_colors(20)
    # CIELAB itself, by values of its authors' colour checker: red, and white.
    lab = lab_seen(np.array([[255, 0, 0], [255, 255, 255]]))[0]
    assert np.abs(lab - [[53.24, 80.09, 67.20], [100, 0, 0]]).max() < 0.1


def test_a_style_for_qgis_is_read_back(tmp_path: Path) -> None:
    table = ClassTable((ClassEntry(1, 'a "b" <c> & d', (1, 2, 3)), ClassEntry(9, "über", (255, 0, 10))))
    (tmp_path / "a.qml").write_text(to_qml(table), encoding="utf-8")
    assert read_classes(tmp_path / "a.qml").entries == table.entries


def test_the_program(segcli: Program, tmp_path: Path, mask: np.ndarray) -> None:
    (tmp_path / "masks" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n0000")
    result = segcli("colorize", "masks", "--out", "pictures", "--legend", "file", "--classes", "1,pond")
    assert result.returncode == 1
    assert result.stdout.split() == ["pictures/a.png"]
    assert "broken.png" in result.stderr
    assert result.stderr.splitlines()[-1] == "done 1  up to date 0  failed 1"
    lines = (tmp_path / "pictures" / "segcli.jsonl").read_text().splitlines()
    assert [name for line in lines for name in json.loads(line).get("outputs", ())] == ["a.png", "a.legend.png"]
    (tmp_path / "pictures" / "a.legend.png").write_bytes(b"mine")
    result = segcli("colorize", "masks/a.png", "--out", "pictures", "--legend", "file")
    assert (result.returncode, "is not as segcli wrote it" in result.stderr) == (1, True)
    result = segcli("colorize", "masks", "--out", "p", "--palette", "nowhere")
    assert (result.returncode, "no palette 'nowhere'" in result.stderr) == (2, True)
    result = segcli("colorize", "none", "--out", "p")
    assert (result.returncode, "none: no such file" in result.stderr) == (1, True)


def test_a_full_disk_leaves_nothing(tmp_path: Path, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture is there and its legend cannot be written: neither stays."""
    from segcli.raster.canvas import Canvas

    whole = Canvas.png

    def full(self: Canvas) -> bytes:
        if self._pixels.shape[0] != 37:
            raise OSError(28, "No space left on device")
        return whole(self)

    monkeypatch.setattr(Canvas, "png", full)
    with pytest.raises(NothingDoneError, match=r"a\.legend\.png: cannot be written: No space left"):
        colorize(tmp_path, tmp_path / "masks", legend="file")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["segcli.jsonl"]
