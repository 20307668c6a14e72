"""Turns a frozen dataclass into options with checks, from flags or YAML. Used by config.py here and in trainers.

`resolve` merges defaults, a recipe, `--config` and flags, in this order, and rejects unknown options. `identity` returns
the part of a configuration that determines the output.
"""

import argparse
import dataclasses
import difflib
import math
import os
import re
import reprlib
from collections.abc import Iterable
from typing import Any, ClassVar, Protocol, TypeVar, get_args, get_origin

import yaml

from clozemill.pipelines.command_line import yaml_files
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.formatting import enumerated
from clozemill.pipelines.files import filesystem


class Dataclass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


C = TypeVar("C", bound=Dataclass)


INPUT, OUTPUT, METHOD, RUNNING = GROUPS = ("input", "output", "what it does", "running")  # of options, as in --help
READ, NEW = "read", "new"  # what a command does with an option's path
_GIVEN = "_given"  # attribute of a configuration, beside its fields
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 200


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
    group: str = METHOD,
    required: bool | str = False,
    path: str = "",
    saved: bool = True,
) -> Any:
    """Return a dataclass field with the metadata that the parsers need.

    Args:
        low, high: bounds of the value.
        identity: whether the option affects the bytes of the output.
        flag: False for a positional argument.
        metavar: name of a list item in --help.
        group: one of GROUPS, under which --help lists the option.
        required: whether the command can't do without it, or when, such as "unless --budget"; the configuration's `required`
            checks the latter.
        path: READ for input that must exist, NEW for a file that must not; local ones are checked before the command starts.
        saved: whether saved configurations contain the option.
    """
    meta = {"help": text, "low": low, "high": high, "choices": choices, "identity": identity, "flag": flag, "metavar": metavar}
    meta |= {"group": group, "required": required, "path": path, "saved": saved}
    return dataclasses.field(default=default, metadata=meta)


def type_of(field: dataclasses.Field) -> type:
    """Return the field's type: str, int, float, bool, tuple (of strings), or a dataclass (for a list of mappings)."""
    kind: Any = field.type
    if get_origin(kind) is tuple:
        item: type = get_args(kind)[0]
        return item if dataclasses.is_dataclass(item) else tuple
    return next((arg for arg in get_args(kind) if arg is not type(None)), kind)


def item_type(field: dataclasses.Field) -> Any:
    """Return the dataclass of the items of a field that may be a list of mappings; None for other fields."""
    kind: Any = field.type
    lists = [each for each in (kind, *get_args(kind)) if get_origin(each) is tuple]
    return next((item for item in (get_args(each)[0] for each in lists) if dataclasses.is_dataclass(item)), None)


def requirement(field: dataclasses.Field) -> str:
    """Return 'required', 'required' with its condition, or an empty string."""
    required = field.metadata["required"]
    return f"required {required}" if isinstance(required, str) else "required" if required else ""


def flag_name(field: dataclasses.Field) -> str:
    """Return a field's name on the command line: --max-seq-length, or DATASET for a positional argument."""
    return "--" + field.name.replace("_", "-") if field.metadata["flag"] else field.name.upper()


def _shown(value: Any) -> str:
    """Return a value for a message. It is shortened, because YAML aliases can expand to more than fits into memory."""
    try:
        return _short.repr(value)
    except ValueError:
        return "a number of thousands of digits"  # too long for Python to convert to decimal


_KINDS = {int: "a whole number", float: "a number", str: "a string in quotes"}


def value_of(field: dataclasses.Field, value: Any, where: str) -> Any:
    """Convert a value from a flag or YAML to the field's type. Raise UserError, starting with `where`, if it doesn't fit."""
    kind, meta = type_of(field), field.metadata
    if value is None and field.default is None:
        return None
    if (items := item_type(field)) and isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return _items(items, value, where)
    if dataclasses.is_dataclass(kind):
        raise UserError(f"{where} is not a list of mappings: write lines such as '- {items.EXAMPLE}'")
    if kind is bool:
        if not isinstance(value, bool):
            raise UserError(f"{where} is {_shown(value)}: give true or false")
        return value
    if isinstance(value, bool) and set(meta["choices"] or ()) == {"on", "off"}:
        value = "on" if value else "off"  # as YAML reads an unquoted on or off
    if kind is tuple:
        values = value if isinstance(value, list | tuple) else (value,)
        if not all(isinstance(item, str) for item in values):
            raise UserError(f"{where} is {_shown(value)}: give a string in quotes, or a list of strings")
        return tuple(values)
    try:
        if isinstance(value, bool | list | dict | None):
            raise ValueError
        value = _whole(value) if kind is int else kind(value)
        if kind is float and not math.isfinite(value):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        lines = f", or lines such as '- {items.EXAMPLE}'" if items else ""
        raise UserError(f"{where} is {_shown(value)}: give {_KINDS[kind]}{lines}") from None
    if meta["choices"] and value not in (*meta["choices"], field.default):
        close = suggest(value, meta["choices"])
        raise UserError(f"{where} is {_shown(value)}: give one of {', '.join(meta['choices'])}{close}")
    low, high = meta["low"], meta["high"]
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"between {low} and {high}" if None not in (low, high) else f"at least {low}"
        raise UserError(f"{where} is {_shown(value)}: give a value {bounds}")
    return value


