"""SavedModels: same outputs as the source for raw text, movable folders, and fine-tuning with only TensorFlow."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from clozemill.model.config import EncoderConfig
from clozemill.model.export import savedmodel
from clozemill.model.export.base import Source, answers, furthest
from clozemill.model.inputs import assemble
from clozemill.model.pretraining_model import EncoderModel, PretrainingModel
from clozemill.model.task_model import Task, TaskModel
from clozemill.pipelines.text.cleaning import clean
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from tests.model import sources
from tests.model.small import apart, scatter
from tests.slow import mostly_slow

VOCABULARY = tuple(
    "[UNK] the mill ##s river old . stand by [MASK] [SEP] [CLS] a [PAD] é ##é ? ! who built it 中 ' ##x".split()  # noqa: SIM905
)
SIZES = {"vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
CONFIG = EncoderConfig(**SIZES, max_position_embeddings=24)
TEXTS = [
    ("The old mills stand by the river.", ""),
    ("Who built it?", "the mill " * 20),
    ("É ééé 中中\u0301 A\u00ad", "x\ny"),
    ("", ""),
    ("\x00\u200b", "\x07"),
    ("mill" + "s" * 10_000, "river " * 100),
    ("the " * 60, "the mill"),
]
ARRAYS = [tf.constant([pair[side] for pair in TEXTS]) for side in (0, 1)]


def make(model: keras.Model, length: int = 20, about: dict | None = None) -> Source:
    return Source(scatter(model), VOCABULARY, False, length, about or {})


def features(texts: list[tuple[str, str]], length: int = 20) -> dict[str, np.ndarray]:
    """Return features as in shards and fine-tuning, from the Python tokenizer."""
    wordpiece = WordPiece(Vocabulary.from_tokens(list(VOCABULARY)))
    found = [[wordpiece.encode([clean(pair[side]).replace("\n", " ")]).ids for pair in texts] for side in (0, 1)]
    special = tuple(VOCABULARY.index(token) for token in ("[PAD]", "[CLS]", "[SEP]"))
    return assemble(*found, special, length)


def saved(source: Source, folder: Path) -> Path:
    savedmodel.write(source, str(folder))
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Source, Path]]:
    """A source of SOURCES and its SavedModel, each written only once, which takes ten seconds."""

    @cache
    def export(kind: str) -> tuple[Source, Path]:
        source = make(SOURCES[kind]())
        return source, saved(source, tmp_path_factory.mktemp("export") / "savedmodel")

    return export


@pytest.fixture(scope="module")
def source(exported) -> Source:
    return exported("nsp")[0]


@pytest.fixture(scope="module")
def folder(exported) -> Path:
    return exported("nsp")[1]


@pytest.fixture(scope="module")
def loaded(folder: Path):
    return tf.saved_model.load(str(folder))


SOURCES = {
    "nsp": lambda: PretrainingModel(CONFIG),
    "mlm": lambda: PretrainingModel(replace(CONFIG, remat=True), "mlm"),
    "modern": lambda: PretrainingModel(replace(CONFIG, **sources.MODERN, num_hidden_layers=2, remat=True), "mlm"),
    "causal": lambda: PretrainingModel(replace(CONFIG, attention="causal"), "causal"),
    "encoder": lambda: EncoderModel(CONFIG),
    "classify": lambda: TaskModel(CONFIG, Task("classify", ("no", "yes"))),
    "multilabel": lambda: TaskModel(CONFIG, Task("multilabel", ("no", "yes", "maybe"), threshold=0.4)),
    "regress": lambda: TaskModel(CONFIG, Task("regress")),
    "tags": lambda: TaskModel(CONFIG, Task("tags", ("O", "B", "I"), layers=(-1, -2))),
    "bilstm": lambda: TaskModel(CONFIG, Task("tags", ("O", "B", "I"), head="bilstm", frozen=True)),
    "spans": lambda: TaskModel(CONFIG, Task("spans", no_answer=True)),
    "embed": lambda: TaskModel(CONFIG, Task("embed", head="mean")),
}
ALWAYS = {"encode", "encode_tokens", "preprocess", "serving_default"}
SIGNATURES = {
    "nsp": {"mlm", "nsp"}, "mlm": {"mlm"}, "modern": {"mlm"}, "classify": {"classify"},
    "multilabel": {"multilabel"}, "regress": {"regress"}, "tags": {"tags"},
    "bilstm": {"tags"}, "spans": {"spans"}, "embed": {"embed"},
}  # fmt: skip


@pytest.mark.parametrize("kind", mostly_slow(SOURCES, "classify", "embed", "modern"))
def test_outputs_match_the_source(kind: str, exported) -> None:
    (one, path), inputs = exported(kind), features(TEXTS)
    found, expected = savedmodel.outputs(str(path), TEXTS, {}), answers(one, inputs)
    assert set(found) == {"sequence_output", "pooled_output"} | ({"logits", "sentence_embedding"} & set(expected))
    assert max(furthest(expected, found, inputs["input_mask"]).values()) < 1e-5
    assert set(tf.saved_model.load(str(path)).signatures) == ALWAYS | SIGNATURES.get(kind, set())
    assert [file for file in path.rglob("*") if file.is_file() and file.parent.name == "assets"] == []


@pytest.mark.slow
def test_an_import_has_only_outputs_of_its_parts(tmp_path: Path) -> None:
    """Without heads and pooler, because their weights are arbitrary."""
    one = make(PretrainingModel(CONFIG), about={"imported": {"heads": []}})
    path = saved(one, tmp_path / "it")
    again = tf.saved_model.load(str(path))
    assert set(again.signatures) == ALWAYS and not hasattr(again, "fill_mask")
    assert set(savedmodel.outputs(str(path), TEXTS, {})) == {"sequence_output"}
    assert len(again.trainable_variables) == len(one.model.encoder.weights) - 2


@pytest.mark.slow
def test_bfloat16(tmp_path: Path) -> None:
    one = make(PretrainingModel(CONFIG, dtype="mixed_bfloat16"))
    found = savedmodel.outputs(str(saved(one, tmp_path / "it")), TEXTS, {})
    expected = {name: value.astype("float32") for name, value in answers(one, features(TEXTS)).items()}
    assert {value.dtype for value in found.values()} == {np.dtype("float32")}
    assert (
        max(furthest({n: v.astype("float32") for n, v in expected.items()}, found, features(TEXTS)["input_mask"]).values())
        < 0.05
    )


def test_preprocess_values(loaded) -> None:
    found = loaded.signatures["preprocess"](text=tf.constant(["The mills", "a\nÉ[SEP]"]), text_pair=tf.constant(["", "by"]))
    assert {name: value.numpy().tolist() for name, value in found.items()} == {
        "input_ids": [[11, 1, 2, 3, 10, 13, 13, 13, 13], [11, 12, 0, 0, 0, 0, 10, 8, 10]],
        "input_mask": [[1, 1, 1, 1, 1, 0, 0, 0, 0], [1] * 9],
        "segment_ids": [[0] * 9, [0] * 7 + [1, 1]],
    }
    fixed = loaded.preprocess(tf.constant(["the", "a"]), tf.constant(["", ""]), 5)
    assert fixed["input_ids"].numpy().tolist() == [[11, 1, 10, 13, 13], [11, 12, 10, 13, 13]]
    assert loaded.tokenize(tf.constant(["the mills", ""])).to_list() == [[1, 2, 3], []]


def test_preprocess_matches_python(loaded) -> None:
    found, expected = loaded.signatures["preprocess"](text=ARRAYS[0], text_pair=ARRAYS[1]), features(TEXTS)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    empty = loaded.signatures["encode"](text=tf.constant([], tf.string), text_pair=tf.constant([], tf.string))
    assert empty["pooled_output"].shape == (0, 16)


def test_encode(loaded, source: Source) -> None:
    found = loaded.signatures["encode"](text=ARRAYS[0], text_pair=ARRAYS[1])
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "pooled_output": (7, 16), "sequence_output": (7, 20, 16), "all_layers": (7, 2, 20, 16),
    }  # fmt: skip
    np.testing.assert_array_equal(found["all_layers"][:, -1], found["sequence_output"])
    short = loaded.signatures["encode"](text=ARRAYS[0][:1], text_pair=ARRAYS[1][:1])
    assert short["sequence_output"].shape == (1, 11, 16)  # the length of the text, not the maximum length
    assert apart(short["pooled_output"], found["pooled_output"][:1]) < 1e-5


def test_mlm(loaded, source: Source) -> None:
    texts = ["The [MASK] stands by [MASK]", "river", "[MASK]"]
    found = loaded.signatures["mlm"](text=tf.constant(texts), text_pair=tf.constant(["", "", "[MASK]."]))
    assert found["positions"].numpy().tolist() == [[2, 6], [-1, -1], [1, 3]]
    assert found["tokens"].shape == (3, 2, 5) and found["tokens"][1].numpy().tolist() == [[b""] * 5] * 2
    ids = np.array([[11, 9, 10, 9, 6, 10]])
    inputs = {"input_ids": ids, "input_mask": np.ones_like(ids), "segment_ids": np.array([[0, 0, 0, 1, 1, 1]])}
    logits = keras.ops.convert_to_numpy(source.model(inputs)["masked_lm_logits"])[0, [1, 3]]
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    best = np.argsort(-probs, axis=-1)[:, :5]
    assert found["token_ids"][2].numpy().tolist() == best.tolist()
    assert found["tokens"][2].numpy().tolist() == [[VOCABULARY[index].encode() for index in row] for row in best]
    np.testing.assert_allclose(found["probabilities"][2], np.take_along_axis(probs, best, -1), atol=1e-5)
    assert loaded.fill_mask(tf.constant(texts), tf.constant([""] * 3), 2)["tokens"].shape == (3, 2, 2)
    assert loaded.fill_mask(tf.constant(texts), tf.constant([""] * 3), 99)["tokens"].shape == (3, 2, 24)
    assert loaded.signatures["mlm"](text=tf.constant(["a"]), text_pair=tf.constant([""]))["tokens"].shape == (1, 0, 5)


def test_nsp(loaded, source: Source) -> None:
    found = loaded.signatures["nsp"](text=ARRAYS[0], text_pair=ARRAYS[1])["probabilities"]
    expected = keras.ops.softmax(source.model(features(TEXTS))["next_sentence_logits"])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_multilabel(exported) -> None:
    one, path = exported("multilabel")
    found = tf.saved_model.load(str(path)).signatures["multilabel"](text=ARRAYS[0], text_pair=ARRAYS[1])
    probs = 1 / (1 + np.exp(-answers(one, features(TEXTS))["logits"]))
    assert np.abs(found["probabilities"].numpy() - probs).max() < 1e-6
    assert found["given"].numpy().tolist() == (probs >= 0.4).tolist() and 0 < (probs >= 0.4).sum() < probs.size
    assert found["labels"].numpy().tolist() == [b"no", b"yes", b"maybe"]


def test_classify(exported) -> None:
    one, path = exported("classify")
    found = tf.saved_model.load(str(path)).signatures["classify"](text=ARRAYS[0], text_pair=ARRAYS[1])
    probs = keras.ops.convert_to_numpy(keras.ops.softmax(one.model(features(TEXTS))["logits"]))
    np.testing.assert_allclose(found["probabilities"], probs, atol=1e-5)
    assert found["labels"].numpy().tolist() == [b"no", b"yes"]
    assert found["label"].numpy().tolist() == [[b"no", b"yes"][index] for index in probs.argmax(-1)]


def test_embed(exported) -> None:
    """The signature, which is the default one, and the object itself return vectors of length 1; in training too."""
    one, path = exported("embed")
    model = tf.saved_model.load(str(path))
    found = model.signatures["embed"](text=ARRAYS[0])["sentence_embedding"]
    expected = keras.ops.convert_to_numpy(one.model(features([(text, "") for text, _ in TEXTS]))["logits"])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)
    assert np.array_equal(model.signatures["serving_default"](text=ARRAYS[0])["sentence_embedding"], found)
    inputs = model.signatures["preprocess"](text=ARRAYS[0], text_pair=ARRAYS[1])
    assert model(inputs, training=True)["sentence_embedding"].shape == (len(TEXTS), 16)


@pytest.mark.slow
def test_regress(exported) -> None:
    one, path = exported("regress")
    found = tf.saved_model.load(str(path)).signatures["regress"](text=ARRAYS[0], text_pair=ARRAYS[1])
    np.testing.assert_allclose(found["score"], one.model(features(TEXTS))["logits"][:, 0], atol=1e-5)


@pytest.mark.slow
def test_tags(tmp_path: Path) -> None:
    one = make(SOURCES["tags"](), length=12)
    signature = tf.saved_model.load(str(saved(one, tmp_path / "it"))).signatures["tags"]
    found = signature(text=tf.constant(["The old mills,\u3000\u200bstand\n", "", "the " * 9 + "mills the", "\u0301 mill"]))
    assert found["lengths"].numpy().tolist() == [4, 0, 11, 2]
    assert found["words"][0, :5].numpy().tolist() == [b"The", b"old", b"mills,", b"stand", b""]
    ids = np.array([[11, 1, 5, 2, 3, 0, 7, 10]])
    logits = one.model({"input_ids": ids, "input_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)})["logits"]
    probs = keras.ops.convert_to_numpy(keras.ops.softmax(logits))[0, [1, 2, 3, 6]]
    assert found["tags"][0, :4].numpy().tolist() == [[b"O", b"B", b"I"][index] for index in probs.argmax(-1)]
    np.testing.assert_allclose(found["probabilities"][0, :4], probs.max(-1), atol=1e-5)
    assert [bool(tag) for tag in found["tags"][2].numpy()] == [True] * 9 + [False, False]  # `mills` has a piece too many
    assert found["tags"][3, 0].numpy() in (b"O", b"B", b"I")
    assert signature(text=tf.constant(["", ""]))["tags"].shape == (2, 0)


@pytest.mark.slow
@pytest.mark.parametrize("no_answer", [False, True])
def test_spans(no_answer: bool, tmp_path: Path) -> None:
    one = make(TaskModel(CONFIG, Task("spans", no_answer=no_answer)))
    path = saved(one, tmp_path / "it")
    question = ["Who built it?", "who", "who?"]
    context = ["  The old mills,  stand\nby É中. ", "", "ΟΣ river"]
    names = {"question": tf.constant(question), "context": tf.constant(context)}
    found = {name: value.numpy() for name, value in tf.saved_model.load(str(path)).signatures["spans"](**names).items()}
    words = ["The", "old", "mills", "mills", ",", "stand", "by", "É", "中", "."]
    logits = keras.ops.convert_to_numpy(one.model(features([(question[0], context[0])]))["logits"])[0]
    window = logits[6 : 6 + len(words)].astype("float64")
    scores = {(i, j): window[i, 0] + window[j, 1] for i in range(10) for j in range(i, 10)}
    (first, last), top = max(scores.items(), key=lambda item: item[1])
    text = "The old mills, stand by É中."
    starts, ends = [0, 4, 8, 8, 13, 15, 21, 24, 25, 26], [3, 7, 13, 13, 14, 20, 23, 25, 26, 27]
    none = 1 / (1 + np.exp(top - logits[0].sum())) if no_answer else 0.0
    answer = "" if none > 0.5 else text[starts[first] : ends[last]]
    assert found["answer"][0].decode() == answer
    np.testing.assert_allclose(found["probability"][0], np.exp(top) / sum(map(np.exp, scores.values())), atol=1e-5)
    np.testing.assert_allclose(found["no_answer_probability"][0], none, atol=1e-5)
    assert (found["answer"][1], found["probability"][1]) == (b"", 0)
    assert found["answer"][2].decode() in ("", "ΟΣ", "ΟΣ river", "river")


ALONE = """
import sys, importlib.util
sys.path = [path for path in sys.path if path not in sys.argv[2:]]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import tensorflow as tf, tensorflow_text
assert not any(importlib.util.find_spec(name) for name in ("model", "pipelines", "trainers", "clozemill"))
loaded = tf.saved_model.load(sys.argv[1])
found = loaded.signatures["encode"](text=tf.constant(["The old mills", "É"]), text_pair=tf.constant(["", "by"]))
print("found:", *found["pooled_output"].numpy().ravel().tolist())
"""


def test_it_can_be_moved_and_loaded_without_clozemill(source: Source, folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    assert not any(str(folder).encode() in path.read_bytes() for path in moved.rglob("*") if path.is_file())
    root = str(Path(__file__).parents[3])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(moved), root, ""], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.array(done.stdout.rsplit("found:", 1)[1].split(), float).reshape(2, -1)
    expected = answers(source, features([("The old mills", ""), ("É", "by")]))["pooled_output"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


class Pretrained(keras.layers.Layer):
    """The example in the README."""

    def __init__(self, folder: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.saved = tf.saved_model.load(folder)
        self.saved_variables = [
            keras.Variable(v, name=v.name.split(":")[0].replace("/", "_")) for v in self.saved.trainable_variables
        ]

    def call(self, inputs, training=False):
        return self.saved(inputs, training=bool(training))


INPUTS = {name: tf.constant(value) for name, value in features([("the mill", "")] * 4 + [("the river", "")] * 4, 8).items()}
LABELS = tf.constant([0] * 4 + [1] * 4)


@pytest.mark.parametrize("kind", mostly_slow(("nsp", "mlm", "classify"), "classify"))
def test_fine_tuned_with_a_gradient_tape(kind: str, exported) -> None:
    again = tf.saved_model.load(str(exported(kind)[1]))
    kernel = tf.Variable(tf.zeros([16, 2]))

    def logits(training: bool) -> tf.Tensor:
        found = again(INPUTS, training=training)
        return found["logits"] if kind == "classify" else found["pooled_output"] @ kernel

    tuned = [*again.trainable_variables, *([kernel] if kind != "classify" else [])]
    assert again.regularization_losses == [] and len(again.variables) > len(again.trainable_variables)
    losses = []
    for _ in range(30):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits(True)))
        gradients = tape.gradient(loss, tuned)
        assert all(gradient is not None for gradient in gradients)
        losses.append(float(loss))
        for variable, gradient in zip(tuned, gradients, strict=True):
            variable.assign_sub(0.1 * tf.convert_to_tensor(gradient))
    assert np.argmax(logits(False), -1).tolist() == LABELS.numpy().tolist()
    assert apart(logits(True), logits(True)) > 1e-4  # dropout draws new masks
    assert apart(logits(False), logits(False)) == 0
    assert apart(again(INPUTS), again(INPUTS, training=False)) == 0


@pytest.mark.slow
def test_fine_tuned_as_a_keras_layer(folder: Path, loaded, tmp_path: Path) -> None:
    def model() -> keras.Model:
        inputs = {name: keras.Input([None], dtype="int32", name=name) for name in INPUTS}
        encoder = Pretrained(str(folder), name="pretrained")
        return keras.Model(inputs, keras.layers.Dense(2, name="answer")(encoder(inputs)["pooled_output"]))

    one = model()
    one.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [weight.numpy() for weight in one.trainable_weights]
    one.fit(INPUTS, LABELS, epochs=100, batch_size=8, verbose=0)
    assert len(before) == len(loaded.trainable_variables) + 2
    assert all((weight.numpy() != old).any() for weight, old in zip(one.trainable_weights, before, strict=True))
    predicted = one.predict(INPUTS, verbose=0)
    assert predicted.argmax(-1).tolist() == LABELS.numpy().tolist()
    one.save_weights(tmp_path / "it.weights.h5")
    other = model()
    other.load_weights(tmp_path / "it.weights.h5")
    assert apart(other.predict(INPUTS, verbose=0), predicted) < 1e-6
