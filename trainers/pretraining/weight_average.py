"""`pretrain --average-with-init`: the result of a run is an average of its trained weights and those it started from.

Weights that were trained further are usually in the same basin of the loss as the initial ones. Between the two, most of what
was learnt is kept, and less of what was known is lost than by training less (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903).
"""

from collections.abc import Callable, Mapping

import numpy as np
from keras import ops

from clozemill.trainers.engines import train_state
from clozemill.trainers.engines.engine import Engine
from clozemill.trainers.engines.train_state import TrainState
from clozemill.trainers.pretraining import warm_start
from clozemill.trainers.pretraining.pretraining_run import PretrainingRun


def averaged(initial: Mapping[str, np.ndarray], trained: Mapping[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
    """Return the weighted means of two sets of weights, in the dtypes of `trained`.

    Args:
        initial: arrays by path within the model. Weights that aren't among them, such as a head that started from random
            values, stay as they were trained.
        trained: arrays by path, of the same shapes.
        share: the weight of `initial`, 0 to 1.
    """
    found = dict(trained)
    for name in initial.keys() & trained.keys():
        value = trained[name]
        mean = share * initial[name].astype(np.float64) + (1 - share) * value.astype(np.float64)
        found[name] = mean.astype(value.dtype)
    return found


def averaging(planned: PretrainingRun, engine: Engine, state: TrainState) -> Callable[[], None] | None:
    """Return the function that averages a state's weights with those of `--init`; None without --average-with-init.

    The initial weights are read at once, so a run whose --init has changed ends before its first step, not after its last.
    """
    share = planned.config.average_with_init
    if not planned.start or not share:
        return None
    initial = warm_start.fitting_weights(planned.start, state.model, planned.vocabulary)

    def average() -> None:
        trained = {name: ops.convert_to_numpy(value) for name, value in state.weights().items()}
        with engine.scope():
            train_state.assign(state.model, averaged(initial, trained, share))
        if engine.process == 0:
            print(f"averaged the weights with those of {planned.config.init}, whose share is {share:g}", flush=True)

    return average
