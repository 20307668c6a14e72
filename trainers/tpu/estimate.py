"""The training part of `clozemill plan`: estimates epochs, chip hours, cost and bottlenecks. Doesn't load TensorFlow."""

from dataclasses import dataclass

from clozemill.model.config import preset
from clozemill.model.flops import flops_per_example
from clozemill.pipelines.common.estimates import Estimate
from clozemill.trainers.pretraining.recipes import RECIPES, Phase
from clozemill.trainers.tpu import generations
from clozemill.trainers.tpu.config import TrainingPlan
from clozemill.trainers.tpu.generations import Topology

INPUT_TOKENS = 89_000 * 128  # tokens per second that one core read, parsed and batched (docs/explanation/measurements.md)
SPREAD = 1.5  # factor by which the utilisation may differ from the assumed one, in both directions

Told = tuple[list[Estimate], list[str], list[str]]


@dataclass(frozen=True)
class Dataset:
    """The expected dataset: train examples per copy with their range, shards per copy, and their sizes."""

    examples: Estimate
    shards: int
    max_seq_length: int
    max_predictions: int
    vocab_size: int


def _phases(config: TrainingPlan, data: Dataset) -> list[tuple[Phase, int, int]]:
    """Return (phase with its batch size, sequence length, predictions); recipes may have a length per phase."""
    phases = config.phases or (Phase(steps=config.steps),)
    lengths = RECIPES[config.recipe].max_seq_lengths if config.recipe else ()
    found = []
    for number, phase in enumerate(phases):
        length = lengths[number] if len(lengths) == len(phases) > 1 else data.max_seq_length
        predictions = max(1, round(data.max_predictions * length / data.max_seq_length))
        size = phase.batch_size or config.batch_size
        found.append((Phase(phase.data, phase.steps, size), length, predictions))
    return found


def estimate(config: TrainingPlan, data: Dataset) -> Told:
    """Return estimates, notes and warnings about training. Raises UserError for an unknown topology."""
    topology = generations.parse(config.topology)
    causal = config.objective == "causal"
    encoder = preset(config.preset or "base", vocab_size=data.vocab_size)
    figures, notes, warnings = [], [], []
    seconds, rate = 0.0, 0.0
    phases = _phases(config, data)
    own = [phase for phase, length, _ in phases if length == data.max_seq_length]
    seen = sum(phase.steps * phase.batch_size for phase in own)
    peak = topology.chips * generations.chip_tflops(topology) * 1e12 * config.utilisation
    for phase, length, predictions in phases:
        flops = flops_per_example(encoder, length, predictions, causal)
        seconds += phase.steps * phase.batch_size * flops / peak
        rate = max(rate, peak / flops * length)
    low, high = data.examples.low, data.examples.high
    if low:
        figures.append(Estimate("epochs", "x", seen / data.examples.estimate, seen / high, seen / low))
    figures.append(Estimate(f"training on {config.topology}", "s", seconds, seconds / SPREAD, seconds * SPREAD))
    chips = seconds * topology.chips / 3600
    figures.append(Estimate("TPU chip hours", "h", chips, chips / SPREAD, chips * SPREAD))
    if config.price_chip_hour:
        price = chips * config.price_chip_hour
        figures.append(Estimate("cost of training", "price", price, price / SPREAD, price * SPREAD))
    steps = sum(phase.steps for phase, _, _ in phases)
    what = f"{config.recipe or config.preset or 'base'}: {steps:,} steps"
    notes.append(
        f"training ({what}) is estimated at {100 * config.utilisation:g} % of {generations.chip_tflops(topology):g} TFLOP/s "
        "per chip (--utilisation), without start-up, evaluation and checkpoints"
    )
    if len(own) < len(phases):
        notes.append(f"epochs count only the phases of {data.max_seq_length} tokens: plan the other datasets too")
    warnings = [*_shard_warnings(data, topology), *_batch_warnings(config, topology, phases), *_input_warnings(
        config, topology, rate, data.max_seq_length)]  # fmt: skip
    return figures, notes, warnings


def _shard_warnings(data: Dataset, topology: Topology) -> list[str]:
    """Warn about shards that don't suit the hosts. Host r reads every R-th shard: fewer shards than hosts is an error."""
    count = generations.hosts(topology)
    if data.shards < count:
        return [f"{data.shards} train shards per copy are too few for the {count} hosts of {topology.name}, and pretrain "
                f"will fail: give --num-groups {count} or a multiple"]  # fmt: skip
    if data.shards % count and data.shards < 8 * count:
        even = -(-data.shards // count) * count
        return [f"{data.shards} train shards per copy can't be divided evenly among {count} hosts: give --num-groups {even}"]
    return []


def _batch_warnings(config: TrainingPlan, topology: Topology, phases: list[tuple[Phase, int, int]]) -> list[str]:
    parts = topology.devices * config.gradient_accumulation_steps
    sizes = dict.fromkeys(phase.batch_size for phase, _, _ in phases if phase.batch_size % parts)
    steps = config.gradient_accumulation_steps
    of = f"{topology.devices} replicas" + (f" x {steps} gradient accumulation steps" if steps > 1 else "")
    return [f"--batch-size {size} isn't divisible by {of}: give {-(-size // parts) * parts}" for size in sizes]


def _input_warnings(config: TrainingPlan, topology: Topology, tokens: float, length: int) -> list[str]:
    """Warn if the input is slower than the chips. tokens: tokens per second that all chips consume together."""
    count = generations.hosts(topology)
    wanted, given = tokens / length / count, config.input_rate or INPUT_TOKENS / length
    if wanted <= given:
        return []
    measured = "--input-rate" if config.input_rate else "as one core was measured"
    return [
        f"the chips of a host consume {wanted:,.0f} examples per second, but its input delivers {given:,.0f} ({measured}), so "
        "the chips will wait: use hosts with more cores, fewer chips or a larger model"
    ]
