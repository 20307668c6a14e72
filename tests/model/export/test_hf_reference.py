"""Exported folders in transformers, in a process without TensorFlow: outputs, keys, tokenizer, the example in the card."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import clozemill
from clozemill.model.export import hf_process, huggingface
from clozemill.model.export.base import TOLERANCE, answers, furthest
from clozemill.model.task_model import Task
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from clozemill.trainers.data.text_encoder import TextEncoder
from clozemill.trainers.export import export
from clozemill.trainers.training import checkpoints
from tests.apart import needs_sentence_transformers, needs_transformers, run_apart
from tests.model import byte_level, sources
from tests.model.export.test_huggingface import UNICODE

pytestmark = needs_transformers
CLASSES = ("mlm+nsp", "mlm", "causal", "encoder", "bare", "classify", "regress", "tags", "spans", "embed")
SMALLER = {
    "BertForMaskedLM": ("masked_lm_logits", "logits"),
    "BertModel": ("pooled_output", "pooler_output"),
    "BertForNextSentencePrediction": ("next_sentence_logits", "logits"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per kind of model; read-only."""
    base = tmp_path_factory.mktemp("hf")
    return {name: sources.written(huggingface, name, base / name) for name in CLASSES}


@pytest.mark.parametrize(
    ("name", "act"), [*((name, "gelu_tanh") for name in CLASSES), ("mlm+nsp", "gelu_erf"), ("classify", "relu")]
)
def test_transformers_gives_the_same_outputs(name: str, act: str, tmp_path: Path) -> None:
    """No key is missing or unexpected: hf_outputs would reject it."""
    features, source = sources.features(), sources.source(name, hidden_act=act)
    folder = sources.written(huggingface, name, tmp_path / "hf", hidden_act=act)
    assert huggingface.checked_with() == "transformers"
    found, expected = huggingface.outputs(str(folder), sources.TEXTS, features), answers(source, features)
    assert found.keys() == {"sequence_output", *sources.OUTPUTS[name]} - (
        {"pooled_output"} if name in ("mlm", "causal", "tags", "spans", "embed") else set()
    )
    assert max(furthest(expected, found, features["input_mask"]).values()) <= TOLERANCE


@pytest.mark.parametrize("name", ["mlm+nsp", "mlm", "encoder", "classify", "regress", "tags", "spans", "embed"])
def test_transformers_gives_the_same_outputs_for_modernbert(name: str, tmp_path: Path) -> None:
    features, source = sources.features(), sources.source(name, **sources.MODERN)
    folder = sources.written(huggingface, name, tmp_path / "hf", **sources.MODERN)
    found, expected = huggingface.outputs(str(folder), sources.TEXTS, features), answers(source, features)
    logits = {"mlm+nsp": {"masked_lm_logits"}, "encoder": set()}.get(name, sources.OUTPUTS[name] - {"pooled_output"})
    assert found.keys() == {"sequence_output", *logits}
    assert max(furthest(expected, found, features["input_mask"]).values()) <= TOLERANCE


SAVED = """
import numpy, torch, transformers
torch.manual_seed(3)
kind, labels = given["class"], {str(number): name for number, name in enumerate(("no", "yes", "maybe"))}
family = "ModernBert" if kind.startswith("Modern") else "Bert"
sizes = {"vocab_size": given["vocabulary"], "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 32, "max_position_embeddings": given["length"], "initializer_range": 0.3, "pad_token_id": 2}
more = {"local_attention": 8, "cls_token_id": 3, "sep_token_id": 5} if family == "ModernBert" else {}
heads = {} if kind.endswith(("Model", "LM")) else {"id2label": labels, "label2id": {"no": 0, "yes": 1, "maybe": 2}}
model = getattr(transformers, kind)(getattr(transformers, family + "Config")(**sizes, **more, **heads)).eval()
model.save_pretrained(given["folder"])
inputs = {name: torch.tensor(values) for name, values in given["inputs"].items()}
if family == "ModernBert":
    del inputs["token_type_ids"]
with torch.no_grad():
    outputs = model(**inputs, output_hidden_states=True)
hidden = outputs.last_hidden_state if "last_hidden_state" in outputs else outputs.hidden_states[-1]
found = {"hidden": hidden.tolist(), "logits": outputs.logits.tolist() if "logits" in outputs else None}
"""


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"])
@pytest.mark.parametrize("family", ["Bert", "ModernBert"])
def test_folders_that_transformers_has_saved(family: str, head: str, tmp_path: Path) -> None:
    """Imported by the command, they give the same outputs, with the head and its labels."""
    features, folder = sources.features(), tmp_path / "hf"
    inputs = {"input_ids": "input_ids", "attention_mask": "input_mask", "token_type_ids": "segment_ids"}
    given = {"class": family + head, "folder": str(folder), "vocabulary": len(sources.TOKENS), "length": sources.LENGTH}
    found = run_apart(SAVED, given | {"inputs": {theirs: features[ours].tolist() for theirs, ours in inputs.items()}})
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in sources.TOKENS), "utf-8")
    assert clozemill.main(["import", str(folder), "--output", str(tmp_path / "checkpoint"), "--no-cased"]) == 0
    source = export.read(checkpoints.find(str(tmp_path / "checkpoint")))
    expected = {"hidden": np.array(found["hidden"], np.float32)}
    mine = answers(source, features)
    ours = {"hidden": mine["sequence_output"]}
    if found["logits"]:
        expected["logits"] = np.array(found["logits"], np.float32)
        ours["logits"] = mine["masked_lm_logits" if head == "ForMaskedLM" else "logits"]
    assert max(furthest(expected, ours, features["input_mask"]).values()) <= TOLERANCE
    labels = ("no", "yes", "maybe")
    assert (source.task.labels if source.task else ()) == (labels if head.endswith("Classification") else ())


