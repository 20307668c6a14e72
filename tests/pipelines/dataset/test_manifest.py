import copy
import dataclasses
import functools
import hashlib
import itertools
import json
import operator

import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import ExampleConfig, PrepareConfig
from clozemill.pipelines.dataset import manifest
from clozemill.pipelines.dataset.layout import FORMAT_VERSION
from clozemill.pipelines.examples.columns import FEATURES
from tests import contracts

SHARDS = [
    {"name": "train/copy-00/examples-00000-of-00002.tfrecord", "sha256": "0b" * 32},
    {"name": "train/copy-00/examples-00001-of-00002.tfrecord", "sha256": "0a" * 32},
    {"name": "eval/examples-00000-of-00001.tfrecord", "sha256": "ff" * 32},
]


def test_digest() -> None:
    """Equals `sha256sum eval/* train/*/* | sha256sum`."""
    lines = (
        f"{'ff' * 32}  eval/examples-00000-of-00001.tfrecord\n"
        f"{'0b' * 32}  train/copy-00/examples-00000-of-00002.tfrecord\n"
        f"{'0a' * 32}  train/copy-00/examples-00001-of-00002.tfrecord\n"
    )
    literal = "2370a8fb1f380eb89edb39bbec836765dd0ecdc1ce79a5c3ee912b1482d6bf31"
    assert hashlib.sha256(lines.encode()).hexdigest() == literal
    assert {manifest.dataset_digest(list(order)) for order in itertools.permutations(SHARDS)} == {literal}
    assert manifest.dataset_digest([]) == hashlib.sha256(b"").hexdigest()


def test_the_digest_distinguishes_names_from_contents() -> None:
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
    return {
        "split": split,
        "group": index,
        "documents": 7,
        "duplicates": index,
        "shards": shards,
        "files": {f"groups/{index:05d}.json": f"{index}" * 64},
    }


def test_build() -> None:
    config = {"max_seq_length": 64, "max_predictions": 9, "pairs": "nsp", "input": ["a"]}
    groups = [group("train", 0, 2), group("train", 1, 2), group("eval", 2, 1)]
    built = manifest.build(config, {"size": 5}, {"read": 30}, groups, 1)
    assert built["format_version"] == FORMAT_VERSION == 2
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


BUILT = contracts.whole([[3, 4], [3, 5]], [2], input=("é*", "a\udcff"), seed=7)


def test_round_trip() -> None:
    data = manifest.dumps(BUILT)
    assert data.endswith(b"}\n") and "é*".encode() in data
    assert manifest.loads(data, "dataset.json") == BUILT


def test_literal_signature() -> None:
    """The SHA-256 of the canonical JSON of all other fields: a JSON library is enough to check it."""
    told = {"share": 0.1, "config": {"seed": 7, "input": ["a\udcff"]}}
    rest = '{"config":{"input":["a\\udcff"],"seed":7},"share":0.1}'
    assert json.loads(manifest.dumps(told))["manifest_sha256"] == hashlib.sha256(rest.encode()).hexdigest()


@pytest.mark.parametrize(
    ("before", "after"), [(b'"seed": 7', b'"seed": 8'), (b"0.15", b"0.15000000000000002"), (b'"read"', b'"lead"')]
)
def test_an_edited_manifest_is_rejected(before: bytes, after: bytes) -> None:
    data = manifest.dumps(BUILT)
    with pytest.raises(UserError, match=r"^x was changed after it was written .*: restore it, or rebuild the dataset$"):
        manifest.loads(data.replace(before, after), "x")
    with pytest.raises(UserError, match="has no 'manifest_sha256'"):
        manifest.loads(json.dumps(BUILT).encode(), "x")
    assert manifest.loads(json.dumps(json.loads(data), sort_keys=True).encode(), "x") == BUILT  # formatted differently


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
def test_invalid_manifests_are_rejected(data: bytes) -> None:
    with pytest.raises(UserError, match=r"^x/dataset\.json is not a dataset's manifest: give the folder"):
        manifest.loads(data, "x/dataset.json")


