"""Process one input split: read, clean, split into sentences, tokenize, filter, and pack each document.

Documents are processed in batches of about two million characters. Small documents share a batch; a large one is cut into
several, so that memory stays bounded.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields

import numpy as np

from clozemill.pipelines.common.runtime import Stopwatch
from clozemill.pipelines.config import PrepareConfig
from clozemill.pipelines.dataset import manifest
from clozemill.pipelines.filtering import heuristics
from clozemill.pipelines.readers import document as readers_document
from clozemill.pipelines.readers import formats
from clozemill.pipelines.readers.document import Document, Rejected
from clozemill.pipelines.readers.input_split import InputSplit
from clozemill.pipelines.shuffle import keys, payload
from clozemill.pipelines.text import sentences as text_sentences
from clozemill.pipelines.text.cleaning import clean
from clozemill.pipelines.text.wordpiece import UnknownChunks, WordPiece

BATCH_CHARS = 1 << 21
MAX_FILTERED = 1000  # documents per split and filter that are written to rejects/; all of them are counted
MAX_SAMPLES = 3  # records quoted per reason in messages and in the data card; rejects/ has all malformed ones
MAX_UNKNOWN = 5000  # number of words kept that became [UNK]

EXCLUDED = "excluded_id"  # reason of documents that --exclude-ids drops

Screen = Callable[[bytes, np.ndarray], tuple[str, str] | None]  # (key, ids) -> (reason, detail) of a document to drop


@dataclass
class SplitSummary:
    """Counts of what happened in one or more splits, and seconds per stage.

    Text that filters drop isn't counted; that of exact duplicates is, because they are found later.

    defects: some malformed records. samples: some dropped records, by reason. unknown_words: words that became [UNK], cut at
    100 characters. unspaced: characters in words that are too long. excluded: records by their id, of those to leave out.
    """

    read: int = 0
    bad: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    characters: int = 0
    sentences: int = 0
    tokens: int = 0
    unknown: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    defects: list[str] = field(default_factory=list)
    samples: dict[str, list[str]] = field(default_factory=dict)
    unknown_words: dict[str, int] = field(default_factory=dict)
    unspaced: int = 0
    excluded: dict[str, int] = field(default_factory=dict)

    def add(self, other: "SplitSummary") -> "SplitSummary":
        """Add another summary to this one."""
        for name in ("read", "bad", "characters", "sentences", "tokens", "unknown", "unspaced"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("dropped", "seconds", "excluded"):
            manifest.add_counts(getattr(self, name), getattr(other, name))
        self.defects = sorted(self.defects + other.defects)[:MAX_SAMPLES]
        for key, values in other.samples.items():
            self.samples[key] = sorted(self.samples.get(key, []) + values)[:MAX_SAMPLES]
        self.count_unknown(other.unknown_words)
        return self

    def count_unknown(self, words: dict[str, int]) -> None:
        """Add words that became [UNK]; beyond MAX_UNKNOWN the rarest are dropped."""
        for word, count in words.items():
            self.unknown_words[word] = self.unknown_words.get(word, 0) + count
        if len(self.unknown_words) > 2 * MAX_UNKNOWN:
            ordered = sorted(self.unknown_words.items(), key=lambda item: (-item[1], item[0]))
            self.unknown_words = dict(ordered[:MAX_UNKNOWN])

    def to_json(self) -> str:
        return json.dumps(self.__dict__)

    @classmethod
    def from_json(cls, text: str) -> "SplitSummary":
        """Return the summary that `to_json` wrote; fields that only an earlier version had are ignored."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in json.loads(text).items() if name in known})


