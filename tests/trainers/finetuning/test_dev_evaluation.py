"""The loss on dev examples."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clozemill.model.task_model import Task
from clozemill.trainers.finetuning.dev_evaluation import DevEvaluation


def test_the_dev_loss_is_the_mean_over_weights() -> None:
    """Even odds for each of three words in two rows; without targets there is no loss."""
    features = {"labels": np.zeros((2, 3), np.int32), "weights": np.array([[0, 1, 1], [0, 1, 0]], np.float32)}
    rows, task = SimpleNamespace(features=features), Task("tags", ("O", "B"))
    evaluation: Any = SimpleNamespace(plan=SimpleNamespace(dev=rows, task=task))
    logits = np.zeros((2, 3, 2), np.float32)
    assert DevEvaluation._losses(evaluation, logits) == {"loss": pytest.approx(np.log(2), rel=1e-6)}
    del features["weights"]
    assert DevEvaluation._losses(evaluation, logits) == {}
