"""The same weights and examples give the same outputs and gradients on every backend; dropout works."""

from collections.abc import Callable
from importlib.util import find_spec

import keras
import numpy as np
import pytest
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.dropout import dropout, fold
from clozemill.model.embeddings import Embeddings
from clozemill.model.pretraining_model import OBJECTIVES, PretrainingModel, prepare
from tests.model.small import MODERN, NO_DROPOUT, SMALL, apart, features, mean_loss, packed, run, scatter
from tests.slow import mostly_slow

SEED = np.array([3, 5], "int32")
MODERN_CHANGES = MODERN.to_dict() | {"num_hidden_layers": 2, "local_attention": 2}  # packed: in chunks of one position
CASES = {
    "mlm+nsp": ("mlm+nsp", NO_DROPOUT, None),
    "causal": ("causal", NO_DROPOUT | {"attention": "causal", "hidden_act": "gelu_erf"}, None),
    "remat": ("mlm+nsp", NO_DROPOUT | {"remat": True}, None),
    "trained": ("mlm+nsp", {"remat": True}, SEED),
    "packed": ("mlm+nsp", NO_DROPOUT | {"num_hidden_layers": 1}, None),
    "modern": ("mlm", MODERN_CHANGES, None),
    "packed modern": ("mlm+nsp", MODERN_CHANGES, None),
    "packed causal": ("causal", NO_DROPOUT | {"num_hidden_layers": 1, "attention": "causal"}, None),
}
TENSORS = {"mlm+nsp": 2 + 46, "causal": 1 + 42, "remat": 2 + 46, "packed": 2 + 30, "packed causal": 1 + 26,
           "modern": 1 + 23, "packed modern": 2 + 27}  # compared  # fmt: skip
FEW = ("mlm+nsp", "trained", "packed causal", "packed modern")
PACKED = {"rows": [[2, 0], [3], []], "length": 21, "most": 3, "predictions": 7}  # the last one is a filler row
RECORD = "import sys; from tests.model.test_backends import record; record(*sys.argv[1:])"


