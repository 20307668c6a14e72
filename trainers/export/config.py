"""The options of `export` and `import`."""

from dataclasses import dataclass

from clozemill.pipelines.command_line.options import INPUT, OUTPUT, READ, option, suggest
from clozemill.pipelines.command_line.overwriting import OverwriteOption
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.config import keras_environment

FORMATS = ("savedmodel", "hf", "keras")


@dataclass(frozen=True)
class ExportConfig(OverwriteOption):
    """`clozemill export`"""

    run: str = option(
        "",
        "the folder of a run, or a checkpoint written by pretrain, finetune or import",
        flag=False,
        group=INPUT,
        required=True,
        path=READ,
    )
    output: str = option("", "an output folder; each format is written to its own subfolder", group=OUTPUT, required=True)
    formats: str = option(",".join(FORMATS), "formats to write, separated by commas", group=OUTPUT)
    checkpoint: str = option("best", "which checkpoint of the run to use", choices=("latest", "best"), group=INPUT)
    max_seq_length: int = option(
        0,
        "truncate texts to this many tokens; 0: the setting of fine-tuning, else the longest sequence of pretraining",
        low=0,
        high=65536,
    )

    def chosen(self) -> tuple[str, ...]:
        """Return the formats without duplicates. Raises UserError if one is unknown or none is given."""
        words = tuple(dict.fromkeys(word.strip() for word in self.formats.split(",") if word.strip()))
        for word in words:
            if word not in FORMATS:
                hint = f"choose from {', '.join(FORMATS)}{suggest(word, list(FORMATS))}"
                raise UserError(f"unknown format {word!r} in --formats; {hint}")
        if not words:
            raise UserError(f"--formats is empty: choose from {', '.join(FORMATS)}")
        return words

    def environment(self) -> dict[str, str]:
        """Return the environment variables to set before Keras is imported."""
        return keras_environment()

    def replaced(self) -> list[str]:
        """Return what --overwrite may replace."""
        return [f"{self.output.rstrip('/')}/{name}" for name in self.chosen()] if self.output else []

    def validate(self) -> None:
        """Raise UserError for invalid values."""
        self.chosen()
        if 0 < self.max_seq_length < 8:
            raise UserError(f"--max-seq-length is {self.max_seq_length}: give a value between 8 and 65536")


@dataclass(frozen=True)
class ImportConfig(OverwriteOption):
    """`clozemill import`"""

    source: str = option(
        "",
        "the folder of a Hugging Face BERT (or ModernBERT: config.json, safetensors, vocab.txt or tokenizer.json) or of a "
        "google-research/bert checkpoint, or a model's id on the Hugging Face hub, such as google-bert/bert-base-uncased",
        flag=False,
        group=INPUT,
        required=True,
    )
    output: str = option("", "a folder for the checkpoint", group=OUTPUT, required=True)
    revision: str = option("", "branch, tag or commit of a model on the hub (default: its main branch)", group=INPUT)
    cased: bool | None = option(None, "whether the vocabulary is cased, if the files don't say or are wrong")
    strip_accents: bool | None = option(None, "strip accents from texts (default: as the files say, else unless cased)")
    tokenize_chinese_chars: bool | None = option(
        None, "treat each Chinese character as a word (default: as the files say, else yes)"
    )

    def environment(self) -> dict[str, str]:
        """Return the environment variables to set before Keras is imported."""
        return keras_environment()
