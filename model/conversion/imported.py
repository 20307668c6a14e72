"""The contents of a foreign model folder."""

from dataclasses import dataclass

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion.hf_tokenizer import ForeignTokenizer
from clozemill.model.conversion.weight_table import Converted
from clozemill.model.task_model import Task


@dataclass(frozen=True)
class Imported:
    """The model of a folder.

    format: "hf" or "tf1". tokenizer: may have fewer tokens than the word embeddings have rows. task: of a fine-tuned model,
    whose head is among the weights. note: why the head of a task was skipped, or "".
    """

    format: str
    config: EncoderConfig
    converted: Converted
    tokenizer: ForeignTokenizer
    task: Task | None = None
    note: str = ""
