"""segcli eval: the numbers, the pairs, the bars, the lines."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers import write_picture
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from scipy import ndimage
from sklearn.metrics import cohen_kappa_score, confusion_matrix, jaccard_score, matthews_corrcoef

from segcli.console import Console
from segcli.errors import NothingDoneError, UsageError
from segcli.evaluate import run
from segcli.evaluation.tables import all_tables
from segcli.matching import match
from segcli.measures.confusion import Totals
from segcli.measures.report import ImageCounts, entries_of, report
from segcli.options import EvalOptions

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folders(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, Path]:
    """Five pairs of masks of classes 0, 1 and 4, with ignored pixels, and a class table."""
    for n in range(5):
        truth = rng.choice(np.array([0, 1, 4, 255], np.uint8), (40 + n, 30), p=[0.5, 0.3, 0.1, 0.1])
        predicted = np.where(rng.random(truth.shape) < 0.8, np.where(truth == 255, 0, truth), 1).astype(np.uint8)
        write_picture(tmp_path / "truth" / f"{n}_mask.png", truth)
        write_picture(tmp_path / "masks" / f"{n}.png", predicted)
    classes = [{"index": 0, "name": "ground"}, {"index": 1, "name": "road"}, {"index": 4, "name": "roof"}]
    (tmp_path / "truth" / "classes.json").write_text(json.dumps({"classes": classes}))
    return tmp_path / "masks", tmp_path / "truth"


def evaluated(tmp_path: Path, predicted: Path, truth: Path | None, **more: object) -> tuple[int, dict[str, object]]:
    options = EvalOptions(predicted, truth, tmp_path / "report", **more)  # type: ignore[arg-type]
    code = run(options, Console(quiet=True))
    return code, json.loads((tmp_path / "report" / "report.json").read_text())


def pixels_of(folders: tuple[Path, Path]) -> tuple[np.ndarray, np.ndarray]:
    import cv2

    true = [cv2.imread(str(path), 0).ravel() for path in sorted(folders[1].glob("*.png"))]
    found = [cv2.imread(str(path), 0).ravel() for path in sorted(folders[0].glob("*.png"))]
    return np.concatenate(true), np.concatenate(found)


def test_the_numbers_are_scikit_learn_s(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    code, found = evaluated(tmp_path, *folders)
    assert code == 0
    true, predicted = pixels_of(folders)
    kept = true != 255
    assert found["confusion_matrix"] == confusion_matrix(true[kept], predicted[kept], labels=[0, 1, 4]).tolist()
    expected = jaccard_score(true[kept], predicted[kept], labels=[0, 1, 4], average=None)
    rows = found["per_class"]
    assert [row["iou"]["value"] for row in rows] == pytest.approx(list(expected))  # type: ignore[attr-defined]
    assert [row["class"] for row in rows] == ["ground", "road", "roof"]  # type: ignore[attr-defined]
    miou = found["dataset"]["mean_iou"]  # type: ignore[index]
    assert miou["value"] == pytest.approx(expected.mean())
    assert miou["low"] < miou["value"] < miou["high"]
    assert found["images"] == 5
    with (tmp_path / "report" / "per_image.csv").open() as file:
        images = list(csv.DictReader(file))
    assert [row["image"] for row in images] == ["0", "1", "2", "3", "4"]
    mean = np.mean([float(row["mean_iou"]) for row in images])
    assert found["mean_over_images"]["mean_iou"] == pytest.approx(mean)  # type: ignore[index]
    with (tmp_path / "report" / "per_class.csv").open() as file:
        assert [float(row["iou"]) for row in csv.DictReader(file)] == pytest.approx(list(expected))


def test_large_masks_are_compared_strip_by_strip(tmp_path: Path, rng: np.random.Generator) -> None:
    masks = rng.integers(0, 3, (2, 1500, 700), np.uint8)
    for name, mask in zip(("a.tif", "b.tif"), masks, strict=True):
        write_picture(tmp_path / name, mask)
    _, found = evaluated(tmp_path, tmp_path / "a.tif", tmp_path / "b.tif")
    assert found["confusion_matrix"] == confusion_matrix(masks[1].ravel(), masks[0].ravel()).tolist()
    assert found["classes"] == ["class 0", "class 1", "class 2"]


def test_bars_and_exit_codes(tmp_path: Path, folders: tuple[Path, Path], segcli: Program) -> None:
    _, found = evaluated(tmp_path, *folders)
    miou = found["dataset"]["mean_iou"]["value"]  # type: ignore[index]
    roof = found["per_class"][2]["iou"]["value"]  # type: ignore[index]
    assert segcli("eval", *folders, "--min-miou", str(miou - 0.01), "--min-iou", f"roof={roof - 0.01}").returncode == 0
    result = segcli("eval", *folders, "--min-miou", str(miou + 0.01))
    assert result.returncode == 4
    assert f"mIoU {miou:.4f} is under" in result.stderr
    assert "road" in result.stdout
    result = segcli("eval", *folders, "--min-iou", f"roof={roof + 0.01}")
    assert (result.returncode, "IoU of roof" in result.stderr) == (4, True)
    for bad in ("roof", "=0.5", "roof=2", "roof=x", "tree=0.5"):
        assert segcli("eval", *folders, "--min-iou", bad).returncode == 2


def test_an_undefined_figure_misses_its_bar(tmp_path: Path) -> None:
    table = tmp_path / "classes.json"
    table.write_text(json.dumps({"classes": [{"index": n, "name": name} for n, name in enumerate(("a", "b"))]}))
    write_picture(tmp_path / "t.png", np.zeros((5, 5), np.uint8))
    code, found = evaluated(tmp_path, tmp_path / "t.png", tmp_path / "t.png", classes=table, min_iou=(("b", 0.0),))
    assert code == 4
    assert found["per_class"][1]["iou"] == {"value": None, "low": None, "high": None}  # type: ignore[index]
    for absent, mean in (("skip", 1.0), ("one", 1.0), ("zero", 0.5)):
        _, found = evaluated(tmp_path, tmp_path / "t.png", tmp_path / "t.png", classes=table, absent=absent)
        assert found["dataset"]["mean_iou"]["value"] == mean  # type: ignore[index]
        assert found["absent_classes"] == absent


def test_what_has_no_partner_is_listed(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    (folders[1] / "2_mask.png").unlink()
    with pytest.raises(UsageError, match=r"truth has none for .*masks/2\.png"):
        run(EvalOptions(*folders), Console(quiet=True))
    for path in folders[1].glob("*.png"):
        path.unlink()
    with pytest.raises(NothingDoneError, match="has the name of one"):
        run(EvalOptions(*folders), Console(quiet=True))
    with pytest.raises(UsageError, match="no such file or folder"):
        run(EvalOptions(folders[0], tmp_path / "nowhere"), Console(quiet=True))


def test_a_table_of_pairs(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    (tmp_path / "pairs.csv").write_text("predicted,truth\nmasks/1.png,truth/1_mask.png\nmasks/3.png,truth/3_mask.png\n")
    code, found = evaluated(tmp_path, tmp_path / "pairs.csv", None)
    assert (code, found["images"]) == (0, 2)
    (tmp_path / "pairs.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="expected the columns predicted and truth"):
        run(EvalOptions(tmp_path / "pairs.csv"), Console(quiet=True))


def test_foreign_values_are_named_and_counted(
    tmp_path: Path, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(folders[0] / "3.png", np.full((43, 30), 9, np.uint8))
    write_picture(folders[0] / "4.png", np.full((43, 30), 1, np.uint8))  # of another size
    code, found = evaluated(tmp_path, *folders)
    assert (code, found["images"]) == (1, 3)
    said = capsys.readouterr().err
    assert "3.png: values that are no class: 9 (1290 pixels)" in said
    assert "4.png: 30 x 43 pixels on another grid" in said


def test_nothing_in_common_is_an_error(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    write_picture(tmp_path / "b.png", np.full((4, 4), 255, np.uint8))
    with pytest.raises(NothingDoneError, match="not one pixel has a true and a predicted class"):
        run(EvalOptions(tmp_path / "a.png", tmp_path / "b.png"), Console(quiet=True))
    (tmp_path / "classes.json").write_text(json.dumps({"classes": [{"index": 0, "name": "all"}]}))
    with pytest.raises(NothingDoneError, match="no pair could be compared"):
        run(EvalOptions(tmp_path / "b.png", tmp_path / "a.png"), Console(quiet=True))
    (tmp_path / "classes.json").unlink()
    with pytest.raises(NothingDoneError, match="no class in any mask"):
        run(EvalOptions(tmp_path / "b.png", tmp_path / "b.png"), Console(quiet=True))


def write_mask(path: Path, mask: np.ndarray, left: float, top: float, pixel: float, **more: object) -> Path:
    size = {"driver": "GTiff", "count": 1, "height": mask.shape[0], "width": mask.shape[1], "dtype": "uint8"}
    place = {"crs": "EPSG:32633", "transform": from_origin(left, top, pixel, pixel)}
    with rasterio.open(path, "w", **(size | place | more)) as file:
        file.write(mask, 1)
    return path


def test_no_data_of_a_prediction_is_counted_and_left_out(tmp_path: Path, rng: np.random.Generator) -> None:
    truth = rng.integers(0, 2, (20, 20), np.uint8)
    holed = truth.copy()
    holed[:5] = 77
    one = write_mask(tmp_path / "p.tif", holed, 500, 900, 2, nodata=77)
    other = write_mask(tmp_path / "t.tif", truth, 500, 900, 2)
    _, found = evaluated(tmp_path, one, other)
    assert (found["pixels"], found["unpredicted_pixels"]) == (300, 100)
    assert found["dataset"]["pixel_accuracy"]["value"] == 1  # type: ignore[index]


def test_what_is_not_predicted_counts_as_wrong_where_it_is_to(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """As scikit-learn has it of one more class, which the truth lacks; a prediction of next to nothing meets no bar."""
    truth = np.kron(rng.integers(0, 2, (8, 8)), np.ones((5, 5))).astype(np.uint8)
    holed = np.where(rng.random(truth.shape) < 0.1, 1 - truth, truth).astype(np.uint8)
    holed[:12] = 255
    (tmp_path / "classes.csv").write_text("index,name\n0,background\n1,disc\n")
    truth[0, :3] = 255
    files = write_picture(tmp_path / "p.png", holed), write_picture(tmp_path / "t.png", truth)
    known = truth != 255
    true, found = truth[known], np.where(holed == 255, 2, holed)[known]
    bar = {"min_miou": 0.8, "objects": "components", "boundary": (2.0, "pixels")}
    run(EvalOptions(*files, **bar), Console())  # type: ignore[arg-type]
    assert (
        "29.9% of the true pixels have no prediction and are in no figure; --unpredicted wrong"
        in capsys.readouterr().err
    )
    code, report = evaluated(tmp_path, *files, unpredicted="wrong", **bar)
    assert (code, report["unpredicted"], report["pixels"]) == (4, "wrong", 1597)
    assert "no figure" not in capsys.readouterr().err
    figures = {name: figure["value"] for name, figure in report["dataset"].items()}  # type: ignore[attr-defined]
    assert figures["mean_iou"] == pytest.approx(jaccard_score(true, found, labels=[0, 1], average="macro"))
    assert figures["cohens_kappa"] == pytest.approx(cohen_kappa_score(true, found))
    assert figures["matthews_correlation"] == pytest.approx(matthews_corrcoef(true, found))
    assert figures["pixel_accuracy"] == pytest.approx((true == found).mean())
    disc = report["per_class"][1]  # type: ignore[index]
    assert disc["true_pixels"] == (true == 1).sum()
    assert disc["objects"]["true"] == ndimage.label(truth == 1)[1]
    # What is not predicted is as what is predicted as the other class, to what looks at one class.
    write_picture(tmp_path / "p2.png", np.where(holed == 255, 0, holed))
    _, other = evaluated(tmp_path / "2", tmp_path / "p2.png", files[1], **bar)
    for name in ("iou", "boundary_iou", "objects"):
        assert disc[name] == other["per_class"][1][name]  # type: ignore[index]
    # Another report is read as it was counted.
    _, again = evaluated(tmp_path / "3", *files, unpredicted="wrong", compare=tmp_path / "report")
    assert {row["difference"] for row in again["comparison"]["figures"]} == {0}  # type: ignore[index]
    with pytest.raises(UsageError, match="made with --unpredicted wrong; expected skip"):
        run(EvalOptions(*files, compare=tmp_path / "report"), Console(quiet=True))
    write_picture(files[0], np.full_like(holed, 255))
    code, report = evaluated(tmp_path, *files, unpredicted="wrong", min_miou=0.01)
    assert (code, report["dataset"]["mean_iou"]["value"]) == (4, 0)  # type: ignore[index]


def test_a_score_that_is_the_bar_meets_it_and_a_missed_one_is_told_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three times an IoU of 0.7 is 0.7, whatever the last bit of the sum."""
    matrix = np.array([[14, 3, 0], [0, 14, 3], [3, 0, 14]])
    true, found = (np.repeat(part.ravel(), matrix.ravel()).astype(np.uint8) for part in np.indices((3, 3)))
    files = [write_picture(tmp_path / f"{name}.png", part[None]) for name, part in (("p", found), ("t", true))]
    code, report = evaluated(tmp_path, *files, min_miou=0.7)
    assert (code, report["dataset"]["mean_iou"]["value"] < 0.7) == (0, True)  # type: ignore[index]
    true = np.repeat(np.array([0, 1], np.uint8), [50_000, 100_000]).reshape(300, 500)
    found = true.copy()
    found[100, :42] = 0
    files = [write_picture(tmp_path / f"{name}.png", part) for name, part in (("p", found), ("t", true))]
    for bar, said in (
        (0.9996, "IoU of class 1 0.99958 is under 0.9996"),
        (0.9999341, "class 1 0.9996 is under 0.9999341"),
    ):
        assert evaluated(tmp_path, *files, min_iou=(("class 1", bar),))[0] == 4
        run(EvalOptions(*files, min_iou=(("class 1", bar),)), Console())
        assert said in capsys.readouterr().err


