"""What the training loop needs of a run: pretraining and fine-tuning each have their own."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import tensorflow as tf

from clozemill.trainers.training.optimizer import Hyper, Schedule


class PhaseReader(Protocol):
    """One host's training examples, in an order that can be entered anywhere."""

    def batches(self, batch_size: int, begin: int = 0) -> tf.data.Dataset:
        """Batches of examples, from example `begin` of this host on, without end."""


class PhaseEvaluation(Protocol):
    """Evaluates the model of a run on examples that it isn't trained on."""

    def figures(self) -> dict[str, Any]:
        """Metrics and losses by name, with the `criterion` by which the best checkpoint is kept."""


class TrainingPhase(Protocol):
    """Steps [begin, end) of a run, on one source of data with one batch size and schedule."""

    begin: int
    end: int
    batch_size: int
    schedule: Schedule

    @property
    def folder(self) -> str:
        """Where the data is, for messages."""

    @property
    def max_seq_length(self) -> int: ...

    @property
    def train_examples(self) -> int: ...

    def reader(self, config: Any, host: int, hosts: int) -> PhaseReader:
        """The reader of one host."""

    def reading(self, likely: Callable[[], Iterable[str]] = tuple) -> AbstractContextManager[None]:
        """A context in which an error while reading names the file. `likely`: returns the files that were read last."""

    def evaluation(self, devices: tf.distribute.Strategy, model: Any, config: Any, jit: bool) -> PhaseEvaluation | None:
        """What evaluates the model during this phase; None where there is nothing to evaluate it on."""


class TrainingRun(Protocol):
    """A run before any device is touched: all that follows from its configuration and its data."""

    config: Any
    phases: tuple[TrainingPhase, ...]
    vocabulary: bytes
    stage: str

    @property
    def steps(self) -> int: ...

    @property
    def title(self) -> str:
        """The title of its plots."""

    @property
    def hyper(self) -> Hyper: ...

    def flops(self, phase: Any) -> int:
        """FLOPs per example of a phase."""

    def about(self, step: int = 0) -> dict[str, Any]:
        """What its checkpoints record of the model and of its training up to a step."""

    def identity(self) -> dict[str, Any]:
        """What decides the losses of a run: a resume must match it."""
