"""Faults planted in runs that train: the trainer warns of them once, and doctor names them afterwards."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import clozemill
from clozemill.pipelines.examples import columns
from tests.trainers import datasets

pytestmark = pytest.mark.usefixtures("one_layer")
STEPS = 320
hidden = datasets.examples
COMMON = ["--preset", "tiny", "--max-position-embeddings", "16", "--batch-size", "8", "--log-steps", "10", "--eval-steps", "80",
          "--no-tensorboard", "--initializer-range", "0.02", "--weight-decay", "0.01", "--dropout", "0", "--attention-dropout",
          "0", "--clip-norm", "1", "--warmup-steps", "24", "--learning-rate", "2e-3"]  # fmt: skip


def visible(count: int, stream: np.random.Generator) -> columns.Columns:
    """Examples whose inputs show the tokens to predict."""
    made = hidden(count, stream)
    ids = made.input_ids.copy()
    for row, weights in enumerate(made.masked_lm_weights):
        ids[row, made.masked_lm_positions[row][weights > 0]] = made.masked_lm_ids[row][weights > 0]
    return replace(made, input_ids=ids)


PLANTED = {
    "random tokens": ("plateau", []),
    "a small learning rate": ("rate_too_low", ["--learning-rate", "1e-6"]),
    "large initial weights": ("wrong_start", ["--initializer-range", "0.6"]),
    "a large learning rate": ("rate_too_high", ["--learning-rate", "0.5"]),
    "visible answers": ("answers_visible", []),
    "one small copy": ("masks_repeat", []),
    "an endless learning rate": ("diverged", ["--learning-rate", "100", "--weight-decay", "10", "--clip-norm", "0"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    kind, options = PLANTED[name]
    if name == "visible answers":
        monkeypatch.setattr(datasets, "examples", visible)
    copies = [[60]] if name == "one small copy" else [[300, 300]] * 4
    datasets.write(tmp_path / "data", copies, [200])
    words = ["pretrain", *COMMON, "--data", str(tmp_path / "data"), "--output", str(tmp_path / "run"), "--steps", str(STEPS)]
    assert clozemill.main([*words, *options]) == (1 if kind == "diverged" else 0)
    told = capsys.readouterr().err
    assert told.count(f"({kind})") == (0 if kind == "diverged" else 1)  # the loop says that itself
    findings = tmp_path / "findings.json"
    assert clozemill.main(["doctor", str(tmp_path / "run"), "--output", str(findings)]) == 1
    assert kind in [finding["kind"] for finding in json.loads(findings.read_text())["findings"]]
