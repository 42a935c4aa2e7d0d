"""segcli tile by several runs that share one folder, and what --verify and --dry-run say of it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers import write_picture
from rasterio.transform import from_origin
from ready import Ready

from segcli.errors import BusyError, UsageError
from segcli.shard import Shard
from segcli.tiling.ledger import Ledger

Tile = Callable[..., int]
CUT = ("--size", 32, "--out", "d")


@pytest.fixture
def rasters(tmp_path: Path) -> list[str]:
    """Nine, far from one another, named by their number."""
    names = [f"in/{n}.tif" for n in range(9)]
    (tmp_path / "in").mkdir()
    for n, name in enumerate(names):
        pixels = np.random.default_rng(n).integers(0, 256, (1, 70, 90), np.uint8)
        place = {"crs": "EPSG:32633", "transform": from_origin(500_000 + 10_000 * n, 5_300_000, 2, 2)}
        with rasterio.open(
            tmp_path / name, "w", driver="GTiff", count=1, height=70, width=90, dtype="uint8", **place
        ) as file:
            file.write(pixels)
    return names


def tiles_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.tif")}


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_shards_make_what_one_run_makes(tmp_path: Path, rasters: list[str], tile: Tile, ready: Ready) -> None:
    """At the same time, with a split of whole rasters; joined, all rasters come back."""
    assert tile(*rasters, "--size", 32, "--split", "0.6/0.4", "--out", "one") == 0
    runs = [
        ready.popen(
            ("tile", "in", "--size", 32, "--split", "0.6/0.4", "--out", "d", "--shard", f"{n}/3", "--quiet"), tmp_path
        )
        for n in (1, 2, 3)
    ]
    assert [run.wait(timeout=100) for run in runs] == [0, 0, 0]
    assert tiles_in(tmp_path / "d") == tiles_in(tmp_path / "one")
    assert len(tiles_in(tmp_path / "d")) == 9 * 9
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == [
        "tiles.1-of-3.json", "tiles.2-of-3.json", "tiles.3-of-3.json", "train", "val"
    ]  # fmt: skip
    assert tile("d", "--join", "--out", "again") == 0
    for name in rasters:
        with rasterio.open(tmp_path / name) as source, rasterio.open(tmp_path / "again" / Path(name).name) as again:
            assert np.array_equal(source.read(), again.read())
    assert tile("in", "--size", 32, "--split", "0.6/0.4", "--out", "d", "--verify") == 0


def test_verify_names_what_is_missing_or_stale(
    tmp_path: Path, rasters: list[str], tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    of_first = [name for name in rasters if Shard(1, 2).holds(Path(name).stem)]
    assert 0 < len(of_first) < 9
    assert tile("in", *CUT, "--shard", "1/2", "--quiet") == 0
    assert tile("in", *CUT, "--shard", "1/2", "--verify") == 0
    capsys.readouterr()
    assert tile("in", *CUT, "--verify") == 1
    found = capsys.readouterr()
    assert found.out.splitlines() == [f"{name}: new" for name in rasters if name not in of_first]
    assert f"up to date {len(of_first)}  missing or stale {9 - len(of_first)}" in found.err
    assert tile("in", *CUT, "--shard", "2/2", "--quiet") == 0
    next((tmp_path / "d").glob("0_*.tif")).unlink()
    with rasterio.open(tmp_path / rasters[4], "r+") as file:
        file.write(1 + file.read())
    capsys.readouterr()
    assert tile("in", *CUT, "--verify", "--json") == 1
    status = {record["source"]: record["status"] for record in lines(capsys.readouterr().out)}
    expected = dict.fromkeys(rasters, "up to date") | {rasters[0]: "output missing", rasters[4]: "source changed"}
    assert status == expected
    assert tile("in", "--size", 48, "--out", "d", "--verify") == 1
    assert capsys.readouterr().out.splitlines() == [f"{name}: options changed" for name in rasters]


def test_verify_misses_the_class_table(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    """train looks for it."""
    for folder in ("images", "masks"):
        write_picture(tmp_path / folder / "a.png", np.eye(40, dtype=np.uint8))
    (tmp_path / "classes.json").write_text('{"classes": [{"index": 0, "name": "a"}, {"index": 1, "name": "b"}]}')
    cut = ("images", "--masks", "masks", "--classes", "classes.json", "--size", 32, "--out", "d")
    assert tile(*cut, "--quiet") == 0
    assert tile(*cut, "--verify") == 0
    (tmp_path / "d" / "classes.json").unlink()
    capsys.readouterr()
    assert tile(*cut, "--verify") == 1
    assert capsys.readouterr().out == "images/a.png: classes.json missing\n"
    assert tile(*cut, "--quiet") == 0
    assert tile(*cut, "--verify") == 0


def test_a_dry_run_says_what_would_fail(
    tmp_path: Path, rasters: list[str], tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tile("in", *CUT, "--quiet") == 0
    (tmp_path / "d" / "tiles.json").unlink()
    assert tile(rasters[0], *CUT, "--dry-run") == 1
    assert "exists, and segcli did not write it" in capsys.readouterr().err
    assert tile("in", *CUT, "--overwrite", "--quiet") == 0
    with rasterio.open(tmp_path / rasters[0], "r+") as file:
        file.write(1 + file.read())
    assert tile("in", *CUT, "--dry-run") == 1
    assert "0.tif: was changed since its tiles" in capsys.readouterr().err


def test_a_dry_run_knows_what_is_there(
    tmp_path: Path, rasters: list[str], tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tile("in", *CUT, "--shard", "1/2", "--quiet") == 0
    capsys.readouterr()
    assert tile("in", *CUT, "--dry-run", "--json") == 0
    for record in lines(capsys.readouterr().out):
        is_there = Shard(1, 2).holds(Path(str(record["source"])).stem)
        assert record["status"] == ("up to date" if is_there else "to do")
    assert tile("in", *CUT, "--dry-run", "--shard", "1/2") == 0
    assert "to do 0  up to date" in capsys.readouterr().err


def test_one_run_goes_on_where_shards_ended(
    tmp_path: Path, rasters: list[str], tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    """And takes over their accounts."""
    assert tile("in", *CUT, "--shard", "1/2", "--quiet") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "d").glob("*.tif")}
    assert tile("in", *CUT, "--quiet") == 0
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert [path.name for path in (tmp_path / "d").glob("*.json*")] == ["tiles.json"]
    assert len(json.loads((tmp_path / "d" / "tiles.json").read_text())["sources"]) == 9
    # A shard knows what one run did.
    assert tile("in", *CUT, "--shard", "2/2", "--quiet") == 0
    assert tile("in", *CUT, "--verify") == 0
    assert tile("d", "--join", "--out", "again", "--quiet") == 0
    assert len(list((tmp_path / "again").glob("*.tif"))) == 9


def test_a_shard_does_not_start_over(
    tmp_path: Path, rasters: list[str], tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tiles stand in accounts of others, too. One run does, and leaves nothing of shards."""
    for n in (1, 2):
        assert tile("in", *CUT, "--shard", f"{n}/2", "--quiet") == 0
    assert tile("in", *CUT, "--shard", "1/2", "--overwrite") == 2
    assert "--overwrite: given with --shard" in capsys.readouterr().err
    assert tile("in", "--size", 48, "--out", "d", "--shard", "1/2") == 2
    assert "holds tiles of other options: size 32, now 48" in capsys.readouterr().err
    assert len(tiles_in(tmp_path / "d")) == 9 * 9
    assert tile("in", "--size", 48, "--out", "d", "--overwrite", "--quiet") == 0
    assert [path.name for path in (tmp_path / "d").glob("*.json*")] == ["tiles.json"]
    assert len(tiles_in(tmp_path / "d")) == 9 * 4


