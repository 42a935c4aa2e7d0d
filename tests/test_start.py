"""Training that begins with weights of an earlier one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_picture

from segcli.classes import ClassTable
from segcli.console import Console
from segcli.errors import NothingDoneError, UsageError
from segcli.network import checkpoint
from segcli.network.normalise import Normalisation
from segcli.network.unet import NetworkConfig, UNet
from segcli.options import TrainOptions
from segcli.train import run
from segcli.training.loop import leave_norms

QUIET = Console(quiet=True)


def images(folder: Path, classes: int = 2, bands: int = 3, dtype: str = "uint8") -> Path:
    rng = np.random.default_rng(classes)
    for n in range(4):
        image = rng.integers(0, 200, (32, 32, bands)).astype(dtype)
        write_picture(folder / "images" / f"{n}.png", image[..., 0] if bands == 1 else image)
        write_picture(folder / "masks" / f"{n}.png", rng.integers(0, classes, (32, 32)).astype(np.uint8))
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    network = UNet(NetworkConfig(3, 2, width=3, depth=2, norm="none", skip="add")).eval()
    classes = ClassTable.from_indices([0, 1])
    constants = Normalisation("uint8", (20.0, 30.0, 40.0), (11.0, 12.0, 13.0))
    checkpoint.save(checkpoint.Model(network, constants, classes), tmp_path / "first.safetensors")
    return tmp_path / "first.safetensors"


def options(data: Path, weights: Path, **more: object) -> TrainOptions:
    return TrainOptions(data, data.parent / "out", weights=weights, crop=32, batch=2, **{"epochs": 1, **more})  # type: ignore[arg-type]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(path).network.state_dict()


def test_it_begins_where_the_weights_end(tmp_path: Path, weights: Path) -> None:
    """With nothing to learn by, all of them come out again: the network, its weights, its constants."""
    assert run(options(images(tmp_path / "data"), weights, learning_rate=0.0), QUIET) == 0
    first, after = checkpoint.load(weights), checkpoint.load(tmp_path / "out" / "best.safetensors")
    assert after.network.config == first.network.config
    assert after.normalisation == first.normalisation
    assert all(torch.equal(tensor, tensors(weights)[name]) for name, tensor in after.network.state_dict().items())
    assert after.training["options"]["width"] == 3
    assert after.training["options"]["weights"] == "first.safetensors"  # and not where it was


def test_other_classes_get_a_new_last_layer(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(options(images(tmp_path / "data", classes=3), weights, learning_rate=0.0), Console()) == 0
    assert "the last layer is new, because the classes were class 0, class 1" in capsys.readouterr().err.replace(
        "\n", " "
    )
    first, after = tensors(weights), tensors(tmp_path / "out" / "best.safetensors")
    assert {name for name in first if not torch.equal(first[name], after[name])} == {"head.weight"} | {"head.bias"}
    assert after["head.weight"].shape[0] == 3


def test_what_is_frozen_stays_and_the_rest_learns(tmp_path: Path, weights: Path) -> None:
    assert run(options(images(tmp_path / "data"), weights, freeze=1), QUIET) == 0
    first, after = tensors(weights), tensors(tmp_path / "out" / "best.safetensors")
    changed = {name.partition(".")[0] for name in first if not torch.equal(first[name], after[name])}
    assert changed == {"up", "decoder", "head"}


def test_frozen_norms_keep_their_statistics_and_go_on_scaling(tmp_path: Path, weights: Path) -> None:
    """With them a network learns on what predict will compute; without them each batch has its own mean."""
    first = with_norms(weights)
    assert run(options(images(tmp_path / "data"), weights, freeze_norms=True), QUIET) == 0
    after = tensors(tmp_path / "out" / "best.safetensors")
    statistics = {name for name in first if "running_" in name}
    assert len(statistics) == 2 * 10  # two norms a level, on the way down and up, and two below
    assert all(torch.equal(first[name], after[name]) for name in statistics)
    learnt = set(first) - statistics - {name for name in first if name.endswith("num_batches_tracked")}
    assert not [name for name in learnt if torch.equal(first[name], after[name])]

    assert run(options(images(tmp_path / "data"), weights, overwrite=True), QUIET) == 0
    after = tensors(tmp_path / "out" / "best.safetensors")
    assert not [name for name in statistics if torch.equal(first[name], after[name])]


def test_a_step_with_frozen_norms_sees_the_scores_of_predict(weights: Path) -> None:
    with_norms(weights)
    network = checkpoint.load(weights).network
    assert isinstance(network, UNet)
    pixels = torch.rand(2, 3, 16, 16)
    expected = network.eval()(pixels)
    assert not torch.allclose(network.train()(pixels), expected)
    network.load_state_dict(tensors(weights))  # the pass above moved the means
    leave_norms(network)
    assert torch.equal(network(pixels), expected)
    assert network.training  # what is no norm, dropout for one, still learns


def with_norms(path: Path) -> dict[str, torch.Tensor]:
    """Weights at `path` whose norms have seen something else than what comes; all their tensors."""
    network = UNet(NetworkConfig(3, 2, width=3, depth=2))
    for _ in range(3):
        network.train()(3 + 2 * torch.randn(2, 3, 16, 16))
    constants = Normalisation("uint8", (20.0, 30.0, 40.0), (11.0, 12.0, 13.0))
    checkpoint.save(checkpoint.Model(network.eval(), constants, ClassTable.from_indices([0, 1])), path)
    return tensors(path)


def test_grey_images_and_other_dtypes_fit(tmp_path: Path, weights: Path) -> None:
    """Grey is repeated, as predict does it; of 16 bits the constants are the data's own."""
    assert run(options(images(tmp_path / "data", bands=1, dtype="uint16"), weights), QUIET) == 0
    found = checkpoint.load(tmp_path / "out" / "best.safetensors").normalisation
    assert found.dtype == "uint16"
    assert len(set(found.mean)) == 1
    assert 80 < found.mean[0] < 120


