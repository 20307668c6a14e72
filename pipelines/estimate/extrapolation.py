"""`clozemill plan`: what `prepare` will make of a corpus, and what it will take, from a sample that runs through its stages.

clozemill plan --input 'corpus/*.jsonl.gz' --vocab vocab.txt --target dataflow tpu --num-workers 32 --recipe bert-base
"""

import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import psutil
from tqdm import tqdm

from clozemill.pipelines.command_line.options import require
from clozemill.pipelines.common import runtime
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.estimates import Estimate
from clozemill.pipelines.common.sentence_languages import language_warning
from clozemill.pipelines.estimate import sample
from clozemill.pipelines.estimate.config import MillPlan
from clozemill.pipelines.estimate.dry_run import DryRun, Rehearsal, vocabulary_of
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.prepare.job import resolved
from clozemill.pipelines.readers import formats
from clozemill.pipelines.readers.formats import Plan
from clozemill.pipelines.readers.input_warnings import input_warnings

# Ranges. STUDENT: of the mean of 8 parts, two-sided 95 %. The least: of what depends on the text, and of seconds, which
# depend on what else the machine does. UNSEEN: added where a file's beginning stands for all of it, times the rest's share.
# LEARNT: added for a vocabulary of the sample.
STUDENT, LEAST, LEAST_SECONDS, UNSEEN, LEARNT = 2.4, 0.03, 0.25, 0.2, 0.03
COPIES = 10  # of the sample: a document in ten is cut into short examples at random, which a single draw tells poorly
STARTUP_SECONDS = {"local": 10.0, "dataflow": 240.0}
GROUP_MEMORY, GROUP_TOKEN_BYTES, PROVENANCE_BYTES = 300e6, 6, 16  # bytes of a worker, per token of a group, with provenance
DATAFLOW_MEMORY = 3.75e9  # bytes a core, of its default machines


@dataclass
class Mill:
    """The mill's part of the plan. about: what the estimate rests on. stages: seconds of the whole corpus."""

    figures: dict[str, Estimate] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, unit: str, estimate: float, low: float | None = None, high: float | None = None) -> Estimate:
        """Keeps a figure; without a range, it is exact."""
        self.figures[name] = Estimate(
            name, unit, estimate, estimate if low is None else low, estimate if high is None else high
        )
        return self.figures[name]


@dataclass(frozen=True)
class Extrapolator:
    """From parts of a sample to the corpus of `total` bytes on disk.

    whole: the corpus was read, so nothing is scaled. unseen: share of it that lies behind the beginnings that were read.
    learnt: so was the vocabulary, which fits the sample better than the corpus.
    """

    parts: list[DryRun]
    total: float
    whole: bool
    unseen: float = 0.0
    learnt: bool = False

    def __call__(self, of: Callable[[DryRun], float], least: float = LEAST) -> tuple[float, float, float]:
        """(estimate, low, high) of a figure: the ratio to bytes on disk, and how far the parts are from it."""
        disk = sum(part.disk for part in self.parts)
        rate = sum(map(of, self.parts)) / disk
        spread = sum((of(part) - rate * part.disk) ** 2 for part in self.parts)
        count = len(self.parts)
        error = (spread * count / (count - 1)) ** 0.5 / disk * STUDENT if count > 1 else rate / 2
        margin = 0.0 if self.whole else max(error, rate * (LEAST + UNSEEN * self.unseen + LEARNT * self.learnt))
        margin = max(margin, rate * least) if least > LEAST else margin
        return rate * self.total, max(0.0, rate - margin) * self.total, (rate + margin) * self.total


def _times(figure: tuple[float, float, float], factor: float) -> tuple[float, float, float]:
    return tuple(factor * value for value in figure)


