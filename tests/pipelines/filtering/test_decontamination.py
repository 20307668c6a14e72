import gzip
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.filtering import decontamination
from clozemill.pipelines.filtering.decontamination import BlockedNgrams, gather, load
from clozemill.pipelines.filtering.word_ngrams import Words
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece

SENTENCE = "seven small boats carry grain over the wide river to old towns by night"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *dict.fromkeys(SENTENCE.split()), "moon", "##light"]
VOCABULARY = Vocabulary.from_tokens(TOKENS)
TOKENIZER, WORDS = WordPiece(VOCABULARY), Words(VOCABULARY)


def evaluation(path: Path, data: str | bytes, size: int = 13) -> BlockedNgrams:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return gather([str(path)], TOKENIZER, size)


def find(found: BlockedNgrams, text: str) -> tuple[str, str] | None:
    return found.find(TOKENIZER.encode([text]).ids, WORDS)


def test_thirteen_words_in_a_row(tmp_path: Path) -> None:
    found = evaluation(tmp_path / "e.txt", f"short one\n{SENTENCE}\n")
    assert (len(found.hashes), found.short) == (2, 1)  # fourteen words contain two 13-grams
    place = f"{tmp_path / 'e.txt'}, line 2"
    first = "seven small boats carry grain over the wide river to old towns by"
    assert find(found, f"Moonlight. {SENTENCE.upper()}, moon.") == (first, place)
    assert find(found, "the moon. " + SENTENCE.split(" ", 1)[1]) == (SENTENCE.split(" ", 1)[1], place)
    assert find(found, SENTENCE.split(" ", 2)[2]) is None  # twelve words
    assert find(found, SENTENCE.replace("river", "moon")) is None
    assert find(found, "") is None


def test_case_and_punctuation_do_not_matter(tmp_path: Path) -> None:
    found = evaluation(tmp_path / "e.txt", SENTENCE)
    assert find(found, "Seven, small. Boats carry grain over. The wide river, to old towns by night")[0].startswith("seven")


def test_decomposed_accents_are_those_of_the_corpus(tmp_path: Path) -> None:
    """The corpus is in NFC, and a cased tokenizer keeps accents."""
    words = "le café est très fermé ici"
    tokenizer = WordPiece(Vocabulary.from_tokens([*TOKENS[:7], *words.split()]), cased=True)
    for form in ("NFC", "NFD"):
        (tmp_path / "e.txt").write_text(unicodedata.normalize(form, f"{words}\r\n"), "utf-8")
        found = gather([str(tmp_path / "e.txt")], tokenizer, 6)
        assert len(found.hashes) == 1 and found.find(tokenizer.encode([words]).ids, Words(tokenizer.vocabulary))


def test_texts_of_a_json_document_are_numbered(tmp_path: Path) -> None:
    """It may be one line: a number of its own for each text, also to count those that are too short."""
    found = evaluation(tmp_path / "e.json", json.dumps({"a": "short", "b": [SENTENCE, "short", {"c": f"moon {SENTENCE}"}]}))
    assert found.short == 2
    assert [place.rsplit(", ", 1)[1] for place in found.places] == ["text 2", "text 4"]


@pytest.mark.parametrize("name", ["e.json", "e.jsonl"])
def test_a_field_that_occurs_twice_hides_no_text(name: str, tmp_path: Path) -> None:
    found = evaluation(tmp_path / name, json.dumps({"a": SENTENCE, "b": f"moon {SENTENCE}"}).replace('"b"', '"a"'))
    assert len(found.places) == 2


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("e.csv", f'id,text\r\n1,"a ""quoted"", {SENTENCE}"\r\n', 2),
        ("e.tsv", f'id\ttext\n7\t"an open quote {SENTENCE}\n', 2),
        ("e.jsonl", '{"a": 1}\n\n' + json.dumps({"x": [{"deep": SENTENCE}]}) + "\n", 3),
        ("e.json", json.dumps({"data": [{"paragraphs": [{"context": SENTENCE}]}]}, indent=1), 1),
        ("e.txt", f"\ufeffone\r\n{SENTENCE}\r\n", 2),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_formats(tmp_path: Path, name: str, data: str, line: int, packed: bool) -> None:
    path = tmp_path / (name + ".gz" * packed)
    found = evaluation(path, gzip.compress(data.encode()) if packed else data)
    assert find(found, SENTENCE)[1] == f"{path}, {'text' if name == 'e.json' else 'line'} {line}"


def test_ngrams_with_an_unknown_word_are_ignored(tmp_path: Path) -> None:
    """Otherwise every text in another script would match."""
    found = evaluation(tmp_path / "e.txt", "один два три четыре пять шесть семь восемь\n", 3)
    assert len(found.hashes) == 0 and found.short == 1
    assert find(found, "раз два три четыре") is None


def test_round_trip(tmp_path: Path) -> None:
    found = evaluation(tmp_path / "e.txt", f"{SENTENCE}\n{SENTENCE} moon\n")
    back = load(found.dump())
    assert back.hashes.tolist() == found.hashes.tolist() == sorted(set(found.hashes.tolist()))
    assert (back.places, back.size, back.short) == (found.places, 13, 0) and find(back, SENTENCE) == find(found, SENTENCE)


def test_the_order_of_files_does_not_matter(tmp_path: Path) -> None:
    evaluation(tmp_path / "a.txt", SENTENCE), evaluation(tmp_path / "b.txt", f"{SENTENCE} moon")
    names = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    assert gather(names, TOKENIZER, 13).dump() == gather(names[::-1], TOKENIZER, 13).dump()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("e.parquet", b"PAR1", "unknown suffix for --decontaminate"),
        ("e.txt", b"a\xff", "is not UTF-8 (byte 1)"),
        ("e.json", b"{", "can't be read as json"),
        ("e.jsonl", b"{}\n{", "can't be read as jsonl (line 2: Expecting property name"),
        ("e.json", b"[" * 100_000, "can't be read as json"),
        ("e.txt.gz", b"no gzip", "is not an intact gzip file"),
        ("e.csv", b'a\0b,"c\n', ""),
    ],
)
def test_unreadable_files_are_one_sentence(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    if not message:
        assert evaluation(tmp_path / name, data).short == 1
        return
    with pytest.raises(UserError) as error:
        evaluation(tmp_path / name, data)
    assert message in str(error.value) and "\n" not in str(error.value) and name in str(error.value)


def test_a_match_in_the_sieve_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All n-grams pass a sieve of one bit; the hashes still decide."""
    monkeypatch.setattr(decontamination, "_SIEVE_BITS", 1)
    found = evaluation(tmp_path / "e.txt", "\n".join(" ".join(np.roll(SENTENCE.split(), at)) for at in range(5)))
    assert find(found, SENTENCE) and find(found, " ".join(reversed(SENTENCE.split()))) is None
