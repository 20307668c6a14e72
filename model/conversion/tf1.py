"""Read checkpoints of google-research/bert: `bert_model.ckpt.index` and its data, `bert_config.json`, `vocab.txt`."""

from pathlib import Path

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion import bert_names
from clozemill.model.conversion.foreign_files import MAX_VOCABULARY, read_bytes, read_json
from clozemill.model.conversion.hf_tokenizer import ForeignTokenizer, read_lines
from clozemill.model.conversion.imported import Imported
from clozemill.model.conversion.weight_table import Converted

CONFIG, VOCAB, INDEX = "bert_config.json", "vocab.txt", ".index"


def is_folder(folder: Path) -> bool:
    """Return whether a folder looks like a google-research/bert checkpoint."""
    return (folder / CONFIG).exists() or any(folder.glob("*.ckpt*" + INDEX))


def _prefix(folder: Path) -> str:
    """Return the checkpoint's name without its ending."""
    found = sorted(folder.glob("*.ckpt*" + INDEX))
    if not found:
        raise ValueError(f"bert_model.ckpt{INDEX} is missing: give a folder with the checkpoint, {CONFIG} and {VOCAB}")
    if len(found) > 1:
        raise ValueError(f"it holds {len(found)} checkpoints ({found[0].name}, {found[1].name}): leave one there")
    return str(found[0]).removesuffix(INDEX)


def _converted(prefix: str, config: EncoderConfig) -> Converted:
    """Return the weights, without optimizer variables. Raises ValueError, naming the tensor, or for a corrupt checkpoint."""
    from clozemill.model.conversion.tf_variables import read_variables, variable_names  # loads TensorFlow

    try:
        names = variable_names(prefix)
        found = read_variables(prefix, bert_names.tf1_wanted(config))
    except ValueError as error:
        raise ValueError(f"{Path(prefix).name} can't be read ({error}): copy it again") from None
    return bert_names.from_tf1(found, config, names)


def read(folder: Path) -> Imported:
    """Read a checkpoint of google-research/bert. Raises ValueError with the name of the invalid file or tensor.

    Its `gelu` is the tanh form. The files don't state the casing.
    """
    settings = read_json(folder / CONFIG)
    try:
        config = bert_names.config_from_tf1(settings)
    except ValueError as error:
        raise ValueError(f"{CONFIG}: {error}") from None
    tokens = read_lines(read_bytes(folder / VOCAB, MAX_VOCABULARY))
    return Imported("tf1", config, _converted(_prefix(folder), config), ForeignTokenizer(tokens))
