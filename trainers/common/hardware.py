"""Describes the devices that a command would run on: kind, number, memory, speed, and GPUs that aren't used."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

GIB = 1 << 30
BFLOAT16_CAPABILITY = (8, 0)  # compute capability from which NVIDIA's GPUs multiply bfloat16 matrices
INSTALL = "pip install 'clozemill[gpu]' (docs/how-to/gpus-and-tpus.md)"
TPU_DEVICES = 8  # assumed for a TPU; a batch of 256 can be divided among up to 256


class AttentionKernel(Protocol):
    """A way to compute attention without storing its scores."""

    def refusal(self, head_size: int, length: int, dtype: str) -> str:
        """Return why it can't compute attention of these sizes, "" if it can."""


@dataclass(frozen=True)
class Hardware:
    """The devices of a run.

    Args:
        kind: CPU, GPU or TPU.
        devices: number of devices that share a batch.
        memory: free bytes per device; 0 if unknown.
        cores: CPU cores that this process may use.
        bfloat16: whether the devices multiply bfloat16 matrices faster than float32 ones.
        kernel: that of attention, if they have one.
    """

    kind: str
    devices: int
    memory: int
    cores: int
    bfloat16: bool = False
    kernel: AttentionKernel | None = None

    def __str__(self) -> str:
        if self.kind == "TPU":
            return "a TPU"
        free = f" with {self.memory / GIB:,.0f} GiB free" if self.memory else ""
        if self.kind == "CPU":
            return f"{self.cores} CPU core{'s' * (self.cores > 1)}{free}"
        return f"{self.devices} {self.kind}{'s' * (self.devices > 1)}{free}{' each' * bool(free and self.devices > 1)}"


def free_memory(root: str = "/") -> int:
    """Return the bytes of memory that processes can still get, by the kernel and the limits of a container; 0 if unknown.

    root: the folder that holds `proc` and `sys`.
    """
    limits = []
    for line in _lines(Path(root, "proc/meminfo")):
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            limits.append(int(rest.split()[0]) * 1024)
    group = Path(root, "sys/fs/cgroup")
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, now = _lines(group / limit), _lines(group / used)
        if most and now and most[0].isdigit() and now[0].isdigit():
            # Files that were read or written count as used, although the kernel frees them for processes.
            told = dict(line.split() for line in _lines((group / limit).parent / "memory.stat"))
            limits.append(max(0, int(most[0]) - max(0, int(now[0]) - int(told.get(cached, 0)))))
    if not limits and root == "/":
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # macOS: all memory, free or not
        except (ValueError, OSError):
            return 0
    return min(limits, default=0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def nvidia_gpus(root: str = "/") -> int:
    """Return the number of NVIDIA GPUs whose driver is loaded, whatever TensorFlow sees. root: holds `proc` and `dev`."""
    found = len(list(Path(root, "proc/driver/nvidia/gpus").glob("*")))
    found = found or sum(path.name[len("nvidia") :].isdigit() for path in Path(root, "dev").glob("nvidia*"))
    windows = Path(root, "dev/dxg").exists() and Path(root, "usr/lib/wsl/lib/libcuda.so.1").exists()
    return found or int(windows)


def visible_gpus(present: int, visible: str | None) -> int:
    """Return the number of GPUs that CUDA shows to this process.

    Args:
        present: GPUs of the machine, by their driver.
        visible: $CUDA_VISIBLE_DEVICES, None if unset. CUDA ignores what follows an empty or negative entry.
    """
    if visible is None:
        return present
    names = [name.strip() for name in visible.split(",")]
    hidden = (at for at, name in enumerate(names) if not name or name.startswith("-"))
    return min(present, next(hidden, len(names)))


def shown_gpus() -> int:
    """Return the number of this machine's GPUs that CUDA shows to this process, whatever a framework sees."""
    return visible_gpus(nvidia_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def unused_gpus(present: int, framework: str, install: str) -> str:
    """Return a warning about GPUs of this machine that a framework doesn't use. install: how to change that."""
    return (
        f"warning: this machine has {present} NVIDIA GPU{'s' * (present > 1)} that {framework} doesn't use: {install}, and "
        "check the driver with nvidia-smi"
    )


def gpu_remark(strategy: str, present: int, used: int, hidden: str | None) -> str:
    """Return a warning about GPUs that are not used, or a note that --strategy mirrored has none; "" if all is well.

    Args:
        present: GPUs of the machine, by their driver.
        used: GPUs that TensorFlow sees.
        hidden: $CUDA_VISIBLE_DEVICES, None if unset. An empty or negative value hides all GPUs on purpose.
    """
    if used or strategy == "tpu":
        return ""
    intended = hidden is not None and (not hidden.strip() or hidden.strip().startswith("-"))
    if present and not intended:
        return unused_gpus(present, "TensorFlow", INSTALL)
    if strategy == "mirrored":
        return f"note: --strategy mirrored found no GPU and uses the CPU: for GPUs, {INSTALL}; else leave --strategy out"
    return ""
