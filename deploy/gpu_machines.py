"""The cloud's machines with NVIDIA's GPUs: their names, and those of their GPUs on GKE and Vertex AI."""

from dataclasses import dataclass

from clozemill.pipelines.command_line.options import suggest
from clozemill.pipelines.common.errors import UserError


@dataclass(frozen=True)
class Machine:
    """A machine with GPUs. `gke`: value of GKE's node label, which Vertex AI writes in upper case."""

    machine_type: str
    gke: str
    gpus: int
    hosts = 1
    strategy = "mirrored"  # all GPUs of the machine

    @property
    def node_selector(self) -> dict[str, str]:
        """Return GKE's labels of nodes that are such a machine."""
        return {"cloud.google.com/gke-accelerator": self.gke, "node.kubernetes.io/instance-type": self.machine_type}

    @property
    def limits(self) -> dict[str, int]:
        """Return what a pod uses of its node."""
        return {"nvidia.com/gpu": self.gpus}

    @property
    def machine_spec(self) -> dict[str, str | int]:
        """Return Vertex AI's description."""
        kind = self.gke.upper().replace("-", "_")
        return {"machineType": self.machine_type, "acceleratorType": kind, "acceleratorCount": self.gpus}


# Machine types by their number of GPUs, by the GPUs' label.
_TYPES: dict[str, dict[int, tuple[str, ...]]] = {
    "nvidia-l4": {
        1: tuple(f"g2-standard-{cores}" for cores in (4, 8, 12, 16, 32)),
        2: ("g2-standard-24",),
        4: ("g2-standard-48",),
        8: ("g2-standard-96",),
    },
    "nvidia-tesla-a100": {
        **{gpus: (f"a2-highgpu-{gpus}g",) for gpus in (1, 2, 4, 8)},
        16: ("a2-megagpu-16g",),
    },
    "nvidia-a100-80gb": {gpus: (f"a2-ultragpu-{gpus}g",) for gpus in (1, 2, 4, 8)},
    "nvidia-h100-80gb": {gpus: (f"a3-highgpu-{gpus}g",) for gpus in (1, 2, 4, 8)},
    "nvidia-h100-mega-80gb": {8: ("a3-megagpu-8g",)},
    "nvidia-h200-141gb": {8: ("a3-ultragpu-8g",)},
}
MACHINES = {
    name: Machine(name, label, gpus) for label, counts in _TYPES.items() for gpus, names in counts.items() for name in names
}


def find(name: str) -> Machine:
    """Return a machine by its type. Raises UserError."""
    if name not in MACHINES:
        raise UserError(
            f"unknown gpu_machine {name!r}{suggest(name, MACHINES)}; use for example g2-standard-8, a2-highgpu-1g, "
            "a2-ultragpu-8g or a3-highgpu-8g"
        )
    return MACHINES[name]
