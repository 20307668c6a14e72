"""verify finds what is planted: damage to bytes, to records, to dataset.json, to the split, to the proportions."""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import clozemill
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import manifest
from clozemill.pipelines.dataset.reading import read_contract
from clozemill.pipelines.examples.columns import Columns
from clozemill.pipelines.prepare.dataset_stage import DatasetStage
from clozemill.pipelines.quality import verify as quality_verify
from clozemill.pipelines.quality.config import VerifyConfig
from clozemill.pipelines.shards import tf_example, tfrecord
from clozemill.pipelines.text.vocabulary import Vocabulary
from tests.slow import mostly_slow_rows

SHARD = "train/copy-00/examples-00000-of-00003.tfrecord"


@pytest.fixture
def dataset(demo_dataset: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(demo_dataset, tmp_path / "d"))


def found(folder: Path) -> list[str]:
    return list(quality_verify.violations(VerifyConfig(dataset=str(folder), progress=False), *read_contract(str(folder))))


def vocabulary(folder: Path) -> Vocabulary:
    return Vocabulary.from_bytes((folder / "vocab.txt").read_bytes(), "vocab.txt")


def rewrite(folder: Path, change: Callable[[Columns], None], name: str = SHARD) -> None:
    """Changes a shard's columns and makes frames, digests and dataset.json agree with it."""
    path = folder / name
    columns = tf_example.decode(list(tfrecord.read(path.read_bytes())), 128, 20)
    change(columns)
    path.write_bytes(tf_example.encode(columns).tobytes())
    sign(folder)


def sign(folder: Path) -> None:
    contract = json.loads((folder / "dataset.json").read_text())
    for shard in contract["shards"]:
        shard["sha256"] = hashlib.sha256((folder / shard["name"]).read_bytes()).hexdigest()
    contract["digest"] = manifest.dataset_digest(contract["shards"])
    (folder / "dataset.json").write_bytes(manifest.dumps(contract))


def test_a_sound_dataset_passes(demo_dataset: Path, capsys: pytest.CaptureFixture) -> None:
    assert clozemill.main(["verify", str(demo_dataset), "--no-progress"]) == 0
    told = capsys.readouterr()
    assert "complete and consistent" in told.out and "verifying" not in told.err


def test_without_a_terminal_the_first_line_says_what_is_read(demo_dataset: Path, capsys: pytest.CaptureFixture) -> None:
    shards = json.loads((demo_dataset / "dataset.json").read_text())["shards"]
    size = sum((demo_dataset / shard["name"]).stat().st_size for shard in shards)
    line = f"verifying {demo_dataset}: reading {len(shards)} shards of {size / 1e6:,.1f} MB\n"
    assert clozemill.main(["verify", str(demo_dataset)]) == 0
    assert capsys.readouterr().err == line
    assert clozemill.main(["verify", str(demo_dataset), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


POLICIES = product(["nsp", "sop", "single"], ["subword", "whole_word", "span"])
QUICK = [("nsp", "subword"), ("sop", "whole_word"), ("single", "span")]  # each policy once


@pytest.mark.parametrize(("pairs", "masking"), mostly_slow_rows(POLICIES, *QUICK))
def test_every_policy_passes(tmp_path: Path, demo_corpus: str, demo_vocab: str, pairs: str, masking: str) -> None:
    arguments = ["--pairs", pairs, "--masking", masking, "--dupe-factor", "2", "--seed", "3", "--max-seq-length", "64"]
    arguments += ["--max-predictions", "10", "--num-groups", "2", "--no-progress", "--output", str(tmp_path / "d")]
    assert clozemill.main(["prepare", "--input", demo_corpus, "--vocab", demo_vocab, *arguments]) == 0
    assert found(tmp_path / "d") == []


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0, 9, 40, 700, -1])
def test_one_flipped_bit(dataset: Path, at: int) -> None:
    flip(dataset / SHARD, at)
    lines = found(dataset)
    assert any(SHARD in line and "SHA-256" in line for line in lines)
    assert any(SHARD in line and "record" in line and "CRC" in line for line in lines)
    assert clozemill.main(["verify", str(dataset), "--no-progress"]) == 1


def test_a_missing_a_truncated_and_a_foreign_shard(dataset: Path) -> None:
    (dataset / SHARD).unlink()
    other = dataset / SHARD.replace("00000", "00001")
    other.write_bytes(other.read_bytes()[:-5])
    (dataset / SHARD.replace("00000", "00002")).write_bytes(b"not a TFRecord at all")
    lines = "\n".join(found(dataset))
    assert "is missing" in lines and "is truncated within it" in lines and "record 0" in lines


