"""Near-duplicates in a corpus with planted ones: recall, precision and cost per megabyte, compared with datasketch.

    python -m tests.benchmarks.near_duplicates --corpus novels.jsonl.gz

Documents are cut into pieces of about 600 words, so that there are thousands. For one in five, a copy is planted in which 1, 5
or 20 % of the words are replaced by other words of the corpus. The truth is the exact Jaccard index of word 5-grams. Both sides
get the same words, the same number of permutations and the same threshold.
"""

import argparse
import gzip
import json
import time
from collections.abc import Callable, Iterator
from itertools import combinations

import datasketch
import numpy as np

from clozemill.pipelines.common.hashing import mix
from clozemill.pipelines.filtering import minhash
from clozemill.pipelines.filtering.word_ngrams import ngrams

PIECE = 600  # words
SHARES = (0.01, 0.05, 0.2)


def corpus(path: str, most: int) -> tuple[list[list[str]], int]:
    """(pieces as lists of words in small letters, bytes of their text)."""
    pieces, size = [], 0
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            words = json.loads(line)["text"].lower().split()
            for low in range(0, len(words) - PIECE, PIECE):
                pieces.append(words[low : low + PIECE])
                size += sum(map(len, pieces[-1])) + PIECE
                if len(pieces) == most:
                    return pieces, size
    return pieces, size


def plant(pieces: list[list[str]], seed: int = 7) -> tuple[list[list[str]], dict[int, tuple[int, float]]]:
    """(pieces and planted copies, copy -> (its original, share of words changed))."""
    rng, found, planted = np.random.default_rng(seed), list(pieces), {}
    for number, at in enumerate(rng.permutation(len(pieces))[: len(pieces) // 5].tolist()):
        copy, share = list(pieces[at]), SHARES[number % len(SHARES)]
        for place in rng.permutation(len(copy))[: round(share * len(copy))].tolist():
            other = pieces[int(rng.integers(len(pieces)))]
            copy[place] = other[int(rng.integers(len(other)))]
        planted[len(found)] = (at, share)
        found.append(copy)
    return found, planted


def grams(documents: list[list[str]]) -> list[np.ndarray]:
    """Word hashes of each document, uint64 [words], by a numbering of the distinct words."""
    numbers: dict[str, int] = {}
    return [mix(np.array([numbers.setdefault(word, len(numbers)) for word in words], np.uint64)) for words in documents]


def ours(hashes: list[np.ndarray], threshold: float) -> set[tuple[int, int]]:
    keys = [number.to_bytes(16, "big") for number in range(len(hashes))]
    signatures = np.stack([minhash.signature(ngrams(words, min(minhash.NGRAM, len(words)))) for words in hashes])
    found = minhash.bucket_items(keys, signatures, np.array([len(words) for words in hashes]), threshold).ravel()
    names, survivors = minhash.connected_clusters(minhash.link_similar(found, threshold))
    return pairs_of(zip(_numbers(names), _numbers(survivors), strict=True))


def _numbers(keys: np.ndarray) -> Iterator[int]:
    return (int.from_bytes(key.ljust(16, b"\0"), "big") for key in keys.tolist())


def peer(hashes: list[np.ndarray], threshold: float) -> set[tuple[int, int]]:
    """datasketch: its MinHash in batches, its LSH, and the estimates of the pairs that it brings."""
    index = datasketch.MinHashLSH(threshold=threshold, num_perm=minhash.PERMUTATIONS)
    sketches, found = [], set()
    for number, words in enumerate(hashes):
        sketch = datasketch.MinHash(num_perm=minhash.PERMUTATIONS)
        sketch.update_batch([int(gram).to_bytes(8, "little") for gram in ngrams(words, minhash.NGRAM)])
        found |= {(other, number) for other in index.query(sketch) if sketches[other].jaccard(sketch) >= threshold}
        index.insert(number, sketch)
        sketches.append(sketch)
    return found


def pairs_of(clusters: object) -> set[tuple[int, int]]:
    """All pairs within clusters, given as (document, survivor)."""
    members: dict[int, list[int]] = {}
    for document, survivor in clusters:
        members.setdefault(survivor, []).append(document)
    return {pair for group in members.values() for pair in combinations(sorted(group), 2)}


def truth(hashes: list[np.ndarray], candidates: set[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """The exact Jaccard index of pairs."""
    sets = [np.unique(ngrams(words, minhash.NGRAM)) for words in hashes]
    shared = {pair: len(np.intersect1d(sets[pair[0]], sets[pair[1]], assume_unique=True)) for pair in candidates}
    return {(a, b): both / (len(sets[a]) + len(sets[b]) - both) for (a, b), both in shared.items()}


def timed(run: Callable, *arguments: object) -> tuple[set[tuple[int, int]], float]:
    begin = time.process_time()
    return run(*arguments), time.process_time() - begin


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, help="a .jsonl.gz file with a field text")
    parser.add_argument("--documents", type=int, default=6000, help="pieces taken at most")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.8, 0.5])
    options = parser.parse_args()
    pieces, size = corpus(options.corpus, options.documents)
    documents, planted = plant(pieces)
    hashes = grams(documents)
    print(f"{len(pieces):,} pieces of {PIECE} words, {size / 1e6:.1f} MB, {len(planted):,} planted copies")
    for threshold in options.thresholds:
        results = {"clozemill": timed(ours, hashes, threshold), "datasketch": timed(peer, hashes, threshold)}
        told = truth(
            hashes,
            {pair for found, _ in results.values() for pair in found} | {(at, copy) for copy, (at, _) in planted.items()},
        )
        real = {pair for pair, index in told.items() if index >= threshold}
        print(f"\nthreshold {threshold:g}: {len(real):,} pairs with an exact Jaccard index of at least that")
        print(
            f"{'':12}{'recall':>9}{'precision':>11}"
            + "".join(f"{share:>9.0%} chg" for share in SHARES)
            + f"{'CPU s/MB':>11}{'MB/s':>8}"
        )
        for name, (found, seconds) in results.items():
            recall = len(found & real) / max(len(real), 1)
            precision = len(found & real) / max(len(found), 1)
            row = f"{name:12}{recall:>9.3f}{precision:>11.3f}"
            for share in SHARES:
                wanted = [(at, copy) for copy, (at, changed) in planted.items() if changed == share]
                row += f"{sum(pair in found for pair in wanted) / len(wanted):>13.3f}"
            print(row + f"{seconds / size * 1e6:>11.3f}{size / 1e6 / seconds:>8.1f}")
        ratio = results["datasketch"][1] / results["clozemill"][1]
        print(f"{'ratio':12}{ratio:>9.1f} times datasketch's speed")


if __name__ == "__main__":
    main()
