"""`clozemill plan`: estimate output and cost of `prepare` from a sample that runs through its stages.

clozemill plan --input 'corpus/*.jsonl.gz' --vocab vocab.txt --target dataflow tpu --num-workers 32 --recipe bert-base
"""

import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psutil
from tqdm import tqdm

from clozemill.pipelines.beam import runners
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.estimates import Estimate
from clozemill.pipelines.common.sentence_languages import language_warning
from clozemill.pipelines.estimate import dry_run, sample
from clozemill.pipelines.estimate.config import EstimateConfig
from clozemill.pipelines.estimate.dry_run import DryRun, Rehearsal, vocabulary_of
from clozemill.pipelines.prepare.job import resolved
from clozemill.pipelines.readers import formats
from clozemill.pipelines.readers.formats import Plan
from clozemill.pipelines.readers.input_warnings import input_warnings

# Ranges. STUDENT: for the mean of 8 parts, two-sided 95 %. LEAST: minimum for text statistics; seconds have a larger one,
# because they depend on the load of the machine. UNSEEN: added if the beginning of a file represents all of it, times the
# unread fraction. LEARNT: added if the vocabulary was learned on the sample.
STUDENT, LEAST, LEAST_SECONDS, UNSEEN, LEARNT = 2.4, 0.03, 0.25, 0.2, 0.03
COPIES = 10  # of the sample: one document in ten is cut into short examples at random, so a single copy is too noisy
STARTUP_SECONDS = {"local": 10.0, "dataflow": 240.0}
GROUP_MEMORY, GROUP_TOKEN_BYTES, PROVENANCE_BYTES = 300e6, 6, 16  # per worker; per token of a group; with provenance
DATAFLOW_MEMORY = 3.75e9  # bytes per core of its default machines


@dataclass
class DataEstimate:
    """The estimate of `prepare`.

    basis: what it is based on, for plan.json. stage_seconds: seconds per stage for the complete corpus.
    """

    estimates: dict[str, Estimate] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    basis: dict[str, Any] = field(default_factory=dict)
    stage_seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, unit: str, estimate: float, low: float | None = None, high: float | None = None) -> Estimate:
        """Store an estimate; without a range, it is exact."""
        self.estimates[name] = Estimate(
            name, unit, estimate, estimate if low is None else low, estimate if high is None else high
        )
        return self.estimates[name]


@dataclass(frozen=True)
class Extrapolator:
    """Extrapolates from parts of a sample to a corpus of `total` bytes on disk.

    whole: the complete corpus was read, so nothing is scaled. unseen: fraction of the corpus after the file beginnings that
    were read. learnt: the vocabulary was learned on the sample, which it fits better than the corpus.
    """

    parts: list[DryRun]
    total: float
    whole: bool
    unseen: float = 0.0
    learnt: bool = False

    def __call__(self, of: Callable[[DryRun], float], least: float = LEAST) -> tuple[float, float, float]:
        """Return (estimate, low, high) of a value: its ratio to bytes on disk, and the deviation of the parts from it."""
        disk = sum(part.disk for part in self.parts)
        rate = sum(map(of, self.parts)) / disk
        spread = sum((of(part) - rate * part.disk) ** 2 for part in self.parts)
        count = len(self.parts)
        error = (spread * count / (count - 1)) ** 0.5 / disk * STUDENT if count > 1 else rate / 2
        margin = 0.0 if self.whole else max(error, rate * (LEAST + UNSEEN * self.unseen + LEARNT * self.learnt))
        margin = max(margin, rate * least) if least > LEAST else margin
        return rate * self.total, max(0.0, rate - margin) * self.total, (rate + margin) * self.total


def _scaled(values: tuple[float, float, float], factor: float) -> tuple[float, float, float]:
    value, low, high = values
    return factor * value, factor * low, factor * high


