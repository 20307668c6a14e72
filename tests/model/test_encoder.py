"""The encoder, compared with KerasHub's, and invariants for any weights: trimming, masks, precision, recomputation."""

from collections import Counter
from dataclasses import replace

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from clozemill.model import attention, embeddings, encoder
from clozemill.model.attention import visible
from clozemill.model.config import PRESETS, EncoderConfig, preset
from clozemill.model.dropout import SITES
from clozemill.model.encoder import Block, Encoder, selection
from clozemill.model.layers import activation
from tests.model.small import NO_DROPOUT, SMALL, TOKENS, apart, features, scatter
from tests.slow import mostly_slow

SEED = np.array([3, 5], "int32")
FEATURES = features()
INPUTS = [FEATURES[name] for name in TOKENS]
POSITIONS = np.concatenate([np.zeros((4, 1), "int32"), FEATURES["masked_lm_positions"]], axis=1)
REAL = FEATURES["input_mask"] == 1
PARAMETERS = {  # with the pooler, 30,522 words
    "tiny": 4_385_920,
    "mini": 11_170_560,
    "small": 28_763_648,
    "medium": 41_373_184,
    "base": 109_482_240,
    "large": 335_141_888,
}


def make(dtype: str = "float32", **changes) -> Encoder:
    return scatter(Encoder(replace(SMALL, **changes), dtype=dtype))


def both(outputs: dict) -> list:
    return [outputs["sequence_output"], outputs["pooled_output"]]


def parameters(config: EncoderConfig) -> int:
    width, inner = config.hidden_size, config.intermediate_size
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    block = 4 * (width * width + width) + 2 * width * inner + inner + width + 2 * 2 * width
    return rows * width + 2 * width + config.num_hidden_layers * block + width * width + width


@pytest.mark.parametrize("name", mostly_slow(PARAMETERS, *(name for name in PARAMETERS if name != "base")))
def test_parameter_counts(name: str) -> None:
    """Medium and large are only checked by the formula, which is correct for the others."""
    assert parameters(preset(name)) == PARAMETERS[name]
    if name not in ("medium", "large"):
        model = Encoder(preset(name))
        model.build()
        assert model.count_params() == PARAMETERS[name]


def test_names_and_shapes() -> None:
    paths = {weight.path: tuple(weight.shape) for weight in make().weights}
    layer = {
        **{f"attention/{name}/kernel": (16, 16) for name in ("query", "key", "value", "output_dense")},
        **{f"attention/{name}/bias": (16,) for name in ("query", "key", "value", "output_dense")},
        **{f"{norm}_layer_norm/{name}": (16,) for norm in ("attention", "output") for name in ("gamma", "beta")},
        **{"intermediate/kernel": (16, 32), "intermediate/bias": (32,), "output/kernel": (32, 16), "output/bias": (16,)},
    }
    assert {path: shape for path, shape in paths.items() if "/embeddings/" not in path} == {
        **{f"encoder/layer_{index}/{path}": shape for index in (0, 1) for path, shape in layer.items()},
        **{"encoder/pooler/kernel": (16, 16), "encoder/pooler/bias": (16,)},
    }


def in_keras_hub(ours: Encoder) -> keras_hub.models.BertBackbone:
    """KerasHub's encoder with the same weights."""
    config = ours.config
    theirs = keras_hub.models.BertBackbone(
        config.vocab_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.hidden_size,
        config.intermediate_size,
        max_sequence_length=config.max_position_embeddings,
    )
    tables, norm = ours.embeddings, ours.embeddings.norm
    theirs.token_embedding.set_weights([tables.word_embeddings])
    theirs.position_embedding.set_weights([tables.position_embeddings])
    theirs.segment_embedding.set_weights([tables.segment_embeddings])
    theirs.embeddings_layer_norm.set_weights(norm.get_weights())
    theirs.pooled_dense.set_weights(ours.pooler.get_weights())
    heads = config.num_attention_heads, config.head_size
    for block, layer in zip(ours.blocks, theirs.transformer_layers, strict=True):
        names = {
            "query": layer._self_attention_layer.query_dense,
            "key": layer._self_attention_layer.key_dense,
            "value": layer._self_attention_layer.value_dense,
        }
        for name, dense in names.items():
            kernel, bias = getattr(block.attention, name).get_weights()
            dense.set_weights([kernel.reshape(-1, *heads), bias.reshape(heads)])
        kernel, bias = block.attention.output_dense.get_weights()
        layer._self_attention_layer.output_dense.set_weights([kernel.reshape(*heads, -1), bias])
        layer._self_attention_layer_norm.set_weights(block.attention_norm.get_weights())
        layer._feedforward_intermediate_dense.set_weights(block.intermediate.get_weights())
        layer._feedforward_output_dense.set_weights(block.outer.get_weights())
        layer._feedforward_layer_norm.set_weights(block.outer_norm.get_weights())
    return theirs


