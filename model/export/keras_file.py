"""Write a Keras file that `keras.saving.load_model(path)` loads without clozemill, custom classes or Lambda layers.

The encoder is rebuilt as a functional model of stock layers and keras.ops, with dropout for fine-tuning. Inputs are a dict of
`input_ids`, `input_mask`, `segment_ids`, int32 [B, S]; outputs are a dict, see `functional`.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from clozemill.model import sentence_vectors
from clozemill.model.attention import rotated, rotation
from clozemill.model.conversion.tokenizer_json import TOKENIZER
from clozemill.model.export.base import Source
from clozemill.model.inputs import TOKENS
from clozemill.model.layers import activation
from clozemill.model.pretraining_model import PretrainingModel
from clozemill.model.task_model import BiLSTMHead

NAME = "model.keras"


class _Builder:
    """Creates stock layers with our names and the source's weights."""

    def __init__(self, source: Source) -> None:
        self.source, self.config = source, source.config
        self.weights = source.weights()
        self.pending: list[tuple[layers.Layer, list[np.ndarray]]] = []

    def add(self, layer: layers.Layer, *values: np.ndarray) -> layers.Layer:
        """Register the weights of a layer, to be assigned once it is built."""
        self.pending.append((layer, list(values)))
        return layer

    def assign(self) -> None:
        for layer, values in self.pending:
            layer.set_weights(values)

    def __call__(self, path: str, *names: str) -> list[np.ndarray]:
        """Return the weights of a path that the encoder has."""
        return [self.weights[f"{path}/{name}"] for name in names if f"{path}/{name}" in self.weights]

    def dense(self, path: str, name: str, **options) -> layers.Layer:
        values = self(path, "kernel", "bias")
        return self.add(layers.Dense(values[0].shape[1], use_bias=len(values) > 1, name=name, **options), *values)

    def norm(self, path: str, name: str) -> layers.Layer:
        values = self(path, "gamma", "beta")
        norm = layers.LayerNormalization(epsilon=self.config.layer_norm_eps, center=len(values) > 1, name=name)
        return self.add(norm, *values) if values else layers.Identity(name=name)

    def table(self, value: np.ndarray, name: str, kind=layers.Embedding) -> layers.Layer:
        return self.add(kind(*value.shape, name=name), value)

    def attention(self, path: str, name: str) -> layers.Layer:
        """Add an attention layer. Our kernels concatenate the heads in one matrix; Keras's have a separate axis for them."""
        config, values = self.config, []
        heads, size = config.num_attention_heads, config.head_size
        for part in ("query", "key", "value"):
            kernel, bias = self(f"{path}/{part}", "kernel", "bias")
            values += [kernel.reshape(-1, heads, size), bias.reshape(heads, size)]
        kernel, bias = self(f"{path}/output_dense", "kernel", "bias")
        layer = layers.MultiHeadAttention(heads, size, dropout=config.attention_probs_dropout_prob, name=name)
        return self.add(layer, *values, kernel.reshape(heads, size, -1), bias)

    def dropout(self, name: str) -> layers.Layer:
        return layers.Dropout(self.config.hidden_dropout_prob, name=name)


def _embedded(make: _Builder, ids, kinds) -> tuple:
    """Return (output of the embeddings, layer of the word embeddings)."""
    path = "encoder/embeddings"
    (words,) = make(path, "word_embeddings")
    word_layer = make.table(words, "word_embeddings", layers.ReversibleEmbedding)
    summed = [word_layer(ids)]
    for name, numbers in (("position_embeddings", positions(ids)), ("segment_embeddings", kinds)):
        summed += [make.table(table, name)(numbers) for table in make(path, name)]
    total = layers.Add(name="embeddings")(summed) if len(summed) > 1 else summed[0]
    normed = make.norm(f"{path}/layer_norm", "embeddings_layer_norm")(total)
    return make.dropout("embeddings_dropout")(normed), word_layer


def positions(ids):
    """Return 0, 1, 2, … for every row of ids, int32 [B, S]."""
    return ops.cumsum(ops.ones_like(ids), axis=1) - 1


