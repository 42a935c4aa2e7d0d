"""segcli tile where care is needed: two runs at once, files that change, polygons that miss, splits of many rasters."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
import tifffile
from helpers import write_picture
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform_geom
from ready import Ready
from scipy.sparse.csgraph import connected_components

from segcli import manifest
from segcli.classes import ClassTable
from segcli.errors import InputError
from segcli.options import TileOptions
from segcli.raster.exact import write_whole
from segcli.raster.grid import Grid
from segcli.raster.sidecars import sidecars
from segcli.raster.stored import Stored
from segcli.tile import write_classes
from segcli.tiling import cutting, planning
from segcli.tiling.journal import JOURNAL
from segcli.tiling.manifest import Scene
from segcli.tiling.marks import unchanged
from segcli.tiling.splits import NONE, deal, meeting, overlapping, quotas

Tile = Callable[..., int]
PLACE: dict[str, Any] = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_300_000, 2, 2)}


def write_raster(path: Path, height: int = 100, width: int = 120, seed: int = 0, **more: Any) -> Path:
    """Noise as a GeoTIFF of three bands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (3, height, width), np.uint8)
    profile = {"driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8"}
    with rasterio.open(path, "w", **(profile | PLACE | more)) as file:
        file.write(pixels)
    return path


def write_polygons(path: Path, shapes: list[tuple[Any, Any]], crs: str | None = None) -> Path:
    features = [{"type": "Feature", "properties": {"class": kind}, "geometry": shapely.geometry.mapping(shape)}
                for shape, kind in shapes]  # fmt: skip
    named = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features} | named))
    return path


def tiles_of(folder: Path) -> list[dict[str, Any]]:
    return [tile for source in json.loads((folder / "tiles.json").read_text())["sources"] for tile in source["tiles"]]


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# Runs beside each other, and files that change


