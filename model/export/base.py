"""The source of exports, the registry of formats, and the source's own outputs, for comparison.

To add a format, add a module with the functions `write` and `outputs` and an entry to FORMATS.
"""

import importlib
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion.weight_table import PARTS
from clozemill.model.inputs import TOKENS
from clozemill.model.pretraining_model import EncoderModel, PretrainingModel
from clozemill.model.task_model import TaskModel
from clozemill.pipelines.common.tokenizer_rules import REFERENCE, TextRules

TOLERANCE = 1e-5  # of any output in float32, relative to its largest value if that is above 1


@dataclass(frozen=True)
class Source:
    """A model to export.

    model: built, in float32. vocabulary: tokens by id. max_seq_length: tokens that texts are truncated to. about: its
    checkpoint.json, for the model card and the parts that an import lacked. rules: how its tokenizer differs from
    google-research/bert's. tokenizer: the contents of its tokenizer.json if it isn't WordPiece, else b"".
    """

    model: PretrainingModel | TaskModel | EncoderModel
    vocabulary: tuple[str, ...]
    cased: bool
    max_seq_length: int
    about: dict[str, Any] = field(default_factory=dict)
    rules: TextRules = REFERENCE
    tokenizer: bytes = b""

    @property
    def config(self) -> EncoderConfig:
        return self.model.config

    @property
    def task(self):
        """Return the Task of a fine-tuned model, else None."""
        return getattr(self.model, "task", None)

    @property
    def answer(self) -> str:
        """Return the name of a task's output in exports: "logits", or "sentence_embedding" if it makes vectors."""
        return "sentence_embedding" if self.task and self.model.pools else "logits"

    @property
    def parts(self) -> tuple[str, ...]:
        """Return which of PARTS are trained: those of the import, or else those that the objective or task trains."""
        if "imported" in self.about:
            return tuple(part for part in PARTS if part in self.about["imported"]["heads"])
        if self.task:
            return ("pooler",) if self.model.pooled else ()
        if isinstance(self.model, EncoderModel):
            return () if self.about.get("objective") == "rtd" else ("pooler",)
        return PARTS if self.model.objective.next_sentence else ("masked_lm",)

    @property
    def has_pooler(self) -> bool:
        """Return whether there is a trained pooler: False for an import without one, and for an encoder that has no heads."""
        given = "imported" in self.about or isinstance(self.model, EncoderModel)
        return not given or "pooler" in self.parts

    def weights(self) -> dict[str, np.ndarray]:
        """Return arrays by path within the model, such as `encoder/layer_0/attention/query/kernel`."""
        return {weight.path.split("/", 1)[1]: ops.convert_to_numpy(weight) for weight in self.model.weights}


@dataclass(frozen=True)
class Format:
    """An export format. Its module, and with it heavy libraries, is imported on first use.

    name: the module. entry: the file that marks a folder as this format.
    """

    name: str
    entry: str

    def module(self) -> ModuleType:
        return importlib.import_module(self.name)

    def write(self, source: Source, folder: str) -> None:
        """Write a source into an empty folder. Raises ValueError if the format can't represent it."""
        self.module().write(source, folder)

    def outputs(self, folder: str, texts: list[tuple[str, str]], features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Load the export from its folder and return its outputs: all or some of those of `answers`.

        texts: (text, second text or ""). features: the same as `input_ids`, `input_mask`, `segment_ids`, int32 [B, S].
        """
        return self.module().outputs(folder, texts, features)

    def checked_with(self) -> str:
        """Return the name of what loads the export for `outputs`, for the report."""
        told = getattr(self.module(), "checked_with", None)
        return told() if told else ""


FORMATS = {
    "savedmodel": Format("clozemill.model.export.savedmodel", "saved_model.pb"),
    "hf": Format("clozemill.model.export.huggingface", "config.json"),
    "keras": Format("clozemill.model.export.keras_file", "model.keras"),
}


def answers(source: Source, features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of a source at every position.

    Returns float32 arrays, of which a format has all or some: `sequence_output` [B, S, H], `pooled_output` [B, H], and, if the
    model has them, `masked_lm_logits` [B, S, V], `next_sentence_logits` [B, 2], those of TaskModel as `Source.answer`.
    """
    inputs = {name: features[name] for name in TOKENS}
    encoded = source.model.encoder(*inputs.values())
    found = {name: encoded[name] for name in ("sequence_output", "pooled_output")}
    if not isinstance(source.model, EncoderModel):
        found |= source.model(inputs)
    return {source.answer if name == "logits" else name: ops.convert_to_numpy(value) for name, value in found.items()}


def furthest(expected: dict[str, np.ndarray], found: dict[str, np.ndarray], mask_BS: np.ndarray) -> dict[str, float]:
    """Return the largest difference of each output over all tokens; infinity for other shapes and for NaN.

    Raises ValueError for an unexpected output, and if there is none.
    """
    if unknown := sorted(found.keys() - expected.keys()) or (not found and ["nothing"]):
        raise ValueError(f"the export has the output {unknown[0]}, which the source doesn't")
    return {name: _difference(expected[name], value, mask_BS > 0) for name, value in found.items()}


def bounds(expected: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the allowed difference of each output. It grows with the values, since a trained model's logits exceed 10."""
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
