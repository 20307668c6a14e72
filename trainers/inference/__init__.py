"""`clozemill predict` and `embed`. After finetuning."""
