"""`clozemill evaluate`: a pretrained model on the eval split of a dataset, or a fine-tuned one on a file with labels.

clozemill evaluate RUN --data DATASET
clozemill evaluate FT --data test.tsv
"""

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import storage
from clozemill.trainers.finetuning.config import Columns
from clozemill.trainers.inference.config import EvaluateModelConfig
from clozemill.trainers.inference.predict import CHUNK, Predictor, chunks
from clozemill.trainers.pretraining import evaluate as pretraining_evaluate
from clozemill.trainers.training import checkpoints, pretrained


def _is_finetuned(run: str) -> bool:
    """Return whether a run, checkpoint or SavedModel has a task."""
    run = pretrained.best_run_of(run)
    if storage.exists(storage.join(run, pretrained.SAVED_MODEL)):
        return "task" in pretrained.read(run).index
    return "task" in checkpoints.find(run).index


def main(config: EvaluateModelConfig) -> int:
    """Print the metrics, and write them to --output."""
    if config.output:
        storage.check_new_file(config.output, config.overwrite)
    if _is_finetuned(config.run):
        return _evaluate_task(config)
    columns = [name for name in Columns.__dataclass_fields__ if getattr(config, name) != getattr(EvaluateModelConfig, name)]
    if columns or config.threshold is not None:
        flag = "--" + (columns or ["threshold"])[0].replace("_", "-")
        raise UserError(f"{flag} is for fine-tuned models, and {config.run} isn't one: leave it out")
    return pretraining_evaluate.main(config)


def _evaluate_task(config: EvaluateModelConfig) -> int:
    """Evaluate a fine-tuned model on a file with labels."""
    if storage.is_folder(config.data):
        raise UserError(f"--data {config.data} is a folder: {config.run} is fine-tuned, so give a file with labels")
    found = pretrained.read(config.run, config.checkpoint or "best")
    model = Predictor(config, found)
    scores, layout, labels = model.scores(), config.applied(model.layout()), model.spellings()
    rate = config.allowed(model.preset)
    for examples in chunks(model.task_type.read(config.data, layout, labels, answers=True, max_reject_rate=rate), CHUNK):
        scores.add(examples, model(examples))
    if not scores.examples:
        raise UserError(f"{config.data} has no examples: give a file with an example per line")
    length = model.task.max_seq_length
    notes = [f"note: {model.truncated:,} texts are truncated to {length} tokens"] if model.truncated else []
    print("\n".join([f"{found.name}, step {found.index['step']:,}", *notes, *scores.report()]), flush=True)
    if config.output:
        storage.write_json(config.output, scores.figures() | {"step": found.index["step"]}, config.overwrite)
    return 0
