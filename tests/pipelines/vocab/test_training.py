import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import clozemill
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import VocabConfig
from clozemill.pipelines.text.left_out import COVERAGE, LeftOut, left_out, left_out_warning
from clozemill.pipelines.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from clozemill.pipelines.vocab import training, word_counts
from clozemill.pipelines.vocab.training import VocabStage, alphabet, learn
from clozemill.pipelines.vocab.word_counts import pack, unpack
from tests import reference_tokenizer

ROOT = Path(__file__).parents[3]
CONSONANTS, VOWELS = "bcdfghklmnprstvwz", "aeiou"


def invented_words(size: int, seed: int = 1) -> list[tuple[str, int]]:
    """(word, count) of a made-up language whose words share syllables; many words have the same count."""
    rng = np.random.default_rng(seed)
    syllables = [c + v for c in CONSONANTS for v in VOWELS]
    counts: dict[str, int] = {}
    for number in range(size):
        word = "".join(syllables[at] for at in rng.integers(0, len(syllables), rng.integers(1, 5)))
        counts[word] = counts.get(word, 0) + 1 + 1000 // (number + 1)
    counts |= {",": 50, "é": 3, "café": 4, "中": 5, "文": 1, "ж": 1, "жжж": 2, "42": 9, "²x": 2}
    return list(counts.items())


COUNTS = invented_words(3000)


@pytest.mark.parametrize("size", [200, 500, 2000])
def test_the_size_is_exact(size: int) -> None:
    tokens = learn(COUNTS, size, 1000)
    assert len(tokens) == len(set(tokens)) == size
    assert tuple(tokens[:5]) == SPECIAL_TOKENS
    assert len(Vocabulary.from_tokens(tokens)) == size


def test_larger_vocabularies_extend_smaller_ones() -> None:
    assert learn(COUNTS, 2000, 1000)[:500] == learn(COUNTS, 500, 1000)


def test_the_order_of_the_counts_does_not_matter() -> None:
    expected = learn(COUNTS, 1000, 1000)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(COUNTS))
        assert learn([COUNTS[at] for at in order], 1000, 1000) == expected


SCRIPT = """
import hashlib
from clozemill.pipelines.vocab.training import learn
from tests.pipelines.vocab.test_training import COUNTS
print(hashlib.sha256("\\n".join(learn(COUNTS, 1500, 1000)).encode()).hexdigest())
"""


