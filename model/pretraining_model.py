"""Pretraining objectives, their inputs and targets, and the model with its heads.

B batch, S sequence length, P predictions, H hidden size, V vocabulary.
"""

from dataclasses import dataclass

import keras
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.encoder import Encoder
from clozemill.model.heads import MaskedLMHead, NextSentenceHead
from clozemill.model.inputs import TOKENS
from clozemill.model.losses import sums


@dataclass(frozen=True)
class Objective:
    """A pretraining objective. `pairs`: pairs that the dataset must have, "" for any; `next_sentence`: has that head."""

    pairs: str = ""
    next_sentence: bool = False
    causal: bool = False


OBJECTIVES = {
    "mlm+nsp": Objective(pairs="nsp", next_sentence=True),  # BERT
    "mlm+sop": Objective(pairs="sop", next_sentence=True),  # ALBERT's sentence order, with the same head
    "mlm": Objective(),  # BERT's ablation "No NSP", RoBERTa
    "causal": Objective(causal=True),  # BERT's ablation "LTR & No NSP"
}


def original_ids(features: dict):
    """Return the tokens before masking, int32 [B, S]: `masked_lm_ids` put back at `masked_lm_positions`."""
    input_ids = ops.cast(features["input_ids"], "int32")
    there_BPS = ops.one_hot(features["masked_lm_positions"], input_ids.shape[1], dtype="int32")
    there_BPS = there_BPS * ops.cast(features["masked_lm_weights"], "int32")[:, :, None]
    words_BS = ops.sum(there_BPS * ops.cast(features["masked_lm_ids"], "int32")[:, :, None], axis=1)
    return ops.where(ops.sum(there_BPS, axis=1) > 0, words_BS, input_ids)


def prepare(features: dict, objective: Objective) -> tuple[dict, dict]:
    """Return the inputs and targets of the model for a batch of examples from the shards.

    Args:
        features: the seven features of schema.FEATURES, [B, S], [B, P], and [B] or [B, 1] for the label; optionally
            `example_weights` [B], 0 for a filler example.

    Returns (inputs, targets). For "causal" the masked tokens are restored, and every position predicts the next one: a target's
    weight is 1 if it is a token, so that objectives can be compared on the same data.
    """
    inputs = {name: features[name] for name in TOKENS}
    size = ops.shape(inputs["input_ids"])[0]
    weights_B = ops.cast(features.get("example_weights", ops.ones((size,))), "float32")
    targets = {
        "next_sentence_labels": ops.reshape(features["next_sentence_labels"], (-1,)),
        "example_weights": weights_B,
    }
    if objective.causal:
        ids_BS = original_ids(features)
        inputs["input_ids"] = ids_BS
        # The last position has no next token; it is kept with weight 0, so that the length stays a round number.
        targets["masked_lm_ids"] = ops.pad(ids_BS[:, 1:], ((0, 0), (0, 1)))
        next_BS = ops.pad(inputs["input_mask"][:, 1:], ((0, 0), (0, 1)))
        targets["masked_lm_weights"] = ops.cast(next_BS, "float32") * weights_B[:, None]
    else:
        inputs["masked_lm_positions"] = features["masked_lm_positions"]
        targets["masked_lm_ids"] = features["masked_lm_ids"]
        targets["masked_lm_weights"] = ops.cast(features["masked_lm_weights"], "float32") * weights_B[:, None]
    return inputs, targets


class PretrainingModel(keras.Model):
    """The encoder with the heads of an objective.

    Arguments:
        config: an EncoderConfig. objective: a name of OBJECTIVES. dtype: a Keras dtype policy.

    Call arguments:
        inputs: a dict, as returned by `prepare`. training, seed: as in Encoder.

    Returns a dict: `masked_lm_logits` float32 [B, P, V] ([B, S, V] for "causal") and, if the objective has it,
    `next_sentence_logits` float32 [B, 2]. Raises KeyError for an unknown objective, and ValueError for "causal" with
    bidirectional attention.
    """

    def __init__(self, config: EncoderConfig, objective: str = "mlm+nsp", name: str = "pretraining", **kwargs) -> None:
        super().__init__(name=name, **kwargs)
        self.config, self.objective = config, OBJECTIVES[objective]
        if self.objective.causal and config.attention != "causal":
            raise ValueError("the objective causal needs causal attention: with bidirectional it would see the answers")
        options = {"dtype": self.dtype_policy}
        self.encoder = Encoder(config, **options)
        self.masked_lm = MaskedLMHead(config, **options)
        self.next_sentence = NextSentenceHead(config, **options) if self.objective.next_sentence else None
        # Without the head, the pooler has no gradient, and weight decay must not shrink it.
        self.encoder.pooler.trainable = self.objective.next_sentence

    def build(self, input_shape=None) -> None:
        parts: tuple[Encoder | MaskedLMHead | NextSentenceHead | None, ...] = (self.encoder, self.masked_lm, self.next_sentence)
        for layer in parts:
            if layer is not None:
                layer.build()
        self.built = True

    def call(self, inputs, training=False, seed=None):
        positions, first = inputs.get("masked_lm_positions"), 0
        if positions is not None and self.objective.next_sentence:
            first = 1  # [CLS], for the pooler, before the masked positions
            positions = ops.pad(positions, ((0, 0), (1, 0)))
        tokens = [inputs[name] for name in TOKENS]
        encoded = self.encoder(*tokens, positions=positions, training=training, seed=seed)
        words_VH = self.encoder.embeddings.word_embeddings
        outputs = {"masked_lm_logits": self.masked_lm(encoded["sequence_output"][:, first:], words_VH)}
        if self.next_sentence is not None:
            outputs["next_sentence_logits"] = self.next_sentence(encoded["pooled_output"])
        return outputs

    # The interface for the trainer: inputs and targets of a batch, divisors of its losses, and its losses.

    def prepare(self, batch: dict) -> tuple[dict, dict]:
        """Return (inputs, targets) of a batch."""
        return prepare(batch, self.objective)

    def weights_of(self, targets: dict) -> dict:
        """Return the divisor of a batch's sum by loss, as scalars."""
        return {"masked_lm": ops.sum(targets["masked_lm_weights"]), "next_sentence": ops.sum(targets["example_weights"])}

    def sums_of(self, outputs: dict, targets: dict) -> dict:
        """Return losses.SUMS of a batch."""
        return sums(outputs, targets)


class EncoderModel(keras.Model):
    """An encoder without heads, with the weight names of PretrainingModel.

    Call arguments: as in PretrainingModel, without positions. Returns the outputs of the encoder.
    """

    def __init__(self, config: EncoderConfig, name: str = "pretraining", **kwargs) -> None:
        super().__init__(name=name, **kwargs)
        self.config = config
        self.encoder = Encoder(config, dtype=self.dtype_policy)

    def build(self, input_shape=None) -> None:
        self.encoder.build()
        self.built = True

    def call(self, inputs, training=False, seed=None):
        return self.encoder(*(inputs[name] for name in TOKENS), training=training, seed=seed)
