"""Task types by name. To add one, add a class and an entry here, and the entries that classification.py names."""

from clozemill.trainers.finetuning.tasks.classification import Classify, MultiLabel, Regress
from clozemill.trainers.finetuning.tasks.question_answering import Spans
from clozemill.trainers.finetuning.tasks.token_classification import Tags

TASK_TYPES = {"classify": Classify, "multilabel": MultiLabel, "regress": Regress, "tags": Tags, "spans": Spans}
