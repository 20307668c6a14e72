"""Figures over the eval split against plain numpy, the report, and what can't be evaluated."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from clozemill.model.config import EncoderConfig
from clozemill.model.pretraining_model import OBJECTIVES, PretrainingModel
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.shards import tf_example
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.engines import tensorflow_engine
from clozemill.trainers.engines.train_state import TrainState
from clozemill.trainers.pretraining import evaluate
from clozemill.trainers.pretraining.evaluate import report
from clozemill.trainers.pretraining.evaluate_config import EvaluateConfig
from clozemill.trainers.pretraining.evaluation import ComparedEvaluation, Evaluation, remarks, without_context
from clozemill.trainers.training import checkpoints
from tests.slow import mostly_slow_rows
from tests.trainers import datasets, steps
from tests.trainers.datasets import ENTRIES, LENGTH, PREDICTIONS, VOCABULARY

TRAIN, EVAL = [[7, 0, 6], [5, 5, 1]], [4, 0, 9, 3]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return datasets.write(tmp_path_factory.mktemp("small"), TRAIN, EVAL)


def write(run: str, made: TrainState, about: dict[str, Any]) -> None:
    """Write a checkpoint of step 5."""
    checkpoints.write(checkpoints.step_folder(run, 5), made.values(), VOCABULARY, {"step": 5, **about})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small: PreparedDataset) -> str:
    """A run with one checkpoint, of step 5."""
    folder, made = str(tmp_path_factory.mktemp("run")), steps.make().state
    about = {"encoder": steps.SMALL.to_dict(), "objective": "mlm+nsp", "vocabulary": small.vocabulary}
    write(folder, made, about)
    return folder


def decoded(dataset: PreparedDataset, split: str) -> dict[str, np.ndarray]:
    """Return all examples in the first copy of a split, read by the reader of the pipelines."""
    rows = [row for shard in datasets.records(dataset, split).values() for row in shard]
    return vars(tf_example.decode(rows, LENGTH, PREDICTIONS))


def asked(columns: dict[str, np.ndarray], objective: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the model reads, and the tokens that it is asked for with their weights."""
    if objective != "causal":
        return columns["input_ids"], columns["masked_lm_ids"], columns["masked_lm_weights"]
    ids = columns["input_ids"].copy()
    for row, places, words, weights in zip(
        ids, *(columns[f"masked_lm_{n}"] for n in ("positions", "ids", "weights")), strict=True
    ):
        row[places[weights > 0]] = words[weights > 0]
    return ids[:, :-1], ids[:, 1:], columns["input_mask"][:, 1:]


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    logits = logits.astype("float64")
    shifted = logits - logits.max(axis=-1, keepdims=True)
    picked = np.take_along_axis(shifted, labels[..., None], axis=-1)[..., 0]
    return np.log(np.exp(shifted).sum(axis=-1)) - picked


def by_hand(model: PretrainingModel, columns: dict[str, np.ndarray], objective: str) -> dict[str, float]:
    """All examples at once."""
    ids, labels, weights = asked(columns, objective)
    inputs = {name: tf.constant(columns[name], tf.int32) for name in ("input_mask", "segment_ids", "masked_lm_positions")}
    if objective == "causal":
        inputs = {name: values[:, :-1] for name, values in inputs.items() if "positions" not in name}
    outputs = {name: value.numpy() for name, value in model(inputs | {"input_ids": tf.constant(ids, tf.int32)}).items()}
    logits = outputs["masked_lm_logits"]
    found = {
        "masked_lm_loss": (cross_entropy(logits, labels) * weights).sum() / weights.sum(),
        "masked_lm_accuracy": ((logits.argmax(axis=-1) == labels) * weights).sum() / weights.sum(),
        "examples": len(ids),
        "predictions": weights.sum(),
    }
    if "next_sentence_logits" in outputs:
        pairs, labels = outputs["next_sentence_logits"], columns["next_sentence_labels"]
        found["next_sentence_loss"] = cross_entropy(pairs, labels).mean()
        found["next_sentence_accuracy"] = (pairs.argmax(axis=-1) == labels).mean()
    found["loss"] = found["masked_lm_loss"] + found.get("next_sentence_loss", 0)
    return found | {"perplexity": math.exp(found["masked_lm_loss"])}


