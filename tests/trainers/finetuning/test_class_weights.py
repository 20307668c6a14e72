"""Class weights against scikit-learn's, by hand, and as the training loss has them."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from clozemill.model.task_model import Task, sums
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.class_weights import class_weights, weigh
from clozemill.trainers.finetuning.config import parsed_weights

CLASSIFY = Task("classify", ("a", "b", "c"))
ROWS = {"labels": np.array([0, 0, 0, 1, 1, 2, 0], np.int32), "weights": np.ones(7, np.float32)}
SETS = Task("multilabel", ("a", "b", "c", "d"))
FLAGS = {
    "labels": np.array([[1, 1, 0, 1], [0, 1, 0, 1], [1, 1, 0, 1], [1, 0, 0, 1]], np.float32)[:, None],
    "weights": np.ones((4, 1, 4), np.float32),
}


def test_balanced_as_scikit_learn_s() -> None:
    found = class_weights(("balanced",), ROWS, CLASSIFY)
    assert found == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=ROWS["labels"]))
    weighed = weigh(ROWS, CLASSIFY, found)
    assert weighed["weights"].sum() == pytest.approx(7) and weighed["weights"].dtype == np.float32
    assert weighed["weights"] == pytest.approx(found[ROWS["labels"]]) and weighed["labels"] is ROWS["labels"]


def test_balanced_over_the_words_that_have_tags_and_the_labels_that_occur() -> None:
    task = Task("tags", ("O", "B-X", "B-Y"))
    rows = {"labels": np.array([[0, 0, 0, 1], [0, 0, 0, 0]]), "weights": np.array([[0, 1, 1, 1], [0, 1, 0, 0.0]], np.float32)}
    expected = compute_class_weight("balanced", classes=np.arange(2), y=[0, 0, 1, 0])
    found = class_weights(("balanced",), rows, task)
    assert found == pytest.approx([*expected, 1.0])
    weighed = weigh(rows, task, found)["weights"]
    assert weighed == pytest.approx(rows["weights"] * np.array([[0, 2 / 3, 2 / 3, 2], [0, 2 / 3, 0, 0]]))


def test_balanced_positive_weights() -> None:
    """(n - n_c) / n_c; 1 for a label that no example has, or all."""
    found = class_weights(("balanced",), FLAGS, SETS)
    assert found == pytest.approx([1 / 3, 1 / 3, 1, 1])
    yes, no = (compute_class_weight("balanced", classes=np.arange(2), y=FLAGS["labels"][:, 0, 0])[side] for side in (1, 0))
    assert found[0] == pytest.approx(yes / no)
    assert weigh(FLAGS, SETS, found)["weights"][1, 0] == pytest.approx([1, 1 / 3, 1, 1])


def test_the_weighted_loss_by_hand() -> None:
    """Weighted means, as PyTorch's cross_entropy(weight=...) has them, and pos_weight for several labels."""
    stream = np.random.default_rng(0)
    logits = stream.normal(size=(7, 3)).astype(np.float32)
    found = sums(logits, weigh(ROWS, CLASSIFY, np.array([1.0, 2.0, 5.0])), CLASSIFY)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    chosen = -logs[np.arange(7), ROWS["labels"]]
    weights = np.array([1, 1, 1, 2, 2, 5, 1.0])
    assert float(found["task_loss"] / found["task_weight"]) == pytest.approx((weights * chosen).sum() / weights.sum(), rel=1e-6)
    logits, flags = stream.normal(size=(4, 4)).astype(np.float32), FLAGS["labels"][:, 0]
    positive = np.array([2.0, 1.0, 3.0, 0.5])
    found = sums(logits, weigh(FLAGS, SETS, positive), SETS)
    probs = 1 / (1 + np.exp(-logits))
    expected = -(positive * flags * np.log(probs) + (1 - flags) * np.log(1 - probs)).sum()
    assert float(found["task_loss"]) == pytest.approx(expected, rel=1e-6)
    assert float(found["task_weight"]) == pytest.approx((flags * positive + 1 - flags).sum())
    hits = ((logits > 0) == (flags > 0.5)) * (flags * positive + 1 - flags)
    assert float(found["task_correct"]) == pytest.approx(hits.sum())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), "none"),
        (("none",), "none"),
        (("balanced",), "balanced"),
        (("spam=5", "ham=0.5"), {"spam": 5.0, "ham": 0.5}),
        (("spam=5,ham=1",), {"spam": 5.0, "ham": 1.0}),
        (("a,b=2", "c=d=0"), {"a,b": 2.0, "c=d": 0.0}),  # labels with commas and equals signs
    ],
)
def test_what_can_be_given(given: tuple[str, ...], expected: object) -> None:
    assert parsed_weights(given) == expected


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("heavy",), "--class-weights 'heavy': give none, balanced, or LABEL=WEIGHT"),
        (("a=-1",), "with a number of at least 0"),
        (("a=nan",), "with a number of at least 0"),
        (("=2",), "give none, balanced"),
        (("a=1", "a=2"), "names 'a' twice"),
        (("a=0",), "are all 0, so the model would learn nothing"),
        (("z=2",), "unknown label 'z' in --class-weights; choose from a, b, c"),
    ],
)
def test_mistakes(given: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError) as error:
        class_weights(given, ROWS, CLASSIFY)
    assert told in str(error.value)


def test_labels_that_are_not_named_count_1() -> None:
    assert class_weights(("c=4",), ROWS, CLASSIFY) == pytest.approx([1, 1, 4]) and class_weights((), ROWS, CLASSIFY) is None
