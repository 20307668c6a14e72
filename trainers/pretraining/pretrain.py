"""`clozemill pretrain`: train an encoder on a dataset, on a laptop, GPUs or a TPU; the same command resumes a stopped run.

clozemill pretrain --data DATASET --output RUN
"""

import contextlib
import hashlib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from clozemill.pipelines.command_line import options
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.formatting import counted
from clozemill.trainers.common import storage
from clozemill.trainers.common.hardware import Hardware
from clozemill.trainers.data import mixing, prepared_dataset
from clozemill.trainers.engines import train_state
from clozemill.trainers.engines.engine import Engine, check_batch, detect, make_engine, worker_count
from clozemill.trainers.pretraining import branching, capacity, pretraining_run, step_zero, warm_start, weight_average
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.defaults import parts_for
from clozemill.trainers.pretraining.page_parts import schedule_name
from clozemill.trainers.pretraining.pretraining_phase import PretrainingPhase
from clozemill.trainers.pretraining.pretraining_run import PretrainingRun
from clozemill.trainers.training import checkpoints, run_folder, run_page
from clozemill.trainers.training.eval_set_names import by_set
from clozemill.trainers.training.loop import Loop, resumed
from clozemill.trainers.training.metrics_log import MetricsLog
from clozemill.trainers.training.trackers import check_tracker


def main(config: PretrainConfig) -> int:
    """Train, or resume; return the exit code (signals.EXIT_...)."""
    check_tracker(config.track)
    hardware = detect(config, worker_count(config))
    planned = pretraining_run.plan_run(config, hardware)
    _check_eval_splits(planned, config)
    capacity.check_memory(planned, hardware)
    engine = make_engine(config)
    writes = engine.process == 0
    planned = _for_devices(planned, hardware.devices, engine.replicas)
    hardware = replace(hardware, devices=engine.replicas)  # for a TPU and for several processes, they were assumed
    for phase in planned.phases:
        for dataset in phase.mixture.datasets:
            prepared_dataset.check_training(dataset)
        check_batch(engine, phase.batch_size, planned.config.gradient_accumulation_steps or 1)
    with storage.locked(config.output) if writes else contextlib.nullcontext():
        return _run(planned, engine, writes, hardware)


def _for_devices(planned: PretrainingRun, assumed: int, replicas: int) -> PretrainingRun:
    """Return a new run with micro-batches for the devices that it has, if they were chosen for the `assumed` ones.

    Micro-batches that the user gave, or that a resumed run recorded, stay.
    """
    name = "gradient_accumulation_steps"
    if name not in planned.chosen or not planned.reasons or replicas == assumed:
        return planned
    sizes = [phase.batch_size for phase in planned.phases]
    before = getattr(planned.config, name)
    parts = parts_for(replicas, before, assumed, sizes)
    told = tuple(each.replace(f"in {before} micro", f"in {parts} micro") for each in planned.reasons)
    config = replace(planned.config, gradient_accumulation_steps=parts)
    return replace(planned, config=config, chosen={**planned.chosen, name: parts}, reasons=told)


def _run(planned: PretrainingRun, engine: Engine, writes: bool, hardware: Hardware) -> int:
    """Start or resume the run; its folder is locked."""
    config = planned.config
    _check_plans(engine, planned)
    if config.overwrite:
        if writes:
            run_folder.clear_run_folder(config.output)
        with engine.raise_if_worker_lost():
            engine.gather(0)  # barrier: no worker may see the old run
    _explain_other_steps(planned)
    run_folder.claim_run_folder(planned, config.output, writes)
    with engine.raise_if_worker_lost(), engine.scope():
        last = planned.phases[-1].objective
        made = train_state.make(planned.encoder, last, config.precision, config.seed, config.optimizer, **planned.heads)
    own: dict[str, Any] = {"silent": not writes, "track": config.track, "config": options.to_dict(config)}
    step, journal, evaluated = resumed(made, MetricsLog(config.output, planned.steps, config.tensorboard, **own))
    told = []
    if planned.branch and not step:
        step = branching.enter(planned.branch, made, journal)
    if planned.start and not step:
        start = warm_start.with_weights(planned.start)
        with engine.scope():
            told = warm_start.load(start, made.model, planned.vocabulary)
        told += step_zero.step_zero_lines(planned, start.vocabulary_bytes, engine, made.model)
    _agree(engine, step, config.output)
    if writes:
        warn_of_few_examples(planned)
        _introduce(planned, engine, made, step)
        if step and set(run_folder.RETIRED) & set(run_folder.recorded(config.output, "config") or {}):
            told = [_OTHER_ORDER]
        lines = [*told, *([capacity.expected(planned, hardware, step)] if step < planned.steps else [])]
        print("".join(f"{line}\n" for line in lines), flush=True)
    finish = weight_average.averaging(planned, engine, made) if step < planned.steps else None
    loop = Loop(planned, config.output, engine, made, step, journal, evaluated, finish=finish)
    if step >= planned.steps and run_page.is_complete(config.output):  # else an evaluation or the page is still due
        print(f"{config.output} is complete ({step:,} steps): nothing to do", flush=True)
        return 0
    code = loop.run()
    if code == 0 and writes:
        conclude(checkpoints.find(config.output, "best"), loop.journal.entries())
        places = (storage.join(config.output, name) for name in (checkpoints.FOLDER, run_page.PAGE))
        print(f"done: {', '.join(places)}", flush=True)
    return code


