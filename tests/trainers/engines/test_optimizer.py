"""The update rules, compared with Keras's AdamW and numpy, and literal values of the schedules."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.pretraining_model import PretrainingModel
from clozemill.trainers.engines.optimizer import (
    OPTIMIZERS,
    SCHEDULES,
    Hyper,
    Rule,
    Schedule,
    adamw,
    clip_scale,
    decays,
    default_clip_norm,
    global_norm,
    lamb,
    muon,
    orthogonalized,
    stable_adamw,
)
from tests.trainers.steps import COMPILES

RNG = np.random.default_rng(4)
START = RNG.normal(0.0, 0.5, (5, 7)).astype("float32")
GRADIENTS = [(RNG.normal(0.0, 1.0, (5, 7)) * size).astype("float32") for size in (1.0, 0.01, 3.0, 0.0, 1.0, 0.1)]
RATES = [0.001, 0.01, 0.01, 0.02, 0.005, 0.1]
RULES = list(dict.fromkeys(rule for each in OPTIMIZERS.values() for rule in (each.matrices, each.others)))


def steps(update, hyper: Hyper, decay: bool, start: np.ndarray = START) -> list[np.ndarray]:
    """Return the variable after each of six updates."""
    (count,) = (len(rule.moments) for rule in RULES if rule.update is update)
    variable, moments, found = start, [np.zeros_like(start)] * count, []
    for done, (gradient, rate) in enumerate(zip(GRADIENTS, RATES, strict=True)):
        new = update(variable, gradient, *moments, np.float32(rate), done, hyper, decay)
        variable, *moments = map(ops.convert_to_numpy, new)
        found.append(variable)
    return found


def in_numpy(hyper: Hyper, decay: bool, scaled: bool, start: np.ndarray = START) -> list[np.ndarray]:
    """Algorithm 2 of Loshchilov and Hutter 2017, and algorithm 2 of You et al. 2019, in float64."""
    x, m, v, found = start.astype("float64"), 0.0, 0.0, []
    for t, (g, rate) in enumerate(zip(GRADIENTS, RATES, strict=True), start=1):
        g = g.astype("float64")
        m = hyper.beta_1 * m + (1 - hyper.beta_1) * g
        v = hyper.beta_2 * v + (1 - hyper.beta_2) * g**2
        update = (m / (1 - hyper.beta_1**t)) / (np.sqrt(v / (1 - hyper.beta_2**t)) + hyper.epsilon)
        update = update + (hyper.weight_decay * x if decay else 0)
        trust = np.linalg.norm(x) / np.linalg.norm(update) if scaled and np.linalg.norm(x) > 0 else 1
        x = x - rate * trust * update
        found.append(x)
    return found


def test_defaults_match_the_papers() -> None:
    assert Hyper() == Hyper(weight_decay=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-6, clip_norm=1.0, momentum=0.95)
    assert {name: default_clip_norm(name) for name in OPTIMIZERS} == {"adamw": 1, "lamb": 1, "muon": 1, "stable-adamw": 0}
    assert [(rule.update, rule.moments) for rule in RULES] == [
        (adamw, ("first", "second")),
        (lamb, ("first", "second")),
        (muon, ("first",)),
        (stable_adamw, ("first", "second")),
    ]


@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.8, 0.95)])
def test_adamw_matches_keras(decay: bool, betas: tuple[float, float]) -> None:
    """With a tiny epsilon, because Keras adds it before the bias correction of the second moment."""
    hyper = Hyper(weight_decay=0.3, beta_1=betas[0], beta_2=betas[1], epsilon=1e-12)
    theirs = keras.optimizers.AdamW(0.1, weight_decay=0.3, beta_1=betas[0], beta_2=betas[1], epsilon=1e-12)
    variable = keras.Variable(START, name="kernel" if decay else "bias")
    theirs.exclude_from_weight_decay(var_names=["bias"])
    for ours, gradient, rate in zip(steps(adamw, hyper, decay), GRADIENTS, RATES, strict=True):
        theirs.learning_rate = rate
        theirs.apply([ops.convert_to_tensor(gradient)], [variable])
        np.testing.assert_allclose(ours, variable.numpy(), atol=1e-6)


@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize("hyper", [Hyper(), Hyper(weight_decay=0.3, epsilon=0.1), Hyper(weight_decay=0.0)])
def test_adamw_matches_numpy(decay: bool, hyper: Hyper) -> None:
    np.testing.assert_allclose(steps(adamw, hyper, decay), in_numpy(hyper, decay, False), atol=1e-6)


@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize("hyper", [Hyper(), Hyper(weight_decay=0.3, epsilon=0.1), Hyper(weight_decay=0.0)])
def test_lamb_matches_numpy(decay: bool, hyper: Hyper) -> None:
    """Variables without decay aren't scaled, as in AdamW."""
    np.testing.assert_allclose(steps(lamb, hyper, decay), in_numpy(hyper, decay, decay), atol=1e-6)
    assert (np.array(steps(lamb, hyper, False)) == steps(adamw, hyper, False)).all()


