"""Checks of a dataset. verify.py is the command; it runs shard_checks and dataset_checks.

shard_checks uses invariants (of examples), and dataset_checks gate.
"""
