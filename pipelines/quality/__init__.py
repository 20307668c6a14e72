"""Invariants, statistics, the gate, and `clozemill verify`. After dataset."""