def test_pixels_without_a_prediction_are_in_no_remark_on_the_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where all of a class has none, the truth is not all of the other one."""
    truth = np.zeros((10, 10), np.uint8)
    truth[:5], truth[9] = 1, 255
    found = np.where(truth == 1, 255, 0).astype(np.uint8)
    (tmp_path / "classes.csv").write_text("index,name\n0,background\n1,disc\n")
    files = [write_picture(tmp_path / f"{name}.png", part) for name, part in (("p", found), ("t", truth))]
    run(EvalOptions(*files, classes=tmp_path / "classes.csv"), Console())
    assert "all true pixels" not in capsys.readouterr().err
    write_picture(files[1], np.where(truth == 1, 255, truth))
    run(EvalOptions(*files, classes=tmp_path / "classes.csv"), Console())
    assert "all true pixels are background" in capsys.readouterr().err


def test_two_files_of_scores_for_one_mask_are_refused(tmp_path: Path) -> None:
    for folder in ("p", "t"):
        write_picture(tmp_path / folder / "a.png", np.eye(8, dtype=np.uint8))
    for name in ("a.png", "a.tif"):
        write_picture(tmp_path / "s" / name, np.zeros((8, 8, 3), np.uint8))
    for option in ("scores", "images"):
        with pytest.raises(UsageError, match=rf"s: a\.png, a\.tif for .*a\.png; --{option} expects one file"):
            run(EvalOptions(tmp_path / "p", tmp_path / "t", **{option: tmp_path / "s"}), Console(quiet=True))  # type: ignore[arg-type]


def test_a_true_value_that_is_no_class_is_named_where_nothing_is_predicted_counts(tmp_path: Path) -> None:
    """There it is in no prediction's way, and would have been in no figure either."""
    truth, found = np.zeros((2, 6, 6), np.uint8)
    found[:2] = 255
    truth[0, 0], found[3] = 9, 1
    truth[3:5] = 1
    (tmp_path / "classes.csv").write_text("index,name\n0,background\n1,disc\n")
    place = 500_000, 5_300_000, 5
    files = write_mask(tmp_path / "p.tif", found, *place, nodata=255), write_mask(tmp_path / "t.tif", truth, *place)
    code, report = evaluated(tmp_path, *files, classes=tmp_path / "classes.csv")
    assert (code, report["pixels"], report["unpredicted_pixels"]) == (0, 24, 11)
    with pytest.raises(NothingDoneError):
        run(EvalOptions(*files, classes=tmp_path / "classes.csv", unpredicted="wrong"), Console(quiet=True))


