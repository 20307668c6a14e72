"""BERT's weights and configuration under the names of Hugging Face and of google-research/bert checkpoints."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion.weight_table import PARTS, Converted, Entry, convert

CLASS = "Bert"  # prefix of transformers' classes
HEADS: dict[str, str] = {}  # names of its heads that differ from those in TASK_HEADS
DECODER, TRANSFORM = "cls.predictions.decoder.weight", "cls.predictions.transform.dense.weight"
_HF_BASE = "bert."
_HF_PASSED = ("embeddings.position_ids", "embeddings.token_type_ids")  # values that transformers computes
_HF_ENCODER = (_HF_BASE, "cls.")  # any other tensor belongs to a custom head, as in transformers
_TF1_ENCODER = ("bert/", "cls/")
_TF1_COUNTERS = ("global_step", "beta1_power", "beta2_power")


def _dense(ours: str, hf: str, tf1: str, sizes: tuple[int, int], part: str = "encoder") -> list[Entry]:
    """Return the entries of a dense layer's kernel and bias; only Hugging Face's matrices are [out, in]."""
    return [
        Entry(f"{ours}/kernel", f"{hf}.weight", tf1 and f"{tf1}/kernel", sizes, part, ("hf",)),
        Entry(f"{ours}/bias", f"{hf}.bias", tf1 and f"{tf1}/bias", sizes[1:], part),
    ]


def _norm(ours: str, hf: str, tf1: str, size: int, part: str = "encoder") -> list[Entry]:
    return [
        Entry(f"{ours}/{name}", f"{hf}.LayerNorm.{theirs}", f"{tf1}/LayerNorm/{name}", (size,), part)
        for name, theirs in (("gamma", "weight"), ("beta", "bias"))
    ]


def _block(index: int, hidden: int, inner: int) -> list[Entry]:
    ours, hf, tf1 = f"encoder/layer_{index}", f"bert.encoder.layer.{index}", f"bert/encoder/layer_{index}"
    found, square = [], (hidden, hidden)
    for name in ("query", "key", "value"):
        found += _dense(f"{ours}/attention/{name}", f"{hf}.attention.self.{name}", f"{tf1}/attention/self/{name}", square)
    found += _dense(f"{ours}/attention/output_dense", f"{hf}.attention.output.dense", f"{tf1}/attention/output/dense", square)
    found += _norm(f"{ours}/attention_layer_norm", f"{hf}.attention.output", f"{tf1}/attention/output", hidden)
    found += _dense(f"{ours}/intermediate", f"{hf}.intermediate.dense", f"{tf1}/intermediate/dense", (hidden, inner))
    found += _dense(f"{ours}/output", f"{hf}.output.dense", f"{tf1}/output/dense", (inner, hidden))
    return found + _norm(f"{ours}/output_layer_norm", f"{hf}.output", f"{tf1}/output", hidden)


def table(config: EncoderConfig, parts: Iterable[str] = PARTS, head: tuple[str, int, int] | None = None) -> list[Entry]:
    """Return the weights of an encoder with some of PARTS and, for a fine-tuned model, a linear head.

    head: its name in Hugging Face, such as "classifier", and its numbers of inputs and outputs.
    """
    hidden, found = config.hidden_size, []
    for ours, theirs, rows in (
        ("word", "word", config.vocab_size),
        ("position", "position", config.max_position_embeddings),
        ("segment", "token_type", config.type_vocab_size),
    ):
        names = f"bert.embeddings.{theirs}_embeddings.weight", f"bert/embeddings/{theirs}_embeddings"
        found.append(Entry(f"encoder/embeddings/{ours}_embeddings", *names, (rows, hidden)))
    found += _norm("encoder/embeddings/layer_norm", "bert.embeddings", "bert/embeddings", hidden)
    for index in range(config.num_hidden_layers):
        found += _block(index, hidden, config.intermediate_size)
    if "pooler" in parts:
        found += _dense("encoder/pooler", "bert.pooler.dense", "bert/pooler/dense", (hidden, hidden), "pooler")
    if "masked_lm" in parts:
        hf, tf1, part = "cls.predictions.transform", "cls/predictions/transform", "masked_lm"
        found += _dense("masked_lm/transform", f"{hf}.dense", f"{tf1}/dense", (hidden, hidden), part)
        found += _norm("masked_lm/layer_norm", hf, tf1, hidden, part)
        bias = "cls.predictions.bias", "cls/predictions/output_bias"
        found.append(Entry("masked_lm/output_bias", *bias, (config.vocab_size,), part))
    if "next_sentence" in parts:
        hf, tf1, part = "cls.seq_relationship", "cls/seq_relationship", "next_sentence"
        names = f"{hf}.weight", f"{tf1}/output_weights"
        found.append(Entry("next_sentence/dense/kernel", *names, (hidden, 2), part, ("hf", "tf1")))
        found.append(Entry("next_sentence/dense/bias", f"{hf}.bias", f"{tf1}/output_bias", (2,), part))
    if head:
        found += _dense("head/dense", head[0], "", head[1:], "head")
    return found


def written(parts: tuple[str, ...], has_task: bool) -> tuple[str, ...]:
    """Return which of an encoder's parts transformers' classes have."""
    return parts


def _hf_name(name: str) -> str:
    """Return the current transformers name of a tensor: with the prefix, and LayerNorm's `weight` and `bias`."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        name = name.replace(old, new)
    return _HF_BASE + name if name.startswith(("embeddings.", "encoder.", "pooler.")) else name


