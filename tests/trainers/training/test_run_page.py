"""The page of a run without a browser: its structure, its state, and that no text does harm."""

import re

import pytest

from clozemill.pipelines.pages import html
from clozemill.trainers.training import run_page
from tests.pages import cards, runs

pytestmark = pytest.mark.usefixtures("every_drawing")


def test_its_parts() -> None:
    page = runs.run()
    assert [section.title for section in page.sections] == [
        "Curves", "Evaluations", "Answers to the dev examples", "Sample predictions", "Configuration", "Environment",
    ]  # fmt: skip
    curves = page.sections[0]
    assert [plot.name for plot in curves.plots] == [
        "loss", "masked-lm-accuracy", "next-sentence-accuracy", "next-sentence-loss", "learning-rate", "throughput",
        "input-wait", "gradient-norm", "utilisation",
    ]  # fmt: skip
    assert {"word frequencies", "recipe", "next sentence", "waiting for input", "MFU"} <= {name for name, _ in curves.terms}
    assert dict(page.tiles) == {
        "steps": "90 of 90", "masked-LM loss": "6.200", "tokens per second": "2,045", "time": "1:15",
    }  # fmt: skip
    assert page.warnings == ["few examples"]


def test_the_speed_of_a_run_whose_batches_grow() -> None:
    """Tokens by seconds: 900 lines of 10,000 tokens at 100,000 a second, then 100 of 40,000 at 50,000."""
    entries, tokens = [], 0
    for step in range(1, 1001):
        tokens += 10_000 if step <= 900 else 40_000
        entries.append({"step": step, "tokens": tokens, "tokens_per_second": 100_000.0 if step <= 900 else 50_000.0})
    told = [("tokens per second", "76,471"), ("time", "0:10")]
    assert run_page._speed(entries, [{"seconds": 10.0}]) == told
    assert run_page._speed([{"step": 1, "tokens_per_second": 5.0}], [])[0] == ("tokens per second", "5")
    assert run_page._speed([], [])[:-1] == []


@pytest.mark.parametrize(
    ("steps", "ended", "failed", "state", "verdict", "result"),
    [
        (90, "complete", False, "passed", "Complete, 90 steps.", "passed: Best: masked-LM loss 6.200, at step 90."),
        (40, "complete", False, "passed", "Stopped early at step 40 of 90.", "passed: Best: masked-LM loss 7.200, at step 40."),
        (40, "", False, "open", "Training: step 40 of 90.", "open: Best: masked-LM loss 7.200, at step 40."),
        (0, "", False, "open", "Training: step 0 of 90. Nothing was evaluated yet.", "open: "),
        (40, "stopped by SIGINT", False, "open", "Stopped by SIGINT at step 40 of 90.",
         "open: Best: masked-LM loss 7.200, at step 40."),
        (0, "diverged", True, "failed", "Diverged at step 0 of 90.", "open: "),
    ],
)  # fmt: skip
def test_its_state(steps: int, ended: str, failed: bool, state: str, verdict: str, result: str) -> None:
    page = runs.run(steps, ended, failed=failed)
    assert (page.state, page.verdict, f"{page.result_state}: {page.result}") == (state, verdict, result)
    drawn = html.page_html(page, lambda plot: "")
    assert f'class="chip {state}"' in drawn and drawn.count('class="chip ') == 1 + bool(page.result)


@pytest.mark.parametrize(
    ("ended", "states", "result"),
    [
        ("complete", ("passed", "failed"), "Not useful: the best is masked-LM loss 6.200, at step 90; see the warning."),
        ("", ("open", "open"), "Best: masked-LM loss 6.200, at step 90; not useful yet: see the warning."),
    ],
)
def test_a_useless_result_of_a_complete_run(ended: str, states: tuple[str, str], result: str) -> None:
    page = runs.run(90, ended, remarks=["no better than word frequencies"])
    assert ((page.state, page.result_state), page.result) == (states, result)
    assert page.warnings[0] == "no better than word frequencies"
    assert ("✓ Complete, 90 steps.</p>" in html.page_html(page, lambda plot: "")) == bool(ended)


def test_findings_are_warnings() -> None:
    page = runs.run(40, "", remarks=["no better"], findings=["steps wait for input (input_bound)"])
    assert page.warnings == ["no better", "steps wait for input (input_bound)", "few examples"]
    assert page.result.endswith("not useful yet: see the warning.")  # that of the evaluation


def test_hostile_text_is_text() -> None:
    page = html.page_html(runs.run())
    assert "<script" not in page and "<img" not in page and page.count("&lt;script&gt;") >= 5
    assert "default-src 'none'" in page and not re.search(r"(?:src|href)=\"(?!#)", page.replace("xlink:", ""))
    assert cards.ARABIC in page
    assert page.count("<svg") == 9 and len(re.findall(r'role="img"', page)) == 9


def test_a_confusion_matrix_is_shaded_by_row() -> None:
    page = html.page_html(runs.run(), lambda plot: "")
    assert page.count('style="--to: 48">10</td>') == 12 and page.count('style="--to: 5">1</td>') == 12 * 11  # 10 and 1 of 21
