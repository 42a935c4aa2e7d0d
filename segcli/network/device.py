"""Where the network runs. Knows torch's devices and nothing else."""

import ctypes
import sys

import torch

from segcli.errors import UsageError


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


def keep_freed_memory() -> None:
    """Let the C library keep large blocks that are freed, for the next of that size (glibc on Linux; else nothing).

    glibc maps blocks over 32 MiB anew each time, and the page faults of a fresh map cost about as much as the
    arithmetic on it. Features of one size come and go all the time here, so freed blocks are soon used again.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in other C libraries
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_M_TRIM_THRESHOLD = -1  # from glibc's malloc.h
_M_MMAP_MAX = -4
