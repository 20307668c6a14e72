"""Initial weights depend only on the seed and the name of the variable; names under which values are saved."""

import numpy as np
import pytest
import tensorflow as tf

from clozemill.model.config import EncoderConfig
from clozemill.model.pretraining_model import OBJECTIVES
from clozemill.model.task_model import Task, TaskModel
from clozemill.trainers.engines import train_state
from clozemill.trainers.engines.optimizer import OPTIMIZERS

SMALL = EncoderConfig(
    vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=16, initializer_range=0.05,
)  # fmt: skip
TABLES = ("word_embeddings", "position_embeddings", "segment_embeddings")


def weights(objective: str = "mlm+nsp", seed: int = 3, config: EncoderConfig = SMALL) -> dict[str, np.ndarray]:
    made = train_state.make_model(config, objective, "float32")
    train_state.initialize(made, seed, config.initializer_range)
    return {path: value.numpy() for path, value in train_state.TrainState(made).weights().items()}


DETECTION = ("generator/", "replaced_token/")


def config_for(objective: str) -> EncoderConfig:
    return EncoderConfig(**SMALL.to_dict() | {"attention": "causal" if objective == "causal" else "bidirectional"})


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_builds_are_equal(objective: str) -> None:
    """Including variables that the objective doesn't train, such as the pooler."""
    one, other = (weights(objective, 3, config_for(objective)) for _ in range(2))
    assert one.keys() == other.keys()
    assert [path for path in one if not (one[path] == other[path]).all()] == []


def test_values_depend_on_seed_and_path() -> None:
    """Not on other variables, and all are different."""
    nsp, mlm = weights(), weights("mlm", 3)
    assert nsp.keys() - mlm.keys() == {"next_sentence/dense/kernel", "next_sentence/dense/bias"}
    assert all((nsp[path] == value).all() for path, value in mlm.items())
    drawn = [path for path, value in nsp.items() if value.ndim > 1]
    for seed in (4, 3 + (1 << 32), (1 << 63) - 1):
        other = weights("mlm+nsp", seed)
        assert not any((nsp[path] == other[path]).any() for path in drawn if nsp[path].size < 100)
        assert max(np.mean(nsp[path] == other[path]) for path in drawn) < 0.01
    firsts = [nsp[path].ravel()[:8].tobytes() for path in drawn]
    assert len(set(firsts)) == len(drawn) == 3 + 2 * 6 + 3


def test_a_deeper_model_starts_with_the_same_layers() -> None:
    tall = weights(config=EncoderConfig(**SMALL.to_dict() | {"num_hidden_layers": 3}))
    assert all((tall[path] == value).all() for path, value in weights().items())


def test_truncated_at_two_deviations() -> None:
    """The truncated normal has a standard deviation of 0.8796; 100,000 values estimate it within 0.002 (4 sigma)."""
    values = train_state.truncated_normal(np.random.Generator(np.random.Philox(1)), (1000, 100), 0.02)
    assert values.shape == (1000, 100) and values.dtype == np.float32
    assert 0.0399 < np.abs(values).max() <= np.float32(0.04)
    assert abs(values.std() / 0.02 - 0.8796) < 0.006
    assert abs(values.mean() / 0.02) < 4 * 0.88 / 1e5**0.5
    inside = np.mean(np.abs(values) < 0.02)  # 0.6827 of all, of which 0.9545 remain
    assert abs(inside - 0.6827 / 0.9545) < 4 * (0.2 / 1e5) ** 0.5


def test_values_in_the_model() -> None:
    """Kernels and tables by `initializer_range`, biases 0, LayerNorm's gamma 1 and beta 0."""
    for path, value in weights().items():
        if path.endswith(("kernel", *TABLES)):
            assert 1.5 < np.abs(value).max() / 0.05 <= 2.0001, path
            assert abs(value.std() / (0.05 * 0.8796) - 1) < 5 / (2 * value.size) ** 0.5, path
        else:
            assert path.endswith(("bias", "beta", "gamma")) and (value == path.endswith("gamma")).all(), path


def test_values_of_an_lstm() -> None:
    """By Glorot and Bengio 2010, both kernels of each of two layers in both directions; they have thousands of values."""
    model = TaskModel(SMALL, Task("tags", ("O", "B"), head="bilstm"))
    model.build()
    train_state.initialize(model, 3, SMALL.initializer_range)
    found = {weight.path: weight.numpy() for weight in model.weights if "/lstm_" in weight.path and len(weight.shape) > 1}
    assert len(found) == 8
    for path, value in found.items():
        assert value.std() == pytest.approx(0.8796 * (2 / sum(value.shape)) ** 0.5, rel=0.1), path


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_moments_start_at_0(optimizer: str) -> None:
    """Those of each variable's rule: one for the six matrices of each of Muon's layers, two for all else."""
    made = train_state.make(SMALL, "mlm+nsp", "float32", 3, optimizer)
    single = 0
    for variable, slots in zip(made.model.trainable_variables, made.slots, strict=True):
        assert tuple(slots) == OPTIMIZERS[optimizer].rule(variable.path, variable.shape).moments
        single += len(slots) == 1
        for moment in slots.values():
            assert moment.shape == variable.shape and moment.dtype == "float32" and not moment.trainable
            assert not moment.numpy().any()
    assert single == (6 * SMALL.num_hidden_layers if optimizer == "muon" else 0)
    assert len(made.moments()) == 2 * len(made.slots) - single


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_names_are_unique_and_complete(objective: str) -> None:
    """Every weight, and moments of trained weights, and nothing else: the contents of a checkpoint."""
    made = train_state.make(config_for(objective), objective, "float32", 3)
    saved, moments, trained = made.weights(), made.moments(), made.model.trainable_variables
    assert len(saved) == len(made.model.weights) and len(moments) == 2 * len(trained)
    assert {id(value) for value in saved.values()} == {id(variable.value) for variable in made.model.weights}
    paths = {variable.path.removeprefix("pretraining/") for variable in trained}
    assert moments.keys() == {f"{slot}/{path}" for slot in ("first", "second") for path in paths}
    assert len({id(value) for value in [*saved.values(), *moments.values()]}) == len(saved) + len(moments)
    assert all(isinstance(value, tf.Variable) for value in [*saved.values(), *moments.values()])
    known = ("encoder/", "masked_lm/", "next", *DETECTION)
    assert all(path.startswith(known) for path in saved)
    pooler = {path for path in saved if "pooler" in path}
    assert any(path.startswith(DETECTION) for path in saved) == (objective == "rtd")
    assert len(pooler) == 2 and (pooler <= paths) == OBJECTIVES[objective].next_sentence


