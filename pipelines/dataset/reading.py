"""Read the manifest and the vocabulary of a dataset folder."""

from typing import Any

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import manifest
from clozemill.pipelines.dataset.layout import MANIFEST, REJECTED, VOCAB
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.text.vocabulary import Vocabulary


def read_contract(folder: str) -> tuple[dict[str, Any], Vocabulary]:
    """Return dataset.json and the vocabulary of a dataset. Raise UserError if the folder has none."""
    name = filesystem.join(folder, MANIFEST)
    if not filesystem.exists(name):
        why = "it is not a dataset, or clozemill prepare has not finished it"
        if filesystem.exists(filesystem.join(folder, REJECTED)):
            why = "the statistical gate rejected it, see its report.html"
        raise UserError(f"{folder} contains no {MANIFEST}: {why}")
    contract = manifest.loads(filesystem.read_bytes(name), name)
    vocab = filesystem.join(folder, VOCAB)
    return contract, Vocabulary.from_bytes(filesystem.read_bytes(vocab), vocab)