def test_literal_first_update() -> None:
    """With bias correction, the direction is the sign of the gradient; decay adds 0.01 of the variable."""
    hyper, zeros = Hyper(epsilon=0.0), np.zeros(2, "float32")
    length = (1.03**2 + 1.04**2) ** 0.5
    variable, gradient = np.array([3.0, -4.0], "float32"), np.array([0.5, -2.0], "float32")
    for rule, decay, expected in (
        (adamw, False, [3.0 - 0.1, -4.0 + 0.1]),
        (adamw, True, [3.0 - 0.1 * 1.03, -4.0 + 0.1 * 1.04]),
        (lamb, False, [3.0 - 0.1, -4.0 + 0.1]),
        (lamb, True, [3.0 - 0.5 * 1.03 / length, -4.0 + 0.5 * 1.04 / length]),  # the variable's norm is 5
    ):
        found, first, second = rule(variable, gradient, zeros, zeros, 0.1, 0, hyper, decay)
        np.testing.assert_allclose(found, expected, rtol=2e-5)
        np.testing.assert_allclose(first, [0.05, -0.2], rtol=1e-5)
        np.testing.assert_allclose(second, [0.00025, 0.004], rtol=1e-4)


def test_lamb_does_not_scale_if_a_norm_is_0() -> None:
    zeros = np.zeros((5, 7), "float32")
    np.testing.assert_allclose(steps(lamb, Hyper(), True, zeros), in_numpy(Hyper(), True, True, zeros), atol=1e-6)
    still, first, _ = lamb(START, zeros, zeros, zeros, 0.1, 0, Hyper(weight_decay=0.0), True)
    assert (ops.convert_to_numpy(still) == START).all() and not ops.convert_to_numpy(first).any()
    with tf.GradientTape() as tape:  # and the unused division doesn't make a gradient NaN
        tape.watch(rate := tf.constant(0.1))
        moved = lamb(zeros, zeros, zeros, zeros, rate, 0, Hyper(), True)[0]
    assert np.isfinite(tape.gradient(moved, rate).numpy())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.update.__name__)
