"""The command `clozemill`: turns a raw corpus into a BERT-style encoder. `clozemill --help` lists the stages.

Dispatches lazily: a stage's modules, and with them Beam or TensorFlow, are imported when it runs.
"""

import os
import sys

if sys.argv[:1] == ["-m"] and sys.path[:1] == [os.getcwd()] != [os.path.abspath(os.path.join(__file__, "../.."))]:
    del sys.path[0]  # python -m puts the current folder first: a queue.py in it would be imported instead of Python's

import contextlib
import logging
from dataclasses import dataclass
from typing import Any

from clozemill.deploy import plan
from clozemill.deploy.config import SubmitConfig
from clozemill.pipelines import config as configs
from clozemill.pipelines.command_line import exit_codes, lazy_import, options, process
from clozemill.pipelines.command_line.exit_codes import EXIT_CHECK_FAILED, EXIT_OK, EXIT_USER_ERROR
from clozemill.pipelines.common.errors import CheckFailed, UserError
from clozemill.trainers.export import config as exporting
from clozemill.trainers.finetuning import config as finetuning
from clozemill.trainers.inference import config as inference_config
from clozemill.trainers.pretraining import config as training
from clozemill.trainers.tpu import config as tpu_config

# The Python API, loaded when it is first used. Everything else may move.
_API = {
    name: f"clozemill.deploy.python_api:{name}"
    for name in ("embed", "evaluate", "export", "finetune", "load_dataset", "load_encoder", "predict", "prepare", "pretrain",
                 "verify", "vocab")
}  # fmt: skip
__all__ = [*_API, "CheckFailed", "UserError", "main"]


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module 'clozemill' has no attribute {name!r}")
    globals()[name] = lazy_import.function(_API[name])
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_API})


@dataclass(frozen=True)
class Command:
    """A stage: its configuration class, the function that runs it ("module:function"), and its --help text.

    passes_on: options that clozemill doesn't define are passed on to Beam instead of being rejected. after_dashes: arguments
    after -- are passed on unchanged. runs_commands: the function also gets `main`. interrupted: the message after Ctrl-C.
    """

    config: type
    run: str
    help: str
    example: str
    passes_on: bool = False
    after_dashes: bool = False
    runs_commands: bool = False
    interrupted: str = "nothing was changed"


COMMANDS: dict[str, Command] = {
    "plan": Command(
        plan.PlanConfig,
        "clozemill.deploy.plan:plan",
        "estimate output, time and cost of prepare and pretrain from a sample, and warn of problems",
        "clozemill plan --input 'corpus/*.jsonl.gz' --vocab vocab.txt --target dataflow tpu --num-workers 32 "
        "--recipe bert-base --topology v5e:4x4 --output plan.json",
    ),
    "vocab": Command(
        configs.VocabConfig,
        "clozemill.pipelines.vocab.vocab:vocab",
        "learn a WordPiece vocabulary from a corpus",
        "clozemill vocab --input 'corpus/*.jsonl.gz' --output vocab.txt --vocab-size 30522",
        passes_on=True,
        interrupted="no vocabulary was written",
    ),
    "prepare": Command(
        configs.PrepareConfig,
        "clozemill.pipelines.prepare.prepare:prepare",
        "turn a corpus into TFRecord shards of masked examples",
        "clozemill prepare --input 'corpus/*.jsonl.gz' --vocab vocab.txt --output DATASET --max-seq-length 128 "
        "--dupe-factor 5 --seed 7 --num-workers 2",
        passes_on=True,
        interrupted="all files with final names are complete; run the same command again to resume",
    ),
    "verify": Command(
        configs.VerifyConfig,
        "clozemill.pipelines.quality.verify:main",
        "read all shards of a dataset and check them against dataset.json",
        "clozemill verify DATASET",
    ),
    "inspect": Command(
        configs.InspectConfig,
        "clozemill.pipelines.inspection.inspect:main",
        "show records as text, with their masks and their source documents",
        "clozemill inspect DATASET --limit 5",
    ),
    "pretrain": Command(
        training.PretrainConfig,
        "clozemill.trainers.pretraining.pretrain:main",
        "train an encoder on a dataset, or resume an interrupted run",
        "clozemill pretrain --data DATASET --preset tiny --steps 1000 --batch-size 32 --output RUN",
        interrupted="all saved checkpoints are complete; run the same command again to resume",
    ),
    "evaluate": Command(
        inference_config.EvaluateModelConfig,
        "clozemill.trainers.inference.evaluate:main",
        "evaluate a pretrained checkpoint on the eval split of a dataset, or a fine-tuned model on a file with labels",
        "clozemill evaluate RUN --data DATASET",
    ),
    "finetune": Command(
        finetuning.FinetuneConfig,
        "clozemill.trainers.finetuning.finetune:main",
        "fine-tune an encoder for classification, regression, tagging or question answering",
        "clozemill finetune --init RUN --task cola --train in_domain_train.tsv --dev in_domain_dev.tsv --output FT",
        interrupted="all saved checkpoints are complete; run the same command again to resume",
    ),
    "predict": Command(
        inference_config.PredictConfig,
        "clozemill.trainers.inference.predict:main",
        "predict with a fine-tuned model, or fill in [MASK] with a pretrained one, for a file of texts or a single text",
        "clozemill predict FT --input texts.tsv --output predictions.jsonl",
        interrupted="no output file was written",
    ),
    "embed": Command(
        inference_config.EmbedConfig,
        "clozemill.trainers.inference.embed:main",
        "write hidden states of an encoder as features, per token or per text",
        "clozemill embed RUN --input texts.tsv --layers=-1,-2,-3,-4 --output features.parquet",
        interrupted="no output file was written",
    ),
    "export": Command(
        exporting.ExportConfig,
        "clozemill.trainers.export.export:main",
        "export a checkpoint as SavedModel, Hugging Face folder and Keras file, and verify their outputs",
        "clozemill export RUN --output OUT --formats savedmodel,hf,keras",
        interrupted="no export was completed",
    ),
    "import": Command(
        exporting.ImportConfig,
        "clozemill.trainers.export.import_checkpoint:main",
        "import a BERT model of Hugging Face or google-research/bert as a checkpoint",
        "clozemill import bert-base-uncased --output CHECKPOINT",
        interrupted="no checkpoint was written",
    ),
    "preflight": Command(
        tpu_config.PreflightConfig,
        "clozemill.trainers.tpu.preflight:main",
        "compile the training step for a TPU, without a TPU",
        "clozemill preflight --topology v5e:2x2 --preset base --batch-size 32",
    ),
    "submit": Command(
        SubmitConfig,
        "clozemill.deploy.submit:main",
        "run a pipeline or training job on a cluster or in a cloud, or print the commands for it",
        "clozemill submit dataflow --config deploy/config.example.yaml --dry-run -- --input 'gs://my-bucket/corpus/*.parquet' "
        "--vocab gs://my-bucket/vocab.txt --output gs://my-bucket/dataset",
        after_dashes=True,
        interrupted="cloud resources that were created are deleted or listed above",
    ),
    "demo": Command(
        configs.DemoConfig,
        "clozemill.deploy.demo:main",
        "run all stages on the corpus that is included in the package",
        "clozemill demo --output demo-out",
        runs_commands=True,
    ),
}


