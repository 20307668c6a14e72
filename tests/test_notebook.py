"""The tutorial notebook runs from top to bottom."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs/tutorials/from-python.ipynb"


@pytest.mark.slow
@pytest.mark.usefixtures("one_layer")
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """In this process, since a new one takes seconds to start, and with two training steps instead of thirty."""
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 5 and all(not cell["outputs"] for cell in code)  # it is stored without outputs
    source = "\n\n".join("".join(cell["source"]) for cell in code)
    assert source.count("steps=30,") == source.count("warmup_steps=5,") == 1
    source = source.replace("steps=30,", "steps=2, eval_steps=2,").replace("warmup_steps=5,", "warmup_steps=1,")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names: dict[str, Any] = {}
    exec(compile(source, NOTEBOOK.name, "exec"), names)
    run, metrics, encoded = (names[name] for name in ("run", "metrics", "found"))
    assert run.step == 2 and run.metrics["masked_lm_loss"] > 0 and Path(run.checkpoint).exists()
    assert metrics["masked_lm_loss"] == pytest.approx(run.metrics["masked_lm_loss"], rel=1e-5)
    assert encoded["sequence_output"].shape[:2] == encoded["input_ids"].shape and encoded["pooled_output"].shape == (2, 128)
    assert "unknown option 'dupe_facter'; did you mean dupe_factor?" in capsys.readouterr().out
