"""Two runs with the same output: the second is rejected with one sentence and changes nothing."""

import json
import os
from pathlib import Path

import pytest

import clozemill
from clozemill.pipelines.beam import run_lock
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import locks
from clozemill.pipelines.prepare import dataset_folder, group_stage
from tests import corpora
from tests.faults.test_kills import contents

SMALL = ["--max-seq-length", "32", "--dupe-factor", "1", "--in-memory", "--no-progress"]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a `prepare` command without its last options, which doesn't wait for a lock."""
    monkeypatch.setattr(run_lock, "_PATIENCE_SECONDS", 0.0)
    (tmp_path / "a.jsonl").write_bytes(corpora.jsonl(corpora.texts(30)))
    vocabulary = str(corpora.write_vocabulary(tmp_path / "vocab.txt"))
    return ["prepare", "--input", str(tmp_path / "a.jsonl"), "--vocab", vocabulary, *SMALL]


def stop(*_) -> None:
    raise UserError("stopped")


def digest(folder: Path) -> str:
    return json.loads((folder / "dataset.json").read_text())["digest"]


def test_a_second_prepare_is_rejected_and_ignores_spilled_files(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "d"
    with monkeypatch.context() as patched:  # the first run ends after reading the input
        patched.setattr(group_stage.GroupStage, "_group_summary", stop)
        assert clozemill.main([*words, "--num-groups", "2", "--output", str(folder)]) == 2
    other = [*words, "--num-groups", "3", "--min-chars", "200", "--output"]
    capsys.readouterr()
    with locks.locked(f"{folder}/.work/lock", "busy"):  # as if it were still running
        before = contents(folder)
        assert len([name for name in before if name.startswith(".work/spill/")]) == 2
        assert clozemill.main([*other, str(folder)]) == 2
        assert contents(folder) == before
    error = capsys.readouterr().err
    assert error == f"clozemill: another clozemill prepare is writing to {folder}: wait for it to end\n"
    with monkeypatch.context() as patched:  # the state of the other run next to spill files of the first
        patched.setattr(dataset_folder.DatasetFolder, "_resume", lambda *_: None)
        assert clozemill.main([*other, str(folder)]) == 0
    assert clozemill.main([*other, str(tmp_path / "e")]) == 0
    assert digest(folder) == digest(tmp_path / "e")


def test_a_rejected_folder_is_not_changed(tmp_path: Path, words: list[str]) -> None:
    """No lock, and no folder for it, is left."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis").write_text("dear")
    assert clozemill.main([*words, "--output", str(tmp_path / "mine")]) == 2
    assert os.listdir(tmp_path / "mine") == ["thesis"]


@pytest.fixture
def vocab(tmp_path: Path, words: list[str]) -> list[str]:
    return ["vocab", *words[1:3], "--output", str(tmp_path / "v.txt"), "--vocab-size", "100", "--in-memory", "--no-progress"]


def test_a_second_vocab_is_rejected(tmp_path: Path, vocab: list[str], capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "v.txt.work").mkdir()
    with locks.locked(f"{tmp_path}/v.txt.work/lock", "busy"):
        assert clozemill.main(vocab) == 2
    said = f"clozemill: another clozemill vocab is writing {tmp_path}/v.txt: wait for it to end\n"
    assert capsys.readouterr().err == said
    assert clozemill.main(vocab) == 0
    assert {name for name in os.listdir(tmp_path) if name.startswith("v.txt")} == {"v.txt", "v.txt.yaml"}


def test_vocab_never_removes_user_folders(tmp_path: Path, vocab: list[str], capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "v.txt.work").mkdir()
    (tmp_path / "v.txt.work/thesis").write_text("dear")
    assert clozemill.main(vocab) == 2
    assert "v.txt.work contains files that clozemill didn't write: move it" in capsys.readouterr().err
    assert (tmp_path / "v.txt.work/thesis").read_text() == "dear"


def test_a_complete_dataset_needs_no_lock(tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be in a read-only folder."""
    command = [*words, "--output", str(tmp_path / "d")]
    assert clozemill.main(command) == 0
    monkeypatch.setattr(locks, "acquire", stop)
    assert clozemill.main(command) == 0
