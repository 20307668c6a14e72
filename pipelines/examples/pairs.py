"""Build pairs of token runs for a complete group at once; a pairing policy is a function in PAIRS.

A pair is four indices into the group's token array, because A and B are contiguous runs of tokens, plus a label.
`nsp` follows create_pretraining_data.py of google-research/bert (Devlin et al. 2018, arXiv:1810.04805), `sop` ALBERT
(Lan et al. 2019, arXiv:1909.11942), `single` RoBERTa's DOC-SENTENCES (Liu et al. 2019, arXiv:1907.11692).

Within a document, chunks depend on each other (after a random B, the unused segments are used again); between documents they
don't. So all documents advance together, one chunk per step, and every step is array arithmetic over the unfinished documents.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.shuffle.groups import Group

# A higher probability gives more lone segments, so the step towards the solution is shortened: with 0.8 the error shrinks at
# least fivefold per pass, for documents of two segments (where full steps halve it) as well as long ones.
_BALANCING_PASSES, _BALANCING_STEP = 5, 0.8


_Runs = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # a_start, a_end, b_start, b_end


@dataclass(frozen=True)
class Pairs:
    """E examples: token runs [a_start, a_end) and [b_start, b_end), int64 [E] (B is empty for `single`), and labels.

    labels: int8 [E], 1 = B is random (nsp) or A and B are swapped (sop). forced: number of random pairs from a chunk of one
    segment. drawn: number of labels that were drawn, with probability random_prob for 1; forced labels, and those of a group
    with one document, aren't. dropped: number of chunks without a pair.
    """

    a_start: np.ndarray
    a_end: np.ndarray
    b_start: np.ndarray
    b_end: np.ndarray
    labels: np.ndarray
    forced: int = 0
    drawn: int = 0
    dropped: int = 0
    random_prob: float = 0.0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example with [CLS] and [SEP], int64 [E]: two special tokens without B, three with it."""
        b_len = self.b_end - self.b_start
        return self.a_end - self.a_start + b_len + np.where(b_len > 0, 3, 2)

    def take(self, order: np.ndarray) -> "Pairs":
        """Return the pairs at `order`."""
        runs = (self.a_start[order], self.a_end[order], self.b_start[order], self.b_end[order])
        return Pairs(*runs, self.labels[order], self.forced, self.drawn, self.dropped, self.random_prob)


