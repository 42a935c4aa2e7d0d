"""Where rasters lie on earth: one place in two reference systems, and what a metre is there."""

import json
import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from helpers import brightness_model, write_picture
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform

from segcli.console import Console
from segcli.errors import InputError
from segcli.network import checkpoint
from segcli.options import PredictOptions
from segcli.predict import run as predict
from segcli.raster import vectors
from segcli.raster.align import difference, is_elsewhere
from segcli.raster.burn import burnt
from segcli.raster.ellipsoid import around, degrees_on, ellipsoid_of, signed_area, surface, transformed
from segcli.raster.grid import Grid
from segcli.raster.images import open_images
from segcli.raster.measuring import in_degrees, in_plane, measure_of
from segcli.raster.source import Source
from segcli.tiling.splits import meeting, overlapping

UTM = CRS.from_epsg(32632)
ESRI = CRS.from_wkt(UTM.to_wkt(version="WKT1_ESRI"))
WITH_HEIGHTS = CRS.from_user_input("EPSG:32632+5773")
MERCATOR = CRS.from_epsg(3857)
AT_60_NORTH = from_origin(1_113_194, 8_399_737, 10, 10)
FEET = CRS.from_proj4("+proj=tmerc +lat_0=45 +lon_0=9 +x_0=500000 +k=1 +units=us-ft +ellps=GRS80")
WORLD = 20_037_508.342789244
"""Half the width of Mercator's map, in its metres."""


def on(crs: CRS | str | None, transform: Affine | None = None, height: int = 40, width: int = 50) -> Grid:
    system = CRS.from_user_input(crs) if isinstance(crs, str) else crs
    return Grid(height, width, system, transform or from_origin(500_000, 5_000_000, 10, 10))


def write_mask(path: Path, pixels: np.ndarray, crs: CRS | str | None, place: Affine, **tags: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", "GTiff", pixels.shape[1], pixels.shape[0], 1, dtype=pixels.dtype, crs=crs,
                       transform=place) as file:  # fmt: skip
        file.write(pixels, 1)
        file.update_tags(**tags)
    return path


def square(left: float, top: float, side: float) -> np.ndarray:
    """Closed, (corner, x and y), as GDAL traces it."""
    return np.array([[0, 0], [0, -1], [1, -1], [1, 0], [0, 0]]) * side + (left, top)


