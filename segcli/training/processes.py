"""Training by several processes, as torchrun starts them: each takes its share of every batch."""

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

PATIENCE = timedelta(hours=6)
"""How long processes wait for each other: parts of the validation differ, and one writes its report alone."""


@dataclass(frozen=True)
class Processes:
    """This process's number, and how many there are."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, through which gradients flow."""
        if self.count == 1:
            return tensor
        return _Total.apply(tensor)

    def sum(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sum over all processes of whole numbers. No GPU has a part in it, and so none is waited for."""
        if self.count == 1:
            return counts
        tensor = torch.from_numpy(counts.copy())
        dist.all_reduce(tensor)
        return tensor.numpy()

    def as_in_first(self, tensors: Iterable[Tensor]) -> None:
        """Make tensors what they are in the first process: norms see other crops in each."""
        for tensor in tensors if self.count > 1 else ():
            dist.broadcast(tensor, 0)

    def mean(self, seconds: float) -> float:
        """The mean over all processes, to the microsecond: the same number in all of them."""
        if self.count == 1:
            return seconds
        return float(self.sum(np.array([round(1e6 * seconds)]))[0]) / 1e6 / self.count

    def any(self, asked: bool) -> bool:
        """Whether any process says so."""
        return bool(self.sum(np.array([int(asked)]))[0])

    def together(self, network: nn.Module, device: torch.device, some_rest: bool) -> nn.Module:
        """The network, with gradients averaged over the processes; `some_rest` where parts may be left as they are."""
        if self.count == 1:
            return network
        if device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
            return nn.parallel.DistributedDataParallel(
                network, device_ids=[device.index], find_unused_parameters=some_rest
            )
        return nn.parallel.DistributedDataParallel(network, find_unused_parameters=some_rest)


class _Total(torch.autograd.Function):
    """A sum over processes; what each adds to the others' losses is added up in the same way."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _summed(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(tensor: Tensor) -> Tensor:
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


@contextmanager
def started(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """The processes that torchrun started, and this one's device; one process where nothing did."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    # The group's threads must have ended before the interpreter does: a thread that drops its last tensor afterwards
    # aborts the process, for which torchrun ends all others. What DDP loads binds the group that it finds to default
    # arguments of functions, and would keep it; so it is loaded while there is none.
    import_module("torch._dynamo")
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), count), device
    finally:
        gc.collect()  # with --compile the network hangs in a cycle, and with it the group
        dist.destroy_process_group()
