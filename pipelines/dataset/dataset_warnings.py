"""What a user should know of a dataset before training on it, though nothing of it is wrong: pure functions of dataset.json.

`prepare` and `verify` print these, and the data card shows them.
"""

from collections.abc import Callable, Iterator

from clozemill.pipelines.dataset.manifest import Manifest
from clozemill.pipelines.readers.compression import compression_of
from clozemill.pipelines.text.left_out import LEAST_UNSPACED, unspaced_sentence

FEW_DOCUMENTS = 10  # of the train split: a random next sentence comes from one of so few
FEW_EVAL_EXAMPLES = 100  # an accuracy over so many is off by ten points, two standard errors
_LONG_TEXT = 20_000  # tokens: more than documents hold on average, unless they are books
_ALIKE = 0.05  # of the labels: with so few of one kind, the other is always the better guess


def _text_per_line(contract: Manifest) -> Iterator[str]:
    config, documents = contract["config"], contract["documents"]
    plain = [name for name in config.get("input", []) if compression_of(str(name))[1].endswith((".txt", ".text"))]
    if config.get("format", "auto") not in ("auto", "bert") or not plain or not 0 < documents["kept"] < FEW_DOCUMENTS:
        return
    if documents["sentences"] > FEW_DOCUMENTS * documents["kept"]:
        yield (
            f"all {documents['sentences']:,} lines are in {documents['kept']:,} document(s), for in a .txt file only an empty "
            "line ends a document: if each line is a text of its own, put empty lines between them or convert the file to JSON "
            "lines; if each file is one document of prose, give --format document"
        )


def _few_documents(contract: Manifest) -> Iterator[str]:
    config, train = contract["config"], contract["splits"]["train"]
    if config["pairs"] == "nsp" and train["documents"] < max(FEW_DOCUMENTS, 2 * config["num_groups"]):
        yield (
            f"the train split has {train['documents']:,} document(s) in {config['num_groups']:,} group(s), too few to draw "
            "random next sentences from: give more documents or fewer --num-groups, or --pairs single or sop"
        )
    elif config["num_groups"] > max(train["documents"], 1):
        yield "there are more groups than documents: give fewer --num-groups"
    kept, tokens = contract["documents"]["kept"], contract["documents"]["tokens"]
    if kept >= FEW_DOCUMENTS and tokens > _LONG_TEXT * kept:
        yield (
            f"documents hold {tokens // kept:,} tokens on average, as books do: if they are collections of texts, separate "
            "those, so that next sentences of other texts don't pass for the same document's"
        )


def _labels(contract: Manifest) -> Iterator[str]:
    config, train = contract["config"], contract["splits"]["train"]
    if config["pairs"] == "single" or not train["examples"]:
        return
    random = sum(counts["labels_random"] for counts in train["copies"].values())
    forced = sum(counts["forced_random"] for counts in train["copies"].values())
    if config["pairs"] == "nsp" and 2 * forced > train["examples"]:
        yield (
            "most chunks hold one sentence, so most B's are random: is a line of the input a sentence? "
            "(--format document for prose)"
        )
    share = random / train["examples"]
    if random in (0, train["examples"]):
        yield "all next-sentence labels are the same, so they teach nothing: give --pairs single, or other text"
    elif not _ALIKE <= share <= 1 - _ALIKE:
        yield (
            f"{100 * max(share, 1 - share):.1f} % of the next-sentence labels are the same, so they teach hardly anything: "
            "give --pairs single, or other text"
        )


def _eval_split(contract: Manifest) -> Iterator[str]:
    fraction, examples = contract["config"]["eval_fraction"], contract["splits"].get("eval", {}).get("examples", 0)
    if fraction and not examples:
        yield (
            f"the eval split is empty, for --eval-fraction {fraction:g} of {contract['documents']['kept']:,} document(s) gave "
            "none: give more documents or a larger --eval-fraction, or 0 to do without"
        )
    elif fraction and examples < FEW_EVAL_EXAMPLES:
        yield (
            f"the eval split has {examples:,} example(s), too few to tell models apart: give more documents or a larger "
            "--eval-fraction"
        )


def _unspaced(contract: Manifest) -> Iterator[str]:
    documents = contract["documents"]
    lost, whole = documents.get("unspaced_characters", 0), documents.get("characters", 0)
    if lost > LEAST_UNSPACED * whole:
        yield unspaced_sentence(lost, whole)


_WARNINGS: tuple[Callable[[Manifest], Iterator[str]], ...] = (_text_per_line, _unspaced, _few_documents, _labels, _eval_split)


def dataset_warnings(contract: Manifest) -> list[str]:
    """A sentence for each weakness of a dataset, with what to do."""
    return [line for find in _WARNINGS for line in find(contract)]
