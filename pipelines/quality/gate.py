"""The statistical gate: checks that the statistics of a dataset are within limits derived from its counts.

Pure functions of dataset.json, statistics.json and the vocabulary. `prepare` runs them before it writes dataset.json, and
`verify` after reading the shards. Intervals are five standard deviations of random draws (intervals.bound).
"""

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from clozemill.pipelines.dataset.manifest import Manifest, exact_duplicates, is_packed
from clozemill.pipelines.examples import masking
from clozemill.pipelines.examples.packing import count_rows
from clozemill.pipelines.quality import intervals
from clozemill.pipelines.quality.checked_copy import EXACT, Check, CheckedCopy
from clozemill.pipelines.quality.statistics import buckets
from clozemill.pipelines.text.vocabulary import Vocabulary

_CELL = 25  # positions and buckets are merged until this many are expected, so that a normal approximation holds


def _masked_share(copy: CheckedCopy) -> Iterator[Check]:
    tokens, quota = copy.counts["tokens"], copy.statistics["masked_quota"]
    exact = copy.config.masking == "subword"
    why = f"masked_lm_prob requires {quota:,} positions" + ("" if exact else " at most, because words are masked completely")
    high = quota / tokens
    yield copy.check(
        "masked share", "of tokens are masked", why, copy.counts["masked"] / tokens, high if exact else 0, high, "%"
    )


def _actions(copy: CheckedCopy) -> Iterator[Check]:
    """Check 80/10/10. If positions of a span share a draw, the variance grows with the squared sizes of these runs."""
    if not (masked := copy.counts["masked"]):
        return
    drawn_alike = 1 / len(copy.vocabulary.random_ids)  # a random token may equal the original
    shares = {"mask": masking.MASK_SHARE, "random": masking.RANDOM_SHARE * (1 - drawn_alike)}
    shares["kept"] = 1 - sum(shares.values())
    shared = copy.statistics["masked_clusters"] if copy.config.masking == "span" else masked
    for name, share in shares.items():
        margin = intervals.bound(share * (1 - share) * shared) / masked
        found = copy.counts[f"masked_as_{name}"] / masked
        why = f"{100 * share:.2f} % is drawn, {masked:,} times"
        low, high = max(share - margin, 0), min(share + margin, 1)
        yield copy.check(f"masked as {name}", f"of masked positions are {name}", why, found, low, high, "%")


def _labels(copy: CheckedCopy) -> Iterator[Check]:
    """Check the share of labels 1: the forced ones, plus the drawn ones with the probability of each group."""
    count, shards = copy.counts["examples"], copy.shards
    expected = sum(shard["labels_forced"] + shard["labels_drawn"] * shard["random_prob"] for shard in shards)
    variance = sum(shard["labels_drawn"] * shard["random_prob"] * (1 - shard["random_prob"]) for shard in shards)
    margin, forced = intervals.bound(variance), sum(shard["labels_forced"] for shard in shards)
    low, high = max(0.0, (expected - margin) / count), min(1.0, (expected + margin) / count)
    why = f"{forced:,} are forced by chunks of one sentence, the others are drawn"
    found = copy.counts["labels_random"] / count
    yield copy.check("next-sentence balance", "of next_sentence_labels are 1", why, found, low, high, "%")


def deviate(statistic: float, freedom: int) -> float:
    """Return a chi-square statistic as a standard normal deviate (Wilson and Hilferty 1931); 0 without degrees of freedom."""
    if freedom < 1:
        return 0.0
    spread = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


