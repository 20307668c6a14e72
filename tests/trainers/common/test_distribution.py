"""Two devices compared with one, on the same global batches; unavailable devices are one-sentence errors."""

import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from clozemill.model.config import ACTIVATIONS
from clozemill.model.pretraining_model import OBJECTIVES
from clozemill.pipelines.common.errors import TemporaryError, UserError
from clozemill.trainers.common import distribution
from clozemill.trainers.common.config import DeviceOptions, EngineOptions
from clozemill.trainers.engines import engine
from clozemill.trainers.engines.optimizer import OPTIMIZERS, SCHEDULES
from clozemill.trainers.engines.tensorflow_step import COLUMNS
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.evaluate_config import EvaluateConfig

ROOT = Path(__file__).parents[3]
CASES = ("two, in parts", "two, compiled", "two, packed", "two, muon", "two, rtd")
TIMES = {"waited", "seconds"}


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The results of tests/trainers/two_devices.py, whose devices must be created before TensorFlow starts."""
    more = [
        f"--{name}"
        for name in ("compiled", "packed", "muon", "rtd")
        if any(f"two, {name}" in item.name for item in request.session.items)
    ]
    command = [sys.executable, "-m", "tests.trainers.two_devices", str(tmp_path_factory.mktemp("eval")), *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow  # test_multiworker.py trains on two replicas, in two processes
@pytest.mark.parametrize("name", CASES)
def test_two_devices_train_as_one(found: dict, name: str) -> None:
    """Losses, counts, rates and the clipped norm, over 12 steps; the measured difference was 3e-6."""
    assert found["replicas"] == [1, 2]
    single = found.get(name.replace("two", "one"), found["one"])
    one, two = single["figures"], found[name]["figures"]
    assert one.keys() == two.keys() == set(COLUMNS) and len(one["tokens"]) == 12
    for column in one.keys() - TIMES:
        np.testing.assert_allclose(two[column], one[column], rtol=2e-5, err_msg=column)
    assert min(one["gradient_norm"]) > 0.5  # norm of the sum over replicas, clipped in every step
    assert found[name]["weights"] == pytest.approx(single["weights"], rel=1e-6)


@pytest.mark.slow  # test_multiworker.py trains on two replicas, in two processes
@pytest.mark.parametrize("name", CASES)
def test_devices_have_identical_weights(found: dict, name: str) -> None:
    """Weights and moments are bit-identical on both."""
    assert found["one"]["copies"] == [1]
    assert found[name]["copies"] == [2] and found[name]["in_step"]


@pytest.mark.slow
def test_replicas_have_different_dropout(found: dict) -> None:
    """The same examples on both."""
    first, second = found["dropout"]
    assert first != second and first == pytest.approx(second, rel=0.3)


@pytest.mark.slow
def test_two_devices_evaluate_as_one(found: dict) -> None:
    """With batches rounded up to 6, the last one mostly fillers, and with a limit of 9 examples."""
    for one, two in zip(found["eval, 1"], found["eval, 2"], strict=True):
        assert two == pytest.approx(one, rel=1e-6)
    assert [row["examples"] for row in found["eval, 1"]] == [13, 9]


@pytest.mark.parametrize(
    ("replicas", "parts", "size", "sentence"),
    [
        (1, 1, 7, 7),
        (1, 4, 8, 2),
        (8, 1, 64, 8),
        (2, 4, 32, 4),
        (2, 1, 7, "--batch-size 7 isn't divisible by 2 devices: give a multiple of 2"),
        (1, 3, 8, "--batch-size 8 isn't divisible by 3 gradient accumulation steps: give a multiple of 3"),
        (4, 2, 4, "--batch-size 4 isn't divisible by 4 devices x 2 gradient accumulation steps: give a multiple of 8"),
    ],
)
def test_batches_and_devices(replicas: int, parts: int, size: int, sentence: int | str) -> None:
    devices = SimpleNamespace(replicas=replicas)
    if isinstance(sentence, int):
        assert engine.check_batch(devices, size, parts) == sentence
        return
    with pytest.raises(UserError) as error:
        engine.check_batch(devices, size, parts)
    assert str(error.value) == sentence


NEEDS_TPU = (
    "--strategy tpu needs tensorflow-tpu and libtpu, and they aren't installed here: run it on a TPU VM, install "
    "deploy/tpu/requirements.txt, or give --tpu NAME"
)
STOCK = pytest.mark.skipif(
    any(importlib.metadata.distributions(name="tensorflow-tpu")), reason="tensorflow-tpu is here, and would look for a TPU"
)


@STOCK
@pytest.mark.parametrize("libtpu", [True, False])
@pytest.mark.parametrize(("name", "variable"), [("local", ""), ("", ""), ("", "local")])
def test_a_tpu_of_this_machine_needs_its_libraries(monkeypatch, libtpu: bool, name: str, variable: str) -> None:
    """With or without just libtpu installed."""
    if not libtpu:
        monkeypatch.setitem(sys.modules, "libtpu", None)
    monkeypatch.setenv("TPU_NAME", variable)
    with pytest.raises(UserError) as error:
        DeviceOptions(strategy="tpu", tpu=name).environment()
    assert str(error.value) == NEEDS_TPU


def test_the_environment_that_strategies_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator of a pod slice must not load libtpu."""
    monkeypatch.delenv("TPU_NAME", raising=False)
    assert DeviceOptions().environment() == DeviceOptions(strategy="mirrored").environment() == {}
    with pytest.raises(UserError, match=r"^--tpu slice has no effect without --strategy tpu: give both, or leave it out"):
        DeviceOptions(tpu="slice").environment()
    with pytest.raises(UserError, match=r"^--tpu slice has no effect with --engine jax"):
        EngineOptions(strategy="tpu", tpu="slice", engine="jax").check_engine()
    assert DeviceOptions(strategy="tpu", tpu="slice").environment() == {"TPU_LOAD_LIBRARY": "0"}
    monkeypatch.setenv("TPU_NAME", "slice")
    assert DeviceOptions(strategy="tpu").environment() == {"TPU_LOAD_LIBRARY": "0"}


