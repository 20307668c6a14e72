"""The fuzz targets of the pipelines: a target passes bytes to a parser, which accepts them or raises a one-line UserError.

Some targets also check the results: splits add up to the file, spans cover the text. The trainer's parsers are in
trainer_targets.py; `python -m tests.faults.fuzz.run` runs all of them.
"""

import argparse
import atexit
import bz2
import contextlib
import copy
import gzip
import io
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from clozemill.pipelines.command_line import options
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import ExampleConfig, InputOptions, PrepareConfig
from clozemill.pipelines.dataset import manifest, summary
from clozemill.pipelines.dataset.reading import read_contract
from clozemill.pipelines.examples import columns as examples_columns
from clozemill.pipelines.examples import packing, row_rules
from clozemill.pipelines.files import decompression
from clozemill.pipelines.files.filesystem import FileInfo
from clozemill.pipelines.quality import dataset_checks, invariants
from clozemill.pipelines.readers import compression as readers_compression
from clozemill.pipelines.readers import formats, parquet
from clozemill.pipelines.readers.document import Document, Rejected
from clozemill.pipelines.readers.input_split import InputSplit
from clozemill.pipelines.shards import tf_example, tfrecord
from clozemill.pipelines.text.cleaning import clean
from clozemill.pipelines.text.sentences import SPLITTERS, split
from clozemill.pipelines.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from clozemill.pipelines.wikitext import converter
from tests import contracts, corpora

MAX_BYTES = 100_000  # the size that a short input is expanded to; if that takes long, the parser is superlinear
MAX_UNPACKED = 1 << 20  # decompression bombs have their own tests


