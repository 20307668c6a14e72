"""A packed dataset: the same bytes however it is prepared, the examples of the unpacked one, and what its readers say of it."""

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import clozemill
from clozemill.pipelines.dataset import manifest
from clozemill.pipelines.dataset.reading import read_contract
from clozemill.pipelines.dataset.shard_records import decode_shard_records, examples_of
from clozemill.pipelines.examples.columns import PACKED_FEATURES, Columns, PackedColumns
from clozemill.pipelines.quality import verify as quality_verify
from clozemill.pipelines.quality.config import VerifyConfig
from clozemill.pipelines.shards import tf_example, tfrecord
from tests.pipelines.quality.test_verify import sign
from tests.test_determinism import OPTIONS, digest_of

SHARD = "train/copy-00/examples-00000-of-00003.tfrecord"
PROVENANCE = "provenance/train/copy-00/examples-00000-of-00003.parquet"
PACKED = ["--packing", "on", "--id-field", "id"]


def prepare(folder: Path, corpus: str, vocab: str, *more: str) -> list[str]:
    return ["prepare", "--input", corpus, "--vocab", vocab, "--output", str(folder), *OPTIONS, *PACKED, *more]


def records_in(folder: Path, name: str = SHARD) -> Columns | PackedColumns:
    contract, _ = read_contract(str(folder))
    return decode_shard_records(list(tfrecord.read((folder / name).read_bytes())), contract)


def texts_in(folder: Path, name: str) -> Counter[tuple]:
    """How often each example occurs: its label and its tokens before masking, by segment."""
    contract, vocabulary = read_contract(str(folder))
    columns, found = examples_of(records_in(folder, name), contract, vocabulary.pad_id), Counter()
    for row in range(len(columns)):
        ids, used = columns.input_ids[row].copy(), columns.masked_lm_weights[row] > 0
        ids[columns.masked_lm_positions[row][used]] = columns.masked_lm_ids[row][used]
        found[int(columns.next_sentence_labels[row]), bytes(ids), bytes(columns.segment_ids[row])] += 1
    return found


def test_golden_digest(packed_dataset: Path) -> None:
    """If a change alters the bytes on purpose, put the new value here and explain it in the commit."""
    assert digest_of(packed_dataset) == "656a7f50f19f41ac6a42714ff2eb3839b42f484c3ce309c154dd03f34e4c6c38"


def test_workers_and_shuffle(tmp_path: Path, demo_corpus: str, demo_vocab: str, packed_dataset: Path) -> None:
    how = ["--shuffle", "beam", "--num-workers", "2", "--no-in-memory", "--provenance"]
    assert clozemill.main(prepare(tmp_path / "d", demo_corpus, demo_vocab, *how)) == 0
    assert digest_of(tmp_path / "d") == digest_of(packed_dataset)
    assert (tmp_path / "d" / "dataset.json").read_bytes() == (packed_dataset / "dataset.json").read_bytes()


