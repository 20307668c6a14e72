"""The contents of a checkpoint, read with the library of the format."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


def variables(folder: Path) -> dict[str, np.ndarray]:
    """Return a checkpoint's weights and moments by group and name."""
    parts = {part: load_file(folder / f"{part}.safetensors") for part in ("weights", "moments")}
    return {f"{part}/{name}": value for part, found in parts.items() for name, value in found.items()}


def bits(folder: Path) -> dict[str, bytes]:
    """Return the bytes of a checkpoint's weights and moments by group and name."""
    return {name: value.tobytes() for name, value in variables(folder).items()}
