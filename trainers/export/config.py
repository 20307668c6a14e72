"""What can be configured of export and import, as config.py does for training."""

from dataclasses import dataclass

from clozemill.pipelines.command_line.options import option, suggest
from clozemill.pipelines.common.errors import UserError

FORMATS = ("savedmodel", "hf", "keras")


@dataclass(frozen=True)
class ExportConfig:
    """`clozemill export`"""

    run: str = option("", "a run's folder, or a checkpoint of pretrain, finetune or import", flag=False)
    output: str = option("", "the folder in which each format gets one of its own")
    formats: str = option(",".join(FORMATS), "what to write, with commas between")
    checkpoint: str = option("best", "which of a run's checkpoints", choices=("latest", "best"))
    max_seq_length: int = option(
        0,
        "tokens that texts are cut to; 0: a fine-tuned model's own, else the longest that it was trained on",
        low=0,
        high=65536,
    )

    def chosen(self) -> tuple[str, ...]:
        """The formats, each once. Raises UserError for an unknown one, or none."""
        words = tuple(dict.fromkeys(word.strip() for word in self.formats.split(",") if word.strip()))
        for word in words:
            if word not in FORMATS:
                told = f"give some of {','.join(FORMATS)}{suggest(word, list(FORMATS))}"
                raise UserError(f"--formats names {word!r}, which is none: {told}")
        if not words:
            raise UserError(f"--formats names none: give some of {','.join(FORMATS)}")
        return words

    def validate(self) -> None:
        """Raises UserError for values that can't be."""
        self.chosen()
        if 0 < self.max_seq_length < 8:
            raise UserError(f"--max-seq-length is {self.max_seq_length}: give a value between 8 and 65536")


@dataclass(frozen=True)
class ImportConfig:
    """`clozemill import`"""

    source: str = option(
        "", "a Hugging Face BERT folder (config.json, safetensors, vocab.txt), or one of google-research/bert", flag=False
    )
    output: str = option("", "the checkpoint's folder")
    cased: bool | None = option(None, "whether the vocabulary is cased, where the files don't say, or say it wrongly")
    strip_accents: bool | None = option(None, "remove accents from texts (default: as the files say, or else unless cased)")
    tokenize_chinese_chars: bool | None = option(
        None, "make every Chinese character a word of its own (default: as the files say, or else yes)"
    )
