"""Configuration of the pipeline commands: frozen dataclasses whose fields are both command-line flags and YAML keys.

To add an option, add a field here; options.py derives the flag, the YAML key, the checks and the --help text from it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from clozemill.pipelines.command_line.options import INPUT, NEW, OUTPUT, READ, RUNNING, option
from clozemill.pipelines.command_line.overwriting import START_OVER, OverwriteOption, overwrite_option
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.sentence_languages import KNOWN
from clozemill.pipelines.common.tokenizer_rules import TextRules


def clustered(dedup: str, eval_by: str) -> bool:
    """Whether these values of --dedup and --eval-by require a search for near-duplicates."""
    return dedup == "near" or eval_by == "cluster"


@dataclass(frozen=True)
class InputOptions:
    """Options for the input and for how it becomes clean text."""

    input: tuple[str, ...] = option(
        (), "input files or globs, local or remote; .gz, .bz2 and .zst files are decompressed", group=INPUT, required=True
    )
    format: str = option(
        "auto",
        "format of the input; auto detects it from the file name: .xml, .jsonl (also .ndjson, .json), .parquet, .txt (bert)",
        choices=("auto", "wikixml", "jsonl", "parquet", "bert", "document"),
        group=INPUT,
    )
    text_field: str = option("text", "field or column that contains the text (jsonl, parquet)", group=INPUT)
    title_field: str = option("title", "field or column that contains the title (optional)", group=INPUT)
    id_field: str = option(
        "",
        "field or column that identifies a record; if given, its value is kept with the document, otherwise 'id' is shown in "
        "messages",
        group=INPUT,
    )
    headings: bool = option(False, "keep section headings of wikitext")
    cased: bool = option(False, "keep case and accents")
    strip_accents: bool | None = option(
        None, "remove accents (default: unless --cased); --no-strip-accents keeps them in uncased text"
    )
    tokenize_chinese_chars: bool = option(True, "treat every Chinese character as a separate word, as BERT does")

    @property
    def rules(self) -> TextRules:
        """How the tokenizer differs from google-research/bert's."""
        return TextRules(self.strip_accents, self.tokenize_chinese_chars)


@dataclass(frozen=True)
class RunOptions:
    """Options for how a command runs; none of them changes a byte of the result."""

    runner: str = option(
        "FnApiRunner",
        "name of the Beam runner; options of the runner itself are passed on to it",
        identity=False,
        group=RUNNING,
    )
    num_workers: int = option(
        0,
        "number of worker processes on this machine (0: one per core); with other runners than FnApiRunner, theirs",
        low=0,
        high=1024,
        identity=False,
        group=RUNNING,
    )
    in_memory: bool | None = option(
        None, "run in a single process (default: only for small input)", identity=False, group=RUNNING
    )
    progress: bool = option(True, "show a progress bar", identity=False, group=RUNNING)
    max_reject_rate: float = option(
        0.01, "maximum fraction of malformed records before the run fails", low=0, high=1, identity=False, group=RUNNING
    )


@dataclass(frozen=True)
class VocabConfig(OverwriteOption, InputOptions, RunOptions):
    """`clozemill vocab`. An option that is None isn't given; `vocab` replaces it before any text is read."""

    cased: bool = option(None, "keep case and accents (default: only if --extend does)")
    tokenize_chinese_chars: bool = option(
        None, "treat every Chinese character as a separate word, as BERT does (default: unless --extend doesn't)"
    )
    output: str = option(
        "", "the vocabulary file to write, e.g. vocab.txt", identity=False, group=OUTPUT, required=True, path=NEW
    )
    vocab_size: int | None = option(
        None, "number of vocabulary entries, including special tokens (default: 30522)", low=16, high=1 << 20
    )
    extend: str = option(
        "",
        "a vocabulary file to extend: its entries keep their numbers, and --add pieces follow them; its casing and accents are "
        "those recorded beside it, in FILE.yaml, dataset.json or checkpoint.json",
        identity=False,
        group=INPUT,
        path=READ,
    )
    add: int | None = option(
        None, "number of pieces to append to --extend: those that save the most tokens in the input", low=1, high=1 << 20
    )
    general: tuple[str, ...] = option(
        (),
        "files or globs of general text, read with the same options as --input, for which tokens per word are printed as well",
        identity=False,
        group=INPUT,
    )
    min_count: int = option(2, "minimum number of occurrences of a word; rarer words are ignored", low=1)
    max_alphabet: int = option(
        0,
        "number of characters that get their own entries, most frequent first; 0: at least 1,000, and as many as cover 99.95 % "
        "of the text and leave room for word pieces",
        low=0,
    )

    @property
    def size(self) -> int:
        """Return the number of entries of a new vocabulary."""
        return self.vocab_size or 30522

    @property
    def rules(self) -> TextRules:
        return TextRules(self.strip_accents, self.tokenize_chinese_chars is not False)

    def validate(self) -> None:
        """Raise UserError if options for a new vocabulary and for extending one are mixed."""
        for name in ("vocab_size", "max_alphabet"):
            if self.extend and getattr(self, name):
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} is for a new vocabulary, but --extend keeps one: leave {flag} out, and give --add")
        if self.extend and not self.add:
            raise UserError("--add is missing: give the number of pieces to append to --extend")
        for name in ("add", "general"):
            if not self.extend and getattr(self, name):
                raise UserError(f"--{name} needs --extend: give the vocabulary file to extend, or leave --{name} out")


