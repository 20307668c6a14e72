"""Masks: exact cases, the position-by-position reference, and what must hold for any example."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.examples.assemble import word_starts
from clozemill.pipelines.examples.masking import MASKERS, Chosen, _span_lengths, quota, replace
from tests import reference
from tests.slow import mostly_slow

Z = 4.5
VOCABULARY = reference.make_vocabulary()
UNK, CLS, SEP, MASK, WORD, PIECE = 2, 3, 4, 5, 6, 18  # WORD … WORD + 11 are words, PIECE … PIECE + 5 continuations
# Words of 1, 2, 3 and 1 pieces, an unknown word; in B a leading continuation, words of 2, 1 and 1; then padding.
EXAMPLE = [CLS, 6, 7, 18, 8, 19, 20, UNK, 9, SEP, 18, 10, 21, 11, 12, SEP, 0, 0]
WORDS = [[1], [2, 3], [4, 5, 6], [8], [10], [11, 12], [13], [14]]


def masks(masked_lm_prob: float, max_predictions: int) -> ExampleConfig:
    return ExampleConfig(masked_lm_prob=masked_lm_prob, max_predictions=max_predictions)


def choose(masker: str, ids: np.ndarray, wanted: int | np.ndarray, most: int, seed: int) -> Chosen:
    wanted = np.broadcast_to(np.asarray(wanted), len(ids))
    candidates, starts = ~VOCABULARY.is_special[ids], word_starts(ids, VOCABULARY)
    return MASKERS[masker].choose(candidates, starts, wanted, masks(0.15, most), np.random.default_rng(seed))


def units(chosen: Chosen) -> list[tuple[tuple[int, ...], ...]]:
    """Per example its positions, those that share a unit together."""
    out = []
    for positions, count, unit in zip(chosen.positions.tolist(), chosen.count.tolist(), chosen.unit.tolist(), strict=True):
        shared: dict[int, list[int]] = {}
        for position, number in zip(positions[:count], unit[:count], strict=True):
            shared.setdefault(number, []).append(position)
        out.append(tuple(sorted(tuple(positions) for positions in shared.values())))
    return out


def test_quota_literally():
    """30 * 0.15 = 4.5 and 50 * 0.15 = 7.5: halves go to the even neighbour, as Python's round does."""
    lengths = np.array([3, 5, 10, 11, 17, 30, 50, 70, 90, 128, 134, 512])
    assert quota(lengths, masks(0.15, 20)).tolist() == [
        1,
        1,
        2,
        2,
        3,
        4,
        8,
        10,
        14,
        19,
        20,
        20,
    ]
    assert quota(np.array([5, 15, 25]), masks(0.1, 20)).tolist() == [1, 2, 2]
    assert quota(np.array([5, 128]), masks(0.0001, 20)).tolist() == [1, 1]
    assert quota(np.array([5, 128]), masks(1.0, 20)).tolist() == [5, 20]
    assert quota(np.array([128]), masks(0.15, 1)).tolist() == [1]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.15, 0.25, 0.4, 0.5, 1.0])
def test_quota_equals_pythons_rounding(share: float):
    expected = [min(77, max(1, round(length * share))) for length in range(5, 1025)]
    assert quota(np.arange(5, 1025), masks(share, 77)).tolist() == expected


def test_words_of_the_example():
    ids = np.array([EXAMPLE])
    assert reference.words(EXAMPLE, VOCABULARY) == WORDS
    starts = np.flatnonzero(word_starts(ids, VOCABULARY)[0] & ~VOCABULARY.is_special[ids[0]])
    assert starts.tolist() == [word[0] for word in WORDS]


@pytest.mark.parametrize("masker", MASKERS)
def test_everything_is_masked_when_the_quota_allows_it(masker: str):
    chosen = choose(masker, np.array([EXAMPLE] * 3), 15, 15, 0)
    everything = [position for word in WORDS for position in word]
    assert chosen.count.tolist() == [12] * 3
    assert chosen.positions.tolist() == [everything + [0] * 3] * 3
    assert (chosen.positions.dtype, chosen.unit.dtype) == (np.int32, np.int32)


