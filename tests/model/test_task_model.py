"""Fine-tuned models: inputs and outputs of heads and their losses, compared with numpy; on JAX as on TensorFlow."""

import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.losses import SUMS
from clozemill.model.task_heads import TASK_HEADS
from clozemill.model.task_model import Task, TaskModel, sums
from tests.model.small import MODERN, NO_DROPOUT, SMALL, TOKENS, apart, features, run, scatter
from tests.slow import mostly_slow

LABELS = ("O", "B", "I")
CASES = {
    "classify": Task("classify", LABELS),
    "multilabel": Task("multilabel", LABELS, threshold=0.25),
    "regress": Task("regress"),
    "tags": Task("tags", LABELS),
    "spans": Task("spans", no_answer=True, doc_stride=5),
    "embed": Task("embed", head="mean"),
    "classify, layers": Task("classify", LABELS, layers=(-1, -3)),
    "tags, layers": Task("tags", LABELS, layers=(-2, 0, -1)),
    "tags, bilstm": Task("tags", LABELS, head="bilstm", layers=(-1, -2), frozen=True),
    "classify, frozen": Task("classify", LABELS, frozen=True),
    "embed, cls": Task("embed", head="cls", temperature=0.5),
    "embed, crop": Task("embed", head="mean", positives="crop"),
}
FEW_CASES = mostly_slow(CASES, "classify", "classify, frozen", "tags", "tags, layers")  # bilstm takes 7 s
BACKENDS = ("regress", "spans", "embed, crop", "classify, layers", "tags, bilstm")  # tested on several backends
SHAPES = {
    "classify": (4, 3),
    "multilabel": (4, 3),
    "regress": (4, 1),
    "tags": (4, 10, 3),
    "spans": (4, 10, 2),
    "embed": (4, 16),
}
RECORD = "import sys; from tests.model.test_task_model import record; record(sys.argv[1])"
SEED = np.array([3, 5], "int32")
BATCH = {name: features()[name] for name in TOKENS}


def made(case: str, dtype: str = "float32", **changes: float) -> TaskModel:
    return scatter(TaskModel(replace(SMALL, **NO_DROPOUT | changes), CASES[case], dtype=dtype))