def test_two_runs_do_not_share_a_folder(
    tmp_path: Path, tile: Tile, ready: Ready, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second would lose the account of the first, and its tiles with it."""
    for name in ("a.tif", "b.tif"):
        write_raster(tmp_path / name, 900, 900)
    command = ("tile", "a.tif", "--size", 32, "-j", 1, "--out", "d")
    process = ready.popen(command, tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "d" / JOURNAL).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert tile("b.tif", "--size", 32, "--out", "d") == 5
    assert "d: another run of segcli writes there" in capsys.readouterr().err
    assert tile("b.tif", "--size", 32, "--out", "d", "--overwrite") == 5
    assert tile("b.tif", "--size", 32, "--out", "d", "--dry-run") == 0
    assert process.wait(timeout=120) == 0
    assert len(tiles_of(tmp_path / "d")) == 29 * 29
    assert tile("b.tif", "--size", 500, "--out", "none", "--edge", "drop", "--min-valid", 1) == 0
    assert tile("d/tiles.json", "--out", "empty") == 1
    assert not (tmp_path / "empty").exists()  # what was made for nothing goes


def test_a_busy_folder_of_one_raster_says_so(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    """By the exit code, too, unless something else failed."""
    write_raster(tmp_path / "a.tif")
    (tmp_path / "a_tiles").mkdir()
    held = os.open(tmp_path / "a_tiles", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert tile("a.tif") == 5
    assert "a_tiles: another run of segcli writes there" in capsys.readouterr().err
    assert tile("a.tif", "none.tif") == 1
    os.close(held)
    assert tile("a.tif") == 0


def test_a_name_that_is_no_text_does_not_end_a_sample(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is one bad input, which GDAL does not open; the others are cut."""
    write_raster(tmp_path / "d" / "a.tif")
    shutil.copy(tmp_path / "d" / "a.tif", os.fsdecode(b"d/b\xe9.tif"))
    assert tile("d", "--size", 50, "--sample", 3, "--out", "tiles") == 1
    assert "b\\udce9.tif: its name is no UTF-8; GDAL opens no other; rename it" in capsys.readouterr().err
    assert len(tiles_of(tmp_path / "tiles")) == 3


def test_tiles_are_not_written_over_inputs(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever --overwrite says."""
    one, other = (write_raster(tmp_path / "d" / name) for name in ("a.tif", "a_r00000_c00000.tif"))
    before = other.read_bytes()
    assert tile(one, other, "--size", 50, "--out", "d", "--overwrite") == 1
    assert "a_r00000_c00000.tif: is an input, and would be overwritten" in capsys.readouterr().err
    assert other.read_bytes() == before
    assert tile(one, "--size", 50, "--out", "t") == 0
    made = tmp_path / "t" / "a_r00000_c00000.tif"
    assert tile(made, "--size", 20, "--out", "t", "--overwrite") == 2
    assert "t/a_r00000_c00000.tif: is an input, and would be removed" in capsys.readouterr().err
    assert made.exists()


def test_a_raster_that_changes_while_it_is_cut_is_named(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_raster(tmp_path / "a.tif")
    from segcli import tile as verb

    cut = verb.cut

    def changing(*arguments: Any) -> None:
        cut(*arguments)
        write_raster(path, seed=1, compress="deflate")

    monkeypatch.setattr(verb, "cut", changing)
    assert tile("a.tif", "--size", 50) == 1
    assert "a.tif: changed while it was read; give --overwrite" in capsys.readouterr().err
    assert not (tmp_path / "a_tiles" / "tiles.json").exists()
    monkeypatch.setattr(verb, "cut", cut)
    assert tile("a.tif", "--size", 50) == 1
    assert tile("a.tif", "--size", 50, "--overwrite") == 0


def test_a_new_time_alone_makes_no_other_raster(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy or a checkout has one. What is too large to be read for that is refused by the name that was given."""
    source = write_raster(tmp_path / "in" / "a.tif")
    (tmp_path / "m").mkdir()
    shutil.copy(source, tmp_path / "m" / "a.tif")
    cut = ("in", "--masks", "m", "--size", 64, "--out", "d")
    assert tile(*cut) == 0
    for path in (source, tmp_path / "m" / "a.tif"):
        os.utime(path, (1, 1))
    made = next((tmp_path / "d").rglob("*.tif"))
    made.unlink()
    assert tile(*cut, "--verify") == 1
    assert "output missing" in capsys.readouterr().out
    assert tile(*cut) == 0
    assert made.exists()
    assert tile(*cut, "--verify") == 0
    monkeypatch.setattr("segcli.tiling.marks.DIGEST_BYTES", 0)
    os.utime(source, (2, 2))
    capsys.readouterr()
    assert tile(*cut) == 1
    assert "segcli: in/a.tif: was changed since its tiles in d were written" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert tile(*cut, "--verify") == 0
    source.write_bytes(source.read_bytes()[::-1])
    assert tile(*cut, "--verify") == 1


def test_a_raster_of_the_same_name_size_and_time_is_another_one(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archives and scanners give many files one time; of another file than the one that was cut it says nothing."""
    for folder, value in (("a", 1), ("b", 2), ("m", 1), ("n", 2)):
        path = write_raster(tmp_path / folder / "1.tif", 64, 64, value)
        os.utime(path, (9, 9))
    assert tile("a/1.tif", "--masks", "m", "--size", 32, "--out", "d") == 0
    before = {path: path.read_bytes() for path in (tmp_path / "d").rglob("*.tif")}
    for other, truth in (("b", "m"), ("a", "n")):
        capsys.readouterr()
        assert tile(f"{other}/1.tif", "--masks", truth, "--size", 32, "--out", "d", "--verify") == 1
        assert "source changed" in capsys.readouterr().out
        assert tile(f"{other}/1.tif", "--masks", truth, "--size", 32, "--out", "d") == 1
        said = capsys.readouterr().err.replace("\n", " ")
        assert "the tiles of that name in d were cut from ../a/1.tif and ../m/1.tif there; choose another" in said
    assert before == {path: path.read_bytes() for path in (tmp_path / "d").rglob("*.tif")}
    # A copy is the same raster, and so is what has moved, also where it is too large to be read for that.
    shutil.copy2(tmp_path / "a" / "1.tif", tmp_path / "b" / "1.tif")
    assert tile("b/1.tif", "--masks", "m", "--size", 32, "--out", "d", "--verify") == 0
    monkeypatch.setattr("segcli.tiling.marks.DIGEST_BYTES", 0)
    assert tile("b/1.tif", "--masks", "m", "--size", 32, "--out", "d", "--verify") == 1
    shutil.move(tmp_path / "a", tmp_path / "c")
    assert tile("c/1.tif", "--masks", "m", "--size", 32, "--out", "d", "--verify") == 0
    (tmp_path / "deep" / "er").mkdir(parents=True)
    shutil.move(tmp_path / "d", tmp_path / "deep" / "er" / "d")
    (tmp_path / "d").symlink_to(tmp_path / "deep" / "er" / "d")  # as on clusters: .. of it is another folder
    assert tile("b/1.tif", "--masks", "m", "--size", 32, "--out", "d", "--verify") == 0  # what was cut is gone
    shutil.copytree(tmp_path / "c", tmp_path / "a")
    assert tile("b/1.tif", "--masks", "m", "--size", 32, "--out", "d", "--verify") == 1
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "m")
    assert tile("c/1.tif", "--masks", "link", "--size", 32, "--out", "d") == 0


def test_of_two_addresses_each_is_its_own() -> None:
    """Nothing but the name tells them apart; what signs it may be another one each night."""
    here = Grid(8, 8)
    scene = Scene("1", "https://a.org/1.tif?sig=x", (0, 0), here, Stored(1, "uint8"))
    assert unchanged(scene, ["https://a.org/1.tif?sig=y"], Path("d"))
    assert not unchanged(scene, ["https://b.org/1.tif?sig=x"], Path("d"))


def test_accounts_of_older_versions_are_gone_on_with(tmp_path: Path, tile: Tile) -> None:
    """They knew nothing of what a sample was drawn from."""
    write_raster(tmp_path / "a.tif")
    cut = ("a.tif", "--size", 32, "--sample", 3, "--out", "d")
    assert tile(*cut) == 0
    account = json.loads((tmp_path / "d" / "tiles.json").read_text())
    del account["options"]["sample_of"]
    (tmp_path / "d" / "tiles.json").write_text(json.dumps(account))
    assert tile(*cut, "--verify") == 0
    assert tile(*cut) == 0
    assert tile("a.tif", "--size", 32, "--out", "e") == 0
    assert "sample_of" not in json.loads((tmp_path / "e" / "tiles.json").read_text())["options"]


def test_tiles_alone_are_nothing_to_cut(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    write_raster(tmp_path / "a.tif")
    assert tile("a.tif", "--size", 50) == 0
    capsys.readouterr()
    assert tile("a_tiles", "--size", 25, "--out", "b") == 3
    assert capsys.readouterr().err == ("segcli: a_tiles: tiles; expected rasters to cut; --join puts tiles together; "
                                       "to cut them again, name the files\n")  # fmt: skip
    assert tile("a_tiles/a_r00000_c00000.tif", "--size", 25, "--out", "b") == 0


def test_a_plan_is_an_object_for_each_raster(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    """Its time follows the tiles, its bytes are those that a run writes."""
    write_raster(tmp_path / "a.tif", 64, 64)
    write_raster(tmp_path / "b.tif", 640, 640)
    (tmp_path / "bad.tif").write_bytes(b"no raster")
    assert tile("a.tif", "b.tif", "bad.tif", "--size", 32, "--out", "d", "--dry-run", "--json") == 1
    one, other, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert (one["source"], one["status"], one["outputs"], one["tiles"]) == ("a.tif", "to do", ["d"], 4)
    assert (other["tiles"], other["left_out"], other["pixels"]) == (400, 0, 640 * 640)
    assert 0 < one["seconds"] < other["seconds"]
    assert bad["status"] == "would fail"
    assert not (tmp_path / "d").exists()
    assert tile("b.tif", "--size", 32, "--out", "d") == 0
    real = sum((tmp_path / "d" / entry["name"]).stat().st_size for entry in tiles_of(tmp_path / "d"))
    assert other["bytes"] == pytest.approx(real, rel=0.05)


# Polygons


def test_codes_are_names_and_odd_digits_no_numbers(tmp_path: Path, tile: Tile) -> None:
    write_raster(tmp_path / "a.tif")
    boxes = [shapely.box(500_020 + 40 * n, 5_299_880, 500_040 + 40 * n, 5_299_980) for n in range(3)]
    write_polygons(tmp_path / "p.geojson", list(zip(boxes, ("01", "02", "²"), strict=True)), "EPSG:32633")
    assert tile("a.tif", "--masks", "p.geojson", "--out", "d") == 0
    table = json.loads((tmp_path / "d" / "classes.json").read_text())["classes"]
    assert [entry["name"] for entry in table] == ["background", "01", "02", "²"]
    assert tiles_of(tmp_path / "d")[0]["pixels"] == {"0": 10_500, "1": 500, "2": 500, "3": 500}


def test_polygons_that_miss_the_image_are_said(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    write_raster(tmp_path / "a.tif")
    write_polygons(tmp_path / "p.geojson", [(shapely.box(0, 0, 1, 1), "pond"), (shapely.box(3, 3, 4, 4), "roof")])
    assert tile("a.tif", "--masks", "p.geojson", "--out", "d") == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "p.geojson: none of its 2 polygons lies on a"
    assert "p.geojson: nothing but background in any tile" in said
    assert not any("cannot keep" in line for line in said)
    points = [GroundControlPoint(row, col, 15 + col / 1e4, 47 - row / 1e4) for row in (0, 100) for col in (0, 120)]
    write_raster(tmp_path / "g.tif", transform=None, crs="EPSG:4326", gcps=points)
    assert tile("g.tif", "--masks", "p.geojson", "--out", "g") == 1
    assert "p.geojson: polygons in EPSG:4326; the image has control points alone" in capsys.readouterr().err


def test_names_and_tables_of_values_are_said_to_be_lost(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    """GDAL has both in an .aux.xml; statistics alone are no loss."""
    write_raster(tmp_path / "a.tif")
    names = "<CategoryNames><Category>bare</Category></CategoryNames>"
    for name, text in (("plain", "<Histograms/>"), ("named", f"{names}<GDALRasterAttributeTable/>")):
        band = f'<PAMRasterBand band="1">{text}</PAMRasterBand>'
        (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
        assert tile("a.tif", "--size", 64, "--out", name) == 0
        said = capsys.readouterr().err
        for lost in ("category names", "raster attribute table"):
            assert (f"a.tif: tiles cannot keep its {lost}" in said) == (name == "named")


def test_attributes_and_world_files_are_part_of_what_is_read(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a shapefile whose classes were swapped the .dbf alone changes."""
    write_raster(tmp_path / "a.tif")
    shapes = [shapely.box(west, 5_299_900, west + 40, 5_299_990) for west in (500_010, 500_100)]
    pyogrio.raw.write(
        str(tmp_path / "f.shp"), shapely.to_wkb(np.array(shapes)), [np.array(["pond", "road"])], ["class"],
        geometry_type="Polygon", crs="EPSG:32633",
    )  # fmt: skip
    cut = ("a.tif", "--masks", "f.shp", "--size", 64, "--out", "d")
    assert tile(*cut) == 0
    found = (tmp_path / "f.dbf").read_bytes()
    swapped = found.replace(b"pond", b"____").replace(b"road", b"pond").replace(b"____", b"road")
    (tmp_path / "f.dbf").write_bytes(swapped)
    capsys.readouterr()
    assert tile(*cut) == 1
    assert "was changed since its tiles in d were written" in capsys.readouterr().err


def test_sidecars_are_those_that_say_what_a_file_means(tmp_path: Path) -> None:
    for name in ("a.tif", "a.tfw", "a.TIFW", "a.jgw", "a.dbf", "a.tif.aux.xml", "a.tif.ovr", "a.shp", "a.prj", "b.tfw"):
        (tmp_path / name).touch()
    assert {path.name for path in sidecars(tmp_path / "a.tif")} == {"a.tfw", "a.TIFW", "a.prj", "a.tif.aux.xml"}
    assert {path.name for path in sidecars(tmp_path / "a.shp")} == {"a.dbf", "a.prj"}
    assert sidecars(tmp_path / "none") == ()


def test_long_edges_of_another_reference_system_are_bent(tmp_path: Path, tile: Tile) -> None:
    """A parallel is no straight line in UTM; of a polygon around the earth the corners have no place there at all."""
    place = from_origin(300_000, 5_300_000, 400, 400)  # 40 km at 47.5 degrees north, 170 km beside the middle meridian
    write_raster(tmp_path / "a.tif", transform=place)
    south = 47.7
    world = shapely.box(-180, -90, 180, 90)
    write_polygons(tmp_path / "p.geojson", [(world, "1"), (shapely.box(-60, south, 60, 80), "2")])
    assert tile("a.tif", "--masks", "p.geojson", "--size", 120, "--edge", "keep", "--out", "d") == 0
    with rasterio.open(tmp_path / "d" / "masks" / "a_r00000_c00000.tif") as file:
        found = file.read(1)
    expected = np.ones((100, 120), np.uint8)
    for row in range(100):
        for col in (0, 40, 80, 119):
            x, y = place @ (col + 0.5, row + 0.5)
            point = transform_geom("EPSG:32633", "EPSG:4326", {"type": "Point", "coordinates": (x, y)})
            expected[row, col] = 2 if point["coordinates"][1] > south else 1
    for col in (0, 40, 80, 119):
        assert (found[:, col] != expected[:, col]).sum() <= 1
    assert 0 < (found == 2).sum() < found.size


# Splits of many rasters


def test_small_images_are_dealt_whole(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is one tile, or four that touch: nothing is left out, and the shares are those of all."""
    for n in range(20):
        write_picture(tmp_path / "in" / f"{n:02d}.png", np.full((64, 64, 3), n, np.uint8))
    for size, folder in ((64, "one"), (32, "four")):
        assert tile("in", "--size", size, "--split", "0.8/0.1/0.1", "--out", folder) == 0
        tiles = tiles_of(tmp_path / folder)
        by_raster = {(Path(entry["name"]).name[:2], entry["split"]) for entry in tiles}
        assert len(tiles) == 20 * (64 // size) ** 2
        assert len(by_raster) == 20
        splits = [split for _, split in by_raster]
        assert [splits.count(split) for split in ("train", "val", "test")] == [16, 2, 2]
    assert "tiles 80  train 64  val 8  test 8" in capsys.readouterr().err
    assert tile("in", "--size", 64, "--split", "0.8/0.1/0.1", "--seed", 1, "--out", "other") == 0
    names = [{entry["name"] for entry in tiles_of(tmp_path / folder)} for folder in ("one", "other")]
    assert names[0] != names[1]
    assert tile("in/00.png", "--size", 64, "--split", "0.8/0.2", "--out", "alone") == 0
    assert "tiles 1  train 1  val 0" in capsys.readouterr().err


def test_a_raster_keeps_its_split_when_others_come(tmp_path: Path, tile: Tile) -> None:
    for n in range(12):
        write_picture(tmp_path / "in" / f"{n:02d}.png", np.full((64, 64, 3), n, np.uint8))
    chosen = ("--size", 32, "--split", "0.6/0.4", "--out", "d")
    assert tile("in", *chosen) == 0
    before = {entry["name"] for entry in tiles_of(tmp_path / "d")}
    for name in sorted(before)[::3]:
        (tmp_path / "d" / name).unlink()
    for n in range(12, 20):
        write_picture(tmp_path / "in" / f"{n:02d}.png", np.full((64, 64, 3), n, np.uint8))
    assert tile("in/00.png", *chosen) == 0
    assert tile("in", *chosen) == 0
    after = {entry["name"] for entry in tiles_of(tmp_path / "d")}
    assert before < after == {name for name in files_in(tmp_path / "d") if name != "tiles.json"}
    assert len({(Path(name).name[:2], name.split("/")[0]) for name in after}) == 20


def test_rasters_of_one_place_are_of_one_split(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(8):
        for year in (1, 2):
            place = from_origin(500_000 + 1000 * n + 20 * year, 5_300_000, 2, 2)
            write_raster(tmp_path / "in" / f"{n}_{year}.tif", 64, 64, transform=place)
    assert tile("in", "--size", 64, "--split", "0.5/0.5", "--out", "d") == 0
    found = {Path(entry["name"]).name[:3]: entry["split"] for entry in tiles_of(tmp_path / "d")}
    assert all(found[f"{n}_1"] == found[f"{n}_2"] for n in range(8))
    assert [*found.values()].count("train") == 8
    assert "adjoin" not in capsys.readouterr().err
    write_raster(tmp_path / "in" / "9_1.tif", 64, 64, transform=from_origin(500_168, 5_300_000, 2, 2))
    outcomes = []  # it adjoins the second raster, and lies beside the first
    for seed in range(8):
        assert tile("in", "--size", 64, "--split", "0.5/0.5", "--seed", seed, "--out", f"e{seed}") == 0
        found = {Path(entry["name"]).name[:3]: entry["split"] for entry in tiles_of(tmp_path / f"e{seed}")}
        outcomes.append("in/0_2.tif and in/9_1.tif adjoin or overlap" in capsys.readouterr().err)
        assert outcomes[-1] == (found["9_1"] != found["0_2"])
    assert {*outcomes} == {True, False}


def test_dealing_keeps_to_the_shares() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 30, 300).tolist()
    got = deal(sizes, (0.7, 0.2, 0.1), 3, [None] * 300, [None] * 300)
    tiles = np.bincount([split for split in got if split is not None], sizes, 3)
    np.testing.assert_allclose(tiles / sum(sizes), (0.7, 0.2, 0.1), atol=0.01)
    assert got == deal(sizes, (0.7, 0.2, 0.1), 3, [None] * 300, [None] * 300)
    assert got != deal(sizes, (0.7, 0.2, 0.1), 4, [None] * 300, [None] * 300)
    assert deal([400, 1, 1], (0.8, 0.2), 0, [None] * 3, [None] * 3)[0] is None  # large enough to be split
    assert sorted(map(str, deal([1, 1, 1], (0.8, 0.1, 0.1), 0, [None] * 3, [None] * 3))) == ["0", "1", "2"]
    for part in (40, 299):  # known from a run that was killed
        assert deal(sizes, (0.7, 0.2, 0.1), 3, [None] * 300, [*got[:part], *[None] * (300 - part)]) == got
    assert deal([1] * 4, (0.5, 0.5), 0, [None] * 4, [1, 1, NONE, None]) == [1, 1, None, 0]


def test_places_that_overlap_are_linked() -> None:
    boxes = [(0.0, 0.0, 2.0, 2.0), (2.0, 0.0, 4.0, 2.0), (3.0, 1.0, 5.0, 3.0), None, (4.5, 2.5, 6.0, 6.0), None]
    assert overlapping(boxes) == [0, 1, 1, 3, 1, 5]
    assert meeting(boxes, [0, 1, 1, 0, 1, 0], [(9, 9)] * 6) == [(0, 1)]
    alike = [(0, 1), (0, 3), (1, 2), (2, 3)]  # not those of one place
    assert meeting(boxes[:2] * 2, [None] * 4, [(9, 9)] * 4) == alike
    assert meeting(boxes[:2] * 2, [None] * 4, [(9, 9), (9, 9), (4, 4), (9, 9)]) == [(0, 1), (0, 2), *alike[1:]]


def test_a_sample_keeps_to_the_shares(tmp_path: Path, tile: Tile) -> None:
    write_raster(tmp_path / "a.tif", 640, 640)
    chosen = ("--size", 32, "--split", "0.6/0.2/0.2", "--sample", 20)
    assert tile("a.tif", *chosen, "--out", "d") == 0
    splits = [entry["split"] for entry in tiles_of(tmp_path / "d")]
    assert [splits.count(split) for split in ("train", "val", "test")] == [12, 4, 4]
    assert quotas(10, [100, 1, 100], (0.6, 0.2, 0.2)) == [7, 1, 2]
    assert quotas(10, [3, 0, 2], (0.6, 0.2, 0.2)) == [3, 0, 2]


# Joining


def test_masks_are_written_while_no_other_thread_is_at_work(
    tmp_path: Path, tile: Tile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL's cache is one for all threads, and they would write a mask's blocks while its file is closed."""
    from segcli.raster.readers import GdalReader
    from segcli.tiling import cutting

    threads: set[int] = set()
    read, write = GdalReader.read, cutting.write_whole

    def reading(self: GdalReader, *arguments: Any) -> Any:
        threads.add(threading.get_ident())
        return read(self, *arguments)

    def writing(*arguments: Any) -> None:
        threads.add(threading.get_ident())
        write(*arguments)

    monkeypatch.setattr(GdalReader, "read", reading)
    monkeypatch.setattr(cutting, "write_whole", writing)
    write_raster(tmp_path / "a.tif", 300, 300)
    assert tile("a.tif", "--size", 64, "--edge", "pad", "--jobs", 3) == 0
    assert len(threads) == 1
    (tmp_path / "a_tiles" / "a_r00000_c00000.tif").unlink()
    threads.clear()
    assert tile("a_tiles", "--join", "--allow-missing", "--jobs", 3, "--out", "b.tif") == 0
    assert len(threads) == 1
    threads.clear()
    assert tile("a.tif", "--size", 64, "--jobs", 3, "--out", "plain") == 0
    assert len(threads) > 3


def test_the_next_raster_is_opened_while_no_mask_is_written(
    tmp_path: Path, tile: Tile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried out whether its tiles keep all of it, by a file with a mask."""
    from segcli import tile as verb
    from segcli.tiling import joining

    at_work, together = [0], []

    def watched(where: Any, name: str) -> None:
        of_old = getattr(where, name)

        def watching(*arguments: Any, **more: Any) -> Any:
            at_work[0] += 1
            together.append(at_work[0])
            time.sleep(0.02)
            try:
                return of_old(*arguments, **more)
            finally:
                at_work[0] -= 1

        monkeypatch.setattr(where, name, watching)

    for where, name in ((planning, "losses"), (verb, "cut"), (verb, "not_kept"), (joining, "join")):
        watched(where, name)
    for n in range(4):
        write_raster(tmp_path / "in" / f"{n}.tif", 100, 100, n)
    assert tile("in", "--size", 64, "--edge", "pad", "--out", "d") == 0
    assert tile("d", "--join", "--out", "e") == 0
    assert (len(together), max(together)) == (16, 1)


def test_a_sample_of_other_rasters_is_another_sample(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = ("in", "--size", 32, "--sample", 6, "--out", "d")
    write_raster(tmp_path / "in" / "0.tif")
    assert tile(*cut) == tile(*cut) == 0
    write_raster(tmp_path / "in" / "1.tif", seed=1)
    capsys.readouterr()
    assert tile(*cut, "--json") == 2
    said = capsys.readouterr().err
    assert re.search(r"d: holds tiles of other options: sample_of 1 rasters \(\w+\), now 2 rasters", said), said
    assert len(list((tmp_path / "d").glob("*.tif"))) == 6
    assert tile(*cut, "--overwrite") == 0
    assert len(list((tmp_path / "d").glob("*.tif"))) == 6


def test_a_join_goes_to_a_folder_with_a_date_for_a_name(tmp_path: Path, tile: Tile) -> None:
    write_raster(tmp_path / "0.tif")
    assert tile("0.tif", "--size", 64) == 0
    assert tile("0_tiles", "--join", "--out", "2024.05.01") == 0
    assert (tmp_path / "2024.05.01" / "0.tif").exists()


def test_a_tile_of_another_place_is_foreign(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    write_raster(tmp_path / "a.tif")
    assert tile("a.tif", "--size", 50, "--edge", "keep") == 0
    folder = tmp_path / "a_tiles"
    (folder / "a_r00000_c00000.tif").write_bytes((folder / "a_r00050_c00050.tif").read_bytes())
    assert tile("a_tiles", "--join", "--out", "b.tif") == 1
    assert "a_r00000_c00000.tif: lies elsewhere on earth than the tile of its name" in capsys.readouterr().err
    assert not (tmp_path / "b.tif").exists()
    folder.joinpath("tiles.json").rename(tmp_path / "tiles.json")  # now they are what some program made
    assert tile("a_tiles", "--join", "--out", "b.tif") == 0
    said = "b.tif: 1 files say that they lie elsewhere on earth than their tiles: a_tiles/a_r00000_c00000.tif"
    assert said in capsys.readouterr().err.splitlines()


def test_a_join_is_done_once(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        write_raster(tmp_path / f"{name}.tif")
    assert tile("a.tif", "b.tif", "--size", 50, "--out", "d") == 0
    for closing in ("done 2  up to date 0  failed 0", "done 0  up to date 2  failed 0"):
        assert tile("d", "--join", "--out", "e") == 0
        assert capsys.readouterr().err.splitlines()[-1] == closing
    write_raster(tmp_path / "d" / "a_r00000_c00000.tif", 50, 50, seed=5)
    assert tile("d", "--join", "--out", "e") == 0
    assert capsys.readouterr().err.splitlines()[-1] == "done 1  up to date 1  failed 0"


def test_a_join_of_another_scene_of_that_name_is_kept(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    for n, site in enumerate("ab"):
        (tmp_path / site).mkdir()
        write_raster(tmp_path / site / "x.tif", seed=n)
        assert tile(f"{site}/x.tif", "--size", 50, "--out", f"t{site}") == 0
    assert tile("ta", "--join", "--out", "e") == 0
    before = (tmp_path / "e" / "x.tif").read_bytes()
    assert tile("tb", "--join", "--out", "e") == 1
    assert re.search(r"e/x\.tif: was made of .*/ta/tiles\.json; not of x", capsys.readouterr().err)
    assert (tmp_path / "e" / "x.tif").read_bytes() == before
    shutil.rmtree(tmp_path / "ta")
    assert tile("tb", "--join", "--out", "e") == 0


def test_what_segcli_wrote_beside_masks_is_no_tile(tmp_path: Path, tile: Tile) -> None:
    """Scores of the masks, and what an earlier join left in their folder."""
    write_raster(tmp_path / "a.tif")
    assert tile("a.tif", "--size", 50, "--out", "t") == 0
    made = [tmp_path / "t" / record["name"] for record in tiles_of(tmp_path / "t")]
    (tmp_path / "m" / "confidence").mkdir(parents=True)
    with manifest.opened(tmp_path / "m", "predict", TileOptions((), None)) as record:
        for path in made:
            outputs = [tmp_path / "m" / path.name, tmp_path / "m" / "confidence" / path.name]
            for output in outputs:
                shutil.copy(path, output)
            record.add(path, outputs, [path])
    for _ in range(2):
        assert tile("m", "--join", "--manifest", "t", "--out", "m") == 0
    for _ in range(2):
        assert tile("t", "--join", "--out", "t") == 0
    assert tile("t", "--join", "--out", "elsewhere.tif") == 0
    write_raster(tmp_path / "m" / "a.tif", seed=3)  # the user's own
    assert tile("m", "--join", "--manifest", "t", "--out", "m") == 2


def test_a_join_writes_over_nothing_that_was_cut(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever --overwrite says, but where the raster was moved away."""
    source = write_raster(tmp_path / "a.tif")
    before = source.read_bytes()
    assert tile("a.tif", "--size", 50, "--out", "t") == 0
    capsys.readouterr()
    for out in (".", "a.tif", "t/a_r00000_c00000.tif"):
        assert tile("t", "--join", "--out", out, "--overwrite") == 2
        assert "is an input, and would be overwritten; choose another --out" in capsys.readouterr().err
    assert source.read_bytes() == before
    source.unlink()
    for _ in range(2):
        assert tile("t", "--join", "--out", ".") == 0
    assert source.exists()


def test_a_file_is_for_one_raster(tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        write_raster(tmp_path / f"{name}.tif")
    assert tile("a.tif", "b.tif", "--size", 50, "--out", "d") == 0
    capsys.readouterr()
    assert tile("d", "--join", "--out", "both.tif") == 2
    assert (
        "both.tif: a file; expected a folder for the outputs; a file name is for one raster" in capsys.readouterr().err
    )
    assert not (tmp_path / "both.tif").exists()


def test_the_name_of_a_raster_stays_in_the_folder(tmp_path: Path, tile: Tile) -> None:
    """tiles.json may come from anywhere."""
    write_raster(tmp_path / "in" / "a.tif")
    assert tile("in/a.tif", "--size", 50, "--out", "in/d") == 0
    path = tmp_path / "in" / "d" / "tiles.json"
    values = json.loads(path.read_text())
    values["sources"][0]["name"] = "../../evil"
    path.write_text(json.dumps(values))
    assert tile("in/d", "--join", "--out", "in/e") == 2
    assert not list(tmp_path.rglob("evil*"))


# What tiles say of their pixels


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_nodata_of_64_bits_is_kept(tmp_path: Path, tile: Tile, dtype: str) -> None:
    """Through a float it would be lost, and what fills up the last tiles would be data."""
    pixels = np.full((1, 40, 40), 3, dtype)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=1, height=40, width=40, dtype=dtype, nodata=7, **PLACE
    ) as file:
        file.write(pixels)
    assert tile("a.tif", "--size", 32, "--edge", "pad", "--out", "t") == 0
    with rasterio.open(tmp_path / "t" / "a_r00032_c00032.tif") as file:
        assert file.nodata == 7
        assert np.array_equal(file.dataset_mask()[:9, :9] > 0, np.pad(np.ones((8, 8), bool), (0, 1)))


def test_a_palette_stays_one_to_other_readers(tmp_path: Path, tile: Tile) -> None:
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=1, height=40, width=40, dtype="uint8", **PLACE
    ) as file:
        file.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 0, 0, 255)})
        file.write(np.ones((1, 40, 40), np.uint8))
    assert tile("a.tif", "--size", 32, "--out", "t") == 0
    with tifffile.TiffFile(tmp_path / "t" / "a_r00000_c00000.tif") as tiff:
        assert tiff.pages[0].photometric == tifffile.PHOTOMETRIC.PALETTE


def test_folders_are_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(30):
        write_raster(tmp_path / "in" / f"{n}_r0_c0.tif", 8, 8)  # as a tile may be called
    seen: list[Path] = []
    monkeypatch.setattr(planning, "accounts", lambda folder: seen.append(folder) or [])
    assert len(planning.find_targets(TileOptions((tmp_path / "in",), tmp_path / "d"))) == 30
    assert len(seen) == 1


def test_leftovers_are_looked_for_once(tmp_path: Path, tile: Tile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each raster: there may be tens of thousands. What a killed run left goes all the same."""
    for n in range(5):
        write_raster(tmp_path / "in" / f"{n}.tif", 8, 8)
    left, others = (tmp_path / "d" / f".{name}_r00000_c00000.tif.segcli-part" for name in ("3", "9"))
    for path in (left, others):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    seen: list[Path] = []
    whole = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: [seen.append(path), *whole(path)][1:])
    assert tile("in", "--size", 8, "--out", "d") == 0
    assert [path.name for path in seen].count("d") == 1
    assert (left.exists(), others.exists()) == (False, True)


def test_another_run_may_write_the_same_class_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same moment, under the same name for what is not whole yet."""
    table = ClassTable.from_indices([0, 1])
    text = json.dumps(table.to_json(), indent=1) + "\n"

    @contextmanager
    def taken_away(path: Path, _: object) -> Iterator[Path]:
        yield path.with_name("part")
        path.write_text(text)
        raise InputError(path, "cannot be written: No such file or directory")

    monkeypatch.setattr("segcli.tile.replacing", taken_away)
    labels = mock.Mock(classes=table)
    write_classes(tmp_path, labels, TileOptions((), tmp_path))
    (tmp_path / "classes.json").unlink()
    text = "{}"
    with pytest.raises(InputError):
        write_classes(tmp_path, labels, TileOptions((), tmp_path))


def test_control_points_of_points_stay_where_they_are(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    """GDAL moves them by a pixel where it writes such a raster in rows."""
    places = [(0.5, 0.5), (0.5, 39), (39, 1)]
    points = tuple(GroundControlPoint(row, col, 10 + col / 60, 50 - row / 60) for row, col in places)
    tags = {"AREA_OR_POINT": "Point"}
    like = Stored(1, "uint8", None, ("gray",), None, ("",), (1.0,), (0.0,), ("",), None, False, tags, ({},))
    grid = Grid(40, 40, gcps=points, gcps_crs=CRS.from_epsg(4326))
    write_whole(tmp_path / "a.tif", tmp_path / "a.tif", np.ones((1, 40, 40), np.uint8), None, grid, like, "NONE")
    assert tile("a.tif", "--size", 32, "--out", "t") == 0
    assert tile("t", "--join", "--out", "again") == 0
    assert "control points are where they were" in capsys.readouterr().err
    for name in ("a.tif", "again/a.tif"):
        with rasterio.open(tmp_path / name) as file:
            assert [(point.row, point.col) for point in file.gcps[0]] == places


def test_a_tile_that_somebody_changed_is_not_cut_anew(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels are corrected in it."""
    write_raster(tmp_path / "a.tif")
    assert tile("a.tif", "--size", 50, "--out", "t") == 0
    changed = tmp_path / "t" / "a_r00000_c00000.tif"
    with changed.open("ab") as file:
        file.write(b"x")
    before = changed.read_bytes()
    assert tile("a.tif", "--size", 50, "--out", "t") == 1
    assert "a_r00000_c00000.tif: was changed since segcli wrote it; choose another --out" in capsys.readouterr().err
    assert changed.read_bytes() == before
    assert tile("a.tif", "--size", 50, "--out", "t", "--overwrite") == 0


@pytest.mark.parametrize("around", [0.0, 360.0])
def test_neighbours_are_those_that_comparing_each_with_each_finds(rng: np.random.Generator, around: float) -> None:
    """Of boxes that overlap, adjoin, or lie nowhere; of longitudes also over the antimeridian."""
    low = rng.integers(-18, 18, (300, 2)) * (10.0, 5.0)
    boxes = np.concatenate([low, low + rng.choice([5.0, 10.0, 40.0], (300, 2))], axis=1)
    boxes[rng.random(300) < 0.1] = np.nan
    places = [None if np.isnan(box[0]) else tuple(box.tolist()) for box in boxes]
    within = 1e-6 * np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    west, south, east, north = boxes.T

    def reached(n: int, margin: np.ndarray) -> np.ndarray:
        found = [(west + turn - margin <= east[n]) & (east + turn + margin >= west[n]) for turn in (-around, 0, around)]
        return np.any(found, axis=0) & (south - margin <= north[n]) & (north + margin >= south[n])

    splits = rng.integers(0, 2, 300).tolist()
    expected = [(n, int(m)) for n in range(300) for m in np.flatnonzero(reached(n, within))
                if m > n and splits[n] != splits[m] and np.abs(boxes[n] - boxes[m]).max() > within[m]]  # fmt: skip
    assert len(expected) > 100
    assert meeting(places, splits, [(64, 64)] * 300, around) == expected
    pieces = connected_components(np.array([reached(n, -within) for n in range(300)]), connection="weak")[1]
    first = [int(np.flatnonzero(pieces == piece)[0]) for piece in pieces]
    assert len(set(first)) > 30
    assert overlapping(places, around) == first


@pytest.mark.parametrize("bands", [1, 2])
def test_masks_that_bands_have_of_their_own_stay(tmp_path: Path, tile: Tile, bands: int) -> None:
    """As VRTs have them, and files with a mask for each band: what is no data in all of them is none in the tiles."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 200, (bands, 60, 80), np.uint8)
    valid = rng.random((bands, 60, 80)) > 0.3
    for name, values in (("pixels", pixels), ("masks", valid.astype(np.uint8) * 255)):
        with rasterio.open(tmp_path / f"{name}.tif", "w", "GTiff", 80, 60, bands, dtype="uint8", crs="EPSG:32633",
                           transform=from_origin(500_000, 5_000_000, 2, 2)) as file:  # fmt: skip
            file.write(values)
    band = (
        '<VRTRasterBand dataType="Byte" band="{n}"><SimpleSource><SourceFilename relativeToVRT="1">pixels.tif'
        '</SourceFilename><SourceBand>{n}</SourceBand></SimpleSource><MaskBand><VRTRasterBand dataType="Byte">'
        '<SimpleSource><SourceFilename relativeToVRT="1">masks.tif</SourceFilename><SourceBand>{n}</SourceBand>'
        "</SimpleSource></VRTRasterBand></MaskBand></VRTRasterBand>"
    )
    place = "<SRS>EPSG:32633</SRS><GeoTransform>500000, 2, 0, 5000000, 0, -2</GeoTransform>"
    inside = "".join(band.format(n=n + 1) for n in range(bands))
    (tmp_path / "a.vrt").write_text(f'<VRTDataset rasterXSize="80" rasterYSize="60">{place}{inside}</VRTDataset>')
    assert tile("a.vrt", "--size", 50, "--overlap", 10) == 0
    for row, col in ((0, 0), (10, 30)):
        with rasterio.open(tmp_path / "a_tiles" / f"a_r{row:05}_c{col:05}.tif") as file:
            found = file.dataset_mask() > 0
        assert np.array_equal(found, valid.any(0)[row : row + 50, col : col + 50])
    assert tile("a_tiles", "--join", "--out", "b.tif") == 0
    with rasterio.open(tmp_path / "b.tif") as file:
        assert np.array_equal(file.dataset_mask() > 0, valid.any(0))


@pytest.mark.parametrize(("said", "odd"), [
    ((None, 0, None, None), 1), ((0, None, None, None), 1), ((255, 0, 255, 255), 1), ((0, 255, 0, 0), 1),
    ("mask of 1", 1), ("mask of 0", 0), ("own", 2),
])  # fmt: skip
def test_tiles_agree_on_what_is_no_data(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str], said: Any, odd: int
) -> None:
    """Else missing pixels would become a class, or a class be missing, without a word."""
    pixels = np.random.default_rng(0).integers(0, 4, (1, 200, 200), np.uint8)
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 2, 2), "dtype": "uint8"}
    with rasterio.open(tmp_path / "s.tif", "w", "GTiff", 200, 200, 1, nodata=255, **place) as file:
        file.write(pixels)
    assert tile("s.tif", "--size", 100) == 0
    tiles = sorted((tmp_path / "s_tiles").glob("*.tif"))
    (tmp_path / "found").mkdir()
    folder = "s_tiles" if said == "own" else "found"
    for n, path in enumerate(tiles):
        with rasterio.open(path) as file:
            values, profile = file.read(), file.profile
        nodata = (255 if n != odd else 7) if said == "own" else None if isinstance(said, str) else said[n]
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(tmp_path / folder / path.name, "w", **(profile | {"nodata": nodata})) as file,
        ):
            file.write(values)
            if said == f"mask of {n}":
                file.write_mask(np.arange(10_000).reshape(100, 100) % 2 == 0)
    capsys.readouterr()
    assert tile(folder, "--join", "--manifest", "s_tiles", "--out", "j.tif") == 1
    text = capsys.readouterr().err
    assert f"{tiles[odd].name}: " in text, text
    assert "the other tiles have" in text
    assert not (tmp_path / "j.tif").exists()


