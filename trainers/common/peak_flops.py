"""Peak rates of known devices, the reference for model-FLOPs utilisation."""

import re

from clozemill.trainers.common.tpu_generations import GENERATIONS

# Dense bfloat16 TFLOP/s (float16 if the device has no bfloat16) by TensorFlow's device name, from the vendors' data sheets.
_GPUS = {
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
}
GPUS = tuple(_GPUS)
# A training step on a CPU reaches about this part of the rate of matrix products (matrix_rate.py), as FLOPs are counted here:
# measured were 0.85 to 1 with narrow encoders and one thread; several threads reach less.
CPU_SHARE = 0.6
PEAK_TFLOPS = _GPUS | {name: generation.tflops for generation in GENERATIONS.values() for name in generation.names}


def peak_tflops(device: str) -> float | None:
    """Return the peak TFLOP/s of a device by name, or None for an unknown one such as a CPU. "L40" doesn't match "L4"."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if re.search(rf"{name}(?!\d)", device, re.IGNORECASE)), None)
