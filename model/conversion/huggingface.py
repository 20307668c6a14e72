"""Read Hugging Face folders of a BERT or ModernBERT from any source, only from safetensors, and reject other models.

Pickled weights (pytorch_model.bin) are never opened, and code named in a folder is never run.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion import weight_names
from clozemill.model.conversion.foreign_files import is_file, optional_json, read_json
from clozemill.model.conversion.hf_task import read_task
from clozemill.model.conversion.hf_tokenizer import read_tokenizer
from clozemill.model.conversion.imported import Imported
from clozemill.model.conversion.tokenizer_json import SETTINGS
from clozemill.model.task_heads import TASK_HEADS

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
MAX_HEADER = 1 << 24  # bytes of a safetensors header; BERT-large's has 60,000
_BUFFERS = ("position_ids", "token_type_ids")  # values that transformers recomputes


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, read only when it is converted to an array. dtype: safetensors' name, such as "BF16"."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.read(), dtype)


def _tensors(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file. Raises ValueError if it is damaged or its header is wrong."""
    import ml_dtypes  # noqa: F401  (numpy learns of bfloat16)

    if not is_file(path):
        raise ValueError(f"{path.name} can't be read (it is missing): copy it again")
    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > MAX_HEADER:
            raise ValueError(f"{path.name} can't be read (its header claims {header:,} bytes): copy it again")
        stored = safe_open(path, framework="np")  # checks that offsets, shapes and the file size agree, and memory-maps it
        parts = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118  (it is not a dict)
        return {
            name: StoredTensor(tuple(part.get_shape()), part.get_dtype(), partial(stored.get_tensor, name))
            for name, part in parts.items()
        }
    except (SafetensorError, OSError, TypeError) as error:
        raise ValueError(f"{path.name} can't be read ({' '.join(str(error).split())}): copy it again") from None


def _all_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return the tensors of model.safetensors, or of the files listed in its index."""
    if is_file(folder / WEIGHTS):
        return _tensors(folder / WEIGHTS)
    if is_file(folder / INDEX):
        names = read_json(folder / INDEX).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise ValueError(f"{INDEX} has no weight_map: copy it again")
        found: dict[str, StoredTensor] = {}
        for name in sorted(set(names.values())):
            if Path(name).name != name or name in ("..", "."):
                raise ValueError(f"{INDEX} names {name}, which is not a file of the folder")
            part = _tensors(folder / name)
            if twice := sorted(part.keys() & found.keys()):
                raise ValueError(f"{name} has the tensor {twice[0]}, which another file has too: copy them again")
            found |= part
        return found
    if (folder / "pytorch_model.bin").exists():
        raise ValueError(f"its weights are pickled, which clozemill never opens: save them as {WEIGHTS} first")
    raise ValueError(f"{WEIGHTS} is missing: give a folder with {CONFIG}, {WEIGHTS} and vocab.txt")


def _check_types(tensors: dict[str, StoredTensor]) -> None:
    """Raise ValueError, naming the tensor, for weights that aren't floating point: quantized or packed ones."""
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS and not name.endswith(_BUFFERS):
            raise ValueError(
                f"the tensor {name} holds {tensor.dtype} values, which are quantized or packed: give {WEIGHTS} in floats"
            )


def _check_memory(tensors: dict[str, StoredTensor]) -> None:
    """Raise ValueError if the weights don't fit into memory: a sparse file may have any size."""
    needed = 4 * sum(int(np.prod(tensor.shape, dtype=object)) for tensor in tensors.values())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise ValueError(f"its weights take {needed / 1e9:,.0f} GB in float32, but this machine has {memory / 1e9:,.0f} GB")


def _check_config(settings: dict[str, Any]) -> None:
    """Raise ValueError for a config.json with settings that change what BERT computes and that clozemill doesn't support."""
    if "auto_map" in settings:
        raise ValueError("it requires its own code (auto_map), which clozemill never runs")
    if settings.get("quantization_config"):
        raise ValueError("its weights are quantized (quantization_config): give those that it was made from")
    if settings.get("pruned_heads"):
        raise ValueError("it has pruned attention heads (pruned_heads), which clozemill doesn't support")


def is_folder(folder: Path) -> bool:
    """Return whether a folder looks like Hugging Face's."""
    return (folder / CONFIG).exists()


def read(folder: Path) -> Imported:
    """Return the contents of a Hugging Face folder. Raises ValueError, naming the invalid file or tensor."""
    settings = read_json(folder / CONFIG)
    try:
        _check_config(settings)
        config = weight_names.config_from_hf(settings)
    except ValueError as error:
        raise ValueError(f"{CONFIG}: {error}") from None
    tokenizer, tensors = read_tokenizer(folder, settings), _all_tensors(folder)
    _check_types(tensors)
    _check_memory(tensors)
    names = weight_names.family(config)
    tied = settings.get("tie_word_embeddings") is not False or names.DECODER in tensors
    if not tied and names.TRANSFORM in tensors:
        raise ValueError(f"{CONFIG}: its decoder is not tied to the word embeddings, and {names.CLASS}'s is")
    longest, note = optional_json(folder / SETTINGS).get("model_max_length"), ""
    try:
        task, head = _task(settings, config, tensors, longest)
    except ValueError as error:
        task, head, note = None, None, f"skipped: the head of the task, because {error}"
    return Imported("hf", config, weight_names.from_hf(tensors, config, head), tokenizer, task, note)


def _task(settings: dict[str, Any], config: EncoderConfig, tensors: dict[str, StoredTensor], longest: Any) -> tuple[Any, Any]:
    """Return the task of a fine-tuned model and its head for weight_names.table, or two None. Raises ValueError, see read_task.

    A model with a masked-LM head is a pretrained one, whatever its class is called.
    """
    task = read_task(settings, config, weight_names.family(config).CLASS, longest)
    if task is None:
        return None, None
    head = TASK_HEADS[task.kind].transformers[1], config.hidden_size, task.outputs
    entries = weight_names.table(config, ("masked_lm",), head)
    kernel = next(entry for entry in entries if entry.ours == "head/dense/kernel")
    others = {entry.hf for entry in entries if entry.ours == "masked_lm/output_bias"}
    if kernel.hf not in tensors or others & tensors.keys():
        return None, None
    if (rows := tensors[kernel.hf].shape) != kernel.shape[::-1]:
        raise ValueError(f"{kernel.hf} has the shape {list(rows)}, and its labels ask for {list(kernel.shape[::-1])}")
    return task, head
