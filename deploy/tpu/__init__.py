"""Manage a TPU VM from creation to deletion, and the programs that run on it."""
