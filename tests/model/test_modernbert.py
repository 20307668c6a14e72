"""ModernBERT: compared with plain numpy and with transformers' values, and invariants for any weights."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from clozemill.model import attention, encoder, memory
from clozemill.model import config as encoder_config
from clozemill.model.config import EncoderConfig, preset
from clozemill.model.conversion import modernbert_names
from clozemill.model.encoder import Encoder
from clozemill.model.flops import flops_per_row
from clozemill.model.losses import sums
from clozemill.model.pretraining_model import OBJECTIVES, PretrainingModel, prepare
from clozemill.model.task_model import Task, TaskModel
from clozemill.trainers.engines import train_state
from tests.model import modernbert_reference
from tests.model.small import MODERN, TOKENS, apart, features, mean_loss, packed, scatter

TINY = replace(MODERN, vocab_size=7, hidden_size=8, num_attention_heads=2, intermediate_size=6, num_hidden_layers=3)
LENGTH = 21  # not a multiple of a chunk, and enough of them
EXAMPLES = features(rows=6, length=LENGTH, predictions=4)
INPUTS = [EXAMPLES[name] for name in TOKENS]
REAL = EXAMPLES["input_mask"] == 1


def make(dtype: str = "float32", **changes) -> Encoder:
    return scatter(Encoder(replace(MODERN, **changes), dtype=dtype))


def hidden(model: Encoder, *args, **options) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(model(*args, **options)["sequence_output"], "float32"))


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {weight.path.split("/", 1)[1]: ops.convert_to_numpy(weight) for weight in model.weights}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("modern-tiny", 4_284_288), ("modern-mini", 11_027_200), ("modern-small", 28_083_712), ("modern-medium", 40_539_648),
        ("modern-base", 133_772_544), ("modern-large", 374_459_392),
    ],
)  # fmt: skip
def test_parameter_counts(name: str, count: int) -> None:
    """transformers' counts for ModernBertModel with 30,522 words: of the tensors in its files, and of our variables."""
    config = preset(name)
    assert sum(int(np.prod(tensor.shape)) for tensor in modernbert_names.table(config, ())) == count
    if config.num_hidden_layers <= 4:
        model = Encoder(config)
        model.build()
        assert model.count_params() - sum(np.prod(weight.shape) for weight in model.pooler.weights) == count


def test_names_and_shapes() -> None:
    paths = {weight.path: tuple(weight.shape) for weight in make(num_hidden_layers=2).weights}
    layer = {
        **{f"attention/{name}/kernel": (16, 16) for name in ("query", "key", "value", "output_dense")},
        **{"intermediate/kernel": (16, 24), "gate/kernel": (16, 24), "output/kernel": (24, 16)},
        "output_layer_norm/gamma": (16,),
    }
    assert paths == {
        "encoder/embeddings/word_embeddings": (50, 16),
        "encoder/embeddings/layer_norm/gamma": (16,),
        **{f"encoder/layer_{index}/{path}": shape for index in (0, 1) for path, shape in layer.items()},
        "encoder/layer_1/attention_layer_norm/gamma": (16,),
        "encoder/final_layer_norm/gamma": (16,),
        **{"encoder/pooler/transform/kernel": (16, 16), "encoder/pooler/layer_norm/gamma": (16,)},
    }


@pytest.mark.parametrize("chunked", [True, False])
def test_matches_plain_numpy(chunked: bool, monkeypatch) -> None:
    """Hidden states and logits, with local attention computed in chunks and with all keys."""
    monkeypatch.setattr(encoder_config, "_FEWEST_CHUNKS", 4 if chunked else 1000)
    model = scatter(PretrainingModel(MODERN, "mlm"))
    for row in (0, 1):
        ids = EXAMPLES["input_ids"][row][REAL[row]]
        found = hidden(model.encoder, *(values[[row]] for values in INPUTS))[0][: len(ids)]
        expected = modernbert_reference.encoder(MODERN, weights(model), ids)
        assert len(ids) > 8 and apart(found, expected) < 1e-5
        logits = model.masked_lm(found[None], model.encoder.embeddings.word_embeddings)[0]
        assert apart(logits, modernbert_reference.masked_lm(MODERN, weights(model), expected)) < 2e-5


