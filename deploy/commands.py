"""The commands of clozemill: their option classes, functions, --help texts and examples, and the parser made from them."""

from dataclasses import dataclass, fields

from clozemill.deploy import config as submit
from clozemill.deploy import demo, plan
from clozemill.pipelines import config
from clozemill.pipelines.command_line import flags
from clozemill.pipelines.command_line.options import flag_name, suggest
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.inspection import config as inspection
from clozemill.pipelines.quality import config as quality
from clozemill.trainers.comparison import config as comparison
from clozemill.trainers.contrast import config as contrast
from clozemill.trainers.diagnosis import config as diagnosis
from clozemill.trainers.export import config as export
from clozemill.trainers.finetuning import config as finetuning
from clozemill.trainers.inference import config as inference
from clozemill.trainers.planning import config as tpu
from clozemill.trainers.pretraining import config as pretraining


@dataclass(frozen=True)
class Command:
    """A stage: its configuration class, the function that runs it ("module:function"), and its --help text.

    passes_on: options that clozemill doesn't define are passed on to Beam instead of being rejected. after_dashes: arguments
    after -- are passed on unchanged. runs_commands: the function also gets `main`. interrupted: the message after Ctrl-C.
    notes: what --help says between the options and the example.
    """

    config: type
    run: str
    help: str
    example: str
    passes_on: bool = False
    after_dashes: bool = False
    runs_commands: bool = False
    notes: str = ""
    interrupted: str = "nothing was changed"


COMMANDS: dict[str, Command] = {
    "plan": Command(
        plan.PlanConfig,
        "clozemill.deploy.plan:plan",
        "estimate output, time and cost of prepare and pretrain from a sample, and warn of problems",
        "clozemill plan --input 'corpus/*.jsonl.gz' --vocab vocab.txt --target dataflow tpu --num-workers 32 "
        "--recipe bert-base --topology v5e:4x4 --output plan.json",
        notes="With --budget, it trains short runs of several sizes on prepared datasets, and\n"
        "recommends what to train in that time, with the loss to expect:\n"
        "  clozemill plan --budget 2h --data DATASET",
    ),
    "vocab": Command(
        config.VocabConfig,
        "clozemill.pipelines.vocab.vocab:vocab",
        "learn a WordPiece vocabulary from a corpus, or extend one",
        "clozemill vocab --input 'corpus/*.jsonl.gz' --output vocab.txt --vocab-size 30522",
        passes_on=True,
        interrupted="no vocabulary was written",
    ),
    "prepare": Command(
        config.PrepareConfig,
        "clozemill.pipelines.prepare.prepare:prepare",
        "turn a corpus into TFRecord shards of masked examples",
        "clozemill prepare --input 'corpus/*.jsonl.gz' --vocab vocab.txt --output DATASET --max-seq-length 128 "
        "--dupe-factor 5 --seed 7 --num-workers 2",
        passes_on=True,
        interrupted="all files with final names are complete; run the same command again to resume",
    ),
    "verify": Command(
        quality.VerifyConfig,
        "clozemill.pipelines.quality.verify:main",
        "read all shards of a dataset and check them against dataset.json",
        "clozemill verify DATASET",
    ),
    "inspect": Command(
        inspection.InspectConfig,
        "clozemill.pipelines.inspection.inspect:main",
        "show records as text, with their masks and their source documents",
        "clozemill inspect DATASET --limit 5",
    ),
    "pretrain": Command(
        pretraining.PretrainConfig,
        "clozemill.trainers.pretraining.pretrain:main",
        "train an encoder on a dataset, or resume an interrupted run",
        "clozemill pretrain --data DATASET --output RUN",
        interrupted="all saved checkpoints are complete; run the same command again to resume",
    ),
    "evaluate": Command(
        inference.EvaluateModelConfig,
        "clozemill.trainers.inference.evaluate:main",
        "evaluate a pretrained checkpoint on the eval split of a dataset, or a fine-tuned model on a file with labels",
        "clozemill evaluate RUN --data DATASET",
    ),
    "compare": Command(
        comparison.CompareConfig,
        "clozemill.trainers.comparison.compare:main",
        "compare runs, also while they train: a table, and their curves over steps, tokens and time",
        "clozemill compare RUN OTHER-RUN --output comparison.html",
        interrupted="no output file was written",
    ),
    "doctor": Command(
        diagnosis.DoctorConfig,
        "clozemill.trainers.diagnosis.doctor:main",
        "name what is wrong with a run, also while it trains, with the evidence and what to do",
        "clozemill doctor RUN",
    ),
    "finetune": Command(
        finetuning.FinetuneConfig,
        "clozemill.trainers.finetuning.finetune:main",
        "fine-tune an encoder for classification, regression, tagging or question answering",
        "clozemill finetune --init RUN --task cola --train in_domain_train.tsv --dev in_domain_dev.tsv --output FT",
        interrupted="all saved checkpoints are complete; run the same command again to resume",
    ),
    "predict": Command(
        inference.PredictConfig,
        "clozemill.trainers.inference.predict:main",
        "predict with a fine-tuned model, or fill in [MASK] with a pretrained one, for a file of texts or a single text",
        "clozemill predict FT --input texts.tsv --output predictions.jsonl",
        interrupted="no output file was written",
    ),
    "embed": Command(
        inference.EmbedConfig,
        "clozemill.trainers.inference.embed:main",
        "write hidden states of an encoder as features, per token or per text, or the vectors of a model of contrast",
        "clozemill embed RUN --input texts.tsv --layers -1,-2,-3,-4 --output features.parquet",
        interrupted="no output file was written",
    ),
    "contrast": Command(
        contrast.ContrastConfig,
        "clozemill.trainers.contrast.contrast:main",
        "train an encoder to make vectors of sentences, from texts without labels",
        "clozemill contrast --init RUN --input texts.txt --dev pairs.tsv --output EMBEDDER",
        interrupted="all saved checkpoints are complete; run the same command again to resume",
    ),
    "export": Command(
        export.ExportConfig,
        "clozemill.trainers.export.export:main",
        "export a checkpoint as SavedModel, Hugging Face folder and Keras file, and verify their outputs",
        "clozemill export RUN --output OUT --formats savedmodel,hf,keras",
        interrupted="no export was completed",
    ),
    "import": Command(
        export.ImportConfig,
        "clozemill.trainers.export.import_checkpoint:main",
        "import a BERT model of Hugging Face or google-research/bert as a checkpoint",
        "clozemill import google-bert/bert-base-uncased --output CHECKPOINT",
        interrupted="no checkpoint was written",
    ),
    "preflight": Command(
        tpu.PreflightConfig,
        "clozemill.trainers.planning.preflight:main",
        "compile the training step for a TPU, without a TPU",
        "clozemill preflight --topology v5e:2x2 --preset base --batch-size 32",
    ),
    "submit": Command(
        submit.SubmitConfig,
        "clozemill.deploy.submit:main",
        "run a pipeline or training job on a cluster or in a cloud, or print the commands for it",
        "clozemill submit dataflow --dry-run --no-build --project my-project --region europe-west4 --bucket gs://my-bucket "
        "--image europe-west4-docker.pkg.dev/my-project/images/clozemill:1 -- --input 'gs://my-bucket/corpus/*.parquet' "
        "--vocab gs://my-bucket/vocab.txt --output gs://my-bucket/dataset",
        after_dashes=True,
        notes=submit.targets_help(),
        interrupted="a TPU that was created is deleted or named above, and other jobs go on",
    ),
    "demo": Command(
        demo.DemoConfig,
        "clozemill.deploy.demo:main",
        "run all stages on the corpus that is included in the package",
        "clozemill demo --output demo-out",
        runs_commands=True,
    ),
    "completion": Command(
        submit.CompletionConfig,
        "clozemill.deploy.completion:main",
        "print a script that completes commands, options and choices in a shell",
        "clozemill completion bash",
        notes="To use it, add the line of your shell to its start-up file:\n"
        "  bash (~/.bashrc):   source <(clozemill completion bash)\n"
        "  zsh (~/.zshrc):     source <(clozemill completion zsh)\n"
        "  fish (config.fish): clozemill completion fish | source",
    ),
}