def from_hf(tensors: Mapping[str, Any], config: EncoderConfig, head: tuple[str, int, int] | None = None) -> Converted:
    """Convert the weights of a Hugging Face folder to ours, with any heads and old or new names.

    The prefix "bert." is optional. A decoder that repeats the word embeddings and the bias is skipped, and so are heads that
    aren't in BERT.

    Args:
        tensors: arrays, or objects with a `shape` that np.asarray converts, so that only needed tensors are read.
        head: of a fine-tuned model, see `table`.

    Raises ValueError, naming the tensor, if one doesn't fit, or if the decoder has its own weights.
    """
    found: dict[str, Any] = {}
    for name, value in tensors.items():
        if _hf_name(name) in found:
            raise ValueError(f"the tensor {name} is there twice, with and without an older name")
        found[_hf_name(name)] = value
    decoder, bias = found.pop(DECODER, None), found.pop("cls.predictions.decoder.bias", None)
    if bias is not None and not np.array_equal(bias, found.setdefault("cls.predictions.bias", bias)):
        raise ValueError("the tensor cls.predictions.decoder.bias differs from cls.predictions.bias, and BERT has one of them")
    words = found.get("bert.embeddings.word_embeddings.weight")
    if decoder is not None and (words is None or not np.array_equal(decoder, words)):
        raise ValueError(untied(DECODER, "BERT"))
    own = {f"{head[0]}.weight", f"{head[0]}.bias"} if head else set()
    heads = sorted(name for name in found if not name.startswith(_HF_ENCODER) and name not in own)
    dropped = {*heads, *(_HF_BASE + name for name in _HF_PASSED)}
    kept = {name: value for name, value in found.items() if name not in dropped}
    return convert(kept, table(config, PARTS, head), "hf", tuple(heads), "BERT")


def tf1_wanted(config: EncoderConfig) -> Callable[[str], bool]:
    """Return whether a checkpoint's variable belongs to the encoder, by name: not to an optimizer, a counter or another head.

    Optimizers and moving averages name their slots after the variable: `.../kernel/adam_m`, `.../kernel/LAMB_1`,
    `.../kernel/ExponentialMovingAverage`.
    """
    names = {entry.tf1 for entry in table(config)}

    def wanted(name: str) -> bool:
        parts = name.split("/")
        slot = any("/".join(parts[:end]) in names for end in range(1, len(parts)))
        return name.startswith(_TF1_ENCODER) and (name in names or not slot)

    return wanted


