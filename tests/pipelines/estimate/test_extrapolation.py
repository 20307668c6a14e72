import dataclasses
import gzip
import json
import os
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import clozemill
from clozemill.deploy.plan import PlanConfig, cost_notes, total_costs
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.estimates import Estimate
from clozemill.pipelines.estimate import dry_run, extrapolation, report
from clozemill.pipelines.estimate.config import EstimateConfig
from clozemill.pipelines.estimate.dry_run import DryRun
from clozemill.pipelines.prepare.document_processor import SplitSummary
from tests.corpora import jsonl, texts

DATA = Path(__file__).parents[4] / "shared" / "data"
COUNTED = {"documents read", "documents kept", "tokens", "train examples per copy", "train bytes per copy", "bytes in all"}


def varied(count: int, seed: int = 3) -> list[str]:
    """Documents of 1 to 40 sentences."""
    lengths = np.random.default_rng(seed).integers(1, 41, count)
    return [texts(1, seed * 10_000 + number, int(length))[0] for number, length in enumerate(lengths)]


def prepared(folder: Path, *arguments: str) -> dict[str, float]:
    """What `prepare` really makes, by the plan's names."""
    assert clozemill.main(["prepare", *arguments, "--output", str(folder), "--no-progress", "--in-memory"]) == 0
    made = json.loads((folder / "dataset.json").read_bytes())
    train = [shard for shard in made["shards"] if shard["split"] == "train"]
    copies = made["config"]["dupe_factor"]
    return {
        "documents read": made["documents"]["read"],
        "documents kept": made["documents"]["kept"],
        "characters": made["documents"]["characters"],
        "tokens": made["documents"]["tokens"],
        "train examples per copy": sum(shard["examples"] for shard in train) / copies,
        "train bytes per copy": sum(shard["bytes"] for shard in train) / copies,
        "eval examples": made["splits"].get("eval", {}).get("examples", 0),
        "bytes in all": sum(shard["bytes"] for shard in made["shards"]),
        "train groups": made["config"]["num_groups"],
        "eval groups": made["num_eval_groups"],
    }


