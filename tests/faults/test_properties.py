"""Invariants across modules, for any text and every valid configuration.

The invariants of single modules are with their other tests (test_sentences, test_wordpiece, test_pairs, test_masking, …). The
ones here need several modules: from raw text to tokens, from provenance back to the text, from a group to its records.
"""

import json
import unicodedata
from dataclasses import replace
from itertools import groupby
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clozemill.pipelines.config import ExampleConfig, PrepareConfig
from clozemill.pipelines.dataset.provenance import provenance_table
from clozemill.pipelines.examples.masking import MASKERS
from clozemill.pipelines.examples.pairs import PAIRS, Pairs
from clozemill.pipelines.prepare import document_processor
from clozemill.pipelines.prepare.document_processor import DocumentProcessor
from clozemill.pipelines.quality import invariants
from clozemill.pipelines.readers import formats
from clozemill.pipelines.readers.document import Document
from clozemill.pipelines.shuffle import keys
from clozemill.pipelines.shuffle import payload as shuffle_payload
from clozemill.pipelines.shuffle.groups import Group
from clozemill.pipelines.text.cleaning import clean
from clozemill.pipelines.text.sentences import SPLITTERS, lines, split
from clozemill.pipelines.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from tests import reference, reference_tokenizer
from tests.pipelines.examples import test_assemble
from tests.pipelines.text.test_wordpiece import PIECES, SENTENCE, lowered_there

BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
RAW = st.lists(st.one_of(SENTENCE, st.text(max_size=20), st.sampled_from([". ", "\n", "\r\n", "\u2028", "\x00", "\ud800"])),
               max_size=8).map("".join)  # fmt: skip
VOCABULARIES = st.sets(st.sampled_from(PIECES), max_size=30).map(lambda found: [*SPECIAL_TOKENS, *sorted(found)])


# From raw text to tokens


@given(raw=RAW)
@settings(max_examples=150, deadline=None, derandomize=True)
@example(raw="e\x00\u0301\ud800x\ufffd\u2029y\tz")
def test_cleaning_drops_only_white_space_and_controls(raw: str) -> None:
    """In canonical form, texts differ only in spaces and in characters that text doesn't need."""
    useless = {char for char in raw if unicodedata.category(char) in ("Cc", "Cf", "Cs") or char == "\ufffd"} - {*BREAKS, "\t"}
    kept = "".join("\n" if char in BREAKS else char for char in raw if char not in useless)
    assert "".join(clean(raw).split()) == "".join(unicodedata.normalize("NFC", kept).split())


def lowered(text: str, cased: bool) -> str:
    return "\n".join(lowered_there(line, cased) for line in text.split("\n"))


def same_word(pieces: list[str], words: list[str]) -> bool:
    """Return whether pieces spell out words, any of which may be [UNK] instead."""
    rest = list(pieces)
    for word in words:
        if rest[:1] == ["[UNK]"]:
            rest.pop(0)
            continue
        spelt = ""
        while rest and len(spelt) < len(word):
            piece = rest.pop(0)
            if piece.startswith("##") != bool(spelt) and piece != word:
                return False
            spelt += piece.removeprefix("##") if spelt else piece
        if spelt != word:
            return False
    return not rest


@pytest.mark.parametrize("cased", [False, True])
@given(raw=RAW, entries=VOCABULARIES, splitter=st.sampled_from([*SPLITTERS, "lines"]))
@settings(max_examples=150, deadline=None, derandomize=True)
@example(raw="ΑΣ ΑΣΑ\nΣ. İΣ “ẞ”", entries=[*SPECIAL_TOKENS, "α", "##σ", "##ς"], splitter="sentencex")
def test_nothing_is_lost_from_text_to_tokens(raw: str, entries: list[str], splitter: str, cased: bool) -> None:
    """Every character of clean text is in one sentence; offsets enclose a word that its pieces spell out, or [UNK].

    Text outside all offsets forms no word: marks and characters that the tokenizer's normalisation drops.
    """
    text = clean(raw)
    spans = lines(text) if splitter == "lines" else split(text, splitter)
    assert "".join("".join(text[low:high] for low, high in spans).split()) == "".join(text.split())
    assert (np.diff(spans.ravel()) >= 0).all()
    encoded = WordPiece(Vocabulary.from_tokens(entries), cased).encode_text(text, spans[:, 0], offsets=True)
    places = list(zip(encoded.starts.tolist(), encoded.ends.tolist(), strict=True))
    owner = np.repeat(np.arange(len(spans)), encoded.lengths)
    shown, end = lowered(text, cased), 0
    for (low, high), run in groupby(zip(places, encoded.ids.tolist(), owner.tolist(), strict=True), key=lambda token: token[0]):
        tokens = list(run)
        words = reference_tokenizer.basic_tokens(shown[low:high], cased)
        assert same_word([entries[token] for _, token, _ in tokens], words), (tokens, words)
        assert {number for *_, number in tokens} == {int(np.searchsorted(spans[:, 0], low, "right")) - 1}
        assert not reference_tokenizer.basic_tokens(shown[end:low], cased)
        assert end <= low < min(high, spans[tokens[0][2], 1])  # a word longer than any sentence continues beyond its own
        end = high
    assert not reference_tokenizer.basic_tokens(shown[end:], cased)


