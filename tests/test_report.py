"""What eval makes of options beyond the confusion matrix: objects, scores, groups, comparison, processes, the page."""

import base64
import csv
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
import tifffile
from helpers import SHARED, brightness_model, write_picture
from rasterio.transform import from_origin
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from segcli.classes import ClassEntry, ClassTable
from segcli.cli.texts import width
from segcli.console import Console
from segcli.errors import NothingDoneError, UsageError
from segcli.evaluate import run
from segcli.evaluation.tables import all_tables
from segcli.measures import report
from segcli.measures.confusion import Totals, matthews_correlation, mean_iou
from segcli.measures.report import ImageCounts, by_group, entries_of, per_image_rows
from segcli.network import checkpoint
from segcli.options import EvalOptions
from segcli.raster.grid import Grid
from segcli.raster.sink import create, mask_layout
from segcli.raster.source import Source

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folders(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, Path]:
    """Six pairs of two sites with three classes, one of them named as background, of different difficulty."""
    for n in range(6):
        field = ndimage.gaussian_filter(rng.random((60, 50 + n)), 3)
        truth = np.digitize(field, [0.5, 0.55]).astype(np.uint8)
        noise = ndimage.gaussian_filter(rng.random(field.shape) - 0.5, 2) * 0.2 * n
        predicted = np.digitize(field + noise, [0.5, 0.55]).astype(np.uint8)
        truth[:4] = 255
        write_picture(tmp_path / "truth" / f"site{n % 2}_{n}.png", truth)
        write_picture(tmp_path / "masks" / f"site{n % 2}_{n}.png", predicted)
    names = ["background", "low <b>&", "high"]
    table = {"classes": [{"index": n, "name": name} for n, name in enumerate(names)]}
    (tmp_path / "truth" / "classes.json").write_text(json.dumps(table))
    return tmp_path / "masks", tmp_path / "truth"


def evaluated(out: Path, predicted: Path, truth: Path | None, **more: Any) -> dict[str, Any]:
    assert run(EvalOptions(predicted, truth, out, **more), Console(quiet=True)) == 0
    return json.loads((out / "report.json").read_text())


def test_objects_and_distances_are_in_the_report(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    found = evaluated(tmp_path / "r", *folders, objects="components", distances="pixels")
    rows = found["per_class"]
    assert rows[0]["objects"] is None  # background
    truths = [cv2.imread(str(path), 0) for path in sorted(folders[1].glob("*.png"))]
    masks = [cv2.imread(str(path), 0) for path in sorted(folders[0].glob("*.png"))]
    for n in (1, 2):
        objects = rows[n]["objects"]
        assert objects["true"] == sum(ndimage.label(truth == n)[1] for truth in truths)
        known = 0  # objects of whole masks, but for those mostly where the truth has no label that match nothing
        for mask, truth in zip(masks, truths, strict=True):
            numbers, count = ndimage.label(mask == n)
            true, labelled = ndimage.label(truth == n)[0], truth != 255
            for part in (numbers == m for m in range(1, count + 1)):
                around = [true == a for a in np.unique(true[part & (true > 0)])]
                matches = any((part & one).sum() > 0.5 * ((part & labelled) | one).sum() for one in around)
                known += bool(matches or labelled[part].mean() >= 0.5)
        assert objects["predicted"] == known
        assert objects["count_error"] == objects["predicted"] - objects["true"]
        assert objects["panoptic_quality"]["low"] <= objects["panoptic_quality"]["value"]
        hausdorff, mean = (rows[n][f"{name}_mean_over_images"] for name in ("hausdorff_95", "surface_distance"))
        assert hausdorff["value"] > mean["value"] > 0
        assert mean["low"] <= mean["value"] <= mean["high"]
        assert rows[n]["images_with_both_outlines"] == 6
    assert found["distance_unit"] == "pixels"
    table = (tmp_path / "r" / "per_class.csv").read_text()
    assert "objects_panoptic_quality_low" in table.splitlines()[0]
    assert "panoptic quality high" in (tmp_path / "r" / "per_image.csv").read_text()


@pytest.mark.parametrize(("name", "counted"), [("other", True), ("Background", False)])
def test_objects_of_the_first_class_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, counted: bool
) -> None:
    (tmp_path / "classes.csv").write_text(f"index,name\n0,{name}\n1,disc\n")
    mask = write_picture(tmp_path / "m.png", np.eye(8, dtype=np.uint8))
    run(EvalOptions(mask, mask, objects="components"), Console())
    assert (f"objects of {name} are counted, too; if it" in capsys.readouterr().err) == counted
    run(EvalOptions(mask, mask), Console())
    assert "are counted, too" not in capsys.readouterr().err


