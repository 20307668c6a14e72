"""Pairs: exact cases, the token-by-token reference, and what must hold for any group."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.examples.pairs import (
    PAIRS,
    Pairs,
    next_sentence_pairs,
    nsp,
    single,
    sop,
    truncate,
)
from clozemill.pipelines.shuffle.groups import Group
from tests import reference
from tests.slow import mostly_slow_rows

Z = 4.5  # one-sided 3e-6: with fixed seeds a deterministic pass
FULL, SHORT = 0.0, 1.0
SHAPES = st.lists(st.lists(st.integers(1, 14), min_size=1, max_size=8), min_size=1, max_size=6)
EXTRA = settings(max_examples=150, deadline=None, derandomize=True)


def stream(seed: int) -> Callable[[], np.random.Generator]:
    return lambda: np.random.default_rng(seed)


def rows(pairs: Pairs) -> list[tuple[int, ...]]:
    """(a_start, a_end, b_start, b_end, label) of each pair."""
    columns = (pairs.a_start, pairs.a_end, pairs.b_start, pairs.b_end, pairs.labels)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def document_of(group: Group, tokens: np.ndarray) -> np.ndarray:
    return np.searchsorted(group.sentences[group.documents], tokens, side="right") - 1


def test_truncate_equals_one_token_at_a_time_for_all_small_lengths():
    cases = [(a, b, limit) for limit in range(25) for a in range(27) for b in range(27)]
    expected = []
    for a, b, limit in cases:
        while a + b > limit:
            a, b = (a - 1, b) if a > b else (a, b - 1)
        expected.append((a, b))
    for limit in range(25):
        here = [index for index, case in enumerate(cases) if case[2] == limit]
        a, b = (np.array([cases[index][side] for index in here]) for side in (0, 1))
        assert list(zip(*(kept.tolist() for kept in truncate(a, b, limit)), strict=True)) == [expected[i] for i in here]


def test_truncate_takes_from_b_on_a_tie():
    kept = truncate(np.array([5, 9, 1, 9, 4]), np.array([5, 1, 9, 9, 5]), 9)
    assert [side.tolist() for side in kept] == [[5, 8, 1, 5, 4], [4, 1, 8, 4, 5]]


def test_special_tokens():
    assert [ExampleConfig(pairs=pairs).special_tokens for pairs in ("nsp", "sop", "single")] == [3, 3, 2]
    assert list(PAIRS) == ["nsp", "sop", "single"]


def test_nsp_of_real_pairs_only_literally():
    """Two sentences a document that fill the target together: the split has one place."""
    group = reference.make_group(reference.numbered([[3, 4], [5, 2], [4, 3, 6, 1]]))
    pairs = next_sentence_pairs(group, reference.pair_config(7, FULL), np.random.default_rng(0), random_prob=0.0)
    assert rows(pairs) == [(0, 3, 3, 7, 0), (7, 12, 12, 14, 0), (14, 18, 18, 21, 0), (21, 27, 27, 28, 0)]
    assert (pairs.forced, pairs.dropped, pairs.random_prob) == (0, 0, 0.0)


def test_nsp_of_random_pairs_only_puts_unused_segments_back():
    """With the probability 1 every sentence starts some A once, for a chunk of two segments has A of one."""
    group = reference.make_group(reference.numbered([[3, 4, 3, 4], [2, 3]]))
    pairs = next_sentence_pairs(group, reference.pair_config(7, FULL), np.random.default_rng(0), random_prob=1.0)
    assert [row[:2] for row in rows(pairs)] == [(0, 3), (3, 7), (7, 10), (10, 14), (14, 16), (16, 19)]
    assert pairs.labels.tolist() == [1] * 6
    assert document_of(group, pairs.b_start).tolist() == [1, 1, 1, 1, 0, 0]
    assert (pairs.forced, pairs.dropped) == (2, 0)


def test_nsp_of_one_document_gives_real_pairs_and_counts_lone_chunks():
    group = reference.make_group(reference.numbered([[3, 4, 9]]))
    pairs = nsp(group, reference.pair_config(7, FULL), stream(0))
    assert rows(pairs) == [(0, 3, 3, 7, 0)]
    assert (pairs.forced, pairs.dropped) == (0, 1)


def test_nsp_of_one_sentence_documents_forces_random_pairs():
    """Sentences longer than the limit: both sides are cut, A keeps the odd token."""
    group = reference.make_group(reference.numbered([[20], [30]]))
    pairs = nsp(group, reference.pair_config(9, FULL), stream(1))
    assert [(row[1] - row[0], row[3] - row[2], row[4]) for row in rows(pairs)] == [(5, 4, 1), (5, 4, 1)]
    assert document_of(group, pairs.a_start).tolist() == [0, 1]
    assert document_of(group, pairs.b_start).tolist() == [1, 0]
    assert (pairs.forced, pairs.dropped, len(pairs)) == (2, 0, 2)


@pytest.mark.parametrize("kind", PAIRS)
def test_no_documents_give_no_pairs(kind: str):
    pairs = PAIRS[kind](Group.build([]), reference.pair_config(10, 0.1, kind), stream(0))
    assert (len(pairs), rows(pairs), pairs.forced, pairs.dropped) == (0, [], 0, 0)


def test_sop_literally():
    """A lone last sentence is dropped; a first sentence that fills the target still gets a second."""
    group = reference.make_group(reference.numbered([[3, 4, 2], [9, 1], [5]]))
    pairs = sop(group, reference.pair_config(7, FULL, "sop"), stream(0))
    assert [sorted([row[:2], row[2:4]]) for row in rows(pairs)[:1]] == [[(0, 3), (3, 7)]]
    assert [row[4] for row in rows(pairs)] == [int(row[0] > row[2]) for row in rows(pairs)]
    assert (len(pairs), pairs.dropped) == (2, 2)


def test_single_literally():
    """A sentence of 17 is cut into windows of 7, 7 and 3; the last is packed with what follows."""
    group = reference.make_group(reference.numbered([[3, 4, 2], [17, 4, 1], [5]]))
    pairs = single(group, reference.pair_config(7, FULL, "single"), stream(0))
    edges = [(0, 7), (7, 9), (9, 16), (16, 23), (23, 30), (30, 31), (31, 36)]
    assert [row[:2] for row in rows(pairs)] == edges
    assert all(row[2] == row[3] and row[4] == 0 for row in rows(pairs))


def test_take_keeps_the_counts():
    pairs = nsp(reference.make_group(reference.numbered([[20], [30], [4]])), reference.pair_config(9, FULL), stream(1))
    part = pairs.take(np.array([2, 0]))
    assert rows(part) == [rows(pairs)[2], rows(pairs)[0]]
    assert (part.forced, part.dropped, part.random_prob) == (pairs.forced, pairs.dropped, pairs.random_prob)


def test_nsp_balances_labels_where_it_can():
    """Documents of two sentences: each random pair makes a forced one, so p solves 2p = 1 - p; of three: p = 0.3874."""
    for shape, count, expected in (([4, 4], 20_000, 1 / 3), ([4, 4, 4], 20_000, 0.3874), ([5] * 10, 4000, None)):
        group = reference.make_group(reference.numbered([shape] * count), np.uint32)
        pairs = nsp(group, reference.pair_config(60, FULL), stream(3))
        assert abs(pairs.labels.mean() - 0.5) < Z * 0.5 / len(pairs) ** 0.5
        assert expected is None or abs(pairs.random_prob - expected) < 0.006
        others = len(pairs) - pairs.forced
        assert abs(pairs.labels.sum() - pairs.forced - pairs.random_prob * others) < Z * 0.5 * others**0.5


def test_nsp_keeps_forced_pairs_and_draws_no_others_where_they_are_too_many():
    group = reference.make_group(reference.numbered([[30]] * 50 + [[4, 4]] * 5))
    pairs = nsp(group, reference.pair_config(20, FULL), stream(0))
    assert (pairs.forced, int(pairs.labels.sum()), len(pairs), pairs.random_prob) == (50, 50, 55, 0.0)


CORPUS = [[9, 4, 7, 3, 8, 2, 11], [30], [6, 6], [5, 1, 1, 1, 9, 4, 4], [2, 25, 3], [13, 12, 7, 8, 1, 2, 6, 4, 9, 10], [1] * 9]


def observe(pairs: list[tuple[int, ...]], group: Group) -> dict[str, list]:
    """Per document what its first, second and last pair are, each outcome independent between runs and documents."""
    seen: dict[str, list] = {"count": []}
    owners = document_of(group, np.array([row[0] for row in pairs], np.int64)) if pairs else np.zeros(0, int)
    starts = group.sentences[group.documents]
    for document in range(len(starts) - 1):
        own = [pairs[index] for index in np.flatnonzero(owners == document)]
        seen["count"].append((document, len(own)))
        for name, place in (("first", 0), ("second", 1), ("last", -1)):
            if len(own) > max(place, 0):
                a_start, a_end, b_start, b_end, label = own[place]
                features = {
                    "lengths": (a_end - a_start, b_end - b_start),
                    "total": a_end - a_start + b_end - b_start,
                    "label": label,
                    "a_start": a_start,
                    "a_end": a_end,
                    "b_start": b_start,
                    "b_document": int(document_of(group, np.array(b_start))),
                    "b_end": b_end,
                }
                for feature, value in features.items():
                    seen.setdefault(f"{name} {feature}", []).append((document, value))
    return seen


def collect(runs: int, group: Group, make: Callable[[np.random.Generator], list[tuple[int, ...]]], seed: int) -> dict:
    total: dict[str, list] = {}
    for run in range(runs):
        for name, values in observe(make(np.random.default_rng([seed, run])), group).items():
            total.setdefault(name, []).extend(values)
    return total


def plain(pairs: list[reference.Pair]) -> list[tuple[int, ...]]:
    """The reference's pairs as runs: its tokens are places in the corpus."""
    empty = [0]
    return [(p.a[0], p.a[-1] + 1, (p.b or empty)[0], p.b[-1] + 1 if p.b else 0, p.label) for p in pairs]