@pytest.mark.parametrize(("heads", "layers", "length"), [(4, 3, 10), (1, 1, 12), (16, 2, 5)])
def test_matches_keras_hub(heads: int, layers: int, length: int) -> None:
    ours = make(num_attention_heads=heads, num_hidden_layers=layers)
    ids, mask, segments = (features(length=length, predictions=1)[name] for name in TOKENS)
    found = ours(ids, mask, segments)
    theirs = in_keras_hub(ours)({"token_ids": ids, "segment_ids": segments, "padding_mask": mask}, training=False)
    assert mask.min() == 0 and segments.max() == 1 and abs(ops.convert_to_numpy(found["pooled_output"])).max() > 0.5
    assert apart(both(found), both(theirs)) < 1e-5


def test_activation_values() -> None:
    x = np.array([-3.0, -1.0, 0.0, 1.0, 3.0], "float32")
    assert apart(activation("gelu_tanh")(x), np.array([-0.0036374, -0.1588080, 0.0, 0.8411920, 2.9963626])) < 1e-6
    assert apart(activation("gelu_erf")(x), np.array([-0.0040497, -0.1586553, 0.0, 0.8413447, 2.9959503])) < 1e-6
    assert apart(activation("relu")(x), np.array([0.0, 0.0, 0.0, 1.0, 3.0])) == 0


def test_the_activation_is_the_configured_one() -> None:
    found = {act: both(make(hidden_act=act)(*INPUTS)) for act in ("gelu_tanh", "gelu_erf", "relu")}
    assert 1e-5 < apart(found["gelu_tanh"], found["gelu_erf"]) < 1e-2
    assert apart(found["gelu_tanh"], found["relu"]) > 1e-2


def test_visible_values() -> None:
    mask = np.array([[1, 1, 0], [1, 1, 1]])
    everywhere = np.arange(3)[None]
    assert ops.convert_to_numpy(visible(mask, everywhere, False)).tolist() == [[[[True, True, False]]], [[[True, True, True]]]]
    assert ops.convert_to_numpy(visible(mask, everywhere, True)).astype(int).tolist() == [
        [[[1, 0, 0], [1, 1, 0], [1, 1, 0]]],
        [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]],
    ]
    assert ops.convert_to_numpy(visible(mask, np.array([[2, 0], [1, 2]]), True)).astype(int).tolist() == [
        [[[1, 1, 0], [1, 0, 0]]],
        [[[1, 1, 0], [1, 1, 1]]],
    ]


def test_selection_values() -> None:
    assert ops.convert_to_numpy(selection(np.array([[2, 0]]), 3, "float32")).tolist() == [[[0, 0, 1], [1, 0, 0]]]


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_last_layer_computes_only_the_selected_positions(attention: str, layers: int) -> None:
    """In any order and with repetitions; the pooler uses the first position."""
    model = make(attention=attention, num_hidden_layers=layers)
    full = ops.convert_to_numpy(model(*INPUTS)["sequence_output"])
    for positions in (POSITIONS, np.array([[9, 0, 4, 4]] * 4, "int64")):
        found = model(*INPUTS, positions=positions)
        expected = np.take_along_axis(full, positions[:, :, None], axis=1)
        assert apart(found["sequence_output"], expected) < 1e-5
        assert apart(found["pooled_output"], model.pooler(expected[:, 0])) < 1e-5
        assert [layer.shape[1] for layer in found["all_layers"]] == [10] * layers + [4]


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("positions", [None, POSITIONS])
def test_fused_and_explicit_attention_agree(attention: str, positions: np.ndarray | None, monkeypatch) -> None:
    """A rate below one in 65,536 uses the dropout path but drops nothing. A row of only padding has no correct output."""
    model = make(attention=attention, hidden_dropout_prob=0.0, attention_probs_dropout_prob=1e-9)
    fused = both(model(*INPUTS, positions=positions))

    def absent(*_, **__) -> None:
        raise AssertionError("fused attention was called")

    monkeypatch.setattr(ops, "dot_product_attention", absent)
    assert apart(both(model(*INPUTS, positions=positions, seed=SEED)), fused) < 1e-5
    with pytest.raises(AssertionError, match="fused attention was called"):
        model(*INPUTS, positions=positions)


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("seed", [None, SEED])
def test_attention_masks(attention: str, seed: np.ndarray | None) -> None:
    """Position 6 of 10 gets another token and another segment; with a seed, explicit attention is used."""
    model = make(attention=attention, hidden_dropout_prob=0.0, attention_probs_dropout_prob=1e-9)
    ids, segments = np.tile(np.arange(10, 20), (2, 1)), np.zeros((2, 10), int)
    ids[1, 6], segments[1, 6] = 40, 1
    for layer in model(ids, np.ones_like(ids), segments, seed=seed)["all_layers"][1:]:
        changed = abs(ops.convert_to_numpy(layer[0] - layer[1])).max(axis=1)
        expected = [0] * 6 + [1] * 4 if attention == "causal" else [1] * 10
        assert ((changed > 1e-3) == expected).all()
        assert (changed[np.equal(expected, 0)] == 0).all()


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("seed", [None, SEED])
def test_padding_is_ignored(attention: str, seed: np.ndarray | None) -> None:
    """The outputs of real positions are bit-identical for any padding."""
    model = make(attention=attention, hidden_dropout_prob=0.0, attention_probs_dropout_prob=1e-9)
    ids, mask, segments = INPUTS
    other = np.where(REAL, ids, 33), mask, np.where(REAL, segments, 1)
    assert (other[0] != ids).any() and not REAL.all()
    one, two = (ops.convert_to_numpy(model(*given, seed=seed)["sequence_output"]) for given in (INPUTS, other))
    assert (one[REAL] == two[REAL]).all() and (one[~REAL] != two[~REAL]).any()


