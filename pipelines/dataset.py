"""A dataset's folder: its contract and vocabulary, and the files that the contract asks for."""

from typing import Any

from pipelines import clusters, filesystem, gate, manifest
from pipelines.config import clustered
from pipelines.provenance import documents_name, provenance_name
from pipelines.schema import MANIFEST, VOCAB, WORK, UserError, shard_name
from pipelines.wordpiece import Vocabulary


def read_contract(folder: str) -> tuple[dict[str, Any], Vocabulary]:
    """dataset.json and the vocabulary of a dataset. Raises UserError when there is none."""
    name = filesystem.join(folder, MANIFEST)
    if not filesystem.exists(name):
        why = "it is no dataset, or clozemill prepare has not finished it"
        if filesystem.exists(filesystem.join(folder, f"{WORK}/{gate.STOPPED_AT}")):
            why = "the statistical gate stopped it, see its report.html"
        raise UserError(f"{folder} holds no {MANIFEST}: {why}")
    contract = manifest.loads(filesystem.read_bytes(name), name)
    vocab = filesystem.join(folder, VOCAB)
    return contract, Vocabulary.from_bytes(filesystem.read_bytes(vocab), vocab)


def files_of(contract: dict[str, Any]) -> tuple[set[str], set[str]]:
    """The shards that the configuration asks for, and the other files."""
    config, evals = contract["config"], contract["num_eval_groups"]
    groups, copies = config["num_groups"], range(config["dupe_factor"])
    shards = {shard_name(group, groups, evals, copy) for group in range(groups) for copy in copies}
    shards |= {shard_name(group, groups, evals, 0) for group in range(groups, groups + evals)}
    files = {f"groups/{group:05d}.json" for group in range(groups + evals)}
    files |= {documents_name("train" if group < groups else "eval", group, groups) for group in range(groups + evals)}
    files |= {provenance_name(name) for name in shards} if config["provenance"] else set()
    return shards, files | ({clusters.NAME} if clustered(config["dedup"], config["eval_by"]) else set())
