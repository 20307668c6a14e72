"""The clouds' names of TPU slices: types, VM images, GKE's labels. trainers/common/tpu_generations.py has facts."""

import math
import re
from dataclasses import dataclass

from clozemill.pipelines.command_line.options import suggest
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.tpu_generations import GENERATIONS


@dataclass(frozen=True)
class Family:
    """A TPU generation as offered by the cloud.

    Args:
        generation: a key of GENERATIONS.
        per_chip: units of a type's number per chip, 1 for chips, 2 for cores.
        runtime: image of the TPU VM.
        shapes: usual shapes by number of chips.
        gke: value of GKE's node label.
        machine: machine types of GKE and Vertex AI, by chips per host.
    """

    generation: str
    per_chip: int
    runtime: str
    shapes: dict[int, str]
    gke: str = ""
    machine: str = ""


_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBES = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8", 512: "8x8x8"}
_SQUARES = {4: "2x2", 16: "4x4", 64: "8x8", 128: "8x16", 256: "16x16"}
_BASE = "tpu-ubuntu2204-base"
FAMILIES: dict[str, Family] = {
    "v2": Family("v2", 2, _BASE, _SQUARES),
    "v3": Family("v3", 2, _BASE, _SQUARES),
    "v4": Family("v4", 2, _BASE, _CUBES, "tpu-v4-podslice", "ct4p-hightpu-{}t"),
    "v5litepod": Family("v5e", 1, "v2-alpha-tpuv5-lite", _FLAT, "tpu-v5-lite-podslice", "ct5lp-hightpu-{}t"),
    "v5p": Family("v5p", 2, "v2-alpha-tpuv5", _CUBES, "tpu-v5p-slice", "ct5p-hightpu-{}t"),
    "v6e": Family("v6e", 1, "v2-alpha-tpuv6e", _FLAT, "tpu-v6e-slice", "ct6e-standard-{}t"),
}
TYPES = [f"{name}-{chips * family.per_chip}" for name, family in FAMILIES.items() for chips in family.shapes]


@dataclass(frozen=True)
class Slice:
    """A TPU type with a shape."""

    type: str
    family: Family
    topology: str
    chips: int
    strategy = "tpu"

    @property
    def gke(self) -> str:
        """Return the value of GKE's node label; empty if GKE doesn't offer it."""
        return self.family.gke

    @property
    def hosts(self) -> int:
        """Return the number of hosts; in a multi-host slice, each has 4 chips."""
        return GENERATIONS[self.family.generation].hosts(self.chips)

    @property
    def chips_per_host(self) -> int:
        return self.chips // self.hosts

    @property
    def machine_type(self) -> str:
        """Return the machine type of GKE and Vertex AI; empty if there is none."""
        return self.family.machine.format(self.chips_per_host)

    @property
    def node_selector(self) -> dict[str, str]:
        """Return GKE's labels of the nodes of such a slice."""
        return {"cloud.google.com/gke-tpu-accelerator": self.gke, "cloud.google.com/gke-tpu-topology": self.topology}

    @property
    def limits(self) -> dict[str, int]:
        """Return what a pod uses of its node."""
        return {"google.com/tpu": self.chips_per_host}

    @property
    def request(self) -> tuple[str, ...]:
        """Return the flags of gcloud that ask for such a slice of TPU VMs: its type alone has the usual shape."""
        name = self.type.split("-")[0]
        usual = self.topology == self.family.shapes[self.chips]
        return (f"--accelerator-type={self.type}",) if usual else (f"--type={name}", f"--topology={self.topology}")

    @property
    def machine_spec(self) -> dict[str, str | int]:
        """Return Vertex AI's description."""
        return {"machineType": self.machine_type, "tpuTopology": self.topology}


def find(type_: str, topology: str = "") -> Slice:
    """Return a slice by its type name and, unless it has the usual one, its shape. Raises UserError."""
    if type_ not in TYPES:
        close = suggest(type_.replace("v5e-", "v5litepod-"), TYPES)  # the cloud's name of the family
        raise UserError(
            f"unknown tpu_type {type_!r}{close}; use for example v5litepod-1, v5litepod-4, v5litepod-8, "
            "v5litepod-16, v4-8, v5p-8, v6e-8, v3-8 or v2-8, or a larger slice of these"
        )
    name, number = type_.split("-")
    family = FAMILIES[name]
    chips = int(number) // family.per_chip
    shape = topology or family.shapes[chips]
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", shape) or shape.count("x") + 1 != _axes(family):
        raise UserError(
            f"tpu_topology is {shape!r}: give a shape of {type_} with {_axes(family)} axes, such as {family.shapes[chips]}"
        )
    product = math.prod(int(side) for side in shape.split("x"))
    if product != chips:
        raise UserError(
            f"tpu_topology {shape} has {product} chips, but tpu_type {type_} has {chips}: "
            f"give {family.shapes[chips]}, or another tpu_type"
        )
    return Slice(type_, family, shape, chips)


def _axes(family: Family) -> int:
    return GENERATIONS[family.generation].axes
