"""Convert weights and tokenizers of other projects to and from ours. Imports model and pipelines.common."""
