"""Starts or resumes a planned run of fine-tuning, from its pretrained weights to its report."""

from collections.abc import Callable
from typing import TypeVar

from clozemill.model.config import PRECISIONS
from clozemill.model.task_model import TaskModel
from clozemill.pipelines.command_line import options
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import storage
from clozemill.trainers.engines import train_state
from clozemill.trainers.engines.engine import Engine, check_batch
from clozemill.trainers.finetuning.finetuning_run import FinetuningRun
from clozemill.trainers.training import checkpoints, run_folder, run_page
from clozemill.trainers.training.checkpoints import Checkpoint
from clozemill.trainers.training.early_stopping import EarlyStopping
from clozemill.trainers.training.loop import Loop, resumed
from clozemill.trainers.training.metrics_log import MetricsLog
from clozemill.trainers.training.signals import EXIT_DONE

Run = TypeVar("Run", bound=FinetuningRun)
Introduce = Callable[[Run, Engine, int], None]
Conclude = Callable[[Run, Checkpoint], None]


def start_or_resume(planned: Run, engine: Engine, introduce: Introduce[Run], conclude: Conclude[Run]) -> int:
    """Start or resume a run; return the exit code (signals.EXIT_...).

    Args:
        introduce: prints a summary before the run starts, from the plan, the devices and the step that it resumes at.
        conclude: prints the result, from the plan and the best checkpoint.
    """
    config = planned.config
    check_batch(engine, planned.settings.batch_size, config.gradient_accumulation_steps)
    with storage.locked(config.output):
        if config.overwrite:
            run_folder.clear_run_folder(config.output)
        run_folder.claim_run_folder(planned, config.output)
        with engine.scope():
            made = train_state.with_moments(initial_model(planned), config.optimizer)
        stopping = EarlyStopping(config.patience, config.min_delta)
        journal = MetricsLog(
            config.output, planned.steps, config.tensorboard, track=config.track, config=options.to_dict(config)
        )
        step, journal, evaluated = resumed(made, journal, stopping)
        introduce(planned, engine, step)
        done = (step >= planned.steps and evaluated) or stopping.stops
        if done and run_page.is_complete(config.output):
            steps = f"stopped early at step {step:,}" if step < planned.steps else f"is complete ({step:,} steps)"
            print(f"{config.output} {steps}: nothing to do", flush=True)
            return EXIT_DONE
        code = Loop(planned, config.output, engine, made, step, journal, evaluated, stopping).run()
        if code == EXIT_DONE:
            conclude(planned, checkpoints.find(config.output, "best"))
            print(f"report: {storage.join(config.output, run_page.PAGE)}", flush=True)
        return code


def initial_model(planned: FinetuningRun) -> TaskModel:
    """Return the model with the pretrained weights and a head initialised by the seed. Call it within the engine's scope."""
    config = planned.config
    model = TaskModel(planned.encoder, planned.task, dtype=PRECISIONS[config.precision])
    model.build()
    train_state.initialize(model, config.seed, planned.encoder.initializer_range)
    if not config.from_scratch:
        try:
            absent = train_state.assign(model, planned.initial.encoder_weights, may_lack=("head/", "encoder/pooler/"))
        except ValueError as error:
            raise UserError(f"{planned.initial.name}: {error}: give another checkpoint") from None
        if model.pooled and any(name.startswith("encoder/pooler/") for name in absent):
            print(f"note: {planned.initial.name} has no pooler: it starts from random weights")
    return model
