"""Every command in the README is run, in order, from a folder that holds what a reader would have."""

import ast
import csv
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
import tifffile
from ready import Ready

import segcli
from segcli.classes import ClassTable

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PIPELINES = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
FIRST = "pip install . && segcli predict examples/scans --out masks/"
SECOND = "pip install '.[test]' && pytest"
SIDE = 128
"""Of the scans in a reader's folder, in pixels: the commands read them again and again."""


def commands() -> list[str]:
    """Lines of the shell blocks, continued lines joined, without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corners of the examples, and a small data set."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("scans", "truth"):
        (folder / name).mkdir()
    for path in (ROOT / "examples" / "scans").iterdir():
        scan = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[:SIDE, :SIDE]
        cv2.imwrite(str(folder / "scans" / path.name), scan)
        # Any labels will do, as long as they are of the right size.
        grey = cv2.imread(str(folder / "scans" / path.name), cv2.IMREAD_GRAYSCALE)
        # Bright nuclei on a dark ground, or dark ones in stained tissue.
        mask = grey < grey.mean() if path.stem == "tissue" else grey > grey.mean()
        cv2.imwrite(str(folder / "truth" / f"{path.stem}.png"), mask.astype(np.uint8))
    classes = [{"index": 0, "name": "background"}, {"index": 1, "name": "nucleus", "color": "#FFD200"}]
    (folder / "truth" / "classes.json").write_text(json.dumps({"classes": classes}))
    rng = np.random.default_rng(0)
    place = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(500_000, 5_300_000, 10, 10)}
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", count=6, height=80, width=90, dtype="uint16", **place
    ) as file:
        file.write(rng.integers(0, 10_000, (6, 80, 90), np.uint16))
    with tifffile.TiffWriter(folder / "slide.ome.tif") as file:
        size = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm"}
        slide = rng.integers(0, 255, (256, 192, 3), np.uint8)
        file.write(slide, photometric="rgb", tile=(64, 64), subifds=1, metadata=size)
        file.write(slide[::2, ::2], photometric="rgb", tile=(64, 64), subfiletype=1)
    fields = [shapely.box(500_000 + 90 * n, 5_299_200, 500_050 + 90 * n, 5_300_000) for n in range(10)]
    columns = [np.array(["wheat", "maize"] * 5, object)]
    wkb = np.array([shapely.to_wkb(field) for field in fields], object)
    pyogrio.raw.write(
        folder / "fields.gpkg", wkb, columns, ["crop"], geometry_type="Polygon", crs="EPSG:32633", driver="GPKG"
    )
    for n in range(4):
        mask = cv2.circle(np.zeros((48, 48), np.uint8), (20 + n, 24), 12, 1, -1)
        image = (60 + 120 * mask[..., None] + rng.integers(0, 30, (48, 48, 3))).astype(np.uint8)
        for kind, pixels in (("images", image), ("masks", mask)):
            (folder / "data" / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / "data" / kind / f"{n}.png"), pixels)
    return folder


def test_the_two_commands_for_a_fresh_machine_are_there_and_are_what_ci_runs() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in (FIRST, SECOND):
        assert command in commands()
        assert command in ci


Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def in_a_shell(tmp_path_factory: pytest.TempPathFactory, ready: Ready) -> Shell:
    """Run text by a shell in a folder. `segcli` need not import torch there, unless it is to be the one installed."""
    stand_in = ready.stand_in(tmp_path_factory.mktemp("bin") / "segcli").parent

    def run(
        folder: Path, text: str, *more: str, installed: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        path = [*([] if installed else [str(stand_in)]), str(Path(sys.executable).parent), os.environ["PATH"], *more]
        return subprocess.run(
            ["bash", "-c", text], cwd=folder, capture_output=True, text=True, timeout=600,
            check=False, env={**os.environ, "PATH": os.pathsep.join(path), **environment}, pass_fds=[ready.channel],
        )  # fmt: skip

    return run


def test_every_command_of_the_readme(reader: Path, in_a_shell: Shell, subtests: pytest.Subtests) -> None:
    """In one test, because each may need the files of those above it, and several processes share the tests."""
    after_these = [line for line in commands() if line not in (FIRST, SECOND)]
    assert len(after_these) > 20
    for command in after_these:
        with subtests.test(command):
            done = in_a_shell(reader, f"set -euo pipefail\n{command}")
            assert done.returncode == 0, done.stderr


def block(kind: str) -> str:
    """The code block of that kind among the recipes."""
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", PIPELINES, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def pipeline(reader: Path, tmp_path: Path, in_a_shell: Shell) -> Shell:
    """Run text by a shell beside the scans; where GNU parallel or mail is missing, something that does as they do."""
    standins = {
        "parallel": 'command=()\nwhile [ "$1" != ::: ]; do command+=("$1"); shift; done\nshift\n'
        'for word; do bash -c "${command[*]//\\{\\}/$word}" & done\nfor word; do wait -n || exit 1; done\n',
        "mail": 'cat > mail.txt; echo "$@" >> mail.txt\n',
    }
    for name, text in standins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}")
        (tmp_path / name).chmod(0o755)
    for path in ("scans", "truth"):
        if not (tmp_path / path).exists():
            (tmp_path / path).symlink_to(reader / path)
    (tmp_path / "night.toml").write_text(block("toml"))

    def run(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return in_a_shell(tmp_path, text, str(tmp_path), **environment)

    return run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".jsonl"}


def test_all_folds_in_one_report(reader: Path, pipeline: Shell) -> None:
    """Each image stands in it once; and the weights of all folds label new ones together."""
    small = f"{reader / 'data'} --epochs 1 --width 2 --depth 1 --crop 32"
    recipe = block("folds").replace("1 2 3 4 5", "1 2").replace("/5", "/2").replace("cells/", small)
    done = pipeline(f"{recipe}\ncat runs/all_folds/report.json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout[done.stdout.index("{") :])
    assert (report["images"], report["pixels"]) == (4, 4 * 48 * 48)
    done = pipeline(block("mean"))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(list((reader / "scans").iterdir()))


def test_bands_in_files_of_their_own(reader: Path, pipeline: Shell, tmp_path: Path) -> None:
    with rasterio.open(reader / "scene.tif") as scene:
        profile = scene.profile | {"count": 1}
        for band in (2, 3, 4):
            with rasterio.open(tmp_path / f"B{band}.tif", "w", **profile) as file:
                file.write(scene.read(band), 1)
    result = pipeline(block("bands"))
    assert result.returncode == 0, result.stderr
    with rasterio.open(tmp_path / "bands" / "stacked.tif") as mask, rasterio.open(tmp_path / "B2.tif") as band:
        assert (mask.crs, mask.transform, mask.shape) == (band.crs, band.transform, band.shape)
    with rasterio.open(tmp_path / "stacked.tif") as stacked, rasterio.open(tmp_path / "B4.tif") as red:
        assert np.array_equal(stacked.read(1), red.read(1))


def test_channels_in_files_of_their_own(pipeline: Shell, tmp_path: Path, rng: np.random.Generator) -> None:
    cells = rng.integers(0, 200, (2, 64, 72), np.uint16)
    for n, middle in enumerate(((20, 20), (50, 40))):
        cv2.circle(cells[n], middle, 9, 3000, -1)
    for n, pixels in enumerate(cells):
        tifffile.imwrite(tmp_path / f"cell_d{n}.tif", pixels)
    result = pipeline(block("channels"))
    assert result.returncode == 0, result.stderr
    assert tifffile.imread(tmp_path / "nuclei" / "cell.ome.tif").shape == (64, 72)
    assert np.array_equal(tifffile.imread(tmp_path / "cell.ome.tif"), cells)
    assert pipeline("segcli predict cell.ome.tif --out b/ --bands GFP").returncode == 1
    result = pipeline("segcli predict cell.ome.tif --out b/ --bands actin && cmp b/cell.ome.tif nuclei/cell.ome.tif")
    assert result.returncode == 1  # another channel


def test_data_as_other_programs_have_them(pipeline: Shell, tmp_path: Path, rng: np.random.Generator) -> None:
    small = "--epochs 1 --width 2 --depth 1 --crop 32"
    for folder in ("cellpose", "imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for n in range(4):
        image, numbers = rng.integers(0, 255, (48, 48), np.uint8), np.zeros((48, 48), np.uint16)
        numbers[10:20, 10:20], numbers[20:30, 10:20] = 1, 300
        tifffile.imwrite(tmp_path / "cellpose" / f"{n}.tif", image)
        tifffile.imwrite(tmp_path / "cellpose" / f"{n}_masks.tif", numbers)
        cv2.imwrite(str(tmp_path / "imagesTr" / f"case_{n}_0000.png"), image)
        cv2.imwrite(str(tmp_path / "labelsTr" / f"case_{n}.png"), (numbers > 0).astype(np.uint8))
    for name, run in (("cellpose", "runs/cells"), ("nnunet", "runs/cases")):
        result = pipeline(f"{block(name).strip()} {small}")
        assert result.returncode == 0, result.stderr
        assert (tmp_path / run / "best.safetensors").exists()
    assert (tmp_path / "pairs.csv").read_text().splitlines()[1] == "imagesTr/case_0_0000.png,labelsTr/case_0.png"


def test_intervals_for_one_large_scene(pipeline: Shell, tmp_path: Path, rng: np.random.Generator) -> None:
    truth = (cv2.blur(rng.random((700, 1100)), (31, 31)) > 0.5).astype(np.uint8)
    found = np.where(rng.random(truth.shape) < 0.1, 1 - truth, truth).astype(np.uint8)
    place = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(500_000, 5_300_000, 10, 10)}
    for name, mask in (("truth", truth), ("mask", found)):
        with rasterio.open(tmp_path / f"scene_{name}.tif", "w", "GTiff", 1100, 700, 1, dtype="uint8", **place) as file:
            file.write(mask, 1)
    result = pipeline(block("blocks"))
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "blocks_report" / "report.json").read_text())
    assert (report["images"], report["pixels"]) == (6, truth.size)
    figure = report["dataset"]["pixel_accuracy"]
    assert figure["value"] == pytest.approx((truth == found).mean())
    assert figure["low"] < figure["value"] < figure["high"]


def test_sheets_of_one_scene_and_a_part_of_it(pipeline: Shell, tmp_path: Path, rng: np.random.Generator) -> None:
    """Of a scene that is large enough for what the network sees beside the part."""
    small = rng.integers(0, 10_000, (20, 24, 3), np.uint16)
    pixels = cv2.resize(small, (1152, 960), interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1)
    place = {"crs": "EPSG:32633", "dtype": "uint16", "count": 3}
    corner = rasterio.transform.from_origin(500_000, 5_300_000, 10, 10)
    sheets = {"a": slice(0, 600), "b": slice(600, 1152)}
    (tmp_path / "sheets").mkdir()
    for name, columns in sheets.items():
        part = pixels[:, :, columns]
        with rasterio.open(
            tmp_path / "sheets" / f"{name}.tif", "w", "GTiff", part.shape[2], 960,
            transform=corner @ rasterio.transform.Affine.translation(columns.start, 0), **place,
        ) as file:  # fmt: skip
            file.write(part)
    result = pipeline(block("mosaic"))
    assert result.returncode == 0, result.stderr
    with rasterio.open(tmp_path / "scene.tif") as file:
        assert np.array_equal(file.read(), pixels)
    with rasterio.open(tmp_path / "whole" / "scene.tif") as file:
        whole = file.read(1)
    assert len(np.unique(whole)) > 1
    for name, columns in sheets.items():
        with (
            rasterio.open(tmp_path / "whole" / f"{name}.tif") as mask,
            rasterio.open(tmp_path / "sheets" / f"{name}.tif") as sheet,
        ):
            assert (mask.transform, mask.shape) == (sheet.transform, sheet.shape)
            assert np.array_equal(mask.read(1), whole[:, columns])
    result = pipeline(block("part"))
    assert result.returncode == 0, result.stderr
    with rasterio.open(tmp_path / "part_mask.tif") as file:
        assert (file.shape, file.transform @ (0, 0)) == ((300, 400), (505_200, 5_296_640))
        assert np.array_equal(file.read(1), whole[336:636, 520:920])


def test_areas_of_classes_in_fields(pipeline: Shell, reader: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    """Of each field, as counted by the middles of its pixels."""
    mask = rng.integers(0, 3, (80, 90), np.uint8)
    place = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(500_000, 5_300_000, 10, 10)}
    (tmp_path / "masks").mkdir()
    with rasterio.open(tmp_path / "masks" / "scene.tif", "w", "GTiff", 90, 80, 1, dtype="uint8", **place) as file:
        file.write(mask, 1)
    (tmp_path / "fields.gpkg").symlink_to(reader / "fields.gpkg")
    result = pipeline(block("zones"))
    assert result.returncode == 0, result.stderr
    with (tmp_path / "areas.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    wanted = [
        [crop, str(label), str(100.0 * np.count_nonzero(mask[:, 9 * n : 9 * n + 5] == label))]
        for n, crop in enumerate(["wheat", "maize"] * 5) for label in range(3)
    ]  # fmt: skip
    assert rows == wanted


def test_images_of_a_stack_as_files_of_their_own(pipeline: Shell, tmp_path: Path, rng: np.random.Generator) -> None:
    cells = rng.integers(0, 255, (3, 48, 48), np.uint8)
    tifffile.imwrite(tmp_path / "cells.tif", cells, metadata={"axes": "ZYX"}, photometric="minisblack")
    tifffile.imwrite(tmp_path / "masks.tif", (cells > 127).astype(np.uint8), photometric="minisblack")
    names = [{"index": 0, "name": "background"}, {"index": 1, "name": "cell"}]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": names}))
    recipe = block("pages").replace("seq 1 30", "seq 1 3")
    result = pipeline(recipe)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "tiles" / "masks").glob("*.png"))) == 3
    assert np.array_equal(tifffile.imread(tmp_path / "apart" / "images" / "3.tif"), cells[2])


def test_how_bright_each_object_is(pipeline: Shell, tmp_path: Path, rng: np.random.Generator) -> None:
    """Every object of the table, in every channel, as its own pixels say."""
    cells = np.zeros((120, 160), np.uint8)
    for n in range(6):
        cv2.circle(cells, (20 + 24 * n, 40 + 8 * n), 9, 1, -1)
    dapi = (40 + 150 * cells + rng.integers(0, 20, cells.shape)).astype(np.uint8)
    channels = np.stack([rng.integers(0, 255, cells.shape, np.uint8), dapi])
    names = {"axes": "CYX", "Channel": {"Name": ["GFP", "DAPI"]}}
    tifffile.imwrite(tmp_path / "cells.ome.tif", channels, metadata=names, photometric="minisblack")
    result = pipeline(block("measure"))
    assert result.returncode == 0, result.stderr
    with (tmp_path / "measured.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = tifffile.imread(tmp_path / "nuclei" / "objects" / "cells.ome.tif")
    assert len(rows) == numbers.max() > 3
    for row in rows:
        where = numbers == int(row["object"])
        assert where.sum() == int(row["pixels"])
        found = float(row["mean_1"]), float(row["mean_2"])
        assert found == pytest.approx((channels[0][where].mean(), channels[1][where].mean()))


def test_nifti_volumes(pipeline: Shell, tmp_path: Path, rng: np.random.Generator) -> None:
    """There and back: masks lie where their volumes do, voxel by voxel, also of a single plane and scaled numbers."""
    affine = np.array([[-0.7, 0.1, 0, 20], [0, 0.8, 0.2, -30], [0, -0.1, 2.5, 40], [0, 0, 0, 1]])
    shapes = {"a.nii.gz": (90, 70, 3), "b.nii": (60, 50, 1)}
    (tmp_path / "volumes").mkdir()
    drawn = {}
    for name, shape in shapes.items():
        cells = np.zeros(shape, np.int16)
        for k in range(shape[2]):
            cells[20 + 5 * k : 34 + 5 * k, 15:31, k] = 1
        drawn[name] = cells
        volume = nibabel.Nifti1Image((200 + 900 * cells + rng.integers(0, 90, shape)).astype(np.int16), affine)
        volume.header.set_slope_inter(0.5, -100)
        nibabel.save(volume, tmp_path / "volumes" / name)
    result = pipeline(block("nifti"))
    assert result.returncode == 0, result.stderr
    for name, cells in drawn.items():
        mask = nibabel.load(tmp_path / "labels" / f"{name.split('.nii')[0]}.nii.gz")
        source = nibabel.load(tmp_path / "volumes" / name)
        assert mask.shape == cells.shape
        assert mask.get_data_dtype() == np.uint8
        assert np.allclose(mask.affine, source.affine)
        labels = np.asarray(mask.dataobj)
        both = np.count_nonzero((labels == 1) & (cells == 1))
        assert both > 0.85 * np.count_nonzero((labels == 1) | (cells == 1))
    with tifffile.TiffFile(tmp_path / "masks" / "a.tif") as file:
        step = 1000 * np.hypot(0.2, 2.5)  # of millimetres
        assert (file.imagej_metadata["unit"], file.imagej_metadata["spacing"]) == ("um", pytest.approx(step, rel=1e-6))


def test_make(pipeline: Shell, tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("no make")
    (tmp_path / "Makefile").write_text(block("make"))
    assert pipeline("make -j2").returncode == 0
    assert names(tmp_path / "made") == {"dapi_8bit.png", "tissue.png"} & {
        p.name for p in (tmp_path / "scans").iterdir()
    }
    assert "Nothing to be done" in pipeline("make").stdout


def test_parallel(pipeline: Shell, tmp_path: Path) -> None:
    result = pipeline(block("parallel"))
    assert result.returncode == 0, result.stderr
    assert len(names(tmp_path / "parts")) == len(list((tmp_path / "scans").iterdir()))


def test_a_slurm_array(pipeline: Shell, tmp_path: Path) -> None:
    text = block("slurm")
    assert "--array=1-2 " in text
    for n in range(1, 3):
        result = pipeline(text, SLURM_ARRAY_TASK_ID=str(n))
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "logs" / f"{n}.log").exists()
    assert len(names(tmp_path / "array")) == len(list((tmp_path / "scans").iterdir()))


def test_cron(pipeline: Shell, tmp_path: Path) -> None:
    line = block("cron").strip()
    minute, hour, *_, command = line.split(maxsplit=5)
    assert (minute, hour) == ("30", "22")
    assert "%" not in command  # a newline to cron
    command = command.replace("cd /data", f"cd {tmp_path}")
    assert pipeline(command).returncode == 0
    assert not (tmp_path / "mail.txt").exists()
    (tmp_path / "nightly" / "segcli.jsonl").unlink()  # then nobody knows that the masks are segcli's
    pipeline(command)
    assert "segcli ended with 1" in (tmp_path / "mail.txt").read_text()


def test_the_first_command_s_second_half(tmp_path: Path, in_a_shell: Shell) -> None:
    """The rest of the fresh machine's first command: installing is what brought us here."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    result = in_a_shell(tmp_path, FIRST.split("&&")[1], installed=True)
    assert result.returncode == 0, result.stderr
    masks = {path.name for path in (tmp_path / "masks").iterdir()}
    assert masks == {"dapi_12bit.tif", "dapi_8bit.png", "segcli.jsonl", "tissue.png"}


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")),
                                  ROOT / "weights" / "README.md", ROOT / "benchmarks" / "README.md"],
                         ids=lambda page: page.relative_to(ROOT).as_posix())  # fmt: skip
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", page.read_text(encoding="utf-8")):
        path, heading = (page.parent / target[0]) if target[0] else page, target[1].removeprefix("#")
        assert "://" in target[0] or path.exists(), target[0]
        if heading:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


def test_all_shell_commands_are_in_the_readme_which_is_run() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert "```sh" not in page.read_text(encoding="utf-8"), page


def test_the_class_table_in_the_docs_is_one(tmp_path: Path) -> None:
    (found,) = re.findall(
        r"^```json\n(.*?)^```", (ROOT / "docs" / "formats.md").read_text(encoding="utf-8"), re.M | re.S
    )
    assert ClassTable.from_json(json.loads(found)).names == ("background", "nucleus")


def test_the_changelog_knows_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{segcli.__version__}]" in changelog or not re.search(r"^## \[\d", changelog, re.M)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.name)
def test_a_benchmark_calls_what_there_is(path: Path) -> None:
    """They are run by hand alone, and long after a name has changed."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "segcli":
            module = importlib.import_module(str(node.module))
            assert [name.name for name in node.names if not hasattr(module, name.name)] == [], node.module