def test_in_a_graph(rule: Rule) -> None:
    """With the number of updates as a tensor: one trace for all steps, including late ones."""
    traced = tf.function(lambda *given: rule.update(*given, hyper=Hyper(), decay=True), jit_compile=COMPILES)
    moments = (np.full_like(START, 0.1), np.full_like(START, 0.2))[: len(rule.moments)]
    for done in (0, 7, 999_999):
        given = (START, GRADIENTS[0], *moments, np.float32(0.01))
        graph = traced(*map(tf.constant, given), tf.constant(done, "int64"))
        for one, two in zip(graph, rule.update(*given, done, Hyper(), True), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    assert traced.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize("hyper", [Hyper(), Hyper(weight_decay=0.3, epsilon=0.1)])
def test_stable_adamw_matches_numpy(decay: bool, hyper: Hyper) -> None:
    """Algorithm 2 of Wortsman et al. 2023, which corrects the betas instead of the moments, in float64."""
    x, v, u, found, slowed = START.astype("float64"), 0.0, 0.0, [], 0
    for t, (g, rate) in enumerate(zip(GRADIENTS, RATES, strict=True), start=1):
        g = g.astype("float64")
        beta_1, beta_2 = (beta * (1 - beta ** (t - 1)) / (1 - beta**t) for beta in (hyper.beta_1, hyper.beta_2))
        v = beta_1 * v + (1 - beta_1) * g
        u = beta_2 * u + (1 - beta_2) * g**2
        surprise = np.sqrt(np.mean(g**2 / np.maximum(u, hyper.epsilon**2)))
        slowed += surprise > 1.1
        rate = rate / max(1, surprise)
        x = x - rate * (hyper.weight_decay * x * decay + v / (np.sqrt(u) + hyper.epsilon))
        found.append(x)
    assert slowed == 1  # the gradient that is 300 times the one before
    np.testing.assert_allclose(steps(stable_adamw, hyper, decay), found, atol=1e-6)


def exactly_orthogonal(matrix: np.ndarray) -> np.ndarray:
    """Return U V^T by a singular value decomposition, in float64."""
    left, _, right = np.linalg.svd(matrix.astype("float64"), full_matrices=False)
    return left @ right


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """Return five steps of the quintic iteration of Jordan et al. 2024, in float64, without any transposition."""
    x = matrix.astype("float64") / np.linalg.norm(matrix)
    for _ in range(5):
        x = 3.4445 * x - 4.775 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    return x


@pytest.mark.parametrize("shape", [(6, 6), (16, 4), (4, 16), (24, 32)])
def test_orthogonalized_matrices(shape: tuple[int, int]) -> None:
    """The singular vectors are those of the matrix, and the singular values between 0.68 and 1.21, whatever its scale."""
    for scale in (1e-6, 1.0, 1e6):
        exact = exactly_orthogonal(RNG.normal(0, 1, shape))
        spread = np.diag(np.linspace(0.05, 1, min(shape)))  # singular values from 0.05 to 1, with the same vectors
        left, _, right = np.linalg.svd(exact + RNG.normal(0, 1, shape), full_matrices=False)
        matrix = (scale * left @ spread @ right).astype("float32")
        found = ops.convert_to_numpy(orthogonalized(matrix))
        np.testing.assert_allclose(found, newton_schulz(matrix), atol=1e-4)
        inner = left.T @ found @ right.T  # diagonal if the singular vectors are kept
        values = np.diag(inner)
        assert values.min() > 0.68 and values.max() < 1.21
        np.testing.assert_allclose(inner, np.diag(values), atol=1e-4)
        assert np.abs(found - exactly_orthogonal(matrix)).max() < 0.35


def test_literal_orthogonalized_matrices() -> None:
    """Of a diagonal matrix and its equal singular values; of no gradient at all; and of a batch, each on its own."""
    equal = ops.convert_to_numpy(orthogonalized(np.array([[3.0, 0.0], [0.0, -3.0]], "float32")))
    value = 2**-0.5  # 3 divided by the Frobenius norm
    for _ in range(5):
        value = 3.4445 * value - 4.775 * value**3 + 2.0315 * value**5
    assert 0.68 < value < 1.21
    np.testing.assert_allclose(equal, [[value, 0.0], [0.0, -value]], atol=1e-5)
    assert not ops.convert_to_numpy(orthogonalized(np.zeros((3, 5), "float32"))).any()
    both = np.stack([START, 100 * GRADIENTS[0]])
    each = [ops.convert_to_numpy(orthogonalized(matrix)) for matrix in both]
    np.testing.assert_allclose(ops.convert_to_numpy(orthogonalized(both)), each, atol=1e-5)


@pytest.mark.parametrize("decay", [True, False])
def test_muon_matches_numpy(decay: bool) -> None:
    """Nesterov momentum as a sum, as Jordan et al. 2024 write it, scaled as in Liu et al. 2025, in float64."""
    hyper = Hyper(weight_decay=0.3)
    x, momentum, found = START.astype("float64"), 0.0, []
    for g, rate in zip(GRADIENTS, RATES, strict=True):
        momentum = 0.95 * momentum + g.astype("float64")
        direction = 0.2 * 7**0.5 * newton_schulz(g + 0.95 * momentum)
        x = x - rate * (direction + hyper.weight_decay * x * decay)
        found.append(x)
    np.testing.assert_allclose(steps(muon, hyper, decay), found, atol=1e-5)


def test_a_muon_update_has_the_size_of_one_of_adamw() -> None:
    """The root mean square is 0.2 for any shape (about; exactly for singular values of 1)."""
    for shape in ((32, 32), (16, 64), (64, 16)):
        gradient = RNG.normal(0, 1, shape).astype("float32")
        found, first = muon(np.zeros_like(gradient), gradient, np.zeros_like(gradient), 1.0, 0, Hyper(), True)
        assert 0.14 < np.sqrt(np.mean(np.square(ops.convert_to_numpy(found)))) < 0.24
        np.testing.assert_allclose(first, 0.05 * gradient, rtol=1e-5)


def tiny_model(**changes) -> PretrainingModel:
    model = PretrainingModel(EncoderConfig(
        vocab_size=20, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, **changes
    ))  # fmt: skip
    model.build()
    return model


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_variables_of_muon(architecture: str) -> None:
    """The kernels of the layers; embeddings, pooler, heads, and all that isn't a matrix have AdamW's rule."""
    changes = {"architecture": architecture} | ({"type_vocab_size": 0} if architecture == "modernbert" else {})
    rules = {v.path: OPTIMIZERS["muon"].rule(v.path, v.shape) for v in tiny_model(**changes).trainable_variables}
    assert sorted(path.removeprefix("pretraining/") for path, rule in rules.items() if rule.update is muon) == [
        "encoder/layer_0/attention/key/kernel",
        "encoder/layer_0/attention/output_dense/kernel",
        "encoder/layer_0/attention/query/kernel",
        "encoder/layer_0/attention/value/kernel",
        *(["encoder/layer_0/gate/kernel"] if architecture == "modernbert" else []),
        "encoder/layer_0/intermediate/kernel",
        "encoder/layer_0/output/kernel",
    ]
    assert {rule.update for rule in rules.values()} == {muon, adamw}
    for name in ("adamw", "lamb", "stable-adamw"):
        assert len({OPTIMIZERS[name].rule(path, (4, 4)) for path in rules}) == 1


def test_variables_with_weight_decay() -> None:
    """Kernels and embeddings; in a complete model, a kernel per dense layer and the three tables."""
    paths = [variable.path.removeprefix("pretraining/") for variable in tiny_model().trainable_variables]
    assert sorted(path for path in paths if decays(path)) == [
        "encoder/embeddings/position_embeddings",
        "encoder/embeddings/segment_embeddings",
        "encoder/embeddings/word_embeddings",
        "encoder/layer_0/attention/key/kernel",
        "encoder/layer_0/attention/output_dense/kernel",
        "encoder/layer_0/attention/query/kernel",
        "encoder/layer_0/attention/value/kernel",
        "encoder/layer_0/intermediate/kernel",
        "encoder/layer_0/output/kernel",
        "encoder/pooler/kernel",
        "masked_lm/transform/kernel",
        "next_sentence/dense/kernel",
    ]
    assert len(paths) == 12 + 9 + 8 + 1  # and nine biases, gamma and beta of four LayerNorms, the bias per word


def test_literal_schedule() -> None:
    """Four steps of warm-up and six of decay; the rate reaches 0 after the last update."""
    schedule = Schedule(peak=2.0, warmup_steps=4, steps=10)
    rates = [float(schedule(step)) for step in range(13)]
    assert rates == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 10 / 6, 8 / 6, 1.0, 4 / 6, 2 / 6, 0.0, 0.0, 0.0], abs=1e-6)


