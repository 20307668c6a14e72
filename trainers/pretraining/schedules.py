"""The schedules of a run's phases, and where their orders of examples begin."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.engines.optimizer import Schedule
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.recipes import Phase


def phase_schedules(config: PretrainConfig, phases: Sequence[Phase]) -> list[Schedule]:
    """Return the schedule of each phase: its own, or that of the run, which spans all phases without one.

    Raises UserError if the decay of a phase is longer than the phase without its warm-up.
    """
    total = sum(phase.steps for phase in phases)
    rate = config.learning_rate or 0.0  # unused if every phase has its own rate
    run = Schedule(rate, config.warmup(total), total, 0, config.schedule, config.decay(total))
    found, begin = [], 0
    for number, phase in enumerate(phases, 1):
        if phase.learning_rate:
            warmup = config.warmup(phase.steps) if phase.warmup_steps < 0 else min(phase.warmup_steps, phase.steps)
            if phase.decay_steps > phase.steps - warmup:
                raise UserError(
                    f"phase {number}'s decay_steps {phase.decay_steps} is longer than its {phase.steps:,} steps without their "
                    f"warm-up of {warmup:,}: give fewer"
                )
            decay = config.decay(phase.steps) if phase.decay_steps < 0 else phase.decay_steps
            found.append(Schedule(phase.learning_rate, warmup, phase.steps, begin, config.schedule, decay))
        else:
            found.append(run)
        begin += phase.steps
    return found


@dataclass(frozen=True)
class OrderEntry:
    """Where a phase enters the order of its dataset's examples.

    Args:
        first_row: rows of the order that earlier phases have read.
        batch_size: rows per batch that the order is made for; it divides the batch sizes of all phases on the dataset.
    """

    first_row: int
    batch_size: int


def order_entries(digests: Sequence[str], phases: Sequence[Phase]) -> list[OrderEntry]:
    """Return where each phase enters the order of its dataset: after the rows of all earlier phases on the same dataset.

    An order depends on its batch size (data/example_order.py). Phases that share a dataset share the order for the largest
    batch size that divides all of theirs, and read several of its batches at once.
    """
    found = []
    for number, digest in enumerate(digests):
        sizes = [other.batch_size for each, other in zip(digests, phases, strict=True) if each == digest]
        before = zip(digests[:number], phases[:number], strict=True)
        first = sum(earlier.steps * earlier.batch_size for each, earlier in before if each == digest)
        found.append(OrderEntry(first, math.gcd(*sizes)))
    return found
