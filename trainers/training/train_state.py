"""What a run changes: the model's weights and the optimizer's moments, made with values that depend on the seed alone."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from clozemill.model.config import PRECISIONS, EncoderConfig
from clozemill.model.conversion.weight_names import check_weights
from clozemill.model.pretraining_model import EncoderModel, PretrainingModel
from clozemill.model.task_model import Task, TaskModel


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
            own = (2 / sum(variable.shape)) ** 0.5 if "/lstm_" in variable.path else deviation  # Glorot and Bengio 2010
            variable.assign(truncated_normal(_stream(seed, variable.path), tuple(variable.shape), own))


def make_model(config: EncoderConfig, objective: str, precision: str) -> PretrainingModel:
    """The model with its variables made; call it within the strategy's scope."""
    model = PretrainingModel(config, objective, dtype=PRECISIONS[precision])
    model.build()
    return model


def encoder_config(index: dict[str, Any]) -> EncoderConfig:
    """The encoder that a checkpoint.json describes. Raises ValueError when it describes none."""
    try:
        return EncoderConfig(**index["encoder"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"its encoder, objective or task is none that this version knows ({error})") from None


def model_for(index: dict[str, Any], precision: str = "float32") -> PretrainingModel | TaskModel | EncoderModel:
    """The model that a checkpoint.json describes, its variables made and their values of no account.

    With "task" a TaskModel, with the objective "" (an import without heads) an EncoderModel, else a PretrainingModel. Call
    it within the strategy's scope. Raises ValueError when checkpoint.json describes no model.
    """
    config, options = encoder_config(index), {"dtype": PRECISIONS[precision]}
    try:
        if "task" in index:
            model = TaskModel(config, Task.from_dict(index["task"]), **options)
        elif index["objective"] == "":
            model = EncoderModel(config, **options)
        else:
            model = PretrainingModel(config, index["objective"], **options)
    except (KeyError, TypeError) as error:
        raise ValueError(f"its encoder, objective or task is none that this version knows ({error})") from None
    model.build()
    return model


def assign(model: keras.Model, weights: dict[str, np.ndarray], may_lack: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Gives a model's variables the values of `checkpoints.weights`, strictly.

    Args:
        weights: arrays by path within the model, such as `encoder/layer_0/attention/query/kernel`.
        may_lack: beginnings of paths, such as "encoder/pooler/" or "head/", that needn't be there and then stay as they are.

    Returns the paths that weren't there. Raises ValueError, and changes nothing, for a value that is missing, has no
    variable, or has another shape.
    """
    variables = {variable.path.split("/", 1)[1]: variable for variable in model.weights}
    absent = tuple(path for path in variables if path not in weights)
    if missing := [path for path in absent if not path.startswith(may_lack)]:
        raise ValueError(f"{missing[0]} is missing")
    for path, value in weights.items():
        if path not in variables:
            raise ValueError(f"{path} is no variable of the model")
        if value.shape != tuple(variables[path].shape):
            raise ValueError(f"{path} has the shape {list(value.shape)}, and the model's is {list(variables[path].shape)}")
    for path, value in weights.items():
        variables[path].assign(value)
    return absent


def loaded(
    index: dict[str, Any], weights: dict[str, np.ndarray], precision: str = "float32"
) -> PretrainingModel | TaskModel | EncoderModel:
    """`model_for` with its weights; only the pooler of an import that came without one may lack, and has random weights then.

    Raises ValueError for any other weight that lacks or doesn't fit.
    """
    check_weights(encoder_config(index), weights)
    model, heads = model_for(index, precision), (index.get("imported") or {}).get("heads", ("pooler",))
    if "pooler" not in heads:
        initialize(model, 0, model.config.initializer_range)  # so that the same checkpoint gives the same exports
    assign(model, weights, () if "pooler" in heads else ("encoder/pooler/",))
    return model


def make(config: EncoderConfig, objective: str, precision: str, seed: int) -> TrainState:
    """A model with its initial weights and moments of 0; call it within the strategy's scope."""
    model = make_model(config, objective, precision)
    initialize(model, seed, config.initializer_range)
    return with_moments(model)


def with_moments(model: keras.Model) -> TrainState:
    """A model with moments of 0 for what is trained of it; call it within the strategy's scope."""
    state = TrainState(model)
    for variable in model.trainable_variables:
        for moments, name in ((state.first, "first"), (state.second, "second")):
            zeros, name = np.zeros(variable.shape, np.float32), f"{name}_{variable.path.replace('/', '_')}"
            moments.append(keras.Variable(zeros, trainable=False, dtype="float32", name=name))
    return state
