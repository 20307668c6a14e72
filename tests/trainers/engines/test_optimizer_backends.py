"""The update rules and the schedules give the same results on TensorFlow and JAX."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from clozemill.trainers.engines.optimizer import OPTIMIZERS, SCHEDULES, Hyper, Schedule
from tests.model.small import run

RECORD = "import sys; from tests.trainers.engines.test_optimizer_backends import record; record(sys.argv[1])"
PATHS = ("pretraining/encoder/layer_0/output/kernel", "pretraining/encoder/pooler/kernel")


def record(path: str) -> None:
    """Write the variables and moments after five updates, and rates, of this process's backend to an .npz file."""
    stream, found = np.random.default_rng(1), {}
    start = stream.normal(0, 0.5, (24, 40)).astype("float32")
    gradients = [stream.normal(0, size, start.shape).astype("float32") for size in (1.0, 0.1, 3.0, 0.0, 1.0)]
    for name, optimizer in OPTIMIZERS.items():
        for at in PATHS:
            rule = optimizer.rule(at, start.shape)
            state = [ops.convert_to_tensor(each) for each in (start, *[np.zeros_like(start)] * len(rule.moments))]
            for done, gradient in enumerate(gradients):
                variable, *moments = state
                state = rule.update(variable, ops.convert_to_tensor(gradient), *moments, 0.01, done, Hyper(), True)
            found |= {f"{name} {at} {number}": ops.convert_to_numpy(each) for number, each in enumerate(state)}
    for shape in SCHEDULES:
        schedule = Schedule(1e-3, 3, 20, 5, shape, 6)
        found[shape] = np.array([float(schedule(step)) for step in range(5, 27)])
    np.savez(path, backend=keras.backend.backend(), **found)


@pytest.mark.slow  # test_engines.py compares complete steps
def test_jax_matches_tensorflow(tmp_path: Path) -> None:
    assert keras.backend.backend() == "tensorflow"
    record(str(tmp_path / "tensorflow.npz"))
    run("jax", RECORD, str(tmp_path / "jax.npz"))
    mine, theirs = (dict(np.load(tmp_path / f"{backend}.npz")) for backend in ("tensorflow", "jax"))
    assert (str(mine.pop("backend")), str(theirs.pop("backend"))) == ("tensorflow", "jax")
    assert mine.keys() == theirs.keys() and len(mine) == 2 * (3 + 3 + 3) + 2 + 3 + len(SCHEDULES)
    for name, expected in mine.items():
        np.testing.assert_allclose(theirs[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
