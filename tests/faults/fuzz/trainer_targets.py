"""What is fuzzed of the trainer: tables, and the examples of each kind of task.

A module of its own, since it loads TensorFlow; see targets.py.
"""

import gzip
import io
import json
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.fuzz.targets import JSON, Target, blown_up, refusing, repeated, scratch
from trainers import tables
from trainers.kinds import KINDS
from trainers.presets import Layout

LAYOUTS = (
    Layout(),
    Layout("0", "", "-1", header=False),
    Layout("text", "title", "label", torn=True),
    Layout("3", "", "1", False),
)


def of_kind(kind: str, ending: str) -> Callable[[bytes], None]:
    """A target of a file of examples. First byte: layout, whether with answers, gzipped by ourselves or found so."""

    def run(data: bytes) -> None:
        if len(data) < 2:
            return
        layout, body = LAYOUTS[data[0] % 4], data[1:] if ending == ".parquet" else blown_up(data[1:])
        packed = data[0] & 8 and ending != ".parquet"
        path = scratch("examples" + ending + (".gz" if packed else ""), gzip.compress(body) if packed == 8 else body)
        with refusing():
            for _ in KINDS[kind]().read(path, layout, {}, bool(data[0] & 16)):
                pass
        with refusing():
            if kind == "classify":
                for row in tables.rows(path, layout):
                    tables.text(row, layout.text, "--text-column")

    return run


def seeds_of(*texts: str) -> Callable[[], list[bytes]]:
    return lambda: [bytes([first]) + seed for seed in repeated(*texts) for first in (0, 1, 16, 17, 24)]


def _parquet() -> list[bytes]:
    found = []
    columns = (["a", None], [["a"], ["b", "c"]], [b"\xff", b""], [10**17, 1])
    for number, column in enumerate(columns):
        file = io.BytesIO()
        when = pa.array([1, 2**62], (pa.int64(), pa.timestamp("ns"), pa.date64(), pa.duration("ns"))[number])
        pq.write_table(pa.table({"text": column, "label": when, "words": [["a"], ["b"]], "tags": [["O"], ["O"]]}), file)
        found += [bytes([first]) + file.getvalue() for first in (0, 16)]
    return found


SQUAD = json.dumps(
    {"data": [{"paragraphs": [{"context": "The old bridge.", "qas": [
        {"id": "1", "question": "What?", "answers": [{"text": "old", "answer_start": 4}]}]}]}]})  # fmt: skip
_ROWS = ['{"text": "The old bridge.", "label": 1, "words": ["a"], "tags": ["O"]}\n', '{"text": "\\ud800"}\n', '{"a": [\0[\0]}']
TARGETS = {
    "csv": Target(of_kind("classify", ".csv"), seeds_of('text,label\n"a ""b""\nc",1\nd,0\n', 'a,"b', "\0a,\0\n"), (b'"', b",")),
    "tsv": Target(
        of_kind("classify", ".tsv"), seeds_of("text\ttitle\tlabel\na\tb\t1\n", "a\t1\t\tb\n", "\r\n"), (b"\t", b"\n")
    ),
    "rows": Target(of_kind("classify", ".jsonl"), seeds_of(*_ROWS), JSON),
    "regress": Target(of_kind("regress", ".tsv"), seeds_of("text\tlabel\na\t1.5\n", "a\tnan\n", "a\t1e999\n"), (b"\t", b"inf")),
    "tables": Target(of_kind("classify", ".parquet"), _parquet, (b"PAR1", b"text", b"label")),
    "tags": Target(of_kind("tags", ".jsonl"), seeds_of(*_ROWS), JSON),
    "conll": Target(
        of_kind("tags", ".txt"), seeds_of("-DOCSTART- O\n\na O\nb B-PER\n\n", "a b c O\n"), (b"\n\n", b"-DOCSTART-")
    ),
    "squad": Target(of_kind("spans", ".json"), seeds_of(SQUAD, '{"data": [\0[\0]}'), JSON),
}
