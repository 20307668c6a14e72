"""--overwrite: one rule for all commands that write files or folders.

An output that exists is refused, or resumed by the commands that can, unless --overwrite is given. With it, only what clozemill
wrote is replaced: a file under the name of the output; in a folder that carries clozemill's marker, the files of known names. A
file keeps its content until the new one is complete.
"""

import dataclasses
import glob
import os
from dataclasses import dataclass
from typing import Any

from clozemill.pipelines.command_line.options import INPUT, NEW, OUTPUT, READ, flag_name, option
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import filesystem

START_OVER = "start over where --output exists, instead of resuming; files that clozemill didn't write stay"


def overwrite_option(text: str) -> Any:
    """Return the field of --overwrite. It isn't saved: a configuration that is used again must not replace anything."""
    return option(False, text, identity=False, saved=False, group=OUTPUT)


@dataclass(frozen=True, kw_only=True)
class OverwriteOption:
    """The option of commands whose output must be new."""

    overwrite: bool = overwrite_option("replace an output that exists; files that clozemill didn't write stay")


def same_command(config: Any) -> str:
    """Return what to run again after an interruption, for messages: with --overwrite, the same command would start over."""
    return f"the same command{' without --overwrite' if getattr(config, 'overwrite', False) else ''}"


def already_exists(path: str, flag: str = "--output") -> UserError:
    """Return the error for an output that exists. flag: the option that names the output."""
    return UserError(f"{path} already exists: give --overwrite to replace it, or another {flag}")


def check_new_file(path: str, overwrite: bool, flag: str = "--output") -> None:
    """Raise UserError if a file, local or remote, can't be written because there is one, or a folder.

    Args:
        overwrite: whether a file may be there.
        flag: the option that names the path.
    """
    if not filesystem.is_remote(path) and os.path.isdir(path):
        raise UserError(f"{flag} {path} is a folder: give the name of the file to write")
    if not overwrite and (filesystem.exists(path) if filesystem.is_remote(path) else os.path.lexists(path)):
        raise already_exists(path, flag)


def check_outputs(config: Any) -> None:
    """Check a command's local outputs before its libraries are loaded.

    Raises UserError for a file that exists, and, with --overwrite, for an output that would replace the command's own input.
    """
    overwrite = getattr(config, "overwrite", False)
    for field in dataclasses.fields(config):
        path = getattr(config, field.name)
        if field.metadata["path"] == NEW and path and not filesystem.is_remote(path):
            check_new_file(path, overwrite, flag_name(field))
    if overwrite:
        _refuse_own_inputs(config)


def _refuse_own_inputs(config: Any) -> None:
    """Raise UserError if an input is the output, or in it. Resuming may read such an input; replacing it may not."""
    outputs = config.replaced() if hasattr(config, "replaced") else [getattr(config, name, "") for name in ("output", "html")]
    local = [output for output in outputs if output and not filesystem.is_remote(output)]
    for flag, path in _inputs(config):
        real = os.path.realpath(path)
        for output in local:
            out = os.path.realpath(output)
            if real == out or real.startswith(out.rstrip(os.sep) + os.sep):
                raise UserError(
                    f"{flag} {path} is input, and --overwrite could replace it, because it writes to {output}: copy it "
                    "elsewhere first, or write to another place"
                )


def _words(value: Any) -> list[Any]:
    """Return the values of an option as a flat list: a phase of training names its dataset, or several."""
    found = getattr(value, "data", value)
    return [word for item in found for word in _words(item)] if isinstance(found, tuple) else [found]


def _inputs(config: Any) -> list[tuple[str, str]]:
    """Return (flag, path) of the local files and folders that a configuration names as input."""
    found = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.metadata["group"] != INPUT and field.metadata["path"] != READ and field.name != "decontaminate":
            continue
        paths = [word for word in _words(value) if isinstance(word, str) and word and not filesystem.is_remote(word)]
        for path in paths:
            there = [path] if os.path.lexists(path) else [] if field.name == "text" else glob.glob(path)
            found += [(flag_name(field), each) for each in there]
    return found
