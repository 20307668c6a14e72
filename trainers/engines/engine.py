"""What the trainer needs of a framework and its devices. To add an engine, add a module and its name to ENGINES.

An engine owns devices; the model, its losses and the update rules are written in keras.ops, and are the same for all. Only an
engine's own modules import its framework for training; a run can be continued on another engine.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.losses import SUMS
from clozemill.pipelines.command_line.lazy_import import function
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.config import DeviceOptions
from clozemill.trainers.common.hardware import Hardware
from clozemill.trainers.engines.optimizer import Hyper, Schedule
from clozemill.trainers.engines.train_state import TrainState

COLUMNS = (*SUMS, "tokens", "gradient_norm", "learning_rate", "waited", "seconds")  # columns of a step's metrics
_SIZE = 1024  # of the matrices that `matrix_rate` multiplies


@dataclass(frozen=True)
class StepOptions:
    """What a training step does besides the model's forward and backward pass.

    Args:
        rule, hyper, schedule: the optimizer, a key of OPTIMIZERS, and its parameters.
        parts: micro-batches per device and step.
        seed: seed of dropout.
        draw: returns a device's batch with the masks of a step, or None to use those of the batch.
        idle: returns how many of the run's earlier steps didn't train the variable of a path: a head of another objective. Its
            moments had no updates then, and their bias is corrected by the number of those that they had.
    """

    schedule: Schedule
    hyper: Hyper
    rule: str = "adamw"
    parts: int = 1
    seed: int = 0
    draw: Callable | None = None
    idle: Callable[[str], int] = lambda path: 0


# (host, hosts, rows per element) -> a description of batches: TrainBatches, EvalBatches or RowBatches. The engine chooses what
# reads them, data/graph_reader.py or data/numpy_reader.py, which also take batches: a tf.data.Dataset or any iterable.
HostBatches = Callable[[int, int, int], Any]
Sums = Callable[[int, int, HostBatches], np.ndarray]  # of (rows per batch, number of batches, batches), see Engine.evaluation


class OutOfMemory(Exception):
    """A step doesn't fit into the memory of a device; the message is the framework's reason."""


class Trainer(Protocol):
    """Runs training steps on a state, whose variables it changes."""

    def run(self, first: int, count: int) -> tuple[np.ndarray, bool]:
        """Run steps [first, first + count).

        Returns (metrics, float32 [count, len(COLUMNS)]; whether no time went into tracing or compiling). Raises OutOfMemory.
        """


class Engine(Protocol):
    """The devices of a command, under one framework."""

    @property
    def name(self) -> str:
        """Return its key in ENGINES, which is the framework's name."""

    @property
    def version(self) -> str:
        """Return the framework's version."""

    @property
    def replicas(self) -> int:
        """Return the number of devices that share a batch, of all processes."""

    @property
    def device_name(self) -> str:
        """Return the name of the devices, such as "NVIDIA A100-SXM4-40GB", "TPU v5 lite" or "CPU"."""

    @property
    def process(self) -> int:
        """Return the index of this process. Process 0 writes files."""

    @property
    def processes(self) -> int: ...

    @property
    def compiles(self) -> bool:
        """Return whether every new shape of a batch costs a compilation."""

    def attention(self, encoder: EncoderConfig, lengths: Sequence[int], precision: str) -> str:
        """Return how attention is computed in training, for people; "" if the framework has one way only.

        lengths: tokens per row of each phase.
        """

    def scope(self) -> AbstractContextManager[Any]:
        """Return the context in which variables are created."""

    def gather(self, mine: int) -> set[int]:
        """Return the values of all processes. Acts as a barrier: every process must call it at the same point."""

    def values(self, state: TrainState) -> dict[str, dict[str, Any]]:
        """Return `values` of a state that this process can read, to save them.

        Like `gather`, it must be called by every process: moments may be divided among them.
        """

    def raise_if_worker_lost(self) -> AbstractContextManager[None]:
        """Return a context that raises TemporaryError if another process dies, or doesn't answer for too long, within it."""

    def trainer(self, state: TrainState, options: StepOptions, batch_size: int, batches: HostBatches) -> Trainer:
        """Return the trainer of a state. batch_size: rows per step, across all devices."""

    def evaluation(self, model: Any) -> Sums:
        """Return a function of (rows per batch, number of batches, batches) that returns sums over them.

        They are float64 [len(SUMS) + 1]; the last one is the number of examples.
        """

    def inference(
        self, model: Any, outputs: Callable, names: tuple[str, ...]
    ) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
        """Return a function that computes `outputs` of a batch across all devices, as arrays by name, "" if there is one.

        Args:
            model: the model whose current weights `outputs` uses.
            outputs: a function of a dict of tensors that returns a tensor [B, ...], or a dict of them.
            names: the features, int32 [B, X]; B is a multiple of `replicas`.
        """


ENGINES = {
    "tensorflow": "clozemill.trainers.engines.tensorflow_engine",
    "jax": "clozemill.trainers.engines.jax_engine",
}


def _from_module(config: DeviceOptions, name: str) -> Callable[..., Any]:
    """Return a function of the module of a configuration's engine."""
    return function(f"{ENGINES[getattr(config, 'engine', 'tensorflow')]}:{name}")


def make_engine(config: DeviceOptions) -> Engine:
    """Return the engine that a configuration names, with its devices. Raises UserError if they aren't available."""
    wanted, loaded = getattr(config, "engine", "tensorflow"), keras.backend.backend()
    if wanted != loaded:
        raise UserError(
            f"--engine {wanted} needs Keras on {wanted}, but this process has loaded it on {loaded}: set "
            f"KERAS_BACKEND={wanted} before it starts"
        )
    return _from_module(config, "make")(config)


def worker_count(config: DeviceOptions) -> int:
    """Return the number of processes that share the devices of `--strategy`. Raises UserError for an invalid cluster."""
    return _from_module(config, "worker_count")(config)


def detect(config: DeviceOptions, workers: int = 1) -> Hardware:
    """Return the hardware that a configuration's engine would use. workers: as `worker_count` returns."""
    return _from_module(config, "detect")(config, workers)


def matrix_rate() -> float:
    """Return the FLOP/s that the first device reaches in a float32 matrix product, measured within a fraction of a second."""
    matrix = ops.ones((_SIZE, _SIZE))

    def multiply() -> None:
        float(ops.matmul(matrix, matrix)[0, 0])

    multiply()  # the first product also starts the device
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 0.1:
        multiply()
        count += 1
    return 2 * _SIZE**3 * count / (time.perf_counter() - began)


def check_batch(engine: Engine, batch_size: int, parts: int) -> int:
    """Return the examples per device and micro-batch. Raises UserError if the batch isn't divisible."""
    replicas = engine.replicas
    if batch_size % (replicas * parts):
        factors = [(replicas, "devices"), (parts, "gradient accumulation steps")]
        what = " x ".join(f"{count} {name}" for count, name in factors if count > 1)
        raise UserError(f"--batch-size {batch_size} isn't divisible by {what}: give a multiple of {replicas * parts}")
    return batch_size // (replicas * parts)
