"""predict --objects: a number for each object, and a line for each number, beside scikit-image's."""

import csv
import json
import resource
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import tifffile
from helpers import brightness_model, write_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin
from skimage.measure import label, regionprops

from segcli.classes import ClassEntry, ClassTable
from segcli.console import Console
from segcli.errors import NothingDoneError
from segcli.evaluate import run as evaluate
from segcli.keys import key_of
from segcli.network import checkpoint
from segcli.options import EvalOptions, PredictOptions
from segcli.predict import run
from segcli.raster.images import Images
from segcli.raster.objects import find_objects, write_objects
from segcli.raster.sink import Encoding, Layout, create
from segcli.raster.source import Source


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """What is bright is class 7, all else background."""
    model = brightness_model()
    table = ClassTable((ClassEntry(0, "background", (0, 0, 0)), ClassEntry(7, "light", (9, 9, 9))))
    checkpoint.save(checkpoint.Model(model.network, model.normalisation, table), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def predict(tmp_path: Path, weights: Path, *inputs: Path, **more: object) -> int:
    options = PredictOptions(inputs, tmp_path / "masks", (str(weights),), objects=True, **more)  # type: ignore[arg-type]
    return run(options, Console(quiet=True))


def numbered(path: Path) -> tuple[np.ndarray, list[dict[str, str]]]:
    """The numbers, and the lines of the table beside them."""
    numbers = tifffile.imread(path, key=0)
    with path.with_suffix(".csv").open(newline="") as table:
        return numbers, list(csv.DictReader(table))


def in_reading_order(mask: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
    """scikit-image's labels of each value, renumbered by where each comes first."""
    apart = np.zeros(mask.shape, np.int64)
    for value in values:
        found = label(mask == value, connectivity=1)
        apart = np.where(found > 0, found + apart.max(), apart)
    _, first, where = np.unique(apart, return_index=True, return_inverse=True)
    first = np.where(np.unique(apart) == 0, -1, first)  # what is no object stays 0
    ranks = np.argsort(np.argsort(first))
    found = ranks[where].reshape(mask.shape)
    return found if (apart == 0).any() else found + 1


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    strip=st.integers(1, 41),
    least=st.integers(0, 9),
)
def test_numbers_and_lines_are_those_of_scikit_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, height: int, width: int, strip: int, least: int
) -> None:
    """Whatever the strips: objects of two classes, a third that has none, and maybe pixels without data; small ones
    left out or not."""
    rng = np.random.default_rng(seed)
    monkeypatch.setattr("segcli.raster.objects.STRIP_PIXELS", strip * width)
    monkeypatch.setattr("segcli.raster.objects.LINES", 7)
    mask = rng.choice(np.array([0, 3, 3, 5, 255 if seed % 2 else 0], np.uint8), (height, width))
    sure = rng.integers(0, 251, (height, width), np.uint8)
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_300_000, 2, 4)}
    size = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": "uint8"} | place
    with rasterio.open(tmp_path / "m.tif", "w", nodata=255, **size) as file:
        file.write(mask, 1)
    with Source(tmp_path / "m.tif", "mask") as source:
        grid = source.grid
    with create(tmp_path / "c.tif", grid, Layout(1, "uint8", scale=1 / 250)) as sink:
        sink.write(0, sure)
    names = {3: "three", 5: "five"}
    with Source(tmp_path / "m.tif", "mask") as labels, Source(tmp_path / "c.tif", "mask") as confidence:
        objects = find_objects(labels, confidence, names, least)
        numbers_in, table, counts = (tmp_path / f"n{ending}" for ending in (".tif", ".csv", ".counts.csv"))
        write_objects([labels], [objects], numbers_in, table, counts, Images((labels,)), Encoding())
    numbers, lines = numbered(tmp_path / "n.tif")
    expected = in_reading_order(mask, (3, 5))
    large = np.bincount(expected.ravel()) >= least
    large[0] = False
    expected = np.where(large, np.cumsum(large), 0)[expected]
    np.testing.assert_array_equal(numbers, np.where(mask == 255, 65535, expected))
    with rasterio.open(tmp_path / "n.tif") as file:
        assert file.nodata == (65535 if (mask == 255).any() else None)
    regions = regionprops(expected, sure / 250)
    assert len(lines) == len(regions) == len(objects)
    for line, region in zip(lines, regions, strict=True):
        row, column = region.centroid
        assert int(line["object"]) == region.label
        assert names[int(line["class"])] == line["name"]
        assert int(line["class"]) == mask[tuple(region.coords[0])]
        assert int(line["pixels"]) == region.area
        assert tuple(int(line[name]) for name in ("top", "left", "bottom", "right")) == region.bbox
        assert (float(line["row"]), float(line["column"])) == pytest.approx((row, column), abs=0.006)
        assert float(line["confidence"]) == pytest.approx(region.intensity_mean, abs=6e-5)
        assert float(line["x"]) == pytest.approx(500_000 + 2 * (column + 0.5))
        assert float(line["y"]) == pytest.approx(5_300_000 - 4 * (row + 0.5))


