"""From a corpus to a trained encoder on gs://, with the real clients: closed connections, slow and busy storage, SIGKILL."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("apache_beam.io.gcp.gcsfilesystem", reason="needs clozemill[gcp]")

import clozemill
from tests.cloud import ROUGH, ROUGH_FOR_TENSORFLOW, Cloud
from tests.test_determinism import OPTIONS, digest_of
from tests.trainers.diagnosis import journals
from tests.trainers.pretraining.test_pretrain_resume import figures
from tests.trainers.saved import bits

STEPS = 12
TRAIN = ["--preset", "tiny", "--max-position-embeddings", "128", "--batch-size", "8", "--steps", str(STEPS), "--seed", "3"]
TRAIN += ["--learning-rate", "1e-3", "--log-steps", "1", "--steps-per-call", "2", "--checkpoint-steps", "4"]
PREPARE = ["prepare", "--input", "gs://mill/in/*.xml", "--vocab", "gs://mill/vocab.txt", *OPTIONS]
PRETRAIN = ["pretrain", "--data", "gs://mill/data", "--output", "gs://mill/run", *TRAIN]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, demo_corpus: str, demo_vocab: str) -> Iterator[Cloud]:
    with Cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        cloud.storage.put("mill/in/dump.xml", Path(demo_corpus).read_bytes())
        cloud.storage.put("mill/vocab.txt", Path(demo_vocab).read_bytes())
        yield cloud


@pytest.fixture(scope="module")
def data(cloud: Cloud) -> str:
    """A dataset, prepared while the storage is busy, slow and closes connections."""
    cloud.run(*PREPARE, "--output", "gs://mill/data", faults=ROUGH)
    return "mill/data"


def assert_whole(checkpoint: str, cloud: Cloud) -> dict:
    """Returns its checkpoint.json, which has the size of every file."""
    found = cloud.storage.below(checkpoint)
    index = json.loads(found["checkpoint.json"])
    assert {name: len(found[name]) for name in index["files"]} == index["files"]
    return index


def test_a_remote_dataset_is_byte_identical_to_a_local_one(cloud: Cloud, data: str, demo_dataset: Path, tmp_path: Path) -> None:
    assert digest_of(cloud.download(data, tmp_path)) == digest_of(demo_dataset)
    assert not [name for name in cloud.storage.below(data) if ".tmp-" in name or name.startswith(".work/")]
    assert "complete and consistent" in cloud.run("verify", "gs://mill/data", "--no-progress")[0]


@pytest.mark.slow
def test_a_killed_prepare_is_resumed(cloud: Cloud, demo_dataset: Path, tmp_path: Path) -> None:
    command = [*PREPARE, "--output", "gs://mill/killed"]
    cloud.killed("/train/copy-01/examples-00001-of-00003.tfrecord", *command)
    there = cloud.storage.below("mill/killed")
    assert "dataset.json" not in there
    for name in (name for name in there if name.startswith(("train", "eval")) and ".tmp-" not in name):
        assert there[name] == (demo_dataset / name).read_bytes(), name
    cloud.run(*command)
    assert digest_of(cloud.download("mill/killed", tmp_path)) == digest_of(demo_dataset)


@pytest.mark.slow
@pytest.mark.parametrize("faults", [None, pytest.param(ROUGH_FOR_TENSORFLOW, marks=pytest.mark.slow)])
def test_a_killed_run_resumes_bit_identically(
    faults: dict | None, cloud: Cloud, data: str, demo_dataset: Path, tmp_path: Path
) -> None:
    """Killed after the weights of step 8 are written, and before its checkpoint.json."""
    for name in [name for name in cloud.storage.objects if name.startswith("mill/run/")]:
        del cloud.storage.objects[name]
    local = tmp_path / "local"
    assert clozemill.main(["pretrain", "--data", str(demo_dataset), "--output", str(local), "--no-tensorboard", *TRAIN]) == 0
    cloud.killed("name=run/checkpoints/step-00000008/checkpoint.json", *PRETRAIN)
    there = cloud.storage.below("mill/run")
    assert "checkpoints/step-00000008/weights.safetensors" in there
    assert [name for name in there if name.endswith("checkpoint.json")] == ["checkpoints/step-00000004/checkpoint.json"]
    assert_whole("mill/run/checkpoints/step-00000004", cloud)
    assert len(there["metrics.jsonl"].splitlines()) == 8

    out, _ = cloud.run(*PRETRAIN, faults=faults)
    assert "resuming after step 4\n" in out
    assert assert_whole(f"mill/run/checkpoints/step-{STEPS:08d}", cloud)["step"] == STEPS
    mine = cloud.download("mill/run", tmp_path / "remote")
    assert figures(mine) == figures(local)
    newest = f"checkpoints/step-{STEPS:08d}"
    assert bits(mine / newest) == bits(local / newest)
    assert {path.name for path in mine.iterdir()} == {path.name for path in local.iterdir()} | {"tensorboard"}
    assert not [name for name in cloud.storage.below("mill/run") if name.endswith(".tmp") or "_temp" in name]

    before = dict(cloud.storage.objects)  # a run that can't be listed doesn't start over
    _, err = cloud.run(*PRETRAIN, code=2, faults={"forbidden": "prefix=run/"})
    assert err.startswith("clozemill: gs://mill/run") and err.count("\n") == 1 and cloud.storage.objects == before

    cloud.run("evaluate", "gs://mill/run", "--data", "gs://mill/data", "--output", "gs://mill/figures.json")
    assert clozemill.main(["evaluate", str(local), "--data", str(demo_dataset), "--output", str(tmp_path / "f.json")]) == 0
    assert json.loads(cloud.storage.objects["mill/figures.json"].data) == json.loads((tmp_path / "f.json").read_text())


@pytest.mark.slow
def test_a_remote_run_is_compared_and_diagnosed(cloud: Cloud, data: str) -> None:
    digest = json.loads(cloud.storage.below(data)["dataset.json"])["digest"]
    about = journals.about(config={"data": [f"gs://{data}"]}, dataset=digest)
    lines = "".join(json.dumps(line) + "\n" for line in journals.healthy())
    cloud.storage.put("mill/recorded/run.json", json.dumps(about).encode())
    cloud.storage.put("mill/recorded/metrics.jsonl", lines.encode())
    assert "1,000 of 1,000" in cloud.run("compare", "gs://mill/recorded")[0]
    out, _ = cloud.run("doctor", "gs://mill/recorded")
    assert "nothing wrong" in out and "note:" not in out
    _, err = cloud.run("doctor", "gs://mill/data", code=2)
    assert err.startswith("clozemill: gs://mill/data/run.json is not that of a run") and err.count("\n") == 1


REFUSED = ("in/dump.xml", "vocab.txt", "refused/train/copy-01", "refused/dataset.json")


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_permission_errors_are_one_sentence(name: str, cloud: Cloud) -> None:
    out, err = cloud.run(*PREPARE, "--output", "gs://mill/refused", code=2, faults={"forbidden": name})
    assert err.startswith(f"clozemill: gs://mill/{name}") and err.count("\n") == 1 and "403" in err, (out, err)
    assert "refused/dataset.json" not in cloud.storage.objects


@pytest.mark.slow
def test_permission_errors_for_shards_are_one_sentence(cloud: Cloud, data: str) -> None:
    command = ["pretrain", "--data", "gs://mill/data", "--output", "gs://mill/refused-run", *TRAIN]
    out, err = cloud.run(*command, code=2, faults={"forbidden": "data/train"})
    assert err.startswith("clozemill: gs://mill/data/train/copy-0") and err.count("\n") == 1 and "403" in err, (out, err)
