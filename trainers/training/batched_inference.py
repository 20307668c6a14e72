"""Computes a model's outputs for many rows, in batches of similar length under any strategy; keeps the order of the rows."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from clozemill.model.inputs import TOKENS
from clozemill.trainers.data.row_reader import padded_length, static_lengths


class BatchedInference:
    """Computes `outputs`, a function of a dict of the three id tensors that returns a tensor [B, ...], without dropout.

    Args:
        batch_size: rows per batch, across all devices.
        jit: compile with XLA. The last batch is then filled up, and few lengths are used, since every shape is compiled.
        per_token: the outputs are [B, S, ...].
    """

    def __init__(
        self, devices: tf.distribute.Strategy, outputs: Callable, batch_size: int, jit: bool = False, per_token: bool = False
    ) -> None:
        self.devices, self.replicas, self.per_token = devices, devices.num_replicas_in_sync, per_token
        self.per_replica = max(1, -(-batch_size // self.replicas))
        self.compiled = jit or isinstance(devices, tf.distribute.TPUStrategy)
        one = tf.function(outputs, jit_compile=True) if jit else outputs
        # Without XLA, trace once for all shapes; per-replica values of several devices don't support such a signature.
        loose = not self.compiled and self.replicas == 1
        signature = [{name: tf.TensorSpec([None, None], tf.int32) for name in TOKENS}] if loose else None
        self._run = tf.function(lambda batch: devices.run(one, args=(batch,)), signature, reduce_retracing=not self.compiled)

    @property
    def batch_size(self) -> int:
        return self.per_replica * self.replicas

    def __call__(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Return all outputs, [N, ...], or [N, S, ...] with zeros at padding that was left out.

        The longest rows come first, so that running out of memory shows at once.
        """
        lengths, result = features["input_mask"].sum(axis=1), None
        static = static_lengths(features["input_mask"].shape[1], self.compiled)
        longest_first = np.argsort(-lengths, kind="stable")
        for begin in range(0, len(lengths), self.batch_size):
            numbers = longest_first[begin : begin + self.batch_size]
            length = padded_length(lengths[numbers], static)
            found = self._batch({name: features[name][self._filled(numbers), :length] for name in TOKENS})
            if result is None:
                shape = features["input_mask"].shape if self.per_token else lengths.shape
                result = np.zeros((*shape, *found.shape[len(shape) :]), found.dtype)
            if self.per_token:
                result[numbers, :length] = found[: len(numbers)]
            else:
                result[numbers] = found[: len(numbers)]
        return result

    def _filled(self, numbers: np.ndarray) -> np.ndarray:
        """Return the rows of a batch, filled up with the first row to the size that shapes or devices require."""
        multiple = self.batch_size if self.compiled else self.replicas
        return np.concatenate([numbers, np.repeat(numbers[:1], -len(numbers) % multiple)])

    def _batch(self, rows: dict[str, np.ndarray]) -> np.ndarray:
        per_replica = len(rows["input_ids"]) // self.replicas

        def part(context) -> dict[str, tf.Tensor]:
            begin = context.replica_id_in_sync_group * per_replica
            return {name: tf.constant(value[begin : begin + per_replica]) for name, value in rows.items()}

        found = self._run(self.devices.experimental_distribute_values_from_function(part))
        return np.concatenate([value.numpy() for value in self.devices.experimental_local_results(found)])