def parser() -> options.Parser:
    """Return the parser of the command line, with one sub-command per stage."""
    top = options.Parser(
        prog="clozemill",
        description="From a raw corpus to a BERT-style encoder.",
        epilog="example: clozemill demo",
        allow_abbrev=False,
    )
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    stages = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        text = command.help + (". Options of the Beam runner (--runner) are passed on to it." if command.passes_on else ".")
        stage = stages.add_parser(
            name,
            help=command.help,
            description=text[0].upper() + text[1:],
            epilog=f"example: {command.example}",
            formatter_class=options.HelpFormatter,  # an example that is wrapped can't be pasted
            allow_abbrev=False,
        )
        stage.add_argument("--debug", action="store_true", default=options.UNSET, help="show the traceback of an error")
        options.add_flags(stage, command.config)
    return top


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Split the arguments at -- for commands that pass on the rest; otherwise return all of them and an empty list."""
    name = next((word for word in words if not word.startswith("-")), "")
    if name not in COMMANDS or not COMMANDS[name].after_dashes or "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def _run(command: Command, config: Any, extra: list[str]) -> int:
    arguments = [main] if command.runs_commands else [extra] if command.passes_on or command.after_dashes else []
    return lazy_import.run(command.run, config, *arguments)


def main(argv: list[str] | None = None) -> int:
    """Run a command. Return 0 on success, 1 if a check failed, 2 on a user error.

    `pretrain` returns 75 if a signal stopped it and everything was saved.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # results don't depend on it; worker processes fork less
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes, likewise; errors are raised
    logging.basicConfig(level=logging.ERROR)  # libraries' warnings at import say nothing to users; errors are raised
    words = sys.argv[1:] if argv is None else argv
    if argv is None:
        os.environ.setdefault("PYTHONSAFEPATH", "1")  # no Python that we start imports from the current folder
        process.open_streams()
        process.PROGRAM.append("clozemill")
    command = None
    try:
        words, after = _split(words)
        arguments, extra = parser().parse_known_args(words)
        command = COMMANDS[arguments.command]
        if extra and not command.passes_on:
            raise UserError(f"unknown option {extra[0]}: see clozemill {arguments.command} --help")
        config: Any = options.resolve(command.config, arguments)
        with process.unwinding() if argv is None else contextlib.nullcontext():
            code = _run(command, config, after if command.after_dashes else extra)
    except KeyboardInterrupt as error:
        code = _interrupted(error, command)
        os._exit(code)  # threads of the runner would keep the process alive
    except SystemExit as error:  # after --help
        code = int(error.code or 0)
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough; only inspect has then done its work
        process.drop_output()
        return EXIT_OK if command is COMMANDS["inspect"] else EXIT_CHECK_FAILED
    except Exception as error:
        code = exit_codes.report_error(error, "--debug" in words)
    return _end(code) if argv is None else code


def _interrupted(error: KeyboardInterrupt, command: Command | None) -> int:
    """Report that a signal ended a command, and what remains of its output; return the exit code."""
    process.ignore_signals()
    number, name = (error.number, f"ended by {error}") if isinstance(error, process.Terminated) else (2, "interrupted")
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    print(f"\nclozemill: {name}; {command.interrupted if command else 'nothing was changed'}", file=sys.stderr, flush=True)
    return process.EXIT_SIGNALLED + number


def _end(code: int) -> int:
    """Return the exit code of the program: not 0 if output was lost."""
    if lost := process.close_output():
        print(f"clozemill: {lost}", file=sys.stderr)
        code = code or EXIT_USER_ERROR
    if code and "apache_beam" in sys.modules:
        os._exit(code)  # after a failed run, threads of the runner may linger
    return code


if __name__ == "__main__":
    sys.exit(main())
