"""What a group's summary counts, and which summaries of interrupted runs are used."""

from pathlib import Path
from types import SimpleNamespace

from clozemill.pipelines.files.sealed_json import write_sealed
from clozemill.pipelines.prepare.dataset_folder import DatasetFolder
from clozemill.pipelines.prepare.group_stage import GroupStage, text_counts
from tests import reference


def test_documents_are_counted_by_the_bit_length_of_their_tokens() -> None:
    sizes = [[1], [1, 2], [4], [3, 4], [4, 4], [255], [200, 56]]  # 1, 3, 4, 7, 8, 255 and 256 tokens
    counts = text_counts(reference.make_group([[[9] * size for size in document] for document in sizes]))
    assert (counts["sentences"], counts["tokens"]) == (11, 534)
    assert {bits: count for bits, count in enumerate(counts["token_lengths"]) if count} == {1: 1, 2: 1, 3: 2, 4: 1, 8: 1, 9: 1}
    assert len(counts["token_lengths"]) == 33
    assert text_counts(reference.make_group([])) == {"sentences": 0, "tokens": 0, "token_lengths": [0] * 33}


def test_a_summary_of_a_version_that_counted_no_tokens_is_not_used(tmp_path: Path) -> None:
    folder = DatasetFolder.at(str(tmp_path / "d"), "input")
    stage, marker = GroupStage(SimpleNamespace(folder=folder, run="r")), folder.work_file("groups/00000.json")
    summary = {"files": {}, "shards": []}
    for found, expected in ((summary, None), (summary | {"token_lengths": [0]}, summary | {"token_lengths": [0]})):
        write_sealed(marker, found, "r")
        assert stage._finished_summary(marker) == expected
