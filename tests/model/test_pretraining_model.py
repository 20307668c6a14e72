"""Literal inputs and targets of each objective, and outputs equal to those of the full encoder."""

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.encoder import Encoder
from clozemill.model.pretraining_model import OBJECTIVES, Objective, PretrainingModel, original_ids, prepare
from tests.model.small import MODERN, NO_DROPOUT, SMALL, TOKENS, apart, features, mean_loss, scatter

SEED = np.array([3, 5], "int32")
FEATURES = features()
CLS, SEP, MASK = 2, 3, 4
EXAMPLES = {
    "input_ids": np.array([[CLS, MASK, 7, 8, SEP, 21, SEP, 0], [CLS, 9, SEP, MASK, SEP, 0, 0, 0]]),
    "input_mask": np.array([[1, 1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0, 0, 0]]),
    "segment_ids": np.array([[0, 0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 0, 0, 0]]),
    "masked_lm_positions": np.array([[1, 5, 0], [3, 0, 0]]),
    "masked_lm_ids": np.array([[6, 10, 0], [11, 0, 0]]),
    "masked_lm_weights": np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]], "float32"),
    "next_sentence_labels": np.array([[1], [0]]),
}
ORIGINALS = [[CLS, 6, 7, 8, SEP, 10, SEP, 0], [CLS, 9, SEP, 11, SEP, 0, 0, 0]]


def make(objective: str = "mlm+nsp", dtype: str = "float32", **changes) -> PretrainingModel:
    attention = "causal" if objective == "causal" else "bidirectional"
    return scatter(PretrainingModel(replace(SMALL, **{"attention": attention} | changes), objective, dtype=dtype))


def plain(values: dict) -> dict:
    return {name: ops.convert_to_numpy(value).tolist() for name, value in values.items()}


def test_objective_values() -> None:
    expected = {
        "mlm+nsp": Objective(pairs="nsp", next_sentence=True, causal=False),
        "mlm+sop": Objective(pairs="sop", next_sentence=True, causal=False),
        "mlm": Objective(pairs="", next_sentence=False, causal=False),
        "causal": Objective(pairs="", next_sentence=False, causal=True),
        "rtd": Objective(pairs="", next_sentence=False, causal=False, replaced=True),
    }
    assert expected == OBJECTIVES


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_original_ids_values(dtype: str) -> None:
    """The padding of the predictions, weight 0 at position 0, doesn't change [CLS]."""
    found = original_ids({name: values.astype(dtype) for name, values in EXAMPLES.items()})
    assert (plain({"": found})[""], keras.backend.standardize_dtype(found.dtype)) == (ORIGINALS, "int32")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(2, 40), st.data())
def test_original_ids_undo_masking(seed: int, rows: int, length: int, data: st.DataObject) -> None:
    """Any tokens at any positions, including the first and the last, replaced by any token."""
    rng, most = np.random.default_rng(seed), data.draw(st.integers(1, length))
    before = rng.integers(0, 30522, (rows, length))
    counts = rng.integers(0, most + 1, (rows, 1))
    used = np.arange(most) < counts
    positions = np.sort(np.where(used, rng.permuted(np.tile(np.arange(length), (rows, 1)), axis=1)[:, :most], length), axis=1)
    positions = positions * used
    masked = before.copy()
    for row, count in enumerate(counts[:, 0]):
        masked[row, positions[row, :count]] = rng.integers(0, 30522, count)
    examples = {
        "input_ids": masked,
        "masked_lm_positions": positions,
        "masked_lm_ids": np.take_along_axis(before, positions, axis=1) * used,
        "masked_lm_weights": used.astype("float32"),
    }
    assert (ops.convert_to_numpy(original_ids(examples)) == before).all()


