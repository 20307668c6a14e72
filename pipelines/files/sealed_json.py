"""JSON files of a run under way that are known to be intact, and to be of this very run.

A power cut or a bad disk may leave a file of the right size and other content, and a folder may hold what another run left.
Each object is stored with a hash of itself and of a key, the hash of all that its run depends on.
"""

import hashlib
import json
from typing import Any

from clozemill.pipelines.files import filesystem

_SEAL = "seal"


def _seal(value: dict[str, Any], key: str) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), key=key.encode()[:64], digest_size=16).hexdigest()


def write_sealed(path: str, value: dict[str, Any], key: str) -> None:
    """Write an object with the seal of a run. It isn't synced to the disk: whoever reads it finds out whether it is intact."""
    filesystem.write_bytes(path, json.dumps(value | {_SEAL: _seal(value, key)}).encode(), sync=False)


def read_sealed(path: str, key: str) -> dict[str, Any] | None:
    """Read an object; None where there is no such file, or it is damaged, or has the seal of another run."""
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
