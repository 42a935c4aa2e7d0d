"""How much memory a run takes where nothing is asked for: what is free, as the system and its groups say."""

from pathlib import Path

import pytest
import torch

from segcli.network import budget
from segcli.network.budget import CPU_BUDGET, Memory, default_budget, free_memory
from segcli.network.plan import Plan

CPU = torch.device("cpu")
MB = 2**20
FILES = {"second": ("memory.max", "memory.current", "inactive_file"),
         "first": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")}  # fmt: skip


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with 1000 MB free, and with groups in `tmp_path`."""
    monkeypatch.setattr(budget, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(budget, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(budget, "_system_memory", lambda: 1000 * MB)


def group(folder: Path, version: str, limit: str, used: int, cached: int) -> None:
    folder.mkdir(parents=True)
    names = FILES[version]
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 17\n{names[2]} {cached}\n")


def test_it_is_half_of_what_is_free_and_on_the_cpu_no_more_than_pays() -> None:
    assert default_budget(1000 * MB, CPU, 0.0) == min(500 * MB, CPU_BUDGET)
    assert default_budget(1000 * MB, CPU, 50 * MB) == pytest.approx(CPU_BUDGET + 1.1 * 50 * MB)  # windows come on top
    assert default_budget(1000 * MB, torch.device("mps"), 0.0) == 500 * MB
    assert default_budget(70 * MB, CPU, 0.0) == 35 * MB


def test_what_the_smallest_pieces_take_is_said_where_it_is_more_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than was asked for, or than is free, once; what fits is no news, nor is half of what is free."""
    needed = 200e6
    plan = Plan(16, 512, needed=needed)
    for asked, free, said in (
        (100_000_000, 1e9, "takes about 252 MB in the smallest pieces, --memory says 100 MB"),
        (None, 100e6, "takes about 252 MB in the smallest pieces, 100 MB are free"),
        (None, 300e6, None), (300_000_000, 100e6, None),
    ):  # fmt: skip
        monkeypatch.setattr(budget, "free_memory", lambda _, free=free: free)
        memory = Memory.of(asked, 0.0, CPU)
        assert (memory.exceeded(plan), memory.exceeded(plan)) == (said, None)


@pytest.mark.parametrize(
    ("version", "own"), [("second", "0::/batch/job"), ("first", "5:cpu:/other\n4:hugetlb,memory:/batch/job")]
)
def test_the_tightest_group_around_the_process_counts(tmp_path: Path, version: str, own: str) -> None:
    """Of a batch job it may be the job's, or the one around it; the root's alone would not do."""
    (tmp_path / "own").write_text(f"{own}\n")
    root = tmp_path / "groups" / ("" if version == "second" else "memory")
    group(root / "batch" / "job", version, f"{300 * MB}", 250 * MB, 20 * MB)
    assert free_memory(CPU) == 70 * MB
    (root / "batch" / "job" / FILES[version][0]).write_text("max\n" if version == "second" else f"{2**62}\n")
    assert free_memory(CPU) == 1000 * MB
    for name, file in zip(
        (f"{200 * MB}", f"{150 * MB}", "inactive 0"), (*FILES[version][:2], "memory.stat"), strict=True
    ):
        (root / "batch" / file).write_text(f"{name}\n")
    assert free_memory(CPU) == 50 * MB


@pytest.mark.parametrize("own", [None, "", "nonsense", "0::/../outside"])
def test_in_a_container_the_root_is_its_own_group(tmp_path: Path, own: str | None) -> None:
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert free_memory(CPU) == 1000 * MB  # no groups at all
    group(tmp_path / "groups", "second", f"{400 * MB}", 399 * MB, 3 * MB)
    assert free_memory(CPU) == 4 * MB
    (tmp_path / "groups" / "memory.max").write_text(f"{398 * MB}")
    (tmp_path / "groups" / "memory.stat").write_text("inactive_file 0")
    assert free_memory(CPU) == 0  # over its limit: never less than nothing
