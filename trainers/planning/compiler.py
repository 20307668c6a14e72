"""Compiles JAX programs for TPU topologies with libtpu, without TPU hardware, and reports what the compiler says.

A device is a replica of TPUStrategy: a chip, or on v2 and v3 one of the two cores of a chip.
"""

import importlib.util
import math
import os
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.tpu_generations import EXAMPLES, Topology

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

# Read when libtpu, JAX and Keras are imported. Without the first four, libtpu asks a metadata server which TPU it runs on.
# Without the fifth, only one process per machine can load libtpu, although only processes that use a TPU conflict.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
    "KERAS_BACKEND": "jax",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def prepare_environment() -> None:
    """Set the environment variables that JAX, libtpu and Keras read on import.

    Raises UserError if one of them is missing, or Keras was already imported with another backend.
    """
    if importlib.util.find_spec("jax") is None or importlib.util.find_spec("libtpu") is None:
        raise UserError('preflight needs JAX and libtpu: pip install "clozemill[preflight]"')
    if "keras" in sys.modules and sys.modules["keras"].backend.backend() != "jax":
        raise UserError(
            "preflight needs its own process, because Keras was loaded with another backend: run clozemill preflight"
        )
    os.environ.update(_ENVIRONMENT)


def devices(topology: Topology) -> list:
    """Return the devices of a topology, for compilation only. Raises UserError if libtpu doesn't know it."""
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    options = dict(topology.generation.options)
    if topology.chips == 1:  # libtpu assumes hosts of 2x2 chips
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return list(topologies.get_topology_desc(topology_name=topology.name, platform="tpu", **options).devices)
    except JaxRuntimeError as error:
        raise UserError(
            f"--topology {topology.name}: libtpu says {str(error).splitlines()[0]!r}: use for example {EXAMPLES}"
        ) from None


@dataclass(frozen=True)
class Figures:
    """The compiler's statistics of a program, per device and run: bytes of memory, operations, bytes moved, collectives."""

    seconds: float
    arguments: int
    temporaries: int
    program: int
    flops: float
    traffic: float
    collectives: dict[str, int]

    @property
    def needed(self) -> int:
        """Return the bytes of a device in use while the program runs; donated arguments are reused for the results."""
        return self.arguments + self.temporaries + self.program


@dataclass(frozen=True)
class Refused:
    """A program that the compiler rejected: out of memory (`needed`, in bytes), or for another reason (None)."""

    seconds: float
    reason: str
    needed: float | None = None


def refused(message: str, seconds: float) -> Refused:
    """Parse the compiler's error message."""
    reason = " ".join(message.split())[:300]
    if "RESOURCE_EXHAUSTED" not in message:
        return Refused(seconds, reason)
    found = re.search(r"([\d.]+)([KMGT])\)? (?:exceeds|of [\d.]+[KMGT] hbm)", message)
    return Refused(seconds, reason, float(found[1]) * 1024 ** (1 + "KMGT".index(found[2])) if found else math.inf)


def collectives(text: str) -> dict[str, int]:
    """Count the collectives of a compiled program by name."""
    return {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in COLLECTIVES}


def waiting(text: str, work: Callable[[], Any]) -> Any:
    """Return the result of `work`, showing the elapsed seconds. It runs in a thread, so that Ctrl-C is handled."""
    begin, live = time.monotonic(), sys.stderr.isatty()
    print(text, end="" if live else "\n", file=sys.stderr, flush=True)
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    try:
        while True:
            try:
                return future.result(timeout=1)
            except TimeoutError:
                if live:
                    print(f"\r{text}: {time.monotonic() - begin:.0f} s", end="", file=sys.stderr, flush=True)
    finally:
        if live:
            print(file=sys.stderr, flush=True)


def compiled(lowered: Any, text: str) -> Figures | Refused:
    """Compile a lowered JAX program, showing `text` as progress."""
    from jax.errors import JaxRuntimeError

    begin = time.monotonic()
    try:
        program = waiting(text, lowered.compile)
    except JaxRuntimeError as error:
        return refused(str(error), time.monotonic() - begin)
    seconds, memory, cost = time.monotonic() - begin, program.memory_analysis(), program.cost_analysis()
    return Figures(
        seconds=seconds,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        program=memory.generated_code_size_in_bytes,
        flops=cost["flops"],
        traffic=cost["bytes accessed"],
        collectives=collectives(program.as_text()),
    )
