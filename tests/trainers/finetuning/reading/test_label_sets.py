"""Sets of labels as files have them."""

import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.reading.label_sets import labels_of
from clozemill.trainers.finetuning.task_presets import Layout

LISTS = Layout(label="labels")


@pytest.mark.parametrize(
    ("value", "separator", "expected"),
    [
        (["a", " b "], "", ["a", "b"]),
        (3, "", ["3"]),
        ([], "", []),
        ([3, 1], "", ["3", "1"]),
        ([1.0], "", ["1"]),
        ([0.0, 2.0], "", ["0", "2"]),
        ('["a", "b, c"]', "", ["a", "b, c"]),
        ("['a', 'b']", "", ["a", "b"]),  # as pandas writes a column of lists
        ("""[ 'a,]',"it's" , 'b\\'c',\n]""", "", ["a,]", "it's", "b'c"]),
        ("[]", ",", []),
        ("a, b ,c", ",", ["a", "b", "c"]),
        ("a|b|", "|", ["a", "b"]),
        ("a, b;c", ";", ["a, b", "c"]),
        ("a b", " ", ["a", "b"]),
        ("a", "", ["a"]),
        (" ", "", []),
        ("", ";", []),
    ],
)
def test_lists_and_cells(value: object, separator: str, expected: list[str]) -> None:
    layout = Layout(label="labels", separator=separator)
    assert labels_of(("a.tsv, line 2", {"text": "x", "labels": value}), layout, {}) == tuple(expected)


def test_columns_of_0_and_1() -> None:
    layout = Layout(flags=("a", "b", "c", "d", "e", "f"))
    row = {"text": "x", "a": "1", "b": 0, "c": True, "d": 1.0, "e": " False ", "f": "1.0"}
    assert labels_of(("a.csv, line 2", row), layout, {}) == ("a", "c", "d", "f")
    assert layout.columns(True) == [("text", "--text-column"), *((name, "--label-columns") for name in "abcdef")]
    assert layout.columns(False) == [("text", "--text-column")]


def test_names_of_labels() -> None:
    row = ("a.csv, line 2", {"labels": [1, "0"]})
    assert labels_of(row, LISTS, {"0": "no", "1": "yes"}) == ("yes", "no")
    with pytest.raises(UserError, match="line 2: its label '2' is not one of 0, 1: fix it"):
        labels_of(("a.csv, line 2", {"labels": "2"}), LISTS, {"0": "no", "1": "yes"})


@pytest.mark.parametrize(
    ("values", "layout", "told"),
    [
        ({"labels": "a;b"}, LISTS, "a.csv, line 2: its labels 'a;b' hold ';': give --label-separator"),
        ({"labels": None}, LISTS, "its 'labels' is null: give a list; [] for an example without labels"),
        ({"labels": ["a", "nan"]}, LISTS, "its label 'nan' is a missing value"),
        ({"labels": {"a": 1}}, LISTS, "not a list of labels"),
        ({"labels": ["a", ""]}, LISTS, "its 'labels' is empty"),
        ({"labels": ["a", None]}, LISTS, "its 'labels' is empty"),
        ({"labels": [["a"]]}, LISTS, "its label is a list: ['a']"),
        ({"labels": "[0x" + "f" * 9000 + "]"}, LISTS, "are not a JSON list"),
        ({"labels": "[a, b]"}, LISTS, "its labels '[a, b]' are not a JSON list"),
        ({"labels": "['anger' 'joy']"}, LISTS, """its labels "['anger' 'joy']" are not a JSON list: fix it"""),
        ({"labels": "['anger'\n 'joy']"}, LISTS, "are not a JSON list"),
        ({"labels": "['anger', 'sad' 'joy']"}, LISTS, "are not a JSON list"),
        ({"labels": "['a'" + ", 'b'" * 100_000 + " 'c']"}, LISTS, "are not a JSON list"),
        ({"labels": "set()"}, LISTS, "its labels 'set()' are not a JSON list: fix it"),
        ({"labels": "{'a'}"}, LISTS, """its labels "{'a'}" are not a JSON list: fix it"""),
        ({"labels": "{'a', 'b'}"}, Layout(label="labels", separator=","), "are not a JSON list"),
        ({"labels": '{"a": 1}'}, LISTS, "are not a JSON list"),
        (
            {"labels": [0, 1, 0]},
            LISTS,
            "a.csv, line 2: its 'labels' has the label '0' twice: remove one, or, for a vector of 0 and 1, write one column "
            "per label and give --label-columns",
        ),
        (
            {"labels": [1.0, 0.0]},
            LISTS,
            "a.csv, line 2: its 'labels' is a vector of 0 and 1, not a list of labels: write one column per label and give "
            "--label-columns",
        ),
        ({"labels": "[true, false]"}, LISTS, "its 'labels' is a vector of 0 and 1"),
        ({"labels": "a;b; a"}, Layout(label="labels", separator=";"), "its 'labels' has the label 'a' twice: remove one"),
        ({"labels": "[" * 100_000 + "]"}, LISTS, "are not a JSON list"),
        ({"labels": "a," * 600_000}, Layout(label="labels", separator=","), "its labels have 1,200,000 characters"),
        ({"text": "x"}, LISTS, "no column 'labels' (columns: text): give one of these with --label-column, or --label-columns"),
        ({"a": "2"}, Layout(flags=("a",)), "its 'a' is '2', not 0 or 1"),
        ({"a": ""}, Layout(flags=("a",)), "its 'a' is ''"),
        ({"a": 1}, Layout(flags=("a", "b")), "no column 'b' (columns: a): give one of these with --label-columns"),
    ],
)
def test_what_is_no_set_of_labels(values: dict, layout: Layout, told: str) -> None:
    with pytest.raises(UserError) as error:
        labels_of(("a.csv, line 2", values), layout, {})
    assert told in str(error.value)
