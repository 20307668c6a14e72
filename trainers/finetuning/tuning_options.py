"""The options of every command that trains an encoder further on rows in memory: `finetune` and `contrast`."""

from dataclasses import dataclass
from typing import Any

from clozemill.pipelines.command_line.options import INPUT, OUTPUT, READ, RUNNING, option
from clozemill.pipelines.command_line.overwriting import START_OVER, overwrite_option
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.config import OPTIMIZER_NAMES, TrainingOptions, check_run_folder


def init_option() -> Any:
    """Return the option that names the pretrained model."""
    return option(
        "",
        "the pretrained model: a run (its best checkpoint), a checkpoint, or a SavedModel of clozemill export",
        identity=False,
        group=INPUT,
        required=True,
        path=READ,
    )


@dataclass(frozen=True)
class TuningOptions(TrainingOptions):
    """The run, its optimizer, and how often it evaluates and saves."""

    output: str = option("", "the folder of the run", identity=False, group=OUTPUT, required=True)
    overwrite: bool = overwrite_option(START_OVER)
    epochs: float | None = option(
        None,
        "passes over the training examples (default: 3 to 8 by the size of the encoder; more for few examples)",
        low=0,
        high=10_000,
    )
    batch_size: int | None = option(
        None, "examples per update, across all devices (default: 32; 16 for few examples)", low=1, high=1 << 20
    )
    gradient_accumulation_steps: int = option(
        1, "number of micro-batches that each device's batch is split into", low=1, high=1 << 16
    )
    learning_rate: float | None = option(
        None, "peak learning rate (default: 2e-5 to 1e-3, the higher the narrower the encoder)", low=0, high=100
    )
    patience: int = option(0, "stop after this many evaluations in a row without improvement; 0: never", low=0, high=1 << 30)
    min_delta: float = option(0.0, "with --patience: smallest change of the metric that counts as an improvement", low=0)
    warmup_share: float = option(0.1, "fraction of the steps over which the learning rate warms up", low=0, high=1)
    optimizer: str = option(
        "adamw", "optimizer; muon is for the matrices of the layers, with adamw for the rest", choices=OPTIMIZER_NAMES
    )
    weight_decay: float = option(0.01, "weight decay of all weights except biases and LayerNorm", low=0, high=10)
    clip_norm: float | None = option(
        None, "clip the global norm of the gradients to this; 0: no clipping (default: 1; 0 with stable-adamw)", low=0
    )
    dropout: float = option(0.1, "dropout rate of hidden activations", low=0, high=0.9)
    attention_dropout: float = option(0.1, "dropout rate of attention probabilities", low=0, high=0.9)
    seed: int = option(0, "random seed of the head's initial weights, the order of examples and dropout", low=0, high=2**63 - 1)
    steps_per_call: int = option(10, "training steps per host call", low=1, high=1 << 16, identity=False, group=RUNNING)
    checkpoint_steps: int = option(
        0,
        "save a checkpoint every this many steps, besides every epoch; 0: every epoch only",
        low=0,
        high=1 << 30,
        identity=False,
        group=RUNNING,
    )
    checkpoint_minutes: float = option(
        15.0, "save a checkpoint every this many minutes; 0: off", low=0, identity=False, group=RUNNING
    )
    keep_checkpoints: int = option(
        1, "number of newest checkpoints to keep, besides the best one", low=1, high=1000, identity=False, group=RUNNING
    )
    eval_steps: int = option(
        0, "evaluate (and save) every this many steps; 0: after every epoch", low=0, high=1 << 30, identity=False, group=RUNNING
    )
    log_steps: int | None = option(
        None, "log metrics every this many steps (default: 50; fewer in a run of fewer than 1,250 steps)",
        low=1, high=1 << 30, identity=False, group=RUNNING,
    )  # fmt: skip

    def check_command(self) -> None:
        """Raise UserError for a folder that can't be used, before TensorFlow is imported."""
        check_run_folder(self.output)

    def validate(self) -> None:
        """Raise UserError for values that contradict each other."""
        if self.epochs == 0:
            raise UserError("--epochs is 0: give a number above 0")
        if self.min_delta and not self.patience:
            raise UserError("--min-delta has no effect without --patience: give both")
