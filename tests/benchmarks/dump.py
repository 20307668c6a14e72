"""Convert a MediaWiki dump to clean text: CPU and wall seconds by stage, for one source tree or for two in turn.

    python -m tests.benchmarks.dump --dump enwiki-excerpt.xml.bz2 --other ../before --repeats 5

A small dump's pages are repeated, numbered, in a multistream .bz2 of 100 pages a stream, as Wikipedia's are. `--other` is
another checkout, and both run alternately, each time in a new process. The run with the fewest CPU seconds counts, because
other jobs on the machine can only add to them. The digest shows whether both give the same text.
"""

import argparse
import bz2
import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = 100  # pages per stream
WORK = """
import hashlib, json, sys, time
from clozemill.pipelines.readers import formats
from clozemill.pipelines.text.cleaning import clean
from clozemill.pipelines.config import PrepareConfig
config, clocks, digest, size = PrepareConfig(input=(sys.argv[1],)), {}, hashlib.sha256(), 0
def timed(stage, work):
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    before = clocks.get(stage, (0.0, 0.0))
    clocks[stage] = before[0] + time.process_time() - cpu, before[1] + time.perf_counter() - wall
    return result
for split in formats.plan(config).splits:
    records = formats.read(split, config)
    while record := timed("read", lambda: next(records, None)):
        if hasattr(record, "text"):
            plain = timed("wikitext", lambda: formats.plain_text(record, config))
            text = timed("clean", lambda: clean(plain)).encode()
            size += len(text)
            digest.update(text + b"\\0")
print(json.dumps({"clocks": clocks, "digest": digest.hexdigest()[:16], "text": size}))
"""


def multistream(source: Path, target: Path, copies: int) -> None:
    """Write the pages of a dump `copies` times; the text of each copy starts with its number."""
    data = (bz2.open if source.suffix == ".bz2" else open)(source, "rb").read()
    begin, end = data.index(b"<page>"), data.rindex(b"</page>")
    pages = [page + b"</page>" for page in data[begin:end].split(b"</page>")]
    mark = b'<text xml:space="preserve">'
    numbered = [page.replace(mark, mark + b"Copy %d. " % copy) for copy in range(copies) for page in pages]
    with open(target, "wb") as out:
        out.write(bz2.compress(data[:begin]))
        for low in range(0, len(numbered), PAGES):
            out.write(bz2.compress(b"\n".join(numbered[low : low + PAGES])))
        out.write(bz2.compress(b"\n</mediawiki>\n"))


def measure(tree: Path, dump: Path) -> dict:
    """Seconds by stage of one run of a source tree."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(dump)], cwd=tree, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", type=Path, required=True, help="a MediaWiki dump, .xml or .xml.bz2")
    parser.add_argument("--copies", type=int, default=8, help="how often its pages are repeated; 0: take it as it is")
    parser.add_argument("--other", type=Path, help="another checkout of this repository to compare with")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "clozemill-bench")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    dump = options.dump
    if options.copies:
        dump = options.work / "repeated.xml.bz2"
        multistream(options.dump, dump, options.copies)
    trees = [REPOSITORY, *([options.other.resolve()] if options.other else [])]
    runs = [[measure(tree, dump.resolve()) for tree in trees] for _ in range(options.repeats)]
    sums = []
    print(f"{'tree':28}{'stage':>10}{'CPU s':>8}{'wall s':>8}")
    for number, tree in enumerate(trees):
        best = min((row[number] for row in runs), key=lambda run: sum(cpu for cpu, _ in run["clocks"].values()))
        for stage, (cpu, wall) in best["clocks"].items():
            print(f"{tree.name:28}{stage:>10}{cpu:8.2f}{wall:8.2f}")
        sums.append([sum(column) for column in zip(*best["clocks"].values(), strict=True)])
        speed = best["text"] / 1e6 / sums[-1][0]
        print(f"{tree.name:28}{'all':>10}{sums[-1][0]:8.2f}{sums[-1][1]:8.2f}   {speed:.2f} MB of text per CPU second")
        print(f"{tree.name:28}{'digest':>10} {best['digest']}")
    if len(sums) == 2:
        print(f"other / this: {sums[1][0] / sums[0][0]:.2f} in CPU seconds, {sums[1][1] / sums[0][1]:.2f} by the clock")


if __name__ == "__main__":
    main()
