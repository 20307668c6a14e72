"""The step, compared with a manual one; micro-batches with a full batch; compiled with eager; and its metrics."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from clozemill.model.losses import SUMS
from clozemill.trainers.engines.engine import StepOptions
from clozemill.trainers.engines.optimizer import Schedule
from clozemill.trainers.engines.tensorflow_step import COLUMNS, Stepper
from tests.trainers.datasets import ENTRIES, LENGTH
from tests.trainers.steps import HYPER, ROWS, SCHEDULE, batches, make, needs_xla, packed, train

ONE = {"num_hidden_layers": 1}  # a second layer doubles the time to trace a step, and only repeats the first
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


def values(stepper: Stepper) -> list[np.ndarray]:
    return [value.numpy() for value in [*stepper.state.weights().values(), *stepper.state.moments().values()]]


def losses(figures: dict[str, np.ndarray]) -> np.ndarray:
    """Return the minimised loss per step."""
    second = figures["next_sentence_loss"] / np.maximum(figures["next_sentence_weight"], 1)
    return figures["masked_lm_loss"] / figures["masked_lm_weight"] + second


def by_hand(features: dict[str, np.ndarray], steps: int) -> tuple[list[dict[str, float]], list[np.ndarray]]:
    """Run the same steps with means instead of sums, TensorFlow's clipping, and AdamW in float64; return metrics, weights."""
    model = make(**ONE).state.model
    variables = [variable.value for variable in model.trainable_variables]
    decayed = [not path.endswith(("bias", "gamma", "beta")) for path in (v.path for v in model.trainable_variables)]
    first, second, rows = [0.0] * len(variables), [0.0] * len(variables), []
    for step in range(steps):
        batch = {name: tf.constant(rows[step % len(rows)]) for name, rows in features.items()}
        with tf.GradientTape() as tape:
            outputs = model(batch)
            picked = batch["masked_lm_weights"] > 0
            words, answers = outputs["masked_lm_logits"][picked], batch["masked_lm_ids"][picked]
            pairs, labels = outputs["next_sentence_logits"], batch["next_sentence_labels"]
            word_losses = tf.nn.sparse_softmax_cross_entropy_with_logits(answers, words)
            pair_losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, pairs)
            loss = tf.reduce_mean(word_losses) + tf.reduce_mean(pair_losses)
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables)]
        clipped, norm = tf.clip_by_global_norm(gradients, HYPER.clip_norm)
        rate = SCHEDULE.peak * min((step + 1) / 2, (20 - step) / 18, 1)
        rows.append({
            "masked_lm_loss": tf.reduce_sum(word_losses), "masked_lm_weight": len(answers),
            "masked_lm_correct": tf.math.count_nonzero(tf.argmax(words, 1, tf.int32) == answers),
            "next_sentence_loss": tf.reduce_sum(pair_losses), "next_sentence_weight": ROWS,
            "next_sentence_correct": tf.math.count_nonzero(tf.argmax(pairs, 1, tf.int32) == labels),
            "tokens": tf.reduce_sum(batch["input_mask"]), "gradient_norm": norm, "learning_rate": rate,
        })  # fmt: skip
        for number, (variable, gradient) in enumerate(zip(variables, clipped, strict=True)):
            x, g = variable.numpy().astype("float64"), gradient.numpy().astype("float64")
            first[number] = 0.9 * first[number] + 0.1 * g
            second[number] = 0.999 * second[number] + 0.001 * g**2
            update = first[number] / (1 - 0.9 ** (step + 1))
            update /= np.sqrt(second[number] / (1 - 0.999 ** (step + 1))) + 1e-6
            variable.assign(x - rate * (update + 0.1 * x * decayed[number]))
    return [{name: float(value) for name, value in row.items()} for row in rows], [value.numpy() for value in variables]


@pytest.fixture(scope="module")
def plain() -> tuple[Stepper, dict[str, np.ndarray]]:
    """Six steps over three batches, a call per step, and the state after them."""
    stepper = make(**ONE)
    return stepper, train(stepper, batches(3), [1] * 6)


