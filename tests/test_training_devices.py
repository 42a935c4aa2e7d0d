"""Training where devices differ: GPUs, several of them, too little memory. What can be seen of it without one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_picture
from safetensors import safe_open
from torch import nn

from segcli.console import Console
from segcli.errors import NothingDoneError
from segcli.network import checkpoint
from segcli.options import TrainOptions
from segcli.train import run
from segcli.training import loop
from segcli.training.processes import Processes
from segcli.training.state import Averaged, Progress, load_state, save_state


@pytest.fixture
def options(tmp_path: Path, rng: np.random.Generator) -> TrainOptions:
    for name in "abcd":
        write_picture(tmp_path / "data" / "images" / f"{name}.png", rng.integers(0, 255, (40, 48, 3), np.uint8))
        write_picture(tmp_path / "data" / "masks" / f"{name}.png", rng.integers(0, 2, (40, 48), np.uint8))
    return TrainOptions(tmp_path / "data", tmp_path / "out", width=2, depth=1, crop=32, batch=2, epochs=1, half=True)


def test_too_little_memory_for_a_step_is_said(options: TrainOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(loop, "_step", step)
    with pytest.raises(NothingDoneError, match=r"^cpu: CUDA out of memory; lower --batch or --crop.*--width"):
        run(options, Console(quiet=True))


def test_a_fault_that_is_none_of_memory_is_not_called_so(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: object) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(loop, "_step", step)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(options, Console(quiet=True))


def test_norms_of_several_gpus_are_kept_as_those_of_one(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are torch's SyncBatchNorm while several learn, which neither streams nor counts as a norm elsewhere."""

    def together(_: Processes, network: nn.Module, *__: object) -> nn.Module:
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)

    monkeypatch.setattr(Processes, "together", together)
    monkeypatch.setattr("segcli.training.validation.WHOLE_PIXELS", 0)
    assert run(options, Console()) == 0
    assert "does not stream" not in capsys.readouterr().err
    best = options.out / "best.safetensors"
    with safe_open(best, framework="pt") as file:
        kinds = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert {kind for name, kind in kinds.items() if "running" in name} == {torch.float32}
    assert torch.float16 in kinds.values()
    norms = [module for module in checkpoint.load(best).network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 6


def test_the_state_is_that_of_the_device_that_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that has no part in it is left alone, and what the optimiser remembers lies as the weights do."""

    def missing(*_: object) -> torch.Tensor:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy")

    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

    def optimiser() -> torch.optim.AdamW:
        return torch.optim.AdamW(conv.parameters())

    before = optimiser()
    conv(torch.randn(1, 3, 8, 8)).sum().backward()
    before.step()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("get_rng_state", "set_rng_state"):
        monkeypatch.setattr(torch.cuda, name, missing)
    save_state(tmp_path / "last.safetensors", conv, Averaged(conv, 0.9), before, Progress(), {})
    after = optimiser()
    load_state(tmp_path / "last.safetensors", conv, Averaged(conv, 0.9), after, {})
    for weights, values in before.state.items():
        again = after.state[weights]
        assert again.keys() == values.keys()
        for name, value in values.items():
            assert torch.equal(again[name], value)
            assert again[name].stride() == value.stride()
