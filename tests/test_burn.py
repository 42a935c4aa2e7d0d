"""Polygons as masks: where they lie, what they are, and training on them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from helpers import write_picture
from rasterio.transform import from_origin
from rasterio.warp import transform, transform_geom

from segcli.classes import ClassEntry, ClassTable
from segcli.errors import InputError, UsageError
from segcli.network.normalise import Normalisation
from segcli.raster.burn import burnt, kinds_in, table_of_kinds
from segcli.raster.ellipsoid import in_other_degrees, transformed
from segcli.raster.grid import Grid
from segcli.raster.source import Source
from segcli.training.labels import Labels, find_classes
from segcli.training.pairs import find_pairs
from segcli.training.sampling import Reading
from segcli.training.survey import survey

Program = Callable[..., subprocess.CompletedProcess[str]]

TABLE = ClassTable(
    (ClassEntry(0, "background", (0, 0, 0)), ClassEntry(2, "pond", (1, 2, 3)), ClassEntry(5, "roof", (4, 5, 6)))
)


def write_shapes(path: Path, shapes: list[tuple[object, object]], crs: str | None = None, key: str = "class") -> Path:
    """Polygons with what they are; GeoJSON by hand, other formats by pyogrio."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".geojson":
        features = [{"type": "Feature", "properties": {key: kind}, "geometry": shapely.geometry.mapping(shape)}
                    for shape, kind in shapes]  # fmt: skip
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        return path
    import pyogrio.raw

    polygons = np.array([shapely.to_wkb(shape) for shape, _ in shapes], object)
    kinds = np.array([kind for _, kind in shapes], object)
    pyogrio.raw.write(path, polygons, [kinds], [key], geometry_type="Polygon", crs=crs, driver="GPKG")
    return path


def whole(source: Source) -> np.ndarray:
    with source:
        return source.window(0, 0, source.grid.height, source.grid.width)[0]


def test_polygons_in_pixels(tmp_path: Path) -> None:
    """On an image that lies nowhere coordinates are columns and rows; the later polygon is on top; a hole is a hole."""
    ring = shapely.Polygon([(2, 3), (12, 3), (12, 9), (2, 9)], [[(4, 5), (6, 5), (6, 7), (4, 7)]])
    path = write_shapes(tmp_path / "a.geojson", [(ring, "pond"), (shapely.box(10, 6, 15, 8), "roof")])
    expected = np.zeros((11, 20), np.uint8)
    expected[3:9, 2:12] = 2
    expected[5:7, 4:6] = 0
    expected[6:8, 10:15] = 5
    assert np.array_equal(whole(burnt(path, Grid(11, 20), TABLE)), expected)
    with burnt(path, Grid(11, 20), TABLE) as source:
        assert np.array_equal(source.window(5, 7, 4, 6)[0], expected[5:9, 7:13])
        strips = [strip.pixels[0] for strip in source.strips(4)]
    assert np.array_equal(np.concatenate(strips), expected)


def test_polygons_in_another_system(tmp_path: Path) -> None:
    grid = Grid(60, 50, rasterio.crs.CRS.from_epsg(32633), from_origin(500_000, 5_300_000, 10, 10))
    box = {"type": "Polygon", "coordinates": [[(500_100, 5_299_900), (500_300, 5_299_900), (500_300, 5_299_700),
                                               (500_100, 5_299_700), (500_100, 5_299_900)]]}  # fmt: skip
    expected = np.zeros((60, 50), np.uint8)
    expected[10:30, 10:30] = 5
    for crs, name in (("EPSG:4326", "a.geojson"), ("EPSG:3857", "a.gpkg"), ("EPSG:32633", "b.gpkg")):
        moved = shapely.geometry.shape(transform_geom("EPSG:32633", crs, box))
        path = write_shapes(tmp_path / name, [(moved, "5")], crs, key="label")
        assert np.array_equal(whole(burnt(path, grid, TABLE)), expected), name


