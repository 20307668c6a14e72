"""Groups to shards: literal rows, what every record must be, determinism, and golden digests.

python -m tests.pipelines.examples.test_assemble    prints new values for GOLDEN, if the format changes on purpose
"""

import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.common.runtime import Stopwatch
from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.examples import columns as examples_columns
from clozemill.pipelines.examples.assemble import STATISTICS, count_examples, token_matrix, word_starts
from clozemill.pipelines.examples.masking import MASKERS
from clozemill.pipelines.examples.pairs import PAIRS, Pairs
from clozemill.pipelines.shards import tf_example, tfrecord
from clozemill.pipelines.shards.writer import Shard, write_shard
from clozemill.pipelines.shuffle.groups import Group
from clozemill.pipelines.shuffle.payload import pack
from tests import reference

# SHA-256 of copy 1 of group 3 of the golden group, seed 7: every dataset changes when one of these does. Update them (see
# above) only when the format changes on purpose.
GOLDEN = {
    ("nsp", "subword"): "79569b02a686a9727c839328a8bbd4239ecbd196d7fda5471a5bb089e695bbc2",
    ("nsp", "whole_word"): "368be46dc6f0454a68fe3debd341de823981d393b5b654666852a3151c315913",
    ("nsp", "span"): "a485bbd62440241f87ffa9bc7057d72e3879747495863b67a08311ab07afbf8d",
    ("sop", "subword"): "c9bcf0292c8e1dbc3bddd390eb5cc82363a16df8ba18534ec0a2316257b61183",
    ("sop", "whole_word"): "8ff7184a3d4cbd8f58e89d21c705226fc3deaa7fb514783febb085ca0dd6d7b1",
    ("sop", "span"): "0687d648173ca9567fd2049f0df4b1a74ee4ac614fdc69ed7093bd5d0f05c143",
    ("single", "subword"): "1496e0b12f98171c2e2ec535521c7cf2edbbf61df9f7d3bb9ad249a7a5486eb1",
    ("single", "whole_word"): "0c4bda36c5efd73aadf09b8bc1237be9010def86e1de048b6a8b530b8adcdbc5",
    ("single", "span"): "1bb1408ba1c1abda09ac4003970fa8bd8c4447258a5bc06f9ab5ffd06ff614f2",
}

Z = 4.5
VOCABULARY = reference.make_vocabulary()
UNK, CLS, SEP, MASK = 2, 3, 4, 5
DEFAULT = ExampleConfig("nsp", "subword", 32, 6, 0.15, 0.1, seed=7)


def documents(count: int, sentences: int = 9) -> list[list[list[int]]]:
    """Documents of 1 … `sentences` sentences of 1 … 11 tokens, the first of a sentence a word; all by arithmetic."""
    return [
        [
            [6 + (7 * i + 5 * j) % 12] + [6 + (31 * i + 17 * j + 5 * k + k * k) % 18 for k in range((7 * i + 3 * j) % 11)]
            for j in range(1 + 5 * i % sentences)
        ]
        for i in range(count)
    ]


def run(group: Group, options: ExampleConfig, copy: int = 1, index: int = 3) -> tuple[bytes, Shard]:
    data = bytearray()
    shard = write_shard(group, index, copy, options, VOCABULARY, data.extend, Stopwatch())
    return bytes(data), shard


def decoded(data: bytes, options: ExampleConfig) -> examples_columns.Columns:
    return tf_example.decode(list(tfrecord.read(data)), options.max_seq_length, options.max_predictions)


def golden() -> dict[tuple[str, str], str]:
    group = reference.make_group(documents(40))
    return {
        (pairs, masking): hashlib.sha256(run(group, replace(DEFAULT, pairs=pairs, masking=masking))[0]).hexdigest()
        for pairs, masking in itertools.product(PAIRS, MASKERS)
    }


def test_golden_digests():
    assert golden() == GOLDEN


