"""A checkpoint is restored bit-identically or skipped: never in part, and a run never starts over silently."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from clozemill.model.config import EncoderConfig
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import storage
from clozemill.trainers.engines import train_state
from clozemill.trainers.engines.train_state import TrainState
from clozemill.trainers.training import checkpoint_index, checkpoints

ENCODER = EncoderConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=12
)
ABOUT = {"encoder": ENCODER.to_dict(), "objective": "mlm+nsp", "journal": {"sums": [0.1, 1 / 3], "count": 2}}
NAMES = ["weights.safetensors", "moments.safetensors"]


def scattered(found: TrainState, seed: int) -> TrainState:
    """Set random bits in every variable, including infinities, denormals and all kinds of NaN."""
    rng = np.random.default_rng(seed)
    for variable in [*found.weights().values(), *found.moments().values()]:
        variable.assign(rng.integers(0, 1 << 32, variable.shape, np.uint32).view(np.float32))
    return found


def made(seed: int, **changes: int) -> TrainState:
    return scattered(train_state.make(EncoderConfig(**ENCODER.to_dict() | changes), "mlm+nsp", "float32", 0), seed)


def bits_of(variables: dict[str, tf.Variable]) -> dict[str, bytes]:
    return {name: variable.numpy().tobytes() for name, variable in variables.items()}


def bits(found: TrainState) -> dict[str, bytes]:
    return bits_of({f"weights/{path}": variable for path, variable in found.weights().items()} | found.moments())


def save(run: Path, found: TrainState, step: int, loss: float | None = None) -> Path:
    evaluated = None if loss is None else {"masked_lm_loss": loss}
    folder = checkpoints.step_folder(str(run), step)
    checkpoints.write(folder, found.values(), b"[PAD]\n", ABOUT | {"step": step, "eval": evaluated})
    return Path(folder)


def steps(run: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def older() -> TrainState:
    return made(10)


@pytest.fixture(scope="module")
def newer() -> TrainState:
    return made(20)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, older: TrainState, newer: TrainState) -> Path:
    """A run with checkpoints of steps 10 and 20; read-only."""
    run = tmp_path_factory.mktemp("run")
    save(run, older, 10)
    save(run, newer, 20)
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.fixture(scope="module")
def other() -> TrainState:
    """A state to restore into; its values don't matter."""
    return made(30)


def assert_falls_back(run: Path, other: TrainState, older: TrainState, capsys: pytest.CaptureFixture) -> None:
    """Check that the newest checkpoint is skipped with one warning, and only the previous one is restored."""
    assert checkpoints.restore(str(run), other)["step"] == 10
    assert bits(other) == bits(older)
    told = capsys.readouterr().err
    assert told.startswith(f"warning: {run}/checkpoints/step-00000020 is corrupt (") and told.count("\n") == 1
    assert told.endswith("): skipped\n")


def test_restored_state_is_bit_identical(whole: Path, newer: TrainState, other: TrainState) -> None:
    assert bits(other) != bits(newer)
    index = checkpoints.restore(str(whole), other)
    assert bits(other) == bits(newer)
    sizes = {path.name: path.stat().st_size for path in (whole / "checkpoints/step-00000020").glob("[!c]*")}
    digests = {name: hashlib.sha256((whole / "checkpoints/step-00000020" / name).read_bytes()).hexdigest() for name in sizes}
    about = {"step": 20, **ABOUT, "eval": None}
    assert index == {"format_version": 3, **about, "files": sizes, "sha256_of_files": digests}
    assert sorted(sizes) == sorted([*NAMES, "vocab.txt"])


def as_version_2(folder: Path, state: TrainState) -> dict:
    """Replace a checkpoint by one with TensorFlow checkpoints; return its checkpoint.json, without the signature."""
    groups = {
        "weights": {variable.path: variable.value for variable in state.model.weights},
        "moments": {
            f"{name}/{variable.path}": moment.value
            for variable, slots in zip(state.model.trainable_variables, state.slots, strict=True)
            for name, moment in slots.items()
        },
    }
    for name, variables in groups.items():
        (folder / f"{name}.safetensors").unlink()
        tf.train.Checkpoint(**variables).write(str(folder / name))
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "checkpoint.json"}
    index = json.loads((folder / "checkpoint.json").read_text()) | {"format_version": 2}
    index["files"] = {name: len(data) for name, data in files.items()}
    index["sha256_of_files"] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    del index["sha256"]
    (folder / "checkpoint.json").write_bytes(checkpoint_index.dumps(index))
    return index


