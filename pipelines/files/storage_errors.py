"""Convert errors of remote storage to one sentence, whichever client raised them, in whichever process.

The clients retry by themselves if storage is busy or a connection is lost: TensorFlow ten times within five minutes, Google's
for two minutes. Only errors after these retries arrive here.
"""

import contextlib
import re
import sys
import threading
from collections.abc import Iterator
from urllib.parse import unquote

from clozemill.pipelines.common.errors import TemporaryError, UserError

# TensorFlow: "Error executing an HTTP request: HTTP response code 403 with body '{}' when reading gs://bucket/name ..."
_TENSORFLOW = re.compile(
    r"((?:Error executing an HTTP request|Unexpected response from GCS|All \d+ retry attempts failed).*?)"
    r"(?: when [\w ]+?)? (?:of |to )?'?((?:gs|s3)://[^\s,';]+)",
    re.DOTALL,
)
# Google's clients: "403 GET https://storage.googleapis.com/storage/v1/b/bucket/o/name?fields=name: the reason [while ..."
_GOOGLE = re.compile(r"(\d{3}) (?:GET|POST|PUT|PATCH|DELETE) https?://\S+?/b/([^/?\s]+)(?:/o/([^?\s]+))?\S*: ([^\n\[\\]*)")
_UNREACHABLE = re.compile(r"RetryError|TransportError|Failed to resolve|Max retries exceeded|NewConnectionError")
_BUSY = re.compile(r"retry attempts failed|HTTP response code (?:429|5\d\d)")
_PLACE = re.compile(r"\b(?:gs|s3|hdfs)://[^\s,';\")]+")
_CREDENTIALS = re.compile(r"DefaultCredentialsError|RefreshError|could not be authenticated|default credentials were not found")
_LOGIN = "run gcloud auth application-default login, then run the same command again"
_AGAIN = "check that it exists and that you have access, or wait until it responds, then run the same command again"

_CONNECTED = "check the network connection, then run the same command again"
_NOTED = 5.0  # seconds


@contextlib.contextmanager
def note_if_slow(path: str, seconds: float = _NOTED) -> Iterator[threading.Timer]:
    """Say on standard error if remote storage takes long: its clients retry for minutes without a word."""
    noted = threading.Timer(seconds, print, [f"waiting for {path}: its storage hasn't answered yet"], {"file": sys.stderr})
    noted.daemon = True
    noted.start()
    try:
        yield noted
    finally:
        noted.cancel()


def _known(text: str) -> tuple[str, bool] | None:
    """Return (sentence, whether waiting may help) for the text of an error, or None if it isn't from remote storage."""
    if found := _TENSORFLOW.search(text):
        told = " ".join(found[1].split())
        return f"{found[2].rstrip(':.')}: the storage can't be used ({told[:200]}): {_AGAIN}", bool(_BUSY.search(told))
    if found := _GOOGLE.search(text):
        place = f"gs://{found[2]}/{unquote(found[3] or '')}"
        told = f"HTTP response code {found[1]}, {found[4].strip()[:200]}"
        return f"{place}: the storage can't be used ({told}): {_AGAIN}", bool(_BUSY.search(told))
    if _UNREACHABLE.search(text):
        where = _PLACE.search(text)
        return f"{where[0] if where else 'remote storage'}: the storage can't be reached: {_CONNECTED}", True
    if _CREDENTIALS.search(text):
        return f"no valid credentials for Google Cloud ({' '.join(text.split(': ', 1)[1].split())[:200]}): {_LOGIN}", False
    return None


def explain(error: BaseException) -> UserError | None:
    """Return the error that users see, a TemporaryError if waiting may help, or None if the error isn't from remote storage."""
    known = _known(f"{type(error).__name__}: {error}")
    return known and (TemporaryError if known[1] else UserError)(known[0])
