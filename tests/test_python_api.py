"""The Python API: commands as functions, and loaded objects. `pretrain` and `evaluate` are called in test_notebook.py."""

import gzip
import inspect
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import clozemill
from clozemill.pipelines.examples.columns import FEATURES
from clozemill.pipelines.shards import tfrecord
from tests.trainers import finetune_cases
from tests.trainers.diagnosis import journals

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def undisturbed():
    """Check that no function of the API leaves a signal handler or a thread hook behind."""
    before = [signal.getsignal(number) for number in SIGNALS], threading.excepthook
    yield
    assert ([signal.getsignal(number) for number in SIGNALS], threading.excepthook) == before


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetune_cases.checkpoint(tmp_path_factory.mktemp("run") / "checkpoint")


def test_exported_names_exist_and_are_documented() -> None:
    assert set(clozemill.__all__) >= {
        "prepare",
        "vocab",
        "verify",
        "pretrain",
        "evaluate",
        "export",
        "finetune",
        "contrast",
        "predict",
        "embed",
    }
    for name in clozemill.__all__:
        assert inspect.getdoc(getattr(clozemill, name)), name
    assert "dupe_factor" in inspect.signature(clozemill.prepare).parameters
    assert "learning_rate: " in inspect.getdoc(clozemill.pretrain)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        clozemill.nonsense  # noqa: B018


