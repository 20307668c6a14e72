"""What the page of a pretraining run says: what is trained on what, results beside the baseline, and fill-mask samples.

P masked positions, K most probable tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from clozemill.model.config import EncoderConfig
from clozemill.model.inputs import TOKENS
from clozemill.pipelines.common.formatting import counted, large
from clozemill.pipelines.dataset.dataset_warnings import dataset_warnings
from clozemill.pipelines.dataset.example_tokens import LABELS, segment_tokens
from clozemill.pipelines.dataset.layout import VOCAB
from clozemill.pipelines.dataset.manifest import kept_text
from clozemill.pipelines.examples.columns import Columns
from clozemill.pipelines.pages.content import Example, Section, Side, Table
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.engines.engine import Engine
from clozemill.trainers.engines.masked_tokens import POSITIONS, masked_token_inference
from clozemill.trainers.engines.optimizer import Schedule
from clozemill.trainers.pretraining.eval_columns import eval_columns, originals
from clozemill.trainers.pretraining.recipes import Recipe
from clozemill.trainers.training.eval_set_names import by_set
from clozemill.trainers.training.pretrained import short_name
from clozemill.trainers.training.run_protocols import RunStory

_FAMILIES = {"bert": "BERT", "modernbert": "ModernBERT"}
_SAMPLES, _SHOWN_MASKS, _BEST = 3, 10, 5


def lead(encoder: EncoderConfig, size: str, objective: str, datasets: Sequence[PreparedDataset]) -> list[str]:
    """Return the sentences about a run: the model, and the data with what their datasheets state."""
    sources, languages = (
        dict.fromkeys(value for each in datasets for value in each.manifest.get("datasheet", {}).get(name, []))
        for name in ("sources", "languages")
    )
    tokens = sum(kept_text(each.manifest, "tokens") for each in datasets)
    return [
        f"A {_FAMILIES[encoder.architecture]} encoder ({size}: {encoder.num_hidden_layers} layers, {encoder.hidden_size} wide, "
        f"{encoder.vocab_size:,} entries) is pretrained with the objective {objective}.",
        f"The text has {large(tokens)} tokens; sources: {'; '.join(sources) or 'not stated'}; language: "
        f"{', '.join(languages) or 'not stated'}.",
    ]


def schedule_name(schedule: Schedule) -> str:
    """Return the shape of a schedule, and where the decay of wsd begins."""
    begins = schedule.stable_until
    if begins is None:
        return schedule.shape
    return f"{schedule.shape}, decay after step {begins:,}" if schedule.decay_steps else f"{schedule.shape}, no decay"


def phase_table(phases: Any) -> Table:
    """Return what each phase of a run reads, and how it is scheduled."""
    rows = [
        (phase.mixture.folders, str(phase.max_seq_length), f"{phase.begin + 1:,} to {phase.end:,}", f"{phase.batch_size:,}",
         ", ".join(f"{passes:,.1f}" for passes in phase.passes()), f"{phase.schedule.peak:g}",
         schedule_name(phase.schedule), phase.objective)
        for phase in phases
    ]  # fmt: skip
    head = ("dataset", "tokens", "steps", "batch size", "epochs", "peak learning rate", "schedule", "objective")
    note = "An epoch is one pass over one copy of the dataset."
    if any(phase.dataset.packed for phase in phases):
        note += " The batch size of a packed dataset counts rows, each with several examples."
    return Table("Phases", "trrrrrll", head, rows, note)


def model_table(encoder: EncoderConfig) -> Table:
    rows = [(name.replace("_", " "), str(value)) for name, value in encoder.to_dict().items()]
    return Table("Model", "lt", ("of the encoder", "value"), rows, folded=True)


def _follows(config: Any, recipe: Recipe) -> bool:
    """Return whether a run has the recipe's options, so that their losses can be compared."""
    return all(getattr(config, name) == value for name, value in recipe.options.items())


def story(planned: Any) -> RunStory:
    """Return the page's story of a PretrainingRun."""
    config = planned.config
    datasets = list({each.folder: each for phase in planned.phases for each in phase.mixture.datasets}.values())
    recipe: Recipe | None = config.RECIPES.get(config.recipe)
    branch = planned.branch
    continues = [f"It continues the run {short_name(branch.path)} after step {branch.step:,}."] if branch else []
    return RunStory(
        "Pretraining run",
        lead(planned.encoder, planned.size_name, planned.objectives, planned.phases[0].mixture.datasets) + continues,
        [phase_table(planned.phases), model_table(planned.encoder)],
        recipe.curve if recipe and _follows(config, recipe) else (),
        f"recipe {config.recipe}: {recipe.expect}" if recipe else "",
        [warning for dataset in datasets for warning in dataset_warnings(dataset.manifest)],
        **({"selected_by": "the lowest sum of both losses"} if planned.phases[-1].objective == "rtd" else {}),
    )


