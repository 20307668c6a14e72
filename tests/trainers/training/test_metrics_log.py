"""Metrics, from sums to printed lines; a resumed run reports the same as an uninterrupted one."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

from clozemill.model.losses import SUMS
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import storage
from clozemill.trainers.diagnosis.watch import Watch
from clozemill.trainers.engines.engine import COLUMNS
from clozemill.trainers.training.metrics_log import Clock, MetricsLog, Throughput, duration, means
from tests.trainers.diagnosis import journals

SCALE = Throughput(batch_size=32, flops_per_row=10**12, devices=2, peak=100.0)
STEP = {
    "masked_lm_loss": 120.0, "masked_lm_weight": 40.0, "masked_lm_correct": 10.0,
    "next_sentence_loss": 16.0, "next_sentence_weight": 32.0, "next_sentence_correct": 20.0,
    "task_loss": 0.0, "task_weight": 0.0, "task_correct": 0.0,
    "replaced_loss": 0.0, "replaced_weight": 0.0, "replaced_correct": 0.0,
    "tokens": 3200.0, "gradient_norm": 2.0, "learning_rate": 1e-3, "waited": 0.125, "seconds": 0.5,
}  # fmt: skip


def rows(count: int, **changes: float) -> np.ndarray:
    return np.array([[(STEP | changes)[name] for name in COLUMNS]] * count, np.float32)


def journal(folder: Path | str, **options: object) -> MetricsLog:
    return MetricsLog(str(folder), 1000, **{"tensorboard": False, **options})


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_literal_means() -> None:
    totals = {name: STEP[name] for name in SUMS}
    assert means(totals) == {
        "loss": 3.5, "masked_lm_loss": 3.0, "masked_lm_accuracy": 0.25, "next_sentence_loss": 0.5,
        "next_sentence_accuracy": 0.625,
    }  # fmt: skip
    without = totals | {name: 0.0 for name in SUMS if name.startswith("next")}
    assert means(without) == {"loss": 3.0, "masked_lm_loss": 3.0, "masked_lm_accuracy": 0.25}
    assert means(dict.fromkeys(SUMS, 0.0)) == {"loss": 0}
    detected = totals | {"replaced_loss": 8.0, "replaced_weight": 80.0, "replaced_correct": 60.0}
    assert means(detected)["loss"] == pytest.approx(3.5 + 50 * 0.1) and means(detected)["replaced_accuracy"] == 0.75


def test_a_checkpoint_of_a_version_with_fewer_losses(tmp_path: Path) -> None:
    """It had no sums of replaced tokens; the others go to the columns of their names."""
    new = journal(tmp_path)
    new.add(rows(2))
    state = new.state()
    old = state | {"sums": [value for name, value in zip(COLUMNS, state["sums"], strict=True) if "replaced" not in name]}
    again = journal(tmp_path)
    again.resume(2, old)
    assert again.pending.tolist() == new.pending.tolist()


def test_totals_go_on_after_a_resume(tmp_path: Path) -> None:
    """Tokens and seconds of all steps up to a line, also of those before it that no line has reported yet."""
    whole, first = journal(tmp_path / "whole"), journal(tmp_path / "resumed")
    for log in (whole, first):
        Path(log.folder).mkdir()
        log.add(rows(3))
        log.tell(3, [0.1], SCALE)
        log.add(rows(2))
    state = json.loads(json.dumps(first.state()))
    resumed = journal(tmp_path / "resumed")
    resumed.resume(5, state)
    for log in (whole, resumed):
        log.add(rows(1, seconds=2.0))
        log.tell(6, [0.2], SCALE)
    found = [(line["tokens"], line["seconds"]) for line in lines(tmp_path / "resumed")]
    assert found == [(9600, 1.5), (19200, 4.5)] == [(line["tokens"], line["seconds"]) for line in lines(tmp_path / "whole")]


def test_findings_are_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Steps wait for 40 % of their time: the sentence of `clozemill doctor` after an evaluation, also if the run is resumed."""
    (tmp_path / "run.json").write_text(json.dumps(journals.about()))
    told = journal(tmp_path)

    def train(log: MetricsLog, *steps: int) -> None:
        for step in steps:
            log.add(rows(10, waited=0.2, masked_lm_loss=280.0))
            log.tell(step, [0.1], SCALE)
            log.tell_eval(step, journals.evaluation(step))

    train(told, 10, 20, 30, 40, 50, 60)
    sentence = "warning: steps wait for input 40 % of their time: put the dataset on a faster disk"
    assert capsys.readouterr().err.startswith(sentence)
    train(told, 70)
    again = journal(tmp_path)
    again.resume(70, json.loads(json.dumps(told.state())))
    train(again, 80)
    assert capsys.readouterr().err == ""