@pytest.mark.parametrize("objective", ["mlm+nsp", "mlm+sop", "mlm"])
def test_prepare_values_for_masked_tokens(objective: str) -> None:
    inputs, targets = prepare(EXAMPLES, OBJECTIVES[objective])
    assert plain(inputs) == {name: EXAMPLES[name].tolist() for name in (*TOKENS, "masked_lm_positions")}
    assert plain(targets) == {
        "masked_lm_ids": [[6, 10, 0], [11, 0, 0]],
        "masked_lm_weights": [[1, 1, 0], [1, 0, 0]],
        "next_sentence_labels": [1, 0],
        "example_weights": [1, 1],
    }


def test_prepare_values_for_causal() -> None:
    """Nothing is masked; each position predicts the next token, except the last token ([SEP]) and padding."""
    inputs, targets = prepare(EXAMPLES, OBJECTIVES["causal"])
    expected = {"input_ids": ORIGINALS} | {name: EXAMPLES[name].tolist() for name in TOKENS[1:]}
    assert plain(inputs) == expected
    assert plain(targets) == {
        "masked_lm_ids": [[6, 7, 8, SEP, 10, SEP, 0, 0], [9, SEP, 11, SEP, 0, 0, 0, 0]],
        "masked_lm_weights": [[1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]],
        "next_sentence_labels": [1, 0],
        "example_weights": [1, 1],
    }


@pytest.mark.parametrize("objective", ["mlm+nsp", "mlm", "causal"])
def test_an_example_of_weight_0_never_counts(objective: str) -> None:
    weighed = EXAMPLES | {"example_weights": np.array([0, 1])}
    (inputs, targets), (same, full) = (prepare(examples, OBJECTIVES[objective]) for examples in (weighed, EXAMPLES))
    assert plain(inputs) == plain(same)
    targets, full = plain(targets), plain(full)
    assert (targets["example_weights"], targets["next_sentence_labels"]) == ([0, 1], [1, 0])
    assert targets["masked_lm_ids"] == full["masked_lm_ids"]
    assert targets["masked_lm_weights"] == [[0] * len(full["masked_lm_weights"][0]), full["masked_lm_weights"][1]]


def test_prepare_accepts_both_label_shapes_and_keeps_its_arguments() -> None:
    flat = EXAMPLES | {"next_sentence_labels": np.array([1, 0])}
    before = {name: values.copy() for name, values in flat.items()}
    assert plain(prepare(flat, OBJECTIVES["causal"])[1])["next_sentence_labels"] == [1, 0]
    assert flat.keys() == before.keys() and all((flat[name] == before[name]).all() for name in before)


@pytest.mark.parametrize("objective", ["mlm+nsp", "mlm"])
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_the_logits_are_those_of_the_full_sequence(objective: str, attention: str) -> None:
    model = make(objective, attention=attention)
    inputs, _ = prepare(FEATURES, OBJECTIVES[objective])
    full = model.encoder(*(FEATURES[name] for name in TOKENS))
    everywhere = ops.convert_to_numpy(model.masked_lm(full["sequence_output"], model.encoder.embeddings.word_embeddings))
    expected = {
        "masked_lm_logits": np.take_along_axis(everywhere, FEATURES["masked_lm_positions"][:, :, None], axis=1),
    }
    if objective == "mlm+nsp":
        expected["next_sentence_logits"] = model.next_sentence(full["pooled_output"])
    assert apart(model(inputs), expected) < 1e-5


def test_causal_logits_cover_every_position_without_seeing_targets() -> None:
    """If the token that position 4 predicts and all later ones change, logits up to 4 are bit-identical."""
    model = make("causal")
    inputs, targets = prepare(FEATURES, OBJECTIVES["causal"])
    other = {"input_ids": np.where(np.arange(10) > 4, 49 - ops.convert_to_numpy(inputs["input_ids"]), inputs["input_ids"])}
    one, two = (ops.convert_to_numpy(model(given)["masked_lm_logits"]) for given in (inputs, inputs | other))
    assert one.shape == (4, 10, 50) and targets["masked_lm_ids"].shape == (4, 10)
    assert (one[:, :5] == two[:, :5]).all() and (one[0, 5:] != two[0, 5:]).any(axis=-1).all()


