"""Reference implementations for tests: pairs and masks one token at a time, small corpora, and two chi-square statistics.

Written from the published descriptions (Devlin et al. 2018 for `nsp`, Lan et al. 2019 for `sop`, Liu et al. 2019 for `single`,
Joshi et al. 2019 for `span`), simple and slow, with lists of tokens instead of offsets into arrays.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.shuffle.groups import Group
from clozemill.pipelines.shuffle.payload import pack
from clozemill.pipelines.text.vocabulary import Vocabulary

Documents = Sequence[Sequence[Sequence[int]]]  # documents of sentences of tokens


@dataclass(frozen=True)
class Pair:
    """One example: the tokens of A and B after truncation, its label, its document, and whether a lone segment made it."""

    document: int
    a: list[int]
    b: list[int]
    label: int
    forced: bool = False


def truncate(a: list[int], b: list[int], limit: int, rng: np.random.Generator) -> None:
    """Removes tokens in place, one at a time: from the longer list, from `b` on a tie; front or back at even odds."""
    while len(a) + len(b) > limit:
        longer = a if len(a) > len(b) else b
        del longer[0 if rng.random() < 0.5 else -1]


def _join(sentences: Sequence[Sequence[int]]) -> list[int]:
    return [token for sentence in sentences for token in sentence]


def _target(limit: int, short_seq_prob: float, rng: np.random.Generator) -> int:
    return int(rng.integers(2, limit, endpoint=True)) if rng.random() < short_seq_prob else limit


def _chunk(document: Sequence[Sequence[int]], at: int, target: int, least: int = 1) -> list[Sequence[int]]:
    """Sentences from `at` on until they hold `target` tokens and are `least`, or the document ends."""
    chunk = []
    for sentence in document[at:]:
        if len(chunk) >= least and len(_join(chunk)) >= target:
            break
        chunk.append(sentence)
    return chunk


def next_sentence(
    documents: Documents, limit: int, short_seq_prob: float, rng: np.random.Generator, random_prob: float
) -> list[Pair]:
    """BERT's pairs; `random_prob` is for the chunks of two segments and more. B never comes from A's document."""
    pairs = []
    for number, document in enumerate(documents):
        target, at = _target(limit, short_seq_prob, rng), 0
        others = [other for other in range(len(documents)) if other != number]
        while at < len(document):
            chunk = _chunk(document, at, target)
            lone = len(chunk) == 1
            split = 1 if lone else int(rng.integers(1, len(chunk)))
            a, b = _join(chunk[:split]), _join(chunk[split:])
            random = bool(others) and (lone or rng.random() < random_prob)
            if random:
                other = documents[rng.choice(others)]
                b = _join(_chunk(other, int(rng.integers(len(other))), target - len(a)))
            at += split if random else len(chunk)
            if random or not lone:
                truncate(a, b, limit, rng)
                pairs.append(Pair(number, a, b, int(random), lone))
    return pairs


def sentence_order(documents: Documents, limit: int, short_seq_prob: float, rng: np.random.Generator) -> list[Pair]:
    """ALBERT's pairs: chunks of at least two segments where the document has them; a last lone segment gives none."""
    pairs = []
    for number, document in enumerate(documents):
        target, at = _target(limit, short_seq_prob, rng), 0
        while at < len(document):
            chunk = _chunk(document, at, target, least=2)
            at += len(chunk)
            if len(chunk) == 1:
                continue
            split = int(rng.integers(1, len(chunk)))
            sides = [_join(chunk[:split]), _join(chunk[split:])]
            swapped = rng.random() < 0.5
            a, b = reversed(sides) if swapped else sides
            truncate(a, b, limit, rng)
            pairs.append(Pair(number, a, b, int(swapped)))
    return pairs


def single_runs(documents: Documents, limit: int, short_seq_prob: float, rng: np.random.Generator) -> list[Pair]:
    """Runs of whole sentences, or of windows of sentences over the limit, that don't pass the target; no B."""
    pairs = []
    for number, document in enumerate(documents):
        target, run = _target(limit, short_seq_prob, rng), []
        for sentence in document:
            for low in range(0, len(sentence), limit):
                window = list(sentence[low : low + limit])
                if run and len(run) + len(window) > target:
                    pairs.append(Pair(number, run, [], 0))
                    run = []
                run = run + window
        if run:
            pairs.append(Pair(number, run, [], 0))
    return pairs


def words(ids: Sequence[int], vocabulary: Vocabulary) -> list[list[int]]:
    """The positions of each word: special tokens belong to none and end one; a `##` piece continues the word before it."""
    found: list[list[int]] = []
    for position, token in enumerate(vocabulary.tokens[token] for token in ids):
        if token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"):
            continue
        if token.startswith("##") and found and found[-1][-1] == position - 1:
            found[-1].append(position)
        else:
            found.append([position])
    return found


def mask_subword(found: list[list[int]], quota: int, most: int, rng: np.random.Generator) -> list[list[int]]:
    """Positions in random order until the quota is full, each a unit of its own."""
    positions = _join(found)
    return [[position] for position in rng.permutation(positions).tolist()[:quota]]


