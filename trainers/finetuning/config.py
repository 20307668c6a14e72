"""What can be configured of fine-tuning, predicting and extracting features, as config.py does for pretraining.

To add a task's preset, see presets.py; to add an option, a field.
"""

import math
from dataclasses import dataclass, replace

from clozemill.model.config import EncoderConfig
from clozemill.pipelines.command_line.options import option
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.config import DeviceOptions
from clozemill.trainers.finetuning.task_presets import PUBLISHED, TASKS, Layout

HEAD_CHOICES = ("linear", "bilstm")
LAST_FOUR = "-1,-2,-3,-4"
DEFAULT_FRACTION = 0.1  # of the training texts, held out where there is no dev file
NONE, BALANCED = "none", "balanced"  # --class-weights
WEIGHTED = ("classify", "multilabel", "tags")  # kinds of tasks whose labels can have weights


def _weights_in(text: str) -> list[str]:
    """At its commas, unless a label itself has one: 'a=1,b=2' is two, 'a,b=2' is one."""
    parts = text.split(",")
    return parts if all("=" in part for part in parts) else [text]


def parsed_weights(given: tuple[str, ...]) -> dict[str, float] | str:
    """'none', 'balanced', or weights by name from words such as 'spam=5', or 'spam=5,ham=1'. Raises UserError."""
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
        raise UserError("--class-weights are all 0, so nothing would be learnt: give one above 0")
    return found


def layers(text: str) -> tuple[int, ...]:
    """'-1,-2' as numbers. Raises UserError for anything else."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--layers {text!r} is no list of layers: give numbers, such as --layers={LAST_FOUR}") from None


def layers_of(text: str, encoder: EncoderConfig, name: str) -> tuple[int, ...]:
    """Layers of an encoder called `name`, counted from its last one, -1; of the last four, as many as there are.

    Raises UserError for layers that it hasn't.
    """
    count = encoder.num_hidden_layers + 1
    chosen = [layer for layer in layers(text) if text != LAST_FOUR or -count <= layer]
    if not all(-count <= layer < count for layer in chosen):
        raise UserError(f"--layers {text}: {name} has the layers 0 (its embeddings) to {count - 1}: give some of these")
    return tuple(layer - count if layer >= 0 else layer for layer in chosen)


@dataclass(frozen=True)
class TextColumn:
    """Where the texts stand in a table, and how many of its rows may be unusable."""

    text_column: str = option("", "the text: a column's name, or its number from 0 where there is no header")
    header: str = option("auto", "whether the first line names the columns", choices=("auto", "yes", "no"))
    max_reject_rate: float | None = option(
        None,
        "maximum fraction of unusable rows before the command fails; they are counted and reported (default: 0; "
        f"{PUBLISHED:g} for {', '.join(name for name, task in TASKS.items() if task.max_reject_rate)})",
        low=0, high=1, identity=False,
    )  # fmt: skip

    def allowed(self, task: str) -> float:
        """The fraction of a file's rows that may be unusable for a task."""
        return TASKS[task].max_reject_rate if self.max_reject_rate is None else self.max_reject_rate


@dataclass(frozen=True)
class PairColumn(TextColumn):
    """Where second texts stand; what isn't given is as it was in fine-tuning."""

    pair_column: str = option("", "a second text, likewise")


@dataclass(frozen=True)
class Columns(PairColumn):
    """Where the answers stand, too; what isn't given is as the task's preset has it."""

    label_column: str = option("", "the answer, likewise: a label, a number, or tags; multilabel: a list, or a cell of labels")
    label_separator: str = option("", "multilabel: what separates the labels of a cell, such as , or ; or |")
    label_columns: tuple[str, ...] = option(
        (), "multilabel: columns of 0 and 1, one per label, instead of --label-column", metavar="COLUMN"
    )

    def layout(self, task: str) -> Layout:
        """The preset's layout of a file, changed by what was given."""
        layout = TASKS[task].layout.changed(
            text=self.text_column, pair=self.pair_column, label=self.label_column, header=self.header
        )
        return replace(layout, separator=self.label_separator, flags=self.label_columns)