def test_shapes_and_dtypes() -> None:
    for objective in OBJECTIVES:
        for dtype in ("float32", "mixed_bfloat16"):
            model = make(objective, dtype)
            outputs = model(prepare(FEATURES, OBJECTIVES[objective])[0])
            shapes = {"masked_lm_logits": (4, 10 if objective == "causal" else 3, 50), "next_sentence_logits": (4, 2)}
            names = ["masked_lm_logits", *["next_sentence_logits"] * OBJECTIVES[objective].next_sentence]
            names += ["replaced_logits", "replaced_labels"] * (objective == "rtd")
            shapes |= {"replaced_logits": (4, 10), "replaced_labels": (4, 10)}
            assert {name: tuple(values.shape) for name, values in outputs.items()} == {name: shapes[name] for name in names}
            dtypes = {name: keras.backend.standardize_dtype(values.dtype) for name, values in outputs.items()}
            assert dtypes.pop("replaced_labels", "int32") == "int32" and set(dtypes.values()) == {"float32"}
            assert {weight.dtype for weight in model.weights} == {"float32"}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_trainable_variable_has_a_gradient(objective: str) -> None:
    """The pooler is trained only with the next-sentence head, and only variables with a gradient are trained."""
    model = make(objective)
    inputs, targets = prepare(FEATURES, OBJECTIVES[objective])
    with tf.GradientTape() as tape:
        loss = mean_loss(model(inputs), targets)
    gradients = tape.gradient(loss, model.trainable_variables)
    names = [variable.path.split("/", 1)[1] for variable in model.trainable_variables]
    sizes = {name: abs(tf.convert_to_tensor(values).numpy()).max() for name, values in zip(names, gradients, strict=True)}
    # A key's bias adds the same to all scores of a query: its gradient is 0 but for rounding.
    assert min(size for name, size in sizes.items() if not name.endswith("key/bias")) > 1e-4
    pooled = ["encoder/pooler/kernel", "encoder/pooler/bias"]
    sentence = ["next_sentence/dense/kernel", "next_sentence/dense/bias"]
    assert [name for name in names if name in pooled + sentence] == (pooled + sentence) * OBJECTIVES[objective].next_sentence
    heads = 5 + 4 * OBJECTIVES[objective].next_sentence
    if objective == "rtd":  # projection, layers and head of the generator, and a head of two dense layers
        heads = 2 + 2 * 16 + 5 + 4
    assert len(names) == 5 + 2 * 16 + heads
    assert len(model.weights) == len(names) + 2 * (not OBJECTIVES[objective].next_sentence)


def test_invalid_arguments_are_rejected() -> None:
    with pytest.raises(ValueError, match="the objective causal needs causal attention"):
        PretrainingModel(SMALL, "causal")
    with pytest.raises(KeyError, match="electra"):
        PretrainingModel(SMALL, "electra")


def test_initial_losses_are_at_chance_level() -> None:
    """With BERT's initial weights, all words are about equally likely, and so are both labels."""
    model = PretrainingModel(SMALL)
    inputs, targets = prepare(FEATURES, OBJECTIVES["mlm+nsp"])
    assert abs(float(mean_loss(model(inputs), targets)) - np.log(50) - np.log(2)) < 0.1


def test_bfloat16_is_near_float32() -> None:
    inputs, targets = prepare(FEATURES, OBJECTIVES["mlm+nsp"])
    half, single = (make(dtype=dtype)(inputs) for dtype in ("mixed_bfloat16", "float32"))
    assert 0 < apart(half, single) < 0.3 and abs(ops.convert_to_numpy(single["masked_lm_logits"])).max() > 3
    assert abs(float(mean_loss(half, targets)) - float(mean_loss(single, targets))) < 0.03


