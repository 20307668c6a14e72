"""Training and evaluation steps under any strategy, many per host call.

A step is a function of the variables, the batch and the step number: dropout seeds come from the number, so a resumed run is
bit-identical. Losses are divided by the weights of the global batch, summed over replicas first. Gradients are summed over
micro-batches, then over replicas, then clipped, then applied, identically on every replica.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import keras
import tensorflow as tf

from clozemill.model.losses import SUMS, total
from clozemill.trainers.engines import optimizer
from clozemill.trainers.engines.engine import COLUMNS, StepOptions
from clozemill.trainers.engines.optimizer import OPTIMIZERS, Rule
from clozemill.trainers.engines.train_state import TrainState


def _total(values):
    """Return values summed over replicas."""
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


@dataclass(frozen=True)
class Stepper:
    """Runs training steps on a state under a strategy.

    Args:
        state: the variables.
        options: the optimizer, micro-batches, dropout and masks.
        jit: compile forward and backward pass with XLA.
        jit_update: compile the update of each variable, for a single device. Op by op, an update of AdamW writes some 15
            temporary arrays of the variable's size.
    """

    strategy: tf.distribute.Strategy
    state: TrainState
    options: StepOptions
    jit: bool = False
    jit_update: bool = False

    def _gradients(self, batch: dict, totals: dict, step, replica):
        """Return (gradients, sums) of a replica's batch, accumulated over `parts` micro-batches."""
        rows = batch["input_ids"].shape[0] // self.options.parts
        split = {name: tf.reshape(v, [self.options.parts, rows, *keras.ops.shape(v)[1:]]) for name, v in batch.items()}
        gradients, found = None, None
        for part in range(self.options.parts):
            if part:  # force sequential execution, or all parts would need memory at once
                with tf.control_dependencies(gradients):
                    micro = {name: tf.identity(value[part]) for name, value in split.items()}
            else:
                micro = {name: value[0] for name, value in split.items()}
            more, counted = self._part(micro, totals, step, replica * self.options.parts + part)
            gradients = more if gradients is None else [a + b for a, b in zip(gradients, more, strict=True)]
            found = counted if found is None else found + counted
        return gradients, found

    def _part(self, batch: dict, totals: dict, step, stream):
        """Return (gradients as dense tensors, sums as float32 [len(SUMS)]) of one micro-batch."""
        model = self.state.model
        seed = tf.stack(
            [tf.cast(step, tf.int32) + tf.constant(self.options.seed % (1 << 31), tf.int32), tf.cast(stream, tf.int32)]
        )
        inputs, targets = model.prepare(batch)
        variables = [variable.value for variable in model.trainable_variables if model.trains(variable.path)]
        with tf.GradientTape() as tape:
            found = model.sums_of(model(inputs, seed=seed), targets)
            loss = total({name: found[f"{name}_loss"] / totals[name] for name in totals})
        gradients = [tf.convert_to_tensor(value) for value in tape.gradient(loss, variables)]
        return gradients, tf.stack([found[name] for name in SUMS])

    @cached_property
    def _forward_backward(self) -> Callable:
        return tf.function(self._gradients, autograph=False, jit_compile=True) if self.jit else self._gradients

    @cached_property
    def _drawn(self) -> Callable:
        """Return `draw`, compiled if the step is."""
        draw = self.options.draw or (lambda batch, step: batch)
        return tf.function(draw, autograph=False, jit_compile=True) if self.jit and self.options.draw else draw

    def _compiled(self, rule: Rule) -> Callable:
        """Return a function that computes the new values of a variable and its moments."""

        def updated(value, gradient, moments, scale, rate, step, decay: bool):
            return rule.update(value, gradient * scale, *moments, rate, step, self.options.hyper, decay)

        return tf.function(updated, autograph=False, jit_compile=True) if self.jit_update else updated

    @cached_property
    def _rules(self) -> dict[Rule, Callable]:
        """Return the functions of the optimizer's rules."""
        chosen = OPTIMIZERS[self.options.rule]
        return {rule: self._compiled(rule) for rule in (chosen.matrices, chosen.others)}

    def _apply(self, gradients: list, step):
        """Update all variables from gradients that are identical on every replica. Returns (norm, learning rate)."""
        norm, rate = optimizer.global_norm(gradients), self.options.schedule(step)
        scale = optimizer.clip_scale(norm, self.options.hyper.clip_norm)
        state, optimizer_rule = self.state, OPTIMIZERS[self.options.rule].rule

        def update_all(strategy, gradients, scale, rate, step) -> list:
            done = []
            rows = zip(state.model.trainable_variables, state.slots, strict=True)
            trained = [row for row in rows if state.model.trains(row[0].path)]
            for (variable, moments), gradient in zip(trained, gradients, strict=True):
                apply = self._rules[optimizer_rule(variable.path, variable.shape)]
                decay = optimizer.decays(variable.path)

                def update(value, gradient, scale, rate, step, *moments, apply=apply, decay=decay):
                    new = apply(value, gradient, moments, scale, rate, step, decay)
                    return tf.group(*(old.assign(changed) for old, changed in zip((value, *moments), new, strict=True)))

                idle = tf.cast(self.options.idle(variable.path), step.dtype)
                args = (gradient, scale, rate, step - idle, *(moment.value for moment in moments.values()))
                done.append(strategy.extended.update(variable.value, update, args=args))
            return done

        # Mirrored variables are updated in cross-replica context, except on a TPU, as in Keras's optimizers.
        merge = tf.__internal__.distribute.interim.maybe_merge_call
        with tf.control_dependencies(merge(update_all, self.strategy, gradients, scale, rate, step)):
            return tf.identity(norm), rate  # a step's time includes its updates

    def _train(self, batch: dict, step):
        """Run a replica's part of a step. Returns its metrics, identical on every replica, float32 [len(COLUMNS) - 2]."""
        context = tf.distribute.get_replica_context()
        batch = self._drawn(batch, step)
        _, targets = self.state.model.prepare(batch)
        weights = self.state.model.weights_of(targets)
        divisors = _total(tf.stack(list(weights.values())))
        divisors = tf.where(divisors > 0, divisors, 1.0)  # a batch of zero weight has no loss
        totals = dict(zip(weights, tf.unstack(divisors), strict=True))
        replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
        gradients, found = self._forward_backward(batch, totals, step, replica)
        norm, rate = self._apply(_total(gradients), step)
        tokens = tf.cast(tf.reduce_sum(batch["input_mask"]), tf.float32)
        return tf.concat([_total(tf.concat([found, [tokens]], 0)), [norm, rate]], 0)

    @cached_property
    def train(self) -> tf.types.experimental.PolymorphicFunction:
        """Return a function of (iterator, first step, number of steps) that returns metrics, float32 [steps, len(COLUMNS)]."""

        one = tf.autograph.experimental.do_not_convert(
            self._train
        )  # AutoGraph would take seconds to convert everything it calls

        def steps(iterator, first, count):
            rows = tf.TensorArray(tf.float32, count, element_shape=[len(COLUMNS)])
            for number in tf.range(count):
                begin = tf.timestamp()
                batch = next(iterator)
                with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                    got = tf.timestamp()
                with tf.control_dependencies([got]):  # on one core, this clock would else be read after the step
                    per_replica = self.strategy.run(one, args=(batch, first + number))
                figures = self.strategy.experimental_local_results(per_replica)[0]
                with tf.control_dependencies([figures]):
                    times = tf.cast([got - begin, tf.timestamp() - begin], tf.float32)
                rows = rows.write(number, tf.concat([figures, times], 0))
            return rows.stack()

        return tf.function(steps)


def evaluation(strategy: tf.distribute.Strategy, model, jit: bool = False) -> Callable:
    """Return a function of (iterator, number of batches) that returns sums over them, float64 [len(SUMS) + 1].

    The last one is the number of examples.
    """

    def forward(batch: dict):
        inputs, targets = model.prepare(batch)
        found = model.sums_of(model(inputs), targets)
        return tf.stack([*(found[name] for name in SUMS), tf.reduce_sum(targets["example_weights"])])

    compiled = tf.function(forward, autograph=False, jit_compile=True) if jit else forward
    one = tf.autograph.experimental.do_not_convert(lambda batch: _total(compiled(batch)))  # as for training: it takes seconds

    def batches(iterator, count):
        total = tf.zeros([len(SUMS) + 1], tf.float64)
        for _ in tf.range(count):
            per_replica = strategy.run(one, args=(next(iterator),))
            total += tf.cast(strategy.experimental_local_results(per_replica)[0], tf.float64)
        return total

    return tf.function(batches)
