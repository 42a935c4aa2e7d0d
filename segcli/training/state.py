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
    moments = optimiser.state_dict()["state"]
    for number, values in moments.items():
        tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in values.items()}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"progress": vars(progress), "record": record, "moments": len(moments)})
    with replacing(path) as part:
        part.write_bytes(to_bytes(plain, {KEY_OF_STATE: text}))


def load_state(
    path: Path, network: nn.Module, averaged: Averaged, optimiser: torch.optim.Optimizer, record: dict[str, Any]
) -> Progress:
    """Bring everything to where it was. UsageError where the file is none, or of a training with another `record`."""
    try:
        with safe_open(path, framework="pt") as file:
            if KEY_OF_STATE not in (metadata := file.metadata() or {}):
                raise ValueError("it holds weights alone")
            found = json.loads(metadata[KEY_OF_STATE])
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        progress, noted = _progress(found["progress"]), dict(found["record"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise _cannot_be_resumed(path, error) from error
    for name, value in record.items():
        # An option that was not there yet had the value that it has by itself; of what else was not noted nobody knows.
        before = noted.get(name, getattr(TrainOptions, name, value))
        if before != value:
            raise UsageError(path, f"begun {_with(name, before)}", f"now {_with(name, value)}",
                             "resume with the same options and data, or begin anew in another --out")  # fmt: skip
    try:
        state = _state_of(tensors, network, averaged, optimiser)
        if len(state) != found.get("moments", len(state)):  # earlier versions do not say it
            raise ValueError(f"{len(state)} of {found['moments']} parameters have an optimiser's state")
    except (KeyError, ValueError) as error:
        raise _cannot_be_resumed(path, error) from error
    network.load_state_dict(_part(tensors, "network."))
    for name, tensor in _part(tensors, "averaged.").items():
        averaged.tensors[name].copy_(tensor)
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    for weights, values in optimiser.state.items():  # fused steps count on the weights' own order of numbers
        values |= {name: torch.empty_like(weights).copy_(value) for name, value in values.items() if value.ndim}
    return progress


def _progress(values: dict[str, Any]) -> Progress:
    """TypeError or ValueError where it is none."""
    progress = Progress(**values)
    counts = progress.epoch, progress.step, progress.seen, progress.best_epoch
    sums = progress.loss, progress.seconds, progress.best
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"epochs and steps {counts}")
    if not all(type(value) in (int, float) for value in sums):
        raise ValueError(f"figures {sums}")
    known = {"epoch", "loss", "mean_iou", "iou", "learning_rate", "seconds"}
    if not all(isinstance(row, dict) and known <= row.keys() for row in progress.history):
        raise ValueError("a history without figures")
    return progress


def _cannot_be_resumed(path: Path, error: Exception) -> UsageError:
    found = f"no {error}" if isinstance(error, KeyError) else str(error)
    return UsageError(path, f"cannot be resumed: {found}", "expected what an interrupted segcli train wrote",
                      "begin anew in another --out")  # fmt: skip


def _state_of(
    tensors: dict[str, Tensor], network: nn.Module, averaged: Averaged, optimiser: torch.optim.Optimizer
) -> dict[int, dict[str, Tensor]]:
    """The optimiser's state by the number of a parameter. KeyError, ValueError where anything is missing, strange, or
    of another shape: a training that begins a part of it anew would say nothing."""
    expected = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    expected |= {f"averaged.{name}": tensor for name, tensor in averaged.tensors.items()}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    found = _part(tensors, "optimiser.")
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in found.items():
        number, _, kind = name.partition(".")
        state.setdefault(int(number), {})[kind] = tensor
    for place, values in state.items():
        if place >= len(parameters) or values.keys() != MOMENTS:
            raise ValueError(f"its optimiser has {', '.join(sorted(values))} of parameter {place}")
        expected |= {f"optimiser.{place}.{kind}": parameters[place] for kind in MOMENTS - {"step"}}
        expected[f"optimiser.{place}.step"] = torch.zeros(())
    for name in expected.keys() | tensors.keys():
        if name not in tensors:
            raise KeyError(name)
        if name not in expected or tensors[name].shape != expected[name].shape:
            raise ValueError(f"{name} of {list(tensors[name].shape)}")
    return state


MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
"""What AdamW remembers of a parameter."""


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
