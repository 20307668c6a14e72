"""--quiet and --verbose: how much a command prints, whatever it does."""

import contextlib
import dataclasses
import io
import logging
import os
import platform
import sys
from collections.abc import Iterator
from enum import Enum
from typing import Any

from clozemill.pipelines.command_line import flags, options
from clozemill.pipelines.common.errors import UserError


class Level(Enum):
    """How much a command prints."""

    QUIET, NORMAL, VERBOSE = range(3)


def level(quiet: bool, verbose: bool) -> Level:
    """Return the level of two flags. Raises UserError for both."""
    if quiet and verbose:
        raise UserError("--quiet and --verbose contradict each other: leave out one of them")
    return Level.QUIET if quiet else Level.VERBOSE if verbose else Level.NORMAL


def is_verbose() -> bool:
    """Return whether libraries may print their messages."""
    return logging.root.level <= logging.INFO and bool(logging.root.handlers)


class _Warnings(io.TextIOBase):
    """Drops what is written to it, but for lines that are warnings, which go to standard error."""

    def __init__(self) -> None:
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if line.startswith("warning: "):
                print(line, file=sys.stderr, flush=True)
        return len(text)


@contextlib.contextmanager
def applied(chosen: Level, command: str, config: Any) -> Iterator[Any]:
    """Apply a level within the block; yield the configuration to run with.

    Quiet: no progress bar, and only warnings if the command's result is a file. Verbose: print the versions and the
    configuration on standard error, and let libraries print their messages there.
    """
    logging.basicConfig(level=logging.ERROR)  # libraries' warnings at import say nothing to users; errors are raised
    before = logging.root.level
    if chosen is Level.VERBOSE:
        logging.root.setLevel(logging.INFO)
        python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        print(f"clozemill {flags.version()} {command}, {python}; options:", file=sys.stderr)
        print(options.to_yaml(config), file=sys.stderr, flush=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if chosen is Level.VERBOSE else "3")  # TensorFlow's notes
    if chosen is Level.QUIET and hasattr(config, "progress"):
        config = dataclasses.replace(config, progress=False)
    silent = chosen is Level.QUIET and any(getattr(config, name, "") for name in ("output", "html"))
    try:
        with contextlib.redirect_stdout(_Warnings()) if silent else contextlib.nullcontext():
            yield config
    finally:
        logging.root.setLevel(before)
