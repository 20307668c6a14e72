"""Turns a frozen dataclass into flags, YAML keys and checks. Used by config.py here and in trainers.

`resolve` merges defaults, a recipe, `--config` and flags, in this order, and rejects unknown options. `identity` returns
the part of a configuration that determines the output.
"""

import argparse
import dataclasses
import difflib
import math
import reprlib
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import filesystem

C = TypeVar("C")


UNSET, HelpFormatter = argparse.SUPPRESS, argparse.RawDescriptionHelpFormatter
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 200


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UserError: one sentence, without the usage text."""

    def error(self, message: str) -> Any:
        raise UserError(f"{message}: see {self.prog.strip()} --help")


def option(
    default: Any,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    identity: bool = True,
    flag: bool = True,
    metavar: str = "GLOB",
) -> Any:
    """Return a dataclass field with the metadata that the parsers need.

    Args:
        low, high: bounds of the value.
        identity: whether the option affects the bytes of the output.
        flag: False for a positional argument.
        metavar: name of a list item in --help.
    """
    meta = {"help": text, "low": low, "high": high, "choices": choices, "identity": identity, "flag": flag, "metavar": metavar}
    return dataclasses.field(default=default, metadata=meta)


def _type_of(field: dataclasses.Field) -> type:
    """Return the field's type: str, int, float, bool, tuple (of strings), or a dataclass (for a list of mappings)."""
    kind = field.type
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return item if dataclasses.is_dataclass(item) else tuple
    return next((arg for arg in get_args(kind) if arg is not type(None)), kind)


def add_flags(parser: argparse.ArgumentParser, config: type) -> None:
    """Add one flag per field of a configuration to a parser, and `--config` and `--save-config`."""
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of these options; flags override it")
    parser.add_argument("--save-config", metavar="FILE", help="write the resolved configuration to this file")
    for field in dataclasses.fields(config):
        name, kind, meta = "--" + field.name.replace("_", "-"), _type_of(field), field.metadata
        if dataclasses.is_dataclass(kind):
            continue  # a list of mappings can be given in YAML only
        default = " ".join(field.default) if kind is tuple else field.default
        text = meta["help"].replace("%", "%%") + (f" (default: {default})" if default not in ("", None) else "")
        if not meta["flag"]:
            parser.add_argument(field.name, nargs="?", default=argparse.SUPPRESS, help=text)
        elif kind is bool:
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        elif kind is tuple:
            parser.add_argument(name, nargs="+", action="extend", metavar=meta["metavar"], help=text)
        else:
            parser.add_argument(
                name,
                default=argparse.SUPPRESS,
                choices=meta["choices"],
                help=text,
                metavar=None if meta["choices"] else field.name.upper(),
            )


def _shown(value: Any) -> str:
    """Return a value for a message. It is shortened, because YAML aliases can expand to more than fits into memory."""
    try:
        return _short.repr(value)
    except ValueError:
        return "a number of thousands of digits"  # too long for Python to convert to decimal


_KINDS = {int: "a whole number", float: "a number", str: "a string in quotes"}


def value_of(field: dataclasses.Field, value: Any, where: str) -> Any:
    """Convert a value from a flag or YAML to the field's type. Raise UserError, starting with `where`, if it doesn't fit."""
    kind, meta = _type_of(field), field.metadata
    if value is None and field.default is None:
        return None
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise UserError(f"{where} is not a list of mappings: write lines such as '- {{data: DATASET, steps: 1000}}'")
        return tuple(kind(**_converted(kind, item, f"{where}, number {number}")) for number, item in enumerate(value, 1))
    if kind is bool:
        if not isinstance(value, bool):
            raise UserError(f"{where} is {_shown(value)}: give true or false")
        return value
    if kind is tuple:
        values = value if isinstance(value, list | tuple) else (value,)
        if not all(isinstance(item, str) for item in values):
            raise UserError(f"{where} is {_shown(value)}: give a string in quotes, or a list of strings")
        return tuple(values)
    try:
        if isinstance(value, bool | list | dict | None) or (kind is int and isinstance(value, float) and value != int(value)):
            raise ValueError
        value = kind(value)
        if kind is float and not math.isfinite(value):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where} is {_shown(value)}: give {_KINDS[kind]}") from None
    if meta["choices"] and value not in (*meta["choices"], field.default):
        raise UserError(f"{where} is {_shown(value)}: give one of {', '.join(meta['choices'])}")
    low, high = meta["low"], meta["high"]
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"between {low} and {high}" if None not in (low, high) else f"at least {low}"
        raise UserError(f"{where} is {_shown(value)}: give a value {bounds}")
    return value


