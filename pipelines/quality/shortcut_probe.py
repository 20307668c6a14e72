"""The shortcut probe: can a linear classifier predict next_sentence_labels from lengths and surface features?

A model that finds such a shortcut learns it instead of language; users of google-research/bert saw next-sentence accuracy
jump to 1.0. The classifier is least squares, trained on the even rows and evaluated on the odd ones.
"""

import unicodedata
from functools import lru_cache
from typing import Any

import numpy as np

from clozemill.pipelines.quality import intervals
from clozemill.pipelines.text.vocabulary import Vocabulary

ROWS = 32768  # examples of copy 00, the first of each shard: a shard's order is random
# Measured: 5 points above chance on novels, 10 on an encyclopedia, 25 if every document has two sentences (a lone last one
# forces a random B), 40 if half of them have one sentence and half ten. With two labels, the maximum is 50.
MARGIN = 0.25
_FIRST_TOKENS = 8  # the most frequent first tokens of A and of B, each of which is a feature
_TIE = 1e-9  # a score that differs from one half only by rounding counts as no prediction
_KINDS = ("stop", "mark", "digit", "unknown", "piece")
_STOPS = ".!?。！？"
# A row of the sample: lengths, tokens of each kind within A and B, the kinds of their first and last tokens as bits, the first
# tokens, the label.
COLUMNS = (
    *("a_length", "b_length"),
    *(f"a_{kind}" for kind in _KINDS),
    *(f"b_{kind}" for kind in _KINDS),
    *("a_first_kinds", "a_last_kinds", "b_first_kinds", "b_last_kinds", "a_first", "b_first"),
)


@lru_cache(maxsize=2)
def _kinds(vocabulary: Vocabulary) -> np.ndarray:
    """Return uint8 [V]: bits for the _KINDS of each token."""

    def bits(number: int, token: str) -> int:
        text = token.removeprefix("##")
        mark = unicodedata.category(text[0])[0] in "PS" and not vocabulary.is_special[number]
        kinds = text in _STOPS, mark, any(map(str.isdigit, text)), number == vocabulary.unk_id, token != text
        return sum(1 << place for place, there in enumerate(kinds) if there)

    return np.array([bits(number, token) for number, token in enumerate(vocabulary.tokens)], np.uint8)


def features(ids: np.ndarray, a_len: np.ndarray, b_len: np.ndarray, labels: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Return int32 [E, COLUMNS and the label] of examples before masking: ids [E, S], the others [E]."""
    kinds, row, place = _kinds(vocabulary)[ids], np.arange(len(ids)), np.arange(ids.shape[1])
    in_a = (place > 0) & (place <= a_len[:, None])
    in_b = (place > a_len[:, None] + 1) & (place < (a_len + b_len)[:, None] + 2)
    counts = [
        np.count_nonzero(kinds & np.uint8(1 << bit) * side, axis=1) for side in (in_a, in_b) for bit in range(len(_KINDS))
    ]
    ends = [kinds[row, at] for at in (np.ones_like(a_len), a_len, a_len + 2, a_len + b_len + 1)]
    firsts = [ids[:, 1], ids[row, a_len + 2]]
    return np.stack([a_len, b_len, *counts, *ends, *firsts, labels], axis=1).astype(np.int32)


def design(rows: np.ndarray, max_seq_length: int) -> dict[str, np.ndarray]:
    """Return the features, each float64 [E]: lengths also as parities, logarithms and squares, kinds as 0 and 1."""
    column = dict(zip(COLUMNS, rows.T.astype(np.float64), strict=False))
    seen = {name: column[name] for name in COLUMNS[: 2 + 2 * len(_KINDS)]}
    both = {"a_length": column["a_length"], "b_length": column["b_length"]}
    both["length"] = seen["length"] = both["a_length"] + both["b_length"]
    seen["difference"] = np.abs(both["a_length"] - both["b_length"])
    seen["full"] = (both["length"] >= max_seq_length - 3).astype(np.float64)
    for name, values in both.items():
        seen |= {f"{name} odd": values % 2, f"{name} log": np.log1p(values), f"{name} squared": (values / max_seq_length) ** 2}
    for name in ("a_stop", "b_stop"):
        seen[f"{name} one"] = (column[name] == 1).astype(np.float64)
    for end in ("a_first", "a_last", "b_first", "b_last"):
        bits = column[f"{end}_kinds"].astype(np.int64)
        seen |= {f"{end} {kind}": (bits >> place & 1).astype(np.float64) for place, kind in enumerate(_KINDS)}
    for end in ("a_first", "b_first"):
        tokens, counts = np.unique(column[end].astype(np.int64), return_counts=True)
        for token in tokens[np.argsort(-counts, kind="stable")[:_FIRST_TOKENS]].tolist():
            seen[f"{end} token {token}"] = (column[end] == token).astype(np.float64)
    return seen


def _accuracy(matrix: np.ndarray, labels: np.ndarray) -> float:
    """Return the accuracy on odd rows after training on even ones. matrix [E, features], labels [E] 0 and 1."""
    taught = matrix[::2]
    spread = taught.std(axis=0)
    scaled = (matrix - taught.mean(axis=0)) / np.where(spread > 0, spread, 1)
    scaled = np.concatenate([scaled, np.ones((len(matrix), 1))], axis=1)
    gram = scaled[::2].T @ scaled[::2] + 1e-6 * len(taught) * np.eye(scaled.shape[1])  # columns may depend on each other
    weights = np.linalg.solve(gram, scaled[::2].T @ labels[::2])
    return float(((scaled[1::2] @ weights > 0.5 + _TIE) == labels[1::2]).mean())


def _correlated(matrix: np.ndarray, labels: np.ndarray) -> list[int]:
    """Return the columns of a matrix [E, features], ordered by correlation with the labels, highest first."""
    spread = matrix.std(axis=0)
    together = np.abs((labels - labels.mean()) @ matrix) / np.where(spread > 0, spread, 1) / len(labels)
    return np.argsort(-together.round(6), kind="stable").tolist()


def evaluate_probe(rows: np.ndarray, max_seq_length: int) -> dict[str, Any]:
    """Return "probe" of statistics.json: accuracy, chance, margin, and the strongest features."""
    labels = rows[:, -1].astype(np.float64)
    judged = len(labels) // 2
    if not judged:
        return {"rows": len(rows), "judged": 0}
    seen = design(rows, max_seq_length)
    matrix = np.stack(list(seen.values()), axis=1)
    share = float(labels[1::2].mean())
    chance = max(share, 1 - share)
    strongest = [list(seen)[place] for place in _correlated(matrix[::2], labels[::2])[:5]]
    return {
        "rows": len(rows),
        "judged": judged,
        "accuracy": round(_accuracy(matrix, labels), 6),
        "chance": round(chance, 6),
        "margin": MARGIN,
        "sampling": round(intervals.bound(judged * chance * (1 - chance)) / judged, 6),
        "strongest": {name: round(_accuracy(seen[name][:, None], labels), 6) for name in strongest},
    }