@pytest.mark.parametrize("crs", ["EPSG:3995", "EPSG:3031", "EPSG:32660", "EPSG:32633", "EPSG:4326"])
def test_the_world_covers_an_image_wherever_it_lies(tmp_path: Path, crs: str) -> None:
    """Over a pole, over the antimeridian, and in degrees that go on after it; half of the world, half of the image."""
    place = {"EPSG:32660": (829_600, 300_000, 100), "EPSG:4326": (179.5, 10, 0.01)}.get(crs, (-4_800, 4_000, 100))
    grid = Grid(80, 96, rasterio.crs.CRS.from_user_input(crs), from_origin(place[0], place[1], place[2], place[2]))
    path = write_shapes(tmp_path / "world.geojson", [(shapely.box(-180, -90, 180, 90), "5")], "EPSG:4326", key="label")
    assert (whole(burnt(path, grid, TABLE)) == 5).all()
    path = write_shapes(tmp_path / "east.geojson", [(shapely.box(0, -90, 180, 90), "5")], "EPSG:4326", key="label")
    x, y = grid.transform @ (np.arange(96) + 0.5, np.full(96, 40.5))
    longitudes = np.array(transform(grid.crs, "EPSG:4326", x, y)[0])
    is_east = (longitudes % 360 < 180) & ~np.isclose(longitudes % 180, 0, atol=1e-3)
    found = whole(burnt(path, grid, TABLE))[40] == 5
    assert (found == is_east).mean() > 0.98
    assert crs == "EPSG:32633" or 0.1 < found.mean() < 0.9


@pytest.mark.parametrize("far", [1e6, 1e9, 1e10, 1e15, 1e100])
def test_polygons_that_reach_far_beyond_an_image_are_burnt(tmp_path: Path, far: float) -> None:
    """All of it, half of it, and one that goes by, whose box is all around."""
    grid = Grid(20, 30)
    shapes = [
        (shapely.box(-far, -far, far, far), "5"),
        (shapely.box(-far, -far, 15, far), "2"),
        (shapely.Polygon([(-far, -far), (far, -far), (far, -far / 2)]), "2"),
    ]
    found = whole(burnt(write_shapes(tmp_path / "a.geojson", shapes), grid, TABLE))
    assert (found == np.where(np.arange(30) < 15, 2, 5)).all()


def test_outlines_with_far_corners_are_burnt_as_they_run(tmp_path: Path, rng: np.random.Generator) -> None:
    """Through corners of what they are cut by, too, and where they cross themselves."""
    grid = Grid(20, 30)
    middles = shapely.points(*np.meshgrid(np.arange(30) + 0.5, np.arange(20) + 0.5))
    corners = np.array([(-1, -1), (31, -1), (31, 21), (-1, 21)])
    for _ in range(60):
        near = rng.integers(-5, 35, (rng.integers(2, 6), 2)).astype(float)
        angle, reach = rng.uniform(0, 2 * np.pi, 3), 10 ** rng.uniform(9.5, 11, 3)
        far = np.rint(np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None])
        points = rng.permutation(np.concatenate([near, corners[rng.integers(4, size=1)], far]))
        shape = shapely.make_valid(shapely.Polygon(points))
        found = whole(burnt(write_shapes(tmp_path / "a.geojson", [(shapely.Polygon(points), "5")]), grid, TABLE))
        clear = shapely.distance(middles, shape.boundary) > 0.01
        assert clear.mean() > 0.9
        assert np.array_equal(found[clear] == 5, shapely.intersects(shape, middles)[clear]), points.tolist()


