"""The metrics of a fine-tuning run on its dev examples."""

from typing import Any

import numpy as np
from keras import ops

from clozemill.model.task_heads import TASK_HEADS
from clozemill.model.task_model import sums
from clozemill.pipelines.pages.content import Section
from clozemill.trainers.engines.batched_inference import BatchedInference
from clozemill.trainers.engines.engine import Engine
from clozemill.trainers.finetuning import baselines, dev_exhibits


class DevEvaluation:
    """Evaluates a model on the dev examples; can be run repeatedly."""

    def __init__(self, engine: Engine, model, plan) -> None:
        self.plan = plan
        self._answers: list[dict[str, Any]] = []
        batch_size = max(1, plan.config.batch_size // plan.config.gradient_accumulation_steps)
        per_token = TASK_HEADS[plan.task.kind].per_token
        self.forward = BatchedInference(engine, model, lambda batch: model(batch)["logits"], batch_size, per_token)

    def reference(self) -> None:
        """Return None: the baseline of a task is its metrics, printed at the end."""

    def figures(self) -> dict[str, Any]:
        """Return metrics, unweighted loss, if any, and the criterion that selects the best checkpoint (lower is better).

        An undefined metric is None, and so is a criterion based on it. Any evaluation with a defined criterion ranks higher;
        among undefined ones, the lower loss does. `remarks` holds warnings about a useless result.
        """
        plan, rows = self.plan, self.plan.dev
        logits = self.forward(rows.features)
        answers = plan.task_type.answers(plan.dev_examples, rows, logits, plan.task)
        compared = plan.task_type.references_and_predictions(plan.dev_examples, answers, plan.task)
        scores = baselines.scored(plan.metrics, *compared)
        losses = self._losses(logits)
        criterion: float | None = losses.get("loss")
        if plan.baseline.measurable:
            score = scores[plan.metrics[0]]
            criterion = None if score is None else -score
        remarks = baselines.remarks(plan.metrics, scores, answers, plan.baseline)
        counted = {"examples": len(plan.dev_examples), "remarks": remarks}
        self._answers = answers
        return {**scores, **losses, "criterion": criterion, **counted}

    def _losses(self, logits: np.ndarray) -> dict[str, float]:
        """Return the mean loss as `loss`; {} if the dev rows have no targets."""
        rows = self.plan.dev
        if "weights" not in rows.features:
            return {}
        targets = {name: ops.convert_to_tensor(value) for name, value in rows.features.items()}
        found = sums(ops.convert_to_tensor(logits), targets, self.plan.task)
        return {"loss": float(found["task_loss"]) / max(1.0, float(found["task_weight"]))}

    def exhibits(self) -> list[Section]:
        """Return the answers of the last evaluation as sections of the run's page."""
        return dev_exhibits.exhibits(self.plan.task_type, self.plan.task, self.plan.dev_examples, self._answers)