@dataclass(frozen=True)
class FinetuneConfig(Columns, DeviceOptions):
    """`clozemill finetune`"""

    init: str = option(
        "",
        "what to begin with: a run, a checkpoint, or a SavedModel of clozemill export (its values are read, it isn't run)",
        identity=False,
    )
    from_scratch: bool = option(False, "begin with random weights of the same sizes instead, for comparison")
    task: str = option("", "what is learnt", choices=tuple(TASKS))
    train: str = option("", "the examples to learn from: CSV, TSV, JSONL, Parquet, CoNLL columns or SQuAD JSON", identity=False)
    dev: str = option("", "the examples to evaluate on, likewise; default: a held-out share of --train", identity=False)
    dev_fraction: float = option(
        0.0, f"without --dev: share of the distinct training texts to hold out as dev examples; 0: {DEFAULT_FRACTION:g}",
        low=0, high=0.5,
    )  # fmt: skip
    dev_seed: int = option(0, "without --dev: seed of the held-out share, the same whatever --seed", low=0, high=2**63 - 1)
    output: str = option("", "the run's folder", identity=False)
    labels: str = option("", "the labels, with commas between; default: the preset's, or those in the training file")
    metric: str = option("", "what the best checkpoint is chosen by; default: the task's first")
    threshold: float = option(0.5, "multilabel: the probability from which a label is given", low=0, high=1)
    class_weights: tuple[str, ...] = option(
        (), "how much each label's examples count in the training loss: none (the default), balanced (rare labels count more), "
        "or LABEL=WEIGHT for some; for classify, multilabel and tags", metavar="LABEL=WEIGHT",
    )  # fmt: skip
    max_seq_length: int = option(128, "tokens that texts are cut to (spans: of a window)", low=8, high=65536)
    doc_stride: int = option(
        128, "spans: tokens from a long context's window to the next; at most half a window", low=1, high=65536
    )
    max_answer_length: int = option(30, "spans: the maximum number of tokens of an answer", low=1, high=65536)
    head: str = option("linear", "what answers; bilstm: two layers of it, for tags", choices=HEAD_CHOICES)
    layers: str = option("", f"what the head sees: layers side by side; default: the last, for bilstm {LAST_FOUR}")
    frozen: bool = option(False, "train the head alone: the feature-based approach")
    epochs: float = option(3.0, "passes over the examples", low=0, high=10_000)
    batch_size: int = option(32, "examples per update, over all devices", low=1, high=1 << 20)
    gradient_accumulation_steps: int = option(1, "parts that a device's batch is worked through in", low=1, high=1 << 16)
    learning_rate: float = option(3e-5, "its peak", low=0, high=100)
    patience: int = option(0, "stop after so many evaluations in a row without improvement; 0: never", low=0, high=1 << 30)
    min_delta: float = option(0.0, "with --patience: smallest change of the metric that counts as improvement", low=0)
    warmup_share: float = option(0.1, "share of the steps in which it rises", low=0, high=1)
    optimizer: str = option("adamw", "the update rule", choices=("adamw", "lamb"))
    weight_decay: float = option(0.01, "of all but biases and LayerNorm", low=0, high=10)
    clip_norm: float = option(1.0, "the gradients' global norm is cut to this; 0: not", low=0)
    dropout: float = option(0.1, "share of hidden activations dropped", low=0, high=0.9)
    attention_dropout: float = option(0.1, "share of attention probabilities dropped", low=0, high=0.9)
    seed: int = option(0, "of the head's initial weights, order of the examples and dropout", low=0, high=2**63 - 1)
    seeds: int = option(
        1, "so many runs, with seed, seed + 1, ...; their mean and deviation are told", low=1, high=1000, identity=False
    )
    sweep: tuple[str, ...] = option(
        (), "every combination of values, such as learning_rate=2e-5,5e-5 batch_size=16,32; or paper: BERT's own",
        identity=False, metavar="NAME=VALUES",
    )  # fmt: skip
    steps_per_call: int = option(10, "steps done on the device before the host looks", low=1, high=1 << 16, identity=False)
    checkpoint_steps: int = option(
        0, "save every so many steps, besides every epoch; 0: not", low=0, high=1 << 30, identity=False
    )
    checkpoint_minutes: float = option(15.0, "save after so many minutes; 0: not by time", low=0, identity=False)
    keep_checkpoints: int = option(1, "the newest so many are kept, and the best", low=1, high=1000, identity=False)
    eval_steps: int = option(
        0, "judge (and save) every so many steps; 0: after every epoch", low=0, high=1 << 30, identity=False
    )
    log_steps: int = option(50, "a line of figures every so many steps", low=1, high=1 << 30, identity=False)
    tensorboard: bool = option(True, "write scalars for TensorBoard", identity=False)
    peak_tflops: float = option(0.0, "of one device, for utilisation; 0: from a table of known ones", low=0, identity=False)

    def validate(self) -> None:
        """Raises UserError for values that don't fit each other."""
        if self.layers:
            layers(self.layers)
        if not self.epochs:
            raise UserError("--epochs is 0: give a number above it")
        if self.dev and (self.dev_fraction or self.dev_seed):
            raise UserError(
                "--dev gives the dev examples, which --dev-fraction and --dev-seed hold out: leave one or the other out"
            )
        if self.min_delta and not self.patience:
            raise UserError("--min-delta changes nothing without --patience: give both")
        kind = TASKS[self.task].kind if self.task else ""
        if kind and kind != "multilabel" and (self.label_separator or self.label_columns or self.threshold != 0.5):
            raise UserError(
                "--label-separator, --label-columns and --threshold are for texts with several labels: give --task multilabel, "
                "or leave them out"
            )
        if self.label_columns and (self.label_column or self.labels or self.label_separator):
            raise UserError("--label-columns names the labels: leave --label-column, --label-separator and --labels out")
        if kind and parsed_weights(self.class_weights) != NONE and kind not in WEIGHTED:
            raise UserError(f"--class-weights: --task {self.task} has no labels to weigh: leave it out")
        if self.task and self.head == "bilstm" and TASKS[self.task].kind != "tags":
            raise UserError(f"--head bilstm answers for every word, and --task {self.task} doesn't: give it for conll or tags")
