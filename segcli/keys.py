"""What tells runs apart whose outputs may differ."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

IDLE = frozenset({
    "inputs", "out", "recursive", "overwrite", "jobs", "memory_bytes", "device", "dry_run", "verify", "on_error",
    "shard", "debug", "weights",
})  # fmt: skip
"""Options that change nothing in an output; weights count by what is in the file."""

Contents = Mapping[Path, str]  # SHA-256 of files
NONE: Contents = MappingProxyType({})

LATER = {"min_pixels": "0", "axes": "None"}
"""Options that earlier versions did not have, with what is as it was without: no reason to do anything again."""


def key_of(verb: str, options: Any, files: Contents = NONE) -> tuple[str, dict[str, Any]]:
    """What tells runs apart whose outputs may differ, and what stands behind it: the options that matter, as text, and
    the SHA-256 of files that serve all inputs, such as weights. Of a path it counts that one is given: what lies there
    is among these files, or among the sources."""
    texts = {name: "given" if isinstance(value, Path) else str(value) for name, value in asdict(options).items()}
    wanted = {name: text for name, text in texts.items() if name not in IDLE and text != LATER.get(name)}
    stated = {"verb": verb, "options": wanted, "files": {str(path): digest for path, digest in files.items()}}
    # A file counts by what is in it, not by where it lies, and in its order: the first weights name the colours.
    by_contents = {**stated, "files": list(files.values())}
    return hashlib.sha256(json.dumps(by_contents, sort_keys=True).encode()).hexdigest()[:16], stated
