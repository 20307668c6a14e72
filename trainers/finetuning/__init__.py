"""`clozemill finetune`. After training; doesn't import pretraining."""
