"""Convert errors of remote storage to one sentence, whichever client raised them, in whichever process.

The clients retry by themselves if storage is busy or a connection is lost: TensorFlow ten times within five minutes, Google's
for two minutes. Only errors after these retries arrive here.
"""

import re
from urllib.parse import unquote

# TensorFlow: "Error executing an HTTP request: HTTP response code 403 with body '{}' when reading gs://bucket/name ..."
_TENSORFLOW = re.compile(
    r"((?:Error executing an HTTP request|Unexpected response from GCS|All \d+ retry attempts failed).*?)"
    r"(?: when [\w ]+?)? (?:of |to )?'?((?:gs|s3)://[^\s,';]+)",
    re.DOTALL,
)
# Google's clients: "403 GET https://storage.googleapis.com/storage/v1/b/bucket/o/name?fields=name: the reason [while ..."
_GOOGLE = re.compile(r"(\d{3}) (?:GET|POST|PUT|PATCH|DELETE) https?://\S+?/b/([^/?\s]+)(?:/o/([^?\s]+))?\S*: ([^\n\[\\]*)")
_CREDENTIALS = re.compile(r"DefaultCredentialsError|RefreshError|could not be authenticated|default credentials were not found")
_AGAIN = "check that it exists and that you have access, or wait until it responds, then run the same command again"


def explain(error: BaseException) -> str | None:
    """Return the sentence, or None if the error isn't from remote storage."""
    text = f"{type(error).__name__}: {error}"
    if found := _TENSORFLOW.search(text):
        return f"{found[2].rstrip(':.')}: the storage can't be used ({' '.join(found[1].split())[:200]}): {_AGAIN}"
    if found := _GOOGLE.search(text):
        place = f"gs://{found[2]}/{unquote(found[3] or '')}"
        return f"{place}: the storage can't be used (HTTP response code {found[1]}, {found[4].strip()[:200]}): {_AGAIN}"
    if _CREDENTIALS.search(text):
        return (
            "no valid credentials for Google Cloud: run gcloud auth application-default login, then run the same command again"
        )
    return None
