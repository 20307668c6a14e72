"""From a file to examples: rows that can't be used stop the command or, as long as they are few enough, are counted."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.reading.tables import BadRow, Row
from clozemill.trainers.finetuning.task_presets import Layout
from clozemill.trainers.finetuning.tasks.base import Example


class Rejects:
    """The rows of a file that can't be used.

    Args:
        path: the file. allowed: the fraction of its rows that may be unusable; 0: the first one is an error.
        instead: what becomes of such a row, for messages.
    """

    def __init__(self, path: str, allowed: float, instead: str = "skipped") -> None:
        self.path, self.allowed, self.instead = path, allowed, instead
        self.read, self.first, self.reasons = 0, "", Counter()

    def add(self, bad: BadRow) -> None:
        """Counts a row that can't be used. Raises UserError if none is allowed."""
        if not self.allowed:
            raise UserError(f"{bad} (--max-reject-rate skips such rows)") from None
        self.first = self.first or str(bad)
        self.reasons[bad.reason] += 1

    def finish(self) -> None:
        """Prints how many rows of which kind there were, and the first one. Raises UserError if they are too many."""
        count = sum(self.reasons.values())
        if count > self.allowed * self.read:
            raise UserError(
                f"{self.path}: {count:,} of {self.read:,} rows can't be used, more than --max-reject-rate {self.allowed:g} "
                f"allows, the first: {self.first}"
            )
        if count:
            kinds = ", ".join(f"{reason}: {number:,}" for reason, number in sorted(self.reasons.items()))
            told = f"{count:,} of {self.read:,} rows were {self.instead} ({kinds}), the first: {self.first}"
            print(f"warning: {self.path}: {told}", file=sys.stderr, flush=True)


class Reader:
    """How a kind of task reads its files; a kind gives `rows` and `example`. `paired`: all examples are pairs."""

    paired = False

    def rows(self, path: str, layout: Layout, answers: bool) -> Iterator[Row | BadRow]:
        """A file's rows."""
        raise NotImplementedError

    def example(self, row: Row, layout: Layout, labels: dict[str, str], answers: bool) -> Example:
        """What a row says. Raises BadRow if it can't be used."""
        raise NotImplementedError

    def check(self, examples: Sequence[Example]) -> None:
        """Raises UserError for answers that can't be learnt from or scored."""

    def read(
        self, path: str, layout: Layout, labels: dict[str, str], answers: bool, max_reject_rate: float = 0.0
    ) -> Iterator[Example]:
        """A file's examples. Raises UserError.

        Args:
            labels: names of the labels as the file has them, {} for any.
            answers: they are read, too; without them every row gives an example, one that can't be used an empty one, so
                that predictions have as many rows as the file.
            max_reject_rate: the fraction of rows that may be unusable; they are counted and reported at the end.
        """
        rejects = Rejects(path, max_reject_rate, "skipped" if answers else "read as empty texts")
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
