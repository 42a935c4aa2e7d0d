"""Class tables as other programs write them."""

from pathlib import Path

import pytest

from segcli.errors import UsageError
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
