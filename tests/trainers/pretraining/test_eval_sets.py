"""`pretrain --eval-data`: every evaluation reports further eval sets, and with --init the first one is at step 0."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf

import clozemill
from clozemill.model.export import card_metadata
from clozemill.pipelines.command_line import options as command_options
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.pretraining import eval_sets, open_options, pretrain, pretraining_run
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.training import checkpoints, curves, eval_set_names, run_sections
from clozemill.trainers.training.metrics_log import MetricsLog
from tests.trainers import datasets
from tests.trainers.pretraining.test_warm_start import OTHER, checkpoint

FIGURES = {
    "loss": 3.0, "masked_lm_loss": 3.0, "masked_lm_accuracy": 0.25, "examples": 7, "predictions": 30, "unigram_loss": 4.0,
    "perplexity": 20.1, "remarks": [], "unigram_entropy": 1.0, "criterion": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, another one, one without eval examples, a longer one, one of other words, and a checkpoint."""
    root = tmp_path_factory.mktemp("sets")
    for name, options in {"own": {}, "wiki": {"evals": [4, 5]}, "without": {"evals": []}, "long": {"length": 64}}.items():
        (root / name).mkdir()
        datasets.write(root / name, [[20, 24]], options.pop("evals", [6]), **options)
    (root / "words").mkdir()
    datasets.write(root / "words", [[20, 24]], [6], vocabulary=OTHER)
    checkpoint(root / "begun")
    return root


def plan(folder: Path, *sets: str, **options) -> pretraining_run.PretrainingRun:
    config = PretrainConfig(data=(str(folder / "own"),), output=str(folder / "none"), eval_data=sets, steps=4, **options)
    return pretraining_run.plan_run(config)


