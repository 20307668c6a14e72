"""Reads a dataset's manifest, local or remote, and checks it against a model.

All checks run before a device is used; errors say what differs and what to do.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from clozemill.model.pretraining_model import OBJECTIVES
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.tokenizer_rules import TextRules
from clozemill.pipelines.dataset import manifest as dataset_manifest
from clozemill.pipelines.dataset import shard_index
from clozemill.pipelines.dataset.layout import INDEX, MANIFEST, VOCAB, has_index
from clozemill.pipelines.examples.columns import FEATURES, PACKED_FEATURES
from clozemill.trainers.common import storage


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset's folder and its manifest.

    A row is a record of a shard, and a row of a batch: an example, or several that are packed.
    """

    folder: str
    manifest: dict[str, Any]

    @property
    def max_seq_length(self) -> int:
        return self.manifest["max_seq_length"]

    @property
    def max_predictions(self) -> int:
        """Return the most masked positions of an example."""
        return self.manifest["max_predictions"]

    @property
    def packed(self) -> bool:
        """Return whether rows contain several examples."""
        return dataset_manifest.is_packed(self.manifest)

    @property
    def features(self) -> Mapping[str, tuple[str, str | None]]:
        """Return the features of a record: name -> (dtype, a key of `sizes`)."""
        return PACKED_FEATURES if self.packed else FEATURES

    @property
    def sizes(self) -> dict[str | None, int]:
        """Return the size of a row's features by the name of the size: of the tokens, predictions and examples; 1 for None."""
        largest = self.manifest["packing"] if self.packed else {"max_examples": 1, "max_predictions": self.max_predictions}
        return {"max_seq_length": self.max_seq_length, **largest, None: 1}

    @property
    def vocabulary(self) -> dict[str, Any]:
        """sha256, size and cased."""
        return self.manifest["vocabulary"]

    @property
    def description(self) -> dict[str, Any]:
        """Return what a model's card says of the dataset: name of its folder, digest, counts, and the datasheet."""
        documents = self.manifest["documents"]
        return {
            "name": self.folder.rstrip("/").rsplit("/", 1)[-1],
            "digest": self.manifest["digest"],
            "documents": documents["kept"],
            "tokens": dataset_manifest.kept_text(self.manifest, "tokens"),
            "datasheet": self.manifest.get("datasheet", {}),
        }

    @property
    def compression(self) -> str:
        return self.manifest["config"]["compression"]

    @property
    def indexed(self) -> bool:
        """Return whether index.json divides the shards into blocks; otherwise each shard is one."""
        return has_index(self.manifest) and INDEX in self.manifest["files"]

    @cached_property
    def index(self) -> shard_index.Index:
        """Return the byte offsets of the blocks of every shard; {} if the dataset has no index.json.

        Raises UserError if it isn't the one that the dataset was prepared with.
        """
        if not self.indexed:
            return {}
        path = storage.join(self.folder, INDEX)
        data = storage.read(path, "restore it, or rebuild the dataset")
        if hashlib.sha256(data).hexdigest() != self.manifest["files"][INDEX]:
            raise UserError(f"{path} was changed after it was written: restore it, or rebuild the dataset")
        return shard_index.loads(data, path, self.manifest["shards"])

    def shards(self, split: str, copy: int = 0) -> list[dict[str, Any]]:
        """Return the shards of one copy of a split, in the order of their groups."""
        return dataset_manifest.shards_of(self.manifest, split, copy)

    @property
    def copies(self) -> int:
        """Return the number of copies of the train split."""
        return 1 + max((shard["copy"] for shard in self.manifest["shards"] if shard["split"] == "train"), default=-1)

    @property
    def train_examples(self) -> int:
        """Return the number of examples per epoch, counted in the first copy."""
        return sum(shard["examples"] for shard in self.shards("train"))

    @property
    def train_rows(self) -> int:
        """Return the number of rows per epoch, counted in the first copy."""
        return sum(dataset_manifest.records_of(shard) for shard in self.shards("train"))

    @property
    def eval_examples(self) -> int:
        return sum(shard["examples"] for shard in self.shards("eval"))

    def path(self, shard: dict[str, Any]) -> str:
        """Return the path of a shard."""
        return storage.join(self.folder, shard["name"])

    def read_vocabulary(self) -> bytes:
        """Return the contents of vocab.txt. Raises UserError if the shards were built with another vocabulary."""
        path = storage.join(self.folder, VOCAB)
        data = storage.read(path, "rebuild the dataset")
        if hashlib.sha256(data).hexdigest() != self.vocabulary["sha256"]:
            raise UserError(f"{path} is not the vocabulary that the shards were built with: restore it, or rebuild the dataset")
        return data