def test_removing_padding_changes_nothing() -> None:
    model, (ids, mask, segments) = make(), INPUTS
    row, size = 1, int(INPUTS[1][1].sum())
    full = model(ids, mask, segments)
    cut = model(ids[[row], :size], mask[[row], :size], segments[[row], :size])
    assert apart(cut["sequence_output"][0], full["sequence_output"][row][:size]) < 1e-5
    assert apart(cut["pooled_output"][0], full["pooled_output"][row]) < 1e-5


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("seed", [None, SEED])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_row_of_only_padding_is_finite(attention: str, seed: np.ndarray | None, dtype: str) -> None:
    """Gradients are finite, too, and the other rows don't change."""
    model = make(dtype, attention=attention, hidden_dropout_prob=0.0, attention_probs_dropout_prob=1e-9)
    ids, mask, segments = (values.copy() for values in INPUTS)
    before = both(model(ids, mask, segments, positions=POSITIONS, seed=seed))
    ids[2], mask[2] = 0, 0
    with tf.GradientTape() as tape:
        after = both(model(ids, mask, segments, positions=POSITIONS, seed=seed))
        loss = sum(ops.sum(ops.square(ops.cast(values, "float32"))) for values in after)
    for one, two in zip(before, after, strict=True):
        one, two = (ops.convert_to_numpy(ops.cast(values, "float32")) for values in (one, two))
        assert np.isfinite(two).all()
        assert (np.delete(one, 2, axis=0) == np.delete(two, 2, axis=0)).all()
    assert all(
        np.isfinite(tf.convert_to_tensor(values).numpy()).all() for values in tape.gradient(loss, model.trainable_weights)
    )


def test_all_layers() -> None:
    model = make()
    found = model(*INPUTS)
    layers = found["all_layers"]
    assert [tuple(layer.shape) for layer in layers] == [(4, 10, 16)] * 3
    assert apart(layers[0], model.embeddings(INPUTS[0], INPUTS[2])) == 0
    assert layers[-1] is found["sequence_output"]
    assert apart(make(num_hidden_layers=1)(*INPUTS)["all_layers"], layers[:2]) == 0


def test_builds_itself_when_called() -> None:
    """The example of the docstring."""
    model = Encoder(preset("tiny", vocab_size=50))
    ids = np.array([[2, 7, 8, 3]])
    assert tuple(model(ids, np.ones_like(ids), np.zeros_like(ids))["pooled_output"].shape) == (1, 128)


def test_dropout_sites_are_unique(monkeypatch) -> None:
    """Every dropout in a step has its own seed and rate: embeddings, then attention and two per layer."""
    drawn = []
    for module in (embeddings, encoder, attention):
        real = module.dropout

        def noted(x, rate, seed, real=real):
            drawn.append((rate, tuple(ops.convert_to_numpy(seed).tolist())))
            return real(x, rate, seed)

        monkeypatch.setattr(module, "dropout", noted)
    make(num_hidden_layers=3, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3)(*INPUTS, seed=SEED)
    assert [rate for rate, _ in drawn] == [0.2] + [0.3, 0.2, 0.2] * 3
    assert len({seed for _, seed in drawn}) == 10
    assert 1 + Block.SITES * PRESETS["large"]["num_hidden_layers"] < SITES


