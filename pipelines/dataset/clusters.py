"""clusters.parquet: the key of each document that has near-duplicates, and the key of the document kept of its cluster."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clozemill.pipelines.common.hashing import HASH_BYTES
from clozemill.pipelines.dataset.parquet import read_keys, write_parquet

NAME = "clusters.parquet"
_KEY = f"S{HASH_BYTES}"


@dataclass(frozen=True)
class Clusters:
    """keys: S16 [n], sorted; survivors: S16 [n], the document that each one's cluster keeps, possibly itself."""

    keys: np.ndarray
    survivors: np.ndarray

    def survivor(self, key: bytes) -> bytes:
        """Return the key of the document that is kept of a document's cluster; its own key if it has no near-duplicate."""
        row = int(np.searchsorted(self.keys, np.frombuffer(key, _KEY))[0])
        if row < len(self.keys) and self.keys[row : row + 1].tobytes() == key:
            return self.survivors[row : row + 1].tobytes()
        return key


NONE = Clusters(np.zeros(0, _KEY), np.zeros(0, _KEY))


def write(path: str, found: Clusters) -> None:
    """Write clusters.parquet."""
    kind, columns = pa.binary(HASH_BYTES), {"key": found.keys, "survivor": found.survivors}
    parts = {name: [None, pa.py_buffer(np.ascontiguousarray(part).tobytes())] for name, part in columns.items()}
    write_parquet(path, pa.table({name: pa.Array.from_buffers(kind, len(found.keys), part) for name, part in parts.items()}))


def read(path: str) -> Clusters:
    """Read clusters.parquet. Raise UserError, or pa.ArrowException or KeyError if the file is invalid."""
    return Clusters(*(np.frombuffer(b"".join(keys), _KEY) for keys in read_keys(path, "key", "survivor")))
