"""`clozemill finetune`: fine-tune an encoder on a task, in one run, over several seeds, or over a grid of settings.

clozemill finetune --init RUN --task cola --train in_domain_train.tsv --dev in_domain_dev.tsv --output FT
"""

import dataclasses
import itertools
import sys
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from clozemill.pipelines.command_line.options import suggest, type_of, value_of
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.formatting import aligned
from clozemill.trainers.common import storage
from clozemill.trainers.diagnosis.recorded_run import SWEEP
from clozemill.trainers.engines.engine import Engine, make_engine
from clozemill.trainers.finetuning import baselines
from clozemill.trainers.finetuning.config import FinetuneConfig
from clozemill.trainers.finetuning.finetuning_run import FinetuningRun, plan_run
from clozemill.trainers.finetuning.metrics import shown_metrics
from clozemill.trainers.finetuning.session import start_or_resume
from clozemill.trainers.training import checkpoints, pretrained, run_folder
from clozemill.trainers.training.early_stopping import rank
from clozemill.trainers.training.pretrained import PretrainedModel
from clozemill.trainers.training.signals import EXIT_DIVERGED, EXIT_DONE
from clozemill.trainers.training.trackers import check_tracker

# Devlin et al. 2018, appendix A.3.
PAPER = ("learning_rate=5e-5,3e-5,2e-5", "batch_size=16,32", "epochs=2,3,4")


def main(config: FinetuneConfig) -> int:
    """Fine-tune; return the exit code (signals.EXIT_...)."""
    check_tracker(config.track)
    begun = pretrained.read(config.init)
    if config.sweep or config.seeds > 1:
        return _sweep(config, begun)
    return run(config, begun)


def run(config: FinetuneConfig, begun: PretrainedModel) -> int:
    """Start or resume one run."""
    return start_or_resume(plan_run(config, begun), make_engine(config), _introduce, _conclude)


def _conclude(planned: FinetuningRun, best: checkpoints.Checkpoint) -> None:
    """Print the best result, the baseline, and warnings about a result that is no better, with what to do."""
    figures, base = best.index["eval"], planned.baseline
    print(f"best: {shown_metrics(planned.metrics, figures)}, at step {best.step:,}: {best.folder}")
    print(f"baseline: {shown_metrics(planned.metrics, base.scores)} ({base.name})")
    remarks = list(figures.get("remarks", ()))
    if not baselines.better(planned.metrics[0], figures, base):  # then the last remark says so
        remarks[-1:] = [f"{remark}: {planned.advice()}" for remark in remarks[-1:]]
    print("".join(f"warning: {remark}\n" for remark in remarks), end="", flush=True)


def _begun(config: FinetuneConfig, found: PretrainedModel) -> str:
    """Describe the weights that a run starts from."""
    return f"random weights with the sizes of {found.name}" if config.from_scratch else found.name


def _introduce(planned: FinetuningRun, engine: Engine, step: int) -> None:
    """Print a summary of the run before it starts."""
    config, settings, task = planned.config, planned.settings, planned.task
    begun = _begun(config, planned.initial)
    answers = f"{len(task.labels)} labels ({', '.join(task.labels[:6])}{', ...' if len(task.labels) > 6 else ''})"
    print(f"{config.task}: {answers if task.labels else task.kind}; from {begun}; on {engine.replicas} x "
          f"{engine.device_name}, {config.precision}")  # fmt: skip
    if planned.reasons:
        print(run_folder.chosen_for_you(planned.reasons))
    print(
        f"{len(planned.train):,} training rows, {len(planned.dev):,} dev rows, of up to "
        f"{planned.phases[0].max_seq_length} tokens; {planned.steps:,} steps of {settings.batch_size} "
        f"(epochs: {settings.epochs:g}), peak learning rate {settings.learning_rate:g}"
    )
    if not config.from_scratch:
        planned.initial.note_untrained_positions(planned.phases[0].max_seq_length)
    for warning in planned.warnings:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    if planned.class_weights:
        shown = [f"{name} {weight:.4g}" for name, weight in planned.class_weights.items()]
        print(f"class weights: {', '.join(shown[:8])}{f' and {len(shown) - 8} more' if len(shown) > 8 else ''}")
    if missed := planned.task_type.out_of_reach(planned.dev_examples, planned.dev, task):
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in missed.items())
        print(f"note: {sum(missed.values()):,} of {len(planned.dev_examples):,} dev answers can't be exact: {reasons}")
    for what, rows in (("training", planned.train), ("dev", planned.dev)):
        if rows.truncated:
            print(f"note: {rows.truncated:,} of {len(rows):,} {what} texts are truncated to {task.max_seq_length} tokens "
                  "(--max-seq-length)")  # fmt: skip
    if step:
        print(f"resuming after step {step:,}")
    print(flush=True)