@pytest.mark.parametrize("crs", ["EPSG:32760", "EPSG:32701", "EPSG:2193", "EPSG:3460", "EPSG:4322"])
def test_polygons_over_the_antimeridian_are_burnt_whole(tmp_path: Path, crs: str) -> None:
    """On an image in degrees that go on after 180, whatever system the polygons are in."""
    grid = Grid(40, 100, rasterio.crs.CRS.from_epsg(4326), from_origin(179.5, -17, 0.01, 0.01))
    edges = np.array(shapely.segmentize(shapely.box(179.7, -17.3, 180.3, -17.1), 0.01).exterior.coords)
    placed = in_other_degrees(edges, grid.crs, crs)
    box = shapely.Polygon(placed if placed is not None else transformed(edges, grid.crs, crs))
    expected = np.zeros((40, 100), np.uint8)
    expected[10:30, 20:80] = 5
    path = write_shapes(tmp_path / "a.gpkg", [(box, "5")], crs, key="label")
    found = whole(burnt(path, grid, TABLE))
    assert np.count_nonzero(found != expected) <= 40  # whose middles lie on an edge


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4269", "EPSG:3857", "+proj=longlat +R=6371000"])
def test_polygons_on_longitudes_from_0_to_360(tmp_path: Path, crs: str) -> None:
    """As models of the weather have them."""
    grid = Grid(40, 360, rasterio.crs.CRS.from_user_input(crs if crs != "EPSG:3857" else "EPSG:4326"),
                from_origin(0, 20, 1, 1))  # fmt: skip
    assert grid.bounds_in("EPSG:4326") == pytest.approx((0, -20, 360, 20), abs=0.2)
    boxes = [shapely.box(west, -10, west + 10, 10) for west in (-100, -5, 20)]
    if crs == "EPSG:3857":
        boxes = [shapely.transform(box, lambda at: transformed(at, grid.crs, crs)) for box in boxes]
    path = write_shapes(tmp_path / "a.gpkg", [(box, "5") for box in boxes], crs if crs == "EPSG:3857" else "EPSG:4326",
                        key="label")  # fmt: skip
    row = whole(burnt(path, grid, TABLE))[20]
    assert np.flatnonzero(row).tolist() == [*range(5), *range(20, 30), *range(260, 270), *range(355, 360)]


def test_what_is_wrong_with_polygons_is_said(tmp_path: Path) -> None:
    path = write_shapes(tmp_path / "a.geojson", [(shapely.box(0, 0, 2, 2), "tree")])
    with pytest.raises(InputError, match=r"a\.geojson: polygons of tree; expected background, pond, roof"):
        burnt(path, Grid(5, 5), TABLE)
    path = write_shapes(tmp_path / "b.geojson", [(shapely.box(0, 0, 2, 2), 3)], key="height")
    with pytest.raises(InputError, match=r"b\.geojson: attributes height; expected one of class, label"):
        burnt(path, Grid(5, 5), TABLE)
    (tmp_path / "c.geojson").write_text("{")
    with pytest.raises(InputError, match=r"c\.geojson"):
        burnt(tmp_path / "c.geojson", Grid(5, 5), TABLE)
    path = write_shapes(tmp_path / "e.geojson", [(shapely.LineString([(0, 0), (2, 2)]), "pond")])
    with pytest.raises(InputError, match=r"e\.geojson: 1 lines, points or empty shapes"):
        burnt(path, Grid(5, 5), TABLE)
    path = write_shapes(tmp_path / "f.geojson", [(shapely.box(0, 0, 2, 2), None), (shapely.box(0, 0, 1, 1), "pond")])
    with pytest.raises(InputError, match=r"f\.geojson: 1 polygons with nothing in 'class'"):
        burnt(path, Grid(5, 5), TABLE)
    both = shapely.GeometryCollection([shapely.box(0, 0, 2, 2), shapely.box(3, 3, 5, 5)])
    mask = whole(burnt(write_shapes(tmp_path / "g.geojson", [(both, "pond")]), Grid(5, 5), TABLE))
    assert (mask == 2).sum() == 8
    path = write_shapes(tmp_path / "h.geojson", [(shapely.box(0, 0, 2, 2), "clutter")])
    assert (whole(burnt(path, Grid(5, 5), TABLE, frozenset({"clutter"}))) == 255).sum() == 4
    with pytest.raises(UsageError, match="class 1000; expected 0 to 254"):
        table_of_kinds(["1000"])
    empty = write_shapes(tmp_path / "d.geojson", [])
    assert not whole(burnt(empty, Grid(5, 5), TABLE)).any()


def test_classes_of_polygons_without_a_table() -> None:
    for kinds, names in (
        (["Background", "crop"], ["Background", "crop"]),
        (["1", "class 1"], ["background", "1", "class 1"]),
    ):
        assert list(table_of_kinds(kinds).names) == names
    table = table_of_kinds(["3", "pond", "0", "roof"])
    assert [(entry.index, entry.name) for entry in table.entries] == [
        (0, "background"), (3, "class 3"), (1, "pond"), (2, "roof"),
    ]  # fmt: skip


