"""Types shared by all task types: examples as read, and the rows of tensors made of them."""

import collections
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

BLIND = "without looking at the text"  # how most baselines answer, for messages


class Sample(NamedTuple):
    """An answer as text. The confidence sorts errors; None: answers are numbers, which are not right or wrong."""

    text: str
    expected: str
    given: str
    confidence: float | None
    right: bool = False


@dataclass(frozen=True)
class Example:
    """One or two texts, or words, with an optional answer. `where`: position, for messages. `id`: id of a question."""

    where: str
    text: str = ""
    pair: str | None = None
    words: tuple[str, ...] = ()
    answer: Any = None
    id: str = ""

    @property
    def characters(self) -> int:
        """Return the length in characters; words count with the spaces between them."""
        return len(self.text) + len(self.pair or "") + sum(len(word) + 1 for word in self.words)


@dataclass
class Rows:
    """Rows of tensors: `features`, int32 [N, S] each, including targets if answers are known, and float `weights`.

    `about`: for each row, its example, and what the task type needs to decode answers. `truncated`: number of examples that
    were cut.
    """

    features: dict[str, np.ndarray]
    about: list[tuple] = field(default_factory=list)
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.features["input_ids"])


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the sigmoid of each element, float64."""
    return 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -500, 500)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis, float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def most_frequent(values: Sequence[Any]) -> Any:
    """Return the most frequent value; of equally frequent ones, the first in sort order."""
    counts = collections.Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))
