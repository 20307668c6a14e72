"""`--id-field` and `--exclude-ids`, end to end: a document can be found by its id and taken out, to the byte."""

import gzip
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import clozemill
from tests import corpora
from tests.test_determinism import digest_of
from tests.test_duplicates import OPTIONS, vocab

__all__ = ["vocab"]
TEXTS = corpora.texts(40)
IDS = [f"doc-{number}" for number in range(40)]
RECORDS = [{"uid": IDS[number], "title": f"T{number}", "text": text} for number, text in enumerate(TEXTS)]
RECORDS += [{"uid": "copy-of-3", "title": "T3", "text": TEXTS[3]}, {"title": "T40", "text": "No id here. The river moves."}]


def write(folder: Path, records: list[dict]) -> Path:
    path = folder / "in.jsonl"
    if not path.exists():
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def command(folder: Path, vocab: str, *more: str, records: list[dict] | None = None) -> list[str]:
    source = write(folder.parent, RECORDS if records is None else records)
    return ["prepare", "--input", str(source), "--vocab", vocab, "--output", str(folder), *OPTIONS, *more]


def manifest(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


def documents(folder: Path) -> list[dict]:
    return [row for path in sorted((folder / "documents").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset but those that contain seconds or paths of the run."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "report.html", "report.md", "prepare.yaml", "lock")
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, vocab: str) -> Path:
    """A dataset with ids and provenance. Read-only: copy it before an update."""
    folder = tmp_path_factory.mktemp("ids") / "d"
    assert clozemill.main(command(folder, vocab, "--id-field", "uid", "--provenance")) == 0
    return folder


def test_ids_are_kept_with_each_document_and_record(dataset: Path) -> None:
    rows = {row["title"]: row for row in documents(dataset)}
    assert len(rows) == 41 and rows["T7"]["id"] == "doc-7" and rows["T7"]["other_ids"] == []
    assert rows["T3"]["id"] == "copy-of-3" and rows["T3"]["other_ids"] == ["doc-3"]  # one text, two records
    assert rows["T40"]["id"] is None and rows["T40"]["other_ids"] == []
    by_key = {row["key"]: row["id"] for row in rows.values()}
    records = [row for path in sorted((dataset / "provenance").rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert records and all(row[f"{side}_id"] == by_key.get(row[f"{side}_key"]) for row in records for side in "ab")
    assert manifest(dataset)["ids"] == {"field": "uid", "documents": 40, "repeated": 0}
    assert manifest(dataset)["config"]["id_field"] == "uid"
    assert clozemill.main(["verify", str(dataset), "--no-progress"]) == 0


def test_without_the_option_nothing_changes(dataset: Path, tmp_path: Path, vocab: str) -> None:
    """The shards are the same with and without ids; the lists have the same columns as before there were ids."""
    assert clozemill.main(command(tmp_path / "d", vocab, "--provenance")) == 0
    found = manifest(tmp_path / "d")
    assert found["digest"] == manifest(dataset)["digest"]
    assert found["config"]["id_field"] == "id" and "exclude_ids" not in found["config"]
    assert not {"ids", "exclusion"} & found.keys()
    table = pq.read_table(next((tmp_path / "d/documents").glob("*.parquet")))
    assert table.column_names == ["key", "title", "sentences", "tokens"]


def test_the_summary_and_the_card_report_ids(dataset: Path, capsys: pytest.CaptureFixture, vocab: str) -> None:
    assert clozemill.main(command(dataset, vocab, "--id-field", "uid", "--provenance")) == 0
    out = capsys.readouterr().out
    assert "ids         40 of 41 documents, from the field uid" in out
    assert "warning: 1 document without a value in 'uid' can't be traced or excluded" in out
    assert "40 of 41 documents, from the field uid" in (dataset / "report.md").read_text()


def test_inspect_finds_a_document_by_each_of_its_ids(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    wanted = next(row for row in documents(dataset) if row["id"] == "copy-of-3")
    tables = [pq.read_table(path).to_pylist() for path in (dataset / "provenance").rglob("*.parquet")]
    total = sum(wanted["key"] in (row["a_key"], row["b_key"]) for table in tables for row in table)
    for name in ("copy-of-3", " doc-3 "):
        assert clozemill.main(["inspect", str(dataset), "--id", name, "--limit", "2"]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"document {wanted['key'].hex()} 'T3': ") and "the same text has the ids " in out
        assert f"\n{total} records in all copies, 2 shown\n" in out and out.count("\nrecord ") == 2
        assert out.count(f"document {wanted['key'].hex()} id copy-of-3, 'T3'") >= 2
    page = tmp_path / "found.html"
    assert clozemill.main(["inspect", str(dataset), "--id", "doc-3", "--limit", "999", "--html", str(page)]) == 0
    assert page.read_text().count("<h2>Record ") == total and "id <bdi>copy-of-3</bdi>" in page.read_text()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--id", "doc-99"], "contains no document with the id 'doc-99': it wasn't in the input, or it was dropped"),
        (["--id", "doc-7", "--copy", "1"], "--id searches all shards: remove --split, --copy and --group"),
    ],
)
def test_inspect_explains_what_it_can_not_find(dataset: Path, more: list[str], why: str, capsys: pytest.CaptureFixture) -> None:
    assert clozemill.main(["inspect", str(dataset), *more]) == 2
    assert why in capsys.readouterr().err


def test_excluded_documents_are_dropped_and_counted(tmp_path: Path, vocab: str, capsys: pytest.CaptureFixture) -> None:
    """From a compressed list with a byte order mark, spaces and Windows line ends; and no text of them remains."""
    ids = tmp_path / "gone.txt.gz"
    ids.write_bytes(gzip.compress("\ufeffdoc-7\r\n\r\n  doc-8 \r\ndoc-7\r\nnobody\r\n".encode()))
    more = ["--id-field", "uid", "--exclude-ids", str(ids), "--dedup", "near"]
    assert clozemill.main(command(tmp_path / "d", vocab, *more)) == 0
    found, out = manifest(tmp_path / "d"), capsys.readouterr().out
    assert found["documents"]["dropped"]["excluded_id"] == 2 and not {"T7", "T8"} & {
        d["title"] for d in documents(tmp_path / "d")
    }
    assert (found["exclusion"]["ids"], found["exclusion"]["unmatched"]) == (3, 1)
    assert "excluded    2 records; 2 of 3 ids in --exclude-ids found" in out
    assert "warning: 1 id in --exclude-ids matched no record: see rejects/unmatched-ids.jsonl" in out
    (unmatched,) = (tmp_path / "d/rejects/unmatched-ids.jsonl").read_text().splitlines()
    assert json.loads(unmatched)["detail"] == "nobody"
    everything = b"".join(contents(tmp_path / "d").values()) + (tmp_path / "d/report.html").read_bytes()
    assert TEXTS[7][:40].encode() not in everything
    assert "2 of 3 ids in --exclude-ids found" in (tmp_path / "d/report.md").read_text()
    assert clozemill.main(["verify", str(tmp_path / "d"), "--no-progress"]) == 0


def test_an_update_takes_documents_out_as_a_new_run_does(dataset: Path, tmp_path: Path, vocab: str) -> None:
    shutil.copytree(dataset, tmp_path / "d")
    ids = tmp_path / "gone.txt"
    ids.write_text("doc-7\n")
    more = ["--id-field", "uid", "--provenance", "--exclude-ids", str(ids)]
    before, source = contents(tmp_path / "d"), dataset.parent / "in.jsonl"
    update = ["prepare", "--input", str(source), "--vocab", vocab, "--output", str(tmp_path / "d"), *OPTIONS]
    recorded = (tmp_path / "d/run.json").read_text()
    older = json.loads(recorded)
    older["versions"]["numpy"] = "1.0"
    (tmp_path / "d/run.json").write_text(json.dumps(older))
    assert clozemill.main([*update, *more, "--update"]) == 2  # its shards would stand beside those of another version
    assert contents(tmp_path / "d") == before
    (tmp_path / "d/run.json").write_text(recorded)
    assert clozemill.main([*update, *more, "--update"]) == 0
    new = [*update[:5], "--output", str(tmp_path / "new"), *OPTIONS]
    assert clozemill.main([*new, *more]) == 0
    after = contents(tmp_path / "d")
    assert after == contents(tmp_path / "new") != before
    shards = [name for name in before if name.endswith(".tfrecord")]
    assert any(before[name] == after[name] for name in shards)  # only one group changed
    assert digest_of(tmp_path / "d") == digest_of(tmp_path / "new")


def test_a_forgotten_list_does_not_bring_documents_back(tmp_path: Path, vocab: str, capsys: pytest.CaptureFixture) -> None:
    ids = tmp_path / "gone.txt"
    ids.write_text("doc-7\n")
    run = command(tmp_path / "d", vocab, "--id-field", "uid")
    assert clozemill.main([*run, "--exclude-ids", str(ids)]) == 0
    assert clozemill.main([*run, "--update"]) == 2
    assert "excludes documents by id: give --exclude-ids again" in capsys.readouterr().err
    assert clozemill.main(run) == 2
    ids.write_text("doc-8\n")
    assert clozemill.main([*run, "--exclude-ids", str(ids)]) == 2
    assert capsys.readouterr().err.count("was started with other --exclude-ids: give the same to resume, --update") == 2
    ids.write_text("")
    assert clozemill.main([*run, "--exclude-ids", str(ids), "--update"]) == 0
    assert "T7" in {row["title"] for row in documents(tmp_path / "d")}


def test_forgotten_evaluation_sets_do_not_bring_documents_back(
    tmp_path: Path, vocab: str, capsys: pytest.CaptureFixture
) -> None:
    run = command(tmp_path / "d", vocab)
    (tmp_path / "dev.txt").write_text(json.loads((tmp_path / "in.jsonl").read_text().splitlines()[0])["text"])
    assert clozemill.main([*run, "--decontaminate", str(tmp_path / "dev.txt")]) == 0
    before = contents(tmp_path / "d")
    assert clozemill.main([*run, "--update"]) == 2
    assert f"{tmp_path}/d leaves out documents with text of evaluation sets: give --decontaminate" in capsys.readouterr().err
    assert contents(tmp_path / "d") == before


def test_a_saved_configuration_does_not_say_update(tmp_path: Path, vocab: str) -> None:
    run = command(tmp_path / "d", vocab)
    assert clozemill.main(run) == 0 and clozemill.main([*run, "--update"]) == 0
    again = ["prepare", "--config", str(tmp_path / "d/prepare.yaml"), "--output", str(tmp_path / "new")]
    assert clozemill.main(again) == 0
    assert digest_of(tmp_path / "d") == digest_of(tmp_path / "new")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--exclude-ids", "{ids}"], "--exclude-ids needs --id-field: give the field or column whose values the file lists"),
        (["--id-field", "uid", "--exclude-ids", "{ids}x"], "doesn't exist"),
        (["--id-field", "uid", "--exclude-ids", "{bad}"], "is not UTF-8 (byte 3): convert it"),
        (["--id-field", "uuid"], "no document has a value in the field 'uuid': see --id-field"),
    ],
)
def test_errors_are_one_sentence(tmp_path: Path, vocab: str, more: list[str], why: str, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "ids.txt").write_text("doc-7\n")
    (tmp_path / "bad.txt").write_bytes(b"doc\xff\n")
    names = {"ids": tmp_path / "ids.txt", "bad": tmp_path / "bad.txt"}
    assert clozemill.main(command(tmp_path / "d", vocab, *(each.format(**names) for each in more))) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning:")]
    assert why in line


def test_ids_can_not_be_added_to_a_dataset_without_them(tmp_path: Path, vocab: str, capsys: pytest.CaptureFixture) -> None:
    """Not even those of the field that is the default for messages."""
    records = [{"id": number, "title": f"T{number}", "text": text} for number, text in enumerate(TEXTS)]
    run = command(tmp_path / "d", vocab, records=records)
    assert clozemill.main(run) == 0
    assert clozemill.main([*run, "--id-field", "id", "--update"]) == 2
    assert "was started without ids: use the same --id-field, or give another --output" in capsys.readouterr().err
    assert clozemill.main(["inspect", str(tmp_path / "d"), "--id", "7"]) == 2
    assert "contains no ids of documents: prepare it with --id-field to find them by id" in capsys.readouterr().err


def test_an_id_of_several_documents_excludes_all_of_them(tmp_path: Path, vocab: str, capsys: pytest.CaptureFixture) -> None:
    """In a Parquet file, whose integers with gaps are floats."""
    ids = [None if number == 5 else float(number % 20) for number in range(40)]
    pq.write_table(pa.table({"page": pa.array(ids, pa.float64()), "text": TEXTS}), tmp_path / "in.parquet")
    (tmp_path / "ids.txt").write_text("7\n")
    run = ["prepare", "--input", str(tmp_path / "in.parquet"), "--vocab", vocab, *OPTIONS, "--id-field", "page"]
    assert clozemill.main([*run, "--output", str(tmp_path / "d"), "--exclude-ids", str(tmp_path / "ids.txt")]) == 0
    found = manifest(tmp_path / "d")
    assert found["documents"]["dropped"] == {"excluded_id": 2}
    assert found["ids"] == {"field": "page", "documents": 37, "repeated": 18}  # not 7, which is gone, nor 5, which is missing
    assert "18 values of 'page' identified more than one document: --exclude-ids drops all of them" in capsys.readouterr().out
    assert clozemill.main(["inspect", str(tmp_path / "d"), "--id", "8"]) == 0
    assert capsys.readouterr().out.count("\ndocument ") == 1  # of two
