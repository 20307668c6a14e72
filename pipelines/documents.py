"""The first half of the line for one split: read, clean, split into sentences, tokenize, filter, pack.

Works on batches of about two million characters, whatever the size of a document: many small ones share a batch, a large
one is cut into several.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from pipelines import filters, groups, readers, seeds, sentences, wikitext
from pipelines.cleaning import clean
from pipelines.config import PrepareConfig
from pipelines.examples import Stages
from pipelines.schema import Document, Dropped, Split
from pipelines.wordpiece import WordPiece

BATCH_CHARS = 1 << 21
MAX_SAMPLES = 3  # defective records quoted per split in messages; all are in rejects/


@dataclass
class MapSummary:
    """What became of one split, or of several: counts to be added up, and seconds per stage."""

    size: int = 0
    read: int = 0
    bad: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    characters: int = 0
    sentences: int = 0
    tokens: int = 0
    unknown: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)

    def add(self, other: "MapSummary") -> "MapSummary":
        """Adds another summary to this one."""
        for name in ("size", "read", "bad", "characters", "sentences", "tokens", "unknown"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in ((self.dropped, other.dropped), (self.seconds, other.seconds)):
            for key, value in theirs.items():
                mine[key] = mine.get(key, 0) + value
        self.samples = sorted(self.samples + other.samples)[:MAX_SAMPLES]
        return self

    def to_json(self) -> str:
        return json.dumps(self.__dict__)

    @classmethod
    def from_json(cls, text: str) -> "MapSummary":
        return cls(**json.loads(text))


class Miller:
    """Turns splits into (key, payload) items; keeps the summary and the rejects of the split it is at."""

    def __init__(self, config: PrepareConfig, tokenizer: WordPiece) -> None:
        self._config, self._tokenizer = config, tokenizer
        self.begin()

    def begin(self, split: Split | None = None) -> None:
        """Starts the accounts of a new split."""
        self.summary, self.rejects, self._stages = MapSummary(size=split.size if split else 0), [], Stages()
        self.summary.seconds = self._stages.seconds

    def __call__(self, split: Split) -> Iterator[tuple[bytes, bytes]]:
        """The (key, payload) items of a split; afterwards `summary` and `rejects` are whole."""
        self.begin(split)
        for batch in self._batches(split):
            yield from self._mill(batch)

    def _batches(self, split: Split) -> Iterator[list[Document]]:
        batch, size = [], 0
        records = readers.read(split, self._config)
        while True:
            with self._stages.time("read"):
                record = next(records, None)
            if record is None:
                break
            self.summary.read += record is not None and not (isinstance(record, Dropped) and record.reason == "empty_file")
            if isinstance(record, Dropped):
                self._drop(record)
                continue
            batch.append(record)
            size += len(record.text)
            if size >= BATCH_CHARS:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _drop(self, record: Dropped) -> None:
        self.summary.dropped[record.reason] = self.summary.dropped.get(record.reason, 0) + 1
        if record.bad:
            self.summary.bad += 1
            if len(self.summary.samples) < MAX_SAMPLES:
                self.summary.samples.append(f"{record.source}: {record.reason} {record.detail}".strip())
        if record.reason not in ("redirect", "other_namespace"):
            self.rejects.append(
                {"reason": record.reason, "source": record.source, "detail": record.detail, "excerpt": record.excerpt}
            )

    def _mill(self, batch: list[Document]) -> Iterator[tuple[bytes, bytes]]:
        with self._stages.time("wikitext"):
            plain = [self._plain(document) for document in batch]
        with self._stages.time("clean"):
            texts = [clean(text) for text in plain]
        with self._stages.time("sentences"):
            spans = [self._split(text, document.kind) for text, document in zip(texts, batch, strict=True)]
        for document, text, where, encoded in zip(batch, texts, spans, self._encode(texts, spans), strict=True):
            ids, lengths, offsets = encoded
            with self._stages.time("pack"):
                parts = [text[low:high] for low, high in where] if self._config.max_repeated_sentences else []
                candidate = filters.Candidate(text, parts, lengths, ids)
                if why := filters.reason(candidate, self._config):
                    self._drop(Dropped(why, document.source, document.title, text[: readers.EXCERPT_CHARS], bad=False))
                    continue
                self._count(candidate)
                item = seeds.document_key(text), groups.pack(document.title, ids, lengths, offsets)
            yield item

    def _plain(self, document: Document) -> str:
        if document.kind == "wikitext":
            return wikitext.to_text(document.text, headings=self._config.headings)
        return document.text

    def _split(self, text: str, kind: str) -> list[sentences.Span]:
        if kind == "sentences":
            return sentences.lines(text)
        return sentences.split(text, self._config.splitter, self._config.sentence_language)

    def _count(self, candidate: filters.Candidate) -> None:
        self.summary.characters += len(candidate.text)
        self.summary.sentences += len(candidate.lengths)
        self.summary.tokens += len(candidate.ids)
        self.summary.unknown += int((candidate.ids == self._tokenizer.vocabulary.unk_id).sum())

    def _encode(self, texts: list[str], spans: list[list[sentences.Span]]) -> Iterator[tuple]:
        """(ids, lengths of non-empty sentences, offsets or None) of each text."""
        vocabulary, wanted = self._tokenizer.vocabulary, self._config.provenance
        ids, lengths, offsets = [], [], []
        flat = [(text, low, high) for text, where in zip(texts, spans, strict=True) for low, high in where]
        for piece in _slices(flat):
            with self._stages.time("wordpiece"):
                encoded = self._tokenizer.encode([text[low:high] for text, low, high in piece], wanted)
                ids.append(encoded.ids.astype(vocabulary.dtype))
                lengths.append(encoded.lengths)
                if wanted:
                    base = np.repeat([low for _, low, _ in piece], encoded.lengths)
                    offsets.append(np.stack([encoded.starts + base, encoded.ends + base]).astype(np.uint32))
        all_ids = np.concatenate(ids or [np.zeros(0, vocabulary.dtype)])
        all_lengths = np.concatenate(lengths or [np.zeros(0, np.int64)])
        all_offsets = np.concatenate(offsets, axis=1) if offsets else np.zeros((2, 0), np.uint32)
        edges = np.concatenate([[0], np.cumsum(all_lengths)])
        sentence = 0
        for where in spans:
            low, high = edges[sentence], edges[sentence + len(where)]
            own = all_lengths[sentence : sentence + len(where)]
            yield all_ids[low:high], own[own > 0], all_offsets[:, low:high] if wanted else None
            sentence += len(where)


def _slices(flat: Iterable[tuple[str, int, int]]) -> Iterator[list[tuple[str, int, int]]]:
    piece, size = [], 0
    for item in flat:
        piece.append(item)
        size += item[2] - item[1]
        if size >= BATCH_CHARS:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
