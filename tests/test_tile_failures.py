"""segcli tile where something is wrong: what stays of the work, what is named, and what the next run makes of it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from test_tile_care import PLACE, files_in, tiles_of, write_raster

from segcli.tiling.joining import Canvas
from segcli.tiling.ledger import Ledger

Tile = Callable[..., int]
Said = pytest.CaptureFixture[str]


def write_mask(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    like = pixels if pixels.ndim == 3 else pixels[None]
    count, height, width = like.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": like.dtype} | PLACE
    with rasterio.open(path, "w", **profile) as file:
        file.write(like)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_in(folder)}


# --overwrite


def test_overwrite_keeps_the_tiles_of_what_cannot_be_cut_again(tmp_path: Path, tile: Tile, capsys: Said) -> None:
    one, other = write_raster(tmp_path / "a.tif"), write_raster(tmp_path / "b.tif", seed=1)
    assert tile(one, other, "--size", 50, "--out", "d") == 0
    before = contents(tmp_path / "d")
    write_raster(one, seed=2)
    other.write_bytes(b"broken")
    assert tile(one, other, "--size", 50, "--out", "d", "--overwrite") == 1
    assert "b.tif" in capsys.readouterr().err
    after = contents(tmp_path / "d")
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert {name for name in after if name.startswith("a_r")} | {"tiles.json"} == changed
    assert {source["name"] for source in json.loads(after["tiles.json"])["sources"]} == {"a", "b"}


def test_overwrite_with_other_options_begins_when_a_raster_can_be_cut(tmp_path: Path, tile: Tile, capsys: Said) -> None:
    """A folder holds tiles of one kind; those of another go when there is something to put in their place."""
    one, other = write_raster(tmp_path / "a.tif"), write_raster(tmp_path / "b.tif", seed=1)
    assert tile(one, other, "--size", 50, "--out", "d") == 0
    before = contents(tmp_path / "d")
    bad = tmp_path / "c.tif"
    bad.write_bytes(b"broken")
    assert tile(bad, "--size", 25, "--out", "d", "--overwrite") == 1
    assert contents(tmp_path / "d") == before
    assert tile(bad, one, "--size", 25, "--out", "d", "--overwrite") == 1
    after = contents(tmp_path / "d")
    assert {name[0] for name in after} == {"a", "t"}
    assert len(tiles_of(tmp_path / "d")) == len(after) - 1 == 4 * 5


# Stops


def test_tiles_json_comes_after_a_stop_just_before_it(
    tmp_path: Path, tile: Tile, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_raster(tmp_path / "a.tif")
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_write", lambda _: None)
        assert tile("a.tif", "--size", 50, "--out", "d") == 0
    assert "tiles.unfinished.jsonl" in files_in(tmp_path / "d")
    assert tile("a.tif", "--size", 50, "--out", "d") == 0
    assert "tiles.unfinished.jsonl" not in files_in(tmp_path / "d")
    assert len(tiles_of(tmp_path / "d")) == 6


def test_a_run_after_all_shards_makes_one_account_of_theirs(tmp_path: Path, tile: Tile) -> None:
    for n in range(4):
        write_raster(tmp_path / "in" / f"{n}.tif", seed=n)
    for part in ("1/2", "2/2"):
        assert tile("in", "--size", 50, "--out", "d", "--shard", part) == 0
    assert not (tmp_path / "d" / "tiles.json").exists()
    assert tile("in", "--size", 50, "--out", "d") == 0
    assert [name for name in files_in(tmp_path / "d") if ".json" in name] == ["tiles.json"]
    assert len(tiles_of(tmp_path / "d")) == 4 * 6


def test_the_folder_of_the_rasters_may_be_that_of_the_tiles(tmp_path: Path, tile: Tile, capsys: Said) -> None:
    """Tiles there are known by their names; what else lies there is cut, and is not passed over."""
    write_raster(tmp_path / "in" / "a.tif")
    assert tile("in", "--size", 50, "--out", "in") == 0
    there = files_in(tmp_path / "in")
    assert tile("in", "--size", 50, "--out", "in") == 0
    assert files_in(tmp_path / "in") == there
    write_raster(tmp_path / "in" / "b.tif")
    assert tile("in", "--size", 50, "--out", "in") == 0
    assert len(tiles_of(tmp_path / "in")) == 2 * 6


# Labels


def test_a_sample_names_labels_that_cannot_be_read(tmp_path: Path, tile: Tile, capsys: Said) -> None:
    for name in ("a", "b"):
        write_raster(tmp_path / "in" / f"{name}.tif")
        write_mask(tmp_path / "m" / f"{name}.tif", np.eye(100, 120, dtype=np.uint8))
    assert tile("in", "--size", 50, "--masks", "m", "--sample", 5, "--out", "whole") == 0
    with (tmp_path / "m" / "b.tif").open("r+b") as file:
        file.truncate(9000)
    capsys.readouterr()
    assert tile("in", "--size", 50, "--masks", "m", "--sample", 5, "--out", "d") == 1
    said = capsys.readouterr().err.splitlines()
    assert "m/b.tif: " in said[0]
    assert said[-1] == "done 1  up to date 0  failed 1"
    assert {source["name"] for source in json.loads((tmp_path / "d" / "tiles.json").read_text())["sources"]} == {"a"}


def test_black_and_white_masks_are_sampled_by_what_is_white(tmp_path: Path, tile: Tile) -> None:
    write_raster(tmp_path / "in" / "a.tif", 400, 400)
    pixels = np.zeros((400, 400), np.uint8)
    pixels[110:140, 260:290] = 255  # in one of 64 tiles
    write_mask(tmp_path / "m" / "a.tif", pixels)
    for seed in range(3):
        chosen = "--sample", 2, "--seed", seed, "--out", f"d{seed}"
        assert tile("in", "--size", 50, "--overlap", 0, "--masks", "m", *chosen) == 0
        assert any("255" in one["pixels"] for one in tiles_of(tmp_path / f"d{seed}"))


def test_black_and_white_masks_are_padded_with_black(tmp_path: Path, tile: Tile) -> None:
    write_raster(tmp_path / "in" / "a.tif", 60, 60)
    pixels = np.zeros((60, 60), np.uint8)
    pixels[55:] = 255
    write_mask(tmp_path / "m" / "a.tif", pixels)
    assert tile("in", "--size", 50, "--edge", "pad", "--masks", "m", "--out", "d") == 0
    with rasterio.open(tmp_path / "d" / "masks" / "a_r00050_c00000.tif") as file:
        found, valid = file.read(1), file.dataset_mask()
    np.testing.assert_array_equal(found[:10], pixels[50:, :50])
    assert not found[10:].any()
    assert not valid[10:].any()


@pytest.mark.parametrize("kind", ["colours", "numbers", "codes"])
def test_masks_whose_meaning_cannot_be_seen_are_sampled_all_the_same(tmp_path: Path, tile: Tile, kind: str) -> None:
    """Black, 0 and 255 are no label, as far as anybody knows."""
    write_raster(tmp_path / "in" / "a.tif")
    pixels: Any = np.zeros((100, 120), np.uint16)
    pixels[:50, :50] = np.arange(2500).reshape(50, 50) % 900 if kind == "numbers" else 4711
    if kind == "colours":
        pixels = np.stack([(pixels > 0) * 200, (pixels > 0) * 100, pixels * 0]).astype(np.uint8)
    write_mask(tmp_path / "m" / "a.tif", pixels)
    assert tile("in", "--size", 50, "--masks", "m", "--min-label", 0.5, "--out", "d") == 0
    assert [one["name"] for one in tiles_of(tmp_path / "d")] == ["images/a_r00000_c00000.tif"]
    assert tile("in", "--size", 50, "--masks", "m", "--sample", 1, "--out", "e") == 0
    assert len(tiles_of(tmp_path / "e")) == 1


def test_two_rasters_of_one_name_need_labels_of_their_own(tmp_path: Path, tile: Tile, capsys: Said) -> None:
    for folder in ("x", "y"):
        write_raster(tmp_path / folder / "a.tif")
    write_mask(tmp_path / "m" / "a.tif", np.ones((100, 120), np.uint8))
    assert tile("x", "y", "--size", 50, "--masks", "m") == 2
    assert "m: x/a.tif and y/a.tif have one name" in capsys.readouterr().err


def test_of_several_layers_of_polygons_none_is_taken_in_silence(tmp_path: Path, tile: Tile, capsys: Said) -> None:
    import pyogrio.raw

    write_raster(tmp_path / "a.tif")
    for layer in ("houses", "roads"):
        pyogrio.raw.write(
            tmp_path / "m.gpkg",
            np.array([shapely.to_wkb(shapely.box(500_000, 5_299_900, 500_100, 5_300_000))], object),
            [np.array([layer], object)],
            ["class"],
            layer=layer,
            driver="GPKG",
            geometry_type="Polygon",
            crs="EPSG:32633",
            append=layer == "roads",
        )
    assert tile("a.tif", "--size", 50, "--masks", "m.gpkg", "--out", "d") == 2
    said = capsys.readouterr().err
    assert "m.gpkg: layers houses, roads; expected one layer of polygons" in said
    assert "ogr2ogr" in said


# --join


def test_a_tile_that_cannot_be_opened_costs_its_raster_alone(tmp_path: Path, tile: Tile, capsys: Said) -> None:
    for n, name in enumerate(("a", "b")):
        write_raster(tmp_path / "in" / f"{name}.tif", seed=n)
    assert tile("in", "--size", 50, "--out", "d") == 0
    (tmp_path / "d" / "a_r00000_c00000.tif").write_bytes(b"broken")
    capsys.readouterr()
    assert tile("d", "--join", "--out", "again") == 1
    said = capsys.readouterr()
    assert said.out.split() == ["again/b.tif"]
    assert re.search(r"segcli: a: \S+/d/a_r00000_c00000.tif: ", said.err)
    with rasterio.open(tmp_path / "in" / "b.tif") as one, rasterio.open(tmp_path / "again" / "b.tif") as other:
        np.testing.assert_array_equal(one.read(), other.read())


def test_rows_without_tiles_do_not_pile_up(tmp_path: Path, tile: Tile, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raster(tmp_path / "a.tif", 1000, 60)
    assert tile("a.tif", "--size", 50, "--overlap", 0, "--out", "d") == 0
    for path in (tmp_path / "d").glob("a_r*.tif"):
        if not path.name.startswith(("a_r00000", "a_r00700")):
            path.unlink()
    grown, most = Canvas._grow, [0]

    def grow(canvas: Canvas, end: int) -> None:
        grown(canvas, end)
        most.append(canvas._pixels.shape[1])

    monkeypatch.setattr(Canvas, "_grow", grow)
    assert tile("d", "--join", "--allow-missing", "--out", "again.tif") == 0
    assert max(most) <= 50
    with rasterio.open(tmp_path / "a.tif") as one, rasterio.open(tmp_path / "again.tif") as other:
        before, after, valid = one.read(), other.read(), other.dataset_mask()
    there = np.zeros((1000, 60), bool)
    there[:50], there[700:750] = True, True
    np.testing.assert_array_equal(valid > 0, there)
    np.testing.assert_array_equal(before[:, there], after[:, there])
