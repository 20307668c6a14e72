"""Runs entries: measures their steps, chooses form and learning rate, and runs complete schedules for several seeds."""

import math
import statistics
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clozemill.deploy.loading import Dataset
from clozemill.pipelines.dataset import manifest
from tests.benchmarks.time_to_loss import curves
from tests.benchmarks.time_to_loss.entries import MAIN, SHORT, SHORT_TOKENS, TOKENS_PER_BATCH, Entry
from tests.benchmarks.time_to_loss.jobs import JobPhase, PretrainingJob, Workshop

LARGE_START = 0.2  # of the budget of a learning rate's run: more distorts the comparison
SEARCH_SEED = 0  # of the search for a learning rate; the runs that count have seeds from 1 on


@dataclass(frozen=True)
class Plan:
    """What all entries of an experiment share.

    Args:
        datasets: folder by option; those that weren't given are missing.
        budget: CPU seconds.
        seeds: number of runs that count.
        search: fraction of the budget for each learning rate that is tried.
        fractions: fractions of the budget at which `complete` entries are run with a schedule of their own.
        rates: most learning rates that are tried for an entry.
        timing_steps, timing_rounds: steps per phase and repetitions to measure their cost.
    """

    workshop: Workshop
    datasets: Mapping[str, str]
    size: str
    budget: float
    seeds: int
    threads: int = 1
    points: int = 20
    search: float = 0.25
    fractions: tuple[float, ...] = ()
    rates: int = 6
    timing_steps: int = 61
    timing_rounds: int = 3
    digests: dict[str, str] = field(default_factory=dict)

    def missing_data(self, entry: Entry) -> str:
        """Return the options of datasets that an entry needs and that weren't given, or ""."""
        return ", ".join(sorted({f"--{phase.data}" for phase in entry.phases if phase.data not in self.datasets}))

    def batch_size(self, option: str) -> int:
        """Return the rows of a batch on a dataset."""
        length = Dataset(self.datasets[option]).manifest["max_seq_length"]
        return max(1, (SHORT_TOKENS if option == SHORT else TOKENS_PER_BATCH) // length)

    def job(self, name: str, entry: Entry, form: str, steps: list[int], rate: float, seed: int, **more: Any) -> PretrainingJob:
        """Return a job of an entry."""
        phases = tuple(
            JobPhase(self.datasets[phase.data], count, self.batch_size(phase.data), phase.settings)
            for phase, count in zip(entry.phases, steps, strict=True)
        )
        used = {self.datasets[option] for option in (MAIN, *(phase.data for phase in entry.phases))}
        digests = {folder: Dataset(folder).manifest["digest"] for folder in sorted(used)}
        settings = {**entry.settings, **entry.forms[form]}
        return PretrainingJob(
            name, entry.library, settings, phases, digests, self.datasets[MAIN], rate, seed, self.threads, **more
        )


def check_manifests(found: Mapping[str, dict[str, Any]]) -> None:
    """Raise ValueError unless datasets (by option) share vocabulary and eval documents, and the main one is unpacked."""
    main = found[MAIN]
    if manifest.is_packed(main):
        raise ValueError(f"--{MAIN} is packed: give an unpacked dataset, whose eval split all sides read")
    for option, each in found.items():
        if each["vocabulary"] != main["vocabulary"]:
            raise ValueError(f"--{option} has another vocabulary than --{MAIN}: prepare it with the same one")
        for name in ("seed", "eval_fraction", "eval_by"):  # they decide which documents are in the eval split
            have, wanted = each["config"][name], main["config"][name]
            if have != wanted:
                raise ValueError(
                    f"--{option} has {name} {have}, --{MAIN} has {wanted}: prepare both alike, or eval documents of one are "
                    "training documents of the other"
                )


@dataclass
class Candidate:
    """An entry while it is run: the cost of its steps in its fastest form, its learning rate, and its runs."""

    name: str
    entry: Entry
    form: str = ""
    costs: list[tuple[float, float]] = field(default_factory=list)  # (start, step) of each phase
    timings: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # the same by form
    search: dict[float, float] = field(default_factory=dict)  # final loss by learning rate
    rate: float = 0.0
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)  # result by seed
    jobs: dict[int, PretrainingJob] = field(default_factory=dict)  # by seed
    shorter: dict[float, dict[int, dict[str, Any]]] = field(default_factory=dict)  # result by fraction and seed

    def steps(self, budget: float) -> list[int]:
        """Return the steps of each phase that use up a budget."""
        return curves.fit_steps(budget, self.costs, [phase.weight for phase in self.entry.phases])

    def about(self) -> dict[str, Any]:
        """Return everything about it, as plain values."""
        return {
            "about": self.entry.about, "settings": self.entry.settings, "form": self.form, "timings": self.timings,
            "search": {f"{rate:g}": loss for rate, loss in sorted(self.search.items())}, "learning_rate": self.rate,
            "comparable": self.entry.comparable, "runs": {str(seed): result for seed, result in self.runs.items()},
            "shorter": {f"{part:g}": {str(seed): one for seed, one in each.items()} for part, each in self.shorter.items()},
        }  # fmt: skip


def final_loss(result: Mapping[str, Any]) -> float:
    """Return the loss at the end of a run; infinity if it diverged."""
    return math.inf if result["diverged"] or not result["points"] else result["points"][-1][2]


