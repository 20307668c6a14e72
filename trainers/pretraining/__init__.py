"""`clozemill pretrain` and `evaluate`. After training."""
