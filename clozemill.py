"""The command `clozemill`: turns a raw corpus into an encoder, BERT or ModernBERT. `clozemill --help` lists the stages.

Dispatches lazily: a stage's modules, and with them Beam or TensorFlow, are imported when it runs.
"""

import os
import sys

if sys.argv[:1] == ["-m"] and sys.path[:1] == [os.getcwd()] != [os.path.abspath(os.path.join(__file__, "../.."))]:
    del sys.path[0]  # python -m puts the current folder first: a queue.py in it would be imported instead of Python's

import contextlib
from typing import Any

from clozemill.deploy import commands
from clozemill.deploy.commands import COMMANDS, Command, parser
from clozemill.pipelines.command_line import exit_codes, lazy_import, options, process, verbosity
from clozemill.pipelines.command_line.exit_codes import EXIT_CHECK_FAILED, EXIT_OK, EXIT_USER_ERROR
from clozemill.pipelines.common.errors import CheckFailed, UserError

# The Python API, loaded when it is first used. Everything else may move.
_API = {
    name: f"clozemill.deploy.python_api:{name}"
    for name in ("compare", "contrast", "doctor", "embed", "evaluate", "export", "finetune", "load_dataset", "load_encoder",
                 "predict", "prepare", "pretrain", "verify", "vocab")
}  # fmt: skip
__all__ = [*_API, "CheckFailed", "UserError", "main"]


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module 'clozemill' has no attribute {name!r}")
    globals()[name] = lazy_import.function(_API[name])
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_API})


def _run(name: str, config: Any, extra: list[str], level: verbosity.Level) -> int:
    command = COMMANDS[name]
    arguments = [main] if command.runs_commands else [extra] if command.passes_on or command.after_dashes else []
    checks = not (command.passes_on and extra)  # options for Beam may hold a misspelled one of ours, which Beam's check finds
    with verbosity.applied(level, name, config) as config:
        return lazy_import.run(command.run, config, *arguments, checks=checks)


def main(argv: list[str] | None = None) -> int:
    """Run a command. Return 0 on success, 1 if a check failed, 2 on a user error, 70 on a bug.

    75 means that the same command may get further: a signal stopped `pretrain` after it had saved, or a worker was lost.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # results don't depend on it; worker processes fork less
    words = sys.argv[1:] if argv is None else argv
    if argv is None:
        os.environ.setdefault("PYTHONSAFEPATH", "1")  # no Python that we start imports from the current folder
        process.open_streams()
        process.PROGRAM.append("clozemill")
    command = None
    try:
        words, after = commands.split_words(words)
        name = commands.command_name(words)
        arguments, extra = parser(name).parse_known_args(words)
        if not name:
            raise UserError("COMMAND is missing: see clozemill --help")
        command = COMMANDS[name]
        if extra and not command.passes_on:
            raise commands.unknown_words(name, extra)
        level = verbosity.level(arguments.quiet, arguments.verbose)
        config: Any = options.resolve(command.config, arguments)
        with process.unwinding() if argv is None else contextlib.nullcontext():
            code = _run(name, config, after if command.after_dashes else extra, level)
    except KeyboardInterrupt as error:
        code = _interrupted(error, command, "--overwrite" in words)
        os._exit(code)  # threads of the runner would keep the process alive
    except SystemExit as error:  # after --help
        code = int(error.code or 0)
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough; only inspect has then done its work
        process.drop_output()
        return EXIT_OK if command is COMMANDS["inspect"] else EXIT_CHECK_FAILED
    except Exception as error:
        code = exit_codes.report_error(error, "--debug" in words)
    return _end(code) if argv is None else code


def _interrupted(error: KeyboardInterrupt, command: Command | None, overwrites: bool) -> int:
    """Report that a signal ended a command, and what remains of its output; return the exit code."""
    process.ignore_signals()
    number, name = (error.number, f"ended by {error}") if isinstance(error, process.Terminated) else (2, "interrupted")
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    told = command.interrupted if command else "nothing was changed"
    told = told.replace("the same command again", "the same command without --overwrite") if overwrites else told
    print(f"\nclozemill: {name}; {told}", file=sys.stderr, flush=True)
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