def test_polygons_as_training_masks(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in "ab":
        write_picture(tmp_path / "images" / f"{name}.png", rng.integers(0, 99, (30, 40, 3), np.uint8))
        box = shapely.box(5, 10, 15, 20)
        write_shapes(tmp_path / "masks" / f"{name}.geojson", [(box, "pond"), (shapely.box(30, 0, 40, 9), "roof")])
    splits = find_pairs(tmp_path, 0.5, 0)
    labels = Labels(find_classes(tmp_path, None, splits.all))
    assert labels.classes.names == ("background", "pond", "roof")
    found = survey(splits, labels, lambda error: pytest.fail(str(error)))
    assert [fact.pixels.tolist() for fact in found.facts.values()] == [[1010, 100, 90]] * 2
    reading = Reading(labels, Normalisation("uint8", (0.0,) * 3, (1.0,) * 3), cache_bytes=0)
    _, target = reading.window(splits.train[0], 8, 2, 6, 9)
    expected = np.zeros((6, 9), np.int16)
    expected[2:, 3:] = 1
    assert np.array_equal(target, expected)


def test_an_attribute_of_another_name(tmp_path: Path) -> None:
    path = write_shapes(tmp_path / "a.geojson", [(shapely.box(0, 0, 5, 5), "roof")], key="Covering")
    with pytest.raises(InputError, match="attributes covering; expected one of class"):
        kinds_in(path)
    assert kinds_in(path, "covering") == {"roof"}
    assert whole(burnt(path, Grid(9, 9), TABLE, attribute="Covering"))[2, 2] == 5
    with pytest.raises(InputError, match="attributes covering; --attribute names kind"):
        kinds_in(path, "kind")


@pytest.mark.parametrize("width", [1.0, 4.0, 60.0])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_a_loop_far_away_changes_nothing_here(tmp_path: Path, crs: str, width: float) -> None:
    """Outlines that cross themselves somewhere are everyday: such a polygon is cut to the image and bent as others."""
    grid = Grid(233, 307, rasterio.crs.CRS.from_epsg(32632), from_origin(500_000, 5_600_000, 10, 10))
    west, east, south, north = 9 - width / 2, 9 + width / 2, 50.54, 51.5
    loop = [
        (west + 0.3, north),
        (west + 0.3001, north + 1e-4),
        (west + 0.3001, north - 1e-4),
        (west + 0.3, north + 1e-4),
    ]
    corners = [(west, south), (east, south), (east, north), (west, north)]
    masks = []
    for name, ring in (("valid", corners), ("crossing", [*corners[:3], *loop, corners[3]])):
        polygon = shapely.Polygon(ring)
        assert polygon.is_valid == (name == "valid")
        if crs != "EPSG:4326":
            dense = shapely.segmentize(polygon, 0.01) if polygon.is_valid else polygon
            polygon = shapely.transform(dense, lambda points: transformed(points, "EPSG:4326", crs))
        path = write_shapes(tmp_path / f"{name}.gpkg", [(polygon, "5")], crs, key="label")
        masks.append(whole(burnt(path, grid, TABLE)))
    assert 0.05 < (masks[0] == 5).mean() < 0.95
    assert np.array_equal(*masks)


def test_a_bow_tie_has_an_area(tmp_path: Path) -> None:
    """Whose halves have areas of two signs, 0 together; and so has an outline that goes round twice."""
    tie = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    assert (tie.area, tie.is_valid) == (0, False)
    found = whole(burnt(write_shapes(tmp_path / "a.geojson", [(tie, "roof")]), Grid(10, 10), TABLE))
    assert (found[1, 0], found[5, 0], found[5, 9], found[0, 5], found[9, 5]) == (5, 5, 5, 0, 0)
    twice = [(2, 2), (8, 2), (8, 8), (2, 8)] * 2
    for crs in ("EPSG:32633", "EPSG:32632"):  # its own system, and another
        grid = Grid(10, 10, rasterio.crs.CRS.from_epsg(32633), from_origin(500_000, 5_000_010, 1, 1))
        ring = np.add(twice, (500_000.0, 5_000_000.0))
        if crs != "EPSG:32633":
            ring = transformed(ring, "EPSG:32633", crs)
        assert not shapely.Polygon(ring).is_valid
        path = write_shapes(tmp_path / f"{crs[-5:]}.gpkg", [(shapely.Polygon(ring), "5")], crs, key="label")
        assert (whole(burnt(path, grid, TABLE)) == 5).sum() == 36
    line = shapely.Polygon([(0, 0), (9, 9), (0, 0)])
    with pytest.raises(InputError, match=r"b\.geojson: 1 lines, points or empty shapes"):
        burnt(write_shapes(tmp_path / "b.geojson", [(line, "roof")]), Grid(10, 10), TABLE)
    with np.errstate(invalid="ignore"):
        strange = shapely.Polygon([(0, 0), (9, np.nan), (5, 5)])
    with pytest.raises(InputError, match=r"c\.gpkg: 1 polygons with corners that are no numbers"):
        burnt(write_shapes(tmp_path / "c.gpkg", [(strange, "5"), (tie, "5")], "EPSG:32633"), Grid(10, 10), TABLE)


def test_a_class_as_qupath_writes_it_counts_by_its_name(tmp_path: Path) -> None:
    features = [
        {
            "type": "Feature",
            "properties": {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, shade, 0]}},
            "geometry": shapely.geometry.mapping(shapely.box(4 * shade, 0, 4 * shade + 2, 2)),
        }
        for shade in (0, 1)
    ]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert kinds_in(path) == {"Tumor"}
    assert (whole(burnt(path, Grid(5, 8), table_of_kinds(["Tumor"]))) == 1).sum() == 8


