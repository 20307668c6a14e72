"""Fuzz one target for some seconds: `python -m tests.faults.fuzz.one NAME SECONDS FOLDER`.

Uses atheris, guided by the coverage of our modules, or if it isn't installed, mutations of the seeds. An exception is stored
with its input, once per location that raises it, and fuzzing continues. Inputs that end the process (a crash of a library, a
hang, too much memory) are stored by libFuzzer.
"""

import hashlib
import importlib
import json
import sys
import time
import traceback
from pathlib import Path

from tests.faults.fuzz import mutation

try:
    import atheris
except ImportError:  # wheels only for Linux
    atheris = None

INSTRUMENTED = ["pipelines", "trainers", "model", "yaml"]
MODULES = ("tests.faults.fuzz.targets", "tests.faults.fuzz.trainer_targets")
SECONDS = 20.0  # CPU seconds for an input of at most 100 kB after expansion; without instrumentation a tenth or less is used
MEMORY_MB = 3000


class Ledger:
    """The findings of a target, stored in FOLDER, so that they survive the process."""

    def __init__(self, target, folder: Path) -> None:
        self._run, self._folder, self._slowest, self._places = target.run, folder, 0.0, set()
        self.executed = 0

    def __call__(self, data: bytes) -> None:
        begin = time.process_time()
        try:
            self._run(data)
        except Exception as error:
            self._keep(error, data)
        seconds = time.process_time() - begin
        self.executed += 1
        if seconds > self._slowest:
            self._slowest = seconds
            (self._folder / "slowest.json").write_text(json.dumps({"seconds": seconds, "input": data.hex()}))
            if seconds > SECONDS:
                self._keep(TimeoutError(f"{seconds:.1f} s of CPU"), data)

    def _keep(self, error: Exception, data: bytes) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/fuzz/one.py" not in frame.filename]
        place = f"{type(error).__name__} {ours[-1].filename}:{ours[-1].lineno}" if ours else type(error).__name__
        if place in self._places:
            return
        self._places.add(place)
        name = hashlib.sha256(place.encode()).hexdigest()[:12]
        (self._folder / f"finding-{name}.bin").write_bytes(data)
        (self._folder / f"finding-{name}.txt").write_text(
            place + "\n" + "".join(traceback.format_exception(error)[-12:]), errors="backslashreplace"
        )


def load(name: str):
    """Return a target by name; the trainer's targets are loaded only if the pipelines have no target of that name."""
    for module in MODULES:
        targets = importlib.import_module(module).TARGETS
        if name in targets:
            return targets[name]
    raise SystemExit(f"no target {name}")


def _dictionary(words: tuple[bytes, ...], path: Path) -> str:
    lines = ('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words)
    path.write_text("".join(lines))
    return str(path)


def main(name: str, seconds: int, folder: Path) -> None:
    """Run the target; the corpus and the findings are in FOLDER."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    if atheris is None:
        target = load(name)
        ledger, end = Ledger(target, folder), time.monotonic() + seconds
        for data in mutation.mutants(target.seeds(), target.words):
            ledger(data)
            if time.monotonic() > end:
                break
        print(f"stat::number_of_executed_units: {ledger.executed}")
        return
    with atheris.instrument_imports(include=INSTRUMENTED):
        target = load(name)
    for seed in target.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    longest = max(2000, 500 + max(map(len, target.seeds())))  # libFuzzer truncates longer inputs
    flags = [f"-max_total_time={seconds}", "-timeout=900", f"-rss_limit_mb={MEMORY_MB}", f"-max_len={longest}"]
    flags += ["-len_control=0", "-print_final_stats=1", f"-artifact_prefix={folder}/"]
    if target.words:
        flags.append(f"-dict={_dictionary(target.words, folder / 'words')}")
    atheris.Setup([sys.argv[0], *flags, str(corpus)], Ledger(target, folder))
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
