"""`clozemill inspect DATASET`: records in words, so that a person can see what a model will be asked.

    clozemill inspect DATASET --limit 5

A masked position reads {shown<-original}: {[MASK]<-river}, {apple<-river} for a random token, {river} for one that was kept.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from pipelines import features, filesystem, tfrecord
from pipelines.config import InspectConfig
from pipelines.options import require
from pipelines.provenance import provenance_name, read_parquet
from pipelines.schema import UserError
from pipelines.verify import read_contract
from pipelines.wordpiece import Vocabulary

_LABELS = {
    "nsp": ("B follows A", "B is random"),
    "sop": ("B follows A", "A and B are swapped"),
    "single": ("one run of sentences", ""),
}


def _words(pieces: list[str]) -> str:
    """Pieces joined to words: a `##` piece is glued to what stands before it, unless that is bracketed as masked."""
    text = ""
    for piece in pieces:
        glued = piece.startswith("##") and text and not text.endswith("}")
        text += piece[2:] if glued else (" " if text else "") + piece
    return text


def describe(columns: features.Columns, row: int, vocabulary: Vocabulary) -> dict[str, str]:
    """One example in words: segment "A", and "B" if there is one, masked positions marked."""
    masked = columns.masked_lm_weights[row] > 0
    originals = dict(zip(columns.masked_lm_positions[row][masked].tolist(), columns.masked_lm_ids[row][masked].tolist(),
                         strict=True))  # fmt: skip
    segments: dict[str, list[str]] = {}
    for place in range(int(columns.input_mask[row].sum())):
        shown = int(columns.input_ids[row][place])
        if shown in (vocabulary.cls_id, vocabulary.sep_id) and place not in originals:
            continue
        piece = vocabulary.tokens[shown]
        if place in originals:
            original = vocabulary.tokens[originals[place]]
            piece = f"{{{piece}}}" if originals[place] == shown else f"{{{piece}<-{original}}}"
        segments.setdefault("AB"[int(columns.segment_ids[row][place])], []).append(piece)
    return {name: _words(pieces) for name, pieces in segments.items()}


def _provenance(folder: str, shard: str) -> dict[str, list[Any]] | None:
    path = filesystem.join(folder, provenance_name(shard))
    if not filesystem.exists(path):
        return None
    return read_parquet(path).to_pydict()


def _origin(rows: dict[str, list[Any]], record: int, side: str) -> str:
    key = rows[f"{side}_key"][record]
    start, end = rows[f"{side}_start"][record], rows[f"{side}_end"][record]
    return f"document {key.hex()} {rows[f'{side}_title'][record]!r}, characters {start} to {end}"


def describe_shard(config: InspectConfig) -> Iterator[str]:
    """Lines about some records of one shard."""
    contract, vocabulary = read_contract(config.dataset)
    shards = [shard for shard in contract["shards"] if shard["split"] == config.split]
    chosen = [shard for shard in shards if shard["copy"] == config.copy]
    if config.group >= len(chosen):
        copies = {shard["copy"] for shard in shards}
        have = f"copies 0 to {len(copies) - 1}, groups 0 to {len(shards) // len(copies) - 1}" if copies else "none"
        raise UserError(f"{config.dataset} has no {config.split} copy {config.copy} group {config.group}: it has {have}")
    shard = chosen[config.group]
    data = filesystem.read_bytes(filesystem.join(config.dataset, shard["name"]))
    try:
        records = list(islice(tfrecord.read(data, contract["config"]["compression"]), config.offset + config.limit))
        sizes = contract["max_seq_length"], contract["max_predictions"]
        columns = features.decode(records[config.offset :], *sizes, config.offset)
    except ValueError as error:
        raise UserError(f"{shard['name']}: {error}: run clozemill verify {config.dataset}") from None
    yield f"{shard['name']}: {shard['examples']:,} records; {contract['config']['pairs']}, {contract['config']['masking']}"
    yield "{[MASK]<-word} is masked, {other<-word} replaced at random, {word} to be predicted as it stands"
    if not len(columns):
        yield f"no record from number {config.offset} on"
    origins = _provenance(config.dataset, shard["name"])
    for row in range(len(columns)):
        number = config.offset + row
        label = _LABELS[contract["config"]["pairs"]][int(columns.next_sentence_labels[row])]
        tokens, masked = int(columns.input_mask[row].sum()), int(np.count_nonzero(columns.masked_lm_weights[row]))
        yield f"\nrecord {number}: {tokens} tokens, {masked} to predict, label {columns.next_sentence_labels[row]}: {label}"
        for side, text in describe(columns, row, vocabulary).items():
            yield f"  {side}  {text}"
            if origins:
                yield f"     {_origin(origins, number, side.lower())}"


def main(config: InspectConfig) -> int:
    """Prints describe_shard."""
    require(config, "dataset")
    for line in describe_shard(config):
        print(line)
    return 0