def _explain_other_steps(planned: PretrainingRun) -> None:
    """Raise UserError if the folder's run differs in the number of steps alone: its schedule was made for that number."""
    folder, mine = planned.config.output, planned.identity()
    theirs = run_folder.recorded(folder, "identity")
    if len(planned.phases) > 1 or not theirs or not isinstance(theirs.get("phase 1"), dict):
        return
    dependent = ("steps", "warmup_steps", "scheduled_steps", "decay_steps", "mask_rate_steps")
    have, want = ({key: value for key, value in each["phase 1"].items() if key not in dependent} for each in (theirs, mine))
    steps, wanted = theirs["phase 1"].get("steps"), planned.steps
    if steps == wanted or have != want or {"schedule": "linear", **theirs, "phase 1": 0} != {**mine, "phase 1": 0}:
        return
    newest = next(checkpoints.saved(folder), None)
    if newest and newest.step >= steps and mine["schedule"] == "wsd":
        fell = f", and its learning rate fell to 0 at step {steps:,}" if theirs["phase 1"].get("decay_steps") else ""
        raise UserError(
            f"{folder} is complete{fell}: to train further, continue it from its stable part: --branch-from {folder} --steps "
            f"{wanted} and a new --output"
        )
    if newest and newest.step >= steps:
        raise UserError(
            f"{folder} is complete, and its learning rate fell to 0 at step {steps:,}: to train further, start a new run from "
            f"its weights, with a schedule of its own: --init {folder} --steps {max(1, wanted - steps)} and a new --output"
        )
    raise UserError(
        f"{folder} was started with a learning rate schedule of {steps:,} steps, not {wanted:,}: "
        f"give --steps {steps} to resume it, --overwrite to start over, or another --output"
    )


_OTHER_ORDER = (
    "note: this run was started by a version that read the examples in another order: in the epoch in which it is resumed, "
    "some examples come twice and some not at all"
)
FEW = 100  # eval examples: metrics on fewer are mostly chance


def _eval_counts(planned: PretrainingRun) -> dict[str, int]:
    """Return the number of eval examples by dataset."""
    datasets = [phase.dataset for phase in planned.phases]
    return {each.folder: each.eval_examples for each in (*datasets, *planned.phases[0].eval_sets.values())}


def _check_eval_splits(planned: PretrainingRun, config: PretrainConfig) -> None:
    """Raise UserError for a dataset without eval examples if evaluations were requested. config: as the user gave it."""
    asked = "--eval-steps" if config.eval_steps else "--eval-examples" if config.eval_examples else ""
    for folder, count in _eval_counts(planned).items():
        if not count and asked and not planned.phases[0].eval_sets:
            raise UserError(f"{folder} has no eval examples: prepare with a larger --eval-fraction, or leave {asked} out")


def warn_of_few_examples(planned: PretrainingRun) -> None:
    """Warn about datasets with few eval examples, or none."""
    none = "nothing is evaluated, and the newest checkpoint counts as the best"
    if planned.phases[0].eval_sets:
        none = "the first of --eval-data selects the best checkpoint"
    for folder, count in _eval_counts(planned).items():
        if count < FEW:
            few = f"only {counted(count, 'eval example')}, too few to compare runs" if count else f"no eval examples: {none}"
            print(f"warning: {folder} has {few}; prepare with a larger --eval-fraction", file=sys.stderr, flush=True)


def _compared(figures: dict[str, Any], start: dict[str, Any]) -> str:
    """Return what a masked-LM loss is compared with, in brackets."""
    before = f"before the first step: {start['masked_lm_loss']:.4f}; " if "masked_lm_loss" in start else ""
    return f"({before}word frequencies alone: {figures['unigram_loss']:.4f})"


