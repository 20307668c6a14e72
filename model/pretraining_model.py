"""Pretraining objectives, their inputs and targets, and the model with its heads.

B batch, S sequence length, P predictions, E packed examples per row, H hidden size, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from clozemill.model.config import GENERATOR_SIZE, EncoderConfig
from clozemill.model.encoder import Encoder
from clozemill.model.heads import MaskedLMHead, NextSentenceHead
from clozemill.model.inputs import PACKING, TOKENS
from clozemill.model.losses import sums
from clozemill.model.masking import original_ids
from clozemill.model.replaced_tokens import (
    Generator,
    ReplacedTokenHead,
    replaced,
    sample,
    sampling_keys,
)


@dataclass(frozen=True)
class Objective:
    """A pretraining objective. `pairs`: pairs that the dataset must have, "" for any; `next_sentence`: has that head.

    `replaced`: a generator fills in the masks, and the encoder tells its tokens from the original ones.
    """

    pairs: str = ""
    next_sentence: bool = False
    causal: bool = False
    replaced: bool = False

    def trains(self, path: str) -> bool:
        """Return whether it trains the variable of this path in a PretrainingModel."""
        _, part, *rest = path.split("/")
        heads = ("generator", "replaced_token") if self.replaced else ("masked_lm",)
        if part == "next_sentence" or (part == "encoder" and "pooler" in rest):
            return self.next_sentence
        return part in ("encoder", *heads)


OBJECTIVES = {
    "mlm+nsp": Objective(pairs="nsp", next_sentence=True),  # BERT
    "mlm+sop": Objective(pairs="sop", next_sentence=True),  # ALBERT's sentence order, with the same head
    "mlm": Objective(),  # BERT's ablation "No NSP", RoBERTa
    "causal": Objective(causal=True),  # BERT's ablation "LTR & No NSP"
    "rtd": Objective(replaced=True),  # ELECTRA's replaced-token detection
}


def prepare(features: dict, objective: Objective) -> tuple[dict, dict]:
    """Return the inputs and targets of the model for a batch of records from the shards.

    Args:
        features: the features of a dataset, columns.FEATURES: [B, S], [B, P], and [B] or [B, 1] for the label; optionally
            `example_weights` [B], 0 for a filler example. Or those of a packed dataset, columns.PACKED_FEATURES: the labels and
            `example_weights` are [B, E].

    Returns (inputs, targets). For "rtd" the inputs also have the original tokens, of which samples differ. For "causal" the
    masked tokens are restored, and every position predicts the next one: a target's weight is 1 if it is a token of the same
    example, so that objectives can be compared on the same data.
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
        if objective.replaced:
            inputs |= {"original_ids": original_ids(features), "masked_lm_weights": features["masked_lm_weights"]}
            targets["token_weights"] = _weights_at(ops.reshape(weights, (size, -1)), examples_BS)
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
        objectives: names of other objectives to have heads for; `switch_objective` changes to one of them.
        generator_size: width of the generator of "rtd", as a fraction of the encoder's.

    Call arguments:
        inputs: a dict, as returned by `prepare`. training, seed: as in Encoder.

    Returns a dict: `masked_lm_logits` float32 [B, P, V] ([B, S, V] for "causal", those of the generator for "rtd") and, if the
    objective has it, `next_sentence_logits` float32 [B, 2], or [B, E, 2] of packed examples; for "rtd" with `original_ids`,
    `replaced_logits` float32 and `replaced_labels` int32, [B, S]. Raises KeyError for an unknown objective, and ValueError for
    "causal" with bidirectional attention.
    """

    def __init__(
        self,
        config: EncoderConfig,
        objective: str = "mlm+nsp",
        objectives: Sequence[str] = (),
        generator_size: float = GENERATOR_SIZE,
        name: str = "pretraining",
        **kwargs,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.config, self.objective, self.causal = config, OBJECTIVES[objective], config.attention == "causal"
        if self.objective.causal and config.attention != "causal":
            raise ValueError("the objective causal needs causal attention: with bidirectional it would see the answers")
        options = {"dtype": self.dtype_policy}
        every = [OBJECTIVES[name] for name in (objective, *objectives)]
        pairs = any(one.next_sentence for one in every)
        self.encoder = Encoder(config, **options)
        self.masked_lm = MaskedLMHead(config, **options) if not all(one.replaced for one in every) else None
        self.next_sentence = NextSentenceHead(config, **options) if pairs else None
        self.generator: Any = None
        self.replaced_token: Any = None
        if any(one.replaced for one in every):
            self.generator = Generator(config, self.encoder.embeddings, generator_size, **options)
            self.replaced_token = ReplacedTokenHead(config, **options)
        # Without the head, the pooler has no gradient, and weight decay must not shrink it.
        self.encoder.pooler.trainable = pairs

    def switch_objective(self, objective: str, causal: bool | None = None) -> None:
        """Change what `prepare`, calls and losses are for. Functions that were traced before keep the old objective.

        causal: whether tokens attend to the left only (default: as the configuration and the objective say).
        """
        self.objective = OBJECTIVES[objective]
        self.causal = self.objective.causal or (self.config.attention == "causal" if causal is None else causal)

    def trains(self, path: str) -> bool:
        """Return whether the objective trains the variable of this path; a head of another one stays as it is."""
        return self.objective.trains(path)

    def build(self, input_shape=None) -> None:
        # The encoder comes first: the generator shares its embeddings.
        for layer in (self.encoder, self.masked_lm, self.next_sentence, self.generator, self.replaced_token):
            if layer is not None:
                layer.build()
        self.built = True

    def call(self, inputs, training=False, seed=None):
        if self.objective.replaced:
            return self._detect(inputs, training, seed)
        positions, first = inputs.get("masked_lm_positions"), 0
        tokens, packing = [inputs[name] for name in TOKENS], {name: inputs.get(name) for name in PACKING}
        if positions is not None and self.objective.next_sentence:  # each [CLS], for the pooler, before the masked positions
            if (begins_BE := packing["cls_positions"]) is None:
                positions, first = ops.pad(positions, ((0, 0), (1, 0))), 1
            else:
                positions, first = ops.concatenate([begins_BE, positions], axis=1), ops.shape(begins_BE)[1]
        encoded = self.encoder(*tokens, positions=positions, training=training, seed=seed, causal=self.causal, **packing)
        words_VH = self.encoder.embeddings.word_embeddings
        outputs = {"masked_lm_logits": self.masked_lm(encoded["sequence_output"][:, first:], words_VH)}
        if self.objective.next_sentence:
            outputs["next_sentence_logits"] = self.next_sentence(encoded["pooled_output"])
        return outputs

    def _detect(self, inputs, training, seed) -> dict:
        """Return the generator's logits and, given the original tokens, which of its samples the encoder detects."""
        ids, *others = (inputs[name] for name in TOKENS)
        packing = {"causal": self.causal, **{name: inputs.get(name) for name in PACKING}}
        seed = self.encoder.seeds.next() if training and seed is None else seed
        own = None if seed is None else ops.stack([seed[0], -1 - seed[1]])  # dropout draws others than in the encoder
        words_VH, positions = self.encoder.embeddings.word_embeddings, inputs["masked_lm_positions"]
        logits_BPV = self.generator(ids, *others, words_VH=words_VH, positions=positions, seed=own, **packing)
        outputs = {"masked_lm_logits": logits_BPV}
        if "original_ids" in inputs:
            samples_BP = sample(ops.stop_gradient(logits_BPV), sampling_keys(ids, seed))
            shown_BS, labels_BS = replaced(inputs["original_ids"], positions, inputs["masked_lm_weights"], samples_BP)
            encoded = self.encoder(shown_BS, *others, seed=seed, **packing)
            outputs |= {"replaced_logits": self.replaced_token(encoded["sequence_output"]), "replaced_labels": labels_BS}
        return outputs

    # The interface for the trainer: inputs and targets of a batch, divisors of its losses, and its losses.

    def prepare(self, batch: dict) -> tuple[dict, dict]:
        """Return (inputs, targets) of a batch."""
        return prepare(batch, self.objective)

    def weights_of(self, targets: dict) -> dict:
        """Return the divisor of a batch's sum by loss, as scalars."""
        if self.objective.replaced:
            return {"masked_lm": ops.sum(targets["masked_lm_weights"]), "replaced": ops.sum(targets["token_weights"])}
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
