"""Work done in a thread while the caller is busy with what came before. Knows nothing of what it carries."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class _End:
    """The last thing in the queue: the producer's error, or None where it came to its end."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Yield `items` in order while a thread makes up to `depth` more. An error of theirs is raised here, in its place.

    When the caller stops early (closes the generator, or fails), the thread ends after the item it is at.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: Item | _End) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        error = None
        try:
            for item in items:
                if not put(item):
                    break
        except BaseException as caught:  # it is raised again in the caller's thread
            error = caught
        put(_End(error))

    thread = threading.Thread(target=produce, name="segcli-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        thread.join()