# From provenance back to the text

LONG_WORD = "x" * 700  # more than a sentence, and than a word that can be looked up
TEXTS = st.lists(st.one_of(st.text("aé中.!? \n\u0301’'#ab\u200b", max_size=60), st.just(LONG_WORD)), min_size=1, max_size=8)
VOCABULARY = Vocabulary.from_tokens([*SPECIAL_TOKENS, "a", "##b", "b", "##a", "e", ".", "!", "’", "中"])


def milled(texts: list[str], path: str, kind: str, batch: int) -> list[tuple[bytes, shuffle_payload.Payload]]:
    """Return the documents that prepare builds from texts that share batches and windows of `batch` characters."""
    config = PrepareConfig(input=(path,), provenance=True, format="jsonl")
    found = iter([Document(text, str(number), str(number), kind) for number, text in enumerate(texts)])
    with mock.patch.object(document_processor, "BATCH_CHARS", batch), mock.patch.object(formats, "read", lambda *_: found):
        items = list(DocumentProcessor(config, WordPiece(VOCABULARY))(None))
    return [(key, shuffle_payload.unpack(payload)) for key, payload in items]


@given(texts=TEXTS, kind=st.sampled_from(["text", "sentences"]), batch=st.sampled_from([1, 7, 40, 100, 1 << 21]))
@settings(max_examples=120, deadline=None, derandomize=True)
@example(texts=["ab. " * 20, LONG_WORD], kind="text", batch=100)
@example(texts=["ab. " * 20, LONG_WORD], kind="text", batch=1 << 21)
def test_a_document_does_not_depend_on_its_batch(texts: list[str], kind: str, batch: int) -> None:
    """Ids, sentences and offsets are equal for all batches and windows; documents without a token are left out."""
    tokenizer, expected = WordPiece(VOCABULARY), []
    for number, text in enumerate(map(clean, texts)):
        spans = lines(text) if kind == "sentences" else split(text, "sentencex")
        alone = tokenizer.encode_text(text, spans[:, 0], offsets=True)
        if len(alone.ids):
            own = alone.lengths[alone.lengths > 0].tolist()
            place = [alone.starts.tolist(), alone.ends.tolist()]
            expected.append((keys.document_key(text), str(number), alone.ids.tolist(), own, place))
    found = [(key, p.title, p.ids.tolist(), p.lengths.tolist(), p.spans.tolist()) for key, p in milled(texts, "", kind, batch)]
    assert found == expected


@given(texts=TEXTS, pairs=st.sampled_from(list(PAIRS)), limit=st.integers(5, 30), seed=st.integers(0, 2**32))
@settings(max_examples=120, deadline=None, derandomize=True)
def test_provenance_points_at_the_text_of_each_record(texts: list[str], pairs: str, limit: int, seed: int) -> None:
    """The characters of A and B, tokenized again, give the tokens of A and B, except for truncated words."""
    by_key = {keys.document_key(clean(text)): clean(text) for text in texts}
    items = [(keys.assign_group(key, 0, 1, 0, 0)[1], shuffle_payload.pack(p.title, p.ids, p.lengths, p.spans))
             for key, p in milled(texts, "", "text", 40)]  # fmt: skip
    group = Group.build(items)
    made = PAIRS[pairs](group, reference.pair_config(limit, 0.3, pairs), lambda: np.random.default_rng(seed))
    tokenizer = WordPiece(VOCABULARY)
    for row, (record, number) in enumerate(zip(provenance_table(group, made).to_pylist(), range(len(made)), strict=True)):
        for side, start, end in (("a", made.a_start, made.a_end), ("b", made.b_start, made.b_end)):
            tokens = group.tokens[start[row] : end[row]].tolist()
            if not tokens:
                assert (side, pairs, record["b_key"], record["b_start"]) == ("b", "single", None, None), number
                continue
            there = by_key[record[f"{side}_key"]][record[f"{side}_start"] : record[f"{side}_end"]]
            whole = tokenizer.encode([there.replace("\n", " ")]).ids.tolist()
            assert any(whole[at : at + len(tokens)] == tokens for at in range(len(whole) - len(tokens) + 1))
            assert there == there.strip() != ""


# From a group to its records

SHAPES = st.one_of(
    st.just([]),
    st.lists(st.integers(1, 40), min_size=1, max_size=1).map(lambda document: [document]),
    st.lists(st.lists(st.integers(1, 600), min_size=1, max_size=1), min_size=1, max_size=5),
    st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=12), min_size=1, max_size=6),
    st.lists(st.lists(st.just(1), min_size=1, max_size=60), min_size=1, max_size=4),
)