@pytest.mark.parametrize("masker", MASKERS)
def test_an_example_without_candidates_has_no_mask(masker: str):
    chosen = choose(masker, np.array([[CLS, UNK, SEP, UNK, SEP, 0], [CLS, 6, SEP, UNK, SEP, 0]]), 2, 2, 0)
    assert chosen.count.tolist() == [0, 1]
    assert chosen.positions.tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize("masker", MASKERS)
def test_no_examples(masker: str):
    chosen = choose(masker, np.zeros((0, 8), np.int64), 2, 2, 0)
    assert (chosen.positions.shape, chosen.count.shape) == ((0, 2), (0,))


@pytest.mark.parametrize("masker", ["whole_word", "span"])
def test_a_word_over_the_quota_is_masked_when_nothing_else_fits(masker: str):
    """Words of 3 and 4 pieces: the quota of 1 fits neither; the shortest goes if max_predictions allows it."""
    ids = np.array([[CLS, 6, 18, 19, 20, SEP, 7, 18, 19, SEP]] * 20)
    if masker == "whole_word":
        assert set(units(choose(masker, ids, 1, 4, 0))) == {((6,), (7,), (8,))}
    else:
        assert set(units(choose(masker, ids, 1, 4, 0))) == {((6, 7, 8),), ((1, 2, 3, 4),)}
    assert choose(masker, ids, 1, 2, 0).count.tolist() == [0] * 20


@pytest.mark.parametrize("masker", MASKERS)
@pytest.mark.parametrize("wanted", mostly_slow((1, 2, 4, 7), 2, 7))
def test_same_joint_distribution_as_the_reference(masker: str, wanted: int):
    """What is masked together, and in which units, over 6,000 examples."""
    ours = units(choose(masker, np.array([EXAMPLE] * 6000), wanted, 8, 1))
    rng = np.random.default_rng(2)
    theirs = [tuple(sorted(map(tuple, reference.MASKS[masker](WORDS, wanted, 8, rng)))) for _ in range(6000)]
    assert reference.same_distribution(ours, theirs) < Z


def test_subword_positions_are_uniform():
    """Drawn without replacement, so the statistic is scaled by (K - 1) / (K - quota). Both ends of A and B count alike."""
    ids = np.array([[CLS] + [7] * 20 + [SEP] + [8] * 19 + [SEP] + [0] * 6] * 20000)
    chosen = choose("subword", ids, 5, 8, 3)
    counts = np.bincount(chosen.positions[:, :5].ravel(), minlength=48)
    candidates = np.flatnonzero(~VOCABULARY.is_special[ids[0]])
    assert counts.sum() == counts[candidates].sum() == 100000
    expected = 100000 / 39
    statistic = ((counts[candidates] - expected) ** 2 / expected).sum() * 38 / (39 - 5)
    assert -Z < reference.normal(statistic, 38) < Z


