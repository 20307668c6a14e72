"""Both engines do the same: losses, evaluations, outputs and weights, for every objective and optimizer, on 1 and 8 devices."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.config import DeviceOptions, EngineOptions, TrainingOptions
from clozemill.trainers.engines.engine import ENGINES, make_engine
from clozemill.trainers.pretraining.config import PretrainConfig
from tests.slow import mostly_slow
from tests.trainers.engine_runs import CASES, run

ROOT = Path(__file__).parents[3]
QUICK = ("8 devices, moments in parts",)
SHORT = tuple(name for name in CASES if CASES[name].steps == 6)
LONG = tuple(name for name in CASES if CASES[name].steps > 6)
DEVICES = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"


def on_jax(path: Path, *names: str) -> dict[str, dict[str, np.ndarray]]:
    """Return the results of cases by name, from a process whose Keras is on JAX."""
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": DEVICES}
    command = [sys.executable, "-m", "tests.trainers.engine_runs", str(path), *names]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in names}
    for key, values in np.load(path).items():
        name, column = key.split(": ")
        found[name][column] = values
    return found


@pytest.fixture(scope="module", params=mostly_slow((QUICK, SHORT), QUICK), ids=["few", "all"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    return on_jax(tmp_path_factory.mktemp("jax") / "found.npz", *request.param)


def assert_equal(jax: dict[str, np.ndarray], tensorflow: dict[str, np.ndarray], tolerance: float = 1e-5) -> None:
    """Check that the results are equal within a relative tolerance, evaluations within a tenth of it."""
    assert jax.keys() == tensorflow.keys()
    for name, expected in tensorflow.items():
        rtol = tolerance / 10 if name == "evaluation" else tolerance
        atol = 20 * tolerance if name.startswith(("weight", "outputs")) else 1e-6
        np.testing.assert_allclose(jax[name], expected, rtol=rtol, atol=atol, err_msg=name)


def test_jax_matches_tensorflow(recorded: dict[str, dict[str, np.ndarray]]) -> None:
    """With the same dropout and, where they are drawn, the same masks; on 8 devices, also with moments in parts, as on one."""
    for name, found in recorded.items():
        assert_equal(found, run(replace(CASES[name], devices=1, shard_moments=False)))


@pytest.mark.slow
def test_two_hundred_steps(tmp_path: Path) -> None:
    """Of every objective with every optimizer."""
    found = on_jax(tmp_path / "found.npz", *LONG)
    for name in LONG:
        assert_equal(found[name], run(CASES[name]))


def test_engines_are_those_of_the_option() -> None:
    (field,) = (field for field in EngineOptions.__dataclass_fields__.values() if field.name == "engine")
    assert tuple(field.metadata["choices"]) == tuple(ENGINES)


def test_the_environment_of_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert EngineOptions(engine="jax").environment() == {"KERAS_BACKEND": "jax"}
    assert EngineOptions().environment() == DeviceOptions().environment() == {}


@pytest.mark.parametrize(
    ("options", "variable", "sentence"),
    [
        ({"engine": "jax"}, "torch", "--engine jax contradicts KERAS_BACKEND=torch in the environment: unset it, or give"),
        ({}, "jax", "--engine tensorflow contradicts KERAS_BACKEND=jax in the environment: unset it, or give --engine jax"),
        ({"engine": "jax", "jit": "off"}, "", "--jit off contradicts --engine jax, which always compiles: leave it out"),
        ({"shard_moments": True}, "", "--shard-moments needs --engine jax: give both, or leave it out"),
    ],
)
def test_an_engine_that_cannot_run(options: dict, variable: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if variable:
        monkeypatch.setenv("KERAS_BACKEND", variable)
    with pytest.raises(UserError) as caught:
        TrainingOptions(**options).environment()
    assert str(caught.value).startswith(sentence)


def test_jax_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        PretrainConfig(engine="jax").environment()
    assert str(caught.value) == "--engine jax needs JAX, and it isn't installed: pip install 'clozemill[jax]'"


def test_keras_is_loaded_for_another_engine() -> None:
    with pytest.raises(UserError) as caught:
        make_engine(EngineOptions(engine="jax"))
    assert str(caught.value) == (
        "--engine jax needs Keras on jax, but this process has loaded it on tensorflow: set KERAS_BACKEND=jax before it starts"
    )