def read(folder: str) -> PreparedDataset:
    """Return a dataset with its manifest. Raises UserError if the manifest, or a shard, is missing."""
    path = storage.join(folder, MANIFEST)
    if not storage.exists(path):
        raise UserError(f"{folder} has no {MANIFEST}: give the folder that clozemill prepare wrote, once it has finished")
    contract = PreparedDataset(folder, dataset_manifest.loads(storage.read(path, "give a dataset's folder"), path))
    listed: dict[str, set[str]] = {}
    for shard in contract.manifest["shards"]:
        place, name = shard["name"].rsplit("/", 1)
        if place not in listed:
            listed[place] = set(storage.listed(storage.join(folder, place)))
        if name not in listed[place]:
            raise UserError(f"{contract.path(shard)} is missing: copy the complete dataset, or rebuild it")
    return contract


def check_objective(contract: PreparedDataset, objective: str) -> None:
    """Raise UserError if the dataset's pairs don't suit the objective."""
    have, needs = contract.manifest["config"]["pairs"], OBJECTIVES[objective].pairs
    if needs and have != needs:
        fits = " or ".join(name for name, other in OBJECTIVES.items() if other.pairs in ("", have))
        raise UserError(
            f"{contract.folder} has pairs {have}, but the objective {objective} needs {needs}: give --objective {fits}, "
            f"or prepare with --pairs {needs}"
        )


def check_lengths(contract: PreparedDataset, max_positions: int) -> None:
    """Raise UserError if the examples are longer than the model accepts."""
    if contract.max_seq_length > max_positions:
        raise UserError(
            f"{contract.folder} has sequences of {contract.max_seq_length} tokens, but the model accepts {max_positions}: "
            "prepare shorter ones, or start a new run with a larger --max-position-embeddings"
        )


def check_segments(contract: PreparedDataset, segments: int, whose: str) -> None:
    """Raise UserError if the examples are pairs and the model has only one segment."""
    if segments == 1 and (have := contract.manifest["config"]["pairs"]) != "single":
        raise UserError(
            f"{contract.folder} has pairs {have}, but {whose} only one segment (type_vocab_size 1): prepare with --pairs single"
        )


def check_vocabulary(contract: PreparedDataset, vocabulary: dict[str, Any], whose: str) -> None:
    """Raise UserError unless the dataset was built with this vocabulary (sha256, size, cased)."""
    mine = contract.vocabulary
    if "tokenizer" in vocabulary:
        raise UserError(
            f"{whose} is tokenized by its own tokenizer.json, and datasets by WordPiece: fine-tune it, or give a model with a "
            "WordPiece vocabulary"
        )
    ours, theirs = (TextRules.from_dict(each).changes_words(each["cased"]) for each in (mine, vocabulary))
    for key, value in theirs.items():
        if ours[key] != value and mine["cased"] == vocabulary["cased"]:
            flag = f"--{'' if value else 'no-'}{key.replace('_', '-')}"
            raise UserError(
                f"{contract.folder} was built with {key} {ours[key]}, but {whose} with {value}: prepare it with {flag}"
            )
    for key, unit in (("size", "entries"), ("cased", "as its being cased"), ("sha256", "as its SHA-256")):
        if mine[key] != vocabulary[key]:
            raise UserError(
                f"{contract.folder}'s vocabulary has {mine[key]} {unit}, that of {whose} {vocabulary[key]}: "
                "prepare the dataset with the vocab.txt of the run"
            )


def check_training(contract: PreparedDataset) -> None:
    """Raise UserError if there is nothing to train on."""
    if not contract.train_examples:
        raise UserError(f"{contract.folder} has no train examples: prepare a larger corpus")
