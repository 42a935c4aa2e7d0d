"""What all verbs have in common on the command line, seen from outside."""

import dataclasses
import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from helpers import write_picture
from ready import Ready

from segcli.keys import IDLE
from segcli.manifest import MANIFEST, opened
from segcli.network import checkpoint
from segcli.options import ColorizeOptions, PredictOptions
from segcli.shard import Shard

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Three masks, and between them a file that is none."""
    for name in ("a", "c", "d"):
        write_picture(tmp_path / "masks" / f"{name}.png", np.array([[0, 1, 2]], np.uint8).repeat(9, 0))
    (tmp_path / "masks" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n0000")
    return tmp_path / "masks"


def objects(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_for_each_file(segcli: Program, tmp_path: Path, masks: Path, weights: Path) -> None:
    result = segcli("colorize", "masks", "--out", "out", "--json", "--legend", "file")
    assert result.returncode == 1
    found = objects(result.stdout)
    assert [(one["source"], one["status"]) for one in found] == [
        ("masks/a.png", "done"), ("masks/b.png", "failed"), ("masks/c.png", "done"), ("masks/d.png", "done")
    ]  # fmt: skip
    assert found[0]["outputs"] == ["out/a.png", "out/a.legend.png"]
    assert str(found[1]["reason"]).startswith("masks/b.png: ")
    (masks / "b.png").unlink()
    again = objects(segcli("colorize", "masks", "--out", "out", "--json", "--legend", "file").stdout)
    assert [one["status"] for one in again] == ["up to date"] * 3
    made = objects(segcli("predict", "masks", "--out", "found", "--json", "--weights", weights).stdout)
    assert (made[0]["status"], made[0]["outputs"]) == ("done", ["found/a.png"])
    tiled = objects(segcli("tile", "masks", "--size", "3", "--json").stdout)
    assert [one["status"] for one in tiled] == ["done"] * 3
    tiled = objects(segcli("tile", "masks", "--size", "3", "--out", "tiles", "--json").stdout)
    assert [one["outputs"] for one in tiled] == [["tiles"]] * 3
    *compared, last = objects(segcli("eval", "masks", "masks", "--json").stdout)
    assert last["dataset"]["mean_iou"]["value"] == last["mean_over_images"]["mean_iou"] == 1
    assert [(one["image"], one["status"]) for one in compared] == [("a", "done"), ("c", "done"), ("d", "done")]


def test_failures_are_told_again_at_the_end(segcli: Program, tmp_path: Path, masks: Path) -> None:
    result = segcli("colorize", "masks", "--out", "out")
    assert result.returncode == 1
    first, *_, _, failed, count = result.stderr.splitlines()
    assert first.startswith("segcli: masks/b.png: ")
    assert failed == "failed: " + first.removeprefix("segcli: ")
    assert count == "done 3  up to date 0  failed 1"
    lines = [json.loads(line) for line in (tmp_path / "out" / MANIFEST).read_text().splitlines()]
    assert [line["reason"] for line in lines if "failed" in line] == [failed.removeprefix("failed: masks/b.png: ")]


def test_the_first_failure_may_end_the_run(segcli: Program, tmp_path: Path, masks: Path) -> None:
    result = segcli("colorize", "masks", "--out", "out", "--on-error", "stop", "--jobs", "1")
    assert result.returncode == 1
    done = len([*(tmp_path / "out").glob("*.png")])
    assert result.stderr.splitlines()[-1] == f"done {done}  up to date 0  failed 1  left {3 - done}"
    assert done < 3
    assert segcli("colorize", "masks", "--out", "out").stderr.splitlines()[-1] == (
        f"done {3 - done}  up to date {done}  failed 1"
    )


def test_options_from_a_file_and_the_environment(segcli: Program, tmp_path: Path, masks: Path) -> None:
    """A flag comes before the environment, that before the file, that before what is built in."""
    (masks / "b.png").unlink()
    config = tmp_path / "segcli.toml"
    config.write_text('out = "from_file"\nquiet = true\n[colorize]\nlegend = "file"\nclasses = [1, 2]\n')

    def run(*more: str, **environment: str) -> str:
        result = segcli("colorize", "masks", *more, **environment)
        assert (result.returncode, result.stderr) == (0, "")
        text = (tmp_path / "from_file" / MANIFEST).read_text()
        return str([json.loads(line) for line in text.splitlines() if "run" in line][-1]["run"]["options"])

    assert "'legend': 'file'" in (found := run("--config", "segcli.toml"))
    assert "'classes': \"('1', '2')\"" in found
    assert "'legend': 'none'" in run(SEGCLI_CONFIG="segcli.toml", SEGCLI_COLORIZE_LEGEND="none")
    picture = ("--legend", "picture", "--overwrite")
    assert "'legend': 'picture'" in run(*picture, SEGCLI_CONFIG="segcli.toml", SEGCLI_COLORIZE_LEGEND="none")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lengend = 1", "segcli.toml: lengend: no option; did you mean 'legend'?"),
        ("[colorise]", "segcli.toml: table [colorise]: no verb of segcli; did you mean 'colorize'?"),
        ('[colorize]\nmemory = "1GB"', "[colorize] memory: no option of colorize; did you mean"),
        ("[colorize]\nalpha = 7", "segcli.toml: Invalid value for '--alpha': "),
        ('[colorize]\nlegend = "both"', "segcli.toml: Invalid value for '--legend': "),
        ('[colorize]\nshard = "5/2"', "segcli.toml: --shard: found '5/2'; expected I/N"),
        ("quiet = [0]", "segcli.toml: quiet: [0]; expected true or false"),
        ("= 3", "segcli.toml: no TOML: "),
        ("[colorize]\nconfig = 'other.toml'", "[colorize] config: no option of colorize"),
    ],
)
def test_a_file_of_options_that_is_wrong(segcli: Program, tmp_path: Path, masks: Path, text: str, said: str) -> None:
    (tmp_path / "segcli.toml").write_text(text)
    result = segcli("colorize", "masks", "--out", "out", "--config", "segcli.toml")
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SEGCLI_COLORIZE_ALPHA", "7", "SEGCLI_COLORIZE_ALPHA: Invalid value for '--alpha': "),
        ("SEGCLI_COLORIZE_SHARD", "5/2", "SEGCLI_COLORIZE_SHARD: --shard: found '5/2'; expected I/N"),
        ("SEGCLI_CONFIG", "none.toml", "SEGCLI_CONFIG: --config: none.toml: No such file"),
    ],
)
def test_a_variable_that_is_wrong_is_named(
    segcli: Program, tmp_path: Path, masks: Path, variable: str, value: str, said: str
) -> None:
    """And not where the command line has another value, which counts."""
    result = segcli("colorize", "masks", "--out", "out", **{variable: value})
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert result.stderr.startswith(f"segcli: {said}")
    option = variable.split("_")[-1].lower()
    result = segcli("colorize", "masks", "--out", "out", f"--{option}", value, **{variable: "1/1"})
    assert result.stderr.startswith(f"segcli: {said.split(': ', 1)[1]}")


@pytest.mark.parametrize("text", ["ignore = false", "patience = true", "minutes = true"])
def test_true_is_no_number(segcli: Program, tmp_path: Path, text: str) -> None:
    """Python counts it as 1, and false as 0: the background without a label, say."""
    (tmp_path / "segcli.toml").write_text(f"[train]\n{text}\n")
    result = segcli("train", "data", "--config", "segcli.toml")
    assert result.returncode == 2
    assert f"segcli.toml: {text.replace(' =', ':')}; expected a number or a text; leave it out" in result.stderr


def test_debug_is_asked_for_in_the_environment_too(segcli: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" not in segcli("eval", "none", "none").stderr
    monkeypatch.setenv("SEGCLI_EVAL_DEBUG", "1")
    assert "Traceback" in segcli("eval", "none", "none").stderr


def test_names_with_blanks_in_the_environment(
    segcli: Program, tmp_path: Path, masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blanks part values there; a bar ends with its number."""
    (masks / "b.png").unlink()
    monkeypatch.setenv("SEGCLI_EVAL_MIN_IOU", "class 1=0.5 class 2=0.25")
    assert segcli("eval", "masks", "masks").returncode == 0
    monkeypatch.setenv("SEGCLI_EVAL_MIN_IOU", "class 1=0.5 class 2")
    assert "--min-iou: found 'class'; expected CLASS=VALUE" in segcli("eval", "masks", "masks").stderr
    monkeypatch.delenv("SEGCLI_EVAL_MIN_IOU")
    (tmp_path / "segcli.toml").write_text('[eval]\nmin-iou = "class 1=0.5"\n')
    assert segcli("eval", "masks", "masks", "--config", "segcli.toml").returncode == 0


