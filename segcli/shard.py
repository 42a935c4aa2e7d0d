"""One of several runs that share the files of one folder. Knows nothing but names."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """The part `number`, from 1, of `count` of a run's files."""

    number: int
    count: int

    def holds(self, name: str) -> bool:
        """Whether a file is in it, by a hash of its name: so each is in one, in whichever order they are listed."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}-of-{self.count}"
