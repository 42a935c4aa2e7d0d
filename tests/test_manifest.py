"""What a second run knows of the first."""

import fcntl
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest

from segcli.batch import Job, due
from segcli.errors import BusyError, InputError, NothingDoneError
from segcli.files import PART, Watched, sha256_of
from segcli.keys import key_of
from segcli.manifest import MANIFEST, Manifest, opened
from segcli.shard import Shard


@dataclass(frozen=True)
class Options:
    width: int = 3
    debug: bool = False


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "scan.png").write_text("pixels")
    return tmp_path / "scan.png"


def write(path: Path, text: str = "mask") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def digests(*paths: Path) -> dict[Path, str]:
    return {path: sha256_of(path) for path in paths}


def again(folder: Path, options: Options = Options(), **more: object) -> Manifest:
    """A second run, as far as it looks."""
    with opened(folder, "predict", options, **more) as manifest:  # type: ignore[arg-type]
        return manifest


def test_what_is_up_to_date_and_what_is_stale(tmp_path: Path, source: Path) -> None:
    out, weights = tmp_path / "out", write(tmp_path / "w", "weights")
    output, beside = write(out / "deep" / "scan.png"), write(out / "confidence" / "scan.tif")
    with opened(out, "predict", Options(), digests(weights)) as manifest:
        assert manifest.why(source, output, [source])
        manifest.add(source, [output, beside], [source])

    def is_up_to_date(
        options: Options = Options(), files: tuple[Path, ...] = (weights,), name: object = source
    ) -> bool:
        return again(out, options, files=digests(*files)).why(name, output, [source]) is None

    assert is_up_to_date()
    assert is_up_to_date(Options(debug=True))  # changes nothing in an output
    assert not is_up_to_date(Options(width=4))
    assert is_up_to_date(name="scan.png")  # in other words
    assert again(out, files=digests(weights)).why("/vsimem/a", output, []) == "new"
    assert is_up_to_date(files=(write(tmp_path / "elsewhere", "weights"),))
    assert not is_up_to_date(files=(write(tmp_path / "elsewhere", "Weights"),))
    os.utime(source, (1, 1))
    assert is_up_to_date()  # the same contents at another time
    source.write_text("Pixels")
    assert not is_up_to_date()
    source.write_text("pixels")
    beside.write_text("changed by hand")
    assert not is_up_to_date()
    beside.unlink()
    assert not is_up_to_date()
    write(beside)
    assert is_up_to_date()
    assert (
        again(out, files=digests(weights)).why(source, output, [source, weights]) == "source changed"
    )  # made of more now


def test_only_what_segcli_wrote_is_replaced(tmp_path: Path, source: Path) -> None:
    ours, theirs = write(tmp_path / "out" / "ours.png"), write(tmp_path / "out" / "theirs.png")
    with opened(tmp_path / "out", "predict", Options()) as manifest:
        manifest.add(source, [ours], [source])
    manifest = again(tmp_path / "out", Options(width=9))
    manifest.guard(ours)
    manifest.guard(tmp_path / "out" / "new.png")
    assert due(Job(source, theirs, made_of=(source,)), manifest, overwrite=True) == "--overwrite"
    with pytest.raises(InputError, match=r"theirs\.png: exists, and segcli did not write it.*--overwrite"):
        manifest.guard(theirs)
    ours.write_text("corrected by hand")
    with pytest.raises(InputError, match=r"ours\.png"):
        manifest.guard(ours)


def test_what_another_source_became_is_kept_while_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, here, there = (
        tmp_path / "out",
        write(tmp_path / "a" / "scan.png", "A"),
        write(tmp_path / "b" / "scan.png", "B"),
    )
    mask = write(out / "scan.png")
    monkeypatch.chdir(tmp_path / "a")
    with opened(out, "predict", Options()) as manifest:
        manifest.add(Path("scan.png"), [mask], [Path("scan.png")])

    def guard(source: Path | str, *sources: Path) -> None:
        again(out, Options(width=9)).guard_another(source, mask, sources)

    guard(here, here)  # by another name
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(InputError, match=r"scan\.png: was made of .*/a/scan\.png.*not of scan\.png.*--overwrite"):
        guard(Path("scan.png"), Path("scan.png"))
    guard(there, write(there, "A"))  # a copy
    here.write_text("other")
    guard(here, here)  # changed
    write(there, "B")
    with pytest.raises(InputError):
        guard("/vsicurl/http://b/scan.png")
    with pytest.raises(InputError):
        guard(f"/vsizip/{there}/scan.png", there)
    mask.write_text("by hand")
    guard(there, there)  # not as segcli wrote it, which `guard` is for
    mask.write_text("mask")
    here.unlink()
    guard(there, there)  # moved, perhaps


