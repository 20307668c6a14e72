"""The contents of a foreign model folder."""

from dataclasses import dataclass

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion.hf_tokenizer import ForeignTokenizer
from clozemill.model.conversion.weight_table import Converted


@dataclass(frozen=True)
class Imported:
    """The model of a folder. format: "hf" or "tf1". tokenizer: may have fewer tokens than the word embeddings have rows."""

    format: str
    config: EncoderConfig
    converted: Converted
    tokenizer: ForeignTokenizer
