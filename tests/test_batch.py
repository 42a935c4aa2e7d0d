import errno
import gc
import json
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from segcli import batch
from segcli.console import Console, Progress
from segcli.errors import InputError, NothingDoneError, UsageError
from segcli.manifest import Manifest, opened
from segcli.raster.sidecars import placed


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


def written(text: str) -> Callable[[list[tuple[batch.Job, Path]]], None]:
    """Work that writes this into each file of each job, and into what GDAL may put beside it."""

    def work(group: list[tuple[batch.Job, Path]]) -> None:
        for path in (path for job, _ in group for path in job.files):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            if text != "without":
                path.with_name(f"{path.name}.aux.xml").write_text(text)

    return work


def test_two_runs_on_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second is refused, with the exit code for it, and what the first one wrote stays."""
    out = tmp_path / "out" / "a.png"
    jobs = [batch.Job(tmp_path / "a.tif", out, (), ())]

    def write(group: list[tuple[batch.Job, Path]]) -> None:
        again = batch.Steps(prepare, all_alike, written("second"), lambda job, _: [job.output])
        with opened(out.parent, "predict", Options(), alone=False) as manifest:
            report = batch.run(jobs, again, Console(), manifest)
        assert (str(report), report.exit_code) == ("done 0  up to date 0  failed 1", 5)
        written("first")(group)

    steps = batch.Steps(prepare, all_alike, write, lambda job, _: [job.output])
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

    def fail(job: batch.Job, _: Path) -> list[Path]:
        job.beside[0].touch()
        raise InputError(out, "no polygons of that")

    for _ in range(2):
        steps = batch.Steps(prepare, all_alike, written("mask"), fail)
        with opened(tmp_path, "predict", Options()) as manifest:
            report = batch.run(jobs, steps, Console(), manifest)
        assert len(report.failures) == 1
        assert "no polygons of that" in report.failures[0]
        assert [path.name for path in tmp_path.iterdir()] == ["segcli.jsonl"]


@pytest.mark.parametrize("where", ["work", "finish", "source", "record", "interrupt"])
def test_what_was_whole_is_there_still_where_its_redo_fails(tmp_path: Path, where: str) -> None:
    """The mask, what lies beside it, and the account: the run that made them finds them up to date."""
    source, out, beside = tmp_path / "scan.tif", tmp_path / "a.tif", tmp_path / "p" / "a.gpkg"
    source.write_text("pixels")
    jobs = [batch.Job(source, out, (beside,), (source,))]
    files = [out, beside, tmp_path / "a.tif.aux.xml"]

    def fail_at(here: str) -> None:
        if here == where:
            raise KeyboardInterrupt if here == "interrupt" else InputError(out, "no polygons of that")

    def work(group: list[tuple[batch.Job, Path]]) -> None:
        written("later")(group)
        fail_at("work")

    def finish(job: batch.Job, _: Path) -> list[Path]:
        fail_at("finish")
        fail_at("interrupt")
        if where == "source":
            os.utime(source)
        return [job.output, tmp_path / "nothing"] if where == "record" else [job.output]

    def run(steps: batch.Steps[Path], **more: object) -> str:
        with opened(tmp_path, "predict", Options()) as manifest:
            return str(batch.run(jobs, steps, Console(quiet=True), manifest, **more))  # type: ignore[arg-type]

    first = batch.Steps(prepare, all_alike, written("earlier"), lambda job, _: list(job.files))
    assert run(first) == "done 1  up to date 0  failed 0"
    before = [path.stat().st_mtime_ns for path in files]
    with pytest.raises(KeyboardInterrupt) if where == "interrupt" else nullcontext():
        assert run(batch.Steps(prepare, all_alike, work, finish), overwrite=True) == "done 0  up to date 0  failed 1"
    assert [path.read_text() for path in files] == ["earlier"] * 3
    assert [path.stat().st_mtime_ns for path in files] == before
    assert run(first) == "done 0  up to date 1  failed 0"
    left = {path.name for path in tmp_path.rglob("*")} - {path.name for path in files}
    assert left == {"p", "a.gpkg.aux.xml", "scan.tif", "segcli.jsonl"}


@pytest.mark.parametrize("moment", ["work", "finish", "record", "first name", "second name"])
def test_a_run_that_was_killed_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Wherever that was: what is at the names of outputs is whole and known, or somebody's own; and the folder may be
    that of the sources, too, where outputs are none of these."""
    made, by_hand = tmp_path / "a.png", tmp_path / "overlays" / "a.png"
    (tmp_path / "a.tif").write_text("pixels")

    def jobs() -> list[batch.Job]:
        return batch.plan([tmp_path], tmp_path, png, False, [batch.Beside("overlays")])[1]

    def run(steps: batch.Steps[Path]) -> str:
        with opened(tmp_path, "predict", Options()) as manifest:
            return str(batch.run(jobs(), steps, Console(quiet=True), manifest))

    whole = batch.Steps(prepare, all_alike, written("without"), lambda job, _: list(job.files))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def named(waiting: list[Path], root: Path) -> None:
        placed(waiting[: ("first name", "second name").index(moment)], root)
        killed()

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", lambda *_, **__: None)  # which a kill leaves no time for
        if moment.endswith("name"):
            patched.setattr(batch, "placed", named)
        if moment == "record":
            patched.setattr(Manifest, "add", killed)
        steps = batch.Steps(prepare, all_alike, killed if moment == "work" else whole.work,
                            killed if moment == "finish" else whole.finish)  # type: ignore[arg-type]  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            run(steps)
    assert made.exists() == (moment == "second name")
    by_hand.parent.mkdir(exist_ok=True)
    by_hand.write_text("by hand")
    assert run(whole) == "done 0  up to date 0  failed 1"
    assert by_hand.read_text() == "by hand"
    by_hand.unlink()
    assert run(whole) == "done 1  up to date 0  failed 0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.tif", "overlays", "segcli.jsonl"]


