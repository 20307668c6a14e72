"""The Keras file, compared with the source, loaded and trained in a process without clozemill."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from clozemill.model.export import keras_file
from clozemill.model.export.base import TOLERANCE, answers, furthest
from clozemill.model.task_model import Task
from tests.model import sources
from tests.slow import mostly_slow, mostly_slow_rows

NAMES = [*sources.INDEXES, "bilstm", "layers"]
MODERN = sources.MODERN
SWITCHES = [{"hidden_act": "gelu_erf"}, {"hidden_act": "relu"}, {"layer_norm_eps": 0.5, "type_vocab_size": 3}]
SIZES = [*((name, {}) for name in NAMES), *((name, MODERN) for name in ("mlm+nsp", "causal", "tags"))]
MORE = {
    "bilstm": {"task": Task("tags", ("O", "B"), head="bilstm", layers=(-1, -2)).to_dict()},
    "layers": {"task": Task("classify", ("no", "yes"), layers=(0, -2)).to_dict()},
}

# Imports only from site-packages, loads the file with Keras alone, compares, and runs a training step.
ELSEWHERE = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("clozemill", "model", "trainers", "pipelines", "tests"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1])
given = dict(np.load(sys.argv[2]))
inputs = {name: given.pop(name) for name in ("input_ids", "input_mask", "segment_ids")}
found = model(inputs)
seen = inputs["input_mask"] > 0
worst = max(np.abs(np.asarray(found[name])[seen] - given[name][seen]).max() if given[name].shape[:2] == seen.shape
            else np.abs(np.asarray(found[name]) - given[name]).max() for name in given)
print("names", *sorted(found))
print("worst", worst)
import tensorflow as tf
with tf.GradientTape() as tape:
    answers = model(inputs, training=True)
    loss = sum(tf.reduce_mean(value ** 2) for value in answers.values())
gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
print("ungraded", *[v.path for v, g in zip(model.trainable_variables, gradients) if g is None])
print("dropout", float(np.abs(answers["sequence_output"] - found["sequence_output"]).max()))
"""


@pytest.mark.parametrize(
    ("name", "sizes"), mostly_slow_rows(SIZES, ("mlm+nsp", {}), ("classify", {}), ("mlm+nsp", sources.MODERN))
)
def test_outputs_match_the_source(name: str, sizes: dict, tmp_path: Path) -> None:
    source, features = sources.source(name, MORE.get(name), **sizes), sources.features()
    keras_file.write(source, str(tmp_path))
    expected, found = answers(source, features), keras_file.outputs(str(tmp_path), sources.TEXTS, features)
    assert found.keys() == expected.keys() - ({"pooled_output"} if name == "bare" else set())
    assert max(furthest(expected, found, features["input_mask"]).values()) <= TOLERANCE


def test_a_head_that_the_last_phase_does_not_use_is_left_out(tmp_path: Path) -> None:
    """As in the source, whose outputs it is compared with."""
    source, features = sources.source("mlm", {"objective": "mlm", "objectives": ["mlm+nsp", "mlm"]}), sources.features()
    keras_file.write(source, str(tmp_path))
    expected, found = answers(source, features), keras_file.outputs(str(tmp_path), sources.TEXTS, features)
    assert found.keys() == expected.keys() == {"sequence_output", "pooled_output", "masked_lm_logits"}
    assert max(furthest(expected, found, features["input_mask"]).values()) <= TOLERANCE


@pytest.mark.parametrize("sizes", mostly_slow(SWITCHES, SWITCHES[-1]))
def test_configuration_switches(sizes: dict, tmp_path: Path) -> None:
    source, features = sources.source(**sizes), sources.features()
    keras_file.write(source, str(tmp_path))
    found = keras_file.outputs(str(tmp_path), sources.TEXTS, features)
    assert max(furthest(answers(source, features), found, features["input_mask"]).values()) <= TOLERANCE
    plain = answers(sources.source(), features)
    assert max(furthest(plain, found, features["input_mask"]).values()) > 100 * TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sizes"), [("mlm+nsp", {}), ("bilstm", {}), ("mlm+nsp", MODERN)])
def test_it_loads_without_clozemill(name: str, sizes: dict, tmp_path: Path) -> None:
    source, features = sources.source(name, MORE.get(name), **sizes), sources.features()
    keras_file.write(source, str(tmp_path))
    expected = answers(source, features)
    np.savez(tmp_path / "data.npz", **features, **expected)
    arguments = [str(tmp_path / "model.keras"), str(tmp_path / "data.npz")]
    done = subprocess.run([sys.executable, "-I", "-c", ELSEWHERE, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = dict((*line.split(" ", 1), "")[:2] for line in done.stdout.splitlines())
    assert told["names"].split() == sorted(expected)
    assert float(told["worst"]) <= TOLERANCE and told["ungraded"] == "" and float(told["dropout"]) > 0.1


@pytest.mark.parametrize(("sizes", "attention"), [({}, "MultiHeadAttention"), (MODERN, "Softmax")], ids=["bert", "modernbert"])
def test_it_contains_only_stock_classes(sizes: dict, attention: str, tmp_path: Path) -> None:
    """No Lambda, no registered class, none of our classes."""
    keras_file.write(sources.source(**sizes), str(tmp_path))
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        config = json.loads(file.read("config.json"))
    modules, classes = set(), set()

    def walk(value) -> None:
        if isinstance(value, dict):
            if "class_name" in value and "module" in value:
                modules.add(str(value["module"]).split(".")[0])
                classes.add(value["class_name"])
                assert not value.get("registered_name") or value["registered_name"] in ("Functional", value["class_name"])
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(config)
    assert modules <= {"keras", "builtins"} and "Lambda" not in classes and {"Dropout", attention} <= classes


def test_dropout_rates_match_the_source(tmp_path: Path) -> None:
    source = sources.source(hidden_dropout_prob=0.25, attention_probs_dropout_prob=0.125)
    model = keras_file.functional(source)
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [0.25] * 5
    assert [layer.dropout for layer in model.layers if isinstance(layer, keras.layers.MultiHeadAttention)] == [0.125] * 2


def test_a_changed_weight_is_detected() -> None:
    """The comparison fails for a single bias that is off by 0.001."""
    source, features = sources.source(), sources.features()
    expected, model = answers(source, features), keras_file.functional(source)
    bias = model.get_layer("layer_0_intermediate").bias
    bias.assign(np.asarray(bias) + 1e-3 * (np.arange(32) == 5))
    found = {name: np.asarray(value) for name, value in model(features).items()}
    assert max(furthest(expected, found, features["input_mask"]).values()) > TOLERANCE
