"""The gradients of a step on JAX, of a toy model: micro-batches, divisors, scales of losses, and seeds."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clozemill.model.losses import SUMS
from clozemill.trainers.engines.engine import StepOptions
from clozemill.trainers.engines.optimizer import Hyper, Schedule

WORDS, TOKENS = np.array([1, 2, 4, 8], np.float32), np.array([3, 5, 7, 9], np.float32)


def weights_of(targets: dict) -> dict[str, Any]:
    return {"masked_lm": targets["words"].sum(), "replaced": targets["tokens"].sum()}


def sums_of(self: Any, values: list, fixed: list, inputs: dict, targets: dict, seed: Any) -> dict[str, Any]:
    """Return losses that are linear in both values, and a sum that shows which seed each row had."""
    found = dict.fromkeys(SUMS, 0.0 * seed[0])
    found |= {"masked_lm_loss": values[0] * (targets["words"] ** 2).sum(), "replaced_loss": values[1] * inputs["tokens"].sum()}
    return found | {"masked_lm_correct": (targets["words"] * (1000 * seed[0] + seed[1])).sum()}


@pytest.mark.parametrize("parts", [1, 2])
def test_gradients_of_micro_batches(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over the micro-batches, divided by the weights of the complete batch; that of replaced tokens counts 50 times."""
    import jax
    from jax import numpy as jnp

    from clozemill.trainers.engines import jax_step

    monkeypatch.setattr(jax_step.Step, "_sums", sums_of)
    model: Any = SimpleNamespace(prepare=lambda batch: (batch, batch), weights_of=weights_of)
    kernel: Any = None
    mesh = jax_step.make_mesh(jax.devices("cpu")[:1])
    step = jax_step.Step(model, StepOptions(Schedule(0.1, 1, 9), Hyper(), parts=parts, seed=(1 << 31) + 2), mesh, kernel)
    everywhere, by_row = jax_step.P(), jax_step.P(jax_step.AXIS)
    places = {"in_specs": (everywhere, everywhere, everywhere, by_row), "out_specs": everywhere}
    batch = {"words": WORDS, "tokens": TOKENS, "input_mask": np.ones((4, 3), np.int32)}
    shared = jax.jit(jax.shard_map(step._gradients, mesh=mesh, **places, check_vma=False))
    gradients, found = shared([jnp.float32(2.0), jnp.float32(3.0)], [], jnp.int32(7), batch)
    assert [float(each) for each in gradients] == pytest.approx([(1 + 4 + 16 + 64) / 15, 50 * 24 / 24])
    *totals, tokens = np.asarray(found).tolist()
    told = dict(zip(SUMS, totals, strict=True))
    streams = 0 if parts == 1 else 4 + 8  # the second micro-batch has stream 1
    assert (told["masked_lm_loss"], told["replaced_loss"], tokens) == (2 * 85, 3 * 24, 12)
    assert told["masked_lm_correct"] == 15 * 9000 + streams
