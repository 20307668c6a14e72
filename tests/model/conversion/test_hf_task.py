"""The task of a foreign folder, from its config.json."""

from typing import Any

import pytest

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion.hf_task import read_task
from clozemill.model.task_model import Task

ENCODER = EncoderConfig(vocab_size=10, hidden_size=8, num_attention_heads=2, max_position_embeddings=512)
TEXTS, TOKENS = {"architectures": ["BertForSequenceClassification"]}, {"architectures": ["BertForTokenClassification"]}
THREE = {"id2label": {"2": "maybe", "0": "no", "1": "yes"}}
NAMES = ("no", "yes", "maybe")


@pytest.mark.parametrize(
    ("settings", "task"),
    [
        (TEXTS | THREE, Task("classify", NAMES, max_seq_length=512)),
        (TEXTS | THREE | {"problem_type": "single_label_classification"}, Task("classify", NAMES, max_seq_length=512)),
        (TEXTS | THREE | {"problem_type": "multi_label_classification"}, Task("multilabel", NAMES, max_seq_length=512)),
        (TEXTS, Task("classify", ("LABEL_0", "LABEL_1"), max_seq_length=512)),  # transformers' default
        (TEXTS | {"id2label": {"0": "LABEL_0"}}, Task("regress", max_seq_length=512)),
        (TEXTS | {"id2label": {"0": "x"}, "problem_type": "regression"}, Task("regress", max_seq_length=512)),
        (
            TEXTS | {"id2label": {"0": "spam"}, "problem_type": "multi_label_classification"},
            Task("multilabel", ("spam",), max_seq_length=512),
        ),
        (TEXTS | {"num_labels": 3}, Task("classify", ("LABEL_0", "LABEL_1", "LABEL_2"), max_seq_length=512)),
        (TEXTS | {"id2label": None}, Task("classify", ("LABEL_0", "LABEL_1"), max_seq_length=512)),
        (TOKENS | THREE, Task("tags", NAMES, max_seq_length=512)),
        (TOKENS | THREE | {"classifier_pooling": "mean"}, Task("tags", NAMES, max_seq_length=512)),  # taggers don't pool
        (TEXTS | {"problem_type": "another"}, None),
        (TEXTS | {"classifier_pooling": "mean"}, None),
        ({"architectures": ["BertForQuestionAnswering"]}, None),
        ({"architectures": ["BertForMultipleChoice"]}, None),
        ({"architectures": ["BertModel"]}, None),
        ({"architectures": ["ModernBertForTokenClassification"]}, None),
        ({"architectures": ["BertForMaskedLM"], "id2label": 5}, None),  # what isn't used may be anything
        ({"architectures": []}, None),
        ({"architectures": [7]}, None),
        ({"architectures": "BertForSequenceClassification"}, None),
        ({}, None),
    ],
)
def test_tasks(settings: dict[str, Any], task: Task | None) -> None:
    assert read_task(settings, ENCODER, "Bert") == task


@pytest.mark.parametrize(
    ("longest", "length"), [(128, 128), (10**30, 512), (1024, 512), (None, 512), ("128", 512), (1.5, 512), (2, 512)]
)
def test_the_length_is_that_of_the_tokenizer(longest: Any, length: int) -> None:
    assert read_task(TEXTS, ENCODER, "Bert", longest) == Task("classify", ("LABEL_0", "LABEL_1"), max_seq_length=length)
    longer = EncoderConfig(vocab_size=10, hidden_size=8, num_attention_heads=2, max_position_embeddings=8192)
    assert read_task(TEXTS, longer, "Bert", None).max_seq_length == 512


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (["no", "yes"], "id2label doesn't map numbers to names"),
        ({"a": "no"}, "id2label doesn't map numbers to names"),
        ({"1": "no", "2": "yes"}, "id2label doesn't have a name for each number from 0 on"),
        ({"0": "no", "1": ""}, "id2label doesn't have a name for each number from 0 on"),
        ({"0": "no", "1": 5}, "id2label doesn't have a name for each number from 0 on"),
        ({"0": "no", "1": "no"}, "the labels of a task must be distinct, but no occurs twice"),
        ({}, "a task of type classify needs two labels or more, not 0"),
    ],
)
def test_unusable_labels(labels: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        read_task(TEXTS | {"id2label": labels}, ENCODER, "Bert")
    with pytest.raises(ValueError, match=r"^problem_type regression needs 1 label, not 3$"):
        read_task(TEXTS | THREE | {"problem_type": "regression"}, ENCODER, "Bert")


def test_a_number_of_labels_that_no_model_has() -> None:
    """It isn't enumerated."""
    assert len(read_task(TEXTS | {"num_labels": 10**15}, ENCODER, "Bert").labels) == 1 << 16
