"""The options of `finetune`, and the column options that `predict` and `embed` share with it.

To add a task, see task_presets.py; to add an option, add a field.
"""

import math
from dataclasses import dataclass, replace

from clozemill.model.config import EncoderConfig
from clozemill.pipelines.command_line.options import INPUT, OUTPUT, READ, RUNNING, option
from clozemill.pipelines.command_line.overwriting import START_OVER, overwrite_option
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.config import OPTIMIZER_NAMES, TRACKER_NAMES, TrainingOptions, check_run_folder
from clozemill.trainers.finetuning.task_presets import PUBLISHED, TASKS, Layout

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

    text_column: str = option("", "column of the text: its name, or its number from 0 if there is no header", group=INPUT)
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
        "column of the answer (a label, a number or tags; multilabel: a list or a cell of labels): its name or number",
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
class FinetuneConfig(Columns, TrainingOptions):
    """`clozemill finetune`"""

    init: str = option(
        "",
        "the pretrained model: a run (its best checkpoint), a checkpoint, or a SavedModel of clozemill export",
        identity=False,
        group=INPUT,
        required=True,
        path=READ,
    )
    from_scratch: bool = option(False, "start from random weights of the same sizes instead, as a baseline")
    task: str = option("", "the task to fine-tune on", choices=tuple(TASKS), required=True)
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
    output: str = option("", "the folder of the run", identity=False, group=OUTPUT, required=True)
    overwrite: bool = overwrite_option(START_OVER)
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
    epochs: float | None = option(
        None,
        "passes over the training examples (default: 3 to 8 by the size of the encoder; more for few examples)",
        low=0,
        high=10_000,
    )
    batch_size: int | None = option(
        None, "examples per update, across all devices (default: 32; 16 for few examples)", low=1, high=1 << 20
    )
    gradient_accumulation_steps: int = option(
        1, "number of micro-batches that each device's batch is split into", low=1, high=1 << 16
    )
    learning_rate: float | None = option(
        None, "peak learning rate (default: 2e-5 to 1e-3, the higher the narrower the encoder)", low=0, high=100
    )
    patience: int = option(0, "stop after this many evaluations in a row without improvement; 0: never", low=0, high=1 << 30)
    min_delta: float = option(0.0, "with --patience: smallest change of the metric that counts as an improvement", low=0)
    warmup_share: float = option(0.1, "fraction of the steps over which the learning rate warms up", low=0, high=1)
    optimizer: str = option(
        "adamw", "optimizer; muon is for the matrices of the layers, with adamw for the rest", choices=OPTIMIZER_NAMES
    )
    weight_decay: float = option(0.01, "weight decay of all weights except biases and LayerNorm", low=0, high=10)
    clip_norm: float | None = option(
        None, "clip the global norm of the gradients to this; 0: no clipping (default: 1; 0 with stable-adamw)", low=0
    )
    dropout: float = option(0.1, "dropout rate of hidden activations", low=0, high=0.9)
    attention_dropout: float = option(0.1, "dropout rate of attention probabilities", low=0, high=0.9)
    seed: int = option(0, "random seed of the head's initial weights, the order of examples and dropout", low=0, high=2**63 - 1)
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
    steps_per_call: int = option(10, "training steps per host call", low=1, high=1 << 16, identity=False, group=RUNNING)
    checkpoint_steps: int = option(
        0,
        "save a checkpoint every this many steps, besides every epoch; 0: every epoch only",
        low=0,
        high=1 << 30,
        identity=False,
        group=RUNNING,
    )
    checkpoint_minutes: float = option(
        15.0, "save a checkpoint every this many minutes; 0: off", low=0, identity=False, group=RUNNING
    )
    keep_checkpoints: int = option(
        1, "number of newest checkpoints to keep, besides the best one", low=1, high=1000, identity=False, group=RUNNING
    )
    eval_steps: int = option(
        0, "evaluate (and save) every this many steps; 0: after every epoch", low=0, high=1 << 30, identity=False, group=RUNNING
    )
    log_steps: int | None = option(
        None, "log metrics every this many steps (default: 50; fewer in a run of fewer than 1,250 steps)",
        low=1, high=1 << 30, identity=False, group=RUNNING,
    )  # fmt: skip
    tensorboard: bool = option(True, "write TensorBoard logs", identity=False, group=RUNNING)
    track: str = option(
        "",
        "experiment tracker to log to as well; its own environment variables say where",
        choices=TRACKER_NAMES,
        identity=False,
        group=RUNNING,
    )
    peak_tflops: float = option(
        0.0,
        "peak TFLOP/s of one device, to compute utilisation; 0: look it up by device name",
        low=0,
        identity=False,
        group=RUNNING,
    )

    def check_command(self) -> None:
        """Raise UserError for a folder that can't be used, before TensorFlow is imported."""
        if not self.sweep and self.seeds == 1:
            check_run_folder(self.output)

    def validate(self) -> None:
        """Raise UserError for values that contradict each other."""
        if self.layers:
            layers(self.layers)
        if self.epochs == 0:
            raise UserError("--epochs is 0: give a number above 0")
        if self.dev and (self.dev_fraction or self.dev_seed):
            raise UserError(
                "--dev can't be combined with --dev-fraction or --dev-seed, which hold out dev examples: leave out one of them"
            )
        if self.min_delta and not self.patience:
            raise UserError("--min-delta has no effect without --patience: give both")
        kind = TASKS[self.task].kind if self.task else ""
        if kind and kind != "multilabel" and (self.label_separator or self.label_columns or self.threshold != 0.5):
            raise UserError(
                "--label-separator, --label-columns and --threshold are for texts with several labels: give --task multilabel, "
                "or leave them out"
            )
        if self.label_columns and (self.label_column or self.labels or self.label_separator):
            raise UserError("--label-columns names the labels: leave --label-column, --label-separator and --labels out")
        if kind and parsed_weights(self.class_weights) != NONE and kind not in WEIGHTED:
            raise UserError(f"--class-weights: --task {self.task} has no labels to weight: leave it out")
        if self.task and self.head == "bilstm" and TASKS[self.task].kind != "tags":
            raise UserError(
                f"--head bilstm is for tasks that tag every word, and --task {self.task} doesn't: use it with conll or tags"
            )
