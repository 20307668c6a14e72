"""`clozemill submit tpu`: manage a TPU VM from creation to deletion, and the programs that run on it."""
