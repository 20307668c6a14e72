"""The first half of `clozemill demo`: from the corpus that comes with the package to a dataset; trainers/demo.py has the rest.

clozemill demo --output demo-out
"""

import os
from importlib import resources

from pipelines import build, filesystem, inspect, locks, verify
from pipelines.config import DemoConfig, InspectConfig, PrepareConfig, VerifyConfig, VocabConfig
from pipelines.options import to_yaml
from pipelines.schema import UserError

CORPUS = "data/demo-corpus.xml"
MARK = ".clozemill-demo"  # written before anything else, so that a demo removes only what a demo made


def _say(step: str) -> None:
    print(f"\n== {step}", flush=True)


def _begin(folder: str) -> None:
    """Removes what an earlier demo made; a folder that no demo began is refused, whatever it holds."""
    mark = filesystem.join(folder, MARK)
    others = [name for name in filesystem.names_below(folder) if name != locks.FOLDER]
    if others and not filesystem.exists(mark):
        raise UserError(
            f"{folder} has files, and no demo made it (it has no {MARK}): nothing was removed; give a new folder as --output"
        )
    filesystem.write_bytes(mark, b"clozemill demo made this folder, and removes what is in it when it is run again.\n")
    for part in ("dataset", "run"):
        filesystem.remove_tree(filesystem.join(folder, part))


def main(config: DemoConfig) -> int:
    """Vocabulary, shards, verification and a look at some records; returns verify's exit code."""
    os.makedirs(config.output, exist_ok=True)
    with locks.locked(f"{config.output}/{locks.FOLDER}", f"another demo is writing to {config.output}: wait for it to end"):
        return _run(config)


def _run(config: DemoConfig) -> int:
    _begin(config.output)
    corpus = str(resources.files("pipelines") / CORPUS)
    vocab, dataset = filesystem.join(config.output, "vocab.txt"), filesystem.join(config.output, "dataset")
    _say("vocabulary: words counted over the corpus, pieces learnt")
    build.vocab(VocabConfig(input=(corpus,), output=vocab, vocab_size=config.vocab_size, progress=config.progress), [])
    _say("shards: articles to masked sentence pairs")
    policy = {"masking": "whole_word", "eval_fraction": 0.1, "provenance": True, "seed": config.seed}
    paths = {"input": (corpus,), "vocab": vocab, "output": dataset}
    build.prepare(PrepareConfig(**paths, **policy, progress=config.progress), [])
    _say("verify: every record read back")
    code = verify.main(VerifyConfig(dataset=dataset, progress=config.progress))
    _say("inspect: what a model will be asked")
    inspect.main(InspectConfig(dataset=dataset, limit=3))
    filesystem.write_bytes(filesystem.join(config.output, "demo.yaml"), to_yaml(config).encode())
    return code
