"""Names of the files in a dataset folder."""

from typing import Any

from clozemill.pipelines.config import clustered
from clozemill.pipelines.dataset import clusters

FORMAT_VERSION = 2  # version 1 had neither packed examples nor index.json

READABLE_VERSIONS = (1, 2)

MANIFEST = "dataset.json"

VOCAB = "vocab.txt"

WORK = ".work"

REJECTED = f"{WORK}/stopped"  # dataset.json, statistics.json and vocab.txt of a dataset that the statistical gate rejected

RUN = "run.json"

INDEX = "index.json"


def shard_name(group: int, num_groups: int, num_eval_groups: int, copy: int) -> str:
    """Return the shard of one copy of one group, relative to the dataset folder. Eval groups follow the train groups."""
    if group < num_groups:
        return f"train/copy-{copy:02d}/examples-{group:05d}-of-{num_groups:05d}.tfrecord"
    return f"eval/examples-{group - num_groups:05d}-of-{num_eval_groups:05d}.tfrecord"


def provenance_name(shard: str) -> str:
    """Return the Parquet file with one row per example of a shard."""
    return f"provenance/{shard.removesuffix('.tfrecord')}.parquet"


def documents_name(split: str, index: int, num_groups: int) -> str:
    """Return the Parquet file with one row per document of a group."""
    return f"documents/{split}-{index if split == 'train' else index - num_groups:05d}.parquet"


def has_index(contract: dict[str, Any]) -> bool:
    """Return whether a dataset has index.json: compressed shards can't be entered, and version 1 had none."""
    return contract["format_version"] > 1 and contract["config"]["compression"] == "none"


def files_of(contract: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Return the shards that the configuration implies, and the other files."""
    config, evals = contract["config"], contract["num_eval_groups"]
    groups, copies = config["num_groups"], range(config["dupe_factor"])
    shards = {shard_name(group, groups, evals, copy) for group in range(groups) for copy in copies}
    shards |= {shard_name(group, groups, evals, 0) for group in range(groups, groups + evals)}
    files = {f"groups/{group:05d}.json" for group in range(groups + evals)}
    files |= {documents_name("train" if group < groups else "eval", group, groups) for group in range(groups + evals)}
    files |= {provenance_name(name) for name in shards} if config["provenance"] else set()
    files |= {INDEX} if has_index(contract) else set()
    return shards, files | ({clusters.NAME} if clustered(config["dedup"], config["eval_by"]) else set())


HTML, MARKDOWN = "report.html", "report.md"
