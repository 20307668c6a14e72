"""Trackers get the numbers of metrics.jsonl, continue after a resume, and never end a run."""

import importlib.util
import json
import sys
import types
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import safe_paths
from clozemill.trainers.common.config import TRACKER_NAMES
from clozemill.trainers.training import trackers
from clozemill.trainers.training.metrics_log import MetricsLog
from tests.trainers.training.test_metrics_log import SCALE, rows

CONFIG = {"preset": "tiny", "learning_rate": 1e-4, "data": ["a", "b"], "text": "a|b"}


def tracked(folder: Path, track: str, done: bool = True, step: int = 10) -> None:
    """A run of one train entry and one evaluation."""
    log = MetricsLog(str(folder), 1000, tensorboard=False, track=track, config=CONFIG)
    log.add(rows(2))
    log.tell(step, [1.0], SCALE)
    log.tell_eval(step, {"masked_lm_loss": 2.5, "masked_lm_accuracy": float("nan"), "examples": 9, "remarks": ["x"]})
    log.flush()
    log.close(done)


class _WandbRun:
    def __init__(self, name: str) -> None:
        self.id, self.logged, self.exits = name, [], []

    def log(self, data: dict, step: int | None = None) -> None:
        self.logged.append((step, data))

    def finish(self, exit_code: int | None = None) -> None:
        self.exits.append(exit_code)


def fake_wandb() -> types.ModuleType:
    """The part of wandb's interface that is used, as its documentation states it."""
    module, runs = types.ModuleType("wandb"), {}

    def init(project=None, name=None, config=None, dir=None, resume=None, id=None):
        (Path(dir) / "wandb").mkdir(exist_ok=True)
        if not (link := Path(dir) / "wandb/latest-run").is_symlink():
            link.symlink_to("run-1")
        assert resume == "allow" and Path(dir).is_dir() and all(isinstance(v, str | int | float) for v in config.values())
        found = runs.setdefault(id or f"run{len(runs)}", _WandbRun(id or f"run{len(runs)}"))
        found.project, found.name, found.config = project, name, config
        return found

    module.init, module.runs = init, runs  # type: ignore[attr-defined]
    return module


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    (tmp_path / "run").mkdir()
    tracked(tmp_path / "run", "wandb", done=False)
    safe_paths.refuse_links(str(tmp_path / "run"), trackers.FOLDERS)  # as a resumed run does
    tracked(tmp_path / "run", "wandb", step=20)  # resumed
    assert list(fake.runs) == ["run0"] and json.loads((tmp_path / "run/tracker.json").read_text()) == {"wandb": "run0"}
    run = fake.runs["run0"]
    assert (run.project, run.name, run.exits) == ("clozemill", "run", [1, 0])
    assert run.config == CONFIG | {"data": '["a", "b"]'}
    assert [step for step, _ in run.logged] == [10, 10, 20, 20]
    assert run.logged[0][1]["train/loss"] == 3.5 and run.logged[1][1] == {"eval/masked_lm_loss": 2.5}


def fake_mlflow() -> types.ModuleType:
    """The part of mlflow's interface that is used."""
    module, state = types.ModuleType("mlflow"), {"experiments": {}, "runs": {}}

    class MlflowClient:
        def get_experiment_by_name(self, name: str):
            number = state["experiments"].get(name)
            return number and types.SimpleNamespace(experiment_id=number)

        def create_experiment(self, name: str) -> str:
            return state["experiments"].setdefault(name, f"e{len(state['experiments'])}")

        def create_run(self, experiment_id: str, run_name: str | None = None):
            state["runs"][f"r{len(state['runs'])}"] = {"experiment": experiment_id, "name": run_name, "log": [], "end": []}
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id=list(state["runs"])[-1]))

        def log_batch(self, run_id: str, metrics=(), params=()) -> None:
            state["runs"][run_id]["log"] += [*metrics, *params]

        def set_terminated(self, run_id: str, status: str | None = None) -> None:
            state["runs"][run_id]["end"].append(status)

    module.MlflowClient, module.state = MlflowClient, state  # type: ignore[attr-defined]
    module.entities = types.SimpleNamespace(  # type: ignore[attr-defined]
        Metric=lambda key, value, timestamp, step: (key, value, step), Param=lambda key, value: (key, value)
    )
    return module


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_mlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    tracked(tmp_path, "mlflow", done=False)
    tracked(tmp_path, "mlflow", step=20)
    assert fake.state["experiments"] == {"mine": "e0"} and list(fake.state["runs"]) == ["r0"]
    run = fake.state["runs"]["r0"]
    assert run["name"] == tmp_path.name and run["end"] == ["KILLED", "FINISHED"]
    assert run["log"][:4] == [("preset", "tiny"), ("learning_rate", "0.0001"), ("data", '["a", "b"]'), ("text", "a|b")]
    assert ("eval/masked_lm_loss", 2.5, 10) in run["log"] and ("train/loss", 3.5, 20) in run["log"]


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="needs mlflow")
def test_real_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/store")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # from 3.x on, files must be asked for
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    import mlflow

    (tmp_path / "run").mkdir()
    tracked(tmp_path / "run", "mlflow", done=False)
    tracked(tmp_path / "run", "mlflow", step=20)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("clozemill").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["data"] == '["a", "b"]'
    assert [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "train/loss")] == [
        (10, 3.5),
        (20, 3.5),
    ]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb")
def test_real_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "run").mkdir()
    tracked(tmp_path / "run", "wandb")
    assert "warning" not in capsys.readouterr().err and list((tmp_path / "run/wandb").glob("offline-run-*"))
    safe_paths.refuse_links(str(tmp_path / "run"), trackers.FOLDERS)


def test_a_service_that_fails_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    fake = fake_wandb()
    fake.init = lambda **_: (_ for _ in ()).throw(ConnectionError("no\nnetwork"))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    tracked(tmp_path, "wandb")
    told = "warning: --track wandb failed and stops (no network); the run goes on\n"
    assert capsys.readouterr().err == told and len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("name", TRACKER_NAMES)
def test_without_the_library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"^--track {name} needs {name}: pip install 'clozemill\[{name}\]', or leave it out$"):
        trackers.check_tracker(name)
    trackers.check_tracker("")


def test_the_choices_are_the_trackers() -> None:
    assert tuple(trackers.TRACKERS) == TRACKER_NAMES


def test_tensorboard_shows_the_options(tmp_path: Path) -> None:
    log = MetricsLog(str(tmp_path), 1000, config=CONFIG)
    log.tell_eval(5, {"masked_lm_loss": 2.5, "examples": 9})
    log.close(True)
    (path,) = (tmp_path / "tensorboard").iterdir()
    found = {}
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        for value in event_pb2.Event.FromString(record).summary.value:
            found[value.tag] = value
    assert tf.make_ndarray(found["eval/masked_lm_loss"].tensor) == 2.5
    assert b'| learning_rate | 0.0001 |\n| data | ["a", "b"] |\n| text | a\\|b |' in bytes(
        tf.make_ndarray(found["configuration"].tensor).item()
    )
    assert b"learning_rate" in found["_hparams_/session_start_info"].metadata.plugin_data.content
