"""What a signal, an error or a kill in an evaluation costs: no step, and no evaluation."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import clozemill
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.pretraining.eval_sets import SeveralEvaluations
from clozemill.trainers.training import checkpoints, run_page, variable_files
from clozemill.trainers.training.loop import Loop
from tests.trainers import datasets

pytestmark = pytest.mark.usefixtures("one_layer")
RATES = ("examples_per_second", "tokens_per_second", "input_share", "seconds", "mfu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return datasets.write(tmp_path_factory.mktemp("small"), [[20, 24]], [6]).folder


@pytest.fixture(scope="module")
def whole(one_layer: None, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbs. Read it only."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pretrain(run, data)
    return run


def pretrain(run: Path, data: str, code: int = 0) -> None:
    given = ["--data", data, "--objective", "mlm", "--preset", "tiny", "--max-position-embeddings", "16", "--batch-size", "8"]
    given += ["--steps", "4", "--eval-steps", "2", "--log-steps", "1", "--steps-per-call", "1", "--no-tensorboard"]
    assert clozemill.main(["pretrain", *given, "--output", str(run)]) == code


def metrics(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in RATES} for row in rows]


def verdict(run: Path) -> str:
    """The words of the page that say how the run ended."""
    page = (run / run_page.PAGE).read_text()
    return next(text for text in ("Complete, 4 steps.", "Stopped by SIGTERM at step", "Training: step") if text in page)


def assert_the_same(run: Path, whole: Path) -> None:
    assert metrics(run) == metrics(whole)
    found, wanted = ([(one.step, one.index["eval"]) for one in checkpoints.saved(str(each))] for each in (run, whole))
    assert found == wanted
    assert verdict(run) == "Complete, 4 steps."


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Loop]]:
    """The loops that have evaluated."""
    found: list[Loop] = []
    evaluate = Loop._evaluate

    def recorded(self: Loop, *given: Any) -> str:
        found.append(self)
        return evaluate(self, *given)

    monkeypatch.setattr(Loop, "_evaluate", recorded)
    yield found


def patched_figures(monkeypatch: pytest.MonkeyPatch, before: Callable[[], None]) -> None:
    figures = SeveralEvaluations.figures

    def changed(self: SeveralEvaluations) -> dict[str, Any]:
        before()
        return figures(self)

    monkeypatch.setattr(SeveralEvaluations, "figures", changed)


def test_a_signal_before_the_last_evaluation(whole: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The same command evaluates, without writing the weights again; only then is there nothing to do."""
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Loop, "_stopped", lambda self: "SIGTERM" if self.step == 4 else "")
        pretrain(run, data, code=75)
    assert checkpoints.find(str(run)).index["eval"] is None and verdict(run).startswith("Stopped")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(variable_files, "write_variables", lambda *given: pytest.fail("weights are written again"))
        pretrain(run, data)
    assert "nothing to do" not in capsys.readouterr().out
    assert checkpoints.find(str(run), "best").step == checkpoints.find(str(whole), "best").step
    assert_the_same(run, whole)
    pretrain(run, data)
    assert f"{run} is complete (4 steps): nothing to do\n" in capsys.readouterr().out


def test_an_error_in_an_evaluation(whole: Path, data: str, tmp_path: Path) -> None:
    """The steps before it are saved."""
    run = tmp_path / "run"

    def fail() -> None:
        raise UserError("the eval split can't be read")

    with pytest.MonkeyPatch.context() as patched:
        patched_figures(patched, fail)
        pretrain(run, data, code=2)
    assert [(one.step, one.index["eval"]) for one in checkpoints.saved(str(run))] == [(2, None)]
    pretrain(run, data)
    assert_the_same(run, whole)


def test_a_signal_in_an_evaluation(whole: Path, data: str, tmp_path: Path, loops: list[Loop]) -> None:
    """It may end the process at once, because everything is saved; of several processes, each stops after the evaluation."""
    run, seen = tmp_path / "run", []
    with pytest.MonkeyPatch.context() as patched:
        patched_figures(patched, lambda: seen.append((loops[-1].signals.stepping, loops[-1].signals.unsaved)))
        patched.setattr(Loop, "_stopped", lambda self: "SIGTERM" if seen else "")
        pretrain(run, data, code=75)
    assert seen == [(True, 0)] and not loops[-1].signals.stepping
    found = checkpoints.find(str(run))
    assert found.step == 2 and found.index["eval"]["examples"] == 6
    pretrain(run, data)
    assert_the_same(run, whole)


def test_a_signal_while_the_steps_before_an_evaluation_are_saved(whole: Path, data: str, tmp_path: Path) -> None:
    """The evaluation is left for the next start, also the last one."""
    for step in (2, 4):
        run, saved = tmp_path / f"run-{step}", []
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Loop, "_save", saving(saved))
            patched.setattr(Loop, "_stopped", lambda self, saved=saved, step=step: "SIGTERM" if step in saved else "")
            pretrain(run, data, code=75)
        found = checkpoints.find(str(run))
        assert (found.step, found.index["eval"]) == (step, None) and verdict(run).startswith("Stopped")
        pretrain(run, data)
        assert_the_same(run, whole)


def saving(saved: list[int]) -> Callable:
    save = Loop._save

    def changed(self: Loop, *given: Any) -> None:
        save(self, *given)
        saved.append(self.step)

    return changed


def test_killed_between_an_evaluation_and_its_checkpoint(
    whole: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Its line is in metrics.jsonl, but not in the checkpoint: it is evaluated again, and the line is there once."""
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoints, "describe_again", lambda *given: 1 / 0)
        pretrain(run, data, code=70)
    assert metrics(run)[-1]["split"] == "eval"
    capsys.readouterr()
    pretrain(run, data)
    assert "corrupt" not in capsys.readouterr().err
    assert_the_same(run, whole)


def test_killed_before_the_page_says_that_the_run_is_complete(whole: Path, data: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    told = json.loads((run / run_page.MEMORY).read_text())
    (run / run_page.MEMORY).write_text(json.dumps(told | {"ended": ""}))
    (run / run_page.PAGE).write_text("Training: step 2")
    pretrain(run, data)
    assert_the_same(run, whole)
    del told["ended"]
    (run / run_page.MEMORY).write_text(json.dumps(told))
    assert run_page.is_complete(str(run))  # of an earlier version