def test_schedule_without_warm_up() -> None:
    rates = [float(Schedule(peak=1.0, warmup_steps=0, steps=4)(step)) for step in range(6)]
    assert rates == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0, 0.0])


def test_schedule_of_a_later_phase() -> None:
    """Counted from step 100 as if it were step 0."""
    later, first = Schedule(0.1, 2, 6, begin=100), Schedule(0.1, 2, 6)
    assert [float(later(100 + step)) for step in range(8)] == [float(first(step)) for step in range(8)]
    assert float(later(100)) == pytest.approx(0.05) and float(later(106)) == 0


def test_schedule_with_only_warm_up() -> None:
    assert [float(Schedule(1.0, 4, 4)(step)) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 0.0, 0.0]


def test_literal_cosine_schedule() -> None:
    """Two steps of warm-up, then half a cosine over four; the rate reaches 0 after the last update."""
    rates = [float(Schedule(2.0, 2, 6, shape="cosine")(step)) for step in range(9)]
    half = 1 + 0.5**0.5  # 1 + cos(45 degrees)
    assert rates == pytest.approx([1.0, 2.0, 2.0, half, 1.0, 2 - half, 0.0, 0.0, 0.0], abs=1e-6)
    assert float(Schedule(2.0, 2, 6, begin=100, shape="cosine")(103)) == rates[3]


