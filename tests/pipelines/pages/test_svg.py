"""Plots: whole as XML, colours from the page, ids of their own, the same bytes again, and the values where they belong."""

import re
from xml.etree import ElementTree

import pytest

from clozemill.pipelines.pages import svg as data_card_svg
from clozemill.pipelines.pages.content import Plot, Series

pytestmark = pytest.mark.usefixtures("every_drawing")
SVG = "{http://www.w3.org/2000/svg}"


def plot(name: str = "p", **changes: object) -> Plot:
    series = [Series("one <&> $x$", "steps", [0, 1, 2, 4], [1, 0, 100]), Series("two", "outline", [0, 1, 2, 4], [2, 3, 50])]
    parts = {"title": "T <b>", "x_label": "x (s)", "y_label": "y (%)", "alt": r"what \1 & it shows", "series": series}
    return Plot(name=name, **(parts | changes))


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


KINDS = [
    plot(),
    plot(y_log=10),
    plot(
        series=[Series("s", "line", [1, 10, 100], [1, 5, 2000]), Series("t", "line", [1, 2, 3], [3, 2, 1])], x_log=10, y_log=10
    ),
    plot(series=[Series("b", "band", [0, 1], [-1, -2], [1, 2]), Series("f", "line", [0, 1], [0.5, -0.5])]),
    plot(series=[Series("d", "steps", [1, 2, 4, 8], [3, 5, 1])], x_log=2),
    plot(series=[Series("one", "steps", [0, 1], [5])]),
]


@pytest.mark.parametrize("drawn", KINDS)
def test_a_drawing_is_part_of_a_page(drawn: Plot) -> None:
    svg = data_card_svg.draw(drawn)
    root = parsed(svg)
    assert root.find(f"{SVG}title").text == "T <b>" and root.find(f"{SVG}desc").text == r"what \1 & it shows"
    assert root.get("role") == "img" and root.get("aria-labelledby") == "p-title p-desc"
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert "x (s)" in texts and "y (%)" in texts
    assert not re.search(r"#[0-9a-f]{6}|<style|<script|<!--|<\?xml|DejaVu|\$\\math", svg)
    assert set(re.findall(r"var\(--(\w+)\)", svg)) <= {"ink", "muted", "line", "first", "second", "soft", "fill"}
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert len(ids) == len(set(ids)) and all(name.startswith("p-") for name in ids)
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg)) <= set(ids)


def test_two_drawings_share_no_id() -> None:
    first, second = (set(re.findall(r'\bid="([^"]+)"', data_card_svg.draw(plot(name)))) for name in ("one", "two"))
    assert first and second and first.isdisjoint(second)


def test_again_the_same() -> None:
    assert data_card_svg.draw(plot()) == data_card_svg.draw(plot())


def test_bars_stand_as_high_as_their_values() -> None:
    svg = data_card_svg.draw(plot(series=[Series("s", "steps", [0, 1, 2, 3], [1, 2, 4])]))
    (path,) = re.findall(r'<path d="([^"]+)"[^>]*style="fill: var\(--fill\)', svg)
    points = [tuple(map(float, point)) for point in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
    ground = max(y for _, y in points)
    heights = sorted({round(ground - y, 3) for _, y in points if ground - y > 0.001})
    assert len(heights) == 3
    assert [height / heights[0] for height in heights] == pytest.approx([1, 2, 4], rel=1e-3)


def test_figures_of_axes() -> None:
    assert [data_card_svg.compact(value) for value in (0, 0.01, 10, 2048, 30e6, -15000, 2e9)] == [
        "0", "0.01", "10", "2,048", "30M", "-15k", "2G",
    ]  # fmt: skip
    assert [data_card_svg.compact(value) for value in (999_600, 9996, 99_960)] == ["1M", "10k", "100k"]


@pytest.mark.parametrize(
    ("first", "step", "labels"),
    [
        (100_000, 200, ["100k", "100.2k", "100.4k"]),
        (24_980, 20, ["24.98k", "25k", "25.02k"]),
        (0, 20_000, ["0", "20k", "40k"]),
        (2000, 0.5, ["2,000", "2,000.5", "2,001"]),
        (-0.25, 0.25, ["-0.25", "0", "0.25"]),
        (1e6, 2e5, ["1M", "1.2M", "1.4M"]),
        (-1e-17, 0.5, ["0", "0.5", "1"]),
    ],
)
def test_the_figures_of_an_axis_differ(first: float, step: float, labels: list[str]) -> None:
    assert [data_card_svg.compact(first + at * step, step) for at in range(3)] == labels
    series = [Series("s", "line", [first, first + 2 * step], [1, 2])]
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", data_card_svg.draw(plot(series=series)))
    assert len(set(texts[:3])) == 3


def test_a_legend_has_room_for_its_labels() -> None:
    """Long labels have fewer columns, and lose their middle where even that isn't enough; all of them are there."""
    three = ["bert-tiny-seed-1", "bert-tiny-seed-2", "modern-tiny-seed-1"]
    assert [data_card_svg.legend_columns(labels) for labels in (["train", "eval", "word frequencies"], three)] == [3, 2]
    long = [f"learning_rate-{rate}_batch_size-16_seed-0" for rate in ("3e-05", "5e-05")]
    assert data_card_svg.legend_columns(long) == 1 and data_card_svg.legend_columns(long * 7) == 3
    assert data_card_svg.shortened(long, 15) == ["1 learn…seed-0", "2 learn…seed-0"]
    assert data_card_svg.shortened([f"{'a' * 10}b", "x"], 8) == ["aaa…aaab", "x"]
    for labels in (three, ["_old", "new"], long * 7):
        svg = data_card_svg.draw(plot(series=[Series(label, "line", [0, 1], [1, 2]) for label in labels]))
        texts = {text.strip("\u200b") for text in re.findall(r"<text[^>]*>([^<]+)</text>", svg)}
        assert labels == long * 7 or set(labels) <= texts
        assert sum(text.endswith("…ed-0") for text in texts) == (14 if labels == long * 7 else 0)
