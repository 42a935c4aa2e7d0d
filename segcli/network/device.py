"""Where the network runs. Knows torch's devices and nothing else."""

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segcli.errors import NothingDoneError, UsageError


def choose_device(name: str) -> torch.device:
    """The device for `--device`: auto takes CUDA, then MPS, then the CPU. UsageError where it is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError("--device", f"{name!r} is no device", "expected auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError("--device", f"{name} is not there: {torch.cuda.device_count()} CUDA devices found")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device", "mps is not there")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError("--device", f"{name!r} is not supported", "expected auto, cpu, cuda, cuda:N or mps")
    return device


def name_of(device: torch.device) -> str:
    """A device as people know it."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def keep_freed_memory() -> None:
    """Let the C library keep large blocks that are freed, for the next of that size (glibc on Linux; else nothing).

    glibc maps blocks over 32 MiB anew each time, and the page faults of a fresh map cost about as much as the
    arithmetic on it. Features of one size come and go all the time here, so freed blocks are soon used again.
    """
    if (mallopt := _libc("mallopt")) is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def map_large_blocks() -> None:
    """Let the C library map each large block by itself until `keep_freed_memory` (glibc on Linux; else nothing).

    For a start, when copies of the weights come and go: freed, they are the system's again, and no holes in the heap,
    which smaller blocks would fill and larger ones could not use.
    """
    if (mallopt := _libc("mallopt")) is not None:
        mallopt(_M_MMAP_MAX, 2**16)
        mallopt(_M_MMAP_THRESHOLD, LASTING_BYTES)


@contextmanager
def large_blocks_mapped() -> Iterator[None]:
    """For what lasts among what comes and goes with each strip, as `map_large_blocks`; `keep_freed_memory` follows."""
    map_large_blocks()
    try:
        yield
    finally:
        keep_freed_memory()


def return_freed_memory() -> None:
    """Give freed blocks back to the system, holes in the heap too (glibc; else nothing); others of new sizes follow."""
    if (trim := _libc("malloc_trim")) is not None:
        trim(0)


def keep_kernels_for(network: nn.Module) -> None:
    """Let oneDNN keep two compiled kernels for each part of a network, where it has made none yet in this process and
    the environment does not say otherwise.

    In the middle of an image a part meets one or two shapes. By itself oneDNN keeps 1024 kernels, of 0.1 MB each, most
    of which would be those for the small images of a start.
    """
    count = max(LEAST_KERNELS, 2 * sum(1 for _ in network.modules()))
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(count))


LEAST_KERNELS = 128
"""More than small networks need, for others that follow in the process."""


def _libc(name: str) -> Any:
    """A function of glibc; None where there is another library or system."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None


LASTING_BYTES = 2**18


def lasting(size: int, like: Tensor) -> Tensor:
    """Room for `size` numbers as those of `like`, for as long as an image takes.

    On the CPU large room is mapped by itself: between what lasts, what comes and goes in each strip leaves holes in
    the heap (benchmarks/README.md).
    """
    count = size * like.element_size()
    if like.device.type != "cpu" or count < LASTING_BYTES:
        return torch.empty(size, dtype=like.dtype, device=like.device)
    try:
        room = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:  # so that less is tried, as when torch itself gets none
        raise MemoryError(f"not enough memory for {count} bytes") from error
    return torch.frombuffer(room, dtype=like.dtype)


_M_TRIM_THRESHOLD = -1  # from glibc's malloc.h
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The numbers that the network computes in: auto is bfloat16 on a GPU that has it, float32 elsewhere."""
    if name == "auto":
        return torch.bfloat16 if gpu_has_bfloat16(device) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def gpu_has_bfloat16(device: torch.device) -> bool:
    """Whether this is a GPU of Nvidia's that multiplies bfloat16 itself. `torch.cuda.is_bf16_supported` asks the first
    one, whichever is meant, and says yes where it is imitated, which takes longer than float32. AMD's count otherwise.
    """
    is_nvidia = device.type == "cuda" and torch.version.hip is None
    return is_nvidia and torch.cuda.get_device_capability(device) >= (8, 0)


def keep_all_bits_of_float32() -> None:
    """Let a GPU multiply float32 as it is: torch lets cuDNN round it to TF32, which has 10 bits for 23, and the
    environment may say so of other products, too."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def advice_on_precision(device: torch.device, name: str) -> str | None:
    """What to tell who computes on the CPU, where another `--precision` than `name` would take less time."""
    if device.type != "cpu" or name not in _EXTENSIONS or not _cpu_has("avx2"):  # of others nothing was measured
        return None
    if _cpu_has(*_EXTENSIONS[name]):
        return None
    return f"this processor has to imitate {name}, which takes longer than fp32: --precision fp32 is better here"


def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself, which takes half the time of float32 or less."""
    return _cpu_has(*_EXTENSIONS["bf16"])


_EXTENSIONS = {"bf16": ("avx512_bf16", "amx_bf16"), "fp16": ("avx512_fp16", "amx_fp16")}


def _cpu_has(*extensions: str) -> bool:
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older torch
    return any(known.get(extension) for extension in extensions)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of this machine's on the device; to CUDA without waiting for what that is at."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


PINNED_BYTES = 2**27
"""Strips of products up to this size come back while the GPU works. Several are under way, and memory for it is locked
and not given back."""


def copied_back(strips: Iterable[tuple[int, list[Tensor]]]) -> Iterator[tuple[int, list[NDArray[Any]]]]:
    """Strips of a device as arrays. From CUDA each comes while the next one is already being computed."""
    under_way: tuple[int, list[Tensor], torch.cuda.Event] | None = None
    for first_row, values in strips:
        if values[0].device.type != "cuda" or sum(value.nbytes for value in values) > PINNED_BYTES:
            if under_way is not None:
                yield _arrived(*under_way)
                under_way = None
            yield first_row, [value.cpu().numpy() for value in values]
            continue
        hosts = [torch.empty(value.shape, dtype=value.dtype, pin_memory=True) for value in values]
        for host, value in zip(hosts, values, strict=True):
            host.copy_(value, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(values[0].device))
        if under_way is not None:
            yield _arrived(*under_way)
        under_way = first_row, hosts, copied
    if under_way is not None:
        yield _arrived(*under_way)


def _arrived(first_row: int, hosts: list[Tensor], copied: torch.cuda.Event) -> tuple[int, list[NDArray[Any]]]:
    copied.synchronize()
    return first_row, [host.numpy() for host in hosts]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


@contextmanager
def out_of_memory_named(device: torch.device, advice: str) -> Iterator[None]:
    """NothingDoneError, with advice, where memory runs out in the block."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise NothingDoneError(device, str(error).split(". ")[0] or "out of memory", "", advice) from error


OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED",
                 "unable to find an engine")  # fmt: skip
"""How torch's allocators and libraries put it; the last where cuDNN has no room to work in."""
