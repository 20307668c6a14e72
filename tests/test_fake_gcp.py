"""Tests of the fake object storage and metadata server itself, without Google's clients."""

import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="makes the fake's certificate")

from tests.fake_gcp import EMAIL, Faults, Server

API = "/storage/v1/b/b/o"
NEW = "/upload/storage/v1/b/b/o?uploadType=resumable&name=x"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as server:
        yield server


def ask(server: Server, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Return (status, body, headers) over plain HTTP."""
    connection = http.client.HTTPConnection(server.address, timeout=10)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.headers)


@pytest.mark.parametrize("name", ["default", EMAIL, EMAIL.replace("@", "%40")])
def test_the_account_is_found_by_either_name(server: Server, name: str) -> None:
    """When two threads of google-auth refresh at once, the second one asks for the email that the first one has read."""
    account = f"/computeMetadata/v1/instance/service-accounts/{name}"
    status, body, headers = ask(server, "GET", f"{account}/?recursive=true")
    assert (status, json.loads(body)["email"], headers["Metadata-Flavor"]) == (200, EMAIL, "Google")
    assert json.loads(ask(server, "GET", f"{account}/token?scopes=a,b")[1])["access_token"] == "fake"
    assert ask(server, "GET", "/computeMetadata/v1/instance/none")[0] == 404
    assert not server.log


def test_an_upload_appears_with_its_last_byte(server: Server) -> None:
    where = ask(server, "POST", NEW)[2]["Location"].removeprefix(f"http://{server.address}")
    status, _, headers = ask(server, "PUT", where, b"abc", Content_Range="bytes 0-2/5")
    assert (status, headers["Range"]) == (308, "bytes=0-2") and not server.storage.objects
    status, _, headers = ask(server, "PUT", where, Content_Range="bytes */5")
    assert (status, headers["Range"]) == (308, "bytes=0-2")
    assert ask(server, "PUT", where, b"cde", Content_Range="bytes 2-4/5")[0] == 200  # with an overlap
    assert server.storage.below("b") == {"x": b"abcde"}
    assert ask(server, "PUT", where, Content_Range="bytes */5")[0] == 200


def test_chunked_uploads_with_a_length(server: Server) -> None:
    """As TensorFlow sends them."""
    where = ask(server, "POST", NEW)[2]["Location"].removeprefix(f"http://{server.address}")
    body = b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    assert ask(server, "PUT", where, body, Transfer_Encoding="chunked", Content_Length="3")[0] == 200
    assert server.storage.below("b") == {"x": b"abc"}


def test_reading_listing_copying_deleting(server: Server) -> None:
    for name in ("a/1", "a/2", "a/d/3", "b"):
        server.storage.put(f"b/{name}", name.encode() * 2)
    assert ask(server, "GET", "/b/a%2F1", Range="bytes=1-3")[:2] == (206, b"/1a")
    assert ask(server, "GET", "/b/a/1", Range="bytes=9-")[0] == 416
    assert ask(server, "GET", f"{API}/none")[0] == 404
    found = json.loads(ask(server, "GET", f"{API}?prefix=a/&delimiter=/")[1])
    assert ([one["name"] for one in found["items"]], found["prefixes"]) == (["a/1", "a/2"], ["a/d/"])
    server.storage.page, names, more = 1, [], ""
    while True:
        found = json.loads(ask(server, "GET", f"{API}?pageToken={more}")[1])
        names += [one["name"] for one in found["items"]]
        if not (more := found.get("nextPageToken", "")):
            break
    assert names == ["a/1", "a/2", "a/d/3", "b"]
    assert json.loads(ask(server, "POST", f"{API}/b/rewriteTo/b/b/o/c%2Fd")[1])["done"]
    assert ask(server, "DELETE", f"{API}/b")[0] == 204 and ask(server, "DELETE", f"{API}/b")[0] == 404
    assert server.storage.below("b/c") == {"d": b"bb"}


def test_the_same_over_tls_through_the_proxy(server: Server) -> None:
    server.storage.put("b/x", b"hello")
    context = ssl.create_default_context(cafile=server.environment()["CURL_CA_BUNDLE"])
    connection = http.client.HTTPSConnection(server.address, timeout=10, context=context)
    connection.set_tunnel("storage.googleapis.com", 443)
    for _ in range(2):
        connection.request("GET", "/b/x")
        assert connection.getresponse().read() == b"hello"


def test_metadata(server: Server) -> None:
    path = "/computeMetadata/v1/instance/service-accounts/default/token"
    status, body, headers = ask(server, "GET", path, Metadata_Flavor="Google")
    assert status == 200 and headers["Metadata-Flavor"] == "Google" and json.loads(body)["access_token"] == "fake"


def test_faults(server: Server) -> None:
    server.storage.put("b/x", b"hello")
    server.faults = Faults(too_many=2)
    assert [ask(server, "GET", "/b/x")[0] for _ in range(4)] == [429, 200, 429, 200]
    server.faults = Faults(unavailable=1)
    assert ask(server, "GET", "/b/x")[0] == 503
    server.faults = Faults(forbidden="b/x")
    assert ask(server, "GET", "/b/x")[0] == 403
    server.faults = Faults(cut=1)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(server, "GET", "/b/x")
    where = ask_well(server)
    server.faults = Faults(dropped=1)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(server, "PUT", where, b"abcd", Content_Range="bytes 0-3/4")
    server.faults = Faults()
    assert ask(server, "PUT", where, Content_Range="bytes */4")[2]["Range"] == "bytes=0-1"


def ask_well(server: Server) -> str:
    """Where an upload is to be sent."""
    server.faults = Faults()
    return ask(server, "POST", NEW)[2]["Location"].removeprefix(f"http://{server.address}")
