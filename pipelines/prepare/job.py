"""The resolved configuration of a run, as its workers receive it."""

from dataclasses import dataclass, replace
from functools import lru_cache

from clozemill.pipelines.beam import run_lock
from clozemill.pipelines.config import PrepareConfig
from clozemill.pipelines.dataset.layout import VOCAB
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.filtering.word_ngrams import Words
from clozemill.pipelines.prepare.dataset_folder import DatasetFolder
from clozemill.pipelines.readers.input_split import InputSplit, split_id
from clozemill.pipelines.shuffle.shuffles import SHUFFLES, BeamShuffle
from clozemill.pipelines.shuffle.spill import FilesShuffle
from clozemill.pipelines.text.vocabulary import Vocabulary

GROUP_TEXT_BYTES = 12 << 20  # of clean text, about 3 million tokens: a group fits into memory many times


def resolved(config: PrepareConfig, text_estimate: int) -> tuple[PrepareConfig, int]:
    """Return the configuration with resolved numbers of groups and predictions, and the number of eval groups.

    text_estimate: expected bytes of clean text, from the size of the input on disk.
    """
    groups = config.num_groups or max(1, -(-text_estimate // GROUP_TEXT_BYTES))
    eval_groups = max(1, round(groups * config.eval_fraction)) if config.eval_fraction else 0
    return replace(config, num_groups=groups, max_predictions=config.predictions()), eval_groups


@dataclass(frozen=True)
class Job:
    """Everything that a worker needs.

    config: with num_groups resolved. vocabulary: bytes of vocab.txt. evaluation: digest of the evaluation sets whose n-grams
    are in the work folder, or "". exclusion: digest of the excluded ids, which are there, too, or "". run: a hash of everything
    that affects the output, which intermediate files carry. splits: number of splits of the input; 0: unknown.
    """

    config: PrepareConfig
    vocabulary: bytes
    num_eval_groups: int
    shuffle: str
    folder: DatasetFolder
    evaluation: str = ""
    exclusion: str = ""
    run: str = ""
    splits: int = 0

    @property
    def total_groups(self) -> int:
        """Number of train and eval groups."""
        return self.config.num_groups + self.num_eval_groups

    @property
    def workers_log(self) -> str:
        """The log file of the workers: on this machine, if their output is here; "" if they may be on others."""
        if not filesystem.is_remote(self.folder.path):
            return self.folder.work_file(run_lock.WORKERS_LOG)
        return filesystem.join(self.folder.spill, run_lock.WORKERS_LOG) if self.shuffle == "files" else ""

    def make_shuffle(self, part: str = "") -> FilesShuffle | BeamShuffle:
        """Return the shuffle of documents, or one for a part that has its own folder."""
        folder = filesystem.join(self.folder.spill, part) if part else self.folder.spill
        return SHUFFLES[self.shuffle](folder, self.total_groups, self.run, self.splits)

    def split_name(self, split: InputSplit) -> str:
        """Return the name of a split's intermediate files; it differs between runs."""
        return f"{split_id(split)}-{self.run[:16]}"


@lru_cache(maxsize=2)
def load_vocabulary(data: bytes) -> Vocabulary:
    """Return the vocabulary, parsed once per process."""
    return Vocabulary.from_bytes(data, VOCAB)


@lru_cache(maxsize=2)
def load_words(data: bytes) -> Words:
    """Return the words of a vocabulary, computed once per process."""
    return Words(load_vocabulary(data))
