"""The presets of `clozemill finetune --task`, and of `contrast`: task type, file layout and metrics of each task.

GLUE's files are read as published (Wang et al. 2018). To add a task, add an entry to TASKS.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True)
class Layout:
    """The columns of texts and answers in a table, by name or, without a header, by number (-1: the last).

    separator: separator of the labels in a cell (multilabel). flags: columns of 0 and 1, one per label, instead of `label`.
    id: the column of an id that goes into the answers. named_by: the option that names all columns, if it is only one.
    """

    text: str = "text"
    pair: str = ""
    label: str = "label"
    header: bool = True
    separator: str = ""
    flags: tuple[str, ...] = ()
    id: str = ""
    named_by: str = field(default="", compare=False)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Layout":
        """Return the layout recorded in a checkpoint. Fields that only earlier versions recorded are ignored."""
        known: dict[str, Any] = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        known.pop("named_by", None)  # another command's option
        known |= {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**known)

    def columns(self, answers: bool) -> list[tuple[str, str]]:
        """Return the columns to read, each with the option that names it. answers: include the answer's column."""
        labels = [(flag, "--label-columns") for flag in self.flags] or [(self.label, self.option("label"))]
        texts = [(self.text, self.option("text")), (self.pair, self.option("pair")), (self.id, "--id-column")]
        found = [*texts, *(labels if answers else ())]
        return [(column, flag) for column, flag in found if column]

    def option(self, column: str) -> str:
        """Return the option that names the column of a text, pair or label."""
        return self.named_by or f"--{column}-column"

    def changed(self, text: str, pair: str, label: str, header: str) -> "Layout":
        """Return a copy with the non-empty arguments replaced; `header`: auto, yes or no."""
        given: dict[str, Any] = {name: value for name, value in (("text", text), ("pair", pair), ("label", label)) if value}
        return replace(self, **given, header=self.header if header == "auto" else header == "yes")


@dataclass(frozen=True)
class Preset:
    """A task.

    kind: a key of model.task_heads.TASK_HEADS. labels: (spelling in the files, name), in the order of the classes; empty: those
    of the training file. metrics: keys of metrics.METRICS; the first selects the best checkpoint. max_reject_rate: maximum
    fraction of unusable rows; the published files of some tasks have such rows.
    """

    kind: str
    layout: Layout
    labels: tuple[tuple[str, str], ...]
    metrics: tuple[str, ...]
    max_reject_rate: float = 0.0


def _binary(no: str, yes: str) -> tuple[tuple[str, str], ...]:
    return (("0", no), ("1", yes))


def _named(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, name) for name in names)


_ENTAILMENT = _named("entailment", "not_entailment")
_ENTITIES = tuple(f"{place}-{kind}" for kind in ("PER", "ORG", "LOC", "MISC") for place in "BI")
_COLUMNS = Layout("0", "", "-1", header=False)
# QQP has broken rows and empty questions, MNLI's own release has rows labelled "-", translated SQuADs have shifted answers.
PUBLISHED = 0.1

TASKS = {
    "classify": Preset("classify", Layout(), (), ("accuracy", "macro_f1")),
    "multilabel": Preset("multilabel", Layout(label="labels"), (), ("micro_f1", "macro_f1", "subset_accuracy")),
    "regress": Preset("regress", Layout(), (), ("pearson", "spearman")),
    "tags": Preset("tags", _COLUMNS, (), ("entity_f1", "token_accuracy")),
    "spans": Preset("spans", Layout(), (), ("f1", "exact_match"), PUBLISHED),
    "cola": Preset(
        "classify", Layout("3", "", "1", header=False), _binary("unacceptable", "acceptable"), ("matthews", "accuracy")
    ),
    "sst2": Preset("classify", Layout("sentence"), _binary("negative", "positive"), ("accuracy",)),
    "mrpc": Preset(
        "classify",
        Layout("#1 String", "#2 String", "Quality"),
        _binary("not_equivalent", "equivalent"),
        ("binary_f1", "accuracy"),
    ),
    "stsb": Preset("regress", Layout("sentence1", "sentence2", "score"), (), ("pearson", "spearman")),
    "qqp": Preset(
        "classify",
        Layout("question1", "question2", "is_duplicate"),
        _binary("not_duplicate", "duplicate"),
        ("binary_f1", "accuracy"),
        PUBLISHED,
    ),
    "mnli": Preset(
        "classify",
        Layout("sentence1", "sentence2", "gold_label"),
        _named("contradiction", "entailment", "neutral"),
        ("accuracy",),
        PUBLISHED,
    ),
    "qnli": Preset("classify", Layout("question", "sentence"), _ENTAILMENT, ("accuracy",)),
    "rte": Preset("classify", Layout("sentence1", "sentence2"), _ENTAILMENT, ("accuracy",)),
    "conll": Preset("tags", _COLUMNS, _named("O", *_ENTITIES), ("entity_f1", "token_accuracy")),
    "squad": Preset("spans", Layout(), (), ("f1", "exact_match"), PUBLISHED),
    "squad2": Preset("spans", Layout(), (), ("f1", "exact_match"), PUBLISHED),
    # pairs of texts and how similar they are: only evaluates, since contrast trains on texts alone
    "embed": Preset("embed", Layout("sentence1", "sentence2", "score"), (), ("spearman", "pearson")),
}
FINETUNED = tuple(name for name in TASKS if name != "embed")  # the tasks of finetune
