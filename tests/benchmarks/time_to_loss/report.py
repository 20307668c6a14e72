"""Prints the results of the contenders: losses, seconds to given losses, ratios with intervals, goals. Draws the curves."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.time_to_loss import curves
from tests.benchmarks.time_to_loss.curves import Curve
from tests.benchmarks.time_to_loss.experiment import Candidate, Plan, final_loss

FRACTIONS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
GOALS = {"hf-bert": 0.25, "bert-best": 0.5, "hf-modernbert": 0.7}  # most of the other's CPU seconds that `modern` may need


def curve_of(result: Mapping[str, Any]) -> Curve:
    """Return the (CPU seconds, loss) of a run's evaluations."""
    return [(seconds, loss) for _, seconds, loss in result["points"]]


def number(value: float, digits: int = 2) -> str:
    """'3.91', or '-' for a value that isn't finite."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def spread(values: Sequence[float], digits: int = 3) -> str:
    """'3.912 ± 0.041': mean and half of the 95 % interval; without the latter for a single value."""
    mean, half = curves.interval(values)
    return number(mean, digits) + (f" ± {half:.{digits}f}" if math.isfinite(half) else "")


def own_schedules(candidate: Candidate, seed: int) -> Curve:
    """Return (CPU seconds, final loss) of a seed's complete schedules, the shortest first."""
    runs = [each[seed] for each in candidate.shorter.values() if seed in each] + [candidate.runs[seed]]
    return sorted((run["cpu_s"], final_loss(run)) for run in runs if math.isfinite(final_loss(run)))


def seconds_to_loss(candidate: Candidate, seed: int, loss: float) -> float:
    """Return the CPU seconds in which a seed of a candidate reaches a loss.

    On the curve of its run, or between the ends of its complete schedules, whichever is earlier: in a run for the complete
    budget, the learning rate is still high when a schedule for half of it would end.
    """
    found = [curves.seconds_to_reach(curve_of(candidate.runs[seed]), loss)]
    if len(ends := own_schedules(candidate, seed)) > 1:
        found.append(curves.seconds_to_reach(ends, loss))
    return min(found)


def ratios_to(candidate: Candidate, other: Candidate) -> list[float]:
    """Return for each seed the CPU seconds until the final loss of the other's run with it, divided by those of that run."""
    return [
        seconds_to_loss(candidate, seed, final_loss(run)) / run["cpu_s"]
        for seed, run in other.runs.items()
        if seed in candidate.runs
    ]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, the first column aligned left."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def losses_table(plan: Plan, candidates: Sequence[Candidate]) -> list[str]:
    """Return the table of losses at fractions of the budget."""
    rows = [["masked-LM loss (nats)", *(f"{part * plan.budget:,.0f} CPU s" for part in FRACTIONS[:-1]), "end"]]
    for one in candidates:
        found = [[curves.loss_at(curve_of(run), part * plan.budget) for run in one.runs.values()] for part in FRACTIONS[:-1]]
        cells = [number(curves.interval(losses)[0], 3) for losses in found]
        rows.append([one.name, *cells, spread([final_loss(run) for run in one.runs.values()])])
    return table(rows)


def runs_table(candidates: Sequence[Candidate]) -> list[str]:
    """Return the table of forms, rates, steps and CPU seconds."""
    rows = [["run", "form", "learning rate", "steps", "s per step", "CPU s (mean)", "diverged"]]
    for one in candidates:
        runs = list(one.runs.values())
        seconds = curves.interval([run["cpu_s"] for run in runs])[0]
        step_s = " + ".join(f"{step:.4f}" for _, step in one.costs)
        diverged = sum(run["diverged"] for run in runs)
        rows.append([one.name, one.form, f"{one.rate:g}", f"{runs[0]['steps']:,}", step_s, number(seconds, 0), str(diverged)])
    return table(rows)


def seconds_table(candidates: Sequence[Candidate]) -> list[str]:
    """Return the table of CPU seconds that each needs to reach the final loss of the others."""
    rows = [["CPU s until the final loss of", *(other.name for other in candidates)]]
    for one in candidates:
        cells = []
        for other in candidates:
            target = curves.interval([final_loss(run) for run in other.runs.values()])[0]
            cells.append(number(curves.interval([seconds_to_loss(one, seed, target) for seed in one.runs])[0], 0))
        rows.append([one.name, *cells])
    return table(rows)


def goal_line(name: str, ratios: Sequence[float], goal: float) -> str:
    """Return whether a goal is met: 'modern / hf-bert: 0.21 (0.18 to 0.25) of its CPU seconds; goal 0.25: met'."""
    mean, low, high = curves.ratio_interval(ratios)
    if not math.isfinite(mean):
        return f"modern / {name}: its final loss isn't reached by every seed; goal {goal:g}: not met"
    within = f" ({low:.2f} to {high:.2f})" if math.isfinite(low) else " (one seed: no interval)"
    verdict = "not met" if mean > goal else "met" if not math.isfinite(high) or high <= goal else "met by the mean alone"
    return f"modern / {name}: {mean:.2f}{within} of its CPU seconds; goal {goal:g}: {verdict}"


def shorter_lines(candidate: Candidate) -> list[str]:
    """Return the final losses of the schedules for fractions of the budget."""
    return [
        f"{candidate.name}, own schedule for {part:g} of the budget: {spread([final_loss(run) for run in runs.values()])}"
        for part, runs in sorted(candidate.shorter.items())
    ]


def lines(plan: Plan, candidates: Sequence[Candidate]) -> list[str]:
    """Return the report."""
    parts = [losses_table(plan, candidates), runs_table(candidates), seconds_table(candidates)]
    by_name = {one.name: one for one in candidates}
    if modern := by_name.get("modern"):
        goals = [goal_line(name, ratios_to(modern, by_name[name]), goal) for name, goal in GOALS.items() if name in by_name]
        parts += [[*shorter_lines(modern), *goals]]
    parts.append([f"{one.name}: {one.entry.about} [{next(iter(one.runs.values()))['versions']}]" for one in candidates])
    return [line for part in parts if part for line in (*part, "")]


def draw(path: Path, title: str, candidates: Sequence[Candidate]) -> None:
    """Draw the losses over CPU seconds: a thin line per seed, and marks at the ends of shorter schedules."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for at, one in enumerate(candidates):
        for seed, run in one.runs.items():
            label = one.name if seed == min(one.runs) else None
            times, losses = zip(*curve_of(run), strict=True) if run["points"] else ((), ())
            axes.plot(times, losses, color=f"C{at}", linewidth=1.2, alpha=0.8, label=label)
            ends = own_schedules(one, seed)[:-1]
            axes.plot([end for end, _ in ends], [loss for _, loss in ends], "o", color=f"C{at}", markersize=4)
    axes.set(xlabel="CPU seconds of training", ylabel="masked-LM loss on the eval split (nats)", title=title)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
