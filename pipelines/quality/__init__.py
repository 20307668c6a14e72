"""Invariants, statistics, the statistical gate, and `clozemill verify`. May import dataset."""
