"""The ports and named Unix sockets that processes listen on, from /proc."""

import contextlib
import ipaddress
import os
import threading
from collections.abc import Iterable, Iterator

import psutil

_LISTENS = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}  # the protocol's state of a listening socket


def _inodes(pids: Iterable[int]) -> set[str]:
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    found.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return {target[len("socket:[") : -1] for target in found if target.startswith("socket:[")}


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def _address(told: str) -> str:
    """Convert an address in /proc/net, hexadecimal words of 32 bits, to its usual form."""
    data, port = bytes.fromhex(told.split(":")[0]), int(told.split(":")[1], 16)
    host = ipaddress.ip_address(b"".join(data[start : start + 4][::-1] for start in range(0, len(data), 4)))
    return f"{getattr(host, 'ipv4_mapped', None) or host} {port}"


def listening(pids: Iterable[int]) -> set[str]:
    """For each port that a process listens on "tcp6 ::1 8080", for each Unix socket with a name "unix /path"."""
    inodes, found = _inodes(pids), set()
    for protocol, state in _LISTENS.items():
        with open(f"/proc/net/{protocol}") as file:
            rows = [line.split() for line in file.readlines()[1:]]
        found |= {f"{protocol} {_address(row[1])}" for row in rows if row[3] == state and row[9] in inodes}
    with open("/proc/net/unix") as file:
        rows = [line.split(maxsplit=7) for line in file.readlines()[1:]]
    # The flag __SO_ACCEPTCON, 0x10000.
    return found | {f"unix {row[7].strip()}" for row in rows if len(row) > 7 and row[3] == "00010000" and row[6] in inodes}


@contextlib.contextmanager
def watched() -> Iterator[set[str]]:
    """Collect everything that this process starts to listen on within the block."""
    before, found, over = listening([os.getpid()]), set(), threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            found.update(listening(family(os.getpid())) - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