def _at(columns: Columns, row: int = 3) -> int:
    """The first position of a record that is neither special nor masked."""
    taken = set(columns.masked_lm_positions[row].tolist())
    return next(place for place in range(1, 40) if place not in taken)


BREAKS: dict[str, tuple[Callable[[Columns, Vocabulary], None], str]] = {
    "id beyond the vocabulary": (lambda c, v: c.input_ids.__setitem__((3, 5), len(v)), "outside the vocabulary"),
    "unsorted positions": (lambda c, v: c.masked_lm_positions.__setitem__((3, [0, 1]), c.masked_lm_positions[3, [1, 0]]),
                           "not sorted and unique"),
    "a position twice": (lambda c, v: c.masked_lm_positions.__setitem__((3, 1), c.masked_lm_positions[3, 0]),
                         "not sorted and unique"),
    "a masked [CLS]": (lambda c, v: c.masked_lm_positions.__setitem__((3, 0), 0), "special token is masked"),
    "a special original": (lambda c, v: c.masked_lm_ids.__setitem__((3, 0), v.sep_id), "special token is masked"),
    "a mask on padding": (lambda c, v: (c.masked_lm_positions.__setitem__((slice(None), -1), 127),
                                        c.masked_lm_weights.__setitem__((slice(None), -1), 1)), "padding"),
    "[MASK] unasked": (lambda c, v: c.input_ids.__setitem__((3, _at(c)), v.mask_id), "is at a position without a prediction"),
    "no [CLS]": (lambda c, v: c.input_ids.__setitem__((3, 0), 50), "not [CLS]"),
    "a third [SEP]": (lambda c, v: c.input_ids.__setitem__((3, _at(c)), v.sep_id), "2 [SEP]"),
    "hole in the mask": (lambda c, v: c.input_mask.__setitem__((3, 4), 0), "ones followed by zeros"),
    "segment of padding": (lambda c, v: c.segment_ids.__setitem__((slice(None), 127), 1), "segment_ids"),
    "segments swapped": (lambda c, v: c.segment_ids.__setitem__((3, 1), 1), "segment_ids"),
    "a label of 2": (lambda c, v: c.next_sentence_labels.__setitem__(3, 2), "next_sentence_labels"),
    "a weight of 0.5": (lambda c, v: c.masked_lm_weights.__setitem__((3, 0), 0.5), "neither 0 nor 1"),
    "too few masks": (lambda c, v: (c.masked_lm_weights.__setitem__((3, slice(1, None)), 0),
                                    c.masked_lm_positions.__setitem__((3, slice(1, None)), 0),
                                    c.masked_lm_ids.__setitem__((3, slice(1, None)), 0)), "number of masked positions differs"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_each_broken_rule_is_named_with_its_record(dataset: Path, name: str) -> None:
    change, message = BREAKS[name]
    rewrite(dataset, lambda columns: change(columns, vocabulary(dataset)))
    lines = [line for line in found(dataset) if message in line]
    assert lines and SHARD in lines[0] and "record " in lines[0]


def test_skewed_masks_and_labels(dataset: Path) -> None:
    """Every position [MASK], every label 1: valid records, wrong proportions; and the counts differ from dataset.json's."""
    mask_id = vocabulary(dataset).mask_id

    def skew(columns: Columns) -> None:
        row, slot = np.nonzero(columns.masked_lm_weights)
        columns.input_ids[row, columns.masked_lm_positions[row, slot]] = mask_id
        columns.next_sentence_labels[:] = 1

    for shard in sorted((dataset / "train/copy-00").glob("*.tfrecord")):
        rewrite(dataset, skew, str(shard.relative_to(dataset)))
    lines = "\n".join(found(dataset))
    assert "of masked positions are mask" in lines and "of next_sentence_labels are 1" in lines
    assert "dataset.json has labels_random" in lines


def test_an_eval_document_in_train(dataset: Path) -> None:
    train, evaluation = dataset / "documents/train-00000.parquet", dataset / "documents/eval-00000.parquet"
    pq.write_table(pq.read_table(evaluation), train)
    lines = "\n".join(found(dataset))
    assert "belongs to group 3, not to train group 0" in lines


@pytest.mark.parametrize("name", ["documents/train-00000.parquet", "provenance/" + SHARD.replace("tfrecord", "parquet")])
def test_other_files_than_shards(dataset: Path, name: str) -> None:
    pq.write_table(pq.read_table(dataset / name).slice(1), dataset / name)
    lines = found(dataset)
    assert f"{name}: its SHA-256 is not the one in dataset.json" in lines and len(lines) == 2  # and that a row lacks


def test_an_edited_record_of_a_group(dataset: Path) -> None:
    path = dataset / "groups/00001.json"
    path.write_text(path.read_text().replace('"duplicates": 0', '"duplicates": 1'))
    assert found(dataset) == ["groups/00001.json: its SHA-256 is not the one in dataset.json"]
    path.unlink()
    assert found(dataset) == ["groups/00001.json: the file is missing"]


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.binary(15)])
def test_keys_of_another_type(dataset: Path, kind: pa.DataType) -> None:
    path = dataset / "documents/train-00000.parquet"
    count = pq.read_table(path).num_rows
    pq.write_table(
        pa.table({"key": pa.array([b"k" * 15] * count, pa.binary()).cast(pa.binary(15) if kind == pa.binary(15) else kind)}),
        path,
    )
    assert "documents/train-00000.parquet: the list of the group's documents can't be read" in found(dataset)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_shard_that_is_not_a_file(dataset: Path, make: Callable) -> None:
    (dataset / SHARD).unlink()
    make(dataset / SHARD)
    assert f"{dataset / SHARD} is not a file: give a file, or remove it" in found(dataset)


