"""What was read of a model folder that others wrote."""

from dataclasses import dataclass

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion.hf_tokenizer import ForeignTokenizer
from clozemill.model.conversion.weight_names import Converted


@dataclass(frozen=True)
class Imported:
    """A folder's model. format: "hf" or "tf1". tokenizer: its tokens may be fewer than the rows of the word embeddings."""

    format: str
    config: EncoderConfig
    converted: Converted
    tokenizer: ForeignTokenizer
