"""Describes the devices that a command would run on: kind, number, memory, speed, and GPUs that TensorFlow doesn't use."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from clozemill.pipelines.common import runtime
from clozemill.trainers.common.config import DeviceOptions

GIB = 1 << 30
_BFLOAT16 = (8, 0)  # compute capability from which NVIDIA's GPUs multiply bfloat16 matrices
INSTALL = "pip install 'clozemill[gpu]' (docs/how-to/gpus-and-tpus.md)"
_TPU_DEVICES = 8  # assumed for a TPU; a batch of 256 can be divided among up to 256
_SIZE = 1024  # of the matrices that `gpu_flops` multiplies


@dataclass(frozen=True)
class Hardware:
    """The devices of a run.

    Args:
        kind: CPU, GPU or TPU.
        devices: number of devices that share a batch.
        memory: free bytes per device; 0 if unknown.
        cores: CPU cores that this process may use.
        bfloat16: whether the devices multiply bfloat16 matrices faster than float32 ones.
    """

    kind: str
    devices: int
    memory: int
    cores: int
    bfloat16: bool = False

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
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        most, now = _lines(group / limit), _lines(group / used)
        if most and now and most[0].isdigit() and now[0].isdigit():
            limits.append(max(0, int(most[0]) - int(now[0])))
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


def detect(config: DeviceOptions, workers: int = 1) -> Hardware:
    """Return the hardware for a configuration's strategy. Doesn't initialise a TPU, whose memory is unknown until then.

    workers: machines of --strategy multiworker, all like this one.
    """
    cores = runtime.cores()
    if config.strategy == "tpu":
        return Hardware("TPU", _TPU_DEVICES, 0, cores, bfloat16=True)
    gpus = tf.config.list_physical_devices("GPU")
    several = config.strategy == "multiworker"  # must be created before any device is initialised
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        capable = tuple(details.get("compute_capability") or (0, 0)) >= _BFLOAT16
        return Hardware(
            "GPU", 1 if config.strategy == "default" else workers * len(gpus), 0 if several else _gpu_memory(), cores, capable
        )
    devices = len(tf.config.list_logical_devices("CPU")) if config.strategy == "mirrored" else 1
    return Hardware("CPU", workers * devices, free_memory() // devices, cores)


def _gpu_memory() -> int:
    """Return the bytes that TensorFlow may use on the first GPU; 0 if unknown."""
    devices = tf.config.list_logical_devices("GPU")
    from tensorflow.python.client import device_lib

    found = [each.memory_limit for each in device_lib.list_local_devices() if each.device_type == "GPU"]
    return int(found[0]) if devices and found else 0


def nvidia_gpus(root: str = "/") -> int:
    """Return the number of NVIDIA GPUs whose driver is loaded, whatever TensorFlow sees. root: holds `proc` and `dev`."""
    found = len(list(Path(root, "proc/driver/nvidia/gpus").glob("*")))
    found = found or sum(path.name[len("nvidia") :].isdigit() for path in Path(root, "dev").glob("nvidia*"))
    windows = Path(root, "dev/dxg").exists() and Path(root, "usr/lib/wsl/lib/libcuda.so.1").exists()
    return found or int(windows)


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
        return (
            f"warning: this machine has {present} NVIDIA GPU{'s' * (present > 1)} that TensorFlow doesn't use: {INSTALL}, and "
            "check the driver with nvidia-smi"
        )
    if strategy == "mirrored":
        return f"note: --strategy mirrored found no GPU and uses the CPU: for GPUs, {INSTALL}; else leave --strategy out"
    return ""


def gpu_flops() -> float:
    """Return the FLOP/s that the first GPU reaches in a float32 matrix product, measured within a fraction of a second."""
    matrix = tf.ones((_SIZE, _SIZE))
    float(tf.matmul(matrix, matrix)[0, 0])  # the first product also starts the GPU
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 0.1:
        float(tf.matmul(matrix, matrix)[0, 0])
        count += 1
    return 2 * _SIZE**3 * count / (time.perf_counter() - began)
