"""All that an interrupted training needs to go on as if nothing had been. Tensors and JSON in safetensors, no code."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from segcli.errors import UsageError
from segcli.files import replacing
from segcli.network.checkpoint import KEY_OF_STATE
from segcli.options import TrainOptions, bands_text


@dataclass
class Progress:
    """Where training is: `epoch` and `step` are the next ones; `loss` and `seen` are sums over this epoch so far."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    seen: int = 0
    seconds: float = 0.0  # over all runs
    best: float = -1.0
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def end_epoch(self, row: dict[str, Any], is_best: bool) -> None:
        """Note an epoch's figures, and stand at the beginning of the next one."""
        self.history.append(row)
        if is_best:
            self.best, self.best_epoch = row["mean_iou"] or 0.0, self.epoch + 1
        self.epoch, self.step, self.loss, self.seen = self.epoch + 1, 0, 0.0, 0


class Averaged:
    """A moving average of a network's weights and buffers (Polyak and Juditsky, 1992); the first steps count less."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """After optimiser step number `step`, from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, 1 - decay)
            else:
                self.tensors[name].copy_(tensor)


def save_state(
    path: Path, network: nn.Module, averaged: Averaged, optimiser: torch.optim.Optimizer, progress: Progress,
    record: dict[str, Any],
) -> None:  # fmt: skip
    """Write everything; the file is there whole, or the one before it still is. `record` is compared at resuming."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"averaged.{name}": tensor for name, tensor in averaged.tensors.items()}
    for number, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in values.items()}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"progress": vars(progress), "record": record})
    with replacing(path) as part:
        part.write_bytes(to_bytes(plain, {KEY_OF_STATE: text}))


def load_state(
    path: Path, network: nn.Module, averaged: Averaged, optimiser: torch.optim.Optimizer, record: dict[str, Any]
) -> Progress:
    """Bring everything to where it was. UsageError where the file is none, or of a training with another `record`."""
    try:
        with safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {})[KEY_OF_STATE])
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise UsageError(
            path, f"cannot be resumed: {error}", "expected what an interrupted segcli train wrote"
        ) from error
    for name, value in record.items():
        # An option that was not there yet had the value that it has by itself; of what else was not noted nobody knows.
        before = found["record"].get(name, getattr(TrainOptions, name, value))
        if before != value:
            raise UsageError(path, f"begun {_with(name, before)}", f"now {_with(name, value)}",
                             "resume with the same options and data, or begin anew in another --out")  # fmt: skip
    network.load_state_dict(_part(tensors, "network."))
    for name, tensor in _part(tensors, "averaged.").items():
        averaged.tensors[name].copy_(tensor)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _part(tensors, "optimiser.").items():
        number, _, kind = name.partition(".")
        state.setdefault(int(number), {})[kind] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    for weights, values in optimiser.state.items():  # fused steps count on the weights' own order of numbers
        values |= {name: torch.empty_like(weights).copy_(value) for name, value in values.items() if value.ndim}
    return Progress(**found["progress"])


def _with(name: str, value: Any) -> str:
    """An option as it is written on the command line; of data and the like the value."""
    if name in ("data", "classes", "normalisation", "processes"):
        return f"with {name} {value}"
    option = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return f"without {option}"
    text = (bands_text(value) if name == "bands" else ",".join(map(str, value))) if isinstance(value, list) else value
    return f"with {option}" if value is True else f"with {option} {text}"


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
