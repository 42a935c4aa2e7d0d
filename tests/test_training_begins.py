"""Where a training goes, what it does there with an earlier one, and how it is gone on with."""

import csv
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from helpers import write_picture
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from segcli import train
from segcli.console import Console
from segcli.errors import NothingDoneError, UsageError
from segcli.network.normalise import Normalisation
from segcli.options import TrainOptions
from segcli.training import history, loop
from segcli.training.files import Files
from segcli.training.labels import Labels, find_classes
from segcli.training.pairs import Splits, find_pairs
from segcli.training.processes import Processes
from segcli.training.sampling import Crops, Reading
from segcli.training.state import Progress
from segcli.training.survey import Survey, _Look

QUIET = Console(quiet=True)


class Killed(BaseException):
    """As kill -9: nothing is done after it."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for n in range(4):
        write_picture(tmp_path / "data" / "images" / f"{n}.png", rng.integers(0, 200, (32, 32, 3), np.uint8))
        write_picture(tmp_path / "data" / "masks" / f"{n}.png", rng.integers(0, 2, (32, 32), np.uint8))
    return tmp_path / "data"


@pytest.fixture
def options(data: Path, tmp_path: Path) -> TrainOptions:
    return TrainOptions(data, tmp_path / "out", width=2, depth=1, epochs=1, crop=32, batch=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def epochs(folder: Path) -> list[str]:
    with (folder / "history.csv").open(newline="") as file:
        return [row["epoch"] for row in csv.DictReader(file)]


def killed_in(monkeypatch: pytest.MonkeyPatch, name: str, call: int) -> None:
    """Have a training end when it calls that function of segcli.train for the `call`th time."""
    whole, calls = getattr(train, name), []

    def counted(*arguments: object) -> object:
        calls.append(name)
        if len(calls) == call:
            raise Killed
        return whole(*arguments)

    monkeypatch.setattr(train, name, counted)


def test_the_folder_has_the_whole_name_of_the_data(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows a dot is the ending of a file alone: data.v1 and data.v2 are two data sets."""
    monkeypatch.chdir(data.parent)
    monkeypatch.setattr(train, "_train", lambda _, out, *rest: found.append(out) or 0)
    found: list[Path] = []
    data.rename("data.v1")
    lines = [f"data.v1/images/{n}.png,data.v1/masks/{n}.png" for n in range(4)]
    Path("pairs.v2.csv").write_text("\n".join(["image,mask", *lines]))
    for name in ("data.v1", "pairs.v2.csv"):
        assert train.run(TrainOptions(Path(name), width=2, depth=1, crop=32, batch=2), QUIET) == 0
    assert found == [Path("runs/data.v1"), Path("runs/pairs.v2")]


@pytest.mark.parametrize("way", ["the data's folder", "a validation/ of the user's", "a table of files in it"])
def test_data_are_never_taken_for_an_earlier_training(data: Path, options: TrainOptions, way: str) -> None:
    """Their names may be those that a training gives its own: 2010_site.tif."""
    for kind in ("images", "masks"):
        for n, path in enumerate(sorted((data / kind).iterdir())[:2]):
            (data / "validation" / kind).mkdir(parents=True, exist_ok=True)
            path.rename(data / "validation" / kind / f"201{n}_site.tif")
    rows = [f"images/{n}.png,masks/{n}.png,train" for n in (2, 3)]
    rows += [f"validation/images/201{n}_site.tif,validation/masks/201{n}_site.tif,val" for n in (0, 1)]
    table = data / "pairs.csv"
    table.write_text("\n".join(["image,mask,split", *rows]))
    before = contents(data)
    if way == "the data's folder":
        options, said = replace(options, out=data), "the data's own folder"
    elif way == "a validation/ of the user's":
        options, said = replace(options, data=table, out=data), "validation: exists, without a training beside it"
    else:
        (data / "options.json").write_text("{}")
        before = contents(data)
        options, said = (
            replace(options, data=table, out=data),
            "validation/[a-z]*: lies in .*/validation; a training writes",
        )
    with pytest.raises(UsageError, match=said):
        train.run(options, QUIET)
    assert contents(data) == before


@pytest.mark.parametrize("place", ["masks", "images", "images/run"])
def test_a_training_does_not_write_among_the_images_or_masks(data: Path, options: TrainOptions, place: str) -> None:
    before = contents(data)
    with pytest.raises(UsageError, match=f"{place}: lies in .*, among the data"):
        train.run(replace(options, out=data / place), QUIET)
    assert contents(data) == before
    assert train.run(replace(options, out=data / place, check=True), QUIET) == 0  # which writes nothing
    assert train.run(replace(options, out=data / "run"), QUIET) == 0


