"""Plans a fine-tuning run before any device is used: its examples as rows, its steps, its evaluation."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from clozemill.model.config import EncoderConfig
from clozemill.model.flops import task_flops_per_row
from clozemill.model.task_heads import TASK_HEADS
from clozemill.model.task_model import Task
from clozemill.pipelines.command_line import options
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.data.text_encoder import trimmed
from clozemill.trainers.engines.optimizer import Hyper, Schedule, default_clip_norm
from clozemill.trainers.finetuning import baselines, defaults, page_parts
from clozemill.trainers.finetuning import class_weights as finetuning_class_weights
from clozemill.trainers.finetuning import held_out as finetuning_held_out
from clozemill.trainers.finetuning.baselines import Baseline
from clozemill.trainers.finetuning.config import DEFAULT_FRACTION, LAST_FOUR, FinetuneConfig, layers_of
from clozemill.trainers.finetuning.defaults import OPEN, Settings
from clozemill.trainers.finetuning.finetuning_phase import FinetuningPhase
from clozemill.trainers.finetuning.task_presets import TASKS
from clozemill.trainers.finetuning.tasks.base import Example, Rows
from clozemill.trainers.finetuning.tasks.registry import TASK_TYPES
from clozemill.trainers.finetuning.tasks.task_type import TaskType
from clozemill.trainers.training import run_folder
from clozemill.trainers.training.pretrained import PretrainedModel, digest
from clozemill.trainers.training.run_protocols import RunStory

MAX_CHARACTERS = 1 << 31  # of all texts of a file, which are all in memory


@dataclass(frozen=True)
class FinetuningRun:
    """Everything about a run that follows from its configuration, its files and its pretrained model."""

    config: Any  # a FinetuneConfig, or in contrast.contrast_run a ContrastConfig
    initial: PretrainedModel
    task: Task
    metrics: tuple[str, ...]
    train: Rows
    dev: Rows
    dev_examples: Sequence[Example]
    task_type: TaskType
    baseline: Baseline
    settings: Settings
    reasons: tuple[str, ...] = ()  # what was chosen for options that were left open, and why
    held_out: dict[str, Any] | None = None  # how the dev examples were split off the training file
    class_weights: dict[str, float] | None = None  # by label, in the training loss
    warnings: Sequence[str] = ()  # problems of the examples
    chosen: dict[str, Any] = field(default_factory=dict)  # the options that the user left open
    stage: ClassVar = "finetune"
    evaluates_start: ClassVar = False

    @cached_property
    def encoder(self) -> EncoderConfig:
        config = self.config
        own = self.initial.encoder
        rates = {"hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": config.attention_dropout}
        return replace(own, remat=False, **rates)  # --remat is of pretraining, whose batches are larger

    @property
    def source(self) -> str:
        """Return the file that is trained on, for messages."""
        return self.config.train

    @property
    def vocabulary(self) -> bytes:
        return self.initial.vocabulary_bytes

    @property
    def tokenizer(self) -> bytes:
        return self.initial.tokenizer

    @property
    def steps(self) -> int:
        return self.settings.steps(len(self.train))

    @property
    def phases(self) -> tuple[FinetuningPhase, ...]:
        warmup = math.ceil(self.steps * self.config.warmup_share)
        schedule = Schedule(self.settings.learning_rate, warmup, self.steps)
        return (FinetuningPhase(self, self.steps, self.settings.batch_size, schedule),)

    @property
    def hyper(self) -> Hyper:
        if (clip_norm := self.config.clip_norm) is None:
            raise ValueError("clip_norm is None: plan_run chooses it")
        return Hyper(weight_decay=self.config.weight_decay, clip_norm=clip_norm)

    @property
    def title(self) -> str:
        return f"{self.config.task}, learning rate {self.settings.learning_rate:g}, {self.steps:,} steps"

    def flops(self, phase: FinetuningPhase) -> int:
        """Return the FLOPs per example, in the layers that the head needs."""
        layers = max(layer % (self.encoder.num_hidden_layers + 1) for layer in self.task.layers)  # 0: the embeddings
        flops = task_flops_per_row(self.encoder, round(self.tokens_per_row), layers, self.task.frozen)
        return TASK_HEADS[self.task.kind].copies * flops

    @property
    def tokens_per_row(self) -> float:
        """Return the mean number of tokens that are encoded of an example. Padding doesn't count as work."""
        return float(self.train.features["input_mask"].sum(axis=1).mean())

    def advice(self) -> str:
        """Return what to try after a result that is no better than the baseline."""
        config = self.config
        return defaults.advice(self.settings, self.initial.encoder, len(self.train), config.frozen, config.from_scratch)

    def story(self) -> RunStory:
        return page_parts.story(self)

    def summary(self, figures: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
        return page_parts.summary(self.metrics, self.baseline, figures)

    def about(self, step: int = 0) -> dict[str, Any]:
        """Return what every checkpoint records of its model."""
        length = max(self.task.max_seq_length, 0 if self.config.from_scratch else self.initial.trained_length)
        task = {"task": self.task.to_dict(), "preset": self.config.task, "trained_length": length}
        layout = {"layout": asdict(self.config.layout(self.config.task))}  # predict reads its files with this layout
        chosen = {"held_out": self.held_out, "class_weights": self.class_weights}
        start = {} if self.config.from_scratch else {"base_model": self.initial.origin, "data": self.initial.data}
        measured = {"baseline": self.baseline.to_dict()} if self.dev_examples else {}
        results = {**measured, **{name: value for name, value in chosen.items() if value}}
        return {
            "encoder": self.encoder.to_dict(),
            **task,
            **layout,
            **start,
            **results,
            "vocabulary": self.initial.index["vocabulary"],
        }

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the losses of a run; it must match on resume."""
        start = "random weights" if self.config.from_scratch else digest(self.initial.encoder_weights)
        data: dict[str, Any] = {"order": "similar lengths", "init": start}
        data |= {"train": digest(self.train.features), "dev": digest(self.dev.features)}
        if self.config.patience:  # evaluations then determine where the run ends
            data["eval_steps"] = self.config.eval_steps
        return options.identity(self.config) | data


def _metrics(config: FinetuneConfig) -> tuple[str, ...]:
    """Return the preset's metrics, the chosen one first. Raises UserError for a metric that the task doesn't have."""
    known = TASKS[config.task].metrics
    if config.metric and config.metric not in known:
        raise UserError(f"unknown --metric {config.metric} for --task {config.task}; choose from {', '.join(known)}")
    return tuple(sorted(known, key=lambda name: name != config.metric)) if config.metric else known


def _measured_first(metrics: tuple[str, ...], base: Baseline, config: FinetuneConfig) -> tuple[str, ...]:
    """Return the metrics, those that the dev examples can't measure last: the first one selects the best checkpoint.

    Raises UserError if --metric is one of the latter.
    """
    if metrics[0] in base.measurable:
        return metrics
    where = config.dev or "the held-out split"
    told = f"{where} can't measure {metrics[0]}, since even perfect answers would score nothing"
    if config.metric:
        raise UserError(f"{told}: give other dev examples, or another --metric")
    found = tuple(sorted(metrics, key=lambda name: name not in base.measurable))
    print(f"note: {told}; the best checkpoint is selected by {found[0] if base.measurable else 'the dev loss'}")
    return found


def _labels(config: FinetuneConfig) -> dict[str, str]:
    """Return the label names by their spelling in the files; {} to accept whatever the training file has."""
    if config.label_columns:
        return {label: label for label in config.label_columns}
    if config.labels:
        return {label.strip(): label.strip() for label in config.labels.split(",")}
    return dict(TASKS[config.task].labels)


def in_memory(examples: Iterable[Example], path: str) -> list[Example]:
    """Return examples of a file as a list. Raises UserError if they are too long to be all in memory."""
    found, characters = [], 0
    for example in examples:
        found.append(example)
        characters += example.characters
        if characters > MAX_CHARACTERS:
            raise UserError(f"{path} has more than {MAX_CHARACTERS:,} characters of text: give a part of it")
    return found


def read_examples(task_type: TaskType, path: str, config: Any, labels: dict[str, str]) -> list[Example]:
    """Return the examples of a file with their answers. Raises UserError if there are none, or they can't be used.

    config: a FinetuneConfig or ContrastConfig.
    """
    rate = config.allowed(config.task)
    found = task_type.read(path, config.layout(config.task), labels, answers=True, max_reject_rate=rate)
    examples = in_memory(found, path)
    if not examples:
        raise UserError(f"{path} has no examples: give a file with an example per line")
    task_type.check(examples)
    return examples


def _shares(task_type: TaskType, config: FinetuneConfig) -> tuple[list[Example], list[Example], tuple[str, ...], dict | None]:
    """Return (training examples, dev examples, label names, how dev examples were held out or None). Raises UserError."""
    labels = _labels(config)
    train = read_examples(task_type, config.train, config, labels)
    names = tuple(labels.values()) or task_type.names(train)
    if config.dev:
        return train, read_examples(task_type, config.dev, config, labels or {name: name for name in names}), names, None
    fraction = config.dev_fraction or DEFAULT_FRACTION
    split = finetuning_held_out.split(train, task_type, fraction, config.dev_seed, config.train)
    about = {"fraction": fraction, "seed": config.dev_seed, "train": len(split.train), "dev": len(split.dev)}
    print(
        f"no --dev: {len(split.dev):,} of the {len(train):,} examples are held out to evaluate on "
        f"(--dev-fraction {fraction:g}, --dev-seed {config.dev_seed})"
    )
    if split.lone:
        told = ", ".join(split.lone[:5]) + (f" and {len(split.lone) - 5} more" if len(split.lone) > 5 else "")
        print(f"note: {config.train}: only one text has {told}: it is used for training and not evaluated")
    return split.train, split.dev, names, about


def _task(config: FinetuneConfig, initial: PretrainedModel, names: tuple[str, ...], train: Sequence[Example]) -> Task:
    """Return the task of the model. Raises UserError for layers or labels that don't fit."""
    kind = TASKS[config.task].kind
    seen = config.layers or (LAST_FOUR if config.head == "bilstm" else "-1")
    try:
        return Task(
            kind,
            names,
            config.head,
            layers_of(seen, initial.encoder, initial.name),
            config.frozen,
            config.max_seq_length,
            no_answer=kind == "spans" and any(not example.answer for example in train),
            doc_stride=config.doc_stride,
            threshold=config.threshold,
            max_answer=config.max_answer_length,
        )
    except ValueError as error:
        raise UserError(f"{config.train}: {error}: give another file, or --labels") from None


def _settings(config: FinetuneConfig, encoder: EncoderConfig, rows: int) -> tuple[Settings, tuple[str, ...]]:
    """Return the settings, those left open as the run's folder records them or chosen, and reasons for the latter."""
    recorded = run_folder.resumed(config, "config") or {}
    given = {name: getattr(config, name) for name in OPEN}
    given = {name: recorded.get(name) if value is None else value for name, value in given.items()}
    return defaults.choose(given, encoder, rows, config.frozen, config.gradient_accumulation_steps)


def check_encoder(initial: PretrainedModel, kind: str, max_seq_length: int) -> None:
    """Raise UserError if a pretrained model can't be trained for a type of task, or on texts of a length."""
    initial.check_length(max_seq_length)
    if initial.encoder.attention == "causal" and not TASK_HEADS[kind].per_token:
        raise UserError(f"{initial.name} has causal attention, so its [CLS] sees no text: give a bidirectional model")


def plan_run(config: FinetuneConfig, initial: PretrainedModel) -> FinetuningRun:
    """Read the files and check that they, the options and the model fit together. Raises UserError."""
    preset = TASKS[config.task]
    check_encoder(initial, preset.kind, config.max_seq_length)
    task_type = TASK_TYPES[preset.kind](labels_nameable=True)
    train, dev, names, held = _shares(task_type, config)
    task = _task(config, initial, names, train)
    warned = baselines.warnings(train, dev)
    base = baselines.baseline(task_type, task, _metrics(config), train, dev)
    metrics = _measured_first(_metrics(config), base, config)
    encoder = initial.text_encoder(config.max_seq_length)
    rows = [task_type.encode(examples, task, encoder, answers=True) for examples in (train, dev)]
    train_rows, dev_rows = (replace(found, features=trimmed(found.features)) for found in rows)
    weights = finetuning_class_weights.class_weights(config.class_weights, train_rows.features, task)
    if weights is not None:
        train_rows = replace(train_rows, features=finetuning_class_weights.weigh(train_rows.features, task, weights))
    named = None if weights is None else dict(zip(task.labels, weights.tolist(), strict=True))
    settings, reasons = _settings(config, initial.encoder, len(train_rows))
    per_epoch = math.ceil(len(train_rows) / settings.batch_size)
    eval_steps, log_steps = config.eval_steps or per_epoch, config.log_steps or defaults.log_interval(len(train_rows), settings)
    clip_norm = default_clip_norm(config.optimizer) if config.clip_norm is None else config.clip_norm
    completed = replace(config, eval_steps=eval_steps, log_steps=log_steps, clip_norm=clip_norm, **asdict(settings))
    chosen = run_folder.chosen_options(config, completed)
    parts = (completed, initial, task, metrics, train_rows, dev_rows, dev, task_type, base, settings, reasons)
    return FinetuningRun(*parts, held, named, warned, chosen)
