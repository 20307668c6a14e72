"""What the diagnoses need to know of a dataset: figures of dataset.json, statistics.json, vocab.txt and the document lists."""

import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import manifest as dataset_manifest
from clozemill.pipelines.dataset.layout import MANIFEST, VOCAB
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.diagnosis.recorded_run import RecordedRun, json_object, number, read_if_there

_STATISTICS = "statistics.json"
_MOST_DOCUMENTS = 2_000_000  # whose keys, 16 bytes each, are compared; reading more would take minutes


@dataclass(frozen=True)
class DatasetFigures:
    """Figures of a dataset. Shares are from 0 to 1; math.nan where the dataset doesn't record one.

    Attributes:
        folder: its folder.
        pairs: "nsp", "sop" or "single".
        dedup: "exact", "near" or "none".
        copies, distinct_copies: copies of the train split, and how many of them differ.
        masked: share of the tokens that are masked positions.
        shown_as_mask: share of the masked positions that show [MASK].
        label_share: share of the train examples whose label is 1.
        duplicate_documents: share of the documents that are equal to another one of their shard.
        duplicate_examples: share of the train examples of a copy that are equal to another one of their shard.
        unknown: share of the tokens that are [UNK].
        pieces_per_word: mean number of pieces of a word.
        single_letters: share of the pieces that continue a word by a single character.
        probe_accuracy, probe_limit: accuracy of the shortcut probe, and the highest one that the gate accepts.
        failed_checks: sentences of failed checks of the statistical gate.
        has_eval_split: whether there are eval examples.
        eval_documents, eval_documents_seen: documents of the eval split, and those of them that a phase of the run trains on.
    """

    folder: str
    pairs: str = "nsp"
    dedup: str = "exact"
    copies: int = 1
    distinct_copies: int = 1
    masked: float = math.nan
    shown_as_mask: float = math.nan
    label_share: float = math.nan
    duplicate_documents: float = math.nan
    duplicate_examples: float = math.nan
    unknown: float = math.nan
    pieces_per_word: float = math.nan
    single_letters: float = math.nan
    probe_accuracy: float = math.nan
    probe_limit: float = math.nan
    failed_checks: tuple[str, ...] = ()
    has_eval_split: bool = True
    eval_documents: int = 0
    eval_documents_seen: int = 0


@dataclass(frozen=True)
class StoredDataset:
    """A dataset as it is stored."""

    folder: str
    manifest: dict[str, Any]
    statistics: dict[str, Any] = field(default_factory=dict)  # {} if they can't be read


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _trained_folders(run: RecordedRun) -> list[str]:
    """Return the folders of the datasets that a run names."""
    data, phases = (found if isinstance(found := run.config.get(name), list) else [] for name in ("data", "phases"))
    named = [*data, *(each.get("data") for each in phases if isinstance(each, dict))]
    parts = [part.get("data") for each in named if isinstance(each, list) for part in each if isinstance(part, dict)]
    return [name for name in (*named, *parts) if isinstance(name, str) and name]


def _candidates(run: RecordedRun, folders: Sequence[str]) -> list[str]:
    """Return where datasets of a run may be: as recorded, or in the same place relative to a folder above the run."""
    above, place = [], os.path.abspath(run.folder)
    while not filesystem.is_remote(run.folder) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
        above.append(place)
    relative = [name for name in folders if not filesystem.is_remote(name) and not os.path.isabs(name)]
    return list(dict.fromkeys([*folders, *(os.path.join(place, name) for name in relative for place in above)]))


def _stored(folder: str) -> StoredDataset | None:
    """Return a dataset; None if there is none, or if its manifest was changed."""
    try:
        data = read_if_there(folder, MANIFEST)
        found = dataset_manifest.loads(data, filesystem.join(folder, MANIFEST)) if data else None
        return StoredDataset(folder, found, json_object(read_if_there(folder, _STATISTICS))) if found else None
    except UserError:
        return None


def find_datasets(run: RecordedRun, trained: Sequence[StoredDataset]) -> list[list[DatasetFigures | None]]:
    """Return the figures of each phase's datasets, None for one that isn't where the run read it, or was changed since.

    trained: as `trained_datasets` returns.
    """
    phases = [[digest for digest, _ in phase["mixture"]] for phase in run.phases]
    evaluated = {phase[0] for phase in phases}  # the eval splits of others in a mixture aren't used
    figures = {
        digest: _figures(each, trained if digest in evaluated else [])
        for each in trained
        if (digest := each.manifest["digest"])
    }
    return [[figures.get(digest) for digest in phase] for phase in phases]


def trained_datasets(run: RecordedRun) -> list[StoredDataset]:
    """Return the datasets of a run's phases that are where it read them, each once."""
    wanted = dict.fromkeys(digest for phase in run.phases for digest, _ in phase["mixture"])
    stored: dict[str, StoredDataset] = {}
    for folder in _candidates(run, _trained_folders(run)):
        if wanted.keys() - stored.keys() and (found := _stored(folder)):
            stored.setdefault(found.manifest["digest"], found)
    return [stored[digest] for digest in wanted if digest in stored]


def find_eval_sets(run: RecordedRun, trained: Sequence[StoredDataset]) -> list[DatasetFigures]:
    """Return the figures of the datasets of --eval-data that are where the run read them.

    trained: as `trained_datasets` returns.
    """
    given = run.config.get("eval_data")
    folders = [each.partition("=")[2] for each in given if isinstance(each, str)] if isinstance(given, list) else []
    found = {each.manifest["digest"]: each for folder in _candidates(run, folders) if (each := _stored(folder))}
    return [_figures(each, trained) for each in found.values()]


