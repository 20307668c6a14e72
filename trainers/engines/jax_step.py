"""The training step as a JAX program: of the devices of a run (jax_engine.py), and of absent ones (planning/preflight.py).

Model, losses, update rules, dropout and parallelism are those of tensorflow_step.py: every device processes its part of the
batch with its own dropout, weights and gradients are summed over all devices, and each applies the same update.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import keras
import numpy as np
from jax import numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from clozemill.model.attention import attention_kernel
from clozemill.model.losses import SUMS, total
from clozemill.trainers.engines import optimizer
from clozemill.trainers.engines.engine import StepOptions
from clozemill.trainers.engines.jax_attention import Kernel

AXIS = "data"  # the only axis of the mesh


def make_mesh(devices: Sequence) -> Mesh:
    """Return the mesh of devices that share a batch."""
    return Mesh(np.array(devices), (AXIS,))


def everywhere(mesh: Mesh) -> NamedSharding:
    """Return the placement of what every device has."""
    return NamedSharding(mesh, P())


def by_row(mesh: Mesh) -> NamedSharding:
    """Return the placement of batches."""
    return NamedSharding(mesh, P(AXIS))


@dataclass(frozen=True)
class Step:
    """One update of the variables of a model, and sums over a batch without one.

    Args:
        model: the model. Its variables are arguments of the functions; values of its own aren't used.
        options: the optimizer, micro-batches, dropout and masks.
        mesh: the devices.
        kernel: how the model computes attention.
        shard_moments: keep a part of the moments on each device (ZeRO stage 1 of Rajbhandari et al. 2019).
    """

    model: Any
    options: StepOptions
    mesh: Mesh
    kernel: Kernel
    shard_moments: bool = False

    @cached_property
    def trained(self) -> list[keras.Variable]:
        """Return the variables that the objective trains."""
        return [variable for variable in self.model.trainable_variables if self.model.trains(variable.path)]

    @cached_property
    def fixed(self) -> list[keras.Variable]:
        """Return the other variables."""
        trained = {id(variable) for variable in self.trained}
        return [variable for variable in self.model.variables if id(variable) not in trained]

    @cached_property
    def rules(self) -> list[optimizer.Rule]:
        """Return the rule of each trained variable."""
        chosen = optimizer.OPTIMIZERS[self.options.rule]
        return [chosen.rule(variable.path, variable.shape) for variable in self.trained]

    def moment_sharding(self, shape: Sequence[int]) -> NamedSharding:
        """Return the placement of the moments of a variable: along its first axis that all devices can share."""
        if self.shard_moments:
            for axis, size in enumerate(shape):
                if size and size % self.mesh.size == 0:
                    return NamedSharding(self.mesh, P(*[None] * axis, AXIS))
        return everywhere(self.mesh)

    def _sums(self, values: list, fixed: list, inputs: dict, targets: dict, seed) -> dict:
        """Return losses.SUMS of a batch, with given values of the variables."""
        mapping = [*zip(self.trained, values, strict=True), *zip(self.fixed, fixed, strict=True)]
        with keras.StatelessScope(state_mapping=mapping), attention_kernel(self.kernel):
            return self.model.sums_of(self.model(inputs, seed=seed), targets)

    def _gradients(self, values: list, fixed: list, done, batch: dict):
        """Return (gradients, sums and tokens) of the global batch; runs on a device's part of it."""
        options, model = self.options, self.model
        batch = options.draw(batch, done) if options.draw else batch
        divisors = jax.lax.psum(model.weights_of(model.prepare(batch)[1]), AXIS)
        divisors = {name: jnp.where(weight > 0, weight, 1.0) for name, weight in divisors.items()}
        first = jax.lax.axis_index(AXIS).astype("int32") * options.parts

        def part(micro: dict, stream):
            seed = jnp.stack([done.astype("int32") + options.seed % (1 << 31), stream.astype("int32")])
            inputs, targets = model.prepare(micro)

            def loss(values: list):
                found = self._sums(values, fixed, inputs, targets, seed)
                means = {name: found[f"{name}_loss"] / divisors[name] for name in divisors}
                return total(means), jnp.stack([found[name] for name in SUMS])

            return jax.grad(loss, has_aux=True)(values)

        if options.parts == 1:
            found = part(batch, first)
        else:  # one after another, or all parts would need memory at once
            split = {name: value.reshape(options.parts, -1, *value.shape[1:]) for name, value in batch.items()}
            streams = first + jnp.arange(options.parts, dtype="int32")
            start = part({name: value[0] for name, value in split.items()}, streams[0])

            def more(found, each):
                return jax.tree.map(jnp.add, found, part(*each)), None

            rest = {name: value[1:] for name, value in split.items()}
            found, _ = jax.lax.scan(more, start, (rest, streams[1:]))
        gradients, sums = found
        tokens = batch["input_mask"].sum().astype("float32")
        return jax.lax.psum((gradients, jnp.concatenate([sums, tokens[None]])), AXIS)

    def update(self, values: list, slots: list, fixed: list, done, batch: dict) -> tuple[list, list, Any]:
        """Return (values, tuples of their moments, metrics) after one more step.

        The metrics are float32 [len(COLUMNS) - 2], all but the times. `done`: number of updates before, int32.
        """
        hyper, idle = self.options.hyper, self.options.idle
        # Sums over devices are explicit, as in the step on TensorFlow, so XLA has none to infer.
        shared = jax.shard_map(
            self._gradients, mesh=self.mesh, in_specs=(P(), P(), P(), P(AXIS)), out_specs=P(), check_vma=False
        )
        gradients, sums = shared(values, fixed, done, batch)
        norm, rate = optimizer.global_norm(gradients), self.options.schedule(done)
        scale = optimizer.clip_scale(norm, hyper.clip_norm)
        new = [
            rule.update(
                value, gradient * scale, *moments, rate, done - idle(variable.path), hyper, optimizer.decays(variable.path)
            )
            for rule, variable, value, gradient, moments in zip(self.rules, self.trained, values, gradients, slots, strict=True)
        ]
        metrics = jnp.concatenate([sums, jnp.stack([norm, rate])])
        return [value for value, *_ in new], [tuple(moments) for _, *moments in new], metrics

    @cached_property
    def compiled(self) -> Any:
        """Return `update`, compiled when it is first called; values and moments are donated."""
        moments = [
            (self.moment_sharding(variable.shape),) * len(rule.moments)
            for variable, rule in zip(self.trained, self.rules, strict=True)
        ]
        placement = everywhere(self.mesh)
        return jax.jit(
            self.update,
            donate_argnums=(0, 1),
            in_shardings=(placement, moments, placement, placement, by_row(self.mesh)),
            out_shardings=(placement, moments, placement),
        )

    def lowered(self, batch: dict[str, tuple[tuple[int, ...], str]]) -> Any:
        """Return the lowered step for a batch of shapes and dtypes by name. No variable needs a value."""

        def shape(variable: keras.Variable) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(tuple(variable.shape), variable.dtype)

        values, fixed = ([shape(variable) for variable in group] for group in (self.trained, self.fixed))
        slots = [(value,) * len(rule.moments) for value, rule in zip(values, self.rules, strict=True)]
        rows = {name: jax.ShapeDtypeStruct(size, dtype) for name, (size, dtype) in batch.items()}
        return self.compiled.lower(values, slots, fixed, jax.ShapeDtypeStruct((), "int32"), rows)
