"""How answers are scored: names to functions of (expected, given). To add a metric, add it to METRICS.

A metric that the expected answers don't allow (a correlation with a constant, F1 of a class or of entities that don't occur)
is NaN: it can't say which checkpoint is best.
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
    """Of sets of labels (0 and 1 [examples, labels]): the share of sets that are right to the last label."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(expected, given))


def _macro_f1(expected: Sequence[int], given: Sequence[int]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(expected, given, average="macro", zero_division=0))


def _micro_f1(expected: Sequence[Sequence[int]], given: Sequence[Sequence[int]]) -> float:
    """Of all labels together; 0 and 1 [examples, labels]."""
    from sklearn.metrics import f1_score

    return float(f1_score(expected, given, average="micro", zero_division=0))


def _f1(expected: Sequence[int], given: Sequence[int]) -> float:
    """Of class 1; NaN where no example is of it."""
    from sklearn.metrics import f1_score

    if 1 not in expected:
        return math.nan
    return float(f1_score(expected, given, pos_label=1, average="binary", zero_division=0))


def _matthews(expected: Sequence[int], given: Sequence[int]) -> float:
    """NaN where all examples are of one class; 0 where all answers are, as scikit-learn has it."""
    from sklearn.metrics import matthews_corrcoef

    if len(set(expected)) < 2:
        return math.nan
    return float(matthews_corrcoef(expected, given))


def _correlation(name: str) -> Callable[[Sequence[float], Sequence[float]], float]:
    """scipy's; NaN where one side is constant, for which it is undefined."""

    def correlation(expected: Sequence[float], given: Sequence[float]) -> float:
        from scipy import stats

        if len(expected) < 2 or np.ptp(expected) == 0 or np.ptp(given) == 0:
            return math.nan
        return float(getattr(stats, name)(expected, given).statistic)

    return correlation


def _entity_f1(expected: Sequence[Sequence[str]], given: Sequence[Sequence[str]]) -> float:
    """Micro F1 of entities, of which type and both ends must be right, as conlleval and seqeval have it; NaN without any."""
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
    """SQuAD's evaluate-v2.0: lower case, without punctuation and articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def _overlap(expected: str, given: str) -> float:
    """F1 over words."""
    one, other = normalised(expected).split(), normalised(given).split()
    if not one or not other:
        return float(one == other)
    common = sum((collections.Counter(one) & collections.Counter(other)).values())
    return 2 * common / (len(one) + len(other))


def _span_score(score: Callable[[str, str], float]) -> Callable[[Sequence[Sequence[str]], Sequence[str]], float]:
    """The mean of each question's best score over its right answers; none is "" (SQuAD's evaluate-v2.0)."""

    def mean(expected: Sequence[Sequence[str]], given: Sequence[str]) -> float:
        rows = zip(([one for one in answers if normalised(one)] for answers in expected), given, strict=True)
        return float(np.mean([max(score(one, answer) for one in answers or [""]) for answers, answer in rows]))

    return mean


METRICS: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "micro_f1": _micro_f1,
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
