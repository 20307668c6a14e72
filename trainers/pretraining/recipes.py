"""Named sets of options with a known result. Each states its source and what to expect.

clozemill pretrain --recipe demo --data DATASET --output RUN
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from clozemill.pipelines.command_line.options import option
from clozemill.pipelines.common.errors import UserError

OBJECTIVES = ("mlm+nsp", "mlm+sop", "mlm", "causal", "rtd")

_NEAR = 1e-6  # how far the sum of weights may be from 1, such as that of three times 0.3333333


@dataclass(frozen=True)
class Part:
    """A dataset of a mixture."""

    EXAMPLE: ClassVar = "{data: DATASET, weight: 0.7}"

    data: str = option("", "dataset of clozemill prepare")
    weight: float = option(0.0, "its share of the examples or packed rows; all weights of a phase sum to 1", low=1e-4, high=1)


@dataclass(frozen=True)
class Phase:
    """Steps of a run on one dataset, or on a mixture of several.

    A phase without its own learning rate continues the run's schedule. A phase on the dataset of an earlier one continues its
    order.
    """

    EXAMPLE: ClassVar = "{data: DATASET, steps: 1000}"

    data: str | tuple[Part, ...] = option("", "dataset of clozemill prepare, or a list of datasets with weights: a mixture")
    steps: int = option(0, "weight updates", low=1, high=1 << 30)
    batch_size: int = option(0, "examples or packed rows per update; 0: that of the run", low=0, high=1 << 20)
    learning_rate: float = option(
        0.0, "peak learning rate of the phase's own schedule; 0: continue the run's schedule", low=0, high=100
    )
    warmup_steps: int = option(
        -1, "warm-up steps of the phase's own schedule; -1: those of the run if given, else a tenth of the phase's steps",
        low=-1, high=1 << 30,
    )  # fmt: skip
    decay_steps: int = option(
        -1,
        "decay steps of the phase's own schedule, with --schedule wsd; -1: those of the run if given, else a fifth of the "
        "phase's steps",
        low=-1,
        high=1 << 30,
    )
    objective: str = option("", "pretraining objective of the phase (default: that of the run)", choices=OBJECTIVES)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return the datasets with their weights."""
        return (Part(self.data, 1.0),) if isinstance(self.data, str) else self.data

    def check(self, where: str) -> None:
        """Raise UserError, starting with `where`, for a mixture whose weights can't be used."""
        if isinstance(self.data, str):
            return
        if not self.data:
            raise UserError(f"{where}: data is an empty list: write lines such as '- {Part.EXAMPLE}'")
        names = [part.data for part in self.data]
        for number, part in enumerate(self.data, 1):
            if not part.data or not part.weight:
                raise UserError(f"{where}: data, number {number} has no {'weight' if part.data else 'dataset'}: "
                                f"write lines such as '- {Part.EXAMPLE}'")  # fmt: skip
            if names.count(part.data) > 1:
                raise UserError(f"{where}: data names {part.data} twice: give it once, with the sum of both weights")
        total = math.fsum(part.weight for part in self.data)
        if abs(total - 1) > _NEAR:
            raise UserError(f"{where}: the weights of data sum to {total:.7g}, not to 1: give shares that do")


@dataclass(frozen=True)
class Recipe:
    """Options, the sequence lengths of the datasets they are meant for (none: any), and what to expect.

    curve: (step, masked-LM loss on the train split) of a run that was measured here. weights: of the datasets of --data, if a
    run with as many of them mixes them in one phase. needs_init: whether it is for weights of --init.
    """

    options: dict[str, Any]
    max_seq_lengths: tuple[int, ...]
    expect: str
    curve: tuple[tuple[int, float], ...] = ()
    weights: tuple[float, ...] = ()
    needs_init: bool = False


