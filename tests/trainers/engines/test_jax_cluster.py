"""The processes that share a run on JAX: their environment, and the order of their devices."""

from dataclasses import dataclass

import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import hardware
from clozemill.trainers.common.config import JAX_PROCESS, DeviceOptions
from clozemill.trainers.engines import jax_cluster, jax_engine
from clozemill.trainers.pretraining.config import PretrainConfig

TWO = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:8482", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
TF_CONFIG = '{"cluster": {"worker": ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]}, "task": {"type": "worker", "index": 2}}'


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*JAX_PROCESS, "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("strategy", "variables", "count"),
    [
        ("default", TWO, 1),
        ("mirrored", TWO, 1),
        ("tpu", {}, 1),
        ("tpu", {"TF_CONFIG": TF_CONFIG}, 1),  # TensorFlow's, which a slice on JAX doesn't read
        ("tpu", TWO, 2),
        ("multiworker", TWO, 2),
        ("multiworker", {"TF_CONFIG": TF_CONFIG}, 3),
        ("multiworker", TWO | {"TF_CONFIG": TF_CONFIG}, 2),
    ],
)
def test_processes(strategy: str, variables: dict[str, str], count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert jax_engine.worker_count(PretrainConfig(strategy=strategy)) == count


@pytest.mark.parametrize(
    ("strategy", "variables", "sentence"),
    [
        ("multiworker", {}, "--strategy multiworker --engine jax needs JAX_COORDINATOR_ADDRESS (HOST:PORT of process 0), "
         "JAX_NUM_PROCESSES and JAX_PROCESS_ID in the environment of each process, or a TF_CONFIG with all workers: set them"),
        ("tpu", {"JAX_COORDINATOR_ADDRESS": "a:1"}, "--strategy tpu --engine jax needs JAX_COORDINATOR_ADDRESS (HOST:PORT of "
         "process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID in the environment of each process: set them"),
        ("tpu", TWO | {"JAX_PROCESS_ID": "first"}, "--strategy tpu --engine jax needs JAX_COORDINATOR_ADDRESS"),
    ],
)  # fmt: skip
def test_an_incomplete_environment(
    strategy: str, variables: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        jax_engine.worker_count(PretrainConfig(strategy=strategy))
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("strategy", "sentence"),
    [
        ("multiworker", "--strategy multiworker works with pretrain only: use default or mirrored"),
        ("tpu", "--strategy tpu on several hosts works with pretrain only: use a TPU of one host, without "
         "JAX_COORDINATOR_ADDRESS"),
    ],
)  # fmt: skip
def test_other_commands_have_one_process(strategy: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TWO.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        jax_engine.make(DeviceOptions(strategy=strategy))
    assert str(caught.value) == sentence


def test_connecting_asks_no_cloud(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    given = {}
    monkeypatch.setattr("jax.distributed.initialize", lambda **values: given.update(values))
    for name, value in TWO.items():
        monkeypatch.setenv(name, value)
    jax_cluster.connect(PretrainConfig(strategy="tpu"))
    assert given == {"coordinator_address": "10.0.0.1:8482", "num_processes": 2, "process_id": 1,
                     "cluster_detection_method": "deactivate"}  # fmt: skip
    assert capsys.readouterr().out == "worker 1 of 2, coordinator 10.0.0.1:8482: waiting for the others\n"


@dataclass(frozen=True)
class Device:
    id: int
    process_index: int


def test_the_devices_of_a_host_are_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each host reads consecutive rows, but in a slice of 2x4 chips each of two hosts has two in every row."""
    devices = [Device(number, number // 2 % 2) for number in range(8)]
    monkeypatch.setattr("jax.devices", lambda *_: devices)
    assert [device.id for device in jax_engine._local(DeviceOptions(strategy="tpu"))] == [0, 1, 4, 5, 2, 3, 6, 7]
    assert jax_engine._local(DeviceOptions()) == [devices[0]]


@pytest.mark.parametrize(
    ("platforms", "plugin", "visible", "gpus"),
    [
        ("cuda,cpu", False, None, 8),  # as deploy/gke/Dockerfile sets it
        ("", True, None, 8),
        ("", False, None, 0),  # JAX for CPUs on a machine with GPUs
        ("cpu", True, None, 0),
        ("cuda", True, "3", 1),  # a process per GPU
        ("cuda", True, "-1", 0),
    ],
)
def test_gpus_that_processes_are_going_to_use(
    platforms: str, plugin: bool, visible: str | None, gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are known before the processes connect, but not which GPUs they are, nor their memory."""
    monkeypatch.setattr(hardware, "nvidia_gpus", lambda: 8)
    monkeypatch.setattr(jax_cluster, "_has_cuda_plugin", lambda: plugin)
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = jax_engine.detect(PretrainConfig(strategy="multiworker", engine="jax"), 2)
    assert (found.kind, found.devices, found.bfloat16) == (("GPU", 2 * gpus, True) if gpus else ("CPU", 2, False))
    assert (found.memory == 0) == bool(gpus)
    assert (found.kernel is not None and not found.kernel.refusal(64, 512, "bfloat16")) == bool(gpus)


def test_plain_attention_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "nvidia_gpus", lambda: 8)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    config = PretrainConfig(strategy="multiworker", engine="jax", attention_kernel="plain")
    found = jax_engine.detect(config, 2)
    assert (found.kind, found.kernel) == ("GPU", None)
