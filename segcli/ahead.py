"""Work done in threads while the caller is busy: what comes next is made `ahead`, what is finished is taken `behind`,
and what takes long is `shared` by several.

Knows nothing of what it carries.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _End:
    """The last thing in the queue: the producer's error, or None where it came to its end."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(
    items: Iterable[Item], depth: int = 2, stopping: Callable[[], None] = lambda: None
) -> Generator[Item, None, None]:
    """Yield `items` in order while a thread makes up to `depth` more. An error of theirs is raised here, in its place.

    When the caller stops early it must close the generator; the thread then ends after the item it is at. That nothing
    more is needed is told to `stopping` first.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(maxsize=depth)
    stopped, ended = threading.Event(), threading.Event()

    def put(item: Item | _End) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put(item):
                    break
        except BaseException as error:  # it is raised again in the caller's thread
            put(_End(error))
        else:
            put(_End(None))
        finally:
            ended.set()

    thread = threading.Thread(target=produce, name="segcli-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            try:
                raise item.error
            finally:
                del item  # or the error would keep itself, by this frame, and all that the caller holds
    finally:
        stopped.set()
        stopping()
        _surely([ended.wait], stopped)
        thread.join()


@contextmanager
def behind(take: Callable[[Item], None], depth: int = 2) -> Iterator[Callable[[Item], None]]:
    """Give a function that hands an item to a thread, which calls `take` on each in order, up to `depth` behind.

    The block ends when all are taken. An error of `take` is raised at the next item or at the end; nothing is taken
    after it, nor after an error in the block.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(maxsize=depth)
    failed: list[BaseException] = []  # raised from here, never by a name: an error keeps the frames that it passes
    stopped, ended = threading.Event(), threading.Event()

    def consume() -> None:
        while not isinstance(item := waiting.get(), _End):
            if not stopped.is_set():
                try:
                    take(item)
                except BaseException as error:  # it is raised again in the caller's thread
                    failed.append(error)
                    stopped.set()
        ended.set()

    def put(item: Item) -> None:
        if failed:
            raise failed.pop()
        waiting.put(item)

    thread = threading.Thread(target=consume, name="segcli-behind", daemon=True)
    thread.start()
    try:
        yield put
    except BaseException:
        stopped.set()
        raise
    finally:
        _surely([partial(waiting.put, _End(None)), ended.wait], stopped)
        thread.join()
    if failed:
        raise failed.pop()


def _surely(steps: list[Callable[[], object]], stopped: threading.Event) -> None:
    """Do what must be done before a file may be closed that a thread uses, and then raise what interrupted it. (To join
    a thread is no such step: one that was interrupted while it was joined counts as ended.)"""
    interrupts: list[BaseException] = []
    while steps:
        try:
            steps[0]()
            del steps[0]
        except BaseException as error:  # Ctrl-C, once more
            stopped.set()
            interrupts = [error]
    if interrupts:
        raise interrupts.pop()


def shared(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, depth: int = 2
) -> Generator[Result, None, None]:
    """What `work` gives for each of the items, in order, by so many threads; each has at most `depth` of them at hand.

    `items` are taken in the caller's thread. An error is raised in its place; what was not begun by then is never done.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, "segcli-shared")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= threads * depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
