"""What the system says of itself and of this process, which systems say in ways of their own."""

import os
import resource
import sys
from typing import BinaryIO


def cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


def make_room(file: BinaryIO, size: int) -> None:
    """Have the disk keep so many bytes for a new file, where the system can promise that; OSError where it is full."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:  # macOS
        file.truncate(size)


def resident_bytes() -> float:
    """What the program has held so far, at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * float(unit)
