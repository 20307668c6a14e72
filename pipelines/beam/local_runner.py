"""Beam's FnApiRunner with worker processes that other users can't reach.

Beam serves its workers on ports of all network interfaces, without authentication, and one of its services reads any file
on request. This module serves the three services that workers need on a Unix socket in a folder of mode 700, and starts workers
without the current folder on their import path. It replaces two entries of Beam's worker_handlers: the class of the server, and
the handler of the environment for `--direct_running_mode=multi_processing`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from typing import Any

import apache_beam
import grpc
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2_grpc, endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.worker import data_plane
from apache_beam.utils import thread_pool_executor
from google.protobuf import json_format, text_format

from clozemill.pipelines.beam import worker
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import locks

_MAX_PATH = 100  # bytes: the address of a Unix socket is limited to 108 on Linux, 104 on macOS
_STOP_SECONDS = 5.0
# The options of Beam's own server: messages of any size, pings of idle workers allowed.
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
]


def _private_folder() -> str:
    """Create a folder of mode 700 whose name is short enough for the address of a socket."""
    for parent in (tempfile.gettempdir(), "/tmp"):
        if len(os.fsencode(parent)) + len("/clozemill-12345678/beam") <= _MAX_PATH and os.access(parent, os.W_OK | os.X_OK):
            return tempfile.mkdtemp(prefix="clozemill-", dir=parent)
    raise UserError(
        f"{tempfile.gettempdir()}: the path is too long for a socket: set TMPDIR to a shorter path, or give --in-memory"
    )


def _python_path() -> str:
    """Return PYTHONPATH without empty entries, which mean the current folder to Python."""
    return os.pathsep.join(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))


class PrivateServer:
    """Serves control, data and state to the workers of one run. Has the attributes of GrpcServer that Beam uses.

    There is no artifact service: workers have the code already, and get everything else with the pipeline.
    """

    def __init__(self, state: Any, provision_info: Any, worker_manager: Any) -> None:
        self.state, self.provision_info = state, provision_info
        self.control_handler = worker_handlers.BeamFnControlServicer(worker_manager)
        self.data_plane_handler = data_plane.BeamFnDataServicer(worker_handlers.DATA_BUFFER_TIME_LIMIT_MS)
        self._server = grpc.server(thread_pool_executor.shared_unbounded_instance(), options=_OPTIONS)
        beam_fn_api_pb2_grpc.add_BeamFnControlServicer_to_server(self.control_handler, self._server)
        beam_fn_api_pb2_grpc.add_BeamFnDataServicer_to_server(self.data_plane_handler, self._server)
        state_servicer = worker_handlers.GrpcStateServicer(state)
        beam_fn_api_pb2_grpc.add_BeamFnStateServicer_to_server(state_servicer, self._server)
        self.folder = _private_folder()
        worker.SOCKETS.add(self.folder)
        address = f"unix:{self.folder}/beam"
        self._server.add_insecure_port(address)
        # Beam turns these into "localhost:<port>" in port_from_worker, which is replaced below.
        self.control_address = self.control_port = self.data_port = self.state_port = self.logging_port = address
        self.alive, self._held = os.pipe()  # workers hold the read end, and so notice when this process exits
        self._server.start()

    def close(self) -> None:
        """Stop serving, and remove the socket."""
        self.control_handler.done()
        self._server.stop(_STOP_SECONDS).wait()
        os.close(self._held)
        os.close(self.alive)
        worker.SOCKETS.discard(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)


class WorkerProcess(worker_handlers.GrpcWorkerHandler):
    """Starts worker.py as a process, and waits for it to exit."""

    def __init__(self, payload: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        if not isinstance(grpc_server, PrivateServer):
            raise UserError(
                f"Apache Beam {apache_beam.__version__} is not supported by clozemill: install "
                "the version that setup.py names, or give --in-memory"
            )
        super().__init__(state, provision_info, grpc_server)  # type: ignore[arg-type]  # Beam names its own class
        self._private = grpc_server
        self._process: subprocess.Popen | None = None

    def start_worker(self) -> None:
        """Start the process; it connects by itself."""
        server, options = self._private, self.provision_info.provision_info.pipeline_options
        control = endpoints_pb2.ApiServiceDescriptor(url=server.control_address)
        environment = os.environ | {
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
            "PIPELINE_OPTIONS": json_format.MessageToJson(options),
            "WORKER_ID": self.worker_id,
            "PYTHONPATH": _python_path(),
        }
        command = [sys.executable, "-P", worker.__file__, str(server.alive), server.folder]
        # Workers inherit the locks: if this process is killed, the next run also waits until the workers have exited.
        self._process = subprocess.Popen(command, env=environment, pass_fds=(server.alive, *locks.held_descriptors()))

    def stop_worker(self) -> None:
        """Wait for the process, which exits when the control connection closes."""
        if self._process:
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class LocalRunner(FnApiRunner):
    """FnApiRunner, with worker processes started and served as above."""


def _address(self: Any, address: Any) -> Any:
    """Return a socket's address unchanged, where Beam has a port."""
    return address


worker_handlers.GrpcServer = PrivateServer  # type: ignore[assignment,misc]  # it replaces the class of Beam
worker_handlers.GrpcWorkerHandler.port_from_worker = _address  # type: ignore[assignment,method-assign]  # it replaces that of Beam
worker_handlers.WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(WorkerProcess)
