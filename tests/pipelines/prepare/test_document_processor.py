"""The first half of the line: items, counts and rejects of a split; documents of any size in memory in proportion."""

import json
import tracemalloc

import numpy as np
import pytest

from clozemill.pipelines.config import PrepareConfig
from clozemill.pipelines.prepare import document_processor
from clozemill.pipelines.prepare.document_processor import DocumentProcessor, SplitSummary
from clozemill.pipelines.readers import formats
from clozemill.pipelines.shuffle import keys
from clozemill.pipelines.shuffle import payload as shuffle_payload
from clozemill.pipelines.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from tests import corpora
from tests.slow import mostly_slow_rows

VOCABULARY = Vocabulary.from_tokens([*SPECIAL_TOKENS, *corpora.WORDS, ".", "un", "##bridge"])


def mill(config: PrepareConfig) -> tuple[list[tuple[bytes, shuffle_payload.Payload]], SplitSummary, list[dict]]:
    """Everything that the splits of the input come to."""
    processor, items, summary, rejects = DocumentProcessor(config, WordPiece(VOCABULARY)), [], SplitSummary(), []
    for split in formats.plan(config).splits:
        items += [(key, shuffle_payload.unpack(payload)) for key, payload in processor(split)]
        summary.add(processor.summary)
        rejects += processor.rejects
    return items, summary, rejects


def words(payload: shuffle_payload.Payload) -> str:
    return " ".join(VOCABULARY.tokens[at] for at in payload.ids)


def test_a_document_becomes_a_key_and_a_payload(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "The  river moves.\\n\\nOld stone\\u0000 bridge. Zq!", "title": "T"}\n')
    ((key, payload),), summary, rejects = mill(PrepareConfig(input=(str(path),)))
    assert key == keys.document_key("The river moves.\nOld stone bridge. Zq!")
    assert words(payload) == "the river moves . old stone bridge . [UNK] [UNK]"
    assert (payload.title, payload.lengths.tolist(), payload.spans) == ("T", [4, 4, 2], None)
    assert (summary.read, summary.bad, summary.dropped, rejects) == (1, 0, {}, [])
    assert (summary.characters, summary.sentences, summary.tokens, summary.unknown) == (38, 3, 10, 2)


def test_offsets_are_of_whole_words_in_the_cleaned_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("The river\nmoves unbridge\n")
    ((_, payload),), _, _ = mill(PrepareConfig(input=(str(path),), provenance=True))
    text = "The river\nmoves unbridge"
    shown = [(VOCABULARY.tokens[at], text[low:high]) for at, low, high in zip(payload.ids, *payload.spans, strict=True)]
    expected = [("the", "The"), ("river", "river"), ("moves", "moves"), ("un", "unbridge"), ("##bridge", "unbridge")]
    assert shown == expected


def test_lines_of_bert_text_are_sentences_and_empty_ones_vanish(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"The river. Moves under.\n\xe2\x80\x8b\nOld stone\n\n\x00\n")
    ((_, payload),), summary, rejects = mill(PrepareConfig(input=(str(tmp_path / "a.txt"),)))
    assert payload.lengths.tolist() == [6, 2]
    assert (summary.read, summary.dropped) == (2, {"no_token": 1})
    assert rejects == [{"reason": "no_token", "source": f"{tmp_path}/a.txt, line 5", "detail": "", "excerpt": ""}]


