"""`clozemill preflight`: compile the training step for a TPU on a machine without one, with JAX and libtpu.

    pip install "clozemill[preflight]"
    clozemill preflight --topology v5e:2x2 --preset base --batch-size 32

Reports whether the step compiles and fits, its memory, FLOPs and communication, and the largest batch that fits.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeGuard

from clozemill.model.config import EncoderConfig, preset
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.tpu_generations import GIB, Topology, parse_topology
from clozemill.trainers.planning import compiler
from clozemill.trainers.planning.compiler import Figures, Refused
from clozemill.trainers.planning.config import PreflightConfig
from clozemill.trainers.planning.estimate import objective_flops
from clozemill.trainers.pretraining.config import AUTO

# The search fills a device up to this fraction: prefetched input needs memory too, and near the limit the compiler
# recomputes activations to save memory, and takes many times as long.
FILL = 15 / 16
ROUND = 8  # a batch is a multiple of a tile's rows
COMPILATIONS = 6  # maximum per search
UNTESTED = (
    "Not tested: the input pipeline, and the numerics and speed of a TPU. The step is that of --engine jax.\n"
    "TPUStrategy has an older libtpu: its numbers will differ in detail."
)


def next_batch(found: dict[int, int], ceiling: int | None, room: float) -> int | None:
    """Return the batch to try next, or None if no larger batch is worth trying.

    Args:
        found: bytes by batch, of batches that fit.
        ceiling: the smallest batch that doesn't fit, if known.
        room: bytes to fill.

    Memory is roughly affine in the batch: the line through the two largest batches that fit predicts which one fills the
    room. It is extrapolated by a factor of four at most, since small batches partly use on-chip memory, which isn't counted.
    """
    best = max(found, default=0)
    if not found:
        guess = (ceiling or 0) // 2
    elif len(found) == 1:  # one point isn't enough for a line: part of the memory doesn't depend on the batch
        guess = int(best * min(4.0, room / found[best]))
        guess = guess if ceiling is None else (best + ceiling) // 2
    else:
        small, large = sorted(found)[-2:]
        slope = max(1.0, (found[large] - found[small]) / (large - small))
        guess = min(large + int((room - found[large]) / slope), 4 * large)
        if ceiling is not None and guess >= ceiling:
            guess = max((large + ceiling) // 2, ceiling * 9 // 10)
    guess -= guess % ROUND if guess >= ROUND else 0
    return guess if guess - best >= max(1, best / 20) else None  # a smaller gain isn't worth minutes of compilation


def search(measure: Callable[[int], int | None], first: int, room: float) -> int:
    """Return the largest batch that fits, 0 for none.

    Args:
        measure: returns the bytes of a batch, or None if it doesn't fit.
        first: the batch to start with.
        room: bytes to fill.
    """
    found: dict[int, int] = {}
    ceiling: int | None = None
    batch = first
    for _ in range(COMPILATIONS):
        needed = measure(batch)
        if needed is None:
            ceiling = batch
        else:
            found[batch] = needed
        larger = next_batch(found, ceiling, room)
        if larger is None:
            break
        batch = larger
    return max(found, default=0)


def encoder_config(config: PreflightConfig) -> EncoderConfig:
    """Return the encoder of a configuration. It loads Keras."""
    from clozemill.trainers.pretraining.defaults import suited

    encoder = preset(
        config.preset,
        vocab_size=config.vocab_size,
        max_position_embeddings=max(512, config.max_seq_length),
        attention="causal" if config.objective == "causal" else "bidirectional",
        remat=config.remat,
    )
    best = suited(encoder)
    return replace(
        encoder,
        hidden_act=encoder.hidden_act if config.hidden_act == AUTO else config.hidden_act,
        hidden_dropout_prob=best.dropout if config.dropout is None else config.dropout,
        attention_probs_dropout_prob=best.attention_dropout if config.attention_dropout is None else config.attention_dropout,
    )


def fits(result: Figures | Refused, topology: Topology) -> TypeGuard[Figures]:
    """Return whether a program was compiled and fits on a device."""
    return isinstance(result, Figures) and result.needed <= topology.available


def binary(size: float) -> str:
    """Format bytes of memory in GiB or MiB."""
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / GIB * 1024:.1f} MiB"


def decimal(number: float) -> str:
    """Format a number with a prefix for a unit that follows: 1.23 T."""
    return f"{number / 1e12:.2f} T" if number >= 1e12 else f"{number / 1e9:.2f} G"


def title(config: PreflightConfig, topology: Topology, predictions: int, parameters: int, attention: str) -> list[str]:
    """Return the report's lines about what is compiled. attention: how it is computed."""
    packed = f", up to {config.examples_per_row} packed examples per row" if config.examples_per_row else ""
    switches = [config.objective, config.precision, config.optimizer, *["remat"] * config.remat]
    return [
        f"topology     {topology}",
        f"model        {config.preset}, vocabulary of {config.vocab_size:,}: {parameters:,} parameters; {', '.join(switches)}",
        f"batch        {config.batch_size} per {topology.generation.device}, {config.batch_size * topology.devices:,} in all; "
        f"{config.max_seq_length} tokens, {predictions} predictions" + packed,
        f"attention    {attention}",
    ]