def test_bfloat16_keeps_its_weights_in_float32() -> None:
    made = train_state.make(SMALL, "mlm", "bfloat16", 3)
    assert {value.dtype for value in [*made.weights().values(), *made.moments().values()]} == {tf.float32}
    expected = weights("mlm")
    assert all((value.numpy() == expected[path]).all() for path, value in made.weights().items())


TAGS = Task("tags", ("a", "b", "c"), layers=(-1, -2))


@pytest.mark.parametrize(
    ("index", "name", "heads"),
    [
        ({"objective": "mlm+nsp"}, "PretrainingModel", {"masked_lm", "next_sentence"}),
        ({"objective": "mlm"}, "PretrainingModel", {"masked_lm"}),
        ({"objective": ""}, "EncoderModel", set()),
        ({"task": TAGS.to_dict()}, "TaskModel", {"head"}),
    ],
)
def test_the_model_of_a_checkpoint(index: dict, name: str, heads: set[str]) -> None:
    model = train_state.model_for(index | {"encoder": SMALL.to_dict()})
    paths = [weight.path.split("/", 1)[1] for weight in model.weights]
    assert type(model).__name__ == name and {path.split("/")[0] for path in paths} == heads | {"encoder"}
    assert model.config == SMALL
    values = {path: np.full(weight.shape, 7, np.float32) for path, weight in zip(paths, model.weights, strict=True)}
    assert train_state.assign(model, values) == ()
    assert all((weight.numpy() == 7).all() for weight in model.weights)
    if "task" in index:
        assert model.task == TAGS and values["head/dense/kernel"].shape == (64, 3)


@pytest.mark.parametrize("index", [{}, {"objective": "nonsense"}, {"task": {"kind": "nonsense"}}, {"task": {}}])
def test_checkpoints_that_describe_no_model(index: dict) -> None:
    with pytest.raises(ValueError, match="this version doesn't know its encoder, objective or task"):
        train_state.model_for(index | {"encoder": SMALL.to_dict()})
    with pytest.raises(ValueError, match="this version doesn't know its encoder, objective or task"):
        train_state.model_for({"objective": "mlm", "encoder": SMALL.to_dict() | {"more": 1}})


def test_weights_are_assigned_strictly() -> None:
    model = train_state.model_for({"objective": "mlm", "encoder": SMALL.to_dict()})
    good = {weight.path.split("/", 1)[1]: np.ones(weight.shape, np.float32) for weight in model.weights}
    before = [weight.numpy() for weight in model.weights]
    pooler = {"encoder/pooler/kernel", "encoder/pooler/bias"}
    lacking = {path: value for path, value in good.items() if path not in pooler}
    for bad, sentence in (
        (lacking, "encoder/pooler/(kernel|bias) is missing"),
        (good | {"encoder/spare": np.ones(3)}, "encoder/spare is not a variable of the model"),
        (good | {"masked_lm/output_bias": np.ones(299)}, r"output_bias has the shape \[299\], but the model's is \[300\]"),
    ):
        with pytest.raises(ValueError, match=sentence):
            train_state.assign(model, bad)
    assert all((weight.numpy() == value).all() for weight, value in zip(model.weights, before, strict=True))
    assert set(train_state.assign(model, lacking, may_lack=("encoder/pooler/",))) == pooler
    changed = {weight.path.split("/", 1)[1] for weight in model.weights if (weight.numpy() == 1).all()}
    assert changed >= set(lacking) and "encoder/pooler/kernel" not in changed


def test_an_import_without_a_pooler_loads_identically_every_time() -> None:
    index = {"objective": "mlm", "encoder": SMALL.to_dict()}
    model = train_state.model_for(index)
    train_state.initialize(model, 5, 0.1)
    values = {weight.path.split("/", 1)[1]: weight.numpy() for weight in model.weights}
    kept = {path: value for path, value in values.items() if "pooler" not in path}
    with pytest.raises(ValueError, match="encoder/pooler/kernel is missing"):
        train_state.loaded(index, kept)
    found = [train_state.loaded(index | {"imported": {"heads": ["masked_lm"]}}, kept) for _ in range(2)]
    for weights in zip(*(model.weights for model in found), strict=True):
        path = weights[0].path.split("/", 1)[1]
        assert np.array_equal(weights[0].numpy(), kept[path] if path in kept else weights[1].numpy()), path
    assert found[0].encoder.pooler.kernel.numpy().any()
