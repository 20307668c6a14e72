"""Draw docs/images/line.svg: the steps from a corpus to a model. A test checks that the committed picture is current.

python docs/draw_line.py
"""

from html import escape
from pathlib import Path

PICTURE = Path(__file__).parent / "images/line.svg"
WIDTH, BOX, HEIGHT, GAP, ROW = 940, 148, 58, 20, 122  # pixels
# Each row: the commands that run it, its boxes as (title, caption), and whether each is a file or a folder.
ROWS = (
    (
        "clozemill vocab, prepare",
        (
            ("corpus", "XML, JSONL, Parquet", True),
            ("read and clean", "splits, wikitext, Unicode", False),
            ("filter", "quality, duplicates", False),
            ("tokenize", "sentences, wordpiece", False),
            ("shuffle", "the only one", False),
        ),
    ),
    (
        "clozemill prepare, verify, inspect",
        (
            ("pairs", "NSP, SOP, single", False),
            ("masks", "subword, word, span", False),
            ("TFRecord shards", "train copies, eval", True),
            ("gate", "statistics in range?", False),
            ("dataset.json", "digests, data card", True),
        ),
    ),
    (
        "clozemill pretrain, evaluate",
        (
            ("batches", "seekable, seeded", False),
            ("encoder", "BERT, ModernBERT", False),
            ("heads and losses", "masked LM, pairs", False),
            ("optimizer", "AdamW, Muon, LAMB", False),
            ("checkpoint", "weights, vocabulary", True),
        ),
    ),
    (
        "clozemill export, finetune, predict, embed",
        (
            ("SavedModel", "takes raw text", True),
            ("Hugging Face", "model and tokenizer", True),
            ("Keras file", "stock layers", True),
            ("fine-tuned model", "classes, tags, spans", True),
            ("predictions", "answers, features", True),
        ),
    ),
)
STYLE = """\
text { font-family: system-ui, sans-serif; fill: #1f2933 } .command { font-size: 13px; fill: #52606d }
.title { font-size: 14px; font-weight: 600 } .caption { font-size: 11px }
rect { fill: #ffffff; stroke: #52606d } .file { fill: #d9e8f6 } path { stroke: #52606d; fill: none; stroke-width: 1.5 }
.page { fill: #f7f9fb; stroke: none }
@media (prefers-color-scheme: dark) {
text { fill: #e4e7eb } .command { fill: #9aa5b1 } rect { fill: #1f2933; stroke: #9aa5b1 } .file { fill: #243b53 }
path { stroke: #9aa5b1 } .page { fill: #12181f }
}
"""


def _box(column: int, top: int, title: str, caption: str, file: bool) -> str:
    """Return a box with two lines of text; files and folders have rounded corners and another colour."""
    left = GAP + column * (BOX + 2 * GAP)
    middle, look = left + BOX // 2, ' class="file"' if file else ""
    return (
        f'<rect{look} x="{left}" y="{top}" width="{BOX}" height="{HEIGHT}" rx="{14 if file else 3}"/>\n'
        f'<text class="title" x="{middle}" y="{top + 25}" text-anchor="middle">{escape(title)}</text>\n'
        f'<text class="caption" x="{middle}" y="{top + 44}" text-anchor="middle">{escape(caption)}</text>\n'
    )


def _arrow(column: int, top: int) -> str:
    """Return an arrow from a box to the one on its right."""
    left, middle = GAP + column * (BOX + 2 * GAP) + BOX + 4, top + HEIGHT // 2
    right = left + 2 * GAP - 8
    return f'<path d="M{left} {middle}H{right}m-6 -4l6 4l-6 4"/>\n'


def _turn(top: int) -> str:
    """Return an arrow from the last box of a row to the first one of the next row."""
    start, end, low = GAP + 4 * (BOX + 2 * GAP) + BOX // 2, GAP + BOX // 2, top + HEIGHT
    return f'<path d="M{start} {low + 4}v14H{end}V{top + ROW - 6}m-4 -6l4 6l4 -6"/>\n'


def picture() -> str:
    """Return the picture as SVG."""
    height = ROW * len(ROWS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="line">\n',
        '<title id="line">From a corpus to a model, and the command that runs each part</title>\n',
        f'<style>{STYLE}</style>\n<rect class="page" width="{WIDTH}" height="{height}"/>\n',
    ]
    for number, (command, boxes) in enumerate(ROWS):
        top = number * ROW + 50
        last = number == len(ROWS) - 1  # its boxes are different results, not steps
        parts.append(f'<text class="command" x="{GAP + 84}" y="{top - 12}">{escape(command)}</text>\n')
        parts += [_box(column, top, *box) for column, box in enumerate(boxes)]
        parts += [_arrow(column, top) for column in range(len(boxes) - 1) if not last or column == 3]
        parts += [] if last else [_turn(top)]
    return "".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    PICTURE.write_text(picture(), "utf-8")