def test_lists_of_options_and_a_file_that_is_missing(segcli: Program, tmp_path: Path, masks: Path) -> None:
    (masks / "b.png").unlink()
    (tmp_path / "segcli.toml").write_text(
        '[eval]\nmin_iou = ["class 1=0.5", "class 2=0.5"]\n[predict]\nbands = [3, 2]\n'
    )
    assert segcli("eval", "masks", "masks", "--config", "segcli.toml").returncode == 0
    (tmp_path / "segcli.toml").write_text('[eval]\nmin-iou = ["class 9=0.5"]\n')
    result = segcli("eval", "masks", "masks", "--config", "segcli.toml")
    assert (result.returncode, "no class 'class 9'" in result.stderr) == (2, True)
    result = segcli("eval", "masks", "masks", "--config", "none.toml")
    assert (result.returncode, "none.toml: No such file" in result.stderr) == (2, True)


def test_a_log_has_what_quiet_silences(segcli: Program, tmp_path: Path, masks: Path) -> None:
    result = segcli("colorize", "masks", "--out", "out", "--quiet", "--log-file", "night.log")
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    log = (tmp_path / "night.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d ", line) for line in log)
    text = "\n".join(log)
    for part in (
        "colorize masks --out out",
        "failed: masks/b.png",
        "done: out/a.png",
        "done 3  up to date 0  failed 1",
    ):
        assert part in text
    segcli("colorize", "masks", "--out", "out", "--log-file", "night.log")
    assert len((tmp_path / "night.log").read_text().splitlines()) > len(log)
    result = segcli("colorize", "masks", "--out", "out", "--log-file", "no/night.log")
    assert (result.returncode, "--log-file: no/night.log cannot be written: No such file" in result.stderr) == (2, True)


