"""`clozemill preflight`: the training step, compiled for a TPU on a machine without one, by JAX and libtpu.

    pip install "clozemill[preflight]"
    clozemill preflight --topology v5e:2x2 --preset base --batch-size 32

Says whether the step compiles and fits, what memory, work and communication it takes, and the largest batch that fits.
"""

import math
from collections.abc import Callable

from clozemill.model.config import EncoderConfig, preset
from clozemill.model.flops import flops_per_example
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.tpu import compiler, generations
from clozemill.trainers.tpu.compiler import Figures, Refused
from clozemill.trainers.tpu.config import PreflightConfig
from clozemill.trainers.tpu.generations import GIB, Topology

# Batches are looked for that fill a device up to here: input that waits takes memory too, and near to the limit the compiler
# has activations computed again to make ends meet, and takes many times as long.
FILL = 15 / 16
ROUND = 8  # a batch is a multiple of a tile's rows
COMPILATIONS = 6  # of a search, at most
UNTESTED = (
    "Not tested by this: TPUStrategy, the feeding of input, the numerics and the speed of a TPU. Model and update are the\n"
    "trainer's, but as a program of JAX's, with a newer libtpu than TensorFlow's: its figures will differ in detail."
)


def next_batch(found: dict[int, int], ceiling: int | None, room: float) -> int | None:
    """The batch to try next, or None when there is nothing to gain.

    Args:
        found: batch -> bytes, of those that fit. ceiling: the smallest that doesn't, if known. room: bytes to fill.

    Memory is about affine in the batch: the line through the two largest that fit says which one fills the room. It isn't
    followed beyond four times what is known: small batches partly live in memory on the chip, which isn't counted.
    """
    best = max(found, default=0)
    if not found:
        guess = ceiling // 2
    elif len(found) == 1:  # memory in proportion to the batch says too little, since part of it is the same for all
        guess = int(best * min(4.0, room / found[best]))
        guess = guess if ceiling is None else (best + ceiling) // 2
    else:
        small, large = sorted(found)[-2:]
        slope = max(1.0, (found[large] - found[small]) / (large - small))
        guess = min(large + int((room - found[large]) / slope), 4 * large)
        if ceiling is not None and guess >= ceiling:
            guess = max((large + ceiling) // 2, ceiling * 9 // 10)
    guess -= guess % ROUND if guess >= ROUND else 0
    return guess if guess - best >= max(1, best / 20) else None  # less isn't worth minutes of compiling


def search(measure: Callable[[int], int | None], first: int, room: float) -> int:
    """The largest batch that fits, 0 for none.

    Args:
        measure: the bytes of a batch, or None if it doesn't fit. first: the batch to begin with. room: bytes to fill.
    """
    found: dict[int, int] = {}
    ceiling, batch = None, first
    for _ in range(COMPILATIONS):
        needed = measure(batch)
        if needed is None:
            ceiling = batch
        else:
            found[batch] = needed
        batch = next_batch(found, ceiling, room)
        if batch is None:
            break
    return max(found, default=0)


def encoder_config(config: PreflightConfig) -> EncoderConfig:
    """The encoder that a configuration asks for."""
    return preset(
        config.preset,
        vocab_size=config.vocab_size,
        max_position_embeddings=max(512, config.max_seq_length),
        hidden_act=config.hidden_act,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.attention_dropout,
        attention="causal" if config.objective == "causal" else "bidirectional",
        remat=config.remat,
    )


def fits(result: Figures | Refused, topology: Topology) -> bool:
    """Whether a program was compiled and finds room on a device."""
    return isinstance(result, Figures) and result.needed <= topology.available


def binary(size: float) -> str:
    """Bytes of memory, in GiB or MiB."""
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / GIB * 1024:.1f} MiB"


def decimal(number: float) -> str:
    """A number with a prefix for its unit to follow: 1.23 T."""
    return f"{number / 1e12:.2f} T" if number >= 1e12 else f"{number / 1e9:.2f} G"


def title(config: PreflightConfig, topology: Topology, predictions: int, parameters: int) -> list[str]:
    """The report's lines about what is compiled."""
    switches = [config.objective, config.precision, config.optimizer, *["remat"] * config.remat]
    return [
        f"topology     {topology}",
        f"model        {config.preset}, vocabulary of {config.vocab_size:,}: {parameters:,} parameters; {', '.join(switches)}",
        f"batch        {config.batch_size} per {topology.generation.device}, {config.batch_size * topology.devices:,} in all; "
        f"{config.max_seq_length} tokens, {predictions} predictions",
    ]