RECIPES = {
    "bert-base": Recipe(
        {
            "preset": "base",
            "steps": 1_000_000,
            "batch_size": 256,
            "learning_rate": 1e-4,
            "warmup_steps": 10_000,
            "precision": "float32",
        },
        (512,),
        "Devlin et al. 2018: 256 x 512 tokens, about 40 epochs of Wikipedia and books; the paper reports four days on 16 TPU "
        "chips (v2), GLUE 79.6. Not reproduced here.",
    ),
    "lamb-large": Recipe(
        {
            "preset": "large",
            "optimizer": "lamb",
            "steps": 8_601,
            "phases": (
                Phase(steps=7_038, batch_size=65_536, learning_rate=6e-3, warmup_steps=2_000),
                Phase(steps=1_563, batch_size=32_768, learning_rate=4e-3, warmup_steps=200),
            ),
            "weight_decay": 0.01,
            "precision": "bfloat16",
            "checkpoint_steps": 200,
        },
        (128, 512),
        "You et al. 2019, in the two phases of NVIDIA's reference: the paper reports 76 minutes on 1,024 TPU v3 chips, SQuAD "
        "1.1 F1 90.6. Give two datasets, of 128 and 512 tokens, and --gradient-accumulation-steps on fewer chips. Not "
        "reproduced here.",
    ),
    "budget-24h": Recipe(
        {
            "preset": "base",
            "objective": "mlm",
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "steps": 40_000,
            "batch_size": 4096,
            "gradient_accumulation_steps": 16,
            "learning_rate": 1e-3,
            "warmup_steps": 2_400,
            "precision": "bfloat16",
        },
        (128,),
        "After Izsak et al. 2021 and Geiping and Goldstein 2022: no next sentence, short sequences, large batches, no dropout, "
        "one or few epochs; about 24 hours on one A100 at 45 % utilisation; they report GLUE 78 to 80. Not reproduced here.",
    ),
    "modern": Recipe(
        {
            "preset": "modern-tiny",
            "steps": 2_000,
            "objective": "mlm",
            "optimizer": "muon",
            "schedule": "wsd",
            "masks": "fresh",
        },
        (),
        "the encoder of Warner et al. 2024 with Muon, a learning rate that stays constant until the last fifth, fresh masks in "
        "every epoch and no next sentence. On the demo's shards, 500 steps of 32 examples end at 5.9 nats on the eval split, "
        "where the recipe demo has about 6.5. --preset modern-base and others train larger ones.",
    ),
    "continue": Recipe(
        {
            "steps": 1_000,
            "objective": "mlm",
            "schedule": "linear",
            "masks": "fresh",
            "average_with_init": 0.5,
        },
        (),
        "an encoder is trained further on text of a domain: a tenth of the examples is general text, if --data names a dataset "
        "of it after that of the domain, and half of the usual learning rate is warmed up again, as Ibrahim et al. 2024 advise "
        "(arXiv:2403.08763). Then each evaluation, from before the first step on, shows the loss on both. The result is the "
        "mean of the weights before and after (Wortsman et al. 2022, arXiv:2109.01903); --average-with-init 0: those after.",
        weights=(0.9, 0.1),
        needs_init=True,
    ),
    "demo": Recipe(
        {
            "preset": "tiny",
            "steps": 500,
            "batch_size": 32,
            "learning_rate": 1e-3,
            "warmup_steps": 50,
            "max_position_embeddings": 128,
            "initializer_range": 0.02,
            "weight_decay": 0.01,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "gradient_accumulation_steps": 1,
            "precision": "float32",
            "steps_per_call": 5,
            "log_steps": 50,
            "eval_steps": 100,
        },
        (128,),
        "on the embedded corpus, about a minute and a half on two cores: masked LM loss from 8.3 to below 6 on its shards and "
        "to about 6.5 on the eval split, whose 41 examples are too few to evaluate next-sentence prediction.",
        (
            (50, 7.586),
            (100, 6.474),
            (150, 6.335),
            (200, 6.182),
            (250, 6.032),
            (300, 5.902),
            (350, 5.804),
            (400, 5.731),
            (450, 5.686),
            (500, 5.640),
        ),
    ),
}


def mixed_by_recipe(recipe: str, data: Sequence[str]) -> tuple[Part, ...]:
    """Return the datasets of --data with the weights of a recipe, if it mixes as many; else ()."""
    weights = RECIPES[recipe].weights if recipe else ()
    if weights and len(data) > len(weights):
        raise UserError(
            f"--recipe {recipe} mixes {len(weights)} datasets, but --data names {len(data)}: give phases with weights in "
            "--config"
        )
    return tuple(map(Part, data, weights)) if len(data) == len(weights) else ()


def complete_phases(phases: Sequence[Phase], data: Sequence[str], steps: int) -> tuple[Phase, ...]:
    """Return the phases of a run, each with a dataset and steps. Raises UserError when datasets and phases don't match.

    Args:
        phases: those that were given, or none: one per dataset.
        data: datasets, one per phase, for phases without any.
        steps: of the run, for its only phase.
    """
    if not data and not phases:
        raise UserError("--data is missing: give a dataset that clozemill prepare wrote")
    phases = phases or [Phase(steps=steps if len(data) == 1 else 0) for _ in data]
    if len(data) > len(phases):
        raise UserError(f"--data names {len(data)} datasets for {len(phases)} phases: give one per phase")
    found = []
    for number, phase in enumerate(phases):
        if phase.data and number < len(data):
            raise UserError(f"--data {data[number]} has no effect because phase {number + 1} has its own data: leave one out")
        own = phase.data or (data[number] if number < len(data) else "")
        if not own or not phase.steps:
            what = "dataset: give --data one per phase" if not own else "steps: give phases in --config"
            raise UserError(f"phase {number + 1} has no {what}, or 'phases: [{{data: DATASET, steps: 1000}}, ...]' there")
        for name in ("warmup_steps", "decay_steps") if not phase.learning_rate else ():
            if (given := getattr(phase, name)) >= 0:
                raise UserError(
                    f"phase {number + 1}'s {name} {given} has no effect, because the phase continues the run's schedule: give "
                    f"it a learning_rate of its own, or leave {name} out"
                )
        found.append(replace(phase, data=own))
    return tuple(found)
