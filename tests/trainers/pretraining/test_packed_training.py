"""Pretraining on packed rows: the same figures as unpacked, exact resume, phases of both kinds, and what is printed."""

import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import clozemill
from clozemill.model import flops, memory
from clozemill.model.pretraining_model import OBJECTIVES
from clozemill.pipelines.examples.packing import unpack_examples
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.common.hardware import Hardware
from clozemill.trainers.data.input_pipeline import EvalBatches, eval_rows
from clozemill.trainers.data.mixture import Mixture
from clozemill.trainers.data.numpy_reader import batches_of
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.engines import tensorflow_engine
from clozemill.trainers.pretraining import capacity, open_options, pretraining_run
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.defaults import Shape
from clozemill.trainers.pretraining.eval_columns import ragged
from clozemill.trainers.pretraining.evaluation import ComparedEvaluation, Evaluation, without_context
from clozemill.trainers.training import checkpoints
from tests.slow import mostly_slow
from tests.trainers import datasets, saved, steps
from tests.trainers.datasets import ENTRIES, LENGTH, PREDICTIONS, ROW_LENGTH, VOCABULARY

pytestmark = pytest.mark.usefixtures("one_layer")
TRAIN, EVAL = [[20, 31, 25, 40], [25, 25, 40, 26]], [24, 19]
RATES = ("examples_per_second", "tokens_per_second", "input_share", "seconds")
RUN = ["--preset", "tiny", "--max-position-embeddings", "64", "--batch-size", "8", "--log-steps", "1", "--no-tensorboard",
       "--dropout", "0.1", "--attention-dropout", "0.1", "--checkpoint-steps", "3", "--steps-per-call", "2"]  # fmt: skip


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return datasets.write(tmp_path_factory.mktemp("packed"), TRAIN, EVAL, length=ROW_LENGTH, packing="on")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """The same examples, unpacked."""
    return datasets.write(tmp_path_factory.mktemp("plain"), TRAIN, EVAL)


def pretrain(run: Path, *arguments: object) -> None:
    assert clozemill.main(["pretrain", *RUN, "--output", str(run), *map(str, arguments)]) == 0


