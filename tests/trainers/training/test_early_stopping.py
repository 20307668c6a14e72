"""When a run stops early, and how evaluations are ranked."""

import json
import math

import pytest

from clozemill.trainers.training.early_stopping import INCOMPARABLE, EarlyStopping, rank


def figures(criterion: float | None, loss: float = 1.0) -> dict:
    return {"criterion": criterion, "loss": loss}


INFINITE = float("inf")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, (INFINITE, INFINITE)),
        ({"masked_lm_loss": 2.0, "loss": 3.0}, (2.0, INFINITE)),  # pretraining: the loss is the criterion
        (figures(-0.5, 2.0), (-0.5, 2.0)),
        (figures(None, 2.0), (INFINITE, 2.0)),
        (figures(float("nan"), 2.0), (INFINITE, 2.0)),
    ],
)
def test_rank(given: dict | None, expected: tuple) -> None:
    assert rank(given) == expected


@pytest.mark.parametrize(
    ("evaluations", "patience", "min_delta", "stops_at"),
    [
        ([-0.5, -0.5, -0.5], 2, 0.0, 3),
        ([-0.5, -0.5, -0.6, -0.6, -0.6], 2, 0.0, 5),
        ([-0.5, -0.52, -0.54, -0.56], 2, 0.05, 3),  # each is better than the previous one, but not by enough
        ([-0.5, -0.53, -0.56, -0.56, -0.56], 2, 0.05, 5),
        ([-0.5] * 9, 0, 0.0, None),
        ([None, None, None], 2, 0.0, 3),  # the dev loss doesn't improve either
        ([None, None, -0.1, None, None], 2, 0.0, 5),  # a defined metric is better than an undefined one, and not the reverse
        ([0.5, None, 0.4], 2, 0.0, None),
    ],
)
def test_a_run_stops_after_patience_evaluations_without_improvement(
    evaluations: list, patience: int, min_delta: float, stops_at: int | None
) -> None:
    stopping, at = EarlyStopping(patience, min_delta), None
    for number, criterion in enumerate(evaluations, 1):
        stopping.add(figures(criterion))
        index = json.loads(json.dumps(stopping.state()))  # a kill after every evaluation
        stopping = EarlyStopping(patience, min_delta)
        stopping.resume(index)
        if patience and stopping.stops and at is None:
            at = number
    assert at == stops_at
    assert bool(stopping.state()) == bool(patience)


def test_a_lower_loss_is_an_improvement_while_the_metric_is_undefined() -> None:
    stopping = EarlyStopping(2)
    for loss in (3.0, 2.0, 1.0, 0.5):
        stopping.add(figures(None, loss))
        assert stopping.waited == 0


def test_an_incomparable_evaluation_ranks_like_none() -> None:
    """Whatever its losses: a later checkpoint without an evaluation is better, being newer."""
    assert rank({"masked_lm_loss": 1.0, "loss": 1.0, **INCOMPARABLE}) == rank(None) == (math.inf, math.inf)
