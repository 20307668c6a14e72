"""Records as an HTML page: segments and masks in colour, and marked for readers without colour. All text is escaped."""

from itertools import takewhile

from clozemill.pipelines.common.formatting import counted
from clozemill.pipelines.dataset.example_tokens import segment_tokens
from clozemill.pipelines.inspection.document_search import FoundRecords
from clozemill.pipelines.inspection.records import ShardRecords
from clozemill.pipelines.inspection.text import describe_search
from clozemill.pipelines.pages import html
from clozemill.pipelines.pages.content import Example, Side


def _origin(records: ShardRecords, number: int, side: str) -> dict[str, str] | None:
    """Return the source of a segment, or None if it is unknown or there is no such segment."""
    rows = records.origins
    if not rows or rows[f"{side}_key"][number] is None:
        return None
    start, end = (f"{rows[f'{side}_{edge}'][number]:,}" for edge in ("start", "end"))
    known = (rows.get(f"{side}_id") or {number: None})[number]
    return {
        "id": known or "",
        "title": rows[f"{side}_title"][number],
        "key": rows[f"{side}_key"][number].hex(),
        "start": start,
        "end": end,
    }


def _example(records: ShardRecords, row: int, place: str = "") -> Example:
    number = records.numbers[row]
    sides = [
        Side(name, tokens, _origin(records, number, name.lower()))
        for name, tokens in segment_tokens(records.columns, row, records.vocabulary).items()
    ]
    label = int(records.columns.next_sentence_labels[row])
    return Example(f"Record {number}{place}", f"{records.sizes(row)}; label {label}", sides, records.meaning(row), label)


def page(records: ShardRecords, offset: int) -> str:
    """Return a page of records from number `offset` on. It needs no other file."""
    rows = [_example(records, row) for row in range(len(records.columns))]
    shard, config = records.shard, records.contract["config"]
    about = f"{counted(len(rows), 'record')} of {shard['examples']:,}; pairs {config['pairs']}, masking {config['masking']}"
    return _page(rows, "Records of a shard", shard["name"], [about], records.contract["digest"], offset)


def search_page(found: FoundRecords, offset: int) -> str:
    """Return a page of the documents with an id, and of their records."""
    rows = [
        _example(records, row, f" of {records.shard['split']} copy {records.shard['copy']} group {records.shard['group']}")
        for records in found.shards
        for row in range(len(records.columns))
    ]
    about = list(takewhile(bool, describe_search(found)))  # up to the first record
    return _page(rows, "Records of an id", found.id, about, found.digest, offset)


def _page(rows: list[Example], kind: str, name: str, about: list[str], digest: str, offset: int) -> str:
    meanings = dict(sorted((each.label, each.meaning) for each in rows))
    labels = [(label, meaning, sum(each.label == label for each in rows)) for label, meaning in meanings.items()]
    return html.fill(
        "inspect.html", kind=kind, name=name, about=about, digest=digest, records=rows, labels=labels, first=offset
    )