def test_documents_missing_in_the_counts(dataset: Path) -> None:
    contract = json.loads((dataset / "dataset.json").read_text())
    contract["documents"]["read"] += 50
    (dataset / "dataset.json").write_bytes(manifest.dumps(contract))
    assert [line for line in found(dataset) if "documents were read, but" in line]


def test_a_document_twice_in_its_group(dataset: Path) -> None:
    path = dataset / "documents/train-00000.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(4, 1)]), path)
    assert any("is also in row 4" in line for line in found(dataset))


def test_what_lies_there_besides_or_is_lacking(dataset: Path) -> None:
    other, mine = "train/copy-00/examples-00007-of-00009.tfrecord", "train/copy-01/examples-00000-of-00003.tfrecord"
    shutil.copy(dataset / SHARD, dataset / other)
    provenance = dataset / "provenance" / SHARD.replace(".tfrecord", ".parquet")
    pq.write_table(pq.read_table(provenance).slice(1), provenance)
    (dataset / "provenance" / SHARD.replace("00000-of", "00001-of").replace(".tfrecord", ".parquet")).unlink()
    contract = json.loads((dataset / "dataset.json").read_text())
    (shard,) = (shard for shard in contract["shards"] if shard["name"] == mine)
    shard["name"] = other
    (dataset / "dataset.json").write_bytes(manifest.dumps(contract))
    sign(dataset)
    lines = "\n".join(found(dataset))
    assert f"dataset.json: it lists {other}, which doesn't belong to the dataset" in lines
    assert f"{mine}: dataset.json doesn't list this file" in lines and f"dataset.json: it doesn't list {mine}" in lines
    assert "rows, not" in lines and "its SHA-256 is not the one in dataset.json" in lines and "the file is missing" in lines


def test_masks_over_the_quota_in_whole_words(tmp_path: Path, demo_corpus: str, demo_vocab: str) -> None:
    """One more masked word than asked for, in every record that has room for it."""
    folder = tmp_path / "d"
    arguments = ["--masking", "whole_word", "--max-predictions", "30", "--dupe-factor", "1", "--num-groups", "1"]
    command = ["prepare", "--input", demo_corpus, "--vocab", demo_vocab, "--output", str(folder), "--no-progress"]
    assert clozemill.main([*command, *arguments]) == 0
    mask_id, name = vocabulary(folder).mask_id, "train/copy-00/examples-00000-of-00001.tfrecord"
    columns = tf_example.decode(list(tfrecord.read((folder / name).read_bytes())), 128, 30)
    for row in range(len(columns)):
        count = int(columns.masked_lm_weights[row].sum())
        free = [place for place in range(1, 30) if place not in set(columns.masked_lm_positions[row].tolist())]
        free = [place for place in free if columns.input_ids[row, place] > 4]
        places = sorted([*columns.masked_lm_positions[row, :count].tolist(), *free[:5]])
        before = dict(zip(columns.masked_lm_positions[row], columns.masked_lm_ids[row], strict=True))
        ids = [before.get(place, columns.input_ids[row, place]) for place in places]
        columns.masked_lm_positions[row, : len(places)], columns.masked_lm_ids[row, : len(places)] = places, ids
        columns.masked_lm_weights[row, : len(places)] = 1
        columns.input_ids[row, places] = mask_id
    (folder / name).write_bytes(tf_example.encode(columns).tobytes())
    sign(folder)
    assert any("more masked positions than masked_lm_prob allows" in line for line in found(folder))


