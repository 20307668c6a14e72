"""The second half of `clozemill demo`: from the dataset that pipelines/demo.py made to a pretrained checkpoint.

clozemill demo --output demo-out
"""

from trainers import evaluate, files, pretrain
from trainers.config import EvaluateConfig, PretrainConfig
from trainers.recipes import RECIPES


def main(config) -> int:
    """Pretrains with the recipe `demo` and evaluates; `config` is the demo's, of which output and seed are used."""
    dataset, run = files.join(config.output, "dataset"), files.join(config.output, "run")
    print("\n== pretrain: a tiny encoder on these shards", flush=True)
    recipe = RECIPES["demo"].options
    code = pretrain.main(PretrainConfig(recipe="demo", data=(dataset,), output=run, seed=config.seed, **recipe))
    if code:
        return code
    print("\n== evaluate: what it makes of documents that it has never seen", flush=True)
    code = evaluate.main(EvaluateConfig(run=run, data=dataset))
    print(f"\nNext: the same commands on a corpus of your own; {config.output}/ may be removed.")
    return code
