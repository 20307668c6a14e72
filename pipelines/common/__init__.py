"""Errors, numbers and rules that everything needs, the trainer too. Comes first; loads neither Beam nor TensorFlow."""
