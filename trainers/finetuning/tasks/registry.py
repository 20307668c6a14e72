"""Task types by name. To add one, add a class and an entry here, and a preset of that name to TASKS in task_presets.py."""

from clozemill.trainers.finetuning.tasks.classification import Classify, MultiLabel, Regress
from clozemill.trainers.finetuning.tasks.question_answering import Spans
from clozemill.trainers.finetuning.tasks.similarity import Similarity
from clozemill.trainers.finetuning.tasks.task_type import TaskType
from clozemill.trainers.finetuning.tasks.token_classification import Tags

TASK_TYPES: dict[str, type[TaskType]] = {
    "classify": Classify,
    "multilabel": MultiLabel,
    "regress": Regress,
    "tags": Tags,
    "spans": Spans,
    "embed": Similarity,
}