def test_one_place_in_two_reference_systems() -> None:
    """The same numbers in another zone are another place; another spelling, and heights besides, are not."""
    here = on(UTM)
    assert is_elsewhere(here, on("EPSG:32633"))
    assert not any(is_elsewhere(here, on(crs)) for crs in (UTM, ESRI, WITH_HEIGHTS))
    (x,), (y,) = transform(UTM, "EPSG:32633", [500_000], [5_000_000])
    assert is_elsewhere(here, on("EPSG:32633", from_origin(x, y, 10, 10)))  # turned by four degrees
    assert is_elsewhere(here, on(CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')))
    assert not is_elsewhere(here, on(None))


def test_what_differs_is_said(tmp_path: Path) -> None:
    pixels, place = np.eye(9, dtype=np.uint8), from_origin(500_000, 5_000_000, 10, 10)
    others = {
        "zone": (pixels, "EPSG:32633", place), "none": (pixels, None, place), "esri": (pixels, ESRI, place),
        "heights": (pixels, WITH_HEIGHTS, place), "size": (pixels[:8], UTM, place),
        "beside": (pixels, UTM, from_origin(500_000, 5_000_030, 10, 10)),
    }  # fmt: skip
    truth = write_mask(tmp_path / "t.tif", pixels, UTM, place)
    said = {}
    with Source(truth, "mask") as one:
        for name, other in others.items():
            with Source(write_mask(tmp_path / f"{name}.tif", *other), "mask") as source:
                found = difference(source, one)
                said[name] = None if found is None else "; ".join(found).replace(str(truth), "t.tif")
    utm = "EPSG:32632 (WGS 84 / UTM zone 32N)"
    assert said == {
        "zone": f"on another grid than t.tif, in EPSG:32633 (WGS 84 / UTM zone 33N); expected {utm}",
        "none": f"on another grid than t.tif, in no reference system; expected {utm}",
        "esri": None, "heights": None, "size": "9 x 8 pixels on another grid; t.tif has 9 x 9",
        "beside": "on another grid than t.tif, 3 pixels beside it; expected the same place",
    }  # fmt: skip


def mercator_in_degrees(rings: list[np.ndarray]) -> tuple[float, float]:
    """Its straight lines along the axes are meridians and parallels, which are measured exactly."""
    body = ellipsoid_of(MERCATOR)
    return in_degrees([transformed(ring, MERCATOR, degrees_on(MERCATOR, body)) for ring in rings], body)


def test_areas_are_those_on_the_ground_where_a_projection_stretches_them() -> None:
    """Mercator's at 60 degrees north are four times as large in its own metres, with holes and at any size."""
    grid = on(MERCATOR, AT_60_NORTH)
    for rings in (
        [square(1_113_194, 8_399_737, 400)],
        [square(1_113_194, 8_399_737, 400), square(1_113_294, 8_399_637, 200)[::-1]],
        [square(1_113_200.25, 8_399_700.5, 0.03)],
    ):
        found, expected = measure_of(grid)(rings), mercator_in_degrees(rings)
        assert found == pytest.approx(expected, rel=1e-5)
        assert in_plane(rings)[0] / found[0] == pytest.approx(3.98, abs=0.02)
    world = on(MERCATOR, from_origin(-WORLD, WORLD, WORLD / 100, WORLD / 100), 200, 200)
    rings = [square(-WORLD, WORLD, 2 * WORLD)]
    area, _ = measure_of(world)(rings)
    assert area == pytest.approx(mercator_in_degrees(rings)[0], rel=1e-4)
    assert measure_of(on(MERCATOR, from_origin(0, 5_000, 10, 10)))([square(0, 0, 10)])[0] == pytest.approx(100)


@pytest.mark.parametrize("epsg", [3995, 3031])
def test_areas_at_the_poles(epsg: int) -> None:
    """Of a stereographic map that is true at 71 degrees the scale at the pole is (1 + sin 71) / 2; over it, at it and
    on rasters that are mirrored or turned."""
    crs = CRS.from_epsg(epsg)
    scale = measure_of(on(crs, from_origin(-5_000, 5_000, 100, 100), 100, 100))([square(0, 100, 100)])[0] / 1e4
    sphere = (2 / (1 + math.sin(math.radians(71)))) ** 2
    assert scale == pytest.approx(sphere, rel=2e-3)  # the ellipsoid differs by little
    for place in (from_origin(-5_000, 5_000, 100, 100), Affine(100, 0, -5_000, 0, 100, -5_000)):
        measured = measure_of(on(crs, place, 100, 100))
        for left, top, side in ((0, 100, 100), (-50, 50, 100), (-5_000, 5_000, 10_000), (2_000, 0, 500)):
            for ring in (square(left, top, side), square(left, top, side)[::-1]):
                area, perimeter = measured([ring])
                assert area == pytest.approx(side**2 * scale, rel=1e-4), (left, top, side)
                assert perimeter == pytest.approx(4 * side * math.sqrt(scale), rel=1e-4)


def test_a_projection_that_is_true_is_taken_at_its_word() -> None:
    for grid, side in ((on(UTM), 10.0), (on(FEET, from_origin(1_640_000, 0, 10, 10)), 10 * 1200 / 3937)):
        assert measure_of(grid)([square(7, 8, 10)]) == pytest.approx((side**2, 4 * side), rel=1e-12)
    assert measure_of(on(None))([square(3, 4, 2)]) == (4, 8)
    assert measure_of(Grid(9, 9))([square(3, 4, 2)]) == (4, 8)


def test_angles_may_be_in_other_units_than_degrees() -> None:
    """Grads, of which a right angle has a hundred."""
    grads, ring = on("EPSG:4807", from_origin(2, 54, 0.001, 0.001)), square(2, 54, 0.01)
    assert measure_of(grads)([ring]) == pytest.approx(in_degrees([ring * 0.9], ellipsoid_of(grads.crs)), rel=1e-9)


def test_a_hemisphere_and_the_smallest_of_pixels() -> None:
    equator = np.stack([np.linspace(-180, 180, 361), np.zeros(361)], axis=1)
    body = ellipsoid_of(UTM)
    assert abs(signed_area(equator, body)) == pytest.approx(surface(body) / 2)
    assert surface(body) == pytest.approx(510_065_621.724e6, rel=1e-9)  # of WGS 84, in the books


def test_pixels_are_as_large_as_on_the_ground_in_the_middle() -> None:
    across = 10 / math.cosh(math.asinh(math.tan(math.radians(60))))
    down, found = on(MERCATOR, AT_60_NORTH).pixel_size_m() or (0, 0)
    assert (down, found) == pytest.approx((across, across), rel=5e-3)
    assert on(UTM).pixel_size_m() == (10, 10)
    assert on(MERCATOR, from_origin(0, 5_000, 10, 10)).pixel_size_m() == (10, 10)


def test_print_resolution_is_no_size_on_earth(tmp_path: Path) -> None:
    """72 dots an inch are 0.35 mm; in degrees a pixel has no size in metres, and in UTM what the system says."""
    tags = {"TIFFTAG_XRESOLUTION": "28.35", "TIFFTAG_YRESOLUTION": "28.35", "TIFFTAG_RESOLUTIONUNIT": "3"}
    pixels = np.zeros((400, 400), np.uint8)
    sizes = {}
    for name, crs, place in (
        ("degrees", "EPSG:4326", from_origin(10, 60, 0.001, 0.001)),
        ("utm", UTM, from_origin(500_000, 5_000_000, 300, 300)),
    ):
        with Source(write_mask(tmp_path / f"{name}.tif", pixels, crs, place, **tags), "mask") as source:
            assert source.grid.calibration["X"] == pytest.approx(352.7, abs=0.1)
            sizes[name] = source.grid.pixel_size_m()
    assert sizes == {"degrees": None, "utm": (300, 300)}
    assert Grid(9, 9, calibration={"X": 2.0, "Y": 1.0}).pixel_size_m() == (1e-6, 2e-6)
    with rasterio.open(tmp_path / "utm.tif", "r+") as file:
        file.build_overviews([2], rasterio.enums.Resampling.nearest)
    with closing(open_images(tmp_path / "utm.tif", mpp=600e6)) as images:
        assert images.planes[0].grid.width == 200
    with pytest.raises(InputError, match=r"levels of 3e\+08, 6e\+08 micrometres"):
        open_images(tmp_path / "utm.tif", mpp=352.7)


def written(tmp_path: Path, grid: Grid, ring: np.ndarray, *holes: np.ndarray) -> dict[str, Any]:
    geometry = {"type": "Polygon", "coordinates": [part.tolist() for part in (ring, *holes)]}
    path = tmp_path / "a.geojson"
    assert grid.transform is not None
    stray = vectors.STRAY * math.sqrt(abs(grid.transform.determinant))
    vectors._write_geojson(path, path, iter([vectors.Feature(geometry, {"class": 1, "name": "a"})]), grid.crs, stray)
    found: dict[str, Any] = json.loads(path.read_text())["features"][0]["geometry"]
    return found


def test_geojson_is_cut_at_the_antimeridian_and_goes_round_counterclockwise(tmp_path: Path) -> None:
    """RFC 7946, of degrees that go on after 180, and whichever way the rings came."""
    degrees = on("EPSG:4326", from_origin(179.5, 10, 0.01, 0.01))
    for ring, hole in ((square(179.8, 9.9, 0.4), square(179.9, 9.8, 0.1)), (square(190, 9.9, 0.4), None)):
        for way in (slice(None), slice(None, None, -1)):
            holes = [] if hole is None else [hole[way]]
            found = shapely.geometry.shape(written(tmp_path, degrees, ring[way], *holes))
            parts = list(shapely.get_parts(found))
            assert len(parts) == 1 + (hole is not None)
            assert found.is_valid
            assert found.area == pytest.approx(0.16 - 0.01 * len(holes))
            assert -180 <= found.bounds[0] < found.bounds[2] <= 180
            for part in parts:
                assert part.exterior.is_ccw
                assert not any(inner.is_ccw for inner in part.interiors)
    assert found.bounds == (-170, 9.5, -169.6, 9.9)
    for grid in (on(UTM), on(None), on("EPSG:32660", from_origin(830_000, 300_000, 100, 100))):
        left, top = grid.transform @ (0, 0)
        for way in (slice(None), slice(None, None, -1)):
            shape = shapely.geometry.shape(written(tmp_path, grid, square(left, top, 5_000)[way]))
            assert all(part.exterior.is_ccw for part in shapely.get_parts(shape))


@pytest.mark.parametrize("crs", ["EPSG:3031", "EPSG:3995", "EPSG:2193", "EPSG:28478", "EPSG:4284", "EPSG:32660"])
def test_geojson_is_cut_at_the_antimeridian_in_any_system(tmp_path: Path, crs: str) -> None:
    """Polar ones, grids of countries near it, degrees of another datum: none goes round the other side of the earth."""
    system = CRS.from_user_input(crs)
    (x,), (y,) = transform("EPSG:4326", system, [180], [70 if crs != "EPSG:3031" else -70])
    half = 0.1 if system.is_geographic else 5_000
    (x, y) = (180, 70) if system.is_geographic else (x, y)
    found = shapely.geometry.shape(written(tmp_path, on(system), square(x - half, y + half, 2 * half)))
    assert found.is_valid
    assert len(shapely.get_parts(found)) == 2
    assert (found.bounds[0], found.bounds[2]) == (-180, 180)
    assert found.area < 0.1
    assert found.distance(shapely.Point(0, y)) > 50


@pytest.mark.parametrize("crs", ["EPSG:3832", "EPSG:3857", "EPSG:6933", "EPSG:8859", "ESRI:54034"])
def test_geojson_of_what_goes_round_the_earth_does_so(tmp_path: Path, crs: str) -> None:
    """Both ends are one meridian, and the corners alone say nothing of what lies between."""
    system = CRS.from_user_input(crs)
    middle = 150 if crs in ("EPSG:3832", "EPSG:8859") else 0
    away = 1e-6  # where the ends are the very same, GDAL may take either for the other
    (west, east), (south, north) = transform("EPSG:4326", system, [middle - 180 + away, middle + 180 - away], [10, 20])
    ring = np.array([(west, south), (east, south), (east, north), (west, north), (west, south)])
    found = shapely.geometry.shape(written(tmp_path, on(system), ring))
    assert found.is_valid
    assert all(found.contains(shapely.Point(one + 0.5, 15)) for one in range(-180, 180))
    assert found.area == pytest.approx(3600, rel=0.01)


@pytest.mark.parametrize("crs", ["EPSG:4087", "EPSG:6933", "ESRI:54034", "+proj=eqc +lon_0=150"])
def test_geojson_reaches_a_pole_that_is_a_line(tmp_path: Path, crs: str) -> None:
    """In projections in which it is as long as the equator; also of all of the world."""
    system = CRS.from_user_input(crs)
    middle = 150 if "150" in crs else 0
    for west, east, south in ((0, 50, -30), (-150, 100, 30), (-179.999999, 179.999999, -90)):
        (left, right), (bottom, top) = transform("EPSG:4326", system, [middle + west, middle + east], [south, 90])
        ring = np.array([(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)])
        found = shapely.geometry.shape(written(tmp_path, on(system), ring))
        assert found.is_valid
        assert found.bounds[1::2] == pytest.approx((south, 90), abs=1e-6)
        assert found.area == pytest.approx((east - west) * (90 - south), rel=1e-3)


def test_geojson_of_less_than_its_last_digit(tmp_path: Path) -> None:
    """On both sides of 180 degrees, where nothing of it is left."""
    system = CRS.from_epsg(32660)
    (x,), (y,) = transform("EPSG:4326", system, [180], [-17])
    shape = shapely.geometry.shape(written(tmp_path, on(system), square(x - 2e-4, y, 4e-4)))
    assert not shape.is_empty
    assert abs(abs(shape.bounds[0]) - 180) < 1e-6


def test_geojson_of_a_pole_reaches_up_to_it(tmp_path: Path) -> None:
    """With the hole that it has around the pole, and with others."""
    polar, ring = on("EPSG:3995"), square(-100_000, 100_000, 200_000)
    cap = shapely.geometry.shape(written(tmp_path, polar, ring))
    cut = shapely.geometry.shape(written(tmp_path, polar, ring, square(-50_000, 50_000, 100_000)))
    aside = shapely.geometry.shape(written(tmp_path, polar, ring, square(-20_000, 60_000, 40_000)))
    longitudes = np.arange(-175, 180, 10)
    whole = (89.9, 89.2)
    for shape, inside, outside in ((cap, whole, (88.5,)), (cut, whole[1:], (89.9, 88.5)), (aside, whole, ())):
        assert shape.is_valid
        for latitude in inside:
            assert sum(shape.contains(shapely.Point(one, latitude)) for one in longitudes) == 36
        for latitude in outside:
            assert not any(shape.contains(shapely.Point(one, latitude)) for one in longitudes)
    assert not aside.contains(shapely.Point(180, 89.6))


def test_geojson_of_a_building_site_is_refused_before_the_work() -> None:
    site = CRS.from_wkt('LOCAL_CS["site grid",UNIT["metre",1]]')
    with pytest.raises(InputError, match=r"a\.tif: .*without longitudes and latitudes.*--polygons gpkg"):
        vectors.check_on_earth("a.tif", site)
    for crs in ("EPSG:32632", "EPSG:4979", "EPSG:3995", "EPSG:4807", "ESRI:54009", "EPSG:2263+6360"):
        vectors.check_on_earth("a.tif", CRS.from_user_input(crs))


def test_places_on_both_sides_of_the_antimeridian_are_compared() -> None:
    """Rasters of the last zone and of the first one; degrees that go on after 180, and those that begin at -180."""
    last = on("EPSG:32660", from_origin(830_000, 300_000, 100, 100), 80, 96).bounds_in("EPSG:4326")
    first = on("EPSG:32601", from_origin(165_000, 300_000, 100, 100), 80, 96).bounds_in("EPSG:4326")
    over = on("EPSG:4326", from_origin(179.5, 3, 0.01, 0.01), 80, 96).bounds_in("EPSG:4326")
    after = on("EPSG:4326", from_origin(-179.6, 3, 0.01, 0.01), 80, 96).bounds_in("EPSG:4326")
    assert last is not None
    assert last == pytest.approx((179.967, 2.638, 180.054, 2.711), abs=1e-3)
    assert overlapping([last, first], 360) == [0, 0]
    assert overlapping([over, after], 360) == [0, 0]
    assert overlapping([over, after]) == [0, 1]
    assert meeting([over, after], [0, 1], [(80, 96)] * 2, 360) == [(0, 1)]
    assert (around("EPSG:4326"), around("EPSG:32660")) == (pytest.approx(360), 0)
    assert around("EPSG:4807") == pytest.approx(400)


def test_pictures_with_a_place_beside_them_keep_it(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By world file or .aux.xml; statistics that a viewer left are no place. What an earlier run made is not hidden."""
    pixels = np.full((20, 30, 3), 200, np.uint8)
    for name in ("world.jpg", "aux.png", "viewed.png", "plain.bmp"):
        write_picture(tmp_path / "in" / name, pixels)
    (tmp_path / "in" / "world.jgw").write_text("10\n0\n0\n-10\n500005\n4999995\n")
    place = "<SRS>EPSG:32632</SRS><GeoTransform>500000,10,0,5000000,0,-10</GeoTransform>"
    (tmp_path / "in" / "aux.png.aux.xml").write_text(f"<PAMDataset>{place}</PAMDataset>")
    statistics = '<PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MEAN">9</MDI></Metadata></PAMRasterBand>'
    (tmp_path / "in" / "viewed.png.aux.xml").write_text(f"<PAMDataset>{statistics}</PAMDataset>")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "aux.png").write_bytes(b"of an earlier run")
    options = PredictOptions((tmp_path / "in",), tmp_path / "masks", (str(weights),))
    assert predict(options, Console()) == 0
    masks = sorted(path.name for path in (tmp_path / "masks").iterdir() if path.suffix in (".png", ".tif"))
    assert masks == ["aux.png", "aux.tif", "plain.png", "viewed.png", "world.tif"]
    said = capsys.readouterr().err
    assert "masks/aux.png is left as it was; the output is aux.tif, which keeps where it lies on earth" in said
    assert "cannot hold" not in said
    for name, crs in (("aux", UTM), ("world", None)):
        with rasterio.open(tmp_path / "masks" / f"{name}.tif") as file:
            assert (file.crs, file.transform) == (crs, from_origin(500_000, 5_000_000, 10, 10))
    assert predict(replace(options, verify=True), Console()) == 0


@pytest.mark.parametrize("crs", ["EPSG:3413", "EPSG:3031", "EPSG:3571", "EPSG:32661"])
def test_geojson_with_a_pole_inside_is_valid(tmp_path: Path, crs: str) -> None:
    """Wherever the ring begins: its parts meet there but for the last bits, and digits are rounded afterwards."""
    system, rng = CRS.from_user_input(crs), np.random.default_rng(0)
    (x,), (y,) = transform("EPSG:4326", system, [0], [90 if crs != "EPSG:3031" else -90])
    for _ in range(12):
        west, east, south, north = rng.uniform(20_000, 400_000, 4) * (-1, 1, -1, 1) + (x, x, y, y)
        ring = np.array([(west, north), (west, south), (east, south), (east, north), (west, north)])
        found = shapely.geometry.shape(written(tmp_path, on(system), ring))
        assert found.is_valid, shapely.is_valid_reason(found)


BLOBS = np.kron(np.random.default_rng(0).integers(0, 2, (9, 11)), np.ones((17, 17))).astype(np.uint8)


def polygons_of(
    tmp_path: Path, crs: str, place: Affine | None, kind: Any, field: np.ndarray = BLOBS, **more: Any
) -> int:
    """The exit code of a prediction of `field` there, with polygons."""
    (height, width), name = field.shape, tmp_path / "a.tif"
    with rasterio.open(name, "w", "GTiff", width, height, 3, dtype="uint8", crs=crs, transform=place) as file:
        file.write(np.stack([field * 200] * 3))
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    options = PredictOptions((name,), tmp_path / kind, (str(tmp_path / "w.safetensors"),), polygons=kind, **more)
    return predict(options, Console(quiet=True))


def burnt_back(tmp_path: Path, crs: str, place: Affine, field: np.ndarray) -> np.ndarray:
    """The field as GeoJSON tells it: which pixels' middles lie in its polygons of the class of bright ones."""
    assert polygons_of(tmp_path, crs, place, "geojson", field) == 0
    found = json.loads((tmp_path / "geojson" / "polygons" / "a.geojson").read_text())
    shapes = [shapely.geometry.shape(one["geometry"]) for one in found["features"] if one["properties"]["class"] == 7]
    assert all(shape.is_valid for shape in shapes)
    rows, columns = np.mgrid[: field.shape[0], : field.shape[1]]
    x, y = place @ (columns.ravel() + 0.5, rows.ravel() + 0.5)
    middles = shapely.points(*transform(crs, "EPSG:4326", x, y))
    shapely.prepare(shapes)
    together = sum(shapely.intersects(shape, middles).astype(int) for shape in shapes)  # some lie on the cut at 180
    assert together.max() == 1
    return np.asarray(together).reshape(field.shape)


@pytest.mark.parametrize("crs", ["EPSG:3031", "EPSG:3413"])
def test_arms_of_what_lies_around_a_pole_enclose_no_bays(tmp_path: Path, crs: str) -> None:
    """A hook, and a spiral that goes round the pole twice: in GeoJSON, and as labels of an image in degrees."""
    hook, spiral = np.zeros((2, 80, 80), np.uint8)
    for box in (np.s_[35:45, 35:45], np.s_[38:41, 45:61], np.s_[10:41, 58:61], np.s_[10:13, 38:61]):
        hook[box] = 1
    row = col = 40
    for n, (down, right) in enumerate([(0, 1), (1, 0), (0, -1), (-1, 0)] * 3, start=1):
        end = row + 5 * n * down, col + 5 * n * right
        spiral[min(row, end[0]) : max(row, end[0]) + 2, min(col, end[1]) : max(col, end[1]) + 2] = 1
        row, col = end
    place = Affine(25_000, 0, -1e6, 0, -25_000, 1e6)
    for field in (hook, spiral):
        assert np.array_equal(burnt_back(tmp_path, crs, place, field), field)
        assert polygons_of(tmp_path, crs, place, "gpkg", field, overwrite=True) == 0
        north = 90 if crs == "EPSG:3413" else -78
        degrees = Grid(120, 720, CRS.from_epsg(4326), from_origin(-180, north, 0.5, 0.1))
        table = brightness_model().classes
        path = tmp_path / "gpkg" / "polygons" / "a.gpkg"
        with closing(burnt(path, degrees, table, attribute="class")) as labels:
            found = np.concatenate([strip.pixels[0] for strip in labels.strips(120)])
        rows, columns = np.mgrid[:120, :720]
        x, y = transform("EPSG:4326", crs, *(degrees.transform @ (columns.ravel() + 0.5, rows.ravel() + 0.5)))
        inverse = ~place @ (np.array(x), np.array(y))
        at = [np.floor(part).astype(int).clip(0, 79).reshape(120, 720) for part in inverse]
        assert ((found == 7) == field[at[1], at[0]]).mean() > 0.99


def test_edges_that_are_straight_in_a_projection_are_bent_in_geojson(tmp_path: Path) -> None:
    """Of a scene 110 km wide, whose middle would be off by twenty pixels; holes near its border stay inside."""
    field = np.ones((60, 1100), np.uint8)
    field[3, ::40], field[30] = 0, 0
    assert np.array_equal(burnt_back(tmp_path, "EPSG:32633", from_origin(300_000, 6_700_020, 100, 100), field), field)


@pytest.mark.parametrize(("crs", "kept"), [
    ("+proj=utm +zone=33 +datum=WGS84 +units=km", ("gpkg",)),
    ("+proj=utm +zone=10 +datum=NAD83 +units=us-ft", ("gpkg",)),
    ("+proj=stere +lat_0=90 +units=km", ("gpkg", "fgb")), ("EPSG:2227", ("gpkg", "fgb")),
])  # fmt: skip
def test_polygons_keep_their_units(
    tmp_path: Path, crs: str, kept: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Or are refused, where GDAL would store kilometres or feet as metres."""
    place = from_origin(500, 5300, 0.02, 0.02)
    for kind in ("gpkg", "fgb"):
        assert polygons_of(tmp_path, crs, place, kind) == (0 if kind in kept else 1)
        assert ("which it takes for metre; GDAL stores it as another system" in capsys.readouterr().err) == (
            kind not in kept
        )
        if kind in kept:
            found = CRS.from_user_input(pyogrio.read_info(tmp_path / kind / "polygons" / f"a.{kind}")["crs"])
            assert found.linear_units_factor[1] == pytest.approx(CRS.from_user_input(crs).linear_units_factor[1])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", ["geojson", "gpkg", "fgb"])
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
def test_polygons_of_what_has_a_system_and_no_place_are_columns_and_rows(tmp_path: Path, crs: str, kind: str) -> None:
    assert polygons_of(tmp_path, crs, None, kind) == 0
    path = tmp_path / kind / "polygons" / f"a.{kind}"
    shapes = shapely.from_wkb(pyogrio.raw.read(path)[2])
    assert tuple(shapely.total_bounds(shapes)) == (0, 0, 187, 153)
    assert kind == "geojson" or pyogrio.read_info(path)["crs"] is None


def test_simplified_outlines_are_as_near_as_they_are_to_be(tmp_path: Path, rng: np.random.Generator) -> None:
    field = (rng.random((60, 70)) < 0.4).astype(np.uint8)
    place = from_origin(500_000, 5_300_000, 10, 10)
    assert polygons_of(tmp_path, "EPSG:32633", place, "gpkg", field) == 0
    read = [pyogrio.raw.read(tmp_path / "gpkg" / "polygons" / "a.gpkg")[2]]
    assert polygons_of(tmp_path, "EPSG:32633", place, "gpkg", field, simplify=15.0) == 0
    read.append(pyogrio.raw.read(tmp_path / "gpkg" / "polygons" / "a.gpkg")[2])
    whole, simple = map(shapely.from_wkb, read)
    assert len(whole) == len(simple) > 100
    assert shapely.get_num_coordinates(simple).sum() < 0.8 * shapely.get_num_coordinates(whole).sum()
    for one, other in zip(whole, simple, strict=True):
        far = shapely.distance(shapely.points(shapely.get_coordinates(one)), other.boundary)
        assert far.max() <= 15 + 1e-6


@pytest.mark.parametrize("crs", ["+proj=geos +h=35785831 +lon_0=0 +sweep=y", "+proj=moll"])
def test_geojson_of_what_lies_beside_the_earth_is_refused_with_a_way_out(
    tmp_path: Path, crs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = (
        from_origin(-5_500_000, 5_500_000, 59_000, 72_000) if "geos" in crs else from_origin(-18e6, 9e6, 192e3, 118e3)
    )
    assert polygons_of(tmp_path, crs, place, "geojson") == 1
    said = capsys.readouterr().err
    assert "geojson/polygons/a.geojson: a polygon that lies partly where its projection has no place; " in said
    assert said.rstrip().endswith("--polygons gpkg")
    assert not list((tmp_path / "geojson").glob("*.tif"))
    assert polygons_of(tmp_path, crs, place, "gpkg") == 0


@pytest.mark.parametrize(("crs", "meridian"), [
    ("+proj=longlat +datum=WGS84 +pm=180", 180.0), ("+proj=longlat +datum=WGS84 +pm=paris", 2.33722917),
    ("EPSG:4807", None), ("EPSG:4326", None),
])  # fmt: skip
def test_polygons_keep_the_meridian_that_longitudes_are_counted_from(
    tmp_path: Path, crs: str, meridian: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or are refused, where GDAL would store them as degrees from Greenwich, on the other side of the earth."""
    place = from_origin(1, 50, 0.001, 0.001)
    for kind in ("gpkg", "fgb"):
        assert polygons_of(tmp_path, crs, place, kind) == (0 if meridian is None else 1)
        said = capsys.readouterr().err
        assert meridian is None or f"a.{kind}: longitudes from a meridian at {meridian:g}; GDAL stores" in said
        if meridian is None:
            found = pyogrio.read_info(tmp_path / kind / "polygons" / f"a.{kind}")
            assert CRS.from_user_input(found["crs"]) == CRS.from_user_input(crs)
    assert polygons_of(tmp_path, crs, place, "geojson") == 0
    found = json.loads((tmp_path / "geojson" / "polygons" / "a.geojson").read_text())
    (west,), _ = transform(CRS.from_user_input(crs), "EPSG:4326", [1], [49.9])
    shapes = shapely.union_all([shapely.geometry.shape(feature["geometry"]) for feature in found["features"]])
    assert shapes.bounds[0] == pytest.approx(west, abs=1e-4)