def test_literal_wsd_schedule() -> None:
    """Two steps of warm-up, a stable part, and a decay by 1 - sqrt over the last four steps."""
    schedule = Schedule(2.0, 2, 9, shape="wsd", decay_steps=4)
    rates = [float(schedule(step)) for step in range(11)]
    decay = [2.0, 1.0, 2 - 2**0.5, 2 - 3**0.5]  # 2 (1 - sqrt(0, 1/4, 2/4, 3/4))
    assert rates == pytest.approx([1.0, 2.0, 2.0, 2.0, 2.0, *decay, 0.0, 0.0], abs=1e-6)
    later = Schedule(2.0, 2, 9, 100, "wsd", 4)
    assert [float(later(100 + step)) for step in range(11)] == rates
    assert (schedule.stable_until, later.stable_until, Schedule(1.0, 0, 9).stable_until) == (5, 105, None)


def test_wsd_without_a_decay_stays_at_its_peak() -> None:
    rates = [float(Schedule(2.0, 2, 6, shape="wsd")(step)) for step in range(6)]
    assert rates == [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("shape", SCHEDULES)
def test_schedule_in_a_graph(shape: str) -> None:
    """With a large integer tensor: steps stay exact, rates are float32."""
    schedule = Schedule(1e-4, 10_000, 1_000_000, shape=shape, decay_steps=200_000)
    rate = tf.function(lambda step: schedule(step))
    last = rate(tf.constant(999_999, "int64"))
    assert last.dtype == tf.float32 and last.shape == ()
    assert float(last) == pytest.approx({"linear": 1e-4 / 990_000, "cosine": 0, "wsd": 2.5e-10}[shape], rel=1e-2, abs=1e-12)
    assert float(rate(tf.constant(4_999, "int64"))) == pytest.approx(5e-5)
    assert float(rate(tf.constant(0, "int64"))) == pytest.approx(1e-8)


def test_literal_global_norm() -> None:
    assert float(global_norm([np.array([[3.0]], "float32"), np.array([0.0, 4.0], "float32")])) == 5
    assert float(global_norm([np.zeros(3, "float32")])) == 0


@pytest.mark.parametrize(
    ("norm", "clip", "scale"), [(5.0, 1.0, 0.2), (0.5, 1.0, 1.0), (1.0, 1.0, 1.0), (4.0, 0.5, 0.125), (0.0, 1.0, 1.0)]
)
def test_literal_clip_scale(norm: float, clip: float, scale: float) -> None:
    assert float(clip_scale(np.float32(norm), clip)) == pytest.approx(scale)


def test_no_clipping() -> None:
    assert float(clip_scale(np.float32(1e9), 0.0)) == 1


def test_clipping_reduces_the_norm_to_the_limit() -> None:
    scale = clip_scale(global_norm(GRADIENTS), 1.0)
    assert float(global_norm([gradient * scale for gradient in GRADIENTS])) == pytest.approx(1.0)