def test_batches_do_not_change_what_comes_out(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_bytes(corpora.jsonl(["", *corpora.texts(30), "", corpora.texts(1, 9, 300)[0]]))
    config = PrepareConfig(input=(str(tmp_path / "a.jsonl"),), provenance=True)

    def outcome():
        items, summary, _ = mill(config)
        return [(key, p.title, p.ids.tolist(), p.lengths.tolist(), p.spans.tolist()) for key, p in items], summary.tokens

    expected = outcome()
    assert len(expected[0]) == 31
    for size in (1, 50, 1000):
        monkeypatch.setattr(document_processor, "BATCH_CHARS", size)
        assert outcome() == expected


def test_what_is_dropped_is_counted_and_kept_with_its_reason(tmp_path):
    lines = [b'{"text": "The river moves. The old bridge."}', b'{"text": "Old."}', b"{", b'{"text": ""}', b"[]", b"}"]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "b.jsonl").write_bytes(b"")
    items, summary, rejects = mill(PrepareConfig(input=(str(tmp_path / "*.jsonl"),), min_sentences=2))
    assert (len(items), summary.read, summary.bad) == (1, 6, 3)
    expected = {"empty_file": 1, "malformed_json": 2, "no_token": 1, "not_an_object": 1, "too_few_sentences": 1}
    assert dict(sorted(summary.dropped.items())) == expected
    assert sorted(reject["reason"] for reject in rejects) == sorted([*expected, "malformed_json"])
    assert sorted(reject["source"] for reject in rejects if reject["reason"] != "empty_file") == [
        f"{tmp_path}/a.jsonl, line {number}" for number in (2, 3, 4, 5, 6)
    ]
    assert len(summary.defects) == 3
    assert summary.defects[0].startswith(f"{tmp_path}/a.jsonl, line 3: malformed_json ")
    assert {reason: len(samples) for reason, samples in summary.samples.items()} == expected
    assert summary.samples["malformed_json"][0].startswith(f"{tmp_path}/a.jsonl, line 3: a JSON value that spans several lines")


