"""What can be configured: frozen dataclasses whose fields are at once a command's flags and the YAML file's keys.

To add an option, add a field here; options.py makes flag, key, check and --help of it.
"""

import math
import re
from dataclasses import dataclass

from clozemill.pipelines.command_line.options import option
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.sentence_languages import KNOWN
from clozemill.pipelines.common.tokenizer_rules import TextRules


def clustered(dedup: str, eval_by: str) -> bool:
    """Whether near-duplicates must be known, by the options of those names."""
    return dedup == "near" or eval_by == "cluster"


@dataclass(frozen=True)
class InputOptions:
    """What is read and how it becomes clean text."""

    input: tuple[str, ...] = option((), "files or globs, local or remote; .gz, .bz2 and .zst are decompressed")
    format: str = option(
        "auto",
        "auto goes by the name: .xml, .jsonl, .parquet, .txt (bert)",
        choices=("auto", "wikixml", "jsonl", "parquet", "bert", "document"),
    )
    text_field: str = option("text", "the field or column that holds the text (jsonl, parquet)")
    title_field: str = option("title", "the field or column that holds the title; may be absent")
    id_field: str = option("id", "the field or column that names a record in messages and rejects; may be absent")
    headings: bool = option(False, "keep the headings of wikitext")
    cased: bool = option(False, "keep case and accents")
    strip_accents: bool | None = option(
        None, "remove accents (default: unless --cased); --no-strip-accents: keep them in lower case too"
    )
    tokenize_chinese_chars: bool = option(True, "make every Chinese character a word of its own, as BERT does")

    @property
    def rules(self) -> TextRules:
        """How the tokenizer deviates from google-research/bert's."""
        return TextRules(self.strip_accents, self.tokenize_chinese_chars)


@dataclass(frozen=True)
class RunOptions:
    """How it is run: nothing here changes a byte of the result."""

    runner: str = option("FnApiRunner", "a Beam runner by name; its own options are passed on", identity=False)
    num_workers: int = option(0, "processes on this machine; 0: as many as cores", low=0, high=1024, identity=False)
    in_memory: bool | None = option(None, "one process (default: when the input is small)", identity=False)
    progress: bool = option(True, "draw a progress bar", identity=False)
    max_reject_rate: float = option(0.01, "share of defective records that is put up with", low=0, high=1, identity=False)


@dataclass(frozen=True)
class VocabConfig(InputOptions, RunOptions):
    """`clozemill vocab`"""

    output: str = option("", "the vocabulary to write, e.g. vocab.txt", identity=False)
    vocab_size: int = option(30522, "entries, special tokens included", low=16, high=1 << 20)
    min_count: int = option(2, "words rarer than this are left out", low=1)
    max_alphabet: int = option(
        0,
        "characters that get entries of their own, most frequent first; 0: at least 1,000, and as many as cover 99.95 % of the "
        "text and leave room for pieces",
        low=0,
    )