def _attended(make: _Builder, index: int, hidden, ids, tokens):
    """Return the output of a layer's attention."""
    config, path, name = make.config, f"encoder/layer_{index}/attention", f"layer_{index}_attention"
    causal = config.attention == "causal"
    if not config.design.rotary:
        mask = ops.expand_dims(tokens, 1)
        return make.attention(path, name)(hidden, hidden, attention_mask=mask, use_causal_mask=causal)
    shape, window, places = (-1, config.num_attention_heads, config.head_size), config.window(index), positions(ids)
    query_BQND, key_BSND, value_BSND = (
        layers.Reshape(shape)(make.dense(f"{path}/{part}", f"{name}_{part}")(hidden)) for part in ("query", "key", "value")
    )
    angles = rotation(places, config.local_rope_theta if window else config.global_rope_theta, config.head_size)
    query_BQND, key_BSND = rotated(query_BQND, angles) * config.head_size**-0.5, rotated(key_BSND, angles)
    away = places[:, None, :, None] - places[:, None, None, :]
    seen = tokens[:, None, None, :]
    seen = ops.logical_and(seen, ops.abs(away) <= window) if window else seen
    seen = ops.logical_and(seen, away >= 0) if causal else seen
    scores_BNQS = ops.matmul(ops.transpose(query_BQND, (0, 2, 1, 3)), ops.transpose(key_BSND, (0, 2, 3, 1)))
    probs_BNQS = ops.softmax(scores_BNQS + ops.where(seen, 0.0, -1e9))
    probs_BNQS = layers.Dropout(config.attention_probs_dropout_prob, name=f"{name}_probabilities")(probs_BNQS)
    mixed_BNQD = ops.matmul(probs_BNQS, ops.transpose(value_BSND, (0, 2, 1, 3)))
    mixed = layers.Reshape((-1, config.hidden_size))(ops.transpose(mixed_BNQD, (0, 2, 1, 3)))
    return make.dense(f"{path}/output_dense", f"{name}_output")(mixed)


def _block(make: _Builder, index: int, hidden, ids, tokens):
    config, path, name = make.config, f"encoder/layer_{index}", f"layer_{index}"
    norms = [make.norm(f"{path}/{part}_layer_norm", f"{name}_{part}_layer_norm") for part in ("attention", "output")]
    before, after = [_unchanged] * 2, norms
    if config.design.pre_norm:
        before, after = after, before
    mixed = _attended(make, index, before[0](hidden), ids, tokens)
    hidden = after[0](hidden + make.dropout(f"{name}_attention_dropout")(mixed))
    seen = before[1](hidden)
    inner = activation(config.hidden_act)(make.dense(f"{path}/intermediate", f"{name}_intermediate")(seen))
    if config.design.gated:
        inner = inner * make.dense(f"{path}/gate", f"{name}_gate")(seen)
    outer = make.dropout(f"{name}_output_dropout")(make.dense(f"{path}/output", f"{name}_output")(inner))
    return after[1](hidden + outer)


def _unchanged(hidden):
    return hidden


def _transform(make: _Builder, path: str, name: str, hidden):
    """Return what layers.Transform computes."""
    hidden = activation(make.config.hidden_act)(make.dense(f"{path}/transform", f"{name}_transform")(hidden))
    return make.norm(f"{path}/layer_norm", f"{name}_layer_norm")(hidden)


def _pooled(make: _Builder, hidden):
    """Return the pooler's output for some positions."""
    if make.config.design.transforms_tokens:
        return _transform(make, "encoder/pooler", "pooler", hidden)
    return make.dense("encoder/pooler", "pooler", activation="tanh")(hidden)


