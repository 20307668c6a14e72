"""Predicts the tokens at masked positions with a pretraining model.

B batch, P masked positions, V vocabulary, K most probable tokens.
"""

from typing import Any

import keras
from keras import ops

from clozemill.trainers.engines.batched_inference import BatchedInference
from clozemill.trainers.engines.engine import Engine

POSITIONS = "masked_lm_positions"


def masked_token_inference(engine: Engine, model: keras.Model, count: int, batch_size: int) -> BatchedInference:
    """Return the inference of the most probable tokens at `masked_lm_positions`, an int32 feature [N, P] beside the ids.

    Its outputs are `ids` int32 and `probabilities` float32, [N, P, count], the most probable token first. For the objective
    causal, a position predicts the token after it.
    """

    def best(batch: dict[str, Any]) -> dict[str, Any]:
        probs_BPV = ops.softmax(ops.cast(model(batch)["masked_lm_logits"], "float32"), axis=-1)
        probs_BPK, ids_BPK = ops.top_k(probs_BPV, count)
        return {"ids": ids_BPK, "probabilities": probs_BPK}

    return BatchedInference(engine, model, best, batch_size, extra=(POSITIONS,))
