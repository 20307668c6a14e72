"""Run the commands that `submit` prints for clusters, with other addresses, if such a cluster is available."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import clozemill
from tests.deploy import golden
from tests.test_determinism import OPTIONS, digest_of

ROOT = Path(__file__).parents[2]


def ports(count: int) -> list[int]:
    """Return unused ports."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return found


@pytest.fixture
def portable() -> Iterator[dict[str, str]]:
    """Beam's portable job service and a pool of Python workers, in place of Flink's and Spark's."""
    jobs, workers = ports(2)
    service = ["apache_beam.runners.portability.local_job_service_main", f"--port={jobs}"]
    pool = ["apache_beam.runners.worker.worker_pool_main", f"--service_port={workers}"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # the pool starts `python`
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    servers = [
        subprocess.Popen([sys.executable, "-m", *words], env=os.environ | {"PATH": path}, **quiet) for words in (service, pool)
    ]
    deadline = time.monotonic() + 90
    while not all(listening(port) for port in (jobs, workers)) and time.monotonic() < deadline:
        time.sleep(0.2)
    yield {"8099": str(jobs), "8098": str(jobs), "50000": str(workers)}
    for server in servers:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def runner_options(name: str) -> list[str]:
    """Return the Beam options of `clozemill prepare` in a golden dry run."""
    text = (golden.FOLDER / f"{name}.sh").read_text().replace(" \\\n", "")
    if name == "flink":
        text = text.split("kind: Job\n")[1].split("\nEND-OF-INPUT")[0]
        words = yaml.safe_load("kind: Job\n" + text)["spec"]["template"]["spec"]["containers"][0]["args"]
    else:
        (line,) = [line for line in text.splitlines() if line.startswith("clozemill prepare")]
        words = shlex.split(line)[1:]
    return words[next(index for index, word in enumerate(words) if word.startswith("--runner")) :]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flink", "spark"])
def test_portable_runner_options(
    name: str, portable: dict[str, str], tmp_path: Path, demo_corpus: str, demo_vocab: str, demo_dataset: Path
) -> None:
    """Flink's and Spark's engines aren't available here, but Beam's job service and workers are."""
    options = []
    for word in runner_options(name):
        for port, free in portable.items():
            word = word.replace(f":{port}", f":{free}").replace("clozemill-job-server", "localhost")
        options.append(word)
    command = ["prepare", "--input", demo_corpus, "--vocab", demo_vocab, "--output", str(tmp_path / "d"), *OPTIONS]
    assert clozemill.main([*command, *options]) == 0
    assert digest_of(tmp_path / "d") == digest_of(demo_dataset)


DASK = """
import sys
from dask.distributed import LocalCluster
import clozemill
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        code = clozemill.main(["submit", "dask", "--dask-scheduler", cluster.scheduler_address, "--", *sys.argv[1:]])
    sys.exit(code)
"""


@pytest.mark.slow
def test_dask(tmp_path: Path, demo_corpus: str, demo_vocab: str, demo_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    (tmp_path / "run.py").write_text(DASK)
    (tmp_path / "clozemill").write_text(f"#!{sys.executable}\nimport sys, clozemill\nsys.exit(clozemill.main())\n")
    (tmp_path / "clozemill").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    command = ["--input", demo_corpus, "--vocab", demo_vocab, "--output", str(tmp_path / "d"), *OPTIONS]
    subprocess.run([sys.executable, str(tmp_path / "run.py"), *command], check=True, timeout=300)
    assert digest_of(tmp_path / "d") == digest_of(demo_dataset)