def test_a_raster_that_was_cut_anew_is_joined_as_it_is_now(
    tmp_path: Path, tile: Tile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the run that did it was killed at the next one, so that tiles.json tells of the old ones."""
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 2, 2), "dtype": "uint8"}

    def write(name: str, value: int, **more: object) -> None:
        (tmp_path / "in").mkdir(exist_ok=True)
        with rasterio.open(tmp_path / "in" / f"{name}.tif", "w", "GTiff", 150, 150, 1, **place, **more) as file:
            file.write(np.full((1, 150, 150), value, np.uint8))
            file.update_tags(DAY=str(value))

    for name in "ab":
        write(name, 3)
    assert tile("in", "--out", "t", "--size", 100) == 0
    write("a", 5, nodata=0)
    whole = cutting.cut

    def killed(work: Any, *more: Any) -> None:
        if work.scene.name == "b":
            raise KeyboardInterrupt
        whole(work, *more)

    monkeypatch.setattr("segcli.tile.cut", killed)
    assert tile("in", "--out", "t", "--size", 100, "--overwrite") == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert tile("t", "--join", "--out", "j") == 1  # b's tiles are gone
    assert "b: 4 of 4 tiles are missing" in capsys.readouterr().err
    with rasterio.open(tmp_path / "j" / "a.tif") as file:
        assert (file.nodata, file.tags()["DAY"], set(np.unique(file.read()))) == (0, "5", {5})


@pytest.mark.parametrize("way", ["linked folder", "dangling link"])
def test_links_below_the_folder_of_tiles_are_looked_through(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    """What they lead to is an input, which --overwrite spares; and a link that leads nowhere is somebody's."""
    for name in ("x", "x_r00000_c00000"):
        for folder in ("in", "m"):
            write_picture(tmp_path / folder / f"{name}.png", np.full((60, 60), len(name) % 4, np.uint8))
    before = (tmp_path / "in" / "x_r00000_c00000.png").read_bytes()
    (tmp_path / "out").mkdir()
    if way == "linked folder":
        (tmp_path / "out" / "images").symlink_to("../in")
        assert tile("in", "--masks", "m", "--size", 300, "--edge", "keep", "--out", "out", "--overwrite") == 1
        assert "is an input, and would be overwritten" in capsys.readouterr().err
    else:
        link = tmp_path / "out" / "x_r00000_c00000.png"
        link.symlink_to("/nowhere/x")
        assert tile("in/x.png", "--size", 300, "--edge", "keep", "--out", "out") == 1
        assert "exists, and segcli did not write it" in capsys.readouterr().err
        assert link.is_symlink()
    assert (tmp_path / "in" / "x_r00000_c00000.png").read_bytes() == before


def test_an_overlap_without_end_is_refused(refused: Callable[..., str]) -> None:
    assert "--overlap: found inf; expected 0 to 511 pixels" in refused("tile", "a.png", "--overlap", "inf")


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_a_class_table_that_lies_among_the_tiles_stays_what_it_is(
    tmp_path: Path, tile: Tile, more: tuple[str, ...]
) -> None:
    """With what else its owner has written into it."""
    write_picture(tmp_path / "a.png", np.zeros((40, 40, 3), np.uint8))
    write_picture(tmp_path / "m.png", np.eye(40, dtype=np.uint8))
    table = {"classes": [{"index": 0, "name": "ground"}, {"index": 1, "name": "line"}], "note": "by hand"}
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "classes.json").write_text(json.dumps(table))
    given = ("--masks", "m.png", "--classes", "t/classes.json", "--size", 20, "--out", "t", *more)
    assert tile("a.png", *given) == 0
    assert json.loads((tmp_path / "t" / "classes.json").read_text()) == table


def test_a_padded_tile_that_no_memory_holds_is_named(
    tmp_path: Path, tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(tmp_path / "a.png", np.zeros((40, 40, 3), np.uint8))
    assert tile("a.png", "--size", 99_999_999_999, "--edge", "pad") == 1
    assert "a.png: out of memory; free some, or give a smaller --size" in capsys.readouterr().err