def test_small_objects_have_neither_number_nor_polygon(tmp_path: Path, weights: Path) -> None:
    """One that touches the left border at its top, and one in the hole of another; the mask keeps them all."""
    scene = np.full((40, 50, 3), 20, np.uint8)
    for rows, cols in ((slice(0, 2), slice(0, 2)), (slice(5, 9), slice(5, 9)), (slice(20, 30), slice(10, 40))):
        scene[rows, cols] = 240
    scene[22:28, 12:38] = 20
    scene[24:26, 20:23] = 240
    path = write_picture(tmp_path / "a.png", scene)
    assert predict(tmp_path, weights, path, min_pixels=16, polygons="gpkg") == 0
    numbers, lines = numbered(tmp_path / "masks/objects/a.tif")
    assert [(line["object"], line["pixels"]) for line in lines] == [("1", "16"), ("2", str(300 - 6 * 26))]
    assert np.array_equal(np.bincount(numbers.ravel())[1:], [16, 300 - 6 * 26])
    meta, _, _, columns = pyogrio.raw.read(tmp_path / "masks/polygons/a.gpkg")
    polygons = dict(zip(meta["fields"], columns, strict=True))
    assert sorted(zip(polygons["object"], polygons["area"], strict=True)) == [(1, 16), (2, 300 - 6 * 26)]
    assert (cv2.imread(str(tmp_path / "masks/a.png"), cv2.IMREAD_UNCHANGED)[..., 0] > 0).sum() == 4 + 16 + 150


def test_an_option_of_later_makes_nothing_stale(tmp_path: Path) -> None:
    """Where it changes nothing; as it does, it counts."""
    options = PredictOptions((), tmp_path)
    assert "min_pixels" not in key_of("predict", options)[1]["options"]
    assert key_of("predict", options)[0] != key_of("predict", replace(options, min_pixels=5))[0]


def test_objects_lie_where_the_image_does_and_are_taken_by_eval(
    tmp_path: Path, weights: Path, rng: np.random.Generator
) -> None:
    """As numbers of objects in the truth, too; the mean confidence, that nobody asked for, leaves no file."""
    scene = np.full((3, 40, 50), 20, np.uint8)
    scene[:, 5:9, 5:9] = scene[:, 20:30, 10:40] = scene[:, 5:9, 20:24] = 240
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_300_000, 10, 10)}
    with rasterio.open(tmp_path / "a.tif", "w", "GTiff", 50, 40, 3, dtype="uint8", **place) as file:
        file.write(scene)
    assert predict(tmp_path, weights, tmp_path / "a.tif", format="cog", polygons="gpkg", min_area=2000.0) == 0
    path = tmp_path / "masks" / "objects" / "a.tif"
    numbers, lines = numbered(path)
    with rasterio.open(path) as file:
        assert (file.crs, file.transform, file.dtypes) == ("EPSG:32633", place["transform"], ("uint16",))
        assert file.nodata is None  # 0 is no object, which eval and train count as such
    assert [line["pixels"] for line in lines] == ["16", "16", "300"]
    assert numbers[6, 6] == 1 and numbers[6, 21] == 2 and numbers[25, 25] == 3
    left = {str(one.relative_to(tmp_path / "masks")) for one in (tmp_path / "masks").rglob("*") if one.is_file()}
    tables = {"objects/a.csv", "objects/a.counts.csv"}
    assert left == {"a.tif", "objects/a.tif", "polygons/a.gpkg", "segcli.jsonl", *tables}
    meta, _, geometry, columns = pyogrio.raw.read(tmp_path / "masks" / "polygons" / "a.gpkg")  # small ones left out
    polygon = dict(zip(meta["fields"], (column[0] for column in columns), strict=True))
    assert (len(geometry), polygon["object"], polygon["area"]) == (1, 3, 30_000)
    assert polygon["confidence"] == pytest.approx(float(lines[2]["confidence"]))
    options = EvalOptions(path.parent, path.parent, tmp_path / "report", objects="labels", min_miou=1.0)
    assert evaluate(options, Console(quiet=True)) == 0


