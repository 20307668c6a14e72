"""The training step of the engine jax for absent devices; used by trainers/planning/preflight.py."""

import math
from typing import Any

import keras

from clozemill.model.config import PRECISIONS, EncoderConfig
from clozemill.model.pretraining_model import PretrainingModel
from clozemill.pipelines.examples.columns import FEATURES, PACKED_FEATURES
from clozemill.trainers.engines import optimizer
from clozemill.trainers.engines.engine import StepOptions
from clozemill.trainers.engines.jax_attention import choose_kernel, described
from clozemill.trainers.engines.jax_step import Step, make_mesh
from clozemill.trainers.planning.config import PreflightConfig


def make(config: PreflightConfig, encoder: EncoderConfig, devices: list) -> Step:
    """Return the step of a configuration over the JAX devices of a topology."""
    with keras.StatelessScope(initialize_variables=False):  # only shapes are needed
        model = PretrainingModel(encoder, config.objective, dtype=PRECISIONS[config.precision])
        model.build()
    hyper = optimizer.Hyper(clip_norm=optimizer.default_clip_norm(config.optimizer))
    schedule = optimizer.Schedule(peak=1e-4, warmup_steps=10_000, steps=1_000_000)
    kernel = choose_kernel(devices[0], config.attention_kernel)
    return Step(model, StepOptions(schedule, hyper, config.optimizer), make_mesh(devices), kernel)


def attention(step: Step, config: PreflightConfig) -> str:
    """Return how the step computes attention, for people."""
    return described(step.kernel, step.model.config, [config.max_seq_length], config.precision)


def parameters(step: Step) -> int:
    """Return the number of trainable parameters."""
    return sum(math.prod(variable.shape) for variable in step.trained)


def lowered(step: Step, config: PreflightConfig, predictions: int, batch_size: int) -> Any:
    """Return the lowered step for `batch_size` rows per device. predictions: masked positions per row."""
    most = config.examples_per_row
    lengths = {"max_seq_length": config.max_seq_length, "max_predictions": predictions, "max_examples": most}
    rows = batch_size * step.mesh.size
    features = PACKED_FEATURES if most else FEATURES
    return step.lowered(
        {
            name: ((rows, lengths[length] if length else 1), dtype.replace("int64", "int32"))
            for name, (dtype, length) in features.items()
        }
    )