COMMON_FLAGS = ("--help", "--version", "--quiet", "--verbose", "--debug", "--config", "--save-config")


def parser(only: str = "") -> flags.Parser:
    """Return the parser of the command line, with one sub-command per stage. only: the one command that needs its flags."""
    top = flags.Parser(
        prog="clozemill",
        usage="%(prog)s COMMAND [OPTIONS]",
        description="From a raw corpus to an encoder, BERT or ModernBERT.",
        epilog=f"{flags.example('clozemill demo')}\n\nclozemill COMMAND --help lists the options of a command.",
        formatter_class=flags.HelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    stages = top.add_subparsers(dest="command", metavar="COMMAND", title="commands", prog="clozemill")
    flags.add_common_flags(top.add_argument_group(flags.COMMON), False)
    for name, command in COMMANDS.items():
        stage = stages.add_parser(
            name,
            help=command.help,
            usage=flags.usage(f"clozemill {name}", command.config),
            formatter_class=flags.HelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )
        if only in ("", name):
            _complete(stage, command)
    return top


def _complete(stage: flags.Parser, command: Command) -> None:
    text = command.help + (". Options of the Beam runner (--runner) are passed on to it." if command.passes_on else ".")
    stage.description = flags.wrapped(text[0].upper() + text[1:])
    stage.epilog = "\n\n".join([*([command.notes] if command.notes else []), flags.example(command.example)])
    flags.add_common_flags(flags.add_flags(stage, command.config), flags.UNSET)


def _first_word(words: list[str]) -> str:
    return next((word for word in words if not word.startswith("-")), "")


def command_name(words: list[str]) -> str:
    """Return the command that a command line names, "" for none. Raises UserError for an unknown one."""
    name = _first_word(words)
    if name and name not in COMMANDS:
        raise _unknown(f"command {name!r}", suggest(name, COMMANDS), "clozemill --help")
    return name


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Split the arguments at -- for commands that pass on the rest; otherwise return all of them and an empty list."""
    name = _first_word(words)
    if name not in COMMANDS or not COMMANDS[name].after_dashes or "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def unknown_words(name: str, words: list[str]) -> UserError:
    """Return the error for words of a command line that its command doesn't know."""
    word = words[0].split("=")[0].replace("_", "-")
    if not word.startswith("-"):
        return UserError(f"unexpected argument {words[0]!r}: see clozemill {name} --help")
    known = [*map(flag_name, fields(COMMANDS[name].config)), *COMMON_FLAGS]
    return _unknown(f"option {words[0]}", suggest(word, known), f"clozemill {name} --help")


def _unknown(what: str, close: str, help_command: str) -> UserError:
    return UserError(f"unknown {what}{f'{close} See' if close else ': see'} {help_command}")
