"""Pages in a headless Chromium: they open without a message, ask for nothing, show every plot, fit a phone, can be read."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clozemill.pipelines.data_card import card
from clozemill.pipelines.examples.columns import Columns
from clozemill.pipelines.inspection import html as records_html
from clozemill.pipelines.inspection.config import InspectConfig
from clozemill.pipelines.inspection.records import Place, ShardRecords, read_records
from clozemill.pipelines.pages import html as pages
from clozemill.pipelines.text.vocabulary import Vocabulary
from tests.pages import cards, runs
from tests.slow import mostly_slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not both on PATH"),
    pytest.mark.usefixtures("every_drawing"),
]
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)
# WCAG's contrast of every text that is shown, against the nearest ground that isn't transparent.
CONTRAST = """
const lum = c => { const v = c.map(x => { x /= 255; return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
                   return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
const rgb = s => s.match(/[\\d.]+/g).map((x, at) => s.startsWith('color(') && at < 3 ? 255 * x : Number(x));
const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
                      if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
const found = {}; const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let n; n = walker.nextNode();) {
  const e = n.parentElement, text = n.data.trim();
  if (!text || ['TITLE', 'DESC', 'STYLE'].includes(e.tagName.toUpperCase()) || !e.getClientRects().length) continue;
  const style = getComputedStyle(e), ink = rgb(e.closest('svg') ? style.fill : style.color);
  const [a, b] = [lum(ink), lum(ground(e))].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
  found[text.slice(0, 40)] = Math.min(ratio, found[text.slice(0, 40)] ?? 99);
}
return found;
"""
PLOTS = """
return [...document.querySelectorAll('figure')].map(figure => {
  const svg = figure.querySelector('svg'), box = svg.getBoundingClientRect();
  const marks = [...svg.querySelectorAll('path')].map(p => p.getBBox()).filter(b => b.width > 5 && b.height > 5);
  return [figure.innerText.split('\\n')[0], svg.querySelector('desc').textContent, box.width, box.height, marks.length];
});
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def hostile_records() -> ShardRecords:
    """A record whose tokens, titles and originals would do harm."""

    def row(*values: float) -> np.ndarray:
        return np.array([values])

    tokens = [*cards.TOKENS, "ا" * 3, "w" * 200, "##\x0b\u202e"]
    columns = Columns(
        row(2, 9, 4, 8, 7, 3, 10, 11, 5, 12, 3, 0), row(*[1] * 11, 0), row(*[0] * 6, *[1] * 5, 0),
        row(2, 3, 8, 0), row(9, 9, 5, 0), row(1.0, 1.0, 1.0, 0.0), np.array([1]),
    )  # fmt: skip
    contract = cards.contract()
    origins = [{f"{side}_{name}": value for side in "ab" for name, value in
                (("key", b"\x01\x02"), ("title", cards.SCRIPT + "\u202e\n"), ("start", 3), ("end", 1234))}]  # fmt: skip
    return ShardRecords(contract, Vocabulary.from_tokens(tokens), contract["shards"][0], columns, [Place(0)], origins)


@pytest.fixture(scope="module")
def files(demo_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages: of a real dataset and of hostile text, a card and records each."""
    folder = tmp_path_factory.mktemp("pages")
    shown = read_records(InspectConfig(dataset=str(demo_dataset), limit=4))
    texts = {
        "card": pages.page_html(card.build(card.read(str(demo_dataset)))),
        "hostile card": pages.page_html(card.build(cards.dataset())),
        "bare card": pages.page_html(card.build(replace(cards.dataset(), run={}, samples={}))),
        "records": records_html.page(shown, 0),
        "hostile records": records_html.page(hostile_records(), 0),
        "run": pages.page_html(runs.run()),
        "begun run": pages.page_html(runs.run(0, "")),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, "utf-8")
    return {name: folder / f"{name}.html" for name in texts}


NAMES = ["card", "hostile card", "bare card", "records", "hostile records", "run", "begun run"]


def view(browser: Any, path: Path, width: int, scheme: str) -> None:
    """Opens a page as a screen of some width and colour scheme shows it, all that is folded unfolded."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(path.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")


@pytest.mark.parametrize("name", NAMES)
def test_pages_open_without_errors(browser: Any, files: dict[str, Path], name: str) -> None:
    browser.get("about:blank")
    for log in ("browser", "performance"):
        browser.get_log(log)
    view(browser, files[name], 1200, "light")
    assert browser.get_log("browser") == []
    asked, end = set(), time.monotonic() + 30
    while not asked and time.monotonic() < end:  # a busy machine logs later than it shows
        events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert asked == {files[name].as_uri()}
    assert browser.execute_script("return [document.scripts.length, document.images.length, typeof window.hit]") == [
        0, 0, "undefined",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "count"), [("card", 7), ("hostile card", 7), ("run", 9)])
@pytest.mark.parametrize("width", mostly_slow((360, 1280), 360))
def test_every_plot_is_shown(browser: Any, files: dict[str, Path], name: str, count: int, width: int) -> None:
    view(browser, files[name], width, "dark")
    drawn = browser.execute_script(PLOTS)
    assert len(drawn) == count
    for title, alt, wide, high, marks in drawn:
        assert title and len(alt) > 40, title
        assert wide > 280 and high > 170 and marks >= 2, (title, wide, high, marks)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", mostly_slow((360, 390, 1280), 360))
def test_nothing_is_wider_than_the_screen(browser: Any, files: dict[str, Path], name: str, width: int) -> None:
    """Tables scroll in boxes of their own; all else fits."""
    view(browser, files[name], width, "light")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    out = browser.execute_script(
        "return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && !e.closest('svg')"
        " && e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.tagName + '.' + e.className)"
    )
    assert out == []
    assert browser.execute_script("return [...document.querySelectorAll('table')].every(t => t.closest('.scroll'))")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(browser: Any, files: dict[str, Path], name: str, scheme: str) -> None:
    view(browser, files[name], 1200, scheme)
    dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(c => c < 60)")
    assert dark == (scheme == "dark")
    found = browser.execute_script(CONTRAST)
    assert len(found) > 10
    assert {text: ratio for text, ratio in found.items() if ratio < 4.5} == {}


def test_low_contrast_is_detected(browser: Any, files: dict[str, Path]) -> None:
    view(browser, files["card"], 1200, "light")
    browser.execute_script("document.documentElement.style.setProperty('--muted', '#aaaaaa')")
    assert min(browser.execute_script(CONTRAST).values()) < 4.5


def test_records_show_masks_without_colour(browser: Any, files: dict[str, Path]) -> None:
    view(browser, files["hostile records"], 1200, "light")
    pairs = browser.execute_script(
        "return [...document.querySelectorAll('.side .pair, .side .kept')].map(e => [e.className, e.innerText,"
        " getComputedStyle(e.querySelector('small') || e, '::before').content, getComputedStyle(e).color])"
    )
    assert [(kind, text) for kind, text, _, _ in pairs] == [
        ("pair mask", f"{cards.SCRIPT}\n[MASK]"), ("pair random", f"{cards.SCRIPT}\n<b>bold</b>"), ("kept", "the"),
    ]  # fmt: skip
    assert [mark for _, _, mark, _ in pairs] == ['"▪ "', '"≠ "', '"= "']
    assert len({colour for *_, colour in pairs}) == 3
    grounds = browser.execute_script(
        "return [...document.querySelectorAll('.side')].map(e => getComputedStyle(e).backgroundColor)"
    )
    assert len(grounds) == 2 and len(set(grounds)) == 2
    assert "<U+202E>⏎" in browser.find_element("css selector", ".side .head").text


@pytest.mark.parametrize("name", ["card", "hostile card", "run"])
def test_a_wide_screen_is_used_to_its_right_edge(browser: Any, files: dict[str, Path], name: str) -> None:
    """In most sections something reaches into the right quarter; the contents list stays beside them."""
    view(browser, files[name], 1280, "light")
    reach = browser.execute_script(
        "return [...document.querySelectorAll('section')].map(s => Math.max(...[...s.querySelectorAll('table, figure, .side')]"
        ".map(e => e.getBoundingClientRect().right), 0))"
    )
    assert sum(right > 960 for right in reach) >= 0.7 * len(reach), reach
    nav, body = (browser.find_element("css selector", f".columns > {part}").rect for part in ("nav", ".body"))
    assert nav["x"] + nav["width"] <= body["x"]


@pytest.mark.parametrize("name", ["card", "hostile card", "run"])
def test_a_table_that_scrolls_on_a_phone_shows_it(browser: Any, files: dict[str, Path], name: str) -> None:
    view(browser, files[name], 390, "light")
    wide = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1)"
        ".map(e => getComputedStyle(e).backgroundAttachment)"
    )
    assert wide and set(wide) == {"local, local, scroll, scroll"}  # shadows that the covers leave free where a table goes on


def test_records_are_filtered_by_label_and_jumped_to(browser: Any, files: dict[str, Path]) -> None:
    view(browser, files["records"], 390, "light")
    count = "return [...document.querySelectorAll('.record')].filter(e => e.getClientRects().length).map(e => e.className)"
    everything = browser.execute_script(count)
    assert len(everything) == 4
    for label in {name.split("label-")[1] for name in everything}:
        browser.find_element("css selector", f"#label-{label}").click()
        assert browser.execute_script(count) == [name for name in everything if name.endswith(label)]
    browser.find_element("css selector", "#label-all").click()
    browser.find_element("css selector", ".jump a:last-child").click()
    assert browser.execute_script("return document.querySelector('#record-3').getBoundingClientRect().top") < 100


def test_lines_of_records_are_closer_on_a_phone(browser: Any, files: dict[str, Path]) -> None:
    height = "return parseFloat(getComputedStyle(document.querySelector('.side .tokens')).lineHeight)"
    view(browser, files["records"], 1280, "light")
    wide = browser.execute_script(height)
    view(browser, files["records"], 390, "light")
    assert browser.execute_script(height) <= wide / 2