def test_another_grid_is_refused_or_aligned(tmp_path: Path, rng: np.random.Generator) -> None:
    """A prediction of half the resolution, shifted by ten metres, that covers a part of the truth."""
    coarse = rng.integers(0, 3, (30, 30), np.uint8)
    truth = write_mask(tmp_path / "t.tif", coarse.repeat(2, 0).repeat(2, 1), 500_000, 5_300_000, 5)
    moved = write_mask(tmp_path / "p.tif", coarse[1:, 2:], 500_020, 5_299_990, 10)
    with pytest.raises(NothingDoneError, match="no pair could be compared"):
        run(EvalOptions(moved, truth), Console(quiet=True))
    code, found = evaluated(tmp_path, moved, truth, align=True)
    assert code == 0
    assert found["dataset"]["pixel_accuracy"]["value"] == 1  # type: ignore[index]
    assert found["pixels"] == 29 * 28 * 4
    assert found["unpredicted_pixels"] == 3600 - 29 * 28 * 4
    with rasterio.open(moved) as file:  # as gdalwarp -dstalpha leaves it
        profile = file.profile | {"count": 2, "photometric": "MINISBLACK", "alpha": "YES"}
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as file:
        file.write(np.stack([coarse[1:, 2:], np.full((29, 28), 255, np.uint8)]))
        file.colorinterp = ColorInterp.gray, ColorInterp.alpha
    assert evaluated(tmp_path, tmp_path / "a.tif", truth, align=True)[1]["pixels"] == 29 * 28 * 4
    picture = write_picture(tmp_path / "p.png", coarse)
    with pytest.raises(NothingDoneError):
        run(EvalOptions(picture, truth, align=True), Console(quiet=True))


