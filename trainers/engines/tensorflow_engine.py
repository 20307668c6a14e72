"""The engine on TensorFlow: any tf.distribute strategy of trainers/common/distribution.py."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from clozemill.model.config import EncoderConfig
from clozemill.pipelines.common import runtime
from clozemill.trainers.common import distribution, storage
from clozemill.trainers.common.config import DeviceOptions
from clozemill.trainers.common.distribution import worker_count  # noqa: F401  # a part of every engine's module
from clozemill.trainers.common.hardware import BFLOAT16_CAPABILITY, TPU_DEVICES, Hardware, free_memory
from clozemill.trainers.data.graph_reader import dataset_of
from clozemill.trainers.engines import tensorflow_step
from clozemill.trainers.engines.engine import COLUMNS, HostBatches, OutOfMemory, StepOptions, Sums, Trainer
from clozemill.trainers.engines.tensorflow_step import Stepper
from clozemill.trainers.engines.train_state import TrainState


def _distributed(strategy: tf.distribute.Strategy, rows: int, batches: HostBatches):
    """Return the iterator over the batches of all replicas. rows: of a batch, across all replicas."""

    def per_host(context: tf.distribute.InputContext) -> tf.data.Dataset:
        size = context.get_per_replica_batch_size(rows)
        return dataset_of(batches(context.input_pipeline_id, context.num_input_pipelines, size))

    return iter(strategy.distribute_datasets_from_function(per_host))


@dataclass
class _Trainer:
    stepper: Stepper
    iterator: Any

    def run(self, first: int, count: int) -> tuple[np.ndarray, bool]:
        train = self.stepper.train
        traced, began = train.experimental_get_tracing_count(), time.perf_counter()
        try:
            rows = train(self.iterator, tf.constant(first), tf.constant(count)).numpy()
        except tf.errors.ResourceExhaustedError as error:
            raise OutOfMemory(storage.cause(error)) from None
        steady = 0 < traced == train.experimental_get_tracing_count()
        if steady:  # clocks within the graph may see when GPU work is queued, not when it is done
            seconds = rows[:, COLUMNS.index("seconds")]
            seconds *= (time.perf_counter() - began) / seconds.sum()
        return rows, steady


@dataclass(frozen=True)
class TensorFlowEngine:
    """A strategy, and how steps are compiled for it."""

    strategy: tf.distribute.Strategy
    config: DeviceOptions
    name = "tensorflow"
    version = tf.__version__

    @property
    def replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    @property
    def device_name(self) -> str:
        return distribution.device_name(self.strategy)

    @property
    def process(self) -> int:
        return distribution.worker(self.strategy)[0]

    @property
    def processes(self) -> int:
        return distribution.worker(self.strategy)[1]

    @cached_property
    def _jit(self) -> bool:
        return distribution.uses_xla(self.config, self.strategy)

    @property
    def compiles(self) -> bool:
        return self._jit or isinstance(self.strategy, tf.distribute.TPUStrategy)

    def attention(self, encoder: EncoderConfig, lengths: Sequence[int], precision: str) -> str:
        return ""  # Keras has no fused attention on TensorFlow

    def scope(self) -> AbstractContextManager[Any]:
        return self.strategy.scope()

    def gather(self, mine: int) -> set[int]:
        return distribution.gather_from_workers(self.strategy, mine)

    def values(self, state: TrainState) -> dict[str, dict[str, Any]]:
        return state.values()

    def raise_if_worker_lost(self) -> AbstractContextManager[None]:
        return distribution.raise_if_worker_lost(self.strategy)

    def trainer(self, state: TrainState, options: StepOptions, batch_size: int, batches: HostBatches) -> Trainer:
        update = distribution.compiles_updates(self.config, self.strategy)
        stepper = Stepper(self.strategy, state, options, jit=self._jit, jit_update=update)
        return _Trainer(stepper, _distributed(self.strategy, batch_size, batches))

    def evaluation(self, model: Any) -> Sums:
        sums = tensorflow_step.evaluation(self.strategy, model, self._jit)
        return lambda rows, count, batches: sums(_distributed(self.strategy, rows, batches), tf.constant(count)).numpy()

    def inference(
        self, model: Any, outputs: Callable, names: tuple[str, ...]
    ) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
        one = tf.function(outputs, autograph=False, jit_compile=True) if self._jit else outputs
        # Without XLA, trace once for all shapes; per-replica values of several devices don't support such a signature.
        loose = not self.compiles and self.replicas == 1
        signature = [{name: tf.TensorSpec([None, None], tf.int32) for name in names}] if loose else None
        call = lambda batch: self.strategy.run(one, args=(batch,))  # noqa: E731
        run = tf.function(call, signature, autograph=False, reduce_retracing=not self.compiles)  # AutoGraph takes seconds

        def outputs_of(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            per_replica = len(rows["input_ids"]) // self.replicas

            def part(context) -> dict[str, tf.Tensor]:
                begin = context.replica_id_in_sync_group * per_replica
                return {name: tf.constant(value[begin : begin + per_replica]) for name, value in rows.items()}

            found = run(self.strategy.experimental_distribute_values_from_function(part))
            named = found if isinstance(found, dict) else {"": found}
            local = self.strategy.experimental_local_results
            return {name: np.concatenate([value.numpy() for value in local(values)]) for name, values in named.items()}

        return outputs_of


def detect(config: DeviceOptions, workers: int = 1) -> Hardware:
    """Return the hardware for a configuration's strategy. Doesn't initialise a TPU, whose memory is unknown until then.

    workers: machines of --strategy multiworker, all like this one.
    """
    cores = runtime.cores()
    if config.strategy == "tpu":
        return Hardware("TPU", TPU_DEVICES, 0, cores, bfloat16=True)
    gpus = tf.config.list_physical_devices("GPU")
    several = config.strategy == "multiworker"  # must be created before any device is initialised
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        capable = tuple(details.get("compute_capability") or (0, 0)) >= BFLOAT16_CAPABILITY
        count = 1 if config.strategy == "default" else workers * len(gpus)
        return Hardware("GPU", count, 0 if several else _gpu_memory(), cores, capable)
    devices = len(tf.config.list_logical_devices("CPU")) if config.strategy == "mirrored" else 1
    return Hardware("CPU", workers * devices, free_memory() // devices, cores)


def _gpu_memory() -> int:
    """Return the bytes that TensorFlow may use on the first GPU; 0 if unknown."""
    devices = tf.config.list_logical_devices("GPU")
    from tensorflow.python.client import device_lib

    found = [each.memory_limit for each in device_lib.list_local_devices() if each.device_type == "GPU"]
    return int(found[0]) if devices and found else 0


def default() -> TensorFlowEngine:
    """Return the engine with the strategy of the surrounding code: that of a program that uses clozemill as a library."""
    return TensorFlowEngine(tf.distribute.get_strategy(), DeviceOptions())


def make(config: DeviceOptions) -> TensorFlowEngine:
    """Return the engine with the devices of `--strategy`. Raises UserError if they aren't available."""
    return TensorFlowEngine(distribution.make_strategy(config), config)