def conclude(best: checkpoints.Checkpoint, entries: Sequence[dict[str, Any]] = ()) -> None:
    """Print the best result, what it is compared with, and warnings about a result that is no better.

    entries: of metrics.jsonl; if they have an evaluation at step 0, it is compared with.
    """
    figures = best.index.get("eval") or {}
    if "unigram_loss" not in figures:
        return
    started: dict[str, Any] = next((each for each in entries if each.get("split") == "eval" and each["step"] == 0), {})
    sets, before = by_set(figures), by_set(started)
    loss, alone = f"masked LM loss {figures['masked_lm_loss']:.4f} nats", _compared(figures, before[""])
    if "replaced_baseline" in figures:
        accuracy, least = figures["replaced_accuracy"], figures["replaced_baseline"]
        found = f"replaced-token accuracy {accuracy:.1%} (calling every token original: at least {least:.1%})"
        print(f"best: {found} at step {best.step:,}; the generator's {loss} {alone}")
    else:
        print(f"best: {loss} at step {best.step:,} {alone}")
    for name in filter(None, sets):
        loss = f"masked LM loss {sets[name]['masked_lm_loss']:.4f} nats"
        print(f"{name}: {loss} {_compared(sets[name], before.get(name, {}))}")
    print("".join(f"warning: {remark}\n" for remark in figures["remarks"]), end="", flush=True)


def _check_plans(engine: Engine, planned: PretrainingRun) -> None:
    """Raise UserError if the workers would train different runs, or can't share the order of the examples."""
    told = json.dumps([planned.identity(), planned.config.gradient_accumulation_steps], sort_keys=True)
    mark = int.from_bytes(hashlib.sha256(told.encode()).digest()[:4]) >> 1
    with engine.raise_if_worker_lost():
        marks = engine.gather(mark)
    if len(marks) > 1:
        raise UserError(
            "the workers plan different runs, because their datasets, memory or cores differ: give all of them the same data, "
            "--preset, --batch-size and --gradient-accumulation-steps"
        )
    for phase in planned.phases:
        if phase.entry.batch_size % engine.processes:
            raise UserError(
                f"{phase.folder} is read in the order of batches of {phase.entry.batch_size}, which {engine.processes} workers "
                "can't share: use fewer workers"
            )


def _agree(engine: Engine, step: int, output: str) -> None:
    """Raise UserError unless all workers start at the same step."""
    with engine.raise_if_worker_lost():
        steps = engine.gather(step)
    if len(steps) > 1:
        raise UserError(
            f"{output}: the workers found checkpoints of different steps, {sorted(steps)}: give a folder that all workers share"
        )


def _parts(phase: PretrainingPhase) -> list[str]:
    """Return the size of each dataset of a phase, and how often it is read."""
    found = []
    for dataset, passes in zip(phase.mixture.datasets, phase.passes(), strict=True):
        packed = f"packed in {dataset.train_rows:,} rows, " if dataset.packed else ""
        copies = counted(dataset.copies, "copy", "copies")
        found.append(f"{dataset.train_examples:,} examples per epoch, {packed}{copies}, {passes:,.1f} epochs")
    return found


def _introduce(planned: PretrainingRun, engine: Engine, made: train_state.TrainState, step: int) -> None:
    """Print a summary of the run before it starts."""
    config, encoder = planned.config, planned.encoder
    weights = sum(math.prod(variable.shape) for variable in made.model.trainable_variables)
    where = f"{engine.replicas} x {engine.device_name}, {config.precision}"
    if planned.reasons:
        print(run_folder.chosen_for_you(planned.reasons))
    print(
        f"{planned.size_name}: {encoder.num_hidden_layers} layers, {encoder.hidden_size} wide, {encoder.vocab_size:,} entries, "
        f"{weights:,} weights; {planned.objectives}; on {where}"
    )
    for phase in planned.phases:
        parts = _parts(phase)
        several = f"a mixture of {len(parts)} datasets" if len(parts) > 1 else parts[0]
        print(
            f"steps {phase.begin + 1:,} to {phase.end:,}: batches of {phase.batch_size:,} x {phase.dataset.max_seq_length} "
            f"tokens, {several}, peak learning rate {phase.schedule.peak:g} ({schedule_name(phase.schedule)}), "
            f"{planned.flops(phase) * phase.batch_size / 1e9:,.1f} GFLOP per step"
        )
        shares = zip(phase.mixture.datasets, phase.mixture.counts, parts, strict=True)
        lines = [f"  {100 * count / mixing.WINDOW:g} % from {each.folder}: {part}" for each, count, part in shares]
        print("".join(f"{line}\n" for line in lines if len(parts) > 1), end="")
    if config.recipe:
        recipe, have = config.RECIPES[config.recipe], tuple(phase.dataset.max_seq_length for phase in planned.phases)
        print(f"recipe {config.recipe}: {recipe.expect}")
        if recipe.max_seq_lengths and have != recipe.max_seq_lengths:
            print(f"warning: the recipe is for sequences of {recipe.max_seq_lengths} tokens, but the datasets have {have}")
    branch = planned.branch
    if branch and step == branch.step:
        print(f"continuing {branch.path} after step {step:,}")
    elif step:
        print(f"resuming after step {step:,}")