@pytest.mark.slow
def test_identical_in_every_process() -> None:
    """For any hash seed and number of threads of the library."""
    found = set()
    for seed, parallel in (("1", "false"), ("2", "true"), ("3", "true")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1


def test_alphabet() -> None:
    assert alphabet([("ab", 1), ("a", 5), (",", 2), ("中", 1), ("3", 1)], 100) == [
        ",",
        "3",
        "a",
        "b",
        "中",
        "##3",
        "##a",
        "##b",
    ]
    # The most frequent are kept, after ASCII letters and digits; ties are broken by code point.
    assert alphabet([("é", 9), ("z", 1), ("ж", 2), ("ñ", 2)], 3) == ["z", "é", "ñ", "##z", "##é", "##ñ"]
    # A symbol gets a ## form only if it continues a word.
    assert alphabet([("≠", 1), ("x²", 1), ("½", 1)], 9) == ["x", "²", "½", "≠", "##x", "##²", "##½"]


def test_every_character_has_entries() -> None:
    tokens = set(learn(COUNTS, 600, 1000))
    chars = {char for word, _ in COUNTS for char in word}
    assert chars <= tokens
    assert {"##" + char for char in chars if char not in ",中文"} <= tokens
    assert {"##,", "##中"}.isdisjoint(tokens)


@pytest.mark.parametrize("size", [150, 1000])
def test_no_word_of_the_corpus_is_unknown(size: int) -> None:
    tokens = learn(COUNTS, size, 1000)
    encoded = WordPiece(Vocabulary.from_tokens(tokens)).encode([word for word, _ in COUNTS])
    assert (encoded.lengths > 0).all()
    assert tokens.index("[UNK]") not in encoded.ids


def test_frequent_words_become_tokens() -> None:
    tokens = learn(COUNTS, 2000, 1000)
    frequent = [word for word, _ in sorted(COUNTS, key=lambda pair: -pair[1])[:100]]
    assert set(frequent) <= set(tokens)


def test_characters_beyond_the_alphabet_have_no_entry() -> None:
    tokens = set(learn(COUNTS, 300, 20))
    assert {"é", "ж", "café", "中", ","}.isdisjoint(tokens)
    assert sum(len(token) == 1 for token in tokens) == 20
    assert not any(set("éж中") & set(token) for token in tokens)


def ideographs(count: int) -> list[tuple[str, int]]:
    """Return (character, count) of this many ideographs: later ones are rarer, the last 20 occur once."""
    return [(chr(0x7000 + at), 1 if at >= count - 20 else 4 + 40_000 // (at + 1)) for at in range(count)]


def test_by_default_enough_ideographs_are_kept() -> None:
    counts = [*ideographs(3000), *COUNTS]
    kept = alphabet(counts, 0, 10_000)
    total = sum(count * len(word) for word, count in counts)
    lost = left_out(counts, {}, kept)
    assert len(kept) > 2500 and 0 < lost.characters < 200
    assert 1 - COVERAGE >= lost.share > 1 - COVERAGE - 20 / total
    assert len(alphabet(counts, 0, 10_000, 1.0)) == 3000 + len(alphabet(COUNTS, 9999))


def test_up_to_a_thousand_characters_the_default_keeps_all() -> None:
    counts = ideographs(1000)
    assert len(alphabet(counts, 0, 1)) == 1000
    assert learn(COUNTS, 500, 0) == learn(COUNTS, 500, 1000)


def test_a_requested_alphabet_size_is_exact() -> None:
    counts = [*ideographs(3000), *COUNTS]
    for limit in (1, 40, 1500):
        assert len({entry.removeprefix("##") for entry in alphabet(counts, limit, 10_000)}) == limit


def test_the_default_leaves_room_for_pieces() -> None:
    words = invented_words(3000)
    tokens = learn([*ideographs(3000), *words], 2000, 0)
    pieces = [token for token in tokens[5:] if len(token.removeprefix("##")) > 1]
    assert len(tokens) == 2000 and 245 <= len(pieces) <= 260
    alone = learn(ideographs(3000), 2000, 0)
    assert len(alone) == 2000 and all(len(token) == 1 for token in alone[5:])
    assert set(alone[5:]) == {char for char, _ in ideographs(3000)[:1995]}


def test_characters_left_out() -> None:
    counts = [("ab", 6), ("中", 3), ("文", 1)]
    assert left_out(counts, {"b": 2, "ж": 3, "é": 1}, ["[PAD]", "a", "##b", "b", "中"]) == LeftOut(3, 6, 5 / 22, 2)
    none = left_out(counts, {}, ["a", "b", "中", "文"])
    assert none.characters == 0 and left_out_warning(none, VocabConfig()) == ""


@pytest.mark.parametrize(
    ("lost", "limit", "expected"),
    [
        (
            LeftOut(2000, 3001, 0.1953, 0),
            1000,
            "warning: 2,000 of 3,001 characters (19.53 % of all occurrences) are left out, and words with them become [UNK]: "
            "to keep more, give a higher --max-alphabet (now 1,000)",
        ),
        (
            LeftOut(1, 90, 0.00001, 1),
            0,
            "1 of 90 characters (less than 0.01 % of all occurrences) is left out, and words with them become [UNK]: "
            "to keep more, give a lower --min-count",
        ),
        (
            LeftOut(7, 5000, 0.001, 3),
            0,
            "warning: 7 of 5,000 characters (0.10 % of all occurrences) are left out, and words with them become [UNK]: "
            "to keep more, give a higher --max-alphabet (now as many as cover 99.95 % and fit), or a higher --vocab-size, "
            "or a lower --min-count",
        ),
    ],
)
def test_the_warning_names_a_fix(lost: LeftOut, limit: int, expected: str) -> None:
    assert left_out_warning(lost, VocabConfig(max_alphabet=limit)) == expected


@pytest.mark.parametrize(
    ("counts", "limit", "rare", "sentence"),
    [
        (ideographs(3000), 1000, {}, "characters .* are left out: give --vocab-size 1005 or less, a higher --max-alphabet "),
        (ideographs(3000), 0, {}, "--vocab-size 4,000: give --vocab-size 3005 or less, or more text$"),
        (ideographs(30), 0, {"ж": 1}, "give --vocab-size 35 or less, a lower --min-count, or more text$"),
        (ideographs(30), 0, {"\u7000": 1}, "4,000: give --vocab-size 35 or less, a lower --min-count, or more text$"),
    ],
)
def test_the_error_for_a_large_size_names_causes(
    counts: list[tuple[str, int]], limit: int, rare: dict[str, int], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        learn(counts, 4000, limit, rare)


@pytest.mark.parametrize(("size", "sentence"), [(60, "--vocab-size 60 is too small for the 64"), (100_000, "yields")])
def test_invalid_sizes_are_rejected(size: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        learn(COUNTS, size, 1000)
    assert "--vocab-size" in str(error.value)


def test_the_message_names_the_largest_possible_size() -> None:
    for counts, limit in ((COUNTS, 1000), ([*COUNTS, *ideographs(1500)], 0)):
        with pytest.raises(UserError) as error:
            learn(counts, 100_000, limit)
        largest = int(str(error.value).split("give --vocab-size ")[1].split()[0])
        assert len(learn(counts, largest, limit)) == largest
        with pytest.raises(UserError):
            learn(counts, largest + 1, limit)


def test_large_counts_are_scaled_down(monkeypatch: pytest.MonkeyPatch) -> None:
    doubled = [(word, 2 * count) for word, count in COUNTS]
    total = sum(count for _, count in COUNTS)
    monkeypatch.setattr(word_counts, "FED_WORDS", total)
    assert learn(doubled, 1000, 1000) == learn(COUNTS, 1000, 1000)
    monkeypatch.setattr(word_counts, "FED_WORDS", 10)
    assert len(learn([(word, count * 10**9) for word, count in COUNTS], 1000, 1000)) == 1000


def test_packed_counts() -> None:
    counts = {"b": 2, "a": 1, "\ud800": 3, "中": 4}
    assert unpack(pack(counts)) == sorted(counts.items())
    assert pack(counts) == pack(dict(reversed(counts.items())))
    assert word_counts.add_packed({"a": 1}, pack(counts)) == {"a": 2, "b": 2, "\ud800": 3, "中": 4}


# From here on: `clozemill vocab`, in memory.

SENTENCES = [
    f"The {word} of Café {COUNTS[-at][0]} met {count} others, didn't it?" for at, (word, count) in enumerate(COUNTS[:400])
]
RECORDS = ['{"text": ' + json.dumps(sentence * (1 + at % 3)) + "}\n" for at, sentence in enumerate(SENTENCES)]
OPTIONS = ["--vocab-size", "400", "--num-workers", "1", "--no-progress"]


def run_vocab(folder: Path, *more: str, pattern: str = "*") -> bytes:
    output = folder.parent / f"{folder.name}.txt"
    assert (
        clozemill.main(["vocab", "--input", str(folder / pattern), "--output", str(output), "--overwrite", *OPTIONS, *more])
        == 0
    )
    return output.read_bytes()


def write(folder: Path, **files: list[str]) -> Path:
    folder.mkdir()
    for name, lines in files.items():
        text = "".join(lines)
        if name.endswith("gz"):
            (folder / "packed.jsonl.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / f"{name}.jsonl").write_text(text, "utf-8")
    return folder


def test_vocab_does_not_depend_on_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = run_vocab(write(tmp_path / "one", all=RECORDS))
    lines = one.decode().split("\n")
    assert lines.pop() == "" and len(lines) == 400 and tuple(lines[:5]) == SPECIAL_TOKENS
    backwards = RECORDS[::-1]
    assert run_vocab(write(tmp_path / "many", z=backwards[:7], b=backwards[7:300], a_gz=backwards[300:])) == one
    monkeypatch.setattr("clozemill.pipelines.readers.formats.MIN_SPLIT", 4096)
    monkeypatch.setattr(word_counts, "_BATCH_CHARS", 100)
    assert run_vocab(write(tmp_path / "split", renamed=RECORDS)) == one


def test_vocab_covers_its_corpus_and_saves_its_configuration(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", all=RECORDS)
    data = run_vocab(folder, "--min-count", "1")
    encoded = WordPiece(Vocabulary.from_bytes(data, "v")).encode(SENTENCES)
    assert 1 not in encoded.ids
    again = tmp_path / "again.txt"
    assert clozemill.main(["vocab", "--config", str(tmp_path / "in.txt.yaml"), "--output", str(again)]) == 0
    assert again.read_bytes() == data


def test_vocab_cased(tmp_path: Path) -> None:
    tokens = run_vocab(write(tmp_path / "in", all=RECORDS), "--cased").decode().split()
    assert "The" in tokens and "Café" in tokens and "the" not in tokens


def test_min_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rarer words don't reach learn(); words are counted in the complete input, not per split."""
    monkeypatch.setattr("clozemill.pipelines.readers.formats.MIN_SPLIT", 4096)
    seen: list[list[tuple[str, int]]] = []
    monkeypatch.setattr(training, "learn", lambda counts, *rest: seen.append(counts) or ["x"])
    folder = write(tmp_path / "in", a=RECORDS[:200], b=RECORDS[200:])
    run_vocab(folder, "--min-count", "3")
    words = Counter(
        word for record in RECORDS for word in reference_tokenizer.basic_tokens(json.loads(record)["text"], cased=False)
    )
    assert sorted(seen[0]) == sorted((word, count) for word, count in words.items() if count >= 3)


def test_vocab_reports_characters_that_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """With the options that include them; characters of words below --min-count are counted, too."""
    folder = write(tmp_path / "in", all=[*RECORDS, *[json.dumps({"text": "ж 中 中 ab文"}, ensure_ascii=False) + "\n"] * 40])
    run_vocab(folder, "--max-alphabet", "34", "--min-count", "3")
    told = capsys.readouterr().err
    assert told.startswith("warning: ") and told.count("\n") == 1 and "give a higher --max-alphabet (now 34)" in told
    one = write(tmp_path / "one", all=[*RECORDS, '{"text": "ж"}\n'])
    run_vocab(one, "--min-count", "2")
    assert capsys.readouterr().err.startswith("1 of ")
    run_vocab(one, "--min-count", "1")
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "one.txt.work").exists()


def test_nothing_above_the_min_count(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write(tmp_path / "in", all=RECORDS)
    command = ["vocab", "--input", str(folder / "*"), "--output", str(tmp_path / "v.txt"), *OPTIONS, "--min-count", "1000000"]
    assert clozemill.main(command) == 2
    assert "no word occurs 1000000 times" in capsys.readouterr().err


def test_too_many_malformed_records(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write(tmp_path / "in", all=RECORDS, bad=["{broken\n", '{"body": "x"}\n', '{"text": 5}\n'] * 2)
    command = ["vocab", "--input", str(folder / "*"), "--output", str(tmp_path / "v.txt"), *OPTIONS]
    assert clozemill.main(command) == 2
    assert f"6 of {len(RECORDS) + 6} records are malformed" in capsys.readouterr().err
    assert not (tmp_path / "v.txt").exists()
    assert run_vocab(folder, "--max-reject-rate", "0.02") == run_vocab(folder, pattern="all*")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--vocab-size", "20"], "is too small for the"),
        (["--vocab-size", "1000000"], "fewer than --vocab-size 1,000,000"),
        (["--vocab-size", "15"], "--vocab-size is 15: give a value between 16"),
        (["--text-field", "body"], "records are malformed"),
        (["--input", "nowhere/*.jsonl"], "no file matches nowhere/*.jsonl"),
    ],
)
def test_errors_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture, more: list[str], sentence: str) -> None:
    folder = write(tmp_path / "in", all=RECORDS)
    command = ["vocab", "--input", str(folder / "*"), "--output", str(tmp_path / "v.txt"), *OPTIONS, *more]
    assert clozemill.main(command) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.startswith("clozemill: ") and told.count("\n") == 1
    assert not (tmp_path / "v.txt").exists() and not (tmp_path / "v.txt.yaml").exists()


def test_a_finished_vocabulary_is_one_atomic_write(tmp_path: Path) -> None:
    config = training.VocabConfig(output=str(tmp_path / "v.txt"), vocab_size=300)
    stage = VocabStage(config)
    rows = [
        stage.prepare_counts(0, pack(dict(COUNTS))),
        stage.prepare_counts(word_counts.BUCKETS, pack({"\0read": 10, "\0bad": 0})),
    ]
    assert {key for key, _ in rows} == {0}
    stage.run(0, [packed for _, packed in rows])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.txt", "v.txt.yaml"]
