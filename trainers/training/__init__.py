"""The loop, step and checkpoints that pretraining and fine-tuning share; knows a run by the protocols of run.py. After data."""
