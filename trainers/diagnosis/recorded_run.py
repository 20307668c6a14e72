"""Reads what a run has recorded of itself: run.json, metrics.jsonl and report.json.

The run may be training meanwhile: the last line of metrics.jsonl may be half written. Local folders load no TensorFlow.
"""

import json
import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import filesystem
from clozemill.trainers.common import storage

Entries = list[dict[str, Any]]
RUN_FILE, JOURNAL, SESSIONS, DIVERGED, SWEEP = "run.json", "metrics.jsonl", "report.json", "diverged.json", "sweep.json"
_DEVICE = re.compile(r"(\d+) x ([^,]+)")  # as in "8 x TPU v5 lite, bfloat16"
_GIVE_RUN = "give the folder of a run of clozemill pretrain or finetune"


@dataclass(frozen=True)
class Totals:
    """What a run has consumed up to a step.

    Attributes:
        tokens: tokens of its batches, without padding.
        seconds: time of its steps, without evaluations and checkpoints.
        estimated: whether both follow from rates, because an earlier version of clozemill didn't record them.
    """

    step: int
    tokens: float
    seconds: float
    estimated: bool = False


@dataclass(frozen=True)
class RecordedRun:
    """The records of a run.

    Attributes:
        folder: its folder.
        about: run.json: `identity`, `config`, and what checkpoints record of the model.
        entries: metrics.jsonl, without entries of steps that a resumed run has repeated.
        sessions: the processes that worked on it; [] if that isn't known.
        diverged: diverged.json; None unless a loss or a gradient became NaN or infinite.
    """

    folder: str
    about: dict[str, Any]
    entries: Entries
    sessions: list[dict[str, Any]] = field(default_factory=list)
    diverged: dict[str, Any] | None = None

    @property
    def config(self) -> dict[str, Any]:
        return self.about["config"]

    @property
    def identity(self) -> dict[str, Any]:
        return self.about["identity"]

    @property
    def command(self) -> str:
        """Return the command of the run."""
        task = self.about.get("task")
        return "pretrain" if not isinstance(task, dict) else "contrast" if task.get("kind") == "embed" else "finetune"

    @cached_property
    def phases(self) -> list[dict[str, Any]]:
        """Return what the identity records of each phase of pretrain; earlier versions recorded one objective for all."""
        found = [self.identity.get(f"phase {number}") for number in range(1, 1 + len(self.identity))]
        common = {"objective": self.identity.get("objective", "")}
        return [_typed(common | phase) for phase in found if isinstance(phase, dict)]

    @property
    def vocabulary(self) -> dict[str, Any]:
        """Return sha256 and size of the vocabulary; {} if they aren't recorded."""
        found = self.about.get("vocabulary")
        return found if isinstance(found, dict) else {}

    @cached_property
    def train(self) -> Entries:
        return [entry for entry in self.entries if entry.get("split") != "eval"]

    @cached_property
    def evaluated(self) -> Entries:
        return [entry for entry in self.entries if entry.get("split") == "eval"]

    @property
    def step(self) -> int:
        """Return the last step that was reported."""
        return max((entry["step"] for entry in self.entries), default=0)

    @property
    def planned_steps(self) -> int | None:
        """Return the steps of the run; None for finetune, where they follow from the examples."""
        return sum(phase["steps"] for phase in self.phases) or None

    @cached_property
    def totals(self) -> list[Totals]:
        """Return what was consumed up to each entry of training; [] if it is unknown."""
        tokens, seconds = (series(self.train, name) for name in ("tokens", "seconds"))
        if len(tokens) == len(seconds) == len(self.train):
            return [Totals(*count, time) for count, (_, time) in zip(tokens, seconds, strict=True)]
        return self._estimated_totals()

    def _estimated_totals(self) -> list[Totals]:
        """Return totals from the rates of each entry, for examples that aren't packed."""
        found, before, tokens, seconds = [], 0, 0.0, 0.0
        for entry in self.train:
            rate, size = number(entry, "examples_per_second"), self._batch_size(entry["step"])
            if not rate or not size:
                return []
            passed = (entry["step"] - before) * size / rate
            tokens, seconds, before = (
                tokens + passed * (number(entry, "tokens_per_second") or 0.0),
                seconds + passed,
                entry["step"],
            )
            found.append(Totals(before, tokens, seconds, estimated=True))
        return found

    def _batch_size(self, step: int) -> int:
        """Return the batch size of a step, 0 if it is unknown."""
        end = 0
        for phase in self.phases:
            end += phase["steps"]
            if step <= end:
                return phase["batch_size"]
        return _count(self.identity.get("batch_size"))

    @property
    def devices(self) -> list[tuple[int, str]]:
        """Return the number and the kind of the devices of each process; (1, "") where that is unknown."""
        matches = [_DEVICE.match(str(each.get("device", ""))) for each in self.sessions]
        return [(int(found[1]), found[2]) if found else (1, "") for found in matches]


_PHASE = ("steps", "batch_size", "warmup_steps", "scheduled_steps")  # counts of a phase


def _count(value: Any) -> int:
    """Return a count, 0 for anything else."""
    return value if type(value) is int and value > 0 else 0