def mask_whole_word(found: list[list[int]], quota: int, most: int, rng: np.random.Generator) -> list[list[int]]:
    """Words in random order, skipping those that exceed the quota; if none fits, a shortest one, up to `most`."""
    chosen: list[int] = []
    order = [found[index] for index in rng.permutation(len(found))]
    for word in order:
        if len(chosen) + len(word) <= quota:
            chosen += word
    if not chosen and order and len(shortest := min(order, key=len)) <= most:
        chosen = list(shortest)
    return [[position] for position in chosen]


def mask_span(found: list[list[int]], quota: int, most: int, rng: np.random.Generator) -> list[list[int]]:
    """Spans of words until the quota is full or no word fits; a span's positions are one unit."""
    shares = np.array([0.2 * 0.8**more for more in range(10)])
    free, left, units = set(range(len(found))), quota, []
    while left > 0:
        starts = [word for word in sorted(free) if len(found[word]) <= left]
        if not starts and not units:
            starts = [word for word in sorted(free) if len(found[word]) <= most]
        if not starts:
            break
        first = int(rng.choice(starts))
        unit: list[int] = []
        for word in range(first, first + 1 + int(rng.choice(10, p=shares / shares.sum()))):
            apart = unit and (word not in free or found[word][0] != unit[-1] + 1 or len(found[word]) > left)
            if apart or word not in free:
                break
            free.remove(word)
            unit += found[word]
            left -= len(found[word])
        units.append(unit)
    return units


MASKS = {"subword": mask_subword, "whole_word": mask_whole_word, "span": mask_span}


def replace(ids: Sequence[int], units: list[list[int]], vocabulary: Vocabulary, rng: np.random.Generator) -> list[int]:
    """80 % [MASK], 10 % a random token that is not special, 10 % unchanged; one action a unit, one draw a position."""
    drawable = [number for number, token in enumerate(vocabulary.tokens) if not token.startswith("[")]
    out = list(ids)
    for unit in units:
        action = rng.random()
        for position in unit:
            if action < 0.8:
                out[position] = vocabulary.tokens.index("[MASK]")
            elif action < 0.9:
                out[position] = int(rng.choice(drawable))
    return out


def make_vocabulary(count: int = 12, pieces: int = 6) -> Vocabulary:
    """[PAD] 0, an unused token, [UNK] 2, [CLS] 3, [SEP] 4, [MASK] 5, then `count` words and `pieces` continuations."""
    special = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return Vocabulary.from_tokens(special + [f"w{n}" for n in range(count)] + [f"##p{n}" for n in range(pieces)])


def make_group(documents: Documents, dtype: type = np.uint16) -> Group:
    """A group that holds the documents in the given order."""
    items = []
    for number, document in enumerate(documents):
        lengths = np.array([len(sentence) for sentence in document], np.int64)
        items.append((number.to_bytes(4, "big"), pack(f"title {number}", np.array(_join(document), dtype), lengths)))
    return Group.build(items)


def numbered(shape: Sequence[Sequence[int]]) -> list[list[list[int]]]:
    """Documents of sentences of the given lengths whose tokens are 0, 1, 2, …: a token identifies its position."""
    total, documents = 0, []
    for lengths in shape:
        documents.append([])
        for length in lengths:
            documents[-1].append(list(range(total, total + length)))
            total += length
    return documents


def normal(statistic: float, freedom: int) -> float:
    """A chi-square statistic as a standard normal deviate (Wilson and Hilferty); freedom 0 gives 0."""
    if freedom < 1:
        return 0.0
    share = 2 / (9 * freedom)
    return float(((statistic / freedom) ** (1 / 3) - (1 - share)) / share**0.5)


def same_distribution(left: Sequence[Hashable], right: Sequence[Hashable], rare: int = 16) -> float:
    """Two-sample chi-square of two lists of outcomes as a normal deviate; outcomes seen less than `rare` times are one."""
    counts, n, m = (Counter(left), Counter(right)), len(left), len(right)
    cells: dict[Hashable, np.ndarray] = {}
    for outcome in sorted(set(left) | set(right)):
        pair = np.array([counts[0][outcome], counts[1][outcome]], float)
        name = outcome if pair.sum() >= rare else "rare"
        cells[name] = cells.get(name, np.zeros(2)) + pair
    table = np.array(list(cells.values()))
    scaled = (table[:, 0] * (m / n) ** 0.5 - table[:, 1] * (n / m) ** 0.5) ** 2
    return normal(float((scaled / table.sum(axis=1)).sum()), len(table) - 1)


def fits(observed: Sequence[int] | np.ndarray, shares: Sequence[float] | np.ndarray) -> float:
    """Chi-square of counts against the shares they should have, as a normal deviate."""
    observed, shares = np.asarray(observed, float), np.asarray(shares, float)
    expected = observed.sum() * shares / shares.sum()
    return normal(float(((observed - expected) ** 2 / expected).sum()), len(observed) - 1)


def pair_config(limit: int, short_seq_prob: float, pairs: str = "nsp") -> ExampleConfig:
    """The configuration of examples with at most `limit` tokens of A and B together."""
    special = 2 if pairs == "single" else 3
    return ExampleConfig(pairs, max_seq_length=limit + special, short_seq_prob=short_seq_prob)