_BOOLEANS = {"true": True, "false": False}
_INCOMPARABLE = ("metric", "dev_seed", "dev_fraction", "labels")  # options that change what a result says


def _grid(config: FinetuneConfig) -> list[dict[str, Any]]:
    """Return every combination of the values in --sweep. Raises UserError for an unknown option."""
    known = {field.name: field for field in dataclasses.fields(FinetuneConfig) if field.metadata["identity"]}
    axes: list[list[tuple[str, Any]]] = []
    for text in PAPER if config.sweep == ("paper",) else config.sweep:
        name, _, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known or not values or name in ("seed", "task"):
            raise UserError(f"--sweep {text!r}: give NAME=VALUE,VALUE with an option of finetune{suggest(name, list(known))}")
        if name in _INCOMPARABLE:
            raise UserError(f"--sweep {text!r}: runs that differ in {name} have results that can't be compared: sweep others")
        if any(name == axis[0][0] for axis in axes):
            raise UserError(f"--sweep names {name} twice: give all its values in one, such as {name}={values}")
        given = [_BOOLEANS.get(value, value) if type_of(known[name]) is bool else value for value in values.split(",")]
        axes.append([(name, value_of(known[name], value, f"--sweep {name}")) for value in given])
    grid = [dict(combination) for combination in itertools.product(*axes)]
    for changes in grid:
        replace(config, **changes, sweep=()).validate()
    return grid


def _shown(value: Any) -> str:
    """Format a value of an option for a run's folder and the table."""
    return "+".join(value) if isinstance(value, tuple) else str(value)


def _name(changes: dict[str, Any], seed: int) -> str:
    """Return the folder name of a run, such as 'learning_rate-3e-05_batch_size-16_seed-0'."""
    return "_".join([*(f"{name}-{_shown(value)}" for name, value in changes.items()), f"seed-{seed}"]).replace("/", "-")


def _sweep(config: FinetuneConfig, begun: PretrainedModel) -> int:
    """Run every combination and seed, each resumable; then print a table of means and standard deviations."""
    rows: list[tuple[dict[str, Any], list]] = []
    diverged: list[str] = []
    if config.overwrite and pretrained.is_sweep(config.output):
        storage.remove(storage.join(config.output, SWEEP))  # it names the best of runs that are replaced
    for changes in _grid(config):
        scores = []
        for seed in range(config.seed, config.seed + config.seeds):
            name = _name(changes, seed)
            one = replace(config, **changes, seed=seed, seeds=1, sweep=(), output=storage.join(config.output, name))
            print(f"\n== {name}", flush=True)
            keras.backend.clear_session()
            if (code := run(one, begun)) == EXIT_DIVERGED:
                diverged.append(name)  # a grid may hold rates that are too high
            elif code:
                return code
            else:
                scores.append((name, checkpoints.find(one.output, "best").index["eval"]))
        rows += [(changes, scores)] if scores else []
    if diverged:
        print(f"warning: the loss became NaN or infinite in {', '.join(diverged)}: left out", file=sys.stderr, flush=True)
    if not rows:
        return EXIT_DIVERGED
    print("\n" + "\n".join(_table(rows, _begun(config, begun))), flush=True)
    runs = {name: figures for _, scores in rows for name, figures in scores}
    best = min(runs, key=lambda name: (rank(runs[name]), name))
    storage.write_json(storage.join(config.output, SWEEP), {"best": best, "runs": runs})
    print(f"best run: {storage.join(config.output, best)}", flush=True)
    return EXIT_DONE


def _table(rows: list, begun: str) -> list[str]:
    """Return one line per combination: mean and standard deviation (n - 1) of each metric over the seeds."""
    metrics = [name for name in rows[0][1][0][1] if name not in ("criterion", "examples", "remarks")]
    lines = [["settings", "seeds", *metrics]]
    for changes, scores in rows:
        values = np.array([[figures[name] for name in metrics] for _, figures in scores], float)  # None: NaN
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(metrics))
        cells = [f"{mean:.4f} +- {deviation:.4f}" for mean, deviation in zip(values.mean(axis=0), spread, strict=True)]
        settings = ", ".join(f"{name} {_shown(value)}" for name, value in changes.items()) or "as given"
        lines.append([settings, str(len(scores)), *cells])
    return [f"from {begun}", *aligned(lines)]
