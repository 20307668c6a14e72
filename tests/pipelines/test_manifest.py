import hashlib
import itertools
import json

import pytest

from pipelines import manifest
from pipelines.schema import FEATURES, FORMAT_VERSION, UserError

SHARDS = [
    {"name": "train/copy-00/examples-00000-of-00002.tfrecord", "sha256": "0b" * 32},
    {"name": "train/copy-00/examples-00001-of-00002.tfrecord", "sha256": "0a" * 32},
    {"name": "eval/examples-00000-of-00001.tfrecord", "sha256": "ff" * 32},
]


def test_digest() -> None:
    """As `sha256sum eval/* train/*/* | sha256sum` would have it."""
    lines = (
        f"{'ff' * 32}  eval/examples-00000-of-00001.tfrecord\n"
        f"{'0b' * 32}  train/copy-00/examples-00000-of-00002.tfrecord\n"
        f"{'0a' * 32}  train/copy-00/examples-00001-of-00002.tfrecord\n"
    )
    literal = "2370a8fb1f380eb89edb39bbec836765dd0ecdc1ce79a5c3ee912b1482d6bf31"
    assert hashlib.sha256(lines.encode()).hexdigest() == literal
    assert {manifest.dataset_digest(list(order)) for order in itertools.permutations(SHARDS)} == {literal}
    assert manifest.dataset_digest([]) == hashlib.sha256(b"").hexdigest()


def test_digest_tells_names_and_contents_apart() -> None:
    swapped = [{**SHARDS[0], "sha256": SHARDS[1]["sha256"]}, {**SHARDS[1], "sha256": SHARDS[0]["sha256"]}, SHARDS[2]]
    assert len({manifest.dataset_digest(shards) for shards in (SHARDS, swapped, SHARDS[:2])}) == 3


def group(split: str, index: int, copies: int) -> dict:
    shards = [
        {
            "name": f"{split}/copy-{copy:02d}/{index}",
            "split": split,
            "group": index,
            "copy": copy,
            "examples": 10 + copy,
            "bytes": 100,
            "sha256": f"{index}{copy}" * 32,
            "counts": {"examples": 10 + copy, "masked": 3 * index},
        }
        for copy in range(copies)
    ]
    return {"split": split, "group": index, "documents": 7, "duplicates": index, "shards": shards}


def test_build() -> None:
    config = {"max_seq_length": 64, "max_predictions": 9, "pairs": "nsp", "input": ["a"]}
    groups = [group("train", 0, 2), group("train", 1, 2), group("eval", 2, 1)]
    built = manifest.build(config, {"size": 5}, {"read": 30}, groups, 1)
    assert built["format_version"] == FORMAT_VERSION == 1
    assert (built["config"], built["vocabulary"]) == (config, {"size": 5})
    assert (built["max_seq_length"], built["max_predictions"]) == (64, 9)
    assert built["features"].keys() == FEATURES.keys()
    assert built["features"]["masked_lm_weights"] == "float32"
    assert built["documents"] == {"read": 30, "duplicates": 3}
    assert list(built["splits"]) == ["train", "eval"]
    assert built["splits"]["train"] == {
        "documents": 14,
        "examples": 42,
        "copies": {"00": {"examples": 20, "masked": 3}, "01": {"examples": 22, "masked": 3}},
    }
    assert built["splits"]["eval"] == {"documents": 7, "examples": 10, "copies": {"00": {"examples": 10, "masked": 6}}}
    names = [shard["name"] for shard in built["shards"]]
    assert names == sorted(names) and len(names) == 5
    assert not any("counts" in shard for shard in built["shards"])
    assert built["digest"] == manifest.dataset_digest(built["shards"])
    orders = {
        manifest.dumps(manifest.build(config, {"size": 5}, {"read": 30}, list(order), 1))
        for order in itertools.permutations(groups)
    }
    assert orders == {manifest.dumps(built)}


def test_round_trip() -> None:
    keys = ("digest", "vocabulary", "max_seq_length", "max_predictions", "num_eval_groups", "documents", "splits", "shards")
    built = {"format_version": 1, "config": {"input": ["é*", "中"]}, "share": 0.1} | dict.fromkeys(keys, 0)
    data = manifest.dumps(built)
    assert data.endswith(b"}\n") and "é*".encode() in data
    assert manifest.loads(data, "dataset.json") == built


def test_a_manifest_that_lost_a_part_is_told() -> None:
    with pytest.raises(UserError, match="lacks 'digest'"):
        manifest.loads(b'{"format_version": 1}', "dataset.json")


BUILT = {"format_version": 1, "config": {"input": ["a\udcff"], "seed": 7}, "share": 0.1} | dict.fromkeys(
    ("digest", "vocabulary", "max_seq_length", "max_predictions", "num_eval_groups", "documents", "splits", "shards"), 0
)


def test_the_signature_literally() -> None:
    """Of the canonical JSON of all else: whoever has a JSON library and SHA-256 can check it."""
    rest = (
        '{"config":{"input":["a\\udcff"],"seed":7},"digest":0,"documents":0,"format_version":1,"max_predictions":0,'
        '"max_seq_length":0,"num_eval_groups":0,"shards":0,"share":0.1,"splits":0,"vocabulary":0}'
    )
    assert json.loads(manifest.dumps(BUILT))["manifest_sha256"] == hashlib.sha256(rest.encode()).hexdigest()
    assert manifest.loads(manifest.dumps(BUILT), "dataset.json") == BUILT


@pytest.mark.parametrize(
    ("before", "after"), [(b'"seed": 7', b'"seed": 8'), (b"0.1", b"0.10000000000000002"), (b'"share"', b'"shore"')]
)
def test_a_manifest_edited_by_hand_is_refused(before: bytes, after: bytes) -> None:
    data = manifest.dumps(BUILT)
    with pytest.raises(UserError, match=r"^x was changed after it was written .*: restore it, or make the dataset anew$"):
        manifest.loads(data.replace(before, after), "x")
    with pytest.raises(UserError, match="lacks 'manifest_sha256'"):
        manifest.loads(json.dumps(BUILT).encode(), "x")
    assert manifest.loads(json.dumps(json.loads(data), sort_keys=True).encode(), "x") == BUILT  # laid out anew: the same


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b'"format_version"',
        b"{}",
        b'{"version": 1}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'["format_version"]',
    ],
)
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(UserError, match=r"^x/dataset\.json is not a dataset's manifest: give the folder"):
        manifest.loads(data, "x/dataset.json")


@pytest.mark.parametrize("version", [0, 2, "1", None, [1]])
def test_other_versions(version: object) -> None:
    with pytest.raises(UserError, match=r"has format version .*, not 1: use the clozemill that wrote it"):
        manifest.loads(json.dumps({"format_version": version}).encode(), "dataset.json")
