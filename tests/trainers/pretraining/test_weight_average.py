"""`pretrain --average-with-init`: the mean of two sets of weights, at the end of a run, exactly once."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import clozemill
from clozemill.model.export import model_card
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.weight_average import averaged
from clozemill.trainers.training import checkpoints
from clozemill.trainers.training.loop import Loop
from tests.trainers import datasets
from tests.trainers.pretraining.test_warm_start import SMALL, checkpoint

ENCODER = replace(SMALL, num_hidden_layers=1)  # a quarter of the time
SHARE = 0.25


def pretrain(root: Path, output: str, *arguments: object, code: int = 0) -> Path:
    given = ["--data", root / "small", "--init", root / "begun", "--objective", "mlm", "--steps", "4", "--batch-size", "8"]
    given += ["--learning-rate", "1e-2", "--eval-steps", "2", "--no-tensorboard", "--output", root / output, *arguments]
    assert clozemill.main(["pretrain", *map(str, given)]) == code
    return root / output


def weights(folder: Path) -> dict[str, np.ndarray]:
    return checkpoints.weights(checkpoints.find(str(folder)))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, a checkpoint without a part of its masked-LM head, and a run whose result has all other weights from it."""
    folder = tmp_path_factory.mktemp("average")
    (folder / "small").mkdir()
    datasets.write(folder / "small", [[20, 24]], [6])
    checkpoint(folder / "begun", {"objective": "mlm"}, without="masked_lm/transform", encoder=ENCODER.to_dict())
    pretrain(folder, "run", "--average-with-init", 1)
    return folder


def test_literal_values() -> None:
    initial, trained = {"a": np.float32([0, 4])}, {"a": np.float32([4, 0]), "head": np.float32([7])}
    found = averaged(initial, trained, 0.25)
    assert {name: value.tolist() for name, value in found.items()} == {"a": [3, 1], "head": [7]}
    assert found["a"].dtype == np.float32
    assert averaged(initial, trained, 0)["a"].tolist() == [4, 0] and averaged(initial, trained, 1)["a"].tolist() == [0, 4]
    assert trained["a"].tolist() == [4, 0]


def test_the_result_is_the_average(root: Path) -> None:
    """The part that the checkpoint lacks stays as it was trained. The checkpoint before the last step has the usual weights."""
    begun, found = weights(root / "begun"), weights(root / "run")
    middle = weights(root / "run/checkpoints/step-00000002")
    assert {name for name in found if name not in begun} == {f"masked_lm/transform/{name}" for name in ("kernel", "bias")}
    for name, value in found.items():
        assert np.array_equal(value, begun.get(name, [])) == (name in begun), name
        assert np.array_equal(value, middle[name]) == ("pooler" in name), name  # masked LM doesn't train it


def test_it_is_the_best_checkpoint(root: Path) -> None:
    """Even if the weights before it have a lower loss on the run's own eval split."""
    rows = [json.loads(line) for line in (root / "run/metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["masked_lm_loss"] for row in rows if row.get("split") == "eval"}
    best = checkpoints.find(str(root / "run"), "best")
    assert list(losses) == [0, 2, 4] and best.step == 4 and best.index["eval"]["masked_lm_loss"] == losses[4]
    assert [one.criterion for one in checkpoints.saved(str(root / "run"))] == [losses[4], float("inf")]
    card = "\n".join(model_card._training(best.index))
    assert "The weights are an average with those before this training, whose share is 1." in card


@pytest.mark.slow
def test_a_resumed_run_averages_once(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Whether it was stopped before the last step or after it, before the evaluation that is due."""
    plain, begun = weights(pretrain(root, "plain")), weights(root / "begun")
    expected = averaged(begun, plain, SHARE)
    for stop in (2, 4):
        with monkeypatch.context() as patched:
            patched.setattr(Loop, "_stopped", lambda self, stop=stop: "SIGTERM" if self.step == stop else "")
            pretrain(root, f"stopped-{stop}", "--average-with-init", SHARE, code=75)
        capsys.readouterr()
        pretrain(root, f"stopped-{stop}", "--average-with-init", SHARE)
        told = capsys.readouterr().out
        line = f"averaged the weights with those of {root / 'begun'}, whose share is 0.25"
        assert told.count(line) == (1 if stop == 2 else 0), told
        found = weights(root / f"stopped-{stop}")
        assert all(found[name].tobytes() == value.tobytes() for name, value in expected.items())


def test_another_init_is_an_error_before_the_first_step(root: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(root / "run", root / "again")
    shutil.rmtree(root / "again/checkpoints/step-00000004")
    shutil.move(root / "begun", root / "elsewhere")
    checkpoint(root / "begun", {"objective": "mlm"}, seed=1, encoder=ENCODER.to_dict())
    pretrain(root, "again", "--average-with-init", 1, code=2)
    assert "begun has changed since the run was started: restore its weights" in capsys.readouterr().err
    shutil.rmtree(root / "begun")
    shutil.move(root / "elsewhere", root / "begun")


def test_it_needs_init() -> None:
    with pytest.raises(UserError, match="--average-with-init has no effect without --init: give both, or leave it out"):
        PretrainConfig(data=("d",), output="run", average_with_init=0.5).validate()
