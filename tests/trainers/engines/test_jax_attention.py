"""Kernels compute what the plain form computes, forward and backward; models, steps and preflight use them.

The kernel of TPUs runs on a CPU in Pallas's interpreter. cuDNN's can't: XLA computes the same calls, and they are lowered.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from keras import ops

from clozemill.model.attention import View, attention_kernel, make_view, plain_attention
from clozemill.model.config import preset
from clozemill.model.pretraining_model import OBJECTIVES, PretrainingModel, prepare
from clozemill.trainers.engines.jax_attention import CudnnAttention, SplashAttention, choose_kernel, described
from tests.model.small import MODERN, features, packed, run, scatter
from tests.model.test_backends import compute
from tests.slow import mostly_slow

ROWS, LENGTH, HEADS, SIZE = 3, 128, 2, 32
SIZES = {"hidden_size": HEADS * SIZE, "num_attention_heads": HEADS, "max_position_embeddings": LENGTH}
LOCAL = replace(MODERN, **SIZES, local_attention=20, num_hidden_layers=2)  # layer 1 is local, in chunks
MASK = (np.arange(LENGTH) < np.array([[LENGTH], [77], [0]])).astype("int32")  # a full row, a padded one, and a filler row
IDS = np.array([[1] * 50 + [2] * 78, [1] * 3 + [2] * 70 + [3] * 27 + [0] * 28, [0] * LENGTH], "int32")
CASES = {  # layer, example ids, causal
    "padding": (0, None, False),
    "causal": (0, None, True),
    "packed": (0, IDS, False),
    "window": (1, None, False),
    "packed causal window": (1, IDS, True),
}
FEW = ("padding", "packed", "packed causal window")
PICKED = np.tile(np.array([0, 5, 60, 76], "int32"), (ROWS, 1))  # of these queries alone
MODEL = replace(LOCAL, remat=True)  # layer 0 computes all queries, layer 1 the masked positions
RECORD = "import sys; from tests.trainers.engines.test_jax_attention import record; record(*sys.argv[1:])"


def view_of(case: str, positions: np.ndarray | None = None) -> View:
    layer, ids, causal = CASES[case]
    tokens = tuple(None if each is None else ops.convert_to_tensor(each) for each in (MASK if ids is None else ids > 0, ids))
    return make_view(LOCAL, layer, tokens, np.arange(LENGTH, dtype="int32")[None], positions, causal)


def used(case: str) -> np.ndarray:
    """Return where a row has a token, [B, S]."""
    ids = CASES[case][1]
    return (MASK if ids is None else ids) > 0


def given(queries: int = LENGTH) -> list[np.ndarray]:
    """Return random queries, keys and values."""
    rng = np.random.default_rng(4)
    return [rng.normal(size=(ROWS, size, HEADS, SIZE)).astype("float32") for size in (queries, LENGTH, LENGTH)]


def results(kernel: Callable, case: str, dtype: str = "float32") -> dict[str, np.ndarray]:
    """Return the attention at tokens, and the gradients of a weighted sum of it."""
    import jax
    from jax import numpy as jnp

    weights = np.random.default_rng(5).normal(size=(ROWS, LENGTH, HEADS, SIZE)) * used(case)[:, :, None, None]

    def loss(*heads):
        mixed = kernel(*heads, view_of(case), SIZE**-0.5)
        return (mixed * jnp.asarray(weights, dtype)).sum(), mixed

    heads = [jnp.asarray(each, dtype) for each in given()]
    gradients, mixed = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*heads)
    found = dict(zip(("query", "key", "value", "mixed"), (*gradients, mixed), strict=True))
    found = {name: np.asarray(each, "float32") for name, each in found.items()}
    assert all(np.isfinite(each).all() for each in found.values()), case  # of filler rows, too
    return found | {"mixed": found["mixed"][used(case)]}


def others_gradients(kernel: Callable, case: str) -> np.ndarray:
    """Return the gradients of the first example of row 1 with respect to all other keys and values."""
    import jax

    own = (IDS == 1) & (np.arange(ROWS) == 1)[:, None]
    loss = partial(kernel, view=view_of(case), scale=SIZE**-0.5)
    gradients = jax.jit(jax.grad(lambda *heads: (loss(*heads)[own] ** 2).sum(), argnums=(1, 2)))(*given())
    assert all(np.abs(np.asarray(each)[own]).min() > 0 for each in gradients)
    return np.stack([np.asarray(each)[~own] for each in gradients])


def trained(kernel: Callable) -> tuple[dict[str, np.ndarray], int]:
    """Return (outputs at the rows that have tokens and gradients of a model, how often it called the kernel)."""
    batch = packed(features(rows=6, length=60), [[0, 3], [4, 1], []], LENGTH, 2, 6)
    batch, calls = {key: ops.convert_to_tensor(values) for key, values in batch.items()}, []

    def counted(*args):
        calls.append(args)
        return kernel(*args)

    model = scatter(PretrainingModel(MODEL, "mlm"))
    with attention_kernel(counted):
        outputs, gradients = compute(model, *prepare(batch, OBJECTIVES["mlm"]), None)
    found = {variable.path: values for variable, values in zip(model.trainable_variables, gradients, strict=True)}
    found |= {name: values[:2] for name, values in outputs.items()}
    return {key: np.asarray(values) for key, values in found.items()}, len(calls)


def lowered_for_gpus(case: str, positions: np.ndarray | None = None) -> str:
    """Return cuDNN's calls, forward and backward, as they are lowered for a GPU that isn't there."""
    import jax
    from jax import numpy as jnp
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    cudnn.check_cudnn_version, cudnn.check_compute_capability = lambda: 91000, lambda capability: True
    cudnn.is_cuda_compute_capability_equal = lambda capability: False
    heads = [jnp.asarray(each, "bfloat16") for each in given(LENGTH if positions is None else positions.shape[1])]
    attend = partial(CudnnAttention(), view=view_of(case, positions), scale=SIZE**-0.5)
    step = jax.jit(jax.grad(lambda *heads: attend(*heads).sum(), argnums=(0, 1, 2)))
    return step.trace(*heads).lower(lowering_platforms=("cuda",)).as_text()


def record(path: str, *cases: str) -> None:
    """Write what kernels and the plain form compute in some cases, by name; on JAX."""
    splash, found = SplashAttention(interpret=True), {}
    for case in cases:
        ways = {"plain": (plain_attention, "float32"), "splash": (splash, "float32"),
                "plain bfloat16": (plain_attention, "bfloat16"), "cudnn": (CudnnAttention("xla"), "bfloat16")}  # fmt: skip
        for way, (kernel, dtype) in ways.items():
            found |= {f"{way}: {case}: {name}": values for name, values in results(kernel, case, dtype).items()}
        found[f"cuda: {case}"] = lowered_for_gpus(case)
        if CASES[case][1] is not None:
            found[f"others: {case}"] = others_gradients(splash, case)
    found |= {f"cuda: picked {case}": lowered_for_gpus(case, PICKED) for case in ("padding", "packed")}
    for way, kernel in () if cases == FEW else (("plain", plain_attention), ("splash", splash)):
        values, found[f"calls: {way}"] = trained(kernel)
        found |= {f"{way}: model: {key}": each for key, each in values.items()}
    np.savez(path, **found)


@pytest.fixture(scope="module", params=mostly_slow((FEW, tuple(CASES)), FEW), ids=["few", "all"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    path = tmp_path_factory.mktemp("attention") / "found.npz"
    run("jax", RECORD, str(path), *request.param)
    return dict(np.load(path))


def device(platform: str, kind: str = "", capability: str = "0.0") -> SimpleNamespace:
    return SimpleNamespace(platform=platform, device_kind=kind, compute_capability=capability)


@pytest.mark.parametrize(
    ("one", "option", "name"),
    [
        (device("cpu"), "auto", "plain, because there is no kernel for CPUs"),
        (device("tpu", "TPU v5 lite"), "auto", "splash kernel of the TPU, with numbers of examples instead of masks"),
        (device("tpu", "TPU v5 lite"), "plain", "plain, because --attention-kernel is plain"),
        (device("tpu", "TPU v3"), "auto", "plain, because the kernel doesn't compile for TPU v3"),
        (
            device("gpu", "H200", "9.0"),
            "auto",
            "cuDNN, with lengths instead of masks unless examples are packed or attention is local",
        ),
        (device("gpu", "V100", "7.0"), "auto", "plain, because cuDNN's kernel needs an NVIDIA GPU of compute capability 8"),
        (device("gpu", "MI300", "gfx942"), "auto", "plain, because cuDNN's kernel needs an NVIDIA GPU of compute capability"),
    ],
)
def test_the_kernel_of_a_device(one: SimpleNamespace, option: str, name: str) -> None:
    assert described(choose_kernel(one, option), preset("modern-base"), [512], "bfloat16").startswith(name[:50])


def test_reasons_against_a_kernel() -> None:
    splash, base = SplashAttention(), preset("base", attention_probs_dropout_prob=0.0)
    dropout = "plain, because the kernel has no dropout, and the attention's is 0.1"
    assert described(splash, preset("base"), [128, 512], "float32") == dropout
    assert described(splash, base, [64], "float32") == "plain, because length 64 is not a multiple of 128"
    both = f"{splash.name}; for some rows plain, because length 64 is not a multiple of 128"
    assert described(splash, base, [64, 128], "bfloat16") == both
    narrow = replace(base, hidden_size=48, num_attention_heads=3)
    heads = "plain, because heads have 16 dimensions, not a multiple of 32 up to 256"
    assert described(splash, narrow, [128], "float32") == heads
    assert described(CudnnAttention(), base, [64], "float32") == "plain, because cuDNN's kernel needs bfloat16, not float32"


def assert_equal(recorded: dict[str, np.ndarray], one: str, other: str, tolerance: float, count: int) -> None:
    """Check that the arrays of one way are those of the other, to a fraction of their largest value, or of 1."""
    names = [name.removeprefix(one) for name in recorded if name.startswith(one)]
    assert names and len(names) % count == 0
    for name in names:
        found, expected = recorded[one + name], recorded[other + name]
        assert np.abs(expected).max() > 0.01, name
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()), err_msg=name)


def test_the_splash_kernel_matches_the_plain_form(recorded: dict[str, np.ndarray]) -> None:
    """At every token, and gradients everywhere."""
    cases = {name: values for name, values in recorded.items() if ": model: " not in name}
    assert_equal(cases, "splash: ", "plain: ", 1e-5, 4)


def test_a_model_with_the_splash_kernel_matches_one_without(recorded: dict[str, np.ndarray]) -> None:
    """With recomputation and packed rows; rounding grows through its layers."""
    if "calls: splash" not in recorded:
        pytest.skip("only of all cases")
    assert_equal(recorded, "splash: model: ", "plain: model: ", 1e-4, 24)
    assert recorded["calls: splash"] == recorded["calls: plain"] == 2


def test_no_gradient_between_packed_examples(recorded: dict[str, np.ndarray]) -> None:
    found = {name: values for name, values in recorded.items() if name.startswith("others: ")}
    assert found and all((values == 0).all() for values in found.values())


def test_the_arguments_for_cudnn_match_the_mask(recorded: dict[str, np.ndarray]) -> None:
    assert_equal(recorded, "cudnn: ", "plain bfloat16: ", 1e-2, 4)


def test_calls_of_cudnn_are_lowered(recorded: dict[str, np.ndarray]) -> None:
    """With lengths for rows of one example, and with a mask, cuDNN's "bias", for others."""
    names = {name.removeprefix("cuda: ") for name in recorded if name.startswith("cuda: ")}
    assert names >= {*FEW, "picked padding", "picked packed"}
    for name in (f"cuda: {case}" for case in names):
        text = str(recorded[name])
        dense = "packed" in name or "window" in name
        calls = [f"{'ScaleBias' * dense}Softmax{direction}" for direction in ("", "Backward")]
        assert re.findall(r"@__cudnn\$fmha(\w+)\(", text) == calls, name
        kind = "NO_MASK" if dense else "PADDING_CAUSAL" if "causal" in name else "PADDING"
        assert re.findall(r"mask_type\\22: \\22(\w+?)\\22", text) == [kind] * 2, name