def test_a_file_that_may_not_have_its_name_takes_none_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made of one source is new together, or as it was; also what says something of it beside it."""
    (tmp_path / "a.tif").write_text("pixels")
    out, old = tmp_path / "out", {"a.png": "old", "a.png.aux.xml": "of old", "overlays/a.png": "old overlay"}
    words = ["first"]

    def work(group: list[tuple[batch.Job, Path]]) -> None:
        for job, _ in group:
            for path in job.files:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(words[0])

    def run(overwrite: bool = False) -> batch.Report:
        jobs = batch.plan([tmp_path / "a.tif"], out, png, False, [batch.Beside("overlays"), batch.Beside("scores")])[1]
        steps = batch.Steps(prepare, all_alike, work, lambda job, _: list(job.files))
        with opened(out, "predict", Options()) as manifest:
            return batch.run(jobs, steps, Console(quiet=True), manifest, overwrite)

    def contents() -> dict[str, str]:
        return {str(path.relative_to(out)): path.read_text() for path in out.rglob("*")
                if path.is_file() and path.name != "segcli.jsonl"}  # fmt: skip

    assert str(run()) == "done 1  up to date 0  failed 0"
    for name, text in old.items():
        (out / name).write_text(text)
    before, words[0] = contents(), "second"
    (out / "scores" / "a.png").unlink()
    (out / "scores" / "a.png").mkdir()
    del before["scores/a.png"]
    report = run(overwrite=True)
    assert (str(report), "scores/a.png: cannot be written" in report.failures[0]) == (
        "done 0  up to date 0  failed 1",
        True,
    )
    assert contents() == before
    (out / "scores" / "a.png").rmdir()
    assert str(run(overwrite=True)) == "done 1  up to date 0  failed 0"
    assert contents() == dict.fromkeys(before.keys() - {"a.png.aux.xml"} | {"scores/a.png"}, "second")
    # Where no file can have a second name, as on some file systems, what is new is there.
    monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(PermissionError(errno.EPERM, "no links")))
    words[0] = "third"
    assert str(run(overwrite=True)) == "done 1  up to date 0  failed 0"
    assert set(contents().values()) == {"third"}


def test_what_ends_a_run_is_told_of_each_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work(group: list[tuple[batch.Job, Path]]) -> None:
        if group[0][0].source.name == "b":
            raise NothingDoneError(group[0][0].source, "no room")

    jobs = [batch.Job(tmp_path / name, tmp_path / "out" / name, (), ()) for name in "abcd"]
    steps = batch.Steps(prepare, lambda _: (0, 1), work, none)
    with pytest.raises(NothingDoneError), opened(tmp_path / "out", "predict", Options()) as manifest:
        batch.run(jobs, steps, Console(as_json=True), manifest)
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1] == "done 1  up to date 0  failed 1  left 2"
    told = [json.loads(line) for line in shown.out.splitlines()]
    assert [Path(one["source"]).name for one in told] == list("abcd")
    assert [one["status"] for one in told] == ["done", "failed", "left", "left"]
    assert "no room" in told[1]["reason"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "segcli.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines if "failed" in line] == ["no room"]
    jobs[1] = batch.Job(tmp_path / "bad", tmp_path / "out" / "bad", (), ())
    with opened(tmp_path / "out", "predict", Options()) as manifest:
        batch.run(jobs, steps, Console(as_json=True), manifest, on_error="stop", overwrite=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["status"] for one in told] == ["done", "failed", "left", "left"]


@pytest.mark.parametrize("moment", ["begin", "name"])
def test_a_folder_that_is_closed_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Nor does a file that may not be replaced; if that of all outputs is closed there is nothing to go on for."""
    jobs = [batch.Job(tmp_path / name, tmp_path / "out" / name / "a.png", (), ()) for name in ("closed", "open")]
    steps = batch.Steps(prepare, all_alike, written("without"), lambda job, _: [job.output])
    replace, access = Path.replace, os.access

    def forbidden(path: Path, target: Path) -> Path:
        if Path(target).parent.name == "closed" and Path(target).parents[1] == tmp_path / "out":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return replace(path, target)

    for job in jobs:
        job.output.parent.mkdir(parents=True)
    if moment == "name":
        monkeypatch.setattr(Path, "replace", forbidden)
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed" and access(path, mode))
    with opened(tmp_path / "out", "predict", Options()) as manifest:
        report = batch.run(jobs, steps, Console(quiet=True), manifest)
    assert str(report) == "done 1  up to date 0  failed 1"
    assert "closed" in report.failures[0]
    assert "cannot be written" in report.failures[0]


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_folder_is_said_before_the_work(tmp_path: Path, kind: str) -> None:
    """As a link to a disk that is not there; the mask of the night before stays, too."""
    job = batch.Job(tmp_path / "a", tmp_path / "a.png", (tmp_path / "overlays" / "a.png",), ())

    def run(content: str) -> batch.Report:
        steps = batch.Steps(prepare, all_alike, written(content), lambda job, _: list(job.files))
        with opened(tmp_path, "predict", Options()) as manifest:
            return batch.run([job], steps, Console(quiet=True), manifest, overwrite=True)

    assert run("earlier").done == 1
    shutil.rmtree(tmp_path / "overlays")
    if kind == "link":
        (tmp_path / "overlays").symlink_to(tmp_path / "gone")
    else:
        (tmp_path / "overlays").write_text("")
    assert "overlays: no folder, or a link that leads to none" in run("later").failures[0]
    assert job.output.read_text() == "earlier"