def compute(
    model: keras.Model, inputs: dict, targets: dict, seed: np.ndarray | None, loss_of: Callable = mean_loss
) -> tuple[dict, list]:
    """Return outputs, and gradients of a loss, computed by the backend."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            outputs = model(inputs, seed=seed)
            loss = loss_of(outputs, targets)
        return outputs, tape.gradient(loss, model.trainable_variables)
    if keras.backend.backend() == "jax":
        import jax

        def loss(weights: list) -> tuple:
            outputs, _ = model.stateless_call(weights, kept, inputs, seed=seed)
            return loss_of(outputs, targets), outputs

        weights, kept = ([v.value for v in group] for group in (model.trainable_variables, model.non_trainable_variables))
        gradients, outputs = jax.jit(jax.grad(loss, has_aux=True))(weights)
        return outputs, gradients
    outputs = model(inputs, seed=seed)
    loss_of(outputs, targets).backward()
    return outputs, [variable.value.grad for variable in model.trainable_variables]


class Looked(keras.Model):
    """The embeddings alone, in bfloat16 or float32, with rotary positions: equal tokens have equal gradients."""

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.embeddings = Embeddings(MODERN, dtype=dtype)

    def build(self, input_shape=None) -> None:
        self.embeddings.build()
        self.built = True

    def call(self, inputs, seed=None):
        return {"embeddings": self.embeddings(**inputs, seed=seed)}


def row_gradient(dtype: str, times: int) -> np.ndarray:
    """Return the gradient of a token's embedding, divided by the number of times that it occurs in the batch, [H]."""
    ids, weights = np.full((times // 16, 16), 7, "int32"), np.linspace(-1.0, 2.0, MODERN.hidden_size, dtype="float32")
    inputs = {name: ops.convert_to_tensor(value) for name, value in (("input_ids", ids), ("segment_ids", ids * 0))}
    summed = lambda outputs, targets: ops.sum(ops.cast(outputs["embeddings"], "float32") * weights)  # noqa: E731
    _, (gradient, *_) = compute(scatter(Looked(dtype)), inputs, {}, None, summed)
    return ops.convert_to_numpy(ops.convert_to_tensor(gradient))[7] / times


def record(path: str, *cases: str) -> None:
    """Write the results of this process's backend to an .npz file."""
    found, examples = {}, features()
    examples["input_mask"][3], examples["example_weights"] = 0, np.array([1.0, 1.0, 1.0, 0.0])  # a filler row
    given = {name: ops.convert_to_tensor(values) for name, values in examples.items()}
    in_rows = {name: ops.convert_to_tensor(values) for name, values in packed(features(), **PACKED).items()}
    for case, (objective, changes, seed) in ((case, CASES[case]) for case in cases):
        model = scatter(PretrainingModel(EncoderConfig(**{**SMALL.to_dict(), **changes}), objective))
        inputs, targets = prepare(in_rows if case.startswith("packed") else given, OBJECTIVES[objective])
        outputs, gradients = compute(model, inputs, targets, seed)
        for name, values in outputs.items():
            found[f"{case} {name}"] = ops.convert_to_numpy(ops.stop_gradient(values))
        for variable, values in zip(model.trainable_variables, gradients, strict=True):
            found[f"{case} gradient {variable.path}"] = ops.convert_to_numpy(values)
    for name, site in (("first", 1), ("again", 1), ("other", 2)):
        found[f"dropout {name}"] = ops.convert_to_numpy(dropout(ops.ones((65, 1000)), 0.25, fold(SEED, site)))
    for dtype in ("mixed_bfloat16", "float32"):
        found[f"row {dtype}"] = row_gradient(dtype, 8192)
    np.savez(path, backend=keras.backend.backend(), **found)


@pytest.fixture(scope="module", params=mostly_slow((FEW, tuple(CASES))), ids=["few", "all"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """Results by backend, those of other ones than TensorFlow from a separate process."""
    folder, found = tmp_path_factory.mktemp("backends"), {}
    assert keras.backend.backend() == "tensorflow"
    record(str(folder / "tensorflow.npz"), *request.param)
    for backend in ["tensorflow", "jax"] + ["torch"] * (find_spec("torch") is not None):
        if backend != "tensorflow":
            run(backend, RECORD, str(folder / f"{backend}.npz"), *request.param)
        found[backend] = dict(np.load(folder / f"{backend}.npz"))
        assert str(found[backend].pop("backend")) == backend
    return found


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_matches_tensorflow(recorded: dict, backend: str) -> None:
    if backend not in recorded:
        pytest.skip(f"{backend} is not installed")
    names = [name for name in recorded["tensorflow"] if not name.startswith(("dropout", "trained", "row"))]
    cases = {name.split(" gradient ")[0] for name in names if " gradient " in name}
    assert len(names) == sum(TENSORS[case] for case in cases) and {"mlm+nsp", "packed causal"} <= cases
    one, two = ({name: recorded[which][name] for name in names} for which in ("tensorflow", backend))
    different = {name: apart(one[name], two[name]) for name in names if not apart(one[name], two[name]) < 1e-5}
    assert different == {}


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_recomputation_changes_nothing(recorded: dict, backend: str) -> None:
    if backend not in recorded:
        pytest.skip(f"{backend} is not installed")
    remat = {name: values for name, values in recorded[backend].items() if name.startswith("remat")}
    if not remat:
        pytest.skip("only of all cases")
    for name, values in remat.items():
        assert apart(values, recorded[backend][name.replace("remat", "mlm+nsp")]) < 1e-6, name


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_dropout(recorded: dict, backend: str) -> None:
    """Each backend has its own random numbers: a quarter is dropped, equal for equal seeds, different at other sites."""
    if backend not in recorded:
        pytest.skip(f"{backend} is not installed")
    first, again, other = (recorded[backend][f"dropout {name}"] for name in ("first", "again", "other"))
    assert (first == again).all() and set(first.ravel().tolist()) == {0.0, float(np.float32(4 / 3))}
    assert abs((first == 0).mean() - 0.25) < 4.5 * (0.1875 / 65000) ** 0.5
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 4.5 / 65000**0.5
    assert abs(np.corrcoef(first[:32].ravel(), first[33:].ravel())[0, 1]) < 4.5 / 32000**0.5
    trained = {name: values for name, values in recorded[backend].items() if name.startswith("trained")}
    assert all(np.isfinite(values).all() for values in trained.values())
    different = [name for name in trained if apart(trained[name], recorded[backend][name.replace("trained", "mlm+nsp")]) > 1e-3]
    assert set(trained) - set(different) <= {name for name in trained if name.endswith("key/bias")}


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_the_gradient_of_a_frequent_token_in_bfloat16(recorded: dict, backend: str) -> None:
    """A sum of 8,192 equal parts in bfloat16 would stop growing at 256: a batch has thousands of [MASK]."""
    if backend not in recorded:
        pytest.skip(f"{backend} is not installed")
    many, exact = (recorded[backend][f"row {dtype}"] for dtype in ("mixed_bfloat16", "float32"))
    np.testing.assert_allclose(many, exact, rtol=0.02, atol=0.01 * np.abs(exact).max())