def _whole(value: int | float | str) -> int:
    """Return a whole number, also of 1e5 or 100.0. Raises ValueError or OverflowError for other values."""
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = float(value)
    if int(value) != value:
        raise ValueError
    return int(value)


def _items(kind: Any, values: list[dict[str, Any]], where: str) -> tuple[Any, ...]:
    """Return a list of mappings as dataclasses, after their own checks. Raise UserError, starting with `where`."""
    found = []
    for number, value in enumerate(values, 1):
        place = f"{where}, number {number}"
        found.append(kind(**_converted(kind, value, place)))
        if hasattr(kind, "check"):
            found[-1].check(place)
    return tuple(found)


def suggest(word: str, known: Iterable[str]) -> str:
    """Return '; did you mean X?' if a known word is similar, otherwise an empty string."""
    close = difflib.get_close_matches(word.lower(), list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _converted(config: type, values: dict[str, Any], where: str) -> dict[str, Any]:
    """Check and convert the values of a mapping for a configuration. Raise UserError for an unknown key."""
    fields = {field.name: field for field in dataclasses.fields(config)}
    for key in values:
        if key not in fields:
            close = suggest(key, list(fields)) if isinstance(key, str) else ""
            raise UserError(f"{where}: unknown option {_shown(key)}{close}")
    return {key: value_of(fields[key], value, f"{where}: {key}") for key, value in values.items()}


def resolve(config: type[C], arguments: argparse.Namespace) -> C:
    """Merge and check defaults, a recipe (`config.RECIPES`, chosen by the option `recipe`), `--config` and flags.

    Raise UserError for an unknown key, a wrong type or choice, or a value out of range. The message names the source.
    """
    values = _converted(config, yaml_files.read(arguments.config), arguments.config) if arguments.config else {}
    flags = {
        field.name: value_of(field, getattr(arguments, field.name), flag_name(field))
        for field in dataclasses.fields(config)
        if getattr(arguments, field.name, None) is not None
    }
    resolved = _completed(config, values | flags, flags)
    if arguments.save_config:
        filesystem.write_bytes(arguments.save_config, to_yaml(resolved).encode())
    return resolved


def from_values(config: type[C], values: dict[str, Any]) -> C:
    """A configuration from Python values by option name; a recipe fills in what isn't given. Raises UserError, as `resolve`."""
    return _completed(config, _converted(config, values, "options"), values)


def _completed(config: type[C], values: dict[str, Any], given: Iterable[str]) -> C:
    if values.get("recipe"):
        values = {**getattr(config, "RECIPES", {})[values["recipe"]].options, **values}
    resolved = config(**values)
    object.__setattr__(resolved, _GIVEN, frozenset(given))
    if hasattr(resolved, "validate"):
        resolved.validate()
    return resolved


def given(config: Any) -> frozenset[str]:
    """Return the names of the options that were given as flags or Python values, also at their defaults.

    Those of a YAML file aren't among them: a saved configuration has every option. A changed copy has none.
    """
    return getattr(config, _GIVEN, frozenset())


def require(config: Any, *names: str) -> None:
    """Raise UserError that lists every missing option: of those named, or else of all that the configuration requires."""
    fields = [
        field
        for field in dataclasses.fields(config)
        if field.name in names or (not names and field.metadata["required"] is True)
    ]
    missing = [field for field in fields if not getattr(config, field.name)]
    if len(missing) == 1:
        choices = missing[0].metadata["choices"]
        text = f"one of {', '.join(choices)}" if choices else missing[0].metadata["help"]
        raise UserError(f"{flag_name(missing[0])} is missing: give {text}")
    if missing:
        flags = [flag_name(field) for field in missing]
        texts = [re.split("[:;,(]", field.metadata["help"])[0].strip() for field in missing]
        raise UserError(f"{enumerated(flags)} are missing: give {enumerated(texts)}")


def check_before_start(config: Any) -> None:
    """Check what can be checked without loading a command's libraries: missing options, and local input.

    A configuration may add checks of its own in `check_command`. Raises UserError.
    """
    require(config, *(config.required() if hasattr(config, "required") else ()))
    if hasattr(config, "check_command"):
        config.check_command()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for path in value if isinstance(value, tuple) else (value,):
            if field.metadata["path"] == READ and path and not filesystem.is_remote(path) and not os.path.lexists(path):
                raise UserError(f"{flag_name(field)} {path} doesn't exist: give {field.metadata['help']}")


def to_dict(config: Any) -> dict[str, Any]:
    """Return all options as plain values (tuples as lists), but for those that aren't saved."""
    values, saved = dataclasses.asdict(config), [field.name for field in dataclasses.fields(config) if field.metadata["saved"]]
    return {name: list(values[name]) if isinstance(values[name], tuple) else values[name] for name in saved}


def identity(config: Any) -> dict[str, Any]:
    """Return the options that determine the output, without `input`: files are identified by content, not by name."""
    kept = {field.name for field in dataclasses.fields(config) if field.metadata["identity"]} - {"input"}
    return {key: value for key, value in to_dict(config).items() if key in kept}


def to_yaml(config: Any) -> str:
    """Return the resolved configuration as YAML text for `--config`."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
