"""Metrics: literal values, computed by hand or by the rules that the benchmarks publish."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn

from clozemill.trainers.finetuning.metrics import METRICS, normalised
from clozemill.trainers.finetuning.task_presets import TASKS

CLASSES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("name", "expected", "given", "score"),
    [
        ("accuracy", [0, 1, 2, 1], [0, 1, 1, 1], 0.75),
        ("binary_f1", [1, 1, 1, 0, 0], [1, 0, 1, 1, 0], 2 / 3),  # 2 right, 1 missed, 1 wrong
        ("binary_f1", [1, 0], [0, 0], 0.0),
        ("binary_f1", [0, 0], [0, 1], math.nan),
        ("macro_f1", [0, 0, 1, 1], [0, 0, 0, 1], (0.8 + 2 / 3) / 2),
        ("macro_f1", [0, 1], [2, 2], 0.0),
        ("micro_f1", [[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]], 4 / 6),  # 2 right, 1 missed, 1 wrong
        ("macro_f1", [[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]], 2 / 3),  # 1, 0 and 1
        ("micro_f1", [[0, 0]], [[0, 0]], 0.0),
        ("micro_f1", [[1], [0], [0]], [[0], [0], [0]], 0.0),  # a single label: not the two thirds of right examples
        ("micro_f1", [[1], [1], [0]], [[1], [0], [1]], 0.5),
        ("macro_f1", [[1], [1], [0]], [[1], [0], [1]], 0.5),
        ("macro_f1", [[0], [0]], [[0], [1]], math.nan),
        ("subset_accuracy", [[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1]], 0.5),
        # (6 * 3 - 1 * 2) / sqrt(7 * 8 * 4 * 5)
        ("matthews", [1] * 8 + [0] * 4, [1] * 6 + [0] * 2 + [1] + [0] * 3, 16 / math.sqrt(7 * 8 * 4 * 5)),
        ("matthews", [1, 0, 1], [1, 1, 1], 0.0),
        ("matthews", [1, 0], [0, 1], -1.0),
        ("matthews", [1, 1], [0, 1], math.nan),
        ("pearson", [1.0, 2.0, 3.0], [2.0, 4.0, 6.0], 1.0),
        ("pearson", [1, 2, 3, 4], [1, 3, 2, 4], 0.8),
        ("pearson", [1, 2, 3, 10], [1, 2, 3, 4], 14 / math.sqrt(50 * 5)),
        ("spearman", [1, 2, 3, 10], [1, 4, 9, 16], 1.0),
        ("spearman", [1, 2, 3, 4], [4, 2, 3, 1], -0.8),
        ("spearman", [1, 2, 2, 3], [1, 2, 3, 4], 4.5 / math.sqrt(4.5 * 5)),
        ("token_accuracy", [["O", "B-X"], ["O"]], [["O", "O"], ["O"]], 2 / 3),
    ],
)
def test_literal_values(name: str, expected: list, given: list, score: float) -> None:
    found = METRICS[name](expected, given)
    assert found == pytest.approx(score, abs=1e-12, nan_ok=True) and type(found) is float


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize(("one", "other"), [([1.0], [2.0]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [0.5, 0.5, 0.5])])
def test_no_correlation_with_a_constant(name: str, one: list, other: list) -> None:
    """It is undefined, not 0: it must not choose a checkpoint."""
    assert math.isnan(METRICS[name](one, other))


@settings(deadline=None)
@given(CLASSES)
def test_as_scikit_learn_s(rows: list[tuple[int, int]]) -> None:
    expected, found = zip(*rows, strict=True)
    assert METRICS["accuracy"](expected, found) == pytest.approx(np.mean([a == b for a, b in rows]))
    scores = [sklearn.f1_score(expected, found, labels=[one], average="macro", zero_division=0) for one in {*expected, *found}]
    assert METRICS["macro_f1"](expected, found) == pytest.approx(np.mean(scores))


def test_correlations_as_scipy_s() -> None:
    one, other = np.random.default_rng(3).normal(size=(2, 50)).round(1)
    assert METRICS["pearson"](one, other) == pytest.approx(np.corrcoef(one, other)[0, 1])
    ranks = stats.rankdata(one), stats.rankdata(other)
    assert METRICS["spearman"](one, other) == pytest.approx(np.corrcoef(*ranks)[0, 1])


RIGHT = ["B-PER", "I-PER", "O", "B-LOC"]


@pytest.mark.parametrize(
    ("given", "score"),
    [
        (RIGHT, 1.0),
        (["B-PER", "O", "O", "B-LOC"], 0.5),  # a wrong end
        (["B-PER", "I-PER", "I-PER", "B-LOC"], 0.5),
        (["B-ORG", "I-ORG", "O", "B-LOC"], 0.5),  # a wrong kind
        (["I-PER", "I-PER", "O", "I-LOC"], 1.0),  # I- without B- begins an entity, as conlleval has it
        (["B-PER", "B-PER", "O", "B-LOC"], 0.4),  # two instead of one: 1 right of 2 expected, 3 given
        (["B-PER", "I-LOC", "O", "B-LOC"], 0.4),  # I- of another kind begins one, too
        (["B-PER", "I-PER", "O", "O"], 2 / 3),  # one missed
        (["O", "O", "O", "O"], 0.0),
    ],
)
def test_entities(given: list[str], score: float) -> None:
    assert METRICS["entity_f1"]([RIGHT], [given]) == pytest.approx(score)
    if set(given) != {"O"}:
        assert METRICS["entity_f1"]([given], [RIGHT]) == pytest.approx(score)


@pytest.mark.parametrize(
    ("expected", "given", "score"),
    [  # as seqeval 1.2.2 gives them; BILOU's U and L are BIOES' S and E
        (["S-PER", "O", "B-LOC", "I-LOC", "E-LOC"], ["S-PER", "O", "B-LOC", "E-LOC", "O"], 0.5),
        (["U-PER", "O", "B-LOC", "I-LOC", "L-LOC"], ["U-PER", "O", "B-LOC", "I-LOC", "L-LOC"], 1.0),
        (["E-PER", "E-PER", "O", "I-LOC", "E-LOC"], ["E-PER", "E-PER", "O", "E-LOC", "E-LOC"], 4 / 7),
        (["I-PER", "B-PER", "O", "I-LOC"], ["I-PER", "I-PER", "O", "I-LOC"], 0.4),  # IOB1
        (["I-PER", "E-PER", "I-PER", "O"], ["I-PER", "I-PER", "I-PER", "O"], 0.0),  # IOE1
    ],
)
def test_entities_of_other_schemes(expected: list[str], given: list[str], score: float) -> None:
    assert METRICS["entity_f1"]([expected], [given]) == pytest.approx(score)
    assert METRICS["entity_f1"]([["O"], expected], [["O"], expected]) == 1.0


def test_tags_that_name_no_entities_have_no_f1() -> None:
    assert math.isnan(METRICS["entity_f1"]([["NOUN", "O"]], [["NOUN", "O"]]))
    assert math.isnan(METRICS["entity_f1"]([["O", "O"]], [["O", "B-PER"]]))
    assert METRICS["token_accuracy"]([], []) == 0.0


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("The  Mill, of a\tRiver!", "mill of river"),
        ("An A. an", ""),
        ("U.S.A.", "usa"),
        ("theatre-an", "theatrean"),
        ("$5,000 (about)", "5000 about"),
        ("“Él” — ÉTÉ", "“él” — été"),
        ("", ""),
    ],
)
def test_squad_s_normal_form(answer: str, form: str) -> None:
    assert normalised(answer) == form


@pytest.mark.parametrize(
    ("expected", "given", "f1", "exact"),
    [
        (["the mill"], "Mill!", 1.0, 1.0),
        (["mill river corpus"], "mill river", 0.8, 0.0),
        (["mill", "old mill", "a very old mill"], "the old mill", 1.0, 1.0),  # the best of several
        (["old mill", "the mill of old"], "mill", 2 / 3, 0.0),
        (["mill mill river"], "mill mill mill", 2 / 3, 0.0),  # words count as often as both have them
        ([], "", 1.0, 1.0),  # no answer, and none given
        ([], "mill", 0.0, 0.0),
        (["mill"], "", 0.0, 0.0),
        ([], "the", 1.0, 1.0),  # nothing is left of it
        (["the", "mill"], "", 0.0, 0.0),  # an answer that becomes empty counts as no answer (evaluate-v2.0)
        (["a"], "", 1.0, 1.0),
    ],
)
def test_spans(expected: list[str], given: str, f1: float, exact: float) -> None:
    assert METRICS["f1"]([expected], [given]) == pytest.approx(f1)
    assert METRICS["exact_match"]([expected], [given]) == exact


def test_spans_are_averaged_over_questions() -> None:
    assert METRICS["f1"]([["mill"], [], ["a b c d"]], ["mill", "x", "b c"]) == pytest.approx((1 + 0 + 0.8) / 3)


def test_every_task_s_metrics_are_known() -> None:
    assert {name for task in TASKS.values() for name in task.metrics} == set(METRICS)
