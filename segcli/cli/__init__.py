"""The command line: five thin commands. The only user of typer. Imports a verb inside its command, so help is quick."""

import gc
import sys
from typing import Annotated, NoReturn

import typer

import segcli
from segcli.cli.colorize import colorize
from segcli.cli.evaluate import evaluate
from segcli.cli.predict import predict
from segcli.cli.shared import (
    ENDED_BY,
    INTERRUPTED,
    Verb,
    hush_libraries,
    lack_of_memory,
    open_missing_streams,
    origin,
    wants_debug,
)
from segcli.cli.tile import tile
from segcli.cli.train import train
from segcli.errors import SegcliError, one_line, tell

app = typer.Typer(
    name="segcli",
    help="Label every pixel of large satellite and medical images with a PyTorch U-Net.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # SEGCLI_PREDICT_MEMORY=2GB is predict's --memory.
    context_settings={"help_option_names": ["--help", "-h"], "auto_envvar_prefix": "SEGCLI"},
)


@app.callback(invoke_without_command=True)
def common(version: Annotated[bool, typer.Option("--version", help="Show the version and end.")] = False) -> None:
    if version:
        print(f"segcli {segcli.__version__}")
        raise typer.Exit


app.command(cls=Verb, epilog="Example: segcli predict scans/ --out masks/ --weights runs/mine/best.safetensors")(
    predict
)
app.command(cls=Verb, name="eval", epilog="Example: segcli eval masks/ truth/ --out report/ --min-miou 0.8")(evaluate)
app.command(cls=Verb, epilog="Example: segcli colorize masks/ --out pictures/ --over scans/ --legend picture")(colorize)
app.command(cls=Verb, epilog="Example: segcli train data/ --out runs/first --epochs 30")(train)
app.command(
    cls=Verb,
    epilog="Examples: segcli tile scene.tif --masks labels.tif --split 0.8/0.1/0.1; "
    "segcli tile scene_tiles/ --join --out again.tif",
)(tile)


def program() -> NoReturn:
    """The program as the shell starts it."""
    open_missing_streams()
    if wants_debug():
        main()  # which ends here
    hush_libraries()
    try:
        main()
    finally:
        gc.freeze()  # or Python searches torch's half a million objects before it ends, for 0.4 s or so


def main() -> NoReturn:
    """The command line: every failure becomes one line on stderr and an exit code."""
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # typer makes an exit code of Ctrl-C
            _failed("interrupted", code)
        sys.stdout.flush()
    except SegcliError as error:
        code = _failed(str(error), error.exit_code)
    except typer.TyperException as error:  # wrong usage
        # Without arguments typer shows the help and has no message.
        message = error.format_message().replace("Value error, ", "")  # the name of a Python exception
        source = origin(getattr(error, "ctx", None), getattr(error, "param", None))
        context = getattr(error, "ctx", None)
        command = "segcli" if context is None or context.parent is None else f"segcli {context.info_name}"
        code = _failed(f"{source}{message} (see {command} --help)", error.exit_code) if message else error.exit_code
    except SystemExit as ended:
        code = ended.code
        if code in ENDED_BY:
            _failed(f"ended by {ENDED_BY[code]}", code)
    except (KeyboardInterrupt, typer.Abort):
        code = _failed("interrupted", INTERRUPTED)
    except Exception as error:  # a fault of ours: one line, too, and never exit code 0
        fault = f"{type(error).__name__}: {error}; this is a fault in segcli; --debug shows where"
        code = _failed(lack_of_memory(error) or fault, 3)
    sys.exit(code or 0)


def _failed(text: str, code: int) -> int:
    if wants_debug():
        import traceback

        traceback.print_exc()
    tell(f"segcli: {one_line(text)}")
    return code
