"""Beam's other runners: those that would open servers here are rejected; necessary servers listen on loopback."""

import socket

import grpc
import pytest

from clozemill.pipelines.beam import listening, runners
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import RunOptions
from tests import sockets

FN_API = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
SWITCHING = "apache_beam.runners.direct.direct_runner.SwitchingDirectRunner"


@pytest.mark.parametrize("name", [FN_API, SWITCHING, "fnapirunner", "directrunner", "PrismRunner"])
def test_runners_that_serve_files_to_the_network_are_rejected(name: str) -> None:
    with pytest.raises(UserError, match=f"--runner {name} opens servers .*: give --runner FnApiRunner"):
        runners.check(RunOptions(runner=name), [])


@pytest.mark.parametrize("name", ["FnApiRunner", "DirectRunner", "BundleBasedDirectRunner"])
def test_runners_within_this_process_are_accepted(name: str) -> None:
    runners.check(RunOptions(runner=name), [])


def test_an_embedded_job_service_is_rejected() -> None:
    runners.check(RunOptions(runner="PortableRunner"), ["--job_endpoint", "localhost:8099"])
    with pytest.raises(UserError, match=r"--job_endpoint embed opens servers .*: give --runner FnApiRunner"):
        runners.check(RunOptions(runner="PortableRunner"), ["--job_endpoint=embed"])


def test_dask_needs_an_existing_cluster() -> None:
    """Without one it starts a scheduler without authentication, and a dashboard on all interfaces."""

    class DaskRunner:
        pass

    for given in ({"address": "tcp://127.0.0.1:8786"}, {"scheduler_file": "s.json"}):
        listening.refuse_open_servers("DaskRunner", DaskRunner(), given)
    with pytest.raises(UserError, match="open to the network: give --dask_client_address, or --runner FnApiRunner"):
        listening.refuse_open_servers("DaskRunner", DaskRunner(), {"address": None})


@pytest.mark.parametrize(
    ("asked", "address"),
    [
        ("[::]:0", "localhost:0"),
        ("0.0.0.0:50000", "localhost:50000"),
        (":8099", "localhost:8099"),
        ("[0:0:0:0:0:0:0:0]:1", "localhost:1"),
        ("localhost:0", "localhost:0"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("[::1]:0", "[::1]:0"),
        ("host.example:80", "host.example:80"),
        ("unix:/tmp/a", "unix:/tmp/a"),
    ],
)
def test_all_interfaces_become_loopback(asked: str, address: str) -> None:
    assert listening._loopback(asked) == address


def test_workers_within_this_process_listen_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of --environment_type=LOOPBACK: Beam's own pool, which runs any code sent to it."""
    from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer

    monkeypatch.setattr(grpc, "server", grpc.server)  # restored afterwards
    listening.listen_on_loopback_only()
    listening.listen_on_loopback_only()
    with sockets.watched() as found:
        address, server = BeamFnExternalWorkerPoolServicer.start()
        with socket.create_connection(("localhost", int(address.rpartition(":")[2]))):
            pass
        while not found:
            pass
        server.stop(0)
    assert {row.split()[1] for row in found} <= {"127.0.0.1", "::1"}, found
