"""Chooses the options of `pretrain` that were left open, from the device and the data.

`choose` is a pure function of what it is given; tests/trainers/pretraining/test_defaults.py has the table. A run records what
was chosen in run.json, and a resumed run uses that, also on another machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clozemill.model import memory
from clozemill.model.config import PRESETS, EncoderConfig, preset
from clozemill.trainers.common.hardware import GIB, AttentionKernel, Hardware
from clozemill.trainers.engines.optimizer import OPTIMIZERS, default_clip_norm
from clozemill.trainers.pretraining.config import AUTO

FILL = 0.8  # fraction of the free memory that an automatic choice may fill by its estimate
RUNTIME = 300 << 20  # bytes that TensorFlow, the input pipeline and the allocator need besides
_TOKENS = {"tiny": 0, "mini": 20e6, "small": 100e6, "medium": 400e6, "base": 1.5e9}  # smallest corpus, tokens per epoch
_CPU_CORES = {"tiny": 0, "mini": 8, "small": 32}  # fewest cores
_MEMORY = {"tiny": 0, "mini": 0, "small": 0, "medium": 6 * GIB, "base": 10 * GIB}  # least memory of a GPU, in bytes
_TPU_MEMORY = 8 * GIB  # the smallest TPU device; more isn't known before its system is initialised
# Rows of 128 tokens per update. CPUs are as fast with small batches, and more updates learn more per example.
_CPU_BATCH, _BATCH = 32, 256
_LARGEST_CPU_BATCH = 128


@dataclass(frozen=True)
class Shape:
    """The batches of a phase: tokens and predictions per row, rows per update (0 if that is to be chosen), examples per row.

    causal: whether every token is predicted. generator: for replaced-token detection, the width of the generator as a fraction
    of the encoder's; 0 for others. steps: of the phase. learning_rate: its own, or 0 for that of the run.
    """

    length: int
    predictions: int
    batch_size: int = 0
    examples: int = 1
    causal: bool = False
    generator: float = 0.0
    steps: int = 0
    learning_rate: float = 0.0


@dataclass(frozen=True)
class Data:
    """The datasets of a run: rows per epoch and tokens per row of the largest one, and the batches of each phase."""

    rows: int
    length: int
    vocab_size: int
    shapes: tuple[Shape, ...]

    @property
    def tokens(self) -> int:
        """Return the tokens of an epoch, including padding."""
        return self.rows * self.length


@dataclass(frozen=True)
class Suited:
    """Options that suit an encoder by its width: narrow ones learn only with high rates, wide ones diverge with them.

    muon: factor of the learning rate with Muon.
    """

    learning_rate: float
    initializer_range: float = 0.02
    weight_decay: float = 0.01
    dropout: float = 0.1
    attention_dropout: float = 0.1
    muon: float = 1.0


# By the largest hidden size that they suit. The first two were measured (docs/explanation/measurements.md); base and large
# have the values of Devlin et al. 2018; those between are between.
_SUITED = {
    128: Suited(2e-3, 0.08, 0.05, 0.0, 0.0),
    256: Suited(1e-3, 0.06, 0.05, 0.0, 0.0),
    512: Suited(5e-4),
    768: Suited(1e-4),
}
# ModernBERT: pre-norm bears higher rates, and rotary positions need no wide initial weights. The first was measured; base and
# large have the rates of Warner et al. 2024.
_SUITED_MODERN = {
    128: Suited(2e-3, 0.02, 0.01, 0.0, 0.0, muon=2),
    256: Suited(1e-3, 0.02, 0.01, 0.0, 0.0, muon=2),
    768: Suited(8e-4, 0.02, 0.01, 0.0, 0.0),
}
_LARGE_MODERN = Suited(5e-4, 0.02, 0.01, 0.0, 0.0)
_LAMB_RATE, _LAMB_BATCH = 6.25e-4, 512  # You et al. 2019, table 4: times the square root of the batch


def suited(encoder: EncoderConfig) -> Suited:
    """Return the options that suit an encoder."""
    table, largest = (_SUITED, Suited(1e-4)) if encoder.architecture == "bert" else (_SUITED_MODERN, _LARGE_MODERN)
    return next((found for width, found in table.items() if encoder.hidden_size <= width), largest)


@dataclass(frozen=True)
class Choice:
    """Values by option, for the options that were left open, and the reasons for the first of them."""

    values: Mapping[str, Any]
    reasons: tuple[str, ...]


def _largest(wanted: Mapping[str, float], have: float) -> str:
    """Return the last preset whose requirement is met."""
    return [name for name, least in wanted.items() if have >= least][-1]


def _preset(hardware: Hardware, data: Data) -> tuple[str, str]:
    """Return the largest preset that suits both the device and the data, and what limits it."""
    if hardware.kind == "CPU":
        device = _largest(_CPU_CORES, hardware.cores)
    else:
        device = _largest(_MEMORY, hardware.memory or _TPU_MEMORY)
    corpus = _largest(_TOKENS, data.tokens)
    names = list(PRESETS)
    if names.index(corpus) < names.index(device):
        return corpus, f"for {data.tokens / 1e6:,.1f} M tokens per epoch"
    return device, f"for {hardware}"


def needed_bytes(
    encoder: EncoderConfig,
    shape: Shape,
    rows: int,
    half: bool,
    optimizer: str = "adamw",
    kernel: AttentionKernel | None = None,
    sharers: int = 1,
) -> int:
    """Return the estimated bytes of a training step with this many rows per device and micro-batch.

    sharers: devices that divide the optimizer's moments among them.
    """
    fused = kernel is not None and not kernel.refusal(encoder.head_size, shape.length, "bfloat16" if half else "float32")
    sizes = encoder, shape.length, shape.predictions
    if shape.generator:
        each = memory.detection_bytes(*sizes, shape.generator, half, fused)
    else:
        each = memory.activation_bytes(*sizes, half, shape.causal, shape.examples, fused)
    rules = OPTIMIZERS[optimizer]
    moments = len(rules.matrices.moments) / sharers, len(rules.others.moments) / sharers
    return memory.state_bytes(encoder, *moments, shape.generator) + rows * each


def _power_of_two(value: float) -> int:
    """Return the largest power of two up to a value, at least 1."""
    return 1 << max(0, int(value).bit_length() - 1)


def _batch(hardware: Hardware, data: Data) -> int:
    """Return the rows per update of phases without their own: a power of two per device, on a CPU more of short ones."""
    length = max(shape.length for shape in data.shapes if not shape.batch_size)
    wanted = min(_LARGEST_CPU_BATCH, _CPU_BATCH * 128 / length) if hardware.kind == "CPU" else _BATCH
    wanted = min(wanted, max(8, data.rows / 8))  # a batch should not hold much of an epoch
    return hardware.devices * _power_of_two(wanted / hardware.devices)


def _divisors(sizes: Sequence[int]) -> list[int]:
    """Return the numbers that divide all sizes, in ascending order."""
    return [n for n in range(1, min(sizes) + 1) if all(size % n == 0 for size in sizes)]


def _parts(
    encoder: EncoderConfig, shapes: Sequence[Shape], hardware: Hardware, half: bool, optimizer: str, shard_moments: bool
) -> int:
    """Return the fewest micro-batches that fit into the memory and divide every batch of a device; the most if none fits."""
    sizes = [max(1, shape.batch_size // hardware.devices) for shape in shapes]
    least = hardware.memory or (_TPU_MEMORY if hardware.kind == "TPU" else 1 << 62)
    divisors, sharers = _divisors(sizes), hardware.devices if shard_moments else 1
    for n in divisors:
        rows = [(shape, size // n) for shape, size in zip(shapes, sizes, strict=True)]
        needed = max(needed_bytes(encoder, *each, half, optimizer, hardware.kernel, sharers) for each in rows)
        if needed + RUNTIME <= FILL * least:
            return n
    return divisors[-1]


def parts_for(replicas: int, parts: int, devices: int, batch_sizes: Sequence[int]) -> int:
    """Return the micro-batches for the devices that a run has, from `parts`, those chosen for another number of devices.

    A micro-batch has as many rows or fewer, if a number of them divides all batches of a device: the least, else the most; and
    `parts` if the batches aren't divisible by the devices.
    """
    if any(size % replicas for size in batch_sizes):
        return parts
    divisors = _divisors([size // replicas for size in batch_sizes])
    return next((n for n in divisors if n * replicas >= parts * devices), divisors[-1])


def _learning_rate(optimizer: str, best: Suited, data: Data, batch: int, continued: bool) -> tuple[float, str]:
    """Return the peak learning rate of the phases without their own, and what is printed of it.

    LAMB's depends on the batch: that of the longest of these phases, the first of equally long ones.

    Args:
        best: the options that suit the encoder.
        batch: rows per update of phases without their own.
        continued: whether the encoder is that of --init.
    """
    rate, batches = best.learning_rate, ""
    if optimizer == "lamb":
        longest = max((shape for shape in data.shapes if not shape.learning_rate), key=lambda shape: shape.steps)
        size = longest.batch_size or batch
        rate, batches = _LAMB_RATE * (size / _LAMB_BATCH) ** 0.5, f" for batches of {size:,}"
    rate *= best.muon if optimizer == "muon" else 1
    rate = rate / 2 if continued else rate  # continued training should not undo what was learnt
    rate = float(f"{rate:.2g}")
    return rate, f"learning rate {rate:g}{batches}"


def choose(given: Mapping[str, Any], hardware: Hardware, data: Data, encoder: EncoderConfig | None = None) -> Choice:
    """Choose the options that are None or "auto" in `given`, but no batch size or learning rate that every phase has itself.

    Args:
        given: values by option: those of `OPEN`, `optimizer`, `remat` and `shard_moments`.
        hardware: the devices.
        data: the datasets.
        encoder: the encoder of --init, if any.
    """
    found: dict[str, Any] = {}
    reasons = []
    name = given["preset"]
    if name == AUTO:
        name, why = ("", "as --init") if encoder else _preset(hardware, data)
        found["preset"] = name
        reasons += [f"preset {name} {why}"] if name else []
    sizes = encoder or preset(name, vocab_size=data.vocab_size)
    best = suited(sizes)
    half = given["precision"] == "bfloat16" or (given["precision"] == AUTO and hardware.bfloat16)
    if given["precision"] == AUTO:
        found["precision"] = "bfloat16" if half else "float32"
        reasons.append(f"{found['precision']} {'because this device is faster with it' if half else ''}".strip())
    batch = given["batch_size"]
    if batch is None and not all(shape.batch_size for shape in data.shapes):
        batch = found["batch_size"] = _batch(hardware, data)
        reasons.append(f"batches of {batch}")
    for option in ("dropout", "attention_dropout", "initializer_range", "weight_decay"):
        if given[option] is None:
            found[option] = getattr(best, option)
    if given["clip_norm"] is None:
        found["clip_norm"] = default_clip_norm(given["optimizer"])
    if given["gradient_accumulation_steps"] is None:
        rates = {name: found.get(name, given[name]) for name in ("dropout", "attention_dropout")}
        actual = EncoderConfig(**{
            **sizes.to_dict(), "hidden_dropout_prob": rates["dropout"],
            "attention_probs_dropout_prob": rates["attention_dropout"], "remat": given["remat"],
        })  # fmt: skip
        shapes = [replace(shape, batch_size=shape.batch_size or batch) for shape in data.shapes]
        parts = _parts(actual, shapes, hardware, half, given["optimizer"], given["shard_moments"])
        found["gradient_accumulation_steps"] = parts
        reasons += [f"in {parts} micro-batches to fit into memory"] if parts > 1 else []
    if given["learning_rate"] is None and not all(shape.learning_rate for shape in data.shapes):
        found["learning_rate"], reason = _learning_rate(given["optimizer"], best, data, batch, encoder is not None)
        reasons.append(reason)
    return Choice(found, tuple(reasons))


OPEN = ("preset", "precision", "batch_size", "gradient_accumulation_steps", "learning_rate", "dropout", "attention_dropout",
        "initializer_range", "weight_decay", "clip_norm")  # fmt: skip
