"""Checks of a dataset. verify.py is the command; it runs dataset_checks, which uses invariants (of examples) and gate."""