def test_the_report_gets_unknown_words(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_bytes(corpora.jsonl(["Жук the жук.", "The old bridge. Жук!", "The old bridge."]))
    _, summary, _ = mill(PrepareConfig(input=(str(tmp_path / "a.jsonl"),)))
    assert {word: count for word, count in summary.unknown_words.items() if word.isalpha()} == {"Жук": 2, "жук": 1}
    monkeypatch.setattr("clozemill.pipelines.prepare.document_processor.MAX_UNKNOWN", 2)
    summary.count_unknown({"a": 1, "b": 5, "c": 9, "d": 1, "e": 1})
    assert {"c": 9, "b": 5}.items() <= summary.unknown_words.items() and len(summary.unknown_words) <= 4


def test_unknown_words_are_those_of_kept_documents(tmp_path, monkeypatch):
    """As are the characters and tokens that they are compared with; also if a batch has several windows."""
    dropped = ["Zug. " + "я" * 300, "Zug жук.", "я" * 210]  # by a filter: fewer than three sentences
    kept = ["The river. The bridge. Жук Zug!", "The " + "ж" * 250 + ". River. Bridge.", "The river. The river. Жук."]
    texts = [*dropped[:2], kept[0], dropped[2], *kept[1:]]
    (tmp_path / "a.jsonl").write_bytes(corpora.jsonl(texts))
    for size in (document_processor.BATCH_CHARS, 40, 1):
        monkeypatch.setattr(document_processor, "BATCH_CHARS", size)
        items, summary, _ = mill(PrepareConfig(input=(str(tmp_path / "a.jsonl"),), min_sentences=3))
        assert (len(items), summary.dropped, summary.unspaced) == (3, {"too_few_sentences": 3}, 250)
        assert summary.unknown_words == {"zug": 1, "Жук": 2, "ж" * 100: 1, "!": 1}
        assert summary.unknown == sum(summary.unknown_words.values())


def test_a_window_never_begins_within_a_word(tmp_path, monkeypatch):
    """A run without spaces is several sentences but one word, whatever comes before it."""
    filler, blob = "The old bridge. " * 70, "x" * 700
    monkeypatch.setattr(document_processor, "BATCH_CHARS", 1200)
    for texts in ([filler, blob], [blob, filler]):
        (tmp_path / "a.jsonl").write_bytes(corpora.jsonl(texts))
        found = {words(payload)[:5]: payload for _, payload in mill(PrepareConfig(input=(str(tmp_path / "a.jsonl"),)))[0]}
        assert found.keys() == {"the o", "[UNK]"} and found["[UNK]"].lengths.tolist() == [1]


def test_what_a_screen_finds_is_dropped_after_the_filters(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(corpora.jsonl(["The old bridge.", "", "The old bridge. The bridge."]))
    config, seen = PrepareConfig(input=(str(tmp_path / "a.jsonl"),)), []

    def screen(key: bytes, ids: np.ndarray) -> tuple[str, str] | None:
        seen.append((key, len(ids)))
        return ("known", "from elsewhere") if len(ids) > 4 else None

    processor = DocumentProcessor(config, WordPiece(VOCABULARY), (screen,))
    (split,) = formats.plan(config).splits
    assert [key for key, _ in processor(split)] == [seen[0][0]]
    assert processor.summary.dropped == {"no_token": 1, "known": 1} and len(seen) == 2
    assert [(reject["reason"], reject["detail"]) for reject in processor.rejects] == [
        ("no_token", "Title 1"),
        ("known", "from elsewhere"),
    ]


def test_redirects_and_other_namespaces_are_counted_but_not_kept(tmp_path):
    pages = [corpora.page("A", "The old bridge."), corpora.page("B", "", 1), corpora.page("C", "", redirect=True)]
    (tmp_path / "a.xml").write_bytes(corpora.wikixml(pages))
    items, summary, rejects = mill(PrepareConfig(input=(str(tmp_path / "a.xml"),)))
    assert [words(payload) for _, payload in items] == ["the old bridge ."]
    assert (summary.dropped, summary.bad, rejects) == ({"other_namespace": 1, "redirect": 1}, 0, [])


def test_filters_are_applied(tmp_path):
    repeated = "The old bridge. " * 6
    (tmp_path / "a.jsonl").write_bytes(corpora.jsonl([repeated, *corpora.texts(2)]))
    items, summary, _ = mill(PrepareConfig(input=(str(tmp_path / "a.jsonl"),), max_repeated_sentences=0.3))
    assert (len(items), summary.dropped) == (2, {"repeated_sentences": 1})


def test_summaries_add_up_and_travel_as_json():
    one = SplitSummary(2, 3, {"a": 1}, 4, 5, 6, 7, {"read": 0.5}, ["x", "z"])
    two = SplitSummary(2, 3, {"a": 1, "b": 2}, 4, 5, 6, 7, {"read": 0.25, "mask": 1.0}, ["y", "w"])
    total = SplitSummary.from_json(json.dumps(json.loads(one.to_json()))).add(two)
    assert total == SplitSummary(4, 6, {"a": 2, "b": 2}, 8, 10, 12, 14, {"read": 0.75, "mask": 1.0}, ["w", "x", "y"])
    assert SplitSummary.from_json('{"read": 3, "token_lengths": [1]}') == SplitSummary(3)  # of an earlier version


def _mill_one(path, megabytes: int, paragraphs: bool) -> float:
    """Process a document of one line; return the peak memory as a multiple of its size."""
    block = " ".join(corpora.sentences(200, np.random.default_rng(3))) + ("\\n" if paragraphs else " ")
    count = (megabytes << 20) // len(block)
    with open(path, "w") as file:
        file.write('{"text": "')
        for _ in range(count):
            file.write(block)
        file.write('"}\n')
    config = PrepareConfig(input=(str(path),))
    processor, tokens = DocumentProcessor(config, WordPiece(VOCABULARY)), 0
    tracemalloc.start()
    for split in formats.plan(config).splits:
        for _, payload in processor(split):
            tokens += len(shuffle_payload.unpack(payload).ids)
        assert not processor.rejects
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tokens > 200 * 4 * count
    return peak / path.stat().st_size


@pytest.mark.parametrize(("megabytes", "paragraphs"), mostly_slow_rows([(10, False), (4, True)], (4, True)))
def test_a_large_document_takes_memory_in_proportion(tmp_path, megabytes, paragraphs):
    assert _mill_one(tmp_path / "a.jsonl", megabytes, paragraphs) < 14


@pytest.mark.slow
def test_a_very_large_document_takes_memory_in_proportion(tmp_path):
    assert _mill_one(tmp_path / "a.jsonl", 100, True) < 14