def edited(place: tuple, value: object) -> bytes:
    """Return BUILT with a value replaced, or removed if it is None; signed."""
    whole = copy.deepcopy(BUILT)
    *path, last = place
    part = functools.reduce(operator.getitem, path, whole)
    if value is None:
        del part[last]
    else:
        part[last] = value
    return manifest.dumps(whole)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("digest",), 3, "digest must be string: rebuild"),
        (("digest",), None, r"it must contain \['digest'\] properties: rebuild"),
        (("config", "seed"), "7", "config.seed is a string: rebuild"),
        (("config", "seed"), [7], r"config.seed is \[7\]: give a whole number"),
        (("config", "pairs"), "both", "config.pairs is 'both': give one of nsp, sop, single"),
        (("config", "provenance"), None, r"config must contain \['provenance'\] properties: rebuild"),
        (("config", "input"), ["a", 1], r"config.input\[1\] must be string: rebuild"),
        (("documents", "dropped", "redirect"), -1, "documents.dropped.redirect must be bigger than or equal to 0: rebuild"),
        (("splits", "train", "copies", "00", "masked"), 1.5, "splits.train.copies.00.masked must be integer: rebuild"),
        (("splits", "test"), {}, r"splits must not contain \{'test'\} properties: rebuild"),
        (("shards", 0, "name"), "../../secret", r"shards\[0\].name must match pattern .*: rebuild"),
        (("shards", 0, "copy"), True, r"shards\[0\].copy must be integer: rebuild"),
        (("shards", 0, "copy"), 0.0, "shards.0.copy is a count, but has a decimal point: rebuild"),
        (("config", "num_groups"), 2.0, "config.num_groups is a count, but has a decimal point: rebuild"),
        (("num_eval_groups",), 1.0, "num_eval_groups is a count, but has a decimal point: rebuild"),
        (("max_seq_length",), 1 << 40, r"its max_seq_length values differ \(1099511627776 and \d+\): rebuild"),
        (("max_predictions",), 1, r"its max_predictions values differ \(1 and \d+\): rebuild"),
    ],
)
def test_invalid_fields_with_a_valid_signature_are_rejected(place: tuple, value: object, told: str) -> None:
    with pytest.raises(UserError, match=rf"^x/dataset\.json: {told}"):
        manifest.loads(edited(place, value), "x/dataset.json")


def test_non_finite_numbers_are_rejected() -> None:
    with pytest.raises(UserError, match=r"^x is not a dataset's manifest"):
        manifest.loads(edited(("shards", 0, "random_prob"), float("nan")), "x")


def test_shards_that_contradict_the_configuration_are_rejected() -> None:
    with pytest.raises(UserError, match=r"^x lists 5 shards, but its config requires 7: rebuild the dataset$"):
        manifest.loads(edited(("config", "num_groups"), 3), "x")


def test_unknown_options_are_ignored() -> None:
    assert manifest.loads(edited(("config", "of_a_later_version"), [1.0]), "x")["config"]["of_a_later_version"] == [1.0]


@pytest.mark.parametrize("version", [0, 3, "1", None, [1]])
def test_other_versions(version: object) -> None:
    with pytest.raises(UserError, match=r"has format version .*, not 1 or 2: use the version of clozemill that wrote it"):
        manifest.loads(json.dumps({"format_version": version}).encode(), "dataset.json")


def test_every_option_that_decides_the_examples_is_required() -> None:
    """So that ExampleConfig.of never takes a default for a missing one."""
    required = json.loads(manifest._SCHEMA.read_text())["properties"]["config"]["required"]
    assert {field.name for field in dataclasses.fields(ExampleConfig)} - {"packing"} <= set(required)  # absent in version 1
    config = PrepareConfig(pairs="sop", max_seq_length=64, dupe_factor=2, seed=3)
    assert ExampleConfig.of(vars(config)) == ExampleConfig("sop", max_seq_length=64, dupe_factor=2, seed=3)


def test_a_dataset_of_version_1_is_read() -> None:
    """As prepare wrote it before there were packed examples."""
    before = {name: value for name, value in BUILT.items() if name != "config"} | {"format_version": 1}
    before["config"] = {name: value for name, value in BUILT["config"].items() if name != "packing"}
    read = manifest.loads(manifest.dumps(before), "dataset.json")
    assert read == before and ExampleConfig.of(read["config"]) == ExampleConfig.of(BUILT["config"])


def test_records_of_a_shard() -> None:
    assert manifest.records_of({"examples": 7}) == 7
    assert manifest.records_of({"examples": 7, "rows": 3}) == 3