class DocumentProcessor:
    """Turns an input split into (key, payload) items. `summary` and `rejects` describe the split processed last."""

    def __init__(
        self,
        config: PrepareConfig,
        tokenizer: WordPiece,
        screens: tuple[Screen, ...] = (),
        excluded: frozenset[str] = frozenset(),
    ) -> None:
        self._config, self._tokenizer, self._screens, self._excluded = config, tokenizer, screens, excluded
        self.begin()

    def begin(self) -> None:
        """Reset `summary` and `rejects` for a new split."""
        self.summary, self._watch = SplitSummary(), Stopwatch()
        self.rejects: list[dict[str, str]] = []
        self.summary.seconds = self._watch.seconds

    def __call__(self, split: InputSplit) -> Iterator[tuple[bytes, bytes]]:
        """Yield the (key, payload) items of a split; afterwards `summary` and `rejects` are complete."""
        self.begin()
        for batch in self._batches(split):
            yield from self._process(batch)

    def _batches(self, split: InputSplit) -> Iterator[list[Document]]:
        batch, size = [], 0
        found = formats.read(split, self._config)
        while True:
            with self._watch.time("read"):
                record = next(found, None)
            if record is None:
                break
            self.summary.read += not (isinstance(record, Rejected) and record.reason == "empty_file")
            if record.id in self._excluded:  # before anything else, and without an excerpt: no text of it is kept
                self.summary.excluded[record.id] = self.summary.excluded.get(record.id, 0) + 1
                record = Rejected(EXCLUDED, record.source, "its id is in --exclude-ids", bad=False)
            if isinstance(record, Rejected):
                self._drop(record)
                continue
            batch.append(record)
            size += len(record.text) + 1
            if size >= BATCH_CHARS:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _drop(self, record: Rejected) -> None:
        self.summary.dropped[record.reason] = self.summary.dropped.get(record.reason, 0) + 1
        if record.bad:
            self.summary.bad += 1
            if len(self.summary.defects) < MAX_SAMPLES:
                self.summary.defects.append(f"{record.source}: {record.reason} {record.detail}".strip())
        samples = self.summary.samples.setdefault(record.reason, [])
        if len(samples) < MAX_SAMPLES:
            samples.append(": ".join(part for part in (record.source, record.detail, record.excerpt) if part))
        # Filters may drop thousands of documents: only a sample is kept, so that memory stays bounded.
        kept = record.bad or self.summary.dropped[record.reason] <= MAX_FILTERED
        if kept and record.reason not in ("redirect", "other_namespace", "other_content_model"):
            self.rejects.append(
                {"reason": record.reason, "source": record.source, "detail": record.detail, "excerpt": record.excerpt}
            )

    def _process(self, batch: list[Document]) -> Iterator[tuple[bytes, bytes]]:
        with self._watch.time("wikitext"):
            plain = [formats.plain_text(document, self._config) for document in batch]
        with self._watch.time("clean"):
            texts = [clean(text) for text in plain]
        with self._watch.time("sentences"):
            spans = [self._split(text, document.kind) for text, document in zip(texts, batch, strict=True)]
        kept: list[bool] = []
        sizes: list[int] = []
        unknown: list[tuple[UnknownChunks, int]] = []
        for document, text, where, encoded in zip(batch, texts, spans, self._encode(texts, spans, unknown), strict=True):
            ids, lengths, offsets = encoded
            kept.append(False)
            sizes.append(len(ids))
            with self._watch.time("filter"):
                parts = [text[low:high] for low, high in where.tolist()] if self._config.max_repeated_sentences else []
                candidate = heuristics.Candidate(text, parts, lengths, ids)
                key = keys.document_key(text)
                if reason := self._reason_to_drop(document, candidate, key):
                    self._drop(
                        Rejected(reason[0], document.source, reason[1], text[: readers_document.EXCERPT_CHARS], bad=False)
                    )
                    continue
            with self._watch.time("pack"):
                kept[-1] = True
                self._count(candidate)
                item = key, payload.pack(document.title, ids, lengths, offsets, document.id)
            yield item
        with self._watch.time("pack"):
            self._count_unknown(unknown, np.repeat(kept, sizes))

    def _reason_to_drop(self, document: Document, candidate: heuristics.Candidate, key: bytes) -> tuple[str, str] | None:
        """Return (reason, detail) if the document is to be dropped."""
        if reason := heuristics.reason(candidate, self._config):
            return reason, document.title
        return next((found for screen in self._screens if (found := screen(key, candidate.ids))), None)

    def _split(self, text: str, kind: str) -> np.ndarray:
        if kind == "sentences":
            return text_sentences.lines(text)
        return text_sentences.split(text, self._config.splitter, self._config.sentence_language)

    def _count(self, candidate: heuristics.Candidate) -> None:
        self.summary.characters += len(candidate.text)
        self.summary.sentences += len(candidate.lengths)
        self.summary.tokens += len(candidate.ids)
        self.summary.unknown += int((candidate.ids == self._tokenizer.vocabulary.unk_id).sum())

    def _count_unknown(self, unknown: list[tuple[UnknownChunks, int]], kept: np.ndarray) -> None:
        """Count the words of a batch that became [UNK], in its kept documents.

        unknown: of each window, with its number of tokens. kept: bool [tokens of the batch].
        """
        start = 0
        for lost, size in unknown:
            words, unspaced = lost.count(kept[start : start + size])
            self.summary.count_unknown(words)
            self.summary.unspaced += unspaced
            start += size

    def _encode(self, texts: list[str], spans: list[np.ndarray], unknown: list[tuple[UnknownChunks, int]]) -> Iterator[tuple]:
        """Yield (ids, lengths of non-empty sentences, offsets or None) of each text.

        The texts are joined and tokenized in windows of about BATCH_CHARS that begin with a sentence.

        Args:
            unknown: a list to which the words of each window that became [UNK] are added, with its number of tokens.
        """
        wanted, parts = self._config.provenance, []
        with self._watch.time("wordpiece"):
            text = "\n".join(texts)
            bases = np.cumsum([0] + [len(each) + 1 for each in texts])
            edges = np.cumsum([0] + [len(where) for where in spans])
            begins = np.concatenate([where[:, 0] for where in spans]) + np.repeat(bases[:-1], np.diff(edges))
            for low, high in _windows(text, begins, BATCH_CHARS):
                window = text[begins[low] : begins[high] if high < len(begins) else len(text)]
                parts.append(self._tokenize(window, begins[low:high], wanted, unknown))
            parts = parts or [self._tokenize("", begins, wanted, unknown)]
            ids, lengths, offsets = (np.concatenate(column, axis=-1) for column in zip(*parts, strict=True))
            tokens = np.concatenate([[0], np.cumsum(lengths)])[edges]
        for number, base in enumerate(bases[:-1].tolist()):
            low, high = tokens[number], tokens[number + 1]
            own = lengths[edges[number] : edges[number + 1]]
            yield ids[low:high], own[own > 0], (offsets[:, low:high] - base).astype(np.uint32) if wanted else None

    def _tokenize(
        self, window: str, begins: np.ndarray, wanted: bool, unknown: list[tuple[UnknownChunks, int]]
    ) -> tuple[np.ndarray, ...]:
        """Return ids in the vocabulary's type, lengths, and offsets int64 [2, tokens], or [2, 0] if they aren't wanted."""
        first = begins[0] if len(begins) else 0
        encoded = self._tokenizer.encode_text(window, begins - first, wanted)
        unknown.append((encoded.unknown, len(encoded.ids)))
        offsets = np.zeros((2, 0), np.int64)
        if encoded.starts is not None and encoded.ends is not None:
            offsets = np.stack([encoded.starts, encoded.ends]) + first
        return encoded.ids.astype(self._tokenizer.vocabulary.dtype), encoded.lengths, offsets


def _windows(text: str, begins: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """Yield ranges [low, high) of sentences that begin within about `size` characters, with at least one sentence.

    A window begins after white space: a long run without spaces is cut into several sentences, but it may be one word, and its
    tokens must not depend on the documents before it.
    """
    low = 0
    while low < len(begins):
        high = max(int(np.searchsorted(begins, begins[low] + size)), low + 1)
        while high < len(begins) and not text[begins[high] - 1].isspace():
            high += 1
        yield low, high
        low = high