@dataclass(frozen=True)
class DocumentOptions(InputOptions, RunOptions):
    """Options of `prepare` for what happens to each document before the shuffle."""

    vocab: str = option(
        "",
        "a vocabulary file such as vocab.txt, one token per line; special tokens are found by name",
        identity=False,
        group=INPUT,
        required=True,
    )
    output: str = option("", "the folder of the dataset to write", identity=False, group=OUTPUT, required=True)
    splitter: str = option("sentencex", "sentence splitter; none makes each line one sentence", choices=("sentencex", "none"))
    sentence_language: str = option(
        "en",
        f"language of the sentence splitter, as ISO 639-1; has rules for {', '.join(KNOWN)}; others are split approximately",
    )
    min_chars: int = option(0, "drop documents with fewer characters of clean text", low=0)
    min_sentences: int = option(1, "drop documents with fewer sentences", low=1)
    max_symbol_ratio: float = option(
        0.0, "drop documents with more '#' and ellipses per word than this (Gopher: 0.1); 0: off", low=0
    )
    max_repeated_sentences: float = option(
        0.0, "drop documents with a larger fraction of repeated sentences (Gopher: 0.3); 0: off", low=0, high=1
    )
    max_repeated_ngrams: float = option(
        0.0, "drop documents with a larger fraction of tokens in repeated 10-grams (Gopher: 0.1); 0: off", low=0, high=1
    )
    dedup: str = option(
        "exact",
        "which duplicate documents to remove: exact copies, near-duplicates too (reads the corpus twice), or none",
        choices=("exact", "near", "none"),
    )
    near_threshold: float = option(
        0.8, "minimum Jaccard similarity of word 5-grams for two documents to count as near-duplicates", low=0.3, high=1
    )
    decontaminate: tuple[str, ...] = option(
        (),
        "evaluation sets (.csv .tsv .jsonl .json .txt); drop documents that share a word n-gram with one of them",
        identity=False,
    )
    exclude_ids: str = option(
        "",
        "a file with one id per line; documents whose --id-field is one of them are dropped",
        identity=False,
        path=READ,
    )
    decontaminate_words: int = option(13, "length of the n-grams that --decontaminate compares, in words", low=2, high=100)
    language: str = option("", "keep only documents in this language, as ISO 639-1 (needs clozemill[language])")


