"""Ours -> SavedModel, Hugging Face, Keras. After conversion."""
