"""Outputs are in the order of the rows, for any batch size and number of devices."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from clozemill.model.inputs import TOKENS
from clozemill.trainers.common.config import DeviceOptions
from clozemill.trainers.engines import batched_inference
from clozemill.trainers.engines.batched_inference import BatchedInference
from clozemill.trainers.engines.engine import Engine, make_engine
from tests.trainers.steps import needs_xla

RECORD = "from tests.trainers.engines.test_batched_inference import record; record()"


def rows(count: int, length: int = 12) -> dict[str, np.ndarray]:
    """Return rows whose ids are their number, of varying lengths, and a column of targets that the model must not see."""
    ids = np.repeat(np.arange(count, dtype=np.int32)[:, None], length, axis=1)
    mask = (np.arange(length) < 1 + (np.arange(count) * 7 % length)[:, None]).astype(np.int32)
    return dict(zip(TOKENS, (ids, mask, ids % 2), strict=True)) | {"labels": np.full(count, 99)}


def outputs(batch: dict) -> tf.Tensor:
    """Return [B, S, 2]: the ids, and the number of rows in the replica's batch."""
    assert set(batch) == set(TOKENS)
    ids = tf.cast(batch["input_ids"] * batch["input_mask"], tf.float32)
    return tf.stack([ids, tf.zeros_like(ids) + tf.cast(tf.shape(ids)[0], tf.float32)], axis=-1)


def found(engine: Engine, count: int, batch_size: int) -> np.ndarray:
    return BatchedInference(engine, None, outputs, batch_size, per_token=True)(rows(count))


@pytest.mark.parametrize(
    ("count", "batch_size", "jit"), [(5, 1, False), (6, 3, False), pytest.param(7, 3, True, marks=needs_xla), (2, 8, False)]
)
def test_outputs_keep_the_order_of_the_rows(count: int, batch_size: int, jit: bool) -> None:
    values, given = found(make_engine(DeviceOptions(jit="on" if jit else "off")), count, batch_size), rows(count)
    assert values.shape == (count, 12, 2)
    assert (values[:, :, 0] == given["input_ids"] * given["input_mask"]).all()
    sizes = {min(batch_size, count - begin) for begin in range(0, count, batch_size)}
    assert set(values[:, 0, 1]) == ({batch_size} if jit else sizes)


def test_a_value_for_each_row() -> None:
    forward = BatchedInference(
        make_engine(DeviceOptions()), None, lambda batch: tf.reduce_sum(outputs(batch)[:, :, :1], axis=1), 4
    )
    given = rows(10)
    assert (forward(given) == (given["input_ids"] * given["input_mask"]).sum(axis=1)[:, None]).all()


def test_batches_are_trimmed_to_their_longest_row() -> None:
    """The longest rows come first; few traces serve all shapes."""
    traced, seen = [], []

    def counted(batch: dict) -> tf.Tensor:
        traced.append(tuple(batch["input_ids"].shape))
        tf.py_function(lambda ids: seen.append(tuple(ids.shape)), [batch["input_ids"]], [])
        return outputs(batch)

    forward = BatchedInference(make_engine(DeviceOptions()), None, counted, 4, per_token=True)
    forward(rows(18, 20))
    assert seen == [(4, 20), (4, 16), (4, 12), (4, 8), (2, 4)] and len(traced) <= 3 and forward.batch_size == 4


def test_batches_of_long_rows_are_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention's memory grows with the square of the length; a row longer than the bound is a batch of its own."""
    monkeypatch.setattr(batched_inference, "PAIRS", 300)
    seen, given = [], rows(18, 20)

    def counted(batch: dict) -> tf.Tensor:
        tf.py_function(lambda ids: seen.append(tuple(ids.shape)), [batch["input_ids"]], [])
        return outputs(batch)

    values = BatchedInference(make_engine(DeviceOptions()), None, counted, 4, per_token=True)(given)
    assert seen == [(1, 20)] * 4 + [(1, 16)] * 3 + [(2, 12), (2, 12), (4, 8), (3, 4)]
    assert (values[:, :, 0] == given["input_ids"] * given["input_mask"]).all()


def record() -> None:
    """Print the outputs of two logical devices, and the number of rows in each batch."""
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    devices = make_engine(DeviceOptions(strategy="mirrored"))
    cases = {f"{count}, {size}": found(devices, count, size).tolist() for count, size in ((7, 4), (1, 4), (5, 3))}
    sizes = [BatchedInference(devices, None, outputs, size).batch_size for size in (1, 2, 3, 4)]
    print(json.dumps({"replicas": devices.replicas, "sizes": sizes, "cases": cases}))


@pytest.mark.slow
def test_two_devices() -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", RECORD], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["replicas"] == 2 and told["sizes"] == [2, 2, 4, 4]
    for case, values in told["cases"].items():
        values, count = np.array(values), int(case.split(",")[0])
        given = rows(count)
        assert (values[:, :, 0] == given["input_ids"] * given["input_mask"]).all(), case
        assert set(values[:, 0, 1]) <= {1.0, 2.0}, case  # each device has half of a batch


def test_several_outputs_and_another_feature() -> None:
    def several(batch: dict) -> dict[str, tf.Tensor]:
        ids = tf.cast(batch["input_ids"] * batch["input_mask"], tf.float32)
        return {"tokens": ids[:, :, None], "sum": tf.reduce_sum(ids, axis=1), "places": batch["places"]}

    given = rows(10) | {"places": np.arange(30, dtype=np.int32).reshape(10, 3)}
    forward = BatchedInference(make_engine(DeviceOptions()), None, several, 4, per_token=("tokens",), extra=("places",))
    values, ids = forward(given), given["input_ids"] * given["input_mask"]
    assert set(values) == {"tokens", "sum", "places"}
    assert (values["tokens"][:, :, 0] == ids).all() and (values["sum"] == ids.sum(axis=1)).all()
    assert (values["places"] == given["places"]).all()