def summary(figures: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """Return the result of an evaluation beside word frequencies: for a sentence, and as (name, value)."""
    loss, unigrams = figures["masked_lm_loss"], figures["unigram_loss"]
    whose = "the generator's " if "replaced_accuracy" in figures else ""
    accuracies = {
        "next_sentence_accuracy": "next-sentence accuracy", "next_sentence_baseline": "always the more frequent label",
        "replaced_accuracy": "replaced-token accuracy", "replaced_baseline": "every token original, at least",
    }  # fmt: skip
    values = [(title, f"{100 * figures[name]:.1f} %") for name, title in accuracies.items() if name in figures]
    tiles = [
        (f"{whose}masked-LM loss", f"{loss:.3f}"),
        ("word frequencies alone", f"{unigrams:.3f}"),
        (f"{whose}masked-LM accuracy", f"{100 * figures['masked_lm_accuracy']:.1f} %"),
    ]
    apart = f"{abs(unigrams - loss):.3f} {'below' if loss < unigrams else 'above'}"
    told = f"{whose}masked-LM loss {loss:.3f} nats, {apart} that of word frequencies alone ({unigrams:.3f})"
    for name, found in list(by_set(figures).items())[1:]:
        values.append((f"{name}: {whose}masked-LM loss", f"{found['masked_lm_loss']:.3f}"))
    if whose:
        return f"replaced-token accuracy {100 * figures['replaced_accuracy']:.1f} %; {told}", [*values, *tiles]
    return told, [*tiles, *values]


class FillMask:
    """Predicts masked tokens of the first examples of an eval split, for people to look at."""

    def __init__(self, engine: Engine, model: Any, dataset: PreparedDataset) -> None:
        self.dataset, self.causal = dataset, model.objective.causal
        self.vocabulary = Vocabulary.from_bytes(dataset.read_vocabulary(), VOCAB)
        self.forward = masked_token_inference(engine, model, min(_BEST, len(self.vocabulary)), _SAMPLES)

    def section(self) -> Section:
        """Return the samples as a section."""
        columns = eval_columns(self.dataset, _SAMPLES, self.vocabulary.pad_id)
        inputs = {name: np.asarray(getattr(columns, name), np.int32) for name in (*TOKENS, POSITIONS)}
        if self.causal:  # it reads the original text, and predicts each token from those before it
            inputs["input_ids"] = originals(columns).astype(np.int32)
            inputs[POSITIONS] = np.maximum(inputs[POSITIONS] - 1, 0)  # 0: unused
        best = self.forward(inputs)
        return Section(
            "Sample predictions",
            [
                "The first examples of the eval split, with the model's five most probable tokens at masked positions. "
                "A right answer among them is marked ✓."
            ],
            examples=[self._example(columns, row, best["ids"][row], best["probabilities"][row]) for row in range(len(columns))],
        )

    def _example(self, columns: Columns, row: int, ids_PK: np.ndarray, probs_PK: np.ndarray) -> Example:
        sides = [Side(name, tokens) for name, tokens in segment_tokens(columns, row, self.vocabulary).items()]
        label = int(np.ravel(columns.next_sentence_labels[row])[0])
        meaning = LABELS[self.dataset.manifest["config"]["pairs"]][label]
        used = np.flatnonzero(columns.masked_lm_weights[row] > 0).tolist()
        rows = [self._answers(columns, row, index, ids_PK[index], probs_PK[index]) for index in used[:_SHOWN_MASKS]]
        note = f"{len(rows)} of {counted(len(used), 'masked position')}." if len(rows) < len(used) else ""
        head = ("position", "shown", "target", *(f"{rank}." for rank in range(1, 1 + ids_PK.shape[-1])))
        table = Table("Predictions", "r" + "w" * (len(head) - 1), head, rows, note)
        return Example(f"Example {row}", "Label:", sides, meaning, label, [table])

    def _answers(self, columns: Columns, row: int, index: int, ids_K: np.ndarray, probs_K: np.ndarray) -> tuple[str, ...]:
        place, target = int(columns.masked_lm_positions[row][index]), int(columns.masked_lm_ids[row][index])
        tokens = self.vocabulary.tokens
        cells = [
            f"{tokens[token]} {100 * prob:.1f} %{' ✓' if token == target else ''}"
            for token, prob in zip(ids_K.tolist(), probs_K.tolist(), strict=True)
        ]
        return (str(place), tokens[int(columns.input_ids[row][place])], tokens[target], *cells)
