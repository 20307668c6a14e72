"""The training part of `clozemill plan`: estimates epochs, chip hours, cost and bottlenecks. Doesn't load TensorFlow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from clozemill.model.config import GENERATOR_SIZE, EncoderConfig, preset
from clozemill.model.flops import step_flops_per_row
from clozemill.pipelines.common.estimates import Estimate
from clozemill.trainers.common import peak_flops
from clozemill.trainers.common.tpu_generations import Topology, parse_topology
from clozemill.trainers.planning.config import AUTO, TrainingPlan
from clozemill.trainers.pretraining.recipes import RECIPES, Phase

INPUT_TOKENS = 89_000 * 128  # tokens per second that one core read, parsed and batched (docs/explanation/measurements.md)
SPREAD = 1.5  # factor by which the utilisation may differ from the assumed one, in both directions
LOCAL_SPREAD = 2.0  # the same on a CPU
MANY_EPOCHS, ENOUGH_EPOCHS = 1000, 40  # Devlin et al. 2018 trained for 40 epochs

Told = tuple[list[Estimate], list[str], list[str]]


@dataclass(frozen=True)
class Dataset:
    """The expected dataset: train rows per copy with their range, shards per copy, and the sizes of a row.

    A row is an example, or several that are packed, `max_examples` at most.
    """

    rows: Estimate
    shards: int
    max_seq_length: int
    max_predictions: int
    vocab_size: int
    max_examples: int = 1


def _name(config: TrainingPlan) -> str:
    """Return the preset that is estimated."""
    return config.preset if config.preset not in ("", AUTO) else "base"


def _scaled(most: int, length: int, data: Dataset) -> int:
    """Return how many examples or predictions a row of another length has room for."""
    return max(1, round(most * length / data.max_seq_length))


def _phases(config: TrainingPlan, data: Dataset) -> list[tuple[Phase, int, int]]:
    """Return (phase with its batch size, sequence length, predictions); recipes may have a length per phase."""
    phases = config.phases or (Phase(steps=config.steps),)
    lengths = RECIPES[config.recipe].max_seq_lengths if config.recipe else ()
    found = []
    for number, phase in enumerate(phases):
        length = lengths[number] if len(lengths) == len(phases) > 1 else data.max_seq_length
        predictions = _scaled(data.max_predictions, length, data)
        size = phase.batch_size or config.batch_size
        found.append((replace(phase, batch_size=size, objective=phase.objective or config.objective), length, predictions))
    return found


@dataclass(frozen=True)
class _Machine:
    """What trains. peak: FLOP/s of all devices. unit: a device, for hours and prices; "" if they cost nothing."""

    name: str
    devices: int
    peak: float
    utilisation: float
    basis: str
    unit: str = ""
    price: float = 0.0
    cost: str = ""
    spread: float = SPREAD


def _tpu(config: TrainingPlan, local_flops: float) -> _Machine:
    topology = parse_topology(config.topology)
    tflops = topology.chip_tflops
    basis = f"of {tflops:g} TFLOP/s per chip (--utilisation)"
    peak, price = topology.chips * tflops * 1e12, config.price_chip_hour
    return _Machine(
        config.topology, topology.chips, peak, config.utilisation, basis, "TPU chip", price, "cost of training on TPUs"
    )


def _gpu(config: TrainingPlan, local_flops: float) -> _Machine:
    tflops, count = peak_flops.PEAK_TFLOPS[config.gpu_type], config.num_gpus
    basis = f"of {tflops:g} TFLOP/s per GPU, the peak of an {config.gpu_type} in bfloat16 (--utilisation)"
    name = f"{count} x {config.gpu_type}"
    return _Machine(
        name, count, count * tflops * 1e12, config.utilisation, basis, "GPU", config.price_gpu_hour, "cost of training on GPUs"
    )


def _local(config: TrainingPlan, local_flops: float) -> _Machine:
    basis = f"of the {local_flops / 1e9:,.0f} GFLOP/s that matrix products reached on this machine's CPU just now"
    return _Machine("this machine", 1, local_flops, peak_flops.CPU_SHARE, basis, spread=LOCAL_SPREAD)


MACHINES: dict[str, Callable[[TrainingPlan, float], _Machine]] = {"local": _local, "gpu": _gpu, "tpu": _tpu}


def estimate(config: TrainingPlan, data: Dataset, targets: Sequence[str] = ("tpu",), local_flops: float = 0.0) -> Told:
    """Return estimates, notes and warnings about training. Raises UserError for an unknown topology.

    Args:
        targets: keys of MACHINES.
        local_flops: FLOP/s of this machine's matrix products, for the target local.
    """
    encoder = preset(_name(config), vocab_size=data.vocab_size)
    phases = _phases(config, data)
    own = [phase for phase, length, _ in phases if length == data.max_seq_length]
    seen = sum(phase.steps * phase.batch_size for phase in own)
    packed = [_scaled(data.max_examples, length, data) if data.max_examples > 1 else 1 for _, length, _ in phases]
    flops = [
        objective_flops(encoder, phase.objective, length, count, most)
        for (phase, length, count), most in zip(phases, packed, strict=True)
    ]
    total = sum(phase.steps * phase.batch_size * each for (phase, _, _), each in zip(phases, flops, strict=True))
    figures, notes, warnings = [], [], []
    if data.rows.low:
        epochs = Estimate("epochs", "x", seen / data.rows.estimate, seen / data.rows.high, seen / data.rows.low)
        figures.append(epochs)
        warnings += _epoch_warnings(epochs.estimate, sum(phase.steps for phase in own))
    steps = sum(phase.steps for phase, _, _ in phases)
    for target in targets:
        machine = MACHINES[target](config, local_flops)
        figures += _machine_figures(machine, total)
        where = f" on {machine.name}" if target != "tpu" else ""
        notes.append(
            f"training{where} ({config.recipe or _name(config)}: {steps:,} steps) is estimated at "
            f"{100 * machine.utilisation:g} % {machine.basis}, without start-up, evaluation and checkpoints"
        )
    if len(own) < len(phases):
        notes.append(f"epochs count only the phases of {data.max_seq_length} tokens: plan the other datasets too")
    if any(len(phase.parts) > 1 for phase, _, _ in phases):
        notes.append("epochs count all rows of a mixture as rows of this corpus: multiply them by its weight")
    if "tpu" in targets:
        topology = parse_topology(config.topology)
        peak = topology.chips * topology.chip_tflops * 1e12 * config.utilisation
        rate = max(peak / each * length for (_, length, _), each in zip(phases, flops, strict=True))
        warnings += _batch_warnings(config, topology.devices, phases)
        warnings += _input_warnings(config, topology, rate, data.max_seq_length)
    if "gpu" in targets:
        warnings += _batch_warnings(config, config.num_gpus, phases)
    return figures, notes, list(dict.fromkeys(warnings))


def objective_flops(encoder: EncoderConfig, objective: str, length: int, predictions: int, examples: int) -> int:
    """Return the FLOPs per row of an objective."""
    generator_size = GENERATOR_SIZE if objective == "rtd" else 0.0
    return step_flops_per_row(encoder, length, predictions, objective == "causal", examples, generator_size)


def _machine_figures(machine: _Machine, flops: float) -> list[Estimate]:
    """Return the time of training on a machine, the hours of its devices and their price."""
    seconds, spread = flops / (machine.peak * machine.utilisation), machine.spread
    found = [("training on " + machine.name, "s", seconds)]
    hours = seconds * machine.devices / 3600
    if machine.unit:
        found.append((f"{machine.unit} hours", "h", hours))
    if machine.price:
        found.append((machine.cost, "price", hours * machine.price))
    return [Estimate(name, unit, value, value / spread, value * spread) for name, unit, value in found]


def _epoch_warnings(epochs: float, steps: int) -> list[str]:
    """Warn about a dataset that is far too small for the steps."""
    if epochs < MANY_EPOCHS:
        return []
    fewer = max(1, round(steps * ENOUGH_EPOCHS / epochs))
    return [
        f"training goes through the text {epochs:,.0f} times, and the model will learn it by heart (BERT: "
        f"{ENOUGH_EPOCHS} times): give more text, or about {fewer:,} --steps"
    ]


def _batch_warnings(config: TrainingPlan, replicas: int, phases: list[tuple[Phase, int, int]]) -> list[str]:
    parts = replicas * config.gradient_accumulation_steps
    sizes = dict.fromkeys(phase.batch_size for phase, _, _ in phases if phase.batch_size % parts)
    steps = config.gradient_accumulation_steps
    of = f"{replicas} replicas" + (f" x {steps} gradient accumulation steps" if steps > 1 else "")
    return [f"--batch-size {size} isn't divisible by {of}: give {-(-size // parts) * parts}" for size in sizes]


def _input_warnings(config: TrainingPlan, topology: Topology, tokens: float, length: int) -> list[str]:
    """Warn if the input is slower than the chips. tokens: tokens per second that all chips consume together."""
    count = topology.hosts
    wanted, given = tokens / length / count, config.input_rate or INPUT_TOKENS / length
    if wanted <= given:
        return []
    measured = "--input-rate" if config.input_rate else "as one core was measured"
    return [
        f"the chips of a host consume {wanted:,.0f} examples per second, but its input delivers {given:,.0f} ({measured}), so "
        "the chips will wait: use hosts with more cores, fewer chips or a larger model"
    ]
