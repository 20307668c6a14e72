"""`--engine jax` on a machine where TensorFlow isn't installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests import absent
from tests.trainers import datasets

# Commands in one process, as it takes seconds to start; each must succeed.
RUN = """
import json, shutil
import clozemill
from clozemill.model.config import PRESETS
PRESETS["tiny"]["num_hidden_layers"] = 1
for words in json.load(sys.stdin):
    if words[0] == "remove":
        shutil.rmtree(words[1])
    elif clozemill.main(words) and words[0] != "doctor":  # whose exit code says that there are findings
        sys.exit(f"{words[0]} failed")
assert not [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "tensorflow_text")]
"""
OPTIONS = ["--engine", "jax", "--preset", "tiny", "--max-position-embeddings", "16", "--batch-size", "8", "--steps", "4"]
OPTIONS += ["--checkpoint-steps", "2", "--eval-steps", "2", "--log-steps", "2", "--learning-rate", "2e-3"]
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}


def run(code: str, *words: str, given: object = None) -> subprocess.CompletedProcess:
    """Run code in a process that can't import TensorFlow."""
    program = [sys.executable, "-c", absent.without(("tensorflow", "tensorflow_text"), code), *words]
    pipes = {"input": json.dumps(given), "capture_output": True, "text": True}
    return subprocess.run(program, env=os.environ | ENVIRONMENT, **pipes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "data").mkdir()
    datasets.write(folder / "data", [[30, 40]], [24])
    return folder


def test_a_run_is_trained_resumed_evaluated_and_used(folder: Path) -> None:
    pretrain = ["pretrain", "--data", f"{folder}/data", "--output", f"{folder}/run", *OPTIONS]
    evaluate = [
        "evaluate",
        f"{folder}/run",
        "--data",
        f"{folder}/data",
        "--engine",
        "jax",
        "--output",
        f"{folder}/figures.json",
    ]
    last = f"{folder}/run/checkpoints/step-00000004"
    embed = ["embed", f"{folder}/run", "--text", "5 6", "--max-seq-length", "16", "--engine", "jax"]
    commands = [
        pretrain,
        ["remove", last],
        pretrain,
        evaluate,
        embed,
        ["compare", f"{folder}/run"],
        ["doctor", f"{folder}/run"],
    ]
    done = run(RUN, given=commands)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming after step 2\n" in done.stdout and "masked LM loss" in done.stdout
    assert json.loads((folder / "figures.json").read_text())["examples"] == 24
    assert "encoder/layer_0/attention/query/kernel" in load_file(f"{last}/weights.safetensors")
    assert list((folder / "run/tensorboard").iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["pretrain", "--data", "{folder}/data", "--output", "{folder}/other", "--preset", "tiny", "--steps", "2"],
        pytest.param(["evaluate", "{folder}", "--data", "{folder}/data"], marks=pytest.mark.slow),
    ],
)
def test_what_needs_tensorflow_says_so(words: list[str], folder: Path) -> None:
    done = run("import clozemill\nsys.exit(clozemill.main())", *[word.format(folder=folder) for word in words])
    assert done.returncode == 2
    assert done.stderr == (
        "clozemill: --engine tensorflow, the default, needs TensorFlow, and it isn't installed: give --engine jax, or pip "
        "install 'clozemill[train]'\n"
    )
