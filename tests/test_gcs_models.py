"""A trained encoder on gs://: fine-tuned, used for predictions, and exported, with SIGKILL in between."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401 (registers the operations of its tokenizer)

pytest.importorskip("apache_beam.io.gcp.gcsfilesystem", reason="needs clozemill[gcp]")

import clozemill
from tests.cloud import Cloud
from tests.trainers import finetune_cases as finetuning

FINETUNE = ["--train", "gs://mill/train.tsv", "--dev", "gs://mill/dev.tsv", "--epochs", "2", "--batch-size", "8"]
FINETUNE += ["--max-seq-length", "32"]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """With a checkpoint of random weights, and a toy task's files."""
    folder = tmp_path_factory.mktemp("cloud")
    finetuning.checkpoint(folder / "checkpoint")
    finetuning.classification(folder)
    with Cloud(folder) as cloud:
        for path in [*(folder / "checkpoint").iterdir(), folder / "train.tsv", folder / "dev.tsv"]:
            cloud.storage.put(f"mill/{path.relative_to(folder)}", path.read_bytes())
        cloud.local = folder
        yield cloud


@pytest.mark.slow
def test_an_export_killed_during_upload_is_incomplete(cloud: Cloud) -> None:
    command = ["export", "gs://mill/checkpoint", "--output", "gs://mill/out", "--formats", "hf"]
    cloud.killed("name=out/hf/tokenizer.json", *command)
    assert "hf/model.safetensors" in cloud.storage.below("mill/out") and "hf/config.json" not in cloud.storage.below("mill/out")
    cloud.log.clear()
    cloud.run(*command)
    uploads = [line.split("name=out/")[1] for line in cloud.log if "uploadType=resumable&name=out/" in line]
    assert len(uploads) > 3 and uploads[-1] == "hf/config.json"
    _, err = cloud.run(*command, code=2)
    assert err == "clozemill: gs://mill/out/hf already exists: give --overwrite to replace it, or another --output\n"


@pytest.mark.slow
def test_a_saved_model_gives_the_same_outputs(cloud: Cloud, tmp_path: Path) -> None:
    """export itself checks the differences from the checkpoint; this checks that the copy is complete."""
    out, _ = cloud.run("export", "gs://mill/checkpoint", "--output", "gs://mill/out", "--formats", "savedmodel")
    assert out.endswith("done: gs://mill/out/savedmodel\n")
    loaded = tf.saved_model.load(str(cloud.download("mill/out/savedmodel", tmp_path)))
    answers = loaded.signatures["serving_default"](
        text=tf.constant(["the old mill is good .", ""]), text_pair=tf.constant(["", ""])
    )
    assert all(value.shape[0] == 2 and np.isfinite(value).all() for value in answers.values())


@pytest.mark.slow
def test_finetune_and_predict(cloud: Cloud, tmp_path: Path) -> None:
    task = ["finetune", "--init", "gs://mill/checkpoint", "--task", "classify", *FINETUNE]
    cloud.run(*task, "--output", "gs://mill/tuned")
    cloud.run("predict", "gs://mill/tuned", "--input", "gs://mill/dev.tsv", "--output", "gs://mill/answers.jsonl")
    cloud.run(
        "embed",
        "gs://mill/tuned",
        "--input",
        "gs://mill/dev.tsv",
        "--output",
        "gs://mill/features.parquet",
        "--max-seq-length",
        "32",
    )
    local = str(tmp_path / "tuned")
    words = [word.replace("gs://mill", str(cloud.local)) for word in task]
    assert clozemill.main([*words, "--output", local]) == 0
    assert clozemill.main(["predict", local, "--input", str(cloud.local / "dev.tsv"), "--output", f"{local}.jsonl"]) == 0
    answers = cloud.storage.objects["mill/answers.jsonl"].data.splitlines()
    assert answers == Path(f"{local}.jsonl").read_bytes().splitlines()
    (tmp_path / "features.parquet").write_bytes(cloud.storage.objects["mill/features.parquet"].data)
    assert pq.read_table(tmp_path / "features.parquet").num_rows >= len(answers) == 20
    assert not [name for name in cloud.storage.objects if name.endswith(".tmp") or "_temp" in name]
