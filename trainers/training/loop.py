"""The training loop: steps, metrics, evaluations, checkpoints, signals, and the stop when a loss is NaN or infinite."""

import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from clozemill.model.losses import LOSSES
from clozemill.pipelines.command_line.overwriting import same_command
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import peak_flops, storage
from clozemill.trainers.engines.engine import COLUMNS, Engine, OutOfMemory, StepOptions, Trainer
from clozemill.trainers.engines.train_state import TrainState
from clozemill.trainers.training import checkpoints, environment
from clozemill.trainers.training.early_stopping import INCOMPARABLE, EarlyStopping
from clozemill.trainers.training.metrics_log import Clock, MetricsLog, Throughput
from clozemill.trainers.training.pace import Pace
from clozemill.trainers.training.run_page import COMPLETE, RunPage
from clozemill.trainers.training.run_protocols import PhaseEvaluation, TrainingPhase, TrainingRun
from clozemill.trainers.training.signals import EXIT_DIVERGED, EXIT_DONE, EXIT_STOPPED, RESPONSE_SECONDS, Signals


def resumed(state: TrainState, journal: MetricsLog, stopping: EarlyStopping | None = None) -> tuple[int, MetricsLog, bool]:
    """Restore the state, the metrics log and early stopping from the run's newest checkpoint.

    Returns (step of the checkpoint, 0 for a new run; the metrics log; whether that step was evaluated).
    """
    found = checkpoints.restore(journal.folder, state)
    if not found:
        journal.discard_old()
        return 0, journal, True
    journal.resume(found["step"], found["journal"])
    if stopping:
        stopping.resume(found)
    return found["step"], journal, bool(found.get("eval"))


def idle_steps(phases: Sequence[TrainingPhase], phase: TrainingPhase, path: str) -> int:
    """Return how many steps before a phase didn't train the variable of a path."""
    return sum(each.end - each.begin for each in phases if each.end <= phase.begin and not each.trains(path))