def _pretraining_heads(make: _Builder, outputs: dict, word_layer, ids) -> dict:
    found, model = {}, make.source.model
    if getattr(model, "masked_lm", None) is not None:
        hidden = _transform(make, "masked_lm", "masked_lm", outputs["sequence_output"])
        # No stock layer has just a bias: an embedding of one row, looked up at 0, is trained the same way.
        bias = make.table(make.weights["masked_lm/output_bias"][None], "masked_lm_bias")(ops.zeros_like(ids[:, :1]))
        found["masked_lm_logits"] = word_layer(hidden, reverse=True) + bias
    if isinstance(model, PretrainingModel) and model.objective.next_sentence:
        found["next_sentence_logits"] = make.dense("next_sentence/dense", "next_sentence")(outputs["pooled_output"])
    return found


def _task_head(make: _Builder, pooled, every: list, mask):
    """Return the logits of a fine-tuned model, or its vectors. pooled: the pooler's output, [B, S, H] or [B, 1, H]."""
    model, task = make.source.model, make.source.task
    if model.pooled:
        hidden = pooled
    else:
        chosen = [every[index] for index in task.layers]
        hidden = chosen[0] if len(chosen) == 1 else layers.Concatenate(name="head_layers")(chosen)
    if model.pools:
        return sentence_vectors.normalised(sentence_vectors.pooled(hidden, mask, task.head))
    hidden = hidden if model.per_token else hidden[:, 0]
    if task.head == "bilstm":
        for index in range(BiLSTMHead.LAYERS):
            hidden = make.dropout(f"head_dropout_{index}")(hidden)
            lstm = layers.LSTM(model.head.units, return_sequences=True, name=f"head_lstm_{index}")
            values = [ops.convert_to_numpy(weight) for weight in model.head.lstms[index].weights]
            hidden = make.add(layers.Bidirectional(lstm, name=f"head_bilstm_{index}"), *values)(hidden, mask=mask)
    return make.dense("head/dense", "logits")(make.dropout("head_dropout")(hidden))


def functional(source: Source) -> keras.Model:
    """Return a source as a functional model of stock layers, with its weights.

    Its outputs: `sequence_output` [B, S, H] and, if the source has them, `pooled_output` [B, H], `masked_lm_logits` [B, S, V]
    and `next_sentence_logits` [B, 2], or a fine-tuned model's `logits` (of contrast: `sentence_embedding` [B, H]).
    """
    make = _Builder(source)
    ids, seen, kinds = inputs = [layers.Input((None,), dtype="int32", name=name) for name in TOKENS]
    tokens = ops.cast(seen, "bool")
    hidden, word_layer = _embedded(make, ids, kinds)
    every = [hidden]
    for index in range(source.config.num_hidden_layers):
        every.append(_block(make, index, every[-1], ids, tokens))
    if source.config.design.pre_norm:
        every[-1] = make.norm("encoder/final_layer_norm", "final_layer_norm")(every[-1])
    outputs = {"sequence_output": every[-1]}
    task = source.model if source.task is not None else None
    transformed = None
    if source.has_pooler:
        transformed = _pooled(make, every[-1] if task and task.pooled and task.per_token else every[-1][:, :1])
        outputs["pooled_output"] = transformed[:, 0]
    if task is None:
        outputs |= _pretraining_heads(make, outputs, word_layer, ids)
    else:
        outputs[source.answer] = _task_head(make, transformed, every, tokens)
    model = keras.Model(dict(zip(TOKENS, inputs, strict=True)), outputs, name=source.config.architecture)
    make.assign()
    return model


def write(source: Source, folder: str) -> None:
    """Write a source as model.keras, with its tokenizer.json if it isn't tokenized by WordPiece."""
    if source.tokenizer:
        (Path(folder) / TOKENIZER).write_bytes(source.tokenizer)
    model, before = functional(source), tempfile.tempdir
    with tempfile.TemporaryDirectory() as scratch:
        tempfile.tempdir = scratch  # Keras leaves a temporary folder behind if it can't write the file
        try:
            model.save(Path(folder) / NAME)
        finally:
            tempfile.tempdir = before


def outputs(folder: str, texts: list[tuple[str, str]], features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of the file."""
    model = keras.saving.load_model(Path(folder) / NAME, compile=False)
    found = model({name: ops.convert_to_tensor(features[name]) for name in TOKENS}, training=False)
    return {name: ops.convert_to_numpy(value) for name, value in found.items()}
