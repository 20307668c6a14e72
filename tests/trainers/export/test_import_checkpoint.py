"""Import: bit-identical round trips of Hugging Face folders and reference checkpoints; errors are one sentence."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import clozemill
from clozemill.model.conversion.hf_tokenizer import ForeignTokenizer
from clozemill.model.conversion.imported import Imported
from clozemill.model.conversion.weight_names import table
from clozemill.model.export import huggingface
from clozemill.model.export.base import answers
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.export import export, import_checkpoint
from clozemill.trainers.export.config import ImportConfig
from clozemill.trainers.training import checkpoints
from clozemill.trainers.training.checkpoints import Checkpoint
from tests.model import sources
from tests.model.conversion import test_tf1
from tests.slow import mostly_slow

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
    """Hugging Face folders; read-only."""
    base = tmp_path_factory.mktemp("hf")
    return {name: sources.written(huggingface, name, base / name) for name in HEADS}


def imported(source: Path, output: Path, *arguments: str) -> Checkpoint:
    assert run(source, output, *arguments) == 0
    return checkpoints.find(str(output))


@pytest.mark.parametrize("name", mostly_slow(HEADS, "mlm+nsp", "tags"))
def test_round_trip_is_bit_identical(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    one = imported(folders[name], tmp_path / "checkpoint")
    objective, heads = HEADS[name]
    source = sources.source(name)
    assert one.index["encoder"] == source.config.to_dict() and one.step == 0 and one.index["objective"] == objective
    told = {"sha256": hashlib.sha256(VOCABULARY).hexdigest(), "size": len(sources.TOKENS), "cased": False}
    assert one.index["vocabulary"] == told and (tmp_path / "checkpoint/vocab.txt").read_bytes() == VOCABULARY
    assert one.index["imported"] == {"from": name, "format": "hf", "heads": heads}
    task = source.task and replace(source.task, max_seq_length=sources.LENGTH)  # that of tokenizer_config.json
    assert one.index.get("task") == (task and json.loads(json.dumps(task.to_dict())))
    again = tmp_path / "again"
    again.mkdir()
    huggingface.write(export.read(one), str(again))
    before, after = load_file(folders[name] / "model.safetensors"), load_file(again / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(before[path].tobytes() == after[path].tobytes() for path in before)
    for file in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        assert (folders[name] / file).read_bytes() == (again / file).read_bytes()


def test_the_summary(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    imported(folders["classify"], tmp_path / "checkpoint")
    told = capsys.readouterr().out
    assert f"{folders['classify']}: 2 layers, 16 wide, {len(sources.TOKENS)} entries, uncased, " in told
    assert "; with pooler\nfine-tuned for classify, 3 labels, texts of up to 48 tokens: its head is imported too\n" in told
    assert "skipped" not in told
    (changed := tmp_path / "nsp").mkdir()
    for file in folders["mlm+nsp"].iterdir():
        shutil.copy(file, changed)
    tensors = load_file(changed / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if not name.startswith("cls.predictions")}
    save_file(kept, changed / "model.safetensors")
    one = imported(changed, tmp_path / "other")
    assert "note: skipped: the next-sentence head, because the masked-LM head is missing\n" in capsys.readouterr().out
    assert one.index["objective"] == "" and one.index["imported"]["heads"] == ["pooler"]
    assert not any(path.startswith("next_sentence") for path in checkpoints.weights(one))
    assert export.read(one).parts == ("pooler",)


@pytest.mark.parametrize(("name", "sizes"), [("classify", {}), ("tags", sources.MODERN)])
def test_an_imported_head_answers(name: str, sizes: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Like the model that was written: predict has its label, or tags; and it can be exported."""
    source = sources.source(name, **sizes)
    imported(sources.written(huggingface, name, tmp_path / "hf", **sizes), tmp_path / "checkpoint")
    assert clozemill.main(["predict", str(tmp_path / "checkpoint"), "--text", "the river was a mill"]) == 0
    told = capsys.readouterr().out
    found = json.loads(told[told.index("\n{") :])
    (logits,) = answers(source, sources.features(texts=[("the river was a mill", "")]))["logits"]
    if name == "classify":
        assert found["label"] == source.task.labels[int(logits.argmax())]
    else:
        assert found["tags"] == [source.task.labels[number] for number in logits[1:6].argmax(axis=1)]
    assert clozemill.main(["export", str(tmp_path / "checkpoint"), "--formats", "hf", "--output", str(tmp_path / "out")]) == 0
    told = json.loads((tmp_path / "out/hf/config.json").read_text())
    assert told["architectures"] == json.loads((tmp_path / "hf/config.json").read_text())["architectures"]