def test_a_byte_level_tokenizer_and_its_model_in_transformers(tmp_path: Path) -> None:
    """AutoTokenizer gives our ids, for pairs too, and AutoModel our hidden states. [MASK] takes the space before it."""
    folder, source = byte_level.folder(tmp_path / "hf"), byte_level.source()
    encoder = TextEncoder(Vocabulary.from_tokens(list(source.vocabulary)), True, sources.LENGTH, tokenizer=source.tokenizer)
    texts = [
        ("The  mill\n\tstands, e\u0301 😀", "by the    river"),
        ("[SEP] is text", "a [unused0]"),
        ("mill " * 60, "river " * 9),
    ]
    code = """
import torch, transformers
tokenizer, model = (auto.from_pretrained(given["folder"]) for auto in (transformers.AutoTokenizer, transformers.AutoModel))
firsts, seconds = zip(*given["texts"])
batch = tokenizer(firsts, seconds, padding="max_length", truncation=True, return_tensors="pt")
with torch.no_grad():
    hidden = model.eval()(**batch).last_hidden_state
found = {name: value.tolist() for name, value in batch.items()} | {"hidden": hidden.tolist()}
found["masked"] = tokenizer("The [MASK] is [MASK].", split_special_tokens=False, add_special_tokens=False)["input_ids"]
"""
    found = run_apart(code, {"folder": str(folder), "texts": texts})
    features = encoder.pairs(*map(list, zip(*texts, strict=True)))
    assert found["input_ids"] == features["input_ids"].tolist() and found["attention_mask"] == features["input_mask"].tolist()
    expected, hidden = answers(source, features)["sequence_output"], np.array(found["hidden"], np.float32)
    assert furthest({"x": expected}, {"x": hidden}, features["input_mask"])["x"] <= TOLERANCE
    assert found["masked"] == encoder.ids(["The [MASK] is [MASK]."], masks=True)[0].tolist()
    outputs = huggingface.outputs(str(folder), texts, features)
    assert max(furthest(answers(source, features), outputs, features["input_mask"]).values()) <= TOLERANCE


@needs_sentence_transformers
@pytest.mark.parametrize(("head", "sizes"), [("mean", {}), ("cls", {}), ("mean", sources.MODERN)])
def test_sentence_transformers_gives_the_same_vectors(head: str, sizes: dict, tmp_path: Path) -> None:
    """For single texts, with its own tokenization, truncation and batches; the similarity is the cosine."""
    index, texts = {"task": Task("embed", head=head).to_dict()}, [text for text, _ in sources.TEXTS]
    source = sources.source(index=index, **sizes)
    huggingface.write(source, str(tmp_path))
    code = """
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(given["folder"], device="cpu", local_files_only=True)
vectors = model.encode(given["texts"], batch_size=4)
found = {"vectors": vectors.tolist(), "similarity": model.similarity(vectors, vectors).tolist(), "length": model.max_seq_length}
"""
    found = run_apart(code, {"folder": str(tmp_path), "texts": texts})
    expected = answers(source, sources.features(texts=[(text, "") for text in texts]))["sentence_embedding"]
    assert np.abs(np.array(found["vectors"]) - expected).max() <= TOLERANCE
    assert np.abs(np.array(found["similarity"]) - expected @ expected.T).max() <= TOLERANCE
    assert found["length"] == source.max_seq_length


def test_transformers_reports_a_missing_key(folders: dict[str, Path], tmp_path: Path) -> None:
    for name, change, sentence in (
        ("mlm+nsp", lambda tensors: tensors.pop("cls.seq_relationship.bias"), "missing keys in it: cls.seq_relationship.bias"),
        ("mlm", lambda tensors: tensors.update(more=np.ones(2, np.float32)), "unexpected keys in it: more"),
    ):
        folder = Path(shutil.copytree(folders[name], tmp_path / name))
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=f"transformers finds {sentence}"):
            huggingface.outputs(str(folder), sources.TEXTS, sources.features())