@STOCK
def test_no_tpu_from_the_command_line(tmp_path: Path) -> None:
    """One sentence, before TensorFlow is loaded or a file is read."""
    command = [sys.executable, "clozemill.py", "pretrain", "--data", str(tmp_path), "--output", str(tmp_path / "run")]
    environment = {name: value for name, value in os.environ.items() if name != "TPU_NAME"}
    done = subprocess.run(
        [*command, "--strategy", "tpu"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "") and not (tmp_path / "run").exists()
    assert done.stderr == f"clozemill: {NEEDS_TPU}\n"


@STOCK
def test_an_unreachable_tpu() -> None:
    """Without libtpu, the runtime reports immediately that it knows no TPU."""
    with pytest.raises(UserError) as error:
        distribution.make_strategy(DeviceOptions(strategy="tpu", tpu="local"))
    told = str(error.value)
    assert told.startswith("--strategy tpu: the TPU 'local' can't be reached (") and "\n" not in told
    assert told.endswith("): check its name and state, and that the installed TensorFlow is tensorflow-tpu")


def test_the_default_is_one_device() -> None:
    made = distribution.make_strategy(DeviceOptions())
    assert made.num_replicas_in_sync == 1 and made is tf.distribute.get_strategy()
    if not tf.config.list_physical_devices("GPU"):
        assert distribution.device_name(made) == "CPU"


def test_compiled_functions() -> None:
    """On demand; by default only on GPUs; never on a TPU, whose strategy compiles by itself."""
    made, gpus = tf.distribute.get_strategy(), bool(tf.config.list_logical_devices("GPU"))
    for name in ("default", "mirrored"):
        asked = {jit: distribution.uses_xla(DeviceOptions(strategy=name, jit=jit), made) for jit in ("auto", "on", "off")}
        assert asked == {"auto": gpus, "on": True, "off": False}
    assert not any(distribution.uses_xla(DeviceOptions(strategy="tpu", jit=jit), made) for jit in ("auto", "on", "off"))


@pytest.mark.parametrize("config", [DeviceOptions, PretrainConfig, EvaluateConfig])
def test_choices_match_the_dicts(config: type) -> None:
    held = {
        "strategy": list(distribution.STRATEGIES),
        "optimizer": list(OPTIMIZERS),
        "objective": list(OBJECTIVES),
        "hidden_act": ["auto", *ACTIVATIONS],
        "schedule": list(SCHEDULES),
    }
    choices = {field.name: list(field.metadata["choices"]) for field in fields(config) if field.name in held}
    assert "strategy" in choices and all(choices[name] == held[name] for name in choices)
    assert config is not PretrainConfig or choices.keys() == held.keys()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (tf.errors.UnavailableError(None, None, "Socket closed"), TemporaryError),
        (tf.errors.InvalidArgumentError(None, None, "shapes differ"), tf.errors.InvalidArgumentError),
        (tf.errors.AbortedError(None, None, "All 10 retry attempts failed when reading gs://b/x"), tf.errors.AbortedError),
    ],
)
def test_a_lost_host_of_a_tpu_is_temporary(error: Exception, expected: type[Exception]) -> None:
    """Errors of storage keep their own sentence, and a bug stays a bug."""
    strategy = object.__new__(tf.distribute.TPUStrategy)  # a real one needs a TPU
    with pytest.raises(expected) as raised, distribution.raise_if_worker_lost(strategy):
        raise error
    if expected is TemporaryError:
        assert str(raised.value).startswith("a host of the TPU was lost (Socket closed): check its log")


def test_an_error_on_one_machine_is_no_lost_worker() -> None:
    with pytest.raises(tf.errors.UnavailableError), distribution.raise_if_worker_lost(tf.distribute.get_strategy()):
        raise tf.errors.UnavailableError(None, None, "Socket closed")