def test_names() -> None:
    found = FIGURES | eval_set_names.prefixed("wiki", FIGURES)
    assert [name for name in found if "/" in name] == [
        "wiki/masked_lm_loss", "wiki/masked_lm_accuracy", "wiki/examples", "wiki/unigram_loss", "wiki/perplexity",
    ]  # fmt: skip
    assert list(eval_set_names.by_set(found)) == ["", "wiki"]
    assert eval_set_names.by_set(found)[""] == FIGURES
    assert eval_set_names.by_set(found)["wiki"]["examples"] == 7


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["wiki"], "--eval-data wiki: give NAME=DATASET, as in wiki=wiki-128, with a name of letters, digits, . _ and -"),
        (["=own"], "--eval-data =own: give NAME=DATASET"),
        (["a/b=own"], "--eval-data a/b=own: give NAME=DATASET"),
        (["..=own"], "--eval-data ..=own: give NAME=DATASET"),
        (["wiki="], "--eval-data wiki=: give NAME=DATASET"),
        (["wiki=a", "wiki=b"], "--eval-data names wiki twice: give each eval set a name of its own"),
    ],
)
def test_what_can_t_be_read_is_an_error_of_usage(given: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence.replace(".", r"\.")):
        PretrainConfig(data=("own",), output="run", eval_data=tuple(given)).check_command()


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("nowhere", {}, "nowhere has no dataset.json"),
        ("without", {}, r"--eval-data wiki=\S+without has no eval examples: prepare it with a larger --eval-fraction"),
        ("words", {}, "words"),
        ("long", {"max_position_embeddings": 32}, "long has sequences of 64 tokens"),
        ("wiki", {"objective": "mlm+sop"}, "has pairs nsp, but the objective mlm.sop needs sop"),
    ],
)
def test_a_set_that_does_not_fit_is_an_error(folder: Path, name: str, options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        plan(folder, f"wiki={folder / name}", **options)


def test_they_do_not_change_the_run(folder: Path) -> None:
    assert plan(folder).identity() == plan(folder, f"wiki={folder / 'wiki'}").identity()


def test_a_limit_of_eval_examples(folder: Path) -> None:
    """It is that of all sets, whose batches are those of a micro-batch."""
    planned = plan(folder, f"wiki={folder / 'wiki'}", eval_examples=4, batch_size=6, gradient_accumulation_steps=2)
    engine: Any = SimpleNamespace(replicas=1, evaluation=lambda model: None)
    found = planned.phases[0].evaluation(engine, SimpleNamespace(objective=None), planned.config)
    assert found is not None and list(found.named) == ["wiki"]
    assert [(each.limit, each.batch_size) for each in (found.own, found.named["wiki"])] == [(4, 3)] * 2


def test_they_cost_time_so_there_are_fewer_evaluations(folder: Path) -> None:
    config = PretrainConfig(data=("own",), output="run", steps=10_000, batch_size=1)
    phase = plan(folder).phases[0]
    own = eval_sets.read(PretrainConfig(eval_data=(f"own={folder / 'own'}",)), phase.dataset)["own"]
    assert open_options.eval_interval(config, [phase.mixture]) == 1000
    limited = [open_options.eval_interval(config, [phase.mixture], [own] * count) for count in (0, 99, 199)]
    assert limited == [1000, 2000, 5000]  # 3,000 forward passes are affordable: of 6, 600 and 1,200 examples


@pytest.fixture(scope="module")
def run(folder: Path) -> tuple[Path, str]:
    """A run at a learning rate of 0, and what it printed."""
    with pytest.MonkeyPatch.context() as patched:
        lines: list[str] = []
        patched.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        given = ["--data", folder / "own", "--init", folder / "begun", "--output", folder / "run", "--learning-rate", "0"]
        given += ["--eval-data", f"wiki={folder / 'wiki'}", "--eval-data", f"same={folder / 'own'}"]
        given += ["--steps", "2", "--batch-size", "8", "--no-tensorboard"]
        assert clozemill.main(["pretrain", *map(str, given)]) == 0
    return folder / "run", "\n".join(lines)


def test_each_set_is_evaluated_as_by_evaluate(folder: Path, run: tuple[Path, str], tmp_path: Path) -> None:
    own = checkpoints.find(str(run[0])).index["eval"]
    for name in ("wiki", "own"):
        path = tmp_path / f"{name}.json"
        assert clozemill.main(["evaluate", str(run[0]), "--data", str(folder / name), "--output", str(path)]) == 0
        alone, prefix = json.loads(path.read_text()), "same/" if name == "own" else "wiki/"
        for metric in ("masked_lm_loss", "masked_lm_accuracy", "next_sentence_loss", "unigram_loss", "examples"):
            assert own[prefix + metric] == pytest.approx(alone[metric], rel=1e-6), metric
    assert own["same/masked_lm_loss"] == own["masked_lm_loss"] != own["wiki/masked_lm_loss"]


def test_the_first_evaluation_is_at_step_0(run: tuple[Path, str]) -> None:
    entries = [json.loads(line) for line in (run[0] / "metrics.jsonl").read_text().splitlines()]
    first, last = curves.split_entries(entries)[1]
    assert (first.pop("step"), last.pop("step")) == (0, 2)
    assert first == last  # the learning rate is 0
    assert [each.step for each in checkpoints.saved(str(run[0]))] == [2]


def test_what_people_read(run: tuple[Path, str]) -> None:
    told = run[1]
    found = checkpoints.find(str(run[0])).index["eval"]
    loss, alone = (found[f"wiki/{name}"] for name in ("masked_lm_loss", "unigram_loss"))
    assert (
        f"wiki: masked LM loss {loss:.4f} nats (before the first step: {loss:.4f}; word frequencies alone: {alone:.4f})" in told
    )
    assert told.count("  eval wiki: mlm ") == 2
    entries = [json.loads(line) for line in (run[0] / "metrics.jsonl").read_text().splitlines()]
    (plot,) = [each for each in curves.plots(entries) if each.name == "loss"]
    assert [each.label for each in plot.series] == ["train", "eval", "eval wiki", "eval same", "word frequencies"]
    head = run_sections.evaluation_section(entries, 2).tables[0].head
    assert "wiki: masked-LM loss" in head and "wiki: perplexity" not in head and "wiki/masked_lm_loss" not in head
    page = (run[0] / "report.html").read_text()
    assert "wiki: masked-LM loss" in page


def test_without_an_own_eval_split_the_first_set_selects_the_best(folder: Path, capsys: pytest.CaptureFixture) -> None:
    planned = plan(folder, f"wiki={folder / 'wiki'}")
    config = PretrainConfig(data=(str(folder / "without"),), output="run", eval_data=(f"wiki={folder / 'wiki'}",), eval_steps=2)
    planned = pretraining_run.plan_run(config)
    pretrain._check_eval_splits(planned, config)
    pretrain.warn_of_few_examples(planned)
    assert "without has no eval examples: the first of --eval-data selects the best checkpoint" in capsys.readouterr().err
    made = eval_sets.SeveralEvaluations("wiki's", {"wiki": "wiki's", "own": "own's"})  # type: ignore[arg-type]
    assert made.own is made.named["wiki"]


def test_a_damaged_shard_of_the_set_that_selects_the_best(tmp_path: Path) -> None:
    """It is named, and not the dataset that is trained on."""
    dataset = datasets.write(tmp_path, [[8]], [8])
    shard = Path(dataset.path(dataset.shards("eval")[0]))
    shard.write_bytes(shard.read_bytes()[:-3])

    def broken() -> None:
        raise tf.errors.DataLossError(None, None, "truncated record")

    own = SimpleNamespace(dataset=dataset, figures=broken, reference=broken)
    made = eval_sets.SeveralEvaluations(own, {"wiki": own})  # type: ignore[arg-type, dict-item]
    for read in (made.figures, made.reference):
        with pytest.raises(UserError, match=rf"^{shard}.*clozemill verify {tmp_path} lists all corrupt files"):
            read()


def continuing(*data: str, **options) -> PretrainConfig:
    values = {"recipe": "continue", "data": data, "init": "begun", "output": "run", **options}
    return command_options.from_values(PretrainConfig, values)


def test_the_recipe_to_continue_mixes_in_general_text_and_evaluates_on_it() -> None:
    config = continuing("domain", "wiki", steps=50)
    (phase,) = config.resolved_phases()
    assert [(part.data, part.weight) for part in phase.parts] == [("domain", 0.9), ("wiki", 0.1)]
    assert (phase.steps, config.masks, config.eval_sets()) == (50, "fresh", {"general": "wiki"})
    assert config.average_with_init == 0.5 and continuing("domain", average_with_init=0.0).average_with_init == 0
    assert continuing("domain", "wiki", eval_data=("w=more",)).eval_sets() == {"general": "wiki", "w": "more"}
    assert continuing("domain", "wiki", eval_data=("general=more",)).eval_sets() == {"general": "more"}


def test_the_recipe_to_continue_without_general_text() -> None:
    config = continuing("domain")
    assert config.resolved_phases()[0].data == "domain" and config.eval_sets() == {}
    with pytest.raises(UserError, match="--recipe continue mixes 2 datasets, but --data names 3: give phases with weights"):
        continuing("domain", "wiki", "more").resolved_phases()
    with pytest.raises(UserError, match="--data wiki has no effect because phase 1 has its own data: leave one out"):
        continuing("wiki", phases=[{"data": "domain", "steps": 5}]).resolved_phases()
    with pytest.raises(UserError, match="--recipe continue needs --init: give the run, checkpoint or import to continue"):
        continuing("domain", init="")


def test_its_rate_is_half_of_the_usual_one(folder: Path) -> None:
    given = {"eval_data": (f"wiki={folder / 'wiki'}",), "output": str(folder / "none")}
    planned = pretraining_run.plan_run(continuing(str(folder / "own"), init=str(folder / "begun"), **given))
    usual = plan(folder, preset="tiny").phases[0].schedule
    schedule = planned.phases[0].schedule
    assert (schedule.peak, schedule.warmup_steps, schedule.steps) == (usual.peak / 2, 100, 1000)


def test_general_text_without_eval_examples(folder: Path) -> None:
    config = continuing(str(folder / "own"), str(folder / "without"), init=str(folder / "begun"), output=str(folder / "none"))
    with pytest.raises(
        UserError, match="without, the general text of --recipe continue, has no eval examples: prepare it with"
    ):
        pretraining_run.plan_run(config)


def test_a_run_with_init_is_resumed_with_it(folder: Path, run: tuple[Path, str]) -> None:
    config = PretrainConfig(data=(str(folder / "own"),), output=str(run[0]), steps=2)
    with pytest.raises(
        UserError, match=r"run was started with --init \S+begun: give the same to resume it, or another --output"
    ):
        pretraining_run.plan_run(config)


def test_the_card_names_the_dataset_that_was_evaluated(folder: Path, run: tuple[Path, str]) -> None:
    index = checkpoints.find(str(run[0])).index
    assert index["evaluated_on"] == "own"
    about = {**index, "data": [{"name": "own"}, {"name": "other"}]}
    assert card_metadata.results(about, "fill-mask", "model")[0]["results"][0]["dataset"]["name"] == "own, eval split"
    config = PretrainConfig(data=(str(folder / "without"),), output="run", eval_data=(f"w={folder / 'wiki'}",))
    assert pretraining_run.plan_run(config).phases[0].evaluated_on == "wiki"


def test_a_journal_of_a_process_that_saved_nothing_is_removed(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "split": "eval"}\n{"st')
    MetricsLog(str(tmp_path), 10, silent=True).discard_old()
    assert (tmp_path / "metrics.jsonl").exists()
    MetricsLog(str(tmp_path), 10).discard_old()
    assert not (tmp_path / "metrics.jsonl").exists()
