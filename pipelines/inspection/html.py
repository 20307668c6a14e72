"""Records as an HTML page: segments and masks in colour, and marked for readers without colour. All text is escaped."""

from typing import Any

from clozemill.pipelines.data_card import pages
from clozemill.pipelines.examples import columns as examples_columns
from clozemill.pipelines.inspection.records import ShardRecords
from clozemill.pipelines.text.vocabulary import Vocabulary

Token = dict[str, Any]


def tokens(columns: examples_columns.Columns, row: int, vocabulary: Vocabulary) -> dict[str, list[Token]]:
    """Return one example by segment, "A" and "B".

    A token has `shown` and `original`, `how` ("mask", "random", "kept", "special" or ""), and `glued`: whether it continues
    the token before it. Pieces without a prediction lose their ## there.
    """
    masked = columns.masked_lm_weights[row] > 0
    positions, ids = columns.masked_lm_positions[row][masked].tolist(), columns.masked_lm_ids[row][masked].tolist()
    originals = dict(zip(positions, ids, strict=True))
    segments: dict[str, list[Token]] = {}
    for place in range(int(columns.input_mask[row].sum())):
        now = int(columns.input_ids[row][place])
        side = segments.setdefault("AB"[int(columns.segment_ids[row][place])], [])
        shown, original = vocabulary.tokens[now], vocabulary.tokens[originals.get(place, now)]
        how = ""
        if place in originals:
            how = "kept" if originals[place] == now else "mask" if now == vocabulary.mask_id else "random"
        elif now in (vocabulary.cls_id, vocabulary.sep_id):
            how = "special"
        glued = original.startswith("##") and bool(side) and side[-1]["how"] != "special"
        side.append({"shown": shown[2:] if glued and not how else shown, "original": original, "how": how, "glued": glued})
    return segments


def _origin(records: ShardRecords, number: int, side: str) -> dict[str, Any] | None:
    """Return the source of a segment, or None if it is unknown or there is no such segment."""
    rows = records.origins
    if not rows or rows[f"{side}_key"][number] is None:
        return None
    start, end = (f"{rows[f'{side}_{edge}'][number]:,}" for edge in ("start", "end"))
    return {"title": rows[f"{side}_title"][number], "key": rows[f"{side}_key"][number].hex(), "start": start, "end": end}


def page(records: ShardRecords) -> str:
    """Return the page, which needs no other file."""
    shown = []
    for row in range(len(records.columns)):
        number = records.offset + row
        sides = [
            {"name": name, "tokens": found, "origin": _origin(records, number, name.lower())}
            for name, found in tokens(records.columns, row, records.vocabulary).items()
        ]
        label = int(records.columns.next_sentence_labels[row])
        shown.append(
            {"number": number, "counts": records.sizes(row), "label": label, "meaning": records.meaning(row), "sides": sides}
        )
    shard, config = records.shard, records.contract["config"]
    about = f"{shard['examples']:,} records; pairs {config['pairs']}, masking {config['masking']}"
    return pages.fill(
        "inspect.html",
        shard=shard["name"],
        about=about,
        digest=records.contract["digest"],
        records=shown,
        first=records.offset,
    )
