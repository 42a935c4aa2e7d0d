"""Row operators that let rows wait in queues: branches whose delays differ, for each other; a crop, for the end."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from segcli.network.operators import Scratch, Strip, Window, fill, put, whole


@dataclass
class Join:
    """Two or more branches that meet: a queue before each, because their delays differ; what all have is given.

    `function` gets the rows of each branch as the pieces that they came in. At the end of the image the late branch
    catches up with what the early one has kept waiting; that is given in strips no higher than those that came, so
    that the end takes no more memory than the middle.
    """

    function: Callable[[list[list[Tensor]]], Tensor]
    branches: int
    _queues: list[list[Tensor]] = field(default_factory=list)
    _limit: int = 1
    _begun: bool = False

    def __post_init__(self) -> None:
        self._queues = [[] for _ in range(self.branches)]

    def push(self, inputs: list[Strip], last: bool) -> Strip:
        pieces = self.take(inputs, last)
        return self.function(pieces) if pieces else None

    def take(self, inputs: list[Strip], last: bool) -> list[list[Tensor]]:
        """Take the next rows of each branch; give those of each that all have, which leave the queues."""
        for queue, rows in zip(self._queues, inputs, strict=True):
            if rows is not None:
                queue.append(rows)
                if not last or not self._begun:
                    self._limit = max(self._limit, rows.shape[2])
        self._begun = True
        waiting = [sum(part.shape[2] for part in queue) for queue in self._queues]
        count = min(min(waiting), self._limit)
        if last and count == 0 < max(waiting):
            raise ValueError(f"branches end after different numbers of rows: {waiting} are left")
        return [_take(queue, count) for queue in self._queues] if count else []

    def held(self) -> list[Tensor]:
        return [part for queue in self._queues for part in queue]

    def unfinished(self) -> bool:
        return any(self._queues)


@dataclass
class JoinedWindow:
    """A concatenation and the window that alone reads it: its pieces go straight into the window's block."""

    join: Join
    window: Window

    def push(self, inputs: list[Strip], last: bool) -> Strip:
        pieces = self.join.take(inputs, last)
        at_end = last and not self.join.unfinished()
        return self.window.compute(self.window.block(pieces, at_end), at_end)

    def held(self) -> list[Tensor]:
        return self.join.held() + self.window.held()

    def unfinished(self) -> bool:
        return self.join.unfinished()


@dataclass
class Trim:
    """An image less `pixels` of it on each side: the last rows wait until it is known whether more follow."""

    pixels: int
    _queue: list[Tensor] = field(default_factory=list)
    _cut: int = 0  # rows at the top that are gone

    def push(self, inputs: list[Strip], last: bool) -> Strip:
        if inputs[0] is not None:
            self._queue.append(inputs[0])
        waiting = sum(rows.shape[2] for rows in self._queue)
        above = min(self.pixels - self._cut, waiting)
        _take(self._queue, above)
        self._cut += above
        count = waiting - above - self.pixels
        return whole(_take(self._queue, count))[..., self.pixels : -self.pixels] if count > 0 else None

    def held(self) -> list[Tensor]:
        return self._queue

    def unfinished(self) -> bool:
        return False


def concatenate(branches: list[list[Tensor]]) -> Tensor:
    """Channels of all branches one after the other."""
    rows, channels = sum(piece.shape[2] for piece in branches[0]), sum(pieces[0].shape[1] for pieces in branches)
    joined = Scratch().block(branches[0][0], channels, rows)
    fill(joined, branches, put)
    return joined


def _take(queue: list[Tensor], count: int) -> list[Tensor]:
    """The first `count` rows of a queue, which loses them, in pieces."""
    pieces, missing = [], count
    while missing:
        rows = queue[0].shape[2]
        if rows <= missing:
            pieces.append(queue.pop(0))
        else:
            pieces.append(queue[0][:, :, :missing])
            queue[0] = queue[0][:, :, missing:]
        missing -= min(rows, missing)
    return pieces