def _sampled(config: MillPlan, plan: Plan, folder: str, mill: Mill, bar: tqdm) -> tuple[Extrapolator, float, bytes]:
    """The sample's outcome, seconds of decompression for the whole corpus, and the vocabulary."""
    least = config.sample_min_mb * 1e6
    wanted = min(max(plan.text_estimate * config.sample_fraction, least), config.sample_max_mb * 1e6)
    infos = filesystem.match(config.input)
    drawn = sample.draw(infos, config, wanted / plan.text_estimate, folder, lambda: bar.update(1))
    splits = [split for part in drawn.parts for split in part.splits]
    vocabulary = vocabulary_of(splits, config, config.vocab_size)
    rehearsal = Rehearsal(vocabulary, folder)
    # One group and no eval split: those are arithmetic, and a part has few documents.
    alone = replace(config, num_groups=1, dupe_factor=COPIES, eval_fraction=0.0, max_predictions=config.predictions())
    parts = []
    for part in drawn.parts:
        if part.disk:
            parts.append(rehearsal.run(part.splits, part.disk, alone, 0, lambda: None))
        bar.update(sample.WINDOWS // sample.PARTS)
    sizes = {info.path: info.size for info in infos}
    unseen = sum(sizes[path] * (1 - share) for path, share in drawn.prefixes)
    for path, share in drawn.prefixes[:3]:
        mill.notes.append(f"{path} can't be entered in the middle, so its first {100 * share:.3g} % stand for the whole of it")
    return (
        Extrapolator(parts, plan.size, whole=False, unseen=unseen / plan.size, learnt=not config.vocab),
        drawn.unpacking,
        vocabulary,
    )


def _whole(config: MillPlan, plan: Plan, folder: str, bar: tqdm) -> tuple[Extrapolator, float, bytes]:
    """A small corpus: all of it, as `prepare` would do it."""
    vocabulary = vocabulary_of(plan.splits, config, config.vocab_size)
    full, eval_groups = resolved(config, plan.text_estimate)
    outcome = Rehearsal(vocabulary, folder).run(plan.splits, float(plan.size), full, eval_groups, lambda: bar.update(1))
    return Extrapolator([outcome], plan.size, whole=True), 0.0, vocabulary


def measure(config: MillPlan) -> Mill:
    """Reads, mills and scales a sample, or a small corpus as a whole. Leaves nothing behind. Raises UserError."""
    require(config, "input")
    if config.language:
        from clozemill.pipelines.filtering.heuristics import identifier

        identifier()
    if config.vocab:
        vocabulary_of([], config, 0)  # a mistake in it is told before anything is read
    plan, mill = formats.plan(config), Mill()
    whole = plan.text_estimate <= 2e6 * config.sample_min_mb
    steps = len(plan.splits) + resolved(config, plan.text_estimate)[0].num_groups if whole else 2 * sample.WINDOWS
    with tempfile.TemporaryDirectory(prefix="clozemill-plan-") as folder:
        shown = None if config.progress else True
        with tqdm(
            total=steps,
            desc="milling" if whole else "milling a sample",
            disable=shown,
            bar_format="{desc} {bar} {percentage:3.0f} %",
        ) as bar:
            found = _whole(config, plan, folder, bar) if whole else _sampled(config, plan, folder, mill, bar)
    scale, unpacking, vocabulary = found
    if not sum(part.documents for part in scale.parts):
        read = sum(part.summary.read for part in scale.parts)
        where = "input" if whole else "sample"
        raise UserError(f"the {where} holds no document to keep ({read:,} records read): check --input and the filters")
    mill.about |= _about(config, plan, scale, vocabulary)
    _count(config, plan, scale, mill)
    _take(config, plan, scale, unpacking, mill)
    _warn(config, scale, mill)
    mill.warnings += input_warnings(plan)
    return mill


def _about(config: MillPlan, plan: Plan, scale: Extrapolator, vocabulary: bytes) -> dict[str, Any]:
    parts = scale.parts
    return {
        "whole": scale.whole,
        "files": plan.files,
        "input_bytes": plan.size,
        "sample_records": sum(part.summary.read for part in parts),
        "sample_documents": sum(part.documents for part in parts),
        "sample_characters": sum(part.summary.characters for part in parts),
        "sample_duplicates": sum(part.duplicates for part in parts),
        "vocabulary_size": len(vocabulary.split(b"\n")) - vocabulary.endswith(b"\n"),
        "vocabulary_learnt": not config.vocab,
        "measured_on": _processor(),
        "max_predictions": config.predictions(),
    }


def _processor() -> str:
    """What this machine's processor calls itself."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _count(config: MillPlan, plan: Plan, scale: Extrapolator, mill: Mill) -> None:
    """Documents, tokens, examples, bytes, groups."""
    full, eval_groups = resolved(config, plan.text_estimate)
    copies, evals = config.dupe_factor, config.eval_fraction
    mill.add("documents read", "", *scale(lambda part: part.summary.read))
    mill.add("documents kept", "", *scale(lambda part: part.documents))
    mill.add("characters", "", *scale(lambda part: part.summary.characters))
    mill.add("tokens", "", *scale(lambda part: part.summary.tokens))
    for what, unit in (("examples", ""), ("bytes", "B")):
        train = scale(lambda part, what=what: part.count("train", what))
        held = scale(lambda part, what=what: part.count("eval", what)) if scale.whole else _drawn(train, config, mill)
        train = _times(train, 1 / copies if scale.whole else (1 - evals) / COPIES)
        mill.add(f"train {what} per copy", unit, *train)
        mill.add(f"eval {what}", unit, *held)
        total = [copies * one + other for one, other in zip(train, held, strict=True)]
        mill.add(f"{what} in all", unit, *total)
    mill.add("train groups", "", full.num_groups)
    mill.add("eval groups", "", eval_groups)
    mill.add("tokens per group", "", *(value / full.num_groups for value in _triple(mill.figures["tokens"])))


def _drawn(train: tuple[float, float, float], config: MillPlan, mill: Mill) -> tuple[float, float, float]:
    """The eval split's share: each document is drawn for it by itself, so that a small split's size is chance."""
    estimate, low, high = _times(train, config.eval_fraction / COPIES)
    chance = 2 * estimate / max(mill.figures["documents kept"].estimate * config.eval_fraction, 1.0) ** 0.5
    return estimate, max(0.0, low - chance), high + chance


def _triple(figure: Estimate) -> tuple[float, float, float]:
    return figure.estimate, figure.low, figure.high


def workers(config: MillPlan) -> int:
    """--num-workers; by default this machine's cores, or 1 elsewhere."""
    return config.num_workers or (1 if "dataflow" in config.target else runtime.cores())


def _take(config: MillPlan, plan: Plan, scale: Extrapolator, unpacking: float, mill: Mill) -> None:
    """CPU hours, wall time, cost."""
    passes = config.dupe_factor * (1 - config.eval_fraction) + config.eval_fraction
    copies = config.dupe_factor if scale.whole else COPIES
    before = [value + unpacking for value in scale(lambda part: part.mill_seconds, LEAST_SECONDS)]
    after = _times(scale(lambda part: part.group_seconds, LEAST_SECONDS), passes)
    count, groups = workers(config), mill.figures["train groups"].estimate + mill.figures["eval groups"].estimate
    cpu = [one + other for one, other in zip(before, after, strict=True)]
    mill.add("CPU of the mill", "h", *(value / 3600 for value in cpu))
    largest = max(split.size for split in plan.splits) / max(plan.size, 1)
    startup = STARTUP_SECONDS["dataflow" if "dataflow" in config.target else "local"]
    wall = [
        startup + max(one / count, one * largest) + other / min(count, groups) for one, other in zip(before, after, strict=True)
    ]
    name = f"wall time, {count} worker" + "s" * (count > 1)
    mill.add(name, "s", wall[0], wall[1], 1.5 * wall[2])  # machines are shared, and a cloud's core is half a core
    mill.stages = {"decompress": unpacking} if unpacking else {}
    for part in scale.parts:
        of_all = scale.total / sum(part.disk for part in scale.parts)
        for seconds, factor in ((part.mill_stages, of_all), (part.group_stages, of_all * passes / copies)):
            for stage, value in seconds.items():
                mill.stages[stage] = mill.stages.get(stage, 0.0) + value * factor
    if largest > 1.5 / count and before[0] * largest > 60:
        split = max(plan.splits, key=lambda split: split.size)
        mill.warnings.append(
            f"{split.path} is read by one worker in one piece, about {before[0] * largest / 60:,.0f} minutes while the others "
            f"wait: cut it into {count} files or more"
        )
    if config.price_cpu_hour:
        mill.add(
            "cost of the mill",
            "price",
            *(count * value / 3600 * config.price_cpu_hour for value in _triple(mill.figures[name])),
        )
    if config.price_gb_month:
        stored = _triple(mill.figures["bytes in all"])
        mill.add("cost of keeping the shards a month", "price", *(value / 1e9 * config.price_gb_month for value in stored))


def group_memory(tokens: float, provenance: bool, beam: bool) -> float:
    """Bytes that a worker needs for a group of so many tokens; Beam's own shuffle holds the group once more."""
    return GROUP_MEMORY + tokens * (GROUP_TOKEN_BYTES + PROVENANCE_BYTES * provenance) * (1 + beam)


def _warn(config: MillPlan, scale: Extrapolator, mill: Mill) -> None:
    """What will hurt, a sentence each with what to do."""
    cloud = "dataflow" in config.target
    groups, tokens = mill.figures["train groups"].estimate, mill.figures["tokens per group"]
    room = DATAFLOW_MEMORY if cloud else psutil.virtual_memory().total / workers(config)
    need = group_memory(tokens.high, config.provenance, cloud or config.shuffle == "beam")
    if need > room:
        fewer = int(groups * need / (0.5 * room)) + 1
        mill.warnings.append(
            f"a group of {tokens.high / 1e6:,.0f} M tokens takes {need / 1e9:.1f} GB of a worker's {room / 1e9:.1f} GB: give "
            f"--num-groups {fewer} or more"
        )
    if groups > mill.figures["documents kept"].estimate:
        mill.warnings.append(f"there are more groups than documents: give fewer --num-groups than {groups:,.0f}")
    if unknown := language_warning(config.splitter, config.sentence_language):
        mill.warnings.append(unknown)
    bad, read = (sum(getattr(part.summary, name) for part in scale.parts) for name in ("bad", "read"))
    if bad > config.max_reject_rate * read:
        reasons = sorted({reason for part in scale.parts for reason in part.summary.dropped})
        mill.warnings.append(
            f"{bad:,} of {read:,} records are defective, more than --max-reject-rate {config.max_reject_rate:g} allows, so "
            f"that prepare would stop (dropped: {', '.join(reasons)}): mend them, or raise the rate"
        )
    if not mill.figures["train examples per copy"].estimate:
        mill.warnings.append(
            f"no training example could be built: --pairs {config.pairs} needs documents of two sentences, or a second "
            "document in the group: give more text or fewer --num-groups"
        )
