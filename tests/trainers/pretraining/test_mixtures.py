"""Phases on several datasets with weights: what is refused, what is read, exact resume, and what is reported of it."""

import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clozemill
from clozemill.model.export import model_card
from clozemill.pipelines.command_line import options, yaml_files
from clozemill.pipelines.command_line.overwriting import check_outputs
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import manifest
from clozemill.trainers.comparison import table
from clozemill.trainers.data.input_pipeline import TrainReader
from clozemill.trainers.data.mixture import Mixture
from clozemill.trainers.data.numpy_reader import batches_of
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.diagnosis.dataset_figures import find_datasets, trained_datasets
from clozemill.trainers.diagnosis.figures import figures_of
from clozemill.trainers.diagnosis.recorded_run import read_recorded_run
from clozemill.trainers.pretraining import pretraining_run
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.recipes import Part, Phase
from clozemill.trainers.pretraining.schedules import OrderEntry, order_entries
from clozemill.trainers.training import checkpoints, run_folder
from tests.trainers import datasets
from tests.trainers.pretraining.test_objectives import RUN, metrics
from tests.trainers.pretraining.test_warm_start import OTHER

pytestmark = pytest.mark.usefixtures("one_layer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets that can be mixed with the first one, and others that can't."""
    root = tmp_path_factory.mktemp("mixtures")
    options: dict[str, dict[str, Any]] = {
        "general": {"train": [[40, 24]]}, "domain": {"train": [[9, 12]]}, "third": {"train": [[30]]}, "empty": {"train": [[0]]},
        "long": {"train": [[20]], "length": 24}, "words": {"train": [[20]], "vocabulary": OTHER},
        "packed": {"train": [[40]], "packing": "on", "length": 24}, "dense": {"train": [[70]], "packing": "on", "length": 24},
        "order": {"train": [[20]], "pairs": "sop"}, "unpacked": {"train": [[20]], "length": 24, "pairs": "single"},
    }  # fmt: skip
    for name, own in options.items():
        (root / name).mkdir()
        datasets.write(root / name, own.pop("train"), [6], **own)
    shutil.copytree(root / "general", root / "copy")
    return root


def phase(folder: Path, parts: dict[str, float], steps: int = 4, **more: Any) -> dict[str, Any]:
    return {"data": [{"data": str(folder / name), "weight": weight} for name, weight in parts.items()], "steps": steps, **more}


def plan(folder: Path, *phases: dict[str, Any], **given: Any) -> pretraining_run.PretrainingRun:
    values = {"preset": "tiny", "max_position_embeddings": 64, "batch_size": 10, "output": str(folder / "none"), **given}
    return pretraining_run.plan_run(options.from_values(PretrainConfig, {"phases": list(phases), **values}))


MIXED = {"general": 0.7, "domain": 0.3}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ([{"data": "a", "weight": 0.7}, {"data": "b", "weight": 0.2}], ": the weights of data sum to 0.9, not to 1: give"),
        ([{"data": "a", "weight": 0.7}, {"data": "b", "weight": 0.300002}], ": the weights of data sum to 1.000002, not to 1"),
        ([{"data": "a", "weight": 1.3}, {"data": "b", "weight": -0.3}], ": data, number 1: weight is 1.3: give a value"),
        ([{"data": "a", "weight": 1}, {"data": "b", "weight": -0.3}], ": data, number 2: weight is -0.3: give a value between"),
        ([{"data": "a", "weight": 1}, {"data": "b", "weight": 0}], ": data, number 2: weight is 0.0: give a value between"),
        ([{"data": "a", "weight": 1}, {"data": "b", "weight": 9e-5}], ": data, number 2: weight is 9e-05: give a value"),
        ([{"data": "a", "weight": float("nan")}], ": data, number 1: weight is nan: give a number"),
        ([{"data": "a", "weight": 0.5}, {"data": "a", "weight": 0.5}], ": data names a twice: give it once, with the sum of"),
        ([{"data": "a", "weight": 1}, {"data": "b"}], ": data, number 2 has no weight: write lines such as '- {data: "),
        ([], ": data is an empty list: write lines such as '- {data: DATASET, weight: 0.7}'"),
        ([{"weight": 1}], ": data, number 1 has no dataset: write lines such as '- {data: DATASET, weight: 0.7}'"),
        ([{"data": "a", "wieght": 1}], ": data, number 1: unknown option 'wieght'; did you mean weight?"),
        (["a", "b"], ": data is ['a', 'b']: give a string in quotes, or lines such as '- {data: DATASET, weight: 0.7}'"),
    ],
)  # fmt: skip
def test_weights_that_cannot_be_used(data: list, sentence: str) -> None:
    with pytest.raises(UserError) as told:
        options.from_values(PretrainConfig, {"phases": [{"data": data, "steps": 4}]})
    assert str(told.value).startswith(f"options: phases, number 1{sentence}") and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("parts", "given", "sentence"),
    [
        (
            ("general", "long"),
            {},
            r"long was prepared with --max-seq-length 24, but \S+general in the same mixture with 12: prep",
        ),
        (("general", "words"), {}, r"words's vocabulary has \S+ (entries|as its SHA-256), that of \S+general"),
        (
            ("unpacked", "packed"),
            {"objective": "mlm"},
            r"packed was prepared with --packing on, but \S+unpacked in the same mix",
        ),
        (("general", "copy"), {}, r"general and \S+copy in a mixture are the same dataset: give it once, with the sum of both"),
        (("general", "order"), {}, r"order has pairs sop, but the objective mlm.nsp needs nsp"),
        (("general", "nowhere"), {}, "nowhere has no dataset.json"),
    ],
)
def test_datasets_that_cannot_be_mixed(folder: Path, parts: tuple[str, ...], given: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        plan(folder, phase(folder, dict.fromkeys(parts, 0.5)), **given)


def test_an_empty_train_split(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert pretrain(tmp_path, phase(folder, {"general": 0.7, "empty": 0.3}), code=2) is None
    assert f"{folder}/empty has no train examples: prepare a larger corpus" in capsys.readouterr().err


def test_masks_are_drawn_by_one_policy(folder: Path, tmp_path: Path) -> None:
    """Of the shards, masks may differ; drawn in the step, they are drawn for all rows of a batch alike."""
    other = Path(shutil.copytree(folder / "domain", tmp_path / "other"))
    contract = json.loads((other / "dataset.json").read_text())
    contract["config"]["masking"] = "whole_word"
    (other / "dataset.json").write_bytes(manifest.dumps(contract))
    parts = {str(folder / "general"): 0.5, str(other): 0.5}
    assert len(plan(folder, phase(folder, parts)).phases[0].mixture.datasets) == 2
    with pytest.raises(
        UserError, match=r"other was prepared with --masking whole_word, but \S+general in the same mixture with"
    ):
        plan(folder, phase(folder, parts), masks="fresh")


def test_a_mixture_of_one_is_its_dataset(folder: Path) -> None:
    alone = plan(folder, phase(folder, {"general": 1.0}))
    plain = plan(folder, {"data": str(folder / "general"), "steps": 4})
    assert alone.identity() == plain.identity() and "mixture" not in plain.identity()["phase 1"]


def test_from_yaml_there_and_back(folder: Path) -> None:
    text = "phases:\n- data:\n  - {data: a, weight: 0.7}\n  - {data: b, weight: 0.3}\n  steps: 9\n"
    config = options.from_values(PretrainConfig, yaml_files.parse(text.encode(), "file"))
    assert config.phases == (Phase((Part("a", 0.7), Part("b", 0.3)), 9),)
    assert options.from_values(PretrainConfig, yaml_files.parse(options.to_yaml(config).encode(), "file")) == config


def test_input_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run/data").mkdir(parents=True)
    phases = (Phase((Part("a", 0.5), Part("run/data", 0.5)), 9),)
    with pytest.raises(UserError, match="--phases run/data is input, and --overwrite could replace it"):
        check_outputs(PretrainConfig(phases=phases, output="run", overwrite=True))


def test_where_phases_enter_the_orders() -> None:
    """Phases of one mixture share an order; a dataset whose share changes is continued by every phase."""
    mixed, other, alone = (("a", 7000), ("b", 3000)), (("a", 1000), ("c", 9000)), (("d", 10000),)
    phases = [Phase(steps=steps, batch_size=size) for steps, size in ((10, 8), (5, 12), (20, 10), (3, 4), (10, 4))]
    assert order_entries([mixed, mixed, other, alone, mixed], phases) == [
        OrderEntry(0, 4, (0, None)),
        OrderEntry(80, 4, (0, None)),
        OrderEntry(0, 10, (98, None)),  # 0.7 of 140 rows
        OrderEntry(0, 4),
        OrderEntry(140, 4, (20, None)),
    ]
    assert order_entries([mixed, mixed, alone], phases[:3]) == [OrderEntry(0, 4), OrderEntry(80, 4), OrderEntry(0, 10)]
    assert order_entries([alone, (("d", 5000), ("e", 5000))], phases[:2]) == [
        OrderEntry(0, 8, (0,)),
        OrderEntry(0, 12, (80, None)),
    ]


def test_what_is_read(folder: Path) -> None:
    """Epochs over two phases whose weights change, and the identity."""
    run = plan(folder, phase(folder, MIXED), phase(folder, {"domain": 0.8, "third": 0.2}, batch_size=20))
    first, second = run.phases
    assert first.epochs(4) == [28 / 64, 12 / 21] and first.passes() == first.epochs(4)
    assert second.epochs(8) == [(12 + 64) / 21, 16 / 30] and second.passes() == [64 / 21, 16 / 30]
    assert first.examples_per_row == 1.0 and first.folder == str(folder / "general")
    told = run.identity()["phase 2"]
    digests = [part["dataset"] for part in told["mixture"]]
    assert told["dataset"] == f"80 % {digests[0]}, 20 % {digests[1]}" and told["earlier"] == [12, None]
    assert [part["share"] for part in told["mixture"]] == [0.8, 0.2]
    assert [(each["name"], each["epochs"]) for each in run.about()["data"]] == [
        ("general", 0.4375), ("domain", 3.619), ("third", 0.5333),
    ]  # fmt: skip
    assert [each["epochs"] for each in run.about(5)["data"]] == [0.4375, round(28 / 21, 4), round(4 / 30, 4)]
    assert [each["epochs"] for each in run.about(0)["data"]] == [0.0, 0.0, 0.0]
    assert ", read 0.44 times." in model_card._data(run.about())[3]
    assert run.story().tables[0].rows[0][0] == f"70 % {folder}/general, 30 % {folder}/domain"


def test_a_branch_reads_the_mixture_of_its_trunk(folder: Path, tmp_path: Path) -> None:
    """Also one that ends before the weights change; --data, and a dataset that was changed, are refused."""
    other = shutil.copytree(folder / "domain", tmp_path / "other")
    mixed, changed = {str(folder / "general"): 0.7, str(other): 0.3}, {str(folder / "general"): 0.8, str(other): 0.2}
    for number, later in enumerate((mixed, changed)):
        own, given = str(tmp_path / f"trunk-{number}"), {"schedule": "wsd", "decay_steps": 0, "optimizer": "muon"}
        trunk = plan(folder, phase(folder, mixed, 10), phase(folder, later, 10), **given, output=own)
        run_folder.claim_run_folder(trunk, own)
        checkpoints.write(f"{own}/checkpoints/step-00000008", {}, trunk.vocabulary, {"step": 8, **trunk.about(8)})
        wanted = PretrainConfig(branch_from=own, output=str(tmp_path / "branch"), steps=9)
        (mine,), theirs = pretraining_run.plan_run(wanted).phases, trunk.phases[0]
        assert (mine.mixture.key, mine.entry, mine.end) == (theirs.mixture.key, theirs.entry, 9)
        assert mine.entry.earlier == ((), (0, 0))[number]
    with pytest.raises(UserError, match=r"^--data can't replace the mixture of datasets that \S+ reads: leave it out, and"):
        pretraining_run.plan_run(replace(wanted, data=("x",)))
    shutil.rmtree(other)
    shutil.copytree(folder / "third", other)
    with pytest.raises(UserError, match=r"general, 30 % \S+other are not the datasets that \S+ was trained on: restore"):
        pretraining_run.plan_run(wanted)


def test_a_run_on_one_dataset_is_not_resumed_as_a_mixture(folder: Path, tmp_path: Path) -> None:
    """Nor the other way round, although the first dataset is the same."""
    runs = [plan(folder, {"data": str(folder / "general"), "steps": 4}), plan(folder, phase(folder, MIXED))]
    for number, run in enumerate(runs):
        run_folder.claim_run_folder(run, str(tmp_path / str(number)))
        with pytest.raises(UserError, match=r"was started with phase 1's dataset .*, not .*: give the same"):
            run_folder.claim_run_folder(runs[1 - number], str(tmp_path / str(number)))


def test_packed_rows_have_room_for_all(folder: Path) -> None:
    (phase_,) = plan(folder, phase(folder, {"packed": 0.5, "dense": 0.5}), objective="mlm+nsp").phases
    sizes = [each.sizes for each in phase_.mixture.datasets]
    assert phase_.dataset.sizes == {name: max(each[name] for each in sizes) for name in sizes[0]}
    assert phase_.shape.examples == max(each["max_examples"] for each in sizes)
    batch = next(batches_of(phase_.reader(PretrainConfig(), 0, 1).batches(10)))
    assert batch["masked_lm_ids"].shape == (10, phase_.dataset.sizes["max_predictions"])


def pretrain(root: Path, *phases: dict[str, Any], code: int = 0, run: str = "run", **given: Any) -> None:
    """Train in root/run."""
    (root / f"{run}.yaml").write_text(json.dumps({"phases": list(phases), **given}))
    command = ["pretrain", *RUN, "--config", str(root / f"{run}.yaml"), "--output", str(root / run)]
    assert clozemill.main(command) == code


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two phases whose weights change, with a checkpoint at every other step, and what it printed."""
    root, lines = tmp_path_factory.mktemp("trained"), []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("builtins.print", lambda *parts, **_: lines.append(" ".join(map(str, parts))))
        pretrain(root, *two_phases(folder), checkpoint_steps=2, keep_checkpoints=9)
    return root, "\n".join(lines)


def two_phases(folder: Path) -> tuple[dict[str, Any], ...]:
    return phase(folder, MIXED, 6), phase(folder, {"general": 0.25, "domain": 0.75}, 4)


def test_a_run_tells_its_epochs(folder: Path, trained: tuple[Path, str]) -> None:
    root, printed = trained
    assert "steps 1 to 6: batches of 8 x 12 tokens, a mixture of 2 datasets, peak learning rate 0.001" in printed
    assert f"  70 % from {folder}/general: 64 examples per epoch, 1 copy, 0.5 epochs" in printed
    assert f"  30 % from {folder}/domain: 21 examples per epoch, 1 copy, 0.7 epochs" in printed
    train = [row for row in metrics(root / "run") if "split" not in row]
    general, domain = [34 / 64, 34 / 64 + 8 / 64], [14 / 21, 14 / 21 + 24 / 21]
    assert [train[at]["epochs"] for at in (5, 9)] == [pytest.approx([general[at], domain[at]], abs=1e-4) for at in (0, 1)]
    assert [row["epoch"] for row in train] == [max(row["epochs"]) for row in train]
    assert "  epochs 0.66, 1.81" in printed
    about = json.loads((root / "run/run.json").read_text())
    assert [each["epochs"] for each in about["data"]] == train[-1]["epochs"]
    assert [each["epochs"] for each in checkpoints.find(str(root / "run/checkpoints/step-00000006")).index["data"]] == (
        train[5]["epochs"]
    )
    page = (root / "run/report.html").read_text()
    assert "30 % " in page and "75 % " in page


@pytest.mark.slow
def test_an_exact_resume(folder: Path, trained: tuple[Path, str], capsys: pytest.CaptureFixture) -> None:
    """Within the second phase: the same metrics and weights; other weights are refused."""
    root, _ = trained
    shutil.copytree(root / "run", root / "again")
    for step in (8, 10):
        shutil.rmtree(root / f"again/checkpoints/step-{step:08d}")
    shutil.rmtree(root / "again/checkpoints/step-00000006")
    pretrain(root, *two_phases(folder), run="again", checkpoint_steps=2, keep_checkpoints=9)
    assert metrics(root / "again") == metrics(root / "run")
    mine, theirs = (checkpoints.weights(checkpoints.find(str(root / name), "latest")) for name in ("again", "run"))
    assert all((value == theirs[name]).all() for name, value in mine.items())
    pretrain(root, phase(folder, {"general": 0.6, "domain": 0.4}, 6), two_phases(folder)[1], code=2)
    assert "was started with phase 1's dataset 70 % " in capsys.readouterr().err


def test_it_is_compared_and_diagnosed(folder: Path, trained: tuple[Path, str]) -> None:
    run = read_recorded_run(str(trained[0] / "run"))
    (general, domain), _ = run.phases[0]["mixture"], run.phases[1]["mixture"]
    assert table.row(run).data == (
        f"70 % {general[0][:12]} + 30 % {domain[0][:12]}, 25 % {general[0][:12]} + 75 % {domain[0][:12]}"
    )
    found = find_datasets(run, trained_datasets(run))
    assert [[each.folder for each in part] for part in found] == [[str(folder / "general"), str(folder / "domain")]] * 2
    figures = figures_of(run, found)
    assert figures.mixes and [epochs for _, epochs in figures.read] == run.train[-1]["epochs"]
    assert figures.epochs == max(run.train[-1]["epochs"])


def test_the_rows_of_a_phase(folder: Path) -> None:
    """Batches have the exact shares, and the ids of the examples are those of the datasets."""
    (mixed,) = plan(folder, phase(folder, MIXED, 100)).phases
    assert isinstance(mixed.mixture, Mixture) and mixed.mixture.counts == (7000, 3000)
    stream = batches_of(mixed.reader(PretrainConfig(), 0, 1).batches(10))
    rows = np.concatenate([batch["input_ids"] for batch in islice(stream, 6)])
    held = [{tuple(row) for row in _epoch(each)} for each in mixed.mixture.datasets]
    assert [sum(tuple(row) in ids for row in rows.tolist()) for ids in held] == [42, 18]


def _epoch(dataset: PreparedDataset) -> list[list[int]]:
    """Return the token ids of all examples."""
    batches = batches_of(TrainReader(dataset, 0, 1).batches(1))
    return [batch["input_ids"][0].tolist() for batch in islice(batches, dataset.train_rows)]
