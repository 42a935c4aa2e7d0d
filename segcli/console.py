"""What people see: results on stdout; messages and progress on stderr. The only user of rich."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from segcli.errors import SegcliError, one_line

INTERVAL_S = 10.0
"""Between two lines of progress where stderr is no terminal."""


class Console:
    """Messages, results and the closing line of one run."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def say(self, text: str) -> None:
        """A message for people, unless --quiet."""
        if not self.quiet:
            print(one_line(text), file=sys.stderr, flush=True)

    def fail(self, error: SegcliError) -> None:
        """One error on one line; --quiet does not silence it."""
        print(f"segcli: {error}", file=sys.stderr, flush=True)

    def result(self, path: Path) -> None:
        """The path of a finished file, for the next program in the pipe."""
        if not self.quiet:
            print(path, flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table on stdout, unless --quiet; the first column is names, the others are figures."""
        if self.quiet:
            return
        from rich.console import Console as RichConsole
        from rich.table import Table

        table = Table(title=title, title_justify="left")
        for number, column in enumerate(columns):
            table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        # In a pipe rich would fold at 80 columns; a table is no wider than its cells.
        RichConsole(file=sys.stdout, width=None if sys.stdout.isatty() else 1000, markup=False).print(table)

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

    def advance(self, share: float, pixels: int) -> None:
        """`share` of an image, `pixels` of it, are done."""
        self.images += share
        self.megapixels += pixels / 1e6
        self.show()

    def state(self) -> tuple[float, float]:
        """What `restore` goes back to when an image has to be begun again."""
        return self.images, self.megapixels

    def restore(self, state: tuple[float, float]) -> None:
        """Forget what was counted since `state`."""
        self.images, self.megapixels = state

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
        if now - self.shown >= INTERVAL_S:
            self.shown = now
            left = (now - self.began) * (self.total - self.images) / max(self.images, 1e-9)
            print(
                f"{self.images:.1f} of {self.total} images  {self.speed()}  {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )


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
        self._bar.update(self._task, completed=self.images, description=self.speed())