def test_six_steps_match_a_manual_computation(plain) -> None:
    """Metrics of every step within 1e-5, and the weights after the last one."""
    stepper, figures = plain
    rows, weights = by_hand(batches(3), 6)
    for name in rows[0]:
        np.testing.assert_allclose(figures[name], [row[name] for row in rows], rtol=1e-5, err_msg=name)
    assert (figures["gradient_norm"] > HYPER.clip_norm).all()
    for variable, expected in zip(stepper.state.model.trainable_variables, weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected, atol=2e-5, err_msg=variable.path)


GOLDEN = (  # losses of BERT before it shared its block with ModernBERT
    ({}, [4.410163, 4.381426, 4.563997, 3.832574, 3.545416, 3.655279]),
    (DROPOUT, [4.277726, 4.254443, 4.545478, 3.788777, 3.553657, 3.760221]),
)


@pytest.mark.parametrize(("options", "golden"), GOLDEN, ids=["plain", "dropout"])
def test_golden_losses_of_bert(options: dict, golden: list[float], plain) -> None:
    """Initial weights, forward pass, dropout, gradients and updates of BERT stay what they were."""
    figures = train(make(**ONE, **options), batches(3), [1] * 6) if options else plain[1]
    np.testing.assert_allclose(losses(figures), golden, rtol=1e-5)


def test_columns(plain) -> None:
    """Counts are exact, and rates follow the schedule."""
    assert ",".join(COLUMNS[len(SUMS) :]) == "tokens,gradient_norm,learning_rate,waited,seconds"
    features, figures = batches(3), plain[1]
    assert figures["tokens"].tolist() == features["input_mask"].sum(axis=(1, 2)).tolist() * 2
    assert figures["masked_lm_weight"].tolist() == features["masked_lm_weights"].sum(axis=(1, 2)).tolist() * 2
    assert figures["next_sentence_weight"].tolist() == [ROWS] * 6
    np.testing.assert_allclose(figures["learning_rate"], [float(SCHEDULE(step)) for step in range(6)], rtol=1e-6)


@pytest.mark.slow
def test_times_come_from_the_clock() -> None:
    """A step lasts from waiting for the batch to the last update of its variables, of which there are many here."""
    stepper = make(num_hidden_layers=1, vocab_size=50_000)

    def slowly():
        for number in range(20):
            time.sleep(0.05)
            yield {name: rows[number % 3] for name, rows in batches(3).items()}

    spec = tf.data.Dataset.from_tensor_slices(batches(3)).element_spec
    unhurried = tf.data.Options()
    unhurried.experimental_optimization.inject_prefetch = False
    iterator = iter(tf.data.Dataset.from_generator(slowly, output_signature=spec).with_options(unhurried))
    stepper.train(iterator, tf.constant(0), tf.constant(1))  # includes tracing
    began = time.monotonic()
    rows = stepper.train(iterator, tf.constant(1), tf.constant(8)).numpy()
    took, (waited, seconds) = time.monotonic() - began, rows[:, -2:].T
    assert (waited > 0.045).all() and (seconds > waited).all()
    assert 0.8 * took < seconds.sum() < took * 1.01


ON_ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before TensorFlow counts the cores
from tests.trainers.steps import batches, make, train
figures = train(make(num_hidden_layers=1, vocab_size=20_000), batches(3), [1] + [10] * 3)
print("share:", figures["waited"][1:].sum() / figures["seconds"][1:].sum())
"""


@pytest.mark.slow
def test_a_step_on_one_core_is_not_taken_for_waiting() -> None:
    """The batches are in memory; the clock that ends the wait was read after the step, because one thread runs both."""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", ON_ONE_CORE], cwd=root, capture_output=True, text=True, check=True)
    assert float(done.stdout.rsplit("share:", 1)[1]) < 0.2


def test_a_head_that_is_trained_later_takes_steps_of_the_same_size() -> None:
    """After 5 steps without its objective: its first update is that of a first step, not 1 / (1 - 0.9^6) smaller moments'."""
    constant = Schedule(0.02, 1, 1 << 20, shape="wsd")
    at_once, later = make(schedule=constant, **ONE), make(schedule=constant, idle=lambda path: 5, **ONE)
    data = tf.data.Dataset.from_tensor_slices(batches(3))
    for stepper, first in ((at_once, 0), (later, 5)):
        stepper.train(iter(data), tf.constant(first), tf.constant(3))
    for mine, theirs in zip(values(later), values(at_once), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-8)


