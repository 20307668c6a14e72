"""Replaced-token detection against plain numpy: samples, replacements, labels; and who owns which weights."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

from clozemill.model import losses, pretraining_model
from clozemill.model.config import EncoderConfig, generator_config, preset
from clozemill.model.pretraining_model import OBJECTIVES, PretrainingModel, prepare
from clozemill.model.replaced_tokens import replaced, sample, sampling_keys
from tests.model import mask_reference
from tests.model.small import MODERN, NO_DROPOUT, SMALL, apart, features, packed, run, scatter

FEATURES = features()
PACKED = packed(features(), [[2, 0], [3], []], 21, 3, 7)
SEED = np.array([3, 5], "int32")


def test_sizes_of_generators() -> None:
    """Whole heads of the encoder's size, at least one; as many layers."""
    sizes = {(name, size): generator_config(preset(name), size) for name in ("tiny", "base", "large") for size in (0.25, 0.34)}
    found = {key: (one.hidden_size, one.num_attention_heads, one.intermediate_size) for key, one in sizes.items()}
    assert found == {
        ("tiny", 0.25): (64, 1, 256), ("tiny", 0.34): (64, 1, 256),
        ("base", 0.25): (192, 3, 768), ("base", 0.34): (256, 4, 1024),
        ("large", 0.25): (256, 4, 1024), ("large", 0.34): (320, 5, 1280),
    }  # fmt: skip
    assert {one.num_hidden_layers for one in sizes.values()} == {2, 12, 24}
    for size in (0.0, 1.1, float("nan")):  # also that of a checkpoint, before anything is allocated
        with pytest.raises(ValueError, match=r"the size of the generator is .*, but must be above 0 and at most 1"):
            generator_config(preset("tiny"), size)


def uniform(keys: np.ndarray, positions: int) -> np.ndarray:
    lots = [[mask_reference.lot(key, slot, 16) >> 7 for slot in range(positions)] for key in keys]
    return np.array(lots) / 2**24


def test_samples_are_those_of_the_cumulative_probabilities() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (5, 7, 50)).astype("float32")
    keys = rng.integers(-(2**31), 2**31, (5, 2)).astype("int32")
    found = ops.convert_to_numpy(sample(ops.convert_to_tensor(logits), ops.convert_to_tensor(keys)))
    probs = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype="float64")
    sums, u = np.cumsum(probs / probs.sum(axis=-1, keepdims=True), axis=-1), uniform(keys, 7)
    assert found.dtype == np.int32 and found.tolist() == (sums <= u[:, :, None]).sum(axis=-1).tolist()


def test_samples_have_the_probabilities_of_the_logits() -> None:
    """Of 20,000: chi-square with 4 degrees of freedom, one in a thousand; an entry of probability 0 never comes."""
    probs = np.array([0.5, 0.25, 0.0, 0.15, 0.08, 0.02])
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(probs), -1e9).astype("float32")
    many = np.broadcast_to(logits, (200, 100, 6))
    keys = np.random.default_rng(1).integers(-(2**31), 2**31, (200, 2)).astype("int32")
    counts = np.bincount(np.ravel(sample(ops.convert_to_tensor(many), ops.convert_to_tensor(keys))), minlength=6)
    some = probs > 0
    assert counts[2] == 0 and ((counts - 20_000 * probs)[some] ** 2 / (20_000 * probs)[some]).sum() < 18.5


def test_keys_depend_on_tokens_and_seed_alone() -> None:
    ids = FEATURES["input_ids"]
    keys, half = (ops.convert_to_numpy(sampling_keys(ops.convert_to_tensor(rows), None)) for rows in (ids, ids[2:]))
    assert keys.dtype == np.int32 and (keys[2:] == half).all() and len({tuple(key) for key in keys.tolist()}) == 4
    seeded = ops.convert_to_numpy(sampling_keys(ops.convert_to_tensor(ids), np.array([3, 5], "int32")))
    assert (seeded - keys == 3).all()
    swapped = ids.copy()
    swapped[0, [1, 2]] = ids[0, [2, 1]]
    assert (ops.convert_to_numpy(sampling_keys(ops.convert_to_tensor(swapped), None))[0] != keys[0]).all()


