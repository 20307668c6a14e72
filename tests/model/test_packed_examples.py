"""Packed examples are independent of each other: gradients between them are 0, and their losses are the unpacked ones."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from clozemill.model.attention import visible
from clozemill.model.encoder import Encoder, restarted_positions
from clozemill.model.losses import sums
from clozemill.model.pretraining_model import OBJECTIVES, PretrainingModel, prepare
from tests.model.small import NO_DROPOUT, SMALL, TOKENS, apart, features, mean_loss, packed, scatter
from tests.slow import mostly_slow, mostly_slow_rows

SEED = np.array([3, 5], "int32")
EXAMPLES = features(rows=6)
LENGTH, MOST, PREDICTIONS = 21, 3, 8
# Two rows of several examples, one of them full, a row of one, and a row of none, which only fills up a batch.
ROWS = [[3, 0], [1, 4, 2], [5], []]
PACKED = packed(EXAMPLES, ROWS, LENGTH, MOST, PREDICTIONS)
PLACES = [(row, index, number) for row, numbers in enumerate(ROWS) for index, number in enumerate(numbers)]
MASKED = ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")


# Without samples, which depend on the row: test_replaced_tokens.py has packed rows, too.
UNSAMPLED = [name for name, objective in OBJECTIVES.items() if not objective.replaced]


def make(objective: str = "mlm+nsp", dtype: str = "float32", **changes) -> PretrainingModel:
    options = NO_DROPOUT | {"attention": "causal" if objective == "causal" else "bidirectional"} | changes
    return scatter(PretrainingModel(replace(SMALL, **options), objective, dtype=dtype))


def only(row: int, index: int) -> dict:
    """Return the packed rows with the weight of one example alone."""
    weights = np.zeros_like(PACKED["example_weights"])
    weights[row, index] = 1
    return PACKED | {"example_weights": weights}


def alone(number: int) -> dict:
    """Return an unpacked batch of one example."""
    return {name: values[number : number + 1] for name, values in EXAMPLES.items()}


def test_the_rows_of_these_tests() -> None:
    """Everything that makes packing hard is there: full examples, short ones, padding, and unused predictions."""
    assert EXAMPLES["input_mask"].sum(axis=1).tolist() == [10, 8, 7, 6, 6, 5]
    assert PACKED["example_ids"][:2].tolist() == [[1] * 6 + [2] * 10 + [0] * 5, [1] * 8 + [2] * 6 + [3] * 7]
    assert PACKED["cls_positions"].tolist() == [[0, 6, 0], [0, 8, 14], [0, 0, 0], [0, 0, 0]]
    assert PACKED["masked_lm_weights"].sum(axis=1).tolist() == [6, 4, 3, 0]
    assert PACKED["example_weights"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_positions_restart() -> None:
    ids = np.array([[1, 1, 1, 2, 2, 3, 0], [1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0]])
    found = restarted_positions(ids, np.array([[0, 3, 5], [0, 0, 0], [0, 0, 0]]))
    assert ops.convert_to_numpy(found).tolist() == [[0, 1, 2, 0, 1, 0, 0], [0, 1, 2, 3, 4, 5, 6], [0] * 7]


@pytest.mark.parametrize("causal", [False, True])
def test_visible_keys(causal: bool) -> None:
    """A token sees its own example and nothing else; padding sees padding, so that every query has a key."""
    ids = np.array([[1, 1, 2, 2, 2, 0]], "int32")
    expected = np.array([[a == b and (not causal or i >= j) for j, b in enumerate(ids[0])] for i, a in enumerate(ids[0])])
    everywhere = np.arange(6, dtype="int32")[None]
    assert (ops.convert_to_numpy(visible(ids > 0, everywhere, causal, ids))[0, 0] == expected).all()
    picked = np.array([[0, 2, 4]], "int32")
    assert (ops.convert_to_numpy(visible(ids > 0, picked, causal, ids))[0, 0] == expected[[0, 2, 4]]).all()


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("objective", UNSAMPLED)
def test_targets_are_those_of_the_unpacked_examples(objective: str, dtype: str) -> None:
    """In the same order, and nothing else has a weight: nor does the last token of an example predict the next example."""
    given = {name: values.astype(dtype) if "weights" not in name else values for name, values in PACKED.items()}
    inputs, targets = prepare(given, OBJECTIVES[objective])
    names = (*TOKENS, "example_ids", "cls_positions", *["masked_lm_positions"] * (objective != "causal"))
    assert set(inputs) == set(names)
    weights = ops.convert_to_numpy(targets["masked_lm_weights"])
    assert weights.shape == (4, LENGTH if objective == "causal" else PREDICTIONS) and set(weights.ravel()) == {0, 1}
    found, expected = ops.convert_to_numpy(targets["masked_lm_ids"])[weights > 0], []
    for *_, number in PLACES:
        _, own = prepare(alone(number), OBJECTIVES[objective])
        used = ops.convert_to_numpy(own["masked_lm_weights"]) > 0
        expected += ops.convert_to_numpy(own["masked_lm_ids"])[used].tolist()
    assert found.tolist() == expected
    labels, used = (ops.convert_to_numpy(targets[name]) for name in ("next_sentence_labels", "example_weights"))
    assert labels[used > 0].tolist() == [EXAMPLES["next_sentence_labels"][number, 0] for *_, number in PLACES]


@pytest.mark.parametrize("objective", mostly_slow(UNSAMPLED, "mlm+nsp", "causal"))
def test_no_gradient_between_examples(objective: str) -> None:
    """The gradient of an example's loss with respect to the embedded tokens is exactly 0 at all others."""
    model = make(objective)
    words = tf.stop_gradient(tf.convert_to_tensor(model.encoder.embeddings.word_embeddings))
    for row, index, number in PLACES:
        inputs, targets = prepare(only(row, index), OBJECTIVES[objective])
        places = inputs.get("masked_lm_positions")
        positions = None if places is None else np.concatenate([PACKED["cls_positions"], places], axis=1)
        with tf.GradientTape() as tape:
            encoded = model.encoder(
                *(inputs[name] for name in TOKENS), positions=positions,
                example_ids=inputs["example_ids"], cls_positions=inputs["cls_positions"],
            )  # fmt: skip
            hidden = encoded["sequence_output"][:, 0 if places is None else MOST :]
            outputs = {"masked_lm_logits": model.masked_lm(hidden, words)}
            if model.next_sentence:
                outputs["next_sentence_logits"] = model.next_sentence(encoded["pooled_output"])
            loss = mean_loss(outputs, targets)
        gradient = tape.gradient(loss, encoded["all_layers"][0]).numpy()
        own = np.zeros((len(ROWS), LENGTH), bool)
        own[row] = PACKED["example_ids"][row] == index + 1
        assert (gradient[~own] == 0).all(), (row, index)
        if objective == "causal":  # the last token, [SEP], predicts nothing
            own[row, np.flatnonzero(own[row])[-1]] = False
        assert (abs(gradient[own]).max(axis=-1) > 1e-6).all(), (row, index)
        assert own.sum() == EXAMPLES["input_mask"][number].sum() - (objective == "causal")


