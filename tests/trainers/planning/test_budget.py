"""`plan --budget`: forecasts of a loss, candidates, and the recommendation."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clozemill
from clozemill.deploy.plan import PlanConfig
from clozemill.pipelines.command_line import options, process
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.hardware import Hardware
from clozemill.trainers.planning import budget, pilots, scaling
from clozemill.trainers.planning.budget import Candidate, Pilot, Row
from clozemill.trainers.planning.scaling import Forecast, forecast
from clozemill.trainers.pretraining.config import PretrainConfig
from tests.trainers import datasets

TINY = Candidate("modern-tiny", "wiki", 1_000_000, 32, 4096, 50_000, 0.1, True, 0.25)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("30 min", 1800), ("2h", 7200), ("1.5d", 129_600), ("0.5H", 1800)]
)
def test_budgets(text: str, seconds: float) -> None:
    assert budget.parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["2", "h", "-2h", "2 weeks", "0h", "1e9h", "2h30m"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(UserError, match=r"give a time with its unit, such as 30m, 2h or 1\.5d"):
        budget.parse_budget(text)


@given(
    st.floats(1.0, 3.5), st.floats(0.3, 0.8), st.floats(0.8, 2.5), st.integers(200, 2000),
    st.lists(st.floats(-0.02, 0.02), min_size=3, max_size=3),
)  # fmt: skip
def test_a_curve_of_the_form_is_predicted(floor: float, exponent: float, excess: float, first: int, noise: list[float]) -> None:
    """Ten times as long as the longest pilot, within the range, whatever its numbers are, within those of real curves."""
    steps = [first, 2 * first, 4 * first]

    def loss(count: float) -> float:
        return floor + excess * (count / first) ** -exponent

    found = forecast(steps, [loss(count) + error for count, error in zip(steps, noise, strict=True)], 40 * first)
    assert found.low <= found.estimate <= found.high
    assert found.low - 0.15 <= loss(40 * first) <= found.high + 0.15
    assert found.estimate == pytest.approx(loss(40 * first), abs=0.45)


def test_more_steps_are_never_worse() -> None:
    predicted = [forecast([400, 800, 1600], [4.9, 4.3, 3.9], steps).estimate for steps in (1600, 4000, 16_000, 10**6)]
    assert predicted == sorted(predicted, reverse=True)
    assert predicted[0] == pytest.approx(3.9, abs=0.03)


def test_the_order_of_the_pilots_does_not_matter() -> None:
    one, other = forecast([400, 800, 1600], [4.9, 4.3, 3.9], 8000), forecast([1600, 400, 800], [3.9, 4.9, 4.3], 8000)
    assert one.estimate == pytest.approx(other.estimate, abs=0.02)


@pytest.mark.parametrize(("steps", "losses"), [([400], [4.0]), ([400, 400], [4.0, 4.1])])
def test_one_length_is_no_curve(steps: list[int], losses: list[float]) -> None:
    with pytest.raises(ValueError, match="at least two lengths"):
        scaling.forecast(steps, losses, 1000)


def candidate(preset: str, weights: int, seconds: float, fits: bool = True) -> Candidate:
    return Candidate(preset, "wiki", weights, 32, 4096, 50_000, seconds, fits, 0.25)


def test_candidates_have_suitable_tokens_per_weight_and_fit() -> None:
    """0.9 x 7,200 s at 0.1 s are 64,800 steps of 4,096 positions: 265 per weight of a million."""
    known = [candidate(f"size {n}", n * 1_000_000, 0.1 * n) for n in (1, 4, 16, 64)]
    assert known[0].tokens_per_weight(7200) == pytest.approx(265.4, abs=0.1)
    assert [one.preset for one in budget.choose_candidates(known, 7200)] == ["size 1", "size 4", "size 16"]
    assert [one.preset for one in budget.choose_candidates(known, 2000 * 3600)] == ["size 4", "size 16", "size 64"]
    large = [candidate("a", 10**6, 0.1, fits=False), candidate("b", 2 * 10**6, 0.2)]
    assert [one.preset for one in budget.choose_candidates(large, 7200)] == ["b"]
    assert budget.choose_candidates([large[0]], 7200) == []
    assert [one.preset for one in budget.choose_candidates(known, 60)] == ["size 1"]  # too little for any: the smallest


def test_pilots_take_their_time() -> None:
    assert budget.pilot_steps(70, 0.1) == [100, 200, 400]
    assert budget.pilot_steps(0.1, 1.0) == [2, 4, 8]
    assert budget.pilot_steps(-4.0, 1.0) == [2, 4, 8]  # the first pilot took more than there is
    assert [budget.probe_steps(70, seconds) for seconds in (1e-4, 0.2, 7.0, 0.0)] == [50, 35, 10, 10]


PILOTS = (Pilot(300, 0.11, 3900, 5.9, 6.4), Pilot(600, 0.10, 3900, 4.6, 6.4), Pilot(1200, 0.12, 3900, 4.1, 6.4))


def test_a_row_by_hand() -> None:
    row = budget.make_row(TINY, PILOTS, 7200)
    assert (row.seconds, row.steps) == (0.10, 64_800)
    assert row.tokens == 64_800 * 3900 and row.epochs == pytest.approx(64_800 * 32 / 50_000)
    assert row.forecast == forecast([600, 1200], [4.6, 4.1], 64_800)  # the first one is still on the plateau
    assert row.score == pytest.approx(row.forecast.estimate * 0.25)
    assert budget.make_row(TINY, PILOTS[:2], 7200).forecast is None


def test_the_best_row_has_the_lowest_loss_per_character() -> None:
    other = Candidate("modern-mini", "wiki", 5_000_000, 32, 4096, 50_000, 0.5, True, 0.25)
    rough = Candidate("modern-tiny", "letters", 900_000, 32, 4096, 50_000, 0.1, True, 1.0)
    rows = [
        Row(TINY, PILOTS, 0.1, 64_800, Forecast(3.4, 3.2, 3.6)),
        Row(other, PILOTS, 0.5, 12_960, Forecast(3.2, 3.0, 3.4)),
        Row(rough, PILOTS, 0.1, 64_800, Forecast(1.5, 1.4, 1.6)),  # tokens of one character are easy to predict
        Row(TINY, PILOTS, 0.1, 64_800, None),
    ]
    assert budget.best(rows) is rows[1]
    assert budget.best(rows[3:]) is rows[3]
    assert budget.command(rows[1]) == [
        "clozemill", "pretrain", "--recipe", "modern", "--preset", "modern-mini", "--data", "wiki", "--output", "RUN",
        "--steps", "12960", "--batch-size", "32",
    ]  # fmt: skip
    assert clozemill.commands.parser("pretrain").parse_known_args(budget.command(rows[1])[1:])[1] == []
    assert len({len(line) for line in map(budget.cells, rows)} | {len(budget.HEAD)}) == 1
    assert json.loads(json.dumps(budget.as_json(rows, rows[1])))["recommended"] == 1


def test_remarks() -> None:
    row = budget.make_row(TINY, PILOTS, 7200)
    assert budget.remarks(row) == [
        "the run reads its text 41 times; after about 40, repeating it brings next to nothing, and the forecast is too low: "
        "give more text, or fewer steps"
    ]
    (short, ratio) = budget.remarks(budget.make_row(TINY, PILOTS[:1], 60))
    assert "can't be forecast: give a larger --budget or --pilot-share" in short
    assert ratio.startswith("2 tokens per weight are far from the 200 to 2,000 that suit an encoder: give more time")


def test_options_of_the_other_plan(tmp_path: Path) -> None:
    def refused(**values) -> str:
        with pytest.raises(UserError) as caught:
            options.check_before_start(PlanConfig(**values))
        return str(caught.value)

    assert (
        refused() == "--input is missing: give input files or globs, local or remote; .gz, .bz2 and .zst files are decompressed"
    )
    assert refused(budget="2h").startswith("--data is missing: give prepared datasets that --budget chooses from")
    assert refused(budget="2", data=(str(tmp_path),)).startswith("--budget 2: give a time with its unit")
    assert refused(budget="2h", data=("d",), input=("a",)) == (
        "--input has no effect with --budget: it plans the training on --data alone; leave it out"
    )
    assert refused(budget="2h", data=("d",), steps=10).startswith("--steps has no effect with --budget")
    assert refused(budget="2h", data=("d",), num_gpus=2).startswith("--num-gpus has no effect with --budget")
    assert refused(budget="2h", data=("d",), max_seq_length=64).startswith("--max-seq-length has no effect with --budget")
    assert refused(input=(__file__,), pilot_share=0.5).startswith("--pilot-share has no effect without --budget")
    assert refused(data=("d",)) == "--data has no effect without --budget: it is for --budget; leave it out"
    assert refused(data=("d",), input=("a",)) == "--data has no effect without --budget: it is for --budget; leave it out"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "small").mkdir()
    datasets.write(tmp_path / "small", [[60]], [8])
    return tmp_path / "small"


@pytest.mark.parametrize(
    ("preset", "pairs", "length", "asked"),
    [
        ("tiny", "nsp", 32, ()),
        ("tiny", "single", 32, (("objective", "mlm"),)),
        ("tiny", "sop", 32, (("objective", "mlm+sop"),)),
        ("modern-tiny", "single", 32, ()),
        ("modern-tiny", "nsp", 1024, (("max_position_embeddings", 1024),)),
    ],
)
def test_what_a_dataset_asks_for(preset: str, pairs: str, length: int, asked: tuple, tmp_path: Path) -> None:
    datasets.write(tmp_path, [[8]], [8], length=length, pairs=pairs)
    found = pilots.candidate(preset, str(tmp_path), Hardware("CPU", 1, 1 << 40, 2), 0.0)
    assert found.options == asked
    command = budget.command(Row(found, PILOTS, 0.1, 10, None))
    words = [word for name, value in asked for word in (f"--{name.replace('_', '-')}", str(value))]
    assert [word for word in command if word in words] == words


def test_the_pilots_are_runs_of_pretrain(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The command, with a function that writes what `pretrain` would write; an end-to-end test is slow."""
    trained: list[int] = []

    def train(config: PretrainConfig) -> int:
        assert not process.PROGRAM  # so `pretrain` leaves signals to the plan
        print("warning: it has learnt nothing", file=sys.stderr)
        trained.append(config.steps)
        folder, steps = Path(config.output), config.steps
        folder.mkdir()
        lines = [{"step": at, "seconds": 0.1 * at, "tokens": 300 * at} for at in (steps // 5, steps)]
        loss = 2.0 + 3.0 * (steps / 100) ** -0.5
        lines.append({"step": steps, "split": "eval", "masked_lm_loss": loss, "unigram_loss": 6.0})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return 0

    output = tmp_path / "plan.json"
    config = PlanConfig(budget="1h", data=(str(small),), preset="modern-tiny", output=str(output))
    pilots.plan_budget(config, train)
    told, found = capsys.readouterr(), json.loads(output.read_text())
    (row,) = found["rows"]
    assert [each["steps"] for each in row["pilots"]] == trained
    assert sum(trained) * 0.1 == pytest.approx(360, rel=0.01)  # a tenth of the hour
    assert row["pilots"][0]["steps"] == 50 and row["steps"] == 32_400 and row["seconds"] == pytest.approx(0.1)
    assert row["forecast"]["low"] < 2.0 + 3.0 * 324**-0.5 < row["forecast"]["high"]
    assert f"--data {small} --output RUN --steps 32400" in told.out and "warning: the run reads its text" in told.out
    assert told.err == ""


def test_a_pilot_that_fails(
    small: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it printed is shown, and no temporary folder is left, after an error and after Ctrl-C."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(process, "PROGRAM", ["clozemill"])
    config = PlanConfig(budget="1h", data=(str(small),), preset="modern-tiny")

    def diverges(config: PretrainConfig) -> int:
        print("clozemill: loss became NaN", file=sys.stderr)
        return 3

    def interrupted(config: PretrainConfig) -> int:
        raise KeyboardInterrupt

    with pytest.raises(UserError, match="steps ended with exit code 3: give another --preset or --data"):
        pilots.plan_budget(config, diverges)
    assert capsys.readouterr().err == "clozemill: loss became NaN\n"
    with pytest.raises(KeyboardInterrupt):
        pilots.plan_budget(config, interrupted)
    assert process.PROGRAM == ["clozemill"] and [path.name for path in tmp_path.iterdir()] == ["small"]


def test_no_eval_examples(tmp_path: Path) -> None:
    datasets.write(tmp_path, [[60]])
    with pytest.raises(UserError, match="has no eval examples to measure pilots on"):
        pilots.plan_budget(PlanConfig(budget="1h", data=(str(tmp_path),), preset="modern-tiny"), lambda config: 0)


def test_numbers_are_finite() -> None:
    assert np.isfinite(forecast([10, 20], [1e-3, 1e-3], 10**9).estimate)


@pytest.mark.slow
def test_from_beginning_to_end(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "plan.json"
    words = ["plan", "--budget", "1m", "--data", str(small), "--preset", "modern-tiny", "--output", str(output)]
    assert clozemill.main(words) == 0
    (row,) = json.loads(output.read_text())["rows"]
    told = capsys.readouterr().out
    assert len(row["pilots"]) == 4 and all(each["loss"] > 0 and each["seconds"] > 0 for each in row["pilots"])
    assert row["steps"] * row["seconds"] == pytest.approx(54, rel=0.05)
    assert "  clozemill pretrain --recipe modern --preset modern-tiny --data " in told
    assert not list(Path(tmp_path).glob("**/pilot"))