def compare(makers: list[Callable[[np.random.Generator], list[tuple[int, ...]]]], group: Group, runs: int = 1200) -> None:
    ours, theirs = (collect(runs, group, make, seed) for seed, make in enumerate(makers))
    assert ours.keys() == theirs.keys()
    deviates = {name: reference.same_distribution(ours[name], theirs[name]) for name in ours}
    assert max(deviates.values()) < Z, deviates


@pytest.mark.parametrize(
    ("limit", "short_seq_prob", "random_prob"),
    mostly_slow_rows([(21, 0.1, 0.5), (21, 1.0, 0.3), (6, 0.0, 0.9)], (21, 0.1, 0.5)),
)
def test_nsp_has_the_reference_distribution(limit: int, short_seq_prob: float, random_prob: float):
    documents = reference.numbered(CORPUS)
    group, settings_ = reference.make_group(documents), reference.pair_config(limit, short_seq_prob)
    compare(
        [
            lambda rng: rows(next_sentence_pairs(group, settings_, rng, random_prob)),
            lambda rng: plain(reference.next_sentence(documents, limit, short_seq_prob, rng, random_prob)),
        ],
        group,
    )


@pytest.mark.parametrize(("limit", "short_seq_prob"), mostly_slow_rows([(21, 0.2), (8, 1.0)], (21, 0.2)))
def test_sop_has_the_reference_distribution(limit: int, short_seq_prob: float):
    documents = reference.numbered(CORPUS)
    group, settings_ = reference.make_group(documents), reference.pair_config(limit, short_seq_prob)
    compare(
        [
            lambda rng: rows(sop(group, settings_, lambda: rng)),
            lambda rng: plain(reference.sentence_order(documents, limit, short_seq_prob, rng)),
        ],
        group,
    )


