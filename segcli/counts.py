"""What came of the jobs of a run: counts, and the exit code. One for all verbs."""

from dataclasses import dataclass, field

from segcli.console import Console
from segcli.errors import BusyError

LISTED = 20
"""Failures that are listed at the end; the manifest has them all."""


@dataclass
class Report:
    """Counts, and the exit code that they come to."""

    jobs: int
    done: int = 0
    up_to_date: int = 0
    failures: list[str] = field(default_factory=list)  # not the errors, which keep what they came from
    busy: int = 0  # of the failures
    ended: int = 0  # failed, too, and ended the run, which says why

    @property
    def exit_code(self) -> int:
        if self.busy and self.busy == len(self.failures):  # as where the folder is another run's
            return BusyError.exit_code
        return 1 if self.failures or self.ended or self.left else 0

    @property
    def left(self) -> int:
        """Jobs that nobody came to."""
        return self.jobs - self.done - self.up_to_date - len(self.failures) - self.ended

    def tell(self, console: Console) -> None:
        """What was said of too many files, what failed, once more and together, and how many of each there are."""
        console.count_remarks()
        if self.jobs > 1:
            for error in self.failures[:LISTED]:
                console.say(f"failed: {error}")
            if len(self.failures) > LISTED:
                console.say(f"failed: {len(self.failures) - LISTED} more")
        console.say(str(self))

    def __str__(self) -> str:
        left = f"  left {self.left}" if self.left else ""
        return f"done {self.done}  up to date {self.up_to_date}  failed {len(self.failures) + self.ended}{left}"
