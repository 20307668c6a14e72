"""Tables of documents and of records: literal for a small group, and empty for an empty group."""

import numpy as np

from clozemill.pipelines.common import hashing
from clozemill.pipelines.dataset.provenance import documents_table, provenance_table
from clozemill.pipelines.examples.pairs import Pairs
from clozemill.pipelines.shuffle import keys
from clozemill.pipelines.shuffle.groups import Group
from clozemill.pipelines.shuffle.payload import pack


def group(*ids: str) -> Group:
    """Two documents: words at characters 0-2, 3-5 and 6-9; and 0-4, 5-8."""
    first = pack("One", np.array([5, 6, 7], np.uint16), np.array([2, 1]), np.array([[0, 3, 6], [2, 5, 9]], np.uint32))
    second = pack("Two", np.array([8, 9], np.uint16), np.array([2]), np.array([[0, 5], [4, 8]], np.uint32))
    more = [(b"a" * keys.KEY_BYTES, first + each.encode()) for each in ids]
    return Group.build([(b"a" * keys.KEY_BYTES, first), (b"b" * keys.KEY_BYTES, second), *more])


def pairs(*runs: tuple[int, int, int, int]) -> Pairs:
    columns = np.array(runs, np.int64).reshape(-1, 4).T
    return Pairs(*columns, np.zeros(len(runs), np.int8))


def test_documents_are_literal() -> None:
    assert documents_table(group()).to_pylist() == [
        {"key": b"a" * hashing.HASH_BYTES, "title": "One", "sentences": 2, "tokens": 3},
        {"key": b"b" * hashing.HASH_BYTES, "title": "Two", "sentences": 1, "tokens": 2},
    ]


def test_records_are_literal() -> None:
    rows = provenance_table(group(), pairs((0, 2, 3, 5), (1, 3, 3, 3))).to_pylist()
    assert rows[0] == {"a_key": b"a" * hashing.HASH_BYTES, "a_title": "One", "a_start": 0, "a_end": 5,
                       "b_key": b"b" * hashing.HASH_BYTES, "b_title": "Two", "b_start": 0, "b_end": 8}  # fmt: skip
    assert (rows[1]["a_start"], rows[1]["a_end"]) == (3, 9)
    assert [rows[1][name] for name in ("b_key", "b_title", "b_start", "b_end")] == [None] * 4


def test_ids_are_literal() -> None:
    """One text has three records with ids, and one without."""
    found = group("i9", "i10", "i9")
    assert [(row["id"], row["other_ids"]) for row in documents_table(found, ids=True).to_pylist()] == [
        ("i10", ["i9"]),
        (None, []),
    ]
    rows = provenance_table(found, pairs((0, 2, 3, 5), (1, 3, 3, 3)), ids=True).to_pylist()
    assert [(row["a_id"], row["b_id"]) for row in rows] == [("i10", None), ("i10", None)]


def test_a_group_without_documents_has_empty_tables() -> None:
    empty = Group.build([])
    assert documents_table(empty).num_rows == provenance_table(empty, pairs()).num_rows == 0
    assert documents_table(empty, ids=True).schema == documents_table(group("i9"), ids=True).schema
