"""Every file of an interrupted `prepare`, damaged in every way: the same dataset, or an error that names the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import clozemill
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.data_card import card
from clozemill.pipelines.prepare import group_stage
from tests import corpora
from tests.faults.test_kills import contents


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one bit": flip,
    "removed": Path.unlink,
}


def digest(folder: Path) -> str:
    return json.loads((folder / "dataset.json").read_text())["digest"]


def interrupt(words: list[str], folder: Path, group: int) -> None:
    """Run a command until it reaches a group."""
    made = group_stage.GroupStage._group_summary

    def stopping(self, number, values):
        if number == group:
            raise UserError("stopped")
        return made(self, number, values)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(group_stage.GroupStage, "_group_summary", stopping)
        assert clozemill.main([*words, "--output", str(folder)]) == 2


def outcome(words: list[str], folder: Path, expected: str, capsys: pytest.CaptureFixture) -> str:
    """Run the command again; return "" for the same dataset, or its error."""
    capsys.readouterr()
    code = clozemill.main([*words, "--output", str(folder)])
    error = capsys.readouterr().err
    if code == 0:
        assert error == "" and digest(folder) == expected
        return ""
    assert code == 2 and error.count("\n") == 1 and str(folder) in error and "unexpected" not in error, error
    assert not (folder / "dataset.json").exists()
    return error


@pytest.mark.parametrize(
    ("how", "group"),
    [
        ("one bit", 1),
        pytest.param("removed", 1, marks=pytest.mark.slow),
        *(pytest.param(how, group, marks=pytest.mark.slow) for how in DAMAGES for group in (0, 2)),
        *(pytest.param(how, 1, marks=pytest.mark.slow) for how in ("empty", "zeros", "halved")),
    ],
)
def test_a_damaged_file_of_an_interrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, how: str, group: int
) -> None:
    """group: 0: before any is written; 1 and 2: within the second stage."""
    monkeypatch.setattr(card, "write_or_warn", lambda *_: None)  # takes longer than all others
    (tmp_path / "a.jsonl").write_bytes(corpora.jsonl(corpora.texts(30)))
    words = ["prepare", "--input", str(tmp_path / "a.jsonl"), "--vocab", str(corpora.write_vocabulary(tmp_path / "v.txt"))]
    words += ["--num-groups", "3", "--max-seq-length", "32", "--dupe-factor", "1", "--in-memory", "--no-progress"]
    assert clozemill.main([*words, "--output", str(tmp_path / "whole")]) == 0
    interrupt(words, tmp_path / "part", group)
    expected, said = digest(tmp_path / "whole"), {}
    names = [name for name in contents(tmp_path / "part") if name.startswith((".work/", "train/"))]
    assert {name.split("/")[1] for name in names} >= {"state.json", "spill"}
    for name in names:
        shutil.copytree(tmp_path / "part", tmp_path / "d")
        DAMAGES[how](tmp_path / "d" / name)
        said[name] = outcome(words, tmp_path / "d", expected, capsys)
        if not said[name]:
            made, whole = [contents(tmp_path / folder) | {"prepare.yaml": b""} for folder in ("d", "whole")]  # names the folder
            assert made == whole
        shutil.rmtree(tmp_path / "d")
    refused = {name for name in said if said[name]}
    assert all(name == ".work/state.json" or name.endswith(".spill") for name in refused), said