def test_matches_transformers() -> None:
    """Values of ModernBertForMaskedLM (transformers 5.24, torch 2.14, float32) with weights and tokens of the same formula."""
    model = with_formula(PretrainingModel(TINY, "mlm"))
    ids = np.array([[3, 1, 4, 1, 5, 2, 6, 5, 3, 5]])
    found = model.encoder(ids, np.ones_like(ids), np.zeros_like(ids))["sequence_output"]
    logits = model.masked_lm(found, model.encoder.embeddings.word_embeddings)
    assert apart(found[0, 4], np.array(HIDDEN)) < 1e-5
    assert apart(logits[0, 9], np.array(LOGITS)) < 1e-5


@pytest.mark.parametrize(
    ("kind", "places", "logits"),
    [
        ("classify", [(0,), (1,)], [[0.381898, -0.234459, -0.740546], [0.172871, 0.121448, 0.012905]]),
        ("tags", [(0, 9), (1, 3)], [[0.268738, -0.125677, -0.460984], [-0.406257, 0.004895, 0.413746]]),
    ],
)
def test_heads_match_transformers(kind: str, places: list[tuple[int, ...]], logits: list[list[float]]) -> None:
    """ModernBertForSequenceClassification and ...ForTokenClassification (same versions); the second row is padded."""
    model = with_formula(TaskModel(TINY, Task(kind, ("a", "b", "c"))))
    ids = np.array([[3, 1, 4, 1, 5, 2, 6, 5, 3, 5], [2, 6, 5, 3, 5, 0, 0, 0, 0, 0]])
    mask = np.array([[1] * 10, [1] * 5 + [0] * 5])
    found = ops.convert_to_numpy(model({"input_ids": ids, "input_mask": mask, "segment_ids": 0 * ids})["logits"])
    assert apart(np.array([found[place] for place in places]), np.array(logits)) < 1e-5


def with_formula(model: keras.Model) -> keras.Model:
    """Build a model, with the values of `formula` as its weights."""
    model.build()
    for weight in model.weights:
        name = weight.path.split("/", 1)[1]
        weight.assign(formula(name, tuple(weight.shape)))
    return model


