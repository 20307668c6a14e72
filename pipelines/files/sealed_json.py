"""JSON files of an unfinished run, sealed so that damaged files and files of other runs are detected.

A power cut or a bad disk may leave a file of the right size with wrong content, and a folder may contain files of another
run. Each object is stored with a hash of itself and of a key, the hash of everything that its run depends on.
"""

import hashlib
import json
from typing import Any

from clozemill.pipelines.files import filesystem

_SEAL = "seal"


def _seal(value: dict[str, Any], key: str) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), key=key.encode()[:64], digest_size=16).hexdigest()


def write_sealed(path: str, value: dict[str, Any], key: str) -> None:
    """Write an object with the seal of a run. It isn't synced to the disk: `read_sealed` detects damage."""
    filesystem.write_bytes(path, json.dumps(value | {_SEAL: _seal(value, key)}).encode(), sync=False)


def read_sealed(path: str, key: str) -> dict[str, Any] | None:
    """Read an object; None if the file is missing, damaged, or sealed by another run."""
    if not filesystem.exists(path):
        return None
    try:
        value = json.loads(filesystem.read_bytes(path))
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    seal = value.pop(_SEAL, None)
    return value if seal == _seal(value, key) else None
