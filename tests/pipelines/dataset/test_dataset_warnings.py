"""Warnings about a valid dataset that is of little use for training."""

from typing import Any

import pytest

import clozemill
from clozemill.pipelines.data_card import card as data_card_card
from clozemill.pipelines.dataset.dataset_warnings import dataset_warnings
from clozemill.pipelines.pages import html as pages
from tests.pages import cards

CONFIG = {"input": ["corpus.jsonl"], "format": "auto", "pairs": "nsp", "num_groups": 4, "eval_fraction": 0.01, "dedup": "exact"}
DOCUMENTS = {"kept": 1000, "duplicates": 0, "sentences": 9000, "tokens": 200_000}


def contract(
    documents: int = 990,
    labels: int = 500,
    forced: int = 30,
    evals: int = 200,
    kept: dict[str, int] | None = None,
    **config: Any,
) -> dict[str, Any]:
    copies = {"00": {"labels_random": labels, "forced_random": forced}}
    splits = {"train": {"documents": documents, "examples": 1000, "copies": copies}}
    splits |= {"eval": {"documents": 10, "examples": evals, "copies": {}}} if evals >= 0 else {}
    return {"config": CONFIG | config, "documents": DOCUMENTS | (kept or {}), "splits": splits}


@pytest.mark.parametrize(
    ("changes", "warnings"),
    [
        ({}, []),
        ({"pairs": "sop"}, []),
        ({"pairs": "single", "labels": 0}, []),
        ({"eval_fraction": 0.0, "evals": -1}, []),
        ({"labels": 0}, ["all next-sentence labels are identical, so a model learns nothing"]),
        ({"labels": 1000, "pairs": "sop"}, ["all next-sentence labels are identical, so a model learns nothing"]),
        ({"labels": 20}, ["98.0 % of the next-sentence labels are identical, so a model learns little"]),
        ({"labels": 970}, ["97.0 % of the next-sentence labels are identical, so a model learns little"]),
        ({"forced": 600, "labels": 600}, ["most chunks have one sentence, so most B segments are random"]),
        ({"documents": 7}, ["the train split has 7 documents in 4 groups, too few to draw random next sentences from"]),
        ({"documents": 60, "num_groups": 40}, ["the train split has 60 documents in 40 groups, too few"]),
        ({"documents": 30, "num_groups": 40, "pairs": "sop"}, ["there are more groups than documents"]),
        ({"evals": 0}, ["the eval split is empty, because --eval-fraction 0.01 of 1,000 documents selected none"]),
        (
            {"evals": 99},
            ["the eval split has 99 examples, too few to compare models: add documents or raise --eval-fraction to about 0.02"],
        ),
        ({"evals": 1}, ["the eval split has 1 example, too few to compare models: add documents or raise --eval-fraction"]),
        ({"kept": {"tokens": 30_000_000}}, ["documents have 30,000 tokens on average, which is typical of books"]),
        ({"kept": {"kept": 1}, "input": ["a.jsonl"]}, []),
        ({"kept": {"dropped": {"unclosed_dump": 1}}}, ["1 MediaWiki dump without the closing </mediawiki>, as if cut off"]),
        (
            {"kept": {"kept": 1}, "input": ["a.txt.gz"]},
            ["all 9,000 lines are in 1 document, because only an empty line"],
        ),
        ({"kept": {"kept": 1}, "input": ["a.txt"], "format": "document"}, []),
        # Copies that were removed: as counted, and as datasets of earlier versions lack these counts.
        ({"kept": {"tokens": 30_000_000, "duplicates": 9000, "kept_tokens": 500_000}}, []),
        ({"kept": {"tokens": 30_000_000, "duplicates": 9000}}, []),
        ({"kept": {"tokens": 30_000_000, "duplicates": 9000}, "dedup": "none"}, ["documents have 30,000 tokens on average"]),
        ({"kept": {"kept": 1, "sentences": 150, "kept_sentences": 5, "duplicates": 29}, "input": ["a.txt"]}, []),
        ({"kept": {"kept": 1, "sentences": 150, "duplicates": 29}, "input": ["a.txt"]}, []),
        (
            {"kept": {"kept": 1, "sentences": 150, "kept_sentences": 50, "duplicates": 2}, "input": ["a.txt"]},
            ["all 50 lines are in 1 document"],
        ),
    ],
)
def test_each_weakness_has_its_sentence(changes: dict[str, Any], warnings: list[str]) -> None:
    found = dataset_warnings(contract(**changes))
    assert len(found) == len(warnings)
    for sentence, begin in zip(found, warnings, strict=True):
        assert sentence.startswith(begin)


def test_one_text_per_line_is_warned_about_everywhere(tmp_path: Any, demo_vocab: str, capsys: pytest.CaptureFixture) -> None:
    """Read as one document, for no empty line separates the texts: no next sentence is random, no example held out."""
    (tmp_path / "in.txt").write_text("".join(f"The mill of the year {1500 + at} is old.\n" for at in range(200)))
    dataset = str(tmp_path / "dataset")
    options = ["--input", str(tmp_path / "in.txt"), "--vocab", demo_vocab, "--output", dataset, "--dupe-factor", "1"]
    assert clozemill.main(["prepare", *options, "--no-progress", "--in-memory"]) == 0
    begins = (
        "all 200 lines are in 1 document, ",
        "the train split has 1 document in ",
        "all next-sentence labels",
        "the eval split",
    )
    made = capsys.readouterr().out
    assert clozemill.main(["verify", dataset, "--no-progress"]) == 0
    checked = capsys.readouterr().out
    card = (tmp_path / "dataset/report.md").read_text("utf-8")
    for begin in begins:
        assert f"warning: {begin}" in made and f"warning: {begin}" in checked and pages.markdown(begin) in card
    assert card.count("- Warning: ") == 4


def test_the_card_has_a_band_of_warnings_only_where_there_are_some() -> None:
    data = cards.dataset()
    assert data_card_card.build(data).warnings == []
    data.contract["config"]["eval_fraction"] = 0.1
    card = data_card_card.build(data)
    (warning,) = card.warnings
    assert warning.startswith("the eval split has 10 examples")
    page = pages.page_html(card)
    assert page.index("the eval split has 10 examples") < page.index('<dl class="tiles">') and 'class="band"' in page
