"""Write a self-contained SavedModel that takes raw text and can be fine-tuned with just TensorFlow and tensorflow-text.

A model whose tokenizer isn't WordPiece takes ids only: its tokenizer.json is a file beside the graph, in `assets.extra`.

The vocabulary is part of the graph, not an asset file, so the folder can be moved and its sources deleted. Texts are padded
to the longest of their batch, and truncated to `max_seq_length`.

    import tensorflow as tf, tensorflow_text
    encoder = tf.saved_model.load(folder)
    encoder.signatures["encode"](text=tf.constant(["A text."]), text_pair=tf.constant([""]))["pooled_output"]

Signatures; `text` and `text_pair` are string [B], the pair's "" for none:
    preprocess: text, text_pair -> input_ids, input_mask, segment_ids, int32 [B, S]
    encode: text, text_pair -> pooled_output [B, H], sequence_output [B, S, H], all_layers [B, 1 + layers, S, H], float32
    encode_tokens: input_ids, input_mask, segment_ids -> the same; serving_default: as encode, or as the task's
    (of a model that takes only ids: encode_tokens, or from the same ids `logits` or `sentence_embedding`; there are no others)
    mlm: text with a literal [MASK], text_pair -> as answers.fill_mask, the 5 likeliest tokens
    nsp: text, text_pair -> probabilities float32 [B, 2]: the pair's second follows the first; it doesn't
    classify, multilabel, regress, tags, spans, embed (of a model with such a task): as answers.ANSWERS
Methods of the object: `tokenize(text)` returns ragged ids without special tokens; `preprocess(text, text_pair, length)` pads to
a length, 0 for the longest; `fill_mask(text, text_pair, k)`. The object can be called with a dict of the three id tensors and
`training`, as the interface of reusable SavedModels requires (`variables`, `trainable_variables`, `regularization_losses`). A
pretrained model returns the encoder's outputs, with `all_layers` as a list; a fine-tuned one returns `logits`, and one of
contrast `sentence_embedding`.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from clozemill.model.conversion import savedmodel
from clozemill.model.conversion.tf_errors import as_os_errors
from clozemill.model.conversion.tokenizer_json import TOKENIZER
from clozemill.model.export import signatures as export_signatures
from clozemill.model.export.graph_tokenizer import TEXTS, TextOps
from clozemill.model.inputs import TOKENS

LIKELIEST = 5  # tokens returned by the signature `mlm`
_IDS = {name: tf.TensorSpec([None, None], tf.int32, name=name) for name in TOKENS}
_COUNT = tf.TensorSpec([], tf.int32)


class Exported(tf.__internal__.tracking.AutoTrackable):
    """The object to save: functions and variables as attributes."""


@contextlib.contextmanager
def _kept_activations(encoder: keras.Model) -> Iterator[None]:
    """Disable recomputation in the backward pass: a SavedModel can't store its gradient."""
    config = encoder.config
    encoder.config = replace(config, remat=False)
    try:
        yield
    finally:
        encoder.config = config


def _floats(outputs: Any) -> Any:
    return tf.nest.map_structure(lambda value: tf.cast(value, tf.float32), outputs)


def _encoded(source, inputs: dict[str, tf.Tensor], training: bool = False) -> dict[str, Any]:
    """Return the encoder's outputs, without `pooled_output` if the import had no pooler."""
    found = _floats(dict(source.model.encoder(*(inputs[name] for name in TOKENS), training=training)))
    return found if source.has_pooler else {name: value for name, value in found.items() if name != "pooled_output"}


