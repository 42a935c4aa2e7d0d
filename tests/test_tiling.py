"""The numbers behind tile: where tiles lie, which splits they are in, what a join makes of them."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segcli.classes import ClassTable
from segcli.errors import UsageError
from segcli.options import Edge
from segcli.raster.grid import Grid
from segcli.raster.labels import count_bytes
from segcli.raster.stored import Stored
from segcli.tiling.joining import bell
from segcli.tiling.journal import JOURNAL
from segcli.tiling.labelling import counts
from segcli.tiling.layout import count, spans, tile_name, tiling
from segcli.tiling.ledger import Ledger
from segcli.tiling.manifest import MANIFEST, Record, Scene, read
from segcli.tiling.splits import NONE, balanced, split

EDGES: tuple[Edge, ...] = ("shift", "pad", "keep", "drop")
OPTIONS = {"size": 4, "overlap": 1, "edge": "keep"}


@settings(max_examples=400, deadline=None)
@given(st.integers(1, 90), st.integers(1, 40), st.data(), st.sampled_from(EDGES))
def test_spans_cover_a_raster_and_own_each_pixel_once(length: int, size: int, data: st.DataObject, edge: Edge) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    found = spans(length, size, overlap, edge)
    assert len(found) == count(length, size, overlap, edge)
    if edge == "drop":
        assert all(span.end - span.start == span.length == size for span in found)
        assert (length - (found[-1].end if found else 0)) < size
    else:
        assert found[-1].end == length
    if edge == "shift":
        assert all(span.length == min(size, length) == span.end - span.start for span in found)
    if edge == "pad":
        assert all(span.length == size for span in found)
    for n, span in enumerate(found[:-1] if edge in ("shift", "keep") else found):
        assert span.start == n * (size - overlap)
    for span in found:
        assert 0 <= span.start <= span.own_start <= span.own_end <= span.end <= length
    owned = [n for span in found for n in range(span.own_start, span.own_end)]
    assert owned == list(range(found[-1].end if found else 0))
    for one, other in pairwise(found):  # cut in the middle of what they share, or half a pixel from it
        assert abs((one.own_end - other.start) - (one.end - one.own_end)) <= 1


def test_names_sort_as_tiles_lie() -> None:
    assert tile_name("a", 512, 1024, 9000, 9000) == "a_r00512_c01024"
    names = [tile_name("a", row, col, 120_000, 9) for row in (0, 99_999, 100_000) for col in (0, 5)]
    assert names == sorted(names)


SHARES = st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.5), (0.7, 0.2, 0.1), (0.9, 0.1), (0.34, 0.33, 0.33)])


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(8, 40), st.data(), st.sampled_from(EDGES), SHARES)
def test_tiles_of_two_splits_neither_overlap_nor_adjoin(
    height: int, width: int, size: int, data: st.DataObject, edge: Edge, shares: tuple[float, ...]
) -> None:
    tiles = tiling(height, width, size, data.draw(st.integers(0, size - 1 - size // 2)), edge)
    if not tiles.places:
        return
    found = split(tiles, shares, data.draw(st.integers(0, 3)))
    painted = np.full((height, width), NONE)
    for n in range(len(shares)):  # each split's pixels and one around them are free of every other split
        for r, c in zip(*np.nonzero(found == n), strict=True):
            row, col = tiles.rows[r], tiles.cols[c]
            around = painted[max(0, row.start - 1) : row.end + 1, max(0, col.start - 1) : col.end + 1]
            assert {*np.unique(around)} <= {NONE, n}
            painted[row.start : row.end, col.start : col.end] = n


def test_splits_keep_to_the_shares_of_a_large_raster() -> None:
    tiles = tiling(20_000, 20_000, 512, 0, "shift")
    found = split(tiles, (0.8, 0.1, 0.1), 0)
    kept = np.array([(found == n).sum() for n in range(3)])
    assert np.abs(kept / kept.sum() - [0.8, 0.1, 0.1]).max() < 0.03
    assert (found == NONE).mean() < 0.12
    assert np.array_equal(found, split(tiles, (0.8, 0.1, 0.1), 0))
    assert not np.array_equal(found, split(tiles, (0.8, 0.1, 0.1), 1))


def test_a_sample_balances_classes() -> None:
    """Ninety tiles of class 0 alone, ten with class 1: of twenty tiles as good as all of these."""
    tiles = [{"0": 100}] * 90 + [{"0": 50, "1": 50}] * 10
    chosen = balanced(tiles, 20, 0)
    assert len({*chosen}) == 20
    assert chosen == sorted(chosen)
    assert sum(n >= 90 for n in chosen) == 10
    assert balanced(tiles, 20, 0) == chosen != balanced(tiles, 20, 1)
    assert len(balanced([{}] * 30, 7, 0)) == 7
    assert balanced(tiles, 1000, 0) == list(range(100))


@given(st.integers(1, 5000))
def test_no_weight_is_zero(length: int) -> None:
    weights = bell(length)
    assert (np.outer(weights[:2], weights[:2]) > 0).all()
    assert weights.shape == (length,)
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-3, atol=1e-9)
    assert (np.diff(weights[: length // 2]) > 0).all()


def test_labels_are_counted_by_value_and_by_colour() -> None:
    mask = np.array([[[0, 3, 3], [255, 3, 0]]], np.uint8)
    assert counts(mask, None) == {"0": 2, "3": 3, "255": 1}
    assert counts(mask, mask[0] == 3) == {"3": 3}
    assert counts(mask.astype(np.int32) - 1, None) == {"-1": 2, "2": 3, "254": 1}
    assert counts(np.repeat(mask, 3, axis=0), None) == {"#000000": 2, "#030303": 3, "#FFFFFF": 1}


def ledger_of(folder: Path, options: dict[str, object] = OPTIONS) -> tuple[Ledger, Scene]:
    ledger = Ledger(folder, dict(options), ClassTable.from_indices([0, 1]))
    scene = ledger.begin(Scene("a", "../a.tif", (5, 6), Grid(4, 7), Stored(1, "uint8", kinds=("gray",))))
    return ledger, scene


def write_tile(folder: Path, name: str, size: int = 10) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x" * size)


def test_the_account_of_a_killed_run_knows_what_is_whole(tmp_path: Path) -> None:
    ledger, scene = ledger_of(tmp_path)
    for n, col in enumerate((0, 3)):
        ledger.add(scene, Record(0, col, 4, 4, name=f"{n}.tif", bytes=(10,)))
        write_tile(tmp_path, f"{n}.tif")
    ledger.rest()
    with (tmp_path / JOURNAL).open("a") as file:  # killed in the middle of a line
        file.write('{"of": "a", "tile": {"row": 9')
    (tmp_path / "1.tif").write_bytes(b"changed")
    ledger, scene = ledger_of(tmp_path)
    ledger.check()
    assert list(scene.records) == [(0, 0)]
    ledger.add(scene, Record(0, 3, 4, 4, name="1.tif", bytes=(10,)))
    write_tile(tmp_path, "1.tif")
    ledger.finish(scene)
    ledger.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.tif", "1.tif", MANIFEST]
    found = read(tmp_path / MANIFEST)
    assert found.scenes["a"].records == scene.records
    assert found.classes == ClassTable.from_indices([0, 1])
    assert ledger_of(tmp_path)[1].is_done
    (tmp_path / "0.tif").unlink()
    assert not ledger_of(tmp_path)[1].is_done


def test_a_folder_of_other_options_is_refused(tmp_path: Path) -> None:
    ledger, scene = ledger_of(tmp_path)
    ledger.add(scene, Record(0, 0, 4, 4, name="0.tif", bytes=(10,)))
    write_tile(tmp_path, "0.tif")
    write_tile(tmp_path, "mine.tif")
    ledger.rest()
    ledger, _ = ledger_of(tmp_path, OPTIONS | {"size": 8})
    with pytest.raises(UsageError, match=r"holds tiles of other options: size 4, now 8; .*--overwrite"):
        ledger.check()
    ledger.remove("another")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.tif"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tiles": ("name", "../../etc/passwd")}, "does not lie below its folder"),
        ({"tiles": ("name", "/etc/passwd")}, "does not lie below its folder"),
        ({"tiles": ("mask", "a/../../b.tif")}, "does not lie below its folder"),
        ({"tiles": ("row", -4)}, "a tile at row -4"),
        ({"tiles": ("row", 1)}, "no tile of a at row 0, column 0"),
        ({"tiles": ("height", 5)}, "no tile of a at row 0, column 0"),
        ({"tiles": ("colour", 5)}, "no manifest of tiles"),
        ({"source": ("height", 10**12)}, "2 tiles of a, expected"),
        ({"source": ("width", 0)}, "a size of 4 x 0"),
        ({"source": ("stored", {})}, "no manifest of tiles"),
        ({"stored": ("dtype", "object")}, "dtype 'object'"),
        ({"stored": ("bands", 0)}, "0 bands"),
        ({"options": ("overlap", 4)}, "tiles of 4 with an overlap of 4"),
        ({"options": ("edge", "round")}, "edge 'round'"),
        ({"whole": ("format", 2)}, "format 2, expected 1"),
        ({"whole": ("sources", 5)}, "no manifest of tiles"),
    ],
)
def test_a_manifest_is_read_with_suspicion(tmp_path: Path, change: dict[str, tuple[str, object]], reason: str) -> None:
    ledger, scene = ledger_of(tmp_path)
    for n, col in enumerate((0, 3)):
        ledger.add(scene, Record(0, col, 4, 4, name=f"{n}.tif", mask=f"m/{n}.tif", bytes=(10, 10)))
    ledger.finish(scene)
    ledger.close()
    path = tmp_path / MANIFEST
    values = json.loads(path.read_text())
    ((place, (key, value)),) = change.items()
    first = values["sources"][0]
    places = {"tiles": first["tiles"][0], "source": first, "stored": first["stored"]}
    (places | {"options": values["options"], "whole": values})[place][key] = value
    path.write_text(json.dumps(values))
    with pytest.raises(UsageError, match=reason):
        read(path)
    path.write_text("{")
    with pytest.raises(UsageError, match="no manifest of tiles"):
        read(path)


def test_bytes_are_counted_exactly_in_masks_of_any_size() -> None:
    values = np.zeros((4100, 4101), np.uint8)  # 2^24 and some: more than float32 counts to
    values[7, 9] = 1
    assert count_bytes(values).tolist() == [4100 * 4101 - 1, 1, *[0] * 254]
    valid = np.zeros(values.shape, bool)
    valid[7:, :] = True
    assert count_bytes(values, valid).tolist() == [4093 * 4101 - 1, 1, *[0] * 254]
