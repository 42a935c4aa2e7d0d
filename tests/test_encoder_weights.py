"""Weights of torchvision's encoders, as they lie in torch's cache or in a file of one's own: data, no code."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from segcli.errors import NothingDoneError, UsageError
from segcli.network.encoders import Encoder, imagenet_weights
from segcli.options import TrainOptions
from segcli.training.checks import check_options
from segcli.training.start import encoder_weights

NAME = "resnet18"


class _Shout:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("unpickled"),))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(5)
    return models.resnet18(weights=None)


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[object], Path]:
    """Put a file into the cache under the name that torchvision gives it, with the beginning of its hash or another."""

    def put(content: object, beginning: str | None = None) -> Path:
        folder = tmp_path / "hub" / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(content, folder / "new")
        beginning = beginning or hashlib.sha256((folder / "new").read_bytes()).hexdigest()[:8]
        url = f"https://example.invalid/models/{NAME}-{beginning}.pth"
        monkeypatch.setattr(models, "get_model_weights", lambda _: SimpleNamespace(DEFAULT=SimpleNamespace(url=url)))
        return (folder / "new").rename(folder / f"{NAME}-{beginning}.pth")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return put


def test_a_cached_file_is_taken_and_no_code_in_it_is_run(cached: Callable[..., Path], model: nn.Module) -> None:
    path = cached(model.state_dict())
    assert imagenet_weights(NAME) == path
    first = Encoder(NAME, 3, path).body.get_submodule("conv1")
    assert torch.equal(first.weight, model.get_submodule("conv1").weight)
    path = cached({"conv1.weight": _Shout()})
    with pytest.raises(NothingDoneError, match=r"resnet18-\w{8}\.pth: damaged, or not of tensors alone; .*delete it"):
        Encoder(NAME, 3, imagenet_weights(NAME))
    assert not Path("unpickled").exists()


def test_a_cached_file_with_another_hash_is_named(cached: Callable[..., Path], model: nn.Module) -> None:
    cached(model.state_dict(), "0badc0de")
    with pytest.raises(NothingDoneError, match=r"checkpoints/resnet18-0badc0de\.pth: its SHA-256 begins with .*delete"):
        imagenet_weights(NAME)


def test_a_download_that_comes_damaged(cached: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    cached({}, "01234567").unlink()

    def fetch(url: str, place: str, beginning: str) -> None:
        raise RuntimeError(f'invalid hash value (expected "{beginning}", got "f00")')

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(NothingDoneError, match=r"could not be fetched: invalid hash value .*01234567.*--no-pretrained"):
        imagenet_weights(NAME)


def test_encoder_weights_from_a_file(tmp_path: Path, model: nn.Module) -> None:
    """Of a file that torch wrote, or as safetensors; the first convolution of two bands is made of that of three."""
    torch.save(model.state_dict(), tmp_path / "w.pth")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        options = TrainOptions(tmp_path, encoder=NAME, encoder_weights=tmp_path / name)
        check_options(options, None)
        assert encoder_weights(options) == tmp_path / name
        body = Encoder(NAME, 2, encoder_weights(options)).body
        assert torch.equal(body.get_submodule("layer1.0.conv1").weight, model.get_submodule("layer1.0.conv1").weight)
        assert torch.equal(body.get_submodule("conv1").weight, model.get_submodule("conv1").weight[:, :2] * 1.5)


def test_grey_is_to_one_band_what_it_is_to_three(tmp_path: Path, model: nn.Module) -> None:
    """Filters that tell red from green answer nothing to it."""
    with torch.no_grad():
        first = model.get_submodule("conv1").weight
        first[:32, 1], first[:32, 2] = -first[:32, 0], 0
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    one, three = (Encoder(NAME, bands, tmp_path / "w.safetensors").eval() for bands in (1, 3))
    grey = torch.rand(1, 1, 64, 64)
    for found, expected in zip(one(grey), three(grey.expand(-1, 3, -1, -1)), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)
    assert torch.allclose(one.body.get_submodule("conv1")(grey)[:, :32], torch.zeros(()), atol=1e-5)


def test_files_of_no_encoder_weights_are_refused(tmp_path: Path, model: nn.Module) -> None:
    wrong = OrderedDict(model.state_dict())
    wrong["conv1.weight"] = torch.zeros(3)
    for name, content, words in (
        ("noise.pth", None, "damaged, or not of tensors alone"),
        ("noise.safetensors", None, "damaged, or not of tensors alone"),
        ("whole.pth", model, "damaged, or not of tensors alone"),
        ("other.pth", wrong, r"conv1\.weight is \(3,\), in resnet18 \(64, 3, 7, 7\)"),
        ("list.pth", [1, 2], r"bn1\.bias is None, in resnet18 \(64,\)"),
        ("nan.pth", {**model.state_dict(), "fc.bias": torch.full((1000,), torch.nan)}, r"values of fc\.bias are not"),
    ):
        path = tmp_path / name
        if content is None:
            path.write_bytes(bytes(range(256)) * 4)
        else:
            torch.save(content, path)
        with pytest.raises(NothingDoneError, match=f"{name}: {words}") as caught:
            Encoder(NAME, 3, path)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)  # torch's advice is to run what is in it
    with pytest.raises(NothingDoneError, match=r"none\.pth: No such file"):
        Encoder(NAME, 3, tmp_path / "none.pth")


def test_encoder_weights_that_would_have_no_part_are_refused(tmp_path: Path) -> None:
    for more, words in (({}, "plain has none"), ({"encoder": NAME, "pretrained": False}, "with --no-pretrained")):
        with pytest.raises(UsageError, match=f"--encoder-weights: {words}"):
            check_options(TrainOptions(tmp_path, encoder_weights=tmp_path / "w.pth", **more), None)