def truncate(a_len: np.ndarray, b_len: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return lengths after the reference's truncate_seq_pair: the longer side loses tokens until both fit, B on a tie.

    Arguments and results are int64 [E]. This is the closed form of removing one token at a time.
    """
    over = a_len + b_len > limit
    a_kept = np.minimum(a_len, np.maximum(limit - b_len, (limit + 1) // 2))
    a_kept = np.where(over, a_kept, a_len)
    return a_kept, np.where(over, limit - a_kept, b_len)


def _targets(count: int, config: ExampleConfig, rng: np.random.Generator) -> np.ndarray:
    """Return the target length of each document's chunks, int64 [documents]: usually the limit, sometimes shorter."""
    short = rng.random(count) < config.short_seq_prob
    return np.where(short, rng.integers(2, config.max_text_tokens + 1, count), config.max_text_tokens)


def _reach(sentences: np.ndarray, first: np.ndarray, last: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the sentence after the shortest run from `first` with at least `target` tokens, at most `last`."""
    return np.clip(np.searchsorted(sentences, sentences[first] + target), first + 1, last)


def _cut(runs: _Runs, limit: int, rng: np.random.Generator) -> _Runs:
    """Truncate (a_start, a_end, b_start, b_end): each excess token is removed from the front or the back at random."""
    a_start, a_end, b_start, b_end = runs
    a_kept, b_kept = truncate(a_end - a_start, b_end - b_start, limit)
    a_front = rng.binomial(a_end - a_start - a_kept, 0.5)
    b_front = rng.binomial(b_end - b_start - b_kept, 0.5)
    return a_start + a_front, a_start + a_front + a_kept, b_start + b_front, b_start + b_front + b_kept


def _gather(steps: list[tuple[np.ndarray, ...]], config: ExampleConfig, rng: np.random.Generator, **counts) -> Pairs:
    """Return the chunks of all steps, truncated, ordered by document and position as in the reference."""
    document, *columns = (np.concatenate(column) for column in zip(*steps, strict=True))
    order = np.argsort(document, kind="stable")
    a_start, a_end, b_start, b_end, labels = (column[order] for column in columns)
    return Pairs(*_cut((a_start, a_end, b_start, b_end), config.max_text_tokens, rng), labels.astype(np.int8), **counts)


_NOTHING = tuple(np.zeros(0, np.int64) for _ in range(6))


@dataclass(frozen=True)
class _Walk:
    """The chunks of a group for `nsp`, ordered by document and position; int64 [chunks], the last two bool.

    first, middle, end: sentences; A is [first, middle). goal: the target length. lone: a chunk of one segment.
    """

    document: np.ndarray
    first: np.ndarray
    middle: np.ndarray
    end: np.ndarray
    goal: np.ndarray
    random: np.ndarray
    lone: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        return self.random | ~self.lone

    @property
    def forced(self) -> int:
        return int((self.random & self.lone).sum())


def _walk(group: Group, config: ExampleConfig, rng: np.random.Generator, random_prob: float) -> _Walk:
    """Cut documents into chunks and A's, and decide which B is random: everything that the next chunk depends on."""
    count, sentences = len(group.documents) - 1, group.sentences
    strange = group.duplicates_of[1] < count  # whether each document has a different one
    target = _targets(count, config, rng)
    here, stop = group.documents[:-1].copy(), group.documents[1:]
    going = np.flatnonzero(here < stop)
    steps = [(np.zeros(0, np.int64),) * 5 + (np.zeros(0, bool),) * 2]
    while len(going):
        first, goal = here[going], target[going]
        end = _reach(sentences, first, stop[going], goal)
        lone = end == first + 1
        middle = np.where(lone, end, first + rng.integers(1, np.maximum(end - first, 2)))
        random = (lone | (rng.random(len(going)) < random_prob)) & strange[going]
        steps.append((going, first, middle, end, goal, random, lone))
        here[going] = following = np.where(random, middle, end)
        going = going[following < stop[going]]
    document, *columns = (np.concatenate(column) for column in zip(*steps, strict=True))
    order = np.argsort(document, kind="stable")
    return _Walk(document[order], *(column[order] for column in columns))


def _others(group: Group, document: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random document for each of `document`, int64 [chunks], never itself or one with the same text."""
    count = len(group.documents) - 1
    if len(set(group.keys)) == count:  # all texts are different: one draw with the same bound for all
        other = rng.integers(0, max(count - 1, 1), len(document))
        return other + (other >= document)
    first, same = (column[document] for column in group.duplicates_of)
    other = rng.integers(0, np.maximum(count - same, 1))
    return other + np.where(other >= first, same, 0)


def _with_next(group: Group, config: ExampleConfig, walk: _Walk, rng: np.random.Generator, random_prob: float) -> Pairs:
    """Assign a B to each chunk: the segments after A, or a run from a random segment of a random other document."""
    kept, sentences, documents = walk.kept, group.sentences, group.documents
    document, first, middle, end = (c[kept] for c in (walk.document, walk.first, walk.middle, walk.end))
    random, goal = walk.random[kept], walk.goal[kept]
    other = np.where(random, _others(group, document, rng), document)
    begin = documents[other] + rng.integers(0, documents[other + 1] - documents[other])
    last = _reach(sentences, begin, documents[other + 1], goal - (sentences[middle] - sentences[first]))
    runs = (
        sentences[first],
        sentences[middle],
        sentences[np.where(random, begin, middle)],
        sentences[np.where(random, last, end)],
    )
    cut = _cut(runs, config.max_text_tokens, rng)
    drawn = int((group.duplicates_of[1][document] < len(documents) - 1).sum()) - walk.forced
    return Pairs(*cut, random.astype(np.int8), walk.forced, drawn, int((~kept).sum()), random_prob)


def next_sentence_pairs(group: Group, config: ExampleConfig, rng: np.random.Generator, random_prob: float = 0.5) -> Pairs:
    """Return pairs by the reference's algorithm, with a given probability of a random B unless it is forced.

    B never comes from the document of A. With a single document there is no random B: a chunk of one segment is dropped, and
    any other gets its real continuation.
    """
    return _with_next(group, config, _walk(group, config, rng, random_prob), rng, random_prob)


def nsp(group: Group, config: ExampleConfig, make_rng: Callable[[], np.random.Generator]) -> Pairs:
    """Return next_sentence_pairs with the probability that balances the labels of the group, if possible.

    A chunk of one segment forces a random B, so the others are random less often: the probability p solves
    forced + p * others = half of all. Every pass restarts the random stream, so only p changes between passes.
    """
    random_prob = 0.5
    for remaining in reversed(range(_BALANCING_PASSES)):
        rng = make_rng()
        walk = _walk(group, config, rng, random_prob)
        total = int(walk.kept.sum())
        others = total - walk.forced
        if not remaining or others == 0 or walk.forced == 0:
            break
        step = _BALANCING_STEP * (0.5 * (others - walk.forced) / others - random_prob)
        if abs(step) < 0.1 / math.sqrt(total):  # a fifth of the standard deviation of the labels
            break
        random_prob = max(0.0, random_prob + step)
    return _with_next(group, config, walk, rng, random_prob)


def sop(group: Group, config: ExampleConfig, make_rng: Callable[[], np.random.Generator]) -> Pairs:
    """Return two consecutive runs of a document, swapped half of the time (label 1).

    A chunk has at least two segments if the document does; a last lone segment is dropped and counted.
    """
    rng, sentences = make_rng(), group.sentences
    target = _targets(len(group.documents) - 1, config, rng)
    here, stop = group.documents[:-1].copy(), group.documents[1:]
    going, dropped = np.flatnonzero(here < stop), 0
    steps = [_NOTHING]
    while len(going):
        first = here[going]
        end = _reach(sentences, first, stop[going], target[going])
        end = np.minimum(np.maximum(end, first + 2), stop[going])
        kept = end - first >= 2
        middle = first + rng.integers(1, np.maximum(end - first, 2))
        swapped = rng.random(len(going)) < 0.5
        runs = sentences[first], sentences[middle], sentences[middle], sentences[end]
        ordered = [np.where(swapped, runs[(side + 2) % 4], runs[side]) for side in range(4)]
        steps.append(tuple(column[kept] for column in (going, *ordered, swapped)))
        dropped += int((~kept).sum())
        here[going] = end
        going = going[end < stop[going]]
    pairs = _gather(steps, config, rng, dropped=dropped, random_prob=0.5)
    return replace(pairs, drawn=len(pairs))


def _windowed(group: Group, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the group's sentence and document offsets, with sentences over `limit` tokens cut into windows of `limit`."""
    windows = -(-np.diff(group.sentences) // limit)
    first = np.concatenate([[0], np.cumsum(windows)])
    within = np.arange(first[-1]) - np.repeat(first[:-1], windows)
    starts = np.repeat(group.sentences[:-1], windows) + within * limit
    return np.concatenate([starts, group.sentences[-1:]]), first[group.documents]


def single(group: Group, config: ExampleConfig, make_rng: Callable[[], np.random.Generator]) -> Pairs:
    """Pack full sentences of one document up to the target length; no B, all labels 0, no token is lost.

    A sentence longer than the limit is cut into windows, so that no example is truncated.
    """
    rng = make_rng()
    sentences, documents = _windowed(group, config.max_text_tokens)
    target = _targets(len(documents) - 1, config, rng)
    here, stop = documents[:-1].copy(), documents[1:]
    going = np.flatnonzero(here < stop)
    steps = [_NOTHING]
    while len(going):
        first = here[going]
        fits = np.searchsorted(sentences, sentences[first] + target[going], side="right") - 1
        end = np.clip(fits, first + 1, stop[going])
        nowhere = sentences[end]
        steps.append((going, sentences[first], sentences[end], nowhere, nowhere, np.zeros(len(going), np.int64)))
        here[going] = end
        going = going[end < stop[going]]
    return _gather(steps, config, rng)


PAIRS: dict[str, Callable[[Group, ExampleConfig, Callable[[], np.random.Generator]], Pairs]] = {
    "nsp": nsp,
    "sop": sop,
    "single": single,
}