def test_outputs_on_another_file_system_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a folder for what lies beside masks is a link to another disk."""
    out = tmp_path / "a.png"
    replace = Path.replace

    def elsewhere(path: Path, target: Path) -> Path:
        if path.parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", elsewhere)
    steps = batch.Steps(prepare, all_alike, written("mask"), lambda job, _: [job.output])
    for state in ("done 1  up to date 0", "done 0  up to date 1"):
        with opened(tmp_path, "predict", Options()) as manifest:
            report = batch.run([batch.Job(tmp_path / "a.tif", out, (), ())], steps, Console(quiet=True), manifest)
        assert str(report) == f"{state}  failed 0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.png.aux.xml", "segcli.jsonl"]


def test_an_output_folder_may_have_a_date_for_a_name(tmp_path: Path) -> None:
    touch(tmp_path / "a.tif")
    out = tmp_path / "2024.05.01"
    assert outputs(batch.plan([tmp_path / "a.tif"], out, png, False)[1], out) == {"a.tif": "a.png"}


def test_one_input_goes_where_many_would(tmp_path: Path) -> None:
    """A night with one scan must not fail for the name of the folder; files that people mean have endings of files."""
    for name in "ab":
        touch(tmp_path / f"{name}.tif")
    one, two = [tmp_path / "a.tif"], [tmp_path / "a.tif", tmp_path / "b.tif"]
    out = tmp_path / "night.run"
    assert outputs(batch.plan(one, out, png, False)[1], out) == {"a.tif": "a.png"}
    assert outputs(batch.plan(two, out, png, False)[1], out) == {"a.tif": "a.png", "b.tif": "b.png"}
    for ending in (".jpg", ".gif", ".gpkg", ".npy"):
        with pytest.raises(UsageError, match=f"m{ending}: wrong ending.*name it so"):
            batch.plan(one, tmp_path / f"m{ending}", png, False)
        with pytest.raises(UsageError, match=f"m{ending}: a file; expected a folder"):
            batch.plan(two, tmp_path / f"m{ending}", png, False)
