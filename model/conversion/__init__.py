"""Weights and tokenizers of other projects <-> ours. Imports model and pipelines.common."""
