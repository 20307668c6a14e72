"""Runs the pilots of `clozemill plan --budget`: short runs of `pretrain` in a temporary folder, one after the other."""

import contextlib
import io
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from clozemill.model.config import PRESETS
from clozemill.model.memory import parameters
from clozemill.model.pretraining_model import OBJECTIVES
from clozemill.pipelines.command_line import options, process
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.formatting import counted
from clozemill.trainers.common import storage
from clozemill.trainers.common.hardware import Hardware
from clozemill.trainers.data import prepared_dataset
from clozemill.trainers.engines.engine import detect
from clozemill.trainers.planning import budget
from clozemill.trainers.planning.budget import Candidate, Pilot, Row
from clozemill.trainers.planning.config import AUTO, BudgetPlan
from clozemill.trainers.pretraining import capacity, pretrain, pretraining_run
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.training.curves import split_entries
from clozemill.trainers.training.metrics_log import METRICS

Train = Callable[[PretrainConfig], int]
_EVAL_EXAMPLES = 4000  # of each pilot: more don't make the loss much more certain


def _asked(preset: str, data: str) -> dict[str, str | int]:
    """Return the options of `pretrain` that a dataset asks for: an objective for its pairs, and positions for long rows."""
    dataset = prepared_dataset.read(data)
    fits = [name for name, objective in OBJECTIVES.items() if objective.pairs == dataset.manifest["config"]["pairs"]]
    found: dict[str, str | int] = {}
    if not budget.recipe_of(preset) and "mlm+nsp" not in fits:  # the recipe's objective suits all pairs
        found["objective"] = fits[0] if fits else "mlm"
    if dataset.max_seq_length > PretrainConfig.max_position_embeddings:
        found["max_position_embeddings"] = dataset.max_seq_length
    return found


def _settings(preset: str, data: str, asked: Mapping[str, str | int]) -> dict[str, Any]:
    """Return the options of `pretrain` that every run of a candidate has."""
    recipe = budget.recipe_of(preset)
    return {**({"recipe": recipe} if recipe else {}), "preset": preset, "data": (data,), **asked}


def candidate(preset: str, data: str, hardware: Hardware, rate: float) -> Candidate:
    """Return what is known of a size on a dataset before it is trained. Raises UserError if they don't suit each other.

    rate: as `capacity.step_rate` returns.
    """
    asked = _asked(preset, data)
    config = options.from_values(PretrainConfig, {**_settings(preset, data, asked), "output": "RUN"})
    planned = pretraining_run.plan_run(config, hardware)
    phase = planned.phases[0]
    dataset, documents = phase.dataset, phase.dataset.manifest["documents"]
    if not dataset.eval_examples:
        raise UserError(f"{data} has no eval examples to measure pilots on: prepare with a larger --eval-fraction")
    return Candidate(
        preset=preset,
        data=data,
        weights=parameters(planned.encoder),
        batch_size=phase.batch_size,
        positions=phase.batch_size * dataset.max_seq_length,
        rows=dataset.train_rows,
        seconds=capacity.step_seconds(planned, rate)[0] if rate else 0.0,
        fits=capacity.fits(planned, hardware),
        tokens_per_character=documents["tokens"] / max(1, documents["characters"]),
        options=tuple(asked.items()),
    )


def read_pilot(folder: str) -> Pilot:
    """Return the result of a complete run of one phase."""
    lines = storage.read(storage.join(folder, METRICS), "run the plan again").decode().splitlines()
    train, evaluated = split_entries([json.loads(line) for line in lines])
    first, last, figures = train[0], train[-1], evaluated[-1]
    count = max(1, last["step"] - first["step"])  # the first step traces, and compiles
    seconds, tokens = ((last[name] - first[name]) / count for name in ("seconds", "tokens"))
    return Pilot(last["step"], seconds, tokens, figures["masked_lm_loss"], figures["unigram_loss"])


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hide what a pilot prints, but on an error. A signal ends the plan: pilots don't handle it as runs of `pretrain` do."""
    program, process.PROGRAM[:] = process.PROGRAM[:], []
    told = io.StringIO()  # a short run is warned that it has learnt nothing
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
            yield
    except Exception:
        print(told.getvalue(), end="", file=sys.stderr)
        raise
    finally:
        process.PROGRAM[:] = program


