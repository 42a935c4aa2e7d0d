import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import segcli as package

Program = Callable[..., subprocess.CompletedProcess[str]]


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    for verb in ("", "predict", "train", "eval", "colorize", "tile"):
        script = (
            "import sys; from segcli.cli import app\n"
            f"app({[verb] if verb else []} + ['--help'], standalone_mode=False)\n"
            "heavy = {'torch', 'torchvision', 'cv2', 'rasterio', 'tifffile', 'numpy'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert "--help" in result.stdout


def test_help_shows_an_example_for_each_verb(segcli: Program) -> None:
    for verb in ("predict", "train", "eval", "colorize", "tile"):
        text = segcli(verb, "--help", COLUMNS="200", TERM="dumb").stdout
        assert f"segcli {verb} " in text.partition("Example")[2]  # the line of usage holds it, too


def test_version_and_no_arguments(segcli: Program) -> None:
    assert segcli("--version").stdout == f"segcli {package.__version__}\n"
    result = segcli()
    assert result.returncode == 2
    assert "predict" in result.stdout
    assert "segcli:" not in result.stderr


def test_a_wrong_choice_is_named_with_the_right_ones(segcli: Program) -> None:
    result = segcli("predict", "a.png", "--out", "b.png", "--stitch", "rows")
    assert result.returncode == 2
    assert result.stderr == (
        "segcli: Invalid value for '--stitch': 'rows' is not one of 'auto', 'stream', 'windows'. "
        "(see segcli predict --help)\n"
    )


def test_what_no_file_of_options_may_say_is_told_there(segcli: Program, tmp_path: Path) -> None:
    for text, said in (
        ("debug = true", "debug; expected it as --debug, or SEGCLI_PREDICT_DEBUG=1"),
        ("[predict]\ndebug = true", "debug; expected it as --debug, or SEGCLI_PREDICT_DEBUG=1"),
    ):
        (tmp_path / "night.toml").write_text(text)
        result = segcli("predict", "a.png", "--out", "b.png", "--config", "night.toml")
        assert result.returncode == 2
        assert said in result.stderr


def test_names_end_with_nul_by_a_variable_of_the_name_of_its_option(segcli: Program) -> None:
    result = segcli("predict", "a.png", "--out", "b.png", SEGCLI_PREDICT_NULL="1")
    assert result.returncode == 2
    assert "-0: without -" in result.stderr, result.stderr
