"""Damaged files of every kind: each reader reads them, or refuses them in one line, in bounded memory and time.

Real files are cut, flipped, overwritten and shuffled, and read in another process (`fuzz_reader.py`), because what is
looked for may end it. SEGCLI_FUZZ_SECONDS=3600 looks longer, SEGCLI_FUZZ_SEED=1 elsewhere; what fails is kept in the
temporary folder of the test, and named.
"""

import json
import os
import random
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fuzz_seeds import Seed, seeds

SECONDS, LEAST = float(os.environ.get("SEGCLI_FUZZ_SECONDS", "8")), 8
FIRST = int(os.environ.get("SEGCLI_FUZZ_SEED", "0"))
PATIENCE_S = 20.0
"""For one file."""

SHOWN = 20


@dataclass
class Reading:
    """The process that reads, which is begun again when it has ended."""

    folder: Path
    process: Any = None
    heard: int = field(default=0)
    """Bytes that libraries have printed."""

    @property
    def noise(self) -> Path:
        return self.folder / "noise.txt"

    def ask(self, reader: str, path: Path) -> dict[str, str]:
        """Its answer; or a `fault`, where it has ended, or has not answered in time."""
        if self.process is None:
            self._begin()
        self.process.stdin.write(json.dumps({"reader": reader, "path": str(path)}) + "\n")
        self.process.stdin.flush()
        answer = self._line(PATIENCE_S)
        if answer is None:
            code = self.process.poll()
            self.end()
            why = f"no answer in {PATIENCE_S:g} s" if code is None else f"the process ended with {code}"
            return {"fault": why, "where": self.printed()}
        return answer

    def printed(self) -> str:
        """What libraries have printed since this was asked last."""
        with self.noise.open("rb") as file:
            file.seek(self.heard)
            text = file.read()
        self.heard += len(text)
        return text.decode(errors="replace")

    def _begin(self) -> None:
        with self.noise.open("ab") as noise:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("fuzz_reader.py"))], text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=noise, cwd=self.folder,
            )  # fmt: skip
        assert self._line(120) is not None, self.printed()

    def _line(self, seconds: float) -> dict[str, str] | None:
        """None where there is none."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        text = self.process.stdout.readline() if ready else ""
        if ready and not text:
            self.process.wait()
        return json.loads(text) if text else None

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture
def reading(tmp_path: Path) -> Iterator[Reading]:
    found = Reading(tmp_path)
    yield found
    found.end()


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The bytes after one to four accidents, most of them near the beginning or the end, where headers are."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        if not found:
            break
        span = min(len(found), chance.choice((16, 256, 4096, len(found))))
        at = chance.randrange(span) if chance.random() < 0.8 else len(found) - 1 - chance.randrange(span)
        size = min(len(found) - at, chance.choice((1, 1, 2, 4, 8, 64, 1024)))
        other = chance.randrange(len(found))
        match chance.randrange(8):
            case 0:
                del found[at:]
            case 1:
                found[at] ^= 1 << chance.randrange(8)
            case 2:
                found[at : at + size] = bytes(size)
            case 3:
                found[at : at + size] = b"\xff" * size
            case 4:
                found[at : at + size] = chance.randbytes(size)
            case 5:
                found[at:at] = found[at : at + size]
            case 6:
                one, two = bytes(found[at : at + size]), bytes(found[other : other + size])
                found[at : at + len(two)], found[other : other + len(one)] = two, one
            case _:
                found[at] = (found[at] + chance.choice((1, -1))) % 256
    return bytes(found)


def laid_out(seed: Seed, folder: Path, chance: random.Random) -> Path:
    """A damaged copy in a folder of its own, with the files that belong to it beside it; which one is to be opened."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for beside in seed.beside:
        shutil.copyfile(beside, folder / beside.name)
    (folder / seed.path.name).write_bytes(damaged(seed.path.read_bytes(), chance))
    return folder / seed.opened.name


def test_whole_files_are_read(tmp_path: Path, reading: Reading) -> None:
    """Else the other test would prove nothing."""
    for seed in seeds(tmp_path):
        if tmp_path in seed.path.parents:
            for reader in seed.readers:
                assert "read" in (answer := reading.ask(reader, seed.opened)), (seed, reader, answer)
    assert reading.printed() == ""


@pytest.mark.slow
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, reading: Reading) -> None:
    (tmp_path / "seeds").mkdir()
    known = seeds(tmp_path / "seeds")
    made = [seed for seed in known if tmp_path in seed.path.parents]
    faults: list[str] = []
    end = time.monotonic() + SECONDS
    number, asked = FIRST * 10**9, 0
    while (time.monotonic() < end or asked < LEAST) and len(faults) < SHOWN:
        chance = random.Random(number)
        seed = chance.choice(chance.choice((made, known)))
        case = tmp_path / f"case-{number}"
        path = laid_out(seed, case, chance)
        reader = chance.choice(seed.readers)
        answer = reading.ask(reader, path)
        printed = reading.printed()
        # A line of a library's own on stderr does no harm; Python's, of an error that nobody caught, are ours.
        if "fault" in answer or "Traceback" in printed or "Exception" in printed:
            shown = answer.get("fault", "printed")
            faults.append(f"{reader} {path}, of {seed.path}: {shown}\n{answer.get('where', '')}{printed[:400]}")
        else:
            shutil.rmtree(case)
        number, asked = number + 1, asked + 1
    assert not faults, f"{len(faults)} of {asked} files:\n" + "\n".join(faults)