def test_replacements() -> None:
    """A sample equal to the original isn't replaced, and unused positions change nothing."""
    original, positions = np.array([[2, 7, 8, 9, 3, 0]], "int32"), np.array([[1, 3, 0]], "int32")
    weights, samples = np.array([[1.0, 1.0, 0.0]], "float32"), np.array([[7, 20, 30]], "int32")
    ids, labels = (ops.convert_to_numpy(one).tolist() for one in replaced(original, positions, weights, samples))
    assert (ids, labels) == ([[2, 7, 8, 20, 3, 0]], [[0, 0, 0, 1, 0, 0]])


def make(dtype: str = "float32", **changes) -> PretrainingModel:
    return scatter(PretrainingModel(replace(SMALL, **changes), "rtd", dtype=dtype))


@pytest.mark.parametrize(
    ("config", "batch"),
    [(SMALL, FEATURES), (SMALL, PACKED), (MODERN, PACKED)],
    ids=["plain", "packed", "modern"],
)
def test_the_encoder_judges_every_real_token(config: EncoderConfig, batch: dict) -> None:
    """Outputs and losses step by step: the generator's logits, its samples, and the encoder over them."""
    model = scatter(PretrainingModel(config, "rtd"))
    inputs, targets = model.prepare(batch)
    outputs = model(inputs)
    extra = {name: batch[name] for name in ("example_ids", "cls_positions") if name in batch}
    logits = model.generator(
        batch["input_ids"], batch["input_mask"], batch["segment_ids"], positions=batch["masked_lm_positions"],
        words_VH=model.encoder.embeddings.word_embeddings, **extra,
    )  # fmt: skip
    np.testing.assert_allclose(outputs["masked_lm_logits"], logits, atol=1e-6)
    ids, used = np.array(batch["input_ids"]), batch["masked_lm_weights"] > 0
    rows = np.nonzero(used)[0]
    ids[rows, batch["masked_lm_positions"][used]] = batch["masked_lm_ids"][used]
    samples = ops.convert_to_numpy(sample(logits, sampling_keys(batch["input_ids"], None)))
    shown = ids.copy()
    shown[rows, batch["masked_lm_positions"][used]] = samples[used]
    hidden = model.encoder(shown, batch["input_mask"], batch["segment_ids"], **extra)["sequence_output"]
    np.testing.assert_allclose(outputs["replaced_logits"], model.replaced_token(hidden), atol=1e-5)
    assert (ops.convert_to_numpy(outputs["replaced_labels"]) == (shown != ids)).all()
    found = {name: float(value) for name, value in model.sums_of(outputs, targets).items()}
    z, y, real = ops.convert_to_numpy(outputs["replaced_logits"]), shown != ids, batch["input_mask"] > 0
    each = np.logaddexp(0, z) - z * y
    assert found["replaced_loss"] == pytest.approx(each[real].sum(), rel=1e-5)
    assert found["replaced_weight"] == real.sum() == float(model.weights_of(targets)["replaced"])
    assert found["replaced_correct"] == ((z > 0) == y)[real].sum()
    assert found["masked_lm_weight"] == used.sum() and found["next_sentence_weight"] == 0
    means = {name: found[f"{name}_loss"] / found[f"{name}_weight"] for name in ("masked_lm", "replaced")}
    assert losses.total(means) == pytest.approx(means["masked_lm"] + 50 * means["replaced"])


def test_samples_depend_on_the_step_and_not_on_the_stream() -> None:
    """A seed is (step, stream): micro-batches and replicas replace the same tokens, another step replaces others."""
    model = make(**NO_DROPOUT)
    inputs, _ = model.prepare(features(rows=64))
    one, same, other = (
        ops.convert_to_numpy(model(inputs, seed=np.array(seed, "int32"))["replaced_labels"])
        for seed in ((3, 5), (3, 6), (4, 5))
    )
    assert one.any() and (one == same).all() and (one != other).any()


