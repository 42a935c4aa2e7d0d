"""What several commands share: options, each declared once, and how a run ends."""

import codecs
import faulthandler
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from segcli.cli.checks import check_empty, check_log, tell_unknown_variables
from segcli.cli.config import read_config
from segcli.errors import UsageError, tell
from segcli.options import OnError

INTERRUPTED, BROKEN_PIPE = 130, 141  # as shells count the signals
ENDED_BY = {129: "SIGHUP", 143: "SIGTERM"}

DEAF_SECONDS = 30
"""So long after a signal a run is ended that is still in a file: a network drive that is gone gives nothing back."""

MOST_JOBS = 1024
"""Threads or processes that may be asked for: systems end programs that start many more."""

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Do every file again, and replace what segcli did not write.")
]
Null = Annotated[
    bool, typer.Option("-0", "--null", help="Names on standard input (-) end with NUL, as find -print0 has them.")
]
PageAxes = Annotated[
    str | None,
    typer.Option(
        "--axes",
        metavar="AXES",
        help="What pages of image stacks are, slowest first: T, Z, C (bands), such as C, TZ, ZC3. (Default: as files "
        "or weights say.)",
    ),
]
Level = Annotated[int | None, typer.Option(min=0, help="Level of a pyramid or slide; 0 is the whole size.")]
Mpp = Annotated[float | None, typer.Option(min=1e-6, help="The level with about so many micrometres a pixel.")]
Recursive = Annotated[bool, typer.Option("--recursive", help="Folders below the folders, too.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more: how each file is done, and why one is done again.")
]
Json = Annotated[bool, typer.Option("--json", help="A JSON object for each file on stdout, in place of its path.")]
LogFile = Annotated[
    Path | None, typer.Option("--log-file", help="Append all messages to this file, too, with the time.")
]
ShardText = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Do the I-th of N parts of the files; N such runs may share one folder."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, and about how long it takes.")]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify", help="Only list what is missing or stale; exit code 1 if anything is. Give the options of the run."
    ),
]
StopAt = Annotated[OnError, typer.Option("--on-error", help="skip: name a bad file, do the others. stop: end there.")]
Config = Annotated[
    Path | None,
    typer.Option(
        help="Options from a TOML file, by their long names; those of the command line come first, then "
        "SEGCLI_VERB_OPTION in the environment.",
        is_eager=True, callback=read_config, envvar="SEGCLI_CONFIG",
    ),
]  # fmt: skip
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]


def given(context: typer.Context) -> frozenset[str]:
    """The options that were said, on the command line, in the environment or in a file, even what they are anyway."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name != "DEFAULT")


def between_colons(context: typer.Context, parameter: typer.CallbackParam, value: list[str] | None) -> list[str] | None:
    """For an option that may be repeated: its variable in the environment holds names with : between them, as PATH
    does; by itself it would be cut at spaces."""
    source = context.get_parameter_source(str(parameter.name))
    if source is None or source.name != "ENVIRONMENT":
        return value
    names = [name for name in str(parameter.resolve_envvar_value(context)).split(os.pathsep) if name]
    if not names:
        raise UsageError(parameter.opts[0], "no name between its colons", "expected names")
    return names


class Verb(TyperCommand):
    """A command that says where an option comes from which is refused, if not from the command line, and looks at what
    no option alone can tell."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell completes what is there so far
            return super().parse_args(ctx, args)
        with self._naming(ctx):
            said, _, _ = self.make_parser(ctx).parse_args(list(args))  # as it stands there: later an empty path is .
            check_empty(self.params, said)
            rest = super().parse_args(ctx, args)
            check_log(ctx.params.get("log_file"), ctx.params)
        if not ctx.params.get("quiet"):
            tell_unknown_variables(str(self.name), ctx.parent.command.commands)
        return rest

    def invoke(self, ctx: Any) -> Any:
        with self._naming(ctx):
            return super().invoke(ctx)

    @contextmanager
    def _naming(self, ctx: Any) -> Iterator[None]:
        try:
            yield
        except UsageError as error:
            parameter = next((one for one in self.params if error.subject in one.opts), None)
            raise UsageError(origin(ctx, parameter) + error.subject, error.reason) from error