def test_resuming_goes_on_and_does_not_begin_again(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = options(images(tmp_path / "data"), weights)
    assert run(chosen, Console()) == 0
    assert "begins with them, of encoder plain, width 3, depth 2" in capsys.readouterr().err.replace("\n", " ")
    first = (tmp_path / "out" / "history.csv").read_text().splitlines()
    with pytest.raises(UsageError, match=r"begun with --weights first\.safetensors; now without --weights"):
        run(replace(chosen, weights=None, width=3, depth=2, norm="none", skip="add", resume=True, epochs=2), QUIET)
    assert run(replace(chosen, resume=True, epochs=2), Console()) == 0
    assert "begins with them" not in capsys.readouterr().err
    assert (tmp_path / "out" / "history.csv").read_text().splitlines()[:-1] == first


def test_what_does_not_fit_is_refused(tmp_path: Path, weights: Path, refused: Callable[..., str]) -> None:
    images(tmp_path / "data")
    assert "--width: 8, and first.safetensors has 3; with --weights" in refused(
        "train", "data", "-w", "first.safetensors", "--width", 8
    )
    for more, text in (({"encoder": "resnet18"}, "has plain"), ({"skip": "none"}, "has add"), ({"depth": 3}, "has 2")):
        with pytest.raises(UsageError, match=text):
            run(options(tmp_path / "data", weights, **more), QUIET)
    with pytest.raises(NothingDoneError, match="no such file, and no bundled weights of that name"):
        run(options(tmp_path / "data", tmp_path / "missing"), QUIET)
    images(tmp_path / "grey", bands=1)
    network = UNet(NetworkConfig(4, 2, width=3, depth=2)).eval()
    constants = Normalisation("uint8", (20.0,) * 4, (11.0,) * 4)
    checkpoint.save(checkpoint.Model(network, constants, ClassTable.from_indices([0, 1])), weights)
    with pytest.raises(
        UsageError, match=r"[0-9]\.png: 1 band; the weights expect 4; choose .*; 3 more do not fit; without"
    ):
        run(options(tmp_path / "grey", weights), QUIET)
    assert not (tmp_path / "out").exists()


def test_a_network_is_asked_for_by_its_default_value_too(
    tmp_path: Path, weights: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--width 32 is what train takes by itself; said beside weights of width 3 it is a wish for another network."""
    images(tmp_path / "data")
    assert TrainOptions.width == 32
    command = ("train", "data", "-w", "first.safetensors")
    assert "--width: 32, and first.safetensors has 3" in refused(*command, "--width", 32)
    (tmp_path / "run.toml").write_text("[train]\nup = 'transpose'\nskip = 'concat'\n")
    assert "--skip: concat, and first.safetensors has add" in refused(*command, "--config", "run.toml")
    monkeypatch.setenv("SEGCLI_TRAIN_NORM", "batch")
    assert "--norm: batch, and first.safetensors has none" in refused(*command)
    assert "with --weights" not in refused(*command, "--norm", "none", "--width", 3, "--check", code=0)


def test_a_faster_way_is_named_where_there_is_one(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = options(images(tmp_path / "data"), weights, overwrite=True)
    for flag, precision, is_said in (
        ("avx512_bf16", "auto", True),
        ("amx_bf16", "auto", True),
        ("avx512_f", "auto", False),
        ("avx512_bf16", "bf16", False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flag=flag: {flag: True}, raising=False)
        assert run(replace(chosen, precision=precision), Console()) == 0  # type: ignore[arg-type]
        assert ("--precision bf16 takes about half the time" in capsys.readouterr().err.replace("\n", " ")) == is_said