def runs(pairs: Pairs) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(pairs.a_start, pairs.a_end), (pairs.b_start, pairs.b_end)]


@given(
    shape=SHAPES,
    kind=st.sampled_from(list(PAIRS)),
    limit=st.integers(5, 510),
    short=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_pairs_of_any_group_at_any_length(shape: list[list[int]], kind: str, limit: int, short: float, seed: int) -> None:
    """Segments stay within one document and the limit, labels are correct, and counts match the pairs."""
    group = reference.make_group(reference.numbered(shape))
    made = PAIRS[kind](group, reference.pair_config(limit, short, kind), lambda: np.random.default_rng(seed))
    edges = group.sentences[group.documents]
    a, b = ((np.searchsorted(edges, start, "right"), np.searchsorted(edges, np.maximum(end - 1, start), "right"))
            for start, end in runs(made))  # fmt: skip
    assert (a[0] == a[1]).all() and (made.a_end > made.a_start).all()
    assert (sum(end - start for start, end in runs(made)) <= limit).all()
    if kind == "single":
        assert (made.b_start == made.b_end).all() and not made.labels.any() and (made.forced, made.dropped) == (0, 0)
        assert (made.a_end - made.a_start).sum() == len(group.tokens)
        return
    assert (b[0] == b[1]).all() and (made.b_end > made.b_start).all()
    if kind == "nsp":
        assert ((a[0] != b[0]) == (made.labels == 1)).all()
        assert (made.b_start >= made.a_end)[made.labels == 0].all()
        assert made.forced <= made.labels.sum() and made.drawn <= len(made) - made.forced
        assert made.dropped == 0 or len(shape) == 1
    else:
        assert (a[0] == b[0]).all() and (made.labels == (made.a_start > made.b_start)).all()
        assert (made.drawn, made.forced) == (len(made), 0)


@given(
    counts=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    kind=st.sampled_from(["nsp", "sop"]),
    limit=st.integers(5, 510),
    short=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_sentence_is_used(counts: list[int], kind: str, limit: int, short: float, seed: int) -> None:
    """Sentences of one token are never truncated: each is in one A or real B, except those counted as dropped."""
    group = reference.make_group(reference.numbered([[1] * count for count in counts]))
    made = PAIRS[kind](group, reference.pair_config(limit, short, kind), lambda: np.random.default_rng(seed))
    real = np.ones(len(made), bool) if kind == "sop" else made.labels == 0
    used = np.zeros(len(group.tokens) + 1, int)
    for (start, end), there in zip(runs(made), (np.ones(len(made), bool), real), strict=True):
        np.add.at(used, start[there], 1)
        np.add.at(used, end[there], -1)
    used = np.cumsum(used)[:-1]
    assert used.max() <= 1
    assert (used == 0).sum() == made.dropped


@st.composite
def configurations(draw: st.DrawFn) -> PrepareConfig:
    """Generate any valid configuration of `prepare`, for options that affect records."""
    length = draw(st.one_of(st.integers(8, 40), st.integers(8, 512), st.sampled_from([8, 128, 512])))
    config = PrepareConfig(
        pairs=draw(st.sampled_from(list(PAIRS))),
        masking=draw(st.sampled_from(list(MASKERS))),
        max_seq_length=length,
        max_predictions=draw(st.one_of(st.just(0), st.integers(1, length - 3))),
        masked_lm_prob=draw(st.one_of(st.sampled_from([0.15, 1.0, 1e-9]), st.floats(0, 1, exclude_min=True))),
        short_seq_prob=draw(st.one_of(st.sampled_from([0.0, 0.1, 1.0]), st.floats(0, 1))),
        seed=draw(st.integers(0, 2**63 - 1)),
    )
    config.validate()
    return config


@given(configurations(), SHAPES, st.integers(0, 3), st.integers(0, 2**20))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_record_of_every_configuration(config: PrepareConfig, shape: list[list[int]], copy: int, number: int) -> None:
    """Checked by the test, which restores masked tokens and compares with the group, and by `verify`."""
    tokens = np.random.default_rng(number).choice([test_assemble.UNK, *range(6, 24)], sum(map(sum, shape)))
    at = iter(tokens.tolist())
    group = reference.make_group([[[next(at) for _ in range(size)] for size in document] for document in shape])
    chosen = ExampleConfig.of(json.loads(json.dumps(vars(config))))
    options = replace(chosen, max_predictions=config.predictions())
    data, shard = test_assemble.run(group, options, copy)
    assert len(data) or not len(shard.pairs)
    test_assemble.check(group, options, data, shard)
    if len(shard.pairs):
        columns = test_assemble.decoded(data, options)
        assert [message for _, message in invariants.find_violations(columns, options, test_assemble.VOCABULARY)] == []