def _logits(source, inputs: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
    found = _floats(source.model(inputs, training=training))
    return {source.answer if name == "logits" else name: value for name, value in found.items()}


def _function(function: Callable, *specs: tf.TensorSpec) -> tf.types.experimental.PolymorphicFunction:
    return tf.function(function, input_signature=specs, autograph=False)


def _named(function: Callable, *names: str) -> tf.types.experimental.PolymorphicFunction:
    """Return a signature: a function of texts with these names."""
    return _function(function, *(tf.TensorSpec([None], tf.string, name=name) for name in names))


def _computations(source) -> Callable:
    """Return a getter of `_encoded` and `_logits` as functions of the ids, for any batch size and length.

    Each is traced once, and called by all others: tracing the encoder takes most of an export's time.
    """

    @cache
    def computation(compute: Callable, training: bool = False) -> tf.types.experimental.PolymorphicFunction:
        return _function(lambda inputs: compute(source, inputs, training), _IDS)

    return computation


def _call(infer: Callable, train: Callable) -> tf.types.experimental.PolymorphicFunction:
    """Return the object's `__call__`, for inference and training, with any batch size and length."""

    def call(inputs, training=False):
        return (train if training else infer)(inputs)

    function = tf.function(call, autograph=False)
    for training in (False, True):
        function.get_concrete_function(_IDS, training=training)
    return function


def _signatures(source, ops: TextOps | None, root: Exported, computation: Callable) -> dict[str, Callable]:
    """Return the signatures; without TextOps, only those of ids."""
    task = getattr(source.model, "task", None)
    encoded, logits = computation(_encoded), computation(_logits)

    def preprocess(text, text_pair):
        return root.preprocess(text, text_pair, tf.constant(0))

    def encode_tokens(input_ids, input_mask, segment_ids):
        inputs = {"input_ids": input_ids, "input_mask": input_mask, "segment_ids": segment_ids}
        found = encoded(inputs)
        return found | {"all_layers": tf.stack(found["all_layers"], axis=1)}

    def answer_tokens(input_ids, input_mask, segment_ids):
        return logits({"input_ids": input_ids, "input_mask": input_mask, "segment_ids": segment_ids})

    tokens = _function(encode_tokens, *_IDS.values())
    if ops is None:
        answers = tokens if task is None else _function(answer_tokens, *_IDS.values())
        return {"encode_tokens": tokens, "serving_default": answers}

    def encode(text, text_pair):
        return encode_tokens(**preprocess(text, text_pair))

    def mlm(text, text_pair):
        return root.fill_mask(text, text_pair, tf.constant(LIKELIEST))

    def nsp(text, text_pair):
        return {"probabilities": tf.nn.softmax(logits(preprocess(text, text_pair))["next_sentence_logits"])}

    pair = ("text", "text_pair")
    found = {name: _named(function, *pair) for name, function in (("preprocess", preprocess), ("encode", encode))}
    found["encode_tokens"] = tokens
    found["serving_default"] = found["encode"]
    if task is not None:
        answer, names = export_signatures.ANSWERS[task.kind]
        ask: Callable = partial(answer, lambda inputs: logits(inputs)[source.answer], ops, task)
        found[task.kind] = found["serving_default"] = _named(ask, *names)
    heads = _heads(source)
    return found | {name: _named(function, *pair) for name, function in (("mlm", mlm), ("nsp", nsp)) if name in heads}


def _heads(source) -> set[str]:
    """Return the trained pretraining heads."""
    there = {part for part in source.parts if getattr(source.model, part, None) is not None}
    if source.model.config.attention == "causal":  # it can't see to the right of a mask
        return set()
    if not source.model.config.pairs:
        there -= {"next_sentence"}  # this head would need a pair
    return {name for name, part in (("mlm", "masked_lm"), ("nsp", "next_sentence")) if part in there}


def _to_train(source) -> list[keras.Variable]:
    """Return the variables to fine-tune: those of the task, or the complete encoder including an untrained pooler."""
    if getattr(source.model, "task", None) is not None:
        return source.model.trainable_variables
    left_out = [] if source.has_pooler else source.model.encoder.pooler.weights
    return [one for one in source.model.encoder.weights if all(one is not other for other in left_out)]


def _text_ops(source, root: Exported) -> TextOps:
    """Return the operations on texts, and set the object's methods that take texts."""
    model = source.model
    ops = TextOps(tuple(source.vocabulary), source.cased, source.max_seq_length, source.rules, model.config.type_vocab_size)
    root.text_ops, root.tokenize = ops, ops.tokenize

    def preprocess(text, text_pair, length):
        return ops.pack(ops.tokenize(text), ops.tokenize(text_pair), length)

    root.preprocess = _function(preprocess, TEXTS, TEXTS, _COUNT)
    if "mlm" in _heads(source):
        root.fill_mask = _function(partial(export_signatures.fill_mask, model, ops), TEXTS, TEXTS, _COUNT)
    return ops


def build(source) -> tuple[Exported, dict[str, Callable]]:
    """Return the object that `write` saves, and its signatures. Raises ValueError for a vocabulary that TextOps rejects."""
    model, root = source.model, Exported()
    ops = None if source.tokenizer else _text_ops(source, root)
    task = getattr(model, "task", None)
    root.variables = [variable.value for variable in model.variables]  # including the state of dropout seeds
    root.trainable_variables = [variable.value for variable in _to_train(source)]
    root.regularization_losses = []
    root.max_seq_length = tf.constant(source.max_seq_length)
    computation, answer = _computations(source), _encoded if task is None else _logits
    root.__call__ = _call(computation(answer), computation(answer, True))
    return root, _signatures(source, ops, root, computation)


def write(source, folder: str) -> None:
    """Write a source (base.Source) as a SavedModel. Raises OSError; ValueError for a vocabulary that the graph can't represent.

    Its checkpoint.json, vocabulary and the variables' paths go into `assets.extra`, only for reading them back.
    """
    with _kept_activations(source.model.encoder), as_os_errors():
        root, signatures = build(source)
        tf.saved_model.save(root, folder, signatures=signatures)
    paths = [variable.path.split("/", 1)[1] for variable in source.model.variables]
    about = {"checkpoint": source.about, "vocabulary": source.vocabulary, "variables": paths}
    tf.io.gfile.makedirs(tf.io.gfile.join(folder, *savedmodel.ABOUT[:-1]))
    with as_os_errors(), tf.io.gfile.GFile(tf.io.gfile.join(folder, *savedmodel.ABOUT), "w") as file:
        file.write(json.dumps(about))
    if source.tokenizer:
        path = tf.io.gfile.join(folder, savedmodel.EXTRA, TOKENIZER)
        with as_os_errors(), tf.io.gfile.GFile(path, "wb") as file:
            file.write(source.tokenizer)


def outputs(folder: str, texts: list[tuple[str, str]], features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the SavedModel's outputs for raw texts, each with a second text or "": it computes its own features if it can.

    Returns `sequence_output` [B, S, H], padded to the longest text, `pooled_output` [B, H], and a fine-tuned model's `logits`
    or `sentence_embedding`. Raises OSError.
    """
    with as_os_errors():
        loaded = tf.saved_model.load(folder)
    first, second = (tf.constant([pair[side] for pair in texts], tf.string) for side in (0, 1))
    if "preprocess" in loaded.signatures:
        inputs = loaded.signatures["preprocess"](text=first, text_pair=second)
    else:
        inputs = {name: tf.constant(features[name]) for name in TOKENS}
    encoded = loaded.signatures["encode_tokens"](**inputs)
    found = {name: encoded[name] for name in ("sequence_output", "pooled_output") if name in encoded}
    called = loaded({name: inputs[name] for name in TOKENS})
    found |= {name: called[name] for name in ("logits", "sentence_embedding") if name in called}
    return {name: value.numpy() for name, value in found.items()}
