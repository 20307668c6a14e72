"""Models by their id, from a hub on loopback that speaks as much of the protocol as the library needs."""

import hashlib
import http.server
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import clozemill
from clozemill.model.export import huggingface
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.export.hub import find_source
from clozemill.trainers.training import checkpoints
from tests.model import sources

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "someone/little-bert"


class _Hub(http.server.BaseHTTPRequestHandler):
    """Serves the files of one model, and lists them; records the files that were asked for."""

    folder: Path
    asked: list[str]

    def log_message(self, *_: object) -> None: ...

    def _answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
            revision = rest[1] if len(rest) > 1 else "main"
            if name != NAME:
                return self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            if revision not in ("main", "v1", COMMIT):
                return self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            files = sorted(self.folder.iterdir())
            if rest[:1] == ["tree"]:
                told: object = [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0"} for path in files]
            else:
                told = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": path.name} for path in files]}
            return self._answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})
        path = self.folder / parts[-1]
        if "/".join(parts[:2]) != NAME or parts[2] != "resolve" or not path.exists():
            return self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        self.asked.append(path.name)
        data = path.read_bytes()
        return self._answer(200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    folder = sources.written(huggingface, "mlm", tmp_path_factory.mktemp("hub") / "model")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    handler = type("Handler", (_Hub,), {"folder": folder, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked  # type: ignore[attr-defined]
    server.shutdown()


@pytest.fixture
def fetch(hub: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`import` from this hub in this process. The library reads its environment only once, so its settings are changed."""
    constants = pytest.importorskip("huggingface_hub.constants")
    settings = {"ENDPOINT": hub[0], "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": True}

    def fetch(*arguments: str, **changes: str) -> int:
        used = settings | changes
        used["HUGGINGFACE_CO_URL_TEMPLATE"] = f"{used['ENDPOINT']}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for name, value in used.items():
            monkeypatch.setattr(constants, name, value)
        return clozemill.main(["import", *arguments, "--output", str(tmp_path / "out")])

    return fetch


def test_a_model_by_its_id(hub: tuple[str, list[str]], fetch, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert fetch(NAME, "--revision", "v1") == 0
    one = checkpoints.find(str(tmp_path / "out"))
    assert one.index["imported"] == {"from": NAME, "commit": COMMIT, "format": "hf", "heads": ["masked_lm"]}
    assert "model.safetensors" in hub[1] and "pytorch_model.bin" not in hub[1]
    assert "note: special tokens written in a text, such as [SEP], stay ordinary text" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["someone/else"], "someone/else is neither a folder nor a public model of the hub: check the name"),
        ([NAME, "--revision", "v9"], f"{NAME} has no revision 'v9': give a branch, a tag or a commit of the model"),
    ],
)
def test_what_the_hub_does_not_have(arguments: list[str], sentence: str, fetch, capsys: pytest.CaptureFixture) -> None:
    assert fetch(*arguments) == 2
    error = capsys.readouterr().err
    assert f"clozemill: {sentence}" in error and "Traceback" not in error


def test_no_network(fetch, capsys: pytest.CaptureFixture) -> None:
    assert fetch(NAME, ENDPOINT="http://127.0.0.1:9") == 2
    error = capsys.readouterr().err
    assert f"clozemill: {NAME} can't be fetched from the hub (" in error
    assert "check the network, or give a folder that was fetched elsewhere (pip install huggingface_hub" in error


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"fetching it from the hub needs huggingface_hub: pip install 'clozemill\[hub\]'"):
        find_source(NAME, "")


@pytest.mark.parametrize("source", ["no-such-folder", "a/b/c", "/no/such", "../x"])
def test_what_is_neither_a_folder_nor_an_id(source: str) -> None:
    with pytest.raises(
        UserError, match=r"is not a folder: give a folder of a Hugging Face .* hf download .* --local-dir FOLDER"
    ):
        find_source(source, "")


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--revision is for models of the hub"):
        find_source(str(tmp_path), "main")
