"""Plots: complete as XML, colours from the page, ids of their own, the same bytes again, and the values where they belong."""

import re
from xml.etree import ElementTree

import pytest

from clozemill.pipelines.pages import axis
from clozemill.pipelines.pages import svg as data_card_svg
from clozemill.pipelines.pages.content import Plot, Series

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
    plot(series=[Series("a", "dots", [0, 10], [0, 2]), Series("b", "guide", [1, 9], [2, 1]), Series("c", "level", [], [1.5]),
                 Series("d", "mark", [5], []), Series("e", "points", [3], [1.0]), Series("f", "line", [4], [2])]),
    plot(series=[Series("", "line", [], [])], x_log=10, y_log=10),
]  # fmt: skip


@pytest.mark.parametrize("drawn", KINDS)
def test_a_drawing_is_part_of_a_page(drawn: Plot) -> None:
    svg = data_card_svg.draw(drawn)
    root = parsed(svg)
    assert root.find(f"{SVG}title").text == "T <b>" and root.find(f"{SVG}desc").text == r"what \1 & it shows"
    assert root.get("role") == "img" and root.get("aria-labelledby") == "p-title p-desc"
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert "x (s)" in texts and "y (%)" in texts
    assert not re.search(r"#[0-9a-f]{6}|<style|<script|<!--|<\?xml|DejaVu|\$\\math", svg)
    assert set(re.findall(r"var\(--(\w+)\)", svg)) <= {"ink", "muted", "line", "first", "second", "third", "soft", "fill"}
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


def test_points_are_where_their_values_are() -> None:
    """The axes end 1 % and 5 % of the range of values beyond them; a logarithmic one has no place for 0."""
    across, up = data_card_svg.RIGHT - data_card_svg.LEFT, data_card_svg.BOTTOM - data_card_svg.TOP
    svg = data_card_svg.draw(plot(series=[Series("s", "points", [0, 50, 100], [10, 20, 30])]))
    found = [tuple(map(float, place)) for place in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)]
    places = [((part + 0.01) / 1.02, (part + 0.05) / 1.1) for part in (0, 0.5, 1)]
    expected = [(data_card_svg.LEFT + across * x, data_card_svg.BOTTOM - up * y) for x, y in places]
    assert [value for place in found for value in place] == pytest.approx([v for place in expected for v in place], abs=0.01)
    svg = data_card_svg.draw(plot(series=[Series("s", "line", [1, 2, 3, 4, 5], [0, 10, 100, float("nan"), 1000])], y_log=10))
    (path,) = re.findall(r'<path d="(M[^"]+)"[^>]*var\(--first\)', svg)
    heights = [float(point) for point in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)]
    assert [command for command in path if command in "ML"] == ["M", "L", "M"]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.02)


def test_areas_are_drawn_below_lines() -> None:
    svg = data_card_svg.draw(plot(series=[Series("f", "line", [0, 1], [0, 1]), Series("b", "band", [0, 1], [0, 1], [1, 2])]))
    assert re.findall(r"var\(--(\w+)\)", svg[svg.index('"data"') : svg.index("</g>")]) == ["soft", "first"]


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-2.2, 2.2, 6, [-2, -1, 0, 1, 2]),
        (0.1, 0.7, 6, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        (983, 1017, 7, [985, 990, 995, 1000, 1005, 1010, 1015]),
        (-0.5, 128.5, 7, [0, 20, 40, 60, 80, 100, 120]),
        (3e-6, 1.1e-5, 6, [4e-6, 6e-6, 8e-6, 1e-5]),
    ],
)
def test_linear_ticks(low: float, high: float, most: int, ticks: list[float]) -> None:
    assert axis.linear_ticks(low, high, most) == pytest.approx(ticks, abs=1e-12)


def test_logarithmic_ticks() -> None:
    assert axis.log_ticks(1, 1000, 10, 7) == [1, 10, 100, 1000]
    assert axis.log_ticks(0.9, 1e9, 10, 4) == [1, 1e3, 1e6, 1e9]
    assert axis.log_ticks(3, 70, 2, 7) == [4, 8, 16, 32, 64]
    assert axis.Axis(300, 800, 0, 1, 10).ticks(6) == [300, 400, 500, 600, 700, 800]  # no two powers are in this range


def test_figures_of_axes() -> None:
    assert [axis.compact(value) for value in (0, 0.01, 10, 2048, 30e6, -15000, 2e9)] == [
        "0", "0.01", "10", "2,048", "30M", "-15k", "2G",
    ]  # fmt: skip
