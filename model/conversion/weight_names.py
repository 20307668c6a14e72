"""Maps an encoder's weights between our names, Hugging Face's, and those of google-research/bert checkpoints.

Plain numpy. `table` lists every weight of a configuration with its three names and its layout. The functions check tensors
against it, and name a tensor that is missing, unexpected or of another shape.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clozemill.model.config import EncoderConfig

PARTS = ("pooler", "masked_lm", "next_sentence")  # what an encoder may come without

_HF_BASE = "bert."
_HF_PASSED = ("embeddings.position_ids", "embeddings.token_type_ids")  # numbers that transformers computes
_HF_ENCODER = (_HF_BASE, "cls.")  # any other tensor belongs to a head of someone's own, as for transformers
_TF1_ENCODER = ("bert/", "cls/")
_TF1_COUNTERS = ("global_step", "beta1_power", "beta2_power")


@dataclass(frozen=True)
class Entry:
    """A weight. ours, hf, tf1: its names ("" where it has none). shape: ours. part: "encoder", "head" or one of PARTS.

    turned: which of the others hold the transposed matrix.
    """

    ours: str
    hf: str
    tf1: str
    shape: tuple[int, ...]
    part: str = "encoder"
    turned: tuple[str, ...] = ()


def _dense(ours: str, hf: str, tf1: str, sizes: tuple[int, int], part: str = "encoder") -> list[Entry]:
    """A dense layer's kernel and bias; only Hugging Face's matrices are [out, in]."""
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
    """The weights of an encoder with some of PARTS, and, for a fine-tuned model, a linear head.

    head: Hugging Face's name of it, such as "classifier", its inputs and its outputs.
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


def to_hf(weights: dict[str, np.ndarray], entries: list[Entry]) -> dict[str, np.ndarray]:
    """Our weights under Hugging Face's names, those that the table lists. Raises ValueError for one that is missing."""
    return {entry.hf: _laid_out(entry, _pick(weights, entry.ours), "hf") for entry in entries}


def _laid_out(entry: Entry, value: np.ndarray, kind: str) -> np.ndarray:
    return np.ascontiguousarray(value.T) if kind in entry.turned else value


def _pick(tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in tensors:
        raise ValueError(f"the tensor {name} is missing")
    return tensors[name]


@dataclass(frozen=True)
class Converted:
    """weights: ours, float32, by name. parts: which of PARTS were there. passed_over: tensors of heads that BERT hasn't."""

    weights: dict[str, np.ndarray]
    parts: tuple[str, ...]
    passed_over: tuple[str, ...] = ()


def check_finite(name: str, value: np.ndarray) -> None:
    """Raise ValueError, naming the tensor, if any of its values is NaN or infinite."""
    if not np.isfinite(value).all():
        raise ValueError(f"the tensor {name} holds NaN or infinite values, which no model computes with")


def check_weights(config: EncoderConfig, weights: dict[str, np.ndarray]) -> None:
    """Raise ValueError unless an encoder's weights, ours, have the sizes that its configuration states, and all are finite.

    A model is only built, and its memory only taken, after this: a configuration may come from anybody.
    """
    for entry in table(config, ()):
        if (found := _pick(weights, entry.ours).shape) != entry.shape:
            raise ValueError(
                f"the tensor {entry.ours} has the shape {list(found)}, and its configuration asks for {list(entry.shape)}"
            )
    layers = {name.split("/")[1] for name in weights if name.startswith("encoder/layer_")}
    if len(layers) != config.num_hidden_layers:
        raise ValueError(f"it has {len(layers)} layers, and its configuration asks for {config.num_hidden_layers}")
    for name, value in weights.items():
        check_finite(name, value)


def _convert(tensors: dict[str, np.ndarray], config: EncoderConfig, kind: str, passed_over: tuple[str, ...]) -> Converted:
    """Tensors under canonical names. Raises ValueError, naming the tensor, for one that is missing, unexpected or misshapen."""
    entries = table(config)
    names = {getattr(entry, kind): entry for entry in entries}
    there = {names[name].part for name in tensors if name in names}
    if "next_sentence" in there:
        there.add("pooler")  # it reads the pooled output
    if unexpected := sorted(tensors.keys() - names.keys()):
        more = f" (and {len(unexpected) - 1} more)" if len(unexpected) > 1 else ""
        raise ValueError(f"the tensor {unexpected[0]}{more} has no place in a BERT encoder of these sizes")
    kept = [(getattr(entry, kind), entry) for entry in entries if entry.part in {*there, "encoder"}]
    for name, entry in kept:  # all shapes before any value is read
        found, shape = tuple(_pick(tensors, name).shape), entry.shape[::-1] if kind in entry.turned else entry.shape
        if found != shape:
            raise ValueError(f"the tensor {name} has the shape {list(found)}, and its configuration asks for {list(shape)}")
    weights = {}
    for name, entry in kept:
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused
            weights[entry.ours] = np.ascontiguousarray(_laid_out(entry, np.asarray(tensors[name]), kind), np.float32)
        check_finite(name, weights[entry.ours])
    return Converted(weights, tuple(part for part in PARTS if part in there), passed_over)


def _hf_name(name: str) -> str:
    """The name that transformers gives the tensor today: with the prefix, and LayerNorm's weight and bias."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        name = name.replace(old, new)
    return _HF_BASE + name if name.startswith(("embeddings.", "encoder.", "pooler.")) else name


def from_hf(tensors: dict[str, np.ndarray], config: EncoderConfig) -> Converted:
    """Our weights from those of a Hugging Face folder, whatever heads it has and however old its names are.

    The prefix "bert." may lack; a decoder that repeats the word embeddings and the bias is skipped, as are all heads that
    aren't BERT's own.

    Args:
        tensors: arrays, or what has a `shape` and becomes an array by np.asarray, so that only what is kept is read.

    Raises ValueError, naming the tensor, for what doesn't fit, and for a decoder of its own.
    """
    found: dict[str, Any] = {}
    for name, value in tensors.items():
        if _hf_name(name) in found:
            raise ValueError(f"the tensor {name} is there twice, with and without an older name")
        found[_hf_name(name)] = value
    decoder, bias = found.pop("cls.predictions.decoder.weight", None), found.pop("cls.predictions.decoder.bias", None)
    if bias is not None and not np.array_equal(bias, found.setdefault("cls.predictions.bias", bias)):
        raise ValueError("the tensor cls.predictions.decoder.bias differs from cls.predictions.bias, and BERT has one of them")
    if decoder is not None and not np.array_equal(decoder, found.get("bert.embeddings.word_embeddings.weight")):
        raise ValueError("the tensor cls.predictions.decoder.weight is not the word embeddings, and BERT's are tied")
    heads = sorted(name for name in found if not name.startswith(_HF_ENCODER))
    dropped = {*heads, *(_HF_BASE + name for name in _HF_PASSED)}
    return _convert({name: value for name, value in found.items() if name not in dropped}, config, "hf", tuple(heads))


def tf1_wanted(config: EncoderConfig) -> Callable[[str], bool]:
    """Return whether a checkpoint's variable is the encoder's, by name: not an optimizer's, a counter or another head.

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
    """Our weights from the variables of a google-research/bert checkpoint.

    Args:
        names: of all its variables, where `tensors` are only some of them (those that are `tf1_wanted`).

    Raises ValueError, naming the tensor.
    """
    wanted, others = tf1_wanted(config), {*names, *tensors} - {*_TF1_COUNTERS}
    heads = {name for name in others if not name.startswith(_TF1_ENCODER)}
    heads = {name for name in heads if name.rsplit("/", 1)[0] not in heads - {name}}  # without their slots
    return _convert({name: value for name, value in tensors.items() if wanted(name)}, config, "tf1", tuple(sorted(heads)))


_SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
    "type_vocab_size",
)  # fmt: skip
_RATES = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02, "layer_norm_eps": 1e-12}
_HF_ACTIVATIONS = {
    "gelu": "gelu_erf", "gelu_python": "gelu_erf",
    "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_python_tanh": "gelu_tanh",
    "relu": "relu",
}  # fmt: skip
_TF1_ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu"}  # the reference's gelu is the tanh form
TO_HF_ACTIVATIONS = {"gelu_erf": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}


