"""Ctrl-C at every moment at which Python may raise it, one after the other, while threads work: how many these are,
after how many a thread is left, and how many are lost. What hangs is ended after ten seconds, with a traceback.

Python looks for signals when a function begins, when a call has returned, and at the end of each round of a loop.
"""

import _thread
import dis
import faulthandler
import sys
import time
from contextlib import closing
from functools import cache
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any

from segcli.ahead import ahead, behind, shared

LOOKS = {"RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}
FILES = ("ahead.py", "threading.py", "queue.py", "_base.py", "thread.py", "contextlib.py")


@cache
def steps(code: CodeType) -> dict[int, str]:
    """The instruction before that at each place."""
    found = list(dis.get_instructions(code))
    return {second.offset: first.opname for first, second in pairwise(found)}


class Interrupt:
    """A trace function that raises KeyboardInterrupt at one moment, counted from 0."""

    def __init__(self, moment: int) -> None:
        self.left = moment
        self.came = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> "Interrupt | None":
        if not frame.f_code.co_filename.endswith(FILES):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and not self.came and steps(frame.f_code).get(frame.f_lasti) in LOOKS:
            self.left -= 1
            if self.left < 0:
                self.came = True
                raise KeyboardInterrupt
        return self


def both() -> None:
    taken: list[int] = []
    with closing(ahead(iter(range(3)), depth=1)) as made, behind(taken.append, depth=1) as put:
        for item in made:
            put(item)
    assert taken == [0, 1, 2]


def several() -> None:
    with closing(shared(lambda n: n * n, range(5), 2, depth=1)) as made:
        assert list(made) == [0, 1, 4, 9, 16]


def is_alone(before: int) -> bool:
    deadline = time.monotonic() + 2
    while (others := _thread._count() > before) and time.monotonic() < deadline:
        time.sleep(0.001)
    return not others


def main(way: str) -> None:
    work = both if way == "ahead and behind" else several
    moment = left = lost = 0
    while True:
        faulthandler.dump_traceback_later(10, exit=True)
        interrupt, before = Interrupt(moment), _thread._count()
        sys.settrace(interrupt)
        try:
            work()
            lost += interrupt.came
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        left += not is_alone(before)
        if not interrupt.came:
            break
        moment += 1
    faulthandler.cancel_dump_traceback_later()
    print(moment, left, lost)


if __name__ == "__main__":
    main(sys.argv[1])
