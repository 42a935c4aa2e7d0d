import gc
import os
import threading
import weakref
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import pytest

from segcli import batch
from segcli.console import Console, Progress
from segcli.errors import InputError, NothingDoneError, UsageError
from segcli.manifest import opened


@dataclass(frozen=True)
class Options:
    width: int = 3


def png(_: Path) -> str:
    return ".png"


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def outputs(jobs: list[batch.Job], out: Path) -> dict[str, str]:
    return {str(job.source.name): job.output.relative_to(out).as_posix() for job in jobs}


def test_folders_files_and_relative_paths(tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "masks"
    touch(scans / "b.PNG", scans / "a.tif", scans / "notes.txt", scans / "deep" / "c.tif", tmp_path / "odd.name")
    assert outputs(batch.plan([scans], out, png, False)[1], out) == {"a.tif": "a.png", "b.PNG": "b.png"}
    assert outputs(batch.plan([scans], out, png, True)[1], out)["c.tif"] == "deep/c.png"
    found = batch.plan([tmp_path / "odd.name", scans / "a.tif", scans], out, png, False)[1]
    assert outputs(found, out) == {"odd.name": "odd.png", "a.tif": "a.png", "b.PNG": "b.png"}


def test_an_output_folder_inside_the_input_does_not_feed_itself(tmp_path: Path) -> None:
    touch(tmp_path / "a.tif", tmp_path / "masks" / "a.png")
    assert outputs(batch.plan([tmp_path], tmp_path / "masks", png, True)[1], tmp_path / "masks") == {"a.tif": "a.png"}


def test_one_file_may_name_its_output(tmp_path: Path) -> None:
    touch(tmp_path / "a.tif")
    assert batch.plan([tmp_path / "a.tif"], tmp_path / "m.png", png, False) == (
        tmp_path, [batch.Job(tmp_path / "a.tif", tmp_path / "m.png", (), (tmp_path / "a.tif",))],
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"ends in \.png"):
        batch.plan([tmp_path / "a.tif"], tmp_path / "m.tif", png, False)


def test_two_inputs_for_one_output_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a.tif", tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"a\.tif: would write .*a\.png"):
        batch.plan([tmp_path], tmp_path / "out", png, False)


def test_an_input_is_never_an_output(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "b.tif")
    for out in (tmp_path, tmp_path / "sub" / ".."):
        with pytest.raises(UsageError, match=r"a\.png: is an input, and would be overwritten"):
            batch.plan([tmp_path], out, png, False)
    with pytest.raises(UsageError, match="is an input"):
        batch.plan([tmp_path / "a.png"], tmp_path / "a.png", png, False)


def test_outputs_beside_an_input_of_another_kind(tmp_path: Path) -> None:
    touch(tmp_path / "scans" / "a.tif")
    assert len(batch.plan([tmp_path / "scans"], tmp_path / "scans", png, False)[1]) == 1
    assert len(batch.plan([tmp_path / "scans"], tmp_path, png, False)[1]) == 1


def test_second_files_clash_too(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    touch(scans / "a.tif", scans / "extra" / "a.tif")
    assert len(batch.plan([scans], tmp_path / "out", png, True)[1]) == 2
    with pytest.raises(UsageError, match=r"would write .*extra/a\.png"):
        batch.plan([scans], tmp_path / "out", png, True, beside=[batch.Beside("extra")])


def test_no_inputs(tmp_path: Path) -> None:
    with pytest.raises(NothingDoneError, match="no images"):
        batch.plan([tmp_path], tmp_path / "out", png, False)


def prepare(job: batch.Job) -> Path:
    if job.source.name == "bad":
        raise InputError(job.source, "two\nlines", "expected one")
    return job.source


def nothing(*_: object) -> None:
    """To do."""


def none(*_: object) -> list[Path]:
    """Nothing was written."""
    return []


def all_alike(_: Path) -> tuple[int, int]:
    return 0, 3


def test_a_failure_is_counted_named_and_survived(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [batch.Job(Path(name), Path(name)) for name in ("good", "bad", "worse", "fine")]

    def work(group: list[tuple[batch.Job, Path]]) -> None:
        for job, _ in group:
            if job.source.name == "worse":
                raise ZeroDivisionError("oh")

    report = batch.run(jobs, batch.Steps(prepare, all_alike, work, none), Console())
    assert (str(report), report.exit_code) == ("done 2  up to date 0  failed 2", 1)
    assert capsys.readouterr().err.splitlines() == [
        r"segcli: bad: two\nlines; expected one",
        "segcli: worse: ZeroDivisionError: oh; run with --debug to see where",
    ]
    with pytest.raises(ZeroDivisionError):
        batch.run(jobs, batch.Steps(prepare, all_alike, work, none), Console(), debug=True)


def test_neighbours_that_are_alike_go_together() -> None:
    names = ["a1", "a2", "b1", "a3", "a4", "a5", "a6"]
    groups: list[list[str]] = []
    batch.run(
        [batch.Job(Path(name), Path(name)) for name in names],
        batch.Steps(
            lambda job: job.source.name,
            lambda name: (name[0], 3),
            lambda group: groups.append([name for _, name in group]),
            none,
        ),
        Console(),
    )
    assert groups == [["a1", "a2"], ["b1"], ["a3", "a4", "a5"], ["a6"]]


def test_several_threads_prepare_and_the_order_stays() -> None:
    together = threading.Barrier(3, timeout=30)
    done: list[str] = []

    def prepare_together(job: batch.Job) -> str:
        together.wait()  # breaks unless three of them are here at once
        return str(job.source)

    jobs = [batch.Job(Path(f"{n}"), Path(f"{n}")) for n in range(9)]
    steps = batch.Steps(prepare_together, lambda _: ("alike", 2), lambda group: done.extend(i for _, i in group), none)
    report = batch.run(jobs, steps, Console(quiet=True), workers=3)
    assert (report.done, done) == (9, [f"{n}" for n in range(9)])


def test_what_ends_everything_is_not_survived() -> None:
    def work(group: list[tuple[batch.Job, Path]]) -> None:
        raise NothingDoneError(group[0][0].output, "disk full")

    with pytest.raises(NothingDoneError):
        batch.run([batch.Job(Path("a"), Path("b"))] * 2, batch.Steps(prepare, all_alike, work, none), Console())


class Item:
    """Something large."""


def test_what_failed_keeps_nothing() -> None:
    """Not its item, in memory that a night of failures would fill, and not while others are worked on."""
    made: list[weakref.ref[Item]] = []
    scratches: list[weakref.ref[Item]] = []

    def prepare(job: batch.Job) -> Item:
        item = Item()
        made.append(weakref.ref(item))
        return item

    def work(group: list[tuple[batch.Job, Item]]) -> None:
        assert not [one for one in scratches if one() is not None]
        scratch = Item()
        scratches.append(weakref.ref(scratch))
        raise InputError("a", f"bad, {scratch}")

    jobs = [batch.Job(Path(f"{n}"), Path(f"{n}")) for n in range(6)]
    progress = Progress(9)
    gc.disable()
    try:
        steps = batch.Steps(prepare, lambda _: (0, 2), work, none)
        report = batch.run(jobs, steps, Console(quiet=True), progress=progress)
    finally:
        gc.enable()
    assert len(report.failures) == 6
    assert progress.total == 3  # nobody waits for what has failed
    assert len(scratches) == 3 + 6  # pairs, then each alone
    assert not [one for one in made if one() is not None]


def test_a_reader_that_has_gone_ends_the_run() -> None:
    def finish(job: batch.Job, _: Path) -> list[Path]:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        batch.run([batch.Job(Path("a"), Path("b"))] * 2, batch.Steps(prepare, all_alike, nothing, finish), Console())


def test_one_of_a_group_is_to_blame_and_what_is_finished_stays_finished() -> None:
    finished: list[str] = []

    def work(group: list[tuple[batch.Job, Path]]) -> None:
        if any(path.name == "b" for _, path in group):
            raise InputError("b", "bad")

    def finish(job: batch.Job, path: Path) -> list[Path]:
        finished.append(path.name)
        if path.name == "c":
            raise InputError("c", "worse")
        return []

    jobs = [batch.Job(Path(name), Path(name)) for name in "abcd"]
    report = batch.run(jobs, batch.Steps(prepare, all_alike, work, finish), Console(quiet=True))
    assert (report.done, len(report.failures), finished) == (2, 2, ["a", "c", "d"])


def test_two_runs_on_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second is refused, with the exit code for it, and what the first one wrote stays."""
    out = tmp_path / "out" / "a.png"
    jobs = [batch.Job(tmp_path / "a.tif", out, (), ())]

    def write(group: list[tuple[batch.Job, Path]]) -> None:
        again = batch.Steps(prepare, all_alike, lambda _: out.write_text("second"), lambda *_: [out])
        with opened(out.parent, "predict", Options(), alone=False) as manifest:
            report = batch.run(jobs, again, Console(), manifest)
        assert (str(report), report.exit_code) == ("done 0  up to date 0  failed 1", 5)
        out.write_text("first")

    steps = batch.Steps(prepare, all_alike, write, lambda *_: [out])
    with opened(out.parent, "predict", Options(), alone=False) as manifest:
        assert batch.run(jobs, steps, Console(), manifest).exit_code == 0
    assert out.read_text() == "first"
    assert "a.png: another run of segcli writes it; wait for it, or choose another --out" in capsys.readouterr().err
    with opened(out.parent, "predict", Options()) as manifest:
        report = batch.run(jobs, steps, Console(), manifest)
    assert str(report) == "done 0  up to date 1  failed 0"


def test_what_cannot_be_finished_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    """As where polygons fail when the mask is there already: it must not be somebody else's to the next run."""
    out = tmp_path / "a.png"
    jobs = [batch.Job(tmp_path / "a.tif", out, (tmp_path / "a.gpkg",), ())]

    def fail(*_: object) -> list[Path]:
        (tmp_path / "a.gpkg").touch()
        raise InputError(out, "no polygons of that")

    for _ in range(2):
        steps = batch.Steps(prepare, all_alike, lambda _: out.write_text("mask"), fail)
        with opened(tmp_path, "predict", Options()) as manifest:
            report = batch.run(jobs, steps, Console(), manifest)
        assert len(report.failures) == 1
        assert "no polygons of that" in report.failures[0]
        assert [path.name for path in tmp_path.iterdir()] == ["segcli.jsonl"]


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("where", ["work", "finish", "record", "interrupt"])
def test_what_was_whole_is_there_again_where_its_redo_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, has_links: bool
) -> None:
    """The mask, what lies beside it, and the account: the run that made them finds them up to date."""
    out, beside = tmp_path / "a.tif", tmp_path / "p" / "a.gpkg"
    jobs = [batch.Job(tmp_path / "scan.tif", out, (beside,), ())]
    files = [out, beside, tmp_path / "a.tif.aux.xml"]
    beside.parent.mkdir()

    def write(text: str) -> None:
        for path in files:
            part = path.with_name("part")
            part.write_text(text)
            part.replace(path)

    def fail_at(here: str) -> None:
        if here == where:
            raise KeyboardInterrupt if here == "interrupt" else InputError(out, "no polygons of that")

    def work(_: object) -> None:
        write("later")
        fail_at("work")

    def finish(*_: object) -> list[Path]:
        fail_at("finish")
        fail_at("interrupt")
        return [out, tmp_path / "nothing"] if where == "record" else [out]

    def run(steps: batch.Steps[Path], **more: object) -> str:
        with opened(tmp_path, "predict", Options()) as manifest:
            return str(batch.run(jobs, steps, Console(quiet=True), manifest, **more))  # type: ignore[arg-type]

    first = batch.Steps(prepare, all_alike, lambda _: write("earlier"), lambda *_: [out, beside])
    assert run(first) == "done 1  up to date 0  failed 0"
    before = [path.stat().st_mtime_ns for path in files]
    if not has_links:
        monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError))
    with pytest.raises(KeyboardInterrupt) if where == "interrupt" else nullcontext():
        assert run(batch.Steps(prepare, all_alike, work, finish), overwrite=True) == "done 0  up to date 0  failed 1"
    assert [path.read_text() for path in files] == ["earlier"] * 3
    assert [path.stat().st_mtime_ns for path in files] == before
    assert run(first) == "done 0  up to date 1  failed 0"
    left = {path.name for path in tmp_path.rglob("*")} - {path.name for path in files}
    assert left == {"p", "segcli.jsonl"}


def test_an_output_folder_may_have_a_date_for_a_name(tmp_path: Path) -> None:
    touch(tmp_path / "a.tif")
    out = tmp_path / "2024.05.01"
    assert outputs(batch.plan([tmp_path / "a.tif"], out, png, False)[1], out) == {"a.tif": "a.png"}