def _typed(phase: dict[str, Any]) -> dict[str, Any]:
    """Return a phase with values of the right types: counts and a learning rate, 0 if they are missing; texts otherwise.

    `mixture` is the (digest, share) of each of its datasets.
    """
    texts = {name: str(phase.get(name, "")) for name in ("dataset", "objective")}
    rate, told = number(phase, "learning_rate") or 0.0, phase.get("mixture")
    parts = [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []
    mixture = [(str(each.get("dataset", "")), number(each, "share") or 0.0) for each in parts] or [(texts["dataset"], 1.0)]
    return texts | {name: _count(phase.get(name)) for name in _PHASE} | {"learning_rate": rate, "mixture": mixture}


def number(entry: dict[str, Any], name: str) -> float | None:
    """Return a finite value of an entry; None if it is missing, undefined or not a number."""
    value = entry.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def series(entries: Entries, name: str) -> list[tuple[int, float]]:
    """Return (step, value) for every entry with a finite value."""
    return [(entry["step"], value) for entry in entries if (value := number(entry, name)) is not None]


def read_if_there(folder: str, name: str) -> bytes | None:
    """Return a file of a run or of a dataset, None if there is none. Raises UserError if it can't be read."""
    path = filesystem.join(folder, name)
    if not filesystem.is_remote(path):
        return filesystem.read_bytes(path) if os.path.exists(path) else None
    return storage.read(path, _GIVE_RUN) if name in storage.listed(folder) else None


def _integer(digits: str) -> int | float:
    """Return an integer; one that exceeds 18 digits, which no count has, as a float, because others overflow later."""
    return int(digits) if len(digits) < 19 else float(digits)


def json_object(data: bytes | None) -> dict[str, Any]:
    """Return a JSON object; {} for anything else."""
    try:
        found = json.loads(data or b"", parse_int=_integer)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def parse_journal(data: bytes) -> tuple[Entries, list[int]]:
    """Return the entries of a metrics.jsonl, and the numbers of its damaged lines.

    A last line without a line end is still being written, and isn't damaged. A resumed run repeats the steps since its
    checkpoint, so an entry replaces those of its step and of later ones.
    """
    *lines, last = data.decode("utf-8", "replace").split("\n")
    entries: Entries = []
    damaged = []
    for place, line in enumerate([*lines, last], 1):
        entry = json_object(line.encode())
        if type(entry.get("step")) is not int:
            damaged += [place] if line.strip() and place <= len(lines) else []
            continue
        while entries and entries[-1]["step"] > entry["step"]:
            entries.pop()
        while entries and entries[-1]["step"] == entry["step"] and entries[-1].get("split") == entry.get("split"):
            entries.pop()
        entries.append(entry)
    return entries, damaged


def _sessions(data: bytes | None) -> list[dict[str, Any]]:
    """Return the processes of a report.json that have their seconds; [] for a file of another form."""
    found = json_object(data).get("sessions")
    return (
        [each for each in found if isinstance(each, dict) and number(each, "seconds") is not None]
        if isinstance(found, list)
        else []
    )


def best_of_sweep(data: bytes | None) -> str:
    """Return the name of the best run in the contents of a sweep.json, "" if it names none."""
    best = json_object(data).get("best")
    return best if isinstance(best, str) and best not in (".", "..") and "/" not in best else ""


def read_recorded_run(folder: str) -> RecordedRun:
    """Return the records of a run, or of the best run of `finetune --seeds` or `--sweep`. Raises UserError for other folders.

    A run that has just started has no entries. Damaged lines of metrics.jsonl are left out, with a warning.
    """
    data = read_if_there(folder, RUN_FILE)
    if data is None and (best := best_of_sweep(read_if_there(folder, SWEEP))):
        folder = filesystem.join(folder, best)
        data = read_if_there(folder, RUN_FILE)
    if data is None:
        raise UserError(f"{folder} contains no {RUN_FILE}: {_GIVE_RUN}")
    about = json_object(data)
    if not isinstance(about.get("identity"), dict) or not isinstance(about.get("config"), dict):
        raise UserError(
            f"{filesystem.join(folder, RUN_FILE)} is not that of a run, or of another version of clozemill: {_GIVE_RUN}, "
            "or use the version that wrote it"
        )
    entries, damaged = parse_journal(read_if_there(folder, JOURNAL) or b"")
    if damaged:
        where = f"line {damaged[0]:,}" + (f" and {len(damaged) - 1:,} more" if len(damaged) > 1 else "")
        print(f"warning: {filesystem.join(folder, JOURNAL)}, {where}: damaged, and left out", file=sys.stderr, flush=True)
    diverged = json_object(read_if_there(folder, DIVERGED)) or None
    return RecordedRun(folder, about, entries, _sessions(read_if_there(folder, SESSIONS)), diverged)


def require_entries(runs: Sequence[RecordedRun]) -> None:
    """Raise UserError if none of the runs has reported anything yet."""
    if not any(run.entries for run in runs):
        where = filesystem.join(runs[0].folder, JOURNAL)
        raise UserError(f"{where} is missing or has no entry: wait until the run has done --log-steps steps")
