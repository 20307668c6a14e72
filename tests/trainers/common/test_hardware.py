"""Free memory by the kernel and by a container's limit, GPUs that TensorFlow doesn't see, and how hardware is described."""

from pathlib import Path

import pytest

from clozemill.trainers.common import hardware
from clozemill.trainers.common.hardware import GIB, Hardware


def written(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


KERNEL = {"proc/meminfo": "MemTotal:       16000000 kB\nMemFree:         1000 kB\nMemAvailable:    8000000 kB\n"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 0),
        (KERNEL, 8_192_000_000),
        ({**KERNEL, "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "5\n"}, 8_192_000_000),
        ({**KERNEL, "sys/fs/cgroup/memory.max": "1000\n", "sys/fs/cgroup/memory.current": "400\n"}, 600),
        ({**KERNEL, "sys/fs/cgroup/memory.max": "1000\n", "sys/fs/cgroup/memory.current": "1400\n"}, 0),
        (
            {"sys/fs/cgroup/memory.max": "1000\n", "sys/fs/cgroup/memory.current": "900\n",  # most of it files that were read
             "sys/fs/cgroup/memory.stat": "anon 200\ninactive_file 650\nactive_file 50\n"},
            750,
        ),
        (
            {**KERNEL, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9\n",
             "sys/fs/cgroup/memory/memory.usage_in_bytes": "2\n"},
            7,
        ),
    ],
)  # fmt: skip
def test_free_memory(tmp_path: Path, files: dict[str, str], free: int) -> None:
    assert hardware.free_memory(written(tmp_path, files)) == free


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, 0),
        ({"proc/driver/nvidia/version": "x"}, 0),
        ({"proc/driver/nvidia/gpus/0000:01:00.0/information": "x", "proc/driver/nvidia/gpus/0000:02:00.0/information": "x"}, 2),
        ({"dev/nvidia0": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""}, 1),
        ({"dev/dxg": "", "usr/lib/wsl/lib/libcuda.so.1": ""}, 1),  # Windows Subsystem for Linux
        ({"dev/dxg": ""}, 0),
    ],
)
def test_gpus_by_their_drivers(tmp_path: Path, files: dict[str, str], found: int) -> None:
    assert hardware.nvidia_gpus(written(tmp_path, files)) == found


@pytest.mark.parametrize(
    ("strategy", "gpus", "used", "hidden", "sentence"),
    [
        ("default", 0, 0, None, ""),
        ("default", 1, 1, None, ""),
        ("default", 1, 0, None, "warning: this machine has 1 NVIDIA GPU that TensorFlow doesn't use: pip install"),
        ("mirrored", 4, 0, None, "warning: this machine has 4 NVIDIA GPUs that TensorFlow doesn't use: pip install"),
        ("default", 1, 0, "-1", ""),  # CUDA_VISIBLE_DEVICES hides them on purpose
        ("mirrored", 0, 0, None, "note: --strategy mirrored found no GPU and uses the CPU: "),
        ("mirrored", 1, 0, "", "note: --strategy mirrored found no GPU and uses the CPU: "),
        ("mirrored", 1, 1, None, ""),
        ("tpu", 1, 0, None, ""),
    ],
)
def test_remarks_on_gpus(strategy: str, gpus: int, used: int, hidden: str | None, sentence: str) -> None:
    found = hardware.gpu_remark(strategy, gpus, used, hidden)
    assert found.startswith(sentence) and bool(found) == bool(sentence) and "\n" not in found


@pytest.mark.parametrize(
    ("visible", "found"), [(None, 4), ("0,1", 2), ("0, 1,-1,2", 2), ("-1", 0), ("", 0), ("GPU-1f", 1), ("0,1,2,3,4,5", 4)]
)
def test_gpus_that_cuda_shows(visible: str | None, found: int) -> None:
    assert hardware.visible_gpus(4, visible) == found


def test_descriptions() -> None:
    assert str(Hardware("CPU", 1, 8 * GIB, 2)) == "2 CPU cores with 8 GiB free"
    assert str(Hardware("CPU", 1, 0, 1)) == "1 CPU core"
    assert str(Hardware("GPU", 2, 40 * GIB, 8)) == "2 GPUs with 40 GiB free each"
    assert str(Hardware("TPU", 8, 0, 8)) == "a TPU"
