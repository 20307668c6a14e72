"""Records of a shard as text."""

from collections.abc import Iterator
from typing import Any

from clozemill.pipelines.common.formatting import counted
from clozemill.pipelines.dataset.manifest import records_of
from clozemill.pipelines.examples import columns as examples_columns
from clozemill.pipelines.inspection.document_search import FoundRecords
from clozemill.pipelines.inspection.records import ShardRecords
from clozemill.pipelines.pages import html
from clozemill.pipelines.text.vocabulary import Vocabulary

_OTHERS = 20  # ids of the same text that are shown


def _words(pieces: list[str]) -> str:
    """Join pieces to words: a `##` piece is attached to the text before it, unless it is bracketed as masked."""
    text = ""
    for piece in pieces:
        glued = piece.startswith("##") and text and not text.endswith("}")
        text += piece[2:] if glued else (" " if text else "") + piece
    return text


def describe(columns: examples_columns.Columns, row: int, vocabulary: Vocabulary) -> dict[str, str]:
    """Return one example as text: segment "A", and "B" if there is one, with masked positions marked."""
    masked = columns.masked_lm_weights[row] > 0
    originals = dict(zip(columns.masked_lm_positions[row][masked].tolist(), columns.masked_lm_ids[row][masked].tolist(),
                         strict=True))  # fmt: skip
    segments: dict[str, list[str]] = {}
    for place in range(int(columns.input_mask[row].sum())):
        token = int(columns.input_ids[row][place])
        if token in (vocabulary.cls_id, vocabulary.sep_id) and place not in originals:
            continue
        piece = vocabulary.tokens[token]
        if place in originals:
            original = vocabulary.tokens[originals[place]]
            piece = f"{{{piece}}}" if originals[place] == token else f"{{{piece}<-{original}}}"
        segments.setdefault("AB"[int(columns.segment_ids[row][place])], []).append(piece)
    return {name: _words(pieces) for name, pieces in segments.items()}


def _origin(row: dict[str, Any], side: str) -> str:
    known = row.get(f"{side}_id")
    named = "" if known is None else f" id {html.visible(known)},"
    span = f"characters {row[f'{side}_start']} to {row[f'{side}_end']}"
    return f"document {row[f'{side}_key'].hex()}{named} {row[f'{side}_title']!r}, {span}"


def describe_size(shard: dict[str, Any]) -> str:
    """Return the size of a shard: '77 records', or if packed, '77 records of 210 examples'."""
    packed = f" of {counted(shard['examples'], 'example')}" if "rows" in shard else ""
    return counted(records_of(shard), "record") + packed


def describe_search(found: FoundRecords) -> Iterator[str]:
    """Yield lines about the documents with an id, and about their records."""
    for each in found.documents:
        sizes = f"{counted(each.sentences, 'sentence')}, {counted(each.tokens, 'token')}"
        others = [html.visible(other) for other in each.ids if other != found.id]
        known = f"; the same text has the ids {', '.join(others[:_OTHERS])}" if others else ""
        more = f" and {len(others) - _OTHERS:,} more" if len(others) > _OTHERS else ""
        yield f"document {each.key.hex()} {each.title!r}: {each.split} group {each.group}, {sizes}{known}{more}"
    if found.total is None:
        yield "the dataset has no provenance, so records can't be listed: prepare it with --provenance"
        return
    shown = sum(len(records.columns) for records in found.shards)
    yield f"{counted(found.total, found.unit)} in all copies, {shown:,} shown"
    for records in found.shards:
        yield ""
        yield from describe_shard(records)


def describe_shard(records: ShardRecords, offset: int = 0) -> Iterator[str]:
    """Yield lines about some records of one shard. offset: number of the first record, if there are none."""
    config, shard = records.contract["config"], records.shard
    yield f"{shard['name']}: {describe_size(shard)}; {config['pairs']}, {config['masking']}"
    yield "{[MASK]<-word} is masked, {other<-word} is replaced at random, {word} is predicted but kept"
    if not len(records.columns):
        yield f"there are no records from number {offset}"
    for row in range(len(records.columns)):
        place, label = records.places[row], records.columns.next_sentence_labels[row]
        yield f"\n{place}: {records.sizes(row)}, label {label}: {records.meaning(row)}"
        for side, text in describe(records.columns, row, records.vocabulary).items():
            yield f"  {side}  {html.visible(text)}"  # a vocabulary may contain control characters
            if records.origins:
                yield f"     {_origin(records.origins[row], side.lower())}"
