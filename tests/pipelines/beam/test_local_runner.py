"""Worker processes and their server: unreachable for the network and other users, independent of the current folder."""

import errno
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import grpc
import psutil
import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_artifact_api_pb2, beam_artifact_api_pb2_grpc, beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import worker_handlers

import clozemill
from clozemill.pipelines.beam import launcher, local_runner, worker
from clozemill.pipelines.common.errors import UserError
from tests import corpora, sockets

SMALL = ["--max-seq-length", "32", "--num-groups", "2", "--dupe-factor", "1", "--seed", "7", "--no-progress"]
# The script that pip installs as `clozemill`.
CONSOLE_SCRIPT = "import sys\nfrom clozemill import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
NOBODY = 65534


@pytest.fixture
def server():
    info = SimpleNamespace(provision_info=None)
    found = local_runner.PrivateServer(worker_handlers.StateServicer(), info, worker_handlers.WorkerHandlerManager({}, info))
    yield found
    found.close()
    assert not os.path.exists(found.folder)


def as_nobody(code: str) -> str:
    """Evaluate an expression as an unprivileged user; everything is imported before changing the user."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    code = f"import os, socket\nos.setgid({NOBODY})\nos.setuid({NOBODY})\nprint({code})"
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_server_is_a_socket_in_a_private_folder(server: local_runner.PrivateServer) -> None:
    assert stat.S_IMODE(os.stat(server.folder).st_mode) == 0o700
    assert sockets.listening([os.getpid()]) >= {f"unix {server.folder}/beam"}
    assert server.control_address == server.data_port == server.state_port == f"unix:{server.folder}/beam"


def test_an_interrupted_run_removes_its_socket(server: local_runner.PrivateServer) -> None:
    """After a signal, the process exits without stopping the server."""
    launcher.kill_children()
    assert not os.path.exists(server.folder) and not worker.SOCKETS


def test_another_user_can_t_connect(server: local_runner.PrivateServer) -> None:
    assert as_nobody(f"socket.socket(socket.AF_UNIX).connect_ex({server.folder + '/beam'!r})") == f"{errno.EACCES}\n"


def test_no_file_is_served(server: local_runner.PrivateServer, tmp_path: Path) -> None:
    """Beam's own server would send it, given the path of an artifact."""
    (tmp_path / "thesis").write_text("dear")
    path = beam_runner_api_pb2.ArtifactFilePayload(path=str(tmp_path / "thesis")).SerializeToString()
    artifact = beam_runner_api_pb2.ArtifactInformation(type_urn=common_urns.artifact_types.FILE.urn, type_payload=path)
    with grpc.insecure_channel(server.control_address) as channel:
        stub = beam_artifact_api_pb2_grpc.ArtifactRetrievalServiceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            list(stub.GetArtifact(beam_artifact_api_pb2.GetArtifactRequest(artifact=artifact)))
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_an_incompatible_beam_version_is_rejected() -> None:
    """If WorkerHandlerManager creates its server in another way, no worker is started."""
    with pytest.raises(UserError, match=r"is not supported by clozemill: install .*in-memory"):
        local_runner.WorkerProcess(b"", None, None, object())


