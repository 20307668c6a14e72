"""The training step as a JAX program that can be compiled for absent devices; used by trainers/planning/preflight.py.

Model, losses and optimizer are those of the trainer, and so is the parallelism: every device processes its part of the batch
with its own dropout, weights and gradients are summed over all devices, and each applies the same update.
"""

import math
from typing import Any

import keras

from clozemill.model.config import PRECISIONS, EncoderConfig
from clozemill.model.losses import total
from clozemill.model.pretraining_model import PretrainingModel
from clozemill.pipelines.examples.columns import FEATURES, PACKED_FEATURES
from clozemill.trainers.planning.config import PreflightConfig
from clozemill.trainers.training import optimizer

AXIS = "data"  # the only axis of the mesh


class Step:
    """One update of a model's variables over the devices of a topology, like the trainer's.

    Args:
        config: the options. encoder: sizes of the model. predictions: masked positions per row. devices: JAX devices.
    """

    def __init__(self, config: PreflightConfig, encoder: EncoderConfig, predictions: int, devices: list) -> None:
        import numpy as np
        from jax.sharding import Mesh

        self.config, self.predictions, self.mesh = config, predictions, Mesh(np.array(devices), (AXIS,))
        with keras.StatelessScope(initialize_variables=False):  # only shapes are needed
            self.model = PretrainingModel(encoder, config.objective, dtype=PRECISIONS[config.precision])
            self.model.build()

    @property
    def parameters(self) -> int:
        """Return the number of trainable parameters."""
        return sum(math.prod(variable.shape) for variable in self.model.trainable_variables)

    def _gradients(self, values: list, done, batch: dict):
        """Return (loss, gradients) of the global batch, computed from a device's part of it."""
        import jax
        from jax import numpy as jnp

        seed = jnp.stack([done, jax.lax.axis_index(AXIS)])
        inputs, targets = self.model.prepare(batch)
        totals = {name: jnp.maximum(sum_, 1.0) for name, sum_ in jax.lax.psum(self.model.weights_of(targets), AXIS).items()}
        untrained = [jnp.zeros(variable.shape, variable.dtype) for variable in self.model.non_trainable_variables]

        def loss(values: list):
            outputs, _ = self.model.stateless_call(values, untrained, inputs, training=True, seed=seed)
            found = self.model.sums_of(outputs, targets)
            return total({name: found[f"{name}_loss"] / weight for name, weight in totals.items()})

        return jax.lax.psum(jax.value_and_grad(loss)(values), AXIS)

    def _rules(self) -> list[optimizer.Rule]:
        """Return the optimizer's rule for each variable."""
        chosen = optimizer.OPTIMIZERS[self.config.optimizer]
        return [chosen.rule(variable.path, variable.shape) for variable in self.model.trainable_variables]

    def _update(self, values: list, slots: list, done, batch: dict):
        """Return (variables, tuples of their moments, steps done, loss) after one more step."""
        hyper = optimizer.Hyper(clip_norm=optimizer.default_clip_norm(self.config.optimizer))
        rate = optimizer.Schedule(peak=1e-4, warmup_steps=10_000, steps=1_000_000)(done)
        loss, gradients = self._gradients(values, done, batch)
        scale = optimizer.clip_scale(optimizer.global_norm(gradients), hyper.clip_norm)
        new = [
            rule.update(value, gradient * scale, *moments, rate, done, hyper, optimizer.decays(variable.path))
            for rule, variable, value, gradient, moments in zip(
                self._rules(), self.model.trainable_variables, values, gradients, slots, strict=True
            )
        ]
        return [value for value, *_ in new], [tuple(moments) for _, *moments in new], done + 1, loss

    def lowered(self, batch_size: int) -> Any:
        """Return the lowered step for `batch_size` rows per device; variables and moments are donated."""
        import jax
        from jax.sharding import NamedSharding
        from jax.sharding import PartitionSpec as P

        def shape(size: tuple, dtype: str, *axes: str) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(size, dtype, sharding=NamedSharding(self.mesh, P(*axes)))

        most = self.config.examples_per_row
        lengths = {"max_seq_length": self.config.max_seq_length, "max_predictions": self.predictions, "max_examples": most}
        rows = batch_size * self.mesh.size
        batch = {
            name: shape((rows, lengths[length] if length else 1), dtype.replace("int64", "int32"), AXIS)
            for name, (dtype, length) in (PACKED_FEATURES if most else FEATURES).items()
        }
        values = [shape(tuple(variable.shape), variable.dtype) for variable in self.model.trainable_variables]
        # Sums over devices are explicit in the step, as in the trainer, so XLA has none to infer.
        step = jax.shard_map(self._update, mesh=self.mesh, in_specs=(P(), P(), P(), P(AXIS)), out_specs=P(), check_vma=False)
        slots = [(value,) * len(rule.moments) for value, rule in zip(values, self._rules(), strict=True)]
        return jax.jit(step, donate_argnums=(0, 1, 2)).lower(values, slots, shape((), "int32"), batch)
