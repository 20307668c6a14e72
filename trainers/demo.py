"""The second half of `clozemill demo`: from the dataset that pipelines/demo.py made to a classifier that answers.

clozemill demo --output demo-out --text "The windmill was repaired by an engineer."
"""

from importlib import resources

from trainers import evaluate, export, files, finetune, predict, pretrain
from trainers.config import EvaluateConfig, PretrainConfig
from trainers.config_export import ExportConfig
from trainers.config_finetune import FinetuneConfig, PredictConfig
from trainers.recipes import RECIPES

EXAMPLES = "data/demo-{}.tsv"  # sentences about nature, technology and culture


def main(config) -> int:
    """Pretrains, evaluates, exports, fine-tunes, answers; `config` is the demo's, of which output, seed and text are used."""
    out = config.output
    dataset, run, tuned = (files.join(out, name) for name in ("dataset", "run", "fine-tuned"))
    paths = {name: str(resources.files("trainers") / EXAMPLES.format(name)) for name in ("train", "dev")}
    settings = {"task": "classify", "learning_rate": 1e-3, "epochs": 12.0, "batch_size": 16, "seed": config.seed}
    answer = PredictConfig(run=tuned, text=config.text)
    for part in ("exported", "fine-tuned"):  # an earlier demo's: pipelines/demo.py has seen that the folder is one
        files.remove_tree(files.join(out, part))
    for title, stage, settled in (
        ("pretrain: a tiny encoder on these shards", pretrain.main,
         PretrainConfig(recipe="demo", data=(dataset,), output=run, seed=config.seed, **RECIPES["demo"].options)),
        ("evaluate: what it makes of documents that it has never seen", evaluate.main, EvaluateConfig(run=run, data=dataset)),
        ("export: for TensorFlow, Hugging Face and Keras, each read back and compared", export.main,
         ExportConfig(run=run, output=files.join(out, "exported"))),
        ("finetune: is a sentence about nature, technology or culture?", finetune.main,
         FinetuneConfig(init=run, output=tuned, **paths, **settings)),
        (f"predict: {config.text}", predict.main, answer),
    ):  # fmt: skip
        print(f"\n== {title}", flush=True)
        if code := stage(settled):
            return code
    print(f'\nNext: clozemill predict {tuned} --text "A sentence of yours."; then all of it on a corpus of your own.')
    return 0
