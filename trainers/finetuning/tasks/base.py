"""What every kind of task has: examples as they are read, and the rows of tensors that they become."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Example:
    """A text, or two, or words, and its answer where there is one. `where`: for messages. `id`: of a question."""

    where: str
    text: str = ""
    pair: str | None = None
    words: tuple[str, ...] = ()
    answer: Any = None
    id: str = ""

    @property
    def characters(self) -> int:
        """How long it is; of words, with the space between them."""
        return len(self.text) + len(self.pair or "") + sum(len(word) + 1 for word in self.words)


@dataclass
class Rows:
    """Rows of tensors: `features` int32 [N, S] each, targets among them where answers are known, and float `weights`.

    `about`: for each row, which example it belongs to, and what its kind has to remember of it.
    """

    features: dict[str, np.ndarray]
    about: list[tuple] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.features["input_ids"])


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Of each, float64."""
    return 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -500, 500)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