def test_verbose_says_why_a_file_is_done_again(segcli: Program, tmp_path: Path, masks: Path) -> None:
    (masks / "b.png").unlink()
    assert "masks/a.png: new" in segcli("colorize", "masks", "--out", "out", "--verbose").stderr
    write_picture(masks / "a.png", np.ones((9, 9), np.uint8))
    (tmp_path / "out" / "c.png").unlink()
    said = segcli("colorize", "masks", "--out", "out", "-v").stderr
    assert "masks/a.png: source changed" in said
    assert "masks/c.png: output missing" in said
    assert "d.png" not in said
    said = segcli("colorize", "masks", "--out", "out", "-v", "--alpha", "1", "--palette", "tab20").stderr
    assert "d.png: --palette, --alpha changed" in said
    (tmp_path / "p.csv").write_text("index,name,color\n0,a,#000000\n1,b,#ff0000\n2,c,#ffff00\n")
    assert segcli("colorize", "masks", "--out", "of_file", "--palette", "p.csv").returncode == 0
    (tmp_path / "p.csv").write_text("index,name,color\n0,a,#000000\n1,b,#00ff00\n2,c,#ffff00\n")
    result = segcli("colorize", "masks", "--out", "of_file", "--palette", "p.csv", "--verify")
    assert result.stdout.splitlines()[0] == "of_file/a.png: palette changed"


def test_verify_names_what_is_wrong_beside_a_mask(
    segcli: Program, tmp_path: Path, weights: Path, rng: np.random.Generator
) -> None:
    for name in "abcd":
        write_picture(tmp_path / "scans" / f"{name}.png", rng.integers(0, 255, (20, 30, 3), np.uint8))
    command = ("predict", "scans", "--weights", weights, "--out", "out")
    assert segcli(*command, "--overlay").returncode == 0
    overlay = tmp_path / "out" / "overlays" / "a.png"
    overlay.write_bytes(overlay.read_bytes()[:-1])
    (tmp_path / "out" / "overlays" / "b.png").unlink()
    (tmp_path / "out" / "c.png").unlink()
    result = segcli(*command, "--overlay", "--verify")
    assert result.returncode == 1
    changed = "exists, and is not as segcli wrote it; choose another --out or give --overwrite"
    assert result.stdout.splitlines() == [
        f"out/a.png: out/overlays/a.png: {changed}",
        "out/b.png: overlays/b.png missing", "out/c.png: output missing"
    ]  # fmt: skip
    said = segcli(*command, "--tta", "--verify").stdout.splitlines()
    assert said[3] == "out/d.png: --overlay, --tta changed"
    other = checkpoint.load(weights)
    other.network.head.bias += 1
    checkpoint.save(other, tmp_path / "other.safetensors")
    command = ("predict", "scans", "--weights", "other.safetensors", "--out", "out")
    assert segcli(*command, "--overlay", "--verify").stdout.splitlines()[3] == "out/d.png: weights changed"