def described(result: Figures | Refused, topology: Topology, flops: int) -> list[str]:
    """The report's lines about one compilation. `flops`: of a device's batch, by formula."""
    device = topology.generation.device
    if isinstance(result, Refused):
        return [f"compiles     no, after {result.seconds:.0f} s: {result.reason}"]
    parts = {"arguments": result.arguments, "temporaries": result.temporaries, "the program": result.program}
    return [
        f"compiles     yes, in {result.seconds:.0f} s",
        f"memory       per {device}: {binary(result.needed)} of {binary(topology.available)}: "
        + ", ".join(f"{name} {binary(size)}" for name, size in parts.items()),
        f"work         per {device} and step: {decimal(result.flops)}FLOP by XLA's count, {decimal(flops)}FLOP by formula",
        f"traffic      per {device} and step: {decimal(result.traffic)}B read and written",
        "collectives  " + ", ".join(f"{count} {name}" for name, count in result.collectives.items()),
    ]


def largest_line(results: dict[int, Figures | Refused], topology: Topology) -> str:
    """The report's line about the largest batch that fits, of those that were compiled, in their order."""
    device, tried = topology.generation.device, ", ".join(map(str, results))
    good = {batch: result for batch, result in results.items() if fits(result, topology)}
    if not good:
        return f"largest      none of the batches compiled ({tried} per {device}) fits"
    small, large = min(good), max(good)
    again = good[large].flops / large / (good[small].flops / small) - 1
    text = (
        f"largest      batch {large} per {device}, {large * topology.devices:,} in all, takes {binary(good[large].needed)}; "
        f"compiled: {tried}, "
        f"aiming at {FILL:.0%} of the memory by the line through two batches"
    )
    return text + (f"; activations computed again make {again:.0%} more work per example" if again > 0.02 else "")


def verdict(config: PreflightConfig, topology: Topology, needed: float, largest: int) -> str:
    """The sentence about a batch that doesn't fit."""
    smaller = f" (to {largest}, the largest found)" if largest else ""
    remat = "" if config.remat else " or give --remat"
    wanted = binary(needed) if math.isfinite(needed) else "more"
    return (
        f"does not fit: batch {config.batch_size} needs {wanted}, and a program may have "
        f"{binary(topology.available)} of a {topology.generation.device}: lower --batch-size{smaller}{remat}"
    )


def checked_predictions(config: PreflightConfig) -> int:
    """Masked positions per example, as `prepare` chooses them unless they are given."""
    most = config.max_seq_length - 3  # [CLS] and two [SEP]
    if config.max_predictions > most:
        raise UserError(
            f"--max-predictions {config.max_predictions} is more than --max-seq-length {config.max_seq_length} has room for: "
            f"give {most} at most"
        )
    return config.max_predictions or min(math.ceil(0.15 * config.max_seq_length), most)


def main(config: PreflightConfig) -> int:
    """Compiles, and prints the report as it comes; returns 0 if the step compiles and fits, else 1."""
    topology, predictions, encoder = generations.parse(config.topology), checked_predictions(config), encoder_config(config)
    compiler.prepare_environment()
    devices = compiler.devices(topology)
    from clozemill.trainers.tpu.jax_step import Step  # not before the environment is prepared: Keras reads it when it is loaded

    step = Step(config, encoder, predictions, devices)
    print("\n".join(title(config, topology, predictions, step.parameters)), flush=True)
    results: dict[int, Figures | Refused] = {}

    def measure(batch: int) -> int | None:
        if batch not in results:
            text = f"preflight: compiling {config.preset}, batch {batch}, for {config.topology}"
            results[batch] = compiler.compiled(step.lowered(batch), text)
        return results[batch].needed if fits(results[batch], topology) else None

    fitting, first = measure(config.batch_size) is not None, results[config.batch_size]
    flops = config.batch_size * flops_per_example(encoder, config.max_seq_length, predictions, config.objective == "causal")
    print("\n".join(described(first, topology, flops)), flush=True)
    if first.needed is not None:  # else no other batch would compile either
        largest = 0
        if config.largest_batch:
            largest = search(measure, config.batch_size, FILL * topology.available)
            print(largest_line(results, topology))
        if not fitting:
            print(verdict(config, topology, first.needed, largest))
    print(UNTESTED)
    return 0 if fitting else 1
