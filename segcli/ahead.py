"""Work done in threads while the caller is busy: what comes next is made `ahead`, what is finished is taken `behind`,
and what takes long is `shared` by several.

Knows nothing of what it carries. Ctrl-C raises in the caller's thread between any two steps of what runs there. Where
these are steps of Python's own threading (queue.Queue, Event, Future, even Thread.start), a lock stays held, or the
other thread is never told, and both wait for ever. So queues and threads here are those written in C, whose steps are
done or not, and what is to be seen from both sides is a plain name.
"""

from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Flag:
    """Set once something is so, and seen by all threads."""

    def __init__(self) -> None:
        self.is_set = False

    def set(self) -> None:
        self.is_set = True


def ahead(
    items: Iterable[Item], depth: int = 2, stopping: Callable[[], None] = lambda: None
) -> Generator[Item, None, None]:
    """Yield `items` in order while a thread makes up to `depth` more. An error of theirs is raised here, in its place.

    When the caller stops early it must close the generator; the thread then ends after the item it is at. That nothing
    more is needed is told to `stopping` first.
    """
    made: SimpleQueue[Item | _End] = SimpleQueue()
    room = _room(depth)
    stopped = False

    def produce() -> None:
        try:
            for item in items:
                room.get()
                if stopped:
                    break
                made.put(item)
        except BaseException as error:  # it is raised again in the caller's thread
            made.put(_End(error))
        else:
            made.put(_End(None))

    thread = _Thread(produce)
    interrupts: list[BaseException] = []
    try:
        thread.start()
        while not isinstance(item := made.get(), _End):
            room.put(None)
            yield item
        if item.error is not None:
            try:
                raise item.error
            finally:
                del item  # or the error would keep itself, by this frame, and all that the caller holds
    finally:
        stopped = True
        while thread.runs:
            try:
                room.put(None)
                stopping()
                thread.wait()
            except BaseException as error:  # Ctrl-C, once more; the thread may be in a file that is to be closed
                interrupts = [error]
        if interrupts:
            raise interrupts.pop()


@contextmanager
def behind(take: Callable[[Item], None], depth: int = 2) -> Iterator[Callable[[Item], None]]:
    """Give a function that hands an item to a thread, which calls `take` on each in order, up to `depth` behind.

    The block ends when all are taken. An error of `take` is raised at the next item or at the end; nothing is taken
    after it, nor after an error in the block.
    """
    waiting: SimpleQueue[Item | _End] = SimpleQueue()
    room = _room(depth)
    stopped = False
    failed: list[BaseException] = []  # raised from here, never by a name: an error keeps the frames that it passes

    def consume() -> None:
        nonlocal stopped
        while not isinstance(item := waiting.get(), _End):
            room.put(None)
            if not stopped:
                try:
                    take(item)
                except BaseException as error:  # it is raised again in the caller's thread
                    failed.append(error)
                    stopped = True

    def put(item: Item) -> None:
        if failed:
            raise failed.pop()
        room.get()
        waiting.put(item)

    thread = _Thread(consume)
    interrupts: list[BaseException] = []
    try:
        thread.start()
        yield put
    except BaseException:
        stopped = True
        raise
    finally:
        while thread.runs:
            try:
                waiting.put(_End(None))
                thread.wait()
            except BaseException as error:  # Ctrl-C, once more; the thread may be in a file that is to be closed
                stopped = True
                interrupts = [error]
        if interrupts:
            raise interrupts.pop()
    if failed:
        raise failed.pop()


def shared(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    depth: int = 2,
    stopping: Callable[[], None] = lambda: None,
) -> Generator[Result, None, None]:
    """What `work` gives for each of the items, in order, by so many threads; each has at most `depth` of them at hand.

    `items` are taken in the caller's thread. An error is raised in its place; what was not begun by then is never done,
    and what was is told to end by `stopping`.
    """
    tasks: SimpleQueue[_Task[Item, Result] | _End] = SimpleQueue()
    stopped = False

    def serve() -> None:
        while not isinstance(task := tasks.get(), _End) and not stopped:
            try:
                task.answer.put(work(task.item))
            except BaseException as error:  # it is raised again in the caller's thread
                task.answer.put(_End(error))
            del task  # what waits here keeps nothing

    waiting: deque[_Task[Item, Result]] = deque()
    pool = [_Thread(serve) for _ in range(threads)]
    interrupts: list[BaseException] = []
    try:
        for thread in pool:
            thread.start()
        for item in items:
            waiting.append(_Task(item))
            tasks.put(waiting[-1])
            if len(waiting) >= threads * depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BaseException:
        stopping()
        raise
    finally:
        stopped = True
        while pool:
            try:
                if pool[-1].runs:
                    for _ in pool:
                        tasks.put(_End(None))
                    pool[-1].wait()
                else:
                    pool.pop()
            except BaseException as error:  # Ctrl-C, once more
                interrupts = [error]
        if interrupts:
            raise interrupts.pop()


class _End:
    """The last thing in a queue: an error, or None where all has come to its end."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Task(Generic[Item, Result]):
    """An item that is to be worked on, and where its result will come."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.answer: SimpleQueue[Result | _End] = SimpleQueue()

    def result(self) -> Result:
        """The result, once it is there; raises what the work did."""
        answer = self.answer.get()
        if not isinstance(answer, _End):
            return answer
        assert answer.error is not None
        try:
            raise answer.error
        finally:
            del answer  # or the error would keep itself


class _Thread:
    """A thread that may be waited for again after Ctrl-C has come in between. `runs` from its start to its end."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.runs = False
        self._run = run
        self._told: SimpleQueue[None] = SimpleQueue()

    def start(self) -> None:
        def whole() -> None:
            try:
                self._run()
            finally:
                self.runs = False
                self._told.put(None)

        self.runs = True  # nothing can come between this and the start
        try:
            start_new_thread(whole, ())
        except RuntimeError:  # the system gives no more
            self.runs = False
            raise

    def wait(self) -> None:
        """Until it has ended."""
        while self.runs:
            with suppress(Empty):  # what was told may have gone with an interrupt
                self._told.get(timeout=1)


def _room(depth: int) -> "SimpleQueue[None]":
    """A token for each item that may wait in a queue."""
    room: SimpleQueue[None] = SimpleQueue()
    for _ in range(depth):
        room.put(None)
    return room
