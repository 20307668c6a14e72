"""The commands as functions: the options by keyword, results as objects, errors as exceptions.

`import clozemill` offers them under their own names. Options have the names, defaults and checks of the commands, from the same
dataclasses. Nothing here ends the process or installs a signal handler.
"""

import inspect
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, asdict, fields
from typing import Any, TypeVar

from clozemill.deploy.loading import Dataset, Encoder
from clozemill.pipelines.command_line import lazy_import, options
from clozemill.pipelines.command_line.lazy_import import function
from clozemill.pipelines.common.errors import CheckFailed, UserError
from clozemill.pipelines.config import PrepareConfig, VocabConfig
from clozemill.pipelines.quality.config import VerifyConfig
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.contrast.config import ContrastConfig
from clozemill.trainers.export.config import ExportConfig
from clozemill.trainers.finetuning.config import FinetuneConfig
from clozemill.trainers.inference.config import EmbedConfig, EvaluateModelConfig, PredictConfig
from clozemill.trainers.pretraining.config import PretrainConfig

F = TypeVar("F", bound=Callable[..., Any])


def documented(config: type, *removed: str) -> Callable[[F], F]:
    """Give a function the signature and the list of options of a configuration, for help() and notebooks."""

    def apply(f: F) -> F:
        own = [p for p in inspect.signature(f).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        names = {p.name for p in own} | set(removed)
        listed = [field for field in fields(config) if field.name not in names]
        extra = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=field.type,
            )
            for field in listed
        ]
        f.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # inspect looks for it
            [*own, *extra], return_annotation=inspect.signature(f).return_annotation
        )
        lines = "".join(f"\n    {field.name}: {field.metadata['help']}" for field in listed)
        f.__doc__ = f"{inspect.cleandoc(f.__doc__ or '')}\n\nOptions:{lines}\n"
        return f

    return apply


def _configured(config: type, given: dict[str, Any]) -> Any:
    plain = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in given.items()}
    listed = {field.name for field in fields(config) if isinstance(field.default, tuple)}
    plain = {name: [value] if name in listed and isinstance(value, str) else value for name, value in plain.items()}
    return options.from_values(config, plain)