@pytest.mark.parametrize("seed", range(4))
def test_a_single_long_document_is_sound(tmp_path: Path, demo_vocab: str, seed: int) -> None:
    """No other document, so no random B: labels are all 0, and that is as it should be."""
    (tmp_path / "a.txt").write_text("\n".join(f"The river {number} runs to the sea ." for number in range(1500)))
    command = ["prepare", "--input", str(tmp_path / "a.txt"), "--vocab", demo_vocab, "--output", str(tmp_path / "d")]
    assert clozemill.main([*command, "--eval-fraction", "0", "--seed", str(seed), "--no-progress"]) == 0
    assert found(tmp_path / "d") == []


def signed_statistics(folder: Path, change: Callable[[dict], None]) -> None:
    """Changes statistics.json and makes dataset.json agree with it."""
    told = json.loads((folder / "statistics.json").read_text())
    change(told)
    (folder / "statistics.json").write_text(json.dumps(told))
    contract = json.loads((folder / "dataset.json").read_text())
    contract["statistics"]["sha256"] = hashlib.sha256((folder / "statistics.json").read_bytes()).hexdigest()
    (folder / "dataset.json").write_bytes(manifest.dumps(contract))


def test_the_statistics_are_those_of_the_shards(dataset: Path) -> None:
    told = json.loads((dataset / "statistics.json").read_text())
    contract = json.loads((dataset / "dataset.json").read_text())
    assert contract["gate"] == {"passed": True, "overridden": False} == {key: told["gate"][key] for key in contract["gate"]}
    assert told["splits"].keys() == {"train", "eval"} and told["splits"]["train"].keys() == {"00", "01"}
    for split, copies in told["splits"].items():
        for copy, figures in copies.items():
            counts = contract["splits"][split]["copies"][copy]
            assert sum(figures["lengths"]) == sum(map(sum, figures["a_lengths"])) == counts["examples"]
            assert sum(figures["random_tokens"]) == counts["masked_as_random"]
            assert sum(figures["tokens"]) == (counts["tokens"] if copy == "00" else 0)
    documents = told["documents"]
    assert sum(documents["token_lengths"]) == contract["documents"]["kept"]
    assert all(isinstance(word, str) and count > 0 for word, count in documents["unknown_words"])
    assert set(documents["samples"]) == set(contract["documents"]["dropped"])

    signed_statistics(dataset, lambda told: told["splits"]["train"]["01"]["lengths"].append(1))
    assert found(dataset) == ["statistics.json: train copy 01: lengths doesn't match the shards"]


def test_statistics_that_are_gone_or_edited(dataset: Path) -> None:
    path = dataset / "statistics.json"
    path.write_text(path.read_text().replace('"passed": true', '"passed": false', 1))
    assert found(dataset) == ["statistics.json: its SHA-256 is not the one in dataset.json"]
    path.write_text("[]")
    assert [line for line in found(dataset) if "doesn't contain statistics" in line]
    path.unlink()
    assert len(found(dataset)) == 1 and "statistics.json" in found(dataset)[0]


def strange(folder: Path) -> list[str]:
    """The options of `prepare` on a corpus whose words the vocabulary doesn't know: most tokens are [UNK]."""
    words = [f"{first}{second}" for first in "абвгдежзик" for second in "лмнопрстуф"]
    sentences = [" ".join(words[(7 * i + 3 * j) % 100] for j in range(1 + i % 5)) + " ." for i in range(3000)]
    (folder / "a.txt").write_text("\n\n".join(sentences), "utf-8")
    return ["prepare", "--input", str(folder / "a.txt"), "--output", str(folder / "d"), "--no-progress", "--num-groups", "3"]