CHANGES = {
    "plain": {},
    "erf": {"hidden_act": "gelu_erf"},
    "remat": {"remat": True},
    "causal attention": {"attention": "causal"},
    "one layer": {"num_hidden_layers": 1},
}


QUICK = [*((objective, "plain") for objective in UNSAMPLED), ("mlm+nsp", "remat"), ("causal", "one layer")]


@pytest.mark.parametrize(("objective", "changes"), mostly_slow_rows(product(UNSAMPLED, CHANGES), *QUICK))
def test_losses_are_those_of_the_unpacked_examples(objective: str, changes: str) -> None:
    """For every example, in rows of one, two and three."""
    model = make(objective, **CHANGES[changes])
    outputs = model(prepare(PACKED, OBJECTIVES[objective])[0])
    for row, index, number in PLACES:
        _, targets = prepare(only(row, index), OBJECTIVES[objective])
        inputs, expected = prepare(alone(number), OBJECTIVES[objective])
        found, wanted = sums(outputs, targets), sums(model(inputs), expected)
        for name in wanted:
            assert float(found[name]) == pytest.approx(float(wanted[name]), rel=1e-6, abs=1e-6), (number, name)


@pytest.mark.parametrize("objective", UNSAMPLED)
def test_losses_of_a_batch_are_those_of_the_unpacked_batch(objective: str) -> None:
    """Divided by the true counts; filler rows and unused places don't count, and gradients agree."""
    model, found = make(objective), []
    for batch in (PACKED, EXAMPLES):
        inputs, targets = model.prepare({name: tf.constant(values) for name, values in batch.items()})
        with tf.GradientTape() as tape:
            loss = mean_loss(model(inputs), targets)
        gradients = [tf.convert_to_tensor(values) for values in tape.gradient(loss, model.trainable_variables)]
        found.append((loss, gradients, list(model.weights_of(targets).values())))
    assert apart(found[0], found[1]) < 2e-6
    assert [float(value) for value in found[0][2]][1] == 6