def test_token_matrix_literally():
    group = reference.make_group([[[6, 7], [8, 9, 10]], [[11, 12]]])
    pairs = Pairs(*(np.array(column) for column in ([0, 5, 1, 2], [2, 7, 3, 5], [2, 0, 6, 7], [5, 2, 7, 7], [0, 1, 1, 0])))
    ids, segments, lengths = token_matrix(group, pairs, 8, VOCABULARY)
    assert ids.tolist() == [
        [CLS, 6, 7, SEP, 8, 9, 10, SEP],
        [CLS, 11, 12, SEP, 6, 7, SEP, 0],
        [CLS, 7, 8, SEP, 12, SEP, 0, 0],
        [CLS, 8, 9, 10, SEP, 0, 0, 0],
    ]
    assert segments.tolist() == [
        [0, 0, 0, 0, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert lengths.tolist() == [8, 7, 6, 5]


def test_word_starts_literally():
    """After [CLS], [SEP] and an unknown word a continuation starts a word."""
    ids = np.array([[CLS, 18, 6, 18, 19, SEP, 20, UNK, 21, 7, SEP, 0]])
    assert np.flatnonzero(~word_starts(ids, VOCABULARY)[0]).tolist() == [3, 4]


# A masked, a random and a kept token, and an unknown word; then one masked token.
COLUMNS = examples_columns.Columns(
    np.array([[CLS, MASK, 9, SEP, 7, UNK, SEP, 0], [CLS, MASK, SEP, 8, SEP, 0, 0, 0]]),
    np.array([[1] * 7 + [0], [1] * 5 + [0] * 3]),
    np.array([[0, 0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 0, 0, 0]]),
    np.array([[1, 2, 4], [1, 0, 0]]),
    np.array([[6, 8, 7], [6, 0, 0]]),
    np.array([[1, 1, 1], [1, 0, 0]], np.float32),
    np.array([1, 0]),
)


def test_count_literally():
    """One [MASK], one random, one kept and, in the second example, one [MASK]; an unknown word is not maskable."""
    assert count_examples(COLUMNS, VOCABULARY) == {
        **{"examples": 2, "tokens": 12, "padding": 4, "maskable": 5, "masked": 4},
        **{"masked_as_mask": 2, "masked_as_random": 1, "masked_as_kept": 1, "labels_random": 1, "unknown": 1},
    }


def check(group: Group, options: ExampleConfig, data: bytes, shard: Shard) -> None:
    """Every record, its replaced tokens put back, is [CLS] A [SEP] B [SEP] of its pair and masked as it should be."""
    columns, pairs = decoded(data, options), shard.pairs
    assert len(columns) == len(pairs) == shard.counts["examples"]
    for row in range(len(columns)):
        a = group.tokens[pairs.a_start[row] : pairs.a_end[row]].tolist()
        b = group.tokens[pairs.b_start[row] : pairs.b_end[row]].tolist()
        whole = [CLS, *a, SEP] + ([*b, SEP] if options.pairs != "single" else [])
        used = int(columns.masked_lm_weights[row].sum())
        positions, ids = columns.masked_lm_positions[row], columns.input_ids[row].tolist()
        for position, original in zip(positions[:used], columns.masked_lm_ids[row], strict=False):
            ids[position] = int(original)
        padding = options.max_seq_length - len(whole)
        assert padding >= 0 and ids == whole + [0] * padding
        assert columns.input_mask[row].tolist() == [1] * len(whole) + [0] * padding
        behind = (len(b) + 1) if options.pairs != "single" else 0
        assert columns.segment_ids[row].tolist() == [0] * (len(a) + 2) + [1] * behind + [0] * padding
        assert columns.next_sentence_labels[row] == pairs.labels[row]
        assert columns.masked_lm_weights[row].tolist() == [1] * used + [0] * (options.max_predictions - used)
        assert not positions[used:].any() and not columns.masked_lm_ids[row, used:].any()
        words = reference.words(ids, VOCABULARY)
        candidates = {position for word in words for position in word}
        quota = min(options.max_predictions, max(1, round(options.masked_lm_prob * len(whole))))
        assert positions[:used].tolist() == sorted(set(positions[:used].tolist()) & candidates)
        if options.masking == "subword":
            assert used == min(quota, len(candidates))
        else:
            assert used <= quota or all(len(word) > quota for word in words)
            assert all(set(word) <= set(positions[:used]) for word in words if set(word) & set(positions[:used]))
        new = {int(columns.input_ids[row, position]) for position in positions[:used]}
        assert new <= {MASK, *range(6, 24)}


SENTENCES = st.lists(st.sampled_from([UNK, *range(6, 24)]), min_size=1, max_size=14)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(SENTENCES, min_size=1, max_size=6), max_size=6),
    st.sampled_from(list(PAIRS)),
    st.sampled_from(list(MASKERS)),
    st.integers(8, 40),
    st.integers(1, 8),
    st.sampled_from([0.05, 0.15, 0.6]),
    st.sampled_from([0, 0.5, 1]),
    st.integers(0, 2**63 - 1),
)
def test_every_record_is_what_it_should_be(content, pairs, masking, length, predictions, share, short, seed):
    group = reference.make_group(content)
    options = ExampleConfig(pairs, masking, length, min(predictions, length - 3), share, short, seed=seed)
    data, shard = run(group, options)
    check(group, options, data, shard)
    assert data == run(group, options)[0]


