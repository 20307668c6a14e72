"""Run folders: one writer at a time, nothing written or removed through links, damage detected before training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import clozemill
from clozemill.trainers.common import storage
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.training import run_folder
from tests.trainers import datasets, saved
from tests.trainers import finetune_cases as finetuning

pytestmark = pytest.mark.usefixtures("one_layer")

TINY = ["--preset", "tiny", "--max-position-embeddings", "16", "--batch-size", "4", "--no-tensorboard", "--seed", "3"]


def pretrain(run: Path, dataset: Path, *own: str) -> int:
    more = ["--steps", "4", "--log-steps", "1", "--checkpoint-steps", "2", "--keep-checkpoints", "2"]
    return clozemill.main(["pretrain", *TINY, *more, "--data", str(dataset), "--output", str(run), *own])


def weights(run: Path) -> dict[str, bytes]:
    """Return the weights and moments of the last checkpoint."""
    return saved.bits(run / "checkpoints/step-00000004")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    datasets.write(folder, [[40]])
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """A run of four steps, with the checkpoints of steps 2 and 4."""
    run = tmp_path_factory.mktemp("finished") / "run"
    assert pretrain(run, dataset) == 0
    return run


@pytest.fixture
def halfway(finished: Path, tmp_path: Path) -> Path:
    """The same run, as left by a kill after step 2, to be damaged."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints/step-00000004")
    (run / "curves.png").unlink()
    return run


@pytest.mark.slow
def test_the_lock_is_held_until_the_run_ends(finished: Path, halfway: Path, dataset: Path) -> None:
    assert not (finished / ".lock").exists()
    (halfway / ".lock").write_text("")  # left by a kill
    assert pretrain(halfway, dataset) == 0
    assert weights(halfway) == weights(finished) and not (halfway / ".lock").exists()


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_overwrite_starts_over(finished: Path, halfway: Path, dataset: Path, capsys: pytest.CaptureFixture) -> None:
    """Another seed is refused without --overwrite; a run in progress and a run of another length are replaced."""
    assert pretrain(halfway, dataset, "--seed", "4") == 2
    assert "give the same, --overwrite to start over, or another --output" in capsys.readouterr().err
    assert pretrain(halfway, dataset, "--seed", "4", "--steps", "2") == 2
    assert pretrain(halfway, dataset, "--seed", "4", "--steps", "2", "--overwrite") == 0
    assert json.loads((halfway / "run.json").read_text())["identity"]["seed"] == 4
    for name in ("notes.txt", "checkpoints/notes.txt", "tensorboard/notes.txt"):
        (halfway / name).parent.mkdir(exist_ok=True)
        (halfway / name).write_text("mine")
    (halfway / "tensorboard/events.out.tfevents.1").write_text("old")
    assert pretrain(halfway, dataset, "--overwrite") == 0
    assert "resuming" not in capsys.readouterr().out
    mine = {"notes.txt", "checkpoints/notes.txt", "tensorboard/notes.txt"}
    assert names(halfway) - names(finished) == mine and weights(halfway) == weights(finished)
    assert run_folder.recorded(str(halfway), "identity") == run_folder.recorded(str(finished), "identity")


def test_a_kill_during_overwrite_leaves_nothing_to_resume(finished: Path, halfway: Path, monkeypatch, capsys) -> None:
    """run.json is marked before anything is removed; the next claim, with or without --overwrite, removes the rest."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_folder.checkpoints, "remove_all", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
        run_folder.clear_run_folder(str(halfway))
    assert run_folder.recorded(str(halfway), "identity") is None and (halfway / "checkpoints/step-00000002").exists()
    plan = SimpleNamespace(identity=lambda: {"seed": 5}, config=PretrainConfig(), about=dict, chosen={}, stage="pretrain")
    run_folder.claim_run_folder(plan, str(halfway))
    assert names(halfway) == {"run.json", "pretrain.yaml"} and run_folder.recorded(str(halfway), "identity") == {"seed": 5}


def test_overwrite_refuses_folders_of_others(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A dataset has a run.json, too."""
    shutil.copytree(dataset, tmp_path / "other")
    (tmp_path / "other/run.json").write_text('{"input": "x"}')
    before = names(tmp_path / "other")
    assert pretrain(tmp_path / "other", dataset, "--overwrite") == 2
    assert f"{tmp_path}/other exists and is not a run: give a new folder as --output" in capsys.readouterr().err
    assert names(tmp_path / "other") == before


