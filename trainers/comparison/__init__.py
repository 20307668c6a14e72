"""Compares runs by what they have recorded: `compare.main`. May import diagnosis, and the curves and ranks of training."""
