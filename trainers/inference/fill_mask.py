"""Fills in masked words: the most likely pieces for every [MASK] of a text, by a pretrained encoder's masked-LM head."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from clozemill.model.pretraining_model import OBJECTIVES
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.engines.engine import make_engine
from clozemill.trainers.engines.masked_tokens import POSITIONS, masked_token_inference
from clozemill.trainers.finetuning.task_presets import Layout
from clozemill.trainers.finetuning.tasks.base import Example
from clozemill.trainers.finetuning.tasks.classification import Classify
from clozemill.trainers.inference.config import TYPED, PredictConfig
from clozemill.trainers.training import pretrained
from clozemill.trainers.training.pretrained import PretrainedModel

MASK = "[MASK]"


class MaskFiller:
    """Answers for the masks of texts. Raises UserError for a model without a masked-LM head."""

    def __init__(self, config: PredictConfig, found: PretrainedModel) -> None:
        objective = OBJECTIVES.get(found.index.get("objective") or "")
        if objective is None or objective.causal or objective.replaced:
            why = "has neither a task nor a masked-LM head"
            if objective:
                why = (
                    "predicts next words, not masked ones" if objective.causal else "detects replaced words, and fills in none"
                )
            raise UserError(f"{found.name} {why}: fine-tune it with clozemill finetune, or give another model")
        if config.threshold is not None:
            raise UserError(f"--threshold is for multilabel, but {found.name} fills in masks: leave it out")
        longest = found.encoder.max_position_embeddings
        self.length = min(longest, found.trained_length or longest)
        self.vocabulary, self.texts = found.vocabulary, found.text_encoder(self.length)
        engine = make_engine(config)
        model = pretrained.load_model(found, engine, config.precision)
        self.forward = masked_token_inference(engine, model, min(config.top_k, len(self.vocabulary)), config.batch_size)

    def columns(self) -> pa.Schema:
        """Return the schema of the answers."""
        piece = pa.struct([("token", pa.string()), ("probability", pa.float64())])
        texts = [("text", pa.string()), ("text_pair", pa.string()), ("filled", pa.string()), ("filled_pair", pa.string())]
        return pa.schema([*texts, ("masks", pa.list_(pa.list_(piece)))])

    def layout(self) -> Layout:
        """Return the layout of files."""
        return Layout()

    def read(self, path: str, layout: Layout, max_reject_rate: float) -> Iterator[Example]:
        """Return a file's texts as examples."""
        return Classify().read(path, layout, {}, answers=False, max_reject_rate=max_reject_rate)

    def typed(self, text: str, pair: str, names: tuple[str, str] = TYPED) -> Example:
        """Return a text, and its pair, as an example. Raises UserError, with the text's name, if they have no mask."""
        if MASK not in text + pair:
            raise UserError(f"{names[0]} has no {MASK}: write it in place of the words to predict, as in 'The {MASK} is old.'")
        return Example(names[0], text, pair or None)

    def _features(self, examples: Sequence[Example]) -> dict[str, np.ndarray]:
        firsts = self.texts.ids([example.text for example in examples], masks=True)
        seconds = self.texts.ids([example.pair or "" for example in examples], masks=True)
        rows = []
        for example, first, second in zip(examples, firsts, seconds, strict=True):
            room = self.length - (3 if len(second) else 2)
            one, other = first[:room], second[: max(0, room - len(first))]
            kept = sum(int((ids == self.vocabulary.mask_id).sum()) for ids in (one, other))
            if kept != _masks(example):
                raise UserError(
                    f"{example.where}: a {MASK} is beyond the {self.length} tokens that the model was trained on: shorten it"
                )
            rows.append((one, other if len(other) else None))
        features = self.texts.pack(rows)
        masked = features["input_ids"] == self.vocabulary.mask_id
        positions = np.zeros((len(rows), max(1, int(masked.sum(axis=1).max(initial=1)))), np.int32)
        for row, places in zip(positions, masked, strict=True):
            found = np.flatnonzero(places)
            row[: len(found)] = found
        return features | {POSITIONS: positions}

    def __call__(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Return for each text its masks' most likely pieces, and the text with the first of them filled in."""
        features = self._features(examples)
        best, tokens = self.forward(features), self.vocabulary.tokens
        answers = []
        for number, example in enumerate(examples):
            masks = [
                [
                    {"token": tokens[piece], "probability": float(probability)}
                    for piece, probability in zip(best["ids"][number, place], best["probabilities"][number, place], strict=True)
                ]
                for place in range(_masks(example))
            ]
            words = [self.texts.surface(int(best["ids"][number, place, 0])) for place in range(len(masks))]
            answers.append(_answer(example, masks, words))
        return answers


def _masks(example: Example) -> int:
    """Return the number of masks of an example."""
    return example.text.count(MASK) + (example.pair or "").count(MASK)


def _answer(example: Example, masks: list[list[dict[str, Any]]], words: Sequence[str]) -> dict[str, Any]:
    """Return the record of a text: what was asked, the filled text, the candidates for every mask."""
    given = iter(words)

    def word(found: re.Match) -> str:
        """A token's space is already in the text, or not needed at its beginning."""
        before = found.string[: found.start()]
        return next(given).lstrip() if not before or before[-1].isspace() else next(given)

    def filled(text: str) -> str:
        return re.sub(re.escape(MASK), word, text)

    pair = {} if example.pair is None else {"text_pair": example.pair}
    first = filled(example.text)
    other = {} if example.pair is None else {"filled_pair": filled(example.pair)}
    return {"text": example.text, **pair, "filled": first, **other, "masks": masks}
