"""The options of `predict`, `evaluate` and `embed`."""

from dataclasses import dataclass

from clozemill.pipelines.command_line.options import INPUT, NEW, OUTPUT, READ, RUNNING, option
from clozemill.pipelines.command_line.overwriting import OverwriteOption
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.config import EngineOptions, check_ending
from clozemill.trainers.finetuning import config
from clozemill.trainers.finetuning.config import Columns, TextColumn
from clozemill.trainers.pretraining.evaluate_config import EvaluateConfig

TYPED = ("--text", "--text-pair")  # names of a text of the command line and of its pair, in messages
POOLS = ("none", "cls", "mean", "sentence")


class OneSource:
    """The checks of commands that take a file of texts, or a single text."""

    input: str
    text: str

    def required(self) -> tuple[str, ...]:
        """Return the options that can't be left out."""
        return ("run", "output") if self.input and not self.text else ("run",)

    def check_source(self) -> None:
        """Raise UserError unless there is exactly one of --input and --text."""
        if bool(self.text) == bool(self.input):
            raise UserError("--input and --text: give exactly one of them")


@dataclass(frozen=True)
class PredictConfig(OneSource, OverwriteOption, Columns, EngineOptions):
    """`clozemill predict`"""

    run: str = option(
        "",
        "the folder of a finetune run, or one of its checkpoints; of pretrain or import: fill in [MASK]",
        flag=False,
        group=INPUT,
        required=True,
        path=READ,
    )
    input: str = option(
        "",
        "a file of texts, in a format that finetune reads; if it has labels, the answers are scored",
        group=INPUT,
        required="unless --text",
        path=READ,
    )
    text: str = option("", "a single text instead of a file; without --output, the answer is printed", group=INPUT)
    text_pair: str = option("", "second text for --text (spans: --text is the question, this is the context)", group=INPUT)
    output: str = option(
        "",
        "an output file for the answers: .jsonl, .csv, .tsv or .parquet",
        group=OUTPUT,
        required="with --input",
        path=NEW,
    )
    id_column: str = option("", "column of an id to copy to the answers, which always have the row number", group=INPUT)
    top_k: int = option(5, "fill in [MASK]: number of candidates for each", low=1, high=1000)
    checkpoint: str = option("best", "which checkpoint of the run to use", choices=("latest", "best"), group=INPUT)
    batch_size: int = option(
        64, "examples per batch, across all devices; doesn't change the results", low=1, high=1 << 20, group=RUNNING
    )
    threshold: float | None = option(
        None, "multilabel: minimum probability to assign a label; default: that of fine-tuning", low=0, high=1
    )
    progress: bool = option(True, "show a progress bar", group=RUNNING)

    def check_command(self) -> None:
        """Raise UserError unless there is one source of texts, and an output that can be written."""
        self.check_source()
        check_ending(self.output, (".jsonl", ".csv", ".tsv", ".parquet"))


@dataclass(frozen=True)
class EvaluateModelConfig(Columns, EvaluateConfig):
    """`clozemill evaluate`"""

    data: str = option(
        "",
        "a dataset of clozemill prepare, whose eval split is used; for a fine-tuned model: a file with labels",
        group=INPUT,
        required=True,
        path=READ,
    )
    threshold: float | None = option(
        None, "multilabel: minimum probability to assign a label; default: that of fine-tuning", low=0, high=1
    )


@dataclass(frozen=True)
class EmbedConfig(OneSource, OverwriteOption, TextColumn, EngineOptions):
    """`clozemill embed`"""

    run: str = option(
        "",
        "the folder of a run, or a checkpoint written by pretrain, import or finetune",
        flag=False,
        group=INPUT,
        required=True,
        path=READ,
    )
    input: str = option(
        "",
        "a file of texts: CSV, TSV, JSONL, Parquet, or plain text with one text per line",
        group=INPUT,
        required="unless --text",
        path=READ,
    )
    text: str = option("", "a single text instead of a file; without --output, its features are printed", group=INPUT)
    output: str = option("", "an output file for the features: .parquet", group=OUTPUT, required="with --input", path=NEW)
    layers: str = option(
        "", f"encoder layers to concatenate; 0 is the embeddings, -1 the last layer (default: {config.LAST_FOUR})"
    )
    pool: str = option(
        "",
        "pooling; none: one row per token; cls, mean: one row per text; sentence: the vector of length 1 that contrast trained "
        "(default: sentence for its models, none for others)",
        choices=POOLS,
    )
    max_seq_length: int | None = option(
        None, "truncate texts to this many tokens (default: 128; with --pool sentence that of contrast)", low=8, high=65536
    )
    checkpoint: str = option("best", "which checkpoint of the run to use", choices=("latest", "best"), group=INPUT)
    batch_size: int = option(
        64, "examples per batch, across all devices; doesn't change the results", low=1, high=1 << 20, group=RUNNING
    )
    progress: bool = option(True, "show a progress bar", group=RUNNING)

    def check_command(self) -> None:
        """Raise UserError unless there is one source of texts, and for layers or an output that can't be used."""
        if self.layers:
            config.layers(self.layers)
        self.check_source()
        check_ending(self.output, (".parquet",))
