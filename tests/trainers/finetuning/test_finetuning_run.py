"""The plan of a fine-tuning run: each option is where it has an effect, and the model begins with the weights that it names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clozemill.trainers.engines.optimizer import Hyper, Schedule
from clozemill.trainers.engines.train_state import TrainState
from clozemill.trainers.finetuning import finetuning_run
from clozemill.trainers.finetuning.config import FinetuneConfig
from clozemill.trainers.finetuning.finetuning_run import FinetuningRun
from clozemill.trainers.finetuning.session import initial_model
from clozemill.trainers.training import pretrained
from clozemill.trainers.training.pretrained import PretrainedModel
from tests.trainers import finetune_cases

QUERY, HEAD = "encoder/layer_0/attention/query/kernel", "head/dense/kernel"


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> PretrainedModel:
    return pretrained.read(str(finetune_cases.checkpoint(tmp_path_factory.mktemp("init") / "checkpoint")))


def plan(folder: Path, init: PretrainedModel, **options: Any) -> FinetuningRun:
    """Return the plan of four steps, one per epoch."""
    train, dev = finetune_cases.classification(folder, 16, 8)
    given: dict[str, Any] = {"task": "classify", "train": str(train), "dev": str(dev), "output": str(folder / "run")}
    given |= {"max_seq_length": 32, "batch_size": 16, "epochs": 4.0, "learning_rate": 1e-3}
    return finetuning_run.plan_run(FinetuneConfig(**given | options), init)


def weights(planned: FinetuningRun) -> dict[str, np.ndarray]:
    return {path: value.numpy() for path, value in TrainState(initial_model(planned)).weights().items()}


def test_options_of_a_run(init: PretrainedModel, tmp_path: Path) -> None:
    options = {"weight_decay": 0.3, "clip_norm": 0.25, "warmup_share": 0.5, "dropout": 0.2, "attention_dropout": 0.4}
    planned = plan(tmp_path, init, **options, frozen=True, metric="macro_f1")
    assert planned.hyper == Hyper(weight_decay=0.3, clip_norm=0.25)
    (phase,) = planned.phases
    assert phase.schedule == Schedule(1e-3, 2, 4) and (phase.begin, phase.end, phase.batch_size) == (0, 4, 16)
    assert (planned.encoder.hidden_dropout_prob, planned.encoder.attention_probs_dropout_prob) == (0.2, 0.4)
    assert planned.task.frozen and planned.metrics == ("macro_f1", "accuracy")


def test_the_seed(init: PretrainedModel, tmp_path: Path) -> None:
    """Of the head's initial weights and the order of the examples; the encoder has those of --init with any seed."""
    runs = [plan(tmp_path, init, seed=seed) for seed in (0, 1)]
    zero, one = map(weights, runs)
    assert zero[HEAD].any() and one[HEAD].any() and not np.isclose(zero[HEAD], one[HEAD]).any()
    assert all(np.array_equal(found[QUERY], init.weights[QUERY]) for found in (zero, one))
    assert [planned.phases[0].reader(planned.config, 0, 1, False).seed for planned in runs] == [0, 1]


def test_weights_from_scratch(init: PretrainedModel, tmp_path: Path) -> None:
    """None of --init's, also where the seed is that of its weights."""
    found = weights(plan(tmp_path, init, from_scratch=True, seed=1))
    assert found[QUERY].any() and not np.isclose(found[QUERY], init.weights[QUERY]).all()


def test_recomputation_is_an_option_of_pretraining_alone(tmp_path: Path) -> None:
    """A fine-tuning step needs less memory, and there is no option to turn it off."""
    encoder = replace(finetune_cases.ENCODER, remat=True)
    found = pretrained.read(str(finetune_cases.checkpoint(tmp_path / "checkpoint", encoder=encoder)))
    assert found.encoder.remat and not plan(tmp_path, found).encoder.remat


@pytest.mark.parametrize(
    ("options", "layers", "factor"),
    [({}, 2, 6), ({"frozen": True}, 2, 2), ({"layers": "-2", "frozen": True}, 1, 2), ({"layers": "1,-1"}, 2, 6)],
)
def test_flops_of_a_row(
    options: dict[str, Any], layers: int, factor: int, init: PretrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder's layers up to the last one that the head sees, at each of ten positions, and the pooler once."""
    monkeypatch.setattr(FinetuningRun, "tokens_per_row", 10.0)
    planned = plan(tmp_path, init, **options)
    layer = 4 * 10 * 32 * 32 + 2 * 10 * 10 * 32 + 2 * 10 * 32 * 64
    assert planned.flops(planned.phases[0]) == factor * (layers * layer + 32 * 32)
