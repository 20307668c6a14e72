"""Import: Hugging Face's folders and the reference's checkpoints there and back to the bit, and mistakes as one sentence."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import clozemill
from model import hf
from model.conversion import table
from pipelines.wordpiece import Vocabulary
from tests.model import sources, test_tf1
from trainers import checkpoints, export, importing
from trainers.checkpoints import Saved
from trainers.config_export import ImportConfig

HEADS = {
    "mlm+nsp": ("mlm+nsp", ["pooler", "masked_lm", "next_sentence"]), "mlm": ("mlm", ["masked_lm"]),
    "causal": ("causal", ["masked_lm"]), "encoder": ("", ["pooler"]), "bare": ("", []), "classify": ("", ["pooler"]),
    "tags": ("", []),
}  # fmt: skip
VOCABULARY = "".join(f"{token}\n" for token in sources.TOKENS).encode()


def run(source: Path, output: Path, *arguments: str) -> int:
    return clozemill.main(["import", str(source), "--output", str(output), *arguments])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Hugging Face folders; read them only."""
    base = tmp_path_factory.mktemp("hf")
    return {name: sources.written(hf, name, base / name) for name in HEADS}


def imported(source: Path, output: Path, *arguments: str) -> Saved:
    assert run(source, output, *arguments) == 0
    return checkpoints.find(str(output))


