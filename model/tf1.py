"""google-research/bert's checkpoints: `bert_model.ckpt.index` and its data, `bert_config.json`, `vocab.txt`."""

import json
from pathlib import Path

import tensorflow as tf

from model import conversion
from model.conversion import Imported

CONFIG, VOCAB, INDEX = "bert_config.json", "vocab.txt", ".index"


def is_folder(folder: Path) -> bool:
    """Whether a folder looks like one of the reference's."""
    return (folder / CONFIG).exists() or any(folder.glob("*.ckpt*" + INDEX))


def _prefix(folder: Path) -> str:
    """The checkpoint's name without its ending."""
    found = sorted(folder.glob("*.ckpt*" + INDEX))
    if not found:
        raise ValueError(f"bert_model.ckpt{INDEX} is missing: give a folder with the checkpoint, {CONFIG} and {VOCAB}")
    if len(found) > 1:
        raise ValueError(f"it holds {len(found)} checkpoints ({found[0].name}, {found[1].name}): leave one there")
    return str(found[0]).removesuffix(INDEX)


def _variables(prefix: str) -> dict:
    """The model's variables by name; an optimizer's aren't read. Raises ValueError when the checkpoint is damaged."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        names = [name for name in sorted(reader.get_variable_to_shape_map()) if conversion.tf1_wanted(name)]
        return {name: reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise ValueError(f"{Path(prefix).name} can't be read ({' '.join(str(error).split())[:200]}): copy it again") from None


def read(folder: Path) -> Imported:
    """Reads a checkpoint of the reference. Raises ValueError, naming the file or the tensor, for what isn't one.

    Its `gelu` is the tanh form. The files don't tell the casing.
    """
    try:
        settings = json.loads((folder / CONFIG).read_text("utf-8"))
        config = conversion.config_from_tf1(settings if isinstance(settings, dict) else {})
    except FileNotFoundError:
        raise ValueError(f"{CONFIG} is missing: copy it from where the checkpoint comes from") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{CONFIG}: {' '.join(str(error).split())}") from None
    if not (folder / VOCAB).exists():
        raise ValueError(f"{VOCAB} is missing: copy it from where the checkpoint comes from")
    converted = conversion.from_tf1(_variables(_prefix(folder)), config)
    return Imported("tf1", config, converted, (folder / VOCAB).read_bytes(), None)
