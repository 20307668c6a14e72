"""The schedules of a run's phases, and where their orders of examples begin."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.data.mixing import shares
from clozemill.trainers.engines.optimizer import Schedule
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.recipes import RECIPES, Phase


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


def check_inherited(config: PretrainConfig, phases: Sequence[Phase]) -> None:
    """Raise UserError if a phase with a rate of its own has no room for the run's warm-up or decay. For new runs only."""
    recipe = RECIPES[config.recipe].options if config.recipe else {}
    for number, phase in enumerate(phases, 1):
        for name in ("warmup_steps", "decay_steps") if phase.learning_rate else ():
            given, own = getattr(config, name), getattr(phase, name)
            warmup = phase.warmup_steps if phase.warmup_steps >= 0 else config.warmup(phase.steps)
            room = phase.steps - 1 if name == "warmup_steps" else phase.steps - warmup
            if own < 0 <= given and given > room and recipe.get(name) != given:
                raise UserError(
                    f"phase {number} has a learning rate of its own, and --{name.replace('_', '-')} {given:,} doesn't fit into "
                    f"its {phase.steps:,} steps: give it {name} of its own"
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
