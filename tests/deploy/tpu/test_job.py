"""TPU jobs from creation to deletion, with real child processes against a fake gcloud."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest

import clozemill
from clozemill.deploy.tpu import job
from tests.deploy import fake_gcloud

ROOT = Path(__file__).parents[3]
SUBMIT = ["submit", "tpu", "--config", "deploy/config.example.yaml", "--no-build", "--poll-seconds", "0"]
FLAGS = ["--", "--data", "gs://my-bucket/dataset", "--output", "gs://my-bucket/run"]
MADE = ["create", "look", "look", "look", "node", "copy", "ssh startup.sh IMAGE"]
IMAGE = "europe-west4-docker.pkg.dev/my-project/images/clozemill-tpu:1"


class Cloud:
    """A fake cloud, and `clozemill submit tpu` against it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
        self.folder, self.capsys = folder, capsys
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        monkeypatch.chdir(ROOT)

    def __call__(self, *words: str, flags: list[str] = FLAGS, **cloud: object) -> int:
        self.state = fake_gcloud.install(self.folder, **cloud)
        code = clozemill.main([*SUBMIT, *words, *flags])
        self.told = self.capsys.readouterr().err
        return code

    @property
    def log(self) -> list[str]:
        return [line.replace(IMAGE, "IMAGE") for line in fake_gcloud.log(self.state)]

    @property
    def sentence(self) -> str:
        lines = [line for line in self.told.splitlines() if line.startswith("clozemill: ") and "clozemill: READY" not in line]
        assert len(lines) == 1, self.told
        return lines[0]

    @property
    def resource(self) -> str:
        return json.loads(self.state.read_text())["resource"]


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Cloud:
    return Cloud(tmp_path, monkeypatch, capsys)


def test_create_install_start_follow_delete(cloud: Cloud) -> None:
    assert cloud(events=["done"]) == 0
    assert cloud.log == [*MADE, "ssh run.sh start", "ssh run.sh follow", "delete"]
    assert cloud.resource == "ABSENT" and "clozemill: WAITING_FOR_RESOURCES" in cloud.told


def test_a_slice_of_several_hosts_has_a_server_on_each(cloud: Cloud) -> None:
    assert cloud("--tpu-type", "v5litepod-16", events=["done"]) == 0
    assert cloud.log == [*MADE, "ssh run.sh host", "ssh run.sh start", "ssh run.sh follow", "delete"]


def test_jax_runs_on_every_host(cloud: Cloud) -> None:
    """Also after it was stopped; there are no servers."""
    assert cloud("--engine", "jax", "--tpu-type", "v5litepod-16", events=["saved", "done"]) == 0
    again = ["look", "node", "ssh run.sh state", "ssh run.sh worker", "ssh run.sh follow"]
    assert cloud.log == [*MADE, "ssh run.sh worker", "ssh run.sh follow", *again, "delete"]


def test_a_preempted_tpu_is_recreated(cloud: Cloud) -> None:
    """It is deleted first, because a queued resource can't be requeued; after success it isn't recreated."""
    assert cloud(events=["preempted", "preempted", "done"]) == 0
    life = [*MADE, "ssh run.sh start", "ssh run.sh follow"]
    assert cloud.log == [*life, "look", "delete", *life, "look", "delete", *life, "delete"]
    assert "was preempted, 10 retries left" in cloud.told and "9 retries left" in cloud.told


@pytest.mark.slow
def test_too_many_preemptions(cloud: Cloud) -> None:
    assert cloud("--retries", "1", events=["preempted", "preempted", "done"]) == 2
    assert "was preempted 2 times: run the same command again to resume" in cloud.sentence
    assert cloud.log.count("create") == 2 and cloud.resource == "ABSENT"


def test_a_lost_connection_does_not_recreate_the_tpu(cloud: Cloud) -> None:
    assert cloud(events=["dropped", "done"]) == 0
    again = ["look", "node", "ssh run.sh state", "ssh run.sh follow"]
    assert cloud.log == [*MADE, "ssh run.sh start", "ssh run.sh follow", *again, "delete"]


def test_a_training_stopped_after_saving_is_restarted(cloud: Cloud) -> None:
    assert cloud(events=["saved", "done"]) == 0
    assert cloud.log.count("ssh run.sh start") == 2 and cloud.log.count("create") == 1


def test_a_training_that_is_stopped_again_and_again_ends(cloud: Cloud) -> None:
    """A host that fails whenever the training begins must not cost money for ever."""
    assert cloud("--retries", "1", events=["saved", "saved", "done"]) == 2
    assert "the training was stopped 2 times: see its last lines above" in cloud.sentence
    assert cloud.log.count("ssh run.sh start") == 2 and cloud.resource == "ABSENT"


def test_a_failed_training_is_not_repeated(cloud: Cloud) -> None:
    assert cloud(events=["failed"]) == 2
    assert "the training failed with exit code 2: see its last lines above" in cloud.sentence
    assert cloud.log.count("create") == 1 and cloud.log[-1] == "delete" and cloud.resource == "ABSENT"


def test_no_quota(cloud: Cloud) -> None:
    assert cloud(create=["RESOURCE_EXHAUSTED: Quota limit 'TPUV5sLitepodPerProject' has been exceeded"]) == 2
    assert "the quota is used up (ERROR: (gcloud.compute.tpus) RESOURCE_EXHAUSTED" in cloud.sentence
    assert "gcloud compute tpus queued-resources create clozemill" in cloud.sentence
    assert cloud.log == ["create", "delete"]  # a rejected request may have left this