def test_steps_per_call_do_not_change_results(plain) -> None:
    """Metrics, except times, and variables are bit-identical."""
    stepper = make(**ONE)
    together = train(stepper, batches(3), [5, 1])
    for name in COLUMNS[:-2]:
        assert together[name].tobytes() == plain[1][name].tobytes(), name
    assert all((one == other).all() for one, other in zip(values(stepper), values(plain[0]), strict=True))


@pytest.mark.parametrize(("parts", "jit"), [(2, False), pytest.param(2, True, marks=[needs_xla, pytest.mark.slow])])
def test_parts_and_compilation_change_only_rounding(plain, parts: int, jit: bool) -> None:
    """Micro-batches have different numbers of predictions: the mean of their means isn't the mean of the batch."""
    counts = batches(3)["masked_lm_weights"].reshape(3, parts, -1).sum(axis=2)
    assert all(len(set(row)) > 1 for row in counts.tolist())
    stepper = make(parts=parts, jit=jit, **ONE)
    figures = train(stepper, batches(3), [4, 2])
    for name in COLUMNS[:-2]:
        np.testing.assert_allclose(figures[name], plain[1][name], rtol=1e-5, err_msg=name)
    assert stepper.train.experimental_get_tracing_count() == 1  # for any number of steps
    if jit:
        assert_static(stepper)


@pytest.mark.parametrize(
    ("parts", "jit"),
    [
        (2, False),
        pytest.param(1, False, marks=pytest.mark.slow),
        pytest.param(1, True, marks=[needs_xla, pytest.mark.slow]),
    ],
)
def test_packed_batches_train_as_unpacked_ones(plain, parts: int, jit: bool) -> None:
    """The same examples in fewer, longer rows, with a filler row: every metric and weight agrees."""
    stepper = make(parts=parts, jit=jit, **ONE)
    figures = train(stepper, packed(batches(3)), [4, 2])
    for name in COLUMNS[:-2]:
        np.testing.assert_allclose(figures[name], plain[1][name], rtol=1e-5, err_msg=name)
    for mine, expected in zip(values(stepper), values(plain[0]), strict=True):
        np.testing.assert_allclose(mine, expected, atol=2e-5)


def assert_static(stepper: Stepper) -> None:
    """Check that XLA's program for the forward and backward pass has no bounded dimension and only one trace."""
    batch = {name: tf.constant(rows[0]) for name, rows in batches(1).items()}
    totals = {"masked_lm": tf.constant(9.0), "next_sentence": tf.constant(8.0)}
    compiled = stepper._forward_backward
    text = compiled.experimental_get_compiler_ir(batch, totals, tf.constant(0), tf.constant(0))(stage="hlo")
    assert f"s32[{ROWS},{LENGTH}]" in text and "<=" not in text
    assert compiled.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    ("objective", "precision", "rule"),
    [
        pytest.param("mlm", "float32", "lamb", marks=pytest.mark.slow),
        pytest.param("mlm", "float32", "muon", marks=pytest.mark.slow),
        pytest.param("causal", "float32", "stable-adamw", marks=pytest.mark.slow),
        ("mlm+sop", "bfloat16", "adamw"),
    ],
)
def test_the_loss_decreases(objective: str, precision: str, rule: str) -> None:
    """From about the entropy of random guessing to far below it, in 20 steps on one batch; the last case is packed."""
    features = packed(batches(1)) if precision == "bfloat16" else batches(1)
    figures = train(make(objective, precision, rule=rule, num_hidden_layers=1), features, [20])
    found = losses(figures)
    assert np.log(ENTRIES) - 0.3 < found[0] < np.log(ENTRIES) + 1.5
    assert found[-1] < found[0] - 1.5 and np.isfinite(list(figures.values())).all()
    weights, tokens = figures["masked_lm_weight"], figures["tokens"]
    assert (weights == (tokens - ROWS if objective == "causal" else batches(1)["masked_lm_weights"].sum())).all()
    assert (figures["next_sentence_weight"] == (ROWS if objective == "mlm+sop" else 0)).all()


