"""Class tables as other programs write them."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import write_picture
from PIL import Image

from segcli.colorize import run as colorize
from segcli.console import Console
from segcli.errors import UsageError
from segcli.options import ColorizeOptions
from segcli.palettes import read_classes

QML = """<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.34.1"><pipe><rasterrenderer type="paletted" band="1"><colorPalette>
<paletteEntry value="1" color="#e31a1c" label="roof" alpha="255"/>
<paletteEntry value="4" color="#33a02c" label="tree" alpha="255"/>
<paletteEntry value="0" color="#808080" label="no data" alpha="0"/>
</colorPalette></rasterrenderer></pipe></qgis>"""
CLR = "# by QGIS\nINTERPOLATION:EXACT\n1 227 26 28 255 roof\n4,51,160,44,255,tree\n"
CSV = "\ufeffName;Index;R;G;B\nroof;1;227;26;28\ntree;4;51;160;44\n"


@pytest.mark.parametrize(("name", "text", "ignore"), [("a.qml", QML, 0), ("a.clr", CLR, 255), ("a.csv", CSV, 255)])
def test_tables_of_other_programs(tmp_path: Path, name: str, text: str, ignore: int) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    table = read_classes(tmp_path / name)
    assert [(entry.index, entry.name, entry.color) for entry in table.entries] == [
        (1, "roof", (227, 26, 28)), (4, "tree", (51, 160, 44)),
    ]  # fmt: skip
    assert table.ignore == ignore


def test_whole_floats_are_indices(tmp_path: Path) -> None:
    """As pandas writes a column of numbers in which a cell was empty once."""
    (tmp_path / "a.csv").write_text("index,name\n0.0,ground\n1.0,roof\n")
    assert read_classes(tmp_path / "a.csv").indices.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", ""),
        ("a.csv", "index,name\n0.5,x\n"),
        ("a.csv", "index,name\n111,x\n311,y\n"),
        ("a.csv", "index,name\n"),
        ("a.csv", "index,label\n1,x\n"),
        ("a.csv", "index,name,color\n1,x,red\n"),
        ("a.csv", "index,name\n1,x\n1,y\n"),
        ("a.clr", "1 2\n"),
        ("a.clr", "1 300 0 0\n"),
        ("a.qml", "<qgis>"),
        ("a.qml", "<qgis/>"),
        ("a.qml", '<!DOCTYPE x [<!ENTITY a "b">]><qgis/>'),
        ("a.json", "[]"),
    ],
)
def test_what_is_no_table_is_said(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=rf"{name}: not a class table"):
        read_classes(tmp_path / name)
    with pytest.raises(UsageError, match="No such file"):
        read_classes(tmp_path / "none.csv")


def test_one_value_stands_for_no_label(tmp_path: Path) -> None:
    """Of two names for it one would be a class that is in no list; 255 is no label anyway."""
    path = tmp_path / "a.csv"
    path.write_text("index,name\n0,unlabeled\n1,void\n2,road\n")
    with pytest.raises(UsageError, match=r"0 unlabeled and 1 void both stand for no label.*train --ignore leaves out"):
        read_classes(path)
    path.write_text("index,name\n255,void\n0,unlabeled\n2,road\n")
    table = read_classes(path)
    assert (table.ignore, table.names) == (0, ("road",))
    assert table.positions()[[0, 1, 2, 255]].tolist() == [-1, -2, 0, -1]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "index,name,r,g,b\n1,a,0.89,0.10,0.11\n", "0.89 where a whole number is expected"),
        ("a.clr", "2.7 0 255 0\n", "2.7 where a whole number is expected"),
        ("a.qml", '<qgis><item value="inf" label="a" color="#ff0000"/></qgis>', "inf where a whole number is expected"),
        ("a.csv", "index,name\n1,roof, flat\n", "more cells than columns:  flat; a name with ',' in it wants quotes"),
    ],
)
def test_numbers_that_are_cut_off_elsewhere_are_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=said):
        read_classes(tmp_path / name)


def test_tables_as_spreadsheets_write_them(tmp_path: Path) -> None:
    """With an empty row at the end, and a name of two lines."""
    (tmp_path / "a.csv").write_text('index;name\r\n1;"roof\nflat"\r\n2;road\r\n;\r\n', newline="")
    assert read_classes(tmp_path / "a.csv").names == ("roof\nflat", "road")


@pytest.mark.parametrize("ending", [".json", ".csv"])
def test_no_class_has_the_colour_of_what_has_no_label(tmp_path: Path, ending: str) -> None:
    """Black, as many have it, is also the first of the colours that are made up."""
    path = tmp_path / f"a{ending}"
    table = {"classes": [{"index": 0, "name": "background"}, {"index": 1, "name": "x", "color": "#FF0000"}],
             "ignore": 9, "ignore_color": "#000000"}  # fmt: skip
    path.write_text(json.dumps(table) if ending == ".json" else
                    "index,name,color\n0,background,\n1,x,#FF0000\n9,void,#000000\n")  # fmt: skip
    found = read_classes(path)
    assert (found.ignore, found.ignore_color) == (9, (0, 0, 0))
    assert (0, 0, 0) not in [entry.color for entry in found.entries]
    picture = np.array([[(0, 0, 0), (255, 0, 0)]], np.uint8).repeat(4, 0).repeat(4, 1)
    write_picture(tmp_path / "in" / "p.png", picture)
    options = ColorizeOptions((tmp_path / "in",), tmp_path / "out", palette=str(path), to_index=True)
    assert colorize(options, Console(quiet=True)) == 0
    found = np.asarray(Image.open(tmp_path / "out" / "p.png"))
    assert np.array_equal(found, np.array([[9, 1]]).repeat(4, 0).repeat(4, 1))
    path.write_text(path.read_text().replace('"background"', '"background", "color": "#000000"')
                    .replace("background,\n", "background,#000000\n"))  # fmt: skip
    with pytest.raises(UsageError, match="what has no label and background are both #000000"):
        colorize(options, Console(quiet=True))


def test_colours_from_0_to_1_are_refused_also_where_all_are_pure(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,r,g,b\nbuilding,1.0,0.0,0.0\nroad,0.0,0.0,1.0\n")
    with pytest.raises(UsageError, match=r"a\.csv: not a class table: colours from 0 to 1"):
        read_classes(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("name,r,g,b\nbuilding,255.0,0.0,0.0\nroad,0.0,0.0,1.0\n")
    assert [entry.color for entry in read_classes(tmp_path / "a.csv").entries] == [(255, 0, 0), (0, 0, 1)]
    for text in ("name,color,r,g,b\na,#000001,1.0,0.0,0.0\n", "name,color,r,g,b\na,#000001,n.a.,,\n",
                 "name,r,g,b\na,0.0,0.0,0.0\nb,,,\n"):  # fmt: skip
        (tmp_path / "a.csv").write_text(text)
        assert read_classes(tmp_path / "a.csv").entries[0].color in ((0, 0, 1), (0, 0, 0))
    (tmp_path / "a.csv").write_text("name,r,g,b\nblack,0,0,0\nnearly,0,0,1\n")  # whole numbers are what they are
    assert [entry.color for entry in read_classes(tmp_path / "a.csv").entries] == [(0, 0, 0), (0, 0, 1)]


def test_codes_that_begin_names_are_no_alpha(tmp_path: Path) -> None:
    (tmp_path / "a.clr").write_text("0 0 0 0 111 Urban\n1 255 0 0 112 Urban\n2 0 255 0 311 Forest\n")
    assert read_classes(tmp_path / "a.clr").names == ("111 Urban", "112 Urban", "311 Forest")
    (tmp_path / "a.clr").write_text("0 0 0 0 255 Urban\n1 255 0 0 0 Forest\n")
    assert read_classes(tmp_path / "a.clr").names == ("Urban", "Forest")


@pytest.mark.parametrize("name", ["\u0007bell", "\ud83d", "a\u0000b", "\ufffe"])
def test_names_that_no_report_can_hold_are_refused(tmp_path: Path, name: str) -> None:
    """Of styles, charts and pages, when these are to be written."""
    (tmp_path / "a.json").write_text(json.dumps({"classes": [{"index": 0, "name": name}]}))
    with pytest.raises(UsageError, match="a name with the control character"):
        read_classes(tmp_path / "a.json")
    if name.isascii():
        (tmp_path / "a.csv").write_text(f'index,name\n0,"{name}"\n')
        with pytest.raises(UsageError, match=r"a\.csv"):
            read_classes(tmp_path / "a.csv")
