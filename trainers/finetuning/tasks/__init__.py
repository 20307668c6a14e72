"""One class per task type: rows to examples to tensors, and logits to answers. Entry point: registry.TASK_TYPES."""
