import json
from pathlib import Path

from clozemill.trainers.diagnosis.watch import Watch
from clozemill.trainers.training.metrics_log import MetricsLog
from tests.trainers.diagnosis import journals


def planted(until: int) -> list[dict]:
    """Waits for input from the start, and goes back to word frequencies after step 500."""
    found = []
    for entry in journals.healthy(until=until):
        own = {} if "split" in entry else {"input_share": 0.4}
        found.append(entry | own | ({"masked_lm_loss": 6.8} if entry["step"] > 500 else {}))
    return found


def kinds(watch: Watch, until: int) -> list[str]:
    return [finding.kind for finding in watch.new_findings(planted(until))]


def test_each_finding_is_new_once(tmp_path: Path) -> None:
    watch = Watch(str(journals.write_run(tmp_path / "run", [])), [])
    assert [kinds(watch, until) for until in (100, 300, 500, 700, 900, 1000)] == [
        [], ["input_bound"], [], ["rate_too_high"], [], [],
    ]  # fmt: skip


def test_what_is_wrong_at_the_last_evaluation_is_known(tmp_path: Path) -> None:
    """The page of the run has it too, however often it was printed."""
    log = MetricsLog(str(journals.write_run(tmp_path / "run", [])), 1000, tensorboard=False)
    assert log.findings() == []
    log.lines = [json.dumps(entry) for entry in planted(700)]
    log._warn_of_findings()
    log._warn_of_findings()
    rises, waits = log.findings()
    assert rises.endswith("(rate_too_high)") and waits.endswith("(input_bound)")


def test_a_resumed_run_repeats_nothing(tmp_path: Path) -> None:
    folder = str(journals.write_run(tmp_path / "run", planted(400)))
    watch = Watch(folder, planted(400))
    assert kinds(watch, 500) == [] and kinds(watch, 1000) == ["rate_too_high"]


def test_a_healthy_run(tmp_path: Path) -> None:
    watch = Watch(str(journals.write_run(tmp_path / "run", [])), [])
    assert [watch.new_findings(journals.healthy(until=until)) for until in range(100, 1001, 100)] == [[]] * 10


def test_a_plateau_at_the_end_is_left_to_the_trainer(tmp_path: Path) -> None:
    def flat(until: int) -> list[dict]:
        return [entry | {"masked_lm_loss": 6.79} for entry in journals.healthy(until=until)]

    watch = Watch(str(journals.write_run(tmp_path / "run", [])), [])
    assert watch.new_findings(flat(700)) == watch.new_findings(flat(1000)) == []
    assert [finding.kind for finding in watch.new_findings(flat(800))] == ["plateau"]


def test_a_folder_without_run_json(tmp_path: Path) -> None:
    assert Watch(str(tmp_path), []).new_findings(planted(1000)) == []


def test_an_earlier_divergence_is_not_reported_again(tmp_path: Path) -> None:
    folder = journals.write_run(tmp_path / "run", journals.healthy(until=500))
    (folder / "diverged.json").write_text('{"step": 800, "learning_rate": 0.001}')
    assert Watch(str(folder), journals.healthy(until=500)).new_findings(journals.healthy(until=600)) == []
