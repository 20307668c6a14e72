"""Errors, numbers and rules that all packages share, including the trainer. Imports neither Beam nor TensorFlow."""
