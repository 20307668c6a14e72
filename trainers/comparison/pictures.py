"""The curves of compared runs over steps, tokens and time, as plots of one picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.pages.content import Plot, Series
from clozemill.trainers.comparison.table import metric_of
from clozemill.trainers.diagnosis.recorded_run import Entries, RecordedRun
from clozemill.trainers.training import curves

MOST_RUNS = 12  # that colours and dashes tell apart
_FEW = 40  # points of a line that are marked
_NAMES = {"masked_lm_loss": "masked-LM loss"}
_STEPS, _TOKENS, _TIME = "steps", "tokens", "time"  # what runs are drawn over


def short_names(folders: Sequence[str]) -> list[str]:
    """Return the shortest ends of paths that differ, with at least the last part: ['a/run', 'b/run']."""
    parts = [folder.rstrip("/").split("/") for folder in folders]
    for length in range(1, 1 + max(map(len, parts), default=1)):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(folders)


@dataclass(frozen=True)
class _Axis:
    """What a plot is over: its name, its label, and how many seconds or tokens its unit has."""

    name: str
    label: str
    size: float = 1.0

    def places(self, run: RecordedRun, steps: list[int]) -> list[float]:
        """Return where steps of a run are on the axis; [] if the run doesn't know."""
        if self.name == _STEPS:
            return [float(step) for step in steps]
        if not run.totals:
            return []
        known = [0, *(total.step for total in run.totals)]
        values = [0.0, *(total.tokens if self.name == _TOKENS else total.seconds for total in run.totals)]
        return (np.interp(steps, known, values) / self.size).tolist()


def _axes(runs: Sequence[RecordedRun]) -> tuple[_Axis, ...]:
    """Return the axes; time in minutes if no run took an hour."""
    longest = max((total.seconds for run in runs for total in run.totals[-1:]), default=0.0)
    size, unit = (60.0, "minutes") if longest < 3600 else (3600.0, "hours")
    return _Axis(_STEPS, "step"), _Axis(_TOKENS, "tokens"), _Axis(_TIME, f"{unit} of training steps", size)


@dataclass(frozen=True)
class _Drawn:
    """What a comparison draws: a metric, the title of its plots, and the entries of each run that have it."""

    metric: str
    title: str
    entries: list[Entries]


def _drawn(runs: Sequence[RecordedRun]) -> _Drawn:
    """Return the evaluations of the runs if each has one, otherwise what was logged in training: these differ."""
    # A phase of another kind of objective before the last one has losses of its own, which select no checkpoint.
    evaluated = [[entry for entry in run.evaluated if entry.get("criterion", 0) is not None] for run in runs]
    metric = metric_of([entry for entries in evaluated for entry in entries])
    if all(curves.points(entries, metric) for entries in evaluated):
        return _Drawn(metric, f"{_NAMES.get(metric, metric.replace('_', ' '))}, evaluated", evaluated)
    metric = "masked_lm_loss" if any("masked_lm_loss" in entry for run in runs for entry in run.train) else "loss"
    return _Drawn(metric, f"{_NAMES.get(metric, metric)}, in training", [run.train for run in runs])


def comparison_plots(runs: Sequence[RecordedRun]) -> list[Plot]:
    """Return the plots over steps, tokens and time. A run without a point, or without a record of an axis, isn't drawn.

    Raises UserError for more runs than can be told apart.
    """
    if len(runs) > MOST_RUNS:
        raise UserError(f"--output: {len(runs)} runs can't be told apart in a plot: give at most {MOST_RUNS}, or a .csv")
    drawn, names, plots = _drawn(runs), short_names([run.folder for run in runs]), []
    for axis in _axes(runs):
        series = []
        for run, name, own in zip(runs, names, drawn.entries, strict=True):
            points = curves.points(own, drawn.metric)
            if places := axis.places(run, [step for step, _ in points]):
                kind = "dots" if len(points) <= _FEW else "line"
                series.append(Series(name, kind, places, [value for _, value in points]))
        plots += [_plot(axis, drawn.title, series)] if series else []
    return plots


def _plot(axis: _Axis, title: str, series: list[Series]) -> Plot:
    ends = "; ".join(f"{each.label} from {each.y[0]:.4g} to {each.y[-1]:.4g}" for each in series)
    unit, over = "nats" if "loss" in title else "score", f"{title}, over {axis.name}"
    return Plot(f"over-{axis.name}", f"{over[0].upper()}{over[1:]}", axis.label, unit, f"{over}: {ends}.", series)