def test_an_invalid_folder_ends_the_process(tmp_path: Path) -> None:
    with pytest.raises(hf_process.ProcessDied, match=r"^ended with exit code 1: FileNotFoundError: .*config.json"):
        hf_process.outputs(str(tmp_path), sources.features())


def test_smaller_transformers_classes_ignore_only_heads(folders: dict[str, Path], tmp_path: Path) -> None:
    """They find all their weights, and their outputs match the source."""
    features = sources.features()
    names = {"input_ids": "input_ids", "attention_mask": "input_mask", "token_type_ids": "segment_ids"}
    given = {theirs: features[ours].tolist() for theirs, ours in names.items()}
    code = """
import numpy, torch, transformers
found = {}
for name, output in given["classes"].items():
    model, told = getattr(transformers, name).from_pretrained(given["folder"], output_loading_info=True)
    assert not told["missing_keys"] and not told["mismatched_keys"]
    assert all(key.startswith(("cls.", "bert.pooler.")) for key in told["unexpected_keys"])
    with torch.no_grad():
        answer = model.eval()(**{key: torch.tensor(value) for key, value in given["inputs"].items()})
    found[name] = answer[output].tolist()
"""
    classes = {name: theirs for name, (_, theirs) in SMALLER.items()}
    found = run_apart(code, {"folder": str(folders["mlm+nsp"]), "inputs": given, "classes": classes})
    expected = answers(sources.source(), features)
    for name, (ours, _) in SMALLER.items():
        value = {ours: np.array(found[name], np.float32)}
        assert max(furthest({ours: expected[ours]}, value, features["input_mask"]).values()) <= TOLERANCE, name


def test_the_transformers_tokenizer_gives_our_ids(folders: dict[str, Path]) -> None:
    code = """
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(given["folder"])
batch = tokenizer(["The mill."], ["a river"], padding="max_length", max_length=12)
special = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id]
texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in given["texts"]]
marks = tokenizer("the [MASK] mill", split_special_tokens=False)
assert tokenizer.convert_ids_to_tokens(marks["input_ids"]) == ["[CLS]", "the", "[MASK]", "mill", "[SEP]"]
assert tokenizer.decode(marks["input_ids"], skip_special_tokens=True) == "the mill"
pair = tokenizer("The Mill", return_offsets_mapping=True)
assert pair["offset_mapping"] == [(0, 0), (0, 3), (4, 8), (0, 0)] and tokenizer.model_max_length == given["longest"]
found = {"batch": dict(batch), "special": special, "texts": texts}
"""
    texts = [*UNICODE, "a [SEP] b", "[MASK][CLS] [PAD] [UNK]", "\uf0b7 item", "a\u061db a\u166db"]
    found = run_apart(code, {"folder": str(folders["mlm"]), "texts": texts, "longest": sources.LENGTH})
    pieces = WordPiece(Vocabulary.from_tokens(list(sources.TOKENS)))
    assert found["texts"] == [pieces.encode([text]).ids.tolist() for text in texts]
    assert found["special"] == [sources.TOKENS.index(token) for token in ("[CLS]", "[SEP]", "[PAD]", "[MASK]")]
    assert set(found["batch"]) == {"input_ids", "token_type_ids", "attention_mask"}
    assert found["batch"]["token_type_ids"][0] == [0] * 5 + [1] * 3 + [0] * 4
    assert found["batch"]["attention_mask"][0] == [1] * 8 + [0] * 4


@needs_sentence_transformers
def test_the_example_for_sentence_transformers_in_the_card_runs(folders: dict[str, Path]) -> None:
    code, loading = (
        part.split("```")[0] for part in (folders["embed"] / "README.md").read_text("utf-8").split("```python\n")[1:]
    )
    done = subprocess.run([sys.executable, "-c", code + loading], cwd=folders["embed"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("tensor([[1.0000"), done.stderr


@pytest.mark.parametrize("name", ["mlm+nsp", "mlm", "encoder", "classify", "tags", "spans"])
def test_the_example_in_the_card_runs(name: str, folders: dict[str, Path]) -> None:
    code, *more = (part.split("```")[0] for part in (folders[name] / "README.md").read_text("utf-8").split("```python\n")[1:])
    assert len(more) == (name in ("mlm+nsp", "mlm"))  # fill-mask, with [MASK] in a text
    done = subprocess.run([sys.executable, "-c", code + "".join(more)], cwd=folders[name], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("torch.Size([2, "), done.stderr
    assert not more or len(done.stdout.split("'token_str'")) == 6