def test_maps_of_object_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More objects than a byte counts, one of them missing and one split, in 16 bits."""
    truth = np.kron(np.arange(1, 401).reshape(20, 20), np.ones((6, 6))).astype(np.uint16)
    truth.reshape(20, 6, 20, 6)[:, -1] = 0
    truth.reshape(20, 6, 20, 6)[:, :, :, -1] = 0
    predicted = truth + np.where(truth > 0, np.uint16(1000), np.uint16(0))
    predicted[truth == 7] = 0
    predicted[:2][truth[:2] == 3] = 5000
    for name, mask in (("p.tif", predicted), ("t.tif", truth)):
        tifffile.imwrite(tmp_path / name, mask)
    found = evaluated(tmp_path / "r", tmp_path / "p.tif", tmp_path / "t.tif", objects="labels")
    objects = found["per_class"][1]["objects"]
    assert (objects["true"], objects["predicted"]) == (400, 400)
    assert objects["object_recall"]["value"] == 399 / 400  # 3 of 5 rows of object 3 are left: IoU 0.6
    assert objects["segmentation_quality"]["value"] == pytest.approx((398 + 0.6) / 399)
    assert objects["average_precision_50"]["value"] == 399 / 401
    assert found["classes"] == ["background", "object"]
    floats = predicted.astype(np.float32)  # as ImageJ has them
    tifffile.imwrite(tmp_path / "p.tif", floats)
    again = evaluated(tmp_path / "f", tmp_path / "p.tif", tmp_path / "t.tif", objects="labels")
    assert again["per_class"] == found["per_class"]
    floats[-1, -1] = 0.5
    tifffile.imwrite(tmp_path / "p.tif", floats)
    with pytest.raises(NothingDoneError):
        run(EvalOptions(tmp_path / "p.tif", tmp_path / "t.tif", objects="labels"), Console(quiet=True))
    assert "p.tif: the value 0.5; expected whole numbers, one for each object" in capsys.readouterr().err


def test_a_mask_against_numbers(tmp_path: Path) -> None:
    """Objects that touch are numbers in the truth and one region in a mask, unless a gap parts them; 255 is nothing."""
    truth = np.zeros((40, 40), np.uint16)
    truth[2:12, 2:12], truth[2:12, 12:22], truth[20:30, 5:15], truth[20:30, 15:25] = 300, 301, 7, 8
    predicted = (truth > 0).astype(np.uint8)
    predicted[20:30, 14:16] = 0  # of the lower two
    predicted[35:, 35:] = 255
    for name, mask in (("p.png", predicted), ("t.png", truth)):
        cv2.imwrite(str(tmp_path / name), mask)
    found = evaluated(tmp_path / "r", tmp_path / "p.png", tmp_path / "t.png", objects="against-labels")
    objects = found["per_class"][1]["objects"]
    assert (objects["true"], objects["predicted"]) == (4, 3)
    assert objects["object_recall"]["value"] == 2 / 4
    assert objects["segmentation_quality"]["value"] == pytest.approx(0.9)
    assert found["per_class"][1]["iou"]["value"] == pytest.approx(380 / 400)


@pytest.mark.parametrize("values", [(0, 255), (1, 2), (3, 0), (0, 1)])
def test_a_mask_against_numbers_is_read_by_its_classes(tmp_path: Path, values: tuple[int, int]) -> None:
    """Black and white as drawing programs have it, a table in another order, and what a mask says of itself."""
    truth = np.zeros((40, 40), np.uint16)
    truth[2:12, 2:12], truth[20:30, 5:15] = 300, 7
    predicted = np.choose((truth > 0).astype(int), values).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "p.png"), predicted)
    cv2.imwrite(str(tmp_path / "t.png"), truth)
    table = ClassTable((ClassEntry(values[1], "disc", (9, 9, 9)), ClassEntry(values[0], "background", (0, 0, 0))), None)
    (tmp_path / "table.json").write_text(json.dumps(table.to_json()))
    with create(tmp_path / "own.tif", Grid(40, 40), mask_layout(table)) as sink:
        sink.write(0, predicted)
    ways = [("own.tif", None), ("p.png", tmp_path / "table.json")]
    if values[0] == 0:  # nothing says that 1 or 3 is the background
        ways.append(("p.png", None))
    for name, classes in ways:
        found = evaluated(
            tmp_path / "r", tmp_path / name, tmp_path / "t.png", objects="against-labels", classes=classes
        )
        objects = found["per_class"][1]["objects"]
        assert (objects["true"], objects["predicted"], objects["panoptic_quality"]["value"]) == (2, 2, 1), name
        assert found["dataset"]["mean_iou"]["value"] == 1


def test_values_that_a_table_lacks_are_told_of_beside_numbers_too(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "t.png"), np.full((8, 8), 500, np.uint16))
    cv2.imwrite(str(tmp_path / "p.png"), np.full((8, 8), 4, np.uint8))
    (tmp_path / "table.csv").write_text("index,name\n0,background\n1,disc\n")
    paths = tmp_path / "p.png", tmp_path / "t.png"
    lines: list[str] = []
    console = Console(quiet=True)
    console.fail = lambda error: lines.append(str(error))  # type: ignore[method-assign]
    with pytest.raises(NothingDoneError):
        run(EvalOptions(*paths, objects="against-labels", classes=tmp_path / "table.csv"), console)
    assert "p.png: values that are no class: 4 (64 pixels)" in lines[0]
    with pytest.raises(UsageError, match="--classes: with --objects labels"):
        run(EvalOptions(*paths, objects="labels", classes=tmp_path / "table.csv"), console)


def named_mask(path: Path, order: tuple[str, ...], value: str) -> Path:
    """A mask all of one class, which numbers its classes in this order."""
    table = ClassTable(tuple(ClassEntry(n, name, (n, n, n)) for n, name in enumerate(order)), None)
    with create(path, Grid(8, 8), mask_layout(table)) as sink:
        sink.write(0, np.full((8, 8), order.index(value), np.uint8))
    return path


def test_a_truth_that_cannot_be_read_does_not_change_what_the_others_mean(tmp_path: Path) -> None:
    """Masks say which class has which number, predictions other than the truth; true ones may differ, too."""
    one, other = ("ground", "water", "road"), ("ground", "road", "water")
    for name, order in (("a", one), ("b", one), ("c", other)):
        named_mask(tmp_path / "t" / f"{name}.tif", order, "water")
        named_mask(tmp_path / "p" / f"{name}.tif", other, "water")
    assert evaluated(tmp_path / "r", tmp_path / "p", tmp_path / "t")["dataset"]["mean_iou"]["value"] == 1
    (tmp_path / "t" / "a.tif").write_bytes(b"II*\0")
    assert run(EvalOptions(tmp_path / "p", tmp_path / "t", tmp_path / "r"), Console(quiet=True)) == 1
    found = json.loads((tmp_path / "r" / "report.json").read_text())
    assert (found["dataset"]["mean_iou"]["value"], len(found["failed"])) == (1, 1)
    named_mask(tmp_path / "t" / "c.tif", ("ground", "forest"), "forest")
    assert run(EvalOptions(tmp_path / "p", tmp_path / "t", tmp_path / "r"), Console(quiet=True)) == 1
    found = json.loads((tmp_path / "r" / "report.json").read_text())
    assert "c.tif: its classes are ground, forest; expected ground, water, road" in found["failed"][1]["reason"]


def test_scores_of_a_table_are_refused_beside_numbers_too(tmp_path: Path) -> None:
    for name in "pt":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((8, 8), 300, np.uint16))
    (tmp_path / "pairs.csv").write_text("predicted,truth,scores\np.png,t.png,s.tif\n")
    with pytest.raises(UsageError, match=r"pairs\.csv, column scores: with --objects labels"):
        run(EvalOptions(tmp_path / "pairs.csv", objects="labels"), Console(quiet=True))


def test_files_that_are_no_masks_are_told_what_they_are(tmp_path: Path) -> None:
    for name in "pt":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((8, 8, 3), 9, np.uint8))
    with pytest.raises(NothingDoneError, match=r"t\.png: 3 bands of uint8; expected a mask.*turned into indices"):
        run(EvalOptions(tmp_path / "p.png", tmp_path / "t.png"), Console(quiet=True))
    (tmp_path / "pairs.csv").write_text("predicted,truth\nnone.png,nothing.png\n")
    with pytest.raises(NothingDoneError, match=r"nothing\.png: .*[Nn]o such file"):
        run(EvalOptions(tmp_path / "pairs.csv"), Console(quiet=True))


def test_a_report_of_other_images_is_refused_before_anything_is_counted(
    tmp_path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(tmp_path / "r", *folders)
    (tmp_path / "other").mkdir()
    text = (tmp_path / "r" / "report.json").read_text().replace('"site', '"place')
    (tmp_path / "other" / "report.json").write_text(text)
    monkeypatch.setattr("segcli.evaluate.count_all", lambda *_: pytest.fail("counted"))
    with pytest.raises(UsageError, match="has none of these images"):
        run(EvalOptions(*folders, compare=tmp_path / "other" / "report.json"), Console(quiet=True))


def _reads(process: str) -> bool:
    """Whether it has a raster open."""
    try:
        return any(os.readlink(path).endswith(".tif") for path in Path(f"/proc/{process}/fd").iterdir())  # noqa: PTH115
    except OSError:  # closed meanwhile
        return False


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_does_not_wait_for_pairs_that_wait(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    """Processes are given a dozen pairs at a time: minutes, of large ones."""
    for folder in ("masks", "truth"):
        (tmp_path / folder).mkdir()
        with rasterio.open(
            tmp_path / folder / "0.tif", "w", "GTiff", 40_000, 40_000, 1, dtype="uint8", tiled=True, sparse_ok=True,
            transform=from_origin(9, 9, 1, 1),
        ) as file:  # fmt: skip
            file.write(np.ones((1, 256, 256), np.uint8), window=rasterio.windows.Window(0, 0, 256, 256))
        for n in range(1, 128):
            os.link(tmp_path / folder / "0.tif", tmp_path / folder / f"{n}.tif")
    (tmp_path / "truth" / "classes.csv").write_text("index,name\n0,a\n1,b\n")
    program = [sys.executable, "-m", "segcli", "eval", "masks", "truth", "--jobs", "2"]
    process = subprocess.Popen(program, cwd=tmp_path, stderr=subprocess.PIPE)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers: list[str] = []
    while process.poll() is None and len(workers) < 3:  # one keeps account of what they share
        workers = children.read_text().split()
        time.sleep(0.05)
    while process.poll() is None and sum(_reads(worker) for worker in workers) < 2:
        time.sleep(0.05)
    process.send_signal(sent)
    try:
        process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == code
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}/stat").exists() for worker in workers):
        assert time.monotonic() < deadline, "some are still at work"
        time.sleep(0.05)


def test_several_processes_report_the_same(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    (folders[0] / "site1_3.png").write_bytes(b"no picture")
    reports = []
    for jobs in (1, 2):
        out = tmp_path / f"r{jobs}"
        assert run(EvalOptions(*folders, out, objects="components", boundary=(2.0, "pixels"), jobs=jobs),
                   Console(quiet=True)) == 1  # fmt: skip
        reports.append((out / "report.json").read_text())
    assert reports[0] == reports[1]
    assert json.loads(reports[0])["images"] == 5


def test_groups(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    found = evaluated(tmp_path / "r", *folders, group_by=r"site(\d)")
    assert [(row["group"], row["images"]) for row in found["groups"]] == [("0", 3), ("1", 3)]
    assert sum(row["pixels"] for row in found["groups"]) == found["pixels"]
    for path in [*folders[0].glob("site1*"), *folders[1].glob("site1*")]:
        path.unlink()
    alone = evaluated(tmp_path / "alone", *folders)
    assert found["groups"][0]["mean_iou"] == alone["dataset"]["mean_iou"]["value"]
    found = evaluated(tmp_path / "r", *folders, group_by="_[24]|nothing")
    assert [row["group"] for row in found["groups"]] == ["(no group)", "_2", "_4"]


def test_figures_of_groups_and_images_are_computed_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one 10 000 images of 20 classes took 50 s, and as many groups more than a minute."""
    calls, whole = [], report.overall_figures
    monkeypatch.setattr(report, "overall_figures", lambda absent: calls.append(absent) or whole(absent))
    matrices = np.random.default_rng(0).integers(0, 9, (5, 3, 3))
    matrices[:, 2] = matrices[:, :, 2] = 0
    images = [ImageCounts(f"{n}", entries_of(matrix), Totals.of(matrix)) for n, matrix in enumerate(matrices)]
    rows, groups = per_image_rows(images, "abc", "skip"), by_group(images, "abc", "skip", "yxzxy")
    assert len(calls) == 2
    for n, matrix in enumerate(matrices):
        assert (rows[n]["pixels"], rows[n]["mean_iou"]) == (matrix.sum(), pytest.approx(mean_iou(matrix)))
    assert rows[1]["iou c"] is None
    assert [(row["group"], row["images"]) for row in groups] == [("x", 2), ("y", 2), ("z", 1)]
    assert groups[0]["mean_iou"] == pytest.approx(mean_iou(matrices[1] + matrices[3]))
    assert (groups[2]["pixels"], groups[2]["iou"]["c"]) == (matrices[2].sum(), None)


