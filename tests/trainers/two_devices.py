"""Train on one device and on two logical CPU devices, and print the results as JSON; a test runs it as a program.

python -m tests.trainers.two_devices FOLDER [--compiled] [--packed] [--muon] [--rtd]
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from clozemill.trainers.common import distribution
from clozemill.trainers.common.config import DeviceOptions
from clozemill.trainers.engines.tensorflow_engine import TensorFlowEngine
from clozemill.trainers.engines.tensorflow_step import Stepper
from clozemill.trainers.pretraining.evaluation import Evaluation
from tests.trainers import datasets, steps

STEPS = 12


def variables(stepper: Stepper) -> list[list[np.ndarray]]:
    """Return the weights and moments on each device."""
    every = [*stepper.state.weights().values(), *stepper.state.moments().values()]
    return [[one.numpy() for one in stepper.strategy.experimental_local_results(variable)] for variable in every]


def trained(stepper: Stepper, features: dict) -> dict:
    """Return the metrics of some steps by column, and whether variables are bit-identical on all devices."""
    figures = steps.train(stepper, features, [5, STEPS - 5])
    copies = variables(stepper)
    return {
        "figures": {name: values.tolist() for name, values in figures.items()},
        "copies": sorted({len(copy) for copy in copies}),
        "in_step": all((copy[0] == other).all() for copy in copies for other in copy),
        "weights": float(sum(np.abs(copy[0]).sum(dtype="float64") for copy in copies)),
    }


def make(devices: tf.distribute.Strategy, **options) -> Stepper:
    return steps.make(strategy=devices, num_hidden_layers=1, **options)


def dropped(mirrored: tf.distribute.Strategy) -> list[float]:
    """Return the masked-LM loss of each replica when both get the same examples, with dropout."""
    stepper = make(mirrored, hidden_dropout_prob=0.3)
    half = {name: tf.constant(values[0]) for name, values in steps.batches(1, rows=4).items()}
    totals = {"masked_lm": 9.0, "next_sentence": 4.0}

    @tf.function
    def both():
        def replica():
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            return stepper._gradients(half, totals, 0, tf.cast(number, tf.int32))[1][0]

        return mirrored.experimental_local_results(mirrored.run(replica))

    return [float(value) for value in both()]


def main(folder: str, asked: list[str]) -> None:
    """Print everything that always runs, and the cases that are asked for."""
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    one, mirrored = (distribution.make_strategy(DeviceOptions(strategy=name)) for name in ("default", "mirrored"))
    features, found = steps.batches(3), {"replicas": [one.num_replicas_in_sync, mirrored.num_replicas_in_sync]}
    found["one"] = trained(make(one), features)
    found["two, in parts"] = trained(make(mirrored, parts=2), features)
    if "--compiled" in asked:
        found["two, compiled"] = trained(make(mirrored, jit=steps.COMPILES), features)
    for name, options in {"muon": {"rule": "muon"}, "rtd": {"objective": "rtd"}}.items():
        if f"--{name}" in asked:
            found[f"one, {name}"] = trained(make(one, **options), features)
            found[f"two, {name}"] = trained(make(mirrored, parts=2, **options), features)
    if "--packed" in asked:
        found["two, packed"] = trained(make(mirrored), steps.packed(features))
    found["dropout"] = dropped(mirrored)
    dataset = datasets.write(Path(folder), [[4]], [5, 8])
    for devices, size in ((one, 13), (mirrored, 5)):
        model, name = make(devices).state.model, f"eval, {devices.num_replicas_in_sync}"
        found[name] = [
            Evaluation(TensorFlowEngine(devices, DeviceOptions()), model, dataset, size, limit).figures() for limit in (0, 9)
        ]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
