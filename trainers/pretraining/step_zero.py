"""Bits per character before the first step of a run with an extended vocabulary, in the new entries and in the old ones.

Both are of the same masked characters of the eval split, with the same weights: the old figure reads and predicts old entries.

N examples, P masked positions, V entries.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from clozemill.model.inputs import TOKENS
from clozemill.pipelines.dataset.layout import VOCAB
from clozemill.pipelines.examples.columns import Columns
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.engines.batched_inference import BatchedInference
from clozemill.trainers.engines.engine import Engine
from clozemill.trainers.engines.masked_tokens import POSITIONS
from clozemill.trainers.pretraining.eval_columns import eval_columns, originals
from clozemill.trainers.pretraining.grown_vocabulary import old_pieces, with_old_pieces
from clozemill.trainers.pretraining.pretraining_phase import PretrainingPhase
from clozemill.trainers.pretraining.pretraining_run import PretrainingRun

_EXAMPLES = 512  # of the eval split; a forward pass over them costs as much as a few steps
_TARGETS = "masked_lm_ids"


def masked_nats(engine: Engine, model, columns: Columns, entries: int, batch_size: int = 32) -> np.ndarray:
    """Return the loss at each masked position in nats, float32 [N, P]; it means nothing where there is no mask.

    Args:
        engine: the devices.
        model: a PretrainingModel; for the objective causal, the token before a position predicts it.
        columns: the examples.
        entries: the number of entries that compete, the first ones of the vocabulary.
        batch_size: examples per batch.
    """

    def nats(batch: dict) -> Any:
        logits_BPV = ops.cast(model(batch)["masked_lm_logits"], "float32")[..., :entries]
        chosen_BP1 = ops.take_along_axis(logits_BPV, batch[_TARGETS][..., None], axis=-1)
        return ops.logsumexp(logits_BPV, axis=-1) - chosen_BP1[..., 0]

    inputs = {name: np.asarray(getattr(columns, name), np.int32) for name in (*TOKENS, POSITIONS, _TARGETS)}
    if model.objective.causal:
        inputs["input_ids"] = originals(columns).astype(np.int32)
        inputs[POSITIONS] = np.maximum(inputs[POSITIONS] - 1, 0)
    return BatchedInference(engine, model, nats, batch_size, extra=(POSITIONS, _TARGETS))(inputs)


def masked_characters(columns: Columns, tokens: Sequence[str]) -> int:
    """Return the number of characters of the masked tokens. tokens: by id; `##` doesn't count."""
    masked = columns.masked_lm_ids[columns.masked_lm_weights > 0]
    return sum(len(tokens[token].removeprefix("##")) for token in masked.tolist())


def bits_per_character(engine: Engine, model, phase: PretrainingPhase, old: Vocabulary) -> tuple[float, float] | None:
    """Return the bits per character in the new entries and in the old ones; None if no masked text is known to both.

    old: the vocabulary of the weights; that of the phase's dataset extends it.
    """
    new = Vocabulary.from_bytes(phase.dataset.read_vocabulary(), VOCAB)
    examples = eval_columns(phase.dataset, _EXAMPLES, new.pad_id)
    both = with_old_pieces(examples, old_pieces(old, new), old)
    characters = masked_characters(both[0], new.tokens)
    if not characters:
        return None
    bits = []
    for columns, vocabulary in zip(both, (new, old), strict=True):
        nats = masked_nats(engine, model, columns, len(vocabulary))
        bits.append(float(nats[columns.masked_lm_weights > 0].sum(dtype=np.float64)) / characters / math.log(2))
    return bits[0], bits[1]


def step_zero_lines(planned: PretrainingRun, old: bytes, engine: Engine, model) -> list[str]:
    """Return what to print before the first step: both figures; nothing without new entries or an eval split.

    With several workers, each computes only parts, so nothing is returned either.

    old: the contents of the vocabulary of --init.
    """
    phase, known = planned.phases[0], Vocabulary.from_bytes(old, VOCAB)
    same = len(known) == phase.dataset.vocabulary["size"]
    if same or not phase.dataset.eval_examples or engine.processes > 1:
        return []
    phase.set_up(model)
    with phase.reading():
        found = bits_per_character(engine, model, phase, known)
    if found is None:
        return []
    own, earlier = found
    return [f"before the first step: {own:.3f} bits per masked character, with the old vocabulary {earlier:.3f} on this text"]
