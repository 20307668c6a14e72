"""gs:// through fsspec's client, which the engine on JAX uses: files, refusals, and a run."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gcsfs", reason="needs clozemill[jax]")

from tests.cloud import Cloud
from tests.fake_gcp import Faults
from tests.trainers import datasets
from tests.trainers.saved import bits

FILES = """
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import storage

def failed(f):
    try:
        f()
    except UserError as error:
        print(error)

def half():
    with storage.writing("gs://mill/out/half") as file:
        file.write(bytes(9 << 20))
        raise UserError("stopped")

assert storage.read("gs://mill/in/x", "-") == b"hello" and storage.read_range("gs://mill/in/x", 1, 3) == b"el"
assert storage.exists("gs://mill/in/x") and not storage.exists("gs://mill/in/y") and storage.is_folder("gs://mill/in")
assert (storage.listed("gs://mill"), storage.listed("gs://mill/in"), storage.listed("gs://mill/none")) == (["in"], ["x"], [])
storage.write("gs://mill/out/large", bytes(9 << 20))
assert storage.size("gs://mill/out/large") == 9 << 20
storage.upload({folder!r}, "gs://mill/up", "b")
storage.remove("gs://mill/out/none")
storage.remove_tree("gs://mill/in")
failed(half)
failed(lambda: storage.write("gs://mill/out/large", b"", overwrite=False))
failed(lambda: storage.read("gs://mill/secret/x", "look"))
failed(lambda: storage.listed("gs://mill/secret"))
failed(lambda: storage.write("gs://mill/secret/x", b""))
"""


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with Cloud(tmp_path) as cloud:
        yield cloud


def test_files(cloud: Cloud, tmp_path: Path) -> None:
    cloud.storage.put("mill/in/x", b"hello")
    (tmp_path / "from/a").mkdir(parents=True)
    for name in ("a/x", "b", "c"):
        (tmp_path / "from" / name).write_text(name)
    cloud.faults = Faults(forbidden="secret")
    environment = {"KERAS_BACKEND": "jax", "PYTHONPATH": ":".join(sys.path)} | cloud.environment()
    code = FILES.replace("{folder!r}", repr(str(tmp_path / "from")))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stopped, taken, read, listed, written = done.stdout.splitlines()
    assert stopped == "stopped" and taken.startswith("gs://mill/out/large already exists")
    assert read.startswith("gs://mill/secret/x can't be read (Forbidden: ") and read.endswith("): look")
    assert listed.startswith("gs://mill/secret can't be listed (Forbidden: ")
    assert written.startswith("gs://mill/secret/x can't be written (Forbidden: ")
    assert {name: len(data) for name, data in cloud.storage.below("mill").items()} == {
        "out/large": 9 << 20, "up/a/x": 3, "up/b": 1, "up/c": 1,
    }  # fmt: skip


@pytest.mark.slow
def test_a_run(cloud: Cloud, tmp_path: Path) -> None:
    """Trained while storage is busy and connections drop; resumed with the same weights as an undisturbed local run."""
    (tmp_path / "data").mkdir()
    datasets.write(tmp_path / "data", [[30, 40]], [24])
    for path in (path for path in (tmp_path / "data").rglob("*") if path.is_file()):
        cloud.storage.put(f"mill/data/{path.relative_to(tmp_path / 'data')}", path.read_bytes())
    options = ["--engine", "jax", "--preset", "tiny", "--max-position-embeddings", "16", "--batch-size", "8", "--steps", "4"]
    options += ["--checkpoint-steps", "2", "--log-steps", "2", "--learning-rate", "2e-3"]
    pretrain = ["pretrain", "--data", "gs://mill/data", "--output", "gs://mill/run", *options]
    cloud.run(*pretrain, faults={"too_many": 101, "unavailable": 97, "dropped": 83})
    for name in [name for name in cloud.storage.objects if "step-00000004" in name]:
        del cloud.storage.objects[name]
    assert "resuming after step 2\n" in cloud.run(*pretrain)[0]
    cloud.run("pretrain", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "local"), *options)
    remote = cloud.download("mill/run", tmp_path / "remote")
    last = "checkpoints/step-00000004"
    assert bits(remote / last) == bits(tmp_path / "local" / last)
    assert {path.name for path in remote.iterdir()} == {path.name for path in (tmp_path / "local").iterdir()}
    cloud.run("evaluate", "gs://mill/run", "--data", "gs://mill/data", "--engine", "jax", "--output", "gs://mill/figures.json")
    assert json.loads(cloud.storage.objects["mill/figures.json"].data)["examples"] == 24
    _, err = cloud.run(*pretrain, code=2, faults={"forbidden": "run/"})
    assert err.startswith("clozemill: gs://mill/run can't be listed (Forbidden: ") and err.count("\n") == 1
