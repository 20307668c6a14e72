"""Reports the metrics of a run: progress lines, metrics.jsonl, experiment trackers."""

import hashlib
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clozemill.model.losses import LOSSES, SUMS, total
from clozemill.trainers.common import storage
from clozemill.trainers.diagnosis.watch import Watch
from clozemill.trainers.engines.engine import COLUMNS
from clozemill.trainers.training.eval_set_names import by_set
from clozemill.trainers.training.pace import Pace
from clozemill.trainers.training.trackers import Service, TensorBoard, TrackedRun, Tracker

METRICS = "metrics.jsonl"
FIRST_PULSE, PULSE = 5.0, 30.0  # seconds without a line after which one is printed, however long a step takes
_COMPILED = "(this step included compilation: speed and time left follow)"


@dataclass(frozen=True)
class Throughput:
    """Data to convert the steps of a phase to rates.

    Args:
        batch_size: rows per step.
        flops_per_row: FLOPs per row of a batch.
        devices: number of devices.
        peak: peak of a device in TFLOP/s, None if unknown.
        extra: by how many steps of this phase the phases after it cost more than their number of steps.
        examples_per_row: mean number of examples per row, more than 1 if they are packed.
    """

    batch_size: int
    flops_per_row: int
    devices: int
    peak: float | None
    extra: float = 0.0
    examples_per_row: float = 1.0


def means(totals: dict[str, float]) -> dict[str, float]:
    """Return losses (nats) and accuracies from the sums of losses.SUMS, without those of absent heads."""
    found = {}
    for name in LOSSES:
        if weight := totals[f"{name}_weight"]:
            found[f"{name}_loss"] = totals[f"{name}_loss"] / weight
            if totals[f"{name}_correct"] >= 0:
                found[f"{name}_accuracy"] = totals[f"{name}_correct"] / weight
    losses = {name: found[f"{name}_loss"] for name in LOSSES if f"{name}_loss" in found}
    return {"loss": total(losses), **found}


