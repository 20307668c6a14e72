"""Reads the options in YAML files, safely and without surprises."""

import contextlib
import math
from pathlib import Path
from typing import Any

import yaml

from clozemill.pipelines.common.errors import UserError


class _RepeatedKey(yaml.constructor.ConstructorError):
    """A key that a mapping has twice."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without merge keys: a few lines of nested `<<` would expand to more than fits into memory.

    A repeated key is an error. A number that isn't in its usual form stays text, which the type of its option decides about:
    YAML reads 010 as 8, and 1:30 as 90.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Keep `<<` as an ordinary key, which is then rejected as unknown."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping. Raises _RepeatedKey; max-steps and max_steps are the same key."""
        seen = set()
        for key, _ in node.value:
            name = key.value.replace("-", "_") if isinstance(key, yaml.ScalarNode) else None
            if name in seen:
                raise _RepeatedKey(None, None, f"{name} is given twice", key.start_mark)
            seen.update({name} - {None})
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """Return the number, or its text if Python writes the number in another way."""
        found = self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)
        with contextlib.suppress(ValueError):  # Python doesn't write thousands of digits: such a number stays one
            if str(found) != node.value and not (isinstance(found, float) and not math.isfinite(found)):
                return node.value
        return found

    def construct_text(self, node: yaml.ScalarNode) -> Any:
        """Return a date or time as it is written."""
        return node.value


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_text)


def read(path: str) -> dict[str, Any]:
    """Return the options in a YAML file, as `parse`. Raises UserError."""
    try:
        return parse(Path(path).read_bytes(), path)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror or error}): give a YAML file") from None


def parse(data: bytes, path: str) -> dict[str, Any]:
    """Return the options in the contents of a YAML file, not checked yet. Raises UserError if it isn't a mapping of options."""
    try:
        values = yaml.load(data.decode("utf-8"), _Loader) or {}
    except UnicodeDecodeError as error:
        raise UserError(f"{path} can't be read ({error}): give a YAML file") from None
    except _RepeatedKey as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: {error.problem}: remove one of them") from None
    except Exception as error:  # PyYAML's value conversions raise KeyError, AttributeError and others besides YAMLError
        at = getattr(error, "problem_mark", None)
        raise UserError(f"{path}{f', line {at.line + 1}' if at else ''} is not valid YAML: correct it") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path} is not a mapping of options to values: write lines such as 'seed: 7'")
    return {key.replace("-", "_"): value for key, value in values.items()}
