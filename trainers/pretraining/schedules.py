"""The schedules of a run's phases, and where their orders of examples begin."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.data.mixing import shares
from clozemill.trainers.engines.optimizer import Schedule
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.recipes import Phase


def phase_schedules(config: PretrainConfig, phases: Sequence[Phase]) -> list[Schedule]:
    """Return the schedule of each phase: its own, or that of the run, which spans all phases without one.

    Raises UserError if the warm-up of a phase with a rate of its own takes up the phase, or its decay the rest of it.
    """
    total = sum(phase.steps for phase in phases)
    rate = config.learning_rate or 0.0  # unused if every phase has its own rate
    run = Schedule(rate, config.warmup(total), total, 0, config.schedule, config.decay(total))
    found, begin = [], 0
    for number, phase in enumerate(phases, 1):
        if phase.learning_rate:
            warmup = config.warmup(phase.steps) if phase.warmup_steps < 0 else min(phase.warmup_steps, phase.steps)
            if phase.warmup_steps < 0 <= config.warmup_steps and warmup == phase.steps:
                raise UserError(
                    f"phase {number} has a learning rate of its own, but --warmup-steps {config.warmup_steps} takes up its "
                    f"{phase.steps:,} steps: give it warmup_steps of its own"
                )
            decay = config.decay(phase.steps) if phase.decay_steps < 0 else phase.decay_steps
            if phase.decay_steps >= 0 or config.decay_steps >= 0:
                _check_decay(number, phase, decay, warmup)
            found.append(Schedule(phase.learning_rate, warmup, phase.steps, begin, config.schedule, decay))
        else:
            found.append(run)
        begin += phase.steps
    return found


def _check_decay(number: int, phase: Phase, decay: int, warmup: int) -> None:
    """Raise UserError if the decay of a phase, its own or the run's, is longer than the phase without its warm-up."""
    if decay > phase.steps - warmup:
        name = "decay_steps" if phase.decay_steps >= 0 else "decay_steps, which are those of the run,"
        raise UserError(
            f"phase {number}'s {name} {decay} is longer than its {phase.steps:,} steps without their warm-up of {warmup:,}: "
            "give it fewer"
        )


@dataclass(frozen=True)
class OrderEntry:
    """Where a phase enters the order of its data.

    Args:
        first_row: rows of the order that earlier phases have read.
        batch_size: rows per batch that the order is made for; it divides the batch sizes of all phases that share the order.
        earlier: rows of each dataset that earlier phases have read in which it has another share; None for a dataset that has
            the same share in all phases. (): this is so for all.
    """

    first_row: int
    batch_size: int
    earlier: tuple[int | None, ...] = ()


Key = tuple[tuple[str, int], ...]  # of a mixture


def order_entries(keys: Sequence[Key], phases: Sequence[Phase]) -> list[OrderEntry]:
    """Return where each phase enters the order of its data: after the rows of all earlier phases on the same data.

    An order depends on its batch size (data/example_order.py). Phases that share a dataset, or a mixture, share the order for
    the largest batch size that divides all of theirs, and read several of its batches at once. A dataset whose share changes
    has an order that doesn't depend on the share or the batch size, and each phase continues it.
    """
    found: list[OrderEntry] = []
    for number, key in enumerate(keys):
        sizes = [other.batch_size for each, other in zip(keys, phases, strict=True) if each == key]
        before = zip(keys[:number], phases[:number], strict=True)
        first = sum(earlier.steps * earlier.batch_size for each, earlier in before if each == key)
        read = [_read_earlier(digest, number, keys, phases, found) for digest, _ in key]
        found.append(OrderEntry(first, math.gcd(*sizes), () if set(read) == {None} else tuple(read)))
    return found


def _read_earlier(
    digest: str, number: int, keys: Sequence[Key], phases: Sequence[Phase], entries: Sequence[OrderEntry]
) -> int | None:
    """Return the rows of a dataset that phases before phase `number` with another key have read; None if none has it.

    entries: of the earlier phases.
    """
    others = [at for at, key in enumerate(keys) if key != keys[number] and digest in dict(key)]
    read = 0
    for at in others:
        if at < number:
            share = shares(tuple(count for _, count in keys[at]))[list(dict(keys[at])).index(digest)]
            begin = entries[at].first_row
            read += int(share.before(begin + phases[at].steps * phases[at].batch_size) - share.before(begin))
    return read if others else None