def test_names_that_belong_together() -> None:
    left = {name: Path(name) for name in ("a", "b", "c", "d/e", "f_mask")}
    right = {name: Path(f"t/{name}") for name in ("a", "b_mask", "c_gt", "c-label", "d/e_manual1", "f_gt")}
    matched = match(left, right)
    assert [(name, str(other)) for name, _, other in matched.pairs] == [
        ("a", "t/a"), ("b", "t/b_mask"), ("d/e", "t/d/e_manual1"), ("f", "t/f_gt"),
    ]  # fmt: skip
    assert [str(path) for path in (*matched.left, *matched.right)] == ["c", "t/c-label", "t/c_gt"]
    both = match({name: Path(name) for name in ("a", "a_mask")}, {name: Path(f"t/{name}") for name in ("a", "a_gt")})
    assert [tuple(map(str, pair)) for pair in both.pairs] == [("a", "a", "t/a"), ("a_mask", "a_mask", "t/a_gt")]
    assert (both.left, both.right) == ((), ())


def test_help_and_import_are_light(segcli: Program) -> None:
    import sys

    code = "import sys, segcli.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert "--min-miou" in segcli("eval", "--help").stdout


def test_outlines_over_strips(tmp_path: Path, rng: np.random.Generator) -> None:
    """Several strips high, with unlabelled pixels, in pixels and in metres: as the whole image gives it."""
    from segcli.measures.boundaries import boundary_counts

    fields = [ndimage.gaussian_filter(rng.random((1300, 200)), 3) for _ in range(2)]
    truth, predicted = ((field > 0.5).astype(np.uint8) + (field > 0.53) for field in fields)
    truth[500:530, 20:60] = 255
    one = write_mask(tmp_path / "p.tif", predicted, 500, 900, 2.5)
    other = write_mask(tmp_path / "t.tif", truth, 500, 900, 2.5)
    known = truth != 255
    for boundary in ((2.0, "pixels"), (5.0, "metres")):
        _, found = evaluated(tmp_path, one, other, boundary=boundary)
        for n, row in enumerate(found["per_class"]):  # type: ignore[arg-type]
            expected = boundary_counts(truth == n, predicted == n, 2.0, known)
            assert row["boundary_iou"]["value"] == expected.boundary_iou  # type: ignore[index]
            assert row["boundary_f_score"]["value"] == expected.f_score  # type: ignore[index]
    picture = write_picture(tmp_path / "t.png", truth)
    with pytest.raises(NothingDoneError):
        run(EvalOptions(picture, picture, boundary=(5.0, "metres")), Console(quiet=True))


