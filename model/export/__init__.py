"""Export models as SavedModel, Hugging Face folder or Keras file. Imports conversion."""
