"""MinHash, compared with exact Jaccard indices and datasketch; literal values and invariants of bands, links and clusters."""

import datasketch
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.common.hashing import mix
from clozemill.pipelines.filtering import minhash
from clozemill.pipelines.filtering.word_ngrams import ngrams


def words(rng: np.random.Generator, count: int) -> np.ndarray:
    return mix(rng.integers(0, 50_000, count).astype(np.uint64))


def changed(text: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A text with a share of its words replaced."""
    other = text.copy()
    at = rng.permutation(len(text))[: round(share * len(text))]
    other[at] = mix(rng.integers(10**6, 10**9, len(at)).astype(np.uint64))
    return other


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    a, b = (set(ngrams(text, minhash.NGRAM).tolist()) for text in (one, other))
    return len(a & b) / len(a | b)


def planted(count: int, share: float, seed: int, length: int = 400) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [(text, changed(text, share, rng)) for text in (words(rng, length) for _ in range(count))]


def signature(text: np.ndarray) -> np.ndarray:
    """Return the signature of all n-grams; `text` has no unknown word."""
    return minhash.signature(ngrams(text, min(minhash.NGRAM, len(text))))


def sketch_of(text: np.ndarray) -> np.ndarray:
    return minhash.sketches(signature(text)[None])


def test_bands_for_common_thresholds() -> None:
    assert minhash.bands(0.8) == (18, 7)
    assert minhash.bands(1.0) == (1, 128)
    assert minhash.bands(0.5) == (42, 3)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99])
def test_pairs_at_the_threshold_share_a_band(threshold: float) -> None:
    count, rows = minhash.bands(threshold)
    assert count * rows <= minhash.PERMUTATIONS and 1 - (1 - threshold**rows) ** count >= 0.98


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.2])
def test_estimates_are_close_to_the_exact_index(share: float) -> None:
    """Without bias, and with the spread of 128 draws: sd = sqrt(J (1 - J) / 128) and a little for four bits."""
    pairs = planted(60, share, seed=3)
    exact = np.array([jaccard(*pair) for pair in pairs])
    found = np.array([minhash.similarity(sketch_of(one), sketch_of(other))[0] for one, other in pairs])
    spread = np.sqrt((exact + 0.07) * (1 - exact) / minhash.PERMUTATIONS)
    assert (np.abs(found - exact) <= 5 * spread).all()
    assert abs((found - exact).mean()) <= 5 * spread.mean() / np.sqrt(len(pairs)) + 1e-12


def test_as_accurate_as_datasketch() -> None:
    pairs = planted(60, 0.05, seed=5)
    exact = np.array([jaccard(*pair) for pair in pairs])

    def peer(text: np.ndarray) -> datasketch.MinHash:
        found = datasketch.MinHash(num_perm=minhash.PERMUTATIONS)
        found.update_batch([int(gram).to_bytes(8, "little") for gram in ngrams(text, minhash.NGRAM)])
        return found

    theirs = np.array([peer(one).jaccard(peer(other)) for one, other in pairs]) - exact
    ours = np.array([minhash.similarity(sketch_of(one), sketch_of(other))[0] for one, other in pairs]) - exact
    assert ours.std() < 1.3 * theirs.std()


def test_a_signature_depends_only_on_the_set() -> None:
    """Repeats, order of n-grams and blocks don't matter; four words count as one n-gram."""
    rng = np.random.default_rng(1)
    text = words(rng, 5000)
    twice = np.concatenate([text, text])
    both = {*ngrams(text, 5).tolist()} | {*ngrams(twice, 5).tolist()}
    expected = minhash.similarity(sketch_of(text), sketch_of(twice))[0]
    assert len(both) - len(set(ngrams(text, 5).tolist())) <= 4 and expected > 0.98
    assert signature(text[:4]).tolist() == signature(text[:4].copy()).tolist()
    assert (signature(text[:4]) != signature(text[:3])).any()


def test_golden_signatures() -> None:
    """Golden values: clusters must not change between versions."""
    assert signature(mix(np.arange(20, dtype=np.uint64)))[:4].tolist() == [56022298, 73120763, 247588540, 298135222]


def items(texts: list[np.ndarray], threshold: float = 0.8) -> np.ndarray:
    keys = [number.to_bytes(16, "big") for number in range(len(texts))]
    signatures = np.stack([signature(text) for text in texts])
    return minhash.bucket_items(keys, signatures, np.array([len(text) for text in texts]), threshold).ravel()


def clustered(texts: list[np.ndarray], threshold: float = 0.8, groups: int = 1) -> dict[int, int]:
    """Return document -> survivor, as the stages compute it with bands distributed over groups."""
    found = items(texts, threshold)
    part = np.array([int.from_bytes(band.ljust(16, b"\0")[:8], "big") * groups >> 64 for band in found["band"].tolist()])
    pairs = np.concatenate([minhash.link_similar(found[part == group], threshold) for group in range(groups)])
    keys, survivors = minhash.connected_clusters(pairs)
    number = [int.from_bytes(key.ljust(16, b"\0"), "big") for key in [*keys.tolist(), *survivors.tolist()]]
    return dict(zip(number[: len(keys)], number[len(keys) :], strict=True))


def test_clusters_keep_the_longest_document_then_the_smallest_key() -> None:
    rng = np.random.default_rng(2)
    a, b, c = (words(rng, 600) for _ in range(3))
    longer = np.concatenate([b, words(rng, 20)])
    assert clustered([a, b, a, c, longer, a[:-1]]) == {0: 0, 2: 0, 5: 0, 1: 4, 4: 4}


def test_a_chain_is_one_cluster() -> None:
    """The first and the last have little in common; those in between connect them."""
    rng = np.random.default_rng(4)
    chain = [words(rng, 500)]
    for step in range(8):
        chain.append(chain[-1].copy())
        chain[-1][step * 20 : step * 20 + 20] = words(rng, 20)
    assert jaccard(chain[0], chain[-1]) < 0.6
    assert set(clustered(chain).values()) == {0} and len(clustered(chain)) == 9


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 1.0, 1.0), (0.01, 0.95, 1.0), (0.2, 0.0, 0.0)])
def test_recall_of_planted_documents(share: float, low: float, high: float) -> None:
    """At 0.8: changing one word in a hundred keeps nine 5-grams in ten; changing one in five keeps a fifth."""
    pairs = planted(60, share, seed=8)
    found = clustered([text for pair in pairs for text in pair])
    recall = sum(found.get(2 * at + 1) == 2 * at for at in range(60)) / 60
    assert low <= recall <= high
    assert all(survivor // 2 == document // 2 for document, survivor in found.items())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_clusters_depend_neither_on_order_nor_on_groups(seed: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    bases = [words(rng, int(rng.integers(1, 60))) for _ in range(5)]
    texts = [changed(bases[int(rng.integers(5))], float(rng.choice([0, 0.02, 0.1])), rng) for _ in range(20)]
    found = items(texts)
    shuffled = found[rng.permutation(len(found))]
    assert minhash.link_similar(found, 0.8).tobytes() == minhash.link_similar(shuffled, 0.8).tobytes()
    assert clustered(texts, groups=groups) == clustered(texts)


def test_bands_are_spread_evenly_over_the_groups() -> None:
    """By their first 64 bits, as in the stages: no group gets twice its share."""
    rng = np.random.default_rng(6)
    found = items([words(rng, 50) for _ in range(300)])
    groups = [int.from_bytes(band.ljust(16, b"\0")[:8], "big") * 16 >> 64 for band in found["band"].tolist()]
    counts = np.bincount(groups, minlength=16)
    assert len(counts) == 16 and (np.abs(counts - len(found) / 16) < 6 * np.sqrt(len(found) / 16)).all()
    assert len(set(found["band"].tolist())) == len(found)


def test_exact_duplicates_need_no_link() -> None:
    text = words(np.random.default_rng(7), 100)
    found = minhash.bucket_items([bytes(16), bytes(16)], np.stack([signature(text)] * 2), np.array([100, 100]), 0.8).ravel()
    assert len(minhash.link_similar(found, 0.8)) == 0


def test_nothing_to_link() -> None:
    assert minhash.link_similar(np.zeros(0, minhash.ITEM), 0.8).shape == (0, 2)
    keys, survivors = minhash.connected_clusters(np.zeros((0, 2), minhash.ITEM))
    assert len(keys) == len(survivors) == 0
