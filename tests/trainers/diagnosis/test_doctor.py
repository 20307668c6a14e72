import json
import subprocess
import sys
from pathlib import Path

import pytest

import clozemill
from clozemill.trainers.diagnosis.diagnoses import DIAGNOSES
from tests.trainers.diagnosis import journals


def starved() -> list[dict]:
    return [entry | ({} if "split" in entry else {"input_share": 0.4}) for entry in journals.healthy()]


@pytest.fixture
def healthy(tmp_path: Path, demo_dataset: Path) -> str:
    """A healthy run on the demo dataset."""
    digest = json.loads((demo_dataset / "dataset.json").read_text())["digest"]
    about = journals.about(config={"data": [str(demo_dataset)]}, dataset=digest)
    return str(journals.write_run(tmp_path / "run", journals.healthy(), about))


def test_a_healthy_run(healthy: str, capsys: pytest.CaptureFixture) -> None:
    assert clozemill.main(["doctor", healthy]) == 0
    assert capsys.readouterr().out == f"{healthy}, step 1,000 of 1,000: nothing wrong in {len(DIAGNOSES)} diagnoses\n"


def test_findings(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = journals.write_run(tmp_path / "run", starved())
    assert clozemill.main(["doctor", str(folder), "--output", str(tmp_path / "findings.json")]) == 1
    finding, note, last = capsys.readouterr().out.splitlines()
    assert finding.startswith("steps wait for input 40 % of their time: ") and finding.endswith(" (input_bound)")
    assert note.startswith("note: the dataset isn't where the run read it") and ": 1 finding in " in last
    told = json.loads((tmp_path / "findings.json").read_text())
    assert (told["run"], told["step"], told["steps"]) == (str(folder), 1000, 1000) and told["diagnoses"] == list(DIAGNOSES)
    assert [each["kind"] for each in told["findings"]] == ["input_bound"] and len(told["notes"]) == 1


def test_a_run_that_trains(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The last line is half written, and nothing was evaluated yet."""
    folder = journals.write_run(tmp_path / "run", journals.healthy(until=50))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 100, "epo')
    assert clozemill.main(["doctor", str(folder)]) == 0
    told = capsys.readouterr()
    assert "step 50 of 1,000: nothing wrong" in told.out and told.err == ""
    assert "that takes 200" in told.out and "nothing was evaluated yet" in told.out


def test_a_diverged_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = journals.write_run(tmp_path / "run", journals.healthy(until=550))
    (folder / "diverged.json").write_text(json.dumps({"step": 590, "learning_rate": 1e-3, "shards": ["a"]}))
    assert clozemill.main(["doctor", str(folder)]) == 1
    assert "became NaN or infinite at step 590, at a learning rate of 0.001" in capsys.readouterr().out
    (folder / "metrics.jsonl").unlink()  # it may happen before the first line
    assert clozemill.main(["doctor", str(folder)]) == 1


def test_a_run_of_finetune(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = journals.write_run(tmp_path / "run", journals.task_entries(), journals.finetuned())
    assert clozemill.main(["doctor", str(folder)]) == 0
    told = capsys.readouterr().out
    assert f"{folder}, step 60: nothing wrong" in told and "for which most diagnoses have no figures" in told


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "RUN is missing: give the folder of a run"),
        (["nowhere"], "RUN nowhere doesn't exist"),
        (["."], ". contains no run.json: give the folder of a run"),
        (["empty"], "empty/metrics.jsonl is missing or has no entry: wait until"),
        (["other"], "other/run.json is not that of a run, or of another version of clozemill"),
        (["run", "--output", "a.txt"], "--output a.txt: give a name that ends in .json"),
        (["run", "--output", "there.json"], "there.json already exists: give --overwrite"),
    ],
)
def test_mistakes(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    journals.write_run(tmp_path / "empty", [])
    journals.write_run(tmp_path / "other", [], {"version": 9})
    journals.write_run(tmp_path / "run", journals.healthy())
    (tmp_path / "there.json").write_text("{}")
    assert clozemill.main(["doctor", *words]) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1


def test_neither_tensorflow_nor_beam_is_loaded(healthy: str) -> None:
    code = (
        f"import clozemill, sys; assert clozemill.main(['doctor', {healthy!r}]) == 0\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'apache_beam', 'matplotlib'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
