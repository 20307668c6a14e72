"""Read files of foreign model folders: only regular files of bounded size; errors are one sentence.

A folder is untrusted input. So only regular files are opened, not named pipes or devices, and only if their size is
plausible: parsed JSON needs about forty times its bytes.
"""

import json
from pathlib import Path
from typing import Any

MAX_JSON = 1 << 24  # bytes of a configuration; one with 100,000 labels has 5 MB
MAX_VOCABULARY = 1 << 26  # bytes of a vocabulary; one of half a million entries has 15 MB as JSON


def is_file(path: Path) -> bool:
    """Return whether a regular file exists, possibly through a link as in Hugging Face's cache. Raises ValueError otherwise."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is not a plain file: copy it again")
    return path.exists()


def read_bytes(path: Path, limit: int = MAX_JSON) -> bytes:
    """Return a file's bytes. Raises ValueError if it is missing, isn't a plain file, or is larger than `limit`."""
    if not is_file(path):
        raise ValueError(f"{path.name} is missing: copy it from where the weights come from")
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ValueError(f"{path.name} can't be read ({error.strerror or error}): copy it again") from None
    if len(data) > limit:
        raise ValueError(f"{path.name} has more than {limit:,} bytes, which no such file of a BERT has: copy it again")
    return data


def json_object(data: bytes, name: str) -> dict[str, Any]:
    """Return the JSON object in the contents of a file. Raises ValueError, naming the file, for anything else."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} can't be read ({' '.join(str(error).split())}): copy it again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name} is not a JSON object: copy it again")
    return found


def read_json(path: Path, limit: int = MAX_JSON) -> dict[str, Any]:
    """Return a file's JSON object. Raises ValueError for anything else."""
    return json_object(read_bytes(path, limit), path.name)


def optional_json(path: Path, limit: int = MAX_JSON) -> dict[str, Any]:
    """Return a file's JSON object, like `read_json`, or {} if there is no such file."""
    return read_json(path, limit) if is_file(path) else {}
