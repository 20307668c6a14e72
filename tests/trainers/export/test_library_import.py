"""A ModernBERT with a byte-level BPE tokenizer: it keeps its tokenizer.json from the import to the export."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file

import clozemill
from clozemill.model.conversion.tokenizer_json import TOKENIZER
from clozemill.model.task_model import Task
from clozemill.trainers.finetuning.tasks.base import Example
from clozemill.trainers.finetuning.tasks.question_answering import Spans
from clozemill.trainers.finetuning.tasks.token_classification import Tags
from clozemill.trainers.training import checkpoints, pretrained
from tests.model import byte_level
from tests.trainers import finetune_cases, models

DATA = byte_level.tokenizer_json()
QUICK = ("--batch-size", "8", "--epochs", "1", "--max-seq-length", "16", "--no-tensorboard", "--eval-steps", "100")


def run(command: str, *arguments: object, code: int = 0) -> None:
    assert clozemill.main([command, *map(str, arguments)]) == code


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_level.folder(tmp_path_factory.mktemp("hf") / "hf", num_hidden_layers=1)


@pytest.fixture(scope="module")
def imported(hf: Path) -> Path:
    run("import", hf, "--output", hf.parent / "checkpoint")
    return hf.parent / "checkpoint"


def finetune(init: Path, output: Path, files: Path) -> None:
    given = ("--train", files / "train.tsv", "--dev", files / "dev.tsv")
    run("finetune", "--init", init, "--task", "classify", *given, "--output", output, *QUICK)


@pytest.fixture(scope="module")
def tuned(imported: Path) -> Path:
    finetune_cases.classification(imported.parent, train=16, dev=4)
    finetune(imported, imported.parent / "tuned", imported.parent)
    return imported.parent / "tuned"


def test_an_import(imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture, hf: Path) -> None:
    one = checkpoints.find(str(imported))
    vocabulary = "".join(f"{token}\n" for token in byte_level.tokens()).encode()
    assert (imported / TOKENIZER).read_bytes() == DATA and (imported / "vocab.txt").read_bytes() == vocabulary
    digests = [hashlib.sha256(data).hexdigest() for data in (vocabulary, DATA)]
    assert one.index["vocabulary"] == {"sha256": digests[0], "size": len(byte_level.tokens()), "tokenizer": digests[1]}
    assert one.index["files"][TOKENIZER] == len(DATA) and one.index["sha256_of_files"][TOKENIZER] == digests[1]
    run("import", hf, "--output", tmp_path / "again")
    told = capsys.readouterr().out
    assert f"{len(byte_level.tokens())} entries, tokenized by its tokenizer.json (BPE), " in told
    assert (
        "note: 3 of 352 rows of the word embeddings have no token: they were named [unused...]" in told and "cased" not in told
    )


def test_round_trip_is_bit_identical(imported: Path, hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run("export", imported, "--output", tmp_path, "--formats", "hf,keras")
    assert "note: the tokenizer isn't WordPiece and can't be part of a graph" in capsys.readouterr().out
    assert (tmp_path / "hf" / TOKENIZER).read_bytes() == (tmp_path / "keras" / TOKENIZER).read_bytes() == DATA
    before, after = load_file(hf / "model.safetensors"), load_file(tmp_path / "hf/model.safetensors")
    assert before.keys() == after.keys() and all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert not (tmp_path / "hf/vocab.txt").exists()
    card = (tmp_path / "hf/README.md").read_text("utf-8")
    assert "`tokenizer.json` is that of the model this one was made from" in card
    assert f"SHA-256 of tokenizer.json: {hashlib.sha256(DATA).hexdigest()}." in card
    assert f"| weights | {sum(value.size for value in after.values()):,} |" in card and "\n- modernbert\n" in card
    run("import", tmp_path / "hf", "--output", tmp_path / "again")
    for file in ("vocab.txt", TOKENIZER, "weights.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (imported / file).read_bytes()


def test_a_changed_tokenizer_is_corrupt(imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = Path(shutil.copytree(imported, tmp_path / "checkpoint"))
    models.alter(folder, lambda index: index["files"].pop(TOKENIZER))
    (folder / TOKENIZER).write_bytes(DATA + b" ")
    run("embed", folder, "--text", "a", code=2)
    assert "tokenizer.json is not the tokenizer that it was written with" in capsys.readouterr().err


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_fine_tuned_model_keeps_its_tokenizer(tuned: Path, imported: Path, tmp_path: Path) -> None:
    """It resumes, is evaluated, and predicts the same from a SavedModel, which takes ids."""
    best = checkpoints.find(str(tuned), "best")
    assert Path(best.folder, TOKENIZER).read_bytes() == DATA and "cased" not in best.index["vocabulary"]
    assert best.index["base_model"] == f"{imported.name}, from hf"
    finetune(imported, tuned, imported.parent)
    dev = imported.parent / "dev.tsv"
    run("evaluate", tuned, "--data", dev, "--output", tmp_path / "figures.json")
    run("export", tuned, "--output", tmp_path, "--formats", "savedmodel")
    for name, model in (("one", tuned), ("other", tmp_path / "savedmodel")):
        run("predict", model, "--input", dev, "--output", tmp_path / f"{name}.jsonl", "--no-progress")
    one, other = ([row["probabilities"]["good"] for row in lines(tmp_path / f"{name}.jsonl")] for name in ("one", "other"))
    assert len(one) == 4 and one == pytest.approx(other, abs=1e-6)
    loaded = tf.saved_model.load(str(tmp_path / "savedmodel"))
    assert set(loaded.signatures) == {"encode_tokens", "serving_default"}
    features = pretrained.read(str(tuned)).text_encoder(16).pairs([row["text"] for row in lines(tmp_path / "one.jsonl")])
    logits = loaded.signatures["serving_default"](**{name: tf.constant(value) for name, value in features.items()})["logits"]
    assert tf.nn.softmax(logits).numpy()[:, 1] == pytest.approx(one, abs=1e-5)


def test_a_saved_model_has_the_tokenizer(imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run("export", imported, "--output", tmp_path, "--formats", "savedmodel")
    one, other = (pretrained.read(str(folder)) for folder in (imported, tmp_path / "savedmodel"))
    assert one.weights.keys() == other.weights.keys() - {"encoder/pooler/transform/kernel", "encoder/pooler/layer_norm/gamma"}
    assert one.tokenizer == other.tokenizer == DATA and one.vocabulary == other.vocabulary
    (tmp_path / "savedmodel/assets.extra" / TOKENIZER).write_bytes(DATA + b" ")
    run("embed", tmp_path / "savedmodel", "--text", "a", code=2)
    assert "tokenizer.json was changed after it was written" in capsys.readouterr().err


def test_features_of_tokens_and_masks(imported: Path, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    run("embed", imported, "--text", "The old mill [SEP]", "--layers=-1", "--max-seq-length", "16")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["word"] for row in rows if row["word_number"] < 3 and row["token"][0] != "l"] == ["The", "old", "mill"]
    assert rows[-1]["word"] == "]" and rows[1]["token"] == "Ġold" and (rows[1]["start"], rows[1]["end"]) == (4, 7)
    run("predict", imported, "--text", "The [MASK] is.")
    found = json.loads(capsys.readouterr().out)
    assert len(found["masks"]) == 1 and found["masks"][0][0]["token"] in byte_level.tokens()
    assert found["filled"].startswith("The ") and found["filled"].endswith(" is.") and found["filled"][4] != " "


@pytest.mark.slow
def test_contrast(imported: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("".join(f"the mill {number}\n" for number in range(8)), "utf-8")
    files = ("--input", tmp_path / "texts.txt", "--output", tmp_path / "run")
    run("contrast", "--init", imported, *files, "--batch-size", "4", *QUICK[2:])
    run("embed", tmp_path / "run", "--text", "the mill", "--output", tmp_path / "features.parquet")
    assert Path(checkpoints.find(str(tmp_path / "run")).folder, TOKENIZER).read_bytes() == DATA


def test_tagged_words_have_the_tokens_of_a_text(imported: Path) -> None:
    encoder = pretrained.read(str(imported)).text_encoder(16)
    words = ("The", "old", "mill", "rotates", "!")
    rows = Tags().encode([Example("x", words=words)], Task("tags", ("O", "X")), encoder, answers=False)
    ids = byte_level.library().encode("The old mill rotates !", add_special_tokens=False)
    assert rows.features["input_ids"][0][1 : 1 + len(ids)].tolist() == ids.ids
    ((number, first, starts),) = rows.about
    begins = [1 + ids.word_ids.index(word) for word in range(5)]
    assert (number, first, starts.tolist()) == (0, 0, begins)


def test_answers_have_no_space_before_them(imported: Path) -> None:
    encoder = pretrained.read(str(imported)).text_encoder(24)
    context, answer = "It was built by two brothers; é", "two brothers"
    one = Example("x", "Who?", context, answer=((answer, context.index(answer)),))
    task = Task("spans", max_seq_length=24)
    rows = Spans().encode([one], task, encoder, answers=True)
    (begin,), (end,), ((_, offset, starts, ends),) = rows.features["starts"], rows.features["ends"], rows.about
    assert context[starts[begin - offset] : ends[end - offset]] == answer
    logits = np.zeros((1, 24, 2), np.float32)
    logits[0, begin, 0] = logits[0, end, 1] = 9
    (found,) = Spans().answers([one], rows, logits, task)
    assert (found["answer"], found["start"]) == (answer, context.index(answer))


def changed(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        told = json.loads((folder / TOKENIZER).read_text("utf-8"))
        change(told)
        (folder / TOKENIZER).write_text(json.dumps(told), "utf-8")

    return apply


def settings(**values: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")

    return apply


def rename(told: dict) -> None:
    for token in told["added_tokens"]:
        token["content"] = token["content"].replace("[SEP]", "</s>")


def words(told: dict) -> dict:
    """Return a model of complete words, among them the special tokens."""
    known = told["model"]["vocab"] | {token["content"]: token["id"] for token in told["added_tokens"]}
    return {"type": "WordLevel", "vocab": known, "unk_token": "[UNK]"}


@pytest.mark.parametrize(
    ("break_", "sentence"),
    [
        (settings(sep_token="</s>"), "its sep_token is '</s>', and BERT's is [SEP]"),
        (changed(rename), "tokenizer.json"),
        (settings(auto_map={"AutoTokenizer": ["x.Y", None]}), "tokenizer_config.json asks for code of its own (auto_map)"),
        (settings(tokenizer_class="RobertaTokenizerFast"), "its tokenizer is 'RobertaTokenizerFast'"),
        (settings(tokenizer_class="BertTokenizer"), "tokenizer.json is not a WordPiece tokenizer, and BERT's is one"),
        (settings(add_prefix_space=True), "tokenizer_config.json and tokenizer.json disagree on add_prefix_space"),
        (settings(added_tokens_decoder={"7": {"content": "[NEW]"}}), "tokenizer.json lacks the added token '[NEW]' (id 7)"),
        (changed(lambda told: told.update(post_processor=None)), "tokenizer.json doesn't pack texts as [CLS] a [SEP] b [SEP]"),
        (changed(lambda told: told["model"].update(vocab={"a": -1})), "tokenizer.json can't be read ("),
        (changed(lambda told: told.update(model=words(told), pre_tokenizer={"type": "WhitespaceSplit"})),
         "tokenizer.json takes '[PAD] [UNK] [CLS] [SEP] [MASK]' in a text for special tokens, and clozemill for text"),
        (changed(lambda told: [token.update(special=False) for token in told["added_tokens"]]),
         "tokenizer.json takes '[PAD] [UNK] [CLS] [SEP] [MASK]' in a text for special tokens"),
        (changed(lambda told: told["model"].update(merges=["a b c"])), "tokenizer.json can't be read ("),
        (changed(lambda told: told.update(normalizer={"type": "Nmt"})), "tokenizer.json has the normalizer 'Nmt', which"),
        (lambda folder: (folder / TOKENIZER).write_bytes(DATA[:-100]), "tokenizer.json can't be read ("),
        (lambda folder: (folder / TOKENIZER).unlink(), "vocab.txt or tokenizer.json is missing"),
    ],
)  # fmt: skip
def test_refused(
    break_: Callable[[Path], object], sentence: str, hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(shutil.copytree(hf, tmp_path / "hf"))
    break_(folder)
    run("import", folder, "--output", tmp_path / "checkpoint", code=2)
    told = capsys.readouterr().err
    assert told.startswith(f"clozemill: {folder}: {sentence}") and told.count("\n") == 1
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(
    ("option", "shown"),
    [("--cased", "--cased"), ("--no-strip-accents", "--no-strip-accents"), ("--tokenize-chinese-chars",) * 2],
)
def test_options_of_wordpiece(option: str, shown: str, hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run("import", hf, "--output", tmp_path / "checkpoint", option, code=2)
    assert f"{shown} is for WordPiece, and {hf} has another tokenizer (BPE)" in capsys.readouterr().err
