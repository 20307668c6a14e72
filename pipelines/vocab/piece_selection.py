"""Choose the pieces that save the most tokens when they are appended to a vocabulary.

Every step appends the piece that saves the most tokens: over all words, the number of occurrences times the pieces saved. What
is saved follows from WordPiece itself, which takes the longest piece from the left, with the vocabulary as it is at that step.
Candidates begin where a piece of a word begins, and are longer than that piece; whole words are among them. An unknown word
counts as one token more than it has characters, so that pieces which make words known are worth something.

The gains of candidates are upper bounds in a heap; only the highest is computed again (Minoux 1978, "lazy greedy"). Equal gains
are decided by length, then by code points, so that equal counts give equal pieces.
"""

import heapq
from collections.abc import Iterable, Iterator

from clozemill.pipelines.vocab.word_counts import MAX_WORDS

_MAX_PIECE = 50  # characters of a candidate: a word of 200 characters would otherwise have 20,000 candidates


class PieceSelection:
    """Greedy selection of pieces for the words of a corpus.

    Args:
        tokens: the vocabulary to extend.
        counts: (word, count), each word once, in any order. The MAX_WORDS most frequent words decide. Words that UTF-8 can't
            encode are ignored.
    """

    def __init__(self, tokens: Iterable[str], counts: Iterable[tuple[str, int]]) -> None:
        ordered = sorted(counts, key=lambda pair: (-pair[1], pair[0]))[:MAX_WORDS]
        self._words = [(word, count) for word, count in ordered if not any("\ud800" <= char <= "\udfff" for char in word)]
        self._begin: set[str] = set()
        self._inside: set[str] = set()
        self._longest = 1
        for token in tokens:
            self._add(token)
        self._now = [self.tokens(word) for word, _ in self._words]
        self._bounds: dict[str, int] = {}
        self._users: dict[str, list[int]] = {}  # numbers of the words that may change with a candidate
        for number, (_, count) in enumerate(self._words):
            for piece, saved in self._candidates(number):
                self._bounds[piece] = self._bounds.get(piece, 0) + count * saved
                self._users.setdefault(piece, []).append(number)
        self._heap = [(-bound, -len(piece), piece) for piece, bound in self._bounds.items() if bound > 0]
        heapq.heapify(self._heap)

    def __iter__(self) -> Iterator[str]:
        """Yield the pieces in the order of their selection; stop when none saves a token."""
        while self._heap:
            bound, size, piece = heapq.heappop(self._heap)
            if -bound != self._bounds.get(piece):
                continue  # an outdated entry
            exact = self._gain(piece)
            if exact == -bound:
                self._select(piece)
                yield piece
            else:
                self._bounds[piece] = exact
                if exact > 0:
                    heapq.heappush(self._heap, (-exact, size, piece))

    def _add(self, token: str) -> None:
        self._begin.add(token)
        if token.startswith("##"):
            self._inside.add(token[2:])
        self._longest = max(self._longest, len(token))

    def _remove(self, piece: str) -> None:
        self._begin.remove(piece)
        self._inside.discard(piece[2:] if piece.startswith("##") else "")

    def _end(self, word: str, start: int) -> int:
        """Return where the longest piece from `start` ends, 0 if there is none."""
        table = self._inside if start else self._begin
        for end in range(min(len(word), start + self._longest), start, -1):
            if word[start:end] in table:
                return end
        return 0

    def tokens(self, word: str) -> int:
        """Return the number of pieces of a word; one more than it has characters if it is unknown."""
        count = start = 0
        while start < len(word):
            start = self._end(word, start)
            count += 1
            if not start:
                return len(word) + 1
        return count

    def _candidates(self, number: int) -> Iterator[tuple[str, int]]:
        """Yield (candidate, number of tokens that it saves in the word of this number; negative if it adds some).

        The rest of the word, after the candidate, is tokenized without it: it rarely occurs twice.
        """
        word, now = self._words[number][0], self._now[number]
        if now == 1:
            return
        unknown, size = len(word) + 1, len(word)
        rest = [0] * (size + 1)  # tokens from each place to the end; `unknown` if that is impossible
        for start in range(size - 1, 0, -1):
            end = self._end(word, start)
            rest[start] = min(1 + rest[end], unknown) if end else unknown
        start = before = 0
        while start < size:
            end, mark = self._end(word, start), "##" if start else ""
            for other in range((end or start) + 1, min(size, start + _MAX_PIECE) + 1):
                yield mark + word[start:other], now - min(before + 1 + rest[other], unknown)
            if not end:
                return
            start, before = end, before + 1

    def _gain(self, piece: str) -> int:
        """Return the number of tokens that a piece saves in the corpus."""
        longest, saved = self._longest, 0
        self._add(piece)
        for number in set(self._users[piece]):
            word, count = self._words[number]
            saved += count * (self._now[number] - self.tokens(word))
        self._remove(piece)
        self._longest = longest
        return saved

    def _select(self, piece: str) -> None:
        """Append a piece, and raise the bounds of the candidates that save more in a word whose pieces it changes."""
        numbers = sorted(set(self._users.pop(piece)))
        del self._bounds[piece]
        earlier = [dict(self._candidates(number)) for number in numbers]
        self._add(piece)
        for number, known in zip(numbers, earlier, strict=True):
            word, count = self._words[number]
            self._now[number] = self.tokens(word)
            found = dict(self._candidates(number))
            for other in known | found:  # one that no longer changes the word, and cost tokens there, saves more too
                if other not in known:
                    self._users.setdefault(other, []).append(number)
                if other != piece and (rise := found.get(other, 0) - known.get(other, 0)) > 0:
                    self._bounds[other] = bound = self._bounds.get(other, 0) + count * rise
                    if bound > 0:
                        heapq.heappush(self._heap, (-bound, -len(other), other))
