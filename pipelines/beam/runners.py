"""Where a pipeline runs: a runner is a name and, in RUNNERS, the Beam options derived from ours."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from clozemill.pipelines.command_line import verbosity
from clozemill.pipelines.command_line.flags import Parser
from clozemill.pipelines.command_line.options import flag_name, suggest
from clozemill.pipelines.common import runtime
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import RunOptions

if TYPE_CHECKING:  # Beam takes seconds to import, and not every command that needs the number of cores uses it
    from apache_beam.options.pipeline_options import PipelineOptions

SMALL_INPUT = 24 << 20  # bytes of text below which starting worker processes (about 6 s) costs more than it saves


def workers(config: RunOptions, text_estimate: int) -> int:
    """Return the number of processes for a local run; 1 means in memory, in this process."""
    count = config.num_workers or runtime.cores()
    in_memory = config.in_memory
    if in_memory is None:
        in_memory = count == 1 or (config.num_workers == 0 and text_estimate < SMALL_INPUT)
    return 1 if in_memory else count


def _local(config: RunOptions, count: int) -> list[str]:
    if count == 1:
        return ["--direct_running_mode=in_memory"]
    return ["--direct_running_mode=multi_processing", f"--direct_num_workers={count}"]


@dataclass(frozen=True)
class Runner:
    """A runner with a short name: the full name of its class, and how clozemill's options map to Beam's.

    one_machine: all its workers see this machine's disk, so that the `files` shuffle can be used.
    """

    path: str
    flags: Callable[[RunOptions, int], list[str]] = lambda config, count: (
        [f"--num_workers={config.num_workers}"] if config.num_workers else []
    )
    one_machine: bool = False


_LOCAL_RUNNER = Runner("clozemill.pipelines.beam.local_runner.LocalRunner", _local, one_machine=True)
RUNNERS: dict[str, Runner] = {
    "FnApiRunner": _LOCAL_RUNNER,
    "DirectRunner": _LOCAL_RUNNER,  # Beam's own class would download a program, and serve this machine's files to the network
    "DaskRunner": Runner("apache_beam.runners.dask.dask_runner.DaskRunner"),
}


def _beam_parser() -> Parser:
    from apache_beam.options.pipeline_options import PipelineOptions

    # "resolve": if two of Beam's classes share an option, both can still add their others.
    parser = Parser(prog="clozemill", add_help=False, allow_abbrev=False, conflict_handler="resolve")
    pending = [PipelineOptions]
    while pending:
        for options in pending.pop().__subclasses__():
            pending.append(options)
            if "_add_argparse_args" in options.__dict__:
                options._add_argparse_args(parser)  # type: ignore[arg-type]  # any ArgumentParser will do
    return parser


def check_options(extra: list[str], ours: Iterable[str] = ()) -> None:
    """Raise UserError for an option that Beam doesn't know, because Beam would silently ignore it. `ours`: to suggest, too."""
    parser = _beam_parser()
    _, unknown = parser.parse_known_args(extra)
    known = [*ours, *(name for action in parser._actions for name in action.option_strings)]
    if unknown:
        raise UserError(
            f"unknown option {unknown[0]}: neither clozemill nor Beam has it"
            f"{suggest(unknown[0].split('=')[0], known)}; see --help"
        )


def check(config: RunOptions, extra: list[str]) -> None:
    """Raise UserError for an unknown runner or option."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import create_runner

    from clozemill.pipelines.beam import listening

    try:
        made = create_runner(_runner(config).path)  # imports the runner's module, which registers the options of its own
    except (ValueError, ImportError, AttributeError) as error:
        why = str(error).splitlines()[0].split(" or the fully")[0]
        raise UserError(f"--runner {config.runner} can't be used ({why}): check the name, or install its extra") from None
    check_options(extra, [flag_name(field) for field in fields(config)])
    listening.refuse_open_servers(config.runner, made, PipelineOptions(extra).get_all_options())


def _runner(config: RunOptions) -> Runner:
    return RUNNERS.get(config.runner, Runner(config.runner))


def pipeline_options(config: RunOptions, extra: list[str], count: int) -> "PipelineOptions":
    """Return Beam's options for a run. Raise UserError for an unknown runner or option."""
    from apache_beam.options.pipeline_options import PipelineOptions

    from clozemill.pipelines.beam import listening

    check(config, extra)
    if not verbosity.is_verbose():
        logging.getLogger("apache_beam").setLevel(logging.ERROR)  # failures reach the user as exceptions
    listening.listen_on_loopback_only()
    runner = _runner(config)
    return PipelineOptions([f"--runner={runner.path}", *runner.flags(config, count), *extra], save_main_session=False)
