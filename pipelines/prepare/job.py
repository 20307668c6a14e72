"""The resolved configuration of a run, as its workers get it."""

from dataclasses import dataclass, replace
from functools import lru_cache

from clozemill.pipelines.config import PrepareConfig
from clozemill.pipelines.dataset.layout import VOCAB, WORK
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.filtering.word_ngrams import Words
from clozemill.pipelines.readers.input_split import InputSplit, split_id
from clozemill.pipelines.shuffle.shuffles import SHUFFLES, BeamShuffle
from clozemill.pipelines.shuffle.spill import FilesShuffle
from clozemill.pipelines.text.vocabulary import Vocabulary

Row = tuple[int, bytes]

REFUSED = "refused.txt"

GROUP_TEXT_BYTES = 12 << 20  # of clean text, about 3 million tokens: a group fits into memory many times over


def resolved(config: PrepareConfig, text_estimate: int) -> tuple[PrepareConfig, int]:
    """The configuration with its number of groups and of predictions, and the number of eval groups.

    text_estimate: bytes of clean text to expect, by the input's size on disk.
    """
    groups = config.num_groups or max(1, -(-text_estimate // GROUP_TEXT_BYTES))
    eval_groups = max(1, round(groups * config.eval_fraction)) if config.eval_fraction else 0
    return replace(config, num_groups=groups, max_predictions=config.predictions()), eval_groups


@dataclass(frozen=True)
class Job:
    """Everything a worker must know.

    config.num_groups is resolved. vocabulary: vocab.txt's bytes. spill: a local folder for the `files` shuffle.
    evaluation: the digest of the evaluation sets whose n-grams lie in the work folder, "" without any. run: a hash of all that
    decides what is written, which every intermediate file is bound to. splits: how many the input has; 0: not known.
    """

    config: PrepareConfig
    vocabulary: bytes
    num_eval_groups: int
    shuffle: str
    spill: str
    evaluation: str = ""
    run: str = ""
    splits: int = 0

    @property
    def folder(self) -> str:
        return self.config.output

    @property
    def total_groups(self) -> int:
        """Train groups, then eval groups; the row number after them carries the summaries of the splits."""
        return self.config.num_groups + self.num_eval_groups

    @property
    def datasheet(self) -> dict[str, list[str]]:
        """Sources, licences and languages as they were stated."""
        return {name: list(getattr(self.config, name)) for name in ("sources", "licenses", "languages")}

    def path(self, name: str) -> str:
        return filesystem.inside(self.folder, name)

    def work(self, name: str) -> str:
        return filesystem.inside(self.folder, f"{WORK}/{name}")

    def make_shuffle(self, part: str = "") -> FilesShuffle | BeamShuffle:
        """The shuffle of documents, or of a part that has a folder of its own."""
        folder = filesystem.join(self.spill, part) if part else self.spill
        return SHUFFLES[self.shuffle](folder, self.total_groups, self.run, self.splits)

    def split_name(self, split: InputSplit) -> str:
        """The name of a split's intermediate files: those of another run have others."""
        return f"{split_id(split)}-{self.run[:16]}"


@lru_cache(maxsize=2)
def load_vocabulary(data: bytes) -> Vocabulary:
    """The vocabulary, parsed once per process."""
    return Vocabulary.from_bytes(data, VOCAB)


@lru_cache(maxsize=2)
def load_words(data: bytes) -> Words:
    """The words of a vocabulary, likewise."""
    return Words(load_vocabulary(data))
