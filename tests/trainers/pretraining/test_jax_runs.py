"""`pretrain --engine jax`: continues runs of TensorFlow, and the other way round; killed; on several devices; two processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clozemill
from tests.trainers import datasets
from tests.trainers.pretraining.test_branching import until
from tests.trainers.pretraining.test_pretrain_resume import CODE, figures
from tests.trainers.saved import bits

pytestmark = pytest.mark.usefixtures("one_layer")
STEPS = 12
ALWAYS = ["--preset", "tiny", "--max-position-embeddings", "16", "--batch-size", "8", "--steps", str(STEPS), "--seed", "3",
          "--dropout", "0.1", "--learning-rate", "2e-3", "--log-steps", "1", "--checkpoint-steps", "4", "--keep-checkpoints",
          "5", "--eval-steps", "6", "--no-tensorboard"]  # fmt: skip
STILL = ["--dropout", "0", "--attention-dropout", "0"]  # dropout differs between devices


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    datasets.write(folder, [[30, 40]] * 2, [24])
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run of TensorFlow, in this process."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert clozemill.main(["pretrain", "--data", str(data), "--output", str(folder), *ALWAYS]) == 0
    return folder


def start(folder: Path, data: Path, *more: str, devices: int = 1, **variables: str) -> subprocess.Popen:
    """Start `pretrain --engine jax` in a process with some CPU devices."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags} | variables
    strategy = [] if devices == 1 or "--strategy" in more else ["--strategy", "mirrored"]
    words = ["pretrain", "--data", str(data), "--output", str(folder), "--engine", "jax", *ALWAYS, *strategy, *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, "-c", CODE, *words], env=environment, **pipes)


def finished(*given: Any, code: int = 0, **options: Any) -> str:
    """Return what `pretrain --engine jax` prints."""
    process = start(*given, **options)
    told, _ = process.communicate(timeout=600)
    assert process.returncode == code, told
    return told


def assert_close(mine: Path, other: Path, tolerance: float = 1e-5) -> None:
    """Check that two runs have the same lines and, within a relative tolerance, the same losses."""
    rows, others = figures(mine), figures(other)
    assert [(row["step"], row.get("split"), row.get("examples")) for row in rows] == [
        (row["step"], row.get("split"), row.get("examples")) for row in others
    ]
    np.testing.assert_allclose([row["loss"] for row in rows], [row["loss"] for row in others], rtol=tolerance)


def test_jax_continues_a_run_of_tensorflow(whole: Path, data: Path, tmp_path: Path) -> None:
    """The losses of the steps and evaluations after a checkpoint are those of TensorFlow; so is everything in the folder."""
    run = until(whole, tmp_path / "run", 4)
    told = finished(run, data)
    assert "resuming after step 4\n" in told
    assert_close(run, whole)
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}
    index = json.loads((run / f"checkpoints/step-{STEPS:08d}/checkpoint.json").read_text())
    assert "jax" in index and "tensorflow" not in index
    assert bits(run / f"checkpoints/step-{STEPS:08d}").keys() == bits(whole / f"checkpoints/step-{STEPS:08d}").keys()


@pytest.mark.slow
def test_killed_and_continued(whole: Path, data: Path, tmp_path: Path) -> None:
    """Continued on JAX, bit-identical; on TensorFlow, within rounding."""
    run = tmp_path / "run"
    finished(run, data)
    assert_close(run, whole)
    with start(tmp_path / "killed", data) as process:
        while not (line := process.stdout.readline()).startswith("step 9/"):
            assert line
        process.kill()
    finished(tmp_path / "killed", data)
    assert figures(tmp_path / "killed") == figures(run)
    assert bits(tmp_path / f"killed/checkpoints/step-{STEPS:08d}") == bits(run / f"checkpoints/step-{STEPS:08d}")
    there = until(run, tmp_path / "there", 8)
    assert clozemill.main(["pretrain", "--data", str(data), "--output", str(there), *ALWAYS]) == 0
    assert_close(there, whole)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--optimizer", "muon", "--shard-moments"]])
def test_one_then_eight_then_two_devices(more: list[str], data: Path, tmp_path: Path) -> None:
    """The same losses as on one device, and the same sequence of examples."""
    finished(tmp_path / "one", data, *STILL, *[word for word in more if word != "--shard-moments"])
    run = until(tmp_path / "one", tmp_path / "run", 4)
    with start(run, data, *STILL, *more, devices=8) as process:
        while not (line := process.stdout.readline()).startswith("step 9/"):
            assert line
        process.kill()
    assert "resuming after step 8\n" in finished(run, data, *STILL, *more, devices=2)
    assert_close(run, tmp_path / "one")


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def workers(folder: Path, data: Path, *more: str) -> list[subprocess.Popen]:
    """Start two processes that train together."""
    address = f"127.0.0.1:{_free_port()}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [start(folder, data, *STILL, *more, "--strategy", "multiworker", **shared, JAX_PROCESS_ID=str(n)) for n in range(2)]


@pytest.mark.slow
def test_two_processes(data: Path, tmp_path: Path) -> None:
    """They train like one; if one dies, the other exits with one sentence; both resume."""
    finished(tmp_path / "one", data, *STILL)
    processes = workers(tmp_path / "two", data)
    told = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert_close(tmp_path / "two", tmp_path / "one")
    first, second = workers(tmp_path / "killed", data)
    while not (line := first.stdout.readline()).startswith("step 5/"):
        assert line
    second.kill()
    second.wait()
    left, _ = first.communicate(timeout=600)
    assert first.returncode == 75, left
    assert "another worker was lost (" in left and "Traceback" not in left
    processes = workers(tmp_path / "killed", data)
    told = [process.communicate(timeout=600)[0] for process in processes]
    assert "resuming after step 4\n" in told[0]
    assert_close(tmp_path / "killed", tmp_path / "one")


@pytest.mark.slow
def test_two_processes_that_divide_the_moments(data: Path, tmp_path: Path) -> None:
    """Their checkpoints hold all of them, so that one process can continue the run."""
    finished(tmp_path / "one", data, *STILL, "--optimizer", "muon")
    processes = workers(tmp_path / "two", data, "--optimizer", "muon", "--shard-moments")
    told = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert_close(tmp_path / "two", tmp_path / "one")
    there = until(tmp_path / "two", tmp_path / "there", 8)
    finished(there, data, *STILL, "--optimizer", "muon")
    assert_close(there, tmp_path / "one")


@pytest.mark.slow
def test_a_cluster_that_is_not_given(tmp_path: Path, data: Path) -> None:
    told = finished(tmp_path / "run", data, "--strategy", "multiworker", code=2)
    assert told.startswith("clozemill: --strategy multiworker --engine jax needs JAX_COORDINATOR_ADDRESS (HOST:PORT of ")


@pytest.mark.slow
def test_a_platform_that_is_not_there(tmp_path: Path, data: Path) -> None:
    told = finished(tmp_path / "run", data, code=2, JAX_PLATFORMS="cuda")
    assert told.startswith("clozemill: --strategy default --engine jax finds no device (JAX_PLATFORMS is 'cuda'): install JAX")
