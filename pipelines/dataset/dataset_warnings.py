"""Warnings about a valid dataset that a user should know before training on it: pure functions of dataset.json.

`prepare` and `verify` print them, and the data card shows them.
"""

import math
from collections.abc import Callable, Iterator

from clozemill.pipelines.common.formatting import counted
from clozemill.pipelines.dataset.manifest import Manifest, kept_text
from clozemill.pipelines.files.decompression import compression_of
from clozemill.pipelines.readers.document import UNCLOSED_DUMP
from clozemill.pipelines.text.left_out import LEAST_UNSPACED, unspaced_sentence

FEW_DOCUMENTS = 10  # in the train split: random next sentences come from one of them
FEW_EVAL_EXAMPLES = 100  # the standard error of an accuracy over this many is five points
_LONG_TEXT = 20_000  # tokens: more than the mean length of documents, unless they are books
_ALIKE = 0.05  # of the labels: if one label is this rare, always predicting the other is best


def _text_per_line(contract: Manifest) -> Iterator[str]:
    config, documents = contract["config"], contract["documents"]
    plain = [name for name in config.get("input", []) if compression_of(str(name))[1].endswith((".txt", ".text"))]
    if config.get("format", "auto") not in ("auto", "bert") or not plain or not 0 < documents["kept"] < FEW_DOCUMENTS:
        return
    lines = kept_text(contract, "sentences")
    if lines > FEW_DOCUMENTS * documents["kept"]:
        yield (
            f"all {lines:,} lines are in {counted(documents['kept'], 'document')}, because only an empty line "
            "ends a document in a .txt file: if each line is a separate text, put empty lines between them or convert the file "
            "to JSON lines; if each file is one document of prose, give --format document"
        )


def _unclosed_dumps(contract: Manifest) -> Iterator[str]:
    if count := contract["documents"].get("dropped", {}).get(UNCLOSED_DUMP):
        yield (
            f"{counted(count, 'MediaWiki dump')} without the closing </mediawiki>, as if cut off, so pages may be missing: "
            "compare with the size or checksum of the original, if it isn't an excerpt"
        )


def _few_documents(contract: Manifest) -> Iterator[str]:
    config, train = contract["config"], contract["splits"]["train"]
    if config["pairs"] == "nsp" and train["documents"] < max(FEW_DOCUMENTS, 2 * config["num_groups"]):
        yield (
            f"the train split has {counted(train['documents'], 'document')} in {counted(config['num_groups'], 'group')}, too "
            "few to draw random next sentences from: add documents, lower --num-groups, or give --pairs single or sop"
        )
    elif config["num_groups"] > max(train["documents"], 1):
        yield "there are more groups than documents: lower --num-groups"
    kept, tokens = contract["documents"]["kept"], kept_text(contract, "tokens")
    if kept >= FEW_DOCUMENTS and tokens > _LONG_TEXT * kept:
        yield (
            f"documents have {tokens // kept:,} tokens on average, which is typical of books: if they are collections, "
            "separate their texts, so that next sentences from another text don't count as the same document's"
        )


def _labels(contract: Manifest) -> Iterator[str]:
    config, train = contract["config"], contract["splits"]["train"]
    if config["pairs"] == "single" or not train["examples"]:
        return
    random = sum(counts["labels_random"] for counts in train["copies"].values())
    forced = sum(counts["forced_random"] for counts in train["copies"].values())
    if config["pairs"] == "nsp" and 2 * forced > train["examples"]:
        yield (
            "most chunks have one sentence, so most B segments are random: check that a line of the input is a sentence, "
            "or give --format document for prose"
        )
    share = random / train["examples"]
    if random in (0, train["examples"]):
        yield "all next-sentence labels are identical, so a model learns nothing from them: give --pairs single, or other text"
    elif not _ALIKE <= share <= 1 - _ALIKE:
        yield (
            f"{100 * max(share, 1 - share):.1f} % of the next-sentence labels are identical, so a model learns little from "
            "them: give --pairs single, or other text"
        )


def _enough(fraction: float, examples: int) -> str:
    """Return ' to about 0.09': the fraction that would give enough eval examples; "" if that is most of the corpus."""
    wanted = math.ceil(100 * fraction * FEW_EVAL_EXAMPLES / examples) / 100
    return f" to about {wanted:g}" if wanted <= 0.3 else ""


def _eval_split(contract: Manifest) -> Iterator[str]:
    fraction, examples = contract["config"]["eval_fraction"], contract["splits"].get("eval", {}).get("examples", 0)
    if fraction and not examples:
        yield (
            f"the eval split is empty, because --eval-fraction {fraction:g} of "
            f"{counted(contract['documents']['kept'], 'document')} selected none: add documents, raise --eval-fraction, or set "
            "it to 0"
        )
    elif fraction and examples < FEW_EVAL_EXAMPLES:
        yield (
            f"the eval split has {counted(examples, 'example')}, too few to compare models: add documents or "
            f"raise --eval-fraction{_enough(fraction, examples)}"
        )


def _unspaced(contract: Manifest) -> Iterator[str]:
    documents = contract["documents"]
    lost, whole = documents.get("unspaced_characters", 0), documents.get("characters", 0)
    if lost > LEAST_UNSPACED * whole:
        yield unspaced_sentence(lost, whole)


def _ids(contract: Manifest) -> Iterator[str]:
    if "ids" in contract:
        field, missing = contract["ids"]["field"], contract["documents"]["kept"] - contract["ids"]["documents"]
        if missing:
            yield f"{counted(missing, 'document')} without a value in {field!r} can't be traced or excluded: give each an id"
        if repeated := contract["ids"]["repeated"]:
            yield (
                f"{counted(repeated, 'value')} of {field!r} identified more than one document: --exclude-ids drops all of them"
            )
    if "exclusion" in contract and (unmatched := contract["exclusion"]["unmatched"]):
        yield f"{counted(unmatched, 'id')} in --exclude-ids matched no record: see rejects/unmatched-ids.jsonl"


_WARNINGS: tuple[Callable[[Manifest], Iterator[str]], ...] = (
    _text_per_line,
    _unspaced,
    _unclosed_dumps,
    _few_documents,
    _labels,
    _eval_split,
    _ids,
)


def dataset_warnings(contract: Manifest) -> list[str]:
    """Return a sentence for each weakness of a dataset, with what to do."""
    return [line for find in _WARNINGS for line in find(contract)]
