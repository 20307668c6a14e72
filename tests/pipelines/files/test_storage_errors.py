"""Errors of remote storage as one sentence, with the messages of TensorFlow 2.21 and google-cloud-storage 3."""

import pytest

from clozemill.pipelines.files import storage_errors

AGAIN = "check that it exists and that you have access, or wait until it responds, then run the same command again"
GRAPH = 'File "/x/step.py", line 121, in steps '


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            GRAPH + "Error executing an HTTP request: HTTP response code 403 with body '{}' when reading gs://b/d/e.tfrecord "
            "[[{{node while/IteratorGetNext}}]] [Op:__inference_steps_5262]",
            "gs://b/d/e.tfrecord: the storage can't be used (Error executing an HTTP request: HTTP response code 403 with body "
            f"'{{}}'): {AGAIN}",
        ),
        (
            "All 10 retry attempts failed. The last failure: Error executing an HTTP request: HTTP response code 503 with body "
            "'busy' when reading metadata of gs://b/dataset.json",
            "gs://b/dataset.json: the storage can't be used (All 10 retry attempts failed. The last failure: Error executing "
            f"an HTTP request: HTTP response code 503 with body 'busy'): {AGAIN}",
        ),
        (
            "Unexpected response from GCS when writing to gs://b/w.index: 'Location' header not returned.",
            f"gs://b/w.index: the storage can't be used (Unexpected response from GCS): {AGAIN}",
        ),
        (
            "403 GET http://h:1/storage/v1/b/b/o/in%2Fdump.xml?projection=noAcl&prettyPrint=false: no access "
            "[while running 'Mill splits']",
            f"gs://b/in/dump.xml: the storage can't be used (HTTP response code 403, no access): {AGAIN}",
        ),
        (
            "404 GET https://storage.googleapis.com/storage/v1/b/none?projection=noAcl: The specified bucket does not exist.",
            f"gs://none/: the storage can't be used (HTTP response code 404, The specified bucket does not exist.): {AGAIN}",
        ),
        (
            "Your default credentials were not found.\nTo set up Application Default Credentials, see the guide",
            "no valid credentials for Google Cloud (Your default credentials were not found. To set up Application Default "
            "Credentials, see the guide): run gcloud auth application-default login, then run the same command again",
        ),
        (
            "Match operation failed with exceptions {'gs://b/x.jsonl': RetryError('Timeout of 120.0s exceeded')}",
            "gs://b/x.jsonl: the storage can't be reached: check the network connection, then run the same command again",
        ),
    ],
)
def test_unreachable_storage(message: str, sentence: str) -> None:
    assert str(storage_errors.explain(RuntimeError(message))) == sentence


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("Error executing an HTTP request: HTTP response code 403 with body '{}' when reading gs://b/d", 2),
        ("Error executing an HTTP request: HTTP response code 503 with body '{}' when reading gs://b/d", 75),
        ("All 10 retry attempts failed. The last failure: the server is away when reading gs://b/d", 75),
        ("404 GET https://storage.googleapis.com/storage/v1/b/none/o/x: No such object", 2),
        ("429 GET https://storage.googleapis.com/storage/v1/b/one/o/x: Too many requests", 75),
        ("503 PUT https://storage.googleapis.com/storage/v1/b/one/o/x: Unavailable", 75),
        ("RetryError('Timeout of 120.0s exceeded')", 75),
        ("Your default credentials were not found.", 2),
    ],
)
def test_the_exit_code_tells_whether_waiting_may_help(message: str, code: int) -> None:
    """Whatever restarts jobs may try again after 75 (temporary), and not after 2."""
    known = storage_errors.explain(RuntimeError(message))
    assert known and known.exit_code == code


def test_other_errors_are_none() -> None:
    assert storage_errors.explain(ValueError("403 is no length; gs://b/x is a path")) is None


def test_slow_storage_is_noted_once(capsys: pytest.CaptureFixture) -> None:
    with storage_errors.note_if_slow("gs://b/x", 0.01) as noted:
        noted.join(10)
    assert capsys.readouterr().err == "waiting for gs://b/x: its storage hasn't answered yet\n"
    with storage_errors.note_if_slow("gs://b/x", 60):
        pass
    assert capsys.readouterr().err == ""
