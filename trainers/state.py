"""What a run changes: the model's weights and the optimizer's moments, made with values that depend on the seed alone."""

import hashlib
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from model.config import PRECISIONS, EncoderConfig
from model.pretraining import PretrainingModel


@dataclass
class TrainState:
    """A model, and two moments for each of its trainable variables."""

    model: PretrainingModel
    first: list[keras.Variable] = field(default_factory=list)
    second: list[keras.Variable] = field(default_factory=list)

    def weights(self) -> dict[str, tf.Variable]:
        """The model's variables by path, those of seeds left out: dropout draws from the step's number."""
        return {variable.path: variable.value for variable in self.model.weights}

    def moments(self) -> dict[str, tf.Variable]:
        """The optimizer's variables by name."""
        slots = {}
        for variable, first, second in zip(self.model.trainable_variables, self.first, self.second, strict=True):
            slots |= {f"first/{variable.path}": first.value, f"second/{variable.path}": second.value}
        return slots


def _stream(seed: int, path: str) -> np.random.Generator:
    """A variable's own random stream."""
    name = int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed & 0xFFFFFFFF, seed >> 32, name])))


def truncated_normal(stream: np.random.Generator, shape: tuple[int, ...], deviation: float) -> np.ndarray:
    """float32 values of a normal distribution, those beyond two deviations drawn again (google-research/bert's)."""
    values = stream.standard_normal(shape, np.float32)
    while (beyond := np.abs(values) > 2).any():
        values[beyond] = stream.standard_normal(int(beyond.sum()), np.float32)
    return values * np.float32(deviation)


def initialize(model: keras.Model, seed: int, deviation: float) -> None:
    """Gives kernels and embeddings, trained or not, values by (seed, path) alone; biases stay 0, LayerNorm 1 and 0."""
    for variable in model.weights:
        if len(variable.shape) > 1:
            variable.assign(truncated_normal(_stream(seed, variable.path), tuple(variable.shape), deviation))


def make_model(config: EncoderConfig, objective: str, precision: str) -> PretrainingModel:
    """The model with its variables made; call it within the strategy's scope."""
    model = PretrainingModel(config, objective, dtype=PRECISIONS[precision])
    model.build()
    return model


def make(config: EncoderConfig, objective: str, precision: str, seed: int) -> TrainState:
    """A model with its initial weights and moments of 0; call it within the strategy's scope."""
    model = make_model(config, objective, precision)
    initialize(model, seed, config.initializer_range)
    state = TrainState(model)
    for variable in model.trainable_variables:
        for moments, name in ((state.first, "first"), (state.second, "second")):
            zeros, name = np.zeros(variable.shape, np.float32), f"{name}_{variable.path.replace('/', '_')}"
            moments.append(keras.Variable(zeros, trainable=False, dtype="float32", name=name))
    return state
