"""The options of `predict` and `embed`."""

from dataclasses import dataclass

from clozemill.pipelines.command_line.options import option
from clozemill.trainers.common.config import DeviceOptions
from clozemill.trainers.finetuning import config
from clozemill.trainers.finetuning.config import PairColumn, TextColumn


@dataclass(frozen=True)
class PredictConfig(PairColumn, DeviceOptions):
    """`clozemill predict`"""

    run: str = option("", "a run of clozemill finetune, or one of its checkpoints", flag=False)
    input: str = option("", "the texts: a file as finetune reads it; answers needn't be in it")
    text: str = option("", "a text, instead of a file: the answer is printed")
    text_pair: str = option("", "a second text to it (for spans: text is the question, this the context)")
    output: str = option("", "where the answers go: .jsonl or .parquet")
    checkpoint: str = option("best", "which of a run's checkpoints", choices=("latest", "best"))
    batch_size: int = option(64, "examples at a time, over all devices; it changes nothing else", low=1, high=1 << 20)
    threshold: float | None = option(
        None, "multilabel: the probability from which a label is given; default: that of fine-tuning", low=0, high=1
    )
    progress: bool = option(True, "show a progress bar")


@dataclass(frozen=True)
class EmbedConfig(TextColumn, DeviceOptions):
    """`clozemill embed`"""

    run: str = option("", "a run, or a checkpoint, of pretrain, import or finetune", flag=False)
    input: str = option("", "the texts: CSV, TSV, JSONL, Parquet, or plain text with a text per line")
    output: str = option("", "where the features go: .parquet")
    layers: str = option(config.LAST_FOUR, "which layers, side by side; 0 is the embeddings, -1 the last")
    pool: str = option("none", "none: a row per token; cls, mean: a row per text", choices=("none", "cls", "mean"))
    max_seq_length: int = option(128, "tokens that texts are cut to", low=8, high=65536)
    checkpoint: str = option("best", "which of a run's checkpoints", choices=("latest", "best"))
    batch_size: int = option(64, "examples at a time, over all devices; it changes nothing else", low=1, high=1 << 20)
    progress: bool = option(True, "show a progress bar")
