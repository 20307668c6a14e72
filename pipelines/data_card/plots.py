"""The plots of a data card, and their data, from statistics.json. A missing statistic has no plot.

S: sequence length, V: vocabulary size, B: parts of the vocabulary in which random and masked tokens are counted.
"""

from typing import Any

import numpy as np

from clozemill.pipelines.pages.content import Plot, Series
from clozemill.pipelines.text.vocabulary import Vocabulary

Statistics = dict[str, Any]
_MOST_BINS, _MOST_PARTS, _POINTS = 128, 64, 160
_SUMMED = ("lengths", "a_lengths", "b_lengths", "masked_positions", "masked_positions_expected", "masked_positions_variance",
           "random_tokens", "masked_tokens")  # fmt: skip


def summed(copies: dict[str, Statistics]) -> dict[str, np.ndarray]:
    """Return the sum of the statistics of a split's copies, float64 or int64 with unchanged shapes."""
    return {name: np.sum([np.asarray(copy[name]) for copy in copies.values()], axis=0) for name in _SUMMED}


def quantiles(counts: Any) -> tuple[float, int, int, int, int]:
    """Return the mean, and the lengths at 5 %, 50 %, 95 % and 100 %. counts: int [N], the number of items by length."""
    counts = np.asarray(counts)
    reached, total = np.cumsum(counts), counts.sum()
    low, median, high, longest = (int(np.searchsorted(reached, np.ceil(part * total))) for part in (0.05, 0.5, 0.95, 1.0))
    return float(np.arange(len(counts)) @ counts / total), low, median, high, longest


def splits_of(statistics: Statistics) -> dict[str, dict[str, Statistics]]:
    """Return the copies of each split, train first."""
    return dict(sorted(statistics.get("splits", {}).items(), reverse=True))


def token_counts(statistics: Statistics) -> list[int]:
    """Return the count of each token in train copy 00, [V]; [] if it wasn't recorded."""
    return statistics.get("splits", {}).get("train", {}).get("00", {}).get("tokens", [])


