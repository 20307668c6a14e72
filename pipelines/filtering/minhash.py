"""Near-duplicates: MinHash signatures of documents, LSH bands to find candidates, links, and clusters.

The similarity of two documents is the Jaccard index of their sets of word 5-grams. It is estimated by the share of
permutations for which both sets have the same smallest hash (Broder 1997). Signatures are cut into bands. Documents with an
identical band are candidates (Indyk and Motwani 1998). They are linked if a sketch of their signatures, four bits per hash
(b-bit minwise hashing, Li and König 2010, arXiv:0910.3349), is similar enough. Clusters are connected components of links.

Shapes: D documents, B bands, P permutations.
"""

from functools import cache

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from clozemill.pipelines.common.hashing import HASH_BYTES, mix
from clozemill.pipelines.filtering.word_ngrams import Words

NGRAM, PERMUTATIONS = 5, 128
SKETCH_BYTES = PERMUTATIONS // 2
_RECALL = 0.98  # probability that the bands find a pair exactly at the threshold
_BLOCK = 2048  # n-grams hashed at a time, so that the block fits into the CPU cache
_LEADERS = 64  # maximum number of documents per bucket that the others are compared with
ITEM = np.dtype([("band", "S16"), ("key", "S16"), ("sketch", "u1", SKETCH_BYTES), ("words", "<u4")])


def bands(threshold: float) -> tuple[int, int]:
    """Return (number of bands, hashes per band): the longest bands that still find pairs at the threshold."""
    for rows in range(PERMUTATIONS, 1, -1):
        count = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** count >= _RECALL:
            return count, rows
    return PERMUTATIONS, 1


@cache
def _permutations() -> tuple[np.ndarray, np.ndarray]:
    """Return odd multipliers and offsets, uint32 [P, 1]: constants of the format."""
    draws = np.random.Generator(np.random.Philox(np.random.SeedSequence(0x4D696E48))).integers(0, 2**32, (2, PERMUTATIONS, 1))
    return (draws[0] | 1).astype(np.uint32), draws[1].astype(np.uint32)


def shingles(words: np.ndarray, words_in: Words) -> np.ndarray:
    """Return uint64 [n]: a document's 5-grams without unknown words. words: uint64 [words], from `words_in`.

    A document of fewer than five words counts as one n-gram.
    """
    return words_in.ngrams(words, min(NGRAM, len(words))) if len(words) else words


def signature(grams: np.ndarray) -> np.ndarray:
    """Return uint32 [P]: the smallest n-gram hash under each permutation. grams: uint64 [n], not empty."""
    grams = (grams >> np.uint64(32)).astype(np.uint32)
    multiply, add = _permutations()
    smallest = np.full(PERMUTATIONS, 0xFFFFFFFF, np.uint32)
    for low in range(0, len(grams), _BLOCK):
        np.minimum(smallest, (grams[low : low + _BLOCK] * multiply + add).min(axis=1), out=smallest)
    return smallest


def sketches(signatures: np.ndarray) -> np.ndarray:
    """Return uint8 [D, P / 2]: four bits of each hash of signatures uint32 [D, P]."""
    bits = (mix(signatures.astype(np.uint64)) & np.uint64(15)).astype(np.uint8)
    return bits[:, ::2] << 4 | bits[:, 1::2]


def similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Estimate Jaccard indices, float [D], from sketches uint8 [D, P / 2], corrected for chance agreement."""
    differ = one ^ other
    equal = (differ & 0xF0 == 0).sum(axis=1) + (differ & 0x0F == 0).sum(axis=1)
    return (equal / PERMUTATIONS - 1 / 16) / (1 - 1 / 16)


def bucket_items(keys: list[bytes], signatures: np.ndarray, words: np.ndarray, threshold: float) -> np.ndarray:
    """Return ITEM [D, B]: a row per document and band. signatures: uint32 [D, P]; words: number of words per document, [D]."""
    count, rows = bands(threshold)
    found = np.zeros((len(keys), count), ITEM)
    parts = signatures[:, : count * rows].astype(np.uint64).reshape(len(keys), count, rows)
    name = np.arange(count, dtype=np.uint64)
    halves = []
    for half in range(2):
        total = mix(name + np.uint64(1 + half * PERMUTATIONS))[None]
        for row in range(rows):
            total = mix(total + parts[:, :, row])
        halves.append(total)
    found["band"] = np.stack(halves, axis=-1).astype(">u8").view("S16")[..., 0]
    found["key"] = np.frombuffer(b"".join(keys), f"S{HASH_BYTES}")[:, None]
    found["sketch"] = sketches(signatures)[:, None]
    found["words"] = words[:, None]
    return found


def link_similar(found: np.ndarray, threshold: float) -> np.ndarray:
    """Return pairs of similar documents in ITEM [n], in any order: ITEM [m, 2], the leader first.

    In each bucket all documents are compared with the one with the smallest key. Those that aren't similar to it are compared
    with the next one among themselves, and so on.
    """
    rest = found[np.lexsort((found["key"], found["band"]))]
    pairs = []
    for _ in range(_LEADERS):
        begins = np.ones(len(rest), bool)
        begins[1:] = rest["band"][1:] != rest["band"][:-1]
        first = np.flatnonzero(begins)
        leader = rest[np.repeat(first, np.diff(np.append(first, len(rest))))]
        alike = (similarity(rest["sketch"], leader["sketch"]) >= threshold) & ~begins
        other = alike & (rest["key"] != leader["key"])  # an exact duplicate has the same key, and needs no link
        pairs.append(np.stack([leader[other], rest[other]], axis=1))
        rest = rest[~alike & ~begins]
        if not len(rest):
            break
    return np.concatenate(pairs)


def connected_clusters(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (sorted keys of all linked documents, S16 [n]; the key of each one's survivor, S16 [n]), from ITEM [m, 2].

    The survivor of a cluster is its longest document in words; for ties, the one with the smallest key.
    """
    flat = pairs.reshape(-1)
    keys, first, index = np.unique(flat["key"], return_index=True, return_inverse=True)
    words = flat["words"][first].astype(np.int64)
    graph = coo_array((np.ones(len(pairs), bool), (index.reshape(-1, 2).T)), shape=(len(keys), len(keys)))
    _, label = connected_components(graph, directed=False)
    order = np.lexsort((np.arange(len(keys)), -words, label))
    begins = np.ones(len(keys), bool)
    begins[1:] = label[order][1:] != label[order][:-1]
    best = np.zeros(label.max(initial=-1) + 1, np.int64)
    best[label[order[begins]]] = order[begins]
    return keys, keys[best[label]]
