"""End to end, as a user would: the demo, tf.data on the shards, and real corpora if available."""

import json
import os
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

import clozemill
from clozemill.deploy import demo
from clozemill.trainers.pretraining.recipes import RECIPES
from tests.slow import mostly_slow

DATA = Path(os.environ.get("CLOZEMILL_DATA", Path(__file__).parents[2] / "shared/data"))


@pytest.mark.usefixtures("one_layer")
@pytest.mark.parametrize("twice", mostly_slow((False, True), False))
def test_the_demo_runs_and_keeps_foreign_folders(
    twice: bool, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few steps and few rows to fine-tune on; make demo uses all of them."""
    few = {"steps": 4, "warmup_steps": 2, "eval_steps": 4}
    monkeypatch.setitem(RECIPES, "demo", replace(RECIPES["demo"], options=RECIPES["demo"].options | few))
    for name in ("train", "dev"):
        header, *rows = (files("clozemill") / demo.EXAMPLES.format(name)).read_text("utf-8").splitlines(keepends=True)
        assert len(rows) > 20 and len({row.split("\t")[1] for row in rows}) == 3
        (tmp_path / f"{name}.tsv").write_text("".join([header, *rows[::7]]), "utf-8")
    monkeypatch.setattr(demo, "EXAMPLES", str(tmp_path / "{}.tsv"))
    out = tmp_path / "out"
    assert clozemill.main(["demo", "--output", str(out), "--no-progress"]) == 0
    first = json.loads((out / "dataset/dataset.json").read_text())["digest"]
    text = capsys.readouterr().out
    assert "66 kept" in text and "complete and consistent" in text and "[MASK]<-" in text
    assert "$ clozemill prepare --input" in text
    assert f"pretrain --recipe modern --steps 500 --data {out}/dataset --output {out}/modern-run\n" in text
    assert clozemill.main(["demo", "--output", str(out)]) == 2
    assert f"{out} already exists: give --overwrite to replace it, or another --output" in capsys.readouterr().err
    if twice:
        (out / "run/notes.txt").write_text("mine")
        assert clozemill.main(["demo", "--output", str(out), "--no-progress", "--overwrite"]) == 0
        assert (out / "run/notes.txt").read_text() == "mine"
        assert json.loads((out / "dataset/dataset.json").read_text())["digest"] == first
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    assert clozemill.main(["demo", "--output", str(tmp_path / "mine"), "--overwrite"]) == 2
    assert (tmp_path / "mine/letter.txt").read_text() == "dear"


def test_the_resolved_configuration_reproduces_the_dataset(demo_dataset: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert clozemill.main(["prepare", "--config", str(demo_dataset / "prepare.yaml"), "--output", str(again)]) == 0
    assert (again / "dataset.json").read_bytes() == (demo_dataset / "dataset.json").read_bytes()


def test_tf_data_reads_the_shards_with_the_reference_features(demo_dataset: Path) -> None:
    """The feature spec of google-research/bert's run_pretraining.py, on the files as tf.data sees them."""
    tf = pytest.importorskip("tensorflow")
    contract = json.loads((demo_dataset / "dataset.json").read_text())
    length, predictions = contract["max_seq_length"], contract["max_predictions"]
    spec = {
        "input_ids": tf.io.FixedLenFeature([length], tf.int64),
        "input_mask": tf.io.FixedLenFeature([length], tf.int64),
        "segment_ids": tf.io.FixedLenFeature([length], tf.int64),
        "masked_lm_positions": tf.io.FixedLenFeature([predictions], tf.int64),
        "masked_lm_ids": tf.io.FixedLenFeature([predictions], tf.int64),
        "masked_lm_weights": tf.io.FixedLenFeature([predictions], tf.float32),
        "next_sentence_labels": tf.io.FixedLenFeature([1], tf.int64),
    }
    for split, told in contract["splits"].items():
        files = [str(demo_dataset / shard["name"]) for shard in contract["shards"] if shard["split"] == split]
        data = tf.data.TFRecordDataset(files).batch(64).map(lambda batch: tf.io.parse_example(batch, spec))
        batches = list(data.as_numpy_iterator())
        assert sum(len(batch["input_ids"]) for batch in batches) == told["examples"]
        masked = sum(int(batch["masked_lm_weights"].sum()) for batch in batches)
        assert masked == sum(copy["masked"] for copy in told["copies"].values())


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="real corpora not at hand")
@pytest.mark.parametrize("name", ["enwiki-excerpt.xml.bz2", "vital-articles.jsonl.gz"])
def test_real_corpora(name: str, tmp_path: Path) -> None:
    corpus, vocab, out = str(DATA / name), str(tmp_path / "vocab.txt"), str(tmp_path / "d")
    assert clozemill.main(["vocab", "--input", corpus, "--output", vocab, "--vocab-size", "8000"]) == 0
    common = ["--vocab", vocab, "--dupe-factor", "1", "--eval-fraction", "0.05", "--seed", "1"]
    assert clozemill.main(["prepare", "--input", corpus, "--output", out, *common]) == 0
    assert clozemill.main(["verify", out, "--no-progress"]) == 0
    documents = json.loads((tmp_path / "d/dataset.json").read_text())["documents"]
    assert documents["defective"] == 0 and documents["kept"] > 100
    assert documents["unknown_tokens"] < 0.02 * documents["tokens"]