def origin(context: Any, parameter: Any) -> str:
    """Where an option's value comes from, if not from the command line: "FILE: " or "SEGCLI_VERB_OPTION: "."""
    source = context.get_parameter_source(parameter.name) if context is not None and parameter is not None else None
    if source is not None and source.name == "DEFAULT_MAP":
        return f"{context.params['config']}: "
    if source is not None and source.name == "ENVIRONMENT":
        return f"{parameter.envvar or f'{context.auto_envvar_prefix}_{parameter.name}'.upper()}: "
    return ""


def wants_debug() -> bool:
    """Whether tracebacks are asked for, on the command line or in the environment, before anything is parsed."""
    verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    said = os.environ.get(f"SEGCLI_{verb.upper()}_DEBUG", "")
    return "--debug" in sys.argv or said.lower() in ("1", "true", "yes", "on", "t", "y")


def end_with(run: Callable[[], int]) -> NoReturn:
    """Run a verb and end with its exit code."""
    signal.signal(signal.SIGTERM, _end)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, _end)
    hears_interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not what a script puts behind it
    if hears_interrupts:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        code = run()
    except BrokenPipeError:  # here, because typer would make exit code 1 of it
        # The reader of our stdout has what it wanted (head, for one); Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    finally:
        signal.alarm(0)
        if hears_interrupts:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    raise typer.Exit(code)


def open_missing_streams() -> None:
    """Where the shell has closed a stream (2>&-), one that takes everything and gives nothing; else what is opened next
    would have its number. Names of files go to stdout as the system has them, whatever the bytes mean and whatever
    PYTHONIOENCODING can say."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # by their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123
    codecs.register_error("segcli", _as_file_system)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="segcli")


def _as_file_system(error: UnicodeError) -> tuple[str | bytes, int]:
    """What an encoding lacks, as bytes of a name; what is no name as Python would escape it."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    try:
        return os.fsencode(text), error.end
    except UnicodeEncodeError:
        return ascii(text)[1:-1], error.end


def hush_libraries() -> None:
    """Send what C libraries write to stderr nowhere, and keep it for segcli's own lines.

    libtiff and GDAL tell of a full disk or a broken file a dozen times, in words of their own, in threads where nobody
    can stop them; each fault is an exception, too, which is one line. What kills the program is still said.
    """
    ours = os.dup(sys.stderr.fileno())
    sys.stderr = os.fdopen(ours, "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1)
    faulthandler.enable(sys.stderr)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def lack_of_memory(error: BaseException) -> str | None:
    """What to say where the system gave no memory; None where that is not what went wrong."""
    found = str(error)
    if not isinstance(error, MemoryError) and not re.search(NO_MEMORY, found, re.IGNORECASE):
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    remedy = "free some, or take a machine with more"
    if limit != resource.RLIM_INFINITY:
        remedy = f"ulimit -v allows {limit >> 20} MiB of addresses, of which PyTorch takes several thousand: raise it"
    return f"out of memory ({found or type(error).__name__}); {remedy}"


NO_MEMORY = "failed to map segment|cannot allocate memory|can't allocate memory|bad_alloc"
"""How the loader of libraries, the system and C++ put it."""


def _end(number: int, _frame: object) -> NoReturn:
    """Unwind, so that what is half written goes and what is finished stays, and end as a shell expects."""
    for other in (signal.SIGTERM, signal.SIGHUP):  # once is enough
        signal.signal(other, signal.SIG_IGN)
    _end_in_time(128 + number)
    raise SystemExit(128 + number)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    _end_in_time(INTERRUPTED)
    raise KeyboardInterrupt


def _end_in_time(code: int) -> None:
    """End the process if it has not ended by itself; the next run removes what was half written."""

    def give_up(_number: int, _frame: object) -> NoReturn:
        tell(f"segcli: did not end by itself within {DEAF_SECONDS} s")
        os._exit(code)

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(DEAF_SECONDS)
