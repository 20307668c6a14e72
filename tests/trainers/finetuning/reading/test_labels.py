"""What is a label: texts and numbers, without outer blanks; nothing empty, no lists, no missing values."""

from typing import Any

import pytest

from clozemill.trainers.finetuning.reading.labels import label_name
from clozemill.trainers.finetuning.reading.tables import BadRow


@pytest.mark.parametrize(
    ("value", "labels", "name"),
    [
        (" pos\t", "", "pos"),
        ("New York", "", "New York"),
        (True, "", "1"),
        (3, "", "3"),
        (3.0, "", "3"),
        (0.5, "", "0.5"),
        ("1.0", "0,1", "1"),
        ("-1.0", "-1,1", "-1"),
        ("1.0", "", "1.0"),
        (1.0, "0,1", "1"),
        ("none", "", "none"),
        ("None", "None,favor", "None"),
        ("nan", "nan,an", "nan"),  # languages
        ("NA", "DE,NA", "NA"),  # countries
        ("na", "", "na"),
    ],
)
def test_labels(value: Any, labels: str, name: str) -> None:
    known = {label: label for label in labels.split(",") if label}
    assert label_name("a.csv, line 2", "label", value, known) == name


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("", "its 'label' is empty"),
        (" \xa0", "its 'label' is empty"),
        (None, "its 'label' is empty"),
        ([], "its label is a list: []"),
        ({"a": 1}, "its label is a dict: {'a': 1}"),
        (b"pos", "its label is a bytes: b'pos'"),
        ("nan", "its label 'nan' is a missing value"),
        (float("nan"), "its label 'nan' is a missing value"),
        (float("-inf"), "its label '-inf' is a missing value"),
        (" None ", "its label 'None' is a missing value"),
        ("NULL", "its label 'NULL' is a missing value"),
        ("#N/A", "its label '#N/A' is a missing value"),
        ("NA", "its label 'NA' is a missing value"),
        ("N/A", "its label 'N/A' is a missing value"),
        ("n/a", "its label 'n/a' is a missing value"),
        ("<NA>", "its label '<NA>' is a missing value"),
    ],
)
def test_what_is_no_label(value: Any, sentence: str) -> None:
    with pytest.raises(BadRow) as error:
        label_name("a.csv, line 2", "label", value, {})
    assert str(error.value).startswith(f"a.csv, line 2: {sentence}: fix it, or give --label-column")


@pytest.mark.parametrize(("nameable", "end"), [(False, "--label-column"), (True, "--label-column or --labels")])
def test_an_unknown_label_names_only_options_of_the_command(nameable: bool, end: str) -> None:
    with pytest.raises(BadRow) as error:
        label_name("a.csv, line 2", "label", "c", {"a": "a", "b": "b"}, nameable=nameable)
    assert str(error.value) == f"a.csv, line 2: its label 'c' is not one of a, b: fix it, or give {end}"


def test_a_label_that_is_not_known() -> None:
    for value in ("2.0", "1.00", "pos", "None"):
        with pytest.raises(BadRow, match=f"its label '{value}' is not one of 0, 1: fix it"):
            label_name("a.csv, line 2", "label", value, {"0": "0", "1": "1"})
