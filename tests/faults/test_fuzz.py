"""Every parser with mutated and repeated input, within the time of the normal suite, and earlier findings of fuzzing.

`make fuzz SECONDS=600` runs for any time, guided by coverage. A target raises an error for a bug.
"""

import argparse
import io
import itertools
import json
import struct
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clozemill.pipelines.command_line import options
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import InputOptions, PrepareConfig
from clozemill.pipelines.dataset import manifest
from clozemill.pipelines.files.filesystem import FileInfo
from clozemill.pipelines.readers import parquet
from clozemill.pipelines.readers.document import Document, Rejected
from clozemill.pipelines.shards import tfrecord
from tests.faults.fuzz import mutation, one, run, targets

INPUTS = 40
SLOWER = {"wikitext": 20, "text": 15, "csv": 15, "tsv": 15, "conll": 15, "yaml": 2}  # number of inputs for slow targets
CPU_SECONDS = 150  # for all of `repetitions`; they use a tenth of it, and a single one in quadratic time would use all of it
OFTEN = {"wikitext": b"\1", "wikixml": b"\0\1\1", "jsonl": b"\0\1\1", "bert": b"\0\1\1", "yaml": b"\2"}  # first bytes


@pytest.mark.parametrize("name", run.names())
def test_mutated_input_is_accepted_or_rejected(name: str) -> None:
    target = one.load(name)
    seeds = target.seeds()
    for data in itertools.islice(mutation.mutants(seeds, target.words), len(seeds) + SLOWER.get(name, INPUTS)):
        target.run(data)  # the seeds first: most of them are sound


def test_mutants_are_reproducible_and_distinct() -> None:
    first, again = (list(itertools.islice(mutation.mutants([b"kite", b"\0"], (b"word",)), 300)) for _ in range(2))
    assert first == again and first[:2] == [b"kite", b"\0"]
    assert len(set(first)) > 150 and any(b"word" in data for data in first)


def test_findings_are_stored_once_per_location(tmp_path: Path) -> None:
    def failing(data: bytes) -> None:
        json.loads(data)

    ledger = one.Ledger(targets.Target(failing, list), tmp_path)
    for data in (b"{", b"1", b"{,", b"\xff"):
        ledger(data)
    findings = sorted(path.read_text().splitlines()[0].split()[0] for path in tmp_path.glob("finding-*.txt"))
    assert findings == ["JSONDecodeError", "UnicodeDecodeError"]
    assert ledger.executed == 4 and len(list(tmp_path.glob("finding-*.bin"))) == 2


def test_a_part_of_an_input_is_repeated() -> None:
    assert targets.blown_up(b"\x0fab") == b"ab"
    assert targets.blown_up(b"\4ab") == b"ab" * 16
    assert targets.blown_up(b"\4a\0bc\0d") == b"a" + b"bc" * 16 + b"d"
    assert len(targets.blown_up(b"\1\0[[\0")) == targets.MAX_BYTES


def repetitions() -> None:
    """Yield 100 kB of each delimiter of each format before a letter (yaml: 256 of them), and between two others."""
    for name, first in OFTEN.items():
        target = targets.TARGETS[name]
        for word in (*target.words, b"(", b"\xe2\x80\x9c", b". "):
            target.run(first + word + b"\0" + word + b"a\0" + word)


@pytest.mark.slow  # test_converter.py, test_sentences.py and test_language_variants.py test some of it quickly
def test_all_markup_takes_linear_time() -> None:
    """CPU time is limited, not wall time, so a busy machine doesn't matter."""
    limits = (CPU_SECONDS, CPU_SECONDS)
    script = "import resource; from tests.faults import test_fuzz; "
    script += f"resource.setrlimit(resource.RLIMIT_CPU, {limits}); test_fuzz.repetitions()"
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


# Findings of fuzzing


def resolved(tmp_path: Path, text: str) -> PrepareConfig:
    (tmp_path / "job.yaml").write_text(text)
    return options.resolve(PrepareConfig, argparse.Namespace(config=str(tmp_path / "job.yaml"), save_config=None))


@pytest.mark.parametrize(
    "text",
    ["seed: 2001-99-99", "seed: !!timestamp x", "seed: !!bool x", "seed: !!int ''", "seed: !!float .", "seed: 0x_"],
)
def test_yaml_values_that_pyyaml_cannot_convert(tmp_path: Path, text: str) -> None:
    """It raised ValueError, AttributeError, KeyError or IndexError."""
    with pytest.raises(UserError, match=r"is not valid YAML: correct it|give a whole number"):
        resolved(tmp_path, text)


