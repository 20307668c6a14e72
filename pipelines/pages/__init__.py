"""Self-contained HTML pages of tables, plots and examples, escaped. Loads neither Beam nor TensorFlow; for the trainer too."""
