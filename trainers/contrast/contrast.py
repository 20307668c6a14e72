"""`clozemill contrast`: train an encoder to make vectors of sentences, without labels: SimCSE (Gao et al. 2021).

clozemill contrast --init RUN --input texts.txt --dev pairs.tsv --output EMBEDDER

A text is encoded twice, with different dropout, or as two random spans of it, and has to find itself among the other texts of
its batch.
"""

import sys
from dataclasses import replace

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.contrast.config import ContrastConfig
from clozemill.trainers.contrast.contrast_run import PAIRED, ContrastRun, plan_contrast
from clozemill.trainers.engines.engine import Engine, check_batch, make_engine
from clozemill.trainers.finetuning import baselines
from clozemill.trainers.finetuning.baselines import Baseline
from clozemill.trainers.finetuning.dev_evaluation import DevEvaluation
from clozemill.trainers.finetuning.metrics import shown_metrics
from clozemill.trainers.finetuning.session import initial_model, start_or_resume
from clozemill.trainers.training import pretrained, run_folder
from clozemill.trainers.training.checkpoints import Checkpoint
from clozemill.trainers.training.trackers import check_tracker

UNTRAINED = "without training"


def main(config: ContrastConfig) -> int:
    """Start or resume a run; return the exit code (signals.EXIT_...)."""
    check_tracker(config.track)
    planned = plan_contrast(config, pretrained.read(config.init))
    engine = make_engine(config)
    size = check_batch(engine, planned.settings.batch_size, config.gradient_accumulation_steps)
    if size < 2:
        raise UserError(
            f"--batch-size {planned.settings.batch_size} leaves each device and micro-batch a single text to compare: give "
            f"{2 * planned.settings.batch_size} or more, or fewer --gradient-accumulation-steps"
        )
    if planned.dev_examples:
        planned = replace(planned, baseline=untrained(planned, engine))
    return start_or_resume(planned, engine, _introduce, _conclude)


def untrained(planned: ContrastRun, engine: Engine) -> Baseline:
    """Return the scores of the pretrained encoder with mean pooling, without training."""
    mean = replace(planned, task=replace(planned.task, head="mean"))
    with engine.scope():
        model = initial_model(mean)
    figures = DevEvaluation(engine, model, mean).figures()
    scores = {name: figures[name] for name in planned.metrics}
    return Baseline("mean pooling", scores, planned.baseline.measurable, UNTRAINED)


def _introduce(planned: ContrastRun, engine: Engine, step: int) -> None:
    """Print a summary of the run before it starts."""
    settings, task = planned.settings, planned.task
    print(f"contrast: {task.head} pooling, {PAIRED[task.positives]}, temperature {task.temperature:g}; "
          f"from {planned.initial.name}; on {engine.replicas} x {engine.device_name}, {planned.config.precision}")  # fmt: skip
    if planned.reasons:
        print(run_folder.chosen_for_you(planned.reasons))
    empty, copies = planned.left_out
    for count, what in ((empty, "empty texts"), (copies, "copies of other texts")):
        if count:
            print(f"note: {planned.source}: {count:,} {what} left out")
    print(
        f"{len(planned.train):,} distinct texts of up to {planned.phases[0].max_seq_length} tokens; {planned.steps:,} steps of "
        f"{settings.batch_size} (epochs: {settings.epochs:g}), peak learning rate {settings.learning_rate:g}"
    )
    if planned.train.truncated:
        print(f"note: {planned.train.truncated:,} texts are truncated to {task.max_seq_length} tokens (--max-seq-length)")
    planned.initial.note_untrained_positions(planned.phases[0].max_seq_length)
    if planned.dev_examples:
        print(f"{len(planned.dev_examples):,} graded pairs: {_compared(planned)}")
    for warning in planned.warnings:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    if step:
        print(f"resuming after step {step:,}")
    print(flush=True)


def _compared(planned: ContrastRun) -> str:
    """Return the scores that the trained model is compared with."""
    rows = (planned.baseline, planned.by_words)
    return "; ".join(f"{each.how}, {shown_metrics(planned.metrics, each.scores)} ({each.name})" for each in rows)


def _conclude(planned: ContrastRun, best: Checkpoint) -> None:
    """Print the best result beside that without training, and a warning if it is no better."""
    if not planned.dev_examples:
        print(f"done: {best.folder} (not evaluated: --dev takes a file of graded pairs)", flush=True)
        return
    figures, first = best.index["eval"], planned.metrics[0]
    print(f"best: {shown_metrics(planned.metrics, figures)}, at step {best.step:,}: {best.folder}")
    print(f"before: {_compared(planned)}")
    if not baselines.better(first, figures, planned.baseline):
        other = "" if planned.task.positives == "crop" else "try --positives crop, or "
        print(
            f"warning: {first} is no better than {UNTRAINED}: {other}give more texts, more like the graded pairs, or another "
            "--learning-rate, or pretrain the encoder for longer"
        )
    sys.stdout.flush()