def described(result: Figures | Refused, topology: Topology, flops: int) -> list[str]:
    """Return the report's lines about one compilation. `flops`: FLOPs of a device's batch, by formula."""
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
    """Return the report's line about the largest batch that fits, and the batches compiled, in order."""
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
    return text + (f"; recomputed activations cost {again:.0%} more FLOPs per example" if again > 0.02 else "")


def verdict(config: PreflightConfig, topology: Topology, needed: float, largest: int) -> str:
    """Return the sentence about a batch that doesn't fit."""
    smaller = f" (to {largest}, the largest found)" if largest else ""
    remat = "" if config.remat else " or give --remat"
    wanted = binary(needed) if math.isfinite(needed) else "more"
    return (
        f"does not fit: batch {config.batch_size} needs {wanted}, but a program can use "
        f"{binary(topology.available)} of a {topology.generation.device}: lower --batch-size{smaller}{remat}"
    )


def checked_predictions(config: PreflightConfig) -> int:
    """Return the masked positions per example or row, by default as many as `prepare` uses per example."""
    most = config.max_seq_length - 3  # [CLS] and two [SEP]
    if config.max_predictions > most:
        raise UserError(
            f"--max-predictions {config.max_predictions} is more than --max-seq-length {config.max_seq_length} has room for: "
            f"give {most} at most"
        )
    return config.max_predictions or min(math.ceil(0.15 * config.max_seq_length), most)


def main(config: PreflightConfig) -> int:
    """Compile, and print the report as results arrive. Returns 0 if the step compiles and fits, else 1."""
    topology, predictions = parse_topology(config.topology), checked_predictions(config)
    compiler.prepare_environment()
    devices = compiler.devices(topology)
    from clozemill.trainers.planning import absent_step  # after the environment is set: Keras reads it on import

    encoder = encoder_config(config)
    step = absent_step.make(config, encoder, devices)
    attention = absent_step.attention(step, config)
    print("\n".join(title(config, topology, predictions, absent_step.parameters(step), attention)), flush=True)
    results: dict[int, Figures | Refused] = {}

    def measure(batch: int) -> int | None:
        if batch not in results:
            text = f"preflight: compiling {config.preset}, batch {batch}, for {config.topology}"
            results[batch] = compiler.compiled(absent_step.lowered(step, config, predictions, batch), text)
        result = results[batch]
        return result.needed if fits(result, topology) else None

    fitting, first = measure(config.batch_size) is not None, results[config.batch_size]
    each = objective_flops(encoder, config.objective, config.max_seq_length, predictions, max(1, config.examples_per_row))
    flops = config.batch_size * each
    print("\n".join(described(first, topology, flops)), flush=True)
    if first.needed is not None:  # otherwise no other batch would compile either
        largest = 0
        if config.largest_batch:
            largest = search(measure, config.batch_size, FILL * topology.available)
            print(largest_line(results, topology))
        if not fitting:
            print(verdict(config, topology, first.needed, largest))
    print(UNTESTED)
    return 0 if fitting else 1