def test_shards_of_other_options_at_one_moment(tmp_path: Path) -> None:
    """Neither sees an account of the other when it looks first."""
    ledgers = [
        Ledger(tmp_path / "d", {"size": size, "overlap": 0, "edge": "shift"}, None, Shard(n, 2))
        for n, size in ((1, 32), (2, 48))
    ]
    for ledger in ledgers:
        ledger.check()
    ledgers[0].hold()
    with pytest.raises(UsageError, match="size 32, now 48"):
        ledgers[1].hold()
    for ledger in ledgers:
        ledger.rest()
    again = Ledger(tmp_path / "d", {"size": 48, "overlap": 0, "edge": "shift"}, None, Shard(2, 2))
    again.check()  # the first has written nothing but its options
    again.rest()


def test_what_a_killed_shard_left_is_taken_over(
    tmp_path: Path, rasters: list[str], tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of its journal, and of tiles whose names stand in it."""
    assert tile("in", *CUT, "--shard", "1/2", "--quiet") == 0
    account, journal = tmp_path / "d" / "tiles.1-of-2.json", tmp_path / "d" / "tiles.1-of-2.unfinished.jsonl"
    known = json.loads(account.read_text())
    first = known["sources"][0]
    tiles = first.pop("tiles"), first.pop("left_out")
    told = [{key: value for key, value in known.items() if key != "sources"}, {"source": first}]
    told += [{"of": first["name"], "tile": one} for one in tiles[0][:3]]
    journal.write_text("".join(json.dumps(line) + "\n" for line in told) + '{"of": "to')
    account.unlink()
    for path in (tmp_path / "d").glob("*.tif"):
        if path.name not in [tile["name"] for tile in tiles[0][:3]]:
            path.unlink()
    assert tile("in", *CUT, "--verify") == 1
    assert tile("in", *CUT, "--shard", "2/2", "--quiet") == 0  # the other part is none of its business
    capsys.readouterr()
    assert tile("d", "--join", "--out", "again") == 1
    said = capsys.readouterr()
    assert f"{first['name']}: not all of its tiles were cut; run segcli tile again as before" in said.err
    assert len(said.out.splitlines()) == len(list((tmp_path / "again").glob("*.tif"))) > 0  # the others are joined
    assert journal.exists()
    assert tile("in", *CUT, "--quiet") == 0
    assert [path.name for path in (tmp_path / "d").glob("*.json*")] == ["tiles.json"]
    assert tile("in", *CUT, "--verify") == 0


def test_what_is_done_counts_more_than_what_is_not(tmp_path: Path, rasters: list[str], tile: Tile) -> None:
    """A killed run of other parts has left a journal of rasters that were done since."""
    assert tile("in", *CUT, "--shard", "1/1", "--quiet") == 0
    account = tmp_path / "d" / "tiles.1-of-1.json"
    known = json.loads(account.read_text())
    first = known["sources"][0]
    tiles = first.pop("tiles")
    first.pop("left_out")
    told = [{key: value for key, value in known.items() if key != "sources"}, {"source": first}]
    told += [{"of": first["name"], "tile": one} for one in tiles[:3]]
    (tmp_path / "d" / "tiles.1-of-2.unfinished.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))
    (tmp_path / "d" / ".tiles.1-of-2.lock").touch()
    assert tile("in", *CUT, "--verify") == 0
    assert tile("in", *CUT, "--quiet") == 0
    assert tile("in", *CUT, "--verify") == 0
    assert not (tmp_path / "d" / ".tiles.1-of-2.lock").exists()


def test_who_may_share_a_folder(tmp_path: Path) -> None:
    def held(shard: Shard | None) -> Ledger:
        ledger = Ledger(tmp_path / "d", {"size": 1, "overlap": 0, "edge": "shift"}, None, shard)
        try:
            ledger.hold()
        except BusyError:
            ledger.rest()
            raise
        return ledger

    with_one = held(Shard(1, 2))
    with_two = held(Shard(2, 2))
    for other in (Shard(1, 2), Shard(1, 3), None):
        with pytest.raises(BusyError, match="another run of segcli"):
            held(other)
    with_one.rest()
    held(Shard(1, 2)).rest()
    with_two.rest()
    held(Shard(1, 3)).rest()
    held(None).rest()
    assert not list((tmp_path / "d").glob(".*"))


@pytest.mark.parametrize("option", [("--shard", "1/2"), ("--verify",), ("--dry-run",)])
def test_a_join_is_not_shared(tile: Tile, option: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert tile("d", "--join", "--out", "x", *option) == 2
    assert f"{option[0]}: given with --join" in capsys.readouterr().err
