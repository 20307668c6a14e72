"""One class per type of task: rows -> examples -> tensors, logits -> answers. Entry: registry.TASK_TYPES."""
