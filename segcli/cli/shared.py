"""What several commands share: options, each declared once, and how a run ends."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

INTERRUPTED, BROKEN_PIPE, TERMINATED = 130, 141, 143  # as shells count the signals

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that segcli did not write, too.")]
Nul = Annotated[
    bool, typer.Option("-0", "--null", help="Names on standard input (-) end with NUL, as find -print0 has them.")
]
Recursive = Annotated[bool, typer.Option("--recursive", help="Folders below the folders, too.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]


def end_with(run: Callable[[], int]) -> NoReturn:
    """Run a verb and end with its exit code."""
    signal.signal(signal.SIGTERM, _end)
    try:
        code = run()
    except BrokenPipeError:  # here, because typer would make exit code 1 of it
        # The reader of our stdout has what it wanted (head, for one); Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    raise typer.Exit(code)


def _end(*_: object) -> NoReturn:
    """Unwind, so that what is half written goes and what is finished stays, and end as a shell expects."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise SystemExit(TERMINATED)