def formula(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return values that are easy to make in any framework: a sine of the index, starting at the length of the name."""
    values = np.sin(len(name) + 0.7 * np.arange(np.prod(shape))).reshape(shape)
    return (1 + 0.3 * values if name.endswith("gamma") else 0.6 * values).astype(np.float32)


HIDDEN = [-0.913867, -0.294993, 0.635443, 1.510837, 1.594003, 0.650438, -0.606372, -1.295261]
LOGITS = [-0.078851, -2.094234, -3.173277, -2.82282, -1.193769, 0.983632, 2.727123]


@pytest.mark.parametrize("chunked", [True, False])
def test_how_far_a_local_layer_sees(chunked: bool, monkeypatch) -> None:
    """Exactly half of local_attention to each side."""
    monkeypatch.setattr(encoder_config, "_FEWEST_CHUNKS", 4 if chunked else 1000)
    block, config = make(num_hidden_layers=2).blocks[1], replace(MODERN, num_hidden_layers=2)
    inputs = np.random.default_rng(0).normal(size=(1, LENGTH, 16)).astype("float32")
    other = inputs.copy()
    other[0, 9] *= -1
    places = np.arange(LENGTH, dtype="int32")[None]
    view = attention.make_view(config, 1, (np.ones((1, LENGTH), "int32"), None), places)
    assert bool(view.chunk) == chunked
    changed = abs(ops.convert_to_numpy(block(inputs, view=view) - block(other, view=view)))[0].max(axis=1)
    assert np.flatnonzero(changed > 1e-4).tolist() == [7, 8, 9, 10, 11]
    assert (changed[[*range(7), *range(12, LENGTH)]] == 0).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [9, 16, 21])
def test_chunks_and_all_keys_agree(length: int, causal: bool, monkeypatch) -> None:
    """Also for rows of several examples, and for gradients."""
    rows = packed(
        features(rows=6, length=8, predictions=3), [[0], [2], [1]] if length < 16 else [[0, 2], [3, 1], []], length, 2, 6
    )
    model = make(attention="causal" if causal else "bidirectional")
    inputs = [rows[name] for name in TOKENS]
    packing = {"example_ids": rows["example_ids"], "cls_positions": rows["cls_positions"]}
    for options in ({}, packing):
        found = []
        for fewest in (4, 1000):
            monkeypatch.setattr(encoder_config, "_FEWEST_CHUNKS", fewest)
            with tf.GradientTape() as tape:
                states = model(*inputs, **options)["sequence_output"]
                loss = tf.reduce_sum(states * tf.cast(inputs[1], tf.float32)[:, :, None] * tf.sin(tf.range(16.0)))
            gradients = tape.gradient(loss, [block.attention.key.kernel.value for block in model.blocks])
            found.append((ops.convert_to_numpy(states)[inputs[1] > 0], [value.numpy() for value in gradients]))
        assert apart(found[0][0], found[1][0]) < 1e-5 and apart(found[0][1], found[1][1]) < 1e-4


@pytest.mark.parametrize("changes", [{}, {"remat": True}, {"attention_probs_dropout_prob": 0.5}])
def test_a_graph_for_any_length_chooses_by_the_length(changes: dict, monkeypatch) -> None:
    """As SavedModels and inference on CPUs have it: the same outputs and gradients as with a known length, in chunks or not."""
    monkeypatch.setattr(encoder_config, "_FEWEST_CHUNKS", 5)  # of two positions
    model = make(num_hidden_layers=2, **changes)
    seed = np.array([1, 2], "int32") if "attention_probs_dropout_prob" in changes else None

    def computed(ids, mask, segments) -> tuple:
        with tf.GradientTape() as tape:
            states = model(ids, mask, segments, seed=seed, training=seed is not None)["sequence_output"]
            loss = tf.reduce_sum(states * tf.cast(mask, tf.float32)[:, :, None] * tf.sin(tf.range(16.0)))
        return states, tape.gradient(loss, model.blocks[1].attention.key.kernel.value)

    loose = tf.function(computed, [tf.TensorSpec([None, None], tf.int32)] * 3, autograph=False)
    for length in (9, 21):
        inputs = [tf.constant(each[:, :length], tf.int32) for each in INPUTS]
        known = tf.function(computed, autograph=False)(*inputs)
        states, gradient = (apart(one.numpy(), two.numpy()) for one, two in zip(loose(*inputs), known, strict=True))
        assert states < 1e-5 and gradient < 1e-4
    graph = loose.get_concrete_function().graph.as_graph_def()
    assert [node for node in graph.node if node.op in ("If", "StatelessIf")]


def test_padding_is_ignored() -> None:
    model, (ids, mask, segments) = make(), INPUTS
    one, two = hidden(model, *INPUTS), hidden(model, np.where(REAL, ids, 33), mask, segments)
    assert (one[REAL] == two[REAL]).all() and (one[~REAL] != two[~REAL]).any() and np.isfinite(one).all()


def test_segments_are_an_option() -> None:
    ids, mask, segments = INPUTS
    for size, matters in ((0, False), (2, True)):
        model = make(type_vocab_size=size)
        assert (apart(hidden(model, ids, mask, segments), hidden(model, ids, mask, 0 * segments)) > 1e-3) == matters


@pytest.mark.parametrize("layers", [1, 4, 5])
def test_the_last_layer_computes_only_the_selected_positions(layers: int) -> None:
    """Whether it is a local or a global one."""
    model = make(num_hidden_layers=layers)
    full = hidden(model, *INPUTS)
    positions = np.array([[9, 0, 4, 4]] * 6)
    found = model(*INPUTS, positions=positions)
    expected = np.take_along_axis(full, positions[:, :, None], axis=1)
    assert apart(found["sequence_output"], expected) < 1e-5 and len(found["all_layers"]) == layers + 1
    assert apart(found["pooled_output"], model.pooler(expected[:, 0])) < 1e-5


@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp", "causal"])
def test_packed_examples_are_independent(objective: str, monkeypatch) -> None:
    """Losses are those of the unpacked examples, and it makes no difference whether positions restart."""
    examples = features(rows=4, length=10, predictions=3)
    rows = packed(examples, [[3, 0], [1, 2]], 22, 2, 6)
    config = replace(MODERN, attention="causal" if objective == "causal" else "bidirectional")
    model = scatter(PretrainingModel(config, objective))

    def losses(batch: dict) -> dict:
        inputs, targets = prepare(batch, OBJECTIVES[objective])
        return {name: float(value) for name, value in sums(model(inputs), targets).items()}

    restarted = losses(rows)
    assert restarted == pytest.approx(losses(examples), rel=1e-6)
    monkeypatch.setattr(encoder, "restarted_positions", lambda ids, _: ops.arange(ids.shape[1], dtype="int32")[None])
    assert losses(rows) == pytest.approx(restarted, rel=1e-5)


def test_precision_and_recomputation() -> None:
    full = hidden(make(), *INPUTS)
    assert (hidden(make(remat=True), *INPUTS) == full).all()
    half = make("mixed_bfloat16")
    assert 1e-4 < apart(hidden(half, *INPUTS)[REAL], full[REAL]) < 0.2
    assert {str(weight.dtype) for weight in half.weights if "seed" not in weight.path} == {"float32"}


def test_all_layers() -> None:
    found = make()(*INPUTS)
    assert len(found["all_layers"]) == 6 and found["all_layers"][-1] is found["sequence_output"]


def test_gradients_reach_every_weight() -> None:
    model = scatter(PretrainingModel(MODERN, "mlm+nsp"))
    inputs, targets = prepare(EXAMPLES, OBJECTIVES["mlm+nsp"])
    with tf.GradientTape() as tape:
        loss = mean_loss(model(inputs), targets)
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
    assert [weight.path for weight, value in zip(model.trainable_variables, gradients, strict=True) if value is None] == []


@pytest.mark.parametrize("kind", ["classify", "tags", "spans"])
def test_heads_of_tasks_see_the_transformed_outputs(kind: str) -> None:
    """As in ModernBertFor...: dense, gelu and norm at [CLS] or at every position, then the classifier."""
    model = scatter(TaskModel(MODERN, Task(kind, () if kind == "spans" else ("a", "b"))))
    given = dict(zip(TOKENS, INPUTS, strict=True))
    states = model.encoder.pooler(model.encoder(*INPUTS)["sequence_output"])
    expected = model.head.dense(states[:, 0] if kind == "classify" else states)
    assert apart(model(given)["logits"], expected) < 1e-6 and model.encoder.pooler.trainable


def test_initial_deviations() -> None:
    """The projections back to the residual stream, and the transforms, are smaller by the root of twice the layers."""
    made = train_state.make(preset("modern-tiny", vocab_size=2000, initializer_range=0.1), "mlm", "float32", 3)
    spread = {path: float(np.std(value)) for path, value in made.weights().items() if value.shape.rank == 2}
    back = {path for path in spread if path.endswith(("output_dense/kernel", "/output/kernel", "transform/kernel"))}
    assert len(back) == 6 and len(spread) == 17
    for path, found in spread.items():  # the truncation at two deviations leaves 0.88 of one
        assert found == pytest.approx(0.88 * 0.1 * (0.5 if path in back else 1.0), rel=0.05), path


def test_the_number_of_weights() -> None:
    for changes in ({}, {"type_vocab_size": 2}):
        config = replace(MODERN, **changes)
        model = PretrainingModel(config, "mlm+nsp")
        model.build()
        assert memory.parameters(config) == model.count_params() - 2 * 16 - 2


def test_flops(monkeypatch) -> None:
    """Three matrices in the inner layer; a local layer multiplies each query with the keys of three chunks."""
    monkeypatch.setattr(encoder_config, "_FEWEST_CHUNKS", 4)
    config = replace(MODERN, num_hidden_layers=2, vocab_size=10)
    for length, keys in ((6, 6), (8, 6), (20, 6)):  # chunks of 2
        first = 4 * length * 256 + 2 * length * length * 16 + 3 * length * 16 * 24
        last = 2 * length * 256 + 2 * 2 * 256 + 2 * 2 * length * 16 + 3 * 2 * 16 * 24
        assert flops_per_row(config, length, 1) == 6 * (first + last + 256 + 16 * (16 + 10))
        whole = 4 * length * 256 + 2 * length * keys * 16 + 3 * length * 16 * 24
        assert flops_per_row(config, length, 1, causal=True) == 6 * (first + whole + length * 16 * (16 + 10))
    long = replace(preset("modern-base"), vocab_size=1000)
    assert memory.activation_bytes(long, 4096, 100) < 0.5 * memory.activation_bytes(
        replace(long, global_attn_every_n_layers=1), 4096, 100
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architecture": "gpt"}, "unknown architecture 'gpt'; choose from bert, modernbert"),
        ({"local_attention": 1}, "local_attention is 1, but must be an integer of at least 2"),
        ({"global_rope_theta": float("inf")}, "must be finite and at least 1"),
        ({"num_attention_heads": 16}, "even size, not 1"),
        ({"global_attn_every_n_layers": 0}, "must be integers of at least 1"),
        ({"type_vocab_size": -1}, "must be integers of at least 1"),
        ({"architecture": "bert"}, "must be integers of at least 1"),
    ],
)
def test_sizes_that_cannot_be(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(MODERN, **changes)


def test_json_keeps_the_architecture() -> None:
    assert EncoderConfig(**MODERN.to_dict()) == MODERN and "architecture" not in preset("tiny").to_dict()
