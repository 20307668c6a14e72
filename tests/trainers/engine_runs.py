"""Run the same steps on an engine and write the results to a file; tests compare the files of both engines.

KERAS_BACKEND=jax python -m tests.trainers.engine_runs FILE.npz CASE...
"""

import dataclasses
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.inputs import TOKENS
from clozemill.trainers.common.config import TrainingOptions
from clozemill.trainers.engines import train_state
from clozemill.trainers.engines.batched_inference import BatchedInference
from clozemill.trainers.engines.engine import COLUMNS, Engine, HostBatches, StepOptions, make_engine
from clozemill.trainers.engines.optimizer import Schedule
from clozemill.trainers.pretraining.masks import MaskDrawing
from tests.model import test_masking
from tests.trainers import datasets, steps

VOCABULARY, ROWS = test_masking.VOCAB, 8


@dataclasses.dataclass(frozen=True)
class Case:
    """A short run. sizes: changes of the encoder; fresh: masks are drawn in the step; devices: of --strategy mirrored.

    idle: number of steps before the first one, in which the masked-LM head wasn't trained.
    """

    objective: str = "mlm+nsp"
    rule: str = "adamw"
    steps: int = 6
    parts: int = 1
    dropout: float = 0.1
    packed: bool = False
    fresh: bool = False
    devices: int = 1
    shard_moments: bool = False
    idle: int = 0
    sizes: tuple[tuple[str, Any], ...] = ()


_MODERN = tuple({
    "architecture": "modernbert", "type_vocab_size": 0, "hidden_act": "gelu_erf", "layer_norm_eps": 1e-5, "local_attention": 4,
    "global_attn_every_n_layers": 2,
}.items())  # fmt: skip
CASES = {
    "bert": Case(),
    "packed, in parts": Case("mlm+sop", "stable-adamw", parts=2, packed=True),
    "modern": Case("mlm", "muon", fresh=True, sizes=_MODERN),
    "rtd": Case("rtd", "lamb", parts=2),
    "causal": Case("causal"),
    "8 devices": Case(devices=8, dropout=0.0),
    "8 devices, moments in parts": Case(
        "mlm", "muon", fresh=True, devices=8, dropout=0.0, shard_moments=True, idle=3, sizes=_MODERN
    ),
    **{
        f"{objective}, {rule}": Case(objective, rule, steps=200, dropout=0.1)
        for objective in ("mlm+nsp", "mlm+sop", "mlm", "causal", "rtd")
        for rule in ("adamw", "lamb", "muon", "stable-adamw")
    },
}


def features(case: Case) -> dict[str, np.ndarray]:
    """Return three batches, [3, B, ...]."""
    found = steps.batches(3, ROWS)
    keys = np.random.default_rng(2).integers(-(2**31), 2**31, (3, ROWS, 2), dtype=np.int32)
    found |= {"random_keys": keys} if case.fresh else {}
    return steps.packed(found) if case.packed else found


def run(case: Case) -> dict[str, np.ndarray]:
    """Return the metrics of all steps by column, sums over the batches after them, outputs, and the weights."""
    strategy = "mirrored" if case.devices > 1 else "default"
    name = keras.backend.backend()
    engine = make_engine(TrainingOptions(strategy=strategy, engine=name, shard_moments=case.shard_moments))
    assert engine.replicas == case.devices
    sizes = {"hidden_dropout_prob": case.dropout, "attention_probs_dropout_prob": case.dropout, "vocab_size": VOCABULARY,
             "num_hidden_layers": 2 if case.sizes else 1, **dict(case.sizes)}  # fmt: skip
    sizes |= {"attention": "causal"} if case.objective == "causal" else {}
    with engine.scope():
        state = train_state.make(EncoderConfig(**steps.SMALL.to_dict() | sizes), case.objective, "float32", 3, case.rule)
    return _metrics(engine, state, case) | _results(engine, state, case)


def _repeated(engine: Engine, batches: dict[str, np.ndarray]) -> HostBatches:
    """Return batches, [count, B, ...], in an endless loop."""
    data = tf.data.Dataset.from_tensor_slices(batches).repeat()
    return lambda host, hosts, size: data if engine.name == "tensorflow" else data.as_numpy_iterator()


def _metrics(engine: Engine, state: train_state.TrainState, case: Case) -> dict[str, np.ndarray]:
    masks = test_masking.rules("span", quotas=test_masking.quotas(0.25, most=3, longest=datasets.LENGTH))
    masks = dataclasses.replace(masks, max_predictions=3, slots=3)
    draw = MaskDrawing(masks, np.zeros(1, np.int32)) if case.fresh else None
    schedule = Schedule(2e-3, 2, case.steps + 4)
    idle = lambda path: case.idle if "masked_lm" in path else 0  # noqa: E731
    options = StepOptions(schedule, steps.HYPER, case.rule, case.parts, seed=7, draw=draw, idle=idle)
    trainer = engine.trainer(state, options, 6 if case.packed else ROWS, _repeated(engine, features(case)))
    rows = np.concatenate([trainer.run(case.idle, 1)[0], trainer.run(case.idle + 1, case.steps - 1)[0]])
    return {name: values for name, values in zip(COLUMNS, rows.T, strict=True) if name not in ("waited", "seconds")}


def _results(engine: Engine, state: train_state.TrainState, case: Case) -> dict[str, np.ndarray]:
    batches = {name: values for name, values in features(case).items() if name != "random_keys"}
    sums = engine.evaluation(state.model)(6 if case.packed else ROWS, 3, _repeated(engine, batches))
    found = {"evaluation": sums}
    if not case.packed:

        def pooled(batch: dict) -> Any:
            tokens = (batch[name] for name in TOKENS)
            return ops.mean(state.model.encoder(*tokens)["sequence_output"], axis=1)

        first = {name: values[0] for name, values in batches.items()}
        found["outputs"] = BatchedInference(engine, state.model, pooled, ROWS)(first)
    return found | {f"weight {path}": np.asarray(value) for path, value in state.weights().items()}


def write(path: str, *names: str) -> None:
    """Write the results of some cases."""
    np.savez(path, **{f"{name}: {key}": values for name in names for key, values in run(CASES[name]).items()})


if __name__ == "__main__":
    write(*sys.argv[1:])
