"""Further eval sets of a run (`--eval-data`): every evaluation reports the model on each of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clozemill.model.config import EncoderConfig
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.pages.content import Section
from clozemill.trainers.data import corrupt_shards, prepared_dataset
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.engines.engine import Engine
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.evaluation import ComparedEvaluation
from clozemill.trainers.training.eval_set_names import prefixed


def read(config: PretrainConfig, first: PreparedDataset) -> dict[str, PreparedDataset]:
    """Return the datasets of `--eval-data` by name. first: a dataset of the run, whose vocabulary they must have.

    Raises UserError if one has no eval examples, or other words.
    """
    found = {}
    for name, folder in config.eval_sets().items():
        dataset = prepared_dataset.read(folder)
        if not dataset.eval_examples:
            given = any(each.startswith(f"{name}=") for each in config.eval_data)
            what = f"--eval-data {name}={folder}" if given else f"{folder}, the general text of --recipe {config.recipe},"
            raise UserError(f"{what} has no eval examples: prepare it with a larger --eval-fraction, or leave it out")
        prepared_dataset.check_vocabulary(dataset, first.vocabulary, first.folder)
        found[name] = dataset
    return found


def check(sets: Mapping[str, PreparedDataset], encoder: EncoderConfig, objectives: tuple[str, ...]) -> None:
    """Raise UserError for an eval set that the run's encoder can't read, or that doesn't suit one of its objectives."""
    for dataset in sets.values():
        prepared_dataset.check_lengths(dataset, encoder.max_position_embeddings)
        prepared_dataset.check_segments(dataset, encoder.type_vocab_size, "the model")
        for objective in objectives:
            prepared_dataset.check_objective(dataset, objective)


def deciding(dataset: PreparedDataset, sets: Mapping[str, PreparedDataset]) -> PreparedDataset | None:
    """Return the dataset whose eval split selects the best checkpoint: that of a phase, else the first of further sets."""
    return dataset if dataset.eval_examples else next(iter(sets.values()), None)


@dataclass
class SeveralEvaluations:
    """Evaluates a model on several eval sets during training.

    Args:
        own: the evaluation that selects the best checkpoint, on the dataset that is `deciding`.
        named: evaluations by the name of their set.
    """

    own: ComparedEvaluation
    named: dict[str, ComparedEvaluation] = field(default_factory=dict)

    @classmethod
    def make(
        cls, engine: Engine, model: Any, dataset: PreparedDataset, sets: Mapping[str, PreparedDataset], **options: Any
    ) -> "SeveralEvaluations | None":
        """Return the evaluation on the eval splits of a run's dataset and of further sets; None if all are empty.

        options: of ComparedEvaluation.
        """
        options |= {"sums": engine.evaluation(model)}
        named = {name: ComparedEvaluation(engine, model, each, **options) for name, each in sets.items()}
        first = deciding(dataset, sets)
        if first is dataset:
            return cls(ComparedEvaluation(engine, model, dataset, **options), named)
        return cls(next(iter(named.values())), named) if first else None

    def reference(self) -> float:
        """Return the loss of word frequencies alone, in nats, on the set that selects the best checkpoint."""
        with corrupt_shards.report_corruption(self.own.dataset):
            return self.own.reference()

    def exhibits(self) -> list[Section]:
        """Return sample predictions as a section of the run's page."""
        return self.own.exhibits()

    def figures(self) -> dict[str, Any]:
        """Return the metrics of `own`, and those of each set under its name. Raises UserError for corrupt shards of a set."""
        with corrupt_shards.report_corruption(self.own.dataset):
            found = self.own.figures()
        for name, evaluation in self.named.items():
            with corrupt_shards.report_corruption(evaluation.dataset):
                found |= prefixed(name, found if evaluation is self.own else evaluation.figures())
        return found
