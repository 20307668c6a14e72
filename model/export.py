"""What every export starts from, which formats there are, and what the source itself answers, for comparison.

To add a format, add a module with the functions `write` and `outputs` and an entry to FORMATS.
"""

import importlib
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from keras import ops

from model.config import EncoderConfig
from model.conversion import PARTS
from model.pretraining import EncoderModel, PretrainingModel
from model.tasks import TaskModel

TOLERANCE = 1e-5  # of any output, in float32
TOKENS = ("input_ids", "input_mask", "segment_ids")


@dataclass(frozen=True)
class Source:
    """A model as it is exported.

    model: built, in float32. vocabulary: tokens by id. max_seq_length: tokens that texts are cut to. about: its
    checkpoint.json, for the model card and for what an import lacked.
    """

    model: PretrainingModel | TaskModel | EncoderModel
    vocabulary: tuple[str, ...]
    cased: bool
    max_seq_length: int
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> EncoderConfig:
        return self.model.config

    @property
    def task(self):
        """The Task of a fine-tuned model, else None."""
        return getattr(self.model, "task", None)

    @property
    def parts(self) -> tuple[str, ...]:
        """Which of conversion.PARTS have learnt something: what an import had, or else what the objective or task trains."""
        if "imported" in self.about:
            return tuple(part for part in PARTS if part in self.about["imported"]["heads"])
        if self.task:
            return ("pooler",) if self.model.pooled else ()
        if isinstance(self.model, EncoderModel):
            return ("pooler",)
        return PARTS if self.model.next_sentence is not None else ("masked_lm",)

    @property
    def has_pooler(self) -> bool:
        """False for an import that came without one: it has no values then."""
        return "imported" not in self.about or "pooler" in self.parts

    def weights(self) -> dict[str, np.ndarray]:
        """Arrays by path within the model, such as `encoder/layer_0/attention/query/kernel`."""
        return {weight.path.split("/", 1)[1]: ops.convert_to_numpy(weight) for weight in self.model.weights}


@dataclass(frozen=True)
class Format:
    """A format, of which the module, and with it heavy libraries, is imported when it is used."""

    name: str

    def module(self) -> ModuleType:
        return importlib.import_module(self.name)

    def write(self, source: Source, folder: str) -> None:
        """Writes a source into a folder that is there and empty. Raises ValueError for what the format can't hold."""
        self.module().write(source, folder)

    def outputs(self, folder: str, texts: list[tuple[str, str]], features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the export answers, loaded from its folder: the names of `answers`, or some of them.

        texts: each with a second one, or "". features: the same as `input_ids`, `input_mask`, `segment_ids`, int32 [B, S].
        """
        return self.module().outputs(folder, texts, features)

    def checked_with(self) -> str:
        """What loads the export for `outputs`, for the report."""
        told = getattr(self.module(), "checked_with", None)
        return told() if told else ""


FORMATS = {"savedmodel": Format("model.savedmodel"), "hf": Format("model.hf"), "keras": Format("model.keras_file")}


def assemble(
    firsts: list[np.ndarray], seconds: list[np.ndarray], special: tuple[int, int, int], length: int
) -> dict[str, np.ndarray]:
    """Token ids as features: [CLS] A [SEP], or [CLS] A [SEP] B [SEP], cut as google-research/bert cuts and padded.

    Args:
        firsts, seconds: ids of each text's A and B, of which B may be empty. special: the ids of [PAD], [CLS] and [SEP].
        length: S. Too long a pair loses tokens at the end of its longer side, of B when they are equally long.

    Returns `input_ids`, `input_mask`, `segment_ids`, int32 [B, S].
    """
    pad, cls, sep = special
    found = {name: np.full((len(firsts), length), pad if name == "input_ids" else 0, np.int32) for name in TOKENS}
    for row, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        keep_first, keep_second = _kept(len(first), len(second), length - (3 if len(second) else 2))
        ids = [cls, *first[:keep_first], sep]
        kinds = [0] * len(ids)
        if len(second):
            ids += [*second[:keep_second], sep]
            kinds += [1] * (keep_second + 1)
        for name, values in zip(TOKENS, (ids, [1] * len(ids), kinds), strict=True):
            found[name][row, : len(ids)] = values
    return found


def _kept(first: int, second: int, room: int) -> tuple[int, int]:
    """Lengths after the longer of two loses one at a time, the second at a tie."""
    while first + second > max(room, 0):
        first, second = (first - 1, second) if first > second else (first, second - 1)
    return first, second


def answers(source: Source, features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a source answers at every position.

    Returns float32 arrays, of which a format answers some: `sequence_output` [B, S, H], `pooled_output` [B, H], and, where
    the model has them, `masked_lm_logits` [B, S, V], `next_sentence_logits` [B, 2], `logits` as TaskModel gives them.
    """
    inputs = {name: features[name] for name in TOKENS}
    encoded = source.model.encoder(*inputs.values())
    found = {name: encoded[name] for name in ("sequence_output", "pooled_output")}
    if not isinstance(source.model, EncoderModel):
        found |= source.model(inputs)
    return {name: ops.convert_to_numpy(value) for name, value in found.items()}


def furthest(expected: dict[str, np.ndarray], found: dict[str, np.ndarray], mask_BS: np.ndarray) -> dict[str, float]:
    """The largest difference of each output, wherever there is a token; infinity for other shapes and what is no number.

    Raises ValueError for an output that isn't expected, and when there is none.
    """
    if unknown := sorted(found.keys() - expected.keys()) or (not found and ["nothing"]):
        raise ValueError(f"the export answers {unknown[0]}, which the source doesn't")
    return {name: _difference(expected[name], value, mask_BS > 0) for name, value in found.items()}


def _difference(one: np.ndarray, other: np.ndarray, mask_BS: np.ndarray) -> float:
    if one.shape[:2] == mask_BS.shape and one.ndim == 3:
        used = int(mask_BS.sum(1).max())
        if other.ndim != 3 or other.shape[0] != one.shape[0] or other.shape[1] < used:
            return np.inf
        one, other = one[:, :used][mask_BS[:, :used]], other[:, :used][mask_BS[:, :used]]
    if one.shape != other.shape:
        return np.inf
    difference = np.abs(one.astype(np.float64) - other).max(initial=0.0)
    return float(difference) if np.isfinite(difference) else np.inf
