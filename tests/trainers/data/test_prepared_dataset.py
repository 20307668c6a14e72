"""Properties of a dataset, and every error: one sentence that names the difference and the fix."""

import json
from pathlib import Path

import pytest

from clozemill.model.pretraining_model import OBJECTIVES
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import manifest
from clozemill.trainers.data import prepared_dataset
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from tests.trainers import datasets
from tests.trainers.datasets import ENTRIES, LENGTH, PREDICTIONS, VOCABULARY


def mistake(function, *arguments) -> str:
    """Return the message of the UserError."""
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def edit(folder: Path, **changes) -> PreparedDataset:
    """Change fields of the configuration or of the vocabulary in a manifest."""
    path = folder / "dataset.json"
    about = json.loads(path.read_bytes())
    for part in ("config", "vocabulary"):
        about[part] |= {key: value for key, value in changes.items() if key in about[part]}
    path.write_bytes(manifest.dumps(about))  # signed again
    return prepared_dataset.read(str(folder))


def test_properties_of_a_dataset(tmp_path: Path) -> None:
    dataset = datasets.write(tmp_path, [[3, 4], [5, 6]], [7])
    assert (dataset.max_seq_length, dataset.max_predictions, dataset.compression) == (LENGTH, PREDICTIONS, "none")
    assert (dataset.copies, dataset.vocabulary["size"], dataset.vocabulary["cased"]) == (2, ENTRIES, False)
    assert [shard["examples"] for shard in dataset.shards("train", 1)] == [5, 6]
    assert [shard["examples"] for shard in dataset.shards("eval")] == [7]
    assert dataset.shards("train", 2) == dataset.shards("eval", 1) == []
    path = dataset.path(dataset.shards("train", 1)[1])
    assert path == f"{tmp_path}/train/copy-01/examples-00001-of-00002.tfrecord" and Path(path).exists()
    assert dataset.read_vocabulary() == VOCABULARY


def test_a_dataset_of_prepare(demo_dataset: Path) -> None:
    dataset = prepared_dataset.read(str(demo_dataset))
    assert (dataset.max_seq_length, dataset.max_predictions, dataset.copies) == (128, 20, 2)
    assert [len(dataset.shards("train", copy)) for copy in (0, 1)] == [3, 3] and len(dataset.shards("eval")) == 1
    assert dataset.read_vocabulary() == (demo_dataset / "vocab.txt").read_bytes()
    prepared_dataset.check_training(dataset)
    prepared_dataset.check_objective(dataset, "mlm+nsp")
    prepared_dataset.check_lengths(dataset, 128)


def test_no_dataset(tmp_path: Path) -> None:
    advice = "has no dataset.json: give the folder that clozemill prepare wrote, once it has finished"
    assert mistake(prepared_dataset.read, str(tmp_path)) == f"{tmp_path} {advice}"
    assert mistake(prepared_dataset.read, str(tmp_path / "none")) == f"{tmp_path / 'none'} {advice}"
    (tmp_path / "dataset.json").write_text("{}")
    assert mistake(prepared_dataset.read, str(tmp_path)).startswith(
        f"{tmp_path}/dataset.json is not a dataset's manifest: give"
    )


def test_an_unknown_format(tmp_path: Path) -> None:
    datasets.write(tmp_path, [[3]])
    about = json.loads((tmp_path / "dataset.json").read_bytes())
    (tmp_path / "dataset.json").write_text(json.dumps(about | {"format_version": 3}))
    told = f"{tmp_path}/dataset.json has format version 3, not 1 or 2: use the version of clozemill that wrote it"
    assert mistake(prepared_dataset.read, str(tmp_path)) == told


@pytest.mark.parametrize("name", ["train/copy-01/examples-00001-of-00002.tfrecord", "eval/examples-00000-of-00001.tfrecord"])
def test_a_shard_is_missing(tmp_path: Path, name: str) -> None:
    datasets.write(tmp_path, [[3, 4], [5, 6]], [7])
    (tmp_path / name).unlink()
    told = f"{tmp_path}/{name} is missing: copy the complete dataset, or rebuild it"
    assert mistake(prepared_dataset.read, str(tmp_path)) == told