@pytest.mark.parametrize(("verb", "options"), [("predict", PredictOptions), ("colorize", ColorizeOptions)])
def test_what_has_changed_is_called_as_on_the_command_line(segcli: Program, verb: str, options: type) -> None:
    text = segcli(verb, "--help", COLUMNS="200").stdout
    for field in dataclasses.fields(options):
        assert field.name in IDLE or f"--{field.name.replace('_', '-')}" in text, field.name


@pytest.mark.parametrize("verb", ["predict", "colorize"])
def test_a_plan_changes_nothing(segcli: Program, tmp_path: Path, masks: Path, weights: Path, verb: str) -> None:
    more = ("--weights", weights) if verb == "predict" else ()
    result = segcli(verb, "masks", "--out", "out", "--dry-run", *more)
    assert result.returncode == 1
    assert not (tmp_path / "out").exists()
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"out/a\.png: new, 0\.00 Mpx, about \d+\.\d s, \d+ MB", lines[0])
    assert "masks/b.png" in result.stderr
    assert result.stderr.splitlines()[-1] == "to do 3  up to date 0  would fail 1"
    assert segcli(verb, "masks/a.png", "--out", "out", *more).returncode == 0
    (tmp_path / "out" / "c.png").write_bytes(b"mine")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    result = segcli(verb, "masks", "--out", "out", "--dry-run", "--json", *more)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [(one["status"], one.get("why")) for one in objects(result.stdout)] == [
        ("up to date", None), ("would fail", None), ("would fail", None), ("to do", "new")
    ]  # fmt: skip
    assert "out/c.png: exists, and segcli did not write it" in result.stderr


def test_parts_of_a_run_share_a_folder(segcli: Program, ready: Ready, tmp_path: Path) -> None:
    for n in range(20):
        write_picture(tmp_path / "masks" / f"{n}.png", np.full((3, 3), n, np.uint8))
    arguments = ("colorize", "masks", "--out", "out", "--legend", "file")
    result = segcli(*arguments, "--verify")
    assert (result.returncode, result.stderr) == (1, "up to date 0  missing or stale 20\n")
    assert not (tmp_path / "out").exists()
    running = [
        ready.popen((*arguments, "--shard", f"{n}/3"), tmp_path, stdout=subprocess.PIPE, text=True) for n in (1, 2, 3)
    ]
    done = [process.communicate()[0].split() for process in running]
    assert [process.returncode for process in running] == [0] * 3
    assert all(done)
    assert sorted(chain(*done)) == sorted(f"out/{n}.png" for n in range(20))
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jsonl")) == [
        "segcli.1-of-3.jsonl", "segcli.2-of-3.jsonl", "segcli.3-of-3.jsonl", "segcli.jsonl"
    ]  # fmt: skip
    assert segcli(*arguments, "--verify").returncode == 0
    assert segcli(*arguments).stderr.splitlines()[-1] == "done 0  up to date 20  failed 0"
    assert segcli(*arguments, "--shard", "2/5").stdout == ""
    (tmp_path / "out" / "7.png").unlink()
    result = segcli(*arguments, "--verify")
    assert (result.returncode, result.stdout) == (1, "out/7.png: output missing\n")
    for text in ("0/3", "4/3", "3", "a/b"):
        assert segcli(*arguments, "--shard", text).returncode == 2


