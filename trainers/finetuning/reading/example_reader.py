"""Reads a file into examples. Unusable rows raise an error or, up to --max-reject-rate, are counted and skipped."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from clozemill.model.task_model import Task
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.reading.tables import BadRow, Row
from clozemill.trainers.finetuning.task_presets import Layout
from clozemill.trainers.finetuning.tasks.base import BLIND, Example, Rows


class Rejects:
    """Counts the unusable rows of a file.

    Args:
        path: the file.
        allowed: the fraction of its rows that may be unusable; 0: the first one is an error.
        instead: what happens to such a row, for messages.
    """

    def __init__(self, path: str, allowed: float, instead: str = "skipped") -> None:
        self.path, self.allowed, self.instead = path, allowed, instead
        self.read, self.first = 0, ""
        self.reasons: Counter[str] = Counter()

    def add(self, bad: BadRow) -> None:
        """Count an unusable row. Raises UserError if none is allowed."""
        if not self.allowed:
            raise UserError(f"{bad} (--max-reject-rate skips such rows)") from None
        self.first = self.first or str(bad)
        self.reasons[bad.reason] += 1

    def finish(self) -> None:
        """Print the number of unusable rows by reason, and the first one. Raises UserError if there are too many."""
        count = sum(self.reasons.values())
        if count > self.allowed * self.read:
            raise UserError(
                f"{self.path}: {count:,} of {self.read:,} rows are unusable, more than --max-reject-rate {self.allowed:g} "
                f"allows; first: {self.first}"
            )
        if count:
            kinds = ", ".join(f"{reason}: {number:,}" for reason, number in sorted(self.reasons.items()))
            told = f"{count:,} of {self.read:,} rows were {self.instead} ({kinds}); first: {self.first}"
            print(f"warning: {self.path}: {told}", file=sys.stderr, flush=True)


class Reader:
    """Base class of task types: reads files. Subclasses implement `rows` and `example`.

    Args:
        labels_nameable: whether the command has --labels, for the messages about unknown labels.
    """

    paired = False  # whether all examples are pairs
    compared_with = BLIND

    def __init__(self, labels_nameable: bool = False) -> None:
        self.labels_nameable = labels_nameable

    def rows(self, path: str, layout: Layout, answers: bool) -> Iterator[Row | BadRow]:
        """Yield a file's rows."""
        raise NotImplementedError

    def example(self, row: Row, layout: Layout, labels: dict[str, str], answers: bool) -> Example:
        """Return the example of a row. Raises BadRow if the row is unusable."""
        raise NotImplementedError

    def check(self, examples: Sequence[Example]) -> None:
        """Raise UserError for answers that can't be learnt or scored."""

    def order(self, example: Example) -> float:
        """Return a number to stratify held-out examples by, 0 for none."""
        return 0.0

    def out_of_reach(self, examples: Sequence[Example], rows: Rows, task: Task) -> dict[str, int]:
        """Count, by reason, the examples whose answer no model can predict exactly. Needs rows with targets."""
        return {}

    def read(
        self,
        path: str,
        layout: Layout,
        labels: dict[str, str],
        answers: bool,
        max_reject_rate: float = 0.0,
        instead: str = "skipped",
    ) -> Iterator[Example]:
        """Return a file's examples. Raises UserError.

        Args:
            labels: label names by their spelling in the file, {} for any.
            answers: whether to read answers. Without answers, an unusable row gives an empty example, so that predictions
                have as many rows as the file.
            max_reject_rate: maximum fraction of unusable rows; they are counted and reported at the end.
            instead: what happens to an unusable row with answers, for messages.
        """
        rejects = Rejects(path, max_reject_rate, instead if answers else "read as empty texts")
        for row in self.rows(path, layout, answers):
            rejects.read += 1
            try:
                if isinstance(row, BadRow):
                    raise row
                found = self.example(row, layout, labels, answers)
            except BadRow as bad:
                rejects.add(bad)
                if answers:
                    continue
                found = Example(bad.where, pair="" if layout.pair or self.paired else None)
            yield found
        rejects.finish()
