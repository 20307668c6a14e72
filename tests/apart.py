"""Code that needs transformers and torch, in a process without TensorFlow: in one with it, triton crashes the interpreter."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clozemill.model.export import hf_process

ROOT = Path(__file__).parents[1]
BEGIN = "import json, sys; sys.modules['tensorflow'] = None; given = json.load(sys.stdin)\n"
needs_transformers = pytest.mark.skipif(bool(hf_process.missing()), reason="needs transformers and torch: make test-hf")
needs_sentence_transformers = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None, reason="needs sentence-transformers: make test-hf"
)


def run_apart(code: str, given: Any = None, folder: Path = ROOT) -> Any:
    """Run code in a folder. The code gets the variable `given` and returns the variable `found`, both as JSON."""
    code = f"{BEGIN}{code}\nprint('found:' + json.dumps(found))"
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(given), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.rsplit("found:", 1)[1])


def pretend_torch(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a fake torch, which runs some code when imported, and an empty transformers first on the path."""
    for name, source in (("torch", code), ("transformers", "")):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