def test_a_run_that_can_t_be_diagnosed_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no figures")

    monkeypatch.setattr(Watch, "new_findings", fail)
    journal(tmp_path).tell_eval(10, journals.evaluation(10))
    told = capsys.readouterr()
    assert told.err == "warning: the run can't be diagnosed (RuntimeError('no figures')); training is not affected\n"
    assert "step 10/1,000  eval mlm" in told.out


def test_a_checkpoint_of_a_version_without_totals(tmp_path: Path) -> None:
    old = journal(tmp_path)
    old.add(rows(2))
    state = {name: value for name, value in old.state().items() if name != "before"}
    again = journal(tmp_path)
    again.resume(2, state)
    again.add(rows(1))
    again.tell(3, [0.1], SCALE)
    assert not {"tokens", "seconds"} & lines(tmp_path)[0].keys()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"), (0.4, "0:00"), (42, "0:42"), (59.4, "0:59"), (59.6, "1:00"), (61, "1:01"), (3599.5, "1:00:00"),
        (11110, "3:05:10"), (360000, "100:00:00"),
    ],
)  # fmt: skip
def test_literal_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_literal_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Means over all steps since the last line, weighted like the sums; rates over their time."""
    told = journal(tmp_path)
    told.add(rows(3))
    told.add(rows(1, masked_lm_loss=80.0, masked_lm_weight=80.0, learning_rate=3e-3, gradient_norm=4.0, seconds=2.5))
    told.tell(400, [1.23456], SCALE)
    entry = {
        "step": 400, "epoch": 1.2346, "loss": 440 / 200 + 0.5, "masked_lm_loss": 440 / 200, "masked_lm_accuracy": 40 / 200,
        "next_sentence_loss": 0.5, "next_sentence_accuracy": 0.625, "learning_rate": 1.5e-3, "gradient_norm": 2.5,
        "examples_per_second": 32.0, "tokens_per_second": 3200.0, "input_share": 0.125, "mfu": 0.16,
        "tokens": 12800, "seconds": 4.0,
    }  # fmt: skip
    assert lines(tmp_path) == [pytest.approx(entry)] and list(lines(tmp_path)[0]) == list(entry)
    assert capsys.readouterr().out == (
        "step 400/1,000  loss 2.700  mlm 2.200 (20.0 %)  nsp 0.500 (62.5 %)  lr 1.50e-03  32 examples/s  3,200 tokens/s"
        "  mfu 16.0 %  input 12.5 %  left 10:07\n"  # 600 s at an even pace; the last step was slower, and counts more
    )
    told.add(rows(2))  # earlier steps don't affect it
    told.tell(402, [1.3], Throughput(32, 10**12, 2, None))
    assert lines(tmp_path)[1]["masked_lm_loss"] == 3.0 and "mfu" not in lines(tmp_path)[1]
    assert lines(tmp_path)[1]["examples_per_second"] == 64.0 and "mfu" not in capsys.readouterr().out
    assert told.entries() == lines(tmp_path)


def test_the_step_that_compiled_doesn_t_count_as_pace(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """It took 100 s, the others half a second. Its losses count; rates and the time left are those of the others."""
    told = journal(tmp_path)
    told.add(rows(1, masked_lm_loss=700.0, seconds=100.0), steady=False)
    told.tell(1, [0.1], SCALE)
    assert capsys.readouterr().out.endswith("(this step included compilation: speed and time left follow)\n")
    assert lines(tmp_path)[0]["examples_per_second"] == pytest.approx(0.32)
    told.add(rows(1, seconds=100.0), steady=False)
    told.add(rows(2, masked_lm_loss=0.0))
    told.tell(4, [0.2], SCALE)
    assert lines(tmp_path)[1]["masked_lm_loss"] == pytest.approx(1.0)
    assert lines(tmp_path)[1]["examples_per_second"] == pytest.approx(64.0)
    assert capsys.readouterr().out.endswith("  left 8:18\n")
    told.add(rows(1))
    told.tell(5, [0.2], replace(SCALE, extra=10.0))  # later phases cost as much as 10 more steps of this one
    assert capsys.readouterr().out.endswith("  left 8:22\n")


def test_the_step_that_compiled_doesn_t_count_after_a_resume(tmp_path: Path) -> None:
    """A checkpoint between it and the next line keeps its time apart."""
    killed = journal(tmp_path)
    killed.add(rows(1, seconds=100.0), steady=False)
    killed.add(rows(1))
    state = json.loads(json.dumps(killed.state()))
    told = journal(tmp_path)
    told.resume(2, state)
    told.add(rows(2))
    told.tell(4, [0.2], SCALE)
    assert lines(tmp_path)[-1]["examples_per_second"] == pytest.approx(64.0)
    assert "unsteady" not in told.state()


def test_a_literal_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    figures = {"masked_lm_loss": 2.5, "masked_lm_accuracy": 0.5, "perplexity": 12.2, "examples": 1234}
    journal(tmp_path).tell_eval(20, figures)
    assert lines(tmp_path) == [{"step": 20, "split": "eval", **figures}]
    assert capsys.readouterr().out == "step 20/1,000  eval mlm 2.500 (50.0 %)  1,234 examples\n"


def test_an_undefined_metric(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """It is null in metrics.jsonl, which stays valid JSON, and "undefined" in printed lines."""
    figures = {"pearson": None, "loss": 1.25, "criterion": None, "examples": 9, "remarks": ["pearson is undefined"]}
    journal(tmp_path).tell_eval(20, figures)
    assert lines(tmp_path) == [{"step": 20, "split": "eval", **figures}]
    assert capsys.readouterr().out == "step 20/1,000  eval pearson undefined  loss 1.2500  9 examples\n"


def test_a_resumed_run(tmp_path: Path) -> None:
    """Lines after the checkpoint are dropped, also a truncated one; its pending sums count for the next line."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    unbroken, first = journal(whole), journal(killed)
    for told in (unbroken, first):
        told.add(rows(10))
        told.tell(10, [0.1], SCALE)
        told.tell_eval(10, {"masked_lm_loss": 2.5, "masked_lm_accuracy": 0.5, "examples": 9})
        told.add(rows(5, masked_lm_loss=0.3, seconds=1 / 3))
    state = json.loads(json.dumps(first.state()))  # saved in and restored from a checkpoint
    assert state["count"] == 5
    for told in (unbroken, first):
        told.add(rows(5, masked_lm_loss=77.0))
        told.tell(20, [0.2], SCALE)
    with open(killed / "metrics.jsonl", "a") as file:
        file.write('{"step": 30, "epo')
    second = journal(killed)
    second.resume(15, state)
    assert [entry["step"] for entry in second.entries()] == [10, 10]
    second.add(rows(5, masked_lm_loss=77.0))
    second.tell(20, [0.2], SCALE)
    second.flush()
    unbroken.flush()
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert (second.pending == 0).all() and second.count == 0


