"""Hugging Face folders: bit-identical round trip, read by KerasHub and transformers, our tokenizer's ids, clear errors."""

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from clozemill.model.conversion import tokenizer_json
from clozemill.model.export import hf_process, huggingface
from clozemill.model.export.base import TOLERANCE, answers, furthest
from clozemill.model.export.model_card import card
from clozemill.model.task_model import Task
from clozemill.pipelines.common.tokenizer_rules import REFERENCE
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from tests.model import sources
from tests.slow import mostly_slow

FILES = {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "tokenizer_config.json", "README.md"}
CLASSES = {
    "mlm+nsp": "BertForPreTraining", "mlm": "BertForMaskedLM", "causal": "BertLMHeadModel", "encoder": "BertModel",
    "bare": "BertModel", "classify": "BertForSequenceClassification",
    "multilabel": "BertForSequenceClassification", "regress": "BertForSequenceClassification",
    "tags": "BertForTokenClassification", "spans": "BertForQuestionAnswering", "embed": "BertModel",
}  # fmt: skip
SENTENCES = {  # more files of a model that makes sentence vectors, for sentence-transformers
    "modules.json", "1_Pooling/config.json", "2_Normalize/config.json", "sentence_bert_config.json",
    "config_sentence_transformers.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per kind of model; read-only."""
    base = tmp_path_factory.mktemp("hf")
    return {name: sources.written(huggingface, name, base / name) for name in CLASSES}


def settings(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text("utf-8"))


MODERN_CLASSES = {
    "mlm+nsp": "ModernBertForMaskedLM", "mlm": "ModernBertForMaskedLM", "encoder": "ModernBertModel",
    "classify": "ModernBertForSequenceClassification", "tags": "ModernBertForTokenClassification",
    "spans": "ModernBertForQuestionAnswering", "embed": "ModernBertModel",
}  # fmt: skip


@pytest.mark.parametrize("name", mostly_slow(MODERN_CLASSES, "mlm+nsp", "classify", "encoder", "tags"))
def test_modernbert_folders(name: str, tmp_path: Path) -> None:
    """All that transformers' class has comes back bit for bit; the rest has no place there."""
    source = sources.source(name, **sources.MODERN)
    folder = sources.written(huggingface, name, tmp_path / "hf", **sources.MODERN)
    told = settings(folder)
    assert told["architectures"] == [MODERN_CLASSES[name]] and told["model_type"] == "modernbert"
    assert (told["pad_token_id"], told["cls_token_id"], told["sep_token_id"]) == (2, 3, 5) and told["norm_eps"] == 1e-5
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    assert tokenizer["model_input_names"] == ["input_ids", "attention_mask"]
    found, mine = huggingface.read(folder), source.weights()
    assert found.config == source.config
    assert found.task == (replace(source.task, max_seq_length=sources.LENGTH) if name in ("classify", "tags") else None)
    assert all(np.array_equal(value, mine[key]) for key, value in found.converted.weights.items())
    absent = {"encoder/pooler", "next_sentence/dense"} if name in ("mlm+nsp", "mlm", "encoder", "embed") else set()
    absent |= {"head/dense"} if name == "spans" else set()
    lost = mine.keys() - found.converted.weights.keys()
    assert lost == {key for key in mine if key.startswith(tuple(absent))}


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("causal", {}, "transformers' ModernBertModel has no causal attention: export to keras or savedmodel"),
        ("mlm", {"type_vocab_size": 2}, "transformers' ModernBertModel has no segment embeddings"),
    ],
)
def test_modernberts_that_transformers_has_no_class_for(name: str, changes: dict, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        huggingface.write(sources.source(name, **sources.MODERN | changes), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", CLASSES)
def test_files_and_class(name: str, folders: dict[str, Path]) -> None:
    files = {str(path.relative_to(folders[name])) for path in folders[name].rglob("*") if path.is_file()}
    assert files == FILES | (SENTENCES if name == "embed" else set())
    told = settings(folders[name])
    assert told["architectures"] == [CLASSES[name]] and told["model_type"] == "bert" and told["pad_token_id"] == 2
    assert told.get("is_decoder", False) == (name == "causal")


@pytest.mark.parametrize("head", ["mean", "cls"])
def test_the_files_for_sentence_transformers(head: str, tmp_path: Path) -> None:
    huggingface.write(sources.source(index={"task": Task("embed", head=head).to_dict()}), str(tmp_path))
    told = {name: json.loads((tmp_path / name).read_text("utf-8")) for name in SENTENCES}
    assert [(each["idx"], each["path"], each["type"]) for each in told["modules.json"]] == [
        (0, "", "sentence_transformers.models.Transformer"),
        (1, "1_Pooling", "sentence_transformers.models.Pooling"),
        (2, "2_Normalize", "sentence_transformers.models.Normalize"),
    ]
    assert told["1_Pooling/config.json"] == {
        "word_embedding_dimension": 16,
        "pooling_mode_cls_token": head == "cls",
        "pooling_mode_mean_tokens": head == "mean",
        "include_prompt": True,
    }
    assert told["sentence_bert_config.json"] == {"max_seq_length": sources.LENGTH, "do_lower_case": False}
    assert told["config_sentence_transformers.json"] == {"prompts": {}, "similarity_fn_name": "cosine"}
    readme = (tmp_path / "README.md").read_text("utf-8")
    assert "library_name: sentence-transformers\npipeline_tag: sentence-similarity\n" in readme
    assert f"(in-batch negatives, dropout, temperature 0.05), with {head} pooling; texts were truncated to 128" in readme


def test_labels(folders: dict[str, Path]) -> None:
    told = {name: settings(folders[name]) for name in ("classify", "multilabel", "regress", "tags", "spans")}
    assert told["classify"]["id2label"] == {"0": "no", "1": "yes", "2": "maybe"}
    assert told["classify"]["label2id"] == {"no": 0, "yes": 1, "maybe": 2}
    assert told["tags"]["id2label"] == {"0": "O", "1": "B-PER", "2": "I-PER"} and "problem_type" not in told["tags"]
    assert len(told["regress"]["id2label"]) == 1 and told["regress"]["problem_type"] == "regression"
    assert "id2label" not in told["spans"] and told["classify"]["problem_type"] == "single_label_classification"
    assert told["multilabel"]["problem_type"] == "multi_label_classification"
    assert told["multilabel"]["id2label"] == {"0": "no", "1": "yes", "2": "maybe"}


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (Task("tags", ("O", "B"), head="bilstm"), "transformers has no class for the head bilstm"),
        (Task("classify", ("a", "b"), layers=(-1, -2)), "transformers has no class for a head on the layers -1,-2"),
        (Task("spans", layers=(-2,)), "transformers has no class for a head on the layers -2"),
    ],
)
def test_heads_without_a_transformers_class(task: Task, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        huggingface.write(sources.source(index={"task": task.to_dict()}), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["mlm+nsp", "mlm", "causal", "encoder", "bare"])
def test_round_trip_is_bit_identical(name: str, folders: dict[str, Path]) -> None:
    source, found = sources.source(name), huggingface.read(folders[name])
    mine = source.weights()
    assert found.config == source.config and found.tokenizer.cased is False and found.tokenizer.notes == ()
    assert found.tokenizer.tokens == sources.TOKENS and found.tokenizer.rules == REFERENCE
    assert all(np.array_equal(value, mine[path]) for path, value in found.converted.weights.items())
    assert found.converted.parts == source.parts
    left = {path.split("/")[0] if "pooler" not in path else "pooler" for path in mine.keys() - found.converted.weights.keys()}
    assert left == ({"pooler"} if name in ("mlm", "causal", "bare") else set())


def test_the_tied_decoder_is_written_once(folders: dict[str, Path]) -> None:
    assert not [name for name in load_file(folders["mlm"] / "model.safetensors") if "decoder" in name]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Tokenizer]:
    found = {}
    for cased in (False, True):
        folder = sources.written(huggingface, "encoder", tmp_path_factory.mktemp("cased") / str(cased), cased=cased)
        found[cased] = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return found


