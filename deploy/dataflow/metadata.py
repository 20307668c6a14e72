"""Generate metadata.json of the Flex Template from the options of `clozemill prepare`.

python -m clozemill.deploy.dataflow.metadata > deploy/dataflow/metadata.json
"""

import dataclasses
import json
from typing import Any

from clozemill.pipelines.config import PrepareConfig

_ELSEWHERE = {"runner", "num_workers", "in_memory", "progress", "shuffle"}  # Dataflow has its own settings for these
FIELDS = [field for field in dataclasses.fields(PrepareConfig) if field.name not in _ELSEWHERE]
_REQUIRED = ("input", "vocab", "output")
KINDS: dict[Any, str] = {bool: "BOOLEAN", bool | None: "BOOLEAN", int: "NUMBER", float: "NUMBER"}


def _parameter(field: dataclasses.Field) -> dict[str, Any]:
    meta, kind = field.metadata, KINDS.get(field.type, "TEXT")
    text = meta["help"] + ("; several are separated by blanks" if field.type == tuple[str, ...] else "")
    described = {
        "name": field.name,
        "label": field.name.replace("_", " "),
        "helpText": text,
        "paramType": "ENUM" if meta["choices"] else kind,
        "isOptional": field.name not in _REQUIRED,
    }
    if meta["choices"]:
        described["enumOptions"] = [{"value": choice} for choice in meta["choices"]]
    if field.default not in ("", None, ()):
        described["defaultValue"] = str(field.default).lower() if field.type is bool else str(field.default)
    return described


def metadata() -> dict[str, Any]:
    """Return the contents of metadata.json."""
    return {
        "name": "clozemill prepare",
        "description": "Prepares TFRecord shards of masked examples from a corpus, for pretraining an encoder such as BERT.",
        "parameters": [_parameter(field) for field in FIELDS],
    }


if __name__ == "__main__":
    print(json.dumps(metadata(), indent=2))
