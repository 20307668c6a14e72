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
    """A stage: its configuration, the function that runs it ("module:function"), and what --help says.

    `passes_on`: options that aren't ours are handed to Beam instead of being refused here. `after_dashes`: what stands after
    -- is handed over as it is. `runs_commands`: the function is given `main`. `interrupted`: what to say after Ctrl-C.
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
        "estimate from a sample what prepare and pretrain will make, take and cost, and what will hurt",
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
        "mill a corpus into TFRecord shards of masked examples",
        "clozemill prepare --input 'corpus/*.jsonl.gz' --vocab vocab.txt --output DATASET --max-seq-length 128 "
        "--dupe-factor 5 --seed 7 --num-workers 2",
        passes_on=True,
        interrupted="no half-written file carries a final name: run the same command again to go on",
    ),
    "verify": Command(
        configs.VerifyConfig,
        "clozemill.pipelines.quality.verify:main",
        "read every shard back and check it against dataset.json",
        "clozemill verify DATASET",
    ),
    "inspect": Command(
        configs.InspectConfig,
        "clozemill.pipelines.inspection.inspect:main",
        "show records in words, with their masks and where they come from",
        "clozemill inspect DATASET --limit 5",
    ),
    "pretrain": Command(
        training.PretrainConfig,
        "clozemill.trainers.pretraining.pretrain:main",
        "train an encoder on a dataset, or go on with a run that was stopped",
        "clozemill pretrain --data DATASET --preset tiny --steps 1000 --batch-size 32 --output RUN",
        interrupted="what was saved is whole: run the same command again to go on",
    ),
    "evaluate": Command(
        training.EvaluateConfig,
        "clozemill.trainers.pretraining.evaluate:main",
        "measure a checkpoint on a dataset's eval split",
        "clozemill evaluate RUN --data DATASET",
    ),
    "finetune": Command(
        finetuning.FinetuneConfig,
        "clozemill.trainers.finetuning.finetune:main",
        "teach an encoder a task: classification, regression, tags or answers in a text",
        "clozemill finetune --init RUN --task cola --train in_domain_train.tsv --dev in_domain_dev.tsv --output FT",
        interrupted="what was saved is whole: run the same command again to go on",
    ),
    "predict": Command(
        inference_config.PredictConfig,
        "clozemill.trainers.inference.predict:main",
        "answer with a fine-tuned model, for a file of texts or for one",
        "clozemill predict FT --input texts.tsv --output predictions.jsonl",
        interrupted="no half-written file carries a final name",
    ),
    "embed": Command(
        inference_config.EmbedConfig,
        "clozemill.trainers.inference.embed:main",
        "write an encoder's layers as features, per token or per text",
        "clozemill embed RUN --input texts.tsv --layers=-1,-2,-3,-4 --output features.parquet",
        interrupted="no half-written file carries a final name",
    ),
    "export": Command(
        exporting.ExportConfig,
        "clozemill.trainers.export.export:main",
        "write a checkpoint as a SavedModel, a Hugging Face folder and a Keras file, and compare them with it",
        "clozemill export RUN --output OUT --formats savedmodel,hf,keras",
        interrupted="nothing carries a final name",
    ),
    "import": Command(
        exporting.ImportConfig,
        "clozemill.trainers.export.import_checkpoint:main",
        "make a checkpoint of a Hugging Face BERT folder, or of google-research/bert's",
        "clozemill import bert-base-uncased --output CHECKPOINT",
        interrupted="no checkpoint was written",
    ),
    "preflight": Command(
        tpu_config.PreflightConfig,
        "clozemill.trainers.tpu.preflight:main",
        "compile the training step for a TPU, without one",
        "clozemill preflight --topology v5e:2x2 --preset base --batch-size 32",
    ),
    "submit": Command(
        SubmitConfig,
        "clozemill.deploy.submit:main",
        "run a pipeline or a training on a cluster or a cloud, or print what that takes",
        "clozemill submit dataflow --config deploy/config.example.yaml --dry-run -- --input 'gs://my-bucket/corpus/*.parquet' "
        "--vocab gs://my-bucket/vocab.txt --output gs://my-bucket/dataset",
        after_dashes=True,
        interrupted="what was begun in a cloud is deleted, or named above",
    ),
    "demo": Command(
        configs.DemoConfig,
        "clozemill.deploy.demo:main",
        "run the whole line on the corpus that comes with the package",
        "clozemill demo --output demo-out",
        runs_commands=True,
    ),
}


def parser() -> options.Parser:
    """The command line, with one sub-command per stage."""
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
    """The words before and after --, for a command that hands the latter over; else all words, and none."""
    name = next((word for word in words if not word.startswith("-")), "")
    if name not in COMMANDS or not COMMANDS[name].after_dashes or "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def _run(command: Command, config: Any, extra: list[str]) -> int:
    for name, value in config.environment().items() if hasattr(config, "environment") else ():
        os.environ.setdefault(name, value)  # before a library that reads it is imported
    run = lazy_import.function(command.run)
    if command.runs_commands:
        return run(config, main) or EXIT_OK
    return (run(config, extra) if command.passes_on or command.after_dashes else run(config)) or EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns 0 when it did what it was asked, 1 when a check found something, 2 on a user error.

    `pretrain` returns 75 when a signal stopped it and all was saved.
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
        config = options.resolve(command.config, arguments)
        with process.unwinding() if argv is None else contextlib.nullcontext():
            code = _run(command, config, after if command.after_dashes else extra)
    except KeyboardInterrupt as error:
        code = _interrupted(error, command)
        os._exit(code)  # threads of the runner would keep the process alive
    except SystemExit as error:  # after --help
        code = error.code
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough; only inspect has then done its work
        process.drop_output()
        return EXIT_OK if command is COMMANDS["inspect"] else EXIT_CHECK_FAILED
    except Exception as error:
        code = exit_codes.report_error(error, "--debug" in words)
    return _end(code) if argv is None else code


def _interrupted(error: KeyboardInterrupt, command: Command | None) -> int:
    """Says that a signal ended a command, and what is left of it; returns the exit code."""
    process.ignore_signals()
    number, name = (error.number, f"ended by {error}") if isinstance(error, process.Terminated) else (2, "interrupted")
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    print(f"\nclozemill: {name}; {command.interrupted if command else 'nothing was changed'}", file=sys.stderr, flush=True)
    return process.EXIT_SIGNALLED + number


def _end(code: int) -> int:
    """The exit code of the program, which is not 0 when its output was lost."""
    if lost := process.close_output():
        print(f"clozemill: {lost}", file=sys.stderr)
        code = code or EXIT_USER_ERROR
    if code and "apache_beam" in sys.modules:
        os._exit(code)  # after a failed run, threads of the runner may linger
    return code


if __name__ == "__main__":
    sys.exit(main())
