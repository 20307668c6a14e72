"""google-research/bert's checkpoints: `bert_model.ckpt.index` and its data, `bert_config.json`, `vocab.txt`."""

from pathlib import Path

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion import weight_names
from clozemill.model.conversion.foreign_files import MAX_VOCABULARY, read_bytes, read_json
from clozemill.model.conversion.hf_tokenizer import ForeignTokenizer, read_lines
from clozemill.model.conversion.imported import Imported
from clozemill.model.conversion.tf_variables import read_variables, variable_names
from clozemill.model.conversion.weight_names import Converted

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


def _converted(prefix: str, config: EncoderConfig) -> Converted:
    """The weights; an optimizer's variables aren't read. Raises ValueError for a damaged checkpoint, or a tensor's name."""
    try:
        names = variable_names(prefix)
        found = read_variables(prefix, weight_names.tf1_wanted(config))
    except ValueError as error:
        raise ValueError(f"{Path(prefix).name} can't be read ({error}): copy it again") from None
    return weight_names.from_tf1(found, config, names)


def read(folder: Path) -> Imported:
    """Reads a checkpoint of the reference. Raises ValueError, naming the file or the tensor, for what isn't one.

    Its `gelu` is the tanh form. The files don't tell the casing.
    """
    settings = read_json(folder / CONFIG)
    try:
        config = weight_names.config_from_tf1(settings)
    except ValueError as error:
        raise ValueError(f"{CONFIG}: {error}") from None
    tokens = read_lines(read_bytes(folder / VOCAB, MAX_VOCABULARY))
    return Imported("tf1", config, _converted(_prefix(folder), config), ForeignTokenizer(tokens))
