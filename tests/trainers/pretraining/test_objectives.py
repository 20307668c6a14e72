"""Phases with objectives of their own: equal to runs of one objective, exact resume, one model at the end."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import clozemill
from clozemill.model.flops import flops_per_row
from clozemill.model.pretraining_model import OBJECTIVES, PretrainingModel
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.hardware import Hardware
from clozemill.trainers.data.input_pipeline import EvalBatches
from clozemill.trainers.data.numpy_reader import batches_of
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.pretraining import capacity, pretraining_run
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.recipes import Phase
from clozemill.trainers.training import checkpoints
from clozemill.trainers.training.loop import idle_steps
from tests.trainers import datasets, steps

RUN = ["--preset", "tiny", "--max-position-embeddings", "16", "--batch-size", "8", "--log-steps", "1", "--no-tensorboard",
       "--learning-rate", "1e-3", "--warmup-steps", "1", "--steps-per-call", "2"]  # fmt: skip
RATES = ("examples_per_second", "tokens_per_second", "input_share", "seconds", "mfu")

pytestmark = pytest.mark.usefixtures("one_layer")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return datasets.write(tmp_path_factory.mktemp("dataset"), [[20, 25]], [24])


def pretrain(run: Path, dataset: PreparedDataset, phases: list[tuple[int, str]], *arguments: object, code: int = 0) -> None:
    lines = [f"- {{data: {dataset.folder}, steps: {steps}, objective: {objective}}}\n" for steps, objective in phases]
    config = run.parent / f"{run.name}.yaml"
    config.write_text("phases:\n" + "".join(lines))
    command = ["pretrain", *RUN, "--config", str(config), "--output", str(run), *map(str, arguments)]
    assert clozemill.main(command) == code


def metrics(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if name not in RATES} for row in found]


def weights(run: Path, step: int) -> dict[str, np.ndarray]:
    return checkpoints.weights(checkpoints.find(str(run / f"checkpoints/step-{step:08d}")))


@pytest.mark.parametrize(
    ("objectives", "attention", "causal"),
    [
        (("causal", "mlm"), "auto", [True, False]),
        (("mlm", "causal"), "auto", [False, True]),
        (("rtd", "mlm", "causal"), "auto", [False, False, True]),
        (("mlm", "causal"), "causal", [True, True]),
        (("causal", "mlm"), "bidirectional", [True, False]),
    ],
)
def test_the_attention_follows_the_phase(
    objectives: tuple[str, ...], attention: str, causal: list[bool], dataset: PreparedDataset
) -> None:
    """Unless --attention causal says that it is that of all."""
    phases = tuple(Phase(dataset.folder, 4, objective=objective) for objective in objectives)
    planned = pretraining_run.plan_run(PretrainConfig(phases=phases, preset="tiny", batch_size=8, attention=attention))
    assert [phase.causal for phase in planned.phases] == causal
    assert planned.encoder.attention == ("causal" if causal[-1] else "bidirectional")
    model = PretrainingModel(planned.encoder, objectives[-1], objectives)
    for phase, objective, left_only in zip(planned.phases, objectives, causal, strict=True):
        phase.set_up(model)
        assert (model.objective, model.causal) == (OBJECTIVES[objective], left_only)


def test_losses_on_different_eval_splits_are_not_compared(dataset: PreparedDataset, tmp_path: Path) -> None:
    """Those of the last phase's select the best checkpoint; the model card names the split of the figures."""
    other = datasets.write(tmp_path / "other", [[20, 20]], [7])
    phases = (Phase(dataset.folder, 4), Phase(other.folder, 4), Phase(dataset.folder, 4), Phase(other.folder, 4))
    planned = pretraining_run.plan_run(PretrainConfig(phases=phases, preset="tiny", batch_size=8))
    assert [phase.comparable for phase in planned.phases] == [False, True, False, True]
    names = dataset.description["name"], other.description["name"]
    assert [planned.about(step)["evaluated_on"] for step in (4, 8, 12, 16)] == [*names, *names] and names[0] != names[1]
    assert planned.about()["evaluated_on"] == names[1]


def test_steps_without_a_head(dataset: PreparedDataset) -> None:
    """Before each of four phases, of 1, 2, 4 and 8 steps."""
    objectives = ("mlm+nsp", "mlm", "rtd", "mlm+nsp")
    phases = tuple(Phase(dataset.folder, 1 << at, objective=objective) for at, objective in enumerate(objectives))
    planned = pretraining_run.plan_run(PretrainConfig(phases=phases, preset="tiny", batch_size=8))
    expected = {
        "pretraining/encoder/layer_0/output/kernel": [0, 0, 0, 0],
        "pretraining/encoder/pooler/kernel": [0, 0, 2, 6],
        "pretraining/next_sentence/dense/bias": [0, 0, 2, 6],
        "pretraining/masked_lm/dense/kernel": [0, 0, 0, 4],
        "pretraining/generator/masked_lm/dense/kernel": [0, 1, 3, 3],
    }
    for path, steps_without in expected.items():
        assert [idle_steps(planned.phases, phase, path) for phase in planned.phases] == steps_without


