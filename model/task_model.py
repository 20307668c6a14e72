"""Fine-tuning tasks and heads, and the model with an encoder and a task's head (Devlin et al. 2018).

B batch, S sequence length, H hidden size, L labels. To add a head, add a layer to HEADS; to add a task type, see
task_heads.py.
"""

from dataclasses import asdict, dataclass
from typing import Any

import keras
from keras import ops

from clozemill.model.config import POOLINGS, POSITIVES, TEMPERATURE, EncoderConfig
from clozemill.model.dropout import dropout, fold
from clozemill.model.encoder import Encoder
from clozemill.model.inputs import TOKENS
from clozemill.model.layers import initializer
from clozemill.model.losses import named
from clozemill.model.sentence_vectors import normalised, pooled
from clozemill.model.task_heads import TASK_HEADS
from clozemill.model.text_crops import cropped

MAX_QUESTION, MAX_ANSWER = 64, 30  # tokens, as in google-research/bert's run_squad.py


@dataclass(frozen=True)
class Task:
    """The task of a fine-tuned model.

    kind: task type, a key of TASK_HEADS. labels: names of the classes, in the order of the logits; empty if the type has none.
    head: a key of HEADS. layers: layers of `all_layers` that the head sees, concatenated. frozen: the encoder isn't trained.
    max_seq_length: tokens that texts are truncated to, including special ones. no_answer: spans: questions may have none.
    doc_stride: spans: stride between the windows of a long context, in tokens, at most half a window.
    threshold: multilabel: minimum probability to assign a label.
    max_answer: spans: maximum number of tokens in an answer. temperature: embed: divisor of the cosines in the loss.
    positives: embed: how the two copies of a text differ in training, by dropout alone or as random spans of it too.
    """

    kind: str
    labels: tuple[str, ...] = ()
    head: str = "linear"
    layers: tuple[int, ...] = (-1,)
    frozen: bool = False
    max_seq_length: int = 128
    no_answer: bool = False
    doc_stride: int = 128
    threshold: float = 0.5
    max_answer: int = MAX_ANSWER
    temperature: float = TEMPERATURE
    positives: str = POSITIVES[0]

    def __post_init__(self) -> None:
        if len(self.labels) < (fewest := TASK_HEADS[self.kind].labels):
            least = {1: "one label", 2: "two labels"}[fewest]
            raise ValueError(f"a task of type {self.kind} needs {least} or more, not {len(self.labels)}")
        if repeated := [label for label in self.labels if self.labels.count(label) > 1]:
            raise ValueError(f"the labels of a task must be distinct, but {repeated[0]} occurs twice")
        if self.head == "bilstm" and not TASK_HEADS[self.kind].per_token:
            raise ValueError(f"the head bilstm answers per token, but the task type {self.kind} once per text")
        if TASK_HEADS[self.kind].pools != (self.head in POOLINGS):
            raise ValueError(f"the head {self.head} doesn't suit the task type {self.kind}")
        if self.positives not in POSITIVES:
            raise ValueError(f"unknown positives {self.positives}")

    @property
    def outputs(self) -> int:
        """Return the number of logits per answer; 0 for the task type embed, which has as many as the encoder is wide."""
        return TASK_HEADS[self.kind].outputs or len(self.labels)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Task":
        """Return the task of `to_dict` values."""
        fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**fields)


class LinearHead(keras.layers.Layer):
    """Dropout and one dense layer.

    Call arguments: hidden, float [..., H']; input_mask: ignored; seed: int32 [2] or None.
    Returns logits, float32 [..., L].
    """

    def __init__(self, config: EncoderConfig, outputs: int, name: str = "head", **kwargs) -> None:
        super().__init__(name=name, **kwargs)
        self.rate = config.hidden_dropout_prob
        self.dense = keras.layers.Dense(outputs, kernel_initializer=initializer(config), name="dense", dtype=self.dtype_policy)

    def build(self, input_shape) -> None:
        self.dense.build(input_shape)
        self.built = True

    def call(self, hidden, input_mask, seed=None):
        return ops.cast(self.dense(dropout(hidden, self.rate, seed)), "float32")


class BiLSTMHead(keras.layers.Layer):
    """Two bidirectional LSTM layers, then a dense one: BERT's feature-based approach (section 5.3: 2 layers of 768 units).

    Call arguments: hidden_BSH, float [B, S, H']; input_mask [B, S]: padding is skipped; seed: int32 [2] or None.
    Returns logits, float32 [B, S, L].
    """

    LAYERS = 2

    def __init__(self, config: EncoderConfig, outputs: int, name: str = "head", **kwargs) -> None:
        super().__init__(name=name, **kwargs)
        options = {"dtype": self.dtype_policy}
        self.rate = config.hidden_dropout_prob
        self.units = config.hidden_size
        self.lstms = [
            keras.layers.Bidirectional(
                keras.layers.LSTM(self.units, return_sequences=True, name="lstm", **options), name=f"lstm_{index}", **options
            )
            for index in range(self.LAYERS)
        ]
        self.dense = keras.layers.Dense(outputs, kernel_initializer=initializer(config), name="dense", **options)

    def build(self, input_shape) -> None:
        for lstm in self.lstms:
            lstm.build(input_shape)
            input_shape = (*input_shape[:-1], 2 * self.units)
        self.dense.build(input_shape)
        self.built = True

    def call(self, hidden_BSH, input_mask, seed=None):
        mask_BS = ops.cast(input_mask, "bool")
        for index, lstm in enumerate(self.lstms):
            hidden_BSH = lstm(dropout(hidden_BSH, self.rate, fold(seed, index)), mask=mask_BS)
        return ops.cast(self.dense(dropout(hidden_BSH, self.rate, fold(seed, self.LAYERS))), "float32")


