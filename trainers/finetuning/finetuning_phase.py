"""The only phase of a run that trains on rows in memory: the training loop's view of its data."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

from clozemill.trainers.data.lengths import static_lengths
from clozemill.trainers.data.row_reader import RowReader
from clozemill.trainers.engines.engine import Engine
from clozemill.trainers.engines.optimizer import Schedule
from clozemill.trainers.finetuning.dev_evaluation import DevEvaluation
from clozemill.trainers.finetuning.tuning_options import TuningOptions


@dataclass(frozen=True)
class FinetuningPhase:
    """All steps of a run: the loop's view of the data (a training.run_protocols.TrainingPhase)."""

    plan: Any  # a FinetuningRun
    end: int
    batch_size: int
    schedule: Schedule
    begin: ClassVar = 0
    masks: ClassVar = None

    @property
    def folder(self) -> str:
        return self.plan.source

    @property
    def max_seq_length(self) -> int:
        return self.plan.train.features["input_ids"].shape[1]

    @property
    def examples_per_row(self) -> float:
        return 1.0

    def epochs(self, step: int) -> list[float]:
        """Return how often the rows were read after a step."""
        return [step * self.batch_size / len(self.plan.train)]

    def set_up(self, model: Any) -> None:
        """Change nothing: there is one task."""

    def trains(self, path: str) -> bool:
        """Return whether the variable of a path is trained: always."""
        return True

    def reading(self, likely: Callable[[], Iterable[str]] = tuple) -> AbstractContextManager[None]:
        """Return an empty context: all rows are in memory, so no file is read during training."""
        return nullcontext()

    def reader(self, config: TuningOptions, host: int, hosts: int, compiled: bool) -> RowReader:
        static = None if config.strategy == "tpu" else static_lengths(self.max_seq_length, compiled)
        return RowReader(self.plan.train.features, config.seed, self.folder, self.batch_size, static, host, hosts)

    def evaluation(self, engine: Engine, model, config: TuningOptions) -> DevEvaluation | None:
        """Return the evaluation on the dev examples; None if there are none."""
        return DevEvaluation(engine, model, self.plan) if self.plan.dev_examples else None
