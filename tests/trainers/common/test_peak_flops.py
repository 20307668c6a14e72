"""Devices by the names that drivers and TPU VMs report."""

import pytest

from clozemill.trainers.common.peak_flops import PEAK_TFLOPS, peak_tflops


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA B200", 2250.0),
        ("NVIDIA GH200 480GB", 989.0),
        ("NVIDIA H200", 989.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-40GB", 312.0),
        ("NVIDIA A100-PCIE-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA A10G", 70.0),
        ("Tesla V100-SXM2-16GB", 125.0),
        ("Tesla T4", 65.0),
        ("NVIDIA GeForce RTX 4090", 165.0),
        ("NVIDIA GeForce RTX 3090", 71.0),
        ("v6e-8", 918.0),
        ("TPU v6 lite", 918.0),  # JAX's name
        ("v5p-16", 459.0),
        ("v5litepod-8", 197.0),
        ("TPU v5 lite", 197.0),
        ("v4-8", 275.0),
        ("v3-8", 61.5),
        ("v2-8", 22.5),
    ],
)
def test_known_devices(device: str, peak: float) -> None:
    assert peak_tflops(device) == peak


@pytest.mark.parametrize("device", ["CPU", "", "GPU", "TPU", "NVIDIA L40", "NVIDIA RTX A1000", "NVIDIA T400", "Tesla P100"])
def test_unknown_devices(device: str) -> None:
    """Including those whose names start like a known one."""
    assert peak_tflops(device) is None


def test_every_name_in_the_table_is_found() -> None:
    """No name is hidden by an earlier one."""
    assert {name: peak_tflops(name) for name in PEAK_TFLOPS} == PEAK_TFLOPS