@pytest.mark.parametrize(
    "rubbish", [b'{"step": 12, "epo', b"\n", b"[1]\n", b'{"epoch": 1}\n', b"\xff\xfe\n", b'{"step": "a"}\n']
)
def test_entries_after_an_invalid_line_are_dropped(tmp_path: Path, rubbish: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 5}\n{"step": 10}\n' + rubbish + b'{"step": 7}\n')
    told = journal(tmp_path)
    told.resume(10, told.state() | {"entries": 2})
    assert told.lines == ['{"step": 5}', '{"step": 10}']


def test_resume_without_the_file(tmp_path: Path) -> None:
    told = journal(tmp_path)
    told.resume(10, {"sums": [1.0] * len(COLUMNS), "count": 3})
    state = told.state()
    assert told.lines == [] and (state["sums"], state["count"]) == ([1.0] * len(COLUMNS), 3)


def test_a_changed_file_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first = journal(tmp_path)
    first.tell_eval(1, {"masked_lm_loss": 2.5, "masked_lm_accuracy": 0.5, "examples": 9})
    first.tell_eval(2, {"masked_lm_loss": 2.4, "masked_lm_accuracy": 0.5, "examples": 9})
    saved, path = first.state(), tmp_path / "metrics.jsonl"
    first.tell_eval(3, {"masked_lm_loss": 2.3, "masked_lm_accuracy": 0.5, "examples": 9})
    journal(tmp_path).resume(2, saved)
    assert capsys.readouterr().err == ""
    path.write_text(path.read_text().replace("2.4", "1.4"))
    journal(tmp_path).resume(2, saved)
    assert capsys.readouterr().err.startswith(f"warning: {path} is corrupt or was changed: its metrics of earlier steps")


