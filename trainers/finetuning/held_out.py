"""Holds out a fraction of the training examples, for runs without a dev file.

The split depends on the contents of the examples and on a seed, never on their order in the file. Identical texts (pairs:
both texts; SQuAD: all questions of one context) stay on the same side. It is stratified: texts are sorted by their rarest
label (regression: by their answer), then by hash, and every 1/fraction-th is held out. So each label is held out in
proportion. No label is missing from the training side: a label of a single text stays there.
"""

import collections
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.tasks.base import Example
from clozemill.trainers.finetuning.tasks.task_type import TaskType


@dataclass(frozen=True)
class Split:
    """Training and dev examples, each in the order of the file. `lone`: labels of a single text, which stays in training."""

    train: list[Example]
    dev: list[Example]
    lone: tuple[str, ...] = ()


@dataclass
class _Group:
    """Examples with the same text. hash: hash of the seed and the text."""

    hash: str
    numbers: list[int] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    value: float = 0.0


def _hash(key: tuple[str, ...], seed: int) -> str:
    """Hash a key; texts that differ only in case and white space get the same hash."""
    parts = [" ".join(text.casefold().split()) for text in key]
    return hashlib.blake2b("\0".join([str(seed), *parts]).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _groups(examples: Sequence[Example], task_type: TaskType, seed: int) -> list[_Group]:
    groups: dict[str, _Group] = {}
    for number, example in enumerate(examples):
        found = _hash(task_type.group_key(example), seed)
        group = groups.setdefault(found, _Group(found))
        group.numbers.append(number)
        group.labels |= set(task_type.strata(example))
        value = task_type.order(example)
        group.value = max(group.value, value) if len(group.numbers) > 1 else value
    return list(groups.values())


def _chosen(groups: list[_Group], fraction: float) -> tuple[set[str], tuple[str, ...]]:
    """Return (hashes of the held-out groups, labels of a single group)."""
    counts = collections.Counter(label for group in groups for label in group.labels)
    lone = {label for label, count in counts.items() if count == 1}

    def place(group: _Group) -> tuple:
        rarest = min(((counts[label], label) for label in group.labels), default=(0, ""))
        return (*rarest, group.value, group.hash)

    free = sorted((group for group in groups if not group.labels & lone), key=place)
    chosen = [
        group
        for number, group in enumerate(free)
        if math.floor((number + 1) * fraction + 0.5) > math.floor(number * fraction + 0.5)
    ]
    # A held-out text with several labels may be the last one with a label that isn't its rarest.
    held = collections.Counter(label for group in chosen for label in group.labels)
    kept = []
    for group in chosen:
        if any(held[label] == counts[label] for label in group.labels):
            held.subtract(group.labels)
        else:
            kept.append(group)
    return {group.hash for group in kept}, tuple(sorted(lone))


def split(examples: Sequence[Example], task_type: TaskType, fraction: float, seed: int, path: str) -> Split:
    """Split the examples of a file. Raises UserError if nothing can be held out.

    Args:
        fraction: fraction of the distinct texts to hold out, at most 0.5.
        path: path of the file, for messages.
    """
    groups = _groups(examples, task_type, seed)
    chosen, lone = _chosen(groups, fraction)
    held = {number for group in groups if group.hash in chosen for number in group.numbers}
    if not held:
        raise UserError(
            f"{path} has {len(groups):,} distinct texts, too few to hold out a fraction of {fraction:g}: give --dev, or a "
            "larger --dev-fraction"
        )
    train = [example for number, example in enumerate(examples) if number not in held]
    return Split(train, [examples[number] for number in sorted(held)], lone)