def test_a_long_temporary_folder_name_is_avoided(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("a" * 120)
    long.mkdir()
    monkeypatch.setattr(local_runner.tempfile, "gettempdir", lambda: str(long))
    found = local_runner._private_folder()
    os.rmdir(found)
    assert os.path.dirname(found) == "/tmp"


def test_empty_entries_of_pythonpath_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python treats each as the current folder."""
    monkeypatch.setenv("PYTHONPATH", ":/one::/two:")
    assert local_runner._python_path() == "/one:/two"
    monkeypatch.delenv("PYTHONPATH")
    assert local_runner._python_path() == ""


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """A command's input and vocabulary."""
    (tmp_path / "a.jsonl").write_bytes(corpora.jsonl(corpora.texts(60)))
    corpora.write_vocabulary(tmp_path / "vocab.txt")
    return ["prepare", "--input", str(tmp_path / "a.jsonl"), "--vocab", str(tmp_path / "vocab.txt"), *SMALL]


def hostile(folder: Path) -> Path:
    """A folder of modules with names of ours or of the standard library; importing one fails."""
    folder.mkdir()
    for name in ("model", "pipelines", "trainers", "deploy"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('a module of the current folder was imported')\n")
    for name in ("proto", "typing", "queue", "random", "statistics", "records", "numpy"):
        (folder / f"{name}.py").write_text("raise SystemExit('a module of the current folder was imported')\n")
    return folder


@pytest.mark.slow
def test_workers_open_no_port_and_import_nothing_from_the_current_folder(tmp_path: Path, inputs: list[str]) -> None:
    """One run with two workers, started by the console script and observed from outside."""
    assert clozemill.main([*inputs, "--output", str(tmp_path / "one"), "--in-memory"]) == 0
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/clozemill").write_text(CONSOLE_SCRIPT)
    root = str(Path(clozemill.__file__).parents[1])
    command = [sys.executable, str(tmp_path / "bin/clozemill"), *inputs, "--output", str(tmp_path / "two")]
    process = subprocess.Popen(
        [*command, "--no-in-memory", "--num-workers", "2"],
        cwd=hostile(tmp_path / "cwd"),
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    found, most = set(), 0
    while process.poll() is None:
        family = sockets.family(process.pid)
        found, most = found | sockets.listening(family), max(most, len(family))
        time.sleep(0.1)
    assert (process.returncode, process.stderr.read()) == (0, "")
    assert most == 3, "this program and two workers, without a shell between"
    (only,) = found
    assert only.startswith("unix ") and only.endswith("/beam") and not os.path.exists(only[5:])
    digests = {json.loads((tmp_path / name / "dataset.json").read_text())["digest"] for name in ("one", "two")}
    assert len(digests) == 1


def test_a_worker_exits_with_its_parent_and_cleans_up(tmp_path: Path) -> None:
    """At any moment: here it is still loading Beam."""
    (tmp_path / "socket").mkdir()
    alive, held = os.pipe()
    command = [sys.executable, "-P", worker.__file__, str(alive), str(tmp_path / "socket")]
    process = subprocess.Popen(command, pass_fds=(alive,))
    os.close(alive)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    os.close(held)  # as if the parent was killed
    assert process.wait(60) == 1
    assert not (tmp_path / "socket").exists()


@pytest.mark.slow
def test_workers_of_a_killed_run_exit_and_release_the_lock(tmp_path: Path, inputs: list[str]) -> None:
    """The next run, with other options, waits for them and succeeds."""
    (tmp_path / "t").mkdir()
    command = [sys.executable, "-m", "clozemill", *inputs, "--output", str(tmp_path / "d"), "--dupe-factor", "20"]
    environment = os.environ | {"TMPDIR": str(tmp_path / "t")}
    process = subprocess.Popen([*command, "--no-in-memory", "--num-workers", "2"], env=environment, stdout=subprocess.DEVNULL)
    while not list((tmp_path / "d").rglob("spill/*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    workers = sockets.family(process.pid)[1:]
    assert len(workers) == 2
    process.kill()
    process.wait()
    more = ["--num-groups", "3", "--seed", "8", "--in-memory"]
    assert clozemill.main([*inputs, "--output", str(tmp_path / "d"), *more]) == 0
    assert not any(map(psutil.pid_exists, workers)) and os.listdir(tmp_path / "t") == []
    assert clozemill.main([*inputs, "--output", str(tmp_path / "e"), *more]) == 0
    digests = {json.loads((tmp_path / name / "dataset.json").read_text())["digest"] for name in "de"}
    assert len(digests) == 1


def test_python_m_imports_nothing_from_the_current_folder(tmp_path: Path, demo_dataset: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(clozemill.__file__).parents[1])}
    command = [sys.executable, "-m", "clozemill", "inspect", str(demo_dataset), "--limit", "1"]
    done = subprocess.run(command, cwd=hostile(tmp_path / "cwd"), env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "record 0: " in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["vocab", "--input", "{a}", "--output", "{place}/v.txt", "--vocab-size", "100", "--in-memory"],
        ["prepare", "--input", "{a}", "--vocab", "{place}/vocab.txt", "--output", "{place}/d", "--in-memory", *SMALL],
        ["verify", "{dataset}"],
        ["inspect", "{dataset}", "--limit", "3"],
        ["plan", "--input", "{a}", "--vocab", "{place}/vocab.txt"],
    ],
    ids=lambda words: words[0],
)
def test_single_process_commands_open_no_port(tmp_path: Path, inputs: list[str], demo_dataset: Path, words: list[str]) -> None:
    places = {"a": f"{tmp_path}/a.jsonl", "place": str(tmp_path), "dataset": str(demo_dataset)}
    with sockets.watched() as found:
        assert clozemill.main([word.format(**places) for word in words]) == 0
    assert found == set()


def test_the_log_of_the_workers_is_complete_and_closed_when_the_run_ends(tmp_path):
    """Otherwise its folder can't be unmounted, and the last lines may be missing."""
    path = tmp_path / "workers.log"
    for line in range(50):
        with launcher._workers_log(str(path)):
            os.write(2, f"{line}\n".encode())
        assert path.read_text().endswith(f"{line}\n")
        descriptors = Path("/proc/self/fd").iterdir()
        assert str(path) not in {os.readlink(one) for one in descriptors if one.is_symlink()}
