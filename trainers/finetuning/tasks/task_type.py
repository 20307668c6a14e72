"""The interface of a task type, all that the rest of fine-tuning knows about it. Entry point: registry.TASK_TYPES."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from clozemill.model.task_model import Task
from clozemill.pipelines.pages.content import Plot, Table
from clozemill.trainers.data.text_encoder import TextEncoder
from clozemill.trainers.finetuning.reading.tables import BadRow, Row
from clozemill.trainers.finetuning.task_presets import Layout
from clozemill.trainers.finetuning.tasks.base import Example, Rows, Sample


class TaskType(Protocol):
    """What differs between types of tasks. reading/example_reader.Reader implements the first part.

    description: what the model predicts, for people; `{}`: the number of labels. paired: all examples are pairs.
    compared_with: what `baseline` does, for messages about results that are no better.
    labels_nameable: whether the command has --labels, for the messages about unknown labels.
    """

    description: str
    paired: bool
    compared_with: str

    def __init__(self, labels_nameable: bool = False) -> None: ...

    # Files to examples.

    def rows(self, path: str, layout: Layout, answers: bool) -> Iterator[Row | BadRow]:
        """Yield a file's rows."""

    def example(self, row: Row, layout: Layout, labels: dict[str, str], answers: bool) -> Example:
        """Return the example of a row. Raises BadRow if the row is unusable."""

    def read(
        self,
        path: str,
        layout: Layout,
        labels: dict[str, str],
        answers: bool,
        max_reject_rate: float = 0.0,
        instead: str = "skipped",
    ) -> Iterator[Example]:
        """Return a file's examples, as Reader.read does. Raises UserError."""

    def check(self, examples: Sequence[Example]) -> None:
        """Raise UserError for answers that can't be learnt or scored."""

    def names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """Return the labels that occur, in the order of the classes; () if the type has none."""

    # Dev examples held out of the training file.

    def group_key(self, example: Example) -> tuple[str, ...]:
        """Return the texts that keep examples on one side: examples with the same key are never separated."""

    def strata(self, example: Example) -> Sequence[str]:
        """Return the labels to hold out in proportion."""

    def order(self, example: Example) -> float:
        """Return a number to stratify by, 0 for none."""

    # Examples to tensors, logits to answers.

    def encode(self, examples: Sequence[Example], task: Task, encoder: TextEncoder, answers: bool) -> Rows:
        """Return the tensors of examples, with targets if `answers`."""

    def answers(self, examples: Sequence[Example], rows: Rows, logits: np.ndarray, task: Task) -> list[dict[str, Any]]:
        """Return an answer for each example. logits: those of `rows`, float [N, ...]."""

    def columns(self, task: Task) -> pa.Schema:
        """Return the schema of `answers`."""

    # Results.

    def references_and_predictions(self, examples: Sequence[Example], answers: Sequence[dict], task: Task) -> tuple[Any, Any]:
        """Return (expected, given) in the form that the type's metrics compare."""

    def baseline(self, train: Sequence[Example], dev: Sequence[Example]) -> tuple[str, list[dict[str, Any]]]:
        """Return the answer that fits the training examples best, whatever the text: its description, one per dev example."""

    def out_of_reach(self, examples: Sequence[Example], rows: Rows, task: Task) -> dict[str, int]:
        """Count, by reason, the examples whose answer no model can predict exactly. Needs rows with targets."""

    def exhibits(self, task: Task, examples: Sequence[Example], answers: Sequence[dict]) -> tuple[list[Table], list[Plot]]:
        """Return tables and plots of the answers, for the page of a run."""

    def sample(self, example: Example, answer: dict[str, Any]) -> Sample | None:
        """Return an answer as text, for the page of a run; None if that means nothing to people."""