def test_a_head_of_another_kind_is_skipped(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Of a class with one linear layer, but with other tensors: the encoder alone is imported, as without a head."""
    folder = Path(shutil.copytree(folders["classify"], tmp_path / "hf"))
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.dense.weight"] = tensors.pop("classifier.weight")
    tensors["classifier.dense.bias"] = tensors.pop("classifier.bias")
    save_file(tensors, folder / "model.safetensors")
    one = imported(folder, tmp_path / "checkpoint")
    assert "task" not in one.index and "head/dense/kernel" not in checkpoints.weights(one)
    assert "note: skipped: classifier.dense.bias, classifier.dense.weight\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"id2label": {"0": "a", "1": "b"}}, "classifier.weight has the shape [3, 16], and its labels ask for [2, 16]"),
        ({"id2label": {"0": "a", "1": "a", "2": "b"}}, "the labels of a task must be distinct, but a occurs twice"),
        ({"id2label": ["a"]}, "id2label doesn't map numbers to names"),
    ],
)
def test_labels_that_do_not_suit_the_head(
    settings: dict, note: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The encoder is imported, and a note says why its head is not."""
    folder = Path(shutil.copytree(folders["classify"], tmp_path / "hf"))
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | settings))
    assert "task" not in imported(folder, tmp_path / "checkpoint").index
    out = capsys.readouterr().out
    assert f"note: skipped: the head of the task, because {note}\nnote: skipped: classifier.bias, classifier.weight\n" in out


def test_a_class_of_a_task_with_a_masked_lm_head(folders: dict[str, Path], tmp_path: Path) -> None:
    """It is a pretrained model."""
    folder = Path(shutil.copytree(folders["mlm"], tmp_path / "hf"))
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"architectures": ["BertForSequenceClassification"]}))
    tensors = load_file(folder / "model.safetensors")
    tensors |= {"classifier.weight": np.ones((2, 16), np.float32), "classifier.bias": np.ones(2, np.float32)}
    save_file(tensors, folder / "model.safetensors")
    one = imported(folder, tmp_path / "checkpoint")
    assert one.index["objective"] == "mlm" and "task" not in one.index
    export.read(one)