@pytest.mark.parametrize("version", [1, 2])
def test_a_checkpoint_of_an_older_version_is_read(version: int, run: Path, newer: TrainState, other: TrainState) -> None:
    """Version 1 has no signature in checkpoint.json, and no digests."""
    folder = run / "checkpoints/step-00000020"
    index = as_version_2(folder, newer)
    if version == 1:
        del index["sha256_of_files"]
        (folder / "checkpoint.json").write_text(json.dumps(index | {"format_version": 1}))
    scattered(other, 40)
    assert checkpoints.restore(str(run), other)["step"] == 20 and bits(other) == bits(newer)
    found = checkpoints.weights(checkpoints.find(str(run)))
    assert {name: value.tobytes() for name, value in found.items()} == bits_of(newer.weights())


def test_a_checkpoint_of_an_older_version_without_tensorflow(
    run: Path, newer: TrainState, other: TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It isn't skipped: the run would continue from an earlier step, or start over."""
    as_version_2(run / "checkpoints/step-00000020", newer)
    monkeypatch.delitem(sys.modules, "clozemill.model.conversion.tf_variables", raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    for read in (lambda: checkpoints.restore(str(run), other), lambda: checkpoints.weights(checkpoints.find(str(run)))):
        with pytest.raises(UserError, match=r"^[^ ]+/step-00000020 was written by an earlier version, .* isn't installed: pip"):
            read()


def test_edits_of_checkpoint_json_are_detected(
    run: Path, other: TrainState, older: TrainState, capsys: pytest.CaptureFixture
) -> None:
    """Resuming from another step would continue with the wrong schedule and examples."""
    path = run / "checkpoints/step-00000020/checkpoint.json"
    path.write_text(path.read_text().replace('"step": 20', '"step": 21'))
    assert_falls_back(run, other, older, capsys)


@pytest.mark.parametrize("name", [*NAMES, "vocab.txt"])
def test_zeros_of_the_right_size_are_detected(
    name: str, run: Path, other: TrainState, older: TrainState, capsys: pytest.CaptureFixture
) -> None:
    """A power cut leaves such a file if its size was written to disk before its contents."""
    path = run / "checkpoints/step-00000020" / name
    path.write_bytes(bytes(path.stat().st_size))
    assert_falls_back(run, other, older, capsys)


@pytest.mark.parametrize("which", ["a checkpoint", "the folder of checkpoints"])
def test_pruning_follows_no_links(which: str, whole: Path, run: Path, tmp_path: Path) -> None:
    linked = run / "checkpoints" / ("" if which != "a checkpoint" else "step-00000010")
    shutil.rmtree(linked)
    elsewhere = Path(shutil.copytree(whole / linked.relative_to(run), tmp_path / "elsewhere"))
    (elsewhere / "mine").write_text("mine")
    linked.symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    if which == "a checkpoint":
        checkpoints.prune(str(run), 1, 20)
        assert not linked.is_symlink() and (run / "checkpoints/step-00000020").exists()
    else:
        with pytest.raises(UserError, match=r"checkpoints is a symbolic link, and nothing is written outside"):
            checkpoints.prune(str(run), 1, 20)
    assert sorted(elsewhere.rglob("*")) == before


def test_variables_are_found_by_name(whole: Path, newer: TrainState, other: TrainState) -> None:
    """Not by the order of creation; other programs can read them."""
    one = checkpoints.find(str(whole))
    train_state.assign(other.model, dict(reversed(checkpoints.weights(one).items())))
    assert [value.numpy().tobytes() for value in other.weights().values()] == [
        value.numpy().tobytes() for value in newer.weights().values()
    ]
    names = {"weights": set(newer.weights()), "moments": set(newer.moments())}
    assert len(names["moments"]) == 2 * len(newer.model.trainable_variables)
    assert {"encoder/layer_0/attention/query/kernel", "next_sentence/dense/bias"} < names["weights"]
    assert "second/encoder/layer_0/attention/query/kernel" in names["moments"]
    for name, expected in names.items():
        assert load_file(f"{one.folder}/{name}.safetensors").keys() == expected


def test_a_run_without_checkpoints_starts(tmp_path: Path, other: TrainState) -> None:
    assert checkpoints.restore(str(tmp_path), other) is None
    assert checkpoints.restore(str(tmp_path / "none"), other) is None
    assert list(checkpoints.saved(str(tmp_path))) == []


@pytest.mark.parametrize("left", [[], ["weights.safetensors.tmp"], [*NAMES, "vocab.txt"], [*NAMES, "checkpoint.json.tmp"]])
def test_an_unfinished_checkpoint_is_ignored_and_later_removed(
    left: list[str], run: Path, newer: TrainState, other: TrainState, capsys: pytest.CaptureFixture
) -> None:
    """A kill leaves a folder without checkpoint.json, with the files written before."""
    for step in (5, 25):
        folder = run / f"checkpoints/step-{step:08d}"
        folder.mkdir()
        (folder / "weights_temp").mkdir()
        for name in left:
            (folder / name).write_bytes(b"half")
    assert checkpoints.restore(str(run), other)["step"] == 20
    assert bits(other) == bits(newer)
    assert checkpoints.find(str(run)).step == 20
    save(run, newer, 30)
    checkpoints.prune(str(run), 3, 30)
    assert steps(run) == [10, 20, 30]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kept", ["nothing", "half", "all but a byte"])
@pytest.mark.parametrize("name", [*NAMES, "vocab.txt", "checkpoint.json"])
def test_a_truncated_file(
    name: str, kept: str, run: Path, other: TrainState, older: TrainState, capsys: pytest.CaptureFixture
) -> None:
    path = run / "checkpoints/step-00000020" / name
    data = path.read_bytes().rstrip()
    path.write_bytes({"nothing": b"", "half": data[: len(data) // 2], "all but a byte": data[:-1]}[kept])
    assert_falls_back(run, other, older, capsys)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file(name: str, run: Path, other: TrainState, older: TrainState, capsys: pytest.CaptureFixture) -> None:
    (run / "checkpoints/step-00000020" / name).unlink()
    assert_falls_back(run, other, older, capsys)


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_byte(name: str, run: Path, other: TrainState, older: TrainState, capsys: pytest.CaptureFixture) -> None:
    """The size is unchanged: in the header, and in the data."""
    path = run / "checkpoints/step-00000020" / name
    data = path.read_bytes()
    for place in (0, 9, 1000, len(data) // 3, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert_falls_back(run, other, older, capsys)


@pytest.mark.parametrize("change", ["another shape", "another type", "a missing variable", "another name"])
def test_other_variables_are_rejected(
    change: str, run: Path, other: TrainState, older: TrainState, capsys: pytest.CaptureFixture
) -> None:
    """A file that was written on purpose, with matching digests."""
    folder = run / "checkpoints/step-00000020"
    found = load_file(folder / "moments.safetensors")
    name = "first/encoder/pooler/bias"
    value = found.pop(name)
    if change != "a missing variable":
        changed = {"another shape": value[:-1], "another type": value.astype(np.float64)}.get(change, value)
        found[name + "x" * (change == "another name")] = changed
    save_file(found, folder / "moments.safetensors")
    index = json.loads((folder / "checkpoint.json").read_text())
    data = (folder / "moments.safetensors").read_bytes()
    index["files"]["moments.safetensors"] = len(data)
    index["sha256_of_files"]["moments.safetensors"] = hashlib.sha256(data).hexdigest()
    del index["sha256"]
    (folder / "checkpoint.json").write_bytes(checkpoint_index.dumps(index))
    assert_falls_back(run, other, older, capsys)


@pytest.mark.parametrize(
    "text", ["[]", "{}", "null", '{"format_version": 1, "step": 20}', '{"format_version": 1, "step": 20, "files": 3}', "\xff"]
)
def test_an_invalid_checkpoint_json(
    text: str, run: Path, other: TrainState, older: TrainState, capsys: pytest.CaptureFixture
) -> None:
    (run / "checkpoints/step-00000020/checkpoint.json").write_bytes(text.encode("latin-1"))
    assert_falls_back(run, other, older, capsys)


def test_a_checkpoint_of_another_version(
    run: Path, other: TrainState, older: TrainState, capsys: pytest.CaptureFixture
) -> None:
    path = run / "checkpoints/step-00000020/checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 4}))
    assert_falls_back(run, other, older, capsys)


@pytest.mark.parametrize("name", [*NAMES, "checkpoint.json"])
def test_a_run_with_only_corrupt_checkpoints_does_not_start_over(name: str, run: Path, other: TrainState) -> None:
    for path in run.rglob(name):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"every checkpoint is corrupt: remove that folder to start over"):
        checkpoints.restore(str(run), other)


def test_find(run: Path, older: TrainState) -> None:
    save(run, older, 4, loss=3.0)
    save(run, older, 6, loss=2.5)
    save(run, older, 8, loss=2.5)
    save(run, older, 9, loss=float("nan"))
    assert checkpoints.find(str(run)).step == checkpoints.find(str(run), "latest").step == 20
    best = checkpoints.find(str(run), "best")
    assert (best.step, best.criterion) == (8, 2.5)  # of two as good, the later one
    assert checkpoints.find(f"{run}/checkpoints/step-00000004").criterion == 3.0
    assert checkpoints.find(f"{run}/checkpoints/step-00000010").criterion == float("inf")


def test_the_best_is_the_newest_if_none_was_evaluated(whole: Path) -> None:
    assert checkpoints.find(str(whole), "best").step == 20


def test_find_skips_corrupt_checkpoints(run: Path, capsys: pytest.CaptureFixture) -> None:
    folder = run / "checkpoints/step-00000020"
    (folder / "vocab.txt").unlink()
    assert checkpoints.find(str(run)).step == 10
    assert capsys.readouterr().err == f"warning: {folder} is corrupt (vocab.txt is missing): skipped\n"
    with pytest.raises(
        UserError, match=r"step-00000020 is corrupt \(vocab.txt is missing\): restore it, or give another checkpoint"
    ):
        checkpoints.find(str(folder))


@pytest.mark.parametrize(
    ("about", "first"),
    [
        ('{"config": {"eval_steps": 40, "checkpoint_steps": 0}}', "; the first is written at step 40, or earlier after"),
        ('{"config": {}}', ": wait for it"),
        ("[", ": wait for it"),
    ],
)
def test_find_in_a_run_that_has_just_started(about: str, first: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(about)
    with pytest.raises(UserError) as told:
        checkpoints.find(str(tmp_path))
    assert str(told.value).startswith(f"{tmp_path} has no checkpoint yet{first}")


@pytest.mark.parametrize("place", ["none", "file", "empty", "empty/checkpoints/step-00000001"])
def test_find_without_checkpoints(place: str, tmp_path: Path) -> None:
    (tmp_path / "empty/checkpoints/step-00000001").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=f"{place} has no checkpoint: give the folder of a run, or one of its checkpoints"):
        checkpoints.find(str(tmp_path / place))


@pytest.mark.parametrize(
    "changes",
    [{"vocab_size": 51}, {"hidden_size": 32}, {"intermediate_size": 16}, {"num_hidden_layers": 2}, {"num_hidden_layers": 3}],
)
def test_weights_of_another_size_are_rejected(changes: dict[str, int], whole: Path) -> None:
    model = made(1, **changes).model
    with pytest.raises(ValueError, match=r"^[a-z_0-9/]+ (has the shape \[.*\]|is not a variable of the model|is missing)"):
        train_state.assign(model, checkpoints.weights(checkpoints.find(str(whole))))


def test_weights_of_another_objective_are_rejected(whole: Path) -> None:
    model = train_state.make_model(ENCODER, "mlm", "float32")
    with pytest.raises(ValueError, match=r"next_sentence/dense/(kernel|bias) is not a variable of the model"):
        train_state.assign(model, checkpoints.weights(checkpoints.find(str(whole))))


@pytest.mark.parametrize(
    ("keep", "losses", "kept"),
    [
        (2, [3.0, 1.0, 2.0, 2.0, 4.0], [2, 4, 5]),  # the best is an old one
        (2, [3.0, 2.0, 2.0, 1.0, 4.0], [4, 5]),  # the best is among the newest
        (1, [3.0, 1.0, 1.0, 2.0, 4.0], [3, 5]),  # of two as good, the later one
        (3, [None] * 5, [3, 4, 5]),
        (1, [None, 9.0, None, None, None], [2, 5]),
        (9, [3.0, 1.0, 2.0, 2.0, 4.0], [1, 2, 3, 4, 5]),
        (1, [float("nan"), 2.0, float("nan"), float("inf"), None], [2, 5]),  # NaN is never the best
    ],
)
def test_prune_keeps_the_newest_and_the_best(
    keep: int, losses: list[float | None], kept: list[int], tmp_path: Path, older: TrainState
) -> None:
    for step, loss in enumerate(losses, 1):
        save(tmp_path, older, step, loss)
        checkpoints.prune(str(tmp_path), keep, step)
    assert steps(tmp_path) == kept


def test_prune_touches_nothing_else(run: Path) -> None:
    for name in ("notes.txt", "step-x", "mine"):
        (run / "checkpoints" / name).mkdir()
    checkpoints.prune(str(run), 1, 20)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["mine", "notes.txt", "step-00000020", "step-x"]


def test_a_corrupt_checkpoint_does_not_replace_the_resumed_one(
    run: Path, older: TrainState, newer: TrainState, other: TrainState
) -> None:
    """If step 20 was skipped for step 10, it must not count as the newest when step 15 is saved."""
    path = run / "checkpoints/step-00000020/weights.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    assert checkpoints.restore(str(run), other)["step"] == 10
    save(run, older, 15)
    checkpoints.prune(str(run), 1, 15)
    assert steps(run) == [15]
    assert checkpoints.restore(str(run), other)["step"] == 15


def test_saving_twice_at_the_same_step(run: Path, older: TrainState, newer: TrainState, other: TrainState) -> None:
    (run / "checkpoints/step-00000020/stray").write_bytes(b"x")
    save(run, older, 20)
    assert checkpoints.restore(str(run), other)["step"] == 20
    assert bits(other) == bits(older)
    assert not (run / "checkpoints/step-00000020/stray").exists()


def test_an_unwritable_folder(tmp_path: Path, older: TrainState) -> None:
    (tmp_path / "checkpoints").write_bytes(b"a file")
    with pytest.raises(UserError, match=r"step-00000001 can't be written \(.+\): fix that and run the command again"):
        save(tmp_path, older, 1)


def test_small_files_are_written_atomically(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/file.json"
    (tmp_path / "new/folder").mkdir(parents=True)
    (tmp_path / "new/folder/file.json.tmp").write_bytes(b"left by a kill, and longer than what comes")
    for data in (b"one", b"", b"\x00\xff\n"):
        storage.write(str(path), data)
        assert path.read_bytes() == storage.read(str(path), "-") == data
    assert storage.listed(str(tmp_path / "new/folder")) == ["file.json"]
    storage.write(str(tmp_path / "another/one"), b"1")
    assert storage.listed(str(tmp_path)) == ["another", "new"]


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"/none doesn't exist: look again"):
        storage.read(str(tmp_path / "none"), "look again")
    with pytest.raises(UserError, match=r" can't be read \(.+\): look again"):
        storage.read(str(tmp_path), "look again")
    with pytest.raises(UserError, match=r"/file/below can't be written \(.+\): fix that and run the command again"):
        storage.write(str(tmp_path / "file/below"), b"")
    assert storage.listed(str(tmp_path / "none")) == storage.listed(str(tmp_path / "file")) == []
