"""Warnings about text that no vocabulary can cover: words that are too long, vowel signs that are removed."""

import json
from pathlib import Path

import pytest

import clozemill
from clozemill.pipelines.common.tokenizer_rules import TextRules
from clozemill.pipelines.config import VocabConfig
from clozemill.pipelines.dataset.dataset_warnings import dataset_warnings
from clozemill.pipelines.text.left_out import LeftOut, Removed, read_report, report_bytes, warnings
from clozemill.pipelines.text.pretokenizer import Chunker
from tests import corpora

NONE = LeftOut(0, 90, 0.0, 0)
THAI = "กังหันน้ำหมุนช้าๆข้างลำธาร"  # 20 characters and 6 marks


@pytest.mark.parametrize(
    ("removed", "begins"),
    [
        (Removed(), []),
        (Removed(10_000, 10, 100), []),
        (
            Removed(10_000, 11, 0),
            ["warning: 0.11 % of the characters are in words of more than 200 characters, which become"],
        ),
        (Removed(50, 50, 0), ["warning: 100 % of the characters are in words"]),
        (
            Removed(200, 0, 25),
            ["warning: 12 % of the characters are vowel signs and other marks, which are removed as accents"],
        ),
        (Removed(200, 100, 25), ["warning: 50 % of", "warning: 12 % of"]),
    ],
)
def test_each_loss_has_its_sentence(removed: Removed, begins: list[str]) -> None:
    found = warnings(NONE, removed, VocabConfig())
    assert [line.startswith(begin) for line, begin in zip(found, begins, strict=True)] == [True] * len(begins)
    assert all("put spaces between its words" in line or "give --no-strip-accents" in line for line in found)


def test_a_report_round_trips() -> None:
    lost, removed = LeftOut(3, 90, 0.25, 1), Removed(9, 2, 1)
    assert read_report(report_bytes(lost, removed)) == (lost, removed)


@pytest.mark.parametrize(
    ("chunk", "marks"),
    [
        ("mill", 0), ("mühle", 0), ("mu\u0308hle", 0), ("йод", 0), ("việt", 0), ("❤\ufe0f", 0), ("강가", 0), ("水", 0),
        ("น้ำ", 1), ("สี", 1), ("दि", 0), ("मुर्गी", 2), ("កំប", 1), ("が", 1), ("كَ", 1),
    ],
)  # fmt: skip
def test_marks_other_than_accents(chunk: str, marks: int) -> None:
    assert Chunker(False).marks(chunk) == marks
    assert Chunker(True).marks(chunk) == Chunker(False, TextRules(strip_accents=False)).marks(chunk) == 0


def learn(folder: Path, texts: list[str], *more: str, size: str = "120") -> int:
    """Run `vocab` on a separate file."""
    (folder / "in.jsonl").write_bytes(corpora.jsonl(texts))
    options = ["--input", str(folder / "in.jsonl"), "--output", str(folder / "v.txt"), "--vocab-size", size, "--overwrite"]
    return clozemill.main(["vocab", *options, "--num-workers", "1", "--no-progress", *more])


def test_vocab_warns_about_text_without_spaces_and_vowel_signs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    texts = [*corpora.texts(20), THAI * 12, *[THAI] * 9]
    assert learn(tmp_path, texts) == 0
    told = capsys.readouterr().err.splitlines()
    assert [line.split(" % of the characters ")[1].split(",")[0] for line in told] == [
        "are in words of more than 200 characters",
        "are vowel signs and other marks",
    ]
    assert learn(tmp_path, texts[:20] + texts[-9:] * 9, "--no-strip-accents") == 0
    assert capsys.readouterr().err == ""


def test_a_failed_vocabulary_reports_text_without_spaces(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert learn(tmp_path, [THAI * 12] * 3) == 2
    assert "no word occurs 2 times in the input, because 100 % of the characters are in words" in capsys.readouterr().err
    assert learn(tmp_path, [THAI * 12, THAI, THAI], size="5000") == 2
    told = capsys.readouterr().err
    assert "fewer than --vocab-size 5,000, because 86 % of the characters are" in told and "--min-count" not in told


def test_a_dataset_warns_about_text_without_spaces(tmp_path: Path, demo_vocab: str, capsys: pytest.CaptureFixture) -> None:
    """The manifest mentions it only if there is any."""
    for name, texts in (("plain", corpora.texts(30)), ("thai", [*corpora.texts(30), f"{THAI * 12} {THAI * 10}"])):
        (tmp_path / f"{name}.jsonl").write_bytes(corpora.jsonl(texts))
        options = ["--input", str(tmp_path / f"{name}.jsonl"), "--vocab", demo_vocab, "--output", str(tmp_path / name)]
        command = ["prepare", *options, "--dupe-factor", "1", "--no-gate", "--no-progress", "--in-memory"]
        assert clozemill.main(command) == 0
        contract = json.loads((tmp_path / name / "dataset.json").read_bytes())
        found = [line for line in dataset_warnings(contract) if "are in words of more than 200 characters" in line]
        assert len(found) == (name == "thai") == ("are in words of" in capsys.readouterr().out)
        assert contract["documents"].get("unspaced_characters", 0) == (name == "thai") * 12 * 20
