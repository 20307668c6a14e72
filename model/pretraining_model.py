"""Pretraining objectives, their inputs and targets, and the model with its heads.

B batch, S sequence length, P predictions, E packed examples per row, H hidden size, V vocabulary.
"""

from dataclasses import dataclass

import keras
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.encoder import Encoder
from clozemill.model.heads import MaskedLMHead, NextSentenceHead
from clozemill.model.inputs import PACKING, TOKENS
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
    """Return the inputs and targets of the model for a batch of records from the shards.

    Args:
        features: the features of a dataset, columns.FEATURES: [B, S], [B, P], and [B] or [B, 1] for the label; optionally
            `example_weights` [B], 0 for a filler example. Or those of a packed dataset, columns.PACKED_FEATURES: the labels and
            `example_weights` are [B, E].

    Returns (inputs, targets). For "causal" the masked tokens are restored, and every position predicts the next one: a target's
    weight is 1 if it is a token of the same example, so that objectives can be compared on the same data.
    """
    inputs = {name: features[name] for name in (*TOKENS, *PACKING) if name in features}
    size, packed = ops.shape(inputs["input_ids"])[0], "example_ids" in features
    weights = ops.cast(features.get("example_weights", ops.ones((size,))), "float32")
    labels = features["next_sentence_labels"]
    targets = {"next_sentence_labels": labels if packed else ops.reshape(labels, (-1,)), "example_weights": weights}
    examples_BS = inputs["example_ids" if packed else "input_mask"]  # a row that is not packed is example 1, then padding
    if objective.causal:
        ids_BS = original_ids(features)
        inputs["input_ids"] = ids_BS
        # The last position has no next token; it is kept with weight 0, so that the length stays a round number.
        targets["masked_lm_ids"] = ops.pad(ids_BS[:, 1:], ((0, 0), (0, 1)))
        asked_BX = ops.pad(examples_BS[:, 1:], ((0, 0), (0, 1))) == examples_BS
    else:
        inputs["masked_lm_positions"] = features["masked_lm_positions"]
        targets["masked_lm_ids"] = features["masked_lm_ids"]
        asked_BX = features["masked_lm_weights"]
        examples_BS = ops.take_along_axis(examples_BS, ops.cast(features["masked_lm_positions"], "int32"), axis=1)
    weights_BX = _weights_at(ops.reshape(weights, (size, -1)), examples_BS)
    targets["masked_lm_weights"] = ops.cast(asked_BX, "float32") * weights_BX
    return inputs, targets


def _weights_at(weights_BE, examples_BX):
    """Return the weight of the example that each position belongs to, float32 [B, X], 0 for padding (example 0)."""
    numbers_BX = ops.cast(examples_BX, "int32")
    return ops.take_along_axis(weights_BE, ops.maximum(numbers_BX - 1, 0), axis=1) * ops.cast(numbers_BX > 0, "float32")


class PretrainingModel(keras.Model):
    """The encoder with the heads of an objective.

    Arguments:
        config: an EncoderConfig. objective: a name of OBJECTIVES. dtype: a Keras dtype policy.

    Call arguments:
        inputs: a dict, as returned by `prepare`. training, seed: as in Encoder.

    Returns a dict: `masked_lm_logits` float32 [B, P, V] ([B, S, V] for "causal") and, if the objective has it,
    `next_sentence_logits` float32 [B, 2], or [B, E, 2] of packed examples. Raises KeyError for an unknown
    objective, and ValueError for "causal" with bidirectional attention.
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
        tokens, packing = [inputs[name] for name in TOKENS], {name: inputs.get(name) for name in PACKING}
        if positions is not None and self.objective.next_sentence:  # each [CLS], for the pooler, before the masked positions
            if (begins_BE := packing["cls_positions"]) is None:
                positions, first = ops.pad(positions, ((0, 0), (1, 0))), 1
            else:
                positions, first = ops.concatenate([begins_BE, positions], axis=1), ops.shape(begins_BE)[1]
        encoded = self.encoder(*tokens, positions=positions, training=training, seed=seed, **packing)
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