KILLED = """
import os, signal, sys, clozemill
from clozemill.pipelines.prepare import group_stage
write_shard, calls = group_stage.write_shard, []
def write(*arguments, **options):
    calls.append(0)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return write_shard(*arguments, **options)
group_stage.write_shard = write
clozemill.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_killed_and_resumed(tmp_path: Path, demo_corpus: str, demo_vocab: str, packed_dataset: Path) -> None:
    folder = tmp_path / "d"
    command = prepare(folder, demo_corpus, demo_vocab)
    done = subprocess.run([sys.executable, "-c", KILLED, *command], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert len(list(folder.rglob("*.tfrecord"))) == 3 and not (folder / "dataset.json").exists()
    assert clozemill.main(command) == 0
    assert digest_of(folder) == digest_of(packed_dataset)


def test_an_update_reuses_shards_and_keeps_the_option(
    tmp_path: Path, demo_corpus: str, demo_vocab: str, packed_dataset: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(shutil.copytree(packed_dataset, tmp_path / "d"))
    update = prepare(folder, demo_corpus, demo_vocab, "--update", "--provenance")
    assert clozemill.main([*update, "--packing", "off"]) == 2
    assert "was started with --packing on, not --packing off" in capsys.readouterr().err
    assert clozemill.main(update) == 0
    assert "4 reused as they were" in capsys.readouterr().out
    assert digest_of(folder) == digest_of(packed_dataset)


def test_rows_hold_each_example_of_the_unpacked_dataset_once(demo_dataset: Path, packed_dataset: Path) -> None:
    """In the same shard, with the same label; only masks and order differ."""
    contract, _ = read_contract(str(packed_dataset))
    for shard in contract["shards"]:
        assert texts_in(packed_dataset, shard["name"]) == texts_in(demo_dataset, shard["name"])
        records = records_in(packed_dataset, shard["name"])
        assert len(records) == shard["rows"] < shard["examples"] == records.examples.sum()
        assert records.examples.max() == shard["max_examples"] and records.predictions.max() == shard["max_predictions"]


def test_the_manifest(demo_dataset: Path, packed_dataset: Path) -> None:
    contract, before = read_contract(str(packed_dataset))[0], read_contract(str(demo_dataset))[0]
    shards = contract["shards"]
    assert (contract["config"]["packing"], before["config"]["packing"]) == ("on", "off")
    assert contract["features"] == {name: dtype for name, (dtype, _) in PACKED_FEATURES.items()}
    assert contract["packing"] == {
        "max_examples": max(shard["max_examples"] for shard in shards),
        "max_predictions": max(shard["max_predictions"] for shard in shards),
    }
    assert "packing" not in before and not any("rows" in shard for shard in before["shards"])
    for name, split in contract["splits"].items():
        assert split["rows"] == sum(shard["rows"] for shard in shards if shard["split"] == name)
        for copy, counts in split["copies"].items():
            rows = sum(shard["rows"] for shard in shards if (shard["split"], shard["copy"]) == (name, int(copy)))
            assert counts["padding"] + counts["tokens"] == rows * 128 and manifest.copy_rows_of(contract, counts) == rows
            assert manifest.unpacked_padding(contract, counts) == before["splits"][name]["copies"][copy]["padding"]


def violations(folder: Path) -> list[str]:
    return list(quality_verify.violations(VerifyConfig(dataset=str(folder), progress=False), *read_contract(str(folder))))


def test_a_packed_dataset_is_verified(packed_dataset: Path, capsys: pytest.CaptureFixture) -> None:
    assert clozemill.main(["verify", str(packed_dataset), "--no-progress"]) == 0
    shards = read_contract(str(packed_dataset))[0]["shards"]
    examples, rows = (sum(shard[name] for shard in shards) for name in ("examples", "rows"))
    assert f"{examples:,} examples in {rows:,} records in 7 shards read: complete" in capsys.readouterr().out


@pytest.fixture
def copied(packed_dataset: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(packed_dataset, tmp_path / "d"))


def rewrite(folder: Path, change: Callable[[PackedColumns], PackedColumns]) -> None:
    """Change the rows of a shard, and make frames, digests and dataset.json agree with it."""
    (folder / SHARD).write_bytes(tf_example.encode(change(records_in(folder))).tobytes())
    sign(folder)


def swapped(packed: PackedColumns) -> PackedColumns:
    """Swap the first two examples of the first row in which their lengths differ."""
    for row in range(len(packed)):
        sizes = np.bincount(packed.example_ids[row])[1:]
        if len(sizes) > 1 and sizes[0] != sizes[1]:
            break
    first, both = sizes[0], sizes[0] + sizes[1]
    order = np.r_[first:both, 0:first]
    for name in ("input_ids", "segment_ids"):
        getattr(packed, name)[row, :both] = getattr(packed, name)[row, order]
    packed.example_ids[row, :both] = np.repeat([1, 2], [sizes[1], first])
    at, example = packed.predictions[:row].sum(), packed.examples[:row].sum()
    packed.cls_positions[example + 1] = sizes[1]
    labels = packed.next_sentence_labels
    labels[[example, example + 1]] = labels[[example + 1, example]]
    places = packed.masked_lm_positions[at : at + packed.predictions[row]]
    moved = np.where(places < first, places + sizes[1], np.where(places < both, places - first, places))
    packed.masked_lm_ids[at : at + len(places)] = packed.masked_lm_ids[at : at + len(places)][np.argsort(moved)]
    places[:] = np.sort(moved)
    return packed


def changed(name: str, index: int | tuple[int, int], value: int) -> Callable[[PackedColumns], PackedColumns]:
    def change(packed: PackedColumns) -> PackedColumns:
        getattr(packed, name)[index] = value
        return packed

    return change


def without_last(packed: PackedColumns) -> PackedColumns:
    examples, predictions = packed.examples[:-1].sum(), packed.predictions[:-1].sum()
    lengths = {"max_seq_length": len(packed) - 1, "max_examples": examples, "max_predictions": predictions}
    kept = {name: getattr(packed, name)[: lengths[length]] for name, (_, length) in PACKED_FEATURES.items()}
    return replace(packed, **kept, examples=packed.examples[:-1], predictions=packed.predictions[:-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            changed("example_ids", (3, 0), 2),
            "record 3: example_ids are not 1 to the number of examples, in order and without a ",
        ),
        (changed("cls_positions", 0, 5), "record 0: cls_positions are not where its examples begin"),
        (changed("example_weights", 0, 0), "record 0: example_weights are not all 1"),
        (changed("next_sentence_labels", 0, 2), "record 0: example 1: next_sentence_labels is not within 0 to 1"),
        (changed("input_ids", (0, 0), 9), "record 0: example 1: the first token is not [CLS]"),
        (swapped, "its examples are not ordered from the longest to the shortest"),
        (without_last, "records, not "),
    ],
)
def test_verify_names_the_record(copied: Path, change: Callable[[PackedColumns], PackedColumns], message: str) -> None:
    rewrite(copied, change)
    found = violations(copied)
    assert found[0].startswith(f"{SHARD}: ") and message in found[0], found


def test_a_later_example_of_a_row_is_named(copied: Path) -> None:
    packed = records_in(copied)
    row = int(np.argmax(packed.examples > 1))
    second = int(packed.cls_positions[packed.examples[:row].sum() + 1])
    rewrite(copied, changed("input_ids", (row, second), 9))
    assert f"{SHARD}: record {row}: example 2: the first token is not [CLS]" in violations(copied)


def test_rows_that_another_plan_gives(copied: Path) -> None:
    """Every row is valid, but two of them could be one."""

    def split(packed: PackedColumns) -> PackedColumns:
        row = int(np.argmax(packed.examples > 1))
        examples = packed.examples[:row].sum()
        cut = int(packed.cls_positions[examples + packed.examples[row] - 1])
        last = packed.example_ids[row] == packed.examples[row]
        rest = np.argsort(~last, kind="stable")
        at = packed.predictions[:row].sum()
        places = packed.masked_lm_positions[at : at + packed.predictions[row]]
        here = int((places < cut).sum())
        places[here:] -= cut
        packed.cls_positions[examples + packed.examples[row] - 1] = 0
        wide = {}
        for name in ("input_ids", "input_mask", "segment_ids", "example_ids"):
            values = getattr(packed, name)
            second = np.where(last[rest], values[row, rest], 0)
            values[row] = np.where(last, 0, values[row])
            wide[name] = np.insert(values, row + 1, np.minimum(second, 1) if name == "example_ids" else second, axis=0)
        counts = {"examples": (packed.examples[row] - 1, 1), "predictions": (here, len(places) - here)}
        for name, (one, other) in counts.items():
            values = getattr(packed, name)
            values[row] = one
            wide[name] = np.insert(values, row + 1, other)
        return replace(packed, **wide)

    contract, _ = read_contract(str(copied))
    rows = next(shard["rows"] for shard in contract["shards"] if shard["name"] == SHARD)
    rewrite(copied, split)
    found = violations(copied)
    assert f"{SHARD}: it contains {rows + 1} records, not {rows}" in found
    assert f"{SHARD}: its examples are in {rows + 1} rows, but prepare packs them into {rows}" in found


def test_provenance_of_other_rows(copied: Path) -> None:
    table = pq.read_table(copied / PROVENANCE)
    pq.write_table(
        table.set_column(table.column_names.index("row"), "row", pa.array(np.arange(len(table)))), copied / PROVENANCE
    )
    assert f"{PROVENANCE}: its rows and examples are not those of the shard" in violations(copied)
    pq.write_table(table.drop_columns(["row"]), copied / PROVENANCE)
    said = f"{PROVENANCE}: it lacks the columns row and example, although the dataset is packed"
    assert said in violations(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found["config"].update(packing="off"), "config.packing is off, but there are packing or rows"),
        (lambda found: found.pop("packing"), "config.packing is on, but packing or rows are missing"),
        (lambda found: found["shards"][0].pop("rows"), "config.packing is on, but packing or rows are missing"),
        (lambda found: found["splits"]["eval"].pop("rows"), "config.packing is on, but packing or rows are missing"),
        (lambda found: found["packing"].update(max_examples=99), "packing doesn't match its shards"),
        (lambda found: found["shards"][0].pop("max_examples"), "max_examples"),
        (
            lambda found: [part.update(max_examples=10**12) for part in (found["packing"], found["shards"][0])],
            "packing exceeds max_seq_length",
        ),
        (lambda found: found["config"].update(packing="yes"), "config.packing"),
        (lambda found: found["features"].pop("example_ids"), "features are not those of its records"),
        (lambda found: found["shards"][0].update(rows=0), "which can't be in 0 rows"),
        (lambda found: found["shards"][0].update(rows=10**9), "which can't be in 1,000,000,000 rows"),
    ],
)
def test_a_manifest_that_contradicts_itself(packed_dataset: Path, change: Callable[[dict], object], message: str) -> None:
    contract = json.loads((packed_dataset / "dataset.json").read_bytes())
    change(contract)
    with pytest.raises(clozemill.UserError) as error:
        manifest.loads(manifest.dumps(contract), "dataset.json")
    assert str(error.value).startswith("dataset.json: ") and message in str(error.value)
    assert str(error.value).endswith(": rebuild the dataset with clozemill prepare")


def test_inspect_shows_every_example_with_its_row(packed_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    packed, row = records_in(packed_dataset), 2
    begin, count = packed.examples[:row].sum(), int(packed.examples[row])
    origins = pq.read_table(packed_dataset / PROVENANCE).to_pylist()[begin : begin + count]
    assert clozemill.main(["inspect", str(packed_dataset), "--limit", "1", "--offset", str(row)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{SHARD}: {len(packed)} records of {len(packed.cls_positions)} examples; nsp, subword\n")
    for number, origin in enumerate(origins, 1):
        tokens = int((packed.example_ids[row] == number).sum())
        text = out.split(f"\nrecord {row}, example {number}: {tokens} tokens, ")[1]
        assert f"document {origin['a_key'].hex()} id {origin['a_id']}, {origin['a_title']!r}, characters" in text
    assert f"example {count + 1}" not in out
    page = tmp_path / "records.html"
    assert clozemill.main(["inspect", str(packed_dataset), "--limit", "3", "--html", str(page)]) == 0
    examples = packed.examples[:3].sum()
    assert f"3 records ({examples} examples) of {len(packed):,};" in page.read_text()
    assert page.read_text().count("<h2>Record ") == examples and "<h2>Record 0, example 1</h2>" in page.read_text()


def test_inspect_finds_the_examples_of_an_id(packed_dataset: Path, capsys: pytest.CaptureFixture) -> None:
    row = pq.read_table(packed_dataset / PROVENANCE).to_pylist()[-1]
    assert clozemill.main(["inspect", str(packed_dataset), "--id", row["a_id"], "--limit", "1000"]) == 0
    out = capsys.readouterr().out
    assert f"\nrecord {row['row']}, example {row['example']}: " in out
    shown = [line for line in out.splitlines() if line.startswith("record ")]
    tables = [pq.read_table(path).to_pylist() for path in (packed_dataset / "provenance").rglob("*.parquet")]
    wanted = [each for table in tables for each in table if row["a_key"] in (each["a_key"], each["b_key"])]
    assert len(shown) == len(wanted) and f"{len(wanted)} examples in all copies, {len(wanted)} shown" in out


def test_numpy_batches_have_static_shapes(packed_dataset: Path) -> None:
    dataset = clozemill.load_dataset(packed_dataset)
    packing = dataset.manifest["packing"]
    batches = list(dataset.numpy_batches("train", 8))
    assert sum(len(batch["input_ids"]) for batch in batches) == dataset.records("train") < dataset.count("train")
    assert sum(batch["example_weights"].sum() for batch in batches) == dataset.count("train")
    for batch in batches:
        assert batch.keys() == PACKED_FEATURES.keys()
        rows = len(batch["input_ids"])
        for name, (dtype, length) in PACKED_FEATURES.items():
            assert batch[name].shape == (rows, packing.get(length, 128)) and batch[name].dtype == dtype
    first = next(dataset.numpy_batches("train", 1))
    assert (first["cls_positions"][0] * first["example_weights"][0] == first["cls_positions"][0]).all()
    assert "packed" in repr(dataset)
    shuffled = list(dataset.numpy_batches("train", 8, seed=1))
    rows = sorted(bytes(row) for batch in shuffled for row in batch["input_ids"])
    assert rows == sorted(bytes(row) for batch in batches for row in batch["input_ids"])


def test_numpy_batches_name_a_row_that_a_model_would_misread(copied: Path) -> None:
    rewrite(copied, changed("example_ids", (3, 0), 2))
    with pytest.raises(clozemill.UserError, match=f"{SHARD}: record 3: example_ids are not 1 to the number of examples"):
        list(clozemill.load_dataset(copied).numpy_batches("train"))


def test_summary_and_card(packed_dataset: Path, capsys: pytest.CaptureFixture, demo_corpus: str, demo_vocab: str) -> None:
    assert clozemill.main(prepare(packed_dataset, demo_corpus, demo_vocab, "--provenance")) == 0  # complete already
    out = capsys.readouterr().out
    contract, _ = read_contract(str(packed_dataset))
    counts = contract["splits"]["train"]["copies"]["00"]
    rows = manifest.copy_rows_of(contract, counts)
    padding = f"{100 * counts['padding'] / (rows * 128):.2f} %"
    before = f"{100 * (1 - counts['tokens'] / (counts['examples'] * 128)):.2f} %"
    (line,) = [line for line in out.splitlines() if line.startswith("train copy 00")]
    assert line.split()[3:6] == [f"{len_:,}" for len_ in (contract["splits"]["train"]["documents"], counts["examples"], rows)]
    assert line.endswith(f"{padding:>12}{before:>12}")
    card = (packed_dataset / "report.md").read_text()
    all_rows = sum(shard["rows"] for shard in contract["shards"])
    assert f", packed into {all_rows:,} rows, to pretrain" in card and "padding if not packed" in card
    assert "tokens per row: 128" in card and f"| {padding} | {before} |" in card
