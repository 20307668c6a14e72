"""`clozemill inspect DATASET`: records in words, so that a person can see what a model will be asked.

    clozemill inspect DATASET --limit 5
    clozemill inspect DATASET --limit 50 --html records.html
    clozemill inspect DATASET --report

A masked position reads {shown<-original}: {[MASK]<-river}, {apple<-river} for a random token, {river} for one that was kept.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from pipelines import datacard, features, filesystem, inspect_html, pages, tfrecord
from pipelines.config import InspectConfig
from pipelines.dataset import read_contract
from pipelines.options import require
from pipelines.provenance import provenance_name, read_parquet
from pipelines.schema import UserError
from pipelines.shown import Records
from pipelines.wordpiece import Vocabulary


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


def read(config: InspectConfig) -> Records:
    """The records that are asked for. Raises UserError."""
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
    return Records(contract, vocabulary, shard, columns, config.offset, _provenance(config.dataset, shard["name"]))


def describe_shard(records: Records) -> Iterator[str]:
    """Lines about some records of one shard."""
    config, shard = records.contract["config"], records.shard
    yield f"{shard['name']}: {shard['examples']:,} records; {config['pairs']}, {config['masking']}"
    yield "{[MASK]<-word} is masked, {other<-word} replaced at random, {word} to be predicted as it stands"
    if not len(records.columns):
        yield f"no record from number {records.offset} on"
    for row in range(len(records.columns)):
        number, label = records.offset + row, records.columns.next_sentence_labels[row]
        yield f"\nrecord {number}: {records.sizes(row)}, label {label}: {records.meaning(row)}"
        for side, text in describe(records.columns, row, records.vocabulary).items():
            yield f"  {side}  {pages.visible(text)}"  # a vocabulary may hold what moves a terminal's cursor
            if records.origins:
                yield f"     {_origin(records.origins, number, side.lower())}"


def main(config: InspectConfig) -> int:
    """Prints describe_shard, or writes a page."""
    require(config, "dataset")
    if config.report:
        datacard.write(config.dataset)
        print(f"wrote {filesystem.join(config.dataset, datacard.HTML)} and {datacard.MARKDOWN}")
    if config.html and not config.html.endswith((".html", ".htm")):
        raise UserError(f"--html {config.html} is no name of a page: give one that ends in .html")
    if config.html:
        filesystem.write_bytes(config.html, inspect_html.page(read(config)).encode())
        print(f"wrote {config.html}")
    if not config.html and not config.report:
        for line in describe_shard(read(config)):
            print(line)
    return 0