def duration(seconds: float) -> str:
    """'0:42', '3:05:10'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _scores(entry: dict[str, Any], reference: float | None = None) -> str:
    """'mlm 6.119 (12.3 %)  nsp 0.693 (51.2 %)'; with the reference 'mlm 6.119 (12.3 %; word frequencies 6.602)'."""
    short = {"masked_lm": "mlm", "next_sentence": "nsp", "task": "task", "replaced": "rtd"}
    if "replaced_loss" in entry:
        short["masked_lm"] = "generator mlm"
    losses = {name: f"{short[name]} {entry[f'{name}_loss']:.3f}" for name in LOSSES if f"{name}_loss" in entry}
    hits = {name: f"{100 * entry[f'{name}_accuracy']:.1f} %" for name in LOSSES if f"{name}_accuracy" in entry}
    if reference is not None and "masked_lm" in hits:
        hits["masked_lm"] += f"; word frequencies {reference:.3f}"
    hits = {name: f" ({text})" for name, text in hits.items()}
    return "  ".join(text + hits.get(name, "") for name, text in losses.items())


def _columns(sums: Sequence[float]) -> np.ndarray:
    """Return sums of a checkpoint by column. An earlier version had fewer losses: the newest ones are the last of SUMS."""
    missing = len(COLUMNS) - len(sums)
    return np.insert(np.array(sums, np.float64), len(SUMS) - missing, np.zeros(missing))


@dataclass
class MetricsLog:
    """Collects the metrics of steps and reports them regularly.

    Args:
        folder: folder of the run.
        steps: total steps of the run.
        tensorboard: whether to write TensorBoard events too.
        silent: whether another worker reports.
        track: a key of TRACKERS, or "".
        config: the options of the run, for the trackers.
        reference: masked-LM loss of word frequencies alone, to print beside that of the model.
    """

    folder: str
    steps: int
    tensorboard: bool = True
    silent: bool = False
    track: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    reference: float | None = None
    lines: list[str] = field(default_factory=list)
    pending: np.ndarray = field(default_factory=lambda: np.zeros(len(COLUMNS)))  # sums since the last line, float64
    count: int = 0  # steps in `pending`
    before: dict[str, float] | None = field(default_factory=lambda: {"tokens": 0, "seconds": 0.0})  # totals up to the last line
    pace: Pace = field(default_factory=Pace)  # of the current phase
    _compiling: np.ndarray = field(default_factory=lambda: np.zeros(len(COLUMNS)))  # sums in `pending` of unsteady steps
    _compiled: int = 0  # unsteady steps in `pending`
    _earlier: int = 0  # entries of earlier processes
    _watch: Watch | None = None
    _trackers: list[Tracker] | None = None  # started with the first entry
    _shown: float = field(default_factory=time.monotonic)  # when the last line was printed
    _patience: float = FIRST_PULSE

    def discard_old(self) -> None:
        """Remove metrics.jsonl of a process that was killed before its first checkpoint: the run starts again."""
        path = storage.join(self.folder, METRICS)
        if not self.silent and storage.exists(path):
            storage.remove(path)

    def resume(self, step: int, pending: dict[str, Any]) -> None:
        """Resume after `step`: entries that were added after its checkpoint to metrics.jsonl will be written again.

        Warns if the file has changed since `step` was saved.
        """
        path = storage.join(self.folder, METRICS)
        if storage.exists(path):
            kept = []
            for line in storage.read(path, "restore it").decode("utf-8", "replace").splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line)
                except (ValueError, KeyError, TypeError, RecursionError):
                    break  # the process was killed while writing this line
            kept = kept[: pending.get("entries", len(kept))]
            self.lines, self._earlier = kept, len(kept)
        if pending.get("lines", self._digest()) != self._digest():
            text = f"{path} is corrupt or was changed: its metrics of earlier steps, and the curves, may be incomplete"
            print(f"warning: {text}; the run itself is not affected", file=sys.stderr, flush=True)
        self.pending, self.count = _columns(pending["sums"]), pending["count"]
        if unsteady := pending.get("unsteady"):
            self._compiling, self._compiled = _columns(unsteady["sums"]), unsteady["count"]
        self.before = pending.get("before")  # None: the checkpoint is of an earlier version, and the totals are unknown

    def _digest(self) -> str:
        """Return the SHA-256 of the lines so far."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()

    def state(self) -> dict[str, Any]:
        """Return the state to save in a checkpoint, so that the next line averages over the same steps after a resume."""
        found = {"sums": self.pending.tolist(), "count": self.count, "before": self.before, "lines": self._digest()}
        found |= {"entries": len(self.lines)}
        unsteady = {"unsteady": {"sums": self._compiling.tolist(), "count": self._compiled}} if self._compiled else {}
        return found | unsteady

    def add(self, rows: np.ndarray, steady: bool = True) -> None:
        """Add the metrics of some steps, [steps, len(COLUMNS)].

        steady: whether none of them traced or compiled anything. The time of others says nothing about the pace.
        """
        sums = rows.astype(np.float64).sum(axis=0)
        self.pending = self.pending + sums
        self.count += len(rows)
        if steady:
            self.pace.add(float(sums[COLUMNS.index("seconds")]), len(rows))
        else:
            self._compiling, self._compiled = self._compiling + sums, self._compiled + len(rows)

    def tell(self, step: int, epochs: Sequence[float], scale: Throughput) -> None:
        """Report the steps since the last report: on standard output, in metrics.jsonl and to TensorBoard.

        epochs: how often each dataset was read.
        """
        entry, line = self._report(step, epochs, scale)
        self.before = {name: entry[name] for name in self.before} if self.before else None
        self.pending, self.count = np.zeros(len(COLUMNS)), 0
        self._compiling, self._compiled = np.zeros(len(COLUMNS)), 0
        if self.silent:
            return
        self._print(line)
        self._write(entry, "train")

    def pulse(self, step: int, epochs: Sequence[float], scale: Throughput) -> None:
        """Print a line for the steps since the last report if none was printed for a while; nothing else changes."""
        if not self.silent and time.monotonic() - self._shown >= self._patience:
            self._print(self._report(step, epochs, scale)[1])

    def _print(self, line: str) -> None:
        print(line, flush=True)
        self._shown, self._patience = time.monotonic(), PULSE

    def _report(self, step: int, epochs: Sequence[float], scale: Throughput) -> tuple[dict[str, Any], str]:
        """Return the entry of the steps since the last report, and its line."""
        totals, count = dict(zip(COLUMNS, self.pending.tolist(), strict=True)), self.count
        steady = self.count > self._compiled  # else there is nothing but steps that compiled
        timed = dict(zip(COLUMNS, (self.pending - self._compiling * steady).tolist(), strict=True))
        seconds = max(timed["seconds"], 1e-9)
        speed = scale.batch_size * (count - self._compiled * steady) / seconds
        tokens = timed["tokens"] / seconds
        entry: dict[str, Any] = {"step": step, "epoch": round(max(epochs), 4), **means(totals)}
        entry |= {"epochs": [round(each, 4) for each in epochs]} if len(epochs) > 1 else {}
        entry |= {"learning_rate": totals["learning_rate"] / count, "gradient_norm": totals["gradient_norm"] / count}
        examples = speed * scale.examples_per_row
        entry |= {"examples_per_second": examples, "tokens_per_second": tokens, "input_share": timed["waited"] / seconds}
        if scale.peak:
            entry["mfu"] = scale.flops_per_row * speed / (scale.devices * scale.peak * 1e12)
        if self.before:  # totals of the run, without evaluations and checkpoints
            entry["tokens"] = self.before["tokens"] + round(totals["tokens"])
            entry["seconds"] = round(self.before["seconds"] + totals["seconds"], 3)
        left = self.pace.time_for(self.steps - step + scale.extra) if step < self.steps else 0.0
        mfu = f"  mfu {100 * entry['mfu']:.1f} %" if scale.peak else ""
        mixed = "  epochs " + ", ".join(f"{each:.2f}" for each in epochs) if len(epochs) > 1 else ""
        rates = f"{examples:,.0f} examples/s  {tokens:,.0f} tokens/s{mfu}  input {100 * entry['input_share']:.1f} %"
        return entry, (
            f"step {step:,}/{self.steps:,}  loss {entry['loss']:.3f}  {_scores(entry, self.reference)}  "
            f"lr {entry['learning_rate']:.2e}{mixed}  " + (_COMPILED if left is None else f"{rates}  left {duration(left)}")
        )

    def tell_eval(self, step: int, figures: dict[str, Any]) -> None:
        """Report the metrics of an evaluation in the same places."""
        if self.silent:
            return
        for name, found in by_set(figures).items():
            own = {name: value for name, value in found.items() if isinstance(value, float | None) and name != "criterion"}
            values = ((name, "undefined" if value is None else f"{value:.4f}") for name, value in own.items())
            scores = _scores(found, found.get("unigram_loss")) or "  ".join(f"{name} {value}" for name, value in values)
            split = f"eval {name}: " if name else "eval "
            print(f"step {step:,}/{self.steps:,}  {split}{scores}  {found['examples']:,} examples", flush=True)
        self._write({"step": step, "split": "eval", **figures}, "eval")
        self._warn_of_findings()

    def _warn_of_findings(self) -> None:
        """Print what is wrong with the run as far as that wasn't printed yet."""
        if not self._watch:
            self._watch = Watch(self.folder, self.entries()[: self._earlier])
        try:
            for finding in self._watch.new_findings(self.entries()):
                print(f"warning: {finding}", file=sys.stderr, flush=True)
        except Exception as error:  # it is only for people
            print(
                f"warning: the run can't be diagnosed ({error!r:.300}); training is not affected", file=sys.stderr, flush=True
            )

    def findings(self) -> list[str]:
        """Return what was wrong with the run at its last evaluation, as sentences. The evaluation warns of a plateau itself."""
        found = self._watch.current if self._watch else []
        return [str(finding) for finding in found if finding.kind != "plateau"]

    def _write(self, entry: dict[str, Any], group: str) -> None:
        self.lines.append(json.dumps(entry))
        if storage.is_local(self.folder):  # object stores can't append; `flush` writes the complete file
            storage.append(storage.join(self.folder, METRICS), self.lines[-1].encode() + b"\n")
        numbers = {name: value for name, value in entry.items() if isinstance(value, float) and math.isfinite(value)}
        for tracker in self._started():
            tracker.log(entry["step"], {f"{group}/{name}": value for name, value in numbers.items()})

    def _started(self) -> list[Tracker]:
        """Return the trackers, started."""
        if self._trackers is None:
            run = TrackedRun(self.folder, self.config)
            self._trackers = [TensorBoard(run)] if self.tensorboard else []
            self._trackers += [Service(self.track, run)] if self.track else []
        return self._trackers

    def flush(self) -> None:
        """Write metrics.jsonl and the events to disk completely."""
        if self.silent:
            return
        storage.write(storage.join(self.folder, METRICS), "".join(line + "\n" for line in self.lines).encode())
        for tracker in self._trackers or ():
            tracker.flush()

    def close(self, done: bool) -> None:
        """End the tracked run. done: whether the run is complete."""
        for tracker in self._trackers or ():
            tracker.close(done)

    def entries(self) -> list[dict[str, Any]]:
        """Return the entries of metrics.jsonl so far."""
        return [json.loads(line) for line in self.lines]


class Clock:
    """Minutes since the last reset. Decides only when to save, never what."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._began = time.monotonic()

    def minutes(self) -> float:
        return (time.monotonic() - self._began) / 60