def test_single_has_the_reference_distribution():
    documents = reference.numbered(CORPUS)
    group = reference.make_group(documents)
    compare(
        [
            lambda rng: [
                (a, b, 0, 0, label)
                for a, b, _, _, label in rows(single(group, reference.pair_config(21, 0.5, "single"), lambda: rng))
            ],
            lambda rng: plain(reference.single_runs(documents, 21, 0.5, rng)),
        ],
        group,
    )


def test_tokens_leave_front_and_back_at_even_odds():
    """Documents of one sentence: 20 tokens lose 15 as A and 16 as B; the share from the front is binomial."""
    group = reference.make_group(reference.numbered([[20]] * 3000), np.uint32)
    pairs = nsp(group, reference.pair_config(9, FULL), stream(5))
    for start, lost in ((pairs.a_start % 20, 15), (pairs.b_start % 20, 16)):
        shares = [1.0]
        for _ in range(lost):
            shares = [(left + right) / 2 for left, right in zip([*shares, 0], [0, *shares], strict=True)]
        counts = np.bincount(start, minlength=lost + 1)
        assert reference.fits(counts[4:-4], shares[4:-4]) < Z
        assert abs(start.mean() - lost / 2) < Z * (lost / 4 / len(pairs)) ** 0.5


def test_a_random_b_is_uniform_over_other_documents_and_their_sentences():
    """Nothing is truncated here, so B starts where its first sentence does."""
    sizes = [1, 2, 3, 4, 1]
    group, counts = reference.make_group(reference.numbered([[5] * size for size in sizes])), np.zeros((5, sum(sizes)))
    owner = np.repeat(np.arange(5), sizes)
    for seed in range(3000):
        pairs = next_sentence_pairs(group, reference.pair_config(200, FULL), np.random.default_rng(seed), 1.0)
        first = np.unique(document_of(group, pairs.a_start), return_index=True)[1]
        counts[np.arange(5), pairs.b_start[first] // 5] += 1
    for document in range(5):
        others = owner != document
        assert counts[document, ~others].sum() == 0
        assert reference.fits(counts[document, others], 1 / np.array(sizes)[owner[others]]) < Z


@EXTRA
@given(SHAPES, st.integers(5, 40), st.sampled_from([0, 0.3, 1]), st.sampled_from([0, 0.3, 1]), st.integers(0, 2**32))
def test_nsp_invariants(shape, limit, short_seq_prob, random_prob, seed):
    group = reference.make_group(reference.numbered(shape))
    pairs = next_sentence_pairs(group, reference.pair_config(limit, short_seq_prob), np.random.default_rng(seed), random_prob)
    a_document, b_document = document_of(group, pairs.a_start), document_of(group, pairs.b_start)
    assert (document_of(group, pairs.a_end - 1) == a_document).all() and (
        document_of(group, pairs.b_end - 1) == b_document
    ).all()
    assert ((a_document != b_document) == (pairs.labels == 1)).all()
    assert (pairs.b_start >= pairs.a_end)[pairs.labels == 0].all()
    assert (pairs.a_end > pairs.a_start).all() and (pairs.b_end > pairs.b_start).all()
    assert (pairs.a_end - pairs.a_start + pairs.b_end - pairs.b_start <= limit).all()
    assert (np.diff(pairs.a_start) > 0).all()  # documents in order, chunks in order
    assert pairs.forced <= pairs.labels.sum() and (pairs.dropped == 0 or len(shape) == 1)
    if random_prob == 0:
        assert pairs.labels.sum() == pairs.forced
    if random_prob == 1 and len(shape) > 1:
        assert pairs.labels.all()


@EXTRA
@given(st.lists(st.integers(1, 30), min_size=2, max_size=6), st.integers(5, 20), st.floats(0, 1), st.integers(0, 2**32))
def test_nsp_uses_every_sentence_once_in_a_or_in_a_real_b(sentences, limit, random_prob, seed):
    """Sentences of one token are never truncated, so A and the real B together are the corpus."""
    group = reference.make_group(reference.numbered([[1] * count for count in sentences]))
    pairs = next_sentence_pairs(group, reference.pair_config(limit, 0.5), np.random.default_rng(seed), random_prob)
    used = [(a, b) for a, b, *_ in rows(pairs)] + [(a, b) for _, _, a, b, label in rows(pairs) if not label]
    assert sorted(token for low, high in used for token in range(low, high)) == list(range(sum(sentences)))


@EXTRA
@given(SHAPES, st.integers(5, 40), st.sampled_from([0, 0.3, 1]), st.integers(0, 2**32))
def test_sop_invariants(shape, limit, short_seq_prob, seed):
    group = reference.make_group(reference.numbered(shape))
    pairs = sop(group, reference.pair_config(limit, short_seq_prob), stream(seed))
    taken = 0
    for a_start, a_end, b_start, b_end, label in rows(pairs):
        (first, second), size = sorted([(a_start, a_end), (b_start, b_end)]), a_end - a_start + b_end - b_start
        assert label == (a_start > b_start)
        assert first[1] == second[0] if size < limit else size == limit and first[1] <= second[0]
        assert np.unique(document_of(group, np.array([first[0], first[1] - 1, second[0], second[1] - 1]))).size == 1
        assert first[0] >= taken and min(a_end - a_start, b_end - b_start) > 0
        taken = second[1]
    assert pairs.dropped >= sum(len(document) == 1 for document in shape)
    assert len(pairs) >= sum(len(document) > 1 for document in shape)


@EXTRA
@given(SHAPES, st.integers(5, 40), st.sampled_from([0, 0.3, 1]), st.integers(0, 2**32))
def test_single_loses_no_token(shape, limit, short_seq_prob, seed):
    documents = reference.numbered(shape)
    group = reference.make_group(documents)
    pairs = single(group, reference.pair_config(limit, short_seq_prob, "single"), stream(seed))
    assert [token for low, high, *_ in rows(pairs) for token in range(low, high)] == list(range(len(group.tokens)))
    assert (pairs.a_end - pairs.a_start <= limit).all() and (pairs.b_start == pairs.b_end).all() and not pairs.labels.any()
    assert (document_of(group, pairs.a_start) == document_of(group, pairs.a_end - 1)).all()
    if short_seq_prob == 0:
        expected = reference.single_runs(documents, limit, 0, np.random.default_rng(0))
        assert [row[:2] for row in rows(pairs)] == [(run.a[0], run.a[-1] + 1) for run in expected]