def test_a_comparison_names_what_changed(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    """Predictions that are the truth, but for one image that got worse and one that the other report lacks."""
    before = evaluated(tmp_path / "before", *folders)
    for path in folders[0].glob("*.png"):
        truth = cv2.imread(str(folders[1] / path.name), 0)
        cv2.imwrite(str(path), np.where(truth == 255, 0, truth) if path.stem != "site0_0" else np.zeros_like(truth))
    found = evaluated(tmp_path / "now", *folders, compare=tmp_path / "before")
    comparison = found["comparison"]
    assert comparison["images"] == 6
    row = next(row for row in comparison["figures"] if row["figure"] == "mean_iou")
    assert row["other"] == before["dataset"]["mean_iou"]["value"]
    assert row["difference"] == row["value"] - row["other"]
    assert row["low"] <= row["difference"] <= row["high"]
    assert comparison["most_worsened"][0][0] == "site0_0"
    assert comparison["most_improved"][0][0] == "site1_5"
    high = next(row for row in comparison["figures"] if row["figure"] == "iou high")
    assert high["low"] > 0
    assert high["p_value"] > 0.05  # because one of six images got worse
    assert high["verdict"] == "unsure"
    assert comparison["other_truth"] == []
    # The same bootstrap by hand: both reports drawn alike.
    from segcli.measures import confusion as c
    from segcli.measures.bootstrap import draws
    from segcli.measures.report import dense, read_entries

    ours, theirs = (
        np.stack([dense(read_entries(e["counts"], 3), 3) for e in sorted(side["per_image"], key=lambda e: e["image"])])
        for side in (found, before)
    )
    weights = np.concatenate(list(draws(6, 0)))
    changes = [
        c.mean_iou((w[:, None, None] * ours).sum(0)) - c.mean_iou((w[:, None, None] * theirs).sum(0)) for w in weights
    ]
    assert [row["low"], row["high"]] == pytest.approx(list(np.quantile(changes, [0.025, 0.975])))


def test_a_truth_that_is_another_one_is_said(
    tmp_path: Path, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated(tmp_path / "r", *folders)
    for name in ("site0_2", "site1_3"):
        path = folders[1] / f"{name}.png"
        truth = cv2.imread(str(path), 0)
        cv2.imwrite(str(path), np.where(truth == 255, 255, np.roll(truth, 20, 0)))
    assert run(EvalOptions(*folders, compare=tmp_path / "r"), Console()) == 0
    line = next(line for line in capsys.readouterr().err.splitlines() if "other numbers of true pixels" in line)
    assert "in 2 of 6 images, the first site0_2; the truth is another one" in line
    for path in list(folders[0].glob("*"))[:1]:  # few images tell nothing
        for folder in folders:
            (tmp_path / "one" / folder.name).mkdir(parents=True)
            shutil.copy(folder / path.name, tmp_path / "one" / folder.name)
    shutil.copy(folders[1] / "classes.json", tmp_path / "one" / "truth")
    run(EvalOptions(tmp_path / "one" / "masks", tmp_path / "one" / "truth", compare=tmp_path / "r"), Console())
    assert "compared on 1 images, and better or worse takes 6 at least" in capsys.readouterr().out


def test_what_is_no_report_is_refused(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    other = tmp_path / "other.json"
    for text in ("no json", "{}", "[]", '{"schema": 1}', '{"schema": 2, "classes": ["a"], "per_image": []}',
                 '{"schema": 2, "classes": ["a"], "per_image": [{"image": "x", "counts": [[5, 5, 1]]}]}'):  # fmt: skip
        other.write_text(text)
        with pytest.raises(UsageError, match=r"other\.json"):
            run(EvalOptions(*folders, compare=other), Console(quiet=True))
    with pytest.raises(UsageError, match="No such file"):
        run(EvalOptions(*folders, compare=tmp_path / "none.json"), Console(quiet=True))


def test_scores_of_predict(tmp_path: Path, rng: np.random.Generator, segcli: Program) -> None:
    """From predict to eval, with the classes in the model's order and a truth that has them in another."""
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    for n in range(3):
        image = rng.integers(0, 256, (40, 30, 3), np.uint8)
        write_picture(tmp_path / "scans" / f"{n}.png", image)
        light = image[..., 0] + rng.normal(0, 40, (40, 30)) > 128
        write_picture(tmp_path / "truth" / f"{n}.png", np.where(light, 7, 2).astype(np.uint8))
    table = {"classes": [{"index": 7, "name": "light"}, {"index": 2, "name": "dark"}]}
    (tmp_path / "truth" / "classes.json").write_text(json.dumps(table))
    assert segcli("predict", "scans", "--out", "out", "--weights", "w.safetensors", "--probabilities",
                  "--quantity", "float32").returncode == 0  # fmt: skip
    result = segcli("eval", "out", "truth", "--scores", "out/probabilities", "--images", "scans", "--out", "report")
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "report" / "report.json").read_text())["scores"]
    truths = np.concatenate([cv2.imread(str(tmp_path / "truth" / f"{n}.png"), 0).ravel() for n in range(3)])
    stored = np.concatenate(
        [tifffile.imread(tmp_path / "out" / "probabilities" / f"{n}.tif")[..., 1].ravel() for n in range(3)]
    )
    assert [row["class"] for row in found["per_class"]] == ["light", "dark"]
    assert found["per_class"][0]["roc_auc"] == pytest.approx(roc_auc_score(truths == 7, stored), abs=1e-3)
    assert 0 < found["expected_calibration_error"] < 1
    assert "expected calibration error" in result.stdout
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("<svg") >= 8
    assert ">image</figcaption>" in page
    tifffile.imwrite(
        tmp_path / "out" / "probabilities" / "1.tif", np.zeros((2, 40, 31), np.uint8), planarconfig="separate"
    )
    result = segcli("eval", "out", "truth", "--scores", "out/probabilities")
    assert (result.returncode, "1.tif: 31 x 40 pixels on another grid" in result.stderr) == (1, True), result.stderr
    (tmp_path / "out" / "probabilities" / "2.tif").unlink()
    assert (
        "--scores expects one for each mask" in segcli("eval", "out", "truth", "--scores", "out/probabilities").stderr
    )


def test_black_and_white_truth(tmp_path: Path, rng: np.random.Generator) -> None:
    """0 and 255 mean a class each, whatever value predictions have for the second; 255 is no label elsewhere."""
    truth = rng.integers(0, 2, (20, 20), np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.9, truth, 1 - truth).astype(np.uint8)
    write_picture(tmp_path / "t.png", truth * np.uint8(255))
    expected = np.bincount(truth.ravel() * 2 + predicted.ravel(), minlength=4).reshape(2, 2).tolist()
    for value in (255, 1, 9):
        write_picture(tmp_path / "p.png", predicted * np.uint8(value))
        found = evaluated(tmp_path / "r", tmp_path / "p.png", tmp_path / "t.png")
        assert found["confusion_matrix"] == expected
        assert found["classes"] == ["background", "foreground"]
    # A truth in which there is nothing, or that counts 0 and 1, beside predictions in black and white.
    write_picture(tmp_path / "p.png", predicted * np.uint8(255))
    for value in (1, 0):
        write_picture(tmp_path / "t.png", truth * np.uint8(value))
        found = evaluated(tmp_path / "r", tmp_path / "p.png", tmp_path / "t.png")
        true = truth * value
        pairs = true.ravel() * 2 + predicted.ravel()
        assert found["confusion_matrix"] == np.bincount(pairs, minlength=4).reshape(2, 2).tolist()
    # Several classes, and 255 in predictions alone: nobody knows what that is.
    write_picture(tmp_path / "t.png", rng.integers(0, 3, (20, 20), np.uint8))
    with pytest.raises(UsageError, match="predictions hold 255"):
        run(EvalOptions(tmp_path / "p.png", tmp_path / "t.png"), Console(quiet=True))


def test_what_has_no_label_makes_no_outline(tmp_path: Path, rng: np.random.Generator) -> None:
    """A prediction that equals the truth wherever there is a label, with rings and holes without one."""
    field = ndimage.gaussian_filter(rng.random((80, 70)), 4)
    predicted = (field > 0.5).astype(np.uint8)
    truth = np.where(rng.random(field.shape) < 0.05, 255, predicted).astype(np.uint8)
    ring = ndimage.binary_dilation(predicted == 1) & (predicted == 0)
    truth[ring & (np.arange(70) < 35)] = 255
    write_picture(tmp_path / "t.png", truth)
    write_picture(tmp_path / "p.png", predicted)
    found = evaluated(tmp_path / "r", tmp_path / "p.png", tmp_path / "t.png", boundary=(2.0, "pixels"),
                      distances="pixels", objects="components")  # fmt: skip
    for row in found["per_class"]:
        assert row["boundary_iou"]["value"] == row["boundary_f_score"]["value"] == 1
        assert row["hausdorff_95_mean_over_images"]["value"] == 0
    assert found["per_class"][1]["objects"]["panoptic_quality"]["value"] == 1


@pytest.mark.parametrize("marked", [True, False])
def test_no_label_in_a_prediction_is_no_data(tmp_path: Path, rng: np.random.Generator, marked: bool) -> None:
    truth = np.kron(rng.integers(0, 2, (6, 6)), np.ones((8, 8))).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.1, 255, truth).astype(np.uint8)
    (tmp_path / "classes.json").write_text(
        json.dumps({"classes": [{"index": 0, "name": "background"}, {"index": 1, "name": "a"}]})
    )
    for name, mask, more in (("p.tif", predicted, {"nodata": 255} if marked else {}), ("t.tif", truth, {})):
        with rasterio.open(tmp_path / name, "w", driver="GTiff", count=1, height=48, width=48, dtype="uint8",
                           transform=from_origin(500, 900, 1, 1), **more) as file:  # fmt: skip
            file.write(mask, 1)
    found = evaluated(tmp_path / "r", tmp_path / "p.tif", tmp_path / "t.tif", boundary=(2.0, "pixels"),
                      objects="components")  # fmt: skip
    row = found["per_class"][1]
    assert row["objects"]["panoptic_quality"]["value"] == row["boundary_f_score"]["value"] == 1
    assert found["unpredicted_pixels"] == (predicted == 255).sum()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32"])