def test_who_may_write_beside_whom(tmp_path: Path, segcli: Program, masks: Path) -> None:
    """The parts of one run may; no other two runs."""
    arguments = ("colorize", "masks/a.png", "masks/c.png", "masks/d.png", "--out", "out")
    options = ColorizeOptions((), tmp_path / "out")
    with opened(tmp_path / "out", "colorize", options, shard=Shard(1, 2)):
        assert segcli(*arguments).returncode == 5
        assert segcli(*arguments, "--shard", "1/2").returncode == 5
        assert segcli(*arguments, "--shard", "1/3").returncode == 5
        assert segcli(*arguments, "--shard", "2/2").returncode == 0
    with opened(tmp_path / "out", "colorize", options):
        assert segcli(*arguments, "--shard", "2/2").returncode == 5
    assert segcli(*arguments, "--shard", "1/3").returncode == 0


@pytest.mark.parametrize("verb", ["colorize", "predict"])
def test_files_of_one_name_from_two_folders(
    tmp_path: Path, segcli: Program, masks: Path, weights: Path, verb: str
) -> None:
    """Of two sites one after the other into one folder, the second must not take the first one's place."""
    (masks / "b.png").unlink()
    for n, name in enumerate("ce"):
        write_picture(tmp_path / "other" / f"{name}.png", np.full((9, 4 + n), 200, np.uint8))
    more = ["--weights", weights] if verb == "predict" else []
    assert segcli(verb, "masks", "--out", "out", *more).returncode == 0
    before = (tmp_path / "out" / "c.png").read_bytes()
    planned = segcli(verb, "other", "--out", "out", "--dry-run", *more)
    result = segcli(verb, "other", "--out", "out", *more)
    for found in (planned, result):
        assert found.returncode == 1
        assert re.search(r"out/c\.png: was made of .*masks/c\.png; not of other/c\.png.*--overwrite", found.stderr)
    assert "done 1" in result.stderr
    assert "failed 1" in result.stderr
    assert (tmp_path / "out" / "c.png").read_bytes() == before
    looked = segcli(verb, "other", "--out", "out", "--verify", *more)
    assert looked.returncode == 1
    assert "out/c.png: was made of" in looked.stdout
    assert segcli(verb, "other", "--out", "out", "--overwrite", *more).returncode == 0
    assert (tmp_path / "out" / "c.png").read_bytes() != before


def test_names_in_a_record_stay_in_the_folder(tmp_path: Path, segcli: Program, masks: Path) -> None:
    """A record that came with the data is no order to touch files elsewhere."""
    victim = tmp_path / "victim.png"
    victim.write_bytes(b"mine")
    part = tmp_path / ".victim.png.segcli-part"
    part.write_bytes(b"mine, too")
    (tmp_path / "out").mkdir()
    names = ["../victim.png", str(victim), "a/../../victim.png"]
    lines = [{"begun": [name]} for name in names] + [
        {"source": "masks/a.png", "key": "x", "outputs": {name: [4, 0, ""]}, "of": {}} for name in names
    ]
    deep = "[" * 100_000
    (tmp_path / "out" / MANIFEST).write_text("\n".join([*map(json.dumps, lines), deep, ""]))
    (masks / "b.png").unlink()
    assert segcli("colorize", "masks", "--out", "out").returncode == 0
    assert (victim.read_bytes(), part.read_bytes()) == (b"mine", b"mine, too")