def test_widths_of_boundaries(folders: tuple[Path, Path], segcli: Program) -> None:
    assert segcli("eval", *folders, "--boundary", "2").returncode == 0
    for bad in ("0", "x", "-1", "2 km"):
        assert segcli("eval", *folders, "--boundary", bad).returncode == 2


def test_one_bad_file_does_not_take_the_others_with_it(
    tmp_path: Path, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[1] / "classes.json").unlink()
    (folders[0] / "1.png").write_bytes(b"no picture")
    write_picture(folders[0] / "2.png", np.zeros((42, 30, 3), np.uint8))
    code, found = evaluated(tmp_path, *folders)
    assert (code, found["images"], found["classes"]) == (1, 3, ["class 0", "class 1", "class 4"])
    said = capsys.readouterr().err
    assert "1.png" in said
    assert "2.png: 3 bands of uint8; expected a mask" in said


def test_a_report_that_cannot_be_written_is_said(tmp_path: Path, folders: tuple[Path, Path], segcli: Program) -> None:
    (tmp_path / "file").touch()
    result = segcli("eval", *folders, "--out", "file/report")
    assert result.returncode in (1, 3)
    assert len([line for line in result.stderr.splitlines() if line.startswith("segcli:")]) == 1
    (tmp_path / "pairs.csv").write_text("predicted,truth\nmasks/1.png,\n")
    assert "line 2 lacks one of the two" in segcli("eval", "pairs.csv").stderr


