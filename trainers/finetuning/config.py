"""The options of `finetune`, and the column options that `predict` and `embed` share with it.

To add a task, see task_presets.py; to add an option, add a field.
"""

import math
from dataclasses import dataclass, replace

from clozemill.model.config import EncoderConfig
from clozemill.pipelines.command_line.options import INPUT, READ, option
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.task_presets import FINETUNED, PUBLISHED, TASKS, Layout
from clozemill.trainers.finetuning.tuning_options import TuningOptions, init_option

HEAD_CHOICES = ("linear", "bilstm")
LAST_FOUR = "-1,-2,-3,-4"
DEFAULT_FRACTION = 0.1  # of the training texts, held out if there is no dev file
NONE, BALANCED = "none", "balanced"  # --class-weights
WEIGHTED = ("classify", "multilabel", "tags")  # kinds of tasks whose labels can have weights


def _weights_in(text: str) -> list[str]:
    """Split at commas, unless a label contains one: 'a=1,b=2' gives two, 'a,b=2' gives one."""
    parts = text.split(",")
    return parts if all("=" in part for part in parts) else [text]


def parsed_weights(given: tuple[str, ...]) -> dict[str, float] | str:
    """Return 'none', 'balanced', or weights by label, parsed from words like 'spam=5' or 'spam=5,ham=1'. Raises UserError."""
    if not given or given == (NONE,):
        return NONE
    if given == (BALANCED,):
        return BALANCED
    found: dict[str, float] = {}
    for word in (part for text in given for part in _weights_in(text)):
        name, equals, number = word.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not equals or not name.strip() or not math.isfinite(weight) or weight < 0:
            raise UserError(f"--class-weights {word!r}: give none, balanced, or LABEL=WEIGHT with a number of at least 0")
        if name.strip() in found:
            raise UserError(f"--class-weights names {name.strip()!r} twice: give one weight for each label")
        found[name.strip()] = weight
    if not any(found.values()):
        raise UserError("--class-weights are all 0, so the model would learn nothing: give at least one weight above 0")
    return found


def layers(text: str) -> tuple[int, ...]:
    """Return layer numbers parsed from text like '-1,-2'. Raises UserError for anything else."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--layers {text!r} is not a list of layers: give numbers, such as --layers={LAST_FOUR}") from None


def layers_of(text: str, encoder: EncoderConfig, name: str) -> tuple[int, ...]:
    """Return the layers chosen from encoder `name`, counted from the last one, -1; fewer than four if it has fewer.

    Raises UserError for layers that the encoder doesn't have.
    """
    count = encoder.num_hidden_layers + 1
    chosen = [layer for layer in layers(text) if text != LAST_FOUR or -count <= layer]
    if not all(-count <= layer < count for layer in chosen):
        raise UserError(f"--layers {text}: {name} has layers 0 (the embeddings) to {count - 1}: choose from these")
    return tuple(layer - count if layer >= 0 else layer for layer in chosen)


@dataclass(frozen=True)
class TextColumn:
    """The column of the texts in a table, and how many of its rows may be unusable."""

    text_column: str = option(
        "",
        "column of the text: its name, or its number from 0 if there is no header (default: text; tags: the first; GLUE's "
        "tasks: theirs; predict and evaluate: that of fine-tuning)",
        group=INPUT,
    )
    header: str = option("auto", "whether the first line holds column names", choices=("auto", "yes", "no"), group=INPUT)
    max_reject_rate: float | None = option(
        None,
        "maximum fraction of unusable rows before the command fails; they are counted and reported (default: 0; "
        f"{PUBLISHED:g} for {', '.join(name for name, task in TASKS.items() if task.max_reject_rate)})",
        low=0, high=1, identity=False, group=INPUT,
    )  # fmt: skip

    def allowed(self, task: str) -> float:
        """Return the fraction of a file's rows that may be unusable for a task."""
        return TASKS[task].max_reject_rate if self.max_reject_rate is None else self.max_reject_rate


@dataclass(frozen=True)
class PairColumn(TextColumn):
    """Adds the column of second texts; columns that aren't given are those of fine-tuning."""

    pair_column: str = option("", "column of the second text, if any: its name or number", group=INPUT)


@dataclass(frozen=True)
class Columns(PairColumn):
    """Adds the columns of the answers; columns that aren't given are those of the task's preset."""

    label_column: str = option(
        "",
        "column of the answer (a label, a number or tags; multilabel: a list or a cell of labels): its name or number "
        "(default: label; multilabel: labels; tags: the last; GLUE's tasks: theirs; predict and evaluate: that of fine-tuning)",
        group=INPUT,
    )
    label_separator: str = option("", "multilabel: separator between the labels of a cell, such as , or ; or |", group=INPUT)
    label_columns: tuple[str, ...] = option(
        (), "multilabel: columns of 0 and 1, one per label, instead of --label-column", metavar="COLUMN", group=INPUT
    )

    def layout(self, task: str) -> Layout:
        """Return the preset's file layout with the given options applied."""
        return self.applied(TASKS[task].layout)

    def applied(self, layout: Layout) -> Layout:
        """Return a file layout with the given options applied."""
        layout = layout.changed(text=self.text_column, pair=self.pair_column, label=self.label_column, header=self.header)
        named = layout.flags if not self.label_column else ()  # a column of labels replaces those of 0 and 1
        return replace(layout, separator=self.label_separator or layout.separator, flags=self.label_columns or named)


