import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from segcli.classes import ClassEntry, ClassTable
from segcli.errors import NothingDoneError
from segcli.network import checkpoint
from segcli.network.normalise import Normalisation
from segcli.network.unet import NetworkConfig, UNet


@pytest.fixture
def model() -> checkpoint.Model:
    torch.manual_seed(3)
    network = UNet(NetworkConfig(4, 3, width=5, depth=2, dropout=0.25)).eval()
    classes = ClassTable(
        (ClassEntry(0, "sea", (0, 0, 255)), ClassEntry(5, "wüste", (250, 220, 1)), ClassEntry(9, "ice", (255,) * 3)),
        None,
    )
    constants = Normalisation("uint16", (1.5, 2.5, 3.0, 0.1), (10.0, 1 / 3, 2.0, 1e-3))
    return checkpoint.Model(network, constants, classes, {"epochs": 3, "data": {"train": 7}})


def test_round_trip_keeps_everything(model: checkpoint.Model, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "w.safetensors"
    checkpoint.save(model, path)
    loaded = checkpoint.load(path)
    assert loaded.network.config == model.network.config
    assert loaded.normalisation == model.normalisation
    assert loaded.classes == model.classes
    assert loaded.training == {"epochs": 3, "data": {"train": 7}}
    image = torch.randn(1, 4, 9, 14)
    with torch.no_grad():
        assert torch.equal(loaded.network(image), model.network(image))
    assert not loaded.network.training
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]


def test_half_precision_halves_the_file_and_comes_back_as_float32(model: checkpoint.Model, tmp_path: Path) -> None:
    checkpoint.save(model, tmp_path / "full.safetensors")
    checkpoint.save(model, tmp_path / "half.safetensors", half=True)
    stored = load_file(tmp_path / "half.safetensors")
    assert stored["encoder.0.0.weight"].dtype == torch.float16
    assert stored["encoder.0.1.running_var"].dtype == torch.float32
    loaded = checkpoint.load(tmp_path / "half.safetensors").network.state_dict()
    for name, tensor in model.network.state_dict().items():
        assert loaded[name].dtype == tensor.dtype
        torch.testing.assert_close(loaded[name], tensor, rtol=1e-3, atol=1e-6)


def rewrite(path: Path, change: dict[str, object]) -> None:
    """Change the record of a checkpoint and nothing else."""
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["segcli"])
    record.update(change)
    save_file(load_file(path), path, {"segcli": json.dumps(record)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 3}, "format 3"),
        ({"network": {"name": "unet", "bands": 4, "classes": 3, "width": 6, "depth": 2}}, "has shape"),
        ({"network": {"name": "unet", "bands": 4, "classes": 3, "width": 5, "depth": 3}}, "the network"),
        ({"network": {"name": "unet", "bands": 4, "classes": 3, "width": 10**9, "depth": 2}}, "out of range"),
        ({"network": {"name": "os.system"}}, "not known"),
        ({"network": {"name": "unet", "bands": 4, "classes": 3, "colour": 1}}, "colour"),
        ({"classes": []}, "expected"),
        ({"classes": [{"index": 0, "name": "one"}]}, "3 classes with 1 names"),
        ({"normalisation": {"dtype": "uint8", "mean": [0.0], "deviation": [1.0]}}, "4 bands with 1 constants"),
        ({"normalisation": {"dtype": "uint8", "mean": [0.0] * 4, "deviation": [0.0] * 4}}, "above 0"),
        ({"normalisation": {"dtype": "uint8", "mean": [float("nan")] * 4, "deviation": [1.0] * 4}}, "found nan"),
        ({"normalisation": {"dtype": "uint8", "mean": [0.0] * 4, "deviation": [float("inf")] * 4}}, "found inf"),
        ({"normalisation": {"dtype": "uint8", "mean": ["a"] * 4, "deviation": [1.0] * 4}}, "finite numbers, found 'a'"),
        ({"normalisation": {"dtype": "uint8", "mean": [10**400] * 4, "deviation": [1.0] * 4}}, "too large"),
        ({"normalisation": {"dtype": "banana", "mean": [0.0] * 4, "deviation": [1.0] * 4}}, "dtype 'banana'"),
        ({"normalisation": {"dtype": "complex64", "mean": [0.0] * 4, "deviation": [1.0] * 4}}, "dtype 'complex64'"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(
    model: checkpoint.Model, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    path = tmp_path / "w.safetensors"
    checkpoint.save(model, path)
    rewrite(path, change)
    with pytest.raises(NothingDoneError, match=words) as caught:
        checkpoint.load(path)
    assert "w.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (
            "head.weight",
            lambda tensor: torch.full_like(tensor, torch.nan),
            "head.weight has values that are not finite",
        ),
        ("head.weight", lambda tensor: tensor.double() * 1e300, "head.weight has values that are not finite"),
        ("head.weight", lambda tensor: tensor.to(torch.int64), "head.weight is of torch.int64"),
        ("head.weight", lambda tensor: tensor > 0, "head.weight is of torch.bool"),
        ("head.weight", lambda tensor: torch.complex(tensor, tensor), "head.weight is of torch.complex64"),
        ("encoder.0.1.running_var", lambda tensor: -tensor, "running_var has variances below 0"),
        ("encoder.0.1.num_batches_tracked", lambda tensor: tensor.float(), "num_batches_tracked is of torch.float32"),
    ],
)
def test_values_that_no_training_gives_are_refused(
    model: checkpoint.Model, tmp_path: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor], words: str
) -> None:
    """They would load, and every pixel be of the first class without a word."""
    path = tmp_path / "w.safetensors"
    checkpoint.save(model, path)
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        text = file.metadata()
    save_file({**tensors, name: change(tensors[name])}, path, text)
    with pytest.raises(NothingDoneError, match=words):
        checkpoint.load(path)


class _Shout:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("unpickled"),))


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(_Shout(), "w.pt")
    Path("w.pkl").write_bytes(pickle.dumps(_Shout()))
    for name in ("w.pt", "w.pkl"):
        with pytest.raises(NothingDoneError, match="safetensors"):
            checkpoint.load(Path(name))
    assert not Path("unpickled").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 40) + b'{"a":{"dtype":"F32","shape":[1000000000]',
        struct.pack("<Q", 2) + b"{}",
    ],
)
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(NothingDoneError, match="expected weights"):
        checkpoint.load(path)


def test_missing_files_and_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(NothingDoneError, match="no bundled weights of that name"):
        checkpoint.find("no-such-weights")
    with pytest.raises(NothingDoneError, match="directory"):
        checkpoint.load(tmp_path)
