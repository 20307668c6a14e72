"""Experiment trackers: TensorBoard, and with `--track` a service such as Weights & Biases or MLflow.

To add a service, add a class to TRACKERS, with the module that it needs, and its name to TRACKER_NAMES in
trainers/common/config.py. Where a service stores its runs follows from its own environment variables (WANDB_PROJECT,
WANDB_MODE, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME).
"""

import importlib
import io
import json
import os
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import storage

TENSORBOARD, IDS = "tensorboard", "tracker.json"
PROJECT = "clozemill"
FOLDERS = ("wandb",)  # in the folder of a run, that a service writes itself, with links
_LONGEST = 500  # characters of a value in MLflow


@dataclass(frozen=True)
class TrackedRun:
    """The run that is tracked. config: its options. id: the service's id of the run when it is resumed, else ""."""

    folder: str
    config: dict[str, Any] = field(default_factory=dict)
    id: str = ""

    @property
    def name(self) -> str:
        """Return the name of the folder."""
        return self.folder.rstrip("/").rsplit("/", 1)[-1]


class Tracker(Protocol):
    """Receives the metrics of one run. id: what the service calls the run, to resume it."""

    id: str

    def log(self, step: int, values: dict[str, float]) -> None:
        """Record finite values by name, such as "train/loss". Steps don't decrease, except after a resume."""

    def flush(self) -> None: ...

    def close(self, done: bool) -> None:
        """End the run. done: False if it stopped early; it may be resumed."""


def plain(config: dict[str, Any]) -> dict[str, str | bool | int | float]:
    """Return the options with values that every service accepts: anything but numbers and texts as JSON."""
    return {name: v if isinstance(v, str | bool | int | float) else json.dumps(v) for name, v in config.items()}


class TensorBoard:
    """Writes TensorBoard events: scalars, and at the start the options as text and as hyper-parameters.

    A local file has each event at once. Object stores can't append: there, `flush` writes the complete file.
    """

    def __init__(self, run: TrackedRun) -> None:
        self.id, self._folder, self._kept = "", storage.join(run.folder, TENSORBOARD), b""
        storage.make_folder(self._folder)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._path = storage.join(self._folder, name)
        self._write(0, [{"file_version": "brain.Event:2"}])
        if run.config:
            self._describe(run)

    def _write(self, step: int, events: list[dict[str, Any]]) -> None:
        """Append events. TensorBoard's own EventFileWriter would load TensorFlow where it is installed."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        records, now = io.BytesIO(), time.time()
        for event in events:
            RecordWriter(records).write(Event(wall_time=now, step=step, **event).SerializeToString())
        if storage.is_local(self._path):
            storage.append(self._path, records.getvalue())
        else:
            self._kept += records.getvalue()

    def _describe(self, run: TrackedRun) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.plugins.text.summary_v2 import text_pb

        options = plain(run.config)
        lines = [f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in options.items()]
        table = "\n".join(["| option | value |", "|---|---|", *lines])
        self._write(0, [{"summary": text_pb("configuration", table)}, {"summary": hparams_pb(options, trial_id=run.name)}])

    def log(self, step: int, values: dict[str, float]) -> None:
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        self._write(step, [{"summary": scalar_pb(name, value)} for name, value in values.items()])

    def flush(self) -> None:
        if self._kept:
            storage.write(self._path, self._kept)

    def close(self, done: bool) -> None:
        self.flush()


class WandbTracker:
    """Weights & Biases."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        project, known = os.environ.get("WANDB_PROJECT") or PROJECT, {"id": run.id} if run.id else {}
        folder = run.folder if storage.is_local(run.folder) else None
        self._run = wandb.init(project=project, name=run.name, config=plain(run.config), dir=folder, resume="allow", **known)
        self.id = self._run.id

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def flush(self) -> None: ...

    def close(self, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)


class MLflowTracker:
    """MLflow, through its client, which has no global state."""

    def __init__(self, run: TrackedRun) -> None:
        import mlflow

        self._entities, self._client = mlflow.entities, mlflow.MlflowClient()
        self.id = run.id or self._created(run)

    def _created(self, run: TrackedRun) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        known = self._client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else self._client.create_experiment(experiment)
        made = self._client.create_run(number, run_name=run.name).info.run_id
        options = [self._entities.Param(name, str(value)[:_LONGEST]) for name, value in plain(run.config).items()]
        for begin in range(0, len(options), 100):  # the limit of one request
            self._client.log_batch(made, params=options[begin : begin + 100])
        return made

    def log(self, step: int, values: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(self.id, metrics=[self._entities.Metric(name, v, now, step) for name, v in values.items()])

    def flush(self) -> None: ...

    def close(self, done: bool) -> None:
        self._client.set_terminated(self.id, status="FINISHED" if done else "KILLED")


TRACKERS: dict[str, tuple[str, Any]] = {"wandb": ("wandb", WandbTracker), "mlflow": ("mlflow", MLflowTracker)}


def check_tracker(name: str) -> None:
    """Raise UserError if the library of a tracker isn't installed. "": none."""
    if name:
        module, _ = TRACKERS[name]
        try:
            importlib.import_module(module)
        except ImportError:
            raise UserError(f"--track {name} needs {module}: pip install 'clozemill[{name}]', or leave it out") from None


class Service:
    """A tracker of TRACKERS whose failures don't end the run: it warns once, and is left out from then on.

    The service's id of the run is kept in the run's folder, so that a resumed run continues there.
    """

    def __init__(self, name: str, run: TrackedRun) -> None:
        self.name, self.id, self._run = name, "", run
        self._tracker: Tracker | None = None
        self._failed = False

    def _try(self, what: str, *arguments: Any) -> None:
        if self._failed:
            return
        try:
            self._tracker = self._tracker or self._started()
            getattr(self._tracker, what)(*arguments)
        except Exception as error:
            self._failed = True
            told = " ".join(str(error).split())[:200] or type(error).__name__
            print(f"warning: --track {self.name} failed and stops ({told}); the run goes on", file=sys.stderr, flush=True)

    def _started(self) -> Tracker:
        path = storage.join(self._run.folder, IDS)
        ids = json.loads(storage.read(path, "remove it")) if storage.exists(path) else {}
        tracker = TRACKERS[self.name][1](TrackedRun(self._run.folder, self._run.config, ids.get(self.name, "")))
        storage.write_json(path, {**ids, self.name: tracker.id})
        return tracker

    def log(self, step: int, values: dict[str, float]) -> None:
        self._try("log", step, values)

    def flush(self) -> None:
        if self._tracker:
            self._try("flush")

    def close(self, done: bool) -> None:
        if self._tracker:
            self._try("close", done)
