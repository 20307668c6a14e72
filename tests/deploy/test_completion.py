"""Completion scripts, run by the shells that are installed."""

import shutil
import subprocess

import pytest

import clozemill
from clozemill.deploy import completion


def completed(line: str) -> list[str]:
    """What bash offers at the end of a line."""
    words = line.split(" ")
    script = completion.bash() + (
        f"COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}; _clozemill\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("clozemill pre", ["prepare", "pretrain", "predict", "preflight"]),
        ("clozemill --quiet ver", ["verify"]),
        ("clozemill prepare --masking ", ["subword", "whole_word", "span"]),
        ("clozemill prepare --masking w", ["whole_word"]),
        ("clozemill pretrain --objective mlm+", ["mlm+nsp", "mlm+sop"]),
        ("clozemill prepare --max-s", ["--max-symbol-ratio", "--max-seq-length"]),
        ("clozemill prepare --no-pro", ["--no-progress", "--no-provenance"]),
        ("clozemill verify --ver", ["--version", "--verbose"]),
        ("clozemill submit ", ["dataflow", "flink", "spark", "dask", "tpu", "gke", "vertex"]),
        ("clozemill verify ", []),  # the shell completes file names
        ("clozemill nonsense --", []),
    ],
)
def test_bash_completes(line: str, offered: list[str]) -> None:
    assert completed(line) == offered


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_shell_parses_its_script(shell: str, capsys: pytest.CaptureFixture) -> None:
    assert clozemill.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "clozemill" in script and all(name in script for name in clozemill.COMMANDS)
    if shutil.which(shell):
        done = subprocess.run([shell, "-n", "-c", script], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
