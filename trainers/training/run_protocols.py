"""Protocols of a run, as the training loop needs it; pretraining and fine-tuning implement them."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from clozemill.model.config import EncoderConfig
from clozemill.pipelines.pages.content import Section, Table
from clozemill.trainers.engines.engine import Engine
from clozemill.trainers.engines.optimizer import Hyper, Schedule


@dataclass(frozen=True)
class RunStory:
    """What the page of a run says besides its metrics.

    Attributes:
        kind: what kind of run it is: "Pretraining run".
        lead: sentences about what is trained, on what.
        tables: the data, the phases and the model.
        expected: (step, masked-LM loss) that the recipe is known to reach; empty if nothing is known.
        expectation: the same in words.
        warnings: problems of the data.
        selected_by: what the best checkpoint has, in words: "the highest accuracy".
    """

    kind: str
    lead: list[str]
    tables: list[Table] = field(default_factory=list)
    expected: tuple[tuple[int, float], ...] = ()
    expectation: str = ""
    warnings: list[str] = field(default_factory=list)
    selected_by: str = "the lowest masked-LM loss"


class PhaseReader(Protocol):
    """One host's training examples, in an order that can be entered anywhere."""

    def batches(self, size: int, step: int = 0) -> Any:
        """Return a description of batches of `size` rows, without end, from a step of the phase on: what HostBatches return."""

    def shards_between(self, begin: int, end: int) -> Iterable[str]:
        """Return the files that this host's examples in steps [begin, end) of the phase come from, for messages."""


class PhaseEvaluation(Protocol):
    """Evaluates the model of a run on held-out examples."""

    def reference(self) -> float | None:
        """Return the masked-LM loss that needs no context, in nats; None for other tasks."""

    def figures(self) -> dict[str, Any]:
        """Return metrics and losses by name, with the `criterion` that selects the best checkpoint."""

    def exhibits(self) -> list[Section]:
        """Return answers of the model as sections of the run's page. To be called after `figures`."""


class TrainingPhase(Protocol):
    """Steps [begin, end) of a run on one data source, with one batch size and schedule."""

    @property
    def begin(self) -> int: ...

    @property
    def end(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def schedule(self) -> Schedule: ...

    @property
    def folder(self) -> str:
        """Return the location of the data, for messages."""

    @property
    def max_seq_length(self) -> int: ...

    @property
    def examples_per_row(self) -> float:
        """Return the mean number of examples in a row, as batches count them: more than 1 if they are packed."""

    def epochs(self, step: int) -> Sequence[float]:
        """Return how often each dataset of the phase was read after a step of the run."""

    @property
    def masks(self) -> Callable | None:
        """Return how masks are drawn in the training step; None to use those of the data."""

    def reader(self, config: Any, host: int, hosts: int, compiled: bool) -> PhaseReader:
        """Return the reader of one host. compiled: whether every shape of a batch costs a compilation."""

    def set_up(self, model: Any) -> None:
        """Prepare the model of the run for the steps of this phase."""

    def trains(self, path: str) -> bool:
        """Return whether this phase trains the variable of a path."""

    def reading(self, likely: Callable[[], Iterable[str]] = tuple) -> AbstractContextManager[None]:
        """Return a context in which read errors name the file. `likely` returns the files that were read last."""

    def evaluation(self, engine: Engine, model: Any, config: Any) -> PhaseEvaluation | None:
        """Return the evaluation of the model in this phase; None if there are no examples for it."""


class TrainingRun(Protocol):
    """A run before any device is used: everything that follows from its configuration and its data."""

    @property
    def config(self) -> Any: ...

    @property
    def phases(self) -> Sequence[TrainingPhase]: ...

    @property
    def encoder(self) -> EncoderConfig: ...

    @property
    def vocabulary(self) -> bytes: ...

    @property
    def tokenizer(self) -> bytes:
        """Return the contents of the model's tokenizer.json; b"" if it is WordPiece."""

    @property
    def stage(self) -> str: ...

    @property
    def chosen(self) -> dict[str, Any]:
        """Return the options that the user left open, by name."""

    @property
    def steps(self) -> int: ...

    @property
    def title(self) -> str:
        """Return the title of the plots."""

    @property
    def hyper(self) -> Hyper: ...

    @property
    def evaluates_start(self) -> bool:
        """Return whether the weights of step 0 are evaluated too."""

    def flops(self, phase: Any) -> int:
        """Return the FLOPs per row of a phase's batches."""

    def story(self) -> RunStory:
        """Return what the page of the run says besides its metrics."""

    def summary(self, figures: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
        """Return an evaluation's result beside the baseline, as part of a sentence and as (name, value)."""

    def about(self, step: int = 0) -> dict[str, Any]:
        """Return what checkpoints record of the model and of its training up to a step."""

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the losses of a run; it must match on resume."""
