"""Faults planted in corpora and options of prepare are named from the dataset that results; its files may be missing."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import clozemill
from clozemill.pipelines.text.vocabulary import SPECIAL_TOKENS
from clozemill.trainers.diagnosis.dataset_figures import DatasetFigures, find_datasets, find_eval_sets, trained_datasets
from clozemill.trainers.diagnosis.diagnoses import diagnose
from clozemill.trainers.diagnosis.figures import figures_of
from clozemill.trainers.diagnosis.recorded_run import RecordedRun
from tests import corpora
from tests.slow import mostly_slow
from tests.trainers.diagnosis import journals


def digest(dataset: Path) -> str:
    return json.loads((dataset / "dataset.json").read_text())["digest"]


def run_on(*paths: Path, folder: str = "RUN") -> RecordedRun:
    """A healthy run with a phase per dataset."""
    about = journals.about(config={"data": [str(path) for path in paths]})
    phases = {f"phase {number}": about["identity"]["phase 1"] | {"dataset": digest(path), "steps": 1000 // len(paths)}
              for number, path in enumerate(paths, 1)}  # fmt: skip
    return RecordedRun(folder, about | {"identity": phases}, journals.healthy())


def figures_in(*paths: Path) -> DatasetFigures:
    run = run_on(*paths)
    found = find_datasets(run, trained_datasets(run))[0][0]
    assert found
    return found


def kinds(*paths: Path) -> list[str]:
    run = run_on(*paths)
    return [finding.kind for finding in diagnose(figures_of(run, find_datasets(run, trained_datasets(run))))]


def test_a_healthy_dataset(demo_dataset: Path) -> None:
    found = figures_in(demo_dataset)
    assert (found.pairs, found.dedup, found.copies, found.distinct_copies) == ("nsp", "exact", 2, 2)
    assert 0.13 < found.masked < 0.16 and 0.77 < found.shown_as_mask < 0.83 and 0.4 < found.label_share < 0.6
    assert found.unknown < 0.001 and found.failed_checks == () and found.duplicate_documents == 0
    assert 1.1 < found.pieces_per_word < 1.6 and 0 < found.single_letters < 0.1
    assert found.probe_accuracy < found.probe_limit and (found.eval_documents, found.eval_documents_seen) == (0, 0)
    assert kinds(demo_dataset) == []


def test_a_packed_dataset_has_the_same_figures(demo_dataset: Path, packed_dataset: Path) -> None:
    plain, packed = figures_in(demo_dataset), figures_in(packed_dataset)
    for name in ("masked", "label_share", "unknown", "pieces_per_word", "single_letters"):
        assert getattr(packed, name) == pytest.approx(getattr(plain, name), rel=0.05), name
    assert kinds(packed_dataset) == []


def prepare(folder: Path, corpus: str, vocab: str, *options: str) -> Path:
    always = ["--max-seq-length", "32", "--num-groups", "1", "--dupe-factor", "1", "--no-progress", "--no-gate"]
    words = ["prepare", "--input", corpus, "--vocab", vocab, "--output", str(folder), *always, *options]
    assert clozemill.main(words) == 0
    return folder


Planter = Callable[[Path, str, str], list[Path]]


def letters(place: Path, corpus: str, vocab: str) -> list[Path]:
    """A vocabulary of letters."""
    tokens = [*SPECIAL_TOKENS, *map(chr, range(33, 127)), *(f"##{chr(code)}" for code in range(97, 123)), *"0123456789"]
    path = place / "letters.txt"
    path.write_text(
        "".join(f"{token}\n" for token in dict.fromkeys(tokens) if token == token.lower() or token in SPECIAL_TOKENS)
    )
    return [prepare(place / "data", corpus, str(path))]


def foreign(place: Path, corpus: str, vocab: str) -> list[Path]:
    """A vocabulary that lacks a letter."""
    lines = [line for line in Path(vocab).read_text("utf-8").splitlines() if line in SPECIAL_TOKENS or "g" not in line]
    (place / "foreign.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return [prepare(place / "data", corpus, str(place / "foreign.txt"))]


def repeated(place: Path, corpus: str, vocab: str) -> list[Path]:
    """Every document twice."""
    texts = corpora.texts(40)
    (place / "twice.jsonl").write_bytes(corpora.jsonl([*texts, *texts]))
    return [prepare(place / "data", str(place / "twice.jsonl"), vocab, "--dedup", "none")]


def two_seeds(place: Path, corpus: str, vocab: str) -> list[Path]:
    """Two phases whose datasets divide the same documents differently."""
    shared = ["--eval-fraction", "0.3"]
    return [prepare(place / f"data-{seed}", corpus, vocab, "--seed", seed, *shared) for seed in "12"]


def few_predictions(place: Path, corpus: str, vocab: str) -> list[Path]:
    """One prediction in examples of up to 256 tokens."""
    return [prepare(place / "data", corpus, vocab, "--max-predictions", "1", "--max-seq-length", "256")]


def single_sentences(place: Path, corpus: str, vocab: str) -> list[Path]:
    """Documents of one sentence, so that B is always another one's."""
    (place / "single.jsonl").write_bytes(corpora.jsonl(corpora.texts(60, length=1)))
    return [prepare(place / "data", str(place / "single.jsonl"), vocab)]