def test_all_polygons_that_cannot_be_used_are_named(tmp_path: Path, segcli: Program, rng: np.random.Generator) -> None:
    for name in "abcd":
        write_picture(tmp_path / "d" / "images" / f"{name}.png", rng.integers(0, 99, (30, 40, 3), np.uint8))
    box = shapely.box(0, 0, 9, 9)
    for name, key in (("a", "height"), ("b", "class"), ("c", "height")):
        write_shapes(tmp_path / "d" / "masks" / f"{name}.geojson", [(box, "roof")], key=key)
    (tmp_path / "d" / "masks" / "d.geojson").write_text("{")
    result = segcli("train", "d", "--check")
    assert result.returncode == 2
    for name in "acd":
        assert f"{name}.geojson: " in result.stderr
    assert result.stderr.count("rename the one that says it, or cut with tile --attribute") == 2
    assert "DataSourceError" not in result.stderr


def test_tiles_are_not_numbered_without_the_classes_of_a_broken_file(
    tmp_path: Path, segcli: Program, rng: np.random.Generator
) -> None:
    for name in "ab":
        write_picture(tmp_path / "d" / f"{name}.png", rng.integers(0, 99, (30, 40, 3), np.uint8))
    write_shapes(tmp_path / "m" / "a.geojson", [(shapely.box(0, 0, 9, 9), "roof")])
    (tmp_path / "m" / "b.geojson").write_text("{")
    result = segcli("tile", "d", "--masks", "m", "--size", 16, "--out", "t")
    assert result.returncode == 2
    assert "b.geojson: " in result.stderr
    assert "give --classes" in result.stderr
    assert not (tmp_path / "t").exists()
    (tmp_path / "classes.csv").write_text("index,name\n0,background\n1,roof\n")
    result = segcli("tile", "d", "--masks", "m", "--classes", "classes.csv", "--size", 16, "--out", "t")
    assert result.returncode == 1  # the other one is done
    assert "done 1  up to date 0  failed 1" in result.stderr


def test_derived_classes_of_qupath_are_named_by_their_parts(tmp_path: Path) -> None:
    said = [
        {"names": ["Tumor", "Positive"], "color": [200, 0, 0]},
        {"names": ["Tumor", "Positive"], "color": [1, 0, 0]},
    ]
    features = [
        {
            "type": "Feature", "properties": {"classification": one},
            "geometry": shapely.geometry.mapping(shapely.box(0, 0, 2, 2)),
        }
        for one in said
    ]  # fmt: skip
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert kinds_in(path) == {"Tumor: Positive"}
    features[0]["properties"]["classification"] = {"name": None}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with pytest.raises(InputError, match="1 polygons with nothing in 'classification'"):
        kinds_in(path)