def test_aligned_maps_of_every_dtype_end_where_they_end(tmp_path: Path, dtype: str) -> None:
    numbers = np.kron(np.arange(1, 37).reshape(6, 6), np.ones((5, 5))).astype(dtype)
    for name, mask in (("t.tif", numbers), ("p.tif", numbers[:15])):
        with rasterio.open(tmp_path / name, "w", driver="GTiff", count=1, height=len(mask), width=30, dtype=dtype,
                           crs="EPSG:32633", transform=from_origin(500_000, 5_300_000, 2, 2)) as file:  # fmt: skip
            file.write(mask, 1)
    found = evaluated(tmp_path / "r", tmp_path / "p.tif", tmp_path / "t.tif", objects="labels", align=True)
    assert found["unpredicted_pixels"] == 450
    assert found["per_class"][1]["objects"]["true"] == 18
    assert found["per_class"][1]["iou"]["value"] == 1


def test_predictions_are_read_by_the_names_of_their_classes(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = rng.integers(0, 2, (30, 30), np.uint8)
    write_picture(tmp_path / "truth" / "a.png", truth)
    table = [{"index": 0, "name": "field"}, {"index": 1, "name": "road"}]
    (tmp_path / "truth" / "classes.json").write_text(json.dumps({"classes": table}))
    (tmp_path / "masks").mkdir()
    with rasterio.open(tmp_path / "masks" / "a.tif", "w", driver="GTiff", count=1, height=30, width=30, dtype="uint8",
                       transform=from_origin(500, 900, 1, 1)) as file:  # fmt: skip
        file.write(1 - truth, 1)
        file.update_tags(1, CLASS_0="road", CLASS_1="field")
    found = evaluated(tmp_path / "r", tmp_path / "masks", tmp_path / "truth")
    assert found["dataset"]["mean_iou"]["value"] == 1
    with rasterio.open(tmp_path / "masks" / "a.tif", "r+") as file:
        file.update_tags(1, CLASS_0="water", CLASS_1="field")
    run(EvalOptions(tmp_path / "masks", tmp_path / "truth"), Console())
    assert "predictions name their classes otherwise" in capsys.readouterr().err


@pytest.mark.parametrize("beside", [True, False])
def test_each_prediction_is_read_by_the_names_in_itself(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str], beside: bool
) -> None:
    """By the first one's where it has none; of one with other names nobody can tell, and the rest is done."""
    truth = rng.integers(0, 2, (30, 30), np.uint8)
    tables = {"a": ("field", "road"), "b": ("road", "field"), "c": (), "d": ("field", "water")}
    (tmp_path / "masks").mkdir()
    for name, names in tables.items():
        predicted = 1 - truth if name == "b" else truth
        write_picture(tmp_path / "truth" / f"{name}.png", truth)
        path = write_band(tmp_path / "masks" / f"{name}.tif", predicted[None])
        with rasterio.open(path, "r+") as file:
            file.update_tags(1, **{f"CLASS_{n}": text for n, text in enumerate(names)})
    if beside:
        table = [{"index": 0, "name": "field"}, {"index": 1, "name": "road"}]
        (tmp_path / "truth" / "classes.json").write_text(json.dumps({"classes": table}))
    assert run(EvalOptions(tmp_path / "masks", tmp_path / "truth", tmp_path / "r"), Console(quiet=True)) == 1
    found = json.loads((tmp_path / "r" / "report.json").read_text())
    assert [entry["image"] for entry in found["failed"]] == ["d"]
    assert "d.tif: its classes are named otherwise: 1 water, not road; expected field, road" in capsys.readouterr().err
    assert (found["images"], found["dataset"]["mean_iou"]["value"]) == (3, 1)


