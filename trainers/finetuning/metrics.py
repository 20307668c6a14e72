"""Metrics: functions of (expected, given) by name. To add a metric, add it to METRICS.

A metric is NaN if it is undefined for the expected answers: a correlation with a constant, or F1 of a class or of entities
that don't occur. A NaN can't select the best checkpoint.
"""

import collections
import math
import re
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clozemill.trainers.finetuning.reading.tagging_schemes import entities


def _accuracy(expected: Sequence[int], given: Sequence[int]) -> float:
    """Return accuracy. For sets of labels (0 and 1 [examples, labels]), a set counts only if all its labels are right."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(expected, given))


def _averaged_f1(average: str) -> Callable[[Any, Any], float]:
    """Return F1 as scikit-learn averages it, of classes [examples] or of sets of labels, 0 and 1 [examples, labels].

    Of sets of a single label, it is the F1 of that label: scikit-learn would take the column for two classes.
    """

    def f1(expected: Any, given: Any) -> float:
        from sklearn.metrics import f1_score

        if np.shape(expected)[1:] == (1,):
            return _f1(np.ravel(expected).tolist(), np.ravel(given).tolist())
        return float(f1_score(expected, given, average=average, zero_division=0))

    return f1


def _f1(expected: Sequence[int], given: Sequence[int]) -> float:
    """Return F1 of class 1; NaN if no example has it."""
    from sklearn.metrics import f1_score

    if 1 not in expected:
        return math.nan
    return float(f1_score(expected, given, pos_label=1, average="binary", zero_division=0))


def _matthews(expected: Sequence[int], given: Sequence[int]) -> float:
    """Return Matthews correlation; NaN if all examples have one class, 0 if all answers do (as in scikit-learn)."""
    from sklearn.metrics import matthews_corrcoef

    if len(set(expected)) < 2:
        return math.nan
    return float(matthews_corrcoef(expected, given))


def _correlation(name: str) -> Callable[[Sequence[float], Sequence[float]], float]:
    """Return a correlation of scipy; NaN if one side is constant, since it is undefined then."""

    def correlation(expected: Sequence[float], given: Sequence[float]) -> float:
        from scipy import stats

        if len(expected) < 2 or np.ptp(expected) == 0 or np.ptp(given) == 0:
            return math.nan
        return float(getattr(stats, name)(expected, given).statistic)

    return correlation


def _entity_f1(expected: Sequence[Sequence[str]], given: Sequence[Sequence[str]]) -> float:
    """Return micro F1 of entities; type and both ends must be right, as in conlleval and seqeval. NaN without entities."""
    right, found = (
        {(number, *entity) for number, tags in enumerate(sentences) for entity in entities(tags)}
        for sentences in (expected, given)
    )
    return 2 * len(right & found) / (len(right) + len(found)) if right else math.nan


def _token_accuracy(expected: Sequence[Sequence[str]], given: Sequence[Sequence[str]]) -> float:
    pairs = [pair for rows in zip(expected, given, strict=True) for pair in zip(*rows, strict=True)]
    return sum(one == other for one, other in pairs) / max(1, len(pairs))


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation))


def normalised(answer: str) -> str:
    """Normalise as SQuAD's evaluate-v2.0: lower case, no punctuation or articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def _overlap(expected: str, given: str) -> float:
    """Return F1 over words."""
    one, other = normalised(expected).split(), normalised(given).split()
    if not one or not other:
        return float(one == other)
    common = sum((collections.Counter(one) & collections.Counter(other)).values())
    return 2 * common / (len(one) + len(other))


def _span_score(score: Callable[[str, str], float]) -> Callable[[Sequence[Sequence[str]], Sequence[str]], float]:
    """Return the mean over questions of the best score over the right answers; no answer is "" (SQuAD's evaluate-v2.0)."""

    def mean(expected: Sequence[Sequence[str]], given: Sequence[str]) -> float:
        rows = zip(([one for one in answers if normalised(one)] for answers in expected), given, strict=True)
        return float(np.mean([max(score(one, answer) for one in answers or [""]) for answers, answer in rows]))

    return mean


def shown_metrics(names: Sequence[str], scores: dict[str, Any]) -> str:
    """Format metrics like 'matthews 0.3124, accuracy 0.7213'; marks undefined ones."""
    found = ((name, scores[name]) for name in names)
    return ", ".join(f"{name} undefined" if value is None else f"{name} {value:.4f}" for name, value in found)


METRICS: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": _accuracy,
    "macro_f1": _averaged_f1("macro"),
    "micro_f1": _averaged_f1("micro"),
    "subset_accuracy": _accuracy,
    "binary_f1": _f1,
    "matthews": _matthews,
    "pearson": _correlation("pearsonr"),
    "spearman": _correlation("spearmanr"),
    "entity_f1": _entity_f1,
    "token_accuracy": _token_accuracy,
    "f1": _span_score(_overlap),
    "exact_match": _span_score(lambda one, other: float(normalised(one) == normalised(other))),
}
