"""How many bytes of tensors are alive at a time while something is computed. Knows torch and nothing else."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode  # one level below, TorchDispatchMode would load torch's compiler


def most_alive(work: Callable[[], object]) -> int:
    """Most bytes alive at a time of what torch's functions in `work` gave, each storage once; what they take for
    themselves while they run is not seen."""
    with _Watch() as watch:
        work()
    return watch.most


class _Watch(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._known: dict[int, tuple[Any, int]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                self._known[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
        self._known = {key: (weak, size) for key, (weak, size) in self._known.items() if not weak.expired()}
        self.most = max(self.most, sum(size for _, size in self._known.values()))
        return result
