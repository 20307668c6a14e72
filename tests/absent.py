"""Simulates, in another process, packages that aren't installed."""

from collections.abc import Collection

_HIDDEN = """
import importlib.machinery, sys
sys.path_importer_cache.clear()
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {names} else find(name, package)
"""
_COMMAND = """
import clozemill
sys.exit(clozemill.main())
"""


def without(names: Collection[str], code: str = _COMMAND) -> str:
    """Return code that hides some packages, and then runs other code: by default, the command in the program's arguments."""
    return _HIDDEN.format(names=sorted(names)) + code
