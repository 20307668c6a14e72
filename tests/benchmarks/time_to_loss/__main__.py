"""The command of the benchmark; see the package's docstring."""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from clozemill.deploy.loading import Dataset
from clozemill.pipelines.common.errors import UserError
from tests.benchmarks import time_to_loss
from tests.benchmarks.time_to_loss import ablation, downstream, entries, experiment, report
from tests.benchmarks.time_to_loss.entries import DENSE, MAIN, PACKED, SHORT, Entry
from tests.benchmarks.time_to_loss.experiment import Candidate, Plan
from tests.benchmarks.time_to_loss.jobs import Workshop, write_json

COMPLETE = ("modern",)  # contenders that are also run at fractions of the budget: those of the goals
GOAL_FRACTIONS = (0.25, 0.5, 0.7)


def named_rate(word: str) -> tuple[str, float]:
    """Return (name, learning rate) of NAME=RATE. Raises ValueError."""
    name, _, rate = word.partition("=")
    if not 0 < float(rate) < 1:
        raise ValueError(word)
    return name, float(rate)


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=time_to_loss.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(f"--{MAIN}", type=Path, required=True, help="a dataset of clozemill prepare, 15 %% masked; its eval split is used")
    add(f"--{SHORT}", type=Path, help="short sequences of the same corpus, for the first phase of bert-best")
    add(f"--{DENSE}", type=Path, help="the same with --masked-lm-prob 0.3, for the falling mask rate")
    add(f"--{PACKED}", type=Path, help="the same with --packing on, for the ablation")
    add("--budget", type=float, required=True, help="CPU seconds of each run")
    add("--seeds", type=int, default=3, help="runs of each contender")
    add("--size", choices=entries.SIZES, default="tiny")
    add("--only", nargs="+", metavar="NAME", help="contenders or rows to run")
    add("--python", type=Path, help="an interpreter with torch and transformers; without it, contenders on torch are skipped")
    add("--work", type=Path, default=cache / "clozemill-bench" / "time-to-loss", help="jobs and results")
    add("--compile", action="store_true", help="try torch.compile as well; compiling takes minutes of CPU time")
    add("--threads", type=int, default=1, help="threads of each process")
    add("--processes", type=int, default=1, help="runs at once; more than the idle cores distorts the clock")
    add("--points", type=int, default=20, help="evaluations of each run")
    add("--fractions", type=float, nargs="*", default=GOAL_FRACTIONS, metavar="PART",
        help="fractions of the budget at which the modern recipe is run with complete schedules too")  # fmt: skip
    add("--search", type=float, default=0.25, help="fraction of the budget of each learning rate that is tried")
    add("--most-rates", type=int, default=6, help="most learning rates that are tried for a contender")
    add("--learning-rate", type=named_rate, nargs="+", default=[], metavar="NAME=RATE",
        help="learning rates that aren't searched, such as modern=0.004")  # fmt: skip
    add("--timing-steps", type=int, default=61, help="steps to measure the cost of a step")
    add("--timing-rounds", type=int, default=3, help="repetitions of that measurement")
    add("--ablation", action="store_true", help="compare changes of the modern recipe instead of the contenders")
    add("--downstream", action="store_true", help="fine-tune the results too")
    add("--cola", type=Path, help="the folder of CoLA's files, for --downstream")
    add("--jsonl", type=Path, nargs="+", default=[], help="the corpus, to build two more tasks for --downstream")
    options = parser.parse_args(words)
    if options.downstream and not (options.cola or options.jsonl):
        parser.error("--downstream needs tasks: give --cola, --jsonl or both")
    return options


def make_plan(options: argparse.Namespace) -> Plan:
    """Return what all entries share. Raises ValueError for datasets that don't belong together."""
    given = {name: getattr(options, name.replace("-", "_")) for name in (MAIN, SHORT, DENSE, PACKED)}
    datasets = {name: str(path.resolve()) for name, path in given.items() if path}
    experiment.check_manifests({name: Dataset(folder).manifest for name, folder in datasets.items()})
    interpreters = {"clozemill": sys.executable, "torch": str(options.python or "")}
    return Plan(
        Workshop(options.work.resolve(), interpreters, options.processes),
        datasets, options.size, options.budget, options.seeds, options.threads, options.points, options.search,
        () if options.ablation else tuple(options.fractions), options.most_rates, options.timing_steps, options.timing_rounds,
    )  # fmt: skip


def usable(plan: Plan, field: Mapping[str, Entry], only: list[str] | None) -> list[Candidate]:
    """Return the candidates that can be run; print why others are skipped. Raises ValueError for an unknown name."""
    if unknown := sorted(set(only or ()) - set(field)):
        raise ValueError(f"--only names {', '.join(unknown)}: choose from {', '.join(field)}")
    found = []
    for name, entry in field.items():
        if only and name not in only:
            continue
        missing = plan.missing_data(entry)
        reason = f"give {missing}" if missing else entries.unsupported(entry)
        if entry.library == "torch" and not plan.workshop.interpreters["torch"]:
            reason = "give --python"
        if reason:
            print(f"{name}: skipped: {reason}", file=sys.stderr, flush=True)
        else:
            found.append(Candidate(name, entry))
    return found


def print_results(plan: Plan, options: argparse.Namespace, candidates: list[Candidate]) -> None:
    """Print the report, write the JSON file and draw the picture."""
    name = "ablation" if options.ablation else "time_to_loss"
    lines = ablation.lines(plan, candidates) if options.ablation else report.lines(plan, candidates)
    print("\n".join(lines), flush=True)
    about = {"budget": plan.budget, "size": plan.size, "threads": plan.threads, "datasets": dict(plan.datasets)}
    found = {**about, "candidates": {one.name: one.about() for one in candidates}, "report": lines}
    title = f"{plan.size}, {plan.budget:,.0f} CPU seconds, {plan.threads} thread"
    report.draw(plan.workshop.work / f"{name}.png", title, [one for one in candidates if one.entry.comparable])
    if options.downstream:
        tasks = downstream.make_tasks(plan.workshop.work / "tasks", options.cola, options.jsonl)
        scores = downstream.fine_tune(plan, candidates, tasks)
        found["downstream"] = scores
        print("\n".join(downstream.lines(scores)), flush=True)
    write_json(plan.workshop.work / f"{name}.json", found)


def main(words: list[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    options = parse_arguments(words)
    try:
        plan = make_plan(options)
        plan.workshop.work.mkdir(parents=True, exist_ok=True)
        dense = DENSE in plan.datasets
        field = ablation.rows(plan.size, dense) if options.ablation else entries.contenders(plan.size, dense, options.compile)
        candidates = usable(plan, field, options.only)
        if not candidates:
            raise ValueError("nothing can be run with these options and this version")
        rates = dict(options.learning_rate)
        hours = experiment.planned_seconds(plan, candidates, COMPLETE, rates) / 3600
        print(f"about {hours:.1f} CPU hours of training, and evaluations", file=sys.stderr, flush=True)
        experiment.measure_steps(plan, candidates)
        experiment.choose_rates(plan, candidates, rates)
        experiment.run_seeds(plan, candidates, COMPLETE)
        print_results(plan, options, candidates)
    except (ValueError, RuntimeError, UserError) as error:
        print(f"time_to_loss: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
