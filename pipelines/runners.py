"""Where a pipeline runs: a runner is a name and, in RUNNERS, the options that our settings become for it."""

import argparse
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.config import RunOptions
from pipelines.options import suggest
from pipelines.schema import UserError

if TYPE_CHECKING:  # Beam takes seconds to import, and not every command that asks for the cores needs it
    from apache_beam.options.pipeline_options import PipelineOptions

SMALL_INPUT = 24 << 20  # bytes of text below which starting worker processes (some 6 s) costs more than it saves


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers(config: RunOptions, text_estimate: int) -> int:
    """Processes for a local run; 1 means in memory, in this process."""
    count = config.num_workers or cores()
    in_memory = config.in_memory
    if in_memory is None:
        in_memory = count == 1 or (config.num_workers == 0 and text_estimate < SMALL_INPUT)
    return 1 if in_memory else count


def _local(config: RunOptions, count: int) -> list[str]:
    if count == 1:
        return ["--direct_running_mode=in_memory"]
    return ["--direct_running_mode=multi_processing", f"--direct_num_workers={count}"]


# Runners that our own options say something to; any other takes its own options alone.
RUNNERS: dict[str, Callable[[RunOptions, int], list[str]]] = {"FnApiRunner": _local}


def _beam_parser() -> argparse.ArgumentParser:
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    pending = [PipelineOptions]
    while pending:
        for options in pending.pop().__subclasses__():
            pending.append(options)
            if "_add_argparse_args" in options.__dict__:
                try:
                    options._add_argparse_args(parser)
                except argparse.ArgumentError:  # two of Beam's classes share an option
                    continue
    return parser


def check_options(extra: list[str]) -> None:
    """Raises UserError for an option that Beam doesn't know: it would ignore it in silence."""
    parser = _beam_parser()
    try:
        _, unknown = parser.parse_known_args(extra)
    except SystemExit:
        raise UserError(f"{' '.join(extra)}: not what Beam takes for these options: see Beam's documentation") from None
    known = [name for action in parser._actions for name in action.option_strings]
    if unknown:
        raise UserError(
            f"unknown option {unknown[0]}: neither clozemill nor Beam has it"
            f"{suggest(unknown[0].split('=')[0], known)}; see clozemill prepare --help"
        )


def pipeline_options(config: RunOptions, extra: list[str], count: int) -> "PipelineOptions":
    """Beam's options for a run. Raises UserError for options nobody knows."""
    from apache_beam.options.pipeline_options import PipelineOptions

    check_options(extra)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)  # failures reach the user as exceptions
    flags = [f"--runner={config.runner}", *RUNNERS.get(config.runner, lambda *_: [])(config, count)]
    return PipelineOptions([*flags, *extra], save_main_session=False)