def test_import_and_arrays_load_no_framework(demo_dataset: Path) -> None:
    code = (
        f"import sys, clozemill\nassert not {{'numpy', 'apache_beam', 'tensorflow'}} & set(sys.modules)\n"
        f"print(sum(len(batch['input_ids']) for batch in clozemill.load_dataset({str(demo_dataset)!r}).numpy_batches()))\n"
        "assert not {'apache_beam', 'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == clozemill.load_dataset(str(demo_dataset)).count("train")


def test_vocab_prepare_and_verify(tmp_path: Path, demo_corpus: str) -> None:
    vocabulary = clozemill.vocab(input=demo_corpus, output=tmp_path / "vocab.txt", vocab_size=1000, progress=False)
    assert len(vocabulary) == 1000
    dataset = clozemill.prepare(
        input=[demo_corpus], vocab=tmp_path / "vocab.txt", output=tmp_path / "dataset", max_seq_length=64, progress=False
    )
    assert dataset.manifest["max_seq_length"] == 64 and "splits" in dataset.statistics and len(dataset.vocabulary) == 1000
    assert clozemill.verify(tmp_path / "dataset") == []
    (tmp_path / "dataset/train/copy-00").rename(tmp_path / "dataset/train/copy-07")
    assert any("the file is missing" in violation for violation in clozemill.verify(tmp_path / "dataset"))


def test_compare_and_doctor(tmp_path: Path) -> None:
    healthy = journals.write_run(tmp_path / "healthy", journals.healthy())
    slow = journals.write_run(tmp_path / "slow", [{**entry, "input_share": 0.4} for entry in journals.healthy()])
    rows = clozemill.compare([healthy, str(slow)])
    assert [(row["run"], row["steps"], row["metric"]) for row in rows] == [
        (str(healthy), 1000, "masked_lm_loss"), (str(slow), 1000, "masked_lm_loss"),
    ]  # fmt: skip
    assert clozemill.doctor(healthy) == []
    (finding,) = clozemill.doctor(slow)
    assert finding["kind"] == "input_bound" and finding["evidence"] and finding["remedy"]
    with pytest.raises(clozemill.UserError, match="nowhere"):
        clozemill.doctor(tmp_path / "nowhere")


def test_batches_contain_each_example_once_in_seeded_order(demo_dataset: Path) -> None:
    dataset = clozemill.load_dataset(demo_dataset)

    def rows(seed: int | None, batch_size: int = 100) -> np.ndarray:
        batches = list(dataset.numpy_batches("train", batch_size, seed=seed))
        assert all(set(batch) == set(FEATURES) for batch in batches)
        assert all(len(batch["input_ids"]) == batch_size for batch in batches[:-1])
        return np.concatenate([batch["input_ids"] for batch in batches])

    in_order = rows(None)
    assert in_order.shape == (dataset.count("train"), dataset.manifest["max_seq_length"])
    assert (rows(None, 7) == in_order).all() and (rows(1) == rows(1, 33)).all() and (rows(1) != rows(2)).any()
    assert sorted(map(bytes, rows(1))) == sorted(map(bytes, in_order))
    assert sum(len(batch["input_ids"]) for batch in dataset.numpy_batches("eval", 16)) == dataset.count("eval")
    assert next(iter(dataset.batches("train", 4)))["input_ids"].shape == (4, dataset.manifest["max_seq_length"])
    with pytest.raises(clozemill.UserError, match="has no split 'dev' with a copy 0"):
        next(dataset.numpy_batches("dev"))


def test_batches_of_a_shard_with_missing_or_further_records(demo_dataset: Path, tmp_path: Path) -> None:
    """Cut between two records, so that no CRC is wrong."""
    copy = Path(shutil.copytree(demo_dataset, tmp_path / "copy"))
    dataset = clozemill.load_dataset(copy)
    shard = dataset.shards("train")[0]
    packed, path = dataset.manifest["config"]["compression"] == "gzip", copy / shard["name"]
    whole = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    first, *_, last = (len(record) + 16 for record in tfrecord.read(whole))
    for data, more in ((whole[:-last], -1), (whole + whole[:first], 1)):
        path.write_bytes(gzip.compress(data) if packed else data)
        with pytest.raises(clozemill.UserError, match=f"{shard['name']}: it has {shard['examples'] + more:,} records instead"):
            list(dataset.numpy_batches("train"))


def test_encoder_matches_the_embed_command(run: Path) -> None:
    encoder, texts = clozemill.load_encoder(run), ["the old mill is good", "bread", ""]
    found = encoder(texts)
    assert found["input_mask"].sum(axis=1).tolist() == [7, 3, 2] and found["sequence_output"].shape == (3, 7, 32)
    records = clozemill.embed(run, texts, layers=-1, pool="cls", max_seq_length=32)
    assert [record["text"] for record in records] == texts
    np.testing.assert_allclose([record["features"] for record in records], found["sequence_output"][:, 0], atol=1e-5)
    pairs = encoder(["good"], ["bad"])
    assert pairs["segment_ids"].tolist() == [[0, 0, 0, 1, 1]] and encoder([])["pooled_output"].shape == (0, 32)


@pytest.mark.slow
def test_finetune_predict_and_export(run: Path, tmp_path: Path) -> None:
    train, dev = finetune_cases.classification(tmp_path)
    options = {"init": run, "task": "classify", "train": train, "dev": dev, "output": tmp_path / "ft", "max_seq_length": 32}
    tuned = clozemill.finetune(**options, epochs=1, batch_size=16, tensorboard=False)
    assert 0 <= tuned.metrics["accuracy"] <= 1
    answers = clozemill.predict(tuned, ["the mill is good", "bad bread"])
    assert [set(answer["probabilities"]) for answer in answers] == [{"good", "bad"}] * 2
    assert clozemill.predict(tuned, []) == []
    assert clozemill.predict(tuned, iter(["the mill is good", "bad bread"])) == answers
    with pytest.raises(clozemill.UserError, match="texts must be a list of texts"):
        clozemill.predict(tuned, iter(["a", 3]))  # type: ignore[list-item]
    with pytest.raises(clozemill.UserError, match=r"^texts\[1\] is empty: give a text to predict for$"):
        clozemill.predict(tuned, ["the mill is good", ""])
    exported = clozemill.export(tuned, output=tmp_path / "out", formats="keras")
    assert list(exported) == ["keras"] and Path(exported["keras"], "model.keras").exists()


@pytest.mark.slow
def test_contrast_and_embed(run: Path, tmp_path: Path) -> None:
    texts = [text for text, _ in finetune_cases.sentences(32)]
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
    options = {"init": run, "input": tmp_path / "texts.txt", "output": tmp_path / "run", "batch_size": 16, "epochs": 1}
    model = clozemill.contrast(**options, pooling="cls", tensorboard=False)
    assert model.step == 2 and model.metrics == {}
    vectors = np.array([record["features"] for record in clozemill.embed(model, texts[:3])])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clozemill.prepare(inptu="a"), "options: unknown option 'inptu'; did you mean input?"),
        (lambda: clozemill.pretrain(steps="many"), "steps"),
        (lambda: clozemill.prepare(output="o"), "--input and --vocab are missing"),
        (lambda: clozemill.load_dataset("none"), "none .*dataset.json"),
        (lambda: clozemill.load_encoder("none"), "none"),
        (lambda: clozemill.predict("ft", "one text"), "texts must be a list"),
        (lambda: clozemill.predict("ft", ["a"], ["b", "c"]), "there are 1 texts and 2 pairs"),
    ],
)
def test_errors_are_exceptions(call, message: str) -> None:
    with pytest.raises(clozemill.UserError, match=message):
        call()
