"""Importing a command: packages that only slow down the start are hidden from a program, and from no other process."""

import importlib.util
import os
import sys
import types
from pathlib import Path

import pytest

from clozemill.pipelines.command_line import lazy_import, process

NAMES = ("jax", "matplotlib", "sklearn", "numpy")
COMMAND = (
    f"import importlib.util\nfound = [name for name in {NAMES} if importlib.util.find_spec(name)]\ndef main(): return found\n"
)


@pytest.mark.parametrize(
    ("program", "backend", "seen"),
    [
        (["clozemill"], "tensorflow", ["numpy"]),
        (["clozemill"], "jax", ["jax", "numpy"]),
        ([], "tensorflow", ["jax", "matplotlib", "sklearn", "numpy"]),
    ],
)
def test_unused_packages_are_hidden_while_a_command_is_imported(
    program: list[str], backend: str, seen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [name for name in NAMES if importlib.util.find_spec(name)]
    (tmp_path / "a_command.py").write_text(COMMAND)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(process, "PROGRAM", program)
    monkeypatch.setenv("KERAS_BACKEND", backend)
    for name in NAMES[:3]:
        monkeypatch.delitem(sys.modules, name, raising=False)  # as in a new process
    monkeypatch.delitem(sys.modules, "a_command", raising=False)
    assert lazy_import.function("a_command:main")() == [name for name in seen if name in there]
    assert [name for name in NAMES if importlib.util.find_spec(name)] == there
    monkeypatch.delitem(sys.modules, "a_command")


class Config:
    """A configuration of a command on JAX."""

    def environment(self) -> dict[str, str]:
        return {"KERAS_BACKEND": "jax"}


@pytest.mark.parametrize("loaded", [False, True])
def test_a_loaded_keras_keeps_its_backend(loaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next command of the process would be refused because of a variable that its user never set."""
    monkeypatch.setenv("KERAS_BACKEND", "")  # restored after the test
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setattr(lazy_import, "function", lambda path: lambda config: 0)
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    if loaded:
        monkeypatch.setitem(sys.modules, "keras", types.ModuleType("keras"))
    assert lazy_import.run("a_command:main", Config(), checks=False) == 0
    assert os.environ.get("KERAS_BACKEND") == (None if loaded else "jax")