@pytest.mark.parametrize("masker", ["subword", "whole_word"])  # the positions of spans come in clusters
@pytest.mark.parametrize("length", [33, 512, 513, 514, 515, 1025])
def test_words_of_one_piece_are_chosen_uniformly_at_any_length(masker: str, length: int):
    """Around the lengths where the width of the random keys changes. The first and the last word are masked too."""
    ids = np.full((40_000 // length, length), 7)
    ids[:, 0], ids[:, -1] = CLS, SEP
    chosen = choose(masker, ids, length // 2, length // 2, 7)
    assert (chosen.count == length // 2).all() and (np.diff(chosen.positions, axis=1) > 0).all()
    counts = np.bincount(chosen.positions.ravel(), minlength=length)
    assert counts[0] == counts[-1] == 0
    expected = len(ids) * (length // 2) / (length - 2)
    statistic = ((counts[1:-1] - expected) ** 2 / expected).sum() * (length - 3) / (length - 2 - length // 2)
    assert -Z < reference.normal(statistic, length - 3) < Z
    assert min(counts[1], counts[-2]) > expected / 3


def test_span_lengths_are_geometric():
    """p = 0.2 renormalised to 1…10 words: mean 3.797."""
    lengths = _span_lengths(np.random.default_rng(4), 200_000)
    shares = [0.2 * 0.8**more for more in range(10)]
    assert lengths.min() == 1 and lengths.max() == 10
    assert reference.fits(np.bincount(lengths, minlength=11)[1:], shares) < Z
    assert abs(lengths.mean() - 3.797) < 0.03


def test_the_first_span_of_a_long_example_is_geometric_and_starts_anywhere():
    """Where neither the quota nor the segment's end cuts it."""
    ids = np.array([[CLS] + [7] * 60 + [SEP]] * 20000)
    chosen = choose("span", ids, 10, 10, 5)
    first = (chosen.unit == 0) & (np.arange(10) < chosen.count[:, None])
    size, start = first.sum(axis=1), np.where(first, chosen.positions, 99).min(axis=1)
    assert chosen.count.tolist() == [10] * 20000
    inner = start <= 50
    assert reference.fits(np.bincount(size[inner], minlength=11)[1:], [0.2 * 0.8**more for more in range(10)]) < Z
    assert reference.fits(np.bincount(start, minlength=61)[1:], [1] * 60) < Z


def test_replace_applies_80_10_10_and_draws_words_uniformly():
    """200,000 positions of their own unit: shares within 4.5 sigma, random tokens uniform over the 18 that are not special."""
    ids = np.array([EXAMPLE] * 40000, np.int32)
    chosen = choose("subword", ids, 5, 6, 6)
    rngs = [np.random.default_rng(seed) for seed in (7, 8)]
    replaced, originals = replace(ids, chosen, MASK, VOCABULARY.random_ids, *rngs)
    spot = np.arange(40000)[:, None], chosen.positions[:, :5]
    now, before = replaced[spot].ravel(), ids[spot].ravel()
    assert (originals[:, :5].ravel() == before).all() and (originals[:, 5] == 0).all()
    untouched = np.ones(ids.shape, bool)
    untouched[spot] = False
    assert (replaced == ids)[untouched].all()
    drawn = now[(now != MASK) & (now != before)]
    # A random token is the old one in 1 of 18 draws.
    assert reference.fits([(now == MASK).sum(), len(drawn), (now == before).sum()], [0.8, 0.1 * 17 / 18, 0.1 + 0.1 / 18]) < Z
    assert VOCABULARY.random_ids.tolist() == list(range(6, 24))
    assert drawn.min() == 6 and drawn.max() == 23
    expected = sum((np.arange(6, 24) != old) * (before == old).mean() for old in range(6, 24))
    assert reference.fits(np.bincount(drawn, minlength=24)[6:], expected) < Z
    # Positions of one example are replaced independently of each other.
    as_mask = (now == MASK).reshape(-1, 5).sum(axis=1)
    assert reference.fits(np.bincount(as_mask)[1:], [comb(5, n) * 0.8**n * 0.2 ** (5 - n) for n in range(1, 6)]) < Z


def test_replace_has_the_reference_distribution():
    """Two positions of one unit and one of another: what stands there afterwards, together."""
    ids = [CLS, 6, 7, SEP, 8, SEP]
    chosen = Chosen(np.array([[1, 2, 4]] * 30000, np.int32), np.full(30000, 3), np.array([[1, 1, 0]] * 30000, np.int32))
    rngs = [np.random.default_rng(seed) for seed in (1, 2)]
    replaced, _ = replace(np.array([ids] * 30000, np.int32), chosen, MASK, VOCABULARY.random_ids, *rngs)
    rng = np.random.default_rng(3)
    theirs = [reference.replace(ids, [[1, 2], [4]], VOCABULARY, rng) for _ in range(30000)]
    assert reference.same_distribution([tuple(row) for row in replaced.tolist()], [tuple(row) for row in theirs]) < Z


def test_positions_of_a_unit_share_the_action():
    """Masked together or not at all; random tokens are drawn for each position by itself."""
    ids = np.array([[CLS, *range(6, 18), SEP]] * 20000, np.int32)
    chosen = choose("span", ids, 8, 8, 9)
    replaced, _ = replace(ids, chosen, MASK, VOCABULARY.random_ids, np.random.default_rng(1), np.random.default_rng(2))
    now = np.take_along_axis(replaced, chosen.positions, axis=1)
    before = np.take_along_axis(ids, chosen.positions, axis=1)
    together = np.arange(8) < chosen.count[:, None]
    together[:, 1:] &= together[:, :-1] & (chosen.unit[:, 1:] == chosen.unit[:, :-1])
    together[:, 0] = False
    left, right = np.roll(now, 1, axis=1)[together], now[together]
    assert ((left == MASK) == (right == MASK)).all()
    both = (left != MASK) & (left != np.roll(before, 1, axis=1)[together]) & (right != before[together])
    assert 0.03 < (left == right)[both].mean() < 0.09


TOKENS = st.lists(st.integers(6, 23), min_size=1, max_size=20)


@st.composite
def examples(draw: st.DrawFn) -> np.ndarray:
    """Some examples of one or two segments with unknown words among the tokens, padded to one length."""
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        sides = [draw(TOKENS) for _ in range(draw(st.integers(1, 2)))]
        sides = [[UNK if draw(st.integers(0, 15)) == 0 else token for token in side] for side in sides]
        rows.append([CLS, *sides[0], SEP] + ([*sides[1], SEP] if len(sides) == 2 else []))
    return np.array([row + [0] * (44 - len(row)) for row in rows], np.int32)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    examples(), st.sampled_from(sorted(MASKERS)), st.integers(1, 30), st.sampled_from([0.15, 0.4, 1.0]), st.integers(0, 2**32)
)
def test_invariants(ids, masker, most, share, seed):
    wanted = quota((ids != 0).sum(axis=1), masks(share, most))
    chosen = choose(masker, ids, wanted, most, seed)
    assert chosen.positions.shape == chosen.unit.shape == (len(ids), most)
    for row, (positions, count) in enumerate(zip(chosen.positions, chosen.count, strict=True)):
        used, words = positions[:count].tolist(), reference.words(ids[row], VOCABULARY)
        candidates, masked = [position for word in words for position in word], set(positions[:count].tolist())
        assert used == sorted(masked) and masked <= set(candidates) and not positions[count:].any()
        if masker == "subword":
            assert count == min(wanted[row], len(candidates))
            continue
        assert all(masked >= set(word) for word in words if masked & set(word))
        room = wanted[row] - count
        assert room >= 0 or (count <= most and all(len(word) > wanted[row] for word in words))
        if masker == "whole_word":
            assert all(set(word) <= masked or len(word) > room for word in words) or room <= 0
        else:
            assert room <= 0 or not any(set(word).isdisjoint(masked) and len(word) <= room for word in words)
            for unit in units(chosen)[row]:
                assert list(unit) == list(range(unit[0], unit[-1] + 1))  # adjacent, so within a segment
                assert sum(set(word) <= set(unit) for word in words) <= 10
        assert count or not any(len(word) <= most for word in words)


@pytest.mark.parametrize("masker", MASKERS)
def test_the_same_stream_gives_the_same_masks(masker: str):
    ids = np.array([EXAMPLE] * 50)
    assert units(choose(masker, ids, 3, 5, 1)) == units(choose(masker, ids, 3, 5, 1)) != units(choose(masker, ids, 3, 5, 2))
