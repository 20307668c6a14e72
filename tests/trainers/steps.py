"""Small models and batches whose training steps take milliseconds, for tests of the step under any strategy."""

import importlib.metadata
from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf

from clozemill.model.config import EncoderConfig
from clozemill.trainers.engines import train_state
from clozemill.trainers.engines.engine import COLUMNS, StepOptions
from clozemill.trainers.engines.optimizer import Hyper, Schedule
from clozemill.trainers.engines.tensorflow_step import Stepper
from tests.model import small
from tests.trainers import datasets
from tests.trainers.datasets import ENTRIES, LENGTH

COMPILES = not any(importlib.metadata.distributions(name="tensorflow-tpu"))  # its XLA compiles only for TPUs
needs_xla = pytest.mark.skipif(not COMPILES, reason="tensorflow-tpu has no XLA for CPUs")
ROWS = 8
SMALL = EncoderConfig(
    vocab_size=ENTRIES, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=LENGTH, initializer_range=0.1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
HYPER = Hyper(weight_decay=0.1, clip_norm=0.5)  # below the norms that occur, so that it has an effect
SCHEDULE = Schedule(0.02, 2, 20)


def batches(count: int, rows: int = ROWS, seed: int = 5) -> dict[str, np.ndarray]:
    """Return features of some batches, [count, B, ...], with different numbers of predictions."""
    columns = vars(datasets.examples(count * rows, np.random.default_rng(seed)))
    split = {name: values.reshape(count, rows, *values.shape[1:]) for name, values in columns.items()}
    return {name: values.astype("float32" if "weights" in name else "int32") for name, values in split.items()}


# Eight examples in six rows of ROW_LENGTH: two of them share a row, or one is alone, and one row only fills up the batch.
PACKED_ROWS = [[0, 1], [2], [3, 4], [5], [6, 7], []]


def packed(features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return batches of eight examples as batches of packed rows, [count, 6, ...]."""
    made = []
    for number in range(len(features["input_ids"])):
        batch = {name: values[number] for name, values in features.items()}
        batch["next_sentence_labels"] = batch["next_sentence_labels"][:, None]
        made.append(small.packed(batch, PACKED_ROWS, datasets.ROW_LENGTH, 2, 2 * datasets.PREDICTIONS))
    return {name: np.stack([batch[name] for batch in made]) for name in made[0]}


def make(
    objective: str = "mlm+nsp",
    precision: str = "float32",
    schedule: Schedule = SCHEDULE,
    strategy: tf.distribute.Strategy | None = None,
    **options,
) -> Stepper:
    """Return a stepper with a new state, always with equal values; `options`: sizes of the encoder, and those of Stepper."""
    changes = {name: options.pop(name) for name in tuple(options) if name in SMALL.to_dict()}
    changes |= {"attention": "causal"} if objective == "causal" else {}
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        made = train_state.make(
            EncoderConfig(**SMALL.to_dict() | changes), objective, precision, 3, options.get("rule", "adamw")
        )
    compiled = {name: options.pop(name) for name in ("jit", "jit_update") if name in options}
    return Stepper(strategy, made, StepOptions(schedule, HYPER, **options), **compiled)


def train(stepper: Stepper, features: dict[str, np.ndarray], calls: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the metrics of steps 0, 1, ... by column, with this many steps per call; batches are repeated."""
    data = tf.data.Dataset.from_tensor_slices(features).repeat()
    iterator, done, rows = iter(stepper.strategy.experimental_distribute_dataset(data)), 0, []
    for count in calls:
        rows.append(stepper.train(iterator, tf.constant(done), tf.constant(count)).numpy())
        done += count
    found = np.concatenate(rows)
    assert found.shape == (sum(calls), len(COLUMNS)) and found.dtype == np.float32
    return dict(zip(COLUMNS, found.T, strict=True))