@pytest.mark.parametrize("name", HEADS)
def test_there_and_back_is_the_same_to_the_bit(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    one = imported(folders[name], tmp_path / "checkpoint")
    objective, heads = HEADS[name]
    source = sources.source(name)
    assert one.index["encoder"] == source.config.to_dict() and one.step == 0 and one.index["objective"] == objective
    told = {"sha256": hashlib.sha256(VOCABULARY).hexdigest(), "size": len(sources.TOKENS), "cased": False}
    assert one.index["vocabulary"] == told and (tmp_path / "checkpoint/vocab.txt").read_bytes() == VOCABULARY
    assert one.index["imported"] == {"from": name, "format": "hf", "heads": heads}
    again = tmp_path / "again"
    again.mkdir()
    hf.write(export.read(one), str(again))
    before, after = load_file(folders[name] / "model.safetensors"), load_file(again / "model.safetensors")
    before = {path: value for path, value in before.items() if not path.startswith("classifier")}
    assert before.keys() == after.keys()
    assert all(before[path].tobytes() == after[path].tobytes() for path in before)
    for file in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        assert (folders[name] / file).read_bytes() == (again / file).read_bytes()


def test_what_is_told(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    imported(folders["classify"], tmp_path / "checkpoint")
    told = capsys.readouterr().out
    assert f"{folders['classify']}: 2 layers, 16 wide, {len(sources.TOKENS)} entries, uncased, " in told
    assert "; with pooler\n" in told and "note: passed over: classifier.bias, classifier.weight\n" in told
    (changed := tmp_path / "nsp").mkdir()
    for file in folders["mlm+nsp"].iterdir():
        shutil.copy(file, changed)
    tensors = load_file(changed / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if not name.startswith("cls.predictions")}
    save_file(kept, changed / "model.safetensors")
    one = imported(changed, tmp_path / "other")
    assert "note: passed over: the next-sentence head, for want of the masked-LM head\n" in capsys.readouterr().out
    assert one.index["objective"] == "" and one.index["imported"]["heads"] == ["pooler"]
    assert not any(path.startswith("next_sentence") for path in checkpoints.weights(one))
    assert export.read(one).parts == ("pooler",)


def tf1_folder(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """(a folder as google-research/bert's, our weights)."""
    source = sources.source()
    mine = source.weights()
    variables = {entry.tf1: mine[entry.ours].T if "tf1" in entry.turned else mine[entry.ours] for entry in table(source.config)}
    test_tf1.write(folder, variables | {"global_step": np.int64(7)})
    settings = {name: getattr(source.config, name) for name in test_tf1.SETTINGS if name != "hidden_act"}
    (folder / "bert_config.json").write_text(json.dumps(settings | {"hidden_act": "gelu"}))
    (folder / "vocab.txt").write_bytes(VOCABULARY)
    return folder, mine


def test_the_reference_s_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, mine = tf1_folder(tmp_path / "tf1")
    one = imported(folder, tmp_path / "checkpoint")
    found = checkpoints.weights(one)
    assert found.keys() == mine.keys() and all(found[name].tobytes() == mine[name].tobytes() for name in mine)
    assert one.index["encoder"]["hidden_act"] == "gelu_tanh" and one.index["objective"] == "mlm+nsp"
    assert one.index["vocabulary"]["cased"] is True  # there are capitals in it
    told = "note: its files don't tell the casing; by the vocabulary it is cased (else: --no-cased)\n"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "told", "cased", "note"),
    [
        ([], True, True, None),
        (["--no-cased"], None, False, None),
        (["--cased"], None, True, None),
        (["--cased"], False, True, "note: its files say it is uncased: not heeded"),
        (["--no-cased"], True, False, "note: its files say it is cased: not heeded"),
    ],
)
def test_casing(
    flag: list[str], told: bool | None, cased: bool, note: str | None, folders: dict[str, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    folder = Path(shutil.copytree(folders["encoder"], tmp_path / "hf"))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({} if told is None else {"do_lower_case": not told}))
    assert imported(folder, tmp_path / "checkpoint", *flag).index["vocabulary"]["cased"] is cased
    out = capsys.readouterr().out
    assert (note in out) if note else ("note:" not in out)


def test_a_vocabulary_without_capitals_is_taken_as_uncased() -> None:
    small = Vocabulary.from_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b"])
    found = hf.Imported("hf", sources.SMALL, None, b"", None)
    assert importing._casing(found, small, None) == (
        False, "its files don't tell the casing; by the vocabulary it is uncased (else: --cased)",
    )  # fmt: skip


def break_(folder: Path, what: str) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    if what == "shape":
        save_file(tensors | {"bert.pooler.dense.bias": np.ones(3, np.float32)}, weights)
    elif what == "missing":
        save_file({name: value for name, value in tensors.items() if name != "bert.pooler.dense.bias"}, weights)
    elif what == "pickled":
        weights.unlink()
        (folder / "pytorch_model.bin").write_bytes(b"")
    elif what == "cut":
        weights.write_bytes(weights.read_bytes()[:500])
    elif what == "config":
        (folder / "config.json").unlink()
    elif what == "shorter":
        (folder / "vocab.txt").write_bytes(b"\n".join(VOCABULARY.split(b"\n")[:-2]) + b"\n")
    elif what == "twice":
        (folder / "vocab.txt").write_bytes(VOCABULARY + b"the\n")
    elif what == "special":
        (folder / "vocab.txt").write_bytes(VOCABULARY.replace(b"[CLS]", b"[cls]"))
    elif what == "roberta":
        (folder / "config.json").write_text((folder / "config.json").read_text().replace('"bert"', '"roberta"'))


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("shape", "FOLDER: the tensor bert.pooler.dense.bias has the shape [3], and its configuration asks for [16]: give"),
        ("missing", "FOLDER: the tensor bert.pooler.dense.bias is missing: give a folder of a BERT encoder"),
        ("pickled", "FOLDER: its weights are pickled, which clozemill never opens: save them as model.safetensors first: give"),
        ("cut", "FOLDER: model.safetensors can't be read ("),
        ("config", "FOLDER has neither config.json nor bert_config.json: give a folder"),
        (
            "shorter",
            "FOLDER: the vocabulary has MINUS tokens, and the tensor of the word embeddings ALL rows: give the vocabulary",
        ),
        ("twice", "FOLDER's vocabulary, line MORE: 'the' stands already at line 7: remove one"),
        ("special", "FOLDER's vocabulary lacks [CLS]: give a vocab.txt"),
        ("roberta", "FOLDER: config.json: its model_type is 'roberta', and only 'bert' is BERT-shaped: give a folder"),
    ],
)
def test_mistakes_are_one_sentence(
    what: str, sentence: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(shutil.copytree(folders["mlm+nsp"], tmp_path / "hf"))
    break_(folder, what)
    assert run(folder, tmp_path / "checkpoint") == 2
    told, count = capsys.readouterr().err, len(sources.TOKENS)
    for word, value in (("FOLDER", folder), ("MINUS", count - 1), ("MORE", count + 1), ("ALL", count)):
        sentence = sentence.replace(word, str(value))
    assert told.startswith(f"clozemill: {sentence}") and told.count("\n") == 1
    assert not (tmp_path / "checkpoint").exists()


def test_nothing_is_overwritten(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    imported(folders["mlm"], tmp_path / "checkpoint")
    before = {path.name: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()}
    assert run(folders["mlm"], tmp_path / "checkpoint") == 2
    assert f"{tmp_path}/checkpoint is there already: remove it, or give another --output" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()} == before


def test_the_function_takes_its_configuration(folders: dict[str, Path], tmp_path: Path) -> None:
    assert importing.main(ImportConfig(str(folders["mlm"]), str(tmp_path / "checkpoint"), cased=True)) == 0
    assert checkpoints.find(str(tmp_path / "checkpoint")).index["vocabulary"]["cased"] is True