def lengths_tell(place: Path, corpus: str, vocab: str) -> list[Path]:
    """Documents of one sentence, which force a random B, or of ten, whose examples are longer."""
    texts = [*corpora.texts(1000, length=1), *corpora.texts(1000, seed=2, length=10)]
    (place / "mixed.jsonl").write_bytes(corpora.jsonl(texts))
    return [prepare(place / "data", str(place / "mixed.jsonl"), vocab, "--max-seq-length", "128")]


PLANTED: dict[str, tuple[str, Planter]] = {
    "letters": ("split_words", letters),
    "foreign": ("unknown_words", foreign),
    "repeated": ("repeated_data", repeated),
    "two seeds": ("eval_in_training", two_seeds),
    "few predictions": ("masks_off", few_predictions),
    "single sentences": ("one_label", single_sentences),
    "lengths": ("leaking_labels", lengths_tell),
    "failed checks": ("failed_gate", lengths_tell),
}


@pytest.mark.parametrize("name", mostly_slow(PLANTED, "two seeds", "letters"))
def test_a_planted_fault_is_named(name: str, tmp_path: Path, demo_corpus: str, demo_vocab: str) -> None:
    kind, plant = PLANTED[name]
    assert kind in kinds(*plant(tmp_path, demo_corpus, demo_vocab))


def test_the_same_seed_keeps_documents_on_their_side(demo_dataset: Path, packed_dataset: Path) -> None:
    found = figures_in(demo_dataset, packed_dataset)
    assert found.eval_documents > 5 and found.eval_documents_seen == 0


def test_an_eval_set_whose_documents_are_trained_on(
    demo_dataset: Path, demo_corpus: str, demo_vocab: str, tmp_path: Path
) -> None:
    """Another seed divides the same corpus otherwise."""
    other = str(tmp_path / "other")
    words = ["--input", demo_corpus, "--vocab", demo_vocab, "--output", other, "--seed", "8", "--eval-fraction", "0.2"]
    assert clozemill.main(["prepare", *words, "--dupe-factor", "1", "--in-memory", "--no-progress"]) == 0
    run = run_on(demo_dataset)
    for named, expected in (([f"wiki={other}"], ["eval_in_training"]), ([f"same={demo_dataset}", "none=nowhere"], []), (7, [])):
        run.config["eval_data"] = named
        sets = find_eval_sets(run, trained_datasets(run))
        assert [
            finding.kind for finding in diagnose(figures_of(run, find_datasets(run, trained_datasets(run)), sets))
        ] == expected
    assert find_eval_sets(run, trained_datasets(run)) == []


def test_copies_with_equal_shards_count_once(demo_dataset: Path, tmp_path: Path) -> None:
    from clozemill.pipelines.dataset import manifest

    data = Path(shutil.copytree(demo_dataset, tmp_path / "data"))
    contract = manifest.loads((data / "dataset.json").read_bytes(), "-")
    first = {shard["group"]: shard for shard in contract["shards"] if shard["split"] == "train" and shard["copy"] == 0}
    for shard in contract["shards"]:
        if shard["split"] == "train":
            shard["sha256"] = first[shard["group"]]["sha256"]
    (data / "dataset.json").write_bytes(manifest.dumps(contract))
    found = figures_in(data)
    assert (found.copies, found.distinct_copies) == (2, 1)


def test_where_a_dataset_is_found(demo_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the run names it, or relative to a folder above the run; never another dataset, or one that was changed."""
    shutil.copytree(demo_dataset, tmp_path / "work/data")
    run = run_on(demo_dataset, folder=str(tmp_path / "work/runs/run"))
    run.config["data"] = ["data"]
    ((found,),) = find_datasets(run, trained_datasets(run))
    assert found and found.folder == str(tmp_path / "work/data")
    monkeypatch.chdir(tmp_path / "work")
    assert find_datasets(run, trained_datasets(run))[0][0].folder == "data"
    run.phases[0]["mixture"] = [("other", 1.0)]
    assert find_datasets(run, trained_datasets(run)) == [[None]]
    run.phases[0]["mixture"] = [(digest(demo_dataset), 1.0)]
    (tmp_path / "work/data/dataset.json").write_text("{")
    assert find_datasets(run, trained_datasets(run)) == [[None]]


def test_other_files_may_be_damaged(demo_dataset: Path, packed_dataset: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(demo_dataset, tmp_path / "data"))
    for content in (
        '{"splits": [], "probe": 3, "gate": {"checks": [1]}}',
        "{",
        '{"splits": {"train": {"00": {"tokens": ["x"]}}}}',
    ):
        (data / "statistics.json").write_text(content)
        found = figures_in(data)
        assert math.isnan(found.pieces_per_word) and math.isnan(found.probe_accuracy) and found.failed_checks == ()
    (data / "vocab.txt").unlink()
    (data / "statistics.json").unlink()
    next((data / "documents").glob("eval-*")).write_bytes(b"PAR1 no more")
    found = figures_in(data, packed_dataset)
    assert math.isnan(found.pieces_per_word) and found.eval_documents == 0 and found.masked > 0.13