SIZES = (("mlm+nsp", 1), ("mlm+nsp", 6), ("mlm+nsp", 50), ("causal", 7))


@pytest.mark.parametrize(("objective", "size"), mostly_slow_rows(SIZES, ("mlm+nsp", 6), ("causal", 7)))
def test_figures_by_hand(small: PreparedDataset, objective: str, size: int) -> None:
    """For any batch size, most with fillers in the last batch."""
    model = steps.make(objective).state.model
    expected = by_hand(model, decoded(small, "eval"), objective)
    assert expected["examples"] == 16
    found = Evaluation(tensorflow_engine.default(), model, small, size).figures()
    assert found == pytest.approx(expected, rel=1e-6)


def test_figures_with_a_limit(small: PreparedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first examples alone; twice, since a run does it again and again."""
    model = steps.make().state.model
    expected = by_hand(model, {name: values[:7] for name, values in decoded(small, "eval").items()}, "mlm+nsp")
    evaluation = Evaluation(tensorflow_engine.default(), model, small, 4, limit=7)
    first, traced = evaluation.figures(), []
    monkeypatch.setattr(evaluation.model, "prepare", traced.append)  # called while the function is traced
    assert first == evaluation.figures() == pytest.approx(expected, rel=1e-6) and not traced


def test_a_model_that_knows_nothing(small: PreparedDataset) -> None:
    """All weights 0: every token is as likely, so the perplexity is the vocabulary's size."""
    model = steps.make(num_hidden_layers=1).state.model
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    found = Evaluation(tensorflow_engine.default(), model, small, 16).figures()
    assert found["perplexity"] == pytest.approx(ENTRIES, rel=1e-6)
    assert found["masked_lm_loss"] == pytest.approx(3.6888795, rel=1e-6)
    assert found["next_sentence_loss"] == pytest.approx(0.6931472, rel=1e-6)


@pytest.mark.parametrize("objective", ["mlm+nsp", "causal"])
def test_without_context_by_hand(small: PreparedDataset, objective: str) -> None:
    """From counts of the tokens asked for: of the train split, one added to each, and of the eval split itself."""
    counts = {}
    for split in ("train", "eval"):
        _, labels, weights = asked(decoded(small, split), objective)
        counts[split] = np.bincount(labels[weights > 0], minlength=ENTRIES)
    shares = counts["eval"] / counts["eval"].sum()
    learnt = (counts["train"] + 1) / (counts["train"] + 1).sum()
    found = without_context(small, OBJECTIVES[objective])
    found.pop("next_sentence_baseline", None)
    assert found == pytest.approx({
        "unigram_loss": -(shares * np.log(learnt)).sum(),
        "unigram_entropy": -sum(share * math.log(share) for share in shares if share),
    })  # fmt: skip
    assert found["unigram_entropy"] < found["unigram_loss"]


def test_without_context_and_without_a_train_split(tmp_path: Path) -> None:
    """Nothing learnt: every token is as likely."""
    dataset = datasets.write(tmp_path, [[0]], [5])
    assert without_context(dataset, OBJECTIVES["mlm"])["unigram_loss"] == pytest.approx(math.log(ENTRIES))


def test_no_eval_examples(tmp_path: Path) -> None:
    model = steps.make(num_hidden_layers=1).state.model
    for name, sizes in (("none", []), ("empty", [0, 0])):
        dataset = datasets.write(tmp_path / name, [[4]], sizes)
        with pytest.raises(UserError) as error:
            Evaluation(tensorflow_engine.default(), model, dataset, 4)
        assert str(error.value) == (
            f"{tmp_path / name} has no eval examples: prepare with a larger --eval-fraction, or leave evaluation out"
        )


@pytest.mark.parametrize(
    ("loss", "predictions", "compared"), [(5.0, 9, ""), (5.96, 9, "hardly"), (6.0, 9, "no"), (7.0, 9, "no"), (0.0, 0, "")]
)
def test_what_is_said_of_a_model_that_knows_word_frequencies_alone(loss: float, predictions: int, compared: str) -> None:
    """Less than a hundredth better is hardly better; without anything to predict there is nothing to say."""
    found = remarks({"masked_lm_loss": loss, "unigram_loss": 6.0, "predictions": predictions})
    assert found == [
        f"the masked LM loss of {loss:.3f} nats is {compared} better than that of word frequencies alone, 6.000: "
        "the model has not learnt to use the context"
    ] * bool(compared)


@pytest.mark.parametrize(("accuracy", "told"), [(0.85, 0), (0.84, 1), (0.5, 1)])
def test_what_is_said_of_an_encoder_that_detects_nothing(accuracy: float, told: int) -> None:
    """The loss of the generator doesn't matter."""
    figures = {"masked_lm_loss": 7.0, "unigram_loss": 6.0, "predictions": 9, "replaced_baseline": 0.84}
    sentence = (
        f"the replaced-token accuracy of {accuracy:.1%} is no better than that of calling every token original, at least "
        "84.0%: the encoder has not learnt to use the context"
    )
    assert remarks(figures | {"replaced_accuracy": accuracy}) == [sentence] * told


def test_constant_answers(small: PreparedDataset) -> None:
    """The more frequent label; and the tokens without a mask, of which replaced-token detection judges all."""
    columns = decoded(small, "eval")
    labels = columns["next_sentence_labels"].mean()
    pairs = without_context(small, OBJECTIVES["mlm+nsp"])
    assert pairs["next_sentence_baseline"] == pytest.approx(max(labels, 1 - labels))
    masked = columns["masked_lm_weights"].sum() / columns["input_mask"].sum()
    detection = without_context(small, OBJECTIVES["rtd"])
    assert detection["replaced_baseline"] == pytest.approx(1 - masked) and "next_sentence_baseline" not in detection


@pytest.mark.slow
def test_a_training_run_s_evaluation_knows_its_baseline(small: PreparedDataset) -> None:
    model = steps.make(num_hidden_layers=1).state.model
    found = ComparedEvaluation(tensorflow_engine.default(), model, small, 8, limit=7).figures()
    plain = Evaluation(tensorflow_engine.default(), model, small, 8, limit=7).figures()
    baseline = without_context(small, model.objective, limit=7)
    assert found == plain | baseline | {"remarks": remarks(plain | baseline)}
    assert baseline["unigram_loss"] != without_context(small, model.objective)["unigram_loss"]


FIGURES = {
    "examples": 1234, "predictions": 24680, "masked_lm_loss": 2.34567, "perplexity": 12345.678, "masked_lm_accuracy": 0.45678,
}  # fmt: skip


def test_report_literally() -> None:
    lines = [
        "examples                1,234, 24,680 tokens to predict",
        "masked LM loss          2.3457 nats (perplexity 12,345.7)",
        "masked LM accuracy      45.68 %",
    ]
    assert report(FIGURES) == lines
    more = {"next_sentence_loss": 0.69315, "next_sentence_accuracy": 0.5}
    pairs = ["next sentence loss      0.6932 nats", "next sentence accuracy  50.00 %"]
    assert report(FIGURES | more) == lines + pairs
    beside = [pairs[0], pairs[1] + " (always the more frequent label: 51.00 %)"]
    assert report(FIGURES | more | {"next_sentence_baseline": 0.51}) == lines + beside
    context = {"unigram_loss": 6.5, "unigram_entropy": 5.25}
    assert report(FIGURES | more | context) == [
        *lines[:2],
        "  word frequencies      6.5000 nats (of the train split, without any context)",
        "  the best frequencies  5.2500 nats (of these very tokens, without context either)",
        lines[2],
        *pairs,
    ]
    assert report(FIGURES | context | {"unigram_loss": 2.3})[-1].startswith("warning: the masked LM loss of 2.346 nats is no")


def test_the_command(small: PreparedDataset, run: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "new" / "figures.json"
    assert evaluate.main(EvaluateConfig(run=run, data=small.folder, batch_size=5, output=str(output))) == 0
    found = json.loads(output.read_text())
    expected = by_hand(steps.make().state.model, decoded(small, "eval"), "mlm+nsp")
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    baselines = {"unigram_loss", "unigram_entropy", "next_sentence_baseline"}
    assert found.keys() - expected.keys() == baselines | {"step"} and found["step"] == 5
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{run}/checkpoints/step-00000005, step 5, on the eval split of {small.folder}"
    assert told[1:] == report(found)


def mistake(**options: str) -> str:
    with pytest.raises(UserError) as error:
        evaluate.main(EvaluateConfig(**options))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_can_t_be_evaluated(small: PreparedDataset, run: str, tmp_path: Path) -> None:
    one, other = f"{run}/checkpoints/step-00000005", tmp_path / "other"
    assert mistake(data=small.folder).startswith("RUN is missing: give the folder of a run")
    assert mistake(run=run).startswith("--data is missing: give a dataset")
    assert mistake(run=str(tmp_path), data=small.folder).startswith(f"{tmp_path} has no checkpoint: ")
    datasets.write(other, TRAIN, EVAL, vocabulary=VOCABULARY + b"more\n")
    assert mistake(run=run, data=str(other)) == (
        f"{other}'s vocabulary has 41 entries, that of {one} 40: prepare the dataset with the vocab.txt of the run"
    )
    datasets.write(other, TRAIN, EVAL, vocabulary=VOCABULARY.replace(b"7", b"seven"))
    assert " as its SHA-256, that of " in mistake(run=run, data=str(other))
    datasets.write(other, TRAIN, EVAL, pairs="single")
    assert mistake(run=run, data=str(other)).startswith(f"{other} has pairs single, but the objective mlm+nsp needs nsp: ")
    datasets.write(tmp_path / "empty", TRAIN)
    assert mistake(run=run, data=str(tmp_path / "empty")).startswith(f"{tmp_path / 'empty'} has no eval examples: ")


def test_sequences_that_are_too_long(small: PreparedDataset, tmp_path: Path) -> None:
    short = EncoderConfig(**steps.SMALL.to_dict() | {"max_position_embeddings": LENGTH - 1})
    made = steps.make(max_position_embeddings=LENGTH - 1).state
    about = {"encoder": short.to_dict(), "objective": "mlm+nsp", "vocabulary": small.vocabulary}
    write(str(tmp_path), made, about)
    told = mistake(run=str(tmp_path), data=small.folder)
    assert told.startswith(f"{small.folder} has sequences of 12 tokens, but the model accepts 11: ")


def test_a_damaged_shard(run: str, tmp_path: Path) -> None:
    dataset = datasets.write(tmp_path, TRAIN, EVAL)
    path = Path(dataset.path(dataset.shards("eval")[2]))
    path.write_bytes(path.read_bytes()[:-3])
    told = mistake(run=run, data=str(tmp_path))
    assert told == (
        f"{path}: record {EVAL[2] - 1}: the file is truncated within it: restore it or rebuild the dataset; "
        f"clozemill verify {tmp_path} lists all corrupt files"
    )


@pytest.mark.slow
def test_an_import_is_evaluated_where_it_has_the_head(small: PreparedDataset, run: str, tmp_path: Path, capsys) -> None:
    """Without a pooler, which masked tokens don't need; without the masked-LM head there is nothing to measure."""
    one = checkpoints.find(run)
    values = {path: value for path, value in checkpoints.weights(one).items() if not path.startswith("next_")}
    kept = {path: value for path, value in values.items() if "pooler" not in path}
    about = {name: one.index[name] for name in ("step", "encoder", "vocabulary")}
    about |= {"objective": "mlm", "imported": {"heads": ["masked_lm"]}}
    checkpoints.write(str(tmp_path / "lm"), {"weights": kept}, VOCABULARY, about)
    config = EvaluateConfig(run=str(tmp_path / "lm"), data=small.folder, output=str(tmp_path / "figures.json"))
    assert evaluate.main(config) == 0
    whole = EvaluateConfig(run=run, data=small.folder, output=str(tmp_path / "whole.json"))
    assert evaluate.main(whole) == 0
    found, expected = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("figures", "whole"))
    assert found["masked_lm_loss"] == pytest.approx(expected["masked_lm_loss"], rel=1e-6)
    bare = {path: value for path, value in kept.items() if path.startswith("encoder/")}
    for more in ({"objective": ""}, {"task": {}}):
        index = {name: value for name, value in about.items() if name != "objective"} | {"imported": {"heads": []}} | more
        checkpoints.write(str(tmp_path / "bare"), {"weights": bare}, VOCABULARY, index)
        with pytest.raises(UserError, match="bare has no masked-LM head: give a checkpoint of pretrain, or of an import with"):
            evaluate.main(EvaluateConfig(run=str(tmp_path / "bare"), data=small.folder))
