"""From a frozen dataclass to flags, YAML keys and checks: the machinery behind config.py, here and in trainers.

`resolve` merges defaults, a recipe, `--config` and flags, in this order, and refuses what it doesn't know. `identity` is
the part of a configuration that decides what is written.
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
    """An ArgumentParser whose complaints are UserErrors: one sentence, and no page of usage before it."""

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
    """A dataclass field with what the parsers need. `identity` False: it changes no byte of what is written.

    `metavar`: what --help calls an item of a list.
    """
    meta = {"help": text, "low": low, "high": high, "choices": choices, "identity": identity, "flag": flag, "metavar": metavar}
    return dataclasses.field(default=default, metadata=meta)


def _type_of(field: dataclasses.Field) -> type:
    """str, int, float, bool, tuple (of texts) or a dataclass (a list of its mappings), from the annotation."""
    kind = field.type
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return item if dataclasses.is_dataclass(item) else tuple
    return next((arg for arg in get_args(kind) if arg is not type(None)), kind)


def add_flags(parser: argparse.ArgumentParser, config: type) -> None:
    """Gives a parser one flag per field of a configuration, and `--config`, `--save-config`."""
    parser.add_argument("--config", metavar="FILE", help="YAML with any of these options; flags override it")
    parser.add_argument("--save-config", metavar="FILE", help="write the resolved configuration there")
    for field in dataclasses.fields(config):
        name, kind, meta = "--" + field.name.replace("_", "-"), _type_of(field), field.metadata
        if dataclasses.is_dataclass(kind):
            continue  # a list of mappings: for YAML only
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
    """A value as a message has it: short, though YAML's aliases of aliases may stand for more than memory holds."""
    try:
        return _short.repr(value)
    except ValueError:
        return "a number of thousands of digits"  # which Python doesn't spell out


_KINDS = {int: "a whole number", float: "a number", str: "a text in quotes"}


def value_of(field: dataclasses.Field, value: Any, where: str) -> Any:
    """A value, as a flag's text or YAML has it, in the field's type. Raises UserError, with `where`, for any other."""
    kind, meta = _type_of(field), field.metadata
    if value is None and field.default is None:
        return None
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise UserError(f"{where} is no list of mappings: write lines such as '- {{data: DATASET, steps: 1000}}'")
        return tuple(kind(**_converted(kind, item, f"{where}, number {number}")) for number, item in enumerate(value, 1))
    if kind is bool:
        if not isinstance(value, bool):
            raise UserError(f"{where} is {_shown(value)}: give true or false")
        return value
    if kind is tuple:
        values = value if isinstance(value, list | tuple) else (value,)
        if not all(isinstance(item, str) for item in values):
            raise UserError(f"{where} is {_shown(value)}: give a text in quotes, or a list of them")
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
    """'; did you mean X?' when a known word is close, else nothing."""
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _converted(config: type, values: dict[str, Any], where: str) -> dict[str, Any]:
    """A mapping's values checked against a configuration's fields. Raises UserError for a key that none of them has."""
    fields = {field.name: field for field in dataclasses.fields(config)}
    for key in values:
        if key not in fields:
            close = suggest(key, list(fields)) if isinstance(key, str) else ""
            raise UserError(f"{where}: unknown option {_shown(key)}{close}")
    return {key: value_of(fields[key], value, f"{where}: {key}") for key, value in values.items()}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without merge keys: a few lines of `<<` over `<<` make mappings that no memory holds."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leaves `<<` as it is: a key that is refused."""


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        values = yaml.load(Path(path).read_text("utf-8"), _Loader) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read ({getattr(error, 'strerror', None) or error}): give a YAML file") from None
    except Exception as error:  # beside YAMLError, whatever PyYAML's conversions of a value raise: KeyError, AttributeError…
        at = getattr(error, "problem_mark", None)
        raise UserError(f"{path}{f', line {at.line + 1}' if at else ''} is not valid YAML: mend it") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path} is not a mapping of options to values: write lines such as 'seed: 7'")
    return {key.replace("-", "_"): value for key, value in values.items()}


def resolve(config: type[C], arguments: argparse.Namespace) -> C:
    """Defaults, then a recipe (`config.RECIPES`, chosen by the option `recipe`), `--config` and flags, checked.

    Raises UserError for an unknown key, a wrong type or choice, or a value out of range, naming where it stands.
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
    """Raises UserError when a needed option was not given."""
    for name in names:
        if not getattr(config, name):
            field = next(field for field in dataclasses.fields(config) if field.name == name)
            flag = "--" + name.replace("_", "-") if field.metadata["flag"] else name.upper()
            raise UserError(f"{flag} is missing: give {field.metadata['help']}")


def to_dict(config: Any) -> dict[str, Any]:
    """All options as plain values (tuples as lists)."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(config).items()}


def identity(config: Any) -> dict[str, Any]:
    """The options that decide what is written, `input` left out: that is told by content, not by name."""
    kept = {field.name for field in dataclasses.fields(config) if field.metadata["identity"]} - {"input"}
    return {key: value for key, value in to_dict(config).items() if key in kept}


def to_yaml(config: Any) -> str:
    """The resolved configuration as a file that `--config` takes."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