def targets(kind: str) -> dict[str, np.ndarray]:
    """Return random answers, two of them with weight 0."""
    stream = np.random.default_rng(2)
    rows = SHAPES[kind][:-1] if kind == "tags" else (4,)
    weights = np.ones(rows, "float32")
    weights[1] = 0
    found = {"weights": weights}
    if kind == "spans":
        lengths = BATCH["input_mask"].sum(axis=1)
        edges = {name: (stream.integers(0, 10, 4) % lengths).astype("int32") for name in ("starts", "ends")}
        return found | edges | {"input_mask": BATCH["input_mask"]}
    if kind == "multilabel":
        found["weights"] = np.repeat(weights[:, None, None], 3, axis=2) * np.array([1, 2, 0.5], "float32")
        return found | {"labels": stream.integers(0, 2, (4, 1, 3)).astype("float32")}
    if kind == "regress":
        return found | {"labels": stream.normal(size=4).astype("float32")}
    return found | {
        "labels": np.array([0, 3, 2, 2], "int32") if kind == "embed" else stream.integers(0, 3, rows).astype("int32")
    }


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype("float64") - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def weights(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    return {variable.path.split("head/", 1)[1]: ops.convert_to_numpy(variable) for variable in layer.weights}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", mostly_slow(("float32", "mixed_bfloat16"), "mixed_bfloat16"))
def test_logits_are_float32_with_the_shape_of_the_task_type(case: str, dtype: str) -> None:
    logits = made(case, dtype)(BATCH)["logits"]
    assert tuple(logits.shape) == SHAPES[CASES[case].kind]
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"


@pytest.mark.parametrize("case", [case for case, task in CASES.items() if task.head == "linear"])
def test_a_linear_head_is_a_dense_layer_over_its_inputs(case: str) -> None:
    """The inputs are the pooled output, or [CLS] or every position in the layers, concatenated in the given order."""
    model, task = made(case), CASES[case]
    encoded = model.encoder(*BATCH.values())
    if task.layers == (-1,) and not TASK_HEADS[task.kind].per_token:
        hidden = ops.convert_to_numpy(encoded["pooled_output"])
    else:
        hidden = np.concatenate([ops.convert_to_numpy(encoded["all_layers"][layer]) for layer in task.layers], axis=-1)
        hidden = hidden if TASK_HEADS[task.kind].per_token else hidden[:, 0]
    found = weights(model.head)
    assert {name: value.shape for name, value in found.items()} == {
        "dense/kernel": (hidden.shape[-1], task.outputs),
        "dense/bias": (task.outputs,),
    }
    expected = hidden @ found["dense/kernel"] + found["dense/bias"]
    assert np.abs(expected).max() > 0.5 and apart(model(BATCH)["logits"], expected) < 1e-5


@pytest.mark.parametrize("case", ["embed", "embed, cls", "embed, crop"])
def test_a_vector_is_the_normalised_mean_or_the_output_at_cls(case: str) -> None:
    model = made(case)
    hidden = ops.convert_to_numpy(model.encoder(*BATCH.values())["sequence_output"]).astype("float64")
    for row, length in enumerate(BATCH["input_mask"].sum(axis=1)):
        vector = hidden[row, 0] if case == "embed, cls" else hidden[row, :length].mean(axis=0)
        assert apart(model(BATCH)["logits"][row], vector / np.linalg.norm(vector)) < 1e-6


@pytest.mark.parametrize(
    ("case", "encoder", "pooler"),
    [
        ("classify", True, True),
        ("multilabel", True, True),
        ("regress", True, True),
        ("tags", True, False),
        ("spans", True, False),
        ("classify, layers", True, False),
        ("classify, frozen", False, False),
        ("tags, bilstm", False, False),
        ("embed", True, False),
    ],
)
def test_trainable_variables(case: str, encoder: bool, pooler: bool) -> None:
    """An unused pooler isn't trainable, and neither is a frozen encoder."""
    model = made(case)
    trained = {variable.path.split("/", 1)[1] for variable in model.trainable_variables}
    every = {variable.path.split("/", 1)[1] for variable in model.weights}
    poolers = {path for path in every if path.startswith("encoder/pooler/")}
    heads = {path for path in every if path.startswith("head/")}
    assert len(poolers) == 2 and len(heads) == {"tags, bilstm": 14, "embed": 0}.get(case, 2)
    assert trained == heads | (every - heads - poolers if encoder else set()) | (poolers if pooler else set())


def test_bilstm_ignores_padding() -> None:
    """The content of padding doesn't matter, and a text gets the same outputs with and without padding."""
    model, length = made("tags, bilstm"), int(BATCH["input_mask"][1].sum())
    assert 3 < length < 10
    logits = ops.convert_to_numpy(model(BATCH)["logits"])
    hidden = np.random.default_rng(0).normal(size=(4, 10, 32)).astype("float32")
    other = np.where(BATCH["input_mask"][:, :, None] == 1, hidden, 7 - hidden)
    one, two = (ops.convert_to_numpy(model.head(values, BATCH["input_mask"])) for values in (hidden, other))
    kept = BATCH["input_mask"] == 1
    assert apart(one[kept], two[kept]) == 0 and np.abs(one[kept]).max() > 0.1
    alone = model({name: value[1:2, :length] for name, value in BATCH.items()})["logits"]
    assert apart(alone, logits[1:2, :length]) < 1e-5
    changed = {**BATCH, "input_ids": np.where(kept, BATCH["input_ids"], 9)}
    assert apart(ops.convert_to_numpy(model(changed)["logits"])[kept], logits[kept]) < 1e-6


def test_bilstm_has_two_bidirectional_layers() -> None:
    model = made("tags, bilstm")
    found = {name: value.shape for name, value in weights(model.head).items()}
    assert found == {
        **{
            f"lstm_{layer}/{way}_lstm/lstm_cell/{name}": shape
            for layer in (0, 1)
            for way in ("forward", "backward")
            for name, shape in {"kernel": (32, 64), "recurrent_kernel": (16, 64), "bias": (64,)}.items()
        },
        "dense/kernel": (32, 3),
        "dense/bias": (3,),
    }
    hidden, mask = np.random.default_rng(0).normal(size=(1, 5, 32)).astype("float32"), np.ones((1, 5), "int32")
    logits = ops.convert_to_numpy(model.head(hidden, mask))
    for place, answer in ((0, 4), (4, 0)):
        other = hidden.copy()
        other[:, place] += 1
        assert np.abs(ops.convert_to_numpy(model.head(other, mask)) - logits)[0, answer].max() > 1e-4


@pytest.mark.parametrize("case", FEW_CASES)
def test_dropout_depends_on_the_seed(case: str) -> None:
    """Different for each seed; none without a seed; only in the head if the encoder is frozen."""
    model = made(case, hidden_dropout_prob=0.5)
    plain = model(BATCH)["logits"]
    one, again = (model(BATCH, seed=SEED)["logits"] for _ in range(2))
    other = model(BATCH, seed=SEED + 1)["logits"]
    assert apart(one, again) == 0 and apart(one, other) > 1e-3 and apart(one, plain) > 1e-3
    model.head.rate = 0.0
    assert (apart(model(BATCH, seed=SEED)["logits"], plain) == 0) == CASES[case].frozen


@pytest.mark.parametrize("config", [SMALL, MODERN], ids=lambda config: config.architecture)
def test_both_copies_of_a_text_have_dropout_of_their_own(config: EncoderConfig) -> None:
    model = scatter(TaskModel(replace(config, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1), CASES["embed"]))
    inputs, given = model.prepare(BATCH | targets("embed"))
    for seed in (None, SEED):
        first, second = np.split(ops.convert_to_numpy(model(inputs, seed=seed)["logits"]), 2)
        assert (np.abs(first - second).max(axis=1) > 1e-3).tolist() == [seed is not None] * 4
        assert np.isfinite(float(model.sums_of(model(inputs, seed=seed), given)["task_loss"]))


@pytest.mark.parametrize("kind", TASK_HEADS)
def test_sums_values(kind: str) -> None:
    logits, given = np.random.default_rng(1).normal(size=SHAPES[kind]).astype("float32"), targets(kind)
    weight = given["weights"]
    if kind == "embed":
        logits = np.concatenate([logits, logits[::-1]]) / 6  # two vectors per text, about as long as 1
        similarities = logits[:4].astype("float64") @ logits[4:].T / 0.05
        similarities[:, 1] = np.where(np.arange(4) == 1, similarities[:, 1], -np.inf)  # of weight 0
        similarities[2, 3] = similarities[3, 2] = -np.inf  # the same text
    if kind == "multilabel":
        flags, factors, probs = given["labels"][:, 0], weight[:, 0], 1 / (1 + np.exp(-logits.astype("float64")))
        loss = -((flags * np.log(probs) + (1 - flags) * np.log(1 - probs)) * factors).sum()
        hits = pytest.approx((((logits > 0) == (flags > 0)) * factors).sum())
    elif kind == "regress":
        loss, hits = ((logits[:, 0] - given["labels"]) ** 2 * weight).sum(), -3
    elif kind == "spans":
        logits[given["input_mask"] == 0] = -np.inf
        parts = [(logits[:, :, end], given[name]) for end, name in enumerate(("starts", "ends"))]
        loss = sum(-(log_softmax(one)[range(4), place] * weight).sum() for one, place in parts) / 2
        hits = sum(((one.argmax(axis=1) == place) * weight).sum() for one, place in parts) / 2
    elif kind == "embed":
        loss = -(np.diag(log_softmax(similarities)) * weight).sum()
        hits = ((similarities.argmax(axis=1) == range(4)) * weight).sum()
    else:
        chosen = np.take_along_axis(log_softmax(logits), given["labels"][..., None], -1)[..., 0]
        loss, hits = -(chosen * weight).sum(), ((logits.argmax(axis=-1) == given["labels"]) * weight).sum()
    found = {name: float(value) for name, value in sums(logits, given, CASES[kind]).items()}
    assert tuple(found) == SUMS
    assert found["task_loss"] == pytest.approx(loss, rel=1e-5) and found["task_weight"] == weight.sum() > 0
    assert found["task_correct"] == hits and all(value == 0 for name, value in found.items() if not name.startswith("task"))


@pytest.mark.parametrize("kind", TASK_HEADS)
def test_the_trainer_interface(kind: str) -> None:
    """Inputs and targets are separated, and the divisors of a batch match its sums. For embed, inputs have all rows twice."""
    model, batch = made(kind), BATCH | targets(kind)
    inputs, others = model.prepare(batch)
    assert set(inputs) == set(TOKENS) and set(others) == set(targets(kind))
    assert all(apart(np.concatenate([BATCH[name]] * (1 + (kind == "embed"))), inputs[name]) == 0 for name in TOKENS)
    found = model.sums_of(model(inputs), others)
    assert {name: float(value) for name, value in model.weights_of(others).items()} == {"task": float(found["task_weight"])}
    assert np.isfinite(float(found["task_loss"])) and float(found["task_loss"]) > 0


@pytest.mark.parametrize("case", FEW_CASES)
def test_padding_changes_neither_losses_nor_gradients(case: str) -> None:
    """For any amount of padding, because the trainer pads each batch to a different length."""
    model, batch = made(case, max_position_embeddings=24), BATCH | targets(CASES[case].kind)
    longest = int(BATCH["input_mask"].sum(axis=1).max())
    pads = {"input_ids": SMALL.vocab_size - 1, "labels": 0}  # any token works
    found = []
    for length in (longest, longest + 1, longest + 14):
        padded = {}
        for name, value in batch.items():
            wide = value.shape[1:2] == (10,)
            padded[name] = value if not wide else np.full((4, length), pads.get(name, 0), value.dtype)
            if wide:
                padded[name][:, : min(length, 10)] = value[:, :length]
        inputs, given = model.prepare({name: tf.constant(value) for name, value in padded.items()})
        with tf.GradientTape() as tape:
            values = model.sums_of(model(inputs), given)
        gradients = tape.gradient(values["task_loss"], [one.value for one in model.trainable_variables])
        found.append([*map(float, values.values()), *(tf.convert_to_tensor(one).numpy() for one in gradients)])
    for other in found[1:]:
        assert all(np.allclose(a, b, rtol=1e-4, atol=2e-5) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("task", CASES.values(), ids=list(CASES))
def test_tasks_round_trip_through_json(task: Task) -> None:
    assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task
    assert task.outputs == (0 if task.kind == "embed" else SHAPES[task.kind][-1])


def test_a_task_of_an_older_checkpoint() -> None:
    """Missing fields have the old defaults."""
    assert Task.from_dict({"kind": "spans"}) == Task("spans", (), "linear", (-1,), False, 128, False, 128)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kind": "multilabel"}, "a task of type multilabel needs one label or more, not 0"),
        ({"kind": "classify", "labels": ("one",)}, "a task of type classify needs two labels or more, not 1"),
        ({"kind": "tags"}, "a task of type tags needs two labels or more, not 0"),
        ({"kind": "tags", "labels": ("O", "B", "O")}, "the labels of a task must be distinct, but O occurs twice"),
        (
            {"kind": "classify", "labels": LABELS, "head": "bilstm"},
            "the head bilstm answers per token, but the task type classify once per text",
        ),
        ({"kind": "embed"}, "the head linear doesn't suit the task type embed"),
        ({"kind": "regress", "head": "mean"}, "the head mean doesn't suit the task type regress"),
    ],
)
def test_invalid_tasks_are_rejected(options: dict, told: str) -> None:
    with pytest.raises(ValueError) as error:
        Task(**options)
    assert str(error.value) == told


def record(path: str) -> None:
    """Write the outputs and sums of this process's backend to an .npz file."""
    found = {}
    for case in BACKENDS:
        task = CASES[case]
        model = made(case)
        batch = {name: ops.convert_to_tensor(value) for name, value in (BATCH | targets(task.kind)).items()}
        inputs, given = model.prepare(batch)
        logits = model(inputs, seed=SEED if task.positives == "crop" else None)["logits"]  # without dropout
        found[case] = ops.convert_to_numpy(logits)
        for name, value in sums(logits, given, task).items():
            found[f"{case}, {name}"] = ops.convert_to_numpy(value)
    np.savez(path, backend=keras.backend.backend(), **found)


@pytest.mark.slow
def test_matches_jax(tmp_path: Path) -> None:
    found = {}
    for backend in ("tensorflow", "jax"):
        run(backend, RECORD, str(tmp_path / f"{backend}.npz"))
        found[backend] = dict(np.load(tmp_path / f"{backend}.npz"))
        assert str(found[backend].pop("backend")) == backend
    assert len(found["jax"]) == len(BACKENDS) * (1 + len(SUMS))
    assert apart(found["jax"], found["tensorflow"]) < 1e-5