@pytest.mark.parametrize("name", ["seed", "input", "max_reject_rate", "progress", "runner", "nonsense"])
def test_yaml_numbers_of_thousands_of_digits(tmp_path: Path, name: str) -> None:
    """Python refuses to format them, so that the message itself raised ValueError."""
    with pytest.raises(UserError, match=r"a number of thousands of digits|unknown option"):
        resolved(tmp_path, f"{name}: 0x{'f' * 4000}")


def test_nested_yaml_aliases_are_rejected(tmp_path: Path) -> None:
    """2**60 values: they were printed in the message, and merged into one mapping."""
    steps = "".join(f"- &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    with pytest.raises(UserError, match=r"seed is \[.*\.\.\..*\]: give a whole number") as found:
        resolved(tmp_path, "seed:\n- &a0 [x]\n" + steps)
    assert len(str(found.value)) < 1000
    merged = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60))
    with pytest.raises(UserError, match="is not valid YAML"):
        resolved(tmp_path, merged)


def plan_and_read(path: Path, data: bytes) -> list[Document | Rejected]:
    path.write_bytes(data)
    splits = parquet.plan_parquet(FileInfo(str(path), len(data), ""), "parquet", "none", 1)
    return [record for split in splits for record in parquet.read_parquet(split, InputOptions(format="parquet"))]


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.date64()])
def test_parquet_dates_outside_the_range_of_python(tmp_path: Path, kind: pa.DataType) -> None:
    """Such a date in the name column raised ValueError or OverflowError; now only that row is rejected."""
    file = io.BytesIO()
    when = pa.array([0, 10**17 + 1, 0], pa.int64()).cast(kind, safe=False)
    pq.write_table(pa.table({"text": ["a", "b", "c"], "id": when}), file)
    records = plan_and_read(tmp_path / "a.parquet", file.getvalue())
    assert [getattr(record, "text", None) or record.reason for record in records] == ["a", "unreadable_value", "c"]


def test_parquet_times_in_an_unknown_zone(tmp_path: Path) -> None:
    """pyarrow raises LookupError."""
    file = io.BytesIO()
    when = pa.array([0, None], pa.timestamp("us", "Nowhere/City"))
    pq.write_table(pa.table({"text": ["a", "b"], "title": when}), file)
    records = plan_and_read(tmp_path / "a.parquet", file.getvalue())
    assert [getattr(record, "text", None) or record.reason for record in records] == ["unreadable_value", "b"]


def test_damaged_column_metadata_does_not_abort_the_process(tmp_path: Path) -> None:
    """pyarrow aborts when asked for the size of a column whose level statistics are damaged."""
    file = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", None]}), file)
    data, tried = file.getvalue(), 0
    footer = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
    for at in range(footer, len(data) - 8):
        with targets.refusing():
            plan_and_read(tmp_path / "a.parquet", data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :])
        tried += 1
    assert tried > 100


@pytest.mark.parametrize("length", [2**63 - 1, 2**63, 2**64 - 1])
def test_a_tfrecord_length_beyond_the_index_range(length: int) -> None:
    """It raised OverflowError."""
    with pytest.raises(tfrecord.CorruptRecord, match="record 0"):
        list(tfrecord.read(targets._frame(b"kite", length)))


def test_a_manifest_that_is_almost_too_deep_to_parse() -> None:
    """It could be read, but serializing it for the comparison raised RecursionError."""
    sound = manifest.dumps(targets._manifest())
    for depth in range(sys.getrecursionlimit() - 150, sys.getrecursionlimit()):
        data = sound.rstrip()[:-1] + b', "x": ' + b"[" * depth + b"]" * depth + b"}"
        with pytest.raises(UserError, match=r"was changed after it was written|is not a dataset's manifest"):
            manifest.loads(data, "dataset.json")


def test_an_unknown_format_version_is_one_short_line() -> None:
    with pytest.raises(UserError) as found:
        manifest.loads(json.dumps({"format_version": "\n" * 5000}).encode(), "dataset.json")
    assert "\n" not in str(found.value) and len(str(found.value)) < 200


def test_names_from_files_do_not_break_messages_into_lines() -> None:
    """The name of a column contained a line break."""
    told = str(UserError("a.parquet: no column 'text' (columns: \next, \u2028b\r\nc): give --text-column"))
    assert told == "a.parquet: no column 'text' (columns: ext, b c): give --text-column"
    told = str(UserError("a.tsv, line 3: " + "x" * 10_000 + ": give --labels"))
    assert told.startswith("a.tsv, line 3: xxx") and told.endswith("xxx: give --labels") and len(told) < 2010
