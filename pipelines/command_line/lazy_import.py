"""Import the module of a command only when the command runs."""

import contextlib
import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from clozemill.pipelines.command_line import overwriting, process, verbosity
from clozemill.pipelines.command_line.options import check_before_start
from clozemill.pipelines.common.errors import UserError

# Packages of the extra `train`, which the commands from a corpus to a dataset don't need. The extra `jax` has no TensorFlow.
TRAIN = ("keras", "safetensors", "sklearn", "tensorboard", "tensorflow", "tensorflow_text")
# Keras and TensorFlow import these where they are installed, for features that clozemill doesn't use: a third of their start.
_UNUSED = ("jax", "matplotlib", "sklearn")
_BACKEND = "KERAS_BACKEND"


def check_train() -> None:
    """Raises UserError where the packages of the extra `train` aren't installed. Imports none of them."""
    for name in TRAIN:
        if importlib.util.find_spec(name) is None:
            jax = os.environ.get(_BACKEND) == "jax" and not name.startswith("tensorflow")
            extra = "jax" if jax else "train"
            raise UserError(f"{name} is not installed, and this command needs it: pip install 'clozemill[{extra}]'")


def function(path: str) -> Callable[..., Any]:
    """Return the function named by "module:function", and suppress the messages that libraries print during import.

    Raises UserError where the module needs a package of the extra `train` that isn't installed.
    """
    module, name = path.split(":")
    with _explained():
        return _imported(module, name)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Raise UserError for an import within the block of a package of the extra `train` that isn't installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in TRAIN:
            check_train()
        raise


def run(path: str, config: Any, *arguments: Any, checks: bool = True) -> int:
    """Check a configuration, then import and run its command, and return the exit code.

    What its libraries read from the environment is set before they are imported.

    Args:
        path: the command's function, "module:function".
        config: its configuration.
        arguments: what else the function gets.
        checks: False leaves all checks to the function.
    """
    if checks:
        check_before_start(config)
        overwriting.check_outputs(config)
    for name, value in config.environment().items() if hasattr(config, "environment") else ():
        if name != _BACKEND or "keras" not in sys.modules:  # a loaded Keras keeps its backend, so the variable would be false
            os.environ.setdefault(name, value)  # before a library that reads it is imported
    with _explained():  # some parts, such as the SavedModel, load TensorFlow only when they run
        return function(path)(config, *arguments) or 0


@contextlib.contextmanager
def _without_unused() -> Iterator[None]:
    """Hide packages that only slow down the start, unless this process belongs to another program, which may use them."""
    backend = os.environ.get(_BACKEND, "tensorflow")
    names = [name for name in _UNUSED if process.PROGRAM and name not in sys.modules and name != backend]
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]  # None: an import of it fails
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pause the garbage collector: it would traverse the millions of objects of an import again and again, and free none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _imported(module: str, name: str) -> Callable[..., Any]:
    quiet = contextlib.nullcontext() if verbosity.is_verbose() else process.quiet()
    with quiet, _without_unused(), _without_garbage_collection():
        function = getattr(importlib.import_module(module), name)
        if "tensorflow" in sys.modules:
            sys.modules["tensorflow"].config.list_physical_devices()  # searches for GPUs, and prints messages about it
    return function