def merged(least: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
    """Merge adjacent cells until the sum of `least` in each reaches _CELL; the rest joins the last cell."""
    cells, total = np.zeros(len(least), np.int64), 0.0
    for place, value in enumerate(least.tolist()):
        cells[place] = cells[place - 1] if place else 0
        if total >= _CELL:
            cells[place], total = cells[place] + 1, 0.0
        total += value
    if cells.any() and total < _CELL:
        cells[cells == cells[-1]] -= 1
    return [np.bincount(cells, column) for column in columns]


def _spread(copy: CheckedCopy, name: str, what: str, observed: Any, expected: Any, variance: Any, lost: int) -> Check:
    """Run a chi-square test of observed against expected counts; `lost`: degrees of freedom to subtract."""
    observed, expected, variance = (np.asarray(values, float) for values in (observed, expected, variance))
    cells = merged(variance, observed, expected, variance)
    there = cells[2] > EXACT
    statistic = float((((cells[0] - cells[1]) ** 2)[there] / cells[2][there]).sum())
    freedom = int(there.sum()) - lost
    why = f"a chi-square of {statistic:,.1f} over {max(freedom, 0):,} degrees of freedom, as a standard deviate"
    return copy.check(name, what, why, max(deviate(statistic, freedom), 0.0), 0, intervals.SIGMAS)


def _positions(copy: CheckedCopy) -> Iterator[Check]:
    name, statistics = "uniform positions", copy.statistics
    if copy.config.masking == "span":
        yield Check(
            name, copy.where, 0, 0, 0, True, f"{copy.where}: {name} is not applied, because positions of a span are correlated"
        )
        return
    words = "tokens" if copy.config.masking == "subword" else "words of one piece"
    what = f"is the deviation of masked positions from a uniform distribution over all {words} of an example"
    observed, expected = statistics["masked_positions"], statistics["masked_positions_expected"]
    yield _spread(copy, name, what, observed, expected, statistics["masked_positions_variance"], 0)


def _random_tokens(copy: CheckedCopy) -> Iterator[Check]:
    """Check random tokens. A drawn token that equals the original counts as kept, which lowers the count of frequent ones."""
    ids, replaced = copy.vocabulary.random_ids, np.array(copy.statistics["random_tokens"])
    masked = np.array(copy.statistics["masked_tokens"])
    if len(ids) < 2 or not replaced.sum():
        return
    members = buckets(ids, len(copy.vocabulary))
    expected = replaced.sum() * (members - masked / masked.sum()) / (len(ids) - 1)
    what = f"is the deviation of random tokens from a uniform distribution over {len(ids):,} tokens"
    yield _spread(copy, "uniform random tokens", what, replaced, expected, expected, 1)


def _used(statistics: dict[str, Any], kind: str) -> float:
    """Return the tokens that an example takes from its own document: A, and B unless it is random."""
    sides = [*statistics["a_lengths"], *(statistics["b_lengths"] if kind == "sop" else statistics["b_lengths"][:1])]
    return float(sum(np.dot(np.arange(len(side)), side) for side in sides))


def _pair_lengths(copy: CheckedCopy) -> Iterator[Check]:
    statistics, kind, count = copy.statistics, copy.config.pairs, copy.counts["examples"]
    a_lengths, b_lengths = (np.array(statistics[f"{side}_lengths"]) for side in "ab")
    place = np.arange(a_lengths.shape[1])
    empty = int(a_lengths[:, 0].sum() + (b_lengths[:, 0].sum() if kind != "single" else b_lengths[:, 1:].sum()))
    mismatched = int((a_lengths + b_lengths) @ place @ np.ones(2, np.int64)) + copy.config.special_tokens * count
    mismatched = abs(mismatched - copy.counts["tokens"])
    why = "A and B have at least one token each, and form the example with [CLS] and [SEP]"
    yield copy.check("pair lengths", "examples or tokens don't match A and B", why, empty + mismatched, 0, 0)
    tokens = copy.contract["documents"]["tokens"]
    why = f"A and a B that follows it are disjoint runs of the {tokens:,} tokens of all documents"
    yield copy.check("text used", "tokens are in A or in a B that follows it", why, _used(statistics, kind), 0, tokens)
    if kind == "sop" and min(a_lengths[0].sum(), a_lengths[1].sum()):
        yield _swapped(copy, a_lengths[0], b_lengths[1])


def _swapped(copy: CheckedCopy, kept: np.ndarray, swapped: np.ndarray) -> Check:
    """Check that the first run is as long in A as in B, because a fair coin swaps them; truncation may take one token more."""
    place = np.arange(len(kept))
    both = kept + swapped
    mean = both @ place / both.sum()
    variance = both @ (place - mean) ** 2 / both.sum()
    margin = intervals.SIGMAS * math.sqrt(variance * (1 / kept.sum() + 1 / swapped.sum())) + 1
    found = kept @ place / kept.sum() - swapped @ place / swapped.sum()
    why = "its side is drawn at random"
    return copy.check(
        "lengths of A and B", "is the difference of the first run's length in A and B", why, found, -margin, margin, " tokens"
    )


def _unknown(copy: CheckedCopy) -> Iterator[Check]:
    """Check that the share of [UNK] doesn't exceed the masked share (one draw per document).

    It needn't be that of the corpus: a random B comes from a document drawn uniformly, so that short documents, which may have
    another share, occur more often; and the few documents of an eval split may hold none of the long ones.
    """
    documents, masked = copy.documents, copy.config.masked_lm_prob
    share = copy.contract["documents"]["unknown_tokens"] / max(copy.contract["documents"]["tokens"], 1)
    margin = intervals.bound(documents * masked * (1 - masked)) / documents if 0 < masked < 1 else 0.0
    why = f"it must not exceed the masked share; the corpus has {100 * share:.2f} %, in {documents:,} documents"
    found = copy.counts["unknown"] / copy.counts["tokens"]
    what = "of tokens are [UNK] (another vocabulary?)"
    yield copy.check("[UNK] share", what, why, found, 0, min(1.0, masked + margin), "%")


def _padding(copy: CheckedCopy) -> Iterator[Check]:
    """Check that records are not emptier than they need to be."""
    high, why = _packed_limit(copy) if is_packed(copy.contract) else _unpacked_limit(copy)
    places = copy.counts["padding"] + copy.counts["tokens"]
    yield copy.check("padding", "of positions are padding", why, copy.counts["padding"] / places, 0, high, "%")


def _packed_limit(copy: CheckedCopy) -> tuple[float, str]:
    """Return the largest share of padding, and why: that of all examples packed together, and what separate shards may add.

    The number of a shard's examples in any range of lengths varies like a binomial count, with a variance of at most a quarter
    of its examples, and one example more or less changes at most one row.
    """
    size, count = copy.config.max_seq_length, copy.counts["examples"]
    together = count_rows(np.asarray(copy.statistics["lengths"], np.int64), size)
    more = sum(intervals.bound(shard["examples"] / 4) for shard in copy.shards if shard["examples"])
    rows = min(together + more, count)
    why = (
        f"{count:,} examples fit into {together:,} rows of {size} tokens, and into up to {rows:,.0f} when each shard is packed "
        "separately"
    )
    return max(0.0, 1 - copy.counts["tokens"] / (rows * size)), why


def _unpacked_limit(copy: CheckedCopy) -> tuple[float, str]:
    """Return the largest share of padding, and why: examples at least half as full as one of each document would be.

    A longer document has more examples, all of them full, so that a mean over documents is a lower limit. This is apart from
    short targets: a document with a target t instead of the limit gives limit / t as many examples, on average over t a
    harmonic sum.
    """
    config, documents = copy.config, copy.documents
    room, mean = config.max_text_tokens, _mean_filled(copy)
    shorter = float((room / np.arange(2, room + 1)).mean())
    chance = config.short_seq_prob
    filled = 0.5 * mean / (1 - chance + chance * shorter)
    share = 1 - (config.special_tokens + filled) / config.max_seq_length
    high = min(1.0, share + intervals.bound(documents * share * (1 - share)) / documents)
    return high, f"an example fits {room} tokens, documents fill {mean:,.0f} of them; examples must be half as full"


def _mean_filled(copy: CheckedCopy) -> float:
    """Return how many tokens of an example a document fills at least, on average over documents.

    Of documents of 32 to 63 tokens, which are counted together, the least is taken. Without these counts, all are taken to be
    as long as the mean.
    """
    room, read = copy.config.max_text_tokens, copy.contract["documents"]
    counts = np.asarray(copy.token_lengths, np.float64)
    if counts.sum():
        return float(counts @ np.minimum(2.0 ** np.arange(-1, len(counts) - 1), room) / counts.sum())
    return min(read["tokens"] / max(read["kept"] + exact_duplicates(copy.contract), 1), room)


def _duplicates(copy: CheckedCopy) -> Iterator[Check]:
    """Check equal examples: runs of A are disjoint, so they need a repeated sentence, or a cut one, in the group."""
    repeated, count = sum(shard["repeated_sentences"] for shard in copy.shards), copy.counts["examples"]
    high = repeated + intervals.bound(count)
    why = f"documents of the groups repeat {repeated:,} sentences, and some of {count:,} examples are equal by chance"
    found = copy.statistics["duplicate_examples"]
    yield copy.check("duplicated examples", "examples are duplicates within their shard", why, found, 0, math.floor(high))


def _shortcut(copy: CheckedCopy, probe: dict[str, Any]) -> Iterator[Check]:
    if not probe.get("judged"):
        return
    high = min(1.0, probe["chance"] + probe["margin"] + probe["sampling"])
    names = ", ".join(f"{name} ({100 * share:.1f} %)" for name, share in list(probe["strongest"].items())[:3])
    why = (
        f"chance is {100 * probe['chance']:.2f} %, the margin {100 * probe['margin']:g} points and the sampling error of "
        f"{probe['judged']:,} test rows; strongest features: {names}"
    )
    what = "of next_sentence_labels are predicted from lengths and surface features"
    yield copy.check("shortcut probe", what, why, probe["accuracy"], 0, high, "%")


_CHECKS = (_masked_share, _actions, _labels, _positions, _random_tokens, _pair_lengths, _unknown, _padding, _duplicates)


def run_checks(contract: Manifest, statistics: dict[str, Any], vocabulary: Vocabulary) -> list[Check]:
    """Run every check on every copy. Copies without examples have no checks."""
    shards: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for shard in contract["shards"]:
        shards.setdefault((shard["split"], f"{shard['copy']:02d}"), []).append(shard)
    found: list[Check] = []
    token_lengths = statistics.get("documents", {}).get("token_lengths", ())
    for split, copies in statistics["splits"].items():
        for name, copy_statistics in copies.items():
            counts = contract["splits"][split]["copies"][name]
            parts = shards[split, name]
            copy = CheckedCopy(
                f"{split} copy {name}", split, counts, copy_statistics, parts, contract, vocabulary, token_lengths
            )
            if counts["examples"]:
                found += [check for run in _CHECKS for check in run(copy)]
                if (split, name) == ("train", "00"):
                    found += _shortcut(copy, statistics["probe"])
    return found


def gate_result(found: list[Check], blocking: bool) -> dict[str, Any]:
    """Return "gate" of statistics.json. blocking: whether a failure blocks the dataset; if not, it is marked as overridden."""
    passed = all(check.passed for check in found)
    return {"passed": passed, "overridden": not passed and not blocking, "checks": [asdict(check) for check in found]}