def on_a_terminal(ready: Ready, folder: Path, *arguments: object, **environment: str) -> tuple[str, int]:
    """What the program writes to a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", **environment}
    process = ready.popen(arguments, folder, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    said = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            found = os.read(ours, 4096)
        except OSError:  # as Linux says that the other side is closed
            break
        if not found:
            break
        said += found
    os.close(ours)
    return said.decode(), process.wait()


def test_a_terminal_has_a_bar_in_colours_unless_told_otherwise(tmp_path: Path, masks: Path, ready: Ready) -> None:
    colors = re.compile(r"\x1b\[[\d;]*3[\d;]*m")
    said, code = on_a_terminal(ready, tmp_path, "colorize", "masks", "--out", "one")
    assert (code, bool(colors.search(said)), "━" in said) == (1, True, True)
    said, code = on_a_terminal(ready, tmp_path, "colorize", "masks", "--out", "two", NO_COLOR="1")
    assert (code, bool(colors.search(said)), "━" in said) == (1, False, True)
    said, code = on_a_terminal(ready, tmp_path, "colorize", "masks", "--out", "three", "--quiet")
    assert (code, said.count("\n"), "━" in said) == (1, 1, False)


def test_names_on_a_terminal_are_text(tmp_path: Path, ready: Ready) -> None:
    """In a pipe they are what they are."""
    write_picture(tmp_path / "masks" / "b\x1b[31m\n.png", np.ones((9, 9), np.uint8))
    said, code = on_a_terminal(ready, tmp_path, "colorize", "masks", "--out", "one", TERM="dumb")
    assert (code, "one/b\\x1b[31m\\n.png" in said, "b\x1b[31m" in said) == (0, True, False)


@pytest.mark.parametrize("verb", ["predict", "eval", "colorize", "tile"])
def test_no_more_threads_than_systems_have(segcli: Program, tmp_path: Path, masks: Path, verb: str) -> None:
    more = {"eval": ("masks",), "colorize": ("--out", "out"), "predict": ("--out", "out")}.get(verb, ())
    result = segcli(verb, "masks", *more, "--jobs", 10**17)
    assert (result.returncode, "1024" in result.stderr) == (2, True), result.stderr


@pytest.mark.parametrize("verb", ["predict", "eval", "colorize", "tile", "train"])
def test_help_has_examples_and_a_shell_can_complete(segcli: Program, verb: str) -> None:
    text = segcli(verb, "--help", COLUMNS="100").stdout
    assert f"segcli {verb} " in text.partition("Example")[2]
    for option in ("--config", "--log-file", "--verbose", "--quiet", "--json"):
        assert option in text
    asked = {"_SEGCLI_COMPLETE": "complete_bash", "COMP_WORDS": f"segcli {verb} --verb", "COMP_CWORD": "2"}
    script = Path(sys.executable).parent / "segcli"
    result = subprocess.run([script], env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["--verbose"]


def test_what_lies_beside_masks_is_no_mask(segcli: Program, tmp_path: Path, weights: Path) -> None:
    """Overlays and scores in the folders of predict, for eval and colorize of all below it."""
    for name in ("a/one.png", "two.png"):
        write_picture(tmp_path / "scans" / name, np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    more = ("--overlay", "--probabilities", "--confidence", "--recursive")
    assert segcli("predict", "scans", "--out", "masks", "--weights", weights, *more).returncode == 0
    assert len(list((tmp_path / "masks").rglob("*.*"))) > 6
    for name in ("a/one.png", "two.png"):
        (tmp_path / "truth" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "truth" / name).write_bytes((tmp_path / "masks" / name).read_bytes())
    compared = segcli("eval", "masks", "truth", "--recursive", "--min-miou", "1")
    assert compared.returncode == 0, compared.stderr
    assert segcli("predict", "scans", "--out", "other", "--weights", weights, *more).returncode == 0
    assert segcli("eval", "masks", "other", "--recursive", "--min-miou", "1").returncode == 0
    (tmp_path / "other" / "overlays" / "two.png").write_bytes((tmp_path / "masks" / "two.png").read_bytes())
    assert segcli("eval", "masks", "other", "--recursive").returncode == 2  # that one is no file of segcli's now
    drawn = segcli("colorize", "masks", "--out", "drawn", "--recursive")
    assert drawn.returncode == 0, drawn.stderr
    assert "done 2 " in drawn.stderr


@pytest.mark.parametrize("arguments", [("eval", "masks", "masks", "--out", "report"), ("train", "data", "--check"),
                                       ("tile", "a.png", "--dry-run")], ids=lambda given: given[0])  # fmt: skip
def test_tables_that_nobody_reads_end_a_run_as_anything_else(
    tmp_path: Path, ready: Ready, arguments: tuple[str, ...]
) -> None:
    """With 141, as in a pipe to head: 1 would say that some inputs failed."""
    for n in range(4):
        for kind in ("masks", "data/images", "data/masks"):
            values = np.random.default_rng(n).integers(0, 200 if kind == "data/images" else 2, (32, 32), np.uint8)
            write_picture(tmp_path / kind / f"{n}.png", values)
    write_picture(tmp_path / "a.png", np.zeros((32, 32), np.uint8))
    reads, writes = os.pipe()
    os.close(reads)
    with open(os.devnull, "wb") as nowhere, os.fdopen(writes, "wb") as pipe:  # noqa: PTH123
        assert ready.start(arguments, tmp_path, pipe.fileno(), nowhere.fileno()).wait() == 141
    assert arguments[0] != "eval" or (tmp_path / "report" / "report.json").exists()
