"""Peak rates of known devices: what model-FLOPs utilisation is counted against."""

import re

# Dense bfloat16 TFLOP/s (float16 where there is no bfloat16) of one device as TensorFlow names it, from the vendors' data
# sheets; a TPU's "device" is a chip, of which v2 and v3 show each half as a device of its own.
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


def peak_tflops(device: str) -> float | None:
    """TFLOP/s of a device by its name, None for an unknown one such as a CPU; an L40 is no L4."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if re.search(rf"{name}(?!\d)", device, re.IGNORECASE)), None)