def _binned(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return edges and percentages of a histogram of lengths, with bins of equal width, wide enough to be visible."""
    width = -(-len(counts) // _MOST_BINS)
    padded = np.pad(counts, (0, -len(counts) % width)).reshape(-1, width).sum(1)
    return np.arange(len(padded) + 1) * width - 0.5, 100 * padded / max(counts.sum(), 1)


def lengths(statistics: Statistics, contract: dict[str, Any]) -> list[Plot]:
    """Return plots of the lengths of documents, of examples, and of A and B by label."""
    plots, splits = [], splits_of(statistics)
    documents = np.asarray(statistics.get("documents", {}).get("token_lengths", []))
    if documents.sum():
        first, last = np.flatnonzero(documents)[[0, -1]].tolist()
        edges = 2.0 ** np.arange(first - 1, last + 1)
        alt = f"Histogram of {documents.sum():,} documents by their number of tokens, in bins that double, up to {2**last:,}."
        series = [Series("documents", "steps", edges, documents[first : last + 1])]
        plots.append(Plot("documents", "Documents by length", "tokens (bins that double)", "documents", alt, series, x_log=2))
    totals = {name: summed(copies) for name, copies in splits.items()}
    totals = {name: total for name, total in totals.items() if total["lengths"].sum()}
    if totals:
        kinds = ("steps", "outline")
        series = [Series(name, kinds[at], *_binned(total["lengths"])) for at, (name, total) in enumerate(totals.items())]
        medians = "; ".join("{}: median {:,}".format(name, quantiles(total["lengths"])[2]) for name, total in totals.items())
        alt = f"Histogram of examples by their number of tokens, special tokens included. {medians}."
        plots.append(Plot("examples", "Examples by length", "tokens", "share of the examples (%)", alt, series, y_log=10))
    if "train" in totals:
        plots += [_by_label(side, totals["train"], contract["config"]["pairs"]) for side in "ab" if _has(totals["train"], side)]
    return plots


def _has(total: dict[str, np.ndarray], side: str) -> bool:
    return bool(total[f"{side}_lengths"][:, 1:].sum())


def _by_label(side: str, total: dict[str, np.ndarray], pairs: str) -> Plot:
    names = {"nsp": ("B follows", "B is random"), "sop": ("in order", "swapped")}.get(pairs, ("one run", ""))
    rows = [(name, counts) for name, counts in zip(names, total[f"{side}_lengths"], strict=True) if counts.sum()]
    series = [Series(name, "outline", *_binned(counts)) for name, counts in rows]
    medians = ", ".join(f"{name} {quantiles(counts)[2]:,}" for name, counts in rows)
    alt = f"Lengths of segment {side.upper()}, one line per label; the lines should be close together."
    alt += f" Medians in tokens: {medians}."
    title = f"Segment {side.upper()} by label" if len(rows) > 1 else f"Segment {side.upper()}"
    return Plot(f"segment-{side}", title, "tokens", "share of the examples (%)", alt, series)


def frequencies(statistics: Statistics) -> list[Plot]:
    """Return a log-log plot of token frequency by rank."""
    series = []
    for split, copies in splits_of(statistics).items():
        counts = np.sort(np.asarray(copies.get("00", {}).get("tokens", []), np.int64))[::-1]
        counts = counts[counts > 0]
        if len(counts):
            ranks = np.unique(np.geomspace(1, len(counts), _POINTS).round().astype(int))
            series.append(Series(split, "line", ranks, counts[ranks - 1]))
    if not series:
        return []
    alt = "; ".join(f"{each.label}: {each.x[-1]:,} tokens occur, the most frequent {each.y[0]:,} times" for each in series)
    alt = f"Frequency of tokens against their rank, both axes logarithmic; natural text gives a nearly straight line. {alt}."
    return [Plot("ranks", "Tokens by rank", "rank (log)", "times in one copy (log)", alt, series, x_log=10, y_log=10)]


def masks(statistics: Statistics, vocabulary: Vocabulary) -> list[Plot]:
    """Return plots of masked positions and of random tokens against their expected values, for the train split."""
    copies = statistics.get("splits", {}).get("train", {})
    if not copies:
        return []
    total, plots = summed(copies), []
    counts, expected, variance = (total["masked_positions" + end] for end in ("", "_expected", "_variance"))
    places = np.flatnonzero(expected > 0)
    if len(places):
        off = 100 * (counts[places] / expected[places] - 1)
        limit = 300 * np.sqrt(variance[places]) / expected[places]
        series = [Series("3 standard deviations", "band", places, -limit, limit), Series("observed", "line", places, off)]
        outside = int((np.abs(off) > limit).sum())
        alt = (
            f"Masked positions along the sequence, against a uniform distribution; {outside} of {len(places)} outside the band."
        )
        plots.append(
            Plot("positions", "Masked positions", "position in the sequence", "deviation from expected (%)", alt, series)
        )
    plots += _random(total, vocabulary)
    return plots


def _random(total: dict[str, np.ndarray], vocabulary: Vocabulary) -> list[Plot]:
    """Return a plot of random tokens by part of the vocabulary, relative to a uniform draw over all non-special tokens."""
    drawn = total["random_tokens"]
    if not drawn.sum():
        return []
    parts = len(drawn)
    members = np.bincount(vocabulary.random_ids.astype(np.int64) * parts // len(vocabulary), minlength=parts)
    step = -(-parts // _MOST_PARTS)
    drawn, members = (np.add.reduceat(counts, np.arange(0, parts, step)) for counts in (drawn, members))
    there = members > 0
    expected = drawn.sum() * members[there] / members.sum()
    off, limit = 100 * (drawn[there] / expected - 1), 300 / np.sqrt(expected)
    places = 100 * (np.flatnonzero(there) + 0.5) * step / parts
    series = [Series("3 standard deviations", "band", places, -limit, limit), Series("observed", "line", places, off)]
    outside = int((np.abs(off) > limit).sum())
    alt = f"Random tokens over {len(places)} parts of the vocabulary, against a uniform draw; {outside} are outside the band."
    return [Plot("random", "Random tokens", "part of the vocabulary, by id (%)", "deviation from expected (%)", alt, series)]