def from_tf1(tensors: dict[str, np.ndarray], config: EncoderConfig, names: Iterable[str] = ()) -> Converted:
    """Convert the variables of a google-research/bert checkpoint to our weights.

    Args:
        names: names of all its variables, if `tensors` contains only those that are `tf1_wanted`.

    Raises ValueError, naming the tensor.
    """
    wanted, others = tf1_wanted(config), {*names, *tensors} - {*_TF1_COUNTERS}
    heads = {name for name in others if not name.startswith(_TF1_ENCODER)}
    heads = {name for name in heads if name.rsplit("/", 1)[0] not in heads - {name}}  # without optimizer slots
    return convert(
        {name: value for name, value in tensors.items() if wanted(name)}, table(config), "tf1", tuple(sorted(heads)), "BERT"
    )


_SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
    "type_vocab_size",
)  # fmt: skip
_RATES = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02, "layer_norm_eps": 1e-12}
HF_ACTIVATIONS = {
    "gelu": "gelu_erf", "gelu_python": "gelu_erf",
    "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_python_tanh": "gelu_tanh",
    "relu": "relu",
}  # fmt: skip
_TF1_ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu"}  # the reference's gelu is the tanh form
TO_HF_ACTIVATIONS = {"gelu_erf": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}


def size(values: dict[str, Any], name: str, what: str) -> int:
    """Return a whole number of a configuration. Raises ValueError for anything else. what: the kind of encoder."""
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}, and a {what} encoder has a whole number there")
    return value


def number(values: dict[str, Any], name: str, default: float, what: str) -> float:
    """Return a number of a configuration. Raises ValueError for anything else."""
    value = values.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, and a {what} encoder has a number there")
    return value


def untied(decoder: str, what: str) -> str:
    """Return the message about a decoder with its own weights."""
    return f"the tensor {decoder} is not the word embeddings, and {what}'s are tied"


def _sized(values: dict[str, Any], activations: dict[str, str], **more: Any) -> EncoderConfig:
    sizes: dict[str, Any] = {name: size(values, name, "BERT") for name in _SIZES}
    rates: dict[str, Any] = {name: number(values, name, default, "BERT") for name, default in _RATES.items()}
    act = values.get("hidden_act")
    if not isinstance(act, str) or act not in activations:
        raise ValueError(f"hidden_act {act!r} is unknown to clozemill ({', '.join(activations)})")
    return EncoderConfig(**sizes, **rates, hidden_act=activations[act], **more)


def config_from_hf(values: dict[str, Any]) -> EncoderConfig:
    """Return the encoder configuration in a config.json of the model_type bert. Raises ValueError unless it describes a BERT.

    `is_decoder` in it means causal attention.
    """
    if (positions := values.get("position_embedding_type", "absolute")) != "absolute":
        raise ValueError(f"its position_embedding_type is {positions!r}, and BERT's positions are 'absolute'")
    if values.get("add_cross_attention"):
        raise ValueError("it has cross attention, which an encoder has not")
    if values.get("embedding_size", values.get("hidden_size")) != values.get("hidden_size"):
        raise ValueError("its embedding_size differs from hidden_size, which BERT has not")
    return _sized(values, HF_ACTIVATIONS, attention="causal" if values.get("is_decoder") else "bidirectional")


def config_to_hf(config: EncoderConfig) -> dict[str, Any]:
    """Return the part of config.json that describes the encoder."""
    own = {name: getattr(config, name) for name in (*_SIZES, *_RATES)}
    causal = {"is_decoder": True} if config.attention == "causal" else {}
    return {"model_type": "bert", **own, "hidden_act": TO_HF_ACTIVATIONS[config.hidden_act], **causal}


def config_from_tf1(values: dict[str, Any]) -> EncoderConfig:
    """Return the encoder configuration in google-research/bert's bert_config.json. Raises ValueError."""
    return _sized(values, _TF1_ACTIVATIONS)
