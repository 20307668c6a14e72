"""Map an encoder's weights and configuration between ours and Hugging Face's, for every architecture.

Each architecture has a module of names. To add one, add it to FAMILIES.
"""

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion import bert_names, modernbert_names
from clozemill.model.conversion.weight_table import PARTS, Converted, Entry, check_finite, pick

FAMILIES: dict[str, ModuleType] = {"bert": bert_names, "modernbert": modernbert_names}  # by architecture and model_type


def family(config: EncoderConfig) -> ModuleType:
    """Return the module with the names of a configuration's architecture."""
    return FAMILIES[config.architecture]


def table(config: EncoderConfig, parts: Iterable[str] = PARTS, head: tuple[str, int, int] | None = None) -> list[Entry]:
    """Return the weights of an encoder with some of PARTS and, for a fine-tuned model, a linear head.

    head: its name in TASK_HEADS, such as "classifier", and its numbers of inputs and outputs.
    """
    return family(config).table(config, parts, head)


def check_weights(config: EncoderConfig, weights: dict[str, np.ndarray]) -> None:
    """Raise ValueError unless all weights of an encoder (our names) have the sizes in its configuration and are finite.

    This happens before a model is built and its memory allocated, because the configuration is untrusted.
    """
    for entry in table(config, ()):
        if (found := pick(weights, entry.ours).shape) != entry.shape:
            raise ValueError(
                f"the tensor {entry.ours} has the shape {list(found)}, and its configuration asks for {list(entry.shape)}"
            )
    layers = {name.split("/")[1] for name in weights if name.startswith("encoder/layer_")}
    if len(layers) != config.num_hidden_layers:
        raise ValueError(f"it has {len(layers)} layers, and its configuration asks for {config.num_hidden_layers}")
    for name, value in weights.items():
        check_finite(name, value)


def from_hf(tensors: Mapping[str, Any], config: EncoderConfig, head: tuple[str, int, int] | None = None) -> Converted:
    """Convert the weights of a Hugging Face folder to ours, with any heads. Raises ValueError, naming a tensor.

    tensors: arrays, or objects with a `shape` that np.asarray converts, so that only needed tensors are read. head: that of a
        fine-tuned model, as in `table`; without it, the heads of tasks are skipped.
    """
    return family(config).from_hf(tensors, config, head)


def config_from_hf(values: dict[str, Any]) -> EncoderConfig:
    """Return the encoder configuration in a Hugging Face config.json. Raises ValueError for encoders of other kinds."""
    kind = values.get("model_type", "bert")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"its model_type is {kind!r}, but clozemill knows only {' and '.join(FAMILIES)}")
    return FAMILIES[kind].config_from_hf(values)


def config_to_hf(config: EncoderConfig) -> dict[str, Any]:
    """Return the part of config.json that describes the encoder."""
    return family(config).config_to_hf(config)