def measure_steps(plan: Plan, candidates: list[Candidate]) -> None:
    """Measure the cost of a step in all forms of all candidates, which take turns; keep each one's fastest form."""
    jobs = [
        (candidate, form, attempt)
        for attempt in range(plan.timing_rounds)
        for candidate in (candidates if attempt % 2 else list(reversed(candidates)))
        for form in candidate.entry.forms
    ]
    planned = [
        plan.job(one.name, one.entry, form, [plan.timing_steps] * len(one.entry.phases), 1e-4, SEARCH_SEED, attempt=attempt)
        for one, form, attempt in jobs
    ]
    found: dict[tuple[str, str], list[list[dict[str, float]]]] = {}
    for (candidate, form, _), result in zip(jobs, plan.workshop.results(planned), strict=True):
        found.setdefault((candidate.name, form), []).append(result["phases"])
    for candidate in candidates:
        for form in candidate.entry.forms:
            rounds = found[candidate.name, form]
            candidate.timings[form] = [
                (statistics.median(one["start_s"] for one in phase), statistics.median(one["step_s"] for one in phase))
                for phase in zip(*rounds, strict=True)
            ]
        weights = [phase.weight for phase in candidate.entry.phases]
        fitting = {form: sum(curves.fit_steps(plan.budget, costs, weights)) for form, costs in candidate.timings.items()}
        candidate.form = max(fitting, key=lambda form: fitting[form])
        candidate.costs = candidate.timings[candidate.form]
        start, least = sum(start for start, _ in candidate.costs), plan.search * plan.budget
        if start > LARGE_START * least:
            print(f"warning: {candidate.name} takes {start:.0f} of {least:.0f} CPU seconds to start: give a larger --budget",
                  file=sys.stderr, flush=True)  # fmt: skip


def choose_rate(plan: Plan, candidate: Candidate) -> None:
    """Choose the learning rate with complete schedules at a fraction of the budget; the search goes on past its edges."""
    steps, pending = candidate.steps(plan.search * plan.budget), candidate.entry.rates_for(plan.size)
    while pending:
        jobs = [
            plan.job(candidate.name, candidate.entry, candidate.form, steps, rate, SEARCH_SEED, points=2) for rate in pending
        ]
        for rate, result in zip(pending, plan.workshop.results(jobs), strict=True):
            candidate.search[rate] = final_loss(result)
        more = curves.next_rate(candidate.search, plan.rates)
        pending = [more] if more else []
    candidate.rate = curves.best_rate(candidate.search)
    tried = ", ".join(f"{rate:g}: {loss:.3f}" for rate, loss in sorted(candidate.search.items()))
    print(f"{candidate.name}: learning rate {candidate.rate:g} of {tried}", file=sys.stderr, flush=True)


def choose_rates(plan: Plan, candidates: list[Candidate], given: Mapping[str, float]) -> None:
    """Set the learning rate of every candidate: the given one by name, or the best. Those without rates take that of `modern`.

    Raises ValueError if they need it and it isn't among the candidates, or if a given name isn't.
    """
    if unknown := sorted(given.keys() - {one.name for one in candidates if one.entry.rates}):
        raise ValueError(f"--learning-rate names {', '.join(unknown)}: name one that is run and has a rate of its own")
    for candidate in (one for one in candidates if one.entry.rates):
        if candidate.name in given:
            candidate.rate = given[candidate.name]
        else:
            choose_rate(plan, candidate)
    modern = next((one for one in candidates if one.name == "modern"), None)
    for candidate in (one for one in candidates if not one.entry.rates):
        if modern is None:
            raise ValueError(f"{candidate.name} has the learning rate of modern: name modern in --only too")
        candidate.rate = modern.rate


def planned_seconds(plan: Plan, candidates: Sequence[Candidate], complete: Sequence[str], given: Collection[str] = ()) -> float:
    """Return about how many CPU seconds of training the search and all runs take, if no search goes past its edges.

    given: names of those whose learning rate isn't searched.
    """
    searches = plan.search * sum(len(one.entry.rates) for one in candidates if one.name not in given)
    parts = sum(1 + sum(plan.fractions) * (one.name in complete) for one in candidates)
    return plan.budget * (searches + plan.seeds * parts)


def run_seeds(plan: Plan, candidates: list[Candidate], complete: Sequence[str] = ()) -> None:
    """Run all seeds of all candidates, in turns; `complete` ones also at the plan's fractions of the budget."""
    planned: list[tuple[Candidate, float, int, PretrainingJob]] = []
    for seed in range(1, plan.seeds + 1):
        for one in candidates:
            parts = plan.fractions if one.name in complete else ()
            for part in (1.0, *parts):
                more = {"points": plan.points if part == 1 else 2, "keep": part == 1}
                steps = one.steps(part * plan.budget)
                planned.append((one, part, seed, plan.job(one.name, one.entry, one.form, steps, one.rate, seed, **more)))
    results = plan.workshop.results([job for *_, job in planned])
    for (one, part, seed, job), result in zip(planned, results, strict=True):
        if part == 1:
            one.runs[seed], one.jobs[seed] = result, job
        else:
            one.shorter.setdefault(part, {})[seed] = result
