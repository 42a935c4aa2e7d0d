"""What is refused before a training begins, and in which words."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import write_picture

from segcli.classes import ClassTable
from segcli.console import Console
from segcli.errors import UsageError
from segcli.network import checkpoint
from segcli.network.normalise import Normalisation
from segcli.network.unet import NetworkConfig, UNet
from segcli.options import TrainOptions
from segcli.train import run
from segcli.training.checks import check_options

Program = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("--epochs", 1, "--width", 2, "--depth", 1, "--crop", 16, "--batch", 2)


@pytest.fixture
def data(tmp_path: Path, rng: np.random.Generator) -> Path:
    for n in range(5):
        write_picture(tmp_path / "data" / "images" / f"{n}.png", rng.integers(0, 200, (24, 24, 3), np.uint8))
        write_picture(tmp_path / "data" / "masks" / f"{n}.png", rng.integers(0, 2, (24, 24), np.uint8))
    return tmp_path / "data"


def weights(path: Path, bands: int = 3, norm: str = "batch") -> Path:
    network = UNet(NetworkConfig(bands, 2, width=2, depth=1, norm=norm)).eval()  # type: ignore[arg-type]
    constants = Normalisation("uint8", (20.0,) * bands, (11.0,) * bands)
    checkpoint.save(checkpoint.Model(network, constants, ClassTable.from_indices([0, 1])), path)
    return path


def test_all_that_cannot_be_used_is_named_the_first_mask_too(data: Path, refused: Callable[..., str]) -> None:
    (data / "masks" / "0.png").write_bytes(b"")
    (data / "images" / "3.png").write_bytes(b"no picture")
    for more in ((), ("--check",)):
        said = refused("train", "data", *SMALL, *more)
        assert "masks/0.png" in said
        assert "images/3.png" in said
        assert "2 of 5 pairs cannot be used; nothing was started" in said


def test_a_name_that_is_no_text_is_named(data: Path, refused: Callable[..., str]) -> None:
    for folder in ("images", "masks"):
        (data / folder / "3.png").rename(data / folder / os.fsdecode(b"b\xe9.png"))
    said = refused("train", "data", *SMALL)
    assert "b\\udce9.png: " in said
    assert "1 of 5 pairs cannot be used; nothing was started" in said


def test_masks_in_colours_without_a_table(data: Path, rng: np.random.Generator, refused: Callable[..., str]) -> None:
    for path in (data / "masks").iterdir():
        write_picture(path, rng.integers(0, 2, (24, 24, 3), np.uint8) * np.uint8(255))
    (data / "masks" / "0.png").write_bytes(b"")  # the next one is looked at, then
    assert "1.png: a mask in colours; nothing says which colour is which class; write data/classes.csv" in refused(
        "train", "data", *SMALL
    )


def test_a_gap_needs_a_background(data: Path, refused: Callable[..., str], rng: np.random.Generator) -> None:
    for n in range(5):
        write_picture(data / "instances" / f"{n}.png", rng.integers(0, 9, (24, 24), np.uint16))
        write_picture(data / "masks" / f"{n}.png", rng.integers(0, 3, (24, 24), np.uint8))
    (data / "classes.csv").write_text("index,name\n1,disc\n2,ring\n0,ground\n")
    command = ("train", "data", *SMALL, "--border-weight", 10, "--check")
    assert "--border-weight: none of disc, ring is background" in refused(*command, "--ignore", 0)
    refused(*command, "--ignore", 0, "--border-gap", 0, code=0)
    refused(*command, code=0)


def test_check_refuses_what_the_training_would(data: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    weights(tmp_path / "four.safetensors", bands=4)
    for more, text in (
        (("--class-weights", "1,2,3"), "--class-weights: 3 weights; expected 2"),
        (
            ("-w", "four.safetensors"),
            ".png: 3 bands; the weights expect 4; choose with --bands, or other weights; 4 more",
        ),
    ):
        for check in ((), ("--check",)):
            assert text in refused("train", "data", *more, *check)
    assert not (tmp_path / "runs").exists()


def test_more_frozen_epochs_than_there_are(data: Path, tmp_path: Path) -> None:
    path = weights(tmp_path / "w.safetensors")
    options = TrainOptions(data, tmp_path / "out", weights=path, crop=16, freeze=60)
    with pytest.raises(UsageError, match="--freeze: 60 epochs of 50; the encoder would never learn"):
        run(options, Console(quiet=True))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"class_weights": "auto", "loss": "dice"},
            "--class-weights: has no part in --loss dice; .* ce.dice, ce.lovasz or focal",
        ),
        (
            {"border_weight": 5.0, "loss": "lovasz"},
            "--border-weight: has no part in --loss lovasz; .* ce.dice, ce.lovasz or focal",
        ),
        ({"label_smoothing": 0.1, "loss": "focal"}, "--label-smoothing: .*; expected ce, ce.dice or ce.lovasz$"),
    ],
)
def test_losses_that_take_an_option_are_named(data: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_options(TrainOptions(data, **more), None)


def test_norms_that_are_not_there_cannot_be_frozen(data: Path, tmp_path: Path) -> None:
    path = weights(tmp_path / "none.safetensors", norm="none")
    with pytest.raises(UsageError, match=r"--freeze-norms: .*none\.safetensors has no batch norm; there is nothing"):
        run(TrainOptions(data, tmp_path / "out", weights=path, crop=16, freeze_norms=True), Console(quiet=True))


def test_numbers_of_objects_in_masks_are_noticed(data: Path, segcli: Program, refused: Callable[..., str]) -> None:
    """The labels of other programs have a number for each object, which would be a class for each."""
    for n, path in enumerate(sorted((data / "masks").iterdir())):
        numbers = np.zeros((24, 24), np.uint16)
        numbers.flat[: 9 + n] = np.arange(1, 10 + n)
        write_picture(path, numbers)
    found = segcli("train", "data", "--check")
    assert found.returncode == 0, found.stderr
    said = found.stderr.replace("\n", " ")
    assert "14 classes, and each mask has them from the first on without a gap: if these are numbers of objects" in said
    assert "class class" not in said
    write_picture(data / "masks" / "0.png", np.where(numbers == 2, 6, numbers))
    assert "numbers of objects" not in segcli("train", "data", "--check").stderr
    write_picture(data / "masks" / "1.png", numbers + 300)
    assert "numbers of objects belong in instances/" in refused("train", "data", *SMALL)


def test_the_state_of_a_training_is_no_weights(data: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    options = TrainOptions(data, tmp_path / "run", epochs=1, width=2, depth=1, crop=16, batch=2)
    assert run(options, Console(quiet=True)) == 0
    best = "give --weights run/best.safetensors"
    said = refused("predict", "data/images", "--out", "o", "-w", "run/last.safetensors", code=3)
    assert f"run/last.safetensors: the state that train --resume goes on from; expected weights; {best}" in said
    assert f"run: Is a directory; expected weights in safetensors format with segcli's metadata; {best}" in refused(
        "train", "data", "-w", "run", code=3
    )
    for more, text in (
        ({"ema": 0.5}, r"begun with --ema 0\.999; now with --ema 0\.5; resume with"),
        ({"balance": True}, "begun without --balance; now with --balance; resume with"),
    ):
        with pytest.raises(UsageError, match=text):
            run(TrainOptions(**{**vars(options), **more, "resume": True}), Console(quiet=True))


def test_one_band_is_no_bands(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (data / "images").iterdir():
        write_picture(path, np.arange(24 * 24, dtype=np.uint8).reshape(24, 24))
    assert run(TrainOptions(data, tmp_path / "run", epochs=1, width=2, depth=1, crop=16, batch=2), Console()) == 0
    assert "validation images, 1 band, classes" in capsys.readouterr().err.replace("\n", " ")
