"""TPU generations: cores, memory, peak rates and hosts of a slice."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.peak_flops import peak_tflops

GIB = 1 << 30


@dataclass(frozen=True)
class Generation:
    """A TPU generation.

    `memory`: memory of a device in GiB (v5p's data sheet says 95 GB per chip). `available`: the part of it that libtpu leaves
    to a program. `axes`: axes of its topologies. `cores`: devices per chip. `options`: options for libtpu besides the name.
    """

    memory: float
    available: float
    axes: int
    cores: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """Return the word for a device."""
        return "chip" if self.cores == 1 else "core"


GENERATIONS = {
    "v2": Generation(8, 7.48, axes=2, cores=2),
    "v3": Generation(16, 15.48, axes=2, cores=2),
    "v4": Generation(32, 30.75, axes=3, options={"chip_config_name": "megacore"}),  # a chip's two cores as one device
    "v5e": Generation(16, 15.75, axes=2),
    "v5p": Generation(96, 95.74, axes=3),
    "v6e": Generation(32, 31.25, axes=2),
}

EXAMPLES = "v5e:2x2 (v5litepod-4), v5e:2x4 (v5litepod-8), v6e:2x4, v4:2x2x1, v5p:2x2x1, v3:2x2 or v2:2x2"


@dataclass(frozen=True)
class Topology:
    """A TPU generation with the shape of its grid of chips."""

    name: str
    generation: Generation
    chips: int

    @property
    def devices(self) -> int:
        return self.chips * self.generation.cores

    @property
    def available(self) -> float:
        """Return the bytes of a device that a program can use."""
        return self.generation.available * GIB

    def __str__(self) -> str:
        generation = self.generation
        chips = f"{self.chips} chip" + "s" * (self.chips > 1) + (generation.cores > 1) * f" of {generation.cores} cores"
        return (
            f"{self.name}, {chips}; a {generation.device} has {generation.memory:g} GiB, "
            f"of which a program can use {generation.available:g}"
        )


def parse(name: str) -> Topology:
    """Return a topology by its name, GENERATION:SHAPE. Raises UserError with examples."""
    match = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*)*)", name)
    generation = GENERATIONS.get(match[1]) if match else None
    if generation is None:
        raise UserError(f"unknown --topology {name!r}; use for example {EXAMPLES}")
    sides = [int(side) for side in match[2].split("x")]
    if len(sides) != generation.axes:
        raise UserError(f"--topology {name}: a shape of {match[1]} has {generation.axes} axes: use for example {EXAMPLES}")
    return Topology(name, generation, math.prod(sides))


# Chips per TPU VM: (in a slice of at most that many chips, in a larger slice).
HOST_CHIPS = {"v2": (4, 4), "v3": (4, 4), "v4": (4, 4), "v5e": (8, 4), "v5p": (4, 4), "v6e": (8, 4)}

_NAMES = {"v5e": "v5litepod"}  # as trainers/common/peak_flops.py has it


def hosts_of(generation: str, chips: int) -> int:
    """Return the number of hosts that hold and feed this many chips of a generation."""
    single, many = HOST_CHIPS[generation]
    return 1 if chips <= single else -(-chips // many)


def hosts(topology: Topology) -> int:
    """Return the number of hosts that feed a TPU."""
    return hosts_of(topology.name.split(":")[0], topology.chips)


def chip_tflops(topology: Topology) -> float:
    """Return the peak of a chip, in bfloat16 TFLOP/s."""
    generation = topology.name.split(":")[0]
    return peak_tflops(_NAMES.get(generation, generation)) * topology.generation.cores