def _run(one: Candidate, steps: int, folder: str, train: Train) -> Pilot:
    """Train a candidate for some steps. Raises UserError if that fails."""
    values = {
        **_settings(one.preset, one.data, dict(one.options)), "output": folder, "steps": steps,
        "batch_size": one.batch_size, "eval_steps": 0, "eval_examples": _EVAL_EXAMPLES, "checkpoint_steps": 0,
        "checkpoint_minutes": 0.0, "log_steps": max(1, steps // 5), "tensorboard": False,
    }  # fmt: skip
    with _quietly():
        if code := train(options.from_values(PretrainConfig, values)):
            raise UserError(f"a pilot of {steps:,} steps ended with exit code {code}: give another --preset or --data")
    return read_pilot(folder)


def _pilots(one: Candidate, seconds: float, work: str, train: Train) -> list[Pilot]:
    """Train a candidate's pilots, which take `seconds` in all, and print a line for each."""
    found: list[Pilot] = []
    pending = [budget.probe_steps(seconds, one.seconds)]
    while pending:
        folder = os.path.join(work, "pilot")
        pilot = _run(one, pending.pop(0), folder, train)
        shutil.rmtree(folder, ignore_errors=True)
        print(
            f"pilot {one.preset} on {one.data}, {counted(pilot.steps, 'step')}: {pilot.loss:.3f} nats (word frequencies "
            f"{pilot.unigram_loss:.3f}), {pilot.seconds:.3g} s per step",
            flush=True,
        )
        pending = pending if found else budget.pilot_steps(seconds - pilot.steps * pilot.seconds, pilot.seconds)
        found.append(pilot)
    return found


def _report(config: BudgetPlan, rows: list[Row], hardware: Hardware) -> None:
    """Print the table and the recommendation; write them to --output."""
    chosen = budget.best(rows)
    print(f"\nfor {config.budget} of training on {hardware}:")
    print("\n".join(budget.table(rows)))
    print(
        "\ntokens are those without padding. The loss is the masked-LM loss on the eval split, in nats, with the range in "
        "which it lies four times out of five; the form of the curve is that of Kaplan et al. 2020 and Hoffmann et al. 2022. "
        "Nats per character compare vocabularies."
    )
    for remark in budget.remarks(chosen):
        print(f"warning: {remark}")
    print(f"recommended:\n  {shlex.join(budget.command(chosen))}", flush=True)
    if config.output:
        storage.write_json(config.output, budget.as_json(rows, chosen), config.overwrite)


def plan_budget(config: BudgetPlan, train: Train = pretrain.main) -> None:
    """Train pilots of several sizes on the datasets, and recommend what to train.

    train: `pretrain`, which returns an exit code.
    """
    seconds = budget.parse_budget(config.budget)
    hardware = detect(PretrainConfig())
    rate = capacity.step_rate(hardware)
    presets = [name for name in PRESETS if budget.recipe_of(name)] if config.preset == AUTO else [config.preset]
    known = [[candidate(preset, data, hardware, rate) for preset in presets] for data in config.data]
    chosen = [one for each in known for one in budget.choose_candidates(each, seconds)]
    if not chosen:
        raise UserError(f"no size fits into the memory of {hardware}: give a dataset of shorter sequences as --data")
    each = config.pilot_share * seconds / len(chosen)
    names = ", ".join(dict.fromkeys(one.preset for one in chosen))
    print(f"pilots of {names}, about {counted(max(1, round(each * len(chosen) / 60)), 'minute')} and their start:", flush=True)
    work = tempfile.mkdtemp(prefix="clozemill-plan-")
    try:
        rows = [budget.make_row(one, _pilots(one, each, work, train), seconds) for one in chosen]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _report(config, rows, hardware)