@dataclass(frozen=True)
class Target:
    """A harness. run: raises an error for a bug. seeds: initial inputs. words: tokens of the format."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()


_folders: list[str] = []


def scratch(name: str, data: bytes) -> str:
    """Return a file with these bytes, in memory if possible; each name is used for one file at a time."""
    if not _folders:
        _folders.append(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        atexit.register(shutil.rmtree, _folders[0], ignore_errors=True)
    path = os.path.join(_folders[0], name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    return path


@contextlib.contextmanager
def refusing(*others: type[Exception]) -> Iterator[None]:
    """Accept a UserError of one line, and the documented exceptions of a parser."""
    try:
        yield
    except UserError as error:
        assert "\n" not in str(error), error
    except others:
        pass


_TIMES = (1, MAX_BYTES, 256, 256, *[16] * 4, *[1] * 8)  # mostly small: a long input takes as long as 1,000 short ones


def blown_up(data: bytes) -> bytes:
    """Expand an input: the first byte says how often to repeat the unit, up to MAX_BYTES. The rest is: unit, or head NUL unit,
    or head NUL unit NUL tail."""
    times, body = _TIMES[data[0] % len(_TIMES)] if data else 1, data[1:]
    if times == 1:
        return body
    parts = body.split(b"\0", 2)
    head, unit, tail = [*([b""] if len(parts) == 1 else []), *parts, b""][:3]
    return head + unit * min(times, MAX_BYTES // max(len(unit), 1)) + tail


def repeated(*texts: str) -> list[bytes]:
    """Return seeds: texts unchanged, and repeated."""
    return [bytes([times]) + text.encode() for text in texts for times in range(3)]


# Wikitext


def run_wikitext(data: bytes) -> None:
    source = blown_up(data).decode("utf-8", "replace")
    text = converter.to_text(source, headings=len(data) % 2 == 1)
    assert len(text) <= 2 * len(source) + 100


_MARKUP = (
    b"[[ ]] {{ }} {| |} |- || !! '' ''' ''''' <ref> </ref> <ref/> <!-- --> <nowiki> </nowiki> <math> </math> == === __TOC__ "
    b"[http:// [//a &nbsp; &#x &#9 &lt; File: Category: convert| small| lang|fr| as.of| {{! {{{1|}}} <br/> <a ~~~~ ---- "
    b"( ; ) ,, :; * # {{frac| {{val| {{circa| {{nihongo| {{sic| {{ill| 's ]]] {{{{ [[[[ ="
)
WIKITEXT = (*_MARKUP.split(), b"\n", b"\n\n", b"\n==", b"\n|", b"\n{|", b" ,", b" .", b"( ", b"\0")


# Documents from files

_PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.ZstdCompressor().compress}
_NAMES = {"none": "", "gzip": ".gz", "bz2": ".bz2", "zst": ".zst"}


def _what(records: Iterator[Document | Rejected]) -> list[tuple]:
    """Return records without their locations, which depend on the start of the split."""
    return [
        (record.text, record.title, record.kind) if isinstance(record, Document) else (record.reason, record.excerpt)
        for record in records
    ]


def _small(path: str, compression: str, size: int) -> bool:
    """Return whether it decompresses to a size for which to run the parser."""
    unpacked = 0
    for piece, _ in readers_compression.pieces(InputSplit(path, "document", compression, 0, size, size)):
        unpacked += len(piece)
        if unpacked > MAX_UNPACKED:
            return False
    return True


def reading(format_: str) -> Callable[[bytes], None]:
    """Return a target for an entry of READERS. First byte: compression, by us or in the input; second: bytes per split."""

    def run(data: bytes) -> None:
        if len(data) < 3:
            return
        ending = list(_PACK)[data[0] % 4]
        body = blown_up(data[2:]) if data[0] & 4 or not ending else data[2:]
        packed = _PACK[ending](body) if data[0] & 4 else body
        path = scratch(f"input{ending}", packed)
        compression, _ = decompression.compression_of(path)
        info, reader, config = FileInfo(path, len(packed), ""), formats.READERS[format_], InputOptions(format=format_)
        with refusing():
            if not _small(path, compression, len(packed)):
                return
            whole = _what(reader.read(InputSplit(path, format_, compression, 0, len(packed), len(packed)), config))
            parts = reader.plan(info, format_, compression, max(len(packed) // (1 + data[1] % 7), 1 + data[1]))
            if ending != ".bz2" or data[0] & 4:  # a damaged .bz2 may contain the start of a stream anywhere
                assert whole == [record for part in parts for record in _what(reader.read(part, config))]
            for text, *more in whole:
                if format_ == "wikixml" and len(more) == 2 and len(text) <= MAX_BYTES:
                    converter.to_text(text)

    return run


def reading_seeds(plain: bytes) -> list[bytes]:
    """Return a file in every compression, in one split and in several."""
    packed = [bytes([number]) + b"\1" + pack(plain) for number, pack in enumerate(_PACK.values()) if number]
    streams = corpora.multistream(plain, range(50, len(plain), 100))
    return [bytes([number, 6, 0]) + plain for number in (0, 4, 5, 6, 7)] + packed + [b"\2\6" + streams]


TEXTS = ["The old bridge. It moves — “at night”.", "Élan vital, 中文 and more.\nA second line."]
XML = tuple(
    b"<page> </page> <title> </title> <ns>0</ns> <id>1</id> <revision> </revision> <text </text> <redirect <mediawiki "
    b'</mediawiki> <!DOCTYPE <!ENTITY &lt; &amp; &a; <![CDATA[ ]]> <!-- --> <?xml xml:space="preserve" <page/> xmlns='.split()
)
JSON = tuple(b'{"text": "title": "id": \\u00e9 \\ud800 \\ude00 null true 1e9 -0 [ ] { } }\n :{ "a" NaN'.split())


# Parquet


def run_parquet(data: bytes) -> None:
    path = scratch("input.parquet", data)
    config = InputOptions(format="parquet")
    with refusing():
        for part in parquet.plan_parquet(FileInfo(path, len(data), ""), "parquet", "none", 64):
            for _ in parquet.read_parquet(part, config):
                pass


def parquet_seeds() -> list[bytes]:
    found = []
    texts = ["The old bridge.", None, "é"] * 3
    columns = [texts, pa.array(texts, pa.large_string()), pa.array(texts).dictionary_encode(), [b"\xff", b"a", b""] * 3]
    columns += [[{"a": "b"}] * 9, [["a", "b"]] * 9, [10**17] * 9]
    for number, column in enumerate(columns):
        ids = pa.array([0, 1, 10**14] * 3, (pa.int64(), pa.timestamp("ns"), pa.timestamp("s"), pa.date64())[number % 4])
        file = io.BytesIO()
        codec = ("none", "snappy", "gzip", "zstd")[number % 4]
        pq.write_table(pa.table({"text": column, "title": texts, "id": ids}), file, 4, compression=codec)
        found.append(file.getvalue())
    return found


# TFRecord

LENGTH, PREDICTIONS = 12, 3
CONFIG = ExampleConfig("nsp", "whole_word", LENGTH, PREDICTIONS)
VOCABULARY = Vocabulary.from_tokens([*SPECIAL_TOKENS, "the", "old", "bridge", "##s", ".", "中", "e", "##e", "##́"])


def _frame(record: bytes, length: int | None = None) -> bytes:
    head = struct.pack("<Q", len(record) if length is None else length)
    crcs = (struct.pack("<I", tfrecord.masked_crc(part)) for part in (head, record))
    return b"".join((head, next(crcs), record, next(crcs)))


def run_tfrecord(data: bytes) -> None:
    """Read the bytes as a file, gzipped, and framed with valid CRCs around their content and length."""
    for compression in ("none", "gzip"):
        with refusing(tfrecord.CorruptRecord):
            list(tfrecord.read(data, compression))
    parts = data.split(b"\0\1")
    assert list(tfrecord.read(b"".join(map(_frame, parts)))) == parts
    (length,) = struct.unpack("<Q", data[:8].ljust(8, b"\0"))
    with refusing(tfrecord.CorruptRecord):
        list(tfrecord.read(_frame(data[8:], length)))
    assert list(tfrecord.read(gzip.compress(_frame(data), 1), "gzip")) == [data]


def _columns() -> examples_columns.Columns:
    cls, sep, mask = VOCABULARY.cls_id, VOCABULARY.sep_id, VOCABULARY.mask_id
    ids = [[cls, 5, mask, sep, 7, 8, 9, sep, 0, 0, 0, 0], [cls, mask, sep, 5, sep] + [0] * 7]
    inside = [[1] * 8 + [0] * 4, [1] * 5 + [0] * 7]
    segments = [[0] * 4 + [1] * 4 + [0] * 4, [0] * 3 + [1] * 2 + [0] * 7]
    masks = [[2, 0, 0], [1, 0, 0]], [[6, 0, 0], [5, 0, 0]]
    weights = np.array([[1, 0, 0], [1, 0, 0]], np.float32)
    return examples_columns.Columns(*map(np.array, (ids, inside, segments, *masks)), weights, np.array([0, 1]))


def run_example(data: bytes) -> None:
    """Decode a tf.train.Example; if it has the right features, `verify` must be able to check any values."""
    try:
        columns = tf_example.decode([data], LENGTH, PREDICTIONS)
    except ValueError:
        return
    list(invariants.find_violations(columns, CONFIG, VOCABULARY))


def run_row(data: bytes) -> None:
    """Decode a row of packed examples; if it has the right features, it is refused or unpacked, whatever its values."""
    try:
        packed = tf_example.decode_packed([data], LENGTH, {"max_examples": 4, "max_predictions": 2 * PREDICTIONS})
    except ValueError:
        return
    if list(row_rules.find_row_violations(packed, PREDICTIONS)):
        return
    columns = packing.unpack_examples(packed, PREDICTIONS)
    list(invariants.find_violations(columns, CONFIG, VOCABULARY))
    again = packing.pack_examples(columns, np.array([0, len(columns)]))
    assert all(np.array_equal(values, vars(packed)[name]) for name, values in vars(again).items())


def row_seeds() -> list[bytes]:
    parts, short = _columns(), _columns().take([1, 1])
    packed = [packing.pack_examples(parts, np.array([0, 1, 2])), packing.pack_examples(short, np.array([0, 2]))]
    return [record for rows in packed for record in tfrecord.read(tf_example.encode(rows).tobytes())]


def example_seeds() -> list[bytes]:
    return list(tfrecord.read(tf_example.encode(_columns()).tobytes()))


# Vocabulary and text


def run_vocab(data: bytes) -> None:
    """Load a vocabulary, and tokenize its own bytes as text with it."""
    with refusing():
        found = Vocabulary.from_bytes(data, "vocab.txt")
        text = data.decode("utf-8", "replace")
        found.casing_warning(True), found.casing_warning(False)
        for cased in (True, False):
            encoded = WordPiece(found, cased).encode(text.splitlines())
            assert ((encoded.ids >= 0) & (encoded.ids < len(found))).all()


TOKENIZERS = {cased: WordPiece(VOCABULARY, cased) for cased in (True, False)}


def run_text(data: bytes) -> None:
    """Run any text through cleaning, every splitter and the tokenizer: only white space is outside sentences."""
    raw = blown_up(data)
    try:
        text = clean(raw.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        text = clean(raw.decode("utf-8", "replace"))
    assert clean(text) == text
    for splitter in SPLITTERS:
        spans = split(text, splitter)
        edges = [0, *spans.ravel().tolist(), len(text)]
        assert edges == sorted(edges)
        assert not any(text[low:high].strip() for low, high in zip(edges[::2], edges[1::2], strict=True))
    for tokenizer in TOKENIZERS.values():
        encoded = tokenizer.encode_text(text, spans[:, 0], offsets=True)
        assert encoded.lengths.sum() == len(encoded.ids) and len(encoded.lengths) == len(spans)
        assert ((encoded.starts >= 0) & (encoded.starts < encoded.ends) & (encoded.ends <= len(text))).all()


# Contract and configuration


def _manifest() -> dict:
    return contracts.whole([[1]], (), {"sha256": VOCABULARY.sha256, "size": 14, "cased": False})


_VALUES = (None, True, 0, -1, 10**30, 1.5, "", "x", "../x", [], ["x"], {}, {"x": 1}, [[]], [{}], [None])


def _nodes(value: object) -> Iterator[tuple]:
    """Yield (container, key) of every value at any depth."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _nodes(value[key])


