"""What people see: results on stdout; messages and progress on stderr. The only user of rich."""

import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Lock
from time import monotonic
from types import TracebackType
from typing import Self, TextIO

import segcli
from segcli.errors import NothingDoneError, SegcliError, UsageError, one_line, tell

ALIKE = 3
"""Of remarks that say the same of one file after the other so many are shown."""

INTERVAL_S = 10.0
"""Between two lines of progress where stderr is no terminal."""


@contextmanager
def _heard() -> Iterator[None]:
    """What is written to stdout. Where it takes no more the run ends: the next program missed what was made."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has what it wanted, which is no fault
        raise
    except OSError as error:
        raise NothingDoneError("standard output", f"{error.strerror}; files that are done stay") from error


class _Drawn(io.StringIO):
    """Text for a stream of an encoding, by which rich chooses what it draws lines of."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


class Console:
    """Messages, results and the closing line of one run. What is said also goes to `log_file`, with the time, whatever
    is silenced here; UsageError where it cannot be written."""

    def __init__(
        self, quiet: bool = False, as_json: bool = False, verbose: bool = False, log_file: Path | None = None
    ) -> None:
        self.quiet, self.as_json, self.verbose = quiet, as_json, verbose
        self._remarks: dict[str, int] = {}
        self._counting = Lock()
        self._log: TextIO | None = None
        if log_file is not None:
            try:
                self._log = log_file.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
            except OSError as error:
                raise UsageError("--log-file", f"{log_file} cannot be written: {error.strerror}") from error
            self.note(f"segcli {segcli.__version__}: {' '.join(sys.argv[1:])}")

    def note(self, text: str) -> None:
        """A line of the log file alone."""
        if self._log is None:
            return
        try:
            self._log.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {one_line(text)}\n")
        except OSError as error:  # a full disk: the work is worth more than its log
            self._log = None
            self.say(f"--log-file: {error.strerror}; it is not continued")

    def say(self, text: str) -> None:
        """A message for people, unless --quiet."""
        self.note(text)
        if not self.quiet:
            tell(one_line(text))

    def remark(self, text: str) -> None:
        """A message on one of many files, which it begins with. Of those that say the same a few are shown, all with
        --verbose; `count_remarks` says how many more there were."""
        if self.quiet:
            self.note(text)
            return
        with self._counting:
            kind = text.partition(": ")[2]
            self._remarks[kind] = self._remarks.get(kind, 0) + 1
            is_shown = self.verbose or self._remarks[kind] <= ALIKE
        if is_shown:
            self.say(text)
        else:
            self.note(text)

    def count_remarks(self) -> None:
        """How many remarks were left out, of each kind, since it was asked last."""
        for kind, count in self._remarks.items():
            if count > ALIKE and not self.verbose:
                more = count - ALIKE
                self.say(f"{more} more file{'s' * (more != 1)}: {kind}")
        self._remarks.clear()

    def detail(self, text: str) -> None:
        """A message for people who want to know more: --verbose."""
        self.note(text)
        if self.verbose and not self.quiet:
            tell(one_line(text))

    def fail(self, error: SegcliError) -> None:
        """One error on one line; --quiet does not silence it."""
        self.note(f"failed: {error}")
        tell(f"segcli: {error}")

    def result(self, path: Path) -> None:
        """The path of a finished file, for the next program in the pipe."""
        self.note(f"done: {path}")
        if not self.quiet and not self.as_json:
            with _heard():
                print(one_line(str(path)) if sys.stdout.isatty() else path)

    def answer(self, text: str) -> None:
        """A line that was asked for, on stdout."""
        self.note(text)
        if not self.quiet and not self.as_json:
            with _heard():
                print(one_line(text))

    def record(self, fields: Mapping[str, object]) -> None:
        """One JSON object on a line of stdout, where --json asks for it."""
        if self.as_json:
            with _heard():
                print(json.dumps(fields))

    @contextmanager
    def growing_table(self, columns: Sequence[str]) -> Iterator[Callable[[Sequence[str], str], None]]:
        """A table on stderr that takes rows while work goes on, each with a word on what is left; lines elsewhere."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda row, left: self.say(
                "  ".join(f"{name} {cell}" for name, cell in zip(columns, row, strict=True)) + f"  {left}"
            )
            return
        from rich.console import Console as RichConsole
        from rich.live import Live
        from rich.table import Table

        table = Table()
        for column in columns:
            table.add_column(column, justify="right")
        with Live(
            table, console=RichConsole(stderr=True, markup=False), auto_refresh=False, vertical_overflow="visible"
        ) as live:

            def add(row: Sequence[str], left: str) -> None:
                table.add_row(*row)
                table.caption = left
                live.refresh()

            yield add

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], is_result: bool = True) -> None:
        """A table on stdout, or on stderr where it is no result, unless --quiet; the first column is names."""
        if self.quiet or (self.as_json and is_result):
            return
        stream = sys.stdout if is_result else sys.stderr
        from rich.console import Console as RichConsole
        from rich.table import Table

        table = Table(title=title, title_justify="left")
        for number, column in enumerate(columns):
            table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(one_line, row))  # names come from files of others
        # In a pipe rich would fold at 80 columns; a table is no wider than its cells.
        is_shown, drawn = stream.isatty(), _Drawn(stream.encoding)
        rich = RichConsole(
            file=drawn, width=None if is_shown else 1000, force_terminal=is_shown, markup=False, emoji=False
        )
        rich.print(table)  # not to the stream: where nobody reads any more rich would end the program, with 1
        if not is_result:
            tell(drawn.getvalue().rstrip("\n"))
            return
        with _heard():
            print(drawn.getvalue(), end="")

    @contextmanager
    def progress(self, total: int) -> Iterator["Progress"]:
        """Progress over `total` images: a bar on a terminal, a line every ten seconds elsewhere."""
        if self.quiet:
            yield Progress(total)
        elif sys.stderr.isatty():
            with BarProgress(total) as bar:
                yield bar
        else:
            yield LineProgress(total)


class Progress:
    """Counts images and pixels; shows nothing."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.images = 0.0
        self.megapixels = 0.0
        self.began = monotonic()
        self._lock = Lock()

    def advance(self, share: float, pixels: int) -> None:
        """`share` of an image, `pixels` of it, are done; any thread may say so."""
        with self._lock:
            self.images += share
            self.megapixels += pixels / 1e6
            self.show()

    def state(self) -> tuple[float, float]:
        """What `restore` goes back to when an image has to be begun again."""
        return self.images, self.megapixels

    def restore(self, state: tuple[float, float]) -> None:
        """Forget what was counted since `state`."""
        self.images, self.megapixels = state

    def leave_out(self) -> None:
        """One of the images is not to be done, or no more."""
        with self._lock:
            self.total -= 1
            self.show()

    def show(self) -> None:
        """Nothing here; the classes below draw."""

    def speed(self) -> str:
        """Megapixels per second since the start."""
        return f"{self.megapixels / max(monotonic() - self.began, 1e-9):.2f} Mpx/s"


class LineProgress(Progress):
    """A plain line every ten seconds."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.shown = self.began

    def show(self) -> None:
        now = monotonic()
        if now - self.shown >= INTERVAL_S and self.images > 0:  # before that nobody knows what is left
            self.shown = now
            images = min(self.images, self.total)  # one that failed half-way is counted as far as it came
            left = (now - self.began) * (self.total - images) / self.images
            tell(f"{images:.1f} of {self.total} images  {self.speed()}  {left:.0f} s left")


class BarProgress(Progress):
    """rich's bar."""

    def __init__(self, total: int) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        super().__init__(total)
        self._bar = RichProgress(
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} images  {task.description}"),
            TimeRemainingColumn(),
            console=RichConsole(stderr=True),
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self) -> None:
        self._bar.update(self._task, completed=min(self.images, self.total), total=self.total, description=self.speed())
