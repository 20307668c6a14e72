"""One corpus through every engine that runs on one machine: the digest equals FnApiRunner's.

CORPUS names the corpus, the demo corpus by default; `make test-engines CORPUS=...` prints a row of seconds for each.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from tests.deploy import test_clusters
from tests.test_determinism import digest_of

pytestmark = pytest.mark.slow
OPTIONS = ["--num-groups", "8", "--dupe-factor", "2", "--eval-fraction", "0.2", "--seed", "7", "--no-progress"]
SPARK = "beam_pyspark_runner.pyspark_runner.PySparkRunner"
SECONDS = 900
portable = test_clusters.portable  # Beam's job service and a pool of workers

# clozemill on a LocalCluster of two processes. VICTIM: the folder of a dataset; the worker that is writing one of its shards is
# killed or, if shards are written too fast to observe, any worker once a shard exists.
DASK = """
import os, signal, sys, threading, time
from pathlib import Path
import psutil
from dask.distributed import LocalCluster
import clozemill

def writes(pid, folder):
    try:
        return any(file.path.startswith(folder) for file in psutil.Process(pid).open_files())
    except psutil.Error:
        return False

def kill(pids, folder):
    while True:
        writing = [pid for pid in pids if writes(pid, f"{folder}/train/")]
        if writing or any(Path(folder).glob("train/*/*.tfrecord")):
            os.kill((writing or pids)[0], signal.SIGKILL)
            print("killed", "within a shard" if writing else "between shards", flush=True)
            return
        time.sleep(0.002)

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        if "VICTIM" in os.environ:
            pids = [nanny.pid for nanny in cluster.workers.values()]
            threading.Thread(target=kill, args=(pids, os.environ["VICTIM"]), daemon=True).start()
        code = clozemill.main([*sys.argv[1:], "--runner", "DaskRunner", "--dask_client_address", cluster.scheduler_address])
    sys.exit(code)
"""


class Engines:
    """Runs `clozemill` in a separate process, on an engine."""

    def __init__(self, folder: Path) -> None:
        self._script = folder / "run.py"

    def __call__(self, command: list[str], script: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        self._script.write_text(script or "import sys, clozemill\nsys.exit(clozemill.main())\n")
        words = [sys.executable, str(self._script), *command]
        return subprocess.run(words, env=os.environ | env, capture_output=True, text=True, timeout=SECONDS)

    def dask(self, command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
        """On a LocalCluster."""
        pytest.importorskip("distributed")
        return self(command, DASK, **env)

    def spark(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """On a local Spark with two slots."""
        pytest.importorskip("beam_pyspark_runner")
        if not shutil.which("java"):
            pytest.skip("Spark needs Java")
        options = "--master local[2] --conf spark.default.parallelism=2 --conf spark.ui.enabled=false pyspark-shell"
        return self([*command, "--runner", SPARK], PYSPARK_PYTHON=sys.executable, PYSPARK_SUBMIT_ARGS=options)


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    return Engines(tmp_path)


@pytest.fixture(scope="module")
def corpus(demo_corpus: str) -> str:
    return os.environ.get("CORPUS") or demo_corpus


@pytest.fixture(scope="module")
def vocab(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("engines")
    size = "8000" if os.environ.get("CORPUS") else "4000"
    found = Engines(folder)(["vocab", "--input", corpus, "--output", str(folder / "v.txt"), "--vocab-size", size])
    assert found.returncode == 0, found.stderr
    return str(folder / "v.txt")


@pytest.fixture
def prepare(corpus: str, vocab: str, tmp_path: Path) -> list[str]:
    return ["prepare", "--input", corpus, "--vocab", vocab, "--output", str(tmp_path / "d"), *OPTIONS]


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> Callable[..., None]:
    """Prints a row of the table in deploy/README.md."""

    def show(engine: str, began: float, *packages: str) -> None:
        versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
        with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\n| {engine} | {versions} | {time.monotonic() - began:.1f} |")

    return show


@pytest.fixture(scope="module")
def expected(corpus: str, vocab: str, tmp_path_factory: pytest.TempPathFactory, table: Callable) -> str:
    """FnApiRunner's digest."""
    folder = tmp_path_factory.mktemp("expected")
    began = time.monotonic()
    found = Engines(folder)(["prepare", "--input", corpus, "--vocab", vocab, "--output", str(folder / "d"), *OPTIONS])
    assert found.returncode == 0, found.stderr
    table("FnApiRunner", began, "apache-beam")
    return digest_of(folder / "d")


@pytest.fixture
def row(expected: str, table: Callable) -> Callable[..., None]:
    """Prints a row whose seconds count from here."""
    began = time.monotonic()
    return lambda engine, *packages: table(engine, began, *packages)


def same(found: subprocess.CompletedProcess[str], folder: Path, expected: str) -> None:
    assert found.returncode == 0, found.stderr
    assert digest_of(folder) == expected
    assert not [path for path in folder.rglob("*") if ".tmp-" in path.name or path.name == ".work"]


def test_the_job_service_with_an_external_pool(
    engines: Engines, prepare: list[str], expected: str, portable: dict[str, str], tmp_path: Path, row: Callable
) -> None:
    where = ["--job_endpoint", f"localhost:{portable['8099']}", "--environment_type", "EXTERNAL"]
    where += ["--environment_config", f"localhost:{portable['50000']}"]
    same(engines([*prepare, "--runner", "PortableRunner", *where]), tmp_path / "d", expected)
    row("job service, EXTERNAL worker pool", "apache-beam")


def test_dask(engines: Engines, prepare: list[str], expected: str, tmp_path: Path, row: Callable) -> None:
    same(engines.dask(prepare), tmp_path / "d", expected)
    row("Dask, 2 processes", "dask")


def test_dask_loses_a_worker(engines: Engines, prepare: list[str], expected: str, tmp_path: Path, row: Callable) -> None:
    """Dask continues without it, or the run fails with one sentence and the same command resumes."""
    found = engines.dask(prepare, VICTIM=str(tmp_path / "d"))
    assert "killed" in found.stdout, found.stderr
    how = found.stdout.split("killed ")[1].splitlines()[0]
    if found.returncode:
        (sentence,) = [line for line in found.stderr.splitlines() if line.startswith("clozemill: ")]
        assert "Traceback" not in found.stderr and "unexpected" not in sentence, found.stderr
        found, how = engines.dask(prepare), f"{how}, run again"
    same(found, tmp_path / "d", expected)
    row(f"Dask, a worker killed {how}", "dask")


def test_spark(engines: Engines, prepare: list[str], expected: str, tmp_path: Path, row: Callable) -> None:
    same(engines.spark(prepare), tmp_path / "d", expected)
    row("local Spark, 2 slots", "pyspark", "beam-pyspark-runner")


@pytest.mark.parametrize("engine", ["dask", "spark"])
def test_a_user_error_in_a_worker_is_one_sentence(engines: Engines, engine: str, demo_vocab: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "One sentence. Another."}\n' + "no JSON\n" * 9)
    command = ["prepare", "--input", str(tmp_path / "bad.jsonl"), "--vocab", demo_vocab, "--output", str(tmp_path / "d")]
    found = getattr(engines, engine)([*command, *OPTIONS])
    (sentence,) = [line for line in found.stderr.splitlines() if line.startswith("clozemill: ")]
    assert found.returncode and sentence.startswith("clozemill: 9 of 10 records are malformed"), found.stderr
