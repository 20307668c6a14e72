"""Read plain text: BERT's format of one sentence per line, and files that are one document each."""

from collections.abc import Iterator

from clozemill.pipelines.config import InputOptions
from clozemill.pipelines.files import decompression
from clozemill.pipelines.readers import compression, delimited, document
from clozemill.pipelines.readers.document import Document, Record
from clozemill.pipelines.readers.input_split import InputSplit


def read_bert(split: InputSplit, options: InputOptions) -> Iterator[Record]:
    """Yield documents in google-research/bert's format: a sentence per line, an empty line between documents.

    A document belongs to the split that owns the empty line before it.
    """
    document.check_id_field(split.path, options, ())
    ours, begun, lines, size, number = split.start == 0, 0, bytearray(), 0, -1
    for number, (line, owned) in enumerate(delimited.lines(split)):
        if line is None or line.strip():
            if not (ours or owned):
                return
            size += document.MAX_RECORD + 1 if line is None else len(line) + 1
            if ours and line is not None and size <= document.MAX_RECORD:
                lines += line + b"\n"  # not a list: short lines would take 30 times their bytes
            elif ours:
                lines = bytearray(b"\n")  # placeholder for the dropped text
            continue
        if lines:
            yield _bert_document(lines, size, split, begun)
        ours, begun, lines, size = owned, number + 1, bytearray(), 0
        if not owned:
            return
    if lines:
        yield _bert_document(lines, size, split, begun)


def _bert_document(lines: bytearray, size: int, split: InputSplit, number: int) -> Record:
    source = f"{split.path}, line {number + 1}" + (f" after byte {split.start}" if split.start else "")
    if size > document.MAX_RECORD:
        return document.too_long(source)
    data = bytes(lines[:-1])
    try:
        return Document(data.decode("utf-8"), "", source, kind="sentences")
    except UnicodeDecodeError as error:
        return delimited.invalid_utf8(source, error, data)


def read_document(split: InputSplit, options: InputOptions) -> Iterator[Record]:
    """Yield the complete file as one document, with its name as the title."""
    document.check_id_field(split.path, options, ("title",))
    parts, size = [], 0
    for piece, _ in compression.pieces(split):
        parts.append(piece)
        size += len(piece)
        if size > document.MAX_RECORD:
            yield document.too_long(split.path)
            return
    data = b"".join(parts)
    try:
        title = decompression.compression_of(split.path.rsplit("/", 1)[-1])[1].rsplit(".", 1)[0]
        yield Document(data.decode("utf-8"), title, split.path, id=document.id_of({"title": title}.get, options))
    except UnicodeDecodeError as error:
        yield delimited.invalid_utf8(split.path, error, data)
