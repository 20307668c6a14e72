"""A dataset's folder: its contract and vocabulary, and the files that the contract asks for."""

from typing import Any

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import layout, manifest
from clozemill.pipelines.dataset.layout import MANIFEST, VOCAB, WORK
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.text.vocabulary import Vocabulary


def read_contract(folder: str) -> tuple[dict[str, Any], Vocabulary]:
    """dataset.json and the vocabulary of a dataset. Raises UserError when there is none."""
    name = filesystem.join(folder, MANIFEST)
    if not filesystem.exists(name):
        why = "it is no dataset, or clozemill prepare has not finished it"
        if filesystem.exists(filesystem.join(folder, f"{WORK}/{layout.STOPPED_AT}")):
            why = "the statistical gate stopped it, see its report.html"
        raise UserError(f"{folder} holds no {MANIFEST}: {why}")
    contract = manifest.loads(filesystem.read_bytes(name), name)
    vocab = filesystem.join(folder, VOCAB)
    return contract, Vocabulary.from_bytes(filesystem.read_bytes(vocab), vocab)
