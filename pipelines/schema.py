"""The types that travel along the line, the names of a dataset's files, and the one exception users see.

Nothing here imports Beam, TensorFlow or pyarrow, so that the trainer can share it.
"""

import hashlib
import re
from dataclasses import dataclass, field

from pipelines.wikis import UNKNOWN_WIKI, Wiki

FORMAT_VERSION = 1
PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MANIFEST = "dataset.json"
VOCAB = "vocab.txt"
WORK = ".work"
RUN = "run.json"
PREVIOUS = f"{WORK}/previous.json"  # the manifest of the dataset that is being updated

# google-research/bert's features: name -> (dtype, the configuration field that gives its length, or None for 1).
FEATURES = {
    "input_ids": ("int64", "max_seq_length"),
    "input_mask": ("int64", "max_seq_length"),
    "segment_ids": ("int64", "max_seq_length"),
    "masked_lm_positions": ("int64", "max_predictions"),
    "masked_lm_ids": ("int64", "max_predictions"),
    "masked_lm_weights": ("float32", "max_predictions"),
    "next_sentence_labels": ("int64", None),
}
MAX_MESSAGE = 2000  # characters
_LINE_ENDS = re.compile("\\s*[\n\r\v\f\x85\u2028\u2029]\\s*")


class UserError(Exception):
    """A mistake that the user can mend: one sentence that names the file, what is wrong and what to do.

    Names and values out of files stand in it: it is kept to one line, and, of a very long one, to both ends.
    """

    def __str__(self) -> str:
        text = _LINE_ENDS.sub(" ", super().__str__())
        return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE // 2]} … {text[-MAX_MESSAGE // 2 :]}"


class CheckFailed(UserError):
    """A check found something in what was made: exit code 1 instead of 2."""


@dataclass(frozen=True)
class Document:
    """One document as a reader yields it.

    `kind` says what the text is: "text", "wikitext", or "sentences" (a line each, the BERT text convention).
    `source` is where it came from, for messages and rejects only: it never influences what is written.
    `wiki` is what the dump says of its wiki, for wikitext.
    """

    text: str
    title: str = ""
    source: str = ""
    kind: str = "text"
    wiki: Wiki = field(default=UNKNOWN_WIKI, compare=False, repr=False)


@dataclass(frozen=True)
class Dropped:
    """A record that does not become a document.

    `bad` tells a defective record (malformed, undecodable), which counts towards `--max-reject-rate`, from one
    that was left out by design (a redirect, another namespace, a filter).
    """

    reason: str
    source: str
    detail: str = ""
    excerpt: str = ""
    bad: bool = True


@dataclass(frozen=True)
class Figure:
    """An estimate and its range, all three equal for what was counted or follows by arithmetic.

    unit: "" for a count, "B", "s", "h" (of a core or chip), "x" (times) or "price" (in the unit that prices were given in).
    """

    name: str
    unit: str
    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Split:
    """A piece of an input file that one worker reads: bytes [start, end) of it, or Parquet row groups [start, end)."""

    path: str
    format: str
    compression: str
    start: int
    end: int
    size: int  # bytes on disk that this split stands for, for progress and rates
    stamp: str = ""  # size and modification time of the file, to tell a changed input from the same one


def split_id(split: Split) -> str:
    """A name for a split that changes when its file does."""
    return hashlib.blake2b(repr(split).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def shard_name(group: int, num_groups: int, num_eval_groups: int, copy: int) -> str:
    """The shard of one copy of one group, relative to the dataset's folder; eval groups follow the train groups."""
    if group < num_groups:
        return f"train/copy-{copy:02d}/examples-{group:05d}-of-{num_groups:05d}.tfrecord"
    return f"eval/examples-{group - num_groups:05d}-of-{num_eval_groups:05d}.tfrecord"