@dataclass(frozen=True)
class TaskOptions(Columns):
    """The task, its files, and the model that learns it."""

    init: str = init_option()
    from_scratch: bool = option(False, "start from random weights of the same sizes instead, as a baseline")
    task: str = option("", "the task to fine-tune on", choices=FINETUNED, required=True)
    train: str = option(
        "",
        "a file of training examples: CSV, TSV, JSONL, Parquet, CoNLL columns or SQuAD JSON",
        identity=False,
        group=INPUT,
        required=True,
        path=READ,
    )
    dev: str = option(
        "",
        "a file of dev examples to evaluate on; default: hold out a fraction of --train",
        identity=False,
        group=INPUT,
        path=READ,
    )
    dev_fraction: float = option(
        0.0, f"without --dev: fraction of the distinct training texts to hold out as dev examples; 0: {DEFAULT_FRACTION:g}",
        low=0, high=0.5, group=INPUT,
    )  # fmt: skip
    dev_seed: int = option(
        0, "without --dev: random seed of the held-out split, independent of --seed", low=0, high=2**63 - 1, group=INPUT
    )
    labels: str = option(
        "", "labels, separated by commas; default: those of the preset, or those in the training file", group=INPUT
    )
    metric: str = option("", "metric that selects the best checkpoint; default: the task's first metric")
    threshold: float = option(0.5, "multilabel: minimum probability to assign a label", low=0, high=1)
    class_weights: tuple[str, ...] = option(
        (), "weight of each label in the training loss: none (the default), balanced (rare labels count more), "
        "or LABEL=WEIGHT for some; for classify, multilabel and tags", metavar="LABEL=WEIGHT",
    )  # fmt: skip
    max_seq_length: int = option(128, "truncate texts to this many tokens (spans: tokens per window)", low=8, high=65536)
    doc_stride: int = option(
        128, "spans: stride between the windows of a long context, in tokens; at most half a window", low=1, high=65536
    )
    max_answer_length: int = option(30, "spans: maximum number of tokens in an answer", low=1, high=65536)
    head: str = option("linear", "head on top of the encoder; bilstm: two BiLSTM layers, for tags only", choices=HEAD_CHOICES)
    layers: str = option("", f"encoder layers that feed the head, concatenated; default: the last one, for bilstm {LAST_FOUR}")
    frozen: bool = option(False, "freeze the encoder and train only the head (feature-based approach)")


@dataclass(frozen=True)
class FinetuneConfig(TuningOptions, TaskOptions):
    """`clozemill finetune`"""

    seeds: int = option(
        1,
        "number of runs, with seed, seed + 1, ...; reports their mean and standard deviation",
        low=1,
        high=1000,
        identity=False,
    )
    sweep: tuple[str, ...] = option(
        (), "run all combinations of values, such as learning_rate=2e-5,5e-5 batch_size=16,32; paper: the BERT paper's grid",
        identity=False, metavar="NAME=VALUES",
    )  # fmt: skip

    def check_command(self) -> None:
        """Raise UserError for a folder that can't be used, before TensorFlow is imported."""
        if not self.sweep and self.seeds == 1:
            super().check_command()

    def validate(self) -> None:
        """Raise UserError for values that contradict each other."""
        super().validate()
        if self.layers:
            layers(self.layers)
        if self.dev and (self.dev_fraction or self.dev_seed):
            raise UserError(
                "--dev can't be combined with --dev-fraction or --dev-seed, which hold out dev examples: leave out one of them"
            )
        kind = TASKS[self.task].kind if self.task else ""
        if kind and kind != "multilabel" and (self.label_separator or self.label_columns or self.threshold != 0.5):
            raise UserError(
                "--label-separator, --label-columns and --threshold are for texts with several labels: give --task multilabel, "
                "or leave them out"
            )
        if self.label_columns and (self.label_column or self.labels or self.label_separator):
            raise UserError("--label-columns names the labels: leave --label-column, --label-separator and --labels out")
        if kind and self.labels and kind not in WEIGHTED:
            raise UserError(f"--labels: --task {self.task} has no labels to name: leave it out")
        if kind and parsed_weights(self.class_weights) != NONE and kind not in WEIGHTED:
            raise UserError(f"--class-weights: --task {self.task} has no labels to weight: leave it out")
        if self.task and self.head == "bilstm" and TASKS[self.task].kind != "tags":
            raise UserError(
                f"--head bilstm is for tasks that tag every word, and --task {self.task} doesn't: use it with conll or tags"
            )
