import json
from pathlib import Path

import numpy as np
import pytest

from segcli.classes import ClassEntry, ClassTable
from segcli.colors import distinct_colors
from segcli.errors import UsageError

TABLE = ClassTable((ClassEntry(1, "a", (1, 2, 3)), ClassEntry(0, "b", (255, 0, 16))), 255)


def test_json_round_trip() -> None:
    assert ClassTable.from_json(json.loads(json.dumps(TABLE.to_json()))) == TABLE
    assert TABLE.to_json()["classes"][1]["color"] == "#FF0010"


def test_positions_tell_labels_from_ignored_and_foreign_values() -> None:
    assert TABLE.positions()[[1, 0, 255, 7]].tolist() == [0, 1, -1, -2]
    assert np.array_equal(TABLE.indices[TABLE.positions()[[0, 1]]], [0, 1])
    assert TABLE.palette()[0].tolist() == [255, 0, 16]


@pytest.mark.parametrize(
    "data",
    [
        [],
        {"classes": []},
        {"classes": [{"name": "x"}]},
        {"classes": [{"index": True, "name": "x"}]},
        {"classes": [{"index": 0, "name": "x"}, {"index": 0, "name": "y"}]},
        {"classes": [{"index": 256, "name": "x"}]},
        {"classes": [{"index": 0, "name": "x", "color": "red"}]},
        {"classes": [{"index": 0, "name": "x", "color": "#GGGGGG"}]},
        {"classes": [{"index": 0, "name": "x"}], "ignore": 0},
        {"classes": [{"index": 0, "name": "x"}], "ignore": "no"},
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, data: object) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(data))
    with pytest.raises(UsageError, match=r"classes\.json"):
        ClassTable.read(path)


def test_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        ClassTable.read(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UsageError, match="not a class table"):
        ClassTable.read(tmp_path / "broken.json")


@pytest.mark.parametrize("count", [1, 8, 9, 40, 255])
def test_made_up_colors_differ(count: int) -> None:
    colors = distinct_colors(count)
    assert len(set(colors)) == count == len(colors)
    assert all(0 <= part <= 255 for color in colors for part in color)


def test_255_is_no_label_unless_it_is_a_class() -> None:
    entries = ClassTable.from_indices([1, 2]).entries
    for ignore in (0, None):
        assert ClassTable(entries, ignore).positions()[[1, 2, 255]].tolist() == [0, 1, -1]
    white = ClassTable((ClassEntry(255, "white", (9, 9, 9)),), None)
    assert white.positions()[[0, 255]].tolist() == [-2, 0]