def _altered(data: bytes) -> bytes:
    """Return dataset.json with values replaced or removed, three bytes for each; signed if the first one is above 15."""
    found = _manifest()
    for low in range(1, min(len(data), 31) - 2, 3):
        nodes = list(_nodes(found))
        container, key = nodes[int.from_bytes(data[low : low + 2]) % max(len(nodes), 1)] if nodes else ({}, "")
        if data[low + 2] >= 240 and isinstance(container, dict):
            container.pop(key, None)
        else:
            container[key] = copy.deepcopy(_VALUES[data[low + 2] % len(_VALUES)])
    return manifest.dumps(found) if data[:1] > b"\x0f" else json.dumps(found).encode()


def run_manifest(data: bytes) -> None:
    """Read dataset.json like `verify`, compare it with itself, check and print it. First byte: ours altered, or the bytes."""
    told = data[1:] if not data or data[0] % 4 == 0 else _altered(data[1:])
    path = scratch("dataset/dataset.json", told)
    scratch("dataset/vocab.txt", ("\n".join(VOCABULARY.tokens) + "\n").encode())
    with refusing():
        contract, vocabulary = read_contract(os.path.dirname(path))
        list(dataset_checks.check_contract(contract, vocabulary))
        list(dataset_checks.check_files(os.path.dirname(path), contract))
        list(dataset_checks.check_documents(os.path.dirname(path), contract))
        summary.summary_lines(contract, None)


