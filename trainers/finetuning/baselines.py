"""What an answer without looking at the text is worth, so that a result can be compared with it, and plain words for one
that is no better.

To add a kind of task, add to BASELINES.
"""

import collections
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clozemill.model.task_model import Task
from clozemill.trainers.finetuning.metrics import METRICS
from clozemill.trainers.finetuning.tasks.base import Example


@dataclass(frozen=True)
class Baseline:
    """One answer for all dev examples.

    Args:
        name: in words. scores: by metric, None where it is undefined. measurable: the metrics that say anything on the dev
            examples at all: not those on which even a perfect answer scores nothing (entities, where there is none).
    """

    name: str
    scores: dict[str, float | None]
    measurable: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {"answer": self.name, **self.scores}


def _most_frequent(values: Sequence[Any]) -> Any:
    """Of equally frequent ones the first in order."""
    counts = collections.Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))


def _majority(train: Sequence[Example], dev: Sequence[Example]) -> tuple[str, list[dict]]:
    label = _most_frequent([example.answer for example in train])
    return f"always {label!r}, the most frequent label", [{"label": label}] * len(dev)


def _set(train: Sequence[Example], dev: Sequence[Example]) -> tuple[str, list[dict]]:
    labels = _most_frequent([tuple(sorted(example.answer)) for example in train])
    told = f"always {', '.join(map(repr, labels))}" if labels else "never a label"
    return f"{told}, the most frequent set of labels", [{"labels": list(labels)}] * len(dev)


def _mean(train: Sequence[Example], dev: Sequence[Example]) -> tuple[str, list[dict]]:
    mean = float(np.mean([example.answer for example in train]))
    return f"always {mean:.4g}, the mean", [{"score": mean}] * len(dev)


def _tag(train: Sequence[Example], dev: Sequence[Example]) -> tuple[str, list[dict]]:
    tag = _most_frequent([tag for example in train for tag in example.answer])
    return f"always {tag!r}, the most frequent tag", [{"tags": [tag] * len(example.words)} for example in dev]


def _nothing(train: Sequence[Example], dev: Sequence[Example]) -> tuple[str, list[dict]]:
    return "never an answer", [{"answer": ""}] * len(dev)


BASELINES: dict[str, Callable[[Sequence[Example], Sequence[Example]], tuple[str, list[dict]]]] = {
    "classify": _majority,
    "multilabel": _set,
    "regress": _mean,
    "tags": _tag,
    "spans": _nothing,
}
ALWAYS_MEASURED = {"f1", "exact_match"}  # of spans: they don't take what is expected as an answer


def scored(names: Sequence[str], expected: Any, given: Any) -> dict[str, float | None]:
    """Metrics by name, None where one is undefined."""
    found = {name: METRICS[name](expected, given) for name in names}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def baseline(kind: Any, task: Task, metrics: Sequence[str], train: Sequence[Example], dev: Sequence[Example]) -> Baseline:
    """The baseline of a task on its dev examples: the answer that suits the training examples best."""
    name, answers = BASELINES[task.kind](train, dev)
    expected, given = kind.judged(dev, answers, task)
    perfect = scored([name for name in metrics if name not in ALWAYS_MEASURED], expected, expected)
    measurable = tuple(name for name in metrics if name in ALWAYS_MEASURED or (perfect[name] or 0.0) > 0)
    return Baseline(name, scored(metrics, expected, given), measurable)


FEW = 50  # dev examples: one more right answer is worth 2 points


def warnings(train: Sequence[Example], dev: Sequence[Example]) -> list[str]:
    """What is wrong with the examples, before anything is trained: answers that are all alike, few dev examples."""
    found = []
    for name, examples in (("training", train), ("dev", dev)):
        if len(examples) > 1 and all(example.answer == examples[0].answer for example in examples):
            told = "nothing can be learnt from them" if name == "training" else "they can't tell a good model from a bad one"
            found.append(f"all {len(examples):,} {name} examples have the same answer: {told}")
    if len(dev) < FEW:
        found.append(f"only {len(dev):,} dev examples: metrics over so few are mostly chance")
    return found


def _flat(answers: Sequence[dict[str, Any]]) -> list[Any]:
    """What a kind's `answers` answer, one by one: the tags of all sentences; a set of labels is one answer."""
    if answers and "tags" in answers[0]:
        return [tag for answer in answers for tag in answer["tags"]]
    name = next(name for name in ("label", "labels", "answer", "score") if name in answers[0])
    return [float(f"{answer[name]:.6g}") if name == "score" else answer[name] for answer in answers]


def remarks(names: Sequence[str], scores: dict[str, float | None], answers: Sequence[dict], base: Baseline) -> list[str]:
    """What must be said of a result that looks at no text, or is worth no more than one that doesn't.

    Args:
        names: of the metrics, the one that chooses the best checkpoint first. answers: the model's, to the dev examples.
    """
    given, found = _flat(answers), []
    if len(given) > 1 and all(one == given[0] for one in given):
        told = given[0] if given[0] else "nothing"
        found.append(f"the model answers {told!r} all {len(given):,} times: it doesn't tell the examples apart")
    name = names[0]
    mine, theirs = scores[name], base.scores[name]
    if mine is None:
        found.append(f"{name} is undefined for these answers")
    elif mine <= (theirs or 0.0):
        told = "undefined" if theirs is None else f"{theirs:.4f}"
        found.append(f"{name} {mine:.4f} is no better than without looking at the text ({base.name}: {told})")
    return found
