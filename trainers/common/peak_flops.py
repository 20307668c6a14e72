"""Peak rates of known devices, the reference for model-FLOPs utilisation."""

import re

# Dense bfloat16 TFLOP/s (float16 if the device has no bfloat16) by TensorFlow's device name, from the vendors' data sheets.
# A TPU device is a chip, except on v2 and v3, where each half of a chip is a device.
PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10G": 70.0,
    "A10": 125.0,
    "V100": 125.0,
    "T4": 65.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
    "v6e": 918.0,
    "v5p": 459.0,
    "v5litepod": 197.0,
    "v5 lite": 197.0,
    "v4": 275.0,
    "v3": 61.5,
    "v2": 22.5,
}

GPUS = tuple(name for name in PEAK_TFLOPS if not name.startswith("v"))


def peak_tflops(device: str) -> float | None:
    """Return the peak TFLOP/s of a device by name, or None for an unknown one such as a CPU. "L40" doesn't match "L4"."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if re.search(rf"{name}(?!\d)", device, re.IGNORECASE)), None)