def test_sources_without_files_are_told_apart_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """URLs, which may be signed anew each night, and a Zarr, which is a folder."""
    out, zarr = tmp_path / "out", tmp_path / "a" / "scan.zarr"
    masks = [write(out / "1.tif"), write(out / "2.tif")]
    zarr.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with opened(out, "predict", Options()) as manifest:
        manifest.add("https://a/1.tif?id=7&X-Amz-Date=1&X-Amz-Signature=2", masks[:1], [])
        manifest.add(Path("a/scan.zarr"), masks[1:], [])
    manifest = again(out)
    manifest.guard_another("https://a/1.tif?id=7&X-Amz-Date=3&X-Amz-Signature=4", masks[0], [])
    manifest.guard_another("https://a/1.tif?id=7", masks[0], [])
    manifest.guard_another(zarr, masks[1], [])
    local = write(tmp_path / "1.tif")
    for other, mask, files in (
        ("https://b/1.tif?id=7", masks[0], []), ("https://a/1.tif?id=8", masks[0], []), (local, masks[0], [local]),
        (tmp_path / "b" / "scan.zarr", masks[1], []),
    ):  # fmt: skip
        with pytest.raises(InputError, match="was made of"):
            manifest.guard_another(other, mask, files)
    zarr.rmdir()
    manifest.guard_another(tmp_path / "b" / "scan.zarr", masks[1], [])


@pytest.mark.parametrize("is_changed", [False, True])
def test_members_of_an_archive_are_several_sources(tmp_path: Path, is_changed: bool) -> None:
    out, archive = tmp_path / "out", write(tmp_path / "scans.zip")
    mask, names = write(out / "scan.png"), [f"/vsizip/{archive}/{folder}/scan.png" for folder in "ab"]
    with opened(out, "predict", Options()) as manifest:
        manifest.add(names[0], [mask], [archive])
    if is_changed:
        archive.write_text("changed")
    assert again(out).why(names[0], mask, [archive]) == ("source changed" if is_changed else None)
    assert again(out).why(names[1], mask, [archive]) == "new"
    again(out).guard_another(names[0], mask, [archive])
    with pytest.raises(InputError, match=r"was made of /vsizip/.*/a/scan\.png"):
        again(out).guard_another(names[1], mask, [archive])


def test_a_time_tells_nothing_of_another_file(tmp_path: Path) -> None:
    """Files that are unpacked may all have one time, and rasters of one kind have one size."""
    out, files = tmp_path / "out", [write(tmp_path / folder / "1.tif", folder) for folder in "ab"]
    for file in files:
        os.utime(file, (1, 1))
    mask = write(out / "1.tif")
    with opened(out, "predict", Options()) as manifest:
        manifest.add(files[0], [mask], files[:1])
    assert again(out).why(files[0], mask, files[:1]) is None
    assert again(out).why(files[1], mask, files[1:]) == "new"
    with pytest.raises(InputError, match="was made of"):
        again(out).guard_another(files[1], mask, files[1:])
    write(files[1], "a")
    assert again(out).why(files[1], mask, files[1:]) is None  # a copy, by its digest


def test_a_source_by_a_link_or_with_a_new_companion_is_no_other(tmp_path: Path) -> None:
    out, file = tmp_path / "out", write(tmp_path / "data" / "1.tif")
    mask, link, copied = write(out / "1.tif"), tmp_path / "link.tif", write(tmp_path / "copy" / "1.tif")
    link.symlink_to(file)
    with opened(out, "predict", Options()) as manifest:
        manifest.add(link, [mask], [link])
    again(out).guard_another(copied, mask, [copied, write(tmp_path / "copy" / "1.tif.aux.xml")])
    write(file, "changed")
    again(out).guard_another(file, mask, [file])
    write(copied, "other")
    with pytest.raises(InputError):
        again(out).guard_another(copied, mask, [copied])


