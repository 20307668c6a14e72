"""`clozemill evaluate`: compute masked-LM and next-sentence metrics on the eval split, every example once.

clozemill evaluate RUN --data DATASET
"""

from typing import Any

from clozemill.model.config import EncoderConfig
from clozemill.pipelines.command_line.options import require
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import storage
from clozemill.trainers.data import corrupt_shards, prepared_dataset
from clozemill.trainers.engines import train_state
from clozemill.trainers.engines.engine import make_engine
from clozemill.trainers.pretraining import evaluation
from clozemill.trainers.pretraining.evaluate_config import EvaluateConfig
from clozemill.trainers.pretraining.evaluation import Evaluation
from clozemill.trainers.training import checkpoints

_CONSTANT = {"next_sentence": "always the more frequent label:", "replaced": "calling every token original: at least"}


def _beside(figures: dict[str, Any], name: str) -> str:
    """Return the accuracy of a constant answer, in brackets; "" if it isn't known."""
    found = figures.get(f"{name}_baseline")
    return "" if found is None else f" ({_CONSTANT[name]} {100 * found:.2f} %)"


def report(figures: dict[str, Any]) -> list[str]:
    """Return the metrics as lines of text."""
    lines = [
        f"examples                {figures['examples']:,}, {figures['predictions']:,} tokens to predict",
        f"masked LM loss          {figures['masked_lm_loss']:.4f} nats (perplexity {figures['perplexity']:,.1f})",
        f"masked LM accuracy      {100 * figures['masked_lm_accuracy']:.2f} %",
    ]
    if "unigram_loss" in figures:
        frequencies = [
            f"  word frequencies      {figures['unigram_loss']:.4f} nats (of the train split, without any context)",
            f"  the best frequencies  {figures['unigram_entropy']:.4f} nats (of these very tokens, without context either)",
        ]
        lines[2:2] = frequencies
    if "next_sentence_loss" in figures:
        lines.append(f"next sentence loss      {figures['next_sentence_loss']:.4f} nats")
        accuracy = f"{100 * figures['next_sentence_accuracy']:.2f} %"
        lines.append(f"next sentence accuracy  {accuracy}{_beside(figures, 'next_sentence')}")
    if "replaced_loss" in figures:
        lines[1:] = [line.replace("masked LM", "generator") for line in lines[1:]]
        lines.append(f"replaced token loss     {figures['replaced_loss']:.4f} nats")
        lines.append(f"replaced token accuracy {100 * figures['replaced_accuracy']:.2f} %{_beside(figures, 'replaced')}")
    if "unigram_loss" in figures:
        lines += [f"warning: {remark}" for remark in evaluation.remarks(figures)]
    return lines


def main(config: EvaluateConfig) -> int:
    """Print the metrics of a checkpoint on a dataset's eval split."""
    require(config, "run", "data")
    one = checkpoints.find(config.run, config.checkpoint)
    if not one.index.get("objective"):
        raise UserError(f"{one.folder} has no masked-LM head: give a checkpoint of pretrain, or of an import with that head")
    dataset, about = prepared_dataset.read(config.data), one.index
    encoder = EncoderConfig(**about["encoder"])
    prepared_dataset.check_vocabulary(dataset, about["vocabulary"], one.folder)
    prepared_dataset.check_objective(dataset, about["objective"])
    prepared_dataset.check_segments(dataset, encoder.type_vocab_size, one.folder)
    prepared_dataset.check_lengths(dataset, encoder.max_position_embeddings)
    engine = make_engine(config)
    weights = checkpoints.weights(one)
    try:
        with engine.scope():
            model = train_state.loaded(about, weights, config.precision)
    except ValueError as error:
        raise UserError(f"{one.folder}: the weights don't fit ({error}): give another checkpoint") from None
    with corrupt_shards.report_corruption(dataset):
        figures = Evaluation(engine, model, dataset, config.batch_size).figures()
        figures |= evaluation.without_context(dataset, model.objective) | {"step": one.step}
    print(f"{one.folder}, step {one.step:,}, on the eval split of {config.data}")
    print("\n".join(report(figures)), flush=True)
    if config.output:
        storage.write_json(config.output, figures, config.overwrite)
    return 0
