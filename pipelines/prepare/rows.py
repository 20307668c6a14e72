"""The rows that the stages of `prepare` exchange through Beam: pairs of a key, which Beam groups by, and bytes."""

from typing import NamedTuple

Row = tuple[int, bytes]

_SUMMARIES = -1  # numbers of groups start at 0


class GroupRow(NamedTuple):
    """A document for a group; or nothing, because a group without documents gets shards, too."""

    group: int
    item: bytes = b""


class SummaryRow(NamedTuple):
    """The summary of one input split, under a key that all summaries share."""

    key: int
    summary: bytes

    @classmethod
    def of(cls, summary: bytes) -> "SummaryRow":
        """Return the row of a summary."""
        return cls(_SUMMARIES, summary)


class ResultRow(NamedTuple):
    """The result of a group, or the sum of all summaries, for the last stage, which gets all rows."""

    key: int
    result: bytes

    @classmethod
    def of(cls, result: bytes) -> "ResultRow":
        """Return the row of a result."""
        return cls(0, result)


def has_summaries(key: int) -> bool:
    """Return whether the values under a key come from SummaryRow, not from GroupRow."""
    return key == _SUMMARIES