def test_white_that_is_taken_for_no_label_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Masks of 0 and 255 beside a table of 0 and 1: all that is left is background."""
    mask = np.zeros((10, 10), np.uint8)
    mask[2:5, 2:6] = 255
    write_picture(tmp_path / "truth" / "a.png", mask)
    write_picture(tmp_path / "masks" / "a.png", mask // 255)
    table = [{"index": 0, "name": "ground"}, {"index": 1, "name": "disc"}]
    (tmp_path / "truth" / "classes.json").write_text(json.dumps({"classes": table}))
    assert run(EvalOptions(tmp_path / "masks", tmp_path / "truth", tmp_path / "report"), Console()) == 0
    assert (
        "all true pixels are ground, or have a value that stands for no label (12 of them)" in capsys.readouterr().err
    )
    assert json.loads((tmp_path / "report" / "report.json").read_text())["unlabelled_pixels"] == 12
    mask[0, 0] = 1
    write_picture(tmp_path / "truth" / "a.png", mask)
    assert run(EvalOptions(tmp_path / "masks", tmp_path / "truth"), Console()) == 0
    assert "stands for no label" not in capsys.readouterr().err


def test_a_class_that_is_also_nodata_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A truth whose nodata is 0, which is the ground: whatever is predicted there, nobody looks at it."""
    truth = np.zeros((20, 20), np.uint8)
    truth[5:10, 5:10] = 1
    for name in ("0.tif", "1.tif", "2.tif"):
        for folder, mask, more in (("truth", truth, {"nodata": 0}), ("masks", np.ones_like(truth), {})):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_mask(tmp_path / folder / name, mask, 500, 900, 2, **more)
    folders = tmp_path / "masks", tmp_path / "truth"
    assert run(EvalOptions(*folders, tmp_path / "report"), Console()) == 0  # without a table 0 is no class
    said = capsys.readouterr()
    assert "all true pixels are class 1, or have a value that stands for no label (1125 of them)" in said.err
    assert "3 images, 1125 pixels (93.8%) without a label left out" in said.out
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (found["pixels"], found["unlabelled_pixels"], found["unpredicted_pixels"]) == (75, 1125, 0)
    assert "1125 have no true class" in (tmp_path / "report" / "report.html").read_text()
    (tmp_path / "classes.csv").write_text("index,name\n0,ground\n1,road\n")
    for pair, kind in ((folders, "no label"), (folders[::-1], "no prediction")):
        run(EvalOptions(*pair), Console())
        lines = capsys.readouterr().err.splitlines()
        said_once = [line for line in lines if "nodata is the value of ground" in line]
        assert len(said_once) == 1
        assert (
            f"truth/0.tif and 2 more: nodata is the value of ground, and its pixels are left out as {kind}"
            in said_once[0]
        )
    write_mask(tmp_path / "t.tif", truth.astype(np.uint16), 500, 900, 2, nodata=0, dtype="uint16")
    run(EvalOptions(tmp_path / "t.tif", tmp_path / "t.tif", objects="labels"), Console())
    assert "t.tif: nodata is the value of background" in capsys.readouterr().err