def test_a_folder_of_shards_is_missing(tmp_path: Path) -> None:
    datasets.write(tmp_path, [[3, 4]], [7])
    (tmp_path / "eval").rename(tmp_path / "dev")
    assert mistake(prepared_dataset.read, str(tmp_path)).startswith(
        f"{tmp_path}/eval/examples-00000-of-00001.tfrecord is missing: "
    )


def test_a_replaced_vocabulary(tmp_path: Path) -> None:
    dataset = datasets.write(tmp_path, [[3]])
    (tmp_path / "vocab.txt").write_bytes(VOCABULARY + b"more\n")
    told = f"{tmp_path}/vocab.txt is not the vocabulary that the shards were built with: restore it, or rebuild the dataset"
    assert mistake(dataset.read_vocabulary) == told
    (tmp_path / "vocab.txt").unlink()
    assert mistake(dataset.read_vocabulary) == f"{tmp_path}/vocab.txt doesn't exist: rebuild the dataset"


FITS = {  # pairs of the dataset -> objectives that it supports
    "nsp": ["mlm+nsp", "mlm", "causal", "rtd"],
    "sop": ["mlm+sop", "mlm", "causal", "rtd"],
    "single": ["mlm", "causal", "rtd"],
}


@pytest.mark.parametrize("pairs", FITS)
def test_objectives_and_pairs(tmp_path: Path, pairs: str) -> None:
    dataset = datasets.write(tmp_path, [[3]], pairs=pairs)
    for objective in OBJECTIVES:
        if objective in FITS[pairs]:
            prepared_dataset.check_objective(dataset, objective)
        else:
            needs = objective.removeprefix("mlm+")
            assert mistake(prepared_dataset.check_objective, dataset, objective) == (
                f"{tmp_path} has pairs {pairs}, but the objective {objective} needs {needs}: "
                f"give --objective {' or '.join(FITS[pairs])}, or prepare with --pairs {needs}"
            )


def test_lengths(tmp_path: Path) -> None:
    dataset = datasets.write(tmp_path, [[3]])
    prepared_dataset.check_lengths(dataset, LENGTH)
    assert mistake(prepared_dataset.check_lengths, dataset, LENGTH - 1) == (
        f"{tmp_path} has sequences of 12 tokens, but the model accepts 11: prepare shorter ones, or start a new run with a "
        "larger --max-position-embeddings"
    )


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"size": 39}, "39 entries, that of RUN 40"),
        ({"cased": True}, "True as its being cased, that of RUN False"),
        ({"sha256": "0b" * 32}, "0b" * 32 + " as its SHA-256, that of RUN {sha256}"),
        ({"size": 39, "cased": True, "sha256": "0b" * 32}, "39 entries, that of RUN 40"),
    ],
)
def test_vocabularies(tmp_path: Path, change: dict, what: str) -> None:
    dataset = datasets.write(tmp_path, [[3]])
    prepared_dataset.check_vocabulary(dataset, dict(dataset.vocabulary), "RUN")
    told = f"{tmp_path}'s vocabulary has {what.format(**dataset.vocabulary)}: prepare the dataset with the vocab.txt of the run"
    assert mistake(prepared_dataset.check_vocabulary, edit(tmp_path, **change), dataset.vocabulary, "RUN") == told


def test_a_model_that_is_not_tokenized_by_wordpiece(tmp_path: Path) -> None:
    dataset = datasets.write(tmp_path, [[3]])
    own = {"sha256": "0b" * 32, "size": 40, "tokenizer": "0c" * 32}
    assert mistake(prepared_dataset.check_vocabulary, dataset, own, "RUN").startswith(
        "RUN is tokenized by its own tokenizer.json, and datasets by WordPiece: fine-tune it, or give a model with a WordPiece"
    )


@pytest.mark.parametrize("train", [[[0]], [[0, 0, 0]], [[0], [0]]])
def test_no_examples_to_train_on(tmp_path: Path, train: list[list[int]]) -> None:
    """For any number of empty shards."""
    dataset = datasets.write(tmp_path, train, [4])
    told = f"{tmp_path} has no train examples: prepare a larger corpus"
    assert mistake(prepared_dataset.check_training, dataset) == told
