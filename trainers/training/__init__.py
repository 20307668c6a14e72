"""The training loop, step and checkpoints shared by pretraining and fine-tuning, which implement the protocols of run.py."""
