"""Records as an HTML page: segments and masks in colour, and marked for readers without colour. All text is escaped."""

from clozemill.pipelines.common.formatting import counted
from clozemill.pipelines.dataset.example_tokens import segment_tokens
from clozemill.pipelines.inspection.records import ShardRecords
from clozemill.pipelines.pages import html
from clozemill.pipelines.pages.content import Example, Side


def _origin(records: ShardRecords, number: int, side: str) -> dict[str, str] | None:
    """Return the source of a segment, or None if it is unknown or there is no such segment."""
    rows = records.origins
    if not rows or rows[f"{side}_key"][number] is None:
        return None
    start, end = (f"{rows[f'{side}_{edge}'][number]:,}" for edge in ("start", "end"))
    return {"title": rows[f"{side}_title"][number], "key": rows[f"{side}_key"][number].hex(), "start": start, "end": end}


def _example(records: ShardRecords, row: int) -> Example:
    number = records.offset + row
    sides = [
        Side(name, tokens, _origin(records, number, name.lower()))
        for name, tokens in segment_tokens(records.columns, row, records.vocabulary).items()
    ]
    label = int(records.columns.next_sentence_labels[row])
    return Example(f"Record {number}", f"{records.sizes(row)}; label {label}", sides, records.meaning(row), label)


def page(records: ShardRecords) -> str:
    """Return the page, which needs no other file."""
    rows = [_example(records, row) for row in range(len(records.columns))]
    meanings = dict(sorted((each.label, each.meaning) for each in rows))
    labels = [(label, meaning, sum(each.label == label for each in rows)) for label, meaning in meanings.items()]
    shard, config = records.shard, records.contract["config"]
    return html.fill(
        "inspect.html",
        shard=shard["name"],
        about=f"{counted(len(rows), 'record')} of {shard['examples']:,}; pairs {config['pairs']}, masking {config['masking']}",
        digest=records.contract["digest"],
        records=rows,
        labels=labels,
        first=records.offset,
    )