@dataclass(frozen=True)
class ExampleConfig:
    """Options of `prepare` that decide the examples of a dataset and their shards; dataset.json contains all of them."""

    pairs: str = option(
        "nsp",
        "what an example is made of: next-sentence pairs, sentence-order pairs, or a single run of sentences",
        choices=("nsp", "sop", "single"),
    )
    masking: str = option("subword", "unit of masking", choices=("subword", "whole_word", "span"))
    max_seq_length: int = option(128, "maximum number of tokens per example, including special tokens", low=8, high=65536)
    max_predictions: int = option(
        0, "maximum number of masked positions per example; 0: derived from --masked-lm-prob", low=0, high=65536
    )
    masked_lm_prob: float = option(0.15, "fraction of tokens to mask", low=0.0, high=1.0)
    short_seq_prob: float = option(0.1, "fraction of documents that are cut into shorter examples", low=0, high=1)
    dupe_factor: int = option(
        5, "number of copies of the train split, each with its own sentence pairs and masks", low=1, high=1000
    )
    eval_fraction: float = option(0.01, "fraction of documents in the eval split", low=0, high=0.5)
    eval_by: str = option(
        "document",
        "unit of the train/eval split; 'cluster' keeps near-duplicates on the same side",
        choices=("document", "cluster"),
    )
    packing: str = option(
        "off",
        "on: put several examples into a row of --max-seq-length tokens, so that a trainer spends little on padding; off: one "
        "example per record, with the features of google-research/bert",
        choices=("on", "off"),
    )
    num_groups: int = option(
        0, "number of train shards per copy; 0: derived from the input size on disk", low=0, high=1 << 24, group=OUTPUT
    )
    compression: str = option("none", "compression of the shards", choices=("none", "gzip"), group=OUTPUT)
    provenance: bool = option(False, "write the source documents of each example to Parquet files", group=OUTPUT)
    seed: int = option(0, "random seed", low=0, high=2**63 - 1)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "ExampleConfig":
        """Return the options from the configuration in dataset.json."""
        return cls(**{field.name: config[field.name] for field in fields(cls) if field.name in config})

    def predictions(self) -> int:
        """Return max_predictions, or if it is 0, enough for a full-length example: 20 at length 128."""
        enough = min(math.ceil(self.masked_lm_prob * self.max_seq_length), self.max_seq_length - 3)
        return self.max_predictions or enough

    @property
    def special_tokens(self) -> int:
        """Number of [CLS] and [SEP] tokens of an example: two for a single run, three for a pair."""
        return 2 if self.pairs == "single" else 3

    @property
    def max_text_tokens(self) -> int:
        """Maximum number of tokens of A and B together."""
        return self.max_seq_length - self.special_tokens


@dataclass(frozen=True)
class PrepareConfig(ExampleConfig, DocumentOptions):
    """`clozemill prepare`"""

    update: bool = option(
        False, "update an existing dataset: rebuild only the shards whose documents changed", identity=False, group=OUTPUT,
        saved=False,
    )  # fmt: skip
    overwrite: bool = overwrite_option(START_OVER)
    sources: tuple[str, ...] = option(
        (), "sources of the text, for the data card", identity=False, metavar="TEXT", group=OUTPUT
    )
    licenses: tuple[str, ...] = option(
        (), "licences of the text, for the data card", identity=False, metavar="TEXT", group=OUTPUT
    )
    languages: tuple[str, ...] = option(
        (), "languages of the text, for the data card", identity=False, metavar="TEXT", group=OUTPUT
    )
    gate: bool = option(
        True,
        "fail if statistics fall outside their expected range, or if a linear classifier can predict the labels",
        identity=False,
    )
    shuffle: str = option(
        "auto",
        "where documents are shuffled; files: on this machine's disk; beam: by the engine; auto: files for FnApiRunner",
        choices=("auto", "files", "beam"),
        identity=False,
        group=RUNNING,
    )

    @property
    def clustered(self) -> bool:
        """Whether these options require a search for near-duplicates."""
        return clustered(self.dedup, self.eval_by)

    def validate(self) -> None:
        """Raise UserError if values contradict each other."""
        if self.max_predictions > self.max_seq_length - 3:
            raise UserError(
                f"--max-predictions {self.max_predictions} is more than the {self.max_seq_length - 3} tokens "
                f"that --max-seq-length {self.max_seq_length} leaves after [CLS] and [SEP]: lower it"
            )
        for name in ("language", "sentence_language"):
            if not re.fullmatch("[a-z]{2,3}|", getattr(self, name)):
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} is {getattr(self, name)!r}: give a lower-case ISO 639-1 code, such as de")
        if self.exclude_ids and not self.id_field:
            raise UserError("--exclude-ids needs --id-field: give the field or column whose values the file lists")
        if self.masked_lm_prob == 0:
            raise UserError("--masked-lm-prob is 0, but at least one token per example is always masked: give a value above 0")
