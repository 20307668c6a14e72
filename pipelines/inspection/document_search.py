"""Find documents by their id, and the records that contain them."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clozemill.pipelines.common import hashing
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset.layout import documents_name, provenance_name
from clozemill.pipelines.dataset.manifest import is_packed
from clozemill.pipelines.dataset.parquet import read_parquet
from clozemill.pipelines.dataset.reading import read_contract
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.inspection import records as inspection_records
from clozemill.pipelines.inspection.config import InspectConfig
from clozemill.pipelines.inspection.records import Place, ShardRecords


@dataclass(frozen=True)
class FoundDocument:
    """A document, its group (eval groups follow the train groups), and all ids of records with its text."""

    key: bytes
    title: str
    group: int
    split: str
    sentences: int
    tokens: int
    ids: list[str]


@dataclass(frozen=True)
class FoundRecords:
    """The documents with an id, and some of their examples, by shard. digest: of the dataset.

    total: number of all their examples, in all copies; None if the dataset has no provenance. unit: what an example is called,
    "record", or in a packed dataset "example".
    """

    id: str
    digest: str
    documents: list[FoundDocument]
    total: int | None
    shards: list[ShardRecords]
    unit: str = "record"


def find_records(config: InspectConfig) -> FoundRecords:
    """Return the documents with `config.id` and their examples from number `offset` on, up to `limit`.

    Raises:
        UserError: the dataset has no ids, or no document has this one.
    """
    if (config.split, config.copy, config.group) != ("train", 0, 0):
        raise UserError("--id searches all shards: remove --split, --copy and --group")
    contract, vocabulary = read_contract(config.dataset)
    if "ids" not in contract:
        raise UserError(f"{config.dataset} contains no ids of documents: prepare it with --id-field to find them by id")
    wanted = config.id.strip()
    documents = _find_documents(config.dataset, contract, wanted)
    if not documents:
        raise UserError(
            f"{config.dataset} contains no document with the id {wanted!r}: it wasn't in the input, or it was dropped"
        )
    if not contract["config"]["provenance"]:
        return FoundRecords(wanted, contract["digest"], documents, None, [])
    keys = pa.array(sorted({document.key for document in documents}), pa.binary(hashing.HASH_BYTES))
    groups, total, left, shards = {document.group for document in documents}, 0, config.limit, []
    for shard in contract["shards"]:
        if shard["group"] in groups:  # a pair consists of documents of one group
            places = _places(config.dataset, shard["name"], keys)
            shown = places[max(config.offset - total, 0) :][:left]
            total, left = total + len(places), left - len(shown)
            if shown:
                numbers = sorted({place.record for place in shown})
                found = inspection_records.read_shard(config.dataset, contract, vocabulary, shard, numbers, set(shown))
                shards.append(found)
    unit = "example" if is_packed(contract) else "record"
    return FoundRecords(wanted, contract["digest"], documents, total, shards, unit)


def _find_documents(folder: str, contract: dict[str, Any], wanted: str) -> list[FoundDocument]:
    config, found = contract["config"], []
    for group in range(config["num_groups"] + contract["num_eval_groups"]):
        split = "train" if group < config["num_groups"] else "eval"
        table = read_parquet(filesystem.join(folder, documents_name(split, group, config["num_groups"])))
        others = table["other_ids"].combine_chunks()
        same = pc.filter(pc.list_parent_indices(others), pc.equal(pc.list_flatten(others), wanted))
        rows = {*pc.indices_nonzero(pc.equal(table["id"], wanted)).to_pylist(), *same.to_pylist()}
        for row in table.take(pa.array(sorted(rows), pa.int64())).to_pylist():
            ids = [row["id"], *row["other_ids"]]
            found.append(FoundDocument(row["key"], row["title"], group, split, row["sentences"], row["tokens"], ids))
    return found


def _places(folder: str, shard: str, keys: pa.Array) -> list[Place]:
    """Return where a shard's examples are whose A or B is of one of the documents."""
    table = read_parquet(filesystem.join(folder, provenance_name(shard)))
    found = pc.or_(*(pc.is_in(table[f"{side}_key"], value_set=keys) for side in "ab"))
    if "row" not in table.column_names:
        return list(map(Place, pc.indices_nonzero(found).to_pylist()))
    packed = table.select(["row", "example"]).filter(found)
    return list(map(Place, packed["row"].to_pylist(), packed["example"].to_pylist()))
