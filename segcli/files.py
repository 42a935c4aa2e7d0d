"""Files that appear whole or not at all, and what identifies their contents. Knows no formats."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".segcli-part"
"""What the name of an unfinished file ends with; a run removes such leftovers of the outputs that it writes."""


def part_of(path: Path) -> Path:
    """Where a file is written until it is whole: hidden, beside its final place, so that the move is atomic."""
    return path.with_name(f".{path.name}{PART}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; move it to `path` when the block ends well, remove it when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    part.unlink(missing_ok=True)
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
