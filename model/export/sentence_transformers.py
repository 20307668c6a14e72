"""Write what sentence-transformers needs beside a Hugging Face folder, and compute what it computes.

    modules.json                        the modules in their order: transformers' model, pooling, normalisation
    1_Pooling/config.json               which pooling
    2_Normalize/config.json             what is normalised
    sentence_bert_config.json           tokens that texts are truncated to
    config_sentence_transformers.json   the similarity: cosine

H hidden size, B texts, S sequence length.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from clozemill.model.export.base import Source

MODULES, POOLING, NORMALIZE = "modules.json", "1_Pooling", "2_Normalize"
_TRANSFORMER = ("", "Transformer")
_MODES = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def write(source: Source, folder: Path) -> None:
    """Write the files of a source that makes sentence vectors."""
    steps = [_TRANSFORMER, (POOLING, "Pooling"), (NORMALIZE, "Normalize")]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
        for number, (path, name) in enumerate(steps)
    ]
    _write(folder / MODULES, modules)
    for path, _ in steps[1:]:
        (folder / path).mkdir()
    chosen = {mode: pooling == source.task.head for pooling, mode in _MODES.items()}
    width = {"word_embedding_dimension": source.config.hidden_size}
    _write(folder / POOLING / "config.json", width | chosen | {"include_prompt": True})
    _write(folder / NORMALIZE / "config.json", {"module_input_name": "sentence_embedding"})  # a folder needs a file in git
    _write(folder / "sentence_bert_config.json", {"max_seq_length": source.max_seq_length, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"prompts": {}, "similarity_fn_name": "cosine"})


def outputs(folder: Path, hidden_BSH: np.ndarray, mask_BS: np.ndarray) -> dict[str, np.ndarray]:
    """Return `sentence_embedding`, float32 [B, H], as the folder's files say; {} if it isn't for sentence-transformers.

    Args:
        hidden_BSH: the outputs of the last layer, float32.
        mask_BS: 1 = a token, 0 = padding.
    """
    if not (folder / MODULES).exists():
        return {}
    if json.loads((folder / POOLING / "config.json").read_text("utf-8"))[_MODES["cls"]]:
        vectors_BH = hidden_BSH[:, 0]
    else:
        mask_BS1 = mask_BS[:, : hidden_BSH.shape[1], None].astype(np.float32)
        vectors_BH = (hidden_BSH * mask_BS1).sum(axis=1) / mask_BS1.sum(axis=1)
    return {"sentence_embedding": vectors_BH / np.maximum(np.linalg.norm(vectors_BH, axis=1, keepdims=True), 1e-12)}