def test_what_was_not_seen_is_as_unknown_to_eval_as_in_the_mask(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A true object without data in the image is missed by neither; nodata of a mask is not taken for background."""
    scene = np.full((3, 60, 60), 20, np.uint8)
    scene[:, 5:15, 5:15] = scene[:, 40:50, 40:50] = 240
    truth = np.zeros((60, 60), np.uint16)
    truth[5:15, 5:15], truth[22:30, 5:20], truth[40:50, 38:48] = 1, 2, 3
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_300_000, 10, 10)}
    scene[:, 20:32] = 0
    with rasterio.open(tmp_path / "a.tif", "w", "GTiff", 60, 60, 3, dtype="uint8", nodata=0, **place) as file:
        file.write(scene)
    with rasterio.open(tmp_path / "t.tif", "w", "GTiff", 60, 60, 1, dtype="uint16", **place) as file:
        file.write(truth, 1)
    assert predict(tmp_path, weights, tmp_path / "a.tif") == 0
    found = []
    for prediction, kind in ((tmp_path / "masks" / "a.tif", "against-labels"),
                             (tmp_path / "masks" / "objects" / "a.tif", "labels")):  # fmt: skip
        options = EvalOptions(prediction, tmp_path / "t.tif", tmp_path / kind, objects=kind)  # type: ignore[arg-type]
        assert evaluate(options, Console()) == 0
        found.append(json.loads((tmp_path / kind / "report.json").read_text())["per_class"][1]["objects"])
    assert found[0] == found[1]
    assert (found[0]["true"], found[0]["predicted"], found[0]["average_precision_50"]["value"]) == (2, 2, 1)
    assert "nodata" not in capsys.readouterr().err


def test_pixels_of_known_size_have_areas(tmp_path: Path, weights: Path) -> None:
    scene = np.full((40, 50), 20, np.uint8)
    scene[5:9, 5:9] = 240
    pixel = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(tmp_path / "a.ome.tif", scene, metadata={"axes": "YX", **pixel}, photometric="minisblack")
    assert predict(tmp_path, weights, tmp_path / "a.ome.tif") == 0
    _, (line,) = numbered(tmp_path / "masks" / "objects" / "a.ome.tif")
    assert (line["pixels"], float(line["area_um2"])) == ("16", 2.0)
    assert "x" not in line
    counts = (tmp_path / "masks" / "objects" / "a.ome.counts.csv").read_text()
    assert counts == "class,name,objects,pixels,area_um2\n7,light,1,16,2.0\n"


@pytest.mark.parametrize(("name", "kind"), [("a.ome.tif", "ome"), ("a.tif", "imagej"), ("b.tif", "shaped")])
@pytest.mark.parametrize("chosen", ["gpkg", "geojson"])
def test_each_image_of_a_stack_has_objects_of_its_own(
    tmp_path: Path, weights: Path, rng: np.random.Generator, name: str, kind: str, chosen: str
) -> None:
    """Those that it has as a file of its own; lines and polygons say which image they are of."""
    planes = np.where(rng.random((2, 3, 25, 33)) > 0.6, 240, 20).astype(np.uint8)
    planes[1, 2] = 20
    more = {"ome": kind == "ome", "imagej": kind == "imagej"}
    tifffile.imwrite(tmp_path / name, planes, metadata={"axes": "TZYX"}, photometric="minisblack", **more)  # type: ignore[arg-type]
    options = PredictOptions((tmp_path / name,), tmp_path / "masks", (str(weights),), objects=True, polygons=chosen)
    assert run(options, Console()) == 0
    expected: list[dict[str, str]] = []
    for (t, z), plane in zip(np.ndindex(2, 3), planes.reshape(6, 25, 33), strict=True):
        assert predict(tmp_path / f"{t}{z}", weights, write_picture(tmp_path / f"{t}{z}.png", plane)) == 0
        numbers, lines = numbered(tmp_path / f"{t}{z}" / "masks" / "objects" / f"{t}{z}.tif")
        expected += [{"T": str(t), "Z": str(z)} | line for line in lines]
        assert np.array_equal(tifffile.imread(tmp_path / "masks" / "objects" / name)[t, z], numbers)
    with tifffile.TiffFile(tmp_path / "masks" / "objects" / name) as file:
        assert kind in file.flags
        assert (file.series[0].axes, file.series[0].dtype) == ("TZYX", np.uint16)
    with (tmp_path / "masks" / "objects" / name).with_suffix(".csv").open(encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == expected
    assert list(expected[0])[:4] == ["T", "Z", "object", "class"]
    counted = Counter((int(line["T"]), int(line["Z"])) for line in expected)
    counts = (tmp_path / "masks" / "objects" / name).with_suffix(".counts.csv").read_text().splitlines()
    assert counts[0] == "T,Z,class,name,objects,pixels"
    assert [line.split(",")[4] for line in counts[1:]] == [str(counted[place]) for place in np.ndindex(2, 3)]
    assert counts[-1] == "1,2,7,light,0,0"  # none is a number, too
    path = tmp_path / "masks" / "polygons" / f"{Path(name).stem}.{chosen}"
    if chosen == "geojson":
        found_in = json.loads(path.read_text())["features"]
        features = [one["properties"] for one in found_in]
        for one in found_in:  # as QuPath reads it
            more = one["properties"]
            assert one["geometry"]["plane"] == {"c": -1, "z": more["Z"], "t": more["T"]}
            assert (more["objectType"], more["classification"]) == ("detection", {"name": "light"})
            assert more["measurements"] == {"confidence": more["confidence"]}
    else:
        meta, _, _, columns = pyogrio.raw.read(path)
        features = [dict(zip(meta["fields"], values, strict=True)) for values in zip(*columns, strict=True)]
    found = sorted((row["T"], row["Z"], row["object"], row["class"], row["area"]) for row in features)
    names = "T", "Z", "object", "class", "pixels"
    assert found == sorted(tuple(int(line[name]) for name in names) for line in expected)


@pytest.mark.parametrize("kind", ["ome", "imagej", "shaped"])
def test_overlays_of_a_stack_are_a_stack(tmp_path: Path, weights: Path, kind: str) -> None:
    """Between one black and one white for all, so that a dark image stays dark; in 8 bits what each is by itself."""
    planes = np.linspace(0, 250, 3 * 20 * 30).reshape(3, 20, 30)
    for dtype, factor in ((np.uint8, 1), (np.uint16, 100)):
        scan = tmp_path / f"{np.dtype(dtype).name}{'.ome' if kind == 'ome' else ''}.tif"
        said = {"metadata": {"axes": "TYX"}, "ome": kind == "ome", "imagej": kind == "imagej"}
        tifffile.imwrite(scan, (planes * factor).astype(dtype), photometric="minisblack", **said)  # type: ignore[arg-type]
        more = {"input_range": (0.0, 255.0 * factor)} if factor > 1 else {}
        options = PredictOptions((scan,), tmp_path / "masks", (str(weights),), overlay=True, alpha=0.0, **more)  # type: ignore[arg-type]
        assert run(options, Console()) == 0
        with tifffile.TiffFile(tmp_path / "masks" / "overlays" / scan.name) as file:
            assert kind in file.flags
            found = file.series[0].asarray()
        assert found.shape == (3, 20, 30, 3)
        if factor == 1:
            assert np.array_equal(found[..., 1], planes.astype(np.uint8))
        else:
            assert (np.diff(found.mean((1, 2, 3))) > 60).all()


def test_an_empty_image_of_a_stack_takes_no_light_from_the_others(tmp_path: Path, weights: Path) -> None:
    """Nor one of a single value, or of another type."""
    ramp = np.linspace(30_000, 32_000, 40 * 50).reshape(40, 50)
    for name, first, dtype in (("nodata", 0, np.uint16), ("nan", np.nan, np.float32), ("flat", 31_000, np.float32)):
        planes = np.stack([np.full((40, 50), first), ramp]).astype(dtype)
        tags = [(42113, "s", 0, "0", False)] if name == "nodata" else []
        said = {"metadata": {"axes": "TYX"}, "photometric": "minisblack", "extratags": tags}
        tifffile.imwrite(tmp_path / f"{name}.tif", planes, **said)  # type: ignore[arg-type]
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        file.write(np.full((40, 50), 100, np.uint8), photometric="minisblack", contiguous=False, metadata=None)
        file.write(ramp.astype(np.uint16), photometric="minisblack", contiguous=False, metadata=None)
    scans = tuple(tmp_path / f"{name}.tif" for name in ("nodata", "nan", "flat", "mixed"))
    more = {"overlay": True, "alpha": 0.0, "input_range": (0.0, 65535.0)}
    assert run(PredictOptions(scans, tmp_path / "masks", (str(weights),), **more), Console()) == 0  # type: ignore[arg-type]
    for scan in scans:
        dark, bright = tifffile.imread(tmp_path / "masks" / "overlays" / scan.name)
        assert (bright.min(), bright.max()) == (0, 255), scan
        assert scan.stem != "mixed" or (dark == 100).all()


def test_axes_without_a_name_are_numbered(tmp_path: Path, weights: Path) -> None:
    planes = np.full((2, 3, 20, 30), 20, np.uint8)
    planes[1, 2, 5:9, 5:9] = 240
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="minisblack")
    more = {"objects": True, "polygons": "geojson"}
    options = PredictOptions((tmp_path / "a.tif",), tmp_path / "masks", (str(weights),), **more)  # type: ignore[arg-type]
    assert run(options, Console()) == 0
    with (tmp_path / "masks" / "objects" / "a.csv").open(encoding="utf-8") as file:
        (line,) = csv.DictReader(file)
    assert (line["Q1"], line["Q2"], line["pixels"]) == ("1", "2", "16")
    (feature,) = json.loads((tmp_path / "masks" / "polygons" / "a.geojson").read_text())["features"]
    assert (feature["properties"]["Q1"], feature["properties"]["Q2"]) == (1, 2)


def test_more_images_than_a_process_may_have_files_open(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    planes = np.full((200, 8, 9), 20, np.uint8)
    planes[:, 2:4, 2:4] = 240
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="minisblack", metadata={"axes": "TYX"})
    resource.setrlimit(resource.RLIMIT_NOFILE, (150, before[1]))
    try:
        more = {"objects": True, "polygons": "gpkg", "overlay": True}
        options = PredictOptions((tmp_path / "a.tif",), tmp_path / "masks", (str(weights),), **more)  # type: ignore[arg-type]
        assert run(options, Console()) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(pyogrio.raw.read(tmp_path / "masks" / "polygons" / "a.gpkg")[2]) == 200


def write_placed(path: Path, *places: tuple[str | None, float]) -> Path:
    """Pages, each in a reference system, or nowhere, from that far east; a bright square on each."""
    scene = np.full((1, 20, 30), 20, np.uint8)
    scene[0, 5:9, 5:9] = 240
    for n, (crs, east) in enumerate(places):
        place = {} if crs is None else {"crs": crs, "transform": from_origin(east, 5_000_000, 10, 10)}
        with rasterio.MemoryFile() as memory:
            with memory.open(driver="GTiff", count=1, height=20, width=30, dtype="uint8", **place) as page:
                page.write(scene)
            with memory.open() as page:
                more = {"APPEND_SUBDATASET": "YES"} if n else {}
                rasterio.shutil.copy(page, path, driver="GTiff", **more)
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_images_of_a_stack_lie_where_each_lies(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one reference system: where they lie in several, or some nowhere, one file cannot say it."""
    apart = write_placed(tmp_path / "apart.tif", ("EPSG:32632", 400_000), ("EPSG:32632", 600_000))
    zones = write_placed(tmp_path / "zones.tif", ("EPSG:32632", 400_000), ("EPSG:32633", 400_000))
    nowhere = write_placed(tmp_path / "nowhere.tif", (None, 0), ("EPSG:32632", 400_000))
    more = {"objects": True, "polygons": "gpkg"}
    options = PredictOptions((apart, zones, nowhere), tmp_path / "masks", (str(weights),), **more)  # type: ignore[arg-type]
    assert run(options, Console()) == 1
    said = capsys.readouterr().err
    for name in ("zones", "nowhere"):
        assert f"{name}.tif: images in several reference systems, or some that lie nowhere; objects and" in said
    with (tmp_path / "masks" / "objects" / "apart.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["I"], float(line["x"]), float(line["y"])) for line in lines] == [
        ("0", 400_070, 4_999_930), ("1", 600_070, 4_999_930),
    ]  # fmt: skip
    shapes = shapely.from_wkb(pyogrio.raw.read(tmp_path / "masks" / "polygons" / "apart.gpkg")[2])
    assert [shape.centroid.coords[0] for shape in shapes] == [(400_070, 4_999_930), (600_070, 4_999_930)]


def test_masks_of_classes_are_no_numbers_and_the_other_way_round(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = np.full((2, 40, 50), 20, np.uint8)
    scene[:, 5:9, 5:9] = 240
    for name, planes in (("one.png", scene[0]), ("two.tif", scene)):
        (write_picture if name == "one.png" else tifffile.imwrite)(tmp_path / name, planes)
        assert predict(tmp_path, weights, tmp_path / name) == 0
        mask = tmp_path / "masks" / Path(name).with_suffix(".tif")
        mask = mask if mask.exists() else mask.with_suffix(".png")
        numbers = tmp_path / "masks" / "objects" / Path(name).with_suffix(".tif")
        if name == "two.tif":  # a PNG names no classes
            with pytest.raises(NothingDoneError):
                evaluate(EvalOptions(mask, numbers, tmp_path / "r", objects="labels"), Console())
            assert "a mask of classes (background, light); --objects labels expects numbers" in capsys.readouterr().err
        with pytest.raises(NothingDoneError):
            evaluate(EvalOptions(numbers, mask, tmp_path / "r"), Console())
        assert "1 band of uint16; expected class indices, uint8; numbers of objects are for --objects" in (
            capsys.readouterr().err
        )


def test_more_objects_than_16_bits_can_number(tmp_path: Path, weights: Path) -> None:
    """The highest number of 16 bits is an object's, or stands for no data."""
    scene = np.full((512, 512, 4), 20, np.uint8)
    scene[::2, ::2] = 240
    scene[..., 3] = 255
    cases = []
    for name, dark, clear, dtype in (("a", 1, 0, np.uint16), ("b", 0, 0, np.uint32), ("c", 1, 1, np.uint32)):
        picture = scene.copy()
        picture[0, : 2 * dark, :3] = 20  # one object less
        picture[-1, -clear:, 3] = 255 * (1 - clear)
        write_picture(tmp_path / f"{name}.png", picture)
        cases.append((name, 2**16 - dark, bool(clear), dtype))
    assert predict(tmp_path, weights, *(tmp_path / f"{name}.png" for name, *_ in cases)) == 0
    for name, count, is_clear, dtype in cases:
        numbers, lines = numbered(tmp_path / "masks" / "objects" / f"{name}.tif")
        assert (len(lines), numbers.dtype) == (count, dtype)
        assert len(np.unique(numbers)) == count + 1 + is_clear
        assert [int(line["object"]) for line in lines] == list(range(1, count + 1))


def test_overviews_and_places_are_those_of_the_image(tmp_path: Path, weights: Path, rng: np.random.Generator) -> None:
    """No numbers are made up for the former; a PNG of a mask has no place, a print's resolution is no pixel's size."""
    scene = np.kron(rng.choice(np.array([20, 240], np.uint8), (60, 80)), np.ones((20, 20), np.uint8))
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_300_000, 10, 10)}
    with rasterio.open(tmp_path / "a.tif", "w", "GTiff", 1600, 1200, 3, dtype="uint8", **place) as file:
        file.write(np.stack([scene] * 3))
        file.update_tags(TIFFTAG_XRESOLUTION="72", TIFFTAG_YRESOLUTION="72", TIFFTAG_RESOLUTIONUNIT="2 (pixels/inch)")
    assert predict(tmp_path, weights, tmp_path / "a.tif", format="png") == 0
    numbers, lines = numbered(tmp_path / "masks" / "objects" / "a.tif")
    assert "x" in lines[0] and "area_um2" not in lines[0]
    with rasterio.open(tmp_path / "masks" / "objects" / "a.tif") as file:
        assert (file.crs, file.transform) == ("EPSG:32633", place["transform"])
        assert file.overviews(1)
        assert set(np.unique(file.read(1, out_shape=(600, 800)))) <= set(np.unique(numbers))


