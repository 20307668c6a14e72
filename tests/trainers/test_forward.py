"""Outputs come in the order of the rows, whatever the batch size and the number of devices."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from model.packing import TOKENS
from tests.trainers.steps import needs_xla
from trainers import strategy
from trainers.config import DeviceOptions
from trainers.forward import Forward

RECORD = "from tests.trainers.test_forward import record; record()"


def rows(count: int, length: int = 5) -> dict[str, np.ndarray]:
    """Each row's ids are its number; a column of targets that the model must not see."""
    ids = np.repeat(np.arange(count, dtype=np.int32)[:, None], length, axis=1)
    return dict(zip(TOKENS, (ids, np.ones_like(ids), ids % 2), strict=True)) | {"labels": np.full(count, 99)}


def outputs(batch: dict) -> tf.Tensor:
    """[B, S, 2]; the second is the mean of the ids in the same replica's batch."""
    assert set(batch) == set(TOKENS)
    ids = tf.cast(batch["input_ids"] * batch["input_mask"], tf.float32)
    return tf.stack([ids, tf.zeros_like(ids) + tf.reduce_mean(ids)], axis=-1)


def found(devices: tf.distribute.Strategy, count: int, batch_size: int, **options: bool) -> np.ndarray:
    return Forward(devices, outputs, batch_size, **options)(rows(count))


@pytest.mark.parametrize(
    ("count", "batch_size", "jit"), [(5, 1, False), (6, 3, False), pytest.param(7, 3, True, marks=needs_xla), (2, 8, False)]
)
def test_in_order_with_the_last_batch_filled_up_by_its_first_row(count: int, batch_size: int, jit: bool) -> None:
    values = found(strategy.make(DeviceOptions()), count, batch_size, jit=jit)
    assert values.shape == (count, 5, 2) and (values[:, :, 0] == np.arange(count)[:, None]).all()
    padded = np.arange(-(-count // batch_size) * batch_size).reshape(-1, batch_size)
    padded = np.where(padded < count, padded, padded[:, :1])
    assert np.allclose(values[:, 0, 1], padded.mean(axis=1).repeat(batch_size)[:count])


def test_batches_come_one_by_one_and_shapes_are_static() -> None:
    """Every batch is computed when it is asked for; one trace serves them all, and another one serves longer rows."""
    traced = []

    def counted(batch: dict) -> tf.Tensor:
        traced.append(tuple(batch["input_ids"].shape))
        return outputs(batch)

    forward = Forward(strategy.make(DeviceOptions()), counted, 4)
    batches = forward.batches(rows(10))
    assert traced == [] and len(next(batches)) == 4
    assert [len(batch) for batch in batches] == [4, 2] and forward.batch_size == 4
    assert traced == [(4, 5)]
    forward(rows(3))
    forward(rows(3, 7))
    assert traced == [(4, 5), (4, 7)]


def record() -> None:
    """Prints what comes out of two logical devices, and how many rows each batch has."""
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    devices = strategy.make(DeviceOptions(strategy="mirrored"))
    cases = {f"{count}, {size}": found(devices, count, size).tolist() for count, size in ((7, 4), (1, 4), (5, 3))}
    sizes = [Forward(devices, outputs, size).batch_size for size in (1, 2, 3, 4)]
    print(json.dumps({"replicas": devices.num_replicas_in_sync, "sizes": sizes, "cases": cases}))


def test_two_devices() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", RECORD], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["replicas"] == 2 and told["sizes"] == [2, 2, 4, 4]
    for case, values in told["cases"].items():
        values, count = np.array(values), int(case.split(",")[0])
        assert values.shape == (count, 5, 2) and (values[:, :, 0] == np.arange(count)[:, None]).all(), case
    means = np.array(told["cases"]["7, 4"])[:, 0, 1]  # pairs of rows: 6 and, for the row that isn't there, 4
    assert means.tolist() == [0.5, 0.5, 2.5, 2.5, 4.5, 4.5, 5.0]