class MeanHead(keras.layers.Layer):
    """The mean over a text's tokens, as a vector of length 1. It has no weights.

    Call arguments: hidden_BSH, float [B, S, H']; input_mask [B, S]: padding is left out; seed: ignored.
    Returns float32 [B, H'].
    """

    POOLING = "mean"

    def __init__(self, config: EncoderConfig, outputs: int, name: str = "head", **kwargs) -> None:
        super().__init__(name=name, **kwargs)

    def build(self, input_shape) -> None:
        self.built = True

    def call(self, hidden_BSH, input_mask, seed=None):
        return normalised(pooled(hidden_BSH, input_mask, self.POOLING))


class ClsHead(MeanHead):
    """The output at [CLS], as a vector of length 1."""

    POOLING = "cls"


HEADS: dict[str, type[LinearHead] | type[BiLSTMHead] | type[MeanHead]] = {
    "linear": LinearHead,
    "bilstm": BiLSTMHead,
    "mean": MeanHead,
    "cls": ClsHead,
}
_SITE, _CROPS = 1000, 1010  # numbers of the head's draws, above all of the encoder's (dropout.SITES bounds all)


class TaskModel(keras.Model):
    """The encoder with a task's head.

    Arguments:
        config: an EncoderConfig. task: a Task. dtype: a Keras dtype policy.

    Call arguments:
        inputs: a dict of `input_ids`, `input_mask`, `segment_ids`, int [B, S]. training, seed: as in Encoder.

    Returns {"logits": float32}: [B, L] for classify, [B, 1] for regress, [B, S, L] for tags, [B, S, 2] for spans, and for
    embed the vectors, [B, H].

    A linear head that answers once per text sees the pooled output or, with `layers`, the position of [CLS] in these layers.
    If the encoder's design `transforms_tokens`, a head that answers per token sees all positions through the same pooler.
    """

    def __init__(self, config: EncoderConfig, task: Task, name: str = "finetuned", **kwargs) -> None:
        super().__init__(name=name, **kwargs)
        self.config, self.task = config, task
        options = {"dtype": self.dtype_policy}
        self.encoder = Encoder(config, **options)
        self.head = HEADS[task.head](config, task.outputs, **options)
        self.per_token = TASK_HEADS[task.kind].per_token
        self.pools = TASK_HEADS[task.kind].pools
        transformed = not self.per_token or config.design.transforms_tokens
        self.pooled = task.layers == (-1,) and transformed and not self.pools  # whether the head sees the pooler's output
        self.encoder.trainable = not task.frozen
        self.encoder.pooler.trainable = self.pooled and not task.frozen

    def build(self, input_shape=None) -> None:
        self.encoder.build()
        width = self.config.hidden_size * len(self.task.layers)
        self.head.build((None, None, width) if self.per_token or self.pools else (None, width))
        self.built = True

    def call(self, inputs, training=False, seed=None):
        seed = self.encoder.seeds.next() if training and seed is None else seed
        if self.task.positives == "crop" and seed is not None:
            inputs = cropped(inputs, fold(seed, _CROPS))
        tokens = [inputs[name] for name in TOKENS]
        encoded = self.encoder(*tokens, seed=None if self.task.frozen else seed)
        if self.pooled:
            hidden = self.encoder.pooler(encoded["sequence_output"]) if self.per_token else encoded["pooled_output"]
        else:
            hidden = ops.concatenate([encoded["all_layers"][index] for index in self.task.layers], axis=-1)
            hidden = hidden if self.per_token or self.pools else hidden[:, 0]
        return {"logits": self.head(hidden, inputs["input_mask"], seed=fold(seed, _SITE))}

    # The interface for the trainer.

    def prepare(self, batch: dict) -> tuple[dict, dict]:
        """Return (inputs, targets) of a batch: its three id tensors, and the rest; for spans the mask is also a target.

        For embed, the inputs have every row twice, [2B, S].
        """
        head = TASK_HEADS[self.task.kind]
        inputs = {name: batch[name] for name in TOKENS}
        if head.copies > 1:
            inputs = {name: ops.concatenate([value] * head.copies) for name, value in inputs.items()}
        seen = [name for name in TOKENS if name != "input_mask" or not head.sees_padding]
        return inputs, {name: value for name, value in batch.items() if name not in seen}

    def trains(self, path: str) -> bool:
        """Return whether training changes the variable of this path, if it is trainable: always."""
        return True

    def weights_of(self, targets: dict) -> dict:
        """Return the divisor of a batch's sum by loss, as scalars."""
        return {"task": ops.sum(ops.cast(targets["weights"], "float32"))}

    def sums_of(self, outputs: dict, targets: dict) -> dict:
        """Return losses.SUMS of a batch."""
        return sums(outputs["logits"], targets, self.task)


def sums(logits, targets: dict, task: Task) -> dict:
    """Return losses.SUMS of a batch's answers.

    Args:
        logits: output of TaskModel.
        targets: `weights` float, [B] or, for tags, [B, S]; `labels` int [B] or [B, S], for regress float [B]; for multilabel
            both float [B, 1, L], labels 0 or 1 (the axis of 1 can't be mistaken for the tokens); for spans
            `starts` and `ends`, int [B]: positions in the sequence, both 0 (that of [CLS]) if there is no answer, and
            `input_mask` [B, S]: padding can't be an answer and is excluded from the softmax; for embed, with two vectors per
            text as logits, `labels` int [B]: the numbers of the texts.
    """
    weights, head = ops.cast(targets["weights"], "float32"), TASK_HEADS[task.kind]
    settings = {name: getattr(task, name) for name in head.settings}
    return named({"task": head.loss(logits, targets, weights, **settings)})
