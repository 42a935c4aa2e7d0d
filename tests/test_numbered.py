"""predict --objects: a number for each object, and a line for each number, beside scikit-image's."""

import csv
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import tifffile
from helpers import brightness_model, write_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from skimage.measure import label, regionprops

from segcli.classes import ClassEntry, ClassTable
from segcli.console import Console
from segcli.evaluate import run as evaluate
from segcli.network import checkpoint
from segcli.options import EvalOptions, PredictOptions
from segcli.predict import run
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
    options = PredictOptions(inputs, tmp_path / "masks", str(weights), objects=True, **more)  # type: ignore[arg-type]
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
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 40), width=st.integers(1, 40), strip=st.integers(1, 41))
def test_numbers_and_lines_are_those_of_scikit_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, height: int, width: int, strip: int
) -> None:
    """Whatever the strips: objects of two classes, a third that has none, and pixels without data."""
    rng = np.random.default_rng(seed)
    monkeypatch.setattr("segcli.raster.objects.STRIP_PIXELS", strip * width)
    mask = rng.choice(np.array([0, 3, 3, 5, 255], np.uint8), (height, width))
    sure = rng.integers(0, 251, (height, width), np.uint8)
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_300_000, 2, 4)}
    size = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": "uint8"} | place
    with rasterio.open(tmp_path / "m.tif", "w", nodata=255, **size) as file:
        file.write(mask, 1)
    with Source(tmp_path / "m.tif", "mask") as source:
        grid = source.grid
    with create(tmp_path / "c.tif", grid, Layout(1, "uint8", scale=1 / 250)) as sink:
        sink.write(0, sure)
    objects = find_objects(tmp_path / "m.tif", tmp_path / "c.tif", [3, 5])
    names = {3: "three", 5: "five"}
    write_objects(tmp_path / "m.tif", objects, tmp_path / "n.tif", tmp_path / "n.csv", names, grid, Encoding())
    numbers, lines = numbered(tmp_path / "n.tif")
    expected = in_reading_order(mask, (3, 5))
    np.testing.assert_array_equal(numbers, expected)
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
    assert left == {"a.tif", "objects/a.tif", "objects/a.csv", "polygons/a.gpkg", "segcli.jsonl"}
    meta, _, geometry, columns = pyogrio.raw.read(tmp_path / "masks" / "polygons" / "a.gpkg")  # small ones left out
    polygon = dict(zip(meta["fields"], (column[0] for column in columns), strict=True))
    assert (len(geometry), polygon["object"], polygon["area"]) == (1, 3, 30_000)
    assert polygon["confidence"] == pytest.approx(float(lines[2]["confidence"]))
    options = EvalOptions(path.parent, path.parent, tmp_path / "report", objects="labels", min_miou=1.0)
    assert evaluate(options, Console(quiet=True)) == 0


def test_pixels_of_known_size_have_areas_and_stacks_no_objects(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = np.full((2, 40, 50), 20, np.uint8)
    scene[:, 5:9, 5:9] = 240
    more = {"photometric": "minisblack", "ome": True}
    pixel = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(tmp_path / "one.ome.tif", scene[0], metadata={"axes": "YX", **pixel}, **more)
    tifffile.imwrite(tmp_path / "two.ome.tif", scene, metadata={"axes": "ZYX", **pixel}, **more)
    options = PredictOptions((tmp_path / "one.ome.tif", tmp_path / "two.ome.tif"), tmp_path / "masks", str(weights),
                             objects=True)  # fmt: skip
    assert run(options, Console()) == 0
    assert "two.ome.tif: a stack; overlays, objects and polygons are made of single images" in capsys.readouterr().err
    _, (line,) = numbered(tmp_path / "masks" / "objects" / "one.ome.tif")
    assert (line["pixels"], float(line["area_um2"])) == ("16", 2.0)
    assert "x" not in line
    assert sorted(path.name for path in (tmp_path / "masks" / "objects").iterdir()) == ["one.ome.csv", "one.ome.tif"]


def test_more_objects_than_16_bits_can_number(tmp_path: Path, weights: Path) -> None:
    scene = np.full((520, 520, 3), 20, np.uint8)
    scene[::2, ::2] = 240
    write_picture(tmp_path / "few.png", scene[:512, :510])
    write_picture(tmp_path / "many.png", scene)
    assert predict(tmp_path, weights, tmp_path / "few.png", tmp_path / "many.png") == 0
    for name, count, dtype in (("few", 256 * 255, np.uint16), ("many", 260 * 260, np.uint32)):
        numbers, lines = numbered(tmp_path / "masks" / "objects" / f"{name}.tif")
        assert (numbers.max(), len(lines), numbers.dtype) == (count, count, dtype)


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
