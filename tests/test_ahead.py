import _thread
import contextlib
import gc
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from segcli.ahead import ahead, behind, shared


def are_alone() -> bool:
    """Whether no thread is left of those that segcli started; the last of one's life is not ours to see."""
    deadline = time.monotonic() + 5
    while (others := _thread._count() > BEFORE) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not others


BEFORE = _thread._count()


def test_order_and_overlap() -> None:
    seen: list[int] = []

    def items() -> Iterator[int]:
        for n in range(10):
            seen.append(n)
            yield n

    stream = ahead(items(), depth=3)
    assert next(stream) == 0
    deadline = time.monotonic() + 10
    while len(seen) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 4 <= len(seen) <= 6  # works ahead, but no further than its depth
    assert list(stream) == list(range(1, 10))


def test_an_error_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    stream = ahead(items())
    assert next(stream) == 1
    with pytest.raises(OSError, match="gone"):
        next(stream)


def test_the_thread_ends_when_the_caller_stops() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 0

    stream = ahead(endless())
    next(stream)
    stream.close()
    assert are_alone()


def test_behind_takes_all_in_order_before_the_block_ends() -> None:
    taken: list[int] = []

    def take(item: int) -> None:
        time.sleep(0.001)
        taken.append(item)

    with behind(take) as put:
        for n in range(20):
            put(n)
    assert taken == list(range(20))


def test_behind_gives_its_error_and_takes_nothing_more() -> None:
    taken: list[int] = []

    def take(item: int) -> None:
        if item == 3:
            raise OSError("disk full")
        taken.append(item)

    with pytest.raises(OSError, match="disk full"), behind(take) as put:
        for n in range(100):
            put(n)
    assert taken == [0, 1, 2]
    with pytest.raises(KeyError), behind(taken.append) as put:
        raise KeyError
    assert are_alone()


class Held:
    """Something large that a frame holds."""


@pytest.mark.parametrize("where", ["ahead", "behind, at an item", "behind, at the end", "behind, the block"])
def test_an_error_that_is_dealt_with_keeps_nothing(where: str) -> None:
    """It goes at once, with all that the frames on its way held, not when the collector comes by: that is memory."""
    held: list[weakref.ref[Held]] = []

    def large() -> Held:
        made = Held()
        held.append(weakref.ref(made))
        return made

    def take(item: int) -> None:
        kept = large()
        raise OSError(f"{kept} is lost")

    def items() -> Iterator[int]:
        kept = large()
        yield 1
        raise OSError(f"{kept} is lost")

    def work() -> None:
        kept = large()
        if where == "ahead":
            list(ahead(items()))
        elif where == "behind, the block":
            with behind(lambda _: None):
                raise OSError(f"{kept} is lost")
        else:
            with behind(take) as put:
                put(1)
                while where == "behind, at an item":
                    put(1)

    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(OSError):
            work()
        assert len(held) >= 1
        assert not [one for one in held if one() is not None]
    finally:
        gc.enable()


def test_shared_work_comes_back_in_order_and_is_not_begun_too_early() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for n in range(40):
            taken.append(n)
            yield n

    results = shared(lambda n: n * n, items(), 3)
    for n, result in enumerate(results):
        assert result == n * n
        assert len(taken) <= n + 3 * 2 + 1
    assert len(taken) == 40


def test_an_error_in_shared_work_ends_it() -> None:
    done: list[int] = []

    def work(n: int) -> int:
        if n == 5:
            raise KeyError(n)
        done.append(n)
        return n

    with pytest.raises(KeyError):
        list(shared(work, range(1000), 2))
    assert len(done) < 12


@pytest.mark.parametrize("where", ["ahead", "behind"])
def test_an_interrupt_while_a_thread_is_waited_for_waits_on(where: str) -> None:
    """The thread is in a file that the caller is about to close."""
    ended: list[int] = []

    def slowly(item: int = 0) -> int:
        time.sleep(0.6)
        ended.append(item)
        return item

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
            if where == "ahead":
                for _ in ahead(slowly(n) for n in range(100)):
                    pass
            else:
                with behind(slowly) as put:
                    for n in range(100):
                        put(n)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert are_alone()
    assert len(ended) < 5


@pytest.mark.parametrize("way", ["ahead and behind", "shared"])
def test_an_interrupt_between_any_two_steps_ends_it(way: str) -> None:
    """A lock that is left held shows as a program that never ends; hence another process."""
    script = Path(__file__).with_name("interrupted.py")
    ended = subprocess.run([sys.executable, script, way], timeout=120, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    moments, left, lost = map(int, ended.stdout.split())
    assert moments > 50
    assert (left, lost) == (0, 0)
