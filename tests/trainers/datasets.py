"""Small datasets with chosen numbers of examples per shard, written without Beam, for tests of readers."""

import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from clozemill.pipelines.dataset import manifest, shard_index
from clozemill.pipelines.dataset.layout import INDEX, MANIFEST, VOCAB, shard_name
from clozemill.pipelines.examples import columns
from clozemill.pipelines.examples.packing import pack_examples, plan_rows
from clozemill.pipelines.shards import tf_example, tfrecord
from clozemill.pipelines.shards.blocks import offsets_of
from clozemill.pipelines.text.vocabulary import SPECIAL_TOKENS
from clozemill.trainers.data import prepared_dataset
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from tests import contracts

LENGTH, PREDICTIONS, ENTRIES = 12, 3, 40
ROW_LENGTH = 24  # of packed rows: two to three examples each
VOCABULARY = "".join(f"{token}\n" for token in (*SPECIAL_TOKENS, *map(str, range(5, ENTRIES)))).encode()


def examples(count: int, stream: np.random.Generator) -> columns.Columns:
    """Return random, distinct examples of all lengths, some with fewer predictions than the maximum."""
    sizes, used = stream.integers(8, LENGTH + 1, count), stream.integers(1, PREDICTIONS + 1, count)
    mask = np.arange(LENGTH) < sizes[:, None]
    picked = np.arange(PREDICTIONS) < used[:, None]
    positions = np.array([np.sort(stream.permutation(size - 2)[:PREDICTIONS]) + 1 for size in sizes])
    return columns.Columns(
        stream.integers(5, ENTRIES, (count, LENGTH)) * mask,
        mask.astype(np.int64),
        ((np.arange(LENGTH) > 5) & mask).astype(np.int64),
        positions.reshape(count, PREDICTIONS) * picked,
        stream.integers(5, ENTRIES, (count, PREDICTIONS)) * picked,
        picked.astype(np.float32),
        stream.integers(0, 2, count),
    )


def widened(examples: columns.Columns, length: int) -> columns.Columns:
    """Return the same examples with padding up to `length`."""
    more = [(0, 0), (0, length - examples.input_ids.shape[1])]
    inside = {name: np.pad(getattr(examples, name), more) for name in ("input_ids", "input_mask", "segment_ids")}
    return replace(examples, **inside)


def packed_rows(examples: columns.Columns, length: int) -> columns.PackedColumns:
    """Return examples in rows of `length`, as `prepare --packing on` plans them."""
    plan = plan_rows(examples.input_mask.sum(axis=1), length)
    ordered = columns.Columns(**{name: values[plan.order] for name, values in vars(widened(examples, length)).items()})
    return pack_examples(ordered, plan.starts)


def write(
    folder: Path,
    train: Sequence[Sequence[int]],
    evaluation: Sequence[int] = (),
    pairs: str = "nsp",
    compression: str = "none",
    vocabulary: bytes = VOCABULARY,
    length: int = LENGTH,
    packing: str = "off",
    indexed: bool = True,
) -> PreparedDataset:
    """Write a dataset whose train split has `train[copy][group]` examples, and its eval split `evaluation[group]`.

    The examples are the same for any `length`, at least LENGTH, packed or not.

    indexed: write index.json, as `prepare` does unless it compresses the shards.
    """
    groups, stream, about = len(train[0]) if train else 0, np.random.default_rng(len(train) + len(evaluation)), []
    index: dict[str, list[int]] = {}
    for _, copy, group, size in contracts.places(train, evaluation):
        made, rows = examples(size, stream), {}
        records: columns.Columns | columns.PackedColumns = widened(made, length)
        if packing == "on":
            records = packed_rows(made, length)
            rows = {"rows": len(records), "max_examples": int(records.examples.max(initial=0)),
                    "max_predictions": int(records.predictions.max(initial=0))}  # fmt: skip
        name, data = shard_name(group, groups, len(evaluation), copy), tf_example.encode(records).tobytes()
        data = gzip.compress(data) if compression == "gzip" else data
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        about.append({"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **rows})
        if compression == "none" and indexed:
            index[name] = offsets_of(data)
    config = {"max_seq_length": length, "max_predictions": PREDICTIONS, "pairs": pairs, "compression": compression}
    config |= {"packing": packing}
    told = {"sha256": hashlib.sha256(vocabulary).hexdigest(), "size": vocabulary.count(b"\n"), "cased": False}
    (folder / VOCAB).write_bytes(vocabulary)
    contract = contracts.whole(train, evaluation, told, about, **config)
    if index:
        (folder / INDEX).write_bytes(shard_index.dumps(index))
        contract["files"][INDEX] = hashlib.sha256((folder / INDEX).read_bytes()).hexdigest()
    (folder / MANIFEST).write_bytes(manifest.dumps(contract))
    return prepared_dataset.read(str(folder))


def records(dataset: PreparedDataset, split: str, copy: int = 0) -> dict[str, list[bytes]]:
    """Return the records in each shard of a copy, by path, read by the reader of the pipelines."""
    paths = map(dataset.path, dataset.shards(split, copy))
    return {path: list(tfrecord.read(Path(path).read_bytes(), dataset.compression)) for path in paths}
