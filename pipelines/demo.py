"""The first half of `clozemill demo`: from the corpus that comes with the package to a dataset; trainers/demo.py has the rest.

clozemill demo --output demo-out
"""

from importlib import resources

from pipelines import build, filesystem, inspect, verify
from pipelines.config import DemoConfig, InspectConfig, PrepareConfig, VerifyConfig, VocabConfig
from pipelines.options import to_yaml
from pipelines.schema import MANIFEST, UserError

CORPUS = "data/demo-corpus.xml"


def _say(step: str) -> None:
    print(f"\n== {step}", flush=True)


def _begin(folder: str) -> None:
    """Removes an earlier demo's folder; one that holds anything else is refused."""
    vocab, dataset = filesystem.join(folder, "vocab.txt"), filesystem.join(folder, "dataset")
    ours = filesystem.exists(vocab) or filesystem.exists(filesystem.join(dataset, MANIFEST))
    if filesystem.holds_files(folder) and not ours:
        raise UserError(f"{folder} is there and is no earlier demo: give a new folder as --output")
    for part in (dataset, filesystem.join(folder, "run")):
        filesystem.remove_tree(part)


def main(config: DemoConfig) -> int:
    """Vocabulary, shards, verification and a look at some records; returns verify's exit code."""
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
