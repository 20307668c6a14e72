"""All metrics of a run are plotted, and the best checkpoint is marked."""

import struct

import pytest

from clozemill.trainers.training.curves import draw, panels


def entry(step: int, **more: object) -> dict:
    return {"step": step, "loss": 7.0 / step, "masked_lm_loss": 6.0 / step, "masked_lm_accuracy": 0.1 * step, **more}


TRAIN = [entry(step, learning_rate=1e-3 * step) for step in (1, 2, 3)]
PAIRS = [row | {"next_sentence_loss": 0.7, "next_sentence_accuracy": 0.5} for row in TRAIN]
EVAL = [entry(step, split="eval", examples=9, unigram_loss=5.0, remarks=[]) for step in (2, 3)]
TUNED = [
    {"step": 4, "epoch": 1.0, "loss": 0.7, "task_loss": 0.7, "task_accuracy": 0.5, "learning_rate": 1e-3},
    {"step": 4, "split": "eval", "pearson": None, "spearman": 0.1, "loss": 0.6, "criterion": None, "examples": 9},
    {"step": 8, "split": "eval", "pearson": 0.3, "spearman": 0.2, "loss": 0.5, "criterion": -0.3, "examples": 9},
]
CASES = {
    "nothing": [],
    "one": TRAIN[:1],
    "train": TRAIN,
    "pairs": PAIRS,
    "eval": TRAIN + EVAL,
    "eval alone": EVAL,
    "tuned": TUNED,
}


@pytest.mark.parametrize("name", CASES)
def test_a_png(name: str) -> None:
    """11 x 3.6 inches at 120 dpi, with identical bytes each time."""
    data = draw(CASES[name], "a title", 3)
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", data[16:24]) == (1320, 432)
    assert len(data) > 5000
    if name == "pairs":
        assert draw(PAIRS, "a title", 3) == data != draw(PAIRS, "another title", 3)


def test_the_plot_depends_on_the_data() -> None:
    drawn = [draw(rows, "a title") for rows in (TRAIN, PAIRS, TRAIN + EVAL, TUNED)] + [draw(TUNED, "a title", 8)]
    assert len(set(drawn)) == 5


def test_lines_of_pretraining() -> None:
    found = {title: [(label, points) for label, _, points in lines] for title, lines in panels(PAIRS + EVAL).items()}
    assert found["loss"] == [
        ("masked LM, train", [(1, 6.0), (2, 3.0), (3, 2.0)]),
        ("next sentence, train", [(1, 0.7), (2, 0.7), (3, 0.7)]),
        ("masked LM, eval", [(2, 3.0), (3, 2.0)]),
        ("masked LM, word frequencies alone", [(2, 5.0), (3, 5.0)]),
    ]
    assert [label for label, _ in found["metrics"]] == ["masked LM, train", "next sentence, train", "masked LM, eval"]


def test_lines_of_fine_tuning() -> None:
    """The dev loss and every defined metric."""
    found = {title: [(label, points) for label, _, points in lines] for title, lines in panels(TUNED).items()}
    assert found == {
        "loss": [("task, train", [(4, 0.7)]), ("task, dev", [(4, 0.6), (8, 0.5)])],
        "metrics": [
            ("accuracy, train", [(4, 0.5)]),
            ("pearson, dev", [(8, 0.3)]),
            ("spearman, dev", [(4, 0.1), (8, 0.2)]),
        ],
        "learning rate": [("", [(4, 1e-3)])],
    }
