"""How much memory the network may take, and how much of it is left when it has run out."""

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from segcli.network.plan import Plan

CPU_BUDGET = 400 * 2**20
"""Bytes for rows on their way through a network on the CPU: enough for panels of the bundled weights whose margins
cost three percent of the time. More would only be more."""


@dataclass
class Memory:
    """Bytes that the rows and windows of a network may take on a `device`: `budget`, less once it has run out.

    `asked` is what the user said for all that stands beside the program, None where nothing was said: then `free` says
    how much there was.
    """

    asked: int | None
    free: float
    budget: float
    device: torch.device
    _is_told: bool = False

    @staticmethod
    def of(asked: int | None, always: float, device: torch.device, networks: int = 1) -> "Memory":
        """By what was asked for, or by what is free; `always` are bytes that the network takes in any case, `networks`
        how many are run side by side."""
        free = free_memory(device)
        wanted = asked or default_budget(free, device, always, networks)
        return Memory(asked, free, _for_network(wanted, device), device)

    def move(self, device: torch.device, always: float, networks: int = 1) -> None:
        """Go on on another device, whose memory has not run out."""
        if device != self.device:
            other = Memory.of(self.asked, always, device, networks)
            self.free, self.budget, self.device = other.free, other.budget, device

    def run_out(self, plan: Plan) -> None:
        """What `plan` takes is more than there is, for all images that follow, too."""
        self.budget = min(self.budget, 0.99 * plan.needed)

    def exceeded(self, plan: Plan) -> str | None:
        """What to tell the user, once in a run, where the smallest pieces take more than was asked for, or is free."""
        there = self.free if self.asked is None else self.asked
        if self._is_told or not _for_network(there, self.device) < plan.needed < math.inf:
            return None
        self._is_told = True
        needed = _from_network(plan.needed, self.device)
        said = f"--memory says {there / 1e6:.0f} MB" if self.asked is not None else f"{there / 1e6:.0f} MB are free"
        return f"takes about {needed / 1e6:.0f} MB in the smallest pieces, {said}"


def default_budget(free: float, device: torch.device, always: float, networks: int = 1) -> float:
    """What the networks may use unless told otherwise: half of what is `free`, on the CPU no more than they profit
    from, beside the bytes that they `always` take."""
    return min(free / 2, networks * CPU_BUDGET + HOLES * always) if device.type == "cpu" else free / 2


def _for_network(memory: float, device: torch.device) -> float:
    """What the rows of the network may take of `memory` bytes. On the CPU the rest is for files that are read and
    written, and for holes in the heap, which blocks of many sizes leave between them."""
    return max(memory / 4, (memory - BESIDE_BYTES) / HOLES) if device.type == "cpu" else memory


def _from_network(rows: float, device: torch.device) -> float:
    """How much memory lets the rows of the network take so many bytes: the other way round."""
    return min(4 * rows, HOLES * rows + BESIDE_BYTES) if device.type == "cpu" else rows


BESIDE_BYTES, HOLES = 32e6, 1.1
"""Measured from outside (benchmarks/README.md)."""


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device; on the CPU, what the system can give to this process, containers counted."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return max(0, min(_system_memory(), _group_memory()))


def _group_memory() -> int:
    """Bytes that the control groups of this process (a container, a batch job) leave it, the tightest of them; files in
    cache count as free."""
    free = sys.maxsize
    for folder, limit, used, cached in _groups():
        try:
            lines = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            left = int((folder / limit).read_text()) - int((folder / used).read_text())
            free = min(free, left + int(lines.get(cached, 0)))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return free


GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def _groups() -> Iterator[tuple[Path, str, str, str]]:
    """Folders of the groups that this process is in and of those around them, with the names of their files: limit,
    use, and the cache's line in memory.stat; of both versions of control groups."""
    try:
        lines = [line.split(":", 2) for line in OWN_GROUPS.read_text().splitlines()]
    except OSError:
        lines = []
    paths = {kinds: path.strip("/") for _, kinds, path in (line for line in lines if len(line) == 3)}
    second = paths.get("", "")
    first = next((path for kinds, path in paths.items() if "memory" in kinds.split(",")), "")
    for root, path, names in (
        (GROUPS, second, ("memory.max", "memory.current", "inactive_file")),
        (GROUPS / "memory", first, ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
    ):
        own = root / path  # in a container without its own view of the groups there may be no such folder
        for folder in (own, *(parent for parent in own.parents if parent.is_relative_to(root))):
            yield folder, *names


def _system_memory() -> int:
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        # Not Linux: what is installed is known, what is free is not.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
