"""Ctrl-C, SIGTERM and SIGHUP end a training after the step that it is at; a second one ends it at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


class Interrupt:
    """Which signal has come; None so far."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[signal.Signals(self.signal or signal.SIGINT)]


@contextmanager
def noticed() -> Iterator[Interrupt]:
    """What has come while the block runs. In another thread than the main one signals are left as they are."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    handlers = {number: signal.getsignal(number) for number in EXIT_CODES}
    # nohup lets the terminal go, and a script's & keeps Ctrl-C from what runs behind it.
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    def note(number: int, frame: FrameType | None) -> None:
        interrupt.signal = number
        for known, handler in before.items():  # the next one ends the program
            signal.signal(known, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
