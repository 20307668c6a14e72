"""The scripts for TPU hosts, with fake docker, sudo and metadata server; TensorFlow's server on CPUs."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from clozemill.deploy.gke import tpu_host
from clozemill.trainers.common.config import JAX_PROCESS

ROOT = Path(__file__).parents[2]
IMAGE = "europe-west4-docker.pkg.dev/my-project/images/clozemill-tpu:1"
FAKES = {
    "sudo": 'exec "$@"',
    "docker": 'echo "docker $*" >> "$LOG"; case "$1" in wait) echo 75;; inspect) echo exited 75;; login) cat >> "$LOG";; esac',
    "curl": 'case "$*" in *token) echo "{\\"access_token\\": \\"secret\\"}";; *endpoints) printf "$ENDPOINTS";; '
    "*number) printf 1;; *accelerator-type) printf v5litepod-8;; *) exit 22;; esac",
    "apt-get": 'echo "apt-get $*" >> "$LOG"',
}


def run(folder: Path, script: str, *words: str, endpoints: str = "unknown:unknown:10.0.0.1", code: int = 0) -> list[str]:
    """Run a script with the fakes; return the calls of docker."""
    for name, text in FAKES.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    log = folder / "log"
    log.write_text("")
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "LOG": str(log), "ENDPOINTS": endpoints}
    done = subprocess.run(["bash", ROOT / "deploy/tpu" / script, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return log.read_text().splitlines()


def test_startup_pulls_the_image_with_the_service_account(tmp_path: Path) -> None:
    registry = "https://europe-west4-docker.pkg.dev"
    assert run(tmp_path, "startup.sh", IMAGE) == [
        f"docker login --username oauth2accesstoken --password-stdin {registry}", "secret", f"docker pull --quiet {IMAGE}",
    ]  # fmt: skip
    assert run(tmp_path, "startup.sh", "clozemill:1") == ["docker pull --quiet clozemill:1"]
    run(tmp_path, "startup.sh", code=1)


def test_a_single_host_is_local(tmp_path: Path) -> None:
    removed, started = run(tmp_path, "run.sh", "start", IMAGE, "pretrain", "--output", "gs://b/a run")
    assert removed == "docker rm --force clozemill"
    options = "--detach --name clozemill --privileged --network=host --stop-timeout=30 --env=TPU_NAME=local"
    options += " --env=TPU_ACCELERATOR_TYPE=v5litepod-8"
    assert started == f"docker run {options} {IMAGE} pretrain --output gs://b/a run"


def test_a_slice_is_reached_through_the_servers_of_its_hosts(tmp_path: Path) -> None:
    for endpoints in ("unknown:unknown:10.0.0.1,unknown:unknown:10.0.0.2", "10.0.0.1,10.0.0.2"):
        *_, started = run(tmp_path, "run.sh", "start", IMAGE, "pretrain", endpoints=endpoints)
        assert "--env=TPU_NAME=grpc://10.0.0.1:8470,grpc://10.0.0.2:8470 " in started
    *_, server = run(tmp_path, "run.sh", "host", IMAGE)
    assert "--entrypoint=start_grpc_tpu_worker" in server and "--env=NEXT_PLUGGABLE_DEVICE_USE_C_API=true" in server


def test_hosts_of_a_slice_find_each_other_on_jax(tmp_path: Path) -> None:
    """By the variables that the engine reads; the metadata has either form. A single host needs none."""
    options = "--detach --name clozemill --privileged --network=host --stop-timeout=30"
    *_, alone = run(tmp_path, "run.sh", "worker", IMAGE, "pretrain", "--output", "gs://b/a run")
    assert alone == f"docker run {options} {IMAGE} pretrain --output gs://b/a run"
    process = dict(zip(JAX_PROCESS, ("10.0.0.1:8482", "3", "1"), strict=True))
    variables = " ".join(f"--env={name}={value}" for name, value in process.items())
    for form in ("unknown:unknown:{}", "{}"):
        endpoints = ",".join(form.format(f"10.0.0.{number}") for number in (1, 2, 3))
        *_, started = run(tmp_path, "run.sh", "worker", IMAGE, "pretrain", endpoints=endpoints)
        assert started == f"docker run {options} {variables} {IMAGE} pretrain"


def test_follow_returns_the_exit_code_of_the_training(tmp_path: Path) -> None:
    assert run(tmp_path, "run.sh", "follow", code=75) == ["docker logs --follow clozemill", "docker wait clozemill"]
    assert run(tmp_path, "run.sh", "stop") == ["docker stop clozemill"]
    assert run(tmp_path, "run.sh", "state") == ["docker inspect --format {{.State.Status}} {{.State.ExitCode}} clozemill"]
    assert run(tmp_path, "run.sh", "nonsense", code=2) == []


def test_environment_of_a_host() -> None:
    given = {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "a.clozemill,b.clozemill"}
    assert tpu_host.environment(given, "") == {"TPU_HOSTNAME_OVERRIDE": "b.clozemill", "CLOUD_TPU_TASK_ID": "1"}
    assert tpu_host.environment(given, "lib")["TF_PLUGGABLE_DEVICE_LIBRARY_PATH"] == "lib"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


COORDINATOR = """
import sys, tensorflow as tf
resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=sys.argv[1])
tf.config.experimental_connect_to_cluster(resolver)
for number in range(2):
    with tf.device(f"/job:worker/task:{number}/device:CPU:0"):
        found = tf.constant(20) + 1
    print(found.device, int(found))
"""


@pytest.mark.slow  # three processes with TensorFlow
def test_a_coordinator_uses_all_hosts(tmp_path: Path) -> None:
    """Uses the addresses from the manifests and run.sh. Without a TPU, the servers compute on CPUs."""
    ports = [_free_port(), _free_port()]
    code = "from clozemill.deploy.gke import tpu_host; import sys; tpu_host.serve(int(sys.argv[1]))"
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    servers = [subprocess.Popen([sys.executable, "-c", code, str(port)], **quiet) for port in ports]
    try:
        address = ",".join(f"grpc://localhost:{port}" for port in ports)
        done = subprocess.run([sys.executable, "-c", COORDINATOR, address], capture_output=True, text=True, timeout=120)
    finally:
        for server in servers:
            server.kill()
            server.wait()
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [f"/job:worker/replica:0/task:{number}/device:CPU:0 21" for number in range(2)]
