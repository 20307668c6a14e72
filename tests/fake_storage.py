"""Objects in memory with Google's JSON and XML interfaces, without a network; served by tests/fake_gcp.py."""

import base64
import datetime
import hashlib
import json
import re
import struct
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import google_crc32c

_API = re.compile(
    r"/(?:(upload|download)/)?storage/v1/b/(?P<bucket>[^/]+)(?:/o(?:/(?P<name>[^/]+)"
    r"(?:/(?:rewriteTo|copyTo)/b/(?P<to_bucket>[^/]+)/o/(?P<to_name>[^/]+))?)?)?"
)


@dataclass(frozen=True)
class Stored:
    """An object."""

    data: bytes
    generation: int
    updated: str


@dataclass(frozen=True)
class Request:
    """The request of a client; the path is still percent-encoded."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # lower-case names
    body: bytes


@dataclass(frozen=True)
class Answer:
    """The response to a request."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json; charset=UTF-8"})


def _error(status: int, told: str) -> Answer:
    return _json({"error": {"code": status, "message": told, "errors": [{"message": told, "reason": told}]}}, status)


class Storage:
    """The objects by "bucket/name", with the JSON and XML interfaces."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.page = 1000  # names per page of a listing
        self._uploads: list[dict[str, Any]] = []
        self._generation, self._lock = 0, threading.RLock()

    def put(self, path: str, data: bytes) -> Stored:
        """Stores an object."""
        with self._lock:
            self._generation += 1
            now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            self.objects[path] = Stored(bytes(data), self._generation, now)
            return self.objects[path]

    def below(self, folder: str) -> dict[str, bytes]:
        """Return the objects of a "bucket/folder" by relative name, without placeholders for folders."""
        with self._lock:
            start = len(folder) + 1
            found = sorted(path for path in self.objects if path.startswith(folder + "/") and not path.endswith("/"))
            return {path[start:]: self.objects[path].data for path in found}

    def answer(self, request: Request) -> Answer:
        """Handle a request."""
        with self._lock:
            if request.path.startswith("/batch/"):
                return self._batch(request)
            found = _API.fullmatch(request.path)
            if not found:  # the XML interface: /bucket/object
                return self._media(request, unquote(request.path).lstrip("/"))
            part = {name: unquote(value) for name, value in found.groupdict().items() if value}
            if found[1] == "upload":
                return self._upload(request, part["bucket"])
            if "name" not in part:
                whole = request.path.rstrip("/").endswith("/o")
                return self._list(request.query, part["bucket"]) if whole else self._bucket(part["bucket"])
            return self._object(request, found[1], part)

    def _object(self, request: Request, kind: str | None, part: dict[str, str]) -> Answer:
        path = f"{part['bucket']}/{part['name']}"
        if path not in self.objects:
            return _error(404, f"No such object: {path}")
        if "to_name" in part:
            target = f"{part['to_bucket']}/{part['to_name']}"
            self.put(target, self.objects[path].data)
            about = self._about(target)
            return _json(
                about if "copyTo" in request.path else {"done": True, "resource": about, "kind": "storage#rewriteResponse"}
            )
        if request.method == "DELETE":
            del self.objects[path]
            return Answer(204)
        if kind == "download" or request.query.get("alt") == "media":
            return self._media(request, path)
        return _json(self._about(path))

    @staticmethod
    def _bucket(name: str) -> Answer:
        return _json({"kind": "storage#bucket", "id": name, "name": name, "location": "US", "projectNumber": "1"})

    def _about(self, path: str) -> dict[str, Any]:
        one, (bucket, name) = self.objects[path], path.split("/", 1)
        return {
            "kind": "storage#object", "id": path, "bucket": bucket, "name": name, "size": str(len(one.data)),
            "generation": str(one.generation), "metageneration": "1", "updated": one.updated, "timeCreated": one.updated,
            "contentType": "application/octet-stream", "storageClass": "STANDARD", "etag": str(one.generation),
            "crc32c": self._crc32c(one.data), "md5Hash": base64.b64encode(hashlib.md5(one.data).digest()).decode(),
        }  # fmt: skip

    @staticmethod
    def _crc32c(data: bytes) -> str:
        return base64.b64encode(struct.pack(">I", google_crc32c.value(data))).decode()

    def _media(self, request: Request, path: str) -> Answer:
        """An object's bytes, or a range of them."""
        if path not in self.objects:
            return _error(404, f"No such object: {path}")
        one = self.objects[path]
        headers = {"X-Goog-Generation": str(one.generation), "X-Goog-Hash": f"crc32c={self._crc32c(one.data)}"}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if not found:
            return Answer(200, one.data, headers)
        begin, end = int(found[1]), min(int(found[2] or len(one.data)), len(one.data) - 1)
        if begin >= len(one.data):
            return Answer(416, b"", {"Content-Range": f"bytes */{len(one.data)}"})
        headers["Content-Range"] = f"bytes {begin}-{end}/{len(one.data)}"
        return Answer(206, one.data[begin : end + 1], headers)

    def _list(self, query: dict[str, str], bucket: str) -> Answer:
        """Return a page of names in a bucket: objects and, with a delimiter, prefixes."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        items, prefixes, size = [], [], min(self.page, int(query.get("maxResults", self.page)))
        for path in sorted(self.objects):
            name = path.removeprefix(f"{bucket}/")
            if name == path or not name.startswith(prefix) or name <= query.get("pageToken", ""):
                continue
            end = name.find(delimiter, len(prefix)) if delimiter else -1
            folder = name[: end + 1] if end >= 0 else ""
            if folder and (folder in prefixes or folder == query.get("pageToken", "")[: len(folder)]):
                continue
            if len(items) + len(prefixes) == size:
                last = max([item["name"] for item in items] + [one + "\U0010ffff" for one in prefixes])
                return _json({"kind": "storage#objects", "items": items, "prefixes": prefixes, "nextPageToken": last})
            prefixes.append(folder) if folder else items.append(self._about(path))
        return _json({"kind": "storage#objects", "items": items, "prefixes": prefixes})

    def _upload(self, request: Request, bucket: str) -> Answer:
        """Handle an upload: in one piece, in two parts (metadata and bytes), or as a resumable session."""
        if "upload_id" in request.query:
            return self._session(request, self._uploads[int(request.query["upload_id"])])
        name, kind = request.query.get("name", ""), request.query.get("uploadType")
        if kind == "multipart":
            about, data = _parts(request)
            return _json(self._stored(f"{bucket}/{name or json.loads(about[1])['name']}", data[1]))
        if kind == "media":
            return _json(self._stored(f"{bucket}/{name}", request.body))
        self._uploads.append({"path": f"{bucket}/{name or json.loads(request.body)['name']}", "data": b"", "done": None})
        where = f"{request.headers['x-fake-scheme']}://{request.headers['host']}{request.path}"
        return Answer(200, b"", {"Location": f"{where}?uploadType=resumable&upload_id={len(self._uploads) - 1}"})

    def _stored(self, path: str, data: bytes) -> dict[str, Any]:
        self.put(path, data)
        return self._about(path)

    def _session(self, request: Request, upload: dict[str, Any]) -> Answer:
        """Accept some bytes of a resumable upload, or report its progress."""
        if upload["done"]:
            return _json(upload["done"])
        found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", request.headers.get("content-range", ""))
        begin, total = (found[1], found[2]) if found else ("0", str(len(request.body)))
        if begin is not None:
            upload["data"] = upload["data"][: int(begin)] + request.body
        have = len(upload["data"])
        if total == str(have):
            upload["done"] = self._stored(upload["path"], upload["data"])
            return _json(upload["done"])
        return Answer(308, b"", {"Range": f"bytes=0-{have - 1}"} if have else {})

    def _batch(self, request: Request) -> Answer:
        """Handle a batch of requests."""
        told = b""
        for headers, body in _parts(request):
            first, _, rest = body.partition(b"\r\n")
            method, path, _ = first.decode().split(" ")
            answer = self.answer(request_of(method, path, _headers(rest.partition(b"\r\n\r\n")[0].decode()), b""))
            number = headers.get("content-id", "<1>").strip("<>")
            head = f"Content-Type: application/http\r\nContent-ID: <response-{number}>\r\n\r\nHTTP/1.1 {answer.status} X\r\n"
            fields = {"Content-Length": len(answer.body)} | answer.headers
            head += "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            told += b"--part\r\n" + head.encode() + b"\r\n" + answer.body + b"\r\n"
        return Answer(200, told + b"--part--", {"Content-Type": "multipart/mixed; boundary=part"})


def _headers(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.split("\r\n") if ":" in line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _parts(request: Request) -> list[tuple[dict[str, str], bytes]]:
    """Return (headers, body) of each part of a multipart body."""
    boundary = re.search(r"boundary=['\"]?([^'\";]+)", request.headers["content-type"])[1].encode()
    body = (
        b"\r\n" + re.sub(rb"(?<!\r)\n", b"\r\n", request.body) if request.path.startswith("/batch/") else b"\r\n" + request.body
    )
    parts = (one.partition(b"\r\n\r\n") for one in body.split(b"\r\n--" + boundary)[1:-1])
    return [(_headers(head.decode()), data) for head, _, data in parts]


def request_of(method: str, target: str, headers: dict[str, str], body: bytes) -> Request:
    split = urlsplit(target)
    return Request(method, split.path, dict(parse_qsl(split.query, keep_blank_values=True)), headers, body)
