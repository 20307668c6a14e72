"""All metrics of a run are plotted, and the best checkpoint is marked."""

import math
import struct

import pytest

from clozemill.pipelines.pages.content import Plot
from clozemill.trainers.training.curves import MOST_POINTS, draw, plots, points


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
    assert len(data) > (5000 if CASES[name] else 1000)
    if name == "pairs":
        assert draw(PAIRS, "a title", 3) == data != draw(PAIRS, "another title", 3)


def test_the_plot_depends_on_the_data() -> None:
    drawn = [draw(rows, "a title") for rows in (TRAIN, PAIRS, TRAIN + EVAL, TUNED)] + [draw(TUNED, "a title", 8)]
    assert len(set(drawn)) == 5


def lines(plot: Plot) -> list[tuple[str, str, list[tuple[float, float]]]]:
    return [(each.label, each.kind, list(zip(each.x, each.y, strict=False))) for each in plot.series]


def test_lines_of_pretraining() -> None:
    """The loss beside its baseline and what the recipe is known to reach so far; next sentence on axes of its own."""
    found = {plot.name: plot for plot in plots(PAIRS + EVAL, 3, ((1, 8.0), (3, 5.5), (100, 1.0)))}
    assert list(found) == ["loss", "masked-lm-accuracy", "next-sentence-accuracy", "next-sentence-loss", "learning-rate"]
    assert lines(found["loss"]) == [
        ("train", "line", [(1, 6.0), (2, 3.0), (3, 2.0)]),
        ("eval", "dots", [(2, 3.0), (3, 2.0)]),
        ("word frequencies", "level", []),
        ("recipe", "guide", [(1, 8.0), (3, 5.5)]),
        ("best", "mark", []),
    ]
    assert found["loss"].series[2].y == [5.0] and found["loss"].series[4].x == [3]
    assert found["loss"].alt == (
        "Masked-LM loss over the steps: train from 6 at step 1 to 2 at step 3; eval from 3 at step 2 to 2 at step 3; "
        "recipe from 8 at step 1 to 5.5 at step 3; word frequencies at 5."
    )
    assert lines(found["next-sentence-accuracy"])[0] == ("train", "line", [(1, 50.0), (2, 50.0), (3, 50.0)])
    assert found["next-sentence-accuracy"].series[1].y == [50.0]
    assert found["next-sentence-loss"].series[1].y == [math.log(2)]
    assert "next" not in str([each.label for each in found["loss"].series])


def test_lines_of_fine_tuning() -> None:
    """The dev loss and every metric, where it is defined."""
    found = {plot.name: plot for plot in plots(TUNED)}
    assert list(found) == ["loss", "metrics", "learning-rate"]
    assert lines(found["loss"]) == [("train", "line", [(4, 0.7)]), ("dev", "dots", [(4, 0.6), (8, 0.5)])]
    assert lines(found["metrics"]) == [
        ("accuracy, train", "line", [(4, 0.5)]),
        ("pearson", "dots", [(8, 0.3)]),
        ("spearman", "dots", [(4, 0.1), (8, 0.2)]),
    ]


def test_a_long_line_is_averaged() -> None:
    rows = [{"step": step, "x": float(step)} for step in range(1, 10 * MOST_POINTS + 1)]
    found = points(rows, "x")
    assert len(found) == MOST_POINTS and found[0] == (10, 5.5) and found[-1] == (10 * MOST_POINTS, 10 * MOST_POINTS - 4.5)
    assert points([{"step": 1, "x": float("nan")}, {"step": 2, "x": None}, {"step": 3, "x": 1}], "x", 100) == [(3, 100.0)]
