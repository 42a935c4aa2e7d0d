"""Every failure that a user can cause or mend, each with the exit code that the program ends with.

    SegcliError          the base; never raised itself
    |-- UsageError       2  an option or a configuration is wrong; nothing was started
    |-- NothingDoneError 3  nothing could be done: no inputs, weights unreadable, output folder not writable
    |-- BusyError        5  another run holds the output folder
    `-- InputError       1  one input cannot be processed; the others are done all the same

A message is one line: what it is about, what was found, what was expected, what to do.
"""

import os
import sys
from collections.abc import Sequence


class SegcliError(Exception):
    """`subject: found; expected; remedy`, on one line, and the exit code of the program."""

    exit_code = 1

    def __init__(self, subject: object, found: str, expected: str = "", remedy: str = "") -> None:
        self.subject = str(subject)
        # Libraries end what they say with a full stop.
        self.reason = "; ".join(part.removesuffix(".") for part in (found, expected, remedy) if part)
        super().__init__(one_line(f"{self.subject}: {self.reason}" if self.subject else self.reason))

    def __reduce__(self) -> tuple[type["SegcliError"], tuple[str, str]]:
        return type(self), (self.subject, self.reason)  # so that it comes back whole from another process


class UsageError(SegcliError):
    exit_code = 2


class NothingDoneError(SegcliError):
    exit_code = 3


class BusyError(SegcliError):
    exit_code = 5


class InputError(SegcliError):
    exit_code = 1


def one_line(text: str) -> str:
    """Text with control characters escaped, so that a file name with a newline cannot fake a second message."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def some(names: Sequence[object], shown: int = 5) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(str, names[:shown])) + more


def tell(line: str) -> None:
    """A line on stderr; where it takes no more, as a full disk, the work is worth more than what is said of it."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        # Or Python would try again to write what is waiting, at the end, and change the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