def suggest(word: str, known: list[str]) -> str:
    """Return '; did you mean X?' if a known word is similar, otherwise an empty string."""
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _converted(config: type, values: dict[str, Any], where: str) -> dict[str, Any]:
    """Check and convert the values of a mapping for a configuration. Raise UserError for an unknown key."""
    fields = {field.name: field for field in dataclasses.fields(config)}
    for key in values:
        if key not in fields:
            close = suggest(key, list(fields)) if isinstance(key, str) else ""
            raise UserError(f"{where}: unknown option {_shown(key)}{close}")
    return {key: value_of(fields[key], value, f"{where}: {key}") for key, value in values.items()}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without merge keys: a few lines of nested `<<` would expand to more than fits into memory."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Keep `<<` as an ordinary key, which is then rejected as unknown."""


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        values = yaml.load(Path(path).read_text("utf-8"), _Loader) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read ({getattr(error, 'strerror', None) or error}): give a YAML file") from None
    except Exception as error:  # PyYAML's value conversions raise KeyError, AttributeError and others besides YAMLError
        at = getattr(error, "problem_mark", None)
        raise UserError(f"{path}{f', line {at.line + 1}' if at else ''} is not valid YAML: correct it") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path} is not a mapping of options to values: write lines such as 'seed: 7'")
    return {key.replace("-", "_"): value for key, value in values.items()}


def resolve(config: type[C], arguments: argparse.Namespace) -> C:
    """Merge and check defaults, a recipe (`config.RECIPES`, chosen by the option `recipe`), `--config` and flags.

    Raise UserError for an unknown key, a wrong type or choice, or a value out of range. The message names the source.
    """
    values = _converted(config, _read_yaml(arguments.config), arguments.config) if arguments.config else {}
    for field in dataclasses.fields(config):
        if getattr(arguments, field.name, None) is not None:
            values[field.name] = value_of(field, getattr(arguments, field.name), "--" + field.name.replace("_", "-"))
    resolved = _completed(config, values)
    if arguments.save_config:
        filesystem.write_bytes(arguments.save_config, to_yaml(resolved).encode())
    return resolved


def from_values(config: type[C], values: dict[str, Any]) -> C:
    """A configuration from Python values by option name; a recipe fills in what isn't given. Raises UserError, as `resolve`."""
    return _completed(config, _converted(config, values, "options"))


def _completed(config: type[C], values: dict[str, Any]) -> C:
    if values.get("recipe"):
        values = {**config.RECIPES[values["recipe"]].options, **values}
    resolved = config(**values)
    if hasattr(resolved, "validate"):
        resolved.validate()
    return resolved


def require(config: Any, *names: str) -> None:
    """Raise UserError if a required option is missing."""
    for name in names:
        if not getattr(config, name):
            field = next(field for field in dataclasses.fields(config) if field.name == name)
            flag = "--" + name.replace("_", "-") if field.metadata["flag"] else name.upper()
            raise UserError(f"{flag} is missing: give {field.metadata['help']}")


def to_dict(config: Any) -> dict[str, Any]:
    """Return all options as plain values (tuples as lists)."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(config).items()}


def identity(config: Any) -> dict[str, Any]:
    """Return the options that determine the output, without `input`: files are identified by content, not by name."""
    kept = {field.name for field in dataclasses.fields(config) if field.metadata["identity"]} - {"input"}
    return {key: value for key, value in to_dict(config).items() if key in kept}


def to_yaml(config: Any) -> str:
    """Return the resolved configuration as YAML text for `--config`."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