def manifest_seeds() -> list[bytes]:
    return [b"\0" + text for text in (manifest.dumps(_manifest()), b"{}", b'{"format_version": 1}', b"[[")] + [b"\1\xff\0\5\2"]


def run_yaml(data: bytes) -> None:
    path = scratch("job.yaml", blown_up(data))
    with refusing():
        options.resolve(PrepareConfig, argparse.Namespace(config=path, save_config=None))


def yaml_seeds() -> list[bytes]:
    texts = ["seed: 7\ninput: [a, 'b']\n", options.to_yaml(PrepareConfig()), "a: &a [x, *a]\n<<: {seed: 1}\n"]
    texts += ["- ", "[", "{a: ", "? ", "&a ", "a: 'x", "seed: 2001-01-01\n", "seed: !!float 1\n", "- &a [*a,\0*a,\0]"]
    return repeated(*texts)


YAML = tuple(
    b"--- ... - : ? & * ! | > ' \" % @ ` [ ] { } # << !! !!int !!float !!bool !!binary !!timestamp !!set !!omap !!pairs "
    b"!!python/object:os.system &a *a 0x 0b 1:2 2001-01-01 ~ null true .nan .inf seed: input: pairs: \\x \\u \\U %YAML".split()
)
PAGES = corpora.dump(["The [[old|bridge]]. {{lang|fr|x}} ''a''", "Second"])
TARGETS = {
    "wikitext": Target(run_wikitext, lambda: repeated(*map(bytes.decode, WIKITEXT)), WIKITEXT),
    "wikixml": Target(reading("wikixml"), lambda: reading_seeds(PAGES), XML),
    "jsonl": Target(reading("jsonl"), lambda: reading_seeds(corpora.jsonl(TEXTS)), JSON),
    "bert": Target(reading("bert"), lambda: reading_seeds(corpora.bert(TEXTS)), (b"\n", b"\n\n", b"\r\n", b"\xff")),
    "document": Target(reading("document"), lambda: reading_seeds("\n".join(TEXTS).encode())),
    "parquet": Target(run_parquet, parquet_seeds, (b"PAR1", b"text", b"id", b"\x15\x04", b"\x19\x18")),
    "tfrecord": Target(run_tfrecord, lambda: [tf_example.encode(_columns()).tobytes(), b"\xff" * 8, b"ab\0\1c"]),
    "example": Target(run_example, example_seeds, tuple(map(str.encode, tf_example.FEATURES))),
    "row": Target(run_row, row_seeds, tuple(map(str.encode, examples_columns.PACKED_FEATURES))),
    "vocab": Target(run_vocab, lambda: [("\n".join(VOCABULARY.tokens) + "\n").encode()], (*map(str.encode, SPECIAL_TOKENS),)),
    "text": Target(run_text, lambda: repeated(*TEXTS, "“a. ", "...", "e\u0301", "Mr. J. ", "\u3000", "ΑΣ", "\x85", "x" * 200)),
    "manifest": Target(run_manifest, manifest_seeds, JSON),
    "yaml": Target(run_yaml, yaml_seeds, YAML),
}
