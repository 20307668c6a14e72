"""Examples in tokens, as a page shows them: segments, masked positions, and the meaning of the label."""

from clozemill.pipelines.examples.columns import Columns
from clozemill.pipelines.pages.content import Token
from clozemill.pipelines.text.vocabulary import Vocabulary

LABELS = {
    "nsp": ("B follows A", "B is random"),
    "sop": ("B follows A", "A and B are swapped"),
    "single": ("one run of sentences", ""),
}


def segment_tokens(columns: Columns, row: int, vocabulary: Vocabulary) -> dict[str, list[Token]]:
    """Return one example by segment, "A" and "B". Pieces without a prediction lose their ## where they are glued."""
    masked = columns.masked_lm_weights[row] > 0
    positions, ids = columns.masked_lm_positions[row][masked].tolist(), columns.masked_lm_ids[row][masked].tolist()
    originals = dict(zip(positions, ids, strict=True))
    segments: dict[str, list[Token]] = {}
    for place in range(int(columns.input_mask[row].sum())):
        now = int(columns.input_ids[row][place])
        side = segments.setdefault("AB"[int(columns.segment_ids[row][place])], [])
        shown, original = vocabulary.tokens[now], vocabulary.tokens[originals.get(place, now)]
        how = ""
        if place in originals:
            how = "kept" if originals[place] == now else "mask" if now == vocabulary.mask_id else "random"
        elif now in (vocabulary.cls_id, vocabulary.sep_id):
            how = "special"
        glued = original.startswith("##") and bool(side) and side[-1].how != "special"
        side.append(Token(shown[2:] if glued and not how else shown, original, how, glued))
    return segments
