"""A small fake of Google's object storage and metadata server, for real clients: TensorFlow's, Beam's, google-auth's.

One port of this machine serves all of them. Beam's client and google-auth use plain HTTP (`STORAGE_EMULATOR_HOST`,
`GCE_METADATA_HOST`). TensorFlow has no such variable, so it uses the port as a proxy (`HTTPS_PROXY`), which answers CONNECT
with TLS and a certificate created here (`CURL_CA_BUNDLE`). `Server.environment` contains all of these variables.
`Server.storage` holds the objects in memory, and `Server.faults` configures failures.
"""

import datetime
import json
import re
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fake_storage import Answer, Request, Storage, request_of

HOSTS = ("storage.googleapis.com", "www.googleapis.com", "oauth2.googleapis.com")
EMAIL = "tests@fake.iam"
_ACCOUNT = {"email": EMAIL, "scopes": ["https://www.googleapis.com/auth/cloud-platform"], "aliases": ["default"]}
_TOKEN = {"access_token": "fake", "expires_in": 3600, "token_type": "Bearer"}
_ACCOUNTS = "/computeMetadata/v1/instance/service-accounts"
# The account has two names, as on Google's server: google-auth uses its email as soon as one thread has read it.
_METADATA = {
    **{f"{_ACCOUNTS}/{name}/token": _TOKEN for name in ("default", EMAIL)},
    **{f"{_ACCOUNTS}/{name}/": _ACCOUNT for name in ("default", EMAIL)},
    "/computeMetadata/v1/project/project-id": "fake-project",
    "/computeMetadata/v1/universe/universe-domain": "googleapis.com",
    "/": "computeMetadata/",
}


@dataclass
class Faults:
    """How often requests to the storage fail: every Nth request, counted over all requests; 0: never.

    too_many, unavailable: status 429, 503. dropped: the connection is closed before the request is handled, except for the
    first half of an upload. cut: the request is handled, but the connection is closed within the response. slow: the response
    takes `seconds`. forbidden: requests whose path or query contains this get status 403.
    """

    too_many: int = 0
    unavailable: int = 0
    dropped: int = 0
    cut: int = 0
    slow: int = 0
    seconds: float = 0.0
    forbidden: str = ""
    done: dict[str, int] = field(default_factory=dict)  # how often each fault occurred
    _count: int = 0

    def next(self) -> str:
        """Return the fault of the next request: the name of a field above, or ""."""
        self._count += 1
        for name in ("too_many", "unavailable", "dropped", "cut", "slow"):
            every = getattr(self, name)
            if every and self._count % every == every - 1:
                self.done[name] = self.done.get(name, 0) + 1
                return name
        return ""

    def forbids(self, path: str) -> bool:
        """Return whether a request with this path and query gets status 403."""
        return bool(self.forbidden) and self.forbidden in unquote(path)


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Return a self-signed (certificate, key) for HOSTS."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOSTS[0])])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths = folder / "fake-gcp.crt", folder / "fake-gcp.key"
    for path, data in zip(paths, (built.public_bytes(pem), secret), strict=True):
        path.write_bytes(data)
    return paths


class _Handler(BaseHTTPRequestHandler):
    """One connection, of either kind."""

    protocol_version = "HTTP/1.1"
    timeout = 120
    disable_nagle_algorithm = True
    server: "_Listener"
    scheme = "http"

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = False  # Python's client uses HTTP/1.0
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = socketserver._SocketWriter(self.connection)
        self.scheme = "https"

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()} | {"x-fake-scheme": self.scheme}
        asked = request_of(self.command, self.path, headers, self._body(headers))
        if asked.path == "/" or asked.path.startswith("/computeMetadata/"):
            return self._send(_metadata(asked))
        fake = self.server.fake
        with fake.lock:
            fault = fake.faults.next()
            fake.log.append(f"{asked.method} {unquote(self.path)}{f' ({fault})' if fault else ''}")
        fake.before(fake.log[-1])
        if fault == "slow":
            time.sleep(fake.faults.seconds)
        if fault == "dropped":
            return self._drop(asked)
        if fault in ("too_many", "unavailable"):
            return self._send(Answer(429 if fault == "too_many" else 503, b"{}"))
        if fake.faults.forbids(self.path):
            return self._send(Answer(403, b"{}"))
        self._send(fake.storage.answer(asked), fault == "cut")

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _serve

    def _body(self, headers: dict[str, str]) -> bytes:
        """Read the body. TensorFlow sends both a length and chunks: the chunks count."""
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)

    def _drop(self, asked: Request) -> None:
        """Close the connection; the first half of an upload has been received."""
        self._reset()
        found = re.match(r"bytes (\d+)-", asked.headers.get("content-range", ""))
        if found and len(asked.body) > 1:
            half = asked.body[: len(asked.body) // 2]
            headers = asked.headers | {"content-range": f"bytes {found[1]}-{int(found[1]) + len(half) - 1}/*"}
            self.server.fake.storage.answer(replace(asked, headers=headers, body=half))

    def _send(self, answer: Answer, cut: bool = False) -> None:
        self.send_response(answer.status)
        for name, value in ({"Content-Length": len(answer.body)} | answer.headers).items():
            self.send_header(name, str(value))
        if cut and not answer.body:
            return self._reset()
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
        if cut:
            self._reset()

    def _reset(self) -> None:
        """Reset the connection, as when a machine in between fails."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def log_message(self, *_) -> None:
        pass


def _metadata(asked: Request) -> Answer:
    """Answer a request to the metadata server; these requests have no faults and no lines in the log."""
    if (told := _METADATA.get(unquote(asked.path))) is None:
        return Answer(404, b"{}")
    body = told if isinstance(told, str) else json.dumps(told)
    kind = "application/text" if isinstance(told, str) else "application/json"
    return Answer(200, body.encode(), {"Metadata-Flavor": "Google", "Content-Type": kind})


class _Listener(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128
    fake: "Server"
    tls: ssl.SSLContext

    def handle_error(self, *_) -> None:
        """Ignore closed connections: the tests kill clients on purpose."""


class Server:
    """Serves within a `with` block.

    Args: folder: where the certificate is written. `log` has a line per request, with method and path. `before` is called with
    that line before the request is handled, from a thread of the server.
    """

    def __init__(self, folder: Path) -> None:
        self.storage, self.faults, self.log, self.lock = Storage(), Faults(), [], threading.Lock()
        self.before: Callable[[str], None] = lambda line: None
        self._listener = _Listener(("127.0.0.1", 0), _Handler)
        self._listener.fake = self
        self.certificate, key = _certificate(folder)
        self._listener.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._listener.tls.load_cert_chain(self.certificate, key)
        self.address = f"127.0.0.1:{self._listener.server_address[1]}"

    def __enter__(self) -> "Server":
        threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._listener.shutdown()
        self._listener.server_close()

    def environment(self) -> dict[str, str]:
        """The environment variables that make clients of a process use this server."""
        return {
            "HTTPS_PROXY": f"http://{self.address}",
            "https_proxy": f"http://{self.address}",
            "CURL_CA_BUNDLE": str(self.certificate),
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "fake",
            "STORAGE_EMULATOR_HOST": f"http://{self.address}",
            "GCE_METADATA_HOST": self.address,
            "GCE_METADATA_IP": self.address,
            "GCE_METADATA_ROOT": self.address,
            "GCE_METADATA_TIMEOUT": "60",  # seconds; google-auth's default of 3 is too short if many tests share few cores
            "NO_GCE_CHECK": "false",
            "GOOGLE_CLOUD_PROJECT": "fake-project",
        }
