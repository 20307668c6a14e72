"""TPU generations and topologies: cores, memory, peak rates and hosts. deploy/tpu_slices.py has the clouds' names."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from clozemill.pipelines.common.errors import UserError

GIB = 1 << 30


@dataclass(frozen=True)
class Generation:
    """A TPU generation. A device is a chip, except on v2 and v3, where each half of a chip, a core, is a device.

    Args:
        memory: memory of a device in GiB (v5p's data sheet says 95 GB per chip).
        available: the part of it that libtpu leaves to a program.
        tflops: peak of a device, in dense bfloat16 TFLOP/s, from the data sheet.
        axes: axes of its topologies.
        names: how TensorFlow's names of its devices begin.
        cores: devices per chip.
        host_chips: chips per host, in a slice of at most that many chips; each host of a larger slice has 4.
        options: options for libtpu besides the name.
    """

    memory: float
    available: float
    tflops: float
    axes: int
    names: tuple[str, ...]
    cores: int = 1
    host_chips: int = 4
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """Return the word for a device."""
        return "chip" if self.cores == 1 else "core"

    def hosts(self, chips: int) -> int:
        """Return the number of hosts that hold and feed this many chips."""
        return 1 if chips <= self.host_chips else -(-chips // _HOST_CHIPS)


_HOST_CHIPS = 4  # of a slice with several hosts
GENERATIONS = {
    "v2": Generation(8, 7.48, 22.5, 2, ("v2",), cores=2),
    "v3": Generation(16, 15.48, 61.5, 2, ("v3",), cores=2),
    "v4": Generation(32, 30.75, 275.0, 3, ("v4",), options={"chip_config_name": "megacore"}),  # two cores as one device
    "v5e": Generation(16, 15.75, 197.0, 2, ("v5litepod", "v5 lite"), host_chips=8),
    "v5p": Generation(96, 95.74, 459.0, 3, ("v5p",)),
    "v6e": Generation(32, 31.25, 918.0, 2, ("v6e", "v6 lite"), host_chips=8),
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
    def hosts(self) -> int:
        """Return the number of hosts that feed it."""
        return self.generation.hosts(self.chips)

    @property
    def chip_tflops(self) -> float:
        """Return the peak of a chip, in bfloat16 TFLOP/s."""
        return self.generation.tflops * self.generation.cores

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


def parse_topology(name: str) -> Topology:
    """Return a topology by its name, GENERATION:SHAPE. Raises UserError with examples."""
    match = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*)*)", name)
    if match is None or match[1] not in GENERATIONS:
        raise UserError(f"unknown --topology {name!r}; use for example {EXAMPLES}")
    generation = GENERATIONS[match[1]]
    sides = [int(side) for side in match[2].split("x")]
    if len(sides) != generation.axes:
        raise UserError(f"--topology {name}: a shape of {match[1]} has {generation.axes} axes: use for example {EXAMPLES}")
    return Topology(name, generation, math.prod(sides))