def _figures(stored: StoredDataset, trained: Sequence[StoredDataset]) -> DatasetFigures:
    """Return the figures of a dataset. trained: all datasets of the run, in which its eval documents are looked for."""
    contract, config, documents = stored.manifest, stored.manifest["config"], stored.manifest["documents"]
    counts: dict[str, float] = {}
    for copy in contract["splits"]["train"]["copies"].values():
        dataset_manifest.add_counts(counts, copy)
    copies = contract["splits"]["train"]["copies"]
    digests = {
        copy: tuple(each["sha256"] for each in dataset_manifest.shards_of(contract, "train", int(copy))) for copy in copies
    }
    probe = stored.statistics.get("probe")
    seen, eval_documents = _overlap(stored, trained)
    return DatasetFigures(
        folder=stored.folder,
        pairs=config["pairs"],
        dedup=config["dedup"],
        copies=len(copies),
        distinct_copies=len(set(digests.values())),
        masked=_share(counts.get("masked", 0), counts.get("tokens", 0)),
        shown_as_mask=_share(counts.get("masked_as_mask", 0), counts.get("masked", 0)),
        label_share=_share(counts.get("labels_random", 0), counts.get("examples", 0)),
        duplicate_documents=_share(documents["duplicates"], documents["kept"]) if config["dedup"] == "none" else 0.0,
        duplicate_examples=_duplicate_examples(stored),
        unknown=_share(documents["unknown_tokens"], documents["tokens"]),
        **_pieces(stored),
        **(_probed(probe) if isinstance(probe, dict) else {}),
        failed_checks=_failed_checks(stored),
        has_eval_split=bool(contract["splits"].get("eval", {}).get("examples")),
        eval_documents=eval_documents,
        eval_documents_seen=seen,
    )


def _first_copy(stored: StoredDataset) -> dict[str, Any]:
    """Return the statistics of the first copy of the train split; {} if there are none."""
    found: Any = stored.statistics
    for name in ("splits", "train", "00"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _duplicate_examples(stored: StoredDataset) -> float:
    examples = stored.manifest["splits"]["train"]["copies"].get("00", {}).get("examples", 0)
    return _share(number(_first_copy(stored), "duplicate_examples") or 0.0, examples)


def _probed(probe: dict[str, Any]) -> dict[str, float]:
    accuracy, parts = number(probe, "accuracy"), [number(probe, name) for name in ("chance", "margin", "sampling")]
    known = [value for value in parts if value is not None]
    return {"probe_accuracy": accuracy, "probe_limit": sum(known)} if accuracy is not None and len(known) == len(parts) else {}


def _failed_checks(stored: StoredDataset) -> tuple[str, ...]:
    """Return the sentences of failed checks of the gate."""
    gate = stored.statistics.get("gate")
    checks = gate.get("checks", []) if isinstance(gate, dict) else []
    return tuple(str(each.get("sentence", "")) for each in checks if isinstance(each, dict) and each.get("passed") is False)


def pieces_of_words(tokens: Sequence[str], counts: Iterable[int]) -> tuple[float, float]:
    """Return the mean number of pieces of a word, and the share of pieces that continue a word by a single character.

    Args:
        tokens: the vocabulary.
        counts: how often each entry occurs. Special tokens are left out.
    """
    words = pieces = letters = 0
    for token, count in zip(tokens, counts, strict=True):
        if token.startswith("[") and token.endswith("]") and len(token) > 2:
            continue
        pieces += count
        words += count * (not token.startswith("##"))
        letters += count * (token.startswith("##") and len(token) == 3)
    return _share(pieces, words), _share(letters, pieces)


def _pieces(stored: StoredDataset) -> dict[str, float]:
    """Return what the text of the train split becomes in pieces; {} without its counts."""
    counts = _first_copy(stored).get("tokens")
    try:
        data = read_if_there(stored.folder, VOCAB)
        tokens = Vocabulary.from_bytes(data or b"", VOCAB).tokens
    except UserError:
        return {}
    if not isinstance(counts, list) or len(counts) != len(tokens) or not all(type(count) is int for count in counts):
        return {}
    per_word, letters = pieces_of_words(tokens, counts)
    return {"pieces_per_word": per_word, "single_letters": letters}


def _keys(stored: StoredDataset, split: str) -> set[bytes]:
    """Return the keys, hashes of the text, of the documents of a split. Raises UserError or pa.ArrowException."""
    import pyarrow.parquet as pq

    found: set[bytes] = set()
    for name in stored.manifest["files"]:
        if name.startswith(f"documents/{split}-") and (data := read_if_there(stored.folder, name)):
            found.update(pq.read_table(io.BytesIO(data), columns=["key"], use_threads=False)["key"].to_pylist())
    return found


def _overlap(stored: StoredDataset, trained: Sequence[StoredDataset]) -> tuple[int, int]:
    """Return how many documents of a dataset's eval split are in the train split of a dataset of the run, and their number.

    One dataset has a document on one side only. But another one of the same corpus divides it by its own seed and fraction.
    """
    others = [each for each in trained if each.manifest["digest"] != stored.manifest["digest"]]
    if not others or sum(each.manifest["documents"]["kept"] for each in (stored, *others)) > _MOST_DOCUMENTS:
        return 0, 0
    import pyarrow as pa

    try:
        held_out = _keys(stored, "eval")
        return len(held_out & set().union(*(_keys(each, "train") for each in others))), len(held_out)
    except (UserError, KeyError, pa.ArrowException):
        return 0, 0