@dataclass
class Loop:
    """Runs a plan from the current state of its folder.

    Args:
        plan: the run to execute.
        folder: folder of the run.
        engine: the devices.
        state: the variables, restored.
        step: number of steps done.
        journal: the metrics log, restored.
        evaluated: whether an evaluation due at `step` is done; it isn't if a signal stopped the run there.
        stopping: early stopping.
        finish: changes the weights after the last step. The best checkpoint is then the last one.
    """

    plan: TrainingRun
    folder: str
    engine: Engine
    state: TrainState
    step: int
    journal: MetricsLog
    evaluated: bool = True
    stopping: EarlyStopping = field(default_factory=EarlyStopping)
    finish: Callable[[], None] | None = None
    signals: Signals = field(default_factory=Signals)
    saved_at: int = -1  # the step of the newest checkpoint
    _clock: Clock = field(default_factory=Clock)
    _affordable: int = 1  # steps that fit into RESPONSE_SECONDS; the first call is a single step

    def run(self) -> int:
        """Run the remaining steps; return the exit code."""
        self.saved_at = self.step if self.step else -1
        self.signals.again = same_command(self.plan.config)
        if self._writes and (how := environment.attention(self.engine, self.plan)):
            print(how, flush=True)
        self._page = RunPage(self.plan, self.folder, self.engine, self.journal, self.step)
        code = EXIT_STOPPED
        try:
            code = self._run_phases()
        finally:
            self.journal.close(done=code == EXIT_DONE)
        return code

    def _run_phases(self) -> int:
        code = EXIT_DONE
        with self.signals.caught(), self.engine.raise_if_worker_lost():
            for phase in self.plan.phases:
                owed = self.step == phase.end and not self.evaluated
                if (self.step < phase.end or owed) and code == EXIT_DONE and not self.stopping.stops:
                    code = self._phase(phase)
            if code == EXIT_DONE:
                self._write_page(COMPLETE)
            # Barrier: a worker that exits while worker 0 writes would be taken for lost.
            self.engine.gather(0)
        return code

    @property
    def _writes(self) -> bool:
        """Return whether this process writes files."""
        return self.engine.process == 0

    def _write_page(self, ended: str, failed: bool = False) -> None:
        if self._writes:
            self._page.write(self.step, ended, failed)

    def _stopped(self) -> str:
        """Return the signal that this process or another worker received, or ""."""
        mine = signal.Signals[self.signals.received] if self.signals.received else 0
        every = max(self.engine.gather(int(mine)))
        return signal.Signals(every).name if every else ""

    def _trainer(self, phase: TrainingPhase) -> Trainer:
        """Return the trainer of a phase, positioned at the current step."""
        config, done = self.plan.config, self.step - phase.begin
        parts = config.gradient_accumulation_steps
        idle = partial(idle_steps, self.plan.phases, phase)
        options = StepOptions(phase.schedule, self.plan.hyper, config.optimizer, parts, config.seed, phase.masks, idle)

        def batches(host: int, hosts: int, size: int) -> object:
            return phase.reader(config, host, hosts, self.engine.compiles).batches(size, done)

        return self.engine.trainer(self.state, options, phase.batch_size, batches)

    def _phase(self, phase: TrainingPhase) -> int:
        config = self.plan.config
        peak = config.peak_tflops or peak_flops.peak_tflops(self.engine.device_name)
        replicas = self.engine.replicas
        extra, packed = self._extra(phase), phase.examples_per_row
        scale = Throughput(phase.batch_size, self.plan.flops(phase), replicas, peak, extra, packed)
        self.journal.pace = Pace()
        phase.set_up(self.state.model)
        evaluation = phase.evaluation(self.engine, self.state.model, config)
        with phase.reading():
            self.journal.reference = evaluation.reference() if evaluation and self._writes else None
        if self.step == 0 and evaluation and self.plan.evaluates_start:
            with phase.reading():
                self.journal.tell_eval(0, evaluation.figures())
        if not self.evaluated and evaluation and self._evaluation_due(phase):
            self._evaluate(evaluation, phase)
        self.evaluated = True
        trainer = self._trainer(phase)
        while self.step < phase.end and not self.stopping.stops:
            count = self._until_next(phase)
            rows, steady = self._train(trainer, count, phase)
            if not self._finite(rows, phase):
                self._write_page("loss or gradients became NaN or infinite; training ended", failed=True)
                return EXIT_DIVERGED
            self.journal.add(rows, steady)
            self.step += count
            if self.finish and self.step == self.plan.steps:  # before anything is saved: a resumed run doesn't do it again
                self.finish()
            self.signals.unsaved = self.step - max(self.saved_at, 0)
            stopped = self._stopped()  # evaluated once: all workers must act alike
            last = self.step == phase.end
            epochs = phase.epochs(self.step)
            if last or self.step % config.log_steps == 0:
                self.journal.tell(self.step, epochs, scale)
            else:
                self.journal.pulse(self.step, epochs, scale)
            if evaluation and self._evaluation_due(phase) and not stopped:  # a process that must stop has seconds, not minutes
                stopped = self._evaluate(evaluation, phase)
            elif last or stopped or self._due() or self.step == phase.schedule.stable_until:
                self._save()
                if not stopped and self._writes and self._page.due():
                    self._page.write(self.step)
            if stopped:
                self._write_page(f"stopped by {stopped}")
                print(f"{stopped}: saved at step {self.step:,}; run {self.signals.again} to resume", flush=True)
                return EXIT_STOPPED
        return EXIT_DONE

    def _extra(self, phase: TrainingPhase) -> float:
        """Return by how many steps of this phase the later ones cost more than their number of steps, from their FLOPs."""
        own = self.plan.flops(phase) * phase.batch_size
        later = [each for each in self.plan.phases if each.begin >= phase.end]
        return sum((each.end - each.begin) * (self.plan.flops(each) * each.batch_size / own - 1) for each in later)

    def _evaluation_due(self, phase: TrainingPhase) -> bool:
        every = self.plan.config.eval_steps
        return self.step == phase.end or bool(every and self.step % every == 0)

    def _evaluate(self, evaluation, phase: TrainingPhase) -> str:
        """Save, evaluate, and save the metrics too: an evaluation may take minutes, and nothing is lost if the process ends.

        Returns the signal that came meanwhile, or "" if none came or the run is complete.
        """
        if self.saved_at != self.step:
            self._save()
            if stopped := self._stopped():
                return stopped
        with phase.reading(), self.signals.interruptible(self.engine.processes == 1):
            figures = evaluation.figures()
        if self.finish and self.step < self.plan.steps:
            figures |= INCOMPARABLE
        self.evaluated = True
        self.stopping.add(figures)
        self.journal.tell_eval(self.step, figures)
        self._save(figures)
        if self.stopping.stops and self.step < self.plan.steps and self._writes:
            print(
                f"stopped early at step {self.step:,} of {self.plan.steps:,}: no improvement in the last "
                f"{self.stopping.waited} evaluations (--patience)",
                flush=True,
            )
        self._present(evaluation)
        return "" if self.step == self.plan.steps or self.stopping.stops else self._stopped()

    def _present(self, evaluation: PhaseEvaluation) -> None:
        """Note the model's answers after an evaluation, and draw the page of the run if that is due. `run` draws the last."""
        if self._writes:
            self._page.exhibit(evaluation, self.step)
            if self.step < self.plan.steps and not self.stopping.stops and self._page.due():
                self._page.write(self.step)

    def _until_next(self, phase: TrainingPhase) -> int:
        """Return the number of steps until the host has to act."""
        config = self.plan.config
        marks = [every - self.step % every for every in (config.log_steps, config.eval_steps, config.checkpoint_steps) if every]
        if (stable := phase.schedule.stable_until) is not None and stable > self.step:
            marks.append(stable - self.step)
        if self.engine.processes == 1:  # all workers must run the same number, however fast each is
            marks.append(self._affordable)
        return min(config.steps_per_call, phase.end - self.step, *marks)

    def _train(self, trainer: Trainer, count: int, phase: TrainingPhase) -> tuple[np.ndarray, bool]:
        """Run the next steps. Returns (their metrics, whether no time went into tracing): then seconds are this call's."""
        shards = lambda: sorted(self._shards_between(phase, self.step, self.step + count + 1))  # noqa: E731
        try:
            with phase.reading(shards), self.signals.interruptible(self.engine.processes == 1):
                rows, steady = trainer.run(self.step, count)
        except OutOfMemory as error:
            raise UserError(
                f"a batch of {phase.batch_size} x {phase.max_seq_length} tokens doesn't fit into memory ({error}): "
                "raise --gradient-accumulation-steps, or give --remat or a smaller --batch-size"
            ) from None
        seconds = float(rows[:, COLUMNS.index("seconds")].sum())
        self.signals.seconds = seconds / count
        self._affordable = max(1, int(RESPONSE_SECONDS * count / max(seconds, 1e-9)))
        return rows, steady

    def _finite(self, rows: np.ndarray, phase: TrainingPhase) -> bool:
        """Return whether all losses and gradients are finite; if not, print why, and nothing is saved."""
        checked = [COLUMNS.index(name) for name in (*(f"{name}_loss" for name in LOSSES), "gradient_norm")]
        bad = np.flatnonzero(~np.isfinite(rows[:, checked]).all(axis=1))
        if not len(bad):
            return True
        if not self._writes:
            return False
        at = self.step + int(bad[0]) + 1
        rate = float(rows[bad[0], COLUMNS.index("learning_rate")])
        since = max(self.saved_at, phase.begin)
        shards = sorted(self._shards_between(phase, since, at))
        told = {"step": at, "learning_rate": rate, "since_step": since, "shards": shards}
        storage.write_json(storage.join(self.folder, "diverged.json"), told)
        self.journal.flush()
        kept = f"the checkpoint of step {self.saved_at:,} is kept" if self.saved_at >= 0 else "no checkpoint was saved yet"
        names = ", ".join(shards[:4]) + (f" and {len(shards) - 4} more (diverged.json)" if len(shards) > 4 else "")
        print(
            f"clozemill: loss or gradients became NaN or infinite at step {at:,} (learning rate {rate:.3g}); {kept}; shards "
            f"read since: {names}: restart with a lower --learning-rate, or check these files",
            file=sys.stderr,
            flush=True,
        )
        return False

    def _shards_between(self, phase: TrainingPhase, begin: int, end: int) -> set[str]:
        """Return the shard files that steps [begin, end) of a phase read, across all hosts."""
        reader = phase.reader(self.plan.config, 0, 1, self.engine.compiles)
        return set(reader.shards_between(begin - phase.begin, end - phase.begin))

    def _due(self) -> bool:
        config = self.plan.config
        if config.checkpoint_steps and self.step % config.checkpoint_steps == 0:
            return True
        late = bool(config.checkpoint_minutes) and self._clock.minutes() >= config.checkpoint_minutes
        return 1 in self.engine.gather(int(late))  # the clocks of processes differ

    def _save(self, figures: dict | None = None) -> None:
        again, self.saved_at = self.saved_at == self.step, self.step
        self.signals.unsaved = 0
        about = {"step": self.step, **self.plan.about(self.step), "eval": figures, "journal": self.journal.state()}
        about |= {self.engine.name: self.engine.version} | self.stopping.state()
        self.journal.flush()
        folder = checkpoints.step_folder(self.folder, self.step)
        again = again and 1 in self.engine.gather(int(self._writes and checkpoints.describe_again(folder, about)))
        values = {} if again else self.engine.values(self.state)
        self._clock.reset()
        if not self._writes:
            return
        if not again:
            checkpoints.write(folder, values, self.plan.vocabulary, about, self.plan.tokenizer)
        # Where a stable part ends, a branch can begin (--branch-from): kept for as long as the run.
        ends = {phase.schedule.stable_until for phase in self.plan.phases}
        checkpoints.prune(self.folder, self.plan.config.keep_checkpoints, self.step, ends)