UNICODE = [
    "The mill is unbelievable, isn't it?", "Straße, naïve ÑANDÚ; İstanbul ÀÉÎÕÜ Ångström", "МОСКВА и Привет, ЁЖ",
    "Ο ΟΔΟΣ, ΣΟΦΟΣ! ΑΣ ΣΑΣ; Σ", "ΆΣ ΟΔΟΣ.ΟΔΟΣ Α'Σ Α''Σ'Α ΑΣʰ ΑΣΣ", "東京の川。北京，漢字 of 𠀀", "हिन्दी का पाठ",
    "مرحبا بالعالم", "שלום", "한국어 텍스트", "😀😀 of 👩‍👩‍👧",
    "soft\u00adhyphen zero\u200bwidth no\u00a0break \u3000wide\ttab",
    "x" * 100 + " " + "y" * 101, "z" * 200 + " a", "w" * 201 + " a", "e\u0301 decomposed o\u0308",
    "a'b-c_d/e@f#g$h%i^j&k*l", "“quotes” — dashes… «guillemets»", "\ufffd \x00 \x07 bell", "1.234,56 € ½ ² ①", "", "   ",
]  # fmt: skip


@pytest.mark.parametrize("cased", [False, True])
def test_tokenizer_json_gives_our_ids(cased: bool, tokenizers: dict[bool, Tokenizer]) -> None:
    pieces = WordPiece(Vocabulary.from_tokens(list(sources.TOKENS)), cased)
    for text in UNICODE + [text for pair in sources.TEXTS for text in pair]:
        assert tokenizers[cased].encode(text, add_special_tokens=False).ids == pieces.encode([text]).ids.tolist(), text
    assert sum(pieces.encode([text]).ids.size for text in UNICODE) > 500


