"""Payloads there and back, and groups that don't depend on the order in which their documents arrive."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.shuffle.groups import Group
from clozemill.pipelines.shuffle.payload import pack, unpack


def payload(title: str, *sentences: list[int], dtype: type = np.uint16) -> bytes:
    ids = np.array([token for sentence in sentences for token in sentence], dtype)
    return pack(title, ids, np.array([len(sentence) for sentence in sentences], np.int64))


def test_pack_literally():
    assert payload("é", [258, 3], [4]) == b"\x02\x02\x00\x02\x00\x00\x00\x03\x00\x00\x00" + "é".encode() + bytes(
        [2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 0, 4, 0]
    )


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.text(max_size=30),
    st.lists(st.integers(1, 9), max_size=6),
    st.sampled_from([np.uint16, np.uint32]),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_unpack_returns_what_was_packed(title, lengths, dtype, with_spans, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, np.iinfo(dtype).max, sum(lengths), dtype, endpoint=True)
    spans = rng.integers(0, 1 << 32, (2, len(ids)), np.uint32) if with_spans else None
    back = unpack(pack(title, ids, np.array(lengths, np.int64), spans))
    assert back.title == title
    assert back.lengths.tolist() == lengths
    assert back.ids.dtype == dtype and back.ids.tolist() == ids.tolist()
    assert (back.spans is None) == (spans is None)
    assert spans is None or back.spans.tolist() == spans.tolist()


@pytest.mark.parametrize(
    ("title", "expected"), [("x" * 2000, "x" * 1024), ("é" * 600, "é" * 512), ("a" + "é" * 600, "a" + "é" * 511)]
)
def test_titles_are_cut_at_1024_bytes_and_never_within_a_character(title: str, expected: str):
    assert unpack(payload(title, [1])).title == expected


def test_a_title_that_is_not_unicode_is_no_error():
    assert unpack(payload("a\ud800b", [1])).title == "a?b"


ITEMS = [
    (b"k3", payload("three", [7, 8], [9])),
    (b"k1", payload("one", [1], [2, 3], [4])),
    (b"k2", payload("two", [5, 6])),
]


def same(left: Group, right: Group) -> bool:
    arrays = all(np.array_equal(getattr(left, name), getattr(right, name)) for name in ("tokens", "sentences", "documents"))
    return arrays and (left.keys, left.titles, left.duplicates) == (right.keys, right.titles, right.duplicates)


def test_build_literally():
    group = Group.build(ITEMS)
    assert group.tokens.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert group.sentences.tolist() == [0, 1, 3, 4, 6, 8, 9]
    assert group.documents.tolist() == [0, 3, 4, 6]
    assert (group.keys, group.titles) == ([b"k1", b"k2", b"k3"], ["one", "two", "three"])
    assert (group.duplicates, group.spans) == (0, None)
    assert (group.tokens.dtype, group.sentences.dtype, group.documents.dtype) == (np.uint16, np.int64, np.int64)


def test_build_drops_and_counts_duplicates():
    """The smallest payload stays, whichever comes first."""
    again = [(b"k2", payload("another", [5, 6])), (b"k2", payload("two", [5, 6])), (b"k3", payload("Three", [7, 8], [9]))]
    group = Group.build(ITEMS + again)
    assert group.duplicates == 3
    assert group.keys == [b"k1", b"k2", b"k3"]
    assert group.titles == ["one", "two", "Three"]
    assert group.tokens.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=12), st.randoms(use_true_random=False))
def test_build_does_not_depend_on_the_order(documents: list[tuple[int, int]], order: random.Random):
    """Documents of one key differ in the title alone."""
    items = [(bytes([key]), payload(f"title {title}", [key + 1] * (key + 1), [key])) for key, title in documents]
    shuffled = list(items)
    order.shuffle(shuffled)
    group = Group.build(iter(items))
    assert same(group, Group.build(shuffled))
    assert group.duplicates == len(items) - len({key for key, _ in items})
    assert group.keys == sorted({key for key, _ in items})


def test_ids_do_not_change_which_document_is_kept():
    """Records of one text with other titles: the choice is the same with and without ids, so shards are, too."""
    items = [(b"k", payload("b", [5, 6])), (b"k", payload("a", [5, 6])), (b"k", payload("c", [5, 6]))]
    with_ids = [(key, data + name) for (key, data), name in zip(items, (b"1", b"9", b"2"), strict=True)]
    group = Group.build(with_ids)
    assert (group.titles, group.ids) == (["a"], [["9", "1", "2"]])
    assert group.titles == Group.build(items).titles and Group.build(items).ids == [[]]
    assert Group.build(with_ids, keep_duplicates=True).ids == [["9"], ["1"], ["2"]]


def test_build_of_nothing():
    group = Group.build([])
    assert (len(group.tokens), group.sentences.tolist(), group.documents.tolist()) == (0, [0], [0])
    assert (group.keys, group.titles, group.spans, group.duplicates) == ([], [], None, 0)
    assert group.tokens.dtype == np.uint16 and group.sentences.dtype == group.documents.dtype == np.int64


def test_build_keeps_spans_beside_tokens():
    def item(key: bytes, tokens: list[int]) -> tuple[bytes, bytes]:
        ids = np.array(tokens, np.uint32)
        return key, pack("", ids, np.array([len(tokens)]), np.stack([ids * 10, ids * 10 + 5]))

    group = Group.build([item(b"b", [70_000, 4]), item(b"a", [1, 2, 3])])
    assert group.tokens.tolist() == [1, 2, 3, 70_000, 4] and group.tokens.dtype == np.uint32
    assert group.spans.tolist() == [[10, 20, 30, 700_000, 40], [15, 25, 35, 700_005, 45]]
