"""Row operators that let rows wait in queues: branches whose delays differ, for each other; a crop, for the end."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from segcli.network.operators import Strip, Window, copied, fill, put, whole


@dataclass
class Shelf:
    """Where the rows of a queue wait: blocks that are used again, and stay where they are, so that they leave no holes
    between what comes and goes."""

    _blocks: list[Tensor] = field(default_factory=list)

    def spare(self, queue: list[Tensor]) -> Strip:
        """A block with no rows of the queue; where there are more, they are given up."""
        used = {piece.untyped_storage().data_ptr() for piece in queue}
        spare = [block for block in self._blocks if block.untyped_storage().data_ptr() not in used]
        for block in spare[1:]:
            self._drop(block)
        return spare[0] if spare else None

    def put(self, rows: Tensor, spare: Strip) -> Tensor:
        """The rows, copied to the spare block if they fit, else to a new one that takes its place."""
        if rows.device.type != "cpu":
            return rows  # a GPU's allocator keeps blocks by their sizes
        block = copied(rows, spare)
        if block is not spare:
            self._drop(spare)
            self._blocks.append(block)
        return block

    def _drop(self, block: Strip) -> None:
        self._blocks = [known for known in self._blocks if known is not block]

    def held(self) -> list[Tensor]:
        return self._blocks


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
    _shelves: list[Shelf] = field(default_factory=list)
    _highest: list[int] = field(default_factory=list)
    _fresh: list[int] = field(default_factory=list)  # how many of the last rows of each queue are new
    _stay: list[bool] = field(default_factory=list)  # whether the new ones all stayed, the last time

    def __post_init__(self) -> None:
        self._queues = [[] for _ in range(self.branches)]
        self._shelves = [Shelf() for _ in range(self.branches)]
        self._highest = [0] * self.branches
        self._fresh = [0] * self.branches
        self._stay = [False] * self.branches

    def wait(self, branch: int, rows: Strip) -> None:
        """Take the next rows of a branch; those that will not be needed at once go to the shelf."""
        if rows is None:
            return
        queue, shelf = self._queues[branch], self._shelves[branch]
        self._highest[branch] = max(self._highest[branch], rows.shape[2])
        self._fresh[branch] = rows.shape[2]
        queue.append(shelf.put(rows, shelf.spare(queue)) if self._stay[branch] else rows)

    def push(self, inputs: list[Strip], last: bool) -> Strip:
        pieces = self.take(inputs, last)
        return self.function(pieces) if pieces else None

    def take(self, inputs: list[Strip], last: bool) -> list[list[Tensor]]:
        """Take the next rows of each branch; give those of each that all have, which leave the queues."""
        for branch, rows in enumerate(inputs):
            self.wait(branch, rows)
        waiting = [sum(part.shape[2] for part in queue) for queue in self._queues]
        count = min(*waiting, *self._highest)
        if last and count == 0 < max(waiting):
            raise ValueError(f"branches end after different numbers of rows: {waiting} are left")
        spares = [shelf.spare(queue) for shelf, queue in zip(self._shelves, self._queues, strict=True)]
        taken = [_take(queue, count) for queue in self._queues] if count else []
        for branch, (queue, shelf, spare) in enumerate(zip(self._queues, self._shelves, spares, strict=True)):
            if not self._fresh[branch]:
                continue
            if queue and not self._stay[branch]:  # of the new ones some are left, and on no shelf yet
                queue[-1] = shelf.put(queue[-1], spare)
            self._stay[branch] = bool(queue) and queue[-1].shape[2] == self._fresh[branch]
            self._fresh[branch] = 0
        return taken

    def held(self) -> list[Tensor]:
        return [part for queue in self._queues for part in queue] + [b for shelf in self._shelves for b in shelf.held()]

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
        block = self.window.block(pieces, at_end)
        inputs.clear()
        del pieces  # before the output takes as much
        return self.window.compute(block, at_end)

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
    images, _, _, width = branches[0][0].shape
    joined = branches[0][0].new_empty((images, rows, width, channels)).permute(0, 3, 1, 2)
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