def figures(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl except for the rates."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if name not in RATES} for row in found]


def bits(run: Path, step: int) -> dict[str, bytes]:
    """Return a checkpoint's weights and moments by name."""
    return saved.bits(run / f"checkpoints/step-{step:08d}")


@pytest.mark.parametrize("objective", mostly_slow([name for name in OBJECTIVES if name != "rtd"], "mlm+nsp"))
def test_evaluation_agrees_with_that_of_the_unpacked_examples(
    packed: PreparedDataset, plain: PreparedDataset, objective: str
) -> None:
    """Every example counts once; the last batch is filled up with rows that count nothing."""
    model, engine = steps.make(objective, num_hidden_layers=1).state.model, tensorflow_engine.default()
    assert sum(eval_rows(packed)) % 4 and sum(eval_rows(packed)) < 43
    found, expected = (Evaluation(engine, model, dataset, 4).figures() for dataset in (packed, plain))
    assert found.keys() == expected.keys() and found["examples"] == 43
    assert found == pytest.approx(expected, rel=1e-6)
    found, expected = (without_context(dataset, model.objective) for dataset in (packed, plain))
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_a_limited_evaluation_counts_what_it_evaluated(packed: PreparedDataset) -> None:
    """Of about ten examples, those in the first rows."""
    evaluation = ComparedEvaluation(tensorflow_engine.default(), steps.make(num_hidden_layers=1).state.model, packed, 4, 10)
    batches = list(islice(batches_of(EvalBatches(packed, 1, limit=10)), 6))
    rows, found = sum(eval_rows(packed, limit=10)), evaluation.figures()
    assert 4 <= rows <= 6 and found["examples"] == sum(batch["example_weights"].sum() for batch in batches[:rows])
    assert 8 <= found["examples"] <= 12 and found["predictions"] == sum(b["masked_lm_weights"].sum() for b in batches)


def test_sample_predictions_show_single_examples(packed: PreparedDataset) -> None:
    """The first three, taken out of their rows, with the answers that the model gives to them unpacked."""
    model = steps.make(num_hidden_layers=1).state.model
    (section,) = ComparedEvaluation(tensorflow_engine.default(), model, packed, 4).exhibits()
    batch = next(batches_of(EvalBatches(packed, 3)))
    columns, tokens = unpack_examples(ragged(batch), PREDICTIONS), Vocabulary.from_bytes(VOCABULARY, "").tokens
    fields = ("input_ids", "input_mask", "segment_ids", "masked_lm_positions")  # cut to the longest example
    inputs = {name: tf.constant(getattr(columns, name)[:3, :LENGTH], tf.int32) for name in fields}
    best = model(inputs)["masked_lm_logits"].numpy().argmax(-1)
    assert len(section.examples) == 3 < batch["example_weights"].sum()
    for number, example in enumerate(section.examples):
        shown = sum(len(side.tokens) for side in example.sides)
        real = columns.input_mask[number] > 0
        assert shown == real.sum()
        for at, row in enumerate(example.tables[0].rows):
            assert row[0] == str(columns.masked_lm_positions[number, at])
            assert row[2] == tokens[columns.masked_lm_ids[number, at]] and row[3].split(" ")[0] == tokens[best[number, at]]


@pytest.mark.slow
def test_a_run(packed: PreparedDataset, plain: PreparedDataset, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """What it prints and writes; resumed, it is bit-identical; `evaluate` says the same of the unpacked dataset."""
    pretrain(tmp_path / "run", "--data", packed.folder, "--steps", 8)
    printed, rows = capsys.readouterr().out, packed.train_rows
    assert (
        f"batches of 8 x {ROW_LENGTH} tokens, 116 examples per epoch, packed in {rows} rows, 2 copies, {64 / rows:.1f} epochs"
        in (printed)
    )
    found = figures(tmp_path / "run")
    assert found[-2]["epoch"] == pytest.approx(8 * 8 / rows, abs=1e-4) and found[-1]["examples"] == 43
    assert "43 examples" in printed and np.isfinite([row["loss"] for row in found]).all()
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert (
        "The batch size of a packed dataset counts rows, each with several examples." in page and "Sample predictions" in page
    )
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    for step in (6, 8):
        shutil.rmtree(tmp_path / f"again/checkpoints/step-{step:08d}")
    pretrain(tmp_path / "again", "--data", packed.folder, "--steps", 8)
    assert "resuming after step 3" in capsys.readouterr().out
    assert figures(tmp_path / "again") == found and bits(tmp_path / "again", 8) == bits(tmp_path / "run", 8)
    output = tmp_path / "plain.json"
    assert clozemill.main(["evaluate", str(tmp_path / "run"), "--data", plain.folder, "--output", str(output)]) == 0
    assert json.loads(output.read_text())["masked_lm_loss"] == pytest.approx(found[-1]["masked_lm_loss"], rel=1e-6)


@pytest.mark.slow
def test_phases_of_both_kinds(packed: PreparedDataset, plain: PreparedDataset, tmp_path: Path) -> None:
    """With micro-batches; a phase's epochs count its rows."""
    config, run = tmp_path / "phases.yaml", tmp_path / "run"
    config.write_text("phases: [{steps: 3}, {steps: 3}]")
    folders = [dataset.folder for dataset in (packed, plain)]
    pretrain(run, "--data", *folders, "--config", config, "--gradient-accumulation-steps", 2)
    train = [row for row in figures(run) if "split" not in row]
    expected = [8 * step / dataset.train_rows for dataset in (packed, plain) for step in (1, 2, 3)]
    assert [row["epoch"] for row in train] == pytest.approx(expected, abs=1e-4)
    assert checkpoints.find(str(run)).index["trained_length"] == ROW_LENGTH


def test_estimates_know_the_examples_of_a_row(packed: PreparedDataset, plain: PreparedDataset) -> None:
    """Memory, FLOPs and the automatic choices count rows, their predictions and every [CLS]."""
    most, predictions = packed.sizes["max_examples"], packed.sizes["max_predictions"]
    assert open_options.shape_of(packed, 8) == Shape(ROW_LENGTH, predictions, 8, most)
    assert open_options.shape_of(plain, 8) == Shape(LENGTH, PREDICTIONS, 8, 1)
    assert open_options.data_of(PretrainConfig(data=(packed.folder,)), [Mixture((packed,))]).rows == packed.train_rows
    config = PretrainConfig(data=(packed.folder,), preset="tiny", batch_size=8, steps=4)
    planned = pretraining_run.plan_run(config)
    (phase,), encoder = planned.phases, planned.encoder
    assert planned.flops(phase) == flops.flops_per_row(encoder, ROW_LENGTH, predictions, examples=most)
    each = memory.activation_bytes(encoder, ROW_LENGTH, predictions, examples=most)
    hardware = Hardware("CPU", 1, 1 << 40, 2)
    assert capacity.step_bytes(planned, hardware) == memory.state_bytes(encoder) + 8 * each
    divided = replace(planned, config=replace(planned.config, engine="jax", shard_moments=True))  # of AdamW: two per weight
    four = replace(hardware, devices=4)
    less = capacity.step_bytes(planned, four) - capacity.step_bytes(divided, four)
    assert less == memory.parameters(encoder) * 4 * 2 * 3 // 4
    assert encoder.vocab_size == ENTRIES
