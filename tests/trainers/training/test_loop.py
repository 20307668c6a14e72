"""What the loop asks of an engine, without a device."""

from types import SimpleNamespace
from typing import Any

import pytest

from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.engines.optimizer import Hyper, Schedule
from clozemill.trainers.pretraining import pretraining_run
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.recipes import Phase
from clozemill.trainers.training.loop import Loop
from tests.trainers import datasets


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return datasets.write(tmp_path_factory.mktemp("dataset"), [[20, 25]], [24])


def test_the_trainer_of_a_phase(dataset: PreparedDataset) -> None:
    """The third phase, of steps 8 to 11, from step 10 on: it reads on after the 64 rows of both phases before it.

    The second one didn't train the pooler for 4 steps.
    """
    phases = tuple(Phase(dataset.folder, 4, 8, objective=objective) for objective in ("mlm+nsp", "mlm", "mlm+nsp"))
    options: dict[str, Any] = {
        "preset": "tiny", "batch_size": 8, "optimizer": "muon", "learning_rate": 0.02, "warmup_steps": 3, "clip_norm": 0.25,
        "weight_decay": 0.3, "seed": 5, "masks": "fresh", "gradient_accumulation_steps": 2,
    }  # fmt: skip
    plan = pretraining_run.plan_run(PretrainConfig(phases=phases, **options))
    asked: list[tuple] = []
    engine: Any = SimpleNamespace(compiles=False, trainer=lambda *given: asked.append(given))
    state, journal, phase = SimpleNamespace(), SimpleNamespace(), plan.phases[2]
    Loop(plan, "", engine, state, 10, journal)._trainer(phase)
    ((given, step, size, batches),) = asked
    assert given is state and (step.rule, step.parts, step.seed, size) == ("muon", 2, 5, 8)
    assert step.hyper == Hyper(weight_decay=0.3, clip_norm=0.25)
    assert step.schedule == phase.schedule == Schedule(0.02, 3, 12)
    assert step.draw is phase.masks is not None
    paths = ("encoder/pooler/kernel", "next_sentence/dense/kernel", "masked_lm/dense/kernel")
    assert [step.idle(f"pretraining/{path}") for path in paths] == [4, 4, 0]
    found = batches(1, 2, 4)
    assert (found.step, found.size, found.reader.batch_size, found.reader.first_row) == (2, 4, 8, 64)
    assert (found.reader.seed, found.reader.host, found.reader.hosts, found.reader.keyed) == (5, 1, 2, True)
