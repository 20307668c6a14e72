"""The command as a process: closed and full streams, signals at any moment."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FULL = (
    "clozemill: standard output can't be written (No space left on device): free some space, or redirect the output elsewhere\n"
)
ROOT = Path(__file__).parents[3]


def shell(redirections: str, code: str) -> subprocess.CompletedProcess:
    """Runs Python code as a command, with a shell's redirections."""
    command = f"{sys.executable} -c '{code}' {redirections}"
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=ROOT)


COMMAND = "import sys, clozemill; sys.argv[1:] = [{}]; sys.exit(clozemill.main())"
HELP, MISTAKE = COMMAND.format('"--help"'), COMMAND.format('"verify", "nowhere"')


@pytest.mark.parametrize(
    ("redirections", "code", "expected", "error"),
    [
        (">/dev/full", HELP, 2, FULL),
        (">&- 2>&- <&-", HELP, 0, ""),
        ("2>/dev/full", MISTAKE, 2, ""),
        (">&- 2>&-", MISTAKE, 2, ""),
    ],
)
def test_streams_that_are_closed_or_full(redirections: str, code: str, expected: int, error: str) -> None:
    done = shell(redirections, code)
    assert (done.returncode, done.stderr) == (expected, error)


def test_the_number_of_a_closed_stream_is_not_reused(tmp_path: Path) -> None:
    """Without /dev/null in its place, the first file that is opened would be 1, and hold what is printed."""
    code = f"""
from clozemill.pipelines.command_line import process
process.open_streams()
with open("{tmp_path}/data", "w") as file:
    print("printed", flush=True)
    file.write("data")
"""
    done = subprocess.run(["sh", "-c", f"{sys.executable} - >&- 2>&-"], input=code, text=True, cwd=ROOT)
    assert done.returncode == 0 and (tmp_path / "data").read_text() == "data"


# The main thread is in a call that no handler of Python's interrupts, as in a long step of TensorFlow.
LONG = """
import ctypes, threading
from clozemill.pipelines.command_line import process
def first(name):
    print(name, flush=True)
with process.noted(first):
    print("begun", flush=True)
    for _ in range({calls}):
        ctypes.CDLL(None).poll(None, 0, {milliseconds})
print("ended", flush=True)
"""


# Under nohup, and in a shell's background job, the tests' own process ignores some of them.
HEEDED = "import signal\nfor number in (signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_DFL)\n"


def begun() -> subprocess.Popen:
    code = HEEDED + LONG.format(calls=1000, milliseconds=600_000)  # a signal may end one call
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_noted_and_the_second_ends_the_process_at_once(number: signal.Signals) -> None:
    process = begun()
    process.send_signal(number)
    assert process.stdout.readline() == f"{number.name}\n"
    process.send_signal(number)
    assert process.wait() == 128 + number
    assert process.stdout.read().count("ended") == 0


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As after nohup."""
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + LONG.format(calls=1, milliseconds=1)
    code += "assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "begun\nended\n", done.stderr


TERMINATED = """
import os, signal, sys, clozemill
def run(config):
    signal.raise_signal({number})
clozemill.lazy_import.function = lambda path: run
sys.argv[1:] = ["predict", ".", "--text", "a"]
sys.exit(clozemill.main())
"""


@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "ended by SIGTERM"), (signal.SIGHUP, "ended by SIGHUP")],
)
def test_a_signal_ends_any_command_in_one_sentence(number: signal.Signals, told: str) -> None:
    code = HEEDED + TERMINATED.format(number=int(number))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=os.environ)
    assert done.returncode == 128 + number
    assert done.stderr == f"\nclozemill: {told}; no output file was written\n"
