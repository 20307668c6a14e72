"""Compare `prepare --update` with a full rebuild after some documents changed: CPU seconds, groups rebuilt, same digest.

python -m tests.benchmarks.update --corpus novels.jsonl.gz --vocab vocab.txt
"""

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path


def prepare(source: Path, vocab: str, output: Path, groups: int, *more: str) -> float:
    """CPU seconds of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "clozemill.py", "prepare", "--input", str(source), "--vocab", vocab, "--output", str(output)]
    options = ["--num-groups", str(groups), "--seed", "7", "--no-progress", "--in-memory"]
    subprocess.run([*command, *options, *more], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, help="a .jsonl.gz file")
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--changed", type=int, default=2, help="documents that lose their last sentence")
    options = parser.parse_args()
    with gzip.open(options.corpus, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    with tempfile.TemporaryDirectory() as folder:
        source, updated, rebuilt = (Path(folder) / name for name in ("corpus.jsonl", "updated", "rebuilt"))
        source.write_text("\n".join(lines), "utf-8")
        prepare(source, options.vocab, updated, options.groups)
        stamps = {path: path.stat().st_mtime_ns for path in updated.rglob("*.tfrecord")}
        for at in range(options.changed):
            record = json.loads(lines[at * len(lines) // options.changed])
            record["text"] = record["text"].rsplit(". ", 1)[0]
            lines[at * len(lines) // options.changed] = json.dumps(record)
        source.write_text("\n".join(lines), "utf-8")
        update = prepare(source, options.vocab, updated, options.groups, "--update")
        rebuild = prepare(source, options.vocab, rebuilt, options.groups)
        remade = sum(path.stat().st_mtime_ns != stamp for path, stamp in stamps.items())
        digests = {json.loads((path / "dataset.json").read_text())["digest"] for path in (updated, rebuilt)}
        print(f"{options.changed} of {len(lines):,} documents changed: {remade} of {len(stamps)} shards remade")
        print(
            f"update {update:.1f} CPU s, rebuild {rebuild:.1f} CPU s: {rebuild / update:.2f} times; "
            f"digests equal: {len(digests) == 1}"
        )


if __name__ == "__main__":
    main()
