"""The data card: literal tables from literal data, hostile text escaped, drawn from the dataset's files alone."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import clozemill
from clozemill.pipelines.common.formatting import figure, large, listed
from clozemill.pipelines.data_card import card as data_card_card
from clozemill.pipelines.data_card import plots as data_card_plots
from clozemill.pipelines.dataset import layout, manifest
from clozemill.pipelines.pages import html as pages
from clozemill.pipelines.pages.content import Example, Page, Section, Side, Table, Token
from tests.pages import cards

pytestmark = pytest.mark.usefixtures("every_drawing")


def table(card: Page, title: str) -> Table:
    (found,) = (table for section in card.sections for table in section.tables if table.title == title)
    return found


def test_the_tables_are_literal() -> None:
    card = data_card_card.build(cards.dataset())
    assert card.state == "overridden"
    assert card.verdict == "The statistical gate failed and was overridden with --no-gate: 1 of 3 checks failed."
    assert dict(card.tiles) == {
        "documents kept": "30", "tokens of text": "1,170", "[UNK]": "1.00 %", "train examples": "20", "eval examples": "10",
        "tokens per example": "8",
    }  # fmt: skip
    assert table(card, "Datasheet").rows == [
        ("sources", cards.SCRIPT + "; a second source"),
        ("licenses", "CC BY-SA 4.0"),
        ("languages", "not stated"),
        ("input files", f"corpus/{cards.SCRIPT}.jsonl"),
    ]
    assert table(card, "Input").rows[:3] == [("files", "1"), ("MB on disk", "0.25"), ("documents read", "40")]
    assert table(card, "Output").rows[0] == ("train", "00", "28", "10", "64", "20", "20.00 %")
    assert table(card, "By reason").rows == [
        ("too_few_chars", "7", "17.50 %", 100.0),
        ("near_duplicate", "2", "5.00 %", pytest.approx(200 / 7)),
        ("exact_duplicate", "1", "2.50 %", pytest.approx(100 / 7)),
    ]
    lengths = table(card, "Lengths in tokens").rows
    assert lengths[0] == ("documents", "39.0", "", "", "", "")  # 1,170 / 30, without the exact duplicate
    assert table(card, "Input").note == "Text counts include exact duplicates: 1 document."
    assert lengths[1] == ("train: examples", "6.3", "4", "5", "8", "8")
    assert lengths[2] == ("train: A", "1.8", "1", "2", "2", "2")
    assert [row[1] for row in table(card, "The most frequent tokens").rows] == [
        "the",
        "river",
        "##s",
        "<b>bold</b>",
        cards.SCRIPT,
    ]
    assert table(card, "The most frequent tokens").rows[0] == ("1", "the", "30", "60.00 %", 100.0)
    assert table(card, "Words that became [UNK]").rows[1] == (cards.ARABIC, "3", pytest.approx(100 / 3))
    assert table(card, "Failed checks").rows == [("masked share", "train copy 01", cards.CHECKS[1]["sentence"])]
    title = "{}: observed values and their required intervals"
    assert table(card, title.format("train copy 00")).rows == [("masked share", "0.1500", "0.1400", "0.1600", 50.0, "yes")]
    assert table(card, title.format("train copy 01")).rows == [("masked share", "0.2000", "0.1400", "0.1600", 98.0, "NO")]
    assert table(card, title.format("eval copy 00")).rows == [("pair lengths", "0", "0", "0", None, "yes")]
    assert table(card, title.format("train copy 01")).folded and not table(card, title.format("eval copy 00")).folded
    assert table(card, "Time per stage").rows == [
        ("read", "0.50", "2.0", "clean text", 100.0),
        ("write", "0.01", "-", "shards", pytest.approx(2.0)),
    ]


def test_the_plots_are_literal() -> None:
    plots = {plot.name: plot for section in data_card_card.build(cards.dataset()).sections for plot in section.plots}
    assert list(plots) == ["documents", "examples", "segment-a", "segment-b", "ranks", "positions", "random"]
    assert all(plot.title and plot.x_label and plot.y_label and plot.alt.endswith(".") for plot in plots.values())
    documents = plots["documents"].series[0]
    assert list(documents.x) == [4, 8, 16, 32, 64] and list(documents.y) == [1, 4, 20, 5]  # bit lengths 3 to 6
    train, evaluation = plots["examples"].series
    assert (train.label, evaluation.label) == ("train", "eval")
    assert list(train.y) == [0, 0, 0, 0, 20, 30, 0, 0, 50] and list(train.x)[:2] == [-0.5, 0.5]
    assert [list(series.y) for series in plots["segment-a"].series] == [[0, 40, 60, *[0] * 6], [0, 0, 100, *[0] * 6]]
    ranks = plots["ranks"].series[0]
    assert list(ranks.x) == [1, 2, 3, 4, 5, 6, 7, 8] and list(ranks.y) == [30, 20, 20, 10, 5, 4, 3, 1]
    band, found = plots["positions"].series
    assert list(found.x) == [1, 2, 3, 4, 5, 6, 7]
    assert list(found.y) == pytest.approx([25, 0, -100 / 3, 0, 0, 0, 0])
    assert band.high[0] == pytest.approx(300 * 4**0.5 / 8)  # two copies: 8 expected, a variance of 4
    assert list(plots["random"].series[1].y) == pytest.approx([50, 0, 25, 25, -100])  # 40 over the five that aren't special


def test_quantiles() -> None:
    assert data_card_plots.quantiles([0, 1, 0, 3]) == (2.5, 1, 3, 3, 3)
    assert data_card_plots.quantiles(np.array([0] * 7 + [1])) == (7.0, 7, 7, 7, 7)


def test_figures_are_written_for_the_eye() -> None:
    assert [large(count) for count in (0, 9365, 196_012, 1_125_430, 2.4e9)] == ["0", "9,365", "196 k", "1.13 M", "2.4 G"]
    assert [figure(value) for value in (None, True, 3, 64.0, 0.12345, 0.00014, 1304294.0, "x", float("nan"))] == [
        "-", "yes", "3", "64", "0.1235", "1.4e-04", "1,304,294", "x", "nan",
    ]  # fmt: skip
    assert listed({"a": [1, 0.5], "b": "c"}) == "a 1; 0.5000; b c"


def test_without_datasheet_and_run() -> None:
    """A dataset that was copied without run.json."""
    bare = cards.contract()
    bare.pop("datasheet")
    card = data_card_card.build(cards.dataset(contract=bare, run={}, samples={}))
    assert table(card, "Datasheet").rows[0] == ("sources", "not stated")
    assert "Shares per copy" in pages.page_html(card) and "Shares per copy" in pages.page_markdown(card)


@pytest.mark.parametrize("pairs", ["nsp", "sop", "single"])
def test_every_kind_of_pairs(pairs: str) -> None:
    contract, told = cards.contract(), cards.statistics()
    contract["config"]["pairs"] = pairs
    if pairs == "single":
        for copies in told["splits"].values():
            for copy in copies.values():
                copy["b_lengths"] = [[10, *[0] * 8], [0] * 9]
    plots = [
        p for section in data_card_card.build(cards.dataset(contract=contract, statistics=told)).sections for p in section.plots
    ]
    assert ("segment-b" in [plot.name for plot in plots]) == (pairs != "single")
    assert pages.page_html(data_card_card.build(cards.dataset(contract=contract, statistics=told))).count("<svg") == len(plots)


class Reader(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_text_is_text() -> None:
    page = pages.page_html(data_card_card.build(cards.dataset()))
    read = Reader(page)
    assert not {"script", "img", "b", "iframe", "object", "link"} & {tag for tag, _ in read.tags}
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on") or name == "src"]
    assert all(attributes["href"].startswith("#") for _, attributes in read.tags if attributes.get("href"))
    assert read.text.count(cards.SCRIPT) >= 5  # title, lead, datasheet, input, token, [UNK] word, sample
    assert cards.ARABIC in read.text and "<U+202E>" in read.text and "\u202e" not in page
    assert "⏎next | `line`" in read.text


def test_a_page_asks_for_nothing() -> None:
    page = pages.page_html(data_card_card.build(cards.dataset()))
    assert "default-src 'none'" in page and "@import" not in page
    places = set(re.findall(r"https?://[^\"'\s<)]+", page))
    assert places <= {"http://www.w3.org/1999/xlink"}, places
    assert set(re.findall(r"url\(([^)]*)\)", page)) == set(re.findall(r"url\((#[\w-]+)\)", page))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb\r\tc", "a⏎b␍␉c"),
        ("\x00\x1b\x7f\x85\u2028", "␀␛␡⏎⏎"),
        ("\ud800\ufffe", "\ufffd\ufffd"),
        ("\u202eevil\u2066", "<U+202E>evil<U+2066>"),
        ("é漢" + cards.ARABIC, "é漢" + cards.ARABIC),
        ("\x9b", "<U+009B>"),
    ],
)
def test_what_can_not_be_seen_is_shown(text: str, shown: str) -> None:
    assert pages.visible(text) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("dropped", "count"), [({"contaminated": 3, "too_few_chars": 7}, "3"), ({"too_few_chars": 7}, "0"), ({}, "0")]
)
def test_decontamination_is_described_even_if_nothing_matched(dropped: dict[str, int], count: str) -> None:
    contract = cards.contract()
    contract["documents"] |= {"dropped": dropped, "duplicates": 0}
    contract["config"]["decontaminate_words"] = 13
    contract["decontamination"] = {"files": ["dev.tsv", "squad/*.json"], "sha256": "ef" * 32}
    card = data_card_card.build(cards.dataset(contract=contract))
    assert table(card, "Decontamination").rows == [
        ("evaluation sets", "dev.tsv; squad/*.json"), ("n-gram size", "13 words"), ("documents dropped", count),
    ]  # fmt: skip
    assert "Decontamination" not in pages.page_markdown(data_card_card.build(cards.dataset()))


def test_markdown_joins_pieces_to_words() -> None:
    words = [Token("john", "john"), Token("town", "town"), Token("er", "##er", "", True), Token("[MASK]", "will", "mask"),
             Token("##iam", "##iam", "kept", True), Token("s", "##s", "", True), Token(".", ".")]  # fmt: skip
    section = Section("Examples", examples=[Example("Record 0", "", [Side("A", words)])])
    text = pages.page_markdown(Page("Data card", "d", [], [], "passed", "", [], [], [section]))
    assert r"- A: john towner \{\[MASK\]&lt;\-will\} \{\#\#iam\} \#\#s ." in text


def test_markdown() -> None:
    assert pages.markdown("a|b `c` <i> *d* [e](f) #g\nh") == r"a\|b \`c\` &lt;i&gt; \*d\* \[e\]\(f\) \#g⏎h"
    text = pages.page_markdown(data_card_card.build(cards.dataset()))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert (
        "| train | 00 | 28 | 10 | 64 | 20 | 20.00 % |" in rows and "| masked share | 0.1500 | 0.1400 | 0.1600 | yes |" in rows
    )
    assert "<script" not in text and f"`{'cd' * 32}`" in text
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(blocks) >= 15
    for block in blocks:  # no cell breaks its row
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


@pytest.mark.slow
def test_a_card_is_the_same_in_every_process() -> None:
    code = (
        "import hashlib; from clozemill.pipelines.data_card import card; from tests.pages import cards\n"
        "from clozemill.pipelines.pages import html as pages\n"
        "c = card.build(cards.dataset())\n"
        "print(hashlib.sha256((pages.page_html(c) + pages.page_markdown(c)).encode()).hexdigest())"
    )
    told = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code]
        told.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(told) == 1 and len(told.pop()) == 65


def test_prepare_draws_it_and_inspect_draws_it_again(demo_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(demo_dataset, tmp_path / demo_dataset.name)
    before = {name: (tmp_path / demo_dataset.name / name).read_bytes() for name in (layout.HTML, layout.MARKDOWN)}
    for name in before:
        (tmp_path / demo_dataset.name / name).unlink()
    assert clozemill.main(["inspect", str(tmp_path / demo_dataset.name), "--report"]) == 0
    assert "report.html and report.md" in capsys.readouterr().out
    assert before == {name: (tmp_path / demo_dataset.name / name).read_bytes() for name in before}
    digest = json.loads((demo_dataset / "dataset.json").read_text())["digest"]
    assert all(digest.encode() in data for data in before.values())
    assert before[layout.HTML].count(b"<svg") >= 7


def test_samples_come_from_rejects_where_statistics_has_none(demo_dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(demo_dataset, tmp_path / "d")
    here = json.loads((tmp_path / "d/statistics.json").read_text())["documents"]["samples"]
    shutil.rmtree(tmp_path / "d/rejects", ignore_errors=True)
    (tmp_path / "d/rejects").mkdir()
    lines = [json.dumps({"reason": "r", "source": f"s{n}", "detail": "", "excerpt": "e"}) for n in range(9)]
    (tmp_path / "d/rejects/a.jsonl").write_text("\n".join(["no json", "[]", *lines, '{"reason": "half']))
    assert data_card_card.read(str(tmp_path / "d")).samples == here | {"r": ["s0: e", "s1: e", "s2: e", "s3: e"]}


def test_a_card_that_can_not_be_drawn_costs_no_dataset(
    demo_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(demo_dataset, tmp_path / "d")
    (tmp_path / "d/statistics.json").write_text("[]")
    data_card_card.write_or_warn(str(tmp_path / "d"))
    told = capsys.readouterr().err
    assert told.startswith("warning: no data card was written (") and "statistics.json" in told and "inspect" in told
    assert clozemill.main(["inspect", str(tmp_path / "d"), "--report"]) == 2


def test_statistics_of_another_hand_are_not_drawn(demo_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(demo_dataset, tmp_path / "d")
    path = tmp_path / "d/statistics.json"
    path.write_text(path.read_text().replace('"passed": true', '"passed": false', 1))
    assert clozemill.main(["inspect", str(tmp_path / "d"), "--report"]) == 2
    told = f"{path}: its SHA-256 is not the one in dataset.json: restore it, or rebuild the dataset"
    assert told in capsys.readouterr().err


def test_the_datasheet_travels_and_changes_no_byte_of_a_shard(
    demo_corpus: str, demo_vocab: str, demo_dataset: Path, tmp_path: Path
) -> None:
    sheet = "sources: [A <dump>, another]\nlicenses: [CC BY-SA 4.0]\nlanguages: en\n"
    (tmp_path / "c.yaml").write_text(sheet)
    arguments = ["--num-groups", "3", "--dupe-factor", "2", "--eval-fraction", "0.2", "--provenance", "--seed", "7"]
    assert clozemill.main(["prepare", "--config", str(tmp_path / "c.yaml"), "--input", demo_corpus, "--vocab", demo_vocab,
                           "--output", str(tmp_path / "d"), "--no-progress", *arguments]) == 0  # fmt: skip
    drawn = (tmp_path / "d/report.html").read_bytes()
    (tmp_path / "d/report.html").write_text("the card of what was here before an update")
    assert clozemill.main(["prepare", "--config", str(tmp_path / "d/prepare.yaml")]) == 0  # whole already, but for its card
    assert (tmp_path / "d/report.html").read_bytes() == drawn
    there = manifest.loads((tmp_path / "d/dataset.json").read_bytes(), "dataset.json")
    assert there["datasheet"] == {"sources": ["A <dump>", "another"], "licenses": ["CC BY-SA 4.0"], "languages": ["en"]}
    assert there["digest"] == json.loads((demo_dataset / "dataset.json").read_text())["digest"]
    assert "A &lt;dump&gt;; another" in (tmp_path / "d/report.html").read_text()
    assert r"| licenses | CC BY\-SA 4.0 |" in (tmp_path / "d/report.md").read_text()


def test_it_says_first_what_the_dataset_is() -> None:
    page = data_card_card.build(cards.dataset(name="plays-128"))
    assert (page.kind, page.title) == ("Data card", "plays-128")
    assert page.lead == [
        f"30 documents with 1,170 tokens of text from {cards.SCRIPT}; a second source; licence CC BY-SA 4.0; "
        "language not stated.",
        "Prepared as 30 masked examples of up to 8 tokens, pairs for next-sentence prediction, to pretrain an encoder.",
    ]
    text = pages.page_html(page)
    titles = [section.title for section in page.sections]
    assert titles[:2] == ["About this data", "Input and output"] and len(titles) == len(set(titles))
    places = re.findall(r'<li><a href="#([\w-]+)">([^<]+)</a></li>', text)
    assert [title for _, title in places] == titles
    assert all(f'<section id="{place}">' in text for place, _ in places)
    assert text.index("plays-128</bdi></h1>") < text.index("30 documents with") < text.index('<dl class="tiles">')


def test_it_shows_a_text_and_an_example_of_each_label(demo_dataset: Path, tmp_path: Path) -> None:
    data = data_card_card.read(str(demo_dataset))
    about, found = data_card_card.build(data).sections[:2]
    assert found.title == "Examples" and [example.label for example in found.examples] in ([0, 1], [1, 0])
    assert {example.meaning for example in found.examples} == {"B follows A", "B is random"}
    (quote,) = about.quotes
    assert len(quote.split()) > 15 and "[MASK]" not in quote and " ##" not in quote and " ." not in quote
    page = pages.page_html(data_card_card.build(data))
    assert '<span class="pair mask">' in page and "<blockquote>" in page
    shutil.copytree(demo_dataset, tmp_path / "d")
    for shard in (tmp_path / "d/train").rglob("*.tfrecord"):
        shard.write_bytes(b"damaged")
    assert data_card_card.read(str(tmp_path / "d")).examples is None  # the card is drawn without
