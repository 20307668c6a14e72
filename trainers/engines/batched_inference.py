"""Computes a model's outputs for many rows, in batches of similar length on any engine; keeps the order of the rows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clozemill.model.inputs import TOKENS
from clozemill.trainers.data.lengths import padded_length, static_lengths
from clozemill.trainers.engines.engine import Engine

PAIRS = 1 << 26  # of positions that attend to each other, of a replica's batch: in float32, 3 GB for the scores of 12 heads


class BatchedInference:
    """Computes `outputs`, a function of a dict of the three id tensors that returns a tensor [B, ...], without dropout.

    Where every shape is compiled, the last batch is filled up, and few lengths are used.

    Args:
        model: the model whose weights `outputs` uses.
        outputs: may also return a dict of tensors; the result is a dict then.
        batch_size: rows per batch, across all devices; fewer where rows are so long that a device would have more than `PAIRS`.
        per_token: whether the outputs are [B, S, ...], or the names of those that are.
        extra: more features, int32 [N, K], that `outputs` gets uncut beside the id tensors.
    """

    def __init__(
        self,
        engine: Engine,
        model: Any,
        outputs: Callable,
        batch_size: int,
        per_token: bool | Sequence[str] = False,
        extra: Sequence[str] = (),
    ) -> None:
        self.engine, self.replicas = engine, engine.replicas
        self.per_token, self.extra = per_token, tuple(extra)
        self.per_replica = max(1, -(-batch_size // self.replicas))
        self._batch = engine.inference(model, outputs, (*TOKENS, *self.extra))

    @property
    def batch_size(self) -> int:
        return self.per_replica * self.replicas

    def __call__(self, features: dict[str, np.ndarray]) -> Any:
        """Return all outputs, [N, ...], or [N, S, ...] with zeros at padding that was left out; None for no rows.

        The longest rows come first, so that running out of memory shows early.
        """
        (count, longest), result, done = features["input_mask"].shape, None, 0
        lengths = features["input_mask"].sum(axis=1)
        static = static_lengths(longest, self.engine.compiles)
        longest_first = np.argsort(-lengths, kind="stable")
        while done < count:
            length = padded_length(lengths[longest_first[done : done + 1]], static)
            size = min(self.per_replica, max(1, PAIRS // length**2)) * self.replicas
            numbers = longest_first[done : done + size]
            filled, done = self._filled(numbers, size), done + size
            rows = {name: features[name][filled, :length] for name in TOKENS}
            found = self._batch(rows | {name: features[name][filled] for name in self.extra})
            if result is None:
                result = {name: self._empty(name, values, count, longest) for name, values in found.items()}
            for name, values in found.items():
                place = (numbers, slice(length)) if self._is_per_token(name) else (numbers,)
                result[name][place] = values[: len(numbers)]
        return result if result is None or set(result) != {""} else result[""]

    def _is_per_token(self, name: str) -> bool:
        return self.per_token if isinstance(self.per_token, bool) else name in self.per_token

    def _empty(self, name: str, values: np.ndarray, count: int, longest: int) -> np.ndarray:
        """Return zeros for all rows of an output, given those of one batch."""
        shape = (count, longest, *values.shape[2:]) if self._is_per_token(name) else (count, *values.shape[1:])
        return np.zeros(shape, values.dtype)

    def _filled(self, numbers: np.ndarray, size: int) -> np.ndarray:
        """Return the rows of a batch of up to `size` rows, filled up with the first row as shapes or devices require."""
        multiple = size if self.engine.compiles else self.replicas
        return np.concatenate([numbers, np.repeat(numbers[:1], -len(numbers) % multiple)])