def gradient_step(model: PretrainingModel, objective: Objective) -> Callable:
    def step(examples: dict, seed) -> list:
        inputs, targets = prepare(examples, objective)
        with tf.GradientTape() as tape:
            loss = mean_loss(model(inputs, training=True, seed=seed), targets)
        return [loss, *tape.gradient(loss, model.trainable_variables)]

    return step


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "remat"), [("mlm+nsp", False), ("causal", True)])
def test_a_step_compiled_by_xla(objective: str, remat: bool) -> None:
    """Static shapes, dropout and gradients: equal to eager mode, because the random numbers are the same."""
    step = gradient_step(make(objective, remat=remat, num_hidden_layers=1), OBJECTIVES[objective])
    given = {name: tf.constant(values) for name, values in FEATURES.items()}, tf.constant(SEED)
    eager = step(*given)
    assert apart([tf.convert_to_tensor(values) for values in tf.function(step, jit_compile=True)(*given)], eager) < 1e-5


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_recomputation_gives_the_same_gradients(objective: str) -> None:
    given = {name: tf.constant(values) for name, values in FEATURES.items()}, tf.constant(SEED)
    found = [gradient_step(make(objective, remat=remat), OBJECTIVES[objective])(*given) for remat in (False, True)]
    assert apart(*found) == 0


def test_recomputation_gives_the_same_gradients_of_modernbert() -> None:
    given = {name: tf.constant(values) for name, values in FEATURES.items()}, tf.constant(SEED)
    models = [scatter(PretrainingModel(replace(MODERN, remat=remat), "mlm")) for remat in (False, True)]
    assert apart(*(gradient_step(model, OBJECTIVES["mlm"])(*given) for model in models)) == 0


def test_the_loss_decreases() -> None:
    """Thirty plain gradient steps on four examples."""
    model = make(**NO_DROPOUT)
    step = tf.function(gradient_step(model, OBJECTIVES["mlm+nsp"]))
    losses = []
    for _ in range(30):
        loss, *gradients = step(FEATURES, tf.constant(SEED))
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            variable.assign_sub(0.05 * tf.convert_to_tensor(gradient))
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 3


def test_the_inner_encoder_matches_the_encoder() -> None:
    """The names below it are the same, so that weights can be copied between the two."""
    inside, alone = make().encoder, scatter(Encoder(SMALL))
    assert [weight.path.removeprefix("pretraining/") for weight in inside.weights] == [weight.path for weight in alone.weights]


@pytest.mark.parametrize("config", [SMALL, MODERN], ids=["bert", "modernbert"])
def test_a_model_of_several_objectives_computes_each_as_a_model_of_its_own(config: EncoderConfig) -> None:
    """With the same weights, the mask of the attention and the outputs are those of the objective."""
    model = scatter(PretrainingModel(config, "mlm", ("causal", "mlm+nsp")))
    weights = {weight.path: weight for weight in model.weights}
    for objective in ("causal", "mlm+nsp", "mlm"):
        attention = "causal" if objective == "causal" else "bidirectional"
        alone = scatter(PretrainingModel(replace(config, attention=attention), objective))
        for weight in alone.weights:
            weight.assign(weights[weight.path])
        model.switch_objective(objective)
        inputs, targets = model.prepare(FEATURES)
        expected, found = alone(inputs), model(inputs)
        assert found.keys() == expected.keys() and apart(found, expected) == 0
        assert model.objective == alone.objective and targets.keys() == alone.prepare(FEATURES)[1].keys()
        trained = [variable.path for variable in model.trainable_variables if model.trains(variable.path)]
        assert trained == [variable.path for variable in alone.trainable_variables]


@pytest.mark.parametrize("objective", ["mlm", "rtd"])
def test_a_model_that_ends_causal_is_bidirectional_in_earlier_phases(objective: str) -> None:
    """Its configuration says causal; a phase says otherwise, unless it says nothing."""
    config = replace(MODERN, attention="causal")
    model = scatter(PretrainingModel(config, "causal", (objective,)))
    for causal, attention in ((False, "bidirectional"), (None, "causal"), (True, "causal")):
        alone = scatter(PretrainingModel(replace(config, attention=attention), objective))
        for weight in alone.weights:
            weight.assign({each.path: each for each in model.weights}[weight.path])
        model.switch_objective(objective, causal)
        inputs, _ = model.prepare(FEATURES)
        assert apart(model(inputs), alone(inputs)) == 0
    model.switch_objective("causal", False)
    assert model.causal
