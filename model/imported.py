"""What was read of a model folder that others wrote."""

from dataclasses import dataclass

from model.config import EncoderConfig
from model.conversion import Converted
from model.foreign_tokenizer import ForeignTokenizer


@dataclass(frozen=True)
class Imported:
    """A folder's model. format: "hf" or "tf1". tokenizer: its tokens may be fewer than the rows of the word embeddings."""

    format: str
    config: EncoderConfig
    converted: Converted
    tokenizer: ForeignTokenizer