def test_what_control_points_place_has_no_x_and_y(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = [GroundControlPoint(row, col, 10 + col / 100, 50 - row / 100) for row in (0, 30) for col in (0, 40)]
    with (
        pytest.warns(NotGeoreferencedWarning),
        rasterio.open(tmp_path / "a.tif", "w", "GTiff", 40, 30, 3, dtype="uint8") as file,
    ):
        file.write(np.full((3, 30, 40), 240, np.uint8))
        file.gcps = (points, rasterio.CRS.from_epsg(4326))
    assert run(PredictOptions((tmp_path / "a.tif",), tmp_path / "masks", (str(weights),), objects=True), Console()) == 0
    assert "a.tif: placed by control points or polynomials; its objects are in columns and rows" in (
        capsys.readouterr().err
    )
    _, (line,) = numbered(tmp_path / "masks" / "objects" / "a.tif")
    assert "x" not in line


def test_too_many_objects_for_the_memory_are_said(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    scan = write_picture(tmp_path / "a.png", np.full((20, 20, 3), 240, np.uint8))
    monkeypatch.setattr("segcli.outputs.find_objects", full)
    assert run(PredictOptions((scan,), tmp_path / "masks", (str(weights),), objects=True), Console()) == 1
    assert "a.png: too many objects for the memory; leave out --objects and --polygons" in capsys.readouterr().err
    assert not list((tmp_path / "masks").rglob("*.*if*"))


def test_what_objects_need_of_confidence_is_no_output_in_half_floats(tmp_path: Path, weights: Path) -> None:
    """Which OME-TIFF has not."""
    scene = np.full((40, 50), 240, np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", scene, metadata={"axes": "YX"}, photometric="minisblack", ome=True)
    assert predict(tmp_path, weights, tmp_path / "a.ome.tif", quantity="float16") == 0
    assert predict(tmp_path / "b", weights, tmp_path / "a.ome.tif", quantity="float16", confidence=True) == 1


def test_no_objects_and_what_somebody_else_wrote(tmp_path: Path, weights: Path) -> None:
    """A table of a head alone; a table that segcli did not write stays, and the image fails."""
    scan = write_picture(tmp_path / "a.png", np.full((20, 20, 3), 5, np.uint8))
    assert predict(tmp_path, weights, scan) == 0
    numbers, lines = numbered(tmp_path / "masks" / "objects" / "a.tif")
    assert not numbers.any()
    assert lines == []
    other = write_picture(tmp_path / "b.png", np.full((20, 20, 3), 5, np.uint8))
    table = tmp_path / "masks" / "objects" / "b.csv"
    table.write_text("mine")
    assert predict(tmp_path, weights, other) == 1
    assert table.read_text() == "mine"
    assert not (tmp_path / "masks" / "b.png").exists()
    table.unlink()
    assert predict(tmp_path, weights, other) == 0
    table.unlink()  # what is missing is made again
    assert predict(tmp_path, weights, other) == 0
    assert table.read_text().startswith("object,class,name")