def test_an_earlier_rejection_is_not_the_reason_of_another_failure(
    tmp_path: Path, demo_vocab: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise UserError("the disk is full")

    command = [*strange(tmp_path), "--vocab", demo_vocab, "--in-memory", "--dupe-factor", "1"]
    assert clozemill.main(command) == 1
    capsys.readouterr()
    monkeypatch.setattr(DatasetStage, "_check", fail)
    assert clozemill.main(command) == 2
    assert capsys.readouterr().err.strip() == "clozemill: the disk is full"


IN_MEMORY = (["--in-memory"], 2)


@pytest.mark.parametrize(
    ("processes", "times"), mostly_slow_rows([IN_MEMORY, (["--no-in-memory", "--num-workers", "2"], 1)], IN_MEMORY)
)
def test_the_gate_stops_a_dataset(
    tmp_path: Path, demo_vocab: str, capsys: pytest.CaptureFixture, processes: list[str], times: int
) -> None:
    """Exit code 1, the reasons, no dataset.json; the same command with --no-gate makes no shard again and finishes."""
    command = [*strange(tmp_path), "--vocab", demo_vocab, *processes]
    for _ in range(times):
        assert clozemill.main(command) == 1
        told = capsys.readouterr()
        assert "train copy 00: " in told.out and "of tokens are [UNK]" in told.out and "not within" in told.out
        assert (
            "the statistical gate rejected the dataset" in told.err and "--no-gate" in told.err and "Traceback" not in told.err
        )
        assert not (tmp_path / "d/dataset.json").exists() and not (tmp_path / "d/statistics.json").exists()
        card = (tmp_path / "d/report.html").read_text()
        assert (
            "The statistical gate rejected this dataset, which is unfinished" in card
            and f"{tmp_path}/d/report.html" in told.err
        )
        assert clozemill.main(["verify", str(tmp_path / "d")]) == 2
        assert "contains no dataset.json: the statistical gate rejected it, see its report.html" in capsys.readouterr().err
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "d/train").rglob("*.tfrecord")}
    assert clozemill.main([*command, "--no-gate"]) == 0
    assert len(shards) == 15 and shards == {path: path.stat().st_mtime_ns for path in shards}
    contract = json.loads((tmp_path / "d/dataset.json").read_text())
    assert contract["gate"] == {"passed": False, "overridden": True}
    assert "gate" not in contract["config"]
    assert "overridden with --no-gate" in (tmp_path / "d/report.html").read_text()

    capsys.readouterr()
    verify = ["verify", str(tmp_path / "d"), "--no-progress"]
    assert clozemill.main(verify) == 1
    told = capsys.readouterr().out
    assert "prepared with --no-gate" in told and "of tokens are [UNK]" in told
    assert clozemill.main([*verify, "--no-gate"]) == 0
    told = capsys.readouterr().out
    assert "prepared with --no-gate" in told and "complete and consistent" in told


def test_the_gate_applies_unless_it_was_overridden(dataset: Path) -> None:
    """verify --no-gate speaks of datasets that were made with it."""
    for shard in sorted((dataset / "train/copy-00").glob("*.tfrecord")):
        rewrite(dataset, lambda columns: columns.next_sentence_labels.fill(1), str(shard.relative_to(dataset)))
    config = VerifyConfig(dataset=str(dataset), progress=False, gate=False)
    assert any("of next_sentence_labels are 1, not within" in line for line in quality_verify.violations(
        config, *read_contract(str(dataset))))  # fmt: skip


def test_an_edited_manifest_and_another_vocabulary(dataset: Path) -> None:
    contract = json.loads((dataset / "dataset.json").read_text())
    contract["shards"][0]["examples"] += 1
    contract["shards"][1]["sha256"] = "0" * 64
    (dataset / "dataset.json").write_bytes(manifest.dumps(contract))
    tokens = (dataset / "vocab.txt").read_text().replace("\nthe\n", "\nteh\n")
    (dataset / "vocab.txt").write_text(tokens)
    lines = "\n".join(found(dataset))
    assert "digest doesn't match the shards" in lines and "its shards" in lines and "vocab.txt: its SHA-256" in lines


def test_no_dataset_and_too_many_violations(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert clozemill.main(["verify", str(tmp_path), "--no-progress"]) == 2
    assert "contains no dataset.json" in capsys.readouterr().err
    rewrite(dataset, lambda columns: columns.input_ids.__setitem__((slice(None), 0), 50))
    (dataset / SHARD.replace("00000", "00001")).unlink()
    assert clozemill.main(["verify", str(dataset), "--no-progress", "--max-lines", "1"]) == 1
    lines = capsys.readouterr().out.strip().split("\n")
    assert len([line for line in lines if not line.startswith("warning: ")]) == 2


def test_a_signal_does_not_wait_for_the_shards_at_hand(demo_dataset: Path) -> None:
    contract, words = read_contract(str(demo_dataset))
    contract["shards"] = [{**shard, "bytes": 8 << 20} for shard in contract["shards"]]  # as if worth several processes
    checks = quality_verify._map(VerifyConfig(dataset=str(demo_dataset), num_workers=2), contract, words)
    next(checks)
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGSTOP)  # it never gets done
    with pytest.raises(KeyboardInterrupt):
        checks.throw(KeyboardInterrupt())
    assert multiprocessing.active_children() == []
