"""`clozemill vocab --extend`: old entries stay, the pieces that save the most follow, and errors are one sentence."""

import hashlib
import json
import string
from pathlib import Path

import pytest

import clozemill
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import PrepareConfig, VocabConfig
from clozemill.pipelines.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from clozemill.pipelines.vocab.extension import TokenRate, token_rate
from clozemill.pipelines.vocab.recorded_rules import RecordedRules, completed_rules, contradictions, recorded_rules
from clozemill.pipelines.vocab.word_counts import pack

LETTERS = [*string.ascii_lowercase, *("##" + char for char in string.ascii_lowercase)]
BASE = [*SPECIAL_TOKENS, ".", "the", *LETTERS]
BPE = "".join(f"{token}\n" for token in [*SPECIAL_TOKENS, "Ġthe", "Ġship"])
# whale 10 times, whaling 6, ship 3, once each: keel, mast.
TEXTS = ["the whale. the whale whaling", "whaling ship"] * 3 + ["the whale whale", "keel", "whale, mast whale"]


def write(folder: Path, texts: list[str] = TEXTS, name: str = "new.jsonl", **files: str) -> Path:
    """Write a corpus, the vocabulary to extend, and other files; return the folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    (folder / "old.txt").write_text("".join(f"{token}\n" for token in BASE))
    for other, content in files.items():
        (folder / other.replace("_", ".")).write_text(content)
    return folder


def extend(folder: Path, *more: str, output: str = "out.txt") -> int:
    given = ["--input", str(folder / "new*.jsonl"), "--output", str(folder / output), "--extend", str(folder / "old.txt")]
    return clozemill.main(["vocab", *given, "--num-workers", "1", "--no-progress", *more])


def test_pieces_follow_the_old_entries(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write(tmp_path / "a")
    assert extend(folder, "--add", "2") == 0
    assert (folder / "out.txt").read_text() == "".join(f"{token}\n" for token in [*BASE, "whal", "whaling"])
    # 32 words; 123 tokens: whale 10 x 5, whaling 6 x 7, ship 3 x 4, keel and mast 8, the 7, . 3, the unknown comma 1; then 57.
    told = capsys.readouterr().out
    assert "--input: 3.844 tokens per word before, 1.781 after (53.7 % fewer)" in told
    assert "; unknown words 3.12 % before, 3.12 % after\n" in told
    saved = (folder / "out.txt.yaml").read_text()
    assert "vocab_size: null\n" in saved and "add: 2\n" in saved and "cased: false\n" in saved


def test_rare_words_decide_nothing_but_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """keel and mast occur once: with --min-count 1 they are candidates, too."""
    folder = write(tmp_path / "a")
    assert extend(folder, "--add", "5") == 2
    assert "--add 5 is more than the 4 pieces that save a token in --input: give --add 4 or less" in capsys.readouterr().err
    assert extend(folder, "--add", "6", "--min-count", "1") == 0
    assert (folder / "out.txt").read_text().split()[len(BASE) :] == ["whal", "whaling", "whale", "ship", "keel", "mast"]


def test_the_general_corpus_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write(write(tmp_path / "a"), ["the whale eats"], "general.jsonl")
    assert extend(folder, "--add", "3", "--general", str(folder / "general.jsonl")) == 0
    told = capsys.readouterr().out
    # the whale eats: 1 + 5 + 4 tokens before, 1 + 1 + 4 after.
    assert "--general: 3.333 tokens per word before, 2.000 after (40.0 % fewer)\n" in told
    alone = (folder / "out.txt").read_bytes()
    assert extend(folder, "--add", "3", output="other.txt") == 0
    assert (folder / "other.txt").read_bytes() == alone  # it decides nothing
    assert "--general" not in capsys.readouterr().out


def test_the_bytes_depend_on_the_counts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write(tmp_path / "one")
    assert extend(one, "--add", "4") == 0
    monkeypatch.setattr("clozemill.pipelines.readers.formats.MIN_SPLIT", 40)
    two = write(write(tmp_path / "two", TEXTS[::-1][:4]), TEXTS[::-1][4:], "new2.jsonl")
    assert extend(two, "--add", "4") == 0
    assert (one / "out.txt").read_bytes() == (two / "out.txt").read_bytes()


@pytest.mark.slow
def test_two_workers_make_the_same_bytes(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    assert extend(folder, "--add", "4") == 0
    assert extend(folder, "--add", "4", "--num-workers", "2", "--no-in-memory", output="two.txt") == 0
    assert (folder / "out.txt").read_bytes() == (folder / "two.txt").read_bytes()


def test_an_extended_vocabulary_can_be_extended(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    assert extend(folder, "--add", "1") == 0
    again = ["vocab", "--input", str(folder / "new.jsonl"), "--output", str(folder / "b.txt"), "--no-progress"]
    assert clozemill.main([*again, "--extend", str(folder / "out.txt"), "--add", "1"]) == 0
    assert (folder / "b.txt").read_text().split()[-2:] == ["whal", "whaling"]
    assert clozemill.main(["vocab", "--config", str(folder / "b.txt.yaml"), "--output", str(folder / "c.txt")]) == 0
    assert (folder / "b.txt").read_bytes() == (folder / "c.txt").read_bytes()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--add", "0"], "--add is 0: give a value between 1 and"),
        ([], "--add is missing: give the number of pieces to append to --extend"),
        (["--add", "9"], "--add 9 is more than the 4 pieces that save a token in --input: give --add 4 or less"),
        (["--add", "2", "--vocab-size", "30522"], "--vocab-size is for a new vocabulary, but --extend keeps one: leave"),
        (["--add", "2", "--max-alphabet", "10"], "--max-alphabet is for a new vocabulary, but --extend keeps one: leave"),
        (["--add", "2", "--cased"], "--cased contradicts OLD.yaml, which records cased false: leave --cased out"),
        (["--add", "2", "--no-strip-accents"], "--no-strip-accents contradicts OLD.yaml, which records strip_accents true"),
        (["--add", "2", "--extend", "EMPTY"], "empty.jsonl lacks [PAD], [UNK], [CLS], [SEP], [MASK]: give a vocab.txt"),
        (
            ["--add", "2", "--extend", "BPE"],
            "bpe.txt is a vocabulary of byte-level BPE (tokens begin with 'Ġ'), and datasets are",
        ),
        (["--add", "2", "--extend", "no.txt"], "--extend no.txt doesn't exist: give a vocabulary file to extend"),
        (["--add", "2", "--general", "no*.jsonl"], "no file matches no*.jsonl"),
        (["--add", "2", "--general", "EMPTY"], "--general has no words: check it"),
        (["--add", "2", "--output", "OLD", "--overwrite"], "is input, and --overwrite could replace it"),
    ],
)
def test_errors_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture, more: list[str], sentence: str) -> None:
    folder = write(tmp_path / "a", old_txt_yaml="cased: false\n", empty_jsonl='{"text": " "}\n', bpe_txt=BPE)
    places = {"EMPTY": "empty.jsonl", "BPE": "bpe.txt", "OLD": "old.txt"}
    assert extend(folder, *(str(folder / places[word]) if word in places else word for word in more)) == 2
    told = capsys.readouterr().err
    assert sentence.replace("OLD", str(folder / "old.txt")) in told and told.startswith("clozemill: ")
    assert told.count("\n") == 1 and not (folder / "out.txt").exists()


def test_a_corpus_without_new_words(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write(tmp_path / "a", ["the a. the b."])
    assert extend(folder, "--add", "1") == 2
    told = capsys.readouterr().err
    assert "old.txt has every word that occurs 2 times in --input as a single token already: give a lower --min-count," in told
    assert extend(folder, "--add", "1", "--min-count", "1") == 2
    assert "old.txt has every word of --input as a single token already: give another --input, or" in capsys.readouterr().err
    assert clozemill.main(["vocab", "--input", str(folder / "new.jsonl"), "--output", "v", "--add", "3"]) == 2
    assert "--add needs --extend: give the vocabulary file to extend, or leave --add out" in capsys.readouterr().err


def test_token_rates_are_those_of_the_tokenizer() -> None:
    old, new = (WordPiece(Vocabulary.from_tokens([*BASE, *more])) for more in ([], ["##at"]))
    packed = [pack({"that": 3, "\0read": 9}), pack({"café": 2, "the": 1})]
    rate = token_rate("--input", packed, old, new)
    assert rate == TokenRate("--input", 6, 3 * 4 + 2 + 1, 3 * 3 + 2 + 1, 2, 2)
    assert rate.line.startswith("--input: 2.500 tokens per word before, 2.000 after (20.0 % fewer); unknown words 33.33 %")
    assert TokenRate("--general", 2, 2, 3, 0, 0).line == ("--general: 1.000 tokens per word before, 1.500 after (50.0 % more)")


# The rules recorded beside a vocabulary.

DATA = b"words"
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("v.txt.yaml", "cased: true\nstrip_accents: null\ntokenize_chinese_chars: true\n", (True, False, True)),
        ("v.txt.yaml", "cased: null\nstrip_accents: false\n", (False, False, True)),
        ("dataset.json", json.dumps({"vocabulary": {"sha256": SHA, "cased": False, "strip_accents": False}}),
         (False, False, True)),
        ("checkpoint.json", json.dumps({"vocabulary": {"sha256": SHA, "cased": True, "tokenize_chinese_chars": False}}),
         (True, False, False)),
        ("checkpoint.json", json.dumps({"vocabulary": {"sha256": "other", "cased": True}}), None),
        ("other.json", "{}", None),
    ],
)  # fmt: skip
def test_recorded_rules(tmp_path: Path, name: str, content: str, expected: tuple | None) -> None:
    (tmp_path / name).write_text(content)
    found = recorded_rules(str(tmp_path / "v.txt"), DATA)
    assert found == (expected and RecordedRules(str(tmp_path / name), *expected))


def test_a_record_that_is_damaged(tmp_path: Path) -> None:
    for content in ("cased: 3\n", "cased: true\nstrip_accents: maybe\n"):
        (tmp_path / "v.txt.yaml").write_text(content)
        with pytest.raises(UserError, match=r"v.txt.yaml can't be used \(.*\): restore it, or move it away from"):
            recorded_rules(str(tmp_path / "v.txt"), DATA)


@pytest.mark.parametrize(
    ("record", "options", "told"),
    [
        (
            "cased: false\nstrip_accents: false",
            {},
            ["strip_accents false, but the dataset is prepared without it: give --no-strip"],
        ),
        ("cased: false\nstrip_accents: false", {"strip_accents": False}, []),
        ("cased: true", {}, ["cased true, but", "strip_accents false, but"]),
        ("cased: true", {"cased": True}, []),
        ("tokenize_chinese_chars: false", {}, ["tokenize_chinese_chars false, but"]),
        ("cased: 7", {}, []),  # can't be used
        ("", {}, []),
    ],
)
def test_what_prepare_contradicts(record: str, options: dict, told: list[str], tmp_path: Path) -> None:
    (tmp_path / "v.txt.yaml").write_text(record)
    found = contradictions(PrepareConfig(vocab=str(tmp_path / "v.txt"), **options), DATA)
    assert len(found) == len(told)
    assert all(line.startswith(f"{tmp_path}/v.txt.yaml records {start}") for line, start in zip(found, told, strict=True))


def test_recorded_rules_complete_the_options() -> None:
    plain = completed_rules(VocabConfig())
    assert (plain.cased, plain.strip_accents, plain.tokenize_chinese_chars) == (False, None, True)
    assert completed_rules(VocabConfig(cased=True)).cased is True
    recorded = RecordedRules("v.txt.yaml", True, True, False)
    found = completed_rules(VocabConfig(), recorded)
    assert (found.cased, found.strip_accents, found.tokenize_chinese_chars) == (True, True, False)
    assert completed_rules(VocabConfig(cased=True, strip_accents=True, tokenize_chinese_chars=False), recorded) == found
    uncased = completed_rules(VocabConfig(), RecordedRules("v.txt.yaml", False, True, True))
    assert (uncased.cased, uncased.strip_accents, uncased.tokenize_chinese_chars) == (False, None, True)
    for given, flag in (({"cased": False}, "--no-cased"), ({"tokenize_chinese_chars": True}, "--tokenize-chinese-chars")):
        with pytest.raises(UserError, match=f"^{flag} contradicts v.txt.yaml, which records .*: leave {flag} out$"):
            completed_rules(VocabConfig(**given), recorded)


def test_a_cased_vocabulary_stays_cased(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", ["The Ship. the ship"] * 2, old_txt_yaml="cased: true\n")
    (folder / "old.txt").write_text("".join(f"{token}\n" for token in [*BASE, "S", "T"]))
    assert extend(folder, "--add", "3") == 0
    assert (folder / "out.txt").read_text().split()[-3:] == ["##hip", "The", "Ship"]
