"""`clozemill pretrain`: an encoder from a dataset, on a laptop, GPUs or a TPU, going on where a killed run stopped.

clozemill pretrain --data DATASET --preset tiny --steps 1000 --batch-size 32 --output RUN
"""

import contextlib
import sys

import tensorflow as tf

from clozemill.pipelines.command_line.options import require
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import distribution, storage
from clozemill.trainers.data import prepared_dataset
from clozemill.trainers.data.input_pipeline import eval_counts
from clozemill.trainers.pretraining import run, warm_start
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.run import PretrainingRun
from clozemill.trainers.training import checkpoints, run_folder, train_state
from clozemill.trainers.training.loop import Loop, resumed
from clozemill.trainers.training.metrics_log import MetricsLog


def main(config: PretrainConfig) -> int:
    """Trains, or goes on; returns the exit code (loop.EXIT_...)."""
    require(config, "output")
    planned = run.plan_run(config)
    _check_eval_splits(planned)
    devices = distribution.make_strategy(config)
    writes = distribution.worker(devices)[0] == 0
    for phase in planned.phases:
        prepared_dataset.check_training(phase.dataset, distribution.hosts(devices))
        distribution.check_batch(devices, phase.batch_size, config.gradient_accumulation_steps)
    with storage.locked(config.output) if writes else contextlib.nullcontext():
        return _run(planned, devices, writes)


def _run(planned: PretrainingRun, devices: tf.distribute.Strategy, writes: bool) -> int:
    """The run, or the rest of it, in a folder that is locked."""
    config = planned.config
    run_folder.claim_run_folder(planned, config.output, writes)
    with distribution.raise_if_worker_lost(devices), devices.scope():
        made = train_state.make(planned.encoder, config.objective, config.precision, config.seed)
    step, journal, evaluated = resumed(made, MetricsLog(config.output, planned.steps, config.tensorboard, silent=not writes))
    told = []
    if planned.start and not step:
        with devices.scope():
            told = warm_start.load(planned.start, made.model)
    _agree(devices, step, config.output)
    if writes:
        warn_of_few_examples(planned)
        _introduce(planned, devices, made, step)
        print("".join(f"{line}\n" for line in told), flush=True)
    loop = Loop(planned, config.output, devices, made, step, journal, evaluated)
    if step >= planned.steps:
        print(f"{config.output} has all its {step:,} steps: nothing to do", flush=True)
        return 0 if "curves.png" in storage.listed(config.output) else loop.run()  # a kill before they were drawn
    code = loop.run()
    if code == 0 and writes:
        conclude(checkpoints.find(config.output, "best"))
        print(f"done: {storage.join(config.output, checkpoints.FOLDER)}, {config.output}/curves.png", flush=True)
    return code


FEW = 100  # eval examples: figures over fewer are mostly chance


def _eval_counts(planned: run.PretrainingRun) -> dict[str, int]:
    """Eval examples by dataset."""
    return {phase.folder: sum(eval_counts(phase.dataset)) for phase in planned.phases}


def _check_eval_splits(planned: run.PretrainingRun) -> None:
    """Raises UserError for a dataset without eval examples where evaluations were asked for."""
    config = planned.config
    asked = "--eval-steps" if config.eval_steps else "--eval-examples" if config.eval_examples else ""
    for folder, count in _eval_counts(planned).items():
        if not count and asked:
            raise UserError(f"{folder} has no eval examples: prepare with a larger --eval-fraction, or leave {asked} out")


def warn_of_few_examples(planned: run.PretrainingRun) -> None:
    """Warns of datasets with few eval examples, or none."""
    for folder, count in _eval_counts(planned).items():
        if count < FEW:
            few = f"only {count:,} eval examples, too few to compare runs by" if count else (
                "no eval examples: nothing is measured, and the newest checkpoint counts as the best"
            )  # fmt: skip
            print(f"warning: {folder} has {few}; prepare with a larger --eval-fraction", file=sys.stderr, flush=True)


def conclude(best: checkpoints.Checkpoint) -> None:
    """The best result, what is had without any context, and what must be said of a result that is no better."""
    figures = best.index.get("eval") or {}
    if "unigram_loss" not in figures:
        return
    loss, unigrams = figures["masked_lm_loss"], figures["unigram_loss"]
    print(f"best: masked LM loss {loss:.4f} nats at step {best.step:,} (word frequencies alone: {unigrams:.4f})")
    print("".join(f"warning: {remark}\n" for remark in figures["remarks"]), end="", flush=True)


def _agree(devices: tf.distribute.Strategy, step: int, output: str) -> None:
    """Raises UserError unless all workers begin at the same step."""
    with distribution.raise_if_worker_lost(devices):
        steps = distribution.gather_from_workers(devices, step)
    if len(steps) > 1:
        raise UserError(
            f"{output}: the workers found checkpoints of steps {sorted(steps)} there: give a folder that all of them see"
        )


def _introduce(planned: run.PretrainingRun, devices: tf.distribute.Strategy, made: train_state.TrainState, step: int) -> None:
    """What is about to happen, in a few lines."""
    config, encoder = planned.config, planned.encoder
    weights = sum(variable.value.shape.num_elements() for variable in made.model.trainable_variables)
    where = f"{devices.num_replicas_in_sync} x {distribution.device_name(devices)}, {config.precision}"
    print(
        f"{planned.size_name}: {encoder.num_hidden_layers} layers, {encoder.hidden_size} wide, {encoder.vocab_size:,} entries, "
        f"{weights:,} weights; {config.objective}; on {where}"
    )
    for phase in planned.phases:
        examples = phase.dataset.train_examples
        passes = (phase.end - phase.begin) * phase.batch_size / examples
        print(
            f"steps {phase.begin + 1:,} to {phase.end:,}: batches of {phase.batch_size:,} x {phase.dataset.max_seq_length} "
            f"tokens, {examples:,} examples per epoch, {phase.dataset.copies} copies, {passes:,.1f} epochs, peak learning rate "
            f"{phase.schedule.peak:g}, {planned.flops(phase) * phase.batch_size / 1e12:,.2f} TFLOP per step"
        )
    if config.recipe:
        recipe, have = config.RECIPES[config.recipe], tuple(phase.dataset.max_seq_length for phase in planned.phases)
        print(f"recipe {config.recipe}: {recipe.expect}")
        if have != recipe.max_seq_lengths:
            print(f"warning: the recipe is for sequences of {recipe.max_seq_lengths} tokens, these have {have}")
    if step:
        print(f"going on after step {step:,}")
