"""Imports the module of a command when it runs."""

import contextlib
import importlib
import sys
from collections.abc import Callable
from typing import Any

from clozemill.pipelines.command_line import process


def function(path: str) -> Callable[..., Any]:
    """The function of a "module:function", without the messages that libraries print when they are imported."""
    module, name = path.split(":")
    with contextlib.nullcontext() if "--debug" in sys.argv else process.quiet():
        function = getattr(importlib.import_module(module), name)
        if "tensorflow" in sys.modules:
            sys.modules["tensorflow"].config.list_physical_devices()  # it looks for GPUs here, and says so
    return function
