"""Plans a run of contrast before any device is used: its texts as rows, its graded pairs, its steps."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from clozemill.model.task_model import Task
from clozemill.model.text_crops import LEAST, mean_span
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.formatting import counted
from clozemill.pipelines.pages.content import Table
from clozemill.trainers.contrast.config import EVALUATIONS, LENGTH, ContrastConfig
from clozemill.trainers.contrast.defaults import choose_settings
from clozemill.trainers.data.text_encoder import TextEncoder, trimmed
from clozemill.trainers.engines.optimizer import default_clip_norm
from clozemill.trainers.finetuning import baselines, page_parts
from clozemill.trainers.finetuning.baselines import Baseline
from clozemill.trainers.finetuning.defaults import OPEN, log_interval
from clozemill.trainers.finetuning.finetuning_run import FinetuningRun, check_encoder, in_memory, read_examples
from clozemill.trainers.finetuning.task_presets import TASKS
from clozemill.trainers.finetuning.tasks.base import Example, Rows
from clozemill.trainers.finetuning.tasks.classification import read_texts
from clozemill.trainers.finetuning.tasks.similarity import Similarity
from clozemill.trainers.training import run_folder
from clozemill.trainers.training.pretrained import PretrainedModel
from clozemill.trainers.training.run_protocols import RunStory

UNMEASURED = Baseline("", {}, ())  # without graded pairs
PAIRED = {"dropout": "dropout twice", "crop": "two spans of each text"}  # of --positives, in words


@dataclass(frozen=True)
class ContrastRun(FinetuningRun):
    """A run whose training rows are texts without labels, and whose dev examples, if any, are graded pairs.

    by_words: scores of a comparison of words, beside `baseline`, the scores without training. left_out: number of texts that
    were empty, and of those that were the same as another one.
    """

    by_words: Baseline = UNMEASURED
    left_out: tuple[int, int] = (0, 0)
    stage: ClassVar = "contrast"

    @property
    def evaluates_start(self) -> bool:  # type: ignore[override]  # finetune never does
        return bool(self.dev_examples)

    @property
    def source(self) -> str:
        return self.config.input

    @property
    def tokens_per_row(self) -> float:
        whole = super().tokens_per_row
        return mean_span(whole) if self.task.positives == "crop" else whole

    @property
    def title(self) -> str:
        return f"contrast, {self.task.head} pooling, {self.steps:,} steps"

    def story(self) -> RunStory:
        """Return what the page of the run says besides its metrics."""
        config, name = self.config, self.initial.name
        lead = [
            f"An encoder learns vectors of texts without labels, as in SimCSE. It starts from {name}.",
            f"{counted(len(self.train), 'distinct text')}, {counted(len(self.dev_examples), 'graded pair')}.",
        ]
        rows = [
            ("texts", config.input),
            ("graded pairs", config.dev or "none"),
            ("pooling", self.task.head),
            ("two copies of a text", PAIRED[self.task.positives]),
            ("temperature", f"{self.task.temperature:g}"),
            ("dropout", f"{config.dropout:g}, of attention {config.attention_dropout:g}"),
            ("tokens per text, at most", str(self.task.max_seq_length)),
            ("steps", f"{self.steps:,} of {config.batch_size}, {config.epochs:g} epochs"),
        ]
        selected_by = "the highest Spearman correlation" if self.dev_examples else "the most steps"
        return RunStory("Contrastive run", lead, [Table("Data", "lt", ("item", "value"), rows)], selected_by=selected_by)

    def summary(self, figures: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
        """Return the result of an evaluation beside those without training and of a comparison of words."""
        text, tiles = page_parts.summary(self.metrics, self.baseline, figures)
        first = self.metrics[0]
        others = [(f"{first} {each.how}", page_parts.shown(each.scores[first])) for each in (self.baseline, self.by_words)]
        return text, [*tiles[:-1], *others]


def distinct_rows(texts: Iterable[Example], encoder: TextEncoder) -> tuple[Rows, tuple[int, int]]:
    """Return texts as rows, each once, and the numbers of those that were left out: empty ones, and copies of others.

    Texts are the same if their rows are: a copy in the same batch would have to be told apart from itself.

    The rows have the targets `labels`, int32 [N], their numbers, and `weights`, float32 [N], all 1.
    """
    room, found, empty, copies, truncated = encoder.max_seq_length - 2, dict[bytes, np.ndarray](), 0, 0, 0
    for ids in encoder.ids([encoder.beginning(text.text) for text in texts]):
        kept = ids[:room]
        if (key := kept.tobytes()) in found:
            copies += 1
        elif len(kept):
            truncated += len(kept) < len(ids)
            found[key] = kept
        else:
            empty += 1
    features = trimmed(encoder.pack([(ids, None) for ids in found.values()]))
    targets = {"labels": np.arange(len(found), dtype=np.int32), "weights": np.ones(len(found), np.float32)}
    return Rows(features | targets, truncated=truncated), (empty, copies)


def _train_rows(config: ContrastConfig, encoder: TextEncoder) -> tuple[Rows, tuple[int, int]]:
    """Return the training rows, and what was left out, as `distinct_rows`. Raises UserError for too few texts."""
    texts = in_memory(read_texts(config.input, config), config.input)
    found, left_out = distinct_rows(texts, encoder)
    if len(found) < 2:
        told = "no texts" if not len(found) else "only one distinct text"
        raise UserError(f"{config.input} has {told}, and every text is compared with others: give a file with more of them")
    if len(found) < (config.batch_size or 0):
        raise UserError(
            f"{config.input} has {len(found):,} distinct texts, fewer than a batch of {config.batch_size:,}: give more texts, "
            f"or a --batch-size of at most {len(found):,}"
        )
    return found, left_out


def _span_warnings(config: ContrastConfig, train: Rows) -> list[str]:
    """Return a warning if the spans of most texts are all of the text.

    Raises UserError if both vectors of every text would be the same.
    """
    if config.positives != "crop":
        return []
    whole = int(np.count_nonzero(train.features["input_mask"].sum(axis=1) - 2 <= LEAST))
    if whole == len(train) and config.dropout == 0 and config.attention_dropout == 0:
        raise UserError(
            f"{config.input}: no text has more than {LEAST} tokens, so each span is all of its text, and without dropout both "
            "vectors of a text would be the same: give longer texts, a larger --max-seq-length, or --dropout above 0"
        )
    if 2 * whole <= len(train):
        return []
    return [
        f"{whole:,} of {len(train):,} texts have at most {LEAST} tokens, so that each of their spans is all of the text, and "
        "--positives crop does nothing for them: give longer texts, a larger --max-seq-length, or --positives dropout"
    ]


def _dev(
    config: ContrastConfig, task_type: Similarity, task: Task, encoder: TextEncoder
) -> tuple[list[Example], Rows, Baseline]:
    """Return the graded pairs, their rows, and the scores of a comparison of words. Raises UserError."""
    if not config.dev:
        return [], Rows({}), UNMEASURED
    examples, metrics = read_examples(task_type, config.dev, config, {}), TASKS[config.task].metrics
    words = baselines.baseline(task_type, task, metrics, examples, examples)
    if metrics[0] not in words.measurable:
        raise UserError(f"{config.dev}: all pairs are equally similar, so they can't evaluate a model: give other pairs")
    rows = task_type.encode(examples, task, encoder, answers=True)
    return examples, replace(rows, features=trimmed(rows.features)), words


def plan_contrast(config: ContrastConfig, initial: PretrainedModel) -> ContrastRun:
    """Read the files and check that they, the options and the model fit together. Raises UserError."""
    length = config.max_seq_length or min(LENGTH, initial.encoder.max_position_embeddings)
    check_encoder(initial, config.task, length)
    task = Task(config.task, head=config.pooling, max_seq_length=length, temperature=config.temperature,
                positives=config.positives)  # fmt: skip
    task_type, encoder = Similarity(), initial.text_encoder(length)
    train, left_out = _train_rows(config, encoder)
    examples, dev, words = _dev(config, task_type, task, encoder)
    recorded = run_folder.resumed(config, "config") or {}
    given = {name: recorded.get(name) if getattr(config, name) is None else getattr(config, name) for name in OPEN}
    parts, positives = config.gradient_accumulation_steps, config.positives
    settings, reasons = choose_settings(given, initial.encoder, len(train), parts, positives)
    completed = replace(
        config,
        max_seq_length=length,
        eval_steps=config.eval_steps or math.ceil(settings.steps(len(train)) / EVALUATIONS),
        log_steps=config.log_steps or log_interval(len(train), settings),
        clip_norm=default_clip_norm(config.optimizer) if config.clip_norm is None else config.clip_norm,
        **asdict(settings),
    )
    warnings = [*_span_warnings(config, train), *baselines.few_warnings(examples)]
    return ContrastRun(
        completed, initial, task, TASKS[config.task].metrics, train, dev, examples, task_type, words, settings, reasons,
        warnings=warnings, chosen=run_folder.chosen_options(config, completed), by_words=words, left_out=left_out,
    )  # fmt: skip