def test_a_folder_of_another_kind_of_run_is_rejected(halfway: Path, dataset: Path, capsys: pytest.CaptureFixture) -> None:
    (halfway / "pretrain.yaml").rename(halfway / "contrast.yaml")
    assert pretrain(halfway, dataset) == 2
    assert capsys.readouterr().err == f"clozemill: {halfway} is a run of contrast: give another --output\n"


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_a_second_run_in_a_folder_is_rejected(
    command: str, tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture
) -> None:
    with storage.locked(str(tmp_path / "run")):
        if command == "pretrain":
            code = pretrain(tmp_path / "run", dataset)
        else:
            init = finetuning.checkpoint(tmp_path / "init")
            table = finetuning.table(tmp_path / "a.tsv", [("text", "label"), *finetuning.sentences(8, 0)])
            words = ["--task", "classify", "--train", str(table), "--dev", str(table), "--max-seq-length", "16"]
            code = clozemill.main(["finetune", "--init", str(init), *words, "--output", str(tmp_path / "run")])
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert code == 2
    error = capsys.readouterr().err
    assert error == (
        f"clozemill: another clozemill is writing to {tmp_path}/run: wait for it to end, or give another --output\n"
    )


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl", "tensorboard"])
def test_a_run_folder_with_links_is_rejected(
    name: str, halfway: Path, tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "elsewhere").mkdir()
    if (halfway / name).exists():
        (halfway / name).rename(tmp_path / "elsewhere" / name)
    (halfway / name).symlink_to(tmp_path / "elsewhere" / name)
    assert pretrain(halfway, dataset) == 2
    assert f"{halfway}/{name} is a symbolic link, and nothing is written outside {halfway}" in capsys.readouterr().err


def flipped(data: bytes) -> bytes:
    """Flip one bit somewhere."""
    place = int(np.random.default_rng(len(data)).integers(len(data)))
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "halved": lambda data: data[: len(data) // 2],
    "flipped": flipped,
}
NAMES = ("run.json", "pretrain.yaml", "metrics.jsonl")
PARTS = ("checkpoint.json", "vocab.txt", "weights.safetensors", "moments.safetensors")
QUICK = {("run.json", "halved"), ("checkpoint.json", "zeros"), ("moments.safetensors", "flipped")}  # the others train


@pytest.mark.parametrize(
    ("name", "how"),
    [
        pytest.param(name, how, marks=[] if (name, how) in QUICK else pytest.mark.slow)
        for name in (*NAMES, *PARTS)
        for how in DAMAGE
    ],
)
def test_a_damaged_file_is_named_or_ignored(
    name: str, how: str, halfway: Path, finished: Path, dataset: Path, capsys: pytest.CaptureFixture
) -> None:
    """Never silently different weights, never a traceback."""
    folder = halfway if name in NAMES else halfway / "checkpoints/step-00000002"
    path = next(path for path in folder.iterdir() if path.name.startswith(name))
    path.write_bytes(DAMAGE[how](path.read_bytes()))
    capsys.readouterr()
    code = pretrain(halfway, dataset)
    error = capsys.readouterr().err
    assert "Traceback" not in error and "unexpected" not in error
    if code:
        assert code == 2
        assert str(path) in error or str(folder) in error, error
    else:
        assert weights(halfway) == weights(finished)
        lines = [json.loads(line)["step"] for line in (halfway / "metrics.jsonl").read_text().splitlines()]
        assert lines == [1, 2, 3, 4] or f"warning: {path} is corrupt or was changed" in error


def test_digests_are_shortened_in_messages() -> None:
    digest = "0123456789abcdef" * 4
    assert run_folder._shown(f"70 % {digest}, 30 % {digest}") == "70 % 0123456789ab, 30 % 0123456789ab"
    assert run_folder._shown(0.5) == "0.5" and run_folder._shown("a" * 20) == "a" * 20
