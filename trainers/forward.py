"""A model's outputs for many rows, batch by batch under any strategy, in the order of the rows."""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from model.packing import TOKENS


class Forward:
    """Computes `outputs` (a function of a dict of the three id tensors, giving a tensor [B, ...]) without dropout.

    Args:
        batch_size: rows at a time, over all devices; the last batch is filled up, so that shapes are static.
        jit: compile with XLA.
    """

    def __init__(self, devices: tf.distribute.Strategy, outputs: Callable, batch_size: int, jit: bool = False) -> None:
        self.devices, self.replicas = devices, devices.num_replicas_in_sync
        self.per_replica = max(1, -(-batch_size // self.replicas))
        one = tf.function(outputs, jit_compile=True) if jit else outputs
        self._run = tf.function(lambda batch: devices.run(one, args=(batch,)))

    @property
    def batch_size(self) -> int:
        return self.per_replica * self.replicas

    def batches(self, features: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
        """Outputs of a batch of rows after another."""
        count = len(features["input_ids"])
        for begin in range(0, count, self.batch_size):
            rows = {name: features[name][begin : begin + self.batch_size] for name in TOKENS}
            kept = len(rows["input_ids"])
            if kept < self.batch_size:  # the first row again, as often as needed
                rows = {name: np.concatenate([v, np.repeat(v[:1], self.batch_size - kept, 0)]) for name, v in rows.items()}
            yield self._batch(rows)[:kept]

    def _batch(self, rows: dict[str, np.ndarray]) -> np.ndarray:
        def part(context) -> dict[str, tf.Tensor]:
            begin = context.replica_id_in_sync_group * self.per_replica
            return {name: tf.constant(value[begin : begin + self.per_replica]) for name, value in rows.items()}

        found = self._run(self.devices.experimental_distribute_values_from_function(part))
        return np.concatenate([value.numpy() for value in self.devices.experimental_local_results(found)])

    def __call__(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """All outputs, [N, ...]."""
        return np.concatenate(list(self.batches(features)))
