"""`pretrain --init`: starts a run from the weights of another checkpoint.

The digest of the weights is part of the run's identity, not their path. A resumed run doesn't read them again.
"""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from clozemill.model.config import PRESETS, EncoderConfig, preset
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset.layout import VOCAB
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.common import storage
from clozemill.trainers.data import prepared_dataset
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.engines import train_state
from clozemill.trainers.pretraining import grown_vocabulary
from clozemill.trainers.pretraining.config import AUTO, PretrainConfig
from clozemill.trainers.pretraining.recipes import RECIPES
from clozemill.trainers.training import pretrained
from clozemill.trainers.training.pretrained import digest

_FLAGS = {"type_vocab_size": "segment-embeddings"}


@dataclass(frozen=True)
class WarmStart:
    """The initial weights of a run. weights: by path within the model; None if a resumed run doesn't need them.

    data: descriptions of the data that they were trained on.
    """

    path: str
    digest: str
    encoder: EncoderConfig
    vocabulary: dict[str, Any]
    trained_length: int
    weights: dict[str, np.ndarray] | None = field(default=None, repr=False, compare=False)
    vocabulary_bytes: bytes = field(default=b"", repr=False, compare=False)  # with the weights
    data: tuple[dict[str, Any], ...] = ()


def _read(path: str) -> WarmStart:
    begun = pretrained.read(path)
    vocabulary = begun.index["vocabulary"]
    own = digest(begun.weights), begun.encoder, vocabulary, begun.trained_length, begun.weights, begun.vocabulary_bytes
    return WarmStart(path, *own, tuple(begun.data))


def find(config: PretrainConfig, run_json: str) -> WarmStart | None:
    """Return the weights that `--init` names, None without it.

    run_json: path of the run.json of the run, or of that which it branches from, if any: if that run was started with the same
    --init, it isn't read again. Raises UserError.
    """
    if not config.init:
        return None
    if storage.exists(run_json) and (config.branch_from or not config.overwrite):
        try:
            told = json.loads(storage.read(run_json, "give another --output"))
            if told["config"]["init"] == config.init:
                begun, length = EncoderConfig(**told["encoder"]), told.get("begun_length")
                length = length or begun.max_position_embeddings
                data = tuple(told.get("data") or ())  # with the run's own data, which is listed once anyway
                return WarmStart(config.init, told["identity"]["init"], begun, told["vocabulary"], length, data=data)
        except (ValueError, KeyError, TypeError):
            pass  # not a run's file: claiming the folder raises the error
    return _read(config.init)


def encoder(config: PretrainConfig, start: WarmStart | None, vocab_size: int) -> EncoderConfig:
    """Return a run's encoder, with the sizes of `--init` or the preset. Raises UserError if the two contradict."""
    own: dict[str, Any] = {
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "initializer_range": config.initializer_range,
        "attention": config.resolved_attention(),
        "remat": config.remat,
    }
    free: dict[str, Any] = {"max_position_embeddings": config.max_position_embeddings}
    free |= {} if config.hidden_act == AUTO else {"hidden_act": config.hidden_act}
    free |= {"type_vocab_size": 2} if config.segment_embeddings else {}
    if start is None:
        return preset(config.preset, vocab_size=vocab_size, **own, **free)
    given = PRESETS[config.preset] if config.preset else {}
    sizes = {name: value for name, value in given.items() if name not in own}
    fields = type(config).__dataclass_fields__
    free = {
        name: value for name, value in free.items() if name not in fields or value != fields[name].default
    }  # the given ones
    for name, value in {**sizes, **free}.items():
        if (have := getattr(start.encoder, name)) != value:
            flag = "preset" if name in sizes else _FLAGS.get(name, name.replace("_", "-"))
            given = getattr(config, option := flag.replace("-", "_"))
            asks, advice = f"--{flag} {given}", f"leave --{flag} out"
            if config.recipe and RECIPES[config.recipe].options.get(option) == given:
                asks, advice = f"{asks} of --recipe {config.recipe}", f"give --{flag} {'auto' if name in sizes else have}"
            raise UserError(f"{asks} asks for {name} {value}, but {start.path} has {have}: {advice}")
    return replace(start.encoder, **own, vocab_size=vocab_size)


def check_vocabulary(start: WarmStart, dataset: PreparedDataset) -> None:
    """Raise UserError unless a dataset has the vocabulary of `--init`, or one that extends it.

    A resumed run doesn't read `--init` again: then its vocabulary is that of the run.
    """
    mine, theirs = dataset.vocabulary, start.vocabulary
    if start.vocabulary_bytes and mine["sha256"] != theirs["sha256"]:
        prepared_dataset.check_vocabulary(dataset, {**theirs, "size": mine["size"], "sha256": mine["sha256"]}, start.path)
        old, new = (
            Vocabulary.from_bytes(data, f"{name}'s vocabulary")
            for data, name in ((start.vocabulary_bytes, start.path), (dataset.read_vocabulary(), dataset.folder))
        )
        grown_vocabulary.check_extension(old, new, start.path, dataset.folder)
    else:
        prepared_dataset.check_vocabulary(dataset, theirs, start.path)


def with_weights(start: WarmStart) -> WarmStart:
    """Return the weights of `--init`, read again if the run was started before. Raises UserError if they have changed."""
    if start.weights is not None:
        return start
    again = _read(start.path)
    if again.digest != start.digest:
        raise UserError(f"{start.path} has changed since the run was started: restore its weights, or give another --output")
    return again


def fitting_weights(start: WarmStart, model: keras.Model, vocabulary: bytes) -> dict[str, np.ndarray]:
    """Return the weights of `--init` for the parts that a model has.

    vocabulary: the contents of the model's vocabulary, which may extend that of the weights.

    Raises UserError if they have changed since the run was started.
    """
    start = with_weights(start)
    weights = start.weights or {}
    old, new = (Vocabulary.from_bytes(data, VOCAB) for data in (start.vocabulary_bytes, vocabulary))
    if len(new) > len(old):
        weights = grown_vocabulary.grown_weights(weights, grown_vocabulary.old_pieces(old, new))
    parts = {variable.path.split("/")[1] for variable in model.weights}
    return {name: value for name, value in weights.items() if name.split("/")[0] in parts}


def load(start: WarmStart, model: keras.Model, vocabulary: bytes) -> list[str]:
    """Assign the weights of `--init` to a model; return notes for the user. Call it within the strategy's scope.

    vocabulary: as in `fitting_weights`.

    Raises UserError if the weights don't fit, or have changed since the run was started.
    """
    start = with_weights(start)
    weights = fitting_weights(start, model, vocabulary)
    try:
        absent = train_state.assign(model, weights, train_state.HEADS)
    except ValueError as error:
        raise UserError(f"{start.path}: {error}: give another checkpoint as --init") from None
    told = [f"started from the weights of {start.path}"]
    added = len(Vocabulary.from_bytes(vocabulary, VOCAB)) - len(Vocabulary.from_bytes(start.vocabulary_bytes, VOCAB))
    if added:
        told.append(f"{added:,} new entries in the vocabulary: each starts from the mean of its old pieces")
    if missing := dict.fromkeys("pooler" if "/pooler/" in name else name.split("/")[0] for name in absent):
        told.append(f"no {', no '.join(missing)} in it: started from random weights")
    have = {name.split("/")[0] for name in weights}
    if unused := dict.fromkeys(part for name in start.weights or () if (part := name.split("/")[0]) not in have):
        told.append(f"not used by the objective: {', '.join(unused)}")
    return told
