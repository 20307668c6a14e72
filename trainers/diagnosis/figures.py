"""What diagnoses look at: the figures of a run, of its current phase and of its datasets, without files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from clozemill.trainers.diagnosis.dataset_figures import DatasetFigures
from clozemill.trainers.diagnosis.recorded_run import Entries, RecordedRun, number, series


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run.

    Attributes:
        kind: a key of DIAGNOSES.
        evidence: what was measured, and the value that it is compared with.
        remedy: what to do.
    """

    kind: str
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.evidence}: {self.remedy} ({self.kind})"


@dataclass(frozen=True)
class Figures:
    """The figures of a run.

    Attributes:
        entries: all lines of metrics.jsonl.
        steps: steps of the run; 0 if they aren't recorded.
        begin: first step of the current phase. Losses of other phases have other data, or another objective.
        warmup: steps of the warm-up from the beginning of the phase.
        objective: that of the current phase; "" for fine-tuning.
        vocabulary: number of entries of the vocabulary.
        from_scratch: whether the weights were random at step 0.
        config: the options of the run.
        peak_rate: peak learning rate of the phase.
        diverged: diverged.json, if the run hasn't got past its step since.
        datasets: those of the phases, as far as they are known.
        eval_sets: those of --eval-data, likewise.
        read: those of the current phase that are known, with how often one copy of each was read so far.
        mixes: whether the current phase mixes several. Its losses in training then are not of the evaluated text alone.
        epochs: how often one copy of the dataset that was read most often in the current phase was read so far.
    """

    entries: Entries
    steps: int = 0
    begin: int = 0
    warmup: int = 0
    objective: str = ""
    vocabulary: int = 0
    from_scratch: bool = True
    config: dict[str, Any] = field(default_factory=dict)
    peak_rate: float = 0.0
    diverged: dict[str, Any] | None = None
    datasets: tuple[DatasetFigures, ...] = ()
    eval_sets: tuple[DatasetFigures, ...] = ()
    read: tuple[tuple[DatasetFigures, float], ...] = ()
    mixes: bool = False
    epochs: float = 0.0

    @cached_property
    def train(self) -> Entries:
        """Return the lines of training of the current phase."""
        return [entry for entry in self.entries if entry.get("split") != "eval" and entry["step"] > self.begin]

    @cached_property
    def evaluated(self) -> Entries:
        """Return the evaluations of the current phase."""
        return [entry for entry in self.entries if entry.get("split") == "eval" and entry["step"] > self.begin]

    @property
    def step(self) -> int:
        return max((entry["step"] for entry in self.entries), default=0)

    @property
    def warm(self) -> Entries:
        """Return the lines of training after the warm-up of the phase."""
        return [entry for entry in self.train if entry["step"] > self.begin + self.warmup]

    @property
    def last_evaluation(self) -> dict[str, Any]:
        return self.evaluated[-1] if self.evaluated else {}

    def losses(self) -> list[tuple[int, float]]:
        """Return (step, loss) of the lines after the warm-up: of masked tokens, or of a task."""
        name = "masked_lm_loss" if any("masked_lm_loss" in entry for entry in self.train) else "loss"
        return series(self.warm, name)

    def done(self, share: float) -> bool:
        """Return whether a share of the run is done, which isn't known for fine-tuning."""
        return bool(self.steps) and self.step >= share * self.steps

    @property
    def evaluates_others(self) -> bool:
        """Return whether the evaluated loss is of other text than that of training: its dataset has no eval split."""
        return any(not found.has_eval_split for found, _ in self.read)

    @property
    def beats_unigrams(self) -> float | None:
        """Return the last evaluated masked-LM loss as a share of that of word frequencies; None if it wasn't evaluated."""
        loss, unigrams = (number(self.last_evaluation, name) for name in ("masked_lm_loss", "unigram_loss"))
        return loss / unigrams if loss is not None and unigrams and self.last_evaluation.get("predictions") else None


def _read(run: RecordedRun, datasets: Sequence[DatasetFigures | None]) -> tuple[tuple[DatasetFigures, float], ...]:
    """Return the known datasets of the current phase with the epochs of the last line, which lists them for a mixture."""
    last: dict[str, Any] = run.train[-1] if run.train else {}
    told = last.get("epochs") if len(datasets) > 1 else [last.get("epoch")]
    epochs = [number({"epochs": each}, "epochs") or 0.0 for each in told] if isinstance(told, list) else []
    return tuple((each, value) for each, value in zip(datasets, epochs, strict=False) if each)


def figures_of(
    run: RecordedRun, datasets: Sequence[Sequence[DatasetFigures | None]], eval_sets: Sequence[DatasetFigures] = ()
) -> Figures:
    """Return the figures of a recorded run.

    Args:
        run: the run.
        datasets: of each phase, None where one isn't known.
        eval_sets: of --eval-data.
    """
    begin, at, phases = 0, 0, run.phases
    while at + 1 < len(phases) and run.step > begin + phases[at]["steps"]:
        begin += phases[at]["steps"]
        at += 1
    phase: dict[str, Any] = (
        phases[at] if phases else {"objective": "", "learning_rate": number(run.identity, "learning_rate") or 0.0}
    )
    epochs = [value for _, value in series(run.train, "epoch")]
    return Figures(
        entries=run.entries,
        steps=run.planned_steps or 0,
        begin=begin,
        warmup=_warmup(phase, begin),
        objective=phase["objective"],
        vocabulary=int(number(run.vocabulary, "size") or 0),
        from_scratch=run.command == "pretrain" and not (run.config.get("init") or run.config.get("branch_from")),
        config=run.config,
        peak_rate=phase["learning_rate"],
        diverged=run.diverged if run.diverged and run.step < (number(run.diverged, "step") or 0) else None,
        datasets=tuple(dict.fromkeys(each for phase in datasets for each in phase if each)),
        eval_sets=tuple(eval_sets),
        read=_read(run, datasets[at]) if at < len(datasets) else (),
        mixes=at < len(datasets) and len(datasets[at]) > 1,
        epochs=epochs[-1] if epochs else 0.0,
    )


def _warmup(phase: dict[str, Any], begin: int) -> int:
    """Return the steps of a phase's warm-up. A schedule that spans several phases began with the first of them."""
    steps = phase.get("warmup_steps", 0)
    return steps if phase.get("scheduled_steps") == phase.get("steps") else max(0, steps - begin)
