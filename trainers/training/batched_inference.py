"""Computes a model's outputs for many rows, in batches of similar length under any strategy; keeps the order of the rows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clozemill.model.inputs import TOKENS
from clozemill.trainers.data.row_reader import padded_length, static_lengths


class BatchedInference:
    """Computes `outputs`, a function of a dict of the three id tensors that returns a tensor [B, ...], without dropout.

    Args:
        outputs: may also return a dict of tensors; the result is a dict then.
        batch_size: rows per batch, across all devices.
        jit: compile with XLA. The last batch is then filled up, and few lengths are used, since every shape is compiled.
        per_token: whether the outputs are [B, S, ...], or the names of those that are.
        extra: more features, int32 [N, K], that `outputs` gets uncut beside the id tensors.
    """

    def __init__(
        self,
        devices: tf.distribute.Strategy,
        outputs: Callable,
        batch_size: int,
        jit: bool = False,
        per_token: bool | Sequence[str] = False,
        extra: Sequence[str] = (),
    ) -> None:
        self.devices, self.replicas = devices, devices.num_replicas_in_sync
        self.per_token, self.extra = per_token, tuple(extra)
        self.per_replica = max(1, -(-batch_size // self.replicas))
        self.compiled = jit or isinstance(devices, tf.distribute.TPUStrategy)
        one = tf.function(outputs, autograph=False, jit_compile=True) if jit else outputs
        # Without XLA, trace once for all shapes; per-replica values of several devices don't support such a signature.
        loose = not self.compiled and self.replicas == 1
        signature = [{name: tf.TensorSpec([None, None], tf.int32) for name in (*TOKENS, *self.extra)}] if loose else None
        run = lambda batch: devices.run(one, args=(batch,))  # noqa: E731
        self._run = tf.function(run, signature, autograph=False, reduce_retracing=not self.compiled)  # AutoGraph takes seconds

    @property
    def batch_size(self) -> int:
        return self.per_replica * self.replicas

    def __call__(self, features: dict[str, np.ndarray]) -> Any:
        """Return all outputs, [N, ...], or [N, S, ...] with zeros at padding that was left out; None for no rows.

        The longest rows come first, so that running out of memory shows at once.
        """
        (count, longest), result = features["input_mask"].shape, None
        lengths = features["input_mask"].sum(axis=1)
        static = static_lengths(longest, self.compiled)
        longest_first = np.argsort(-lengths, kind="stable")
        for begin in range(0, count, self.batch_size):
            numbers = longest_first[begin : begin + self.batch_size]
            filled, length = self._filled(numbers), padded_length(lengths[numbers], static)
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

    def _filled(self, numbers: np.ndarray) -> np.ndarray:
        """Return the rows of a batch, filled up with the first row to the size that shapes or devices require."""
        multiple = self.batch_size if self.compiled else self.replicas
        return np.concatenate([numbers, np.repeat(numbers[:1], -len(numbers) % multiple)])

    def _batch(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs of a batch by name; a single output has the name ""."""
        per_replica = len(rows["input_ids"]) // self.replicas

        def part(context) -> dict[str, tf.Tensor]:
            begin = context.replica_id_in_sync_group * per_replica
            return {name: tf.constant(value[begin : begin + per_replica]) for name, value in rows.items()}

        found = self._run(self.devices.experimental_distribute_values_from_function(part))
        named = found if isinstance(found, dict) else {"": found}
        return {
            name: np.concatenate([value.numpy() for value in self.devices.experimental_local_results(values)])
            for name, values in named.items()
        }
