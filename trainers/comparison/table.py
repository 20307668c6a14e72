"""The table of compared runs, a row per run, as pure functions of their records."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from clozemill.model.config import EncoderConfig
from clozemill.model.memory import parameters
from clozemill.pipelines.common.formatting import aligned, enumerated, large
from clozemill.trainers.diagnosis.recorded_run import Entries, RecordedRun, Totals, number
from clozemill.trainers.training.curves import metric_names
from clozemill.trainers.training.early_stopping import rank

CPU, WALL = "CPU", "wall"
_DIGEST = 12  # characters of a digest that people compare
_UNKNOWN = "-"


@dataclass(frozen=True)
class Row:
    """A run in the table.

    Attributes:
        run: its folder.
        size: preset and number of weights.
        data: beginnings of the digests of its data, by phase; of a mixture with their shares.
        steps, planned_steps: steps done and to do; None where the number isn't recorded.
        tokens: tokens of its batches; None if unknown. about: whether it is an estimate.
        hours: hours of `unit`: "CPU" (of all cores), a kind of device (of all devices), or "wall"; None if unknown.
        best_step, metric, best: the best evaluation; None before the first one.
    """

    run: str
    size: str
    data: str
    objective: str
    optimizer: str
    learning_rate: str
    steps: int
    planned_steps: int | None
    tokens: int | None
    about: bool
    hours: float | None
    unit: str
    best_step: int | None
    metric: str
    best: float | None


def _size(run: RecordedRun) -> str:
    """Return preset and number of weights, as far as this version knows the encoder."""
    preset = "" if run.command != "pretrain" else str(run.config.get("preset") or "as --init")
    try:
        weights = f"{large(parameters(EncoderConfig(**run.about['encoder'])))} weights"
    except (KeyError, TypeError, ValueError):
        weights = ""
    return ", ".join(filter(None, (preset, weights))) or _UNKNOWN


def _distinct(values: Sequence[Any]) -> str:
    """Return values as a list, without those that repeat the one before."""
    kept = [str(value) for at, value in enumerate(values) if at == 0 or value != values[at - 1]]
    return ", ".join(kept) or _UNKNOWN


def _data(run: RecordedRun) -> str:
    digests = [[(run.identity.get("train"), 1.0)]] if run.command != "pretrain" else [phase["mixture"] for phase in run.phases]
    return _distinct([_mixture(each) for each in digests if each[0][0]])


def _mixture(parts: Sequence[tuple[Any, float]]) -> str:
    """Return the beginnings of digests, with their shares if there are several."""
    if len(parts) == 1:
        return str(parts[0][0])[:_DIGEST]
    return " + ".join(f"{100 * share:g} % {digest[:_DIGEST]}" for digest, share in parts)


def _objective(run: RecordedRun) -> str:
    if run.command != "pretrain":
        return str(run.config.get("task", run.about.get("preset", _UNKNOWN)))
    return _distinct([each["objective"] for each in run.phases])


def _learning_rate(run: RecordedRun) -> str:
    rates = [phase["learning_rate"] for phase in run.phases] or [number(run.identity, "learning_rate") or 0.0]
    return _distinct([f"{rate:g}" for rate in rates if rate])


def hours_spent(run: RecordedRun) -> tuple[float | None, str]:
    """Return the hours of all processes of a run, and of what: CPU time, a kind of device, or "wall" where only that is known.

    Without their records, it is the time of the steps. If the processes had several kinds of devices, it is "wall" too.
    """
    kinds, cpu = {kind for _, kind in run.devices}, [number(each, "cpu_seconds") for each in run.sessions]
    passed = [number(each, "seconds") or 0.0 for each in run.sessions] or [total.seconds for total in run.totals[-1:]]
    if kinds == {CPU} and None not in cpu:  # an earlier version recorded only the time that passed
        return sum(value for value in cpu if value is not None) / 3600, CPU
    if len(kinds) == 1 and not kinds & {CPU, ""}:
        return sum(count * value for (count, _), value in zip(run.devices, passed, strict=True)) / 3600, kinds.pop()
    return (sum(passed) / 3600 if passed else None), WALL


def best_evaluation(run: RecordedRun) -> dict[str, Any] | None:
    """Return the evaluation that ranks first, as the best checkpoint is chosen; None if there is none that can be ranked."""
    best = min((entry for entry in run.evaluated if entry["step"]), key=rank, default=None)  # step 0 has no checkpoint
    return best if best and rank(best)[0] != float("inf") else None


def metric_of(evaluated: Entries) -> str:
    """Return the metric that evaluations are compared by: the masked-LM loss of pretraining, the first metric of a task."""
    if any("masked_lm_loss" in entry for entry in evaluated):
        return "masked_lm_loss"
    return next(iter(metric_names(evaluated)), "loss")


def row(run: RecordedRun) -> Row:
    """Return the row of a run."""
    best, metric, last = best_evaluation(run), metric_of(run.evaluated), (run.totals or [Totals(0, 0.0, 0.0)])[-1]
    hours, unit = hours_spent(run)
    return Row(
        run=run.folder,
        size=_size(run),
        data=_data(run),
        objective=_objective(run),
        optimizer=str(run.config.get("optimizer", _UNKNOWN)),
        learning_rate=_learning_rate(run),
        steps=run.step,
        planned_steps=run.planned_steps,
        tokens=round(last.tokens) if run.totals or not run.train else None,
        about=last.estimated,
        hours=hours,
        unit=unit,
        best_step=best["step"] if best else None,
        metric=metric if best else "",
        best=number(best, metric) if best else None,
    )


HEAD = ("run", "size", "data", "objective", "optimizer", "steps", "tokens", "time", "best evaluation")
KINDS = "wlwlllrrl"


def cells(each: Row) -> tuple[str, ...]:
    """Return a row as people read it, under HEAD."""
    steps = f"{each.steps:,}" + (f" of {each.planned_steps:,}" if each.planned_steps is not None else "")
    tokens = _UNKNOWN if each.tokens is None else f"{'about ' if each.about else ''}{large(each.tokens)}"
    unit = "hours" if each.unit == WALL else f"{each.unit}-hours"
    hours = _UNKNOWN if each.hours is None else f"{each.hours:.3g} {unit}"
    best = _UNKNOWN
    if each.best is not None:
        best = f"{each.metric.replace('_', ' ').replace('masked lm', 'masked-LM')} {each.best:.4f} at step {each.best_step:,}"
    return each.run, each.size, each.data, each.objective, f"{each.optimizer} {each.learning_rate}", steps, tokens, hours, best


def as_text(rows: Sequence[Row]) -> list[str]:
    """Return the lines of the table for a terminal."""
    return aligned([HEAD, *map(cells, rows)], [kind == "r" for kind in KINDS])


def as_csv(rows: Sequence[Row]) -> list[list[str]]:
    """Return the table in full precision, its head first; what isn't known is empty."""
    names = [each.name for each in fields(Row)]
    values = [[getattr(each, name) for name in names] for each in rows]
    return [names, *[["" if value is None else str(value) for value in line] for line in values]]


def remarks_on(runs: Sequence[RecordedRun]) -> list[str]:
    """Return what makes results of the runs incomparable, a sentence each."""
    found = []
    vocabularies = {str(run.vocabulary.get("sha256")) for run in runs}
    trained = [run for run in runs if run.command == "pretrain"]
    if len({_objective(run) for run in runs}) > 1:
        found.append("the runs have different objectives: compare losses only between objectives that predict the same")
    if trained and len(vocabularies) > 1:
        found.append("the runs have different vocabularies: a token isn't the same amount of text in each")
    elif len({run.phases[-1]["mixture"][0][0] if run.phases else _data(run) for run in trained}) > 1:
        found.append("the runs have different data: each was evaluated on its own eval split")
    tuned = [run for run in runs if run.command != "pretrain"]
    # The digest of dev examples is one of their ids, which depend on the vocabulary: then their files have to be the same.
    if len({str(run.identity.get("dev") if len(vocabularies) == 1 else run.config.get("dev")) for run in tuned}) > 1:
        found.append("the runs have different dev examples: their results can't be compared")
    if branches := [run.folder for run in runs if "branched_from" in run.about]:
        found.append(f"the time of {enumerated(branches)} leaves out that of the trunk, whose tokens are counted")
    return found
