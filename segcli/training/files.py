"""The files of pairs, opened: single images, or those of stacks, which take long to open, so that some stay at hand."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from segcli.errors import InputError
from segcli.options import Axes
from segcli.raster.images import Images, open_images, stack_text
from segcli.raster.source import Purpose, Source
from segcli.training.pairs import Pair

MOST_IMAGES = 100_000
"""Images of stacks that are kept at hand, all stacks together: what is known of where their pixels are, not these."""


class Files:
    """Opens what belongs to a pair, for as long as a `with` block lasts. Of one stack one thread reads at a time."""

    def __init__(self, axes: Axes | None = None, level: int | None = None, mpp: float | None = None) -> None:
        self.axes, self._level, self._mpp = axes, level, mpp  # of the images
        self._as_they_are = axes is None and level is None and mpp is None
        self._stacks: OrderedDict[tuple[Path, Purpose], _Stack] = OrderedDict()
        self._lock = threading.Lock()

    def images(self, path: Path) -> Images:
        """All images of a file, along the axes and at the level that are learnt from. Close them."""
        return open_images(path, "image", self._level, self._mpp, self.axes)

    def image(self, pair: Pair) -> AbstractContextManager[Source]:
        """The image that is learnt from. InputError, as all here, where it cannot be read."""
        return self.open(pair.image, "image", pair.plane)

    def numbers(self, pair: Pair) -> AbstractContextManager[Source]:
        """The numbers of its objects."""
        assert pair.instances is not None
        return self.open(pair.instances, "mask", pair.plane)

    def open(self, path: Path, purpose: Purpose, plane: int | None) -> AbstractContextManager[Source]:
        """The only image of a file, or one of a stack, counted from 0."""
        if plane is None and (purpose == "mask" or self._as_they_are):
            return Source(path, purpose)
        return self._of_stack(path, purpose, plane or 0)

    @contextmanager
    def _of_stack(self, path: Path, purpose: Purpose, plane: int) -> Iterator[Source]:
        with self.stack(path, purpose) as images:
            if plane >= len(images.planes):
                raise InputError(path, stack_text(images), f"it had image {plane + 1} when it was looked at first")
            source = images.planes[plane]
            try:
                yield source
            finally:
                source.rest()

    @contextmanager
    def stack(self, path: Path, purpose: Purpose) -> Iterator[Images]:
        """All images of a file."""
        with self._lock:
            is_new = (path, purpose) not in self._stacks
            opened = partial(self.images, path) if purpose == "image" else partial(open_images, path, purpose)
            stack = self._stacks.setdefault((path, purpose), _Stack(opened))
            self._stacks.move_to_end((path, purpose))
            # Those that are put out, and those that stay, hold no file open: their images rest.
            while is_new and len(self._stacks) > 1 and sum(one.count for one in self._stacks.values()) > MOST_IMAGES:
                self._stacks.popitem(last=False)
        with stack.lock:
            yield stack.images()


class _Stack:
    """All images of a file, `opened` when the first of them is wanted."""

    def __init__(self, opened: Callable[[], Images]) -> None:
        self.lock = threading.RLock()  # labels and numbers of objects may be one file
        self.count = 0
        self._opened = opened
        self._images: Images | None = None

    def images(self) -> Images:
        """Them, for who has the lock."""
        if self._images is None:
            self._images = self._opened()
            self.count = len(self._images.planes)
        return self._images