def test_what_cannot_be_looked_at_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, files = tmp_path / "out", [write(tmp_path / folder / "1.tif", folder) for folder in "ab"]
    mask = write(out / "1.tif")
    with opened(out, "predict", Options()) as manifest:
        manifest.add(files[0], [mask], files[:1])
    stat = os.stat

    def stale(path: object, **more: object) -> os.stat_result:
        if str(path) == str(files[0]):
            raise OSError(116, "Stale file handle")
        return stat(path, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "stat", stale)
    with pytest.raises(InputError, match="was made of"):
        again(out).guard_another(files[1], mask, files[1:])


def test_what_cannot_be_looked_at_is_told_as_missing(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the folder that it is in is closed: --verify and --dry-run have the others to tell of."""
    out = write(tmp_path / "closed" / "a.png")
    with opened(tmp_path, "predict", Options()) as manifest:
        manifest.add(source, [out], [source])
    stat = os.stat

    def forbidden(path: object, **more: object) -> os.stat_result:
        if str(path) == str(out):
            raise PermissionError(13, "Permission denied")
        return stat(path, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "stat", forbidden)
    assert again(tmp_path).why(source, out, [source]) == "output missing"


def test_what_lies_beside_another_s_mask_is_kept_too(tmp_path: Path) -> None:
    """Two sources whose masks end otherwise may share the names of what lies beside them."""
    out, files = tmp_path / "out", [write(tmp_path / folder / "1.tif", folder) for folder in "ab"]
    written = [write(out / "1.tif"), write(out / "probabilities" / "1.tif")]
    with opened(out, "predict", Options()) as manifest:
        manifest.add(files[0], written, files[:1])
    again(out).guard_another(files[0], written[1], files[:1])
    with pytest.raises(InputError, match=r"probabilities/1\.tif: was made of"):
        again(out).guard_another(files[1], written[1], files[1:])


def test_equal_masks_of_two_sources_are_both_s(tmp_path: Path) -> None:
    """Nothing in either: whose line is the newer one does not matter."""
    out, files = tmp_path / "out", [write(tmp_path / folder / "1.tif", folder) for folder in "abc"]
    mask = write(out / "1.tif")
    with opened(out, "predict", Options()) as manifest:
        for file in files[:2]:
            manifest.add(file, [mask], [file])
    for file in files[:2]:
        again(out).guard_another(file, mask, [file])
    with pytest.raises(InputError):
        again(out).guard_another(files[2], mask, files[2:])


def test_what_a_killed_run_left_waiting_is_removed(tmp_path: Path, source: Path) -> None:
    """And nothing else, nor is anything that lies at the names of its outputs taken for its own."""
    out = tmp_path / "out"
    with opened(out, "predict", Options()) as manifest:
        stages = [manifest.stage_of(out / name) for name in ("a.png", "deep/a.png")]
    for stage in stages:
        write(stage / "extra" / f".a.tif{PART}")
        write(stage / "a.png")
    others = [write(out / f".b.png{PART}"), write(out / f"a.png{PART}"), write(out / ".0123456789abcdef" / "a.png")]
    manifest = again(out)
    assert not any(stage.exists() for stage in stages)
    assert all(path.exists() for path in others)
    assert manifest.why(source, out / "a.png", [source]) == "new"
    with pytest.raises(InputError, match="segcli did not write it"):
        again(out).guard(write(out / "a.png", "of somebody else"))


@pytest.mark.parametrize("moment", ["waiting", "recorded", "placed"])
@pytest.mark.parametrize("is_old", [False, True])
def test_a_kill_is_no_licence_to_write_over_what_was_corrected_by_hand(
    tmp_path: Path, source: Path, moment: str, is_old: bool
) -> None:
    """Before the line that says what is made, between this and the move, or after it: what is there is known by what
    is in it, whichever way clocks go, and what was there before is segcli's own still."""
    out = tmp_path / "out"
    mask = out / "a.png"
    if is_old:
        with opened(out, "predict", Options()) as manifest:
            manifest.add(source, [write(mask, "of the first night")], [source])
    with opened(out, "predict", Options(4)) as manifest:
        waiting = write(manifest.stage_of(mask) / "a.png", "of the night of the kill")
        if moment != "waiting":
            manifest.add(source, [waiting], [source])
        if moment == "placed":
            waiting.replace(mask)
            os.utime(mask, (1, 1))
    manifest = again(out, Options(4))
    manifest.guard(mask)
    why = manifest.why(source, mask, [source])
    if moment == "placed":
        assert why is None
    elif moment == "recorded":
        assert why == ("output changed" if is_old else "output missing")
    else:
        assert why == ("--width changed" if is_old else "new")
    write(mask, "corrected by hand, and longer")
    for _ in range(2):
        with pytest.raises(InputError, match=r"segcli (did not write|wrote) it"):
            again(out, Options(4)).guard(mask)


def test_lines_that_nobody_can_have_written_are_passed_over(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    mask = write(out / "a.png")
    lines = ['{"begun": []}', '{"begun": ["a.png"], "at": 1}', '{"source": 1, "key": 1, "outputs": {}, "of": {}}',
             '{"source": 1, "key": "", "outputs": {"a.png": [4, 1, "00"]}, "of": {}}', "null", "1", '{"run": 1}',
             '{"source": "", "key": "", "outputs": [], "of": []}']  # fmt: skip
    (out / MANIFEST).write_text("\n".join(lines))
    manifest = again(out)
    assert manifest.why(source, mask, [source]) == "new"
    with pytest.raises(InputError, match=r"segcli (did not write|wrote) it"):
        manifest.guard(mask)
    manifest.guard_another(source, mask, [source])


def test_a_link_that_leads_nowhere_is_somebody_s(tmp_path: Path) -> None:
    link = tmp_path / "a.png"
    link.symlink_to(tmp_path / "archive" / "a.png")
    with pytest.raises(InputError, match="segcli did not write it"):
        again(tmp_path).guard(link)


@pytest.mark.parametrize("through", ["file", "folder"])
def test_a_link_that_leads_elsewhere_today(tmp_path: Path, through: str) -> None:
    """To another file of the same size and time, as those that are unpacked have."""
    out, link = tmp_path / "out", tmp_path / "latest"
    nights = [write(tmp_path / night / "1.bmp", night) for night in ("mon", "tue")]
    for night in nights:
        os.utime(night, (1, 1))

    def lead_to(night: Path) -> Path:
        link.unlink(missing_ok=True)
        link.symlink_to(night if through == "file" else night.parent)
        return link if through == "file" else link / "1.bmp"

    source = lead_to(nights[0])
    with opened(out, "predict", Options()) as manifest:
        manifest.add(source, [write(out / "1.png")], [source])
    assert again(out).why(source, out / "1.png", [source]) is None
    lead_to(nights[1])
    assert again(out).why(source, out / "1.png", [source]) == "source changed"
    again(out).guard_another(source, out / "1.png", [source])
    lead_to(nights[0])
    assert again(out).why(source, out / "1.png", [source]) is None


def test_what_has_a_new_time_is_read_once(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources and outputs alike: the next run knows the time."""
    out = write(tmp_path / "out" / "a.png")
    with opened(out.parent, "predict", Options()) as manifest:
        manifest.add(source, [out], [source])
    read: list[Path] = []
    for module in ("files", "made"):
        monkeypatch.setattr(f"segcli.{module}.sha256_of", lambda path: read.append(path) or sha256_of(path))
    for touched in (source, out):
        os.utime(touched, (1, 1))
        for _ in range(3):
            with opened(out.parent, "predict", Options()) as manifest:
                assert manifest.why(source, out, [source]) is None
        assert read == [touched]
        read.clear()
    source.write_text("pixelz")
    assert again(out.parent).why(source, out, [source]) == "source changed"


def test_a_folder_that_is_a_source_counts_by_all_that_is_in_it(tmp_path: Path) -> None:
    out, zarr = write(tmp_path / "out" / "a.tif"), tmp_path / "a.zarr"
    chunks = [write(zarr / "zarr.json", "{}"), write(zarr / "c" / "0" / "0", "one"), write(zarr / "c" / "0" / "1")]

    def why() -> str | None:
        return again(out.parent).why(zarr, out, [zarr])

    watched = Watched([zarr])
    with opened(out.parent, "predict", Options()) as manifest:
        manifest.add(zarr, [out], [zarr], watched.check)
    assert why() is None
    os.utime(chunks[1], (1, 1))
    assert why() is None
    write(chunks[1], "two")
    assert why() == "source changed"
    with pytest.raises(InputError, match="changed while it was read"):
        watched.check()
    write(chunks[1], "one")
    assert why() is None
    chunks[2].rename(zarr / "c" / "0" / "2")
    assert why() == "source changed"


def test_a_source_that_goes_while_it_is_read(tmp_path: Path, source: Path) -> None:
    out, watched = write(tmp_path / "out" / "a.png"), Watched([source])
    source.unlink()
    with opened(out.parent, "predict", Options()) as manifest, pytest.raises(InputError, match="changed while it was"):
        manifest.add(source, [out], [source], watched.check)


def test_a_source_that_changes_while_it_is_recorded(tmp_path: Path, source: Path) -> None:
    out = write(tmp_path / "out" / "a.png")
    watched = Watched([source])
    digest = sha256_of

    def change(path: Path) -> str:
        if path == source:
            source.write_text("Pixels")
        return digest(path)

    with opened(out.parent, "predict", Options()) as manifest, pytest.MonkeyPatch.context() as patched:
        patched.setattr("segcli.made.sha256_of", change)
        with pytest.raises(InputError, match="changed while it was read"):
            manifest.add(source, [out], [source], watched.check)
    assert again(out.parent).why(source, out, [source]) == "new"


def test_what_failed_is_no_licence_to_write(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    with opened(out, "predict", Options()) as manifest:
        manifest.fail(source, out / "a.png", "broken")
    record = json.loads((out / MANIFEST).read_text().splitlines()[-1])
    assert {"failed": "a.png", "source": str(source), "reason": "broken"}.items() <= record.items()
    write(out / "a.png", "of somebody else")
    with pytest.raises(InputError, match="segcli did not write it"):
        again(out).guard(out / "a.png")


def test_a_torn_line_and_lines_of_something_else(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    for name in "ab":
        write(out / f"{name}.png")
    with opened(out, "predict", Options()) as manifest:
        manifest.add(source, [out / "a.png"], [source])
        manifest.add(source, [out / "b.png"], [source])
    text = (out / MANIFEST).read_bytes()
    (out / MANIFEST).write_bytes(b"\xff\xfe\n[1]\n{}\n" + text[:-20])
    manifest = again(out)
    manifest.guard(out / "a.png")
    with pytest.raises(InputError):
        manifest.guard(out / "b.png")
    with opened(out, "predict", Options()) as manifest:
        manifest.add(source, [out / "b.png"], [source])
    assert again(out).why(source, out / "b.png", [source]) is None
    assert again(out).why(source, out / "a.png", [source]) is None


def test_the_options_of_each_kind_of_run_are_recorded_once(tmp_path: Path) -> None:
    weights = write(tmp_path / "w", "x")
    for options in (Options(), Options(debug=True), Options(width=4), Options()):
        again(tmp_path / "out", options, files=digests(weights))
    lines = [json.loads(line) for line in (tmp_path / "out" / MANIFEST).read_text().splitlines()]
    assert [line["run"]["options"] for line in lines] == [{"width": "3"}, {"width": "4"}]
    assert lines[0]["key"] == key_of("predict", Options(), digests(weights))[0] != lines[1]["key"]
    assert key_of("tile", Options(), digests(weights))[0] != lines[0]["key"]


def test_two_runs_on_one_folder(tmp_path: Path) -> None:
    with opened(tmp_path, "predict", Options()):
        with pytest.raises(BusyError, match="another run of segcli writes there") as caught:
            again(tmp_path)
        assert caught.value.exit_code == 5
        again(tmp_path, alone=False)  # a single file into a folder where others are written, too
    again(tmp_path)


def test_folders_that_cannot_be_written_or_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "file")
    with pytest.raises(NothingDoneError, match=r"segcli\.jsonl: cannot be opened: "):
        again(tmp_path / "file" / "out")

    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    monkeypatch.setattr(fcntl, "fcntl", unsupported)
    again(tmp_path / "out")


def test_a_source_that_changes_while_it_is_read(tmp_path: Path, source: Path) -> None:
    watched = Watched([source])
    watched.check()
    source.write_text("pixels and more")
    with pytest.raises(InputError, match=r"scan\.png: changed while it was read"):
        watched.check()
    source.unlink()
    with pytest.raises(InputError, match="changed while"):
        watched.check()


def test_a_file_is_one_run_s_at_a_time(tmp_path: Path) -> None:
    """Also of runs that share a folder because each writes a file with a name of its own."""
    a, b = tmp_path / "a.png", tmp_path / "deep" / "b.png"
    with opened(tmp_path, "predict", Options(), alone=False) as one, opened(tmp_path, "predict", Options()) as other:
        with one.alone_with([a, b]):
            for files in ([b], [tmp_path / "c.png", a]):
                with pytest.raises(BusyError, match=r"[ab]\.png: another run of segcli writes it"):
                    other.alone_with(files).__enter__()
            with other.alone_with([tmp_path / "c.png"]):
                pass
        with other.alone_with([a, b]):
            pass


def test_shards_over_a_network_keep_each_other_from_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS makes of flock a lock of all bytes of a file."""

    def flock(file: BinaryIO, kind: int) -> None:
        of_bytes = fcntl.F_RDLCK if kind & fcntl.LOCK_SH else fcntl.F_WRLCK
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi0q", of_bytes, os.SEEK_SET, 0, 0, 0))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        opened(tmp_path, "predict", Options(), shard=Shard(1, 2)) as one,
        opened(tmp_path, "predict", Options(), shard=Shard(2, 2)) as other,
    ):
        with (
            one.alone_with([tmp_path / "a.png"]), other.alone_with([tmp_path / "b.png"]),
            pytest.raises(BusyError, match=r"a\.png: another run of segcli writes it"),
        ):  # fmt: skip
            other.alone_with([tmp_path / "a.png"]).__enter__()
        for more in ({}, {"shard": Shard(1, 2)}, {"shard": Shard(1, 3)}):
            with pytest.raises(BusyError, match="another run of segcli writes there"):
                again(tmp_path, **more)


def test_what_another_run_is_writing_is_no_leftover(tmp_path: Path) -> None:
    with opened(tmp_path, "predict", Options(), alone=False) as one:
        stage, left = (one.stage_of(tmp_path / name) for name in ("a.png", "b.png"))
        left.mkdir()  # by a run that was killed
        with one.alone_with([tmp_path / "a.png", stage]), one.stage(tmp_path / "a.png"):
            again(tmp_path)
            assert (stage.exists(), left.exists()) == (True, False)
        assert not stage.exists()


def test_without_locks_of_bytes_nobody_can_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fcntl, "F_OFD_SETLK", raising=False)
    with (
        opened(tmp_path, "predict", Options(), alone=False) as one, one.alone_with([tmp_path / "a.png"]),
        opened(tmp_path, "predict", Options()) as other, other.alone_with([tmp_path / "a.png"]),
    ):  # fmt: skip
        pass


def test_a_source_is_read_once_however_often_its_output_was_made(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new file of the same size each night, as rasters without compression are."""
    out = write(tmp_path / "out" / "a.png")
    with opened(out.parent, "predict", Options()) as manifest:
        for night in range(5):
            source.write_text(f"pixel{night}")
            manifest.add(source, [out], [source])
    source.write_text("pixels")
    manifest = again(out.parent)
    read: list[Path] = []
    digest = sha256_of
    monkeypatch.setattr("segcli.files.sha256_of", lambda path: read.append(path) or digest(path))
    assert manifest.why(source, out, [source]) == "source changed"
    assert read == [source]
