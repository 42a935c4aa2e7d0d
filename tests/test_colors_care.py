"""Class tables and masks that were drawn in the wrong colours once, or not at all."""

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from helpers import write_picture
from PIL import Image
from rasterio.transform import from_origin

from segcli.classes import ClassTable
from segcli.colorize import run
from segcli.colors import OKABE_ITO, repeated
from segcli.console import Console
from segcli.errors import UsageError
from segcli.options import ColorizeOptions
from segcli.palettes import read_classes
from segcli.raster.labels import embedded_table

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def colorize(*inputs: Path | str, out: Path, **more: Any) -> int:
    return run(ColorizeOptions(inputs, out, **more), Console())


def read(path: Path, text: str) -> ClassTable:
    path.write_text(text)
    return read_classes(path)


@pytest.mark.parametrize("value", [-1, 256, -9999])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "index,name,color\n{},ignore,#000000\n0,ground,#111111\n"),
        ("a.clr", "{} 0 0 0 ignore\n0 1 1 1 ground\n"),
        ("a.qml", '<qgis><paletteEntry value="{}" color="#000000" label="void"/>'
                  '<paletteEntry value="0" color="#111111" label="ground"/></qgis>'),
    ],
)  # fmt: skip
def test_no_label_is_a_value_that_masks_can_hold(tmp_path: Path, name: str, text: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{value} stands for no label, and masks hold 0 to 255"):
        read(tmp_path / name, text.format(value))


def test_numbers_of_classes_are_not_those_of_rows(tmp_path: Path) -> None:
    for column in ("id", "code", "value"):
        table = read(tmp_path / "a.csv", f"{column},name,red,green,blue\n1,water,0,0,9\n3,urban,9,0,0\n")
        assert [(e.index, e.name, e.color) for e in table.entries] == [(1, "water", (0, 0, 9)), (3, "urban", (9, 0, 0))]
    assert [e.index for e in read(tmp_path / "a.csv", "name,color\nwater,#000009\nurban,#090000\n").entries] == [0, 1]
    with pytest.raises(UsageError, match="the columns class_no, name; expected the columns index, name"):
        read(tmp_path / "a.csv", "class_no,name\n1,water\n2,forest\n")
    with pytest.raises(UsageError, match="not a class table"):
        read(tmp_path / "a.csv", "index,name\n,water\n2,forest\n")


def test_names_with_quotes_and_commas_come_back(tmp_path: Path) -> None:
    names = ['water "deep"', "a, b", 'c"", d; e', "plain"]
    for delimiter in ",;\t":
        with (tmp_path / "a.csv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerows([["index", "name", "color"], *([n, name, "#000000"] for n, name in enumerate(names))])
        assert list(read_classes(tmp_path / "a.csv").names) == names


def test_names_in_colour_maps_keep_commas_and_numbers(tmp_path: Path) -> None:
    qgis = "# QGIS Generated Color Map Export File\nINTERPOLATION:EXACT\n"
    assert read(tmp_path / "a.txt", f"{qgis}4,51,160,44,255,Forest, mixed\n5,1,2,3,255,Water\n").names == (
        "Forest, mixed", "Water")  # fmt: skip
    assert read(tmp_path / "a.clr", "1 0 0 0 10 m\n2 9 9 9 deep\n").names == ("10 m", "deep")
    assert read(tmp_path / "a.clr", "1 0 0 0 255 shallow\n2 9 9 9 128 very deep\n").names == ("shallow", "very deep")
    assert read(tmp_path / "a.clr", "1 0 0 0\n2 9 9 9\n").names == ("class 1", "class 2")


def test_a_class_255_needs_no_word_on_what_is_no_label(tmp_path: Path) -> None:
    classes = [{"index": 0, "name": "ground"}, {"index": 255, "name": "building"}]
    (tmp_path / "a.json").write_text(json.dumps({"classes": classes}))
    assert read_classes(tmp_path / "a.json") == read(tmp_path / "a.csv", "index,name\n0,ground\n255,building\n")


def test_a_palette_of_colours_leaves_the_mask_what_is_no_label(tmp_path: Path) -> None:
    write_picture(tmp_path / "m" / "a.png", np.array([[0, 1], [2, 1]], np.uint8))
    table = {"classes": [{"index": 1, "name": "water"}, {"index": 2, "name": "road"}], "ignore": 0}
    (tmp_path / "m" / "classes.json").write_text(json.dumps(table))
    assert colorize(tmp_path / "m", out=tmp_path / "p", palette="okabe-ito") == 0
    alpha = np.asarray(Image.open(tmp_path / "p" / "a.png"))[..., 3]
    assert np.array_equal(alpha, [[0, 255], [255, 255]])
    assert colorize(tmp_path / "m", out=tmp_path / "q", palette="glasbey", palette_only=True) == 0
    with Image.open(tmp_path / "q" / "a.png") as indexed:
        assert np.array_equal(np.asarray(indexed), [[0, 1], [2, 1]])
    found = embedded_table(tmp_path / "q" / "a.png")
    assert found is not None
    assert (found.names, found.ignore) == (("water", "road"), 0)


def write_mask(path: Path, pixels: np.ndarray, x: float = 0.0, **tags: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", count=1, height=pixels.shape[0], width=pixels.shape[1],
                       dtype=pixels.dtype, crs="EPSG:32633", transform=from_origin(x, 0, 1, 1)) as file:  # fmt: skip
        file.write(pixels, 1)
        file.update_tags(**tags)
    return path


def test_a_colour_that_is_made_up_is_nobody_else_s(tmp_path: Path) -> None:
    blue = "#{:02X}{:02X}{:02X}".format(*OKABE_ITO[2])
    entries = [{"index": 0, "name": "a", "color": "#000000"}, {"index": 1, "name": "b", "color": blue}]
    table = ClassTable.from_json({"classes": [*entries, {"index": 2, "name": "c"}, {"index": 3, "name": "d"}]})
    assert len({entry.color for entry in table.entries}) == 4
    assert table.entries[3].color == OKABE_ITO[3]
    (tmp_path / "t.csv").write_text("index,name,color\n0,a,#E69F00\n1,b,\n")
    assert len({entry.color for entry in read_classes(tmp_path / "t.csv").entries}) == 2


@pytest.mark.parametrize("option", ["compare", "over"])
def test_what_lies_elsewhere_is_not_drawn_together(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.eye(64, dtype=np.uint8)
    write_mask(tmp_path / "m" / "a.tif", pixels)
    for name, x in (("here", 0.0), ("there", 100.0)):
        write_mask(tmp_path / name / "a.tif", pixels, x)
    write_picture(tmp_path / "nowhere" / "a.png", pixels)
    for name, code in (("here", 0), ("nowhere", 0), ("there", 1)):
        assert colorize(tmp_path / "m", out=tmp_path / f"p_{name}", **{option: tmp_path / name}) == code, name
    said = capsys.readouterr().err
    assert ("on another grid than" if option == "compare" else "does not lie where") in said
    assert not (tmp_path / "p_there" / "a.tif").exists()


def test_a_mask_in_an_archive_says_its_classes_itself(tmp_path: Path) -> None:
    pixels = np.array([[0, 1], [1, 2]], np.uint8)
    path = write_mask(tmp_path / "a.tif", pixels, CLASS_0="ground", CLASS_1="road", CLASS_2="tree")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(path, "a.tif")
    assert colorize(path, out=tmp_path / "p", classes=("road",)) == 0
    assert colorize(f"/vsizip/{tmp_path}/z.zip/a.tif", out=tmp_path / "q", classes=("road",)) == 0
    with rasterio.open(tmp_path / "p" / "a.tif") as one, rasterio.open(tmp_path / "q" / "a.tif") as other:
        assert np.array_equal(one.read(), other.read())


def test_classes_are_not_chosen_among_numbers_of_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mask(tmp_path / "a.tif", np.array([[0, 1, 255]], np.uint16))
    assert colorize(tmp_path / "a.tif", out=tmp_path / "p", classes=("1",)) == 1
    assert "taken for numbers of objects; --classes chooses among classes" in capsys.readouterr().err


def test_one_odd_mask_does_not_fail_those_of_black_and_white(tmp_path: Path) -> None:
    for name in "ab":
        write_picture(tmp_path / "m" / f"{name}.png", np.array([[0, 255]], np.uint8))
    empty = Image.fromarray(np.zeros((2, 2), np.uint8), "P")
    empty.putpalette([0, 0, 0])
    empty.save(tmp_path / "m" / "c.png", transparency=0)
    (tmp_path / "m" / "deep").mkdir()
    write_picture(tmp_path / "m" / "deep" / "d.png", np.array([[0, 255]], np.uint8))
    (tmp_path / "m" / "deep" / "classes.json").write_text("{broken")
    assert colorize(tmp_path / "m", out=tmp_path / "p", recursive=True) == 1  # d alone
    assert {path.name for path in (tmp_path / "p").rglob("*.png")} >= {"a.png", "b.png"}
    twice = write_mask(tmp_path / "t.tif", np.array([[0, 1]], np.uint8), CLASS_0="a", CLASS_1="a")
    assert embedded_table(twice) is None


def test_numbers_of_every_width_have_colours() -> None:
    for dtype in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64):
        info = np.iinfo(dtype)
        numbers = np.array([info.min, 0, 1, 100, info.max], dtype)
        expected = [0 if int(n) <= 0 else (int(n) - 1) % 254 + 1 for n in numbers.tolist()]
        assert repeated(numbers).tolist() == expected


def test_a_pixel_size_of_zero_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(
        tmp_path / "a.ome.tif", np.zeros((2, 40, 40), np.uint8), ome=True, photometric="minisblack",
        metadata={"axes": "ZYX", "PhysicalSizeX": 0.0, "PhysicalSizeY": 0.0},
    )  # fmt: skip
    assert colorize(tmp_path / "a.ome.tif", out=tmp_path / "p", scale_bar=True) == 0
    assert "the size of its pixels is not known; no scale bar" in capsys.readouterr().err


def test_overviews_have_the_colours_of_classes(tmp_path: Path, rng: np.random.Generator) -> None:
    write_mask(tmp_path / "a.tif", rng.integers(0, 4, (1100, 1100), np.uint8))
    assert colorize(tmp_path / "a.tif", out=tmp_path / "p", palette="okabe-ito") == 0
    with rasterio.open(tmp_path / "p" / "a.tif") as file:
        whole = set(map(tuple, file.read().reshape(4, -1).T.tolist()))
        assert file.overviews(1)
    with rasterio.open(tmp_path / "p" / "a.tif", overview_level=0) as file:
        assert set(map(tuple, file.read().reshape(4, -1).T.tolist())) <= whole
