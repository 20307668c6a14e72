"""Records as an HTML page: segments and masks in colour, and marked for readers without colour. All text is escaped."""

from itertools import takewhile

from clozemill.pipelines.common.formatting import counted
from clozemill.pipelines.dataset.example_tokens import segment_tokens
from clozemill.pipelines.dataset.manifest import records_of
from clozemill.pipelines.inspection.document_search import FoundRecords
from clozemill.pipelines.inspection.records import ShardRecords
from clozemill.pipelines.inspection.text import describe_search
from clozemill.pipelines.pages import html
from clozemill.pipelines.pages.content import Example, Side


def _origin(records: ShardRecords, row: int, side: str) -> dict[str, str] | None:
    """Return the source of a segment, or None if it is unknown or there is no such segment."""
    if not records.origins or records.origins[row][f"{side}_key"] is None:
        return None
    found = records.origins[row]
    return {
        "id": found.get(f"{side}_id") or "",
        "title": found[f"{side}_title"],
        "key": found[f"{side}_key"].hex(),
        "start": f"{found[f'{side}_start']:,}",
        "end": f"{found[f'{side}_end']:,}",
    }


def _example(records: ShardRecords, row: int, place: str = "") -> Example:
    sides = [
        Side(name, tokens, _origin(records, row, name.lower()))
        for name, tokens in segment_tokens(records.columns, row, records.vocabulary).items()
    ]
    label = int(records.columns.next_sentence_labels[row])
    return Example(
        f"{str(records.places[row]).capitalize()}{place}",
        f"{records.sizes(row)}; label {label}",
        sides,
        records.meaning(row),
        label,
    )


def page(records: ShardRecords, offset: int) -> str:
    """Return a page of records from number `offset` on. It needs no other file."""
    rows = [_example(records, row) for row in range(len(records.columns))]
    shard, config = records.shard, records.contract["config"]
    about = f"{_share(records)}; pairs {config['pairs']}, masking {config['masking']}"
    return _page(rows, "Records of a shard", shard["name"], [about], records.contract["digest"], offset)


def _share(records: ShardRecords) -> str:
    """Return how much of the shard a page shows: '5 records of 77', or if packed, '5 records (14 examples) of 77'."""
    shown = counted(len({place.record for place in records.places}), "record")
    packed = f" ({counted(len(records.places), 'example')})" if "rows" in records.shard else ""
    return f"{shown}{packed} of {records_of(records.shard):,}"


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
