"""Checkpoints of google-research/bert, written here with TensorFlow in the same way."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion import tf1
from clozemill.model.conversion.hf_tokenizer import ForeignTokenizer
from tests.model.conversion.test_weight_names import expected, same, weights

SETTINGS = {
    "vocab_size": 11, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 6,
    "max_position_embeddings": 5, "type_vocab_size": 3, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02,
}  # fmt: skip
MORE = {
    "global_step": np.int64(7), "bert/pooler/dense/bias/adam_m": np.ones(4, np.float32),
    "bert/embeddings/word_embeddings/adam_v": np.ones((11, 4), np.float32),
}  # fmt: skip


def write(folder: Path, variables: dict[str, np.ndarray], name: str = "bert_model.ckpt") -> Path:
    """Write a checkpoint of plain names, like a TF1 Saver, with its configuration and a vocabulary."""
    folder.mkdir(exist_ok=True)
    names = sorted(variables)
    tf.raw_ops.SaveV2(
        prefix=str(folder / name), tensor_names=names, shape_and_slices=[""] * len(names),
        tensors=[tf.constant(variables[name]) for name in names],
    )  # fmt: skip
    (folder / "bert_config.json").write_text(json.dumps(SETTINGS))
    (folder / "vocab.txt").write_bytes(b"[PAD]\n[UNK]\n")
    return folder


def theirs() -> dict[str, np.ndarray]:
    mine = weights()
    return {about[1]: mine[ours].T if "tf1" in about[3] else mine[ours] for ours, about in expected().items()}


def test_a_checkpoint_is_imported(tmp_path: Path) -> None:
    found = tf1.read(write(tmp_path / "bert", theirs() | MORE))
    assert same(found.converted.weights, weights()) and found.converted.parts == ("pooler", "masked_lm", "next_sentence")
    assert found.config == EncoderConfig(11, 4, 2, 2, 6, 5, 3, "gelu_tanh")
    assert found.tokenizer == ForeignTokenizer(("[PAD]", "[UNK]")) and found.format == "tf1"


def test_optimizer_slots_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, reader = [], tf.train.load_checkpoint

    class Counting:
        def __init__(self, prefix: str) -> None:
            self.inner = reader(prefix)
            self.get_variable_to_shape_map = self.inner.get_variable_to_shape_map
            self.get_variable_to_dtype_map = self.inner.get_variable_to_dtype_map

        def get_tensor(self, name: str) -> np.ndarray:
            read.append(name)
            return self.inner.get_tensor(name)

    folder = write(tmp_path / "bert", theirs() | MORE)
    monkeypatch.setattr(tf.train, "load_checkpoint", Counting)
    tf1.read(folder)
    assert sorted(read) == sorted(theirs())


def test_a_fine_tuned_checkpoint_with_another_name(tmp_path: Path) -> None:
    kept = {name: value for name, value in theirs().items() if not name.startswith("cls/")}
    heads = {"output_weights": np.ones((2, 4), np.float32), "output_bias": np.ones(2, np.float32)}
    found = tf1.read(write(tmp_path / "bert", kept | heads, "model.ckpt-1000")).converted
    assert found.parts == ("pooler",) and found.passed_over == ("output_bias", "output_weights")


def test_errors_name_the_file_or_tensor(tmp_path: Path) -> None:
    folder = write(tmp_path / "bert", theirs())

    def refused(sentence: str) -> None:
        with pytest.raises(ValueError, match=sentence):
            tf1.read(folder)

    (folder / "bert_config.json").write_text(json.dumps(SETTINGS | {"hidden_size": 8}))
    refused(r"the tensor bert/embeddings/word_embeddings has the shape \[11, 4\], and its configuration asks for \[11, 8\]")
    (folder / "bert_config.json").write_text(json.dumps(SETTINGS | {"hidden_act": "tanh"}))
    refused("^bert_config.json: hidden_act 'tanh' is unknown to clozemill")
    (folder / "bert_config.json").write_text("[]")
    refused("^bert_config.json is not a JSON object")
    (folder / "bert_config.json").unlink()
    refused("^bert_config.json is missing")
    write(folder, theirs())
    (folder / "vocab.txt").unlink()
    refused("^vocab.txt is missing")
    write(folder, theirs() | {"bert/more": np.ones(2, np.float32)})
    refused("the tensor bert/more has no place")
    write(folder, {name: value for name, value in theirs().items() if name != "bert/pooler/dense/bias"})
    refused("the tensor bert/pooler/dense/bias is missing")
    (folder / "bert_model.ckpt.index").write_bytes(b"nothing")
    refused(r"bert_model.ckpt can't be read \(")
    (folder / "bert_model.ckpt.index").unlink()
    refused("bert_model.ckpt.index is missing")
    write(folder, theirs())
    write(folder, theirs(), "other.ckpt-3")
    refused(r"it holds 2 checkpoints \(bert_model.ckpt.index, other.ckpt-3.index\)")


def test_reference_folders_are_recognized(tmp_path: Path) -> None:
    assert not tf1.is_folder(tmp_path)
    assert tf1.is_folder(write(tmp_path / "bert", theirs()))