@dataclass(frozen=True)
class PrepareConfig(InputOptions, RunOptions):
    """`clozemill prepare`"""

    vocab: str = option("", "vocab.txt, a token per line; special tokens are found by name", identity=False)
    output: str = option("", "the dataset's folder", identity=False)
    splitter: str = option("sentencex", "how text is split into sentences", choices=("sentencex", "none"))
    sentence_language: str = option(
        "en", f"the language whose rules the splitter uses, as ISO 639-1; it knows {', '.join(KNOWN)}, any other only roughly"
    )
    min_chars: int = option(0, "drop documents with fewer characters of clean text", low=0)
    min_sentences: int = option(1, "drop documents with fewer sentences", low=1)
    max_symbol_ratio: float = option(0.0, "drop documents with more '#' and ellipses per word (Gopher: 0.1); 0: off", low=0)
    max_repeated_sentences: float = option(
        0.0, "drop documents with a larger share of repeated sentences (Gopher: 0.3); 0: off", low=0, high=1
    )
    max_repeated_ngrams: float = option(
        0.0, "drop documents with a larger share of tokens in repeated 10-grams (Gopher: 0.1); 0: off", low=0, high=1
    )
    dedup: str = option(
        "exact",
        "of documents that are the same (exact) or nearly so (near, which reads the corpus twice), keep one",
        choices=("exact", "near", "none"),
    )
    near_threshold: float = option(
        0.8, "share of word 5-grams in common from which documents are near-duplicates", low=0.3, high=1
    )
    decontaminate: tuple[str, ...] = option(
        (),
        "evaluation sets (.csv .tsv .jsonl .json .txt): documents that share words in a row with one are dropped",
        identity=False,
    )
    decontaminate_words: int = option(13, "how many words in a row", low=2, high=100)
    language: str = option("", "keep documents in this language only, as ISO 639-1 (needs clozemill[language])")
    pairs: str = option("nsp", "next sentence, sentence order, or one run of sentences", choices=("nsp", "sop", "single"))
    masking: str = option("subword", "what is masked as a unit", choices=("subword", "whole_word", "span"))
    max_seq_length: int = option(128, "tokens per example, special tokens included", low=8, high=65536)
    max_predictions: int = option(
        0, "masked positions per example at most; 0: as many as the share asks for", low=0, high=65536
    )
    masked_lm_prob: float = option(0.15, "share of tokens to mask", low=0.0, high=1.0)
    short_seq_prob: float = option(0.1, "share of documents cut into shorter examples", low=0, high=1)
    dupe_factor: int = option(5, "copies of the train split, each with pairs and masks of its own", low=1, high=1000)
    eval_fraction: float = option(0.01, "share of documents that go to the eval split", low=0, high=0.5)
    eval_by: str = option(
        "document", "what goes to one side as a whole; cluster: near-duplicates do", choices=("document", "cluster")
    )
    num_groups: int = option(0, "train shards per copy; 0: from the bytes of the input on disk", low=0, high=1 << 24)
    compression: str = option("none", "of the shards", choices=("none", "gzip"))
    provenance: bool = option(False, "write where each record comes from, as Parquet")
    seed: int = option(0, "of everything random", low=0, high=2**63 - 1)
    update: bool = option(False, "the dataset is there; remake only groups whose documents changed", identity=False)
    sources: tuple[str, ...] = option((), "for the data card: where the text is from", identity=False, metavar="TEXT")
    licenses: tuple[str, ...] = option((), "for the data card: the licences of the text", identity=False, metavar="TEXT")
    languages: tuple[str, ...] = option((), "for the data card: the languages of the text", identity=False, metavar="TEXT")
    gate: bool = option(
        True,
        "stop a dataset whose statistics are not what they must be, or whose labels a linear classifier can tell",
        identity=False,
    )
    shuffle: str = option(
        "auto",
        "files: on this machine's disk; beam: by the engine; auto: files for FnApiRunner",
        choices=("auto", "files", "beam"),
        identity=False,
    )

    def predictions(self) -> int:
        """max_predictions, or enough for the share of a whole example: 20 at length 128."""
        enough = min(math.ceil(self.masked_lm_prob * self.max_seq_length), self.max_seq_length - 3)
        return self.max_predictions or enough

    @property
    def clustered(self) -> bool:
        """Whether near-duplicates must be known."""
        return clustered(self.dedup, self.eval_by)

    def validate(self) -> None:
        """Raises UserError for values that don't fit each other."""
        if self.max_predictions > self.max_seq_length - 3:
            raise UserError(
                f"--max-predictions {self.max_predictions} is more than the {self.max_seq_length - 3} tokens "
                f"that --max-seq-length {self.max_seq_length} leaves besides [CLS] and [SEP]: lower it"
            )
        for name in ("language", "sentence_language"):
            if not re.fullmatch("[a-z]{2,3}|", getattr(self, name)):
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} is {getattr(self, name)!r}: give an ISO 639-1 code in small letters, such as de")
        if self.masked_lm_prob == 0:
            raise UserError("--masked-lm-prob 0 would mask one token per example all the same: give a share above 0")


@dataclass(frozen=True)
class VerifyConfig:
    """`clozemill verify`"""

    dataset: str = option("", "the dataset's folder", flag=False)
    max_lines: int = option(20, "violations printed at most (all are counted)", low=1)
    gate: bool = option(True, "with --no-gate, a dataset made with --no-gate may fail the statistical gate")
    num_workers: int = option(0, "processes; 0: as many as cores", low=0, high=1024)
    progress: bool = option(True, "draw a progress bar")


@dataclass(frozen=True)
class InspectConfig:
    """`clozemill inspect`"""

    dataset: str = option("", "the dataset's folder", flag=False)
    limit: int = option(5, "records shown", low=1)
    split: str = option("train", "which split", choices=("train", "eval"))
    copy: int = option(0, "which copy of the train split", low=0)
    group: int = option(0, "which shard", low=0)
    offset: int = option(0, "records skipped first", low=0)
    html: str = option("", "write the records to this file instead, as a page with masks and segments in colour")
    report: bool = option(False, "draw the dataset's report.html and report.md again, instead of showing records")


@dataclass(frozen=True)
class DemoConfig:
    """`clozemill demo`"""

    output: str = option("demo-out", "the folder to write to; made anew")
    vocab_size: int = option(4000, "entries of the demo's vocabulary", low=16, high=1 << 20)
    seed: int = option(7, "of everything random", low=0, high=2**63 - 1)
    text: str = option("The old bridge was repaired by an engineer.", "the sentence that the fine-tuned model answers for")
    progress: bool = option(True, "draw a progress bar")