def test_tokenizer_json_packs_like_bert(tokenizers: dict[bool, Tokenizer]) -> None:
    found = tokenizers[False].encode("The mill", "a river.")
    assert found.tokens == ["[CLS]", "the", "mill", "[SEP]", "a", "river", ".", "[SEP]"]
    assert found.type_ids == [0, 0, 0, 0, 1, 1, 1, 1] and found.special_tokens_mask == [1, 0, 0, 1, 0, 0, 0, 1]
    assert tokenizers[False].decode(found.ids[4:7]) == "a river."


def test_a_different_tokenizer_is_detected(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["mlm"], tmp_path / "mlm")
    tokenizer_json.build(sources.TOKENS, True).save(str(tmp_path / "mlm/tokenizer.json"))
    with pytest.raises(ValueError, match=r"tokenizer.json gives other ids for the text 'The river was"):
        huggingface.outputs(str(tmp_path / "mlm"), sources.TEXTS, sources.features())


@pytest.mark.parametrize("name", mostly_slow(CLASSES, "mlm+nsp", "tags"))
def test_our_reader_matches_the_source(name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_process, "missing", lambda: ["torch"])
    features = sources.features()
    found, expected = huggingface.outputs(str(folders[name]), sources.TEXTS, features), answers(sources.source(name), features)
    trained = name not in ("bare", "mlm", "causal", "tags", "spans", "embed")
    vectors = ["sentence_embedding"] if name == "embed" else []
    assert found.keys() == {"sequence_output", *(["pooled_output"] if trained else []), *vectors}
    assert max(furthest(expected, found, features["input_mask"]).values()) <= (1e-6 if vectors else 0)
    assert huggingface.checked_with().startswith("clozemill's own reader, not by transformers, for torch is not installed: pip")


def test_keras_hub_gives_the_same_outputs(folders: dict[str, Path]) -> None:
    """It reads the same folder with its own code (its gelu is the tanh form, and its LayerNorm's epsilon 1e-12)."""
    import keras_hub

    features = sources.features()
    backbone = keras_hub.models.BertBackbone.from_preset(str(folders["mlm+nsp"]))
    given = {"token_ids": "input_ids", "padding_mask": "input_mask", "segment_ids": "segment_ids"}
    theirs = backbone.predict({name: features[ours] for name, ours in given.items()}, verbose=0)
    expected = answers(sources.source(), features)
    found = {name: np.asarray(theirs[name]) for name in ("sequence_output", "pooled_output")}
    assert max(furthest(expected, found, features["input_mask"]).values()) <= TOLERANCE


