"""What every export starts from, which formats there are, and what the source itself answers, for comparison.

To add a format, add a module with the functions `write` and `outputs` and an entry to FORMATS.
"""

import importlib
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion.weight_names import PARTS
from clozemill.model.inputs import TOKENS
from clozemill.model.pretraining_model import EncoderModel, PretrainingModel
from clozemill.model.task_model import TaskModel
from clozemill.pipelines.common.tokenizer_rules import REFERENCE, TextRules

TOLERANCE = 1e-5  # of any output in float32, or of its largest value where that is above 1


@dataclass(frozen=True)
class Source:
    """A model as it is exported.

    model: built, in float32. vocabulary: tokens by id. max_seq_length: tokens that texts are cut to. about: its
    checkpoint.json, for the model card and for what an import lacked. rules: how its tokenizer deviates from
    google-research/bert's.
    """

    model: PretrainingModel | TaskModel | EncoderModel
    vocabulary: tuple[str, ...]
    cased: bool
    max_seq_length: int
    about: dict[str, Any] = field(default_factory=dict)
    rules: TextRules = REFERENCE

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
    """A format, of which the module, and with it heavy libraries, is imported when it is used.

    name: the module. entry: the file without which whoever loads the format takes a folder for none.
    """

    name: str
    entry: str

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


FORMATS = {
    "savedmodel": Format("clozemill.model.export.savedmodel", "saved_model.pb"),
    "hf": Format("clozemill.model.export.huggingface", "config.json"),
    "keras": Format("clozemill.model.export.keras_file", "model.keras"),
}


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


def bounds(expected: dict[str, np.ndarray]) -> dict[str, float]:
    """How large each output's difference may be: rounding grows with the values, and a trained model's logits are above 10."""
    return {name: TOLERANCE * max(1.0, float(np.abs(value).max(initial=0))) for name, value in expected.items()}


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