def test_dropout_of_both_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the generator, and in the encoder even if every sample is the original token."""
    model = make(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
    monkeypatch.setattr(pretraining_model, "sample", lambda logits, keys: ops.convert_to_tensor(FEATURES["masked_lm_ids"]))
    inputs, _ = model.prepare(FEATURES)
    plain, dropped = model(inputs), model(inputs, seed=SEED)
    assert not ops.convert_to_numpy(dropped["replaced_labels"]).any()
    for name in ("masked_lm_logits", "replaced_logits"):
        assert apart(plain[name], dropped[name]) > 1e-3, name
        assert apart(dropped[name], model(inputs, seed=SEED)[name]) == 0, name


def test_weights() -> None:
    """The embeddings exist once, in the encoder; the generator's own are narrow; nothing is trained that has no gradient."""
    model = make()
    paths = [weight.path for weight in model.weights]
    assert len(paths) == len(set(paths)) and [path for path in paths if "word_embeddings" in path] == [
        "pretraining/encoder/embeddings/word_embeddings"
    ]
    shapes = {path.split("/", 1)[1]: tuple(weight.shape) for path, weight in zip(paths, model.weights, strict=True)}
    assert shapes["generator/encoder/projection/kernel"] == (16, 4)
    assert shapes["generator/encoder/layer_0/attention/query/kernel"] == (4, 4)
    assert shapes["generator/masked_lm/transform/kernel"] == (4, 16)
    untrained = set(paths) - {variable.path for variable in model.trainable_variables}
    assert untrained == {"pretraining/encoder/pooler/kernel", "pretraining/encoder/pooler/bias"}
    assert not any("generator/encoder/pooler" in path for path in paths)


def test_gradients_reach_every_variable_and_no_sample() -> None:
    """The discriminator's loss doesn't reach the generator's layers; both losses reach the shared embeddings."""
    import tensorflow as tf

    model = make(**NO_DROPOUT)
    inputs, targets = model.prepare(FEATURES)
    with tf.GradientTape(persistent=True) as tape:
        found = model.sums_of(model(inputs), targets)
        both = found["masked_lm_loss"] + found["replaced_loss"]
    variables = model.trainable_variables
    for name, part in (("masked_lm_loss", "generator"), ("replaced_loss", "encoder")):
        gradients = tape.gradient(found[name], [variable.value for variable in variables])
        reached = [variable for variable, value in zip(variables, gradients, strict=True) if value is not None]
        touched = {variable.path.split("/")[1] for variable in reached}
        assert touched == {part, "encoder"} | ({"replaced_token"} if part == "encoder" else set())
    total = tape.gradient(both, [variable.value for variable in variables])
    assert [variable.path for variable, value in zip(variables, total, strict=True) if value is None] == []


RECORD = """
import sys, jax, numpy as np
from keras import ops
from tests.model import test_replaced_tokens as here
model = here.make(**here.NO_DROPOUT)
given, weights = model.prepare(here.FEATURES)[0], [variable.value for variable in model.variables]
def call(given):
    trained, kept = ([v.value for v in group] for group in (model.trainable_variables, model.non_trainable_variables))
    return model.stateless_call(trained, kept, given, seed=np.array([3, 5], "int32"))[0]
outputs = jax.jit(call)(given)
np.savez(sys.argv[1], **{name: ops.convert_to_numpy(value) for name, value in outputs.items()})
"""


@pytest.mark.slow  # test_backends.py and test_masking.py compare what it consists of
def test_equal_on_jax(tmp_path) -> None:
    run("jax", RECORD, str(tmp_path / "found.npz"))
    found, model = dict(np.load(tmp_path / "found.npz")), make(**NO_DROPOUT)
    outputs = model(model.prepare(FEATURES)[0], seed=np.array([3, 5], "int32"))
    assert found.keys() == outputs.keys() and apart(found, outputs) < 1e-5


def test_precision() -> None:
    """With bfloat16, weights, logits and losses stay float32."""
    model = make("mixed_bfloat16")
    outputs = model(model.prepare(FEATURES)[0])
    assert {keras.backend.standardize_dtype(value.dtype) for value in outputs.values()} == {"float32", "int32"}
    assert prepare(FEATURES, OBJECTIVES["rtd"])[0].keys() == model.prepare(FEATURES)[0].keys()