def _sized(values: dict[str, Any], activations: dict[str, str], **more: Any) -> EncoderConfig:
    sizes = {}
    for name in _SIZES:
        sizes[name] = values.get(name)
        if not isinstance(sizes[name], int) or isinstance(sizes[name], bool) or sizes[name] < 1:
            raise ValueError(f"{name} is {sizes[name]!r}, and a BERT encoder has a whole number there")
    rates = {name: values.get(name, default) for name, default in _RATES.items()}
    for name, rate in rates.items():
        if not isinstance(rate, int | float) or isinstance(rate, bool):
            raise ValueError(f"{name} is {rate!r}, and a BERT encoder has a number there")
    act = values.get("hidden_act")
    if not isinstance(act, str) or act not in activations:
        raise ValueError(f"hidden_act {act!r} is none that clozemill knows ({', '.join(activations)})")
    return EncoderConfig(**sizes, **rates, hidden_act=activations[act], **more)


def config_from_hf(values: dict[str, Any]) -> EncoderConfig:
    """An encoder's configuration from a Hugging Face config.json. Raises ValueError for what isn't BERT-shaped.

    `is_decoder` means causal attention there.
    """
    if (kind := values.get("model_type", "bert")) != "bert":
        raise ValueError(f"its model_type is {kind!r}, and only 'bert' is BERT-shaped")
    if (positions := values.get("position_embedding_type", "absolute")) != "absolute":
        raise ValueError(f"its position_embedding_type is {positions!r}, and BERT's positions are 'absolute'")
    if values.get("add_cross_attention"):
        raise ValueError("it has cross attention, which an encoder has not")
    if values.get("embedding_size", values.get("hidden_size")) != values.get("hidden_size"):
        raise ValueError("its embedding_size differs from hidden_size, which BERT has not")
    return _sized(values, _HF_ACTIVATIONS, attention="causal" if values.get("is_decoder") else "bidirectional")


def config_to_hf(config: EncoderConfig) -> dict[str, Any]:
    """The part of config.json that describes the encoder."""
    own = {name: getattr(config, name) for name in (*_SIZES, *_RATES)}
    causal = {"is_decoder": True} if config.attention == "causal" else {}
    return {"model_type": "bert", **own, "hidden_act": TO_HF_ACTIVATIONS[config.hidden_act], **causal}


def config_from_tf1(values: dict[str, Any]) -> EncoderConfig:
    """An encoder's configuration from google-research/bert's bert_config.json. Raises ValueError."""
    return _sized(values, _TF1_ACTIVATIONS)
