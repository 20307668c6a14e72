"""`clozemill contrast`: sentence vectors. After finetuning."""