def test_the_card_states_sizes_and_training(folders: dict[str, Path]) -> None:
    text = (folders["classify"] / "README.md").read_text("utf-8")
    assert f"| vocabulary | {len(sources.TOKENS)} WordPieces, uncased: lowercased, accents stripped |" in text
    assert "Fine-tuned for classify, labels no, yes, maybe" in text and "| layers | 2 |" in text
    pretrained = (folders["mlm+nsp"] / "README.md").read_text("utf-8")
    assert "Pretraining objective: mlm+nsp." in pretrained and "Steps: 7." in pretrained


# Foreign folders.


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(folders["mlm+nsp"], tmp_path / "copy"))


def bfloat16_file(path: Path, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Write tensors truncated to their upper halves, as in the format; return the resulting values."""
    header, blobs, offset, cut = {}, [], 0, {}
    for name, value in tensors.items():
        halves = (value.astype("<f4").view("<u4") >> 16).astype("<u2")
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [offset, offset + halves.nbytes]}
        offset += halves.nbytes
        blobs.append(halves.tobytes())
        cut[name] = (halves.astype("<u4") << 16).view("<f4")
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    return cut


def test_bfloat16(folder: Path) -> None:
    cut = bfloat16_file(folder / "model.safetensors", load_file(folder / "model.safetensors"))
    found = huggingface.read(folder).converted.weights
    assert np.array_equal(found["encoder/layer_1/output/kernel"], cut["bert.encoder.layer.1.output.dense.weight"].T)
    assert {value.dtype for value in found.values()} == {np.dtype("float32")}


def test_several_files(folder: Path) -> None:
    tensors, expected = load_file(folder / "model.safetensors"), huggingface.read(folder).converted.weights
    (folder / "model.safetensors").unlink()
    names, index = sorted(tensors), {}
    for number, part in enumerate((names[:20], names[20:]), 1):
        save_file({name: tensors[name] for name in part}, folder / f"model-{number:05d}-of-00002.safetensors")
        index |= dict.fromkeys(part, f"model-{number:05d}-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    found = huggingface.read(folder).converted.weights
    assert found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model-00002-of-00002\.safetensors can't be read"):
        huggingface.read(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    with pytest.raises(ValueError, match=r"names \.\./x.safetensors, which is not a file of the folder"):
        huggingface.read(folder)


def test_a_vocabulary_from_tokenizer_json(folder: Path) -> None:
    (folder / "vocab.txt").unlink()
    assert huggingface.read(folder).tokenizer.tokens == sources.TOKENS
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"vocab\.txt or tokenizer\.json is missing"):
        huggingface.read(folder)


@pytest.mark.parametrize(
    ("file", "data", "sentence"),
    [
        ("config.json", '{"num_hidden_layers": 1000000000}', "must be at most 1,000"),
        ("config.json", "[" * 100_000, "config.json can't be read"),
        ("tokenizer.json", "[" * 100_000, "tokenizer.json can't be read"),
        (
            "tokenizer.json",
            '{"pre_tokenizer": {"type": "BertPreTokenizer"}, "model": {"vocab": {"a": 0, "b": "x"}}}',
            "a vocabulary with gaps",
        ),
        (
            "tokenizer.json",
            '{"pre_tokenizer": {"type": "BertPreTokenizer"}, "model": {"vocab": {"a": 0, "b": 0}}}',
            "a vocabulary with gaps",
        ),
        ("tokenizer.json", '{"model": []}', "is not a WordPiece tokenizer"),
    ],
)
def test_malicious_files_are_rejected(file: str, data: str, sentence: str, folder: Path) -> None:
    (folder / "vocab.txt").unlink()
    if file == "config.json" and data.startswith("{"):
        data = json.dumps(settings(folder) | json.loads(data))
    (folder / file).write_text(data)
    with pytest.raises(ValueError, match=sentence):
        huggingface.read(folder)


def test_errors_name_the_file_or_tensor(folder: Path) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    good, tensors = settings(folder), load_file(weights)

    def refused(sentence: str) -> None:
        with pytest.raises(ValueError, match=sentence):
            huggingface.read(folder)

    for changes, sentence in (
        ({"model_type": "roberta"}, "^config.json: its model_type is 'roberta'"),
        ({"vocab_size": 999}, r"word_embeddings.weight has the shape \[\d+, 16\], and its configuration asks for \[999, 16\]"),
        ({"num_hidden_layers": 3}, r"the tensor bert.encoder.layer.2.attention.self.query.weight is missing"),
        ({"num_hidden_layers": 1}, r"the tensor bert.encoder.layer.1.\S+ \(and 15 more\) has no place"),
        ({"tie_word_embeddings": False}, "its decoder is not tied to the word embeddings"),
    ):
        config.write_text(json.dumps(good | changes))
        refused(sentence)
    config.write_text("{")
    refused("config.json can't be read")
    config.write_text("[]")
    refused("config.json is not a JSON object")
    config.write_text(json.dumps(good))
    save_file(tensors | {"bert.pooler.dense.bias": np.ones(3, np.float32)}, weights)
    refused(r"bert.pooler.dense.bias has the shape \[3\], and its configuration asks for \[16\]")
    weights.write_bytes(weights.read_bytes()[:1000])
    refused("model.safetensors can't be read")
    weights.unlink()
    refused("model.safetensors is missing: give a folder with config.json, model.safetensors and vocab.txt")
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    refused("its weights are pickled, which clozemill never opens")


def test_an_import_with_a_pooler_that_its_heads_do_not_use(tmp_path: Path) -> None:
    """It is kept, so that the folder can be restored, and transformers ignores it."""
    index = {"objective": "mlm", "imported": {"from": "x", "format": "hf", "heads": ["pooler", "masked_lm"]}}
    source, features = sources.source(index=index), sources.features()
    huggingface.write(source, str(tmp_path))
    found = huggingface.read(tmp_path)
    assert settings(tmp_path)["architectures"] == ["BertForMaskedLM"] and found.converted.parts == ("pooler", "masked_lm")
    assert all(np.array_equal(value, found.converted.weights[path]) for path, value in source.weights().items())
    given = huggingface.outputs(str(tmp_path), sources.TEXTS, features)  # by the reader that is installed
    assert max(furthest(answers(source, features), given, features["input_mask"]).values()) <= TOLERANCE


def test_a_card_compares_the_result_with_baselines() -> None:
    """Compared with an answer that ignores the text; the criterion, which duplicates a metric, is left out."""
    index = {
        "task": Task("multilabel", ("a", "b"), threshold=0.3).to_dict(),
        "baseline": {"answer": "never a label", "micro_f1": 0.25, "pearson": None},
        "eval": {"micro_f1": 0.5, "criterion": -0.5, "examples": 9, "remarks": ["it is useless"]},
    }
    lines = card(sources.source(index=index), "BertForSequenceClassification", 9).splitlines()
    assert [line for line in lines if "micro_f1" in line or "useless" in line or "criterion" in line] == [
        "- Baseline that ignores the text (never a label): micro_f1 0.2500.",
        "- On the dev examples: micro_f1 0.5000.",
        "- Note: it is useless.",
    ]
    assert "- Each label has its own sigmoid; a label is assigned at a probability of 0.3 or above." in lines


def test_names_and_labels_are_escaped_in_a_card() -> None:
    labels = ("<script>", "[a](http://x)", "| b |", "`c`\n# d", "\x1b[31m", "\u202ee", "not_entailment")
    index = {"task": Task("classify", labels).to_dict(), "datasets": ["![x](y)"]}
    text = card(sources.source(index=index), "BertForSequenceClassification", 9)
    assert r"labels \<script\>, \[a\](http://x), \| b \|, \`c\` \# d, \<U+001B>\[31m, \<U+202E>e, not_entailment;" in text
    assert r"- Dataset: \!\[x\](y)." in text


def test_a_full_disk_while_writing_the_tokenizer(tmp_path: Path) -> None:
    """The tokenizers library would raise a bare Exception instead of an OSError."""
    (tmp_path / "tokenizer.json").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        huggingface.write_tokenizer(sources.source(), tmp_path)