def test_dropout_depends_only_on_the_seed() -> None:
    model = make(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
    plain, one, other = (both(model(*INPUTS, seed=seed)) for seed in (None, SEED, SEED + 1))
    assert min(apart(plain, one), apart(plain, other), apart(one, other)) > 0.1
    assert apart(one, both(model(*INPUTS, seed=SEED, training=True))) == 0
    assert apart(plain, both(model(*INPUTS, training=False))) == 0


def test_training_without_a_seed_draws_one() -> None:
    model, again = (make(hidden_dropout_prob=0.3) for _ in range(2))
    first, second = (both(model(*INPUTS, training=True)) for _ in range(2))
    assert apart(first, second) > 0.1
    assert apart(first, both(again(*INPUTS, training=True))) == 0


@pytest.mark.parametrize("rates", [(0.3, 0.0), (0.0, 0.3)])
def test_each_dropout_rate_separately(rates: tuple[float, float]) -> None:
    model = make(hidden_dropout_prob=rates[0], attention_probs_dropout_prob=rates[1])
    assert apart(both(model(*INPUTS, seed=SEED)), both(model(*INPUTS))) > 0.01


def test_bfloat16() -> None:
    """Variables are float32; outputs are bfloat16 and differ little from float32."""
    model = make("mixed_bfloat16")
    assert {weight.dtype for weight in model.weights} == {"float32"}
    for seed in (None, SEED):
        found, expected = both(model(*INPUTS, seed=seed)), both(make()(*INPUTS, seed=seed))
        assert {keras.backend.standardize_dtype(values.dtype) for values in found} == {"bfloat16"}
        found = [ops.cast(values, "float32") for values in found]
        assert 0 < apart(found, expected) < 0.15
        assert np.corrcoef(ops.convert_to_numpy(found[0]).ravel(), ops.convert_to_numpy(expected[0]).ravel())[0, 1] > 0.9995


@pytest.mark.parametrize("dtype", mostly_slow(("float32", "mixed_bfloat16"), "float32"))
@pytest.mark.parametrize("seed", [None, SEED])
@pytest.mark.parametrize("positions", [None, POSITIONS])
def test_recomputation_changes_nothing(dtype: str, seed: np.ndarray | None, positions: np.ndarray | None) -> None:
    found = []
    for remat in (False, True):
        model = make(dtype, remat=remat)
        with tf.GradientTape() as tape:
            outputs = both(model(*INPUTS, positions=positions, seed=seed))
            loss = sum(ops.sum(ops.square(ops.cast(values, "float32"))) for values in outputs)
        gradients = tape.gradient(loss, model.trainable_weights)
        found.append([ops.cast(tf.convert_to_tensor(values), "float32") for values in [*outputs, *gradients]])
    assert apart(*found) == 0


@pytest.mark.parametrize("dtype", mostly_slow(("float32", "mixed_bfloat16"), "float32"))
def test_recomputation_recomputes(dtype: str) -> None:
    """Counted in a traced step: a softmax and a tanh (of gelu) per layer, twice with recomputation."""
    counts = []
    for remat in (False, True):
        model = make(dtype, remat=remat, num_hidden_layers=3)

        def step(seed, model=model):
            with tf.GradientTape() as tape:
                loss = ops.sum(model(*INPUTS, seed=seed)["pooled_output"])
            return tape.gradient(loss, model.trainable_weights)

        graph = tf.function(step).get_concrete_function(tf.TensorSpec([2], "int32")).graph
        counts.append(Counter(operation.type for operation in graph.get_operations()))
    assert [count["Softmax"] for count in counts] == [3, 6]
    assert [count["Tanh"] for count in counts] == [3 + 1, 6 + 1]  # and one for the pooler


def test_compiled_by_xla() -> None:
    model = make(**NO_DROPOUT)
    compiled = tf.function(lambda *inputs: both(model(*inputs, positions=POSITIONS)), jit_compile=True)
    assert apart(compiled(*map(tf.constant, INPUTS)), both(model(*INPUTS, positions=POSITIONS))) < 1e-5


@pytest.mark.parametrize("positions", [None, POSITIONS])
def test_in_a_graph_with_any_batch_size(positions: np.ndarray | None) -> None:
    """The number of rows may be unknown, as at inference; the length may not."""
    model = make()
    shapes = [tf.TensorSpec([None, 10], "int32")] * 3 + [tf.TensorSpec([None, 4], "int32")] * (positions is not None)
    traced = tf.function(lambda *given: both(model(*given[:3], positions=given[3] if given[3:] else None)))
    given = [*INPUTS] + [positions] * (positions is not None)
    concrete = traced.get_concrete_function(*shapes)
    assert apart(concrete(*map(tf.constant, given)), both(model(*INPUTS, positions=positions))) < 1e-5
