"""Complete manifests with chosen shards, for tests of readers of dataset.json; without Beam."""

from collections.abc import Iterable, Sequence
from typing import Any

from clozemill.pipelines.command_line.options import identity
from clozemill.pipelines.config import PrepareConfig
from clozemill.pipelines.dataset import manifest
from clozemill.pipelines.dataset.layout import shard_name
from clozemill.pipelines.examples.assemble import STATISTICS

DOCUMENTS = dict.fromkeys(("read", "kept", "defective", "characters", "sentences", "tokens", "unknown_tokens"), 0)
SHA256 = "0a" * 32


def whole(
    train: Sequence[Sequence[int]],
    evaluation: Sequence[int] = (),
    vocabulary: dict[str, Any] | None = None,
    about: Iterable[dict[str, Any]] = (),
    **config: Any,
) -> dict[str, Any]:
    """Return a manifest whose train split has `train[copy][group]` examples, and its eval split `evaluation[group]`.

    about: further fields of each shard, in the order of `places`. config: options that differ from the defaults.
    """
    groups = len(train[0]) if train else 0
    rows, more = [], iter(about)
    for split, copy, group, size in places(train, evaluation):
        shard = {"name": shard_name(group, groups, len(evaluation), copy), "split": split, "group": group, "copy": copy}
        shard |= {"repeated_sentences": 0, "examples": size, "bytes": 0, "sha256": SHA256, "labels_forced": 0}
        shard |= {"labels_drawn": size, "random_prob": 0.5, "counts": dict.fromkeys(STATISTICS, 0) | {"examples": size}}
        shard |= next(more, {})
        rows.append({"split": split, "group": group, "documents": size, "duplicates": 0, "shards": [shard], "files": {}})
    options = PrepareConfig(num_groups=groups, dupe_factor=max(len(train), 1), **config)
    full = {"input": list(options.input), **identity(options)}
    told = vocabulary or {"sha256": SHA256, "size": 5, "cased": False}
    built = manifest.build(full, told, DOCUMENTS | {"dropped": {}}, rows, len(evaluation))
    built["datasheet"] = {name: [] for name in ("sources", "licenses", "languages")}
    return built | {"statistics": {"sha256": SHA256}, "gate": {"passed": True, "overridden": False}}


def places(train: Sequence[Sequence[int]], evaluation: Sequence[int]) -> list[tuple[str, int, int, int]]:
    """(split, copy, group, examples) of each shard."""
    groups = len(train[0]) if train else 0
    found = [("train", copy, group, size) for copy, row in enumerate(train) for group, size in enumerate(row)]
    return found + [("eval", 0, groups + group, size) for group, size in enumerate(evaluation)]