def test_lines_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    mine, told = tmp_path / "mine", journal(tmp_path / "run")
    mine.write_text("mine")
    for link in (Path.symlink_to, Path.hardlink_to):
        link(tmp_path / "run/metrics.jsonl", mine)
        with pytest.raises(UserError, match=r"metrics\.jsonl"):
            told.tell_eval(1, {"masked_lm_loss": 2.5, "masked_lm_accuracy": 0.5, "examples": 9})
        assert mine.read_text() == "mine"
        (tmp_path / "run/metrics.jsonl").unlink()


def test_a_new_run_overwrites_old_metrics(tmp_path: Path) -> None:
    """The earlier run was killed before its first checkpoint."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n{"st')
    told = journal(tmp_path)
    told.add(rows(5))
    told.tell(5, [0.1], SCALE)
    told.flush()
    assert [entry["step"] for entry in lines(tmp_path)] == [5] and "loss" in lines(tmp_path)[0]


def test_sums_are_exact_over_many_steps() -> None:
    """In float64, 100,000 steps are summed exactly."""
    told = journal("nowhere")
    for _ in range(100):
        told.add(rows(1000, masked_lm_loss=0.1))
    assert told.pending[0] == pytest.approx(1e5 * float(np.float32(0.1)), rel=1e-12)


def test_object_stores_get_the_complete_file() -> None:
    """On a filesystem without append."""
    told = journal("ram://run")
    for step in (1, 2):
        told.add(rows(1))
        told.tell(step, [0.1], SCALE)
        told.flush()
        kept = storage.read("ram://run/metrics.jsonl", "-").splitlines()
        assert [json.loads(line)["step"] for line in kept] == list(range(1, step + 1))
    again = journal("ram://run")
    again.resume(1, told.state())
    assert [entry["step"] for entry in again.entries()] == [1]


def test_a_removed_folder(tmp_path: Path) -> None:
    told = journal(tmp_path / "none")
    with pytest.raises(UserError) as error:
        told.tell_eval(1, {"masked_lm_loss": 2.5, "masked_lm_accuracy": 0.5, "examples": 9})
    assert (
        str(error.value)
        == f"{tmp_path}/none/metrics.jsonl can't be written (No such file or directory): fix that and run the command again"
    )


def test_events_can_be_read_back(tmp_path: Path) -> None:
    """Every finite number, under train/ and eval/, at its step."""
    told = journal(tmp_path, tensorboard=True)
    for step in (10, 20):
        told.add(rows(10))
        told.tell(step, [0.1], SCALE)
    told.tell_eval(20, {"masked_lm_loss": 2.5, "masked_lm_accuracy": 0.5, "perplexity": math.inf, "examples": 9})
    told.flush()
    found = {}
    for path in sorted((tmp_path / "tensorboard").iterdir()):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = event_pb2.Event.FromString(record)
            found |= {(event.step, value.tag): float(tf.make_ndarray(value.tensor)) for value in event.summary.value}
    train = [
        "epoch", "loss", "masked_lm_loss", "masked_lm_accuracy", "next_sentence_loss", "next_sentence_accuracy",
        "learning_rate", "gradient_norm", "examples_per_second", "tokens_per_second", "input_share", "mfu", "seconds",
    ]  # fmt: skip
    names = {(step, f"train/{name}") for step in (10, 20) for name in train}
    assert found.keys() == names | {(20, "eval/masked_lm_loss"), (20, "eval/masked_lm_accuracy")}
    assert found[20, "eval/masked_lm_loss"] == 2.5 and found[10, "train/examples_per_second"] == 64.0


def test_unwritable_events(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file, where the folder should be")
    told = journal(tmp_path, tensorboard=True)
    with pytest.raises(UserError, match=r"/tensorboard can't be written \(.*\): fix that and run the command again$") as error:
        told.tell_eval(1, {"masked_lm_loss": 2.5, "masked_lm_accuracy": 0.5, "examples": 9})
    assert str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)


def test_without_tensorboard_there_are_no_events(tmp_path: Path) -> None:
    told = journal(tmp_path)
    told.add(rows(1))
    told.tell(1, [0.1], SCALE)
    told.flush()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_clock() -> None:
    clock = Clock()
    assert 0 <= clock.minutes() < 1
    clock._began -= 90
    assert 1.5 <= clock.minutes() < 2.5
    clock.reset()
    assert clock.minutes() < 1
