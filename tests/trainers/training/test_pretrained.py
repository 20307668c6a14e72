"""Initial weights: a checkpoint whose vocabulary, sizes or values were changed is rejected."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import clozemill
from clozemill.model.config import EncoderConfig
from clozemill.model.export import savedmodel
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.tokenizer_rules import TextRules
from clozemill.trainers.export import export
from clozemill.trainers.training import checkpoint_index, checkpoints, pretrained
from tests.model import sources
from tests.trainers import models


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a fine-tuned model; read-only."""
    return models.checkpoint(tmp_path_factory.mktemp("good") / "checkpoint", "classify")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "checkpoint"))


def swap(folder: Path) -> None:
    """Swap two tokens: the size of the file doesn't change."""
    path = folder / "vocab.txt"
    lines = path.read_bytes().split(b"\n")
    lines[6], lines[7] = lines[7], lines[6]
    path.write_bytes(b"\n".join(lines))


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "FOLDER", "--text", "the mill"],
        ["export", "FOLDER", "--output", "OUT"],
        ["embed", "FOLDER", "--input", "TEXTS", "--output", "OUT.parquet"],
        ["evaluate", "FOLDER", "--data", "TEXTS"],
        ["finetune", "--init", "FOLDER", "--task", "cola", "--train", "TEXTS", "--dev", "TEXTS", "--output", "OUT"],
        ["pretrain", "--init", "FOLDER", "--data", "OUT", "--output", "RUN"],
    ],
)
def test_a_swapped_vocabulary_is_rejected(
    command: list[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    swap(folder)
    (tmp_path / "texts.tsv").write_text("the mill\n")
    places = {"FOLDER": folder, "TEXTS": tmp_path / "texts.tsv", "OUT": tmp_path / "out", "RUN": tmp_path / "run"}
    places["OUT.parquet"] = tmp_path / "out.parquet"
    assert clozemill.main([str(places.get(word, word)) for word in command]) == 2
    told = capsys.readouterr().err
    if command[0] != "pretrain":  # which checks its dataset or its initial weights first
        assert told.startswith(f"clozemill: {folder} is corrupt (vocab.txt is not the vocabulary that it was written with")
    assert told.count("\n") == 1


def test_a_corrupt_checkpoint_is_replaced_by_the_previous_one(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for step in (10, 20):
        shutil.copytree(good, tmp_path / f"checkpoints/step-{step:08d}")
    swap(tmp_path / "checkpoints/step-00000020")
    assert checkpoints.find(str(tmp_path)).folder.endswith("step-00000010")
    assert "step-00000020 is corrupt (vocab.txt is not the vocabulary" in capsys.readouterr().err
    swap(tmp_path / "checkpoints/step-00000010")
    with pytest.raises(UserError, match="checkpoints: every checkpoint is corrupt: restore one, or give another run"):
        checkpoints.find(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_size": 1 << 40, "num_attention_heads": 4}, r"embeddings/word_embeddings has the shape \[\d+, 16\], and its"),
        ({"vocab_size": 1 << 40}, r"embeddings/word_embeddings has the shape"),
        ({"max_position_embeddings": 1 << 40}, r"embeddings/position_embeddings has the shape"),
        ({"intermediate_size": 1 << 40}, r"layer_0/intermediate/kernel has the shape"),
        ({"num_hidden_layers": 900}, "the tensor encoder/layer_2/attention/query/kernel is missing"),
        ({"num_hidden_layers": 1}, "it has 2 layers, and its configuration asks for 1"),
        ({"hidden_size": 16.0}, "must be integers"),
        ({"num_attention_heads": 0}, "must be integers"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan"),
        ({"more": 1}, "this version doesn't know its encoder, objective or task"),
    ],
)
def test_sizes_are_checked_before_a_model_is_built(changes: dict, sentence: str, folder: Path) -> None:
    """A model of these sizes would exceed the available memory."""
    index = json.loads((folder / "checkpoint.json").read_text())
    index["encoder"] |= changes
    (folder / "checkpoint.json").write_bytes(checkpoint_index.dumps(index))  # anyone who changes it can sign it
    with pytest.raises(UserError, match=sentence):
        pretrained.read(str(folder))
    with pytest.raises(UserError, match=sentence):
        export.read(checkpoints.find(str(folder)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_weights_are_rejected(value: float, tmp_path: Path) -> None:
    one = checkpoints.find(str(models.checkpoint(tmp_path / "good", "classify")))
    weights = checkpoints.weights(one)
    weights["encoder/layer_1/output/bias"][3] = value
    checkpoints.write(str(tmp_path / "bad"), {"weights": weights}, models.VOCABULARY, one.index)
    for read in (pretrained.read, lambda path: export.read(checkpoints.find(path))):
        with pytest.raises(UserError, match=r"the tensor encoder/layer_1/output/bias holds NaN or infinite values"):
            read(str(tmp_path / "bad"))


def test_tokenizer_rules_are_loaded(folder: Path) -> None:
    index = json.loads((folder / "checkpoint.json").read_text())
    index["vocabulary"] |= {"strip_accents": False, "max_word_chars": 50}
    (folder / "checkpoint.json").write_bytes(checkpoint_index.dumps(index))  # anyone who changes it can sign it
    assert pretrained.read(str(folder)).rules == TextRules(False, max_word_chars=50)
    index["vocabulary"]["max_word_chars"] = 10**9
    (folder / "checkpoint.json").write_bytes(checkpoint_index.dumps(index))  # anyone who changes it can sign it
    with pytest.raises(UserError, match=r"can't be used .max_word_chars is 1000000000, not a number from 1 to 1,000"):
        pretrained.read(str(folder))


@pytest.mark.slow
def test_a_saved_model_is_read_without_being_loaded(tmp_path: Path) -> None:
    """Loading would run its operations; here there is no graph to load."""
    source = sources.source("classify", sources.INDEXES["classify"] | {"vocabulary": {"cased": False, "sha256": "0" * 64}})
    savedmodel.write(source, str(tmp_path / "saved"))
    (tmp_path / "saved/saved_model.pb").write_bytes(b"not a graph")
    found = pretrained.read(str(tmp_path / "saved"))
    assert all(np.array_equal(value, found.weights[name]) for name, value in source.weights().items())
    checkpoints.write(str(tmp_path / "again"), {}, found.vocabulary_bytes, found.index)
    assert checkpoints.find(str(tmp_path / "again")).index["vocabulary"]["sha256"] != "0" * 64  # with the matching size


def test_a_saved_model_without_tensorflow_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "saved_model.pb").touch()
    monkeypatch.setitem(sys.modules, "clozemill.model.conversion.savedmodel", None)  # as if its imports failed
    monkeypatch.delattr("clozemill.model.conversion.savedmodel", raising=False)
    with pytest.raises(UserError, match="is a SavedModel, which only TensorFlow reads, and it isn't installed: pip install"):
        pretrained.read(str(tmp_path))


@pytest.mark.slow
def test_a_huge_stated_size_allocates_nothing(folder: Path) -> None:
    """In a process of 6 GB of address space, which a model of these sizes would exceed."""
    index = json.loads((folder / "checkpoint.json").read_text())
    index["encoder"] |= {"hidden_size": 1 << 20, "intermediate_size": 1 << 22}
    (folder / "checkpoint.json").write_bytes(checkpoint_index.dumps(index))  # anyone who changes it can sign it
    code = (
        "import resource, sys, clozemill; resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30)); "
        f"sys.exit(clozemill.main(['export', {str(folder)!r}, '--output', {str(folder / 'out')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "has the shape" in done.stderr, done.stderr[-500:]


@pytest.mark.parametrize(
    ("changes", "length", "noted"),
    [({}, 64, False), ({}, 65, True), ({"architecture": "modernbert", "type_vocab_size": 0}, 65, False)],
)
def test_positions_that_no_example_has_trained(changes: dict, length: int, noted: bool, capsys: pytest.CaptureFixture) -> None:
    """A model with rotary positions has no embeddings of them."""
    encoder = EncoderConfig(vocab_size=100, max_position_embeddings=512, **changes).to_dict()
    model = pretrained.PretrainedModel("run", {"encoder": encoder, "trained_length": 64}, {}, b"")
    model.note_untrained_positions(length)
    told = capsys.readouterr().err
    note = "note: run was trained on at most 64 tokens: the embeddings of later positions are untrained (--max-seq-length 64 "
    assert told == (f"{note}truncates texts there)\n" if noted else "")
