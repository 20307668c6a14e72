"""Builds the parser of a command from its option dataclass: flags in groups, help of 80 columns, errors in one sentence."""

import argparse
import dataclasses
import importlib.metadata
import re
import shutil
import textwrap
from typing import Any

from clozemill.pipelines.command_line.options import GROUPS, flag_name, requirement, type_of
from clozemill.pipelines.common.errors import UserError

UNSET = argparse.SUPPRESS
COMMON = "options of all commands"
_NEGATIVE = re.compile(r"-[\d.]")  # begins a value, such as -1,-2; no flag begins like this


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Lists a command's flags under their groups; texts are wrapped between words, examples stay as they are."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)  # a flag's name stays on one line

    def add_argument(self, action: argparse.Action) -> None:
        """Add an action; argparse indents sub-commands twice, but counts one indent."""
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += self._indent_increment


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UserError: one sentence, without the usage text.

    Understands --max_seq_length as --max-seq-length, and values such as -1,-2 without an equals sign.
    """

    def error(self, message: str) -> Any:
        raise UserError(f"{message.removeprefix('argument ')}: see {self.prog.strip()} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a list of words, which must be given. Returns the values by name, and the words that no option took."""
        return super().parse_known_args(self._spelled(list(args)), namespace)

    def _spelled(self, words: list[str]) -> list[str]:
        """Return the words as argparse understands them."""
        known = {name: action for action in self._actions for name in action.option_strings}
        spelled: list[str] = []
        for place, word in enumerate(words):
            if word == "--":
                return [*spelled, *words[place:]]
            name, equals, value = word.partition("=")
            if name.startswith("--") and name.replace("_", "-") in known:
                word = name.replace("_", "-") + equals + value
            if spelled and _NEGATIVE.match(word) and spelled[-1] in known and known[spelled[-1]].nargs is None:
                spelled[-1] += f"={word}"
            else:
                spelled.append(word)
        return spelled


def version() -> str:
    """Return the installed version of clozemill."""
    try:
        return importlib.metadata.version("clozemill")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that isn't installed
        return "(not installed)"


class _Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"clozemill {version()}")
        parser.exit()


def add_common_flags(group: argparse._ArgumentGroup, default: Any) -> None:
    """Add the flags that every command has. default: the value of those that aren't given."""
    group.add_argument("-h", "--help", action="help", help="show this help")
    group.add_argument("--version", action=_Version, nargs=0, default=UNSET, help="show the version")
    for name, text in {
        "quiet": "print warnings, errors and results only: no progress, and nothing about what is written to files",
        "verbose": "print the options and versions used, and the messages of libraries",
        "debug": "show the traceback of an error",
    }.items():
        group.add_argument(f"--{name}", action="store_true", default=default, help=text)


def add_flags(parser: argparse.ArgumentParser, config: type) -> argparse._ArgumentGroup:
    """Add one flag per field of a configuration to a parser, by groups, and `--config` and `--save-config`.

    Returns the last group, for the flags that every command has.
    """
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for field in sorted(dataclasses.fields(config), key=lambda field: not field.metadata["required"]):
        if not dataclasses.is_dataclass(type_of(field)):  # a list of mappings can be given in YAML only
            _add_flag(groups[field.metadata["group"]], field)
    common = parser.add_argument_group(COMMON)
    common.add_argument("--config", metavar="FILE", help="YAML file with any of these options; flags override it")
    common.add_argument("--save-config", metavar="FILE", help="write the resolved configuration to this file, or replace it")
    return common


def _add_flag(group: argparse._ArgumentGroup, field: dataclasses.Field) -> None:
    name, kind, meta = flag_name(field), type_of(field), field.metadata
    text = described(field).replace("%", "%%")
    if not meta["flag"]:
        several = kind is tuple
        metavar = meta["metavar"] if several else name
        group.add_argument(field.name, nargs="*" if several else "?", metavar=metavar, default=UNSET, help=text)
    elif kind is bool:
        group.add_argument(name, action=argparse.BooleanOptionalAction, default=UNSET, help=text)
    elif kind is tuple:
        group.add_argument(name, nargs="+", action="extend", metavar=meta["metavar"], help=text)
    else:
        group.add_argument(name, default=UNSET, help=text, metavar=field.name.upper())


def described(field: dataclasses.Field) -> str:
    """Return an option's help with what --help adds: whether it is required, its choices and its default."""
    default: Any = field.default
    if isinstance(default, tuple | bool):
        default = " ".join(default) if isinstance(default, tuple) else "on" if default else "off"
    notes = [needed] if (needed := requirement(field)) else []
    notes += [f"one of {', '.join(field.metadata['choices'])}"] if field.metadata["choices"] else []
    notes += [f"default: {default}"] if default not in ("", None) else []
    return field.metadata["help"] + (f" ({'; '.join(notes)})" if notes else "")


def usage(program: str, config: type) -> str:
    """Return a command's usage with its positional arguments and required flags, wrapped to the terminal's width."""
    listed = [field for field in dataclasses.fields(config) if not field.metadata["flag"] or field.metadata["required"]]
    words = [program]
    for field in listed:
        several = type_of(field) is tuple
        value = field.metadata["metavar"] if several else field.name.upper()
        value += f" [{value} ...]" if several else ""
        name = f"{flag_name(field)} {value}" if field.metadata["flag"] else value
        words.append(name if field.metadata["required"] is True else f"[{name}]")
    return wrapped(" ".join([*words, "[OPTIONS]"]), len("usage: "))


def example(command_line: str) -> str:
    """Return a command line as --help shows it: wrapped before its options, with backslashes, so that it can be pasted."""
    width = max(40, shutil.get_terminal_size().columns) - 2
    lines = ["  "]
    for part in re.split(r" (?=-)", command_line):  # an option with its values stays on a line
        if len(lines[-1]) + len(part) + 3 > width and lines[-1].strip():
            lines[-1] = lines[-1].rstrip() + " \\"
            lines.append("      ")
        lines[-1] += f"{part} "
    return "example:\n" + "\n".join(lines).rstrip()


def wrapped(text: str, used: int = 0) -> str:
    """Return a text, wrapped to the terminal's width. used: columns of the first line that something else takes."""
    lines = textwrap.wrap(" " * used + text, max(40, shutil.get_terminal_size().columns) - 2, subsequent_indent=" " * 2 * used)
    return "\n".join(lines)[used:]