def _sampled(
    config: EstimateConfig, plan: Plan, folder: str, data: DataEstimate, bar: tqdm
) -> tuple[Extrapolator, float, bytes]:
    """Return the result of the sample, seconds of decompression for the complete corpus, and the vocabulary."""
    least = config.sample_min_mb * 1e6
    wanted = min(max(plan.text_estimate * config.sample_fraction, least), config.sample_max_mb * 1e6)
    infos = list(formats.input_files(config.input).values())
    drawn = sample.draw(infos, config, wanted / plan.text_estimate, folder, lambda: bar.update(1))
    splits = [split for part in drawn.parts for split in part.splits]
    vocabulary = vocabulary_of(splits, config, config.vocab_size)
    rehearsal = Rehearsal(vocabulary, folder)
    # One group and no eval split: both follow by arithmetic, and a part has few documents.
    alone = replace(config, num_groups=1, dupe_factor=COPIES, eval_fraction=0.0, max_predictions=config.predictions())
    parts = []
    for part in drawn.parts:
        if part.disk:
            parts.append(rehearsal.run(part.splits, part.disk, alone, 0, lambda: None))
        bar.update(sample.WINDOWS // sample.PARTS)
    sizes = {info.path: info.size for info in infos}
    unseen = sum(sizes[path] * (1 - share) for path, share in drawn.prefixes)
    for path, share in drawn.prefixes[:3]:
        data.notes.append(f"{path} can't be read from the middle, so its first {100 * share:.3g} % represent all of it")
    return (
        Extrapolator(parts, plan.size, whole=False, unseen=unseen / plan.size, learnt=not config.vocab),
        drawn.unpacking,
        vocabulary,
    )


def _whole(config: EstimateConfig, plan: Plan, folder: str, bar: tqdm) -> tuple[Extrapolator, float, bytes]:
    """Process a small corpus completely, as `prepare` would."""
    vocabulary = vocabulary_of(plan.splits, config, config.vocab_size)
    full, eval_groups = resolved(config, plan.text_estimate)
    outcome = Rehearsal(vocabulary, folder).run(plan.splits, float(plan.size), full, eval_groups, lambda: bar.update(1))
    return Extrapolator([outcome], plan.size, whole=True), 0.0, vocabulary


def measure(config: EstimateConfig) -> DataEstimate:
    """Process and scale a sample, or process a small corpus completely. Leaves no files. Raise UserError."""
    if config.language:
        from clozemill.pipelines.filtering.heuristics import identifier

        identifier()
    if config.vocab:
        vocabulary_of([], config, 0)  # report an invalid vocabulary before reading anything
    plan, data = formats.plan(config), DataEstimate()
    whole = plan.text_estimate <= 2e6 * config.sample_min_mb
    steps = len(plan.splits) + resolved(config, plan.text_estimate)[0].num_groups if whole else 2 * sample.WINDOWS
    with (
        tempfile.TemporaryDirectory(prefix="clozemill-plan-") as folder,
        tqdm(
            total=steps,
            desc="processing" if whole else "processing a sample",
            disable=None if config.progress else True,
            bar_format="{desc} {bar} {percentage:3.0f} %",
        ) as bar,
    ):
        found = _whole(config, plan, folder, bar) if whole else _sampled(config, plan, folder, data, bar)
    scale, unpacking, vocabulary = found
    if not sum(part.documents for part in scale.parts):
        read = sum(part.summary.read for part in scale.parts)
        where = "input" if whole else "sample"
        raise UserError(f"the {where} contains no usable document ({read:,} records read): check --input and filters")
    data.basis |= _basis(config, plan, scale, vocabulary)
    _estimate_counts(config, plan, scale, data)
    _estimate_time(config, plan, scale, unpacking, data)
    _add_warnings(config, plan, scale, data)
    data.warnings += input_warnings(plan)
    return data


def _basis(config: EstimateConfig, plan: Plan, scale: Extrapolator, vocabulary: bytes) -> dict[str, Any]:
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
        **({"packing": dry_run.largest_rows(parts)} if config.packing == "on" else {}),
    }


def _processor() -> str:
    """Return the name of this machine's processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _estimate_counts(config: EstimateConfig, plan: Plan, scale: Extrapolator, data: DataEstimate) -> None:
    """Estimate documents, tokens, examples, bytes and groups."""
    full, eval_groups = resolved(config, plan.text_estimate)
    copies = config.dupe_factor
    data.add("documents read", "", *scale(lambda part: part.summary.read))
    data.add("documents kept", "", *scale(lambda part: part.documents))
    data.add("characters", "", *scale(lambda part: part.summary.characters))
    data.add("tokens", "", *scale(lambda part: part.summary.tokens))
    rows = (("rows", ""),) if config.packing == "on" else ()
    for what, unit in (("examples", ""), *rows, ("bytes", "B")):
        train = scale(partial(DryRun.count, split="train", what=what))
        held_out = scale(partial(DryRun.count, split="eval", what=what)) if scale.whole else _eval_part(train, config, data)
        train = _scaled(train, 1 / copies if scale.whole else (1 - config.eval_fraction) / COPIES)
        data.add(f"train {what} per copy", unit, *train)
        data.add(f"eval {what}", unit, *held_out)
        total = [copies * one + other for one, other in zip(train, held_out, strict=True)]
        data.add(f"{what} in all", unit, *total)
    data.add("padding", "%", *dry_run.padding_percent(scale.parts))
    data.add("train groups", "", full.num_groups)
    data.add("eval groups", "", eval_groups)
    data.add("tokens per group", "", *(value / full.num_groups for value in _triple(data.estimates["tokens"])))


def _eval_part(train: tuple[float, float, float], config: EstimateConfig, data: DataEstimate) -> tuple[float, float, float]:
    """Return the eval split's share with its range: documents are drawn independently, so a small split varies by chance."""
    estimate, low, high = _scaled(train, config.eval_fraction / COPIES)
    chance = 2 * estimate / max(data.estimates["documents kept"].estimate * config.eval_fraction, 1.0) ** 0.5
    return estimate, max(0.0, low - chance), high + chance


