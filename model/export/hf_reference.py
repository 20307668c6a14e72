"""Compute the outputs of an exported folder with `transformers`: a standalone program, the only one that needs torch.

python -P hf_reference.py FOLDER FEATURES.npz ANSWERS

Runs without TensorFlow (hf_process.py starts it), because the libraries of the two conflict in one process: TensorFlow 2.21
and triton 3.8, a dependency of torch, crash the interpreter. Writes an .npy file per output into the folder ANSWERS, then
answers.json: {"outputs": [names]}, or {"error": "what is wrong with FOLDER"}.
"""

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.modules["tensorflow"] = None  # type: ignore[assignment]  # an import of it here fails

import numpy as np
import torch
import transformers


def outputs(folder: str, features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Load a folder with the class named by its config.json; return its outputs with our names, float32.

    Raises ValueError if a weight is missing from the file, or unknown to the class.
    """
    name = json.loads((Path(folder) / "config.json").read_text("utf-8"))["architectures"][0]
    bare = {"add_pooling_layer": False} if name == "BertModel" and not _has_pooler(folder) else {}
    with _quiet():
        model, told = getattr(transformers, name).from_pretrained(
            folder, output_loading_info=True, dtype=torch.float32, local_files_only=True, **bare
        )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(map(str, told[what]))
        if what == "unexpected_keys":  # an import may have a pooler that the class of its heads ignores
            keys = [key for key in keys if not key.startswith("bert.pooler.")]
        if keys:
            raise ValueError(f"transformers finds {what.replace('_', ' ')} in it: {', '.join(keys)}")
    return _answers(model.eval(), features)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress progress bars and warnings: problems are in the loading information."""
    logging = transformers.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.ERROR)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _has_pooler(folder: str) -> bool:
    from safetensors import safe_open

    with safe_open(Path(folder) / "model.safetensors", framework="np") as file:
        return any(".pooler." in name for name in file.keys())  # noqa: SIM118  (it is no dict)


def _answers(model: "transformers.PreTrainedModel", features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    ids, mask, kinds = (torch.from_numpy(features[name]).long() for name in ("input_ids", "input_mask", "segment_ids"))
    base, answers = model.base_model, dict[str, torch.Tensor]()
    segments = {"token_type_ids": kinds} if hasattr(base.embeddings, "token_type_embeddings") else {}
    base.register_forward_hook(lambda _module, _inputs, found: answers.update(sequence_output=found[0]))
    if getattr(base, "pooler", None) is not None:
        base.pooler.register_forward_hook(lambda _module, _inputs, found: answers.update(pooled_output=found))
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask, **segments)
    if "start_logits" in found:
        answers["logits"] = torch.stack([found.start_logits, found.end_logits], dim=-1)
    elif "prediction_logits" in found:
        answers |= {"masked_lm_logits": found.prediction_logits, "next_sentence_logits": found.seq_relationship_logits}
    elif "logits" in found:
        masked = type(model).__name__.endswith(("ForMaskedLM", "LMHeadModel"))
        answers["masked_lm_logits" if masked else "logits"] = found.logits
    return {name: value.numpy() for name, value in answers.items()}


def _end_with_parent() -> None:
    """Exit when the parent has exited, which closes its end of the pipe."""
    os.read(0, 1)  # not sys.stdin's buffer: a daemon thread must not hold its lock when Python exits
    os._exit(1)


def main(folder: str, features: str, answers: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        found = outputs(folder, dict(np.load(features, allow_pickle=False)))
        told: dict[str, Any] = {"outputs": sorted(found)}
    except ValueError as error:
        found, told = {}, {"error": " ".join(str(error).split())}
    for name, value in found.items():
        np.save(Path(answers) / f"{name}.npy", value, allow_pickle=False)
    (Path(answers) / "answers.json").write_text(json.dumps(told), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