@pytest.mark.parametrize("kind", ["labels", "against-labels"])
def test_numbers_below_zero_are_no_objects(tmp_path: Path, kind: str) -> None:
    truth = np.zeros((20, 20), np.int32)
    truth[2:6, 2:6], truth[10:15, 10:15], truth[:, 18:] = 1, 2, -1
    predicted = truth if kind == "labels" else (truth > 0).astype(np.uint8)
    for name, mask in (("p.tif", predicted), ("t.tif", truth)):
        tifffile.imwrite(tmp_path / name, mask)
    found = evaluated(tmp_path / "r", tmp_path / "p.tif", tmp_path / "t.tif", objects=kind)
    objects = found["per_class"][1]["objects"]
    assert (objects["true"], objects["predicted"], objects["panoptic_quality"]["value"]) == (2, 2, 1)
    assert found["per_class"][1]["true_pixels"] == 41


def test_failed_pairs_are_in_the_report(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    (folders[0] / "site1_3.png").write_bytes(b"no picture")
    assert run(EvalOptions(*folders, tmp_path / "r"), Console(quiet=True)) == 1
    failed = json.loads((tmp_path / "r" / "report.json").read_text())["failed"]
    assert [entry["image"] for entry in failed] == ["site1_3"]
    assert "site1_3.png" in (tmp_path / "r" / "report.html").read_text()


def test_images_are_no_masks(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in "pt":
        write_picture(tmp_path / f"{name}.png", rng.integers(0, 250, (60, 60), np.uint8))
    with pytest.raises(NothingDoneError, match="these may be images"):
        run(EvalOptions(tmp_path / "p.png", tmp_path / "t.png"), Console(quiet=True))


def test_worst_images_come_first(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    evaluated(tmp_path / "r", *folders)
    shown = re.findall(r"<h3>(\S+)", (tmp_path / "r" / "report.html").read_text())
    rows = csv.DictReader((tmp_path / "r" / "per_image.csv").read_text().splitlines())
    assert shown == [row["image"] for row in sorted(rows, key=lambda row: float(row["mean_iou"]))]


def test_names_come_from_the_masks_themselves(tmp_path: Path, rng: np.random.Generator, segcli: Program) -> None:
    checkpoint.save(brightness_model(), tmp_path / "w.safetensors")
    write_picture(tmp_path / "a.png", rng.integers(0, 256, (40, 30, 3), np.uint8))
    write_picture(tmp_path / "t.png", rng.choice(np.array([2, 7], np.uint8), (40, 30)))
    for name in ("m.png", "m.tif"):
        picture = "a.png"
        if name == "m.tif":
            picture = "a.tif"
            tifffile.imwrite(tmp_path / picture, cv2.imread(str(tmp_path / "a.png")), photometric="rgb")
        assert segcli("predict", picture, "--out", name, "--weights", "w.safetensors").returncode == 0
        assert evaluated(tmp_path / "r", tmp_path / name, tmp_path / "t.png")["classes"] == ["dark", "light"]


def test_stacks_are_compared_image_by_image(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, predicted = rng.integers(0, 3, (2, 4, 30, 20), np.uint8)
    for name, stack in (("t.tif", truth), ("p.tif", predicted)):
        tifffile.imwrite(tmp_path / name, stack, imagej=True, metadata={"axes": "ZYX"})
    found = evaluated(tmp_path / "r", tmp_path / "p.tif", tmp_path / "t.tif", objects="components")
    expected = np.bincount(truth.ravel() * 3 + predicted.ravel(), minlength=9).reshape(3, 3)
    assert found["confusion_matrix"] == expected.tolist()
    assert found["per_class"][1]["objects"]["true"] == sum(ndimage.label(plane == 1)[1] for plane in truth)
    for axes, order, same in (
        ("TZYX", (0, 1, 2, 3), True),
        ("ZTYX", (1, 0, 2, 3), False),
        ("QQYX", (0, 1, 2, 3), True),
    ):
        # Of the same images in another order every other one would be compared with a wrong one.
        stacks = truth.reshape(2, 2, 30, 20), predicted.reshape(2, 2, 30, 20).transpose(order)
        for name, stack, said in (("t.tif", stacks[0], "TZYX"), ("p.tif", stacks[1], axes)):
            tifffile.imwrite(tmp_path / name, stack, metadata={"axes": said})
        if same:
            found = evaluated(tmp_path / "r", tmp_path / "p.tif", tmp_path / "t.tif")
            assert found["confusion_matrix"] == expected.tolist()
        else:
            with pytest.raises(NothingDoneError):
                run(EvalOptions(tmp_path / "p.tif", tmp_path / "t.tif"), Console(quiet=True))
            said = "p.tif: 4 images (Z 2 x T 2); " + f"{tmp_path}/t.tif has 4 images (T 2 x Z 2)"
            assert said in capsys.readouterr().err
    tifffile.imwrite(tmp_path / "p.tif", predicted[:3], imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(Exception, match="no pair could be compared"):
        run(EvalOptions(tmp_path / "p.tif", tmp_path / "t.tif"), Console(quiet=True))


def test_scores_of_many_classes_are_counted_in_fewer_rows(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held at once does not follow the number of classes, and what comes out is the same."""
    truth = rng.integers(0, 12, (40, 16), np.uint8)
    shares = rng.random((12, 40, 16), np.float32)
    tifffile.imwrite(tmp_path / "t.tif", truth)
    tifffile.imwrite(tmp_path / "s.tif", shares / shares.sum(0), planarconfig="separate", photometric="minisblack")
    heights: list[int] = []
    whole = Source.strips

    def strips(self: Source, height: int, *more: Any) -> Any:
        heights.append(height)
        return whole(self, height, *more)

    found = []
    for values in (2**23, 12 * 16 * 5):
        monkeypatch.setattr("segcli.evaluation.scores.VALUES", values)
        heights.clear()
        monkeypatch.setattr(Source, "strips", strips)
        report = evaluated(tmp_path / "r", tmp_path / "t.tif", tmp_path / "t.tif", scores=tmp_path / "s.tif")
        found.append((min(heights), report["scores"]))
    assert [height for height, _ in found] == [512, 5]
    assert found[0][1] == found[1][1]


def test_pages_of_a_stack_are_not_all_open_at_once(tmp_path: Path, rng: np.random.Generator) -> None:
    """There may be more of them than files may be open."""
    pages = rng.integers(0, 3, (90, 8, 8), np.uint8)
    for name in ("t.tif", "p.tif"):
        with tifffile.TiffWriter(tmp_path / name) as file:
            for page in pages:
                file.write(page, compression="zlib", photometric="minisblack")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 60, hard))
    try:
        found = evaluated(tmp_path / "r", tmp_path / "p.tif", tmp_path / "t.tif")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found["pixels"] == pages.size


def test_the_page_needs_nothing_but_itself(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    evaluated(tmp_path / "r", *folders, objects="components", group_by=r"site(\d)", images=folders[1])
    page = (tmp_path / "r" / "report.html").read_text()
    outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:|#)([^"'\s)>]+)""", page)
    assert outside == []
    assert "<script" not in page
    assert "low <b>&" not in page  # escaped in tables, in charts, in JSON
    assert page.count("low &lt;b&gt;&amp;") >= 5
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 6 * 4
    error = cv2.imdecode(np.frombuffer(base64.b64decode(pictures[3]), np.uint8), cv2.IMREAD_UNCHANGED)
    order = re.findall(r"<h3>(\S+)", page)
    truth, mask = (cv2.imread(str(folder / f"{order[0]}.png"), 0) for folder in (folders[1], folders[0]))
    assert np.array_equal(error[..., 3] > 0, truth != 255)
    assert np.array_equal(error[4:, :, 2] == 213, (truth != mask)[4:])
    evaluated(tmp_path / "r2", *folders, objects="components", group_by=r"site(\d)", images=folders[1])
    assert (tmp_path / "r2" / "report.html").read_text().replace("r2", "r") == page.replace("r2", "r")


def test_what_is_not_predicted_and_counts_is_wrong_in_pictures_and_charts(tmp_path: Path) -> None:
    truth = np.zeros((100, 100), np.uint8)
    truth[:50] = 1
    found = truth.copy()
    found[:25] = 255
    (tmp_path / "classes.csv").write_text("index,name\n0,background\n1,disc\n")
    for name, mask in (("p", found), ("t", truth)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), mask)
    for unpredicted, shown, recall in (("wrong", 10_000, "0.50"), ("skip", 7500, "1.00")):
        evaluated(tmp_path / "r", tmp_path / "p.png", tmp_path / "t.png", unpredicted=unpredicted)
        page = (tmp_path / "r" / "report.html").read_text()
        picture = re.findall(r'src="data:image/png;base64,([^"]+)"', page)[-1]
        error = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_UNCHANGED)
        kept = error[..., 3] > 0
        assert (kept.sum(), (error[kept][:, 2] == 213).sum()) == (shown, shown - 7500)
        chart = page[page.index(">share of the true class<") - 20_000 : page.index(">share of the true class<")]
        chart = chart[chart.rindex("<svg") :]
        assert re.findall(r">([01]\.\d\d)</text>", chart) == ["1.00", "0.00", "0.00", recall]


CONTRAST = """<script>
addEventListener("load", () => {
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                       return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const parse = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const page = light(parse(getComputedStyle(document.body).backgroundColor));
  const worst = [];
  for (const element of document.querySelectorAll("h1, h2, h3, p, td, th, caption, figcaption, pre, svg text")) {
    const style = getComputedStyle(element), color = element.closest("svg") ? style.fill : style.color;
    if (["rgb(255, 255, 255)", "rgb(34, 34, 34)"].includes(color)) continue;  // on the cells of a matrix
    const ink = light(parse(color));
    worst.push((Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05));
  }
  document.body.innerHTML = "contrast " + Math.min(...worst) + " of " + worst.length + " page " + page;
});
</script>"""


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_reads_in_light_and_in_dark(tmp_path: Path, folders: tuple[Path, Path], dark: bool) -> None:
    """Every text has a contrast of at least 4.5 to the page (WCAG AA), computed by a browser."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium")
    evaluated(tmp_path / "r", *folders, group_by=r"site(\d)")
    page = tmp_path / "r" / "report.html"
    page.write_text(page.read_text().replace("</head>", CONTRAST + "</head>"))
    mode = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", *mode]
    try:
        shown = subprocess.run(
            [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
        ).stdout
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        pytest.skip(f"Chromium does not run here: {error}")
    found = re.search(r"contrast ([\d.]+) of (\d+) page ([\d.]+)", shown)
    assert found is not None, shown[-2000:]
    assert float(found[1]) >= 4.5
    assert int(found[2]) > 60
    assert (float(found[3]) < 0.1) == dark


REAL = SHARED / "data" / "nuclei"


@pytest.mark.skipif(not (REAL / "val").is_dir(), reason="no real masks beside the project")
def test_figures_of_real_masks_are_those_of_the_references(tmp_path: Path, rng: np.random.Generator) -> None:
    """Masks of nuclei beside shifted ones: scikit-learn, scikit-image, and torchmetrics on the whole arrays."""
    import torch
    from skimage.metrics import hausdorff_distance
    from sklearn.metrics import cohen_kappa_score, f1_score, jaccard_score, matthews_corrcoef
    from torchmetrics.functional.classification import multiclass_jaccard_index
    from torchmetrics.functional.detection import panoptic_quality

    from segcli.measures.boundaries import outline
    from segcli.measures.surfaces import surface_distances

    names = sorted(path.name for path in (REAL / "val" / "masks").glob("*.png"))[:12]
    true, found, qualities = [], [], []
    for name in names:
        truth = cv2.imread(str(REAL / "val" / "masks" / name), 0)
        moved = np.roll(truth, tuple(rng.integers(-2, 3, 2)), (0, 1))
        write_picture(tmp_path / "truth" / name, truth)
        write_picture(tmp_path / "masks" / name, moved)
        true.append(truth.ravel())
        found.append(moved.ravel())
        edges = [np.argwhere(outline(mask == 1)).astype(float) for mask in (truth, moved)]
        grids = [np.zeros(truth.shape, bool) for _ in edges]
        for grid, edge in zip(grids, edges, strict=True):
            grid[tuple(edge.astype(int).T)] = True
        assert surface_distances(*edges).hausdorff(100) == hausdorff_distance(*grids)
        labels = [torch.from_numpy(np.stack([mask, ndimage.label(mask)[0]], -1).astype(np.int64)) for mask in
                  (moved, truth)]  # fmt: skip
        given_pair = [part[None] for part in labels]
        quality = panoptic_quality(*given_pair, things={1}, stuffs={0}, return_per_class=True)
        qualities.append(float(quality.ravel()[0]))
    table = {"classes": [{"index": 0, "name": "background"}, {"index": 1, "name": "nucleus"}]}
    (tmp_path / "truth" / "classes.json").write_text(json.dumps(table))
    report = evaluated(tmp_path / "r", tmp_path / "masks", tmp_path / "truth", objects="components")
    one, other = np.concatenate(true), np.concatenate(found)
    nucleus, dataset = report["per_class"][1], report["dataset"]
    assert nucleus["iou"]["value"] == pytest.approx(jaccard_score(one, other))
    assert nucleus["dice"]["value"] == pytest.approx(f1_score(one, other))
    assert dataset["cohens_kappa"]["value"] == pytest.approx(cohen_kappa_score(one, other))
    assert dataset["matthews_correlation"]["value"] == pytest.approx(matthews_corrcoef(one, other))
    tensors = torch.from_numpy(other), torch.from_numpy(one)
    assert dataset["mean_iou"]["value"] == pytest.approx(float(multiclass_jaccard_index(*tensors, 2)), abs=1e-6)
    assert nucleus["objects"]["panoptic_quality_mean_over_images"] == pytest.approx(np.mean(qualities), abs=1e-6)


def write_band(path: Path, bands: np.ndarray, names: tuple[str, ...] = (), **more: Any) -> Path:
    bands = bands if bands.ndim == 3 else bands[None]
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_300_000, 2, 2)} | more
    with rasterio.open(path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2],
                       dtype=bands.dtype, **place) as file:  # fmt: skip
        file.write(bands)
        for number, name in enumerate(names, start=1):
            file.set_band_description(number, name)
    return path


@pytest.mark.parametrize(
    ("scores", "names", "said"),
    [
        (np.full((2, 20, 20), 128, np.uint8), (), "values from 128 to 128; expected probabilities"),
        (np.full((3, 20, 20), 0.3, np.float32), (), "3 bands; expected one for each of 2 classes"),
        (np.full((2, 20, 20), 0.5, np.float32), ("road", "roof"), "bands named road, roof; expected the classes"),
        (np.full((2, 20, 20), -0.5, np.float32), (), "values from -0.5 to -0.5"),
    ],
)
def test_scores_that_cannot_be_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: np.ndarray, names: tuple[str, ...], said: str
) -> None:
    mask = write_band(tmp_path / "m.tif", np.kron([[0, 1], [1, 0]], np.ones((10, 10))).astype(np.uint8))
    (tmp_path / "classes.json").write_text(
        json.dumps({"classes": [{"index": 0, "name": "ground"}, {"index": 1, "name": "roof"}]})
    )
    write_band(tmp_path / "s.tif", scores, names)
    with pytest.raises(NothingDoneError):
        run(EvalOptions(mask, mask, scores=tmp_path / "s.tif"), Console(quiet=True))
    assert said in capsys.readouterr().err
    with pytest.raises(UsageError, match="maps of object numbers have no classes"):
        run(EvalOptions(mask, mask, scores=tmp_path / "s.tif", objects="labels"), Console(quiet=True))


def test_scores_in_another_order_elsewhere_and_with_holes(tmp_path: Path, rng: np.random.Generator) -> None:
    truth = rng.integers(0, 2, (20, 20), np.uint8)
    mask = write_band(tmp_path / "m.tif", truth)
    (tmp_path / "classes.json").write_text(
        json.dumps({"classes": [{"index": 0, "name": "ground"}, {"index": 1, "name": "roof"}]})
    )
    roof = np.clip(truth + rng.normal(0, 0.4, truth.shape), 0, 1).astype(np.float32)
    stored = np.stack([roof, 1 - roof])
    stored[0, 3, 3] = np.nan
    write_band(tmp_path / "s.tif", stored, ("Roof", "GROUND"))
    found = evaluated(tmp_path / "r", mask, mask, scores=tmp_path / "s.tif")["scores"]
    known = np.isfinite(stored).all(0)
    expected = roc_auc_score(truth[known] == 1, roof[known])
    assert found["per_class"][1]["roc_auc"] == pytest.approx(expected, abs=1e-4)
    assert sum(n for n, _, _ in found["reliability"]) == known.sum()
    write_band(tmp_path / "s.tif", stored, ("Roof", "GROUND"), transform=from_origin(500_008, 5_300_000, 2, 2))
    with pytest.raises(NothingDoneError):
        run(EvalOptions(mask, mask, scores=tmp_path / "s.tif"), Console(quiet=True))
    found = evaluated(tmp_path / "r", mask, mask, scores=tmp_path / "s.tif", align=True)["scores"]
    assert sum(n for n, _, _ in found["reliability"]) == 20 * 16 - 1


def test_grids_are_compared_by_their_corners(tmp_path: Path) -> None:
    mask = np.zeros((10, 3000), np.uint8)
    mask[:, ::2] = 1
    truth = write_band(tmp_path / "t.tif", mask, transform=from_origin(500_000, 5_300_000, 10, 10))
    for pixel, same in ((10.00001, True), (10.009, False)):
        other = write_band(tmp_path / "p.tif", mask, transform=from_origin(500_000, 5_300_000, pixel, 10))
        if same:
            evaluated(tmp_path / "r", other, truth)
        else:
            with pytest.raises(NothingDoneError):
                run(EvalOptions(other, truth), Console(quiet=True))


def test_metres_of_oblong_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, predicted = np.zeros((2, 40, 40), np.uint8)
    truth[10:20], predicted[14:24] = 1, 1
    place = {"transform": from_origin(500_000, 5_300_000, 1, 4)}
    files = write_band(tmp_path / "p.tif", predicted, **place), write_band(tmp_path / "t.tif", truth, **place)
    found = evaluated(tmp_path / "r", *files, distances="metres")
    assert found["per_class"][1]["hausdorff_95_mean_over_images"]["value"] == 16
    with pytest.raises(NothingDoneError):
        run(EvalOptions(*files, boundary=(5.0, "metres")), Console(quiet=True))
    assert "--boundary in metres needs square ones" in capsys.readouterr().err


def test_distances_under_a_microscope_are_shown_as_what_they_are(tmp_path: Path) -> None:
    truth, predicted = np.zeros((2, 40, 40), np.uint8)
    truth[10:20], predicted[13:23] = 1, 1
    for name, mask in (("t.tif", truth), ("p.tif", predicted)):
        tifffile.imwrite(tmp_path / name, mask, resolution=(40_000, 40_000), resolutionunit="CENTIMETER")
    files = tmp_path / "p.tif", tmp_path / "t.tif"
    outlines = [width(text) for text in ("0.5um", "0.5µm", "0.5\u03bcm", "2")]
    assert outlines == [(5e-7, "metres")] * 3 + [(2.0, "pixels")]
    found = evaluated(tmp_path / "r", *files, distances="metres", boundary=outlines[0])
    in_pixels = evaluated(tmp_path / "r", *files, distances="pixels", boundary=outlines[3])
    for n in (0, 1):
        assert found["per_class"][n]["boundary_iou"] == in_pixels["per_class"][n]["boundary_iou"]
    assert found["per_class"][1]["hausdorff_95_mean_over_images"]["value"] == pytest.approx(0.75e-6)
    title, _, rows = all_tables(found)[2]
    assert (title, rows[1][3]) == ("outlines, distances in nm", "750.0000")


def test_pixels_of_two_sizes_have_no_distances_in_metres(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As where one mask was saved again of another level of a pyramid: swapped they would be twice as far apart."""
    mask = np.zeros((40, 40), np.uint8)
    mask[10:20] = 1
    for name, size in (("p", 0.25), ("t", 0.5), ("same", 0.500001)):
        said = {"axes": "YX", "PhysicalSizeX": size, "PhysicalSizeY": size}
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", mask, metadata=said)
    files = tmp_path / "p.ome.tif", tmp_path / "t.ome.tif"
    for options in ({"distances": "metres"}, {"boundary": (5e-7, "metres")}):
        with pytest.raises(NothingDoneError):
            run(EvalOptions(*files, **options), Console(quiet=True))
        said = capsys.readouterr().err.replace(f"{tmp_path}/", "")
        assert "t.ome.tif: pixels of 5e-07 x 5e-07 m; p.ome.tif has pixels of 2.5e-07 x 2.5e-07 m; correct" in said
    found = evaluated(tmp_path / "r", *files, distances="pixels", boundary=(2.0, "pixels"))
    assert found["per_class"][1]["hausdorff_95_mean_over_images"]["value"] == 0
    evaluated(tmp_path / "s", files[1], tmp_path / "same.ome.tif", distances="metres")


def test_tables_name_their_pairs(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    rows = [f"masks/site0_{n}.png,truth/site0_{n}.png" for n in (0, 2)]
    table = tmp_path / "pairs.csv"
    table.write_text("\n".join(["predicted,truth", *rows]), encoding="utf-8-sig")
    found = evaluated(tmp_path / "r", table, None)
    assert [entry["image"] for entry in found["per_image"]] == ["truth/site0_0", "truth/site0_2"]
    table.write_text("\n".join(["predicted,truth,name", *(f"{row},image{n}" for n, row in enumerate(rows))]))
    found = evaluated(tmp_path / "n", table, None)
    assert [entry["image"] for entry in found["per_image"]] == ["image0", "image1"]
    assert evaluated(tmp_path / "m", table, None, compare=tmp_path / "n")["comparison"]["images"] == 2
    table.write_text("\n".join(["predicted,truth", rows[0], rows[0]]))
    with pytest.raises(UsageError, match="a second pair of the name"):
        run(EvalOptions(table), Console(quiet=True))


def test_names_of_classes_that_get_in_the_way(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    """Names that are also names of columns, one that begins with an underscore, and two that are the same."""
    table = folders[1] / "classes.json"
    names = ["images", "_group", "pixels $x$"]
    table.write_text(json.dumps({"classes": [{"index": n, "name": name} for n, name in enumerate(names)]}))
    found = evaluated(tmp_path / "r", *folders, group_by=r"site(\d)")
    assert [row["images"] for row in found["groups"]] == [3, 3]
    assert ">3</td>" in (tmp_path / "r" / "report.html").read_text()
    table.write_text(json.dumps({"classes": [{"index": n, "name": "same"} for n in range(3)]}))
    with pytest.raises(UsageError, match="class names repeat"):
        run(EvalOptions(*folders), Console(quiet=True))


def test_processes_end_with_the_one_that_started_them(tmp_path: Path, rng: np.random.Generator) -> None:
    """Killed, it cannot end them, and who reads their stdout would wait for ever."""
    for n in range(12):
        write_picture(tmp_path / "masks" / f"{n:02}.png", rng.integers(0, 2, (1200, 1200), np.uint8))
    command = [sys.executable, "-m", "segcli", "eval", "masks", "masks", "--jobs", "2", "--boundary", "9"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 60
        while len(children := listed.read_text().split()) < 3:  # two, and what keeps account of their resources
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        assert process.stdout is not None
        while any(Path(f"/proc/{child}/exe").exists() for child in children):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert process.stdout.read() == b""  # which all have closed


def test_255_means_one_thing_whatever_else_is_compared(tmp_path: Path) -> None:
    """Where the truth has it beside its classes it is no label; a prediction that has it beside 0 alone may mean
    foreground, and is asked about."""
    truth, predicted = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    truth[10:30, 10:30], truth[0] = 1, 255
    predicted[:, :8] = 255
    for name in ("truth", "found"):
        write_picture(tmp_path / name / "a.png", truth if name == "truth" else predicted)
    with pytest.raises(UsageError, match="predictions hold 255; it may be a class or stand for no label"):
        run(EvalOptions(tmp_path / "found", tmp_path / "truth"), Console(quiet=True))
    table = tmp_path / "classes.json"
    table.write_text(json.dumps({"classes": [{"index": 0, "name": "class 0"}, {"index": 1, "name": "class 1"}]}))
    alone = evaluated(tmp_path / "r", tmp_path / "found", tmp_path / "truth", classes=table)
    assert (alone["classes"], alone["unpredicted_pixels"]) == (["class 0", "class 1"], 8 * 39)
    assert alone["confusion_matrix"] == [[39 * 32 - 400, 0], [400, 0]]
    for name in ("truth", "found"):
        write_picture(tmp_path / name / "b.png", truth)
    both = evaluated(tmp_path / "s", tmp_path / "found", tmp_path / "truth")
    assert both["per_image"][0] == alone["per_image"][0]


def test_scores_are_scaled_and_moved_as_the_file_says(tmp_path: Path, rng: np.random.Generator) -> None:
    stored = rng.integers(0, 240, (2, 30, 40), np.uint8)
    values = stored * 0.0036 + 0.1
    write_picture(tmp_path / "t.png", rng.integers(0, 2, (30, 40), np.uint8))
    reports = []
    for name, pixels, scale, offset in (("a", stored, 0.0036, 0.1), ("b", values.astype(np.float32), 1.0, 0.0)):
        with rasterio.open(tmp_path / f"{name}.tif", "w", "GTiff", 40, 30, 2, dtype=pixels.dtype,
                           transform=from_origin(0, 30, 1, 1)) as file:  # fmt: skip
            file.write(pixels)
            file.scales, file.offsets = (scale,) * 2, (offset,) * 2
        found = evaluated(
            tmp_path / f"r{name}", tmp_path / "t.png", tmp_path / "t.png", scores=tmp_path / f"{name}.tif"
        )
        reports.append(found["scores"])
    for one, other in zip(*(found["per_class"] for found in reports), strict=True):
        assert one.keys() == other.keys()
        assert {key: one[key] for key in one if type(one[key]) is float} == pytest.approx(
            {key: other[key] for key in other if type(other[key]) is float}, abs=2e-3
        )
    errors = [found["expected_calibration_error"] for found in reports]
    assert errors[0] == pytest.approx(errors[1], abs=2e-3)


def test_no_correlation_is_above_1() -> None:
    """By the last digit, of a mask that is all right."""
    for seed in range(40):
        hits = np.random.default_rng(seed).integers(1, 500, 3)
        assert matthews_correlation(Totals.of(np.diag(hits))) <= 1


def test_each_identifier_of_the_page_is_there_once(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    """And what refers to one finds it."""
    evaluated(tmp_path / "r", *folders)
    page = (tmp_path / "r" / "report.html").read_text()
    found = re.findall(r'\bid="([^"]*)"', page)
    assert len(found) == len(set(found)) > 100
    assert set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', page)) != set()
    assert {one or other for one, other in re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', page)} <= set(found)


@pytest.mark.parametrize("where", ["beside", "given", "numbers"])
def test_white_predictions_beside_a_table_that_knows_no_white_are_refused(tmp_path: Path, where: str) -> None:
    """White would be no prediction, and what is left, black alone, is right in each pixel: a bar would be met."""
    truth = np.zeros((40, 40), np.uint8)
    truth[10:30, 10:30] = 1
    write_picture(tmp_path / "truth" / "a.png", truth)
    write_picture(tmp_path / "found" / "a.png", truth * 255)
    table = tmp_path / ("truth" if where == "beside" else "") / "classes.json"
    classes = [{"index": 0, "name": "background"}, {"index": 1, "name": "nucleus"}]
    table.write_text(json.dumps({"classes": classes}))
    options = EvalOptions(
        tmp_path / "found", tmp_path / "truth", classes=None if where == "beside" else table,
        objects="against-labels" if where == "numbers" else None, min_miou=0.9,
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"255 is no class; expected 0 background, 1 nucleus; write the index"):
        run(options, Console(quiet=True))
    write_picture(tmp_path / "found" / "b.png", truth)  # there is more than black and white
    write_picture(tmp_path / "truth" / "b.png", truth)
    assert run(replace(options, min_miou=None), Console(quiet=True)) == 0
