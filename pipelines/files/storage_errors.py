"""What remote storage says when it can't do its work, as one sentence, whichever client was told so, in whatever process.

The clients wait and try again by themselves when storage is busy or a connection is cut: TensorFlow's ten times within five
minutes, Google's for two minutes. What comes here is what they gave up on.
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
_AGAIN = "check that it exists and may be read and written, or wait until it answers, then run the same command again"


def told(error: BaseException) -> str | None:
    """The sentence, or None where an error is not remote storage's."""
    text = f"{type(error).__name__}: {error}"
    if found := _TENSORFLOW.search(text):
        return f"{found[2].rstrip(':.')}: the storage can't be used ({' '.join(found[1].split())[:200]}): {_AGAIN}"
    if found := _GOOGLE.search(text):
        place = f"gs://{found[2]}/{unquote(found[3] or '')}"
        return f"{place}: the storage can't be used (HTTP response code {found[1]}, {found[4].strip()[:200]}): {_AGAIN}"
    if _CREDENTIALS.search(text):
        return "there are no valid credentials for Google Cloud: run gcloud auth application-default login, then this again"
    return None
