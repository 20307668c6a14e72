"""Every package knows every task type."""

from clozemill.model.export.signatures import ANSWERS
from clozemill.model.task_heads import TASK_HEADS
from clozemill.trainers.finetuning.task_presets import TASKS
from clozemill.trainers.finetuning.tasks.registry import TASK_TYPES


def test_the_packages_agree() -> None:
    assert set(TASK_TYPES) == set(TASK_HEADS) == set(ANSWERS) == {preset.kind for preset in TASKS.values()}
    assert all(TASKS[name].kind == name for name in TASK_TYPES)


def test_types_with_labels_say_how_many() -> None:
    assert {name for name, found in TASK_TYPES.items() if "{}" in found.description} == {
        name for name, head in TASK_HEADS.items() if head.labels
    }
