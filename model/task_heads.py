"""Task types: how many logits each has, per text or per token, and their loss. To add a task type, add it to TASK_HEADS.

B batch, S sequence length, H hidden size, L labels. A loss takes (logits, targets, weights float32) of a batch, see
task_model.sums, and returns (sum of weighted losses, sum of weights, weighted hits), float32 scalars.
"""

from collections.abc import Callable
from dataclasses import dataclass

from keras import ops

from clozemill.model.losses import weighted, weighted_sigmoid
from clozemill.model.sentence_vectors import contrastive

_PADDING = -1e9  # a logit


def _cross_entropy(logits, targets: dict, weights) -> tuple:
    return weighted(logits, targets["labels"], weights)


def _sigmoids(logits, targets: dict, weights) -> tuple:
    return weighted_sigmoid(logits, ops.cast(targets["labels"], "float32")[:, 0], weights[:, 0])


def _squared_error(logits, targets: dict, weights) -> tuple:
    """Return the squared error. Hits are negative: there are none."""
    errors = ops.square(logits[:, 0] - ops.cast(targets["labels"], "float32"))
    return ops.sum(errors * weights), ops.sum(weights), -ops.sum(weights)


def _both_ends(logits, targets: dict, weights) -> tuple:
    """Return the mean of the cross entropies of both ends; hits count in halves."""
    logits = ops.where(ops.cast(targets["input_mask"], "bool")[:, :, None], logits, _PADDING)
    ends = (weighted(logits[:, :, end], targets[name], weights) for end, name in enumerate(("starts", "ends")))
    return tuple((first + last) / 2 for first, last in zip(*ends, strict=True))


def _contrast(vectors, targets: dict, weights, temperature: float) -> tuple:
    return contrastive(vectors, targets["labels"], weights, temperature)


@dataclass(frozen=True)
class TaskHead:
    """What the model knows of a task type.

    Args:
        loss: the loss of a batch, see above; it also gets the `settings` by name.
        transformers: transformers' class after "Bert" or "ModernBert", the name of BERT's head, and of its loss
            (`problem_type`, "" for none), which also decides how its pipelines convert logits.
        per_token: one answer per position instead of per text.
        labels: minimum number of labels, 0: the type has none.
        outputs: logits per answer, 0: one per label.
        sees_padding: the loss needs `input_mask`.
        settings: fields of the Task that the loss needs.
        copies: how often each row of a batch is encoded in training, with different dropout.
        pools: the head makes a vector from all positions, which are its logits, float32 [B, H].
    """

    loss: Callable[..., tuple]
    transformers: tuple[str, str, str]
    per_token: bool = False
    labels: int = 2
    outputs: int = 0
    sees_padding: bool = False
    settings: tuple[str, ...] = ()
    copies: int = 1
    pools: bool = False


_SEQUENCE = ("ForSequenceClassification", "classifier")
_TOKENS, _ANSWER = ("ForTokenClassification", "classifier", ""), ("ForQuestionAnswering", "qa_outputs", "")
TASK_HEADS = {
    # one label for a text, or for a pair of texts
    "classify": TaskHead(_cross_entropy, (*_SEQUENCE, "single_label_classification")),
    # any number of labels, or none: a logit and a sigmoid for each
    "multilabel": TaskHead(_sigmoids, (*_SEQUENCE, "multi_label_classification"), labels=1),
    # one number
    "regress": TaskHead(_squared_error, (*_SEQUENCE, "regression"), labels=0, outputs=1),
    # a label for every word
    "tags": TaskHead(_cross_entropy, _TOKENS, per_token=True),
    # begin and end of an answer: two logits per position
    "spans": TaskHead(_both_ends, _ANSWER, per_token=True, labels=0, outputs=2, sees_padding=True),
    # a vector, trained without labels: see sentence_vectors.contrastive
    "embed": TaskHead(_contrast, ("Model", "", ""), labels=0, settings=("temperature",), copies=2, pools=True),
}