def _run(command: str, path: str, config: Any, *more: Any) -> None:
    """Run a command. Raises CheckFailed if it ends with another exit code than 0."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hide TensorFlow's notes; errors are raised
    hook = threading.excepthook
    try:
        code = lazy_import.run(path, config, *more)
    finally:
        threading.excepthook = hook  # Beam's threads are silenced while a pipeline runs
    if code:
        raise CheckFailed(f"{command} failed (exit code {code}): see what it printed")


class Run:
    """A run of `pretrain`, `finetune` or `contrast`: a folder with checkpoints.

    Attributes:
        folder: the run's folder; `evaluate`, `export`, `finetune`, `predict`, `embed` and `load_encoder` take it.
        checkpoint: the folder of the best checkpoint.
        step: its step.
        metrics: its evaluation, by name; empty without an eval split.
    """

    def __init__(self, folder: str) -> None:
        best = function("clozemill.trainers.training.checkpoints:find")(folder, "best")
        self.folder, self.checkpoint, self.step = folder, best.folder, best.step
        self.metrics: dict[str, Any] = dict(best.index.get("eval") or {})

    def __repr__(self) -> str:
        return f"Run({self.folder!r}, best checkpoint at step {self.step:,})"

    def __fspath__(self) -> str:
        return self.folder


@documented(VocabConfig)
def vocab(*, beam_options: Sequence[str] = (), **given: Any) -> Vocabulary:
    """Learn a WordPiece vocabulary from a corpus, as `clozemill vocab` does, and return it.

    Args:
        beam_options: flags for the Beam runner, such as "--region=europe-west4".

    Raises UserError.
    """
    config = _configured(VocabConfig, given)
    _run("vocab", "clozemill.pipelines.vocab.vocab:vocab", config, list(beam_options))
    from clozemill.pipelines.files import filesystem

    return Vocabulary.from_bytes(filesystem.read_bytes(config.output), config.output)


@documented(PrepareConfig)
def prepare(*, beam_options: Sequence[str] = (), **given: Any) -> Dataset:
    """Turn a corpus into TFRecord shards of masked examples, as `clozemill prepare` does, and return the dataset.

    Call it again with the same options to resume after an interruption.

    Args:
        beam_options: flags for the Beam runner.

    Raises UserError.
    """
    config = _configured(PrepareConfig, given)
    _run("prepare", "clozemill.pipelines.prepare.prepare:prepare", config, list(beam_options))
    return Dataset(config.output)


@documented(VerifyConfig)
def verify(dataset: str, **given: Any) -> list[str]:
    """Check a dataset as `clozemill verify` does. Return a line per violation; an empty list if the dataset is intact.

    Raises UserError for a folder without a dataset.
    """
    from clozemill.pipelines.dataset.reading import read_contract
    from clozemill.pipelines.quality.verify import violations

    config = _configured(VerifyConfig, {"progress": False, **given, "dataset": dataset})
    return list(violations(config, *read_contract(config.dataset)))


@documented(PretrainConfig)
def pretrain(**given: Any) -> Run:
    """Train an encoder, as `clozemill pretrain` does, and return the run.

    Call it again with the same options to resume after an interruption. Raises UserError; CheckFailed if the loss diverged.
    """
    config = _configured(PretrainConfig, given)
    _run("pretrain", "clozemill.trainers.pretraining.pretrain:main", config)
    return Run(config.output)


@documented(EvaluateModelConfig)
def evaluate(run: str, data: str, **given: Any) -> dict[str, Any]:
    """Evaluate a checkpoint on a dataset's eval split, or a fine-tuned model on a file with labels.

    Returns the metrics by name, such as `masked_lm_loss` (nats) and `masked_lm_accuracy` (0 to 1), or those of the task, with
    `baseline`, the metrics of the best constant answer. Raises UserError.
    """
    with tempfile.TemporaryDirectory(prefix="clozemill-") as folder:
        config = _configured(
            EvaluateModelConfig, {"output": os.path.join(folder, "metrics.json"), **given, "run": run, "data": data}
        )
        _run("evaluate", "clozemill.trainers.inference.evaluate:main", config)
        from clozemill.trainers.common import storage

        return json.loads(storage.read(config.output, "run it again"))


@documented(FinetuneConfig)
def finetune(**given: Any) -> Run:
    """Train an encoder with a head on a task, as `clozemill finetune` does, and return the run.

    For a sweep, or for several seeds, this is the best run. Raises UserError; CheckFailed if the loss diverged.
    """
    config = _configured(FinetuneConfig, given)
    _run("finetune", "clozemill.trainers.finetuning.finetune:main", config)
    return Run(function("clozemill.trainers.training.pretrained:best_run_of")(config.output))


@documented(ContrastConfig)
def contrast(**given: Any) -> Run:
    """Train an encoder to make vectors of sentences, as `clozemill contrast` does, and return the run.

    `embed` gives the vectors. Raises UserError; CheckFailed if the loss diverged.
    """
    config = _configured(ContrastConfig, given)
    _run("contrast", "clozemill.trainers.contrast.contrast:main", config)
    return Run(config.output)


@documented(ExportConfig)
def export(run: str, **given: Any) -> dict[str, str]:
    """Write a checkpoint in other formats, as `clozemill export` does. Returns the folder of each format.

    Raises UserError; CheckFailed if an export differs from its checkpoint. Then nothing is exported.
    """
    config = _configured(ExportConfig, {**given, "run": run})
    _run("export", "clozemill.trainers.export.export:main", config)
    return {name: os.path.join(config.output, name) for name in config.chosen()}


def _texts(texts: Iterable[str]) -> list[str]:
    found = list(texts)  # an iterator can be read only once
    if isinstance(texts, str) or not all(isinstance(text, str) for text in found):
        raise UserError("texts must be a list of texts")
    return found


@documented(PredictConfig, "text", "text_pair", "input", "output", "overwrite", "id_column")
def predict(run: str, texts: Iterable[str], pairs: Iterable[str] = (), **given: Any) -> list[dict[str, Any]]:
    """Return a model's answer for each text, as `clozemill predict` does for a file.

    Args:
        run: a run of `finetune`. A run of `pretrain` fills in the texts' [MASK]: its answers have `masks`, for each mask a list
            of `top_k` candidates with `token` and `probability`, and `filled`, the text with the first candidates.
        pairs: the second texts, for tasks on pairs; for question answering, `texts` are questions and `pairs` contexts.

    Raises UserError.
    """
    texts, pairs = _texts(texts), _texts(pairs)
    if pairs and len(pairs) != len(texts):
        raise UserError(f"there are {len(texts)} texts and {len(pairs)} pairs: give a second text for each")
    config = _configured(PredictConfig, {**given, "run": run})
    found = function("clozemill.trainers.training.pretrained:read")(config.run, config.checkpoint)
    predictor = function("clozemill.trainers.inference.predict:answerer")(config, found)
    rows = zip(texts, pairs or [""] * len(texts), strict=True)
    examples = [predictor.typed(*row, (f"texts[{number}]", f"pairs[{number}]")) for number, row in enumerate(rows)]
    return predictor(examples) if examples else []


@documented(EmbedConfig, "input", "text", "output", "overwrite")
def embed(run: str, texts: Iterable[str], **given: Any) -> list[dict[str, Any]]:
    """Return an encoder's features for each text, or for each token with `pool="none"`, as `clozemill embed` does for a file.

    For a run of `contrast`, they are sentence vectors of length 1 by default.

    Returns records with `row` (the number of the text), `features` (float32 [width]) and the text or token. Raises UserError.
    """
    config = _configured(EmbedConfig, {**given, "run": run})
    embedder_of = function("clozemill.trainers.inference.embed:Embedder")
    embedder = embedder_of(config, function("clozemill.trainers.training.pretrained:read")(config.run, config.checkpoint))
    rows = list(enumerate(_texts(texts)))
    return list(embedder.records(rows)) if rows else []


def compare(runs: Sequence[str]) -> list[dict[str, Any]]:
    """Return what `clozemill compare` tabulates, a row by name for each run, also while they train.

    Rows have the columns of its CSV, such as `steps`, `tokens`, `hours`, `best_step`, `metric` and `best`; None is unknown.
    Raises UserError.
    """
    rows = function("clozemill.trainers.comparison.compare:read_rows")([os.fspath(run) for run in runs])[1]
    return [asdict(row) for row in rows]


def doctor(run: str) -> list[dict[str, Any]]:
    """Return what `clozemill doctor` finds wrong with a run; an empty list if nothing is.

    Findings have a `kind`, the `evidence` and the `remedy`. Raises UserError.
    """
    found = function("clozemill.trainers.diagnosis.doctor:examine")(os.fspath(run))[1]
    return [asdict(finding) for finding in found]


def load_dataset(folder: str) -> Dataset:
    """Load a dataset: its manifest, statistics and examples. Raises UserError if the folder has no complete dataset."""
    return Dataset(os.fspath(folder))


def load_encoder(run: str, checkpoint: str = "best", max_seq_length: int = 0, precision: str = "float32") -> Encoder:
    """Load the encoder of a run, a checkpoint or an exported SavedModel, with its tokenizer.

    Args:
        checkpoint: best or latest.
        max_seq_length: truncate texts to this many tokens; 0: the length that the encoder was trained on.

    Raises UserError.
    """
    return Encoder(os.fspath(run), checkpoint, max_seq_length, precision)
