"""Baselines that answer without looking at the text, and warnings about results that are no better."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clozemill.model.task_model import Task
from clozemill.trainers.finetuning.metrics import METRICS
from clozemill.trainers.finetuning.tasks.base import BLIND, Example
from clozemill.trainers.finetuning.tasks.task_type import TaskType


@dataclass(frozen=True)
class Baseline:
    """A baseline: one that gives the same answer to all dev examples, unless `how` says otherwise.

    Args:
        name: description for people.
        scores: scores by metric, None if undefined.
        measurable: metrics that the dev examples can measure. Excludes those on which even perfect answers score nothing
            (entity F1 without any entity).
        how: what gives the answers, for messages: "without looking at the text".
    """

    name: str
    scores: dict[str, float | None]
    measurable: tuple[str, ...]
    how: str = BLIND

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON."""
        return {"answer": self.name, **({} if self.how == BLIND else {"how": self.how}), **self.scores}


# Metrics of spans: they compare with a list of right answers, so the expected value isn't a valid answer itself.
ALWAYS_MEASURED = {"f1", "exact_match"}


def scored(names: Sequence[str], expected: Any, given: Any) -> dict[str, float | None]:
    """Return metrics by name, None if undefined."""
    found = {name: METRICS[name](expected, given) for name in names}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def baseline(
    task_type: TaskType, task: Task, metrics: Sequence[str], train: Sequence[Example], dev: Sequence[Example]
) -> Baseline:
    """Return the baseline of a task on its dev examples: the answer that fits the training examples best."""
    name, answers = task_type.baseline(train, dev)
    expected, given = task_type.references_and_predictions(dev, answers, task)
    perfect = scored([name for name in metrics if name not in ALWAYS_MEASURED], expected, expected)
    measurable = tuple(name for name in metrics if name in ALWAYS_MEASURED or (perfect[name] or 0.0) > 0)
    return Baseline(name, scored(metrics, expected, given), measurable, task_type.compared_with)


FEW = 50  # dev examples: with 50, each right answer is worth 2 points


def warnings(train: Sequence[Example], dev: Sequence[Example]) -> list[str]:
    """Return warnings about the examples before training: identical answers, or few dev examples."""
    found = []
    for name, examples in (("training", train), ("dev", dev)):
        if len(examples) > 1 and all(example.answer == examples[0].answer for example in examples):
            told = "the model can't learn from them" if name == "training" else "they can't evaluate a model"
            found.append(f"all {len(examples):,} {name} examples have the same answer: {told}")
    return found + few_warnings(dev)


def few_warnings(dev: Sequence[Example]) -> list[str]:
    """Return a warning if there are dev examples, but few."""
    return [f"only {len(dev):,} dev examples: metrics on so few are mostly chance"] if 0 < len(dev) < FEW else []


def _flat(answers: Sequence[dict[str, Any]]) -> list[Any]:
    """Flatten the answers of any task type: the tags of all sentences, one by one; a set of labels is one answer."""
    if answers and "tags" in answers[0]:
        return [tag for answer in answers for tag in answer["tags"]]
    name = next(name for name in ("label", "labels", "answer", "score") if name in answers[0])
    return [float(f"{answer[name]:.6g}") if name == "score" else answer[name] for answer in answers]


def better(name: str, scores: dict[str, Any], base: Baseline) -> bool:
    """Return whether a metric is defined and better than the baseline."""
    mine = scores[name]
    return mine is not None and mine > (base.scores[name] or 0.0)


def remarks(names: Sequence[str], scores: dict[str, float | None], answers: Sequence[dict], base: Baseline) -> list[str]:
    """Return warnings about a result that ignores the text, or is no better than the baseline.

    Args:
        names: names of the metrics; the first one selects the best checkpoint.
        answers: the model's answers to the dev examples.
    """
    given, found = _flat(answers), []
    if len(given) > 1 and all(one == given[0] for one in given):
        told = given[0] if given[0] else "nothing"
        found.append(f"the model answers {told!r} all {len(given):,} times: it doesn't distinguish the examples")
    name = names[0]
    mine, theirs = scores[name], base.scores[name]
    if mine is None:
        found.append(f"{name} is undefined for these answers")
    elif not better(name, scores, base):
        told = "undefined" if theirs is None else f"{theirs:.4f}"
        found.append(f"{name} {mine:.4f} is no better than {base.how} ({base.name}: {told})")
    return found