def _triple(values: Estimate) -> tuple[float, float, float]:
    return values.estimate, values.low, values.high


def workers(config: EstimateConfig, plan: Plan) -> int:
    """Return --num-workers, by default 1, on Dataflow; elsewhere the processes that `prepare` would have on this machine."""
    return config.num_workers or 1 if "dataflow" in config.target else runners.workers(config, plan.text_estimate)


def _estimate_time(config: EstimateConfig, plan: Plan, scale: Extrapolator, unpacking: float, data: DataEstimate) -> None:
    """Estimate CPU hours, wall time and cost."""
    passes = config.dupe_factor * (1 - config.eval_fraction) + config.eval_fraction
    copies = config.dupe_factor if scale.whole else COPIES
    before = [value + unpacking for value in scale(lambda part: part.split_seconds, LEAST_SECONDS)]
    after = _scaled(scale(lambda part: part.group_seconds, LEAST_SECONDS), passes)
    count, groups = workers(config, plan), data.estimates["train groups"].estimate + data.estimates["eval groups"].estimate
    cpu = [one + other for one, other in zip(before, after, strict=True)]
    data.add("CPU of prepare", "h", *(value / 3600 for value in cpu))
    largest = max(split.size for split in plan.splits) / max(plan.size, 1)
    startup = STARTUP_SECONDS["dataflow" if "dataflow" in config.target else "local"]
    wall = [
        startup + max(one / count, one * largest) + other / min(count, groups) for one, other in zip(before, after, strict=True)
    ]
    name = f"wall time, {count} worker" + "s" * (count > 1)
    data.add(name, "s", wall[0], wall[1], 1.5 * wall[2])  # machines are shared, and a cloud vCPU is half a core
    data.stage_seconds = {"decompress": unpacking} if unpacking else {}
    for part in scale.parts:
        of_all = scale.total / sum(part.disk for part in scale.parts)
        for seconds, factor in ((part.split_stages, of_all), (part.group_stages, of_all * passes / copies)):
            for stage, value in seconds.items():
                data.stage_seconds[stage] = data.stage_seconds.get(stage, 0.0) + value * factor
    if largest > 1.5 / count and before[0] * largest > 60:
        split = max(plan.splits, key=lambda split: split.size)
        data.warnings.append(
            f"{split.path} is read by one worker in one piece, about {before[0] * largest / 60:,.0f} minutes while the others "
            f"wait: split it into at least {count} files"
        )
    if config.price_cpu_hour:
        data.add(
            "cost of prepare",
            "price",
            *(count * value / 3600 * config.price_cpu_hour for value in _triple(data.estimates[name])),
        )
    if config.price_gb_month:
        stored = _triple(data.estimates["bytes in all"])
        data.add("cost of a month of storage", "price", *(value / 1e9 * config.price_gb_month for value in stored))


def group_memory(tokens: float, provenance: bool, beam: bool) -> float:
    """Return the bytes that a worker needs for a group with this many tokens; Beam's shuffle holds the group twice."""
    return GROUP_MEMORY + tokens * (GROUP_TOKEN_BYTES + PROVENANCE_BYTES * provenance) * (1 + beam)


def _add_warnings(config: EstimateConfig, plan: Plan, scale: Extrapolator, data: DataEstimate) -> None:
    """Add a sentence for each expected problem, with what to do."""
    cloud = "dataflow" in config.target
    groups, tokens = data.estimates["train groups"].estimate, data.estimates["tokens per group"]
    room = DATAFLOW_MEMORY if cloud else psutil.virtual_memory().total / workers(config, plan)
    need = group_memory(tokens.high, config.provenance, cloud or config.shuffle == "beam")
    if need > room:
        fewer = int(groups * need / (0.5 * room)) + 1
        data.warnings.append(
            f"a group of {tokens.high / 1e6:,.0f} M tokens needs {need / 1e9:.1f} GB, a worker has {room / 1e9:.1f} GB: give "
            f"--num-groups {fewer} or more"
        )
    if groups > data.estimates["documents kept"].estimate:
        data.warnings.append(f"there are more groups than documents: lower --num-groups below {groups:,.0f}")
    if unknown := language_warning(config.splitter, config.sentence_language):
        data.warnings.append(unknown)
    bad, read = (sum(getattr(part.summary, name) for part in scale.parts) for name in ("bad", "read"))
    if bad > config.max_reject_rate * read:
        reasons = sorted({reason for part in scale.parts for reason in part.summary.dropped})
        data.warnings.append(
            f"{bad:,} of {read:,} records are malformed, more than --max-reject-rate {config.max_reject_rate:g} allows, so "
            f"prepare would fail (dropped: {', '.join(reasons)}): correct them, or raise the limit"
        )
    if not data.estimates["train examples per copy"].estimate:
        data.warnings.append(
            f"no training example could be built: --pairs {config.pairs} needs documents of two sentences, or a second "
            "document in the group: add text, or lower --num-groups"
        )
