"""The training loop, checkpoints and the page of a run, shared by pretraining and fine-tuning (run_protocols.py)."""
