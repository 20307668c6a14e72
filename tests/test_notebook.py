"""The tutorial notebook runs from top to bottom in a fresh process."""

import json
import subprocess
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).parents[1] / "docs/tutorials/from-python.ipynb"


def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 5 and all(not cell["outputs"] for cell in code)  # it is stored without outputs
    source = "\n\n".join("".join(cell["source"]) for cell in code)
    done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "unknown option 'dupe_facter'; did you mean dupe_factor?" in done.stdout
