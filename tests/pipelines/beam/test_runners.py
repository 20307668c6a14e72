import pytest

from clozemill.pipelines.beam.runners import SMALL_INPUT, check_options, pipeline_options, workers
from clozemill.pipelines.common import runtime
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import PrepareConfig, RunOptions


@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["--project=p", "--region", "europe-west4", "--temp_location", "gs://b/t"],
        ["--experiments=use_runner_v2", "--experiments", "b", "--num_workers", "3", "--streaming"],
        ["--job_endpoint=localhost:8099", "--environment_type=LOOPBACK", "--flink_master", "localhost:8081"],
        ["--direct_num_workers=2"],
    ],
)
def test_beam_options_are_passed_on(extra: list[str]) -> None:
    check_options(extra)
    found = pipeline_options(RunOptions(num_workers=1), extra, 1).get_all_options()
    names = {flag.lstrip("-").split("=")[0] for flag in extra if flag.startswith("--")}
    assert all(found[name] not in (None, []) for name in names)


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--regoin", "europe-west4"], "unknown option --regoin: neither clozemill nor Beam has it; did you mean --region?"),
        (
            ["--temp-location=x"],
            "unknown option --temp-location=x: neither clozemill nor Beam has it; did you mean --temp_location?",
        ),
        (["--qqqqqqqqq"], "unknown option --qqqqqqqqq: neither clozemill nor Beam has it"),
        (["--project=p", "loose"], "unknown option loose: neither clozemill nor Beam has it"),
        (["--proj=p"], "unknown option --proj=p"),  # no abbreviations
        (["-x"], "unknown option -x"),
    ],
)
def test_misspelt_options_are_rejected(extra: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        check_options(extra)
    assert str(error.value).startswith(sentence)


def test_our_options_are_suggested() -> None:
    with pytest.raises(UserError, match="did you mean --max-seq-length"):
        pipeline_options(PrepareConfig(), ["--max_seq_lenght", "64"], 1)


@pytest.mark.parametrize("extra", [["--direct_num_workers=many"], ["--project"], ["--direct_running_mode=fast"]])
def test_values_that_beam_rejects(extra: list[str]) -> None:
    with pytest.raises(UserError, match=f"^{extra[0].split('=')[0]}: .* see clozemill --help"):
        check_options(extra)


def test_an_unknown_runner_is_rejected() -> None:
    with pytest.raises(UserError, match="NoSuchRunner can't be used"):
        pipeline_options(RunOptions(runner="NoSuchRunner"), [], 1)


@pytest.mark.parametrize(
    ("config", "size", "count"),
    [
        (RunOptions(), 0, 1),
        (RunOptions(), SMALL_INPUT - 1, 1),
        (RunOptions(), SMALL_INPUT, 3),
        (RunOptions(num_workers=2), 0, 2),
        (RunOptions(num_workers=1), SMALL_INPUT, 1),
        (RunOptions(in_memory=True, num_workers=5), SMALL_INPUT, 1),
        (RunOptions(in_memory=False), 0, 3),
    ],
)
def test_workers(monkeypatch: pytest.MonkeyPatch, config: RunOptions, size: int, count: int) -> None:
    monkeypatch.setattr(runtime, "cores", lambda: 3)
    assert workers(config, size) == count


def test_local_settings() -> None:
    one = pipeline_options(RunOptions(), [], 1).get_all_options()
    assert one["direct_running_mode"] == "in_memory"
    four = pipeline_options(RunOptions(), [], 4).get_all_options()
    assert (four["direct_running_mode"], four["direct_num_workers"]) == ("multi_processing", 4)


def test_cores() -> None:
    assert runtime.cores() >= 1