def test_an_existing_resource_of_the_same_name_is_not_deleted(cloud: Cloud) -> None:
    assert cloud(resource="ACTIVE", node="READY") == 2
    assert "the TPU was refused (ERROR: (gcloud.compute.tpus) ALREADY_EXISTS" in cloud.sentence
    assert cloud.log == ["create"] and cloud.resource == "ACTIVE"


def test_no_capacity(cloud: Cloud) -> None:
    assert cloud(looks=["WAITING_FOR_RESOURCES", "FAILED"]) == 2
    assert (
        "v5litepod-8 clozemill could not be created (There is no more capacity in the zone): try another zone" in cloud.sentence
    )
    assert cloud.log == ["create", "look", "look", "delete"]


def test_without_autodelete_the_tpu_is_kept_and_reported(cloud: Cloud) -> None:
    assert cloud("--no-autodelete", events=["done"]) == 0
    assert cloud.resource == "ACTIVE" and "clozemill still exists: delete it with clozemill submit tpu stop" in cloud.told


def test_an_existing_tpu_is_used_and_never_deleted(cloud: Cloud) -> None:
    there = {"resource": "ACTIVE", "node": "READY"}
    assert cloud("--existing", "mine", events=["done"], **there) == 0
    assert (
        cloud.log == ["node", "copy", "ssh startup.sh IMAGE", "ssh run.sh start", "ssh run.sh follow"] or cloud.log[0] == "node"
    )
    assert "create" not in cloud.log and "delete" not in cloud.log
    assert cloud("--existing", "mine", events=["preempted"], **there) == 2
    assert "mine was preempted: recreate it" in cloud.sentence and "delete" not in cloud.log
    assert cloud("--existing", "mine") == 2
    assert "mine was preempted" in cloud.sentence


def test_status_and_stop(cloud: Cloud) -> None:
    assert cloud(flags=[]) == 2 and "--data is missing" in cloud.told
    place = SUBMIT.index("tpu") + 1
    for action, code, log in (("status", 0, ["look", "node"]), ("stop", 0, ["ssh run.sh stop", "delete"])):
        cloud.state = fake_gcloud.install(cloud.folder, resource="ACTIVE", node="READY")
        assert clozemill.main([*SUBMIT[:place], action, *SUBMIT[place:]]) == code
        assert cloud.log == log


def test_status_without_a_tpu_is_1(cloud: Cloud) -> None:
    cloud.state = fake_gcloud.install(cloud.folder)
    assert clozemill.main(["submit", "tpu", "status", "--config", "deploy/config.example.yaml"]) == 1


def test_missing_gcloud(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cloud.folder / "empty"))
    assert cloud() == 2
    assert "gcloud isn't installed here: install it, or use --dry-run" in cloud.told


def test_ssh_is_retried_until_the_host_is_ready(cloud: Cloud) -> None:
    assert cloud(events=["done"], refusals=2) == 0
    assert cloud.log.count("copy") == 3 and cloud.log.count("create") == 1 and "Copy the scripts, try 3" in cloud.told
    assert cloud(events=["done"], refusals=3) == 2
    assert "Copy the scripts failed with exit code 255: gcloud compute tpus tpu-vm scp" in cloud.sentence
    assert cloud.log[-1] == "delete"


def test_ctrl_c_while_waiting_for_capacity_deletes_the_request(cloud: Cloud) -> None:
    state = fake_gcloud.install(cloud.folder, looks=["WAITING_FOR_RESOURCES"] * 1000)
    process = subprocess.Popen([sys.executable, "clozemill.py", *SUBMIT, *FLAGS], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while '"look"' not in state.read_text():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130, told
    assert fake_gcloud.log(state)[-1] == "delete" and json.loads(state.read_text())["resource"] == "ABSENT"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_deletes(cloud: Cloud, signum: int) -> None:
    state = fake_gcloud.install(cloud.folder, events=["hang"])
    process = subprocess.Popen([sys.executable, "clozemill.py", *SUBMIT, *FLAGS], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while "ssh run.sh follow" not in state.read_text():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signum)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130, told
    assert fake_gcloud.log(state)[-2:] == ["ssh run.sh stop", "delete"]
    assert (
        told.splitlines()[-1]
        == "clozemill: interrupted; a TPU that was created is deleted or named above, and other jobs go on"
    )


def test_resource_states() -> None:
    assert job.resource_state("ACTIVE", "READY") == "ready"
    assert {job.resource_state(*states) for states in product(["SUSPENDED", "SUSPENDING", "ABSENT"], ["READY", ""])} == {"lost"}
    assert job.resource_state("ACTIVE", "PREEMPTED") == "lost" and job.resource_state("ACTIVE", "CREATING") == "wait"
    assert job.resource_state("FAILED", "") == "failed" and job.resource_state("WAITING_FOR_RESOURCES", "") == "wait"


def test_next_action_after_the_log_ends() -> None:
    assert [job.next_action("ready", state) for state in ("exited 0", "exited 75", "exited 1", "running 0", "")] == [
        "done", "start", "failed", "follow", "follow",
    ]  # fmt: skip
    assert job.next_action("lost", "") == "recreate" and job.next_action("wait", "") == "follow"