def test_every_layer_is_that_of_the_unpacked_examples() -> None:
    encoder = scatter(Encoder(replace(SMALL, **NO_DROPOUT)))
    given = {name: PACKED[name] for name in ("example_ids", "cls_positions")}
    found = encoder(*(PACKED[name] for name in TOKENS), **given)
    assert [tuple(layer.shape) for layer in found["all_layers"]] == [(4, LENGTH, 16)] * 3
    assert found["pooled_output"].shape == (4, MOST, 16)
    for row, index, number in PLACES:
        expected, size = encoder(*(alone(number)[name] for name in TOKENS)), EXAMPLES["input_mask"][number].sum()
        begin = PACKED["cls_positions"][row, index]
        for one, other in zip(found["all_layers"], expected["all_layers"], strict=True):
            assert apart(one[row, begin : begin + size], other[0, :size]) < 2e-6
        assert apart(found["pooled_output"][row, index], expected["pooled_output"][0]) < 2e-6
    positions = np.array([[0, 6, 0, 3, 11]] * 4)
    picked = encoder(*(PACKED[name] for name in TOKENS), positions=positions, **given)
    assert apart(picked["sequence_output"], np.take(found["sequence_output"], positions[0], axis=1)) < 2e-6
    assert apart(picked["pooled_output"][0], found["pooled_output"][0]) < 2e-6  # of the first three positions
    assert all(np.isfinite(ops.convert_to_numpy(layer)).all() for layer in found["all_layers"])


def test_a_row_of_one_example_is_the_unpacked_example() -> None:
    """Of the same length, bit for bit."""
    model, whole = make(), packed(EXAMPLES, [[number] for number in range(6)], 10, 1, 3)
    found, expected = (model(prepare(batch, OBJECTIVES["mlm+nsp"])[0]) for batch in (whole, EXAMPLES))
    assert apart(found["masked_lm_logits"], expected["masked_lm_logits"]) == 0
    assert apart(found["next_sentence_logits"][:, 0], expected["next_sentence_logits"]) == 0


def test_bfloat16_is_near_float32() -> None:
    inputs, targets = prepare(PACKED, OBJECTIVES["mlm+nsp"])
    half, single = (make(dtype=dtype)(inputs) for dtype in ("mixed_bfloat16", "float32"))
    assert 0 < apart(half, single) < 0.5
    assert abs(float(mean_loss(half, targets)) - float(mean_loss(single, targets))) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "remat"), [("mlm+nsp", False), ("causal", True)])
def test_a_step_compiled_by_xla(objective: str, remat: bool) -> None:
    """With dropout on the probabilities of attention, whose mask is another than that without."""
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    model = make(objective, remat=remat, num_hidden_layers=1, **dropout)

    def step(examples: dict, seed) -> list:
        inputs, targets = prepare(examples, OBJECTIVES[objective])
        with tf.GradientTape() as tape:
            loss = mean_loss(model(inputs, training=True, seed=seed), targets)
        return [loss, *(tf.convert_to_tensor(each) for each in tape.gradient(loss, model.trainable_variables))]

    given = {name: tf.constant(values) for name, values in PACKED.items()}, tf.constant(SEED)
    assert apart(list(tf.function(step, jit_compile=True)(*given)), step(*given)) < 1e-5


def test_dropout_of_attention_stays_within_an_example() -> None:
    """Other tokens in the other examples of a row change no bit of an example's output, with dropout too."""
    model = make(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.3)
    other = np.where((PACKED["example_ids"] == 2) | (PACKED["input_mask"] == 0), PACKED["input_ids"], 49)
    inputs, _ = prepare(PACKED, OBJECTIVES["mlm+nsp"])
    one, two = (model(given, training=True, seed=SEED) for given in (inputs, inputs | {"input_ids": other}))
    second = np.take_along_axis(PACKED["example_ids"], PACKED["masked_lm_positions"], axis=1) == 2
    assert second.sum() > 1 and apart(one["masked_lm_logits"][second], two["masked_lm_logits"][second]) == 0
    assert apart(one["masked_lm_logits"][~second], two["masked_lm_logits"][~second]) > 0.1


def test_masked_positions_decide_no_weight() -> None:
    """An unused place of the predictions, which points at position 0, has no weight."""
    _, targets = prepare(PACKED, OBJECTIVES["mlm"])
    assert float(ops.sum(targets["masked_lm_weights"])) == sum(EXAMPLES["masked_lm_weights"][n].sum() for *_, n in PLACES)
    assert all(not PACKED[name][3].any() for name in MASKED)
