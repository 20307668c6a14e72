"""The task of a fine-tuned Hugging Face model: what transformers' class, config.json and tokenizer_config.json say of it."""

from typing import Any

from clozemill.model.config import EncoderConfig
from clozemill.model.task_heads import TASK_HEADS
from clozemill.model.task_model import Task

_MOST_LABELS = 1 << 16  # that get transformers' names: the file may claim any number
LENGTH = 512  # tokens at most, unless the tokenizer's files say so


def _kinds(settings: dict[str, Any], prefix: str) -> list[str]:
    """Return the types of task that transformers' class is for; [] unless they are answers per text or tags per word."""
    classes = settings.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else ""
    kinds = [kind for kind, head in TASK_HEADS.items() if name == prefix + head.transformers[0] and not head.pools]
    return [] if "spans" in kinds else kinds  # whether questions may have no answer isn't told


def _labels(settings: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the labels in the order of the logits, by default transformers'. Raises ValueError."""
    told, count = settings.get("id2label"), settings.get("num_labels", 2)
    try:
        if told is None:
            told = {number: f"LABEL_{number}" for number in range(min(count, _MOST_LABELS))}
        names = {int(number): name for number, name in told.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError("id2label doesn't map numbers to names") from None
    if sorted(names) != list(range(len(names))) or not all(isinstance(name, str) and name for name in names.values()):
        raise ValueError("id2label doesn't have a name for each number from 0 on")
    return tuple(names[number] for number in range(len(names)))


def read_task(settings: dict[str, Any], config: EncoderConfig, prefix: str, longest: Any = None) -> Task | None:
    """Return the task of a model, None for a pretrained one and for a task that clozemill doesn't read.

    Args:
        settings: the contents of config.json.
        config: the encoder that it describes.
        prefix: how the names of the encoder's classes begin, such as "Bert".
        longest: model_max_length of tokenizer_config.json; transformers writes a huge number for none.

    Raises ValueError for labels that don't suit the task.
    """
    kinds = _kinds(settings, prefix)
    if not kinds or (settings.get("classifier_pooling", "cls") != "cls" and not TASK_HEADS[kinds[0]].per_token):
        return None
    labels = _labels(settings)
    if len(kinds) > 1:
        problem = settings.get("problem_type") or ("regression" if len(labels) == 1 else "single_label_classification")
        kinds = [kind for kind in kinds if TASK_HEADS[kind].transformers[2] == problem]
    if not kinds:
        return None
    head = TASK_HEADS[kinds[0]]
    if head.outputs and len(labels) != head.outputs:
        raise ValueError(f"problem_type {settings['problem_type']} needs {head.outputs} label, not {len(labels)}")
    length = min(longest if isinstance(longest, int) and longest > 2 else LENGTH, config.max_position_embeddings)
    return Task(kinds[0], labels if head.labels else (), max_seq_length=length)