def test_causal_then_masked(dataset: PreparedDataset, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A run resumed within the causal phase is bit-identical; the model at the end is that of the last phase."""
    whole, again, phases = tmp_path / "whole", tmp_path / "again", [(4, "causal"), (2, "mlm")]
    saving = ["--checkpoint-steps", "2", "--keep-checkpoints", "9"]
    pretrain(whole, dataset, phases, *saving)
    assert "weights; causal, then mlm; on" in capsys.readouterr().out
    rows = [row for row in metrics(whole) if "split" in row]
    eval_batch = next(batches_of(EvalBatches(dataset, 24)))
    followed = int(eval_batch["input_mask"].sum()) - 24  # every token but the first of its row
    predicted = [(4, followed), (6, int(eval_batch["masked_lm_weights"].sum()))]
    assert [(row["step"], row["predictions"]) for row in rows] == predicted
    causal, masked = (row["masked_lm_loss"] for row in rows)
    shutil.copytree(whole, again)
    for later in (4, 6):
        shutil.rmtree(again / f"checkpoints/step-{later:08d}")
    pretrain(again, dataset, phases, *saving)
    assert metrics(again) == metrics(whole)
    assert all((value == weights(whole, 6)[name]).all() for name, value in weights(again, 6).items())
    best = checkpoints.find(str(whole), "best")
    assert best.step == 6 and best.index["eval"]["masked_lm_loss"] == masked != causal
    assert checkpoints.find(str(whole / "checkpoints/step-00000004")).criterion == math.inf  # whatever its loss
    assert (best.index["objective"], best.index["objectives"]) == ("mlm", ["causal", "mlm"])
    assert best.index["encoder"]["attention"] == "bidirectional"
    pretrain(whole, dataset, [(4, "mlm"), (2, "mlm")], code=2)
    assert "was started with phase 1's objective causal, not mlm" in capsys.readouterr().err
    assert clozemill.main(["evaluate", str(whole), "--data", dataset.folder]) == 0
    assert f"masked LM loss          {masked:.4f} nats" in capsys.readouterr().out


@pytest.mark.slow
def test_a_head_that_a_phase_does_not_use_stays(dataset: PreparedDataset, tmp_path: Path) -> None:
    """Pooler and next-sentence head: trained first, and left alone then, also by weight decay; they aren't exported."""
    pretrain(tmp_path / "run", dataset, [(2, "mlm+nsp"), (2, "mlm")], "--checkpoint-steps", "2", "--weight-decay", "0.5")
    before, after = weights(tmp_path / "run", 2), weights(tmp_path / "run", 4)
    same = {name for name, value in after.items() if (value == before[name]).all()}
    assert same == {f"{part}/{kind}" for part in ("encoder/pooler", "next_sentence/dense") for kind in ("kernel", "bias")}
    assert clozemill.main(["export", str(tmp_path / "run"), "--formats", "hf", "--output", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out/hf/config.json").read_text())["architectures"] == ["BertForMaskedLM"]
    assert "Pretraining objective: mlm+nsp, then mlm." in (tmp_path / "out/hf/README.md").read_text()


def test_estimates_know_the_objective_of_each_phase(dataset: PreparedDataset) -> None:
    phases = (Phase(dataset.folder, 4, objective="causal"), Phase(dataset.folder, 4))
    planned = pretraining_run.plan_run(PretrainConfig(phases=phases, preset="tiny", batch_size=8))
    causal, masked = planned.phases
    sizes = planned.encoder, datasets.LENGTH, datasets.PREDICTIONS
    assert [planned.flops(phase) for phase in (causal, masked)] == [flops_per_row(*sizes, causal=c) for c in (True, False)]
    assert (planned.objectives, masked.objective) == ("causal, then mlm+nsp", "mlm+nsp")
    needed = capacity.step_bytes(planned, Hardware("CPU", 1, 1 << 40, 2))
    alone = pretraining_run.plan_run(PretrainConfig(phases=phases[1:], preset="tiny", batch_size=8))
    assert needed > capacity.step_bytes(alone, Hardware("CPU", 1, 1 << 40, 2))


DETECT = ["--masks", "fresh", "--checkpoint-steps", "2", "--dropout", "0.1", "--max-position-embeddings", datasets.ROW_LENGTH]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder = tmp_path_factory.mktemp("packed")
    return datasets.write(folder, [[40, 41]], [24], length=datasets.ROW_LENGTH, packing="on")


@pytest.fixture(scope="module")
def detector(one_layer: None, packed: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of replaced-token detection on packed rows with fresh masks. Read it only."""
    run = tmp_path_factory.mktemp("detector") / "run"
    pretrain(run, packed, [(4, "rtd")], *DETECT)
    return run


def test_evaluation_of_replaced_tokens(detector: Path, packed: PreparedDataset, capsys: pytest.CaptureFixture) -> None:
    """Another batch size gives the same losses; their sum, with the scale of ELECTRA, selects the best checkpoint."""
    figures = checkpoints.find(str(detector)).index["eval"]
    assert figures["criterion"] == figures["loss"] == pytest.approx(figures["masked_lm_loss"] + 50 * figures["replaced_loss"])
    assert clozemill.main(["evaluate", str(detector), "--data", packed.folder, "--batch-size", "3"]) == 0
    told = capsys.readouterr().out
    assert f"\ngenerator loss          {figures['masked_lm_loss']:.4f} nats" in told
    assert f"\nreplaced token loss     {figures['replaced_loss']:.4f} nats\nreplaced token accuracy " in told


def test_the_encoder_of_replaced_tokens_is_exported(detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    assert clozemill.main(["export", str(detector), "--formats", "hf", "--output", str(out)]) == 0
    about = json.loads((out / "hf/config.json").read_text())
    assert (about["architectures"], about["hidden_size"]) == (["BertModel"], 128)
    assert "Pretraining objective: rtd." in (out / "hf/README.md").read_text()
    capsys.readouterr()
    assert clozemill.main(["predict", str(detector), "--text", "5 [MASK] 7"]) == 2
    assert "detects replaced words, and fills in none: fine-tune it" in capsys.readouterr().err


def test_a_resumed_run_of_replaced_tokens(detector: Path, packed: PreparedDataset, tmp_path: Path) -> None:
    shutil.copytree(detector, tmp_path / "again")
    shutil.rmtree(tmp_path / "again/checkpoints/step-00000004")
    pretrain(tmp_path / "again", packed, [(4, "rtd")], *DETECT)
    assert metrics(tmp_path / "again") == metrics(detector)
    assert all((value == weights(detector, 4)[name]).all() for name, value in weights(tmp_path / "again", 4).items())


def detection_norm(batch: dict[str, tf.Tensor]) -> float:
    """Return the norm of the gradients of the first step: of both mean losses, that of replaced tokens 50 times."""
    model = steps.make("rtd", num_hidden_layers=1).state.model
    inputs, targets = model.prepare(batch)
    with tf.GradientTape() as tape:
        found = model.sums_of(model(inputs, seed=tf.constant([0, 0])), targets)
        weights = tf.reduce_sum(batch["masked_lm_weights"]), tf.cast(tf.reduce_sum(batch["input_mask"]), tf.float32)
        loss = found["masked_lm_loss"] / weights[0] + 50 * found["replaced_loss"] / weights[1]
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    return float(tf.linalg.global_norm([tf.convert_to_tensor(each) for each in gradients]))


def test_samples_do_not_depend_on_micro_batches() -> None:
    """Nor does anything else; and the gradients are those of ELECTRA's weighted sum."""
    features = steps.batches(2)
    one, two = (steps.train(steps.make("rtd", num_hidden_layers=1, parts=parts), features, [3]) for parts in (1, 2))
    batch = {name: tf.constant(rows[0]) for name, rows in features.items()}
    assert one["gradient_norm"][0] == pytest.approx(detection_norm(batch), rel=1e-4)
    for name in ("masked_lm_loss", "replaced_loss", "gradient_norm"):
        np.testing.assert_allclose(one[name], two[name], rtol=1e-4)
    assert one["replaced_weight"].tolist() == one["tokens"].tolist()
    assert one["replaced_correct"].tolist() == two["replaced_correct"].tolist()


def test_refusals(dataset: PreparedDataset) -> None:
    causal = Phase(dataset.folder, 4, objective="causal")
    with pytest.raises(UserError, match=r"^--objective mlm has no effect because every phase has its own: change it in phases"):
        PretrainConfig(phases=(causal,), objective="mlm").validate()
    with pytest.raises(UserError, match=r"^--masks fresh has no effect with --objective causal"):
        PretrainConfig(phases=(causal,), masks="fresh").validate()
    PretrainConfig(phases=(causal, Phase(dataset.folder, 4)), masks="fresh").validate()
    PretrainConfig(recipe="modern", masks="fresh", objective="causal").validate()  # the recipe's masks are not the user's
    with pytest.raises(UserError, match=r"^--generator-size has no effect without the objective rtd: leave it out"):
        PretrainConfig(generator_size=0.3).validate()
    with pytest.raises(UserError, match="has pairs nsp, but the objective mlm\\+sop needs sop"):
        pretraining_run.plan_run(PretrainConfig(phases=(Phase(dataset.folder, 4, objective="mlm+sop"),), preset="tiny"))
