"""ModernBERT's weights and configuration (Warner et al. 2024) under the names of Hugging Face's `ModernBertModel`.

Hugging Face stores queries, keys and values in one matrix (Wqkv), as well as the inner layer and its gate (Wi). It has no
pooler and no next-sentence head; the transform before the heads of its classifiers has the names of that of its masked-LM head.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion.bert_names import HF_ACTIVATIONS, TO_HF_ACTIVATIONS, number, size, untied
from clozemill.model.conversion.weight_table import PARTS, Converted, Entry, convert

CLASS = "ModernBert"  # prefix of transformers' classes
HEADS = {"qa_outputs": "classifier"}  # names of its heads that differ from those in TASK_HEADS
DECODER, TRANSFORM = "decoder.weight", "head.dense.weight"
_BASE = "model."
_BARE = ("embeddings.", "layers.", "final_norm.")  # how names begin without the prefix
_OURS = (_BASE, "head.", "decoder.")  # any other tensor belongs to the head of a task
_COMPUTED = ("inv_freq",)  # ends of names of values that transformers computes


def _dense(ours: str, hf: str, sizes: tuple[int, int], part: str = "encoder", place: tuple[int, int] = (0, 1)) -> Entry:
    return Entry(f"{ours}/kernel", f"{hf}.weight", "", sizes, part, ("hf",), place)


def _norm(ours: str, hf: str, width: int, part: str = "encoder") -> Entry:
    return Entry(f"{ours}/gamma", f"{hf}.weight", "", (width,), part)


def _block(index: int, hidden: int, inner: int) -> list[Entry]:
    ours, hf = f"encoder/layer_{index}", f"{_BASE}layers.{index}"
    found, square = [], (hidden, hidden)
    for place, name in enumerate(("query", "key", "value")):
        found.append(_dense(f"{ours}/attention/{name}", f"{hf}.attn.Wqkv", square, place=(place, 3)))
    found.append(_dense(f"{ours}/attention/output_dense", f"{hf}.attn.Wo", square))
    if index:  # the embeddings are normalised already
        found.append(_norm(f"{ours}/attention_layer_norm", f"{hf}.attn_norm", hidden))
    for place, name in enumerate(("intermediate", "gate")):
        found.append(_dense(f"{ours}/{name}", f"{hf}.mlp.Wi", (hidden, inner), place=(place, 2)))
    found.append(_dense(f"{ours}/output", f"{hf}.mlp.Wo", (inner, hidden)))
    return [*found, _norm(f"{ours}/output_layer_norm", f"{hf}.mlp_norm", hidden)]


def _transform(ours: str, hidden: int, part: str) -> list[Entry]:
    dense = _dense(f"{ours}/transform", "head.dense", (hidden, hidden), part)
    return [dense, _norm(f"{ours}/layer_norm", "head.norm", hidden, part)]


def table(config: EncoderConfig, parts: Iterable[str] = PARTS, head: tuple[str, int, int] | None = None) -> list[Entry]:
    """Return the weights that Hugging Face has names for, see weight_names.table: the masked-LM head or else the pooler."""
    hidden, embeddings = config.hidden_size, f"{_BASE}embeddings"
    words = Entry("encoder/embeddings/word_embeddings", f"{embeddings}.tok_embeddings.weight", "", (config.vocab_size, hidden))
    found = [words, _norm("encoder/embeddings/layer_norm", f"{embeddings}.norm", hidden)]
    for index in range(config.num_hidden_layers):
        found += _block(index, hidden, config.intermediate_size)
    found.append(_norm("encoder/final_layer_norm", f"{_BASE}final_norm", hidden))
    if "masked_lm" in parts:
        found += _transform("masked_lm", hidden, "masked_lm")
        found.append(Entry("masked_lm/output_bias", "decoder.bias", "", (config.vocab_size,), "masked_lm"))
    elif "pooler" in parts:
        found += _transform("encoder/pooler", hidden, "pooler")
    if head:
        name, sizes = HEADS.get(head[0], head[0]), head[1:]
        found.append(_dense("head/dense", name, sizes, "head"))
        found.append(Entry("head/dense/bias", f"{name}.bias", "", sizes[1:], "head"))
    return found


def written(parts: tuple[str, ...], has_task: bool) -> tuple[str, ...]:
    """Return which of an encoder's parts transformers' classes have: the bare encoder has no pooler."""
    return parts if has_task else tuple(part for part in parts if part == "masked_lm")


def from_hf(tensors: Mapping[str, Any], config: EncoderConfig, head: tuple[str, int, int] | None = None) -> Converted:
    """Convert the weights of a Hugging Face folder; see weight_names.from_hf.

    The prefix "model." is optional. A decoder that repeats the word embeddings is skipped, and so are the heads of tasks but
    `head`: their transform becomes the pooler.
    """
    found: dict[str, Any] = {}
    for name, value in tensors.items():
        canonical = _BASE + name if name.startswith(_BARE) else name
        if canonical in found:
            raise ValueError(f"the tensor {name} is there twice, with and without the prefix {_BASE}")
        if not name.endswith(_COMPUTED):
            found[canonical] = value
    decoder, words = found.pop(DECODER, None), found.get(f"{_BASE}embeddings.tok_embeddings.weight")
    if decoder is not None and (words is None or not np.array_equal(decoder, words)):
        raise ValueError(untied(DECODER, CLASS))
    own = {entry.hf for entry in table(config, (), head) if entry.part == "head"}
    heads = sorted(name for name in found if not name.startswith(_OURS) and name not in own)
    parts = ("masked_lm",) if "decoder.bias" in found else ("pooler", "next_sentence")
    kept = {name: value for name, value in found.items() if name not in heads}
    return convert(kept, table(config, parts, head), "hf", tuple(heads), CLASS)


_SAME = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
    "local_attention",
)  # fmt: skip
_RATES = {  # ours -> (Hugging Face's, default)
    "attention_probs_dropout_prob": ("attention_dropout", 0.0),
    "hidden_dropout_prob": ("mlp_dropout", 0.0),
    "initializer_range": ("initializer_range", 0.02),
    "layer_norm_eps": ("norm_eps", 1e-5),
}
_FIXED = {"attention_bias": False, "mlp_bias": False, "norm_bias": False, "classifier_bias": False, "decoder_bias": True}
_THETAS = {"full_attention": ("global_rope_theta", 160_000.0), "sliding_attention": ("local_rope_theta", 10_000.0)}
_EVERY = "global_attn_every_n_layers"


def config_from_hf(values: dict[str, Any]) -> EncoderConfig:
    """Return the encoder configuration in a config.json of the model_type modernbert, old or new. Raises ValueError."""
    values = {"local_attention": 128, "max_position_embeddings": 8192, **values}
    sizes = {name: size(values, name, CLASS) for name in _SAME}
    for name, only in _FIXED.items():
        if values.get(name, only) is not only:
            raise ValueError(f"{name} is {values[name]!r}, and clozemill supports {str(only).lower()} there only")
    act = values.get("hidden_activation", "gelu")
    if act not in HF_ACTIVATIONS or values.get("classifier_activation", act) != act:
        raise ValueError(f"hidden_activation {act!r} is unknown to clozemill ({', '.join(HF_ACTIVATIONS)}), or not its heads'")
    fields: dict[str, Any] = {**sizes, **_thetas(values), _EVERY: _every(values, sizes["num_hidden_layers"])}
    fields |= {name: number(values, theirs, default, CLASS) for name, (theirs, default) in _RATES.items()}
    return EncoderConfig(**fields, architecture="modernbert", type_vocab_size=0, hidden_act=HF_ACTIVATIONS[act])


def _thetas(values: dict[str, Any]) -> dict[str, float]:
    """Return the bases of RoPE: from rope_parameters, else from the fields that older versions of transformers wrote."""
    told: Any = values.get("rope_parameters") or {}
    found: dict[str, float] = {}
    if values.get("rope_scaling") or not isinstance(told, dict):
        raise ValueError("its positions are scaled (rope_scaling), which clozemill doesn't support")
    for kind, (name, default) in _THETAS.items():
        own = told.get(kind) or {}
        if not isinstance(own, dict) or own.get("rope_type", "default") != "default":
            raise ValueError(f"rope_parameters of {kind} are {own!r}, and clozemill supports the rope_type default only")
        older = values.get(name, default)
        if older is None:  # transformers 4: local layers then have the base of the global ones
            older = found.get("global_rope_theta", default)
        theta = own.get("rope_theta", older)
        found[name] = float(number({name: theta}, name, default, CLASS))
    return found


def _every(values: dict[str, Any], layers: int) -> int:
    """Return the distance of the global layers."""
    kinds, told = values.get("layer_types"), size({_EVERY: 3, **values}, _EVERY, CLASS)
    if kinds is None:
        return told
    for every in (told, *range(1, layers + 1)):  # several may fit a few layers
        if kinds == [_kind(layer, every) for layer in range(layers)]:
            return every
    raise ValueError(
        "its layer_types are irregular: clozemill supports global attention in every n-th layer, from the first on"
    )


def _kind(layer: int, every: int) -> str:
    return "sliding_attention" if layer % every else "full_attention"


def config_to_hf(config: EncoderConfig) -> dict[str, Any]:
    """Return the part of config.json that describes the encoder. Raises ValueError for one that ModernBERT can't be."""
    if config.attention == "causal":
        raise ValueError("transformers' ModernBertModel has no causal attention: export to keras or savedmodel")
    if config.type_vocab_size:
        raise ValueError("transformers' ModernBertModel has no segment embeddings: export to keras or savedmodel")
    every = config.global_attn_every_n_layers
    ropes = {kind: {"rope_type": "default", "rope_theta": getattr(config, name)} for kind, (name, _) in _THETAS.items()}
    return {
        "model_type": "modernbert",
        **{name: getattr(config, name) for name in _SAME},
        **{theirs: getattr(config, name) for name, (theirs, _) in _RATES.items()},
        **_FIXED,
        "embedding_dropout": config.hidden_dropout_prob,
        "hidden_activation": TO_HF_ACTIVATIONS[config.hidden_act],
        "classifier_activation": TO_HF_ACTIVATIONS[config.hidden_act],
        "classifier_pooling": "cls",
        "layer_types": [_kind(layer, every) for layer in range(config.num_hidden_layers)],
        "rope_parameters": ropes,
        _EVERY: every,  # this and the next for transformers before version 5
        **{name: getattr(config, name) for name, _ in _THETAS.values()},
        "tie_word_embeddings": True,
    }
