"""Evaluates a model on an eval split, with a baseline that predicts by word frequency."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from clozemill.model.losses import SUMS
from clozemill.model.pretraining_model import Objective, prepare
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.pages.content import Section
from clozemill.trainers.data.input_pipeline import EvalBatches, TrainReader, eval_steps
from clozemill.trainers.data.numpy_reader import batches_of
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.engines.engine import Engine, Sums
from clozemill.trainers.pretraining.page_parts import FillMask
from clozemill.trainers.training.early_stopping import INCOMPARABLE
from clozemill.trainers.training.metrics_log import means

_SAMPLE = 100_000  # examples of the train split from which the frequencies of its tokens are estimated


@dataclass
class _Counts:
    """What the targets of some batches are: how often each token is predicted, each label is right, and each loss counts."""

    tokens: np.ndarray  # float64 [vocabulary]
    labels: np.ndarray  # float64 [2]
    detected: float = 0.0  # tokens to tell replaced from original

    @classmethod
    def of(cls, batches: Iterable[dict[str, Any]], objective: Objective, size: int) -> "_Counts":
        found = cls(np.zeros(size), np.zeros(2))
        for batch in batches:
            _, targets = prepare(batch, objective)
            flat = {name: np.ravel(value) for name, value in targets.items()}
            found.tokens += np.bincount(flat["masked_lm_ids"], flat["masked_lm_weights"], minlength=size)
            found.labels += np.bincount(flat["next_sentence_labels"], flat["example_weights"], minlength=2)[:2]
            found.detected += float(flat["token_weights"].sum()) if objective.replaced else 0.0
        return found


def without_context(dataset: PreparedDataset, objective: Objective, batch_size: int = 256, limit: int = 0) -> dict[str, float]:
    """Return the losses, in nats, and the accuracies on the eval split of predictors that ignore the context.

    `unigram_loss`: loss of the token frequencies of the train split (about its first 100,000 examples, add-one smoothing).
    `unigram_entropy`: entropy of the eval split's own frequencies, a lower bound without context; on a small split it is
    far below what is achievable. With a next-sentence head, `next_sentence_baseline`: accuracy of the more frequent label.
    For replaced-token detection, `replaced_baseline`: the share of tokens that are not masked, which is the least accuracy of
    calling every token original.

    limit: examples of the eval split, 0 for all.
    """
    size, rows = dataset.vocabulary["size"], dataset.train_rows
    steps = eval_steps(dataset, batch_size, limit=limit)
    counts = _Counts.of(islice(batches_of(EvalBatches(dataset, batch_size, limit=limit)), steps), objective, size)
    asked = counts.tokens
    learnt = np.ones(size)
    if rows:
        size_read, most = min(batch_size, rows), _SAMPLE * rows // dataset.train_examples
        train = batches_of(TrainReader(dataset, 0, size_read).batches(size_read))
        learnt += _Counts.of(islice(train, max(1, min(rows, most) // batch_size)), objective, size).tokens
    shares, total = asked[asked > 0] / asked.sum(), asked.sum()
    found = {
        "unigram_loss": float(-(asked * np.log(learnt / learnt.sum())).sum() / total),
        "unigram_entropy": float(-(shares * np.log(shares)).sum()),
    }
    if objective.next_sentence:
        found["next_sentence_baseline"] = float(counts.labels.max() / counts.labels.sum())
    if objective.replaced:
        found["replaced_baseline"] = 1 - float(total) / counts.detected
    return found


class Evaluation:
    """Evaluates a model on the eval split of a dataset on the devices of an engine; can be run repeatedly.

    sums: `engine.evaluation` of the model, if it exists already: what it has compiled is used again.
    """

    def __init__(
        self, engine: Engine, model, dataset: PreparedDataset, batch_size: int, limit: int = 0, sums: Sums | None = None
    ) -> None:
        if not dataset.eval_examples:
            raise UserError(
                f"{dataset.folder} has no eval examples: prepare with a larger --eval-fraction, or leave evaluation out"
            )
        self.engine, self.model, self.dataset, self.limit, self.objective = engine, model, dataset, limit, model.objective
        self.batch_size = -(-batch_size // engine.replicas) * engine.replicas
        self.sums = sums or engine.evaluation(model)

    def _batches(self, host: int, hosts: int, size: int) -> EvalBatches:
        return EvalBatches(self.dataset, size, host, hosts, self.limit)

    def figures(self) -> dict[str, Any]:
        """Return losses (nats), accuracies, perplexity, and the numbers of examples and predictions."""
        steps = eval_steps(self.dataset, self.batch_size, self.engine.processes, self.limit)
        *found, examples = self.sums(self.batch_size, steps, self._batches).tolist()
        totals = dict(zip(SUMS, found, strict=True))
        figures = {"masked_lm_loss": 0.0, "masked_lm_accuracy": 0.0} | means(totals)
        perplexity = math.exp(min(figures["masked_lm_loss"], 700.0))
        return figures | {
            "perplexity": perplexity, "examples": round(examples), "predictions": round(totals["masked_lm_weight"])
        }  # fmt: skip


# A model that has learnt only word frequencies is this close to the baseline.
HARDLY_BETTER = 0.01  # relative to the baseline's loss


class ComparedEvaluation(Evaluation):
    """An evaluation during training that compares its metrics with the word-frequency baseline.

    comparable: whether its loss may select the best checkpoint; not in a causal phase before others. With replaced-token
    detection, the sum of both losses selects it.
    """

    def __init__(
        self,
        engine: Engine,
        model,
        dataset: PreparedDataset,
        batch_size: int,
        limit: int = 0,
        comparable: bool = True,
        sums: Sums | None = None,
    ) -> None:
        super().__init__(engine, model, dataset, batch_size, limit, sums)
        self.comparable = comparable

    @cached_property
    def _fill_mask(self) -> FillMask:
        return FillMask(self.engine, self.model, self.dataset)

    def exhibits(self) -> list[Section]:
        """Return sample predictions as a section of the run's page; none with several workers, which compute parts only."""
        return [self._fill_mask.section()] if self.engine.processes == 1 else []

    @cached_property
    def _baseline(self) -> dict[str, float]:
        return without_context(self.dataset, self.objective, limit=self.limit)

    def reference(self) -> float:
        """Return the loss of word frequencies alone, in nats."""
        return self._baseline["unigram_loss"]

    def figures(self) -> dict[str, Any]:
        """Return the metrics of Evaluation and of `without_context`, and `remarks`: warnings about a useless result."""
        found = super().figures() | self._baseline
        criterion: dict[str, Any] = {"criterion": found["loss"]} if self.objective.replaced else {}
        return found | {"remarks": remarks(found)} | (criterion if self.comparable else INCOMPARABLE)


def remarks(figures: dict[str, Any]) -> list[str]:
    """Return warnings if the model is hardly better than word frequencies, or than calling every token original."""
    loss, unigrams = figures["masked_lm_loss"], figures["unigram_loss"]
    if "replaced_accuracy" in figures:
        accuracy, least = figures["replaced_accuracy"], figures["replaced_baseline"]
        return [] if accuracy > least else [
            f"the replaced-token accuracy of {accuracy:.1%} is no better than that of calling every token original, at least "
            f"{least:.1%}: the encoder has not learnt to use the context"
        ]  # fmt: skip
    if not figures["predictions"] or loss < (1 - HARDLY_BETTER) * unigrams:
        return []
    compared = "no" if loss >= unigrams else "hardly"
    return [
        f"the masked LM loss of {loss:.3f} nats is {compared} better than that of word frequencies alone, {unigrams:.3f}: the "
        "model has not learnt to use the context"
    ]
