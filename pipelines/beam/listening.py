"""Restrict the addresses a run listens on: no port that other machines can reach, no server for this machine's files.

The servers of local worker processes are in local_runner.py. This module is for the other runners of Beam.
"""

import ipaddress
from typing import Any

import grpc

from clozemill.pipelines.common.errors import UserError

# Beam runners that open servers on this machine: FnApiRunner serves any file to anyone, on all interfaces; the others start
# FnApiRunner, or a program that they download.
_OPEN = tuple(
    f"apache_beam.runners.{name}" for name in ("direct.", "interactive.", "portability.fn_api_", "portability.prism_")
)
_IN_PROCESS = ("BundleBasedDirectRunner",)


def refuse_open_servers(name: str, runner: Any, options: dict[str, Any]) -> None:
    """Raise UserError for a runner that would start servers that other users of this machine or network can reach.

    Args:
        name: the value of --runner, for the message. options: all of Beam's options, by destination.
    """
    kind = type(runner)
    reason = ""
    if kind.__module__.startswith(_OPEN) and kind.__name__ not in _IN_PROCESS:
        reason = f"--runner {name} opens servers that anyone on the network can use to read your files: give"
    elif options.get("job_endpoint") == "embed":
        reason = "--job_endpoint embed opens servers that other users of this machine can use to read your files: give"
    elif kind.__name__ == "DaskRunner" and not (options.get("address") or options.get("scheduler_file")):
        reason = (
            "--runner DaskRunner without a cluster starts one here, which runs code that other users of this machine send, and "
            "its dashboard is open to the network: give --dask_client_address, or"
        )
    if reason:
        raise UserError(f"{reason} --runner FnApiRunner")


def _loopback(address: str) -> str:
    """Return the address to listen on: `localhost` for a host that means all interfaces."""
    host, separator, port = address.rpartition(":")
    try:
        anywhere = not host or ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:  # a host name, or unix:
        return address
    return f"localhost{separator}{port}" if anywhere else address


def listen_on_loopback_only() -> None:
    """Make gRPC servers of this process listen on the loopback interface if they ask for all interfaces.

    Beam asks for all interfaces for workers within this process (--environment_type=LOOPBACK). The address that it gives to
    workers is localhost, so every worker can still connect.
    """
    if getattr(grpc.server, "__module__", "") == __name__:
        return
    make = grpc.server

    def server(*args: Any, **options: Any) -> grpc.Server:
        made = make(*args, **options)
        add = made.add_insecure_port
        made.add_insecure_port = lambda address: add(_loopback(address))
        return made

    grpc.server = server