def tf1_folder(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Return (a folder like google-research/bert's, our weights)."""
    source = sources.source()
    mine = source.weights()
    variables = {entry.tf1: mine[entry.ours].T if "tf1" in entry.turned else mine[entry.ours] for entry in table(source.config)}
    test_tf1.write(folder, variables | {"global_step": np.int64(7)})
    settings = {name: getattr(source.config, name) for name in test_tf1.SETTINGS if name != "hidden_act"}
    (folder / "bert_config.json").write_text(json.dumps(settings | {"hidden_act": "gelu"}))
    (folder / "vocab.txt").write_bytes(VOCABULARY)
    return folder, mine


def test_a_checkpoint_of_the_reference(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, mine = tf1_folder(tmp_path / "tf1")
    one = imported(folder, tmp_path / "checkpoint")
    found = checkpoints.weights(one)
    assert found.keys() == mine.keys() and all(found[name].tobytes() == mine[name].tobytes() for name in mine)
    assert one.index["encoder"]["hidden_act"] == "gelu_tanh" and one.index["objective"] == "mlm+nsp"
    assert one.index["vocabulary"]["cased"] is True  # it contains capitals
    told = "note: the files don't state the casing; by its vocabulary the model is cased (else: --no-cased)\n"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "told", "cased", "note"),
    [
        ([], True, True, None),
        (["--no-cased"], None, False, None),
        (["--cased"], None, True, None),
        (["--cased"], False, True, "note: the model's files say it is uncased; ignored because of --cased"),
        (["--no-cased"], True, False, "note: the model's files say it is cased; ignored because of --no-cased"),
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
    notes = [line for line in out.splitlines() if line.startswith("note:")]
    assert notes[-1].startswith("note: special tokens written in a text, such as [SEP], stay ordinary text")
    assert (note in notes) if note else len(notes) == 1


def test_a_vocabulary_without_capitals_counts_as_uncased() -> None:
    small = Vocabulary.from_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b"])
    found = Imported("hf", sources.SMALL, None, ForeignTokenizer(small.tokens))
    assert import_checkpoint._casing(found, small, None) == (
        False, "the files don't state the casing; by its vocabulary the model is uncased (else: --cased)",
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
        (folder / "vocab.txt").write_bytes(b"\n".join(VOCABULARY.split(b"\n")[:-130]) + b"\n")
        (folder / "tokenizer.json").unlink()
    elif what == "twice":
        (folder / "vocab.txt").write_bytes(VOCABULARY + b"the\n")
    elif what == "special":
        (folder / "vocab.txt").write_bytes(VOCABULARY.replace(b"[CLS]", b"[cls]"))
    elif what == "roberta":
        (folder / "config.json").write_text((folder / "config.json").read_text().replace('"bert"', '"roberta"'))


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (
            "shape",
            "FOLDER: the tensor bert.pooler.dense.bias has the shape [3], and its configuration asks for [16]: give the ",
        ),
        ("missing", "FOLDER: the tensor bert.pooler.dense.bias is missing: give the folder of another BERT or ModernBERT\n"),
        ("pickled", "FOLDER: its weights are pickled, which clozemill never opens: save them as model.safetensors first\n"),
        ("cut", "FOLDER: model.safetensors can't be read ("),
        ("config", "FOLDER has neither config.json nor bert_config.json: give a folder"),
        (
            "shorter",
            "FOLDER: the vocabulary has FEWER tokens, but the word embeddings have ALL rows: give the vocabulary",
        ),
        ("twice", "FOLDER: the vocabulary has MORE tokens, but the word embeddings have ALL rows: give the"),
        ("special", "FOLDER: vocab.txt, line 4: it is '[cls]', and tokenizer.json has '[CLS]' there: remove the one that"),
        (
            "roberta",
            "FOLDER: config.json: its model_type is 'roberta', but clozemill knows only bert and modernbert: give the folder",
        ),
    ],
)
def test_errors_are_one_sentence(
    what: str, sentence: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(shutil.copytree(folders["mlm+nsp"], tmp_path / "hf"))
    break_(folder, what)
    assert run(folder, tmp_path / "checkpoint") == 2
    told, count = capsys.readouterr().err, len(sources.TOKENS)
    for word, value in (("FOLDER", folder), ("FEWER", count - 129), ("MORE", count + 1), ("ALL", count)):
        sentence = sentence.replace(word, str(value))
    assert told.startswith(f"clozemill: {sentence}") and told.count("\n") == 1
    assert not (tmp_path / "checkpoint").exists()


def test_nothing_is_overwritten(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    imported(folders["mlm"], tmp_path / "checkpoint")
    before = {path.name: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()}
    assert run(folders["mlm"], tmp_path / "checkpoint") == 2
    assert (
        f"{tmp_path}/checkpoint already exists: give --overwrite to replace it, or another --output" in capsys.readouterr().err
    )
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()} == before


def test_an_import_that_was_killed_is_repeated(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A local folder appears when it is complete; what is left in an object store is replaced, but no other files are."""
    one, store = tmp_path / "checkpoint", tmp_path / "store"
    seen: list[bool] = []
    with monkeypatch.context() as patch:
        written = import_checkpoint.checkpoints.write
        patch.setattr(import_checkpoint.checkpoints, "write", lambda *given: (written(*given), seen.append(one.exists())))
        imported(folders["mlm"], one)
    assert seen == [False] and one.exists()
    shutil.rmtree(one)
    (tmp_path / ".checkpoint.tmp").mkdir()
    (tmp_path / ".checkpoint.tmp/weights.safetensors").write_bytes(b"half")
    imported(folders["mlm"], one)
    assert not list(tmp_path.glob(".checkpoint.tmp"))
    store.mkdir()
    (store / "vocab.txt").write_text("mine")
    assert run(folders["mlm"], f"file://{store}") == 2 and "already exists" in capsys.readouterr().err
    (store / "weights.safetensors").write_bytes(b"half")
    assert run(folders["mlm"], f"file://{store}") == 0
    assert {path.name: path.read_bytes() for path in store.iterdir() if path.name != "checkpoint.json"} == {
        path.name: path.read_bytes() for path in one.iterdir() if path.name != "checkpoint.json"
    }


def test_an_import_is_replaced_when_it_is_complete(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    one, fresh = tmp_path / "checkpoint", tmp_path / "fresh"
    imported(folders["mlm"], one)
    imported(folders["mlm"], fresh, "--cased")
    (one / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in one.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(import_checkpoint, "replace_folder", lambda *_: pytest.fail("it was replaced"))
        (folders["mlm"].parent / "empty").mkdir(exist_ok=True)
        assert run(folders["mlm"].parent / "empty", one, "--overwrite") == 2
    assert {path.name: path.read_bytes() for path in one.iterdir()} == before
    assert run(folders["mlm"], one, "--cased", "--overwrite") == 0
    after = {path.name: path.read_bytes() for path in one.iterdir()}
    assert after.pop("notes.txt") == b"mine" and after == {path.name: path.read_bytes() for path in fresh.iterdir()}
    assert not list(tmp_path.glob(".*"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/checkpoint.json").write_text('{"files": {"a": 1}}')
    capsys.readouterr()
    assert run(folders["mlm"], tmp_path / "mine", "--overwrite") == 2
    assert f"{tmp_path}/mine has files, but isn't an import: nothing was replaced" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["checkpoint.json"]


def test_the_function_accepts_a_configuration(folders: dict[str, Path], tmp_path: Path) -> None:
    assert import_checkpoint.main(ImportConfig(str(folders["mlm"]), str(tmp_path / "checkpoint"), cased=True)) == 0
    assert checkpoints.find(str(tmp_path / "checkpoint")).index["vocabulary"]["cased"] is True


# Valid foreign models.

EMBEDDINGS = "bert.embeddings.word_embeddings.weight"


def changed(folder: Path, target: Path, change, **settings) -> Path:
    """Return a copy with other tensors, and other values in config.json."""
    shutil.copytree(folder, target)
    save_file(change(load_file(target / "model.safetensors")), target / "model.safetensors")
    config = json.loads((target / "config.json").read_text()) | settings
    (target / "config.json").write_text(json.dumps(config))
    return target


def longer(tensors: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """Pad the table of word embeddings, and every tensor with a value for each of its rows."""
    found = dict(tensors)
    for name in (EMBEDDINGS, "cls.predictions.bias"):
        found[name] = np.pad(tensors[name], [(0, rows), *[(0, 0)] * (tensors[name].ndim - 1)])
    return found


def test_a_padded_table(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Its rows are kept, so that probabilities over the vocabulary don't change."""
    count = len(sources.TOKENS)
    folder = changed(folders["mlm"], tmp_path / "hf", lambda tensors: longer(tensors, 5), vocab_size=count + 5)
    one = imported(folder, tmp_path / "checkpoint")
    tokens = (tmp_path / "checkpoint/vocab.txt").read_text("utf-8").splitlines()
    assert tuple(tokens[:count]) == sources.TOKENS and tokens[count:] == [f"[unused{n}]" for n in range(1, 6)]  # 0 is in use
    assert one.index["encoder"]["vocab_size"] == len(tokens) == one.index["vocabulary"]["size"]
    assert f"note: 5 of {count + 5} rows of the word embeddings have no token" in capsys.readouterr().out
    far = changed(folders["mlm"], tmp_path / "far", lambda tensors: longer(tensors, 128), vocab_size=count + 128)
    assert run(far, tmp_path / "none") == 2
    assert f"the vocabulary has {count} tokens, but the word embeddings have {count + 128} rows" in capsys.readouterr().err


def test_added_tokens_and_heads_of_others(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    count = len(sources.TOKENS)

    def change(tensors: dict) -> dict:
        more = {"crf.transitions": np.ones((2, 2), np.float32), "classifier.weight": np.full((2, 16), np.nan, np.float32)}
        return longer(tensors, 3) | more | {"bert.embeddings.position_ids": np.arange(48)[None]}

    folder = changed(folders["mlm"], tmp_path / "hf", change, vocab_size=count + 3)
    (folder / "added_tokens.json").write_text(json.dumps({"[NEW]": count + 1, "grist": count}))
    imported(folder, tmp_path / "checkpoint")
    tokens = (tmp_path / "checkpoint/vocab.txt").read_text("utf-8").splitlines()
    assert tokens[count:] == ["grist", "[NEW]", "[unused1]"]
    told = capsys.readouterr().out
    assert "note: 2 added tokens (grist, [NEW]) are in the vocabulary" in told
    assert "note: skipped: classifier.weight, crf.transitions\n" in told


def test_a_reference_checkpoint_with_optimizer_state(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """With the slots of any optimizer and moving averages, counters, and a custom head; in float16."""
    folder, mine = tf1_folder(tmp_path / "tf1")
    kernel = "bert/encoder/layer_0/output/dense/kernel"
    slots = {
        f"{kernel}/{slot}": np.ones((32, 16), np.float32) for slot in ("adam_m", "adam_v", "LAMB", "ExponentialMovingAverage")
    }
    slots |= {"cls/predictions/output_bias/Adam_1/accum": np.ones(3, np.float32), "loss_scale": np.float32(8)}
    heads = {"crf/transitions": np.ones((2, 2), np.float32), "crf/transitions/adam_m": np.ones((2, 2), np.float32)}
    source = sources.source()
    variables = {entry.tf1: mine[entry.ours].T if "tf1" in entry.turned else mine[entry.ours] for entry in table(source.config)}
    halves = {name: value.astype(np.float16) for name, value in variables.items()}
    settings = (folder / "bert_config.json").read_text()
    test_tf1.write(folder, halves | slots | heads | {"global_step": np.int64(7), "beta1_power": np.float32(1)})
    (folder / "bert_config.json").write_text(settings)
    (folder / "vocab.txt").write_bytes(VOCABULARY)
    found = checkpoints.weights(imported(folder, tmp_path / "checkpoint"))
    assert all(np.array_equal(found[name], mine[name].astype(np.float16).astype(np.float32)) for name in mine)
    assert "note: skipped: crf/transitions, loss_scale\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "vocabulary"),
    [
        ({"do_lower_case": True, "strip_accents": False}, {"cased": False, "strip_accents": False}),
        ({"do_lower_case": False, "tokenize_chinese_chars": False}, {"cased": True, "tokenize_chinese_chars": False}),
        ({"do_lower_case": True}, {"cased": False}),
    ],
)
def test_tokenizer_rules_round_trip_through_import_and_export(
    settings: dict, vocabulary: dict, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders["encoder"], tmp_path / "hf"))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    one = imported(folder, tmp_path / "checkpoint")
    rest = {"sha256": hashlib.sha256(VOCABULARY).hexdigest(), "size": len(sources.TOKENS)}
    assert one.index["vocabulary"] == rest | vocabulary | {"library": True, "max_word_chars": 100}
    (again := tmp_path / "again").mkdir()
    huggingface.write(export.read(one), str(again))
    assert imported(again, tmp_path / "other").index["vocabulary"] == one.index["vocabulary"]
    given = imported(folder, tmp_path / "given", "--no-cased", "--strip-accents", "--tokenize-chinese-chars")
    assert given.index["vocabulary"] == rest | {"cased": False, "library": True, "max_word_chars": 100}


# Folders with false sizes.


def lie(path: Path, name: str, **changes) -> None:
    """Change the entry of a tensor in the header."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header[name] |= changes
    told = json.dumps(header).encode()
    path.write_bytes(len(told).to_bytes(8, "little") + told + data[8 + size :])


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("header", "model.safetensors can't be read (its header claims 9,223,372,036,854,775,807 bytes): copy it again"),
        ("offsets", "model.safetensors can't be read ("),
        ("overlap", "model.safetensors can't be read ("),
        ("shape", "model.safetensors can't be read ("),
        ("nan", "the tensor bert.pooler.dense.bias holds NaN or infinite values"),
        ("int8", "the tensor bert.encoder.layer.0.output.dense.weight holds I8 values, which are quantized or packed"),
        ("quantized", "config.json: its weights are quantized (quantization_config)"),
        ("huge", "the tensor bert.embeddings.word_embeddings.weight has the shape"),
        ("pruned", "config.json: it has pruned attention heads"),
        ("code", "config.json: it requires its own code (auto_map), which clozemill never runs"),
        ("folder", "model.safetensors is not a plain file: copy it again"),
    ],
)
def test_a_folder_with_false_sizes_is_rejected(
    what: str, sentence: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    settings = {
        "quantized": {"quantization_config": {"bits": 4}}, "huge": {"vocab_size": 10**12, "hidden_size": 4 * 10**9},
        "pruned": {"pruned_heads": {"0": [1]}}, "code": {"auto_map": {"AutoModel": "x.Y"}},
    }  # fmt: skip
    bias, kernel = "bert.pooler.dense.bias", "bert.encoder.layer.0.output.dense.weight"
    changes = {"nan": {bias: np.full(16, np.nan, np.float32)}, "int8": {kernel: np.ones((16, 32), np.int8)}}.get(what, {})
    folder = changed(folders["mlm+nsp"], tmp_path / "hf", lambda tensors: tensors | changes, **settings.get(what, {}))
    path = folder / "model.safetensors"
    if what == "header":
        path.write_bytes((2**63 - 1).to_bytes(8, "little") + path.read_bytes()[8:])
    elif what in ("offsets", "overlap", "shape"):
        lie(
            path,
            bias,
            **{"offsets": {"data_offsets": [0, 1 << 60]}, "overlap": {"data_offsets": [0, 64]}, "shape": {"shape": [1 << 40]}}[
                what
            ],
        )
    elif what == "folder":
        path.unlink()
        path.mkdir()
    assert run(folder, tmp_path / "checkpoint") == 2
    told = capsys.readouterr().err
    assert told.startswith(f"clozemill: {folder}: {sentence}") and told.count("\n") == 1
    assert not (tmp_path / "checkpoint").exists()
