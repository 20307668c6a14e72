"""`pretrain --init`: sizes and weights come from a checkpoint, contradictions are refused, a resume reads it no more."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import clozemill
from clozemill.model.config import EncoderConfig
from clozemill.model.task_model import Task
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.engines import train_state
from clozemill.trainers.pretraining import pretraining_run, warm_start
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.training import checkpoints, run_folder
from tests.model.small import scatter
from tests.trainers import datasets
from tests.trainers.datasets import ENTRIES, VOCABULARY

SMALL = EncoderConfig(
    vocab_size=ENTRIES, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
    max_position_embeddings=20, hidden_act="gelu_erf", layer_norm_eps=1e-6, hidden_dropout_prob=0.4, initializer_range=0.3,
)  # fmt: skip
OTHER = VOCABULARY.rstrip(b"\n") + b"x\n"  # as many tokens
TOLD = {"sha256": hashlib.sha256(VOCABULARY).hexdigest(), "size": ENTRIES, "cased": False}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "small"
    folder.mkdir()
    datasets.write(folder, [[20, 24]], [6])
    return folder


def checkpoint(
    folder: Path, index: dict | None = None, seed: int = 0, without: str = "-", words: bytes = VOCABULARY, **changes
) -> Path:
    """A checkpoint with random weights."""
    index = {"encoder": SMALL.to_dict(), "vocabulary": TOLD, "step": 5} | (index or {"objective": "mlm+nsp"}) | changes
    model = scatter(train_state.model_for(index), seed)
    weights = {path: value for path, value in train_state.TrainState(model).weights().items() if without not in path}
    checkpoints.write(str(folder), {"weights": weights}, words, index)
    return folder


def config(small: Path, begun: Path, run: Path, **changes) -> PretrainConfig:
    base = PretrainConfig(data=(str(small),), init=str(begun), output=str(run), steps=4, batch_size=8)
    return replace(base, **{"dropout": 0.1, "attention_dropout": 0.1, "initializer_range": 0.02, **changes})


def test_sizes_come_from_the_checkpoint_and_rates_from_the_options(small: Path, tmp_path: Path) -> None:
    begun = checkpoint(tmp_path / "begun")
    found = pretraining_run.plan_run(config(small, begun, tmp_path / "run", dropout=0.2, remat=True)).encoder
    own = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02, "remat": True}
    assert found == replace(SMALL, **own)


def test_the_identity_is_the_weights_not_their_path(small: Path, tmp_path: Path) -> None:
    one, same, other = (checkpoint(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    found = [pretraining_run.plan_run(config(small, path, tmp_path / "run")).identity() for path in (one, same, other)]
    assert found[0] == found[1] and found[0]["init"] != found[2]["init"] and found[0]["preset"] == ""
    assert (found[0]["hidden_act"], found[0]["max_position_embeddings"]) == ("gelu_erf", 20)
    without = pretraining_run.plan_run(replace(config(small, one, tmp_path / "run"), init="", preset="tiny")).identity()
    assert "init" not in without and without["preset"] == "tiny"
    assert (
        pretraining_run.plan_run(replace(config(small, one, tmp_path / "run"), init="")).identity()["preset"] == "tiny"
    )  # chosen for the small dataset


def test_a_digest_is_of_names_and_values() -> None:
    one = {"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32)}
    assert warm_start.digest(one) == warm_start.digest(dict(reversed(one.items())))
    assert warm_start.digest(one) != warm_start.digest({"a": one["b"], "b": one["a"]})
    assert warm_start.digest(one) != warm_start.digest({"a": one["a"], "c": one["b"]})


@pytest.mark.parametrize(
    ("index", "without", "objective", "lacking", "told"),
    [
        ({"objective": "mlm+nsp"}, "-", "mlm+nsp", (), []),
        ({"objective": "mlm+nsp"}, "-", "mlm", (), ["not used by the objective: next_sentence"]),
        ({"objective": "mlm"}, "-", "mlm+nsp", ("next_sentence",), ["no next_sentence in it: started from random weights"]),
        (
            {"objective": "", "imported": {"heads": []}}, "pooler", "mlm+nsp", ("pooler", "masked_lm", "next_sentence"),
            ["no pooler, no masked_lm, no next_sentence in it: started from random weights"],
        ),
        (
            {"task": Task("regress").to_dict()}, "-", "mlm", ("masked_lm",),
            ["no masked_lm in it: started from random weights", "not used by the objective: head"],
        ),
    ],
)  # fmt: skip
def test_weights_are_taken_over(
    index: dict, without: str, objective: str, lacking: tuple[str, ...], told: list[str], small: Path, tmp_path: Path
) -> None:
    begun = checkpoint(tmp_path / "begun", index, without=without)
    planned = pretraining_run.plan_run(config(small, begun, tmp_path / "run", objective=objective, seed=3))
    made = train_state.make(planned.encoder, objective, "float32", 3).model
    fresh = {weight.path: weight.numpy() for weight in train_state.make(planned.encoder, objective, "float32", 3).model.weights}
    assert warm_start.load(planned.start, made, VOCABULARY) == [f"started from the weights of {begun}", *told]
    theirs = checkpoints.weights(checkpoints.find(str(begun)))
    for weight in made.weights:
        path = weight.path.split("/", 1)[1]
        expected = fresh[weight.path] if any(part in path for part in lacking) else theirs[path]
        assert np.array_equal(weight.numpy(), expected), path


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"preset": "tiny"}, "--preset tiny asks for hidden_size 128, but BEGUN has 16: leave --preset out"),
        ({"preset": "base"}, "--preset base asks for num_hidden_layers 12, but BEGUN has 2: leave --preset out"),
        (
            {"recipe": "demo", "preset": "tiny"},
            "--preset tiny of --recipe demo asks for hidden_size 128, but BEGUN has 16: give --preset auto",
        ),
        ({"hidden_act": "relu"}, "--hidden-act relu asks for hidden_act relu, but BEGUN has gelu_erf: leave --hidden-act out"),
        ({"max_position_embeddings": 64}, "asks for max_position_embeddings 64, but BEGUN has 20: leave --max-position-emb"),
    ],
)
def test_contradictions(changes: dict, sentence: str, small: Path, tmp_path: Path) -> None:
    begun = checkpoint(tmp_path / "begun")
    with pytest.raises(UserError) as error:
        pretraining_run.plan_run(config(small, begun, tmp_path / "run", **changes))
    assert sentence.replace("BEGUN", str(begun)) in str(error.value)


def test_the_preset_that_it_has_may_be_given(small: Path, tmp_path: Path) -> None:
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    begun = checkpoint(tmp_path / "begun", encoder=SMALL.to_dict() | sizes)
    given = {"preset": "tiny", "max_position_embeddings": 20, "hidden_act": "gelu_erf"}
    assert pretraining_run.plan_run(config(small, begun, tmp_path / "run", **given)).encoder.hidden_size == 128


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vocabulary": TOLD | {"cased": True}}, "vocabulary has False as its being cased, that of BEGUN True: prepare"),
        ({"words": OTHER}, "entry 40 of the vocabulary of BEGUN is '39x', but that of "),
        ({"encoder": SMALL.to_dict() | {"max_position_embeddings": 8}}, "has sequences of 12 tokens, but the model accepts 8"),
    ],
)
def test_a_dataset_that_does_not_fit(changes: dict, sentence: str, small: Path, tmp_path: Path) -> None:
    begun = checkpoint(tmp_path / "begun", **changes)
    with pytest.raises(UserError) as error:
        pretraining_run.plan_run(config(small, begun, tmp_path / "run"))
    assert sentence.replace("BEGUN", str(begun)) in str(error.value)


def test_weights_that_are_not_there(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none has no checkpoint"):
        pretraining_run.plan_run(config(small, tmp_path / "none", tmp_path / "run"))
    begun = checkpoint(tmp_path / "begun", without="layer_1/output/bias")
    with pytest.raises(UserError, match=r"begun can't be used \(the tensor encoder/layer_1/output/bias is missing\): give"):
        pretraining_run.plan_run(config(small, begun, tmp_path / "run"))


def test_a_kill_before_the_first_checkpoint(small: Path, tmp_path: Path) -> None:
    """The weights are read again then, and must be the same."""
    begun = checkpoint(tmp_path / "begun")
    wanted = config(small, begun, tmp_path / "run")
    first = pretraining_run.plan_run(wanted)
    run_folder.claim_run_folder(first, wanted.output)
    again = pretraining_run.plan_run(wanted)
    assert again.start.weights is None and again.encoder == first.encoder and again.identity() == first.identity()
    run_folder.claim_run_folder(again, wanted.output)
    model = train_state.make(again.encoder, "mlm+nsp", "float32", 3).model
    warm_start.load(again.start, model, VOCABULARY)
    theirs = checkpoints.weights(checkpoints.find(str(begun)))
    assert all(np.array_equal(weight.numpy(), theirs[weight.path.split("/", 1)[1]]) for weight in model.weights)
    shutil.rmtree(begun)
    checkpoint(begun, seed=1)
    with pytest.raises(UserError, match="begun has changed since the run was started: restore its weights, or give another"):
        warm_start.load(pretraining_run.plan_run(wanted).start, model, VOCABULARY)


def pretrain(small: Path, run: Path, begun: Path, *arguments: str) -> int:
    given = ["--data", str(small), "--init", str(begun), "--output", str(run), "--batch-size", "8", "--no-tensorboard"]
    return clozemill.main(["pretrain", *given, "--log-steps", "1", "--steps", "4", "--checkpoint-steps", "2", *arguments])


@pytest.mark.slow
def test_a_run_from_beginning_to_end(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """At a learning rate of 0 the weights stay the checkpoint's; a resume needs it no more; another one is refused."""
    begun, run = checkpoint(tmp_path / "begun"), tmp_path / "run"
    theirs = checkpoints.weights(checkpoints.find(str(begun)))
    assert pretrain(small, run, begun, "--learning-rate", "0") == 0
    told = capsys.readouterr().out
    assert "\nas --init: 2 layers, 16 wide, 40 entries, " in told and f"started from the weights of {begun}\n" in told
    final = checkpoints.find(str(run))
    assert final.step == 4
    assert all(np.array_equal(value, theirs[name]) for name, value in checkpoints.weights(final).items())
    assert json.loads((run / "run.json").read_text())["identity"]["init"] == warm_start.digest(theirs)
    shutil.rmtree(run / "checkpoints/step-00000004")
    shutil.rmtree(begun)
    assert pretrain(small, run, begun, "--learning-rate", "0") == 0
    told = capsys.readouterr().out
    assert "resuming after step 2\n" in told and "started from the weights" not in told
    assert pretrain(small, run, checkpoint(tmp_path / "other", seed=1), "--learning-rate", "0") == 2
    assert " was started with init " in capsys.readouterr().err
