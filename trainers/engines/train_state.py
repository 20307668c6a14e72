"""The state of a run: model weights and the moments of its optimizer, initialised from the seed alone."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from clozemill.model.config import PRECISIONS, EncoderConfig
from clozemill.model.conversion.weight_names import check_weights
from clozemill.model.layers import deviation
from clozemill.model.pretraining_model import EncoderModel, PretrainingModel
from clozemill.model.task_model import Task, TaskModel
from clozemill.trainers.engines.optimizer import OPTIMIZERS

HEADS = ("encoder/pooler/", "masked_lm/", "next_sentence/", "generator/", "replaced_token/")  # prefixes of paths


def _path(variable: keras.Variable) -> str:
    """Return the path of a variable without the name of its model, such as `encoder/layer_0/attention/query/kernel`."""
    return variable.path.split("/", 1)[1]


@dataclass
class TrainState:
    """A model, and for each of its trainable variables the moments of the optimizer's rule, by name."""

    model: PretrainingModel
    slots: list[dict[str, keras.Variable]] = field(default_factory=list)

    def weight_variables(self) -> dict[str, keras.Variable]:
        """Return the model's variables by path within it, without seed states: dropout seeds come from the step number."""
        return {_path(variable): variable for variable in self.model.weights}

    def moment_variables(self) -> dict[str, keras.Variable]:
        """Return the optimizer's variables by name."""
        rows = zip(self.model.trainable_variables, self.slots, strict=True)
        return {f"{name}/{_path(variable)}": moment for variable, slots in rows for name, moment in slots.items()}

    def weights(self) -> dict[str, Any]:
        """Return the values of the model's variables by path: tf.Variable on TensorFlow."""
        return {path: variable.value for path, variable in self.weight_variables().items()}

    def moments(self) -> dict[str, Any]:
        """Return the values of the optimizer's variables by name."""
        return {name: variable.value for name, variable in self.moment_variables().items()}

    def values(self) -> dict[str, dict[str, Any]]:
        """Return `weights` and `moments` by these names, the groups of a checkpoint."""
        return {"weights": self.weights(), "moments": self.moments()}


def _stream(seed: int, path: str) -> np.random.Generator:
    """Return the random stream of one variable."""
    name = int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed & 0xFFFFFFFF, seed >> 32, name])))


def truncated_normal(stream: np.random.Generator, shape: tuple[int, ...], deviation: float) -> np.ndarray:
    """Return float32 normal values; those beyond two deviations are redrawn (as in google-research/bert)."""
    values = stream.standard_normal(shape, np.float32)
    while (beyond := np.abs(values) > 2).any():
        values[beyond] = stream.standard_normal(int(beyond.sum()), np.float32)
    return values * np.float32(deviation)


def initialize(model: keras.Model, seed: int, base: float) -> None:
    """Initialise kernels and embeddings, trainable or not, by (seed, path) only; biases stay 0, LayerNorm 1 and 0."""
    for variable in model.weights:
        if len(variable.shape) > 1:
            own = deviation(model.config, variable.path, base)
            own = (2 / sum(variable.shape)) ** 0.5 if "/lstm_" in variable.path else own  # Glorot and Bengio 2010
            variable.assign(truncated_normal(_stream(seed, variable.path), tuple(variable.shape), own))


def make_model(config: EncoderConfig, objective: str, precision: str, **heads: Any) -> PretrainingModel:
    """Build the model with its variables. Call it within the strategy's scope. heads: options of PretrainingModel."""
    model = PretrainingModel(config, objective, **heads, dtype=PRECISIONS[precision])
    model.build()
    return model


