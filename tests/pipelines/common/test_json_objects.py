"""Lines of JSON: which fields of long ones are read, and the memory that takes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.common import json_objects
from clozemill.pipelines.common.json_objects import TooManyValues, parse_object

ROOT = Path(__file__).parents[3]
WANTED = ("text", "title", "id")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(['"', "\\", '\\"]}', "[{", "é\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


def flat(value: object) -> object:
    """Return the part of a value that is read from a long line."""
    if isinstance(value, list):
        return []
    return {name: type(each)() if isinstance(each, list | dict) else each for name, each in value.items()}


@given(value=st.dictionaries(st.sampled_from(["text", "title", "a", '"', "\\"]), VALUES) | st.lists(VALUES))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("separators", [(",", ":"), (" , ", " :\t")])
def test_nested_values_of_a_long_line_are_skipped(value: object, separators: tuple[str, str]) -> None:
    line = json.dumps(value, separators=separators).encode()
    assert parse_object(line, WANTED) == value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_objects, "LONG", 0)
        assert parse_object(line, WANTED) == flat(value)


@pytest.mark.parametrize("line", [b'{"a":[1,2', b'{"a":"b', b'{"a":1}}', b'{"a":[1]}]', b'{"a":{}}x', b'{"a":[1}}', b"{", b"x"])
def test_malformed_lines_of_any_length_are_rejected(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (1 << 20, 0):
        monkeypatch.setattr(json_objects, "LONG", limit)
        with pytest.raises(ValueError):
            parse_object(line, WANTED)


@pytest.mark.parametrize(
    ("line", "name"),
    [('{"text":"a","text":"b"}', "text"), ('{"id":{"id":1},"x":[{"title":1}],"id":2}', "id")],
)
def test_a_repeated_field_is_rejected(line: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"the field '{name}' occurs twice"):
        parse_object(line.encode(), WANTED)


def test_only_wanted_top_level_fields_count_as_repeated() -> None:
    line = '{"meta":{"id":1,"title":"t"},"id":2,"title":"\\"title\\"","a":1,"a":2}'
    assert parse_object(line.encode(), WANTED) == {"meta": {"id": 1, "title": "t"}, "id": 2, "title": '"title"', "a": 2}


@pytest.mark.parametrize(
    "line",
    [
        b'{"text":"t","x":[' + b"{}," * 150_000 + b"{}]}",
        b'{"text":"t","x":[' + b"1," * 400_000 + b"1]}",
        b'{"text":"t","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[" + b"{}," * 150_000 + b"{}]",
    ],
)
def test_parsing_a_long_line_does_not_depend_on_its_number_of_values(line: bytes) -> None:
    assert json_objects._without_nested(line) in (b'{"text":"t","x":[]}', b"[]")


SCRIPT = """
import json, resource, sys
from clozemill.pipelines.common.json_objects import parse_object
line = b'{"text":"t","x":[' + b"{}," * 12_000_000 + b"{}]}"
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    parse_object(line, ("text",))
except ValueError as error:
    print(type(error).__name__, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 2 * len(line))
"""


@pytest.mark.slow
def test_memory_of_a_process_that_reads_millions_of_objects() -> None:
    """As Python objects they would take a gigabyte."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "TooManyValues True\n"


def test_too_many_values_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_objects, "LONG", 100)
    monkeypatch.setattr(json_objects, "MAX_FIELDS", 50)
    monkeypatch.setattr(json_objects, "MAX_TOKENS", 1000)
    text = 'Commas, and [brackets], {and} \\"quotes\\" of a text, count for nothing. ' * 100
    assert parse_object(('{"text":"' + text + '"}').encode(), WANTED)["text"] == json.loads(f'"{text}"')
    for line in (
        json.dumps({str(number): 0 for number in range(60)}),
        json.dumps({"text": [{} for _ in range(600)]}),
        json.dumps({"text": ["" for _ in range(1200)]}),
    ):
        with pytest.raises(TooManyValues, match="more than 50 fields or 1,000 values"):
            parse_object(line.encode(), WANTED)