def test_a_table_of_nothing_compared_can_be_drawn() -> None:
    """Where no pixel has data and a label, as after a training whose validation images are empty."""
    nothing = np.zeros((2, 2), np.int64)
    image = ImageCounts("a", entries_of(nothing), Totals.of(nothing))
    tables = all_tables(report([image], ("ground", "disc")))
    assert tables[1][0] == "1 image"


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_class_indices_of_more_bits_where_a_table_says_the_classes(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str], dtype: type[np.generic]
) -> None:
    """As ome-zarr, ImageJ and GIS write them; train takes them, too. Without a table they may be numbers of objects."""
    truth = rng.integers(0, 3, (40, 50)).astype(np.uint8)
    found = np.where(rng.random(truth.shape) < 0.8, truth, 1).astype(np.uint8)
    reports = []
    for name, kind in (("bytes", np.uint8), ("wide", dtype)):
        for side, pixels in (("truth", truth), ("found", found)):
            (tmp_path / name / side).mkdir(parents=True)
            write_mask(tmp_path / name / side / "a.tif", pixels.astype(kind), 500, 900, 2, dtype=np.dtype(kind).name)
        options = EvalOptions(tmp_path / name / "found", tmp_path / name / "truth", tmp_path / f"report_{name}")
        if name == "wide":
            with pytest.raises(NothingDoneError, match="no pair could be compared"):
                run(options, Console())
            assert "if these are classes, give --classes" in capsys.readouterr().err
        (tmp_path / name / "classes.csv").write_text("index,name\n0,a\n1,b\n2,c\n")
        assert run(options, Console(quiet=True)) == 0
        reports.append(json.loads((tmp_path / f"report_{name}" / "report.json").read_text()))
    assert reports[0]["confusion_matrix"] == reports[1]["confusion_matrix"]
    truth = truth.astype(dtype)
    truth[3, 4] = 311
    write_mask(tmp_path / "wide" / "truth" / "a.tif", truth, 500, 900, 2, dtype=np.dtype(dtype).name)
    with pytest.raises(NothingDoneError, match="no pair could be compared"):
        run(options, Console())
    assert "the value 311; expected class indices, 0 to 255; numbers of objects are for" in capsys.readouterr().err
    write_mask(tmp_path / "wide" / "truth" / "a.tif", truth, 500, 900, 2, dtype=np.dtype(dtype).name, nodata=311)
    assert run(options, Console(quiet=True)) == 0
