"""The training loop and what goes around it."""
