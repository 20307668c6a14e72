"""What answers without looking at the text are worth, by hand, and what is said of a result that is no better."""

import pytest

from clozemill.model.task_model import Task
from clozemill.trainers.finetuning.baselines import Baseline, baseline, remarks, warnings
from clozemill.trainers.finetuning.task_presets import TASKS
from clozemill.trainers.finetuning.tasks.base import Example
from clozemill.trainers.finetuning.tasks.registry import TASK_TYPES


def examples(answers: list) -> list[Example]:
    return [Example("", "text", answer=answer, words=("w",) * (len(answer) if isinstance(answer, tuple) else 0))
            for answer in answers]  # fmt: skip


CASES = {
    "classify": (("no", "yes"), list("yyn"), list("ynnn"), "always 'y'", {"accuracy": 0.25, "macro_f1": 0.2}),
    "multilabel": (
        ("a", "b"), [("b", "a"), (), ("a", "b")], [("a",), ("a", "b")], "always 'a', 'b', the most frequent set of labels",
        {"micro_f1": 6 / 7, "macro_f1": 5 / 6, "subset_accuracy": 0.5},
    ),
    "regress": ((), [1.0, 2.0, 6.0], [1.0, 4.0], "always 3, the mean", {"pearson": None, "spearman": None}),
    "tags": (
        ("O", "B-X"), [("O", "O", "B-X")], [("O", "B-X"), ("O",)], "always 'O'", {"entity_f1": 0.0, "token_accuracy": 2 / 3},
    ),
    "spans": ((), [(("mill", 0),)], [(), (("mill", 0),), ()], "never an answer", {"f1": 2 / 3, "exact_match": 2 / 3}),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_by_hand(kind: str) -> None:
    labels, train, dev, name, scores = CASES[kind]
    labels = ("n", "y") if kind == "classify" else labels
    found = baseline(TASK_TYPES[kind](), Task(kind, labels), TASKS[kind].metrics, examples(train), examples(dev))
    assert found.name.startswith(name) and found.scores == pytest.approx(scores)
    assert found.measurable == TASKS[kind].metrics and found.to_dict() == {"answer": found.name, **found.scores}


@pytest.mark.parametrize(
    ("kind", "labels", "dev", "measurable"),
    [
        ("classify", ("n", "y"), list("yyy"), ("accuracy",)),  # Matthews: all answers are alike
        ("regress", (), [2.0, 2.0, 2.0], ()),
        ("tags", ("DET", "NOUN"), [("DET", "NOUN")], ("token_accuracy",)),  # no entity: entity_f1 has nothing to count
    ],
)
def test_a_metric_that_a_perfect_answer_can_t_raise_is_not_measurable(
    kind: str, labels: tuple, dev: list, measurable: tuple
) -> None:
    names = ("matthews", "accuracy") if kind == "classify" else TASKS[kind].metrics
    assert baseline(TASK_TYPES[kind](), Task(kind, labels), names, examples(dev), examples(dev)).measurable == measurable


@pytest.mark.parametrize(
    ("train", "dev", "told"),
    [
        ("ab" * 30, "ab" * 30, []),
        ("a" * 60, "ab" * 30, ["all 60 training examples have the same answer: the model can't learn"]),
        ("ab" * 30, "b" * 60, ["all 60 dev examples have the same answer: they can't evaluate a model"]),
        ("ab", "ab", ["only 2 dev examples: metrics on so few are mostly chance"]),
    ],
)
def test_warnings_before_training(train: str, dev: str, told: list[str]) -> None:
    found = warnings(examples(list(train)), examples(list(dev)))
    assert len(found) == len(told) and all(one.startswith(start) for one, start in zip(found, told, strict=True))


def answers(name: str, *values: object) -> list[dict]:
    return [{name: value} for value in values]


BASE = Baseline("always 'y', the most frequent label", {"accuracy": 0.6}, ("accuracy",))


@pytest.mark.parametrize(
    ("score", "answers", "told"),
    [
        (0.9, answers("label", "n", "y", "y"), []),
        (0.6, answers("label", "n", "y", "y"), ["accuracy 0.6000 is no better than without looking at the text (always 'y'"]),
        (0.6, answers("label", "y", "y", "y"), ["the model answers 'y' all 3 times", "accuracy 0.6000 is no better"]),
        (0.9, answers("labels", ["a"], ["a"]), ["the model answers ['a'] all 2 times"]),
        (0.9, answers("labels", [], []), ["the model answers 'nothing' all 2 times"]),
        (0.9, answers("tags", ["O", "O"], ["O"]), ["the model answers 'O' all 3 times"]),
        (
            None,
            answers("score", 0.5, 0.50000001),
            ["the model answers 0.5 all 2 times", "accuracy is undefined for these answers"],
        ),
    ],
)
def test_remarks(score: float | None, answers: list[dict], told: list[str]) -> None:
    found = remarks(("accuracy",), {"accuracy": score}, answers, BASE)
    assert len(found) == len(told) and all(one.startswith(start) for one, start in zip(found, told, strict=True))