def test_a_training_is_whole_until_another_replaces_it(
    options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the new one has anything, it is the old one without its state; after that, nothing of the old."""
    assert train.run(options, QUIET) == 0
    out, again = tmp_path / "out", replace(options, seed=1, overwrite=True, epochs=3)
    before = contents(out)
    with monkeypatch.context() as patch:
        killed_in(patch, "train_epoch", 1)
        with pytest.raises(Killed):
            train.run(again, QUIET)
    del before["last.safetensors"]
    assert contents(out) == before
    with pytest.raises(UsageError, match=r"last\.safetensors: no such file"):
        train.run(replace(again, overwrite=False, resume=True), QUIET)
    with monkeypatch.context() as patch:
        killed_in(patch, "train_epoch", 2)
        with pytest.raises(Killed):
            train.run(again, QUIET)
    there = contents(out)
    assert there.keys() == {"best.safetensors", "last.safetensors", "options.json", "history.csv", "curves.png"}
    assert json.loads(there["options.json"])["seed"] == 1
    assert all(there[name] != before[name] for name in there.keys() & before.keys())
    assert train.run(replace(again, overwrite=False, resume=True), QUIET) == 0
    assert epochs(out) == ["1", "2", "3"]


def test_a_training_that_is_stopped_while_it_replaces_another(
    options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train.run(options, QUIET) == 0
    whole = loop._step

    def stopped(*arguments: object) -> torch.Tensor:
        signal.raise_signal(signal.SIGTERM)
        return whole(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", stopped)
        assert train.run(replace(options, seed=1, batch=1, overwrite=True), QUIET) == 143
    assert contents(tmp_path / "out").keys() == {"last.safetensors", "options.json"}
    assert train.run(replace(options, seed=1, batch=1, resume=True), QUIET) == 0


def test_curves_are_of_all_epochs_and_drawn_now_and_then(
    options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first epoch, so that there is something to see, and at the end: epochs may be shorter than a drawing.
    Where the training is stopped or fails, too, and when it goes on."""
    drawn: list[int] = []
    monkeypatch.setattr("segcli.drawing.curves.curves", lambda rows: drawn.append(len(rows)) or b"%d" % len(rows))
    out = tmp_path / "out"
    assert train.run(replace(options, epochs=5), QUIET) == 0
    assert drawn == [1, 5]
    monkeypatch.setattr(history, "CURVES_EVERY", 0.0)
    assert train.run(replace(options, epochs=3, overwrite=True), QUIET) == 0
    assert drawn[2:] == [1, 2, 3]
    whole = train.train_epoch

    def stopped(training: object, progress: object, *more: object) -> bool:
        if progress.epoch == 2:  # type: ignore[attr-defined]
            signal.raise_signal(signal.SIGTERM)
        return whole(training, progress, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "train_epoch", stopped)
    monkeypatch.setattr(history, "CURVES_EVERY", 1e9)
    assert train.run(replace(options, epochs=5, overwrite=True), QUIET) == 143
    assert drawn[5:] == [1, len(epochs(out))]
    assert 1 < len(epochs(out)) < 5
    monkeypatch.setattr(train, "train_epoch", whole)
    (out / "curves.png").unlink()  # as of a run that was killed before
    assert train.run(replace(options, epochs=len(epochs(out)), resume=True), QUIET) == 0
    assert (out / "curves.png").read_text() == f"{len(epochs(out))}"

    def failed(training: object, progress: object, *more: object) -> bool:
        if progress.epoch == 3:  # type: ignore[attr-defined]
            raise NothingDoneError("train", "the loss is no number")
        return whole(training, progress, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "train_epoch", failed)
    with pytest.raises(NothingDoneError, match="no number"):
        train.run(replace(options, epochs=5, overwrite=True), QUIET)
    assert (out / "curves.png").read_text() == "3"


def test_no_row_of_the_history_is_lost(options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a kill between the state of the last epoch and its row."""
    with monkeypatch.context() as patch:
        killed_in(patch, "write_history", 2)
        with pytest.raises(Killed):
            train.run(replace(options, epochs=2), QUIET)
    assert epochs(tmp_path / "out") == ["1"]
    assert train.run(replace(options, epochs=2, resume=True), QUIET) == 0
    assert epochs(tmp_path / "out") == ["1", "2"]


def test_a_job_that_is_put_back_goes_on_if_there_is_anything(
    options: TrainOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again, out = replace(options, resume_if_any=True), tmp_path / "out"
    assert train.run(again, Console()) == 0
    assert f"{out}: no training to go on with; it begins anew\n" in capsys.readouterr().err
    assert train.run(replace(again, epochs=2), Console()) == 0
    said = capsys.readouterr().err
    assert "going on with epoch 2, step 1" in said
    assert "anew" not in said
    assert epochs(out) == ["1", "2"]
    (out / "last.safetensors").unlink()
    with pytest.raises(UsageError, match=r"best\.safetensors: exists; nothing is overwritten"):
        train.run(again, QUIET)
    with pytest.raises(UsageError, match="--resume-if-any: with --overwrite"):
        train.run(replace(again, overwrite=True), QUIET)


def test_a_job_that_is_killed_at_its_first_weights_goes_on(
    options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or that finds the disk full at the state, which is larger than the weights: with these alone the same command
    was refused, and --resume, too."""
    again, out = replace(options, batch=1, epochs=2, resume_if_any=True), tmp_path / "out"
    assert train.run(replace(again, out=tmp_path / "whole"), QUIET) == 0
    with monkeypatch.context() as patch:
        whole = train.Kept.best

        def best(*arguments: object) -> None:
            whole(*arguments)  # type: ignore[arg-type]
            killed_in(patch, "save_state", 1)

        patch.setattr(train.Kept, "best", best)
        with pytest.raises(Killed):
            train.run(again, QUIET)
    assert (out / "best.safetensors").exists()
    assert train.run(again, QUIET) == 0
    assert epochs(out) == ["1", "2"]
    states = [load_file(tmp_path / folder / "last.safetensors") for folder in ("whole", "out")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_images_narrower_than_a_crop_are_seen_as_often_as_others(options: TrainOptions, tmp_path: Path) -> None:
    """Line scans, of which a crop shows but a part of what it has of others; the rest is mirrored, without labels."""
    shutil.rmtree(options.data)
    for name, size in {"a": (64, 64), "b": (8, 512), "c": (512, 8), "d": (20, 20), "e": (64, 48)}.items():
        rng = np.random.default_rng(0)
        write_picture(options.data / "images" / f"{name}.png", rng.integers(0, 200, (*size, 3), np.uint8))
        write_picture(options.data / "masks" / f"{name}.png", rng.integers(0, 2, size, np.uint8))
    splits = Splits(find_pairs(options.data, 0.5, 0).all, ())
    labels = Labels(find_classes(options.data, None, splits.all))
    facts = {pair: fact for pair in splits.all for fact in [_Look(labels, Files(), None, 9, False).at_pair(pair)[pair]]}
    found = Survey(splits, facts, "uint8", 3)
    crops = Crops(found, Reading(labels, Normalisation("uint8", (0,) * 3, (1,) * 3), files=Files()), 32, 0)
    seen = dict.fromkeys(splits.train, 0.0)
    for n, number in enumerate(crops.order(0)):
        pair = splits.train[number]
        seen[pair] += float((crops.crop(int(number), 0, n).target >= 0).sum()) / facts[pair].height / facts[pair].width
    assert {pair.image.stem: pytest.approx(share, abs=0.35) for pair, share in seen.items()} == dict.fromkeys(
        "abcde", 1
    )
    assert [seen[pair] for pair in splits.train if pair.image.stem in "bc"] == pytest.approx([1, 1])


def test_figures_of_several_processes_are_of_all_their_crops(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a loss leaves each process its own, as Lovász does, and where a batch is not even."""
    whole, noted = loop.train_epoch, []

    class Two(Processes):
        """As if another one had `others` times this one's loss."""

        others = 1.0

        def total(self, tensor: torch.Tensor) -> torch.Tensor:
            return tensor * (1 + self.others)

        def sum(self, counts: np.ndarray) -> np.ndarray:
            return counts * 2

    for others in (1.0, 3.0):
        Two.others = others

        def as_one_of_two(training: loop.Training, progress: Progress, *more: object) -> bool:
            done = whole(replace(training, processes=Two(0, 2)), progress, *more)  # type: ignore[arg-type]
            noted.append((progress.loss, progress.seen))
            return done

        monkeypatch.setattr(train, "train_epoch", as_one_of_two)
        assert train.run(replace(options, loss="lovasz", batch=3, epochs=1, overwrite=True), QUIET) == 0
    (one, seen), (other, _) = noted
    assert (seen, other) == (3, pytest.approx(2 * one))  # three images to learn from, of which this process saw two


@pytest.mark.parametrize("kind", ["optimiser", "moment", "shape", "averaged", "network", "progress", "key", "record",
                                  "list", "more", "weights"])  # fmt: skip
def test_a_state_that_is_not_whole_is_not_gone_on_with(options: TrainOptions, kind: str) -> None:
    """Nor is a part of it begun anew without a word: moments of the optimiser at 0, an average of other weights."""
    assert train.run(replace(options, epochs=2), QUIET) == 0
    assert options.out is not None
    path = options.out / "last.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors, (key,) = load_file(path), metadata
    said = json.loads(metadata[key])
    names = {part: [name for name in tensors if name.startswith(part)] for part in ("optimiser", "averaged", "network")}
    if kind == "optimiser":
        tensors = {name: tensor for name, tensor in tensors.items() if name not in names["optimiser"]}
    elif kind in ("moment", "averaged", "network"):
        del tensors[names["optimiser" if kind == "moment" else kind][0]]
    elif kind == "shape":
        tensors[next(name for name in names["optimiser"] if name.endswith("exp_avg"))] = torch.zeros(1, 1, 1, 1)
    elif kind in ("progress", "record"):
        del said[kind]
    elif kind == "key":
        said["progress"]["of_a_later_version"] = 1
    elif kind == "list":
        said = []
    elif kind == "more":
        tensors["averaged.x"] = torch.zeros(2)
    save_file(tensors, path, {key: json.dumps(said)} if kind != "weights" else None)
    before = contents(options.out)
    with pytest.raises(UsageError, match=r"last\.safetensors: cannot be resumed: .*expected what an interrupted"):
        train.run(replace(options, epochs=3, resume=True), QUIET)
    assert contents(options.out) == before


def test_what_is_no_loss_is_not_refused(data: Path, options: TrainOptions, tmp_path: Path) -> None:
    """A look at data that lie in runs/, whose report would go there, and a folder that is empty."""
    assert train.run(replace(options, out=data, check=True), QUIET) == 0
    (tmp_path / "out" / "validation" / "masks").mkdir(parents=True)
    assert train.run(options, QUIET) == 0


@pytest.mark.parametrize("way", ["link to masks", "link to all", "file"])
def test_what_a_link_leads_to_is_nobody_s_validation(options: TrainOptions, tmp_path: Path, way: str) -> None:
    mine = write_picture(tmp_path / "mine" / "masks" / "0001_x.tif", np.zeros((4, 4), np.uint8))
    place = tmp_path / "out" / "validation"
    if way == "link to masks":
        place.mkdir(parents=True)
        (place / "masks").symlink_to(mine.parent)
    else:
        place.parent.mkdir()
        place.symlink_to(mine.parents[1]) if way == "link to all" else place.write_text("mine")
    with pytest.raises(UsageError, match="validation: exists, without a training beside it"):
        train.run(options, QUIET)
    assert mine.exists()
    if way == "link to masks":  # beside a training it is kept, too
        place.rename(tmp_path / "kept")
        assert train.run(options, QUIET) == 0
        shutil.rmtree(place)
        (tmp_path / "kept").rename(place)
        assert train.run(replace(options, overwrite=True, seed=1), QUIET) == 0
        assert mine.exists()


def test_validation_masks_have_nothing_where_there_are_no_data(options: TrainOptions) -> None:
    """As predict has it."""
    for kind in ("images", "masks"):
        for path in (options.data / kind).iterdir():
            pixels = np.random.default_rng(0).integers(1, 3, (1 + 2 * (kind == "images"), 32, 32), np.uint8)
            pixels[:, :6, :9] = 0
            with rasterio.open(path.with_suffix(".tif"), "w", "GTiff", 32, 32, len(pixels), dtype="uint8",
                               transform=rasterio.transform.from_origin(5, 5, 1, 1),
                               **({"nodata": 0} if kind == "images" else {})) as file:  # fmt: skip
                file.write(pixels)
            path.unlink()
    assert train.run(options, QUIET) == 0
    assert options.out is not None
    found = sorted((options.out / "validation" / "masks").glob("*.tif"))
    assert found
    for path in found:
        with rasterio.open(path) as file:
            assert np.array_equal(file.read(1) == 255, np.pad(np.ones((6, 9), bool), ((0, 26), (0, 23))))
