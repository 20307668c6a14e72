"""Class weights: the weight of each label's training examples in the loss, so that rare labels aren't drowned out.

`balanced` follows scikit-learn's compute_class_weight: of n training examples (tags: words) with k different labels, one of
label c has the weight n / (k * n_c). For multilabel, each label is a separate binary question: an example with label c has
the weight (n - n_c) / n_c, the ratio of that formula's weights for yes and no, and one without it the weight 1 (PyTorch's
`pos_weight`). Given weights are used unchanged; labels without a given weight have the weight 1.

The training loss is the weighted mean: the sum of weight times loss, divided by the sum of the weights. Training accuracy is
weighted likewise; dev loss and metrics are unweighted.
"""

from typing import Any

import numpy as np

from clozemill.model.task_model import Task
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.config import BALANCED, parsed_weights


def _counts(features: dict[str, np.ndarray], task: Task) -> tuple[int, np.ndarray]:
    """Return (number of answers, number of answers by label [L])."""
    labels, weights = features["labels"], features["weights"]
    if task.kind == "multilabel":
        return len(labels), labels.sum(axis=(0, 1))
    counts = np.bincount(labels[weights > 0], minlength=len(task.labels))
    return int(counts.sum()), counts


def _balanced(features: dict[str, np.ndarray], task: Task) -> np.ndarray:
    """Return balanced weights, float64 [L]; 1 for labels that don't occur, and for multilabel those of every example."""
    total, counts = _counts(features, task)
    found = np.ones(len(task.labels))
    if task.kind == "multilabel":
        some = (counts > 0) & (counts < total)
        found[some] = (total - counts[some]) / counts[some]
    else:
        some = counts > 0
        found[some] = total / (some.sum() * counts[some])
    return found


def class_weights(given: tuple[str, ...], features: dict[str, np.ndarray], task: Task) -> np.ndarray | None:
    """Return the weight of each label, float64 [L]; None for no weights. Raises UserError for an unknown label."""
    wanted = parsed_weights(given)
    if isinstance(wanted, str):
        return _balanced(features, task) if wanted == BALANCED else None
    if unknown := [name for name in wanted if name not in task.labels]:
        raise UserError(f"unknown label {unknown[0]!r} in --class-weights; choose from {', '.join(task.labels)}")
    return np.array([wanted.get(name, 1.0) for name in task.labels])


def weigh(features: dict[str, np.ndarray], task: Task, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return the training rows with their weights multiplied by the weights of their labels."""
    table = weights.astype(np.float32)
    factors: Any = np.where(features["labels"] > 0, table, 1) if task.kind == "multilabel" else table[features["labels"]]
    return {**features, "weights": (features["weights"] * factors).astype(np.float32)}