def test_rows_of_a_small_corpus_are_counted_exactly(
    demo_corpus: str, demo_vocab: str, packed_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    made = json.loads((packed_dataset / "dataset.json").read_bytes())
    options = ["--num-groups", "3", "--dupe-factor", "2", "--eval-fraction", "0.2", "--seed", "7", "--packing", "on"]
    plan = planned(capsys, tmp_path, "--input", demo_corpus, "--vocab", demo_vocab, *options)
    found = {name: figure["estimate"] for name, figure in plan["figures"].items()}
    rows, splits = sum(shard["rows"] for shard in made["shards"]), made["splits"]
    assert found["rows in all"] == rows and found["eval rows"] == splits["eval"]["rows"]
    assert found["train rows per copy"] == splits["train"]["rows"] / 2
    assert found["examples in all"] == sum(shard["examples"] for shard in made["shards"])
    tokens = sum(counts["tokens"] for split in splits.values() for counts in split["copies"].values())
    assert found["padding"] == pytest.approx(100 * (1 - tokens / (128 * rows)))
    assert plan["sample"]["packing"] == made["packing"]


def test_the_padding_of_a_sample_has_a_range() -> None:
    def part(tokens: int, padding: int) -> DryRun:
        shard = {"counts": {"tokens": tokens, "padding": padding}, "max_examples": tokens, "max_predictions": padding}
        return DryRun(1.0, SplitSummary(), [{"split": "train", "shards": [shard]}], 0.0, 0.0)

    parts = [part(90, 10), part(60, 40), part(150, 50)]
    assert dry_run.padding_percent(parts) == (25.0, 10.0, 40.0)
    assert dry_run.largest_rows(parts) == {"max_examples": 150, "max_predictions": 50}
    assert report.format_value(0.784, "%") == "0.78 %"


def planned(capsys: pytest.CaptureFixture, folder: Path, *arguments: str) -> dict:
    assert clozemill.main(["plan", *arguments, "--no-progress", "--output", str(folder / "plan.json"), "--overwrite"]) == 0
    capsys.readouterr()
    return json.loads((folder / "plan.json").read_bytes())


def test_a_small_corpus_is_counted_exactly(
    demo_corpus: str, demo_vocab: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = [
        "--input",
        demo_corpus,
        "--vocab",
        demo_vocab,
        "--num-groups",
        "3",
        "--dupe-factor",
        "2",
        "--eval-fraction",
        "0.2",
    ]
    found = planned(capsys, tmp_path, *options)
    for name, value in prepared(tmp_path / "ds", *options).items():
        assert found["figures"][name] == {"unit": found["figures"][name]["unit"]} | dict.fromkeys(
            ("estimate", "low", "high"), value
        ), name
    assert found["warnings"] == [] and found["sample"]["whole"]
    assert any("counts and bytes are exact" in note for note in found["notes"])


def test_a_file_with_two_names_is_planned_once(demo_vocab: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(texts(30)))
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "a.jsonl")
    found = [
        planned(capsys, tmp_path, "--input", *names, "--vocab", demo_vocab)["figures"]
        for names in ([str(tmp_path / "a.jsonl")], [str(tmp_path / "*.jsonl")])
    ]
    assert found[0]["documents kept"] == found[1]["documents kept"] and found[0]["tokens"] == found[1]["tokens"]


@pytest.mark.parametrize(
    ("options", "text", "count"),
    [
        ({"num_workers": 8}, 1 << 40, 8),
        ({"num_workers": 8, "in_memory": True}, 1 << 40, 1),
        ({"num_workers": 8, "target": ("dataflow",)}, 1, 8),
        ({"target": ("dataflow",)}, 1 << 40, 1),
        ({}, 1, 1),  # a small corpus
    ],
)
def test_as_many_processes_as_prepare_has(options: dict, text: int, count: int) -> None:
    assert extrapolation.workers(EstimateConfig(**options), SimpleNamespace(text_estimate=text)) == count  # type: ignore[arg-type]


def test_what_only_the_whole_corpus_tells_is_said(
    demo_corpus: str, demo_vocab: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Which documents are nearly the same, or of an evaluation set, isn't looked into."""
    (tmp_path / "dev.txt").write_text("x")
    more = ["--dedup", "near", "--decontaminate", str(tmp_path / "dev.txt")]
    notes = planned(capsys, tmp_path, "--input", demo_corpus, "--vocab", demo_vocab, *more)["notes"]
    assert any("counts and bytes are exact except as noted below" in note for note in notes)
    assert (
        "documents that --dedup near and --decontaminate will drop are counted as kept: the estimate doesn't search for them"
        in notes
    )


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_a_sample_tells_the_whole(ending: str, demo_vocab: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = jsonl(varied(4000))
    (tmp_path / f"a.{ending}").write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    options = ["--input", str(tmp_path / f"a.{ending}"), "--vocab", demo_vocab, "--dupe-factor", "2"]
    found = planned(capsys, tmp_path, *options, "--sample-min-mb", "0.5")
    real = prepared(tmp_path / "ds", *options)
    assert not found["sample"]["whole"] and found["sample"]["sample_characters"] < 0.25 * real["characters"]
    for name in COUNTED:
        assert found["figures"][name]["estimate"] == pytest.approx(real[name], rel=0.1), name
        assert found["figures"][name]["low"] < real[name] < found["figures"][name]["high"], name
    assert found["figures"]["eval examples"]["low"] < real["eval examples"] < found["figures"]["eval examples"]["high"]
    assert found["figures"]["train groups"]["estimate"] == real["train groups"]
    assert any("duplicates" in note for note in found["notes"])


@pytest.mark.slow
def test_a_plan_depends_neither_on_the_order_of_files_nor_on_workers(
    demo_vocab: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    paths = [str(tmp_path / f"{number}.jsonl") for number in range(3)]
    for number, path in enumerate(paths):
        Path(path).write_bytes(jsonl(varied(300, seed=number)))
    options = ["--vocab", demo_vocab, "--sample-min-mb", "0.05"]
    one = planned(capsys, tmp_path, "--input", *paths, *options, "--num-workers", "1")
    two = planned(capsys, tmp_path, "--input", *paths[::-1], *options, "--num-workers", "2")
    for name, figure in one["figures"].items():
        if figure["unit"] in ("", "B"):
            assert figure == two["figures"][name], name


def test_nothing_is_left_behind(
    demo_vocab: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "corpus").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    path = tmp_path / "corpus" / "a.jsonl.gz"
    path.write_bytes(gzip.compress(jsonl(varied(500))))
    monkeypatch.chdir(tmp_path)
    options = ["--input", str(path), "--vocab", demo_vocab, "--sample-min-mb", "0.05", "--no-progress"]
    assert clozemill.main(["plan", *options]) == 0

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dry_run.Rehearsal, "run", stop)
        with pytest.raises(KeyboardInterrupt):
            extrapolation.measure(PlanConfig(input=(str(path),), vocab=demo_vocab, sample_min_mb=0.05, progress=False))
    assert sorted(os.listdir(tmp_path)) == ["corpus", "tmp"]
    assert os.listdir(tmp_path / "tmp") == [] and os.listdir(tmp_path / "corpus") == ["a.jsonl.gz"]


def test_without_a_vocabulary_one_is_learnt(demo_corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = planned(capsys, tmp_path, "--input", demo_corpus, "--vocab-size", "3000")
    assert found["sample"]["vocabulary_size"] == 3000
    assert any("a vocabulary of 3,000 tokens was learned on the text that was read" in note for note in found["notes"])
    assert planned(capsys, tmp_path, "--input", demo_corpus)["sample"]["vocabulary_size"] < 30522  # the text yields no more


def outcome(disk: float, value: int, **summary: int) -> DryRun:
    summary = {"read": value, "characters": value, "sentences": value, "tokens": value} | summary
    shard = {"examples": value, "bytes": value}
    group = {"split": "train", "documents": value, "duplicates": 0, "shards": [shard]}
    return DryRun(disk, SplitSummary(**summary), [group], 1.0, 1.0)


def test_scaling_by_bytes_and_the_range() -> None:
    steady = extrapolation.Extrapolator([outcome(10, 5), outcome(30, 15)], 1000, whole=False)
    assert steady(lambda part: part.documents) == pytest.approx((500, 485, 515))  # 3 % at least
    uneven = extrapolation.Extrapolator([outcome(10, 4), outcome(10, 6)], 1000, whole=False)
    assert uneven(lambda part: part.documents) == pytest.approx((500, 500 - 240, 500 + 240))  # 2.4 x 2 / 20 x 1000
    prefix = extrapolation.Extrapolator([outcome(10, 5), outcome(30, 15)], 1000, whole=False, unseen=0.5)
    assert prefix(lambda part: part.documents) == pytest.approx((500, 435, 565))
    learnt = extrapolation.Extrapolator([outcome(10, 5), outcome(30, 15)], 1000, whole=False, learnt=True)
    assert learnt(lambda part: part.documents) == pytest.approx((500, 470, 530))
    whole = extrapolation.Extrapolator([outcome(10, 5)], 10, whole=True)
    assert whole(lambda part: part.documents) == (5, 5, 5)
    assert whole(lambda part: part.split_seconds, 0.25) == pytest.approx((1, 0.75, 1.25))


def warned(config: PlanConfig, figures: dict[str, float], *parts: DryRun) -> list[str]:
    data = extrapolation.DataEstimate()
    for name, value in figures.items():
        data.add(name, "", value)
    plan, scale = (
        SimpleNamespace(text_estimate=1 << 40),
        extrapolation.Extrapolator(list(parts) or [outcome(1, 1000)], 1, whole=True),
    )
    extrapolation._add_warnings(config, plan, scale, data)  # type: ignore[arg-type]
    return data.warnings


FINE = {"train groups": 2, "tokens per group": 3e6, "documents kept": 100, "train examples per copy": 10}


def test_a_fine_plan_has_no_warning() -> None:
    assert warned(PlanConfig(target=("dataflow",)), FINE) == []


def test_groups_too_large_for_memory() -> None:
    """On Dataflow: 300 MB + 2 x 6 bytes a token fill 3.75 GB at 287.5 M tokens."""
    config = PlanConfig(target=("dataflow",))
    assert extrapolation.group_memory(1e6, provenance=False, beam=False) == 306e6
    assert extrapolation.group_memory(1e6, provenance=True, beam=True) == 344e6
    assert warned(config, FINE | {"tokens per group": 287e6}) == []
    (told,) = warned(config, FINE | {"tokens per group": 288e6})
    assert told == "a group of 288 M tokens needs 3.8 GB, a worker has 3.8 GB: give --num-groups 5 or more"


def test_other_warnings_about_the_data() -> None:
    assert warned(PlanConfig(), FINE | {"documents kept": 1}) == ["there are more groups than documents: lower "
                                                                  "--num-groups below 2"]  # fmt: skip
    bad = outcome(1, 1000, bad=11)
    bad.summary.dropped["malformed_json"] = 11
    (told,) = warned(PlanConfig(), FINE, bad)
    assert (
        told.startswith("11 of 1,000 records are malformed, more than --max-reject-rate 0.01 allows")
        and "malformed_json" in told
    )
    assert warned(PlanConfig(), FINE, outcome(1, 1000, bad=10)) == []
    (told,) = warned(PlanConfig(), FINE | {"train examples per copy": 0})
    assert told.startswith("no training example could be built: --pairs nsp needs")


def test_a_file_that_one_worker_must_read(tmp_path: Path) -> None:
    from clozemill.pipelines.readers.formats import Plan
    from clozemill.pipelines.readers.input_split import InputSplit

    splits = [InputSplit("a.jsonl.gz", "jsonl", "gzip", 0, 900, 900), InputSplit("b.jsonl", "jsonl", "none", 0, 100, 100)]
    for seconds, count, expected in ((100, 4, 1), (100, 1, 0), (10, 4, 0)):
        data = extrapolation.DataEstimate()
        data.add("train groups", "", 4), data.add("eval groups", "", 1), data.add("bytes in all", "B", 1e9)
        part = dataclasses.replace(outcome(1000, 5), split_seconds=float(seconds))
        config = PlanConfig(num_workers=count, price_cpu_hour=0.5, price_gb_month=0.02)
        extrapolation._estimate_time(
            config, Plan(splits, 2, 1000, 1000), extrapolation.Extrapolator([part], 1000, whole=True), 0.0, data
        )
        assert len(data.warnings) == expected
        assert all(told.startswith("a.jsonl.gz is read by one worker in one piece") for told in data.warnings)
        wall = data.estimates[f"wall time, {count} worker" + "s" * (count > 1)].estimate
        after = 5 * 0.99 + 0.01  # a second a copy
        assert wall == pytest.approx(10 + max(seconds / count, 0.9 * seconds) + after / min(count, 5))
        assert data.estimates["cost of prepare"].estimate == pytest.approx(count * wall / 3600 * 0.5)
        assert data.estimates["cost of a month of storage"].estimate == pytest.approx(0.02)


def test_costs_appear_only_with_prices(
    demo_corpus: str, demo_vocab: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--input", demo_corpus, "--vocab", demo_vocab, "--recipe", "demo"]
    without = planned(capsys, tmp_path, *options)
    assert not [name for name in without["figures"] if "cost" in name]
    assert "costs are left out: give --price-cpu-hour, --price-gb-month and --price-chip-hour to add them" in without["notes"]
    assert "wall time is that of prepare, with 10 s for the start of its workers" in without["notes"]
    prices = ["--price-cpu-hour", "0.05", "--price-gb-month", "0.02", "--price-chip-hour", "1.2"]
    priced = planned(capsys, tmp_path, *options, *prices)
    costs = {name: row["estimate"] for name, row in priced["figures"].items() if "cost" in name}
    assert list(costs) == [
        "cost of prepare", "cost of a month of storage", "cost of training on TPUs", "total cost",
    ]  # fmt: skip
    assert costs.pop("total cost") == pytest.approx(sum(costs.values()))
    assert "the total cost includes a month of storage" in priced["notes"]


def test_total_costs() -> None:
    rows = [
        Estimate("tokens", "", 9, 9, 9),
        Estimate("cost of prepare", "price", 2, 1, 3),
        Estimate("cost of training on GPUs", "price", 20, 10, 40),
        Estimate("cost of training on TPUs", "price", 30, 20, 60),
    ]
    assert total_costs(rows) == [
        Estimate("total cost with training on GPUs", "price", 22, 11, 43),
        Estimate("total cost with training on TPUs", "price", 32, 21, 63),
    ]
    assert total_costs(rows[:3]) == [Estimate("total cost", "price", 22, 11, 43)]
    assert total_costs(rows[:2]) == [Estimate("total cost", "price", 2, 1, 3)]
    assert total_costs(rows[:1]) == []


def test_notes_about_prices() -> None:
    assert cost_notes(PlanConfig(), []) == ["costs are left out: give --price-cpu-hour and --price-gb-month to add them"]
    assert cost_notes(PlanConfig(price_cpu_hour=1.0, price_gb_month=1.0), ["gpu"]) == [
        "the total cost includes a month of storage",
        "the total cost leaves out what has no price: give --price-gpu-hour to add it",
    ]
    config, data = PlanConfig(price_cpu_hour=1.0, num_workers=2, target=("dataflow",)), extrapolation.DataEstimate()
    data.basis |= {"sample_characters": 1, "sample_documents": 1, "whole": True, "vocabulary_learnt": False, "measured_on": "x"}
    told = report.notes(config, data)
    assert "wall time is that of prepare, with 4 min for the start of its workers" in told
    assert "the cost of prepare is for CPUs alone: memory, disks and shuffle of Dataflow's workers are not included" in told


def test_the_table(capsys: pytest.CaptureFixture) -> None:
    shown = [
        report.format_value(*pair) for pair in ((12, ""), (1234.5, ""), (3_215_000, ""), (1.5e9, "B"), (95.3, "s"), (5400, "s"))
    ]
    assert shown == ["12", "1.23 k", "3.21 M", "1.5 GB", "1.59 min", "1.5 h"]
    assert report.table([Estimate("tokens", "", 1e6, 9e5, 1.1e6), Estimate("groups", "", 7, 7, 7)]) == [
        " " * 34 + "    estimate   low .. high",
        "tokens" + " " * 28 + "         1 M   900 k .. 1.1 M",
        "groups" + " " * 28 + "           7",
    ]
    assert (
        report.table([Estimate("cost", "price", 12, 8, 18)], "EUR")[1] == "cost" + " " * 30 + "      12 EUR   8 EUR .. 18 EUR"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--input is missing"),
        (["--input", "no/*.such"], "no file matches no/*.such"),
        (["--input", "{empty}"], "no word occurs 2 times in the input: check --input"),
        (["--input", "{empty}", "--vocab", "{vocab}"], "the input contains no usable document (0 records read)"),
        (["--input", "{text}", "--vocab", "no/vocab.txt"], "no/vocab.txt can't be read"),
        (["--input", "{text}", "--target", "moon"], "unknown target 'moon' in --target; choose from local, dataflow, gpu, tpu"),
        (["--input", "{text}", "--output", "out"], "--output out doesn't end in .json"),
        (["--input", "{text}", "--sample-min-mb", "50"], "--sample-min-mb 50 is more than --sample-max-mb 32"),
        (["--input", "{text}", "--target", "tpu", "--topology", "v9:2x2"], "unknown --topology 'v9:2x2'"),
        (["--input", "{text}", "--recipe", "bert"], "--recipe is 'bert'"),
    ],
)
def test_mistakes(arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "text.jsonl").write_bytes(jsonl(texts(20)))
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    names = {"empty": str(tmp_path / "empty.jsonl"), "text": str(tmp_path / "text.jsonl"), "vocab": str(tmp_path / "vocab.txt")}
    assert clozemill.main(["plan", "--no-progress", *(word.format(**names) for word in arguments)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and re.match("clozemill: (" + "|".join(map(re.escape, sentence.split("|"))) + ")", told), told


def test_a_saved_configuration_of_prepare_serves(demo_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = planned(capsys, tmp_path, "--config", str(demo_dataset / "prepare.yaml"))
    made = json.loads((demo_dataset / "dataset.json").read_bytes())
    assert found["figures"]["tokens"]["estimate"] == made["documents"]["tokens"]
    assert clozemill.main(["plan", "--config", str(demo_dataset / "prepare.yaml")]) == 2
    assert "doesn't end in .json" in capsys.readouterr().err


def test_a_vocabulary_that_cannot_be_learnt_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(["12 34"]))
    with pytest.raises(UserError, match="no word occurs 2 times"):
        extrapolation.measure(PlanConfig(input=(str(tmp_path / "a.jsonl"),), progress=False))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data")
@pytest.mark.parametrize(
    ("name", "least"), [("novels.jsonl.gz", "4"), ("vital-articles.jsonl.gz", "1"), ("enwiki-excerpt.xml.bz2", "0.3")]
)
def test_real_corpora(name: str, least: str, demo_vocab: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Issue 5: within 15 % on tokens, examples and bytes, from a sample."""
    options = ["--input", str(DATA / name), "--vocab", demo_vocab]
    found = planned(capsys, tmp_path, *options, "--sample-min-mb", least)
    real = prepared(tmp_path / "ds", *options)
    assert not found["sample"]["whole"]
    with capsys.disabled():
        print(f"\n{name}, from {found['sample']['sample_documents']} documents")
        for what in sorted(COUNTED):
            figure = found["figures"][what]
            share = figure["estimate"] / real[what]
            print(f"{what:<26}{figure['estimate']:>16,.0f}{real[what]:>16,.0f}{100 * share - 100:>8.1f} %")
    for what in COUNTED - {"documents read", "documents kept"} if name.startswith("novels") else ():
        assert found["figures"][what]["estimate"] == pytest.approx(real[what], rel=0.15), what
