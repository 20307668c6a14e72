"""The options of `contrast`."""

from dataclasses import dataclass, replace
from typing import ClassVar

from clozemill.model.config import POOLINGS, POSITIVES, TEMPERATURE
from clozemill.pipelines.command_line.options import INPUT, READ, RUNNING, option
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.config import TextColumn
from clozemill.trainers.finetuning.task_presets import TASKS, Layout
from clozemill.trainers.finetuning.tuning_options import TuningOptions, init_option

BATCH, LENGTH = 64, 128  # defaults
EVALUATIONS = 10  # of a run, by default


@dataclass(frozen=True)
class SentenceOptions(TextColumn):
    """The texts, the model, and how it makes vectors."""

    init: str = init_option()
    input: str = option(
        "",
        "a file of texts without labels: plain text with one text per line, JSONL, CSV, TSV or Parquet",
        identity=False,
        group=INPUT,
        required=True,
        path=READ,
    )
    dev: str = option(
        "",
        "a file of graded pairs to evaluate on: two texts and how similar they are, as in STS-B's files (CSV, TSV, JSONL)",
        identity=False,
        group=INPUT,
        path=READ,
    )
    dev_columns: tuple[str, ...] = option(
        (),
        "columns of --dev: two texts and a number, by name, or by number from 0 if there is no header (default: sentence1, "
        "sentence2 and score, or the first three)",
        metavar="COLUMN",
        identity=False,
        group=INPUT,
    )
    pooling: str = option("mean", "a text's vector: the mean over its tokens, or the output at [CLS]", choices=POOLINGS)
    positives: str = option(
        "dropout",
        "how the two copies of a text differ that have to find each other: by dropout alone, or crop: each is a random span of "
        "it too, which suits texts of several sentences",
        choices=POSITIVES,
    )
    temperature: float = option(TEMPERATURE, "divisor of the cosines in the loss", low=0.001, high=100)
    max_seq_length: int | None = option(
        None, f"truncate texts to this many tokens (default: {LENGTH}, or what the model accepts)", low=8, high=65536
    )


@dataclass(frozen=True)
class ContrastConfig(TuningOptions, SentenceOptions):
    """`clozemill contrast`"""

    # What finetuning reads of its configuration.
    task: ClassVar = "embed"
    from_scratch: ClassVar = False
    frozen: ClassVar = False

    epochs: float | None = option(None, "how often each text is used (default: 1; more for few texts)", low=0, high=10_000)
    batch_size: int | None = option(
        None,
        f"texts per update, across all devices; each device compares those of its part (default: {BATCH}, or all texts)",
        low=2,
        high=1 << 20,
    )
    learning_rate: float | None = option(
        None, "peak learning rate (default: the higher the narrower the encoder)", low=0, high=100
    )
    seed: int = option(0, "random seed of the order of texts and of dropout", low=0, high=2**63 - 1)
    eval_steps: int = option(
        0,
        f"with --dev: evaluate (and save) every this many steps; 0: {EVALUATIONS} times in a run",
        low=0, high=1 << 30, identity=False, group=RUNNING,
    )  # fmt: skip

    def layout(self, task: str) -> Layout:
        """Return the file layout of the graded pairs."""
        found = TASKS[task].layout
        if self.dev_columns:
            text, pair, label = self.dev_columns
            found = Layout(text, pair, label, header=not all(name.removeprefix("-").isdecimal() for name in self.dev_columns))
        return replace(found, named_by="--dev-columns")

    def validate(self) -> None:
        """Raise UserError for values that contradict each other."""
        super().validate()
        if self.dropout == 0 and self.attention_dropout == 0 and self.positives == "dropout":
            raise UserError(
                "--dropout and --attention-dropout are both 0, so both vectors of a text would be the same: give one above 0, "
                "or --positives crop"
            )
        if len(self.dev_columns) not in (0, 3):
            raise UserError(f"--dev-columns names {len(self.dev_columns)} columns: give three, of two texts and of a number")
        if len(set(self.dev_columns)) < len(self.dev_columns) or "" in self.dev_columns:
            raise UserError(f"--dev-columns {' '.join(map(repr, self.dev_columns))}: give the names of three different columns")
        if self.dev_columns and not self.dev:
            raise UserError("--dev-columns has no effect without --dev: give both")
        if self.patience and not self.dev:
            raise UserError("--patience has no effect without --dev: give both")