def encoder_config(index: dict[str, Any]) -> EncoderConfig:
    """Return the encoder that a checkpoint.json describes. Raises ValueError if it describes none."""
    try:
        return EncoderConfig(**index["encoder"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"this version doesn't know its encoder, objective or task ({error})") from None


def model_for(index: dict[str, Any], precision: str = "float32") -> PretrainingModel | TaskModel | EncoderModel:
    """Build the model that a checkpoint.json describes, with arbitrary values.

    With "task" a TaskModel, with the objective "" (an import without heads) an EncoderModel, else a PretrainingModel. Call
    it within the strategy's scope. Raises ValueError if checkpoint.json describes no model.
    """
    config = encoder_config(index)
    options: dict[str, Any] = {"dtype": PRECISIONS[precision]}
    try:
        if "task" in index:
            model = TaskModel(config, Task.from_dict(index["task"]), **options)
        elif index["objective"] == "":
            model = EncoderModel(config, **options)
        else:
            heads: dict[str, Any] = {name: index[name] for name in ("objectives", "generator_size") if name in index}
            model = PretrainingModel(config, index["objective"], **heads, **options)
    except (KeyError, TypeError) as error:
        raise ValueError(f"this version doesn't know its encoder, objective or task ({error})") from None
    model.build()
    return model


def assign(model: keras.Model, weights: dict[str, np.ndarray], may_lack: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Assign the values of `checkpoints.weights` to a model's variables, strictly.

    Args:
        weights: arrays by path within the model, such as `encoder/layer_0/attention/query/kernel`.
        may_lack: prefixes of paths, such as "encoder/pooler/" or "head/", that may be missing and then keep their values.

    Returns the missing paths. Raises ValueError, and changes nothing, for a value that is missing, has no variable, or has
    another shape.
    """
    variables = {_path(variable): variable for variable in model.weights}
    absent = tuple(path for path in variables if path not in weights)
    if missing := [path for path in absent if not path.startswith(may_lack)]:
        raise ValueError(f"{missing[0]} is missing")
    for path, value in weights.items():
        if path not in variables:
            raise ValueError(f"{path} is not a variable of the model")
        if value.shape != tuple(variables[path].shape):
            raise ValueError(f"{path} has the shape {list(value.shape)}, but the model's is {list(variables[path].shape)}")
    for path, value in weights.items():
        variables[path].assign(value)
    return absent


def loaded(
    index: dict[str, Any], weights: dict[str, np.ndarray], precision: str = "float32"
) -> PretrainingModel | TaskModel | EncoderModel:
    """Return `model_for` with its weights. Only the pooler of an import without one may be missing; it gets random weights.

    Without the generator, which is for training alone, a model of replaced-token detection is an EncoderModel. Raises
    ValueError for any other weight that is missing or doesn't fit.
    """
    if index.get("objective") == "rtd" and not any(path.startswith("generator/") for path in weights):
        index = index | {"objective": ""}
    check_weights(encoder_config(index), weights)
    model, heads = model_for(index, precision), (index.get("imported") or {}).get("heads", ("pooler",))
    if "pooler" not in heads:
        initialize(model, 0, model.config.initializer_range)  # so that the same checkpoint gives the same exports
    assign(model, weights, () if "pooler" in heads else ("encoder/pooler/",))
    return model


def make(
    config: EncoderConfig, objective: str, precision: str, seed: int, optimizer: str = "adamw", **heads: Any
) -> TrainState:
    """Return a model with initial weights and zero moments. Call it within the strategy's scope.

    heads: options of PretrainingModel, if the phases of the run have several objectives.
    """
    model = make_model(config, objective, precision, **heads)
    initialize(model, seed, config.initializer_range)
    return with_moments(model, optimizer)


def with_moments(model: keras.Model, optimizer: str = "adamw") -> TrainState:
    """Return a model with zero moments for its trainable variables. Call it within the strategy's scope.

    optimizer: a key of OPTIMIZERS.
    """
    state = TrainState(model)
    for variable in model.trainable_variables:
        slots = {}
        for name in OPTIMIZERS[optimizer].rule(variable.path, variable.shape).moments:
            zeros, label = np.zeros(variable.shape, np.float32), f"{name}_{variable.path.replace('/', '_')}"
            slots[name] = keras.Variable(zeros, trainable=False, dtype="float32", name=label)
        state.slots.append(slots)
    return state