@pytest.mark.parametrize(("pairs", "masking"), list(itertools.product(PAIRS, MASKERS)))
def test_every_record_of_a_larger_group(pairs: str, masking: str):
    """Also the counts: those of the records read back, and those that only the pairs know."""
    group, options = reference.make_group(documents(80)), replace(DEFAULT, pairs=pairs, masking=masking)
    data, shard = run(group, options)
    check(group, options, data, shard)
    expected = count_examples(decoded(data, options), VOCABULARY)
    assert {name: shard.counts[name] for name in expected} == expected
    assert set(shard.counts) == set(STATISTICS)
    assert (shard.counts["forced_random"], shard.counts["chunks_dropped"]) == (shard.pairs.forced, shard.pairs.dropped)


def test_equal_names_give_equal_bytes_and_others_give_others():
    group = reference.make_group(documents(40))
    data = run(group, DEFAULT, copy=1, index=3)[0]
    assert data == run(group, DEFAULT, copy=1, index=3)[0]
    others = [run(group, DEFAULT, copy=0)[0], run(group, DEFAULT, index=4)[0], run(group, replace(DEFAULT, seed=8))[0]]
    assert len({data, *others}) == 4


def test_the_order_in_which_documents_arrive_does_not_matter():
    items = []
    for number, document in enumerate(documents(20)):
        ids, lengths = (
            np.array([token for sentence in document for token in sentence], np.uint16),
            np.array([*map(len, document)]),
        )
        items.append((bytes([number]), pack("", ids, lengths)))
    data = run(Group.build(items), DEFAULT)[0]
    assert data == run(Group.build(items[::-1]), DEFAULT)[0] == run(Group.build(items[7:] + items[:9]), DEFAULT)[0]


def test_no_documents_give_no_bytes():
    data, shard = run(Group.build([]), DEFAULT)
    assert data == b"" and shard.counts == dict.fromkeys(STATISTICS, 0)


def test_masks_differ_between_copies_and_examples_are_shuffled():
    """Sentences that leave the pairs no choice: copies differ in order and masks alone."""
    group = reference.make_group([[[6 + i % 12] * 10, [6 + i // 12 % 12] * 9] for i in range(100)])
    options = replace(DEFAULT, pairs="single", max_seq_length=22, short_seq_prob=0.0)
    one, other = (run(group, options, copy=copy)[1].pairs.a_start for copy in (0, 1))
    assert sorted(one) == sorted(other) == list(range(0, 1900, 19))
    assert one.tolist() != other.tolist() != list(range(0, 1900, 19))
    assert abs(np.corrcoef(one, np.arange(100))[0, 1]) < 0.35


def test_a_group_of_several_chunks_of_examples():
    """More examples than are encoded at a time: all are there once, masked as everywhere, and unlike each other."""
    group = reference.make_group([[[6] * 10]] * 5000)
    options = replace(DEFAULT, pairs="single", max_seq_length=12)
    data, shard = run(group, options)
    columns = decoded(data, options)
    assert sorted(shard.pairs.a_start.tolist()) == list(range(0, 50000, 10))
    assert (columns.masked_lm_weights.sum(axis=1) == 2).all()
    assert reference.fits(np.bincount(columns.masked_lm_positions[:, :2].ravel(), minlength=11)[1:], [1] * 10) < Z
    parts = [columns.masked_lm_positions[low : low + 2048].tobytes() for low in (0, 2048)]
    assert parts[0] != parts[1]


def test_statistics_keep_the_shares():
    counts = run(reference.make_group(documents(1500)), DEFAULT)[1].counts
    masked = counts["masked"]
    for name, share in (("masked_as_mask", 0.8), ("masked_as_random", 0.1 * 17 / 18), ("masked_as_kept", 0.1 + 0.1 / 18)):
        assert abs(counts[name] - share * masked) < Z * (share * (1 - share) * masked) ** 0.5
    assert abs(counts["labels_random"] - counts["examples"] / 2) < Z * counts["examples"] ** 0.5 / 2


if __name__ == "__main__":
    print("GOLDEN = {")
    for key, digest in golden().items():
        print(f'    ("{key[0]}", "{key[1]}"): "{digest}",')
    print("}")