@pytest.mark.slow
@needs_xla
def test_compiled_updates_change_only_rounding() -> None:
    """Of both rules of Muon, with micro-batches: another function is compiled for each rule."""
    found = []
    for jit_update, parts in ((False, 1), (True, 2)):
        stepper = make(rule="muon", jit_update=jit_update, parts=parts, **ONE)
        found.append((train(stepper, batches(3), [4]), values(stepper)))
    (plain, weights), (compiled, others) = found
    for name in COLUMNS[:-2]:
        np.testing.assert_allclose(compiled[name], plain[name], rtol=1e-4, err_msg=name)
    for mine, expected in zip(others, weights, strict=True):
        np.testing.assert_allclose(mine, expected, atol=2e-4)


DROPOUT = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3, "num_hidden_layers": 1}


@pytest.mark.slow
def test_dropout_depends_on_the_step() -> None:
    """With a learning rate of 0: the same step gives equal metrics, also after a restart; another step gives others."""
    found = []
    for _ in range(2):
        stepper = make(schedule=Schedule(0.0, 0, 20), **DROPOUT)
        iterator = iter(tf.data.Dataset.from_tensor_slices(batches(1)).repeat())
        rows = [stepper.train(iterator, tf.constant(step), tf.constant(1)).numpy()[0, :-2] for step in (0, 0, 1, 7)]
        assert (rows[0] == rows[1]).all()
        assert len({row[COLUMNS.index("masked_lm_loss")] for row in rows}) == 3
        found.append(rows)
    np.testing.assert_array_equal(*found)


def test_every_micro_batch_of_every_replica_has_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of replica 1 with two parts are 2 and 3; each part gets the next half of its rows, and their sums are added."""
    given: list[tuple] = []

    def part(self: Stepper, batch: dict, totals: dict, step, stream) -> tuple[list, tf.Tensor]:
        given.append((batch["input_ids"].numpy(), step, stream))
        return [tf.constant([float(len(given))])], tf.constant([10.0 * len(given)])

    monkeypatch.setattr(Stepper, "_part", part)
    ids = np.arange(12, dtype=np.int32).reshape(4, 3)
    state: Any = None
    stepper = Stepper(tf.distribute.get_strategy(), state, StepOptions(SCHEDULE, HYPER, parts=2))
    (gradient,), sums = stepper._gradients({"input_ids": tf.constant(ids)}, {}, 7, 1)
    assert [(step, stream) for _, step, stream in given] == [(7, 2), (7, 3)]
    np.testing.assert_array_equal(np.concatenate([rows for rows, *_ in given]), ids)
    assert (gradient.numpy().tolist(), sums.numpy().tolist()) == ([3.0], [30.0])


@pytest.mark.slow
def test_dropout_differs_between_seeds_and_parts() -> None:
    """For one batch: the sums of a step with several streams (one per replica and part) and several seeds."""
    batch = {name: tf.constant(rows[0]) for name, rows in batches(1).items()}
    totals = {"masked_lm": 9.0, "next_sentence": 8.0}

    def loss(step: int = 4, stream: int = 0, **options) -> float:
        return float(make(**options)._part(batch, totals, step, stream)[1][0])

    seen = [loss(stream=stream, **DROPOUT) for stream in range(4)] + [loss(seed=seed, **DROPOUT) for seed in (9, (1 << 31) - 1)]
    assert len(set(seen)) == 6
    assert loss(**DROPOUT) == seen[0] == loss(seed=1 << 31, **DROPOUT)  # 31 bits of a seed are used
    assert loss(stream=0) == loss(stream=3) == loss(seed=9)  # without dropout
